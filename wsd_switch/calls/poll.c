/* SPDX-License-Identifier: MIT */
/* poll.c - poll and select (core/wait.c) */
#include <poll.h>
#include <sys/time.h>
#include <time.h>

#include "wsd_switch/calls/call.h"
#include "wsd_switch/core/sig.h"

static bool any_known(const struct pollfd *p, nfds_t n)
{
	struct pollfd x;
	nfds_t i;

	/* the kernel says EFAULT, EINVAL */
	if (n == 0 || n > TAB_FDS || !fault_copy(&x, p, sizeof(x)) || !fault_copy(&x, &p[n - 1], sizeof(x)))
		return false;
	for (i = 0; i < n; i++)
		if (p[i].fd >= 0 && (conn_get(p[i].fd) || eset_known(p[i].fd)))
			return true;
	return false;
}

static int poll_in(struct pollfd *p, nfds_t n, const struct timespec *to, const sigset_t *mask, bool ppoll_call)
{
	struct thr *t = cs_enter();
	sigset_t stripped;
	int r;

	sig_call_begin(t);
	ctl_look(t);
	r = wait_poll(t, p, n, to, sig_strip_mask(mask, &stripped), ppoll_call);
	cs_leave(t);
	return r;
}

WSD_EXPORT int poll(struct pollfd *p, nfds_t n, int ms)
{
	struct timespec ts = { ms / 1000, (ms % 1000) * 1000000l };

	real_ready();
	if (!proc_usable() || !any_known(p, n))
		return real.poll(p, n, ms);
	return poll_in(p, n, ms < 0 ? NULL : &ts, NULL, false);
}

WSD_EXPORT int ppoll(struct pollfd *p, nfds_t n, const struct timespec *to, const sigset_t *mask)
{
	sigset_t stripped;

	real_ready();
	if (!proc_usable() || (to && (to->tv_sec < 0 || to->tv_nsec < 0 || to->tv_nsec >= 1000000000)) ||
	    !any_known(p, n))
		return real.ppoll(p, n, to, sig_strip_mask(mask, &stripped));
	return poll_in(p, n, to, mask, true);
}

extern void __chk_fail(void) __attribute__((noreturn));
WSD_EXPORT int __poll_chk(struct pollfd *p, nfds_t n, int ms, size_t size);
WSD_EXPORT int __ppoll_chk(struct pollfd *p, nfds_t n, const struct timespec *to, const sigset_t *mask, size_t size);

int __poll_chk(struct pollfd *p, nfds_t n, int ms, size_t size)
{
	if (size / sizeof(*p) < n)
		__chk_fail();
	return poll(p, n, ms);
}

int __ppoll_chk(struct pollfd *p, nfds_t n, const struct timespec *to, const sigset_t *mask, size_t size)
{
	if (size / sizeof(*p) < n)
		__chk_fail();
	return ppoll(p, n, to, mask);
}

/* a connection or epoll set among the descriptors? false also for what the kernel will refuse */
static bool any_in_sets(int n, const fd_set *sets[3])
{
	size_t words = n > 0 ? ((size_t)n + 63) / 64 : 0, w;
	int s;

	if (n <= 0 || (unsigned)n > TAB_FDS)
		return false;
	for (s = 0; s < 3; s++) {
		unsigned long bits;

		if (!sets[s])
			continue;
		for (w = 0; w < words; w++) {
			if (!fault_copy(&bits, (const unsigned long *)sets[s] + w, sizeof(bits)))
				return false;
			while (bits) {
				int fd = (int)(w * 64) + __builtin_ctzl(bits);

				bits &= bits - 1;
				if (fd < n && (conn_get(fd) || eset_known(fd)))
					return true;
			}
		}
	}
	return false;
}

static int select_in(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *to, const sigset_t *mask)
{
	struct thr *t = cs_enter();
	sigset_t stripped;
	int ret;

	sig_call_begin(t);
	ctl_look(t);
	ret = wait_select(t, n, r, w, e, to, sig_strip_mask(mask, &stripped));
	cs_leave(t);
	return ret;
}

/* Linux's select leaves in *tv what was not slept */
WSD_EXPORT int select(int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *tv)
{
	const fd_set *sets[3] = { r, w, e };
	struct timespec to, begin, now;
	int64_t left;
	int ret, err;

	real_ready();
	if (!proc_usable() || !any_in_sets(n, sets) || (tv && (tv->tv_sec < 0 || tv->tv_usec < 0)))
		return real.select(n, r, w, e, tv);
	if (!tv)
		return select_in(n, r, w, e, NULL, NULL);
	to.tv_sec = tv->tv_sec + tv->tv_usec / 1000000;
	to.tv_nsec = (tv->tv_usec % 1000000) * 1000;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	ret = select_in(n, r, w, e, &to, NULL);
	err = errno;
	clock_gettime(CLOCK_MONOTONIC, &now);
	left = (to.tv_sec - (now.tv_sec - begin.tv_sec)) * 1000000ll + (to.tv_nsec - (now.tv_nsec - begin.tv_nsec)) / 1000;
	if (left < 0 || ret == 0)
		left = 0;
	tv->tv_sec = left / 1000000;
	tv->tv_usec = left % 1000000;
	errno = err;
	return ret;
}

WSD_EXPORT int pselect(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *to, const sigset_t *mask)
{
	const fd_set *sets[3] = { r, w, e };
	sigset_t stripped;

	real_ready();
	if (!proc_usable() || !any_in_sets(n, sets) ||
	    (to && (to->tv_sec < 0 || to->tv_nsec < 0 || to->tv_nsec >= 1000000000)))
		return real.pselect(n, r, w, e, to, sig_strip_mask(mask, &stripped));
	return select_in(n, r, w, e, to, mask);
}
