/* SPDX-License-Identifier: MIT */
/*
 * open loop: requests leave when they are due, however slow the answers are
 *
 * The client is an event loop with a timer; request i is due at i / rate and goes to connection
 * i mod conns. Latency counts from when the request was due, so a stall is paid by all whom it
 * delayed. CPU is that of both processes over exactly the measured span.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/tsc.h"
#include "tools/bench/role.h"

#define EVENTS		256
#define BUF		16384
#define FLIGHT		1024u	/* most requests in flight on one connection */

struct line {
	int fd;
	size_t got;
	uint32_t sent, answered;
	int64_t due[FLIGHT];
};

struct open_loop {
	const struct spec *s;
	struct line *line;
	struct hist *h;
	int64_t start, gap_x16, m0, m1;	/* gap in 1/16 ns */
	uint64_t next, refused, asked;	/* requests due so far, and what came of those in the span */
	uint64_t flying;
	char out[SIZE_MAX_SMALL];
};

static int64_t due_at(const struct open_loop *o, uint64_t i)
{
	return o->start + (int64_t)((unsigned __int128)i * (uint64_t)o->gap_x16 / 16);
}

static void send_due(struct open_loop *o, int64_t now)
{
	for (;; o->next++) {
		struct line *l = &o->line[o->next % (uint64_t)o->s->conns];
		int64_t due = due_at(o, o->next);
		bool in = due >= o->m0 && due < o->m1;
		ssize_t r;

		if (due > now || due >= o->m1)
			return;
		o->asked += in;
		if (l->sent - l->answered >= FLIGHT) {
			o->refused += in;
			continue;
		}
		r = send(l->fd, o->out, o->s->size, MSG_NOSIGNAL);
		if (r < 0 && errno == EAGAIN) {
			o->refused += in;
			continue;
		}
		if (r < 0)
			die("send: %m");
		if (r < o->s->size) {	/* half a request: the rest must follow */
			int fl = fcntl(l->fd, F_GETFL);

			(void)fcntl(l->fd, F_SETFL, fl & ~O_NONBLOCK);
			write_full(l->fd, o->out + r, o->s->size - r);
			(void)fcntl(l->fd, F_SETFL, fl);
		}
		l->due[l->sent++ % FLIGHT] = due;
		o->flying++;
	}
}

static void take(struct open_loop *o, struct line *l)
{
	static char buf[BUF];
	ssize_t r;

	for (;;) {
		int64_t now;

		r = recv(l->fd, buf, BUF, 0);
		if (r < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (r <= 0)
			die("receive: %s", r ? strerror(errno) : "end of file");
		now = now_ns();
		for (l->got += r; l->got >= (size_t)o->s->size; l->got -= o->s->size) {
			int64_t due = l->due[l->answered % FLIGHT];

			if (l->answered++ == l->sent)
				die("an answer that nobody asked for");
			o->flying--;
			if (due >= o->m0)
				hist_add(o->h, now > due ? (uint64_t)(now - due) : 0);
		}
		if (!o->s->et)
			return;
	}
}

static void client(const struct spec *s)
{
	static struct hist h;
	static struct open_loop o;
	struct epoll_event ev[EVENTS];
	struct itimerspec it = { 0 };
	int ep = poller_new(), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	double cpu0 = 0, cpu1 = 0;
	int64_t gap, grace;
	bool begun = false, ended = false;

	if (timer < 0)
		die("timerfd_create: %m");
	o = (struct open_loop){ .s = s, .h = &h, .line = calloc(s->conns, sizeof(*o.line)) };
	if (!o.line)
		die("out of memory");
	memset(o.out, 'x', s->size);
	for (long i = 0; i < s->conns; i++) {
		o.line[i].fd = net_connect(s);
		if (fcntl(o.line[i].fd, F_SETFL, O_NONBLOCK))
			die("fcntl: %m");
		poller_add(ep, o.line[i].fd, &o.line[i], EPOLLIN | (s->et ? EPOLLET | EPOLLRDHUP : 0));
	}
	poller_add(ep, timer, NULL, EPOLLIN);

	o.gap_x16 = (int64_t)(16e9 / (double)s->rate);
	o.start = now_ns() + 1000000;
	o.m0 = o.start + s->warm * 1000000;
	o.m1 = o.m0 + s->ms * 1000000;
	grace = o.m1 + 2000000000;
	/* one expiry a request; a timer faster than 100 kHz only costs */
	gap = o.gap_x16 / 16 < 10000 ? 10000 : o.gap_x16 / 16;
	it.it_value.tv_sec = o.start / 1000000000;
	it.it_value.tv_nsec = o.start % 1000000000;
	it.it_interval.tv_sec = gap / 1000000000;
	it.it_interval.tv_nsec = gap % 1000000000;
	if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &it, NULL))
		die("timerfd_settime: %m");

	while (!ended || o.flying) {
		int n = epoll_wait(ep, ev, EVENTS, ended ? 100 : -1);
		int64_t now = now_ns();

		if (n < 0 && errno != EINTR)
			die("epoll_wait: %m");
		if (!begun && now >= o.m0) {
			begun = true;
			cpu0 = process_cpu(0) + process_cpu((pid_t)s->peer);
		}
		if (!ended && now >= o.m1) {
			ended = true;
			cpu1 = process_cpu(0) + process_cpu((pid_t)s->peer);
			it = (struct itimerspec){ 0 };
			(void)timerfd_settime(timer, 0, &it, NULL);
		}
		if (now > grace)
			die("%llu answers never came", (unsigned long long)o.flying);
		for (int i = 0; i < n; i++) {
			uint64_t expired;

			if (ev[i].data.ptr)
				take(&o, ev[i].data.ptr);
			else if (read(timer, &expired, sizeof(expired)) == sizeof(expired))
				send_due(&o, now_ns());
		}
	}
	for (long i = 0; i < s->conns; i++)
		close(o.line[i].fd);
	close(timer);
	close(ep);
	free(o.line);

	/* nanoseconds throughout: a span in which one tick is one nanosecond */
	say_metric(M_RATE, (double)h.n / ((double)s->ms / 1e3));
	say_metric(M_CPU, (cpu1 - cpu0) / ((double)s->ms / 1e3) * 100);
	say_metric(M_LATE, o.asked ? 100.0 * (double)o.refused / (double)o.asked : 0);
	say_latency(&(struct span){ .t1 = 1000, .ns1 = 1000 }, &h);
}

const struct role role_open = { echo_server, client };
