/* SPDX-License-Identifier: MIT */
/*
 * ready.c - every way to ask what a socket is ready for
 */
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <unistd.h>

#include "twin.h"

static int by_select(struct tw *t, bool p, short events, int timeout_ms)
{
	struct timeval tv = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };
	struct timespec ts = { timeout_ms / 1000, timeout_ms % 1000 * 1000000l };
	fd_set in, out, ex;
	int r;

	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_ZERO(&ex);
	if (events & POLLIN)
		FD_SET(t->fd, &in);
	if (events & POLLOUT)
		FD_SET(t->fd, &out);
	if (events & POLLPRI)
		FD_SET(t->fd, &ex);
	r = p ? pselect(t->fd + 1, &in, &out, &ex, timeout_ms < 0 ? NULL : &ts, NULL) :
		select(t->fd + 1, &in, &out, &ex, timeout_ms < 0 ? NULL : &tv);
	tw_log(t, "%s %#x timeout %d = %d in %d out %d ex %d %s", p ? "pselect" : "select", (unsigned)events, timeout_ms,
	       r, r > 0 && FD_ISSET(t->fd, &in), r > 0 && FD_ISSET(t->fd, &out), r > 0 && FD_ISSET(t->fd, &ex),
	       r < 0 ? strerrorname_np(errno) : "ok");
	return r;
}

/*
 * A question may be what has RDMA begun, in a direction that nothing is sent on; and until the other end knows, a round trip, the socket is not
 * writable. TCP is never so, but no program can rely on that: its next send might fill it. So it is let begin before the question.
 */
static void settle(struct tw *t, uint32_t events, int timeout_ms)
{
	struct pollfd p = { .fd = t->fd, .events = POLLOUT };
	uint64_t end = tw_now_us() + 300000;

	if (!t->device || timeout_ms != 0 || !(events & POLLOUT))
		return;
	while (poll(&p, 1, 0) == 0 && (tw_raw_poll(t->fd, POLLOUT) & POLLOUT) && tw_now_us() < end)
		;
}

int tw_ready(struct tw *t, unsigned kind, short events, int timeout_ms)
{
	struct timespec ts = { timeout_ms / 1000, timeout_ms % 1000 * 1000000l };
	struct pollfd pfd[3] = { { .fd = t->fd, .events = events }, { .fd = -1, .events = POLLIN },
				 { .fd = t->fd, .events = POLLRDHUP } };
	struct epoll_event ev = { .events = (uint32_t)events };
	int r, ep;

	settle(t, (uint32_t)events, timeout_ms);
	errno = 0;
	switch (kind % TW_READY_KINDS) {
	default:
		r = poll(pfd, 1, timeout_ms);
		tw_log(t, "poll %#x timeout %d = %d revents %#x %s", (unsigned)events, timeout_ms, r,
		       (unsigned)pfd[0].revents, r < 0 ? strerrorname_np(errno) : "ok");
		return r;
	case 1:
		r = ppoll(pfd, 1, timeout_ms < 0 ? NULL : &ts, NULL);
		tw_log(t, "ppoll %#x timeout %d = %d revents %#x %s", (unsigned)events, timeout_ms, r,
		       (unsigned)pfd[0].revents, r < 0 ? strerrorname_np(errno) : "ok");
		return r;
	case 2:
		return by_select(t, false, events, timeout_ms);
	case 3:
		return by_select(t, true, events, timeout_ms);
	case 4:
		r = poll(pfd, 3, timeout_ms);
		tw_log(t, "poll of 3 %#x timeout %d = %d revents %#x %#x %#x %s", (unsigned)events, timeout_ms, r,
		       (unsigned)pfd[0].revents, (unsigned)pfd[1].revents, (unsigned)pfd[2].revents,
		       r < 0 ? strerrorname_np(errno) : "ok");
		return r;
	case 5:			/* a set that lives for one question */
		ep = epoll_create1(EPOLL_CLOEXEC);
		if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, t->fd, &ev) < 0)
			tw_fail(t, "private epoll set: %m");
		ev.events = 0;
		r = epoll_wait(ep, &ev, 1, timeout_ms);
		tw_log(t, "one-shot set %#x timeout %d = %d events %#x %s", (unsigned)events, timeout_ms, r,
		       r > 0 ? ev.events : 0, r < 0 ? strerrorname_np(errno) : "ok");
		close(ep);
		return r;
	}
}

void tw_ep_ctl(struct tw *t, int op, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.u64 = 0xabcdef0000000000ull | events };
	int r;

	errno = 0;
	r = epoll_ctl(t->epfd, op, t->fd, op == EPOLL_CTL_DEL ? NULL : &ev);
	tw_log(t, "epoll_ctl %d %#x = %d %s", op, events, r, r < 0 ? strerrorname_np(errno) : "ok");
}

int tw_ep_wait(struct tw *t, unsigned kind, int max, int timeout_ms)
{
	struct timespec ts = { timeout_ms / 1000, timeout_ms % 1000 * 1000000l };
	static const char *const name[] = { "epoll_wait", "epoll_pwait", "epoll_pwait2", "poll of the set, epoll_wait" };
	struct epoll_event ev[4];
	struct pollfd pfd = { .fd = t->epfd, .events = POLLIN };
	int r;

	memset(ev, 0, sizeof(ev));
	if (t->ep_in[t->me])
		settle(t, t->ep_ev[t->me], timeout_ms);
	errno = 0;
	switch (kind % 4) {
	default:
		r = epoll_wait(t->epfd, ev, max, timeout_ms);
		break;
	case 1:
		r = epoll_pwait(t->epfd, ev, max, timeout_ms, NULL);
		break;
	case 2:
		r = epoll_pwait2(t->epfd, ev, max, timeout_ms < 0 ? NULL : &ts, NULL);
		break;
	case 3:			/* the set itself is readable exactly when it has something to report */
		r = poll(&pfd, 1, timeout_ms);
		tw_log(t, "poll of the set = %d revents %#x", r, (unsigned)pfd.revents);
		r = epoll_wait(t->epfd, ev, max, 0);
		break;
	}
	tw_log(t, "%s max %d timeout %d = %d events %#x data %#llx %s", name[kind % 4], max, timeout_ms, r,
	       r > 0 ? ev[0].events : 0, r > 0 ? (unsigned long long)ev[0].data.u64 : 0,
	       r < 0 ? strerrorname_np(errno) : "ok");
	return r;
}
