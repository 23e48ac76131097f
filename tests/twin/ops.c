/* SPDX-License-Identifier: MIT */
/*
 * ops.c - the steps a connection goes through while it is open both ways
 *
 * Every function here is called by both ends with the same arguments and draws the same numbers. @a is the end
 * that acts, @b the other one.
 */
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "twin.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static size_t some_size(struct tw *t)
{
	static const unsigned near[] = { 64, 512, 1448, 4096, 4096, 8192, 16384, 32768 };

	switch (tw_pick(t, 8)) {
	case 0:
	case 1:
	case 2:
		return tw_pick(t, 20);
	case 3:
	case 4:
		return tw_pick(t, 300);
	case 5:
		return near[tw_pick(t, 8)] + tw_pick(t, 7) - 3;
	case 6:
		return tw_pick(t, 6000);
	default:
		return tw_pick(t, 5) ? 1 : tw_pick(t, TW_FLY_MAX);
	}
}

/* Takes everything in flight towards @a, so that a step may begin with an empty stream. */
static void drain(struct tw *t, int a)
{
	uint64_t sub = tw_rnd(t);
	unsigned chunk = 1u << tw_pick(t, 16);

	if (t->fly[!a] > 2000 && chunk < 256)
		chunk = 256;
	if (MINE(t, a) && t->fly[!a])
		tw_recv_all(t, t->fly[!a], chunk, sub);
	t->fly[!a] = 0;
}

static void op_send(struct tw *t, int a)
{
	size_t n = some_size(t);
	unsigned kind = tw_pick(t, TW_SEND_KINDS), f = tw_pick(t, 8);
	uint64_t sub = tw_rnd(t);
	int flags = f == 0 ? MSG_NOSIGNAL : f == 1 ? MSG_DONTWAIT : f == 2 ? MSG_EOR : f == 3 ? MSG_NOSIGNAL | MSG_DONTWAIT : 0;

	if (t->fly[a] + n > TW_FLY_MAX)
		drain(t, !a);
	if (f == 4 && n) {
		/* MORE holds the bytes back: always followed by a call that lets them go */
		if (MINE(t, a)) {
			tw_send(t, kind & 1 ? 1 : 5, n, MSG_MORE, sub);
			tw_send(t, 1, 1, 0, sub);
		}
		t->fly[a] += 1;
	} else if (MINE(t, a)) {
		tw_send(t, kind, n, flags, sub);
	}
	t->fly[a] += n;
}

#define TIMED_US	15000
#define TIMED_SLACK_US	500	/* the coarse clock's readings are not quite whole ticks apart */
#define TIMED_MOST_US	100000

static uint64_t clock_us(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/*
 * The timing of a receive that finds nothing and may wait a while. TCP counts ticks, and a guest that stood still gets many of them at once, so that
 * it waits for less than the time; but the coarse clock goes by the same ticks. One of the two shows all of it, whatever the machine does
 * (1,600 on a busy one: 20 ms and more). Late it may be on a busy one, but not five times in a row.
 */
static void recv_timed(struct tw *t, unsigned kind, size_t n, int flags, uint64_t sub)
{
	struct timeval tv = { 0, TIMED_US }, zero = { 0, 0 };
	uint64_t t0, c0, took, ticks;
	int log = t->log_fd, i = 0;
	bool late;

	if (setsockopt(t->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) < 0)
		tw_fail(t, "SO_RCVTIMEO: %m");
	do {
		c0 = clock_us(CLOCK_MONOTONIC_COARSE);
		t0 = clock_us(CLOCK_MONOTONIC);
		tw_recv(t, kind, n, flags, sub);
		took = clock_us(CLOCK_MONOTONIC) - t0;
		ticks = clock_us(CLOCK_MONOTONIC_COARSE) - c0;
		t->log_fd = -1;
		late = took > TIMED_MOST_US;
	} while (late && ++i < 5);
	t->log_fd = log;
	if (took < ticks)
		took = ticks;
	tw_log(t, "the time-out was %s", late ? "LATE" : took + TIMED_SLACK_US >= TIMED_US ? "kept" : "CUT SHORT");
	if (setsockopt(t->fd, SOL_SOCKET, SO_RCVTIMEO, &zero, sizeof(zero)) < 0)
		tw_fail(t, "SO_RCVTIMEO: %m");
}

static void op_recv(struct tw *t, int a)
{
	static const int flagset[] = { 0, 0, 0, 0, MSG_PEEK, MSG_PEEK, MSG_DONTWAIT, MSG_WAITALL, MSG_TRUNC,
				       MSG_PEEK | MSG_DONTWAIT, MSG_WAITALL | MSG_DONTWAIT, MSG_NOSIGNAL,
				       MSG_PEEK | MSG_TRUNC, MSG_DONTWAIT, MSG_CMSG_CLOEXEC, MSG_WAITALL | MSG_PEEK };
	size_t n = tw_pick(t, 3) ? some_size(t) : (size_t)1 << tw_pick(t, 20), got;
	unsigned kind = tw_pick(t, TW_RECV_KINDS);
	int flags = flagset[tw_pick(t, 16)];
	bool takes_flags = kind != 0 && kind != 3 && kind != 6 && kind != 8 && kind != 10;
	bool wait_ok = tw_pick(t, 12) == 0;
	uint64_t sub = tw_rnd(t);
	uint32_t avail = t->fly[!a];
	bool blocks;

	if (!takes_flags)
		flags = 0;	/* splice too: for the socket only O_NONBLOCK counts, not SPLICE_F_NONBLOCK */
	if (kind == 5)
		flags &= ~(MSG_PEEK | MSG_TRUNC);
	if (kind == 10 && n > 16384)
		n = 16384;
	blocks = !t->nb[a] && !(flags & MSG_DONTWAIT);
	if (blocks && (flags & MSG_WAITALL) && n > avail)
		n = avail;			/* more is waited for in op_wait_all() */
	if (blocks && !avail && (n || takes_flags || kind == 10)) {
		if (!wait_ok || kind == 10 || kind == 5)
			return;
		if (MINE(t, a))
			recv_timed(t, kind, n, flags & ~MSG_WAITALL, sub);
		return;
	}
	if (MINE(t, a))
		tw_recv(t, kind, n, flags, sub);
	got = n < avail ? n : avail;
	if (!(flags & MSG_PEEK))
		t->fly[!a] -= (uint32_t)got;
}

static void op_ready(struct tw *t, int a)
{
	static const short evs[] = { POLLIN, POLLOUT, POLLIN | POLLOUT, POLLIN | POLLRDHUP, POLLPRI, 0, POLLIN | POLLPRI,
				     POLLIN | POLLOUT | POLLRDHUP | POLLPRI | POLLRDNORM | POLLWRNORM };
	unsigned kind = tw_pick(t, TW_READY_KINDS), e = tw_pick(t, 8), wait = tw_pick(t, 12);

	/* a select() of nothing with a time-out is only a sleep */
	if (MINE(t, a))
		tw_ready(t, kind, evs[e], wait == 0 ? 3 : 0);
}

static void op_query(struct tw *t, int a)
{
	struct sockaddr_storage sa;
	struct tcp_info ti;
	socklen_t len;
	unsigned which = tw_pick(t, 8);
	uint64_t until_us;
	int v = -1, r, rounds = 0;

	if (!MINE(t, a))
		return;
	switch (which) {
	default:
		r = ioctl(t->fd, FIONREAD, &v);
		tw_log(t, "FIONREAD = %d: %d", r, v);
		return;
	case 2:
		/* the ACK may be late: the fixed point is 0 */
		until_us = tw_now_us() + 300000;
		do {
			v = -1;
			r = ioctl(t->fd, SIOCOUTQ, &v);
		} while (r == 0 && v > 0 && tw_now_us() < until_us);
		tw_log(t, "SIOCOUTQ = %d: at last %d", r, v);
		return;
	case 3:
		until_us = tw_now_us() + 300000;
		do {
			memset(&ti, 0, sizeof(ti));
			len = sizeof(ti);
			r = getsockopt(t->fd, IPPROTO_TCP, TCP_INFO, &ti, &len);
			rounds++;
		} while (r == 0 && (ti.tcpi_bytes_acked < t->tx || ti.tcpi_unacked) && tw_now_us() < until_us);
		/* The handshake counts one on the side that connected; a SYN's octet shows up in bytes_acked. */
		tw_log(t, "TCP_INFO = %d: received %lld of the stream's bytes, acked %s, state %u", r,
		       (long long)(ti.tcpi_bytes_received - (t->rx + t->fly[!t->me])),
		       ti.tcpi_bytes_acked - t->tx <= 1 ? "all" : "NOT ALL", ti.tcpi_state);
		return;
	case 4:
		len = sizeof(v);
		r = getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &v, &len);
		tw_log(t, "SO_ERROR = %d: %d length %u", r, v, len);
		return;
	case 5:
		len = sizeof(sa);
		r = getpeername(t->fd, (struct sockaddr *)&sa, &len);
		tw_log(t, "getpeername = %d length %u family %u", r, len, sa.ss_family);
		len = sizeof(sa);
		r = getsockname(t->fd, (struct sockaddr *)&sa, &len);
		tw_log(t, "getsockname = %d length %u family %u", r, len, sa.ss_family);
		return;
	case 6:
		r = ioctl(t->fd, SIOCATMARK, &v);
		tw_log(t, "SIOCATMARK = %d: %d", r, v);
		return;
	case 7:
		r = fcntl(t->fd, F_GETFL);
		tw_log(t, "F_GETFL = %#x, F_GETFD = %d", (unsigned)r, fcntl(t->fd, F_GETFD));
		return;
	}
}

static void op_nonblock(struct tw *t, int a)
{
	unsigned how = tw_pick(t, 2);
	int v = !t->nb[a], r;

	t->nb[a] = v;
	if (!MINE(t, a))
		return;
	if (how) {
		r = ioctl(t->fd, FIONBIO, &v);
	} else {
		r = fcntl(t->fd, F_GETFL);
		r = fcntl(t->fd, F_SETFL, v ? r | O_NONBLOCK : r & ~O_NONBLOCK);
	}
	tw_log(t, "%s %d = %d", how ? "FIONBIO" : "O_NONBLOCK", v, r);
}

/* The socket moves to another number; the old one may be closed, or live on as a second name for a while. */
static void op_move(struct tw *t, int a)
{
	unsigned how = tw_pick(t, 6);
	bool leave = tw_pick(t, 4) == 0;
	int old = t->fd, r = -1;

	if (!MINE(t, a)) {
		if (!leave)
			t->ep_in[a] = false;
		return;
	}
	if (t->ep_in[a] && !leave) {
		tw_ep_ctl(t, EPOLL_CTL_DEL, 0);
		t->ep_in[a] = false;
	}
	switch (how) {
	case 0:
		r = dup(old);
		break;
	case 1:
		r = dup2(old, 60 + t->me);
		break;
	case 2:
		r = dup3(old, 62 + t->me, O_CLOEXEC);
		break;
	case 3:
		r = fcntl(old, F_DUPFD, 70 + 2 * t->me);
		break;
	case 4:
		r = fcntl(old, F_DUPFD_CLOEXEC, 80 + 2 * t->me);
		break;
	default:
		r = dup2(old, old);
	}
	if (t->threads)		/* which numbers are free depends on the other thread */
		tw_log(t, "move %u %s", how, r < 0 ? "failed" : "done");
	else
		tw_log(t, "move %u: %d -> %d", how, old, r);
	if (r < 0 && how != 2)
		tw_fail(t, "cannot duplicate: %m");
	if (r == old || r < 0)		/* dup3 to its own number is an error, dup2 is not */
		return;
	if (t->ep_in[a]) {
		/* a registration belongs to the old number: put it where DEL and MOD will find it */
		epoll_ctl(t->epfd, EPOLL_CTL_DEL, old, NULL);
		t->fd = r;
		tw_ep_ctl(t, EPOLL_CTL_ADD, t->ep_ev[a]);
	}
	t->fd = r;
	r = close(old);
	tw_log(t, "close of the old number = %d", r);
}

static void op_epoll(struct tw *t, int a)
{
	static const uint32_t evs[] = { EPOLLIN, EPOLLIN | EPOLLOUT, EPOLLIN | EPOLLRDHUP, EPOLLIN | EPOLLET,
					EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, EPOLLIN | EPOLLONESHOT,
					EPOLLOUT, EPOLLIN | EPOLLOUT | EPOLLET };
	unsigned what = tw_pick(t, 8), e = tw_pick(t, 8), kind = tw_pick(t, 4), max = 1 + tw_pick(t, 4);
	bool again = tw_pick(t, 2);

	switch (what) {
	case 0:
		if (MINE(t, a))
			tw_ep_ctl(t, EPOLL_CTL_ADD, evs[e]);	/* EEXIST when it is in: a result like any other */
		if (!t->ep_in[a])
			t->ep_ev[a] = evs[e];
		t->ep_in[a] = true;
		return;
	case 1:
	case 2:
		if (MINE(t, a))
			tw_ep_ctl(t, EPOLL_CTL_MOD, evs[e]);
		if (t->ep_in[a])
			t->ep_ev[a] = evs[e];
		return;
	case 3:
		if (MINE(t, a) && e < 3)
			tw_ep_ctl(t, EPOLL_CTL_DEL, 0);
		if (e < 3)
			t->ep_in[a] = false;
		return;
	default:
		if (MINE(t, a)) {
			tw_ep_wait(t, kind, (int)max, 0);
			if (again)
				tw_ep_wait(t, 0, (int)max, 0);
		}
	}
}

/* One round of request and reply, waiting in the way @how says. */
static void pp_wait(struct tw *t, unsigned how, size_t n, unsigned round)
{
	struct pollfd pfd = { .fd = t->fd, .events = POLLIN };
	struct epoll_event ev;
	size_t done = 0;
	ssize_t r;

	while (done < n) {
		if ((how == 1 && poll(&pfd, 1, 10000) != 1) || (how >= 2 && epoll_wait(t->epfd, &ev, 1, 10000) != 1))
			tw_fail(t, "%s in a ping-pong: no event in 10 s in round %u, with %zu of %zu bytes, at offset %llu",
				how == 1 ? "poll" : how == 3 ? "epoll_wait (ET)" : "epoll_wait (LT)", round, done, n, (unsigned long long)t->rx);
		do {
			r = recv(t->fd, t->buf, n - done, how == 4 ? MSG_DONTWAIT : 0);
			if (r > 0) {
				tw_check(t, t->buf, (size_t)r, true);
				done += (size_t)r;
			}
		} while (r > 0 && done < n);
		if (r == 0 || (r < 0 && errno != EAGAIN))
			tw_fail(t, "receive in a ping-pong gave %zd: %m", r);
		if (r < 0 && how == 0 && !t->nb[t->me])
			tw_fail(t, "EAGAIN from a blocking socket");
		if (r < 0 && how == 0)
			poll(&pfd, 1, 10000);
	}
}

/* Many round trips: what makes an accelerated connection run in its fast state. */
void tw_ping_pong(struct tw *t, unsigned rounds, size_t n, unsigned how0, unsigned how1);
void tw_ping_pong(struct tw *t, unsigned rounds, size_t n, unsigned how0, unsigned how1)
{
	unsigned how = t->me ? how1 : how0, i;
	bool was_in = t->ep_in[t->me], was_nb = t->nb[t->me];
	int on = 1, off = 0;

	if (how >= 2) {
		if (was_in)
			epoll_ctl(t->epfd, EPOLL_CTL_DEL, t->fd, NULL);
		if (epoll_ctl(t->epfd, EPOLL_CTL_ADD, t->fd,
			      &(struct epoll_event) { .events = EPOLLIN | (how == 3 ? EPOLLET : 0) }) < 0)
			tw_fail(t, "ping-pong set: %m");
		if (how == 3 && !was_nb)
			ioctl(t->fd, FIONBIO, &on);
	}
	for (i = 0; i < rounds; i++) {
		if (t->me == 0) {
			tw_send_all(t, n, n > 1 ? 1 << 20 : 1, i);
			pp_wait(t, how, n, i);
		} else {
			pp_wait(t, how, n, i);
			tw_send_all(t, n, n > 1 ? 1 << 20 : 1, i);
		}
	}
	if (how >= 2) {
		if (how == 3 && !was_nb)
			ioctl(t->fd, FIONBIO, &off);
		epoll_ctl(t->epfd, EPOLL_CTL_DEL, t->fd, NULL);
		if (was_in)
			epoll_ctl(t->epfd, EPOLL_CTL_ADD, t->fd, &(struct epoll_event) {
				.events = t->ep_ev[t->me], .data.u64 = 0xabcdef0000000000ull | t->ep_ev[t->me] });
	}
	tw_log(t, "ping-pong of %u x %zu done", rounds, n);
}

static void op_ping_pong(struct tw *t)
{
	unsigned rounds = 1 + tw_pick(t, 40), how0 = tw_pick(t, 5), how1 = tw_pick(t, 5);
	size_t n = 1 + (tw_pick(t, 4) ? tw_pick(t, 100) : tw_pick(t, 9000));

	drain(t, 0);
	drain(t, 1);
	tw_barrier(t);
	tw_ping_pong(t, t->nagle && rounds > 4 ? 4 : rounds, n, how0, how1);
}

static void op_bulk(struct tw *t, int a)
{
	static const unsigned near[] = { 65536, 131072, 262144, 1048576 };
	size_t n = near[tw_pick(t, 4)] + tw_pick(t, 9) - 4;
	unsigned c0 = 1u << (6 + tw_pick(t, 13)), c1 = 1u << (6 + tw_pick(t, 13));
	uint64_t sub = tw_rnd(t);
	bool duplex = tw_pick(t, 4) == 0;

	drain(t, !a);
	if (duplex) {
		/* both send first: at most what fits into the buffers of both kernels */
		if (n > 65536)
			n = 65536;
		drain(t, a);
	}
	tw_barrier(t);
	if (MINE(t, a) || duplex)
		tw_send_all(t, n, c0, sub);
	if (!MINE(t, a) || duplex)
		tw_recv_all(t, n, c1, sub + 1);
	tw_log(t, "bulk %zu by %u and %u %s done", n, c0, c1, duplex ? "both ways" : "one way");
}

/* Fill the connection until it takes no more, see that it says so, empty it, see that it says that too. */
static void op_overflow(struct tw *t, int a)
{
	unsigned chunk = 1u << (8 + tw_pick(t, 10)), how = tw_pick(t, 2), sleepy = tw_pick(t, 2);
	struct epoll_event ev = { .events = EPOLLOUT | EPOLLET };
	struct pollfd pfd = { .events = POLLOUT };
	uint64_t sub = tw_rnd(t), total = 0, t0;
	bool was_nb = t->nb[a];
	int on = 1, off = 0, ep = -1, r, calls = 0;
	ssize_t s = 0;

	drain(t, !a);
	tw_barrier(t);
	if (!MINE(t, a)) {
		tw_await(t);
		if (tw_raw_read(t->ctl_rd, &total, sizeof(total)) != sizeof(total))
			tw_fail(t, "the other end is gone");
		if (sleepy)
			tw_peer_asleep(t);
		tw_recv_all(t, total, 1 << 17, sub);
		tw_log(t, "overflow: all taken");
		return;
	}
	if (!was_nb)
		ioctl(t->fd, FIONBIO, &on);
	pfd.fd = t->fd;
	if (how) {
		ep = epoll_create1(0);
		epoll_ctl(ep, EPOLL_CTL_ADD, t->fd, &ev);
		tw_log(t, "overflow: first edge %d", epoll_wait(ep, &ev, 1, 0));
	}
	t0 = tw_now_us();
	for (;;) {
		tw_fill(t, t->buf, chunk);
		s = send(t->fd, t->buf, chunk, 0);
		if (s > 0) {
			total += (uint64_t)s;
			t->tx += (uint64_t)s;
		}
		calls++;
		if (s == (ssize_t)chunk)
			continue;
		if (s >= 0 && how)
			break;		/* as edge-triggered programs do: a short count is "full" */
		if (s < 0 && errno != EAGAIN)
			tw_fail(t, "filling the connection: %m");
		/* full now; ACKs under way may still make room: full for 30 ms is the fixed point */
		if (s < 0 && (how || poll(&pfd, 1, 30) == 0))
			break;
		if (tw_now_us() - t0 > 10000000)
			tw_fail(t, "%llu bytes and never full", (unsigned long long)total);
	}
	tw_log(t, "overflow: full after more than 100000: %d", total > 100000);
	tw_tell(t);
	if (tw_raw_write(t->ctl_wr, &total, sizeof(total)) != sizeof(total))
		tw_fail(t, "the other end is gone");
	r = how ? epoll_wait(ep, &ev, 1, 8000) : poll(&pfd, 1, 8000);
	tw_log(t, "overflow: writable again %d events %#x", r, how ? ev.events : (unsigned)pfd.revents);
	if (how)
		close(ep);
	if (!was_nb)
		ioctl(t->fd, FIONBIO, &off);
}

/* @b sleeps in a call, @a acts. */
static void op_wait(struct tw *t, int a)
{
	unsigned how = tw_pick(t, 11), kind = tw_pick(t, TW_RECV_KINDS), ready = tw_pick(t, TW_READY_KINDS);
	unsigned skind = tw_pick(t, TW_SEND_KINDS), asleep = tw_pick(t, 3), pieces = 1 + tw_pick(t, 4), i;
	size_t n = 1 + tw_pick(t, tw_pick(t, 3) ? 64 : 6000);
	uint64_t sub = tw_rnd(t);
	int b = !a;

	if (skind == 9 || skind == 12 || skind == 6 || skind == 7 || skind == 8)
		skind = 1;	/* these may come in pieces, and the first would wake */
	if (kind == 5 || kind == 10)
		kind = 1;	/* recvmmsg and splice may return with a part */
	if (t->nb[b] && how < 5)
		how += 5;
	drain(t, b);
	tw_barrier(t);
	if (MINE(t, a)) {
		tw_await(t);
		if (asleep)
			tw_peer_asleep(t);
		if (how == 4)
			for (i = 0; i < pieces; i++)
				tw_send(t, skind, n, 0, sub);
		else
			tw_send(t, skind, n, 0, sub);
		t->fly[a] += (uint32_t)(how == 4 ? n * pieces : n);
	} else {
		t->fly[a] += (uint32_t)(how == 4 ? n * pieces : n);
		tw_tell(t);
		switch (how) {
		default: {
			ssize_t r = tw_recv(t, kind, n + tw_mix(&sub, 3) * 100, 0, sub);

			if (r > 0 && (size_t)r < n)
				tw_recv_all(t, n - (size_t)r, 1 << 16, sub);
			break;
		}
		case 4:
			tw_recv(t, sub & 1 ? 1 : 4, n * pieces, MSG_WAITALL, sub);
			break;
		case 5:
		case 6:
		case 7:
			tw_ready(t, ready, POLLIN, 10000);
			break;
		case 8:
		case 9:
		case 10: {
			struct epoll_event ev = { .events = EPOLLIN | (how == 9 ? EPOLLET : how == 10 ? EPOLLONESHOT : 0) };
			int ep = epoll_create1(0), r;

			epoll_ctl(ep, EPOLL_CTL_ADD, t->fd, &ev);
			r = epoll_wait(ep, &ev, 1, 10000);
			tw_log(t, "waited in a set of its own = %d %#x", r, ev.events);
			r = epoll_wait(ep, &ev, 1, 0);
			tw_log(t, "and once more = %d", r);
			close(ep);
			break;
		}
		}
	}
	if (how < 5)
		t->fly[a] = 0;
}

/* A pause that a signal ends, on each kind of wait; with SA_RESTART the other end's bytes end it. */
static volatile sig_atomic_t signals[2];
static struct tw *sig_end[2];

static void on_signal(int sig)
{
	int who = sig == SIGUSR2;

	if (!signals[who]++ && sig_end[who])
		tw_raw_write(sig_end[who]->ctl_wr, "s", 1);
}

static void op_signal(struct tw *t, int a)
{
	unsigned how = tw_pick(t, 7), restart = tw_pick(t, 2), kind = tw_pick(t, TW_RECV_KINDS);
	uint64_t sub = tw_rnd(t);
	int sig = a ? SIGUSR2 : SIGUSR1, b = !a, on = 0;
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = restart ? SA_RESTART : 0 };
	struct itimerspec its = { { 0, 4000000 }, { 0, 3000000 } };
	struct sigevent se = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = sig };
	bool was_nb = t->nb[a];
	timer_t timer;
	char c;

	if (kind == 5 || kind == 10)
		kind = 1;
	drain(t, a);
	tw_barrier(t);
	if (MINE(t, b)) {
		if (tw_raw_read(t->ctl_rd, &c, 1) != 1)
			tw_fail(t, "the other end is gone");
		if (how < 3 && restart) {
			tw_peer_asleep(t);
			tw_send(t, 1, 5, 0, sub);
		}
		return;
	}
	if (was_nb)
		ioctl(t->fd, FIONBIO, &on);
	signals[a] = 0;
	sig_end[a] = t;
	sigaction(sig, &sa, NULL);
	se.sigev_notify_thread_id = (int)syscall(SYS_gettid);
	if (timer_create(CLOCK_MONOTONIC, &se, &timer) < 0 || timer_settime(timer, 0, &its, NULL) < 0)
		tw_fail(t, "timer: %m");
	switch (how) {
	case 0:
	case 1:
	case 2:
		tw_recv(t, kind, 5, 0, sub);
		break;
	case 3:
		tw_ready(t, kind, POLLIN, 10000);
		break;
	case 4: {
		struct epoll_event ev = { .events = EPOLLIN };
		int ep = epoll_create1(0), r;

		epoll_ctl(ep, EPOLL_CTL_ADD, t->fd, &ev);
		r = epoll_wait(ep, &ev, 1, 10000);
		tw_log(t, "epoll_wait and a signal = %d %s", r, r < 0 ? strerrorname_np(errno) : "ok");
		close(ep);
		break;
	}
	case 5:
	default: {
		/* with a time-out a receive is never restarted */
		struct timeval tv = { 10, 0 }, zero = { 0, 0 };

		setsockopt(t->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
		tw_recv(t, kind, 5, 0, sub);
		setsockopt(t->fd, SOL_SOCKET, SO_RCVTIMEO, &zero, sizeof(zero));
		break;
	}
	}
	/* the byte of the first signal is sent by its handler, and the other end waits for it */
	while (!signals[a])
		;
	timer_delete(timer);
	sig_end[a] = NULL;
	on = 1;
	if (was_nb)
		ioctl(t->fd, FIONBIO, &on);
}

static void op_options(struct tw *t, int a)
{
	unsigned which = tw_pick(t, 7), v0 = tw_pick(t, 100);
	struct timeval tv = { v0 / 50, v0 * 1000 % 1000000 }, back = { -1, -1 }, zero = { 0, 0 };
	socklen_t len = sizeof(back);
	int v = 0, one = 1, nul = 0, r, r2;

	if (!MINE(t, a))
		return;
	switch (which) {
	case 0:
	case 1:
		r = setsockopt(t->fd, SOL_SOCKET, which ? SO_RCVTIMEO : SO_SNDTIMEO, &tv, sizeof(tv));
		r2 = getsockopt(t->fd, SOL_SOCKET, which ? SO_RCVTIMEO : SO_SNDTIMEO, &back, &len);
		tw_log(t, "%s %d %d: %lld.%06lld", which ? "SO_RCVTIMEO" : "SO_SNDTIMEO", r, r2, (long long)back.tv_sec,
		       (long long)back.tv_usec);
		setsockopt(t->fd, SOL_SOCKET, which ? SO_RCVTIMEO : SO_SNDTIMEO, &zero, sizeof(zero));
		return;
	case 2:
		r = setsockopt(t->fd, IPPROTO_TCP, TCP_CORK, &one, sizeof(one));
		tw_log(t, "TCP_CORK on = %d", r);
		r = setsockopt(t->fd, IPPROTO_TCP, TCP_CORK, &nul, sizeof(nul));
		tw_log(t, "TCP_CORK off = %d", r);
		return;
	case 3: {
		/* Input counts as there only from the low-water mark on; a non-blocking receive takes what there is. */
		int low = 1 + (int)v0, avail = (int)t->fly[!a];

		r = setsockopt(t->fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof(low));
		len = sizeof(v);
		getsockopt(t->fd, SOL_SOCKET, SO_RCVLOWAT, &v, &len);
		tw_log(t, "SO_RCVLOWAT %d = %d: %d, with %d there", low, r, v, avail);
		tw_ready(t, 0, POLLIN, 0);
		tw_ready(t, 5, POLLIN, 0);
		setsockopt(t->fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof(one));
		tw_ready(t, 0, POLLIN, 0);
		return;
	}
	case 4:
		len = sizeof(v);
		r = getsockopt(t->fd, SOL_SOCKET, SO_TYPE, &v, &len);
		tw_log(t, "SO_TYPE = %d: %d", r, v);
		r = getsockopt(t->fd, SOL_SOCKET, SO_ACCEPTCONN, &v, &len);
		tw_log(t, "SO_ACCEPTCONN = %d: %d", r, v);
		return;
	case 5:
		r = setsockopt(t->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
		len = sizeof(v);
		getsockopt(t->fd, SOL_SOCKET, SO_KEEPALIVE, &v, &len);
		tw_log(t, "SO_KEEPALIVE = %d: %d", r, v);
		return;
	default:
		r = setsockopt(t->fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one));
		len = sizeof(v);
		r2 = getsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &v, &len);
		tw_log(t, "TCP_QUICKACK = %d, TCP_NODELAY = %d: %d", r, r2, v);
	}
}

void tw_step(struct tw *t)
{
	int a = (int)tw_pick(t, 2);
	unsigned p = tw_pick(t, 100);

	t->step++;
	if (p < 24)
		op_send(t, a);
	else if (p < 52)
		op_recv(t, a);
	else if (p < 60)
		op_ready(t, a);
	else if (p < 66)
		op_query(t, a);
	else if (p < 69)
		op_nonblock(t, a);
	else if (p < 71)
		op_move(t, a);
	else if (p < 80)
		op_epoll(t, a);
	else if (p < 86)
		op_wait(t, a);
	else if (p < 90)
		op_ping_pong(t);
	else if (p < 92)
		op_bulk(t, a);
	else if (p < 93)
		op_overflow(t, a);
	else if (p < 94)
		op_signal(t, a);
	else if (p < 96)
		op_options(t, a);
	else if (p < 99)
		tw_misuse(t, a, tw_pick(t, 24));
	else
		drain(t, a);
	tw_barrier(t);
}
