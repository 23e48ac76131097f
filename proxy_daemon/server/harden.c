/* SPDX-License-Identifier: MIT */
#include <cap-ng.h>
#include <errno.h>
#include <seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy_daemon/server/harden.h"
#include "proxy_daemon/server/log.h"

void harden_limits(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &rl) < 0)
			log_debug("descriptor limit stays: %m");
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		log_debug("no_new_privs: %m");
}

static void drop_capabilities(void)
{
	static const unsigned keep[] = {
		CAP_SYS_PTRACE,		/* /proc/PID/fd and ns/net of other users' processes */
		CAP_DAC_READ_SEARCH,	/* the same: the directory is its owner's */
		CAP_SYS_ADMIN,		/* setns into a client's network namespace */
		CAP_NET_ADMIN,
		CAP_SYS_RESOURCE,	/* descriptors in flight above the limit */
	};
	unsigned i, have = 0;

	capng_get_caps_process();
	/* to ask for one that a container has taken from us would fail as a whole */
	for (i = 0; i < sizeof(keep) / sizeof(*keep); i++)
		have |= (unsigned)!!capng_have_capability(CAPNG_PERMITTED, keep[i]) << i;
	if (!capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP))
		return;
	capng_clear(CAPNG_SELECT_BOTH);
	for (i = 0; i < sizeof(keep) / sizeof(*keep); i++)
		if (have & 1u << i)
			capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, keep[i]);
	/* apart: where the bounding set may not be touched, the rest still goes */
	if (capng_apply(CAPNG_SELECT_BOUNDS))
		log_debug("capability bounding set stays");
	if (capng_apply(CAPNG_SELECT_CAPS))
		log_debug("capabilities stay");
}

/* A list of what is allowed; the rest fails with EPERM. Not a kill: an unforeseen call of a library
 * must cost a message, not every session's G21. */
static __attribute__((unused)) void filter_calls(bool peers)
{
	static const int allow[] = {
		SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(close), SCMP_SYS(lseek),
		SCMP_SYS(openat), SCMP_SYS(newfstatat), SCMP_SYS(fstat), SCMP_SYS(stat), SCMP_SYS(statx),
		SCMP_SYS(lstat), SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2),
		SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(unlink), SCMP_SYS(unlinkat), SCMP_SYS(flock),
		SCMP_SYS(fcntl), SCMP_SYS(dup), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(epoll_create1),
		SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2),
		SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime), SCMP_SYS(signalfd4), SCMP_SYS(eventfd2),
		SCMP_SYS(bind), SCMP_SYS(connect), SCMP_SYS(accept4), SCMP_SYS(shutdown),
		SCMP_SYS(getsockname), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(sendto),
		SCMP_SYS(recvfrom), SCMP_SYS(sendmsg), SCMP_SYS(recvmsg),
		SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(mprotect), SCMP_SYS(madvise), SCMP_SYS(brk),
		SCMP_SYS(memfd_create), SCMP_SYS(ftruncate), SCMP_SYS(fallocate),
		SCMP_SYS(setns), SCMP_SYS(clone), SCMP_SYS(clone3), SCMP_SYS(set_robust_list), SCMP_SYS(rseq),
		SCMP_SYS(futex), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(prctl),
		SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(tgkill), SCMP_SYS(restart_syscall),
		SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
		SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid),
		SCMP_SYS(getegid), SCMP_SYS(getrandom), SCMP_SYS(prlimit64), SCMP_SYS(uname),
		SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(gettimeofday), SCMP_SYS(getdents64),
	};
	/* with links to other hosts: their addresses come and go, so sockets are made all the time */
	static const int allow_peers[] = { SCMP_SYS(listen), SCMP_SYS(getpeername) };
	static const int families[] = { AF_UNIX, AF_NETLINK, AF_INET, AF_INET6 };
	unsigned n_families = peers ? 4 : 2;
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	unsigned i;
	int r = 0;

	if (!ctx)
		return;
	for (i = 0; i < sizeof(allow) / sizeof(*allow) && !r; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allow[i], 0);
	for (i = 0; peers && i < sizeof(allow_peers) / sizeof(*allow_peers) && !r; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allow_peers[i], 0);
	for (i = 0; i < n_families && !r; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i]));
	/* newer than the library: pidfd_open is 434 everywhere */
	if (!r)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, 434, 0);
	if (!r)
		r = seccomp_load(ctx);
	if (r)
		log_debug("no seccomp filter: %s", strerror(-r));
	seccomp_release(ctx);
}

void harden_privileges(bool sandbox, bool peers)
{
	if (geteuid() == 0)
		drop_capabilities();
#ifndef __SANITIZE_ADDRESS__	/* its leak check traces the process, and spins when it may not */
	if (sandbox)
		filter_calls(peers);
#endif
}
