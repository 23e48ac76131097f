/* SPDX-License-Identifier: MIT */
/*
 * ends.c - the ways a connection ends, and urgent data, after which the stream stays on TCP
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "twin.h"

static volatile sig_atomic_t sigpipes[2];
static __thread int this_end;

static void on_pipe(int sig)
{
	sigpipes[this_end]++;
}

static void took(struct tw *t, int a, size_t want)
{
	/* read on to the end or an error; how it is cut depends on nothing once all has arrived */
	size_t got = 0;
	ssize_t r;
	int i;

	for (i = 0; i < 100000; i++) {
		r = recv(t->fd, t->buf, 8192, MSG_DONTWAIT);
		if (r <= 0)
			break;
		tw_check(t, t->buf, (size_t)r, true);
		got += (size_t)r;
	}
	tw_log(t, "took %zu of %zu, then %zd %s", got, want, r, r < 0 ? strerrorname_np(errno) : "end");
	(void)a;
}

static void after(struct tw *t)
{
	int v = -1, r;
	socklen_t len = sizeof(v);
	struct sockaddr_storage sa;
	struct pollfd pfd = { .fd = t->fd, .events = POLLIN | POLLOUT | POLLRDHUP };
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET };
	int ep = epoll_create1(0);

	r = poll(&pfd, 1, 0);
	tw_log(t, "poll = %d revents %#x", r, (unsigned)pfd.revents);
	tw_res(t, "epoll ADD", epoll_ctl(ep, EPOLL_CTL_ADD, t->fd, &ev));
	r = epoll_wait(ep, &ev, 1, 0);
	tw_log(t, "epoll_wait = %d events %#x", r, r > 0 ? ev.events : 0);
	r = epoll_wait(ep, &ev, 1, 0);
	tw_log(t, "and again = %d", r);
	close(ep);
	r = getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &v, &len);
	tw_log(t, "SO_ERROR = %d: %s", r, v ? strerrorname_np(v) : "0");
	len = sizeof(sa);
	tw_res(t, "getpeername", getpeername(t->fd, (struct sockaddr *)&sa, &len));
	r = ioctl(t->fd, FIONREAD, &v);
	tw_log(t, "FIONREAD = %d: %d", r, v);
}

static void try_send(struct tw *t, size_t n, int flags)
{
	int before = sigpipes[t->me];
	ssize_t r;

	tw_fill(t, t->buf, n);
	errno = 0;
	r = send(t->fd, t->buf, n, flags);
	if (r > 0)
		t->tx += (uint64_t)r;
	tw_log(t, "send %zu flags %#x = %zd %s, SIGPIPE %d", n, (unsigned)flags, r, r < 0 ? strerrorname_np(errno) : "ok",
	       sigpipes[t->me] - before);
}

static void try_recv(struct tw *t, int flags)
{
	ssize_t r;

	errno = 0;
	r = recv(t->fd, t->buf, 100, flags | MSG_DONTWAIT);
	if (r > 0)
		tw_check(t, t->buf, (size_t)r, !(flags & MSG_PEEK));
	tw_log(t, "recv flags %#x = %zd %s", (unsigned)flags, r, r < 0 ? strerrorname_np(errno) : "ok");
}

/* Waits until this end's kernel socket has left the established state: a FIN or RST may come by softirq later. */
static void until_state_changes(struct tw *t)
{
	uint64_t end = tw_now_us() + 2000000;
	struct tw_kernel k;

	do {
		tw_kernel_state(t->fd, &k);
	} while (!k.gone && k.state == 1 && tw_now_us() < end);
}

/* @a shuts its sending side; what it sent before is read first, and the other direction goes on. */
static void end_half_close(struct tw *t, int a, unsigned detail)
{
	uint64_t sub = tw_rnd(t);
	size_t back = 1 + tw_pick(t, 30000);
	int b = !a;

	if (MINE(t, a)) {
		tw_res(t, "shutdown(WR)", shutdown(t->fd, SHUT_WR));
		try_send(t, 5, 0);
		try_send(t, 5, MSG_NOSIGNAL);
		tw_res(t, "shutdown(WR) again", shutdown(t->fd, SHUT_WR));
	}
	tw_barrier(t);
	if (MINE(t, b)) {
		until_state_changes(t);
		if (detail & 1)
			after(t);
		try_recv(t, MSG_PEEK);
		took(t, b, t->fly[a]);
		try_recv(t, 0);
		try_recv(t, MSG_PEEK);
	}
	tw_barrier(t);
	/* the other way still works, by several calls */
	if (MINE(t, a))
		tw_recv_all(t, t->fly[b], 1 << 14, sub);
	tw_barrier(t);
	if (MINE(t, b))
		tw_send_all(t, back, 5000, sub);
	else
		tw_recv_all(t, back, 7000, sub);
	tw_log(t, "%zu after the half close", back);
	tw_barrier(t);
	if (MINE(t, b)) {
		if (detail & 2)
			tw_res(t, "shutdown(RDWR)", shutdown(t->fd, SHUT_RDWR));
		tw_res(t, "close", close(t->fd));
	}
	tw_barrier(t);
	if (MINE(t, a)) {
		struct tw_kernel k;
		uint64_t end = tw_now_us() + 2000000;

		do {	/* FIN_WAIT2 goes on when the other FIN comes */
			tw_kernel_state(t->fd, &k);
		} while (!k.gone && (k.state == 4 || k.state == 5) && tw_now_us() < end);
		took(t, a, 0);
		after(t);
		tw_res(t, "close", close(t->fd));
	}
}

/*
 * Over RDMA that the peer has left comes by the daemons, behind the kernel's own end of the connection, and until then the ring takes what is sent; as
 * TCP does over a network, a round trip long. How many sends that are is no result: it is sent until one is refused, and with what counts. Not behind
 * a call that has told of a reset: who has heard that may send nothing.
 */
static void until_refused(struct tw *t)
{
	uint64_t end = tw_now_us() + 1000000;
	bool refused = false;
	ssize_t r;

	do {
		tw_fill(t, t->buf, 10);
		r = send(t->fd, t->buf, 10, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (r > 0)
			t->tx += (uint64_t)r;
		refused = r < 0 && errno != EAGAIN;
	} while (!refused && (poll(NULL, 0, 1), tw_now_us() < end));
	tw_log(t, "sent until %s", refused ? strerrorname_np(errno) : "NEVER REFUSED");
}

/* @a closes with everything read, or with bytes unread, or asks for a reset; @b finds out in several ways. */
static void end_close(struct tw *t, int a, unsigned kind, unsigned detail)
{
	uint64_t sub = tw_rnd(t);
	struct linger lg = { 1, 0 };
	int b = !a;

	if (kind == 0 && MINE(t, a))
		tw_recv_all(t, t->fly[b], 1 << 15, sub);
	if (kind == 1 && t->fly[b] == 0) {
		if (MINE(t, b))
			tw_send_all(t, 100, 100, sub);
		t->fly[b] = 100;
	}
	tw_barrier(t);
	if (MINE(t, a)) {
		if (kind == 2)
			tw_res(t, "SO_LINGER 0", setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg)));
		if (kind == 3)
			tw_res(t, "shutdown(RDWR)", shutdown(t->fd, SHUT_RDWR));
		tw_res(t, "close", close(t->fd));
		tw_res(t, "close again", close(t->fd));
	}
	tw_barrier(t);
	if (MINE(t, b)) {
		until_state_changes(t);
		switch (detail & 3) {
		case 0:
			after(t);
			/* fallthrough */
		case 1:
			took(t, b, t->fly[a]);
			try_recv(t, 0);
			break;
		case 2:
			try_recv(t, MSG_PEEK);
			break;
		default:
			break;
		}
		if (t->device && (kind == 0 || kind == 3 || (detail & 3) == 3)) {
			until_refused(t);
		} else if (kind == 0 || kind == 3) {
			/* the first bytes after a close are answered by a reset */
			struct tw_kernel k;
			uint64_t end = tw_now_us() + 2000000;

			try_send(t, 10, detail & 4 ? MSG_NOSIGNAL : 0);
			do {
				tw_kernel_state(t->fd, &k);
			} while (!k.gone && k.state != 7 && tw_now_us() < end);
		}
		try_send(t, 10, 0);
		try_send(t, 10, MSG_NOSIGNAL);
		took(t, b, 0);
		after(t);
		try_recv(t, 0);
		tw_res(t, "close", close(t->fd));
	}
}

/* @a no longer wants to read: Linux still hands over what comes. */
static void end_shut_read(struct tw *t, int a, unsigned detail)
{
	uint64_t sub = tw_rnd(t);
	int b = !a;

	if (MINE(t, a) && (detail & 1))
		tw_recv_all(t, t->fly[b], 1 << 15, sub);
	if (detail & 1)
		t->fly[b] = 0;
	if (MINE(t, a)) {
		tw_res(t, "shutdown(RD)", shutdown(t->fd, SHUT_RD));
		took(t, a, t->fly[b]);
		after(t);
	}
	tw_barrier(t);
	if (MINE(t, b))
		try_send(t, 300, MSG_NOSIGNAL);
	tw_barrier(t);
	if (MINE(t, a)) {
		try_recv(t, 0);
		took(t, a, 300);
		try_send(t, 20, 0);
	}
	t->fly[a] += 20;
	tw_barrier(t);
	if (MINE(t, b)) {
		took(t, b, t->fly[a]);
		tw_res(t, "close", close(t->fd));
	}
	tw_barrier(t);
	if (MINE(t, a)) {
		until_state_changes(t);
		took(t, a, 0);
		tw_res(t, "close", close(t->fd));
	}
}

/* @b sleeps in a call while @a ends the connection. */
static void end_while_waiting(struct tw *t, int a, unsigned detail)
{
	unsigned how = detail % 6, ready = tw_pick(t, TW_READY_KINDS), kind = tw_pick(t, TW_RECV_KINDS);
	uint64_t sub = tw_rnd(t);
	struct linger lg = { 1, 0 };
	int b = !a, off = 0;

	if (MINE(t, a))
		tw_recv_all(t, t->fly[b], 1 << 15, sub);
	if (MINE(t, b))
		tw_recv_all(t, t->fly[a], 1 << 15, sub);
	tw_barrier(t);
	if (MINE(t, a)) {
		tw_await(t);
		tw_peer_asleep(t);
		if (how & 1)
			setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg));
		if (how >= 4)
			tw_res(t, "shutdown(WR)", shutdown(t->fd, SHUT_WR));
		else
			tw_res(t, "close", close(t->fd));
	} else {
		ioctl(t->fd, FIONBIO, &off);
		tw_tell(t);
		if (how < 2 || how == 4) {
			tw_recv(t, kind == 10 || kind == 5 ? 1 : kind, 50, 0, sub);
		} else {
			tw_ready(t, ready, POLLIN, 10000);
			took(t, b, 0);
		}
		after(t);
		tw_res(t, "close", close(t->fd));
	}
	tw_barrier(t);
	if (MINE(t, a) && how >= 4)
		tw_res(t, "close", close(t->fd));
}

static void urgent(struct tw *t, int a, unsigned detail)
{
	size_t k = 1 + tw_pick(t, 200), m = 1 + tw_pick(t, 200);
	uint64_t sub = tw_rnd(t);
	int b = !a, one = 1, v, off = 0;
	bool is_inline = detail & 1;
	char c = 0;
	ssize_t r;

	if (MINE(t, b)) {
		tw_recv_all(t, t->fly[a], 1 << 15, sub);
		ioctl(t->fd, FIONBIO, &off);
		if (is_inline)
			tw_res(t, "SO_OOBINLINE", setsockopt(t->fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof(one)));
	}
	t->fly[a] = 0;
	t->nb[b] = false;
	tw_barrier(t);
	if (MINE(t, a)) {
		tw_send(t, 1, k, 0, sub);
		c = '!';
		tw_res(t, "send OOB", send(t->fd, &c, 1, MSG_OOB));
		tw_send(t, 0, m, 0, sub);
	}
	tw_barrier(t);
	if (MINE(t, b)) {
		tw_ready(t, 0, POLLIN | POLLPRI, 0);
		tw_ready(t, 2, POLLIN | POLLPRI, 0);
		r = recv(t->fd, t->buf, 1000, 0);
		if (r > 0)
			tw_check(t, t->buf, (size_t)r, true);
		tw_log(t, "up to the mark %zd", r);
		r = ioctl(t->fd, SIOCATMARK, &v);
		tw_log(t, "at the mark %zd: %d", r, v);
		if (is_inline) {
			r = recv(t->fd, &c, 1, 0);
		} else {
			r = recv(t->fd, &c, 1, MSG_OOB);
			tw_res(t, "OOB again", recv(t->fd, t->buf, 1, MSG_OOB));
		}
		tw_log(t, "urgent byte %zd: %c", r, c);
		tw_recv_all(t, m, 1000, sub);
		tw_ready(t, 0, POLLIN | POLLPRI, 0);
		tw_log(t, "past the mark");
	}
	tw_barrier(t);
}

/* A FILE over the socket: what it reads ahead and what it writes must stay one stream. */
static void by_stdio(struct tw *t, int a)
{
	uint64_t sub = tw_rnd(t);
	unsigned n = 1 + tw_pick(t, 9000), m = 1 + tw_pick(t, 9000);
	int b = !a, off = 0;
	size_t r;
	FILE *f;

	if (MINE(t, a)) {
		ioctl(t->fd, FIONBIO, &off);
		f = fdopen(dup(t->fd), "r+");
		if (!f)
			tw_fail(t, "fdopen: %m");
		tw_recv_all(t, t->fly[b], 1 << 15, sub);
		tw_fill(t, t->buf, n);
		r = fwrite(t->buf, 1, n, f);
		tw_log(t, "fwrite %u = %zu, fflush %d", n, r, fflush(f));
		t->tx += r;
		tw_await(t);
		r = fread(t->buf, 1, m, f);
		tw_check(t, t->buf, r, true);
		tw_log(t, "fread %u = %zu", m, r);
		tw_log(t, "fclose %d", fclose(f));
	} else {
		tw_recv_all(t, t->fly[a] + n, 1 << 13, sub);
		tw_send_all(t, m, 1 << 13, sub);
		tw_tell(t);
	}
	t->fly[a] = t->fly[b] = 0;
	t->nb[a] = false;
	tw_barrier(t);
}

void tw_end(struct tw *t)
{
	int a = (int)tw_pick(t, 2);
	unsigned kind = tw_pick(t, 8), detail = tw_pick(t, 24), extra = tw_pick(t, 8);
	struct sigaction sa = { .sa_handler = on_pipe };

	this_end = t->me;
	sigaction(SIGPIPE, &sa, NULL);
	t->step++;
	if (extra == 0)
		urgent(t, a, detail);
	else if (extra == 1)
		by_stdio(t, a);
	t->step++;
	switch (kind) {
	case 0:
	case 1:
		end_half_close(t, a, detail);
		break;
	case 2:
	case 3:
	case 4:
	case 5:
		end_close(t, a, kind - 2, detail);
		break;
	case 6:
		end_shut_read(t, a, detail);
		break;
	default:
		end_while_waiting(t, a, detail);
	}
	t->over = true;
	tw_barrier(t);
}
