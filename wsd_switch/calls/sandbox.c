/* SPDX-License-Identifier: MIT */
/*
 * sandbox.c - entering seccomp (G22)
 *
 * A filter may kill for any system call that the program itself would not make (OpenSSH's does for getsockopt). So
 * everything leaves the ring first, and once the kernel has agreed the tables are frozen: every call then goes straight through, and
 * none of ours is ever made again in this process or its children.
 *
 * Bytes that lie unread in a ring cannot be reached after that. To leave them would be a gap in the stream; such a connection is
 * reset, and both programs see ECONNRESET. Probes of what the kernel offers (no filter given) change nothing.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "wsd_switch/calls/sandbox.h"
#include "wsd_switch/core/hand_on.h"

static bool usable(void)
{
	real_ready();
	return proc_usable() && !proc_is_vfork_child();
}

static bool has_filter(const void *p)
{
	struct sock_fprog f;

	if (!p)
		return false;
	fault_install();
	return fault_copy(&f, p, sizeof(f)) && f.len && f.filter;
}

static void freeze(bool entered)
{
	if (entered)
		atomic_store(&proc_frozen, 1);
}

long sandbox_seccomp(long op, long flags, long args)
{
	bool enter = usable() && ((op == SECCOMP_SET_MODE_STRICT && flags == 0 && args == 0) ||
				  (op == SECCOMP_SET_MODE_FILTER && has_filter((const void *)args)));
	long r;

	if (enter)
		hand_on_sandbox();
	r = real.syscall(SYS_seccomp, op, flags, args);
	freeze(enter && r >= 0);
	return r;
}

WSD_EXPORT int prctl(int op, ...)
{
	unsigned long a, b, c, d;
	bool enter = false;
	va_list ap;
	int r;

	va_start(ap, op);
	a = va_arg(ap, unsigned long);
	b = va_arg(ap, unsigned long);
	c = va_arg(ap, unsigned long);
	d = va_arg(ap, unsigned long);
	va_end(ap);
	real_ready();
	if (op == PR_SET_SECCOMP)
		enter = usable() && (a == SECCOMP_MODE_STRICT ||
				     (a == SECCOMP_MODE_FILTER && has_filter((const void *)b)));
	if (enter)
		hand_on_sandbox();
	r = real.prctl(op, a, b, c, d);
	freeze(enter && r == 0);
	return r;
}
