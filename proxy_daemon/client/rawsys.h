/* SPDX-License-Identifier: MIT */
/*
 * proxy_daemon/client/rawsys.h - system calls that pass the switch by
 *
 * The library is loaded into a process in which libc's socket calls lead to the switch, and is
 * called by the switch while that holds its own locks. So the few calls it needs go to the
 * kernel directly.
 *
 * Errors: the kernel's own form, -errno in the result; errno is not touched.
 */
#ifndef PROXY_DAEMON_RAWSYS_H
#define PROXY_DAEMON_RAWSYS_H

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__) && !defined(__ILP32__)
static inline long rawsys6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return r;
}
#else
static inline long rawsys6(long nr, long a, long b, long c, long d, long e, long f)
{
	int saved = errno;
	long r = syscall(nr, a, b, c, d, e, f);

	if (r == -1)
		r = -errno;
	errno = saved;
	return r;
}
#endif

#define rawsys(nr, a, b, c) rawsys6((nr), (long)(a), (long)(b), (long)(c), 0, 0, 0)

#endif
