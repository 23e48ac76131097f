/* SPDX-License-Identifier: MIT */
/*
 * away ADDRESS PORT: floods of small messages whose sender then stays away
 *
 * The child sends some hundreds of small messages, one send() each, and then sits in a read of a pipe, which is no call of the library's on
 * any connection. The parent must get all of them all the same, waiting in recv, poll, select, epoll or in edge-triggered epoll, and writes to the
 * pipe when it has. Says how many bytes it was. Exit: 0; 1: other bytes; a signal: nothing came for 30 s.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define BURSTS	60u
#define SECONDS	30

enum how { RECV, POLL, SELECT, LEVEL, EDGE, N_HOW };

static void must(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static uint8_t byte(uint64_t at)
{
	return (uint8_t)((at * 0x9e3779b97f4a7c15ull) >> 56);
}

static uint32_t lengths(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return 1 + (*state >> 16) % 100;
}

static uint32_t messages(uint32_t burst)
{
	return 150 + burst * 37 % 400;
}

static void sender(const struct sockaddr_in *sa, int pipe_fd)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	uint32_t seed = 1, b, m, i, n;
	uint8_t buf[128];
	uint64_t at = 0;
	char c;

	must(connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0, "connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (b = 0; b < BURSTS; b++) {
		for (m = messages(b); m; m--) {
			n = lengths(&seed);
			for (i = 0; i < n; i++)
				buf[i] = byte(at + i);
			must(send(fd, buf, n, 0) == (ssize_t)n, "send");
			at += n;
		}
		alarm(SECONDS);
		must(read(pipe_fd, &c, 1) == 1, "pipe");
		/* an answer by the connection, too, so that both directions are used */
		must(recv(fd, &c, 1, MSG_WAITALL) == 1, "answer");
	}
	must(shutdown(fd, SHUT_WR) == 0, "shutdown");
	exit(0);
}

static void wait_readable(int fd, int ep, enum how how)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct epoll_event ev;
	fd_set r;

	switch (how) {
	case POLL:
		must(poll(&p, 1, -1) == 1, "poll");
		break;
	case SELECT:
		FD_ZERO(&r);
		FD_SET(fd, &r);
		must(select(fd + 1, &r, NULL, NULL, NULL) == 1, "select");
		break;
	case LEVEL:
	case EDGE:
		must(epoll_wait(ep, &ev, 1, -1) == 1, "epoll_wait");
		break;
	default:
		break;
	}
}

static void receiver(int fd, int pipe_fd)
{
	uint32_t seed = 1, b, m;
	uint8_t buf[5000];
	uint64_t at = 0, end = 0;
	int ep = -1;

	for (b = 0; b < BURSTS; b++) {
		enum how how = b % N_HOW;
		struct epoll_event ev = { .events = how == EDGE ? EPOLLIN | EPOLLET : EPOLLIN };

		for (m = messages(b); m; m--)
			end += lengths(&seed);
		if (how == LEVEL || how == EDGE) {
			ep = epoll_create1(0);
			must(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0, "epoll_ctl");
		}
		while (at < end) {
			ssize_t k, i;

			alarm(SECONDS);
			wait_readable(fd, ep, how);
			do {
				k = recv(fd, buf, sizeof(buf), how == EDGE ? MSG_DONTWAIT : 0);
				must(k > 0 || how == EDGE, "recv");
				for (i = 0; i < k; i++)
					if (buf[i] != byte(at + (uint64_t)i)) {
						fprintf(stderr, "other byte at %llu\n", (unsigned long long)at + (uint64_t)i);
						exit(1);
					}
				at += k > 0 ? (uint64_t)k : 0;
			} while (how == EDGE && k == (ssize_t)sizeof(buf));
		}
		if (ep >= 0)
			close(ep);
		ep = -1;
		must(write(pipe_fd, "x", 1) == 1 && send(fd, "x", 1, 0) == 1, "answer");
	}
	must(recv(fd, buf, 1, 0) == 0, "end");
	printf("%llu bytes in %u floods\n", (unsigned long long)at, BURSTS);
}

int main(int argc, char **argv)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	int p[2], l = socket(AF_INET, SOCK_STREAM, 0), one = 1, fd, status;
	pid_t pid;

	if (argc != 3 || inet_pton(AF_INET, argv[1], &sa.sin_addr) != 1) {
		fprintf(stderr, "usage: away ADDRESS PORT\n");
		return 2;
	}
	sa.sin_port = htons((uint16_t)atoi(argv[2]));
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	must(bind(l, (struct sockaddr *)&sa, sizeof(sa)) == 0 && listen(l, 1) == 0 && pipe(p) == 0, "listen");
	pid = fork();
	must(pid >= 0, "fork");
	if (pid == 0) {
		close(l);
		sender(&sa, p[0]);
	}
	fd = accept(l, NULL, NULL);
	must(fd >= 0, "accept");
	receiver(fd, p[1]);
	must(waitpid(pid, &status, 0) == pid && status == 0, "the sender");
	return 0;
}
