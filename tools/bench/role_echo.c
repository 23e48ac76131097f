/* SPDX-License-Identifier: MIT */
/*
 * event loops: a server that echoes, and a client that keeps every connection busy with one message
 *
 * Edge-triggered, both read until EAGAIN; level-triggered, once per event.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/tsc.h"
#include "tools/bench/role.h"

#define BUF		16384
#define EVENTS		256

int poller_new(void)
{
	int ep = epoll_create1(EPOLL_CLOEXEC);

	if (ep < 0)
		die("epoll_create1: %m");
	return ep;
}

void poller_add(int ep, int fd, void *tag, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = tag };

	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev))
		die("epoll_ctl: %m");
}

struct peer {
	int fd;
	size_t owed;	/* bytes at the front of buf that the socket has not taken yet */
	char *buf;
};

/* false: the connection has ended */
static bool serve(struct peer *p, bool et)
{
	static char scratch[BUF];

	do {
		ssize_t n, put;

		n = recv(p->fd, scratch, BUF, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return true;
		if (n <= 0)
			return false;
		put = send(p->fd, scratch, n, MSG_NOSIGNAL);
		if (put < 0 && errno != EAGAIN)
			return false;
		if (put < n) {
			/* the client never has more in flight than socket buffers hold; if so, wait for room */
			int fl = fcntl(p->fd, F_GETFL);

			if (put < 0)
				put = 0;
			(void)fcntl(p->fd, F_SETFL, fl & ~O_NONBLOCK);
			write_full(p->fd, scratch + put, n - put);
			(void)fcntl(p->fd, F_SETFL, fl);
		}
	} while (et);
	return true;
}

void echo_server(const struct spec *s)
{
	struct epoll_event ev[EVENTS];
	int l = net_listen(s), ep = poller_new();
	long seen = 0, live = 0;

	poller_add(ep, l, NULL, EPOLLIN);
	while (seen < s->conns || live) {
		int n = epoll_wait(ep, ev, EVENTS, -1);

		if (n < 0 && errno != EINTR)
			die("epoll_wait: %m");
		for (int i = 0; i < n; i++) {
			struct peer *p = ev[i].data.ptr;

			if (!p) {
				p = calloc(1, sizeof(*p));
				if (!p)
					die("out of memory");
				p->fd = net_accept(l, true);
				poller_add(ep, p->fd, p, EPOLLIN | (s->et ? EPOLLET | EPOLLRDHUP : 0));
				seen++, live++;
			} else if (!serve(p, s->et)) {
				close(p->fd);
				free(p);
				live--;
			}
		}
	}
	close(ep);
	close(l);
}

struct caller {
	int fd;
	size_t got;	/* bytes of the current answer */
	uint64_t seq, t;
	char in[SIZE_MAX_SMALL];
};

static void ask(struct caller *c, const struct spec *s, char *out)
{
	c->seq++;
	c->got = 0;
	memcpy(out, &c->seq, sizeof(c->seq));
	c->t = tsc_now();
	write_full(c->fd, out, s->size);
}

static void client(const struct spec *s)
{
	static struct hist h;
	static char out[SIZE_MAX_SMALL];
	struct epoll_event ev[EVENTS];
	struct caller *c = calloc(s->conns, sizeof(*c));
	int64_t warm_end = now_ns() + s->warm * 1000000;
	uint64_t limit = 0, t;
	struct span span = { 0 };
	int ep = poller_new();
	long waiting;
	bool measuring = false;

	if (!c)
		die("out of memory");
	memset(out, 'x', s->size);
	for (long i = 0; i < s->conns; i++) {
		c[i].fd = net_connect(s);
		if (fcntl(c[i].fd, F_SETFL, O_NONBLOCK))
			die("fcntl: %m");
		poller_add(ep, c[i].fd, &c[i], EPOLLIN | (s->et ? EPOLLET | EPOLLRDHUP : 0));
	}
	for (long i = 0; i < s->conns; i++)
		ask(&c[i], s, out);
	waiting = s->conns;

	while (waiting) {
		int n = epoll_wait(ep, ev, EVENTS, -1);

		if (n < 0 && errno != EINTR)
			die("epoll_wait: %m");
		if (!measuring && now_ns() >= warm_end) {
			measuring = true;
			span_begin(&span);
			limit = tsc_now() + (uint64_t)tsc_us((double)s->ms * 1000);
		}
		for (int i = 0; i < n; i++) {
			struct caller *k = ev[i].data.ptr;
			ssize_t r;

			do {
				r = recv(k->fd, k->in + k->got, sizeof(k->in) - k->got, 0);
				if (r < 0 && (errno == EAGAIN || errno == EINTR))
					break;
				if (r <= 0)
					die("receive: %s", r ? strerror(errno) : "end of file");
				k->got += r;
				if (k->got < (size_t)s->size)
					continue;
				if (k->got > (size_t)s->size || memcmp(k->in, &k->seq, sizeof(k->seq)) ||
				    memcmp(k->in + sizeof(k->seq), out + sizeof(k->seq), s->size - sizeof(k->seq)))
					die("the answer is not to the message that was sent");
				t = tsc_now();
				if (measuring && !span.ns1 && k->t >= span.t0)
					hist_add(&h, t - k->t);
				if (measuring && t >= limit) {
					if (!span.ns1)
						span_end(&span);
					waiting--;	/* no more on this one */
					k->got = 0;
					continue;
				}
				ask(k, s, out);
			} while (s->et);
		}
	}
	for (long i = 0; i < s->conns; i++)
		close(c[i].fd);
	close(ep);
	free(c);
	say_metric(M_RATE, (double)h.n / span_seconds(&span));
	say_latency(&span, &h);
}

const struct role role_echo = { echo_server, client };
