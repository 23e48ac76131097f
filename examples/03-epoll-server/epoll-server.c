/* SPDX-License-Identifier: MIT */
/*
 * One thread, any number of connections: non-blocking sockets, edge-triggered epoll. It trusts
 * what edge-triggered programs trust: after EAGAIN there will be an edge.
 */
#include <fcntl.h>
#include <sys/epoll.h>

#include "examples/example.h"

#define MAX_FD 4096

struct conn {
	char buf[16384];
	size_t len, off;	/* bytes to send back are buf[off..len) */
	int eof;
};

static struct conn *conns[MAX_FD];

/* echo until the socket has nothing or takes nothing; 0 when the connection is over */
static int pump(int fd, struct conn *c)
{
	ssize_t n;

	for (;;) {
		while (c->off < c->len) {
			n = send(fd, c->buf + c->off, c->len - c->off, MSG_NOSIGNAL);
			if (n < 0)
				return errno == EAGAIN;
			c->off += (size_t)n;
		}
		c->off = c->len = 0;
		if (c->eof)
			return 0;
		n = recv(fd, c->buf, sizeof(c->buf), 0);
		if (n < 0)
			return errno == EAGAIN;
		if (n == 0)
			c->eof = 1;
		c->len = (size_t)n;
	}
}

int main(int argc, char **argv)
{
	unsigned long limit = number(argc, argv, 2, 0), n_open = 0, n_seen = 0;
	struct epoll_event ev = { .events = EPOLLIN }, events[64];
	int l = listen_on(number(argc, argv, 1, 0)), ep = epoll_create1(EPOLL_CLOEXEC), n, fd;

	fcntl(l, F_SETFL, O_NONBLOCK);
	ev.data.fd = l;
	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev) < 0)
		die("epoll");

	while (!limit || n_seen < limit || n_open) {
		n = epoll_wait(ep, events, 64, -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.fd != l) {
				fd = events[i].data.fd;
				if (!pump(fd, conns[fd])) {
					close(fd);
					free(conns[fd]);
					conns[fd] = NULL;
					n_open--;
				}
				continue;
			}
			while ((fd = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
				if (fd >= MAX_FD || !(conns[fd] = calloc(1, sizeof(struct conn)))) {
					close(fd);
					continue;
				}
				ev.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
				ev.data.fd = fd;
				if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) < 0)
					die("epoll_ctl");
				n_seen++;
				n_open++;
			}
		}
	}
	return 0;
}
