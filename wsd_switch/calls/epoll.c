/* SPDX-License-Identifier: MIT */
/* epoll.c - epoll calls: the mirror (core/eset.c) first */
#include "wsd_switch/calls/call.h"
#include "wsd_switch/core/sig.h"

static int made(int fd)
{
	int e = errno;

	if (fd >= 0 && proc_usable() && !proc_is_vfork_child()) {
		if (conn_get(fd))
			conn_close_fd(fd);
		eset_new(fd);
	}
	errno = e;
	return fd;
}

WSD_EXPORT int epoll_create1(int flags)
{
	real_ready();
	return made(real.epoll_create1(flags));
}

WSD_EXPORT int epoll_create(int size)
{
	real_ready();
	if (size <= 0) {
		errno = EINVAL;
		return -1;
	}
	return made(real.epoll_create1(0));
}

WSD_EXPORT int epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
	struct thr *t;
	int r;

	real_ready();
	if (!proc_usable() || (!conn_get(fd) && !eset_known(fd)))
		return real.epoll_ctl(epfd, op, fd, ev);
	t = cs_enter();
	ctl_look(t);
	r = eset_ctl(t, epfd, op, fd, ev);
	cs_leave(t);
	return r;
}

static int wait_in(int epfd, struct epoll_event *ev, int max, const struct timespec *to, const sigset_t *mask)
{
	struct thr *t = cs_enter();
	sigset_t stripped;
	int r;

	sig_call_begin(t);
	ctl_look(t);
	r = eset_wait(t, epfd, ev, max, to, sig_strip_mask(mask, &stripped));
	cs_leave(t);
	return r;
}

static const struct timespec *ms_to_ts(int ms, struct timespec *ts)
{
	if (ms < 0)
		return NULL;
	ts->tv_sec = ms / 1000;
	ts->tv_nsec = (ms % 1000) * 1000000l;
	return ts;
}

WSD_EXPORT int epoll_wait(int epfd, struct epoll_event *ev, int max, int ms)
{
	struct timespec ts;

	real_ready();
	if (!proc_usable() || !eset_known(epfd))
		return real.epoll_wait(epfd, ev, max, ms);
	return wait_in(epfd, ev, max, ms_to_ts(ms, &ts), NULL);
}

WSD_EXPORT int epoll_pwait(int epfd, struct epoll_event *ev, int max, int ms, const sigset_t *mask)
{
	struct timespec ts;
	sigset_t stripped;

	real_ready();
	if (!proc_usable() || !eset_known(epfd))
		return real.epoll_pwait(epfd, ev, max, ms, sig_strip_mask(mask, &stripped));
	return wait_in(epfd, ev, max, ms_to_ts(ms, &ts), mask);
}

WSD_EXPORT int epoll_pwait2(int epfd, struct epoll_event *ev, int max, const struct timespec *to, const sigset_t *mask)
{
	sigset_t stripped;

	real_ready();
	if (!proc_usable() || !eset_known(epfd) ||
	    (to && (to->tv_sec < 0 || to->tv_nsec < 0 || to->tv_nsec >= 1000000000)))
		return real.epoll_pwait2(epfd, ev, max, to, sig_strip_mask(mask, &stripped));
	return wait_in(epfd, ev, max, to, mask);
}
