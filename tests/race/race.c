/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "race.h"

static pid_t peer_pid;

static void on_alarm(int sig)
{
	static const char text[] = "HUNG: not finished in time\n";

	(void)!write(2, text, sizeof(text) - 1);
	_exit(3);
}

void race_start(unsigned seconds)
{
	signal(SIGALRM, on_alarm);
	alarm(seconds);
}

void race_check(bool ok, const char *fmt, ...)
{
	va_list ap;

	if (ok)
		return;
	va_start(ap, fmt);
	fprintf(stderr, "BROKEN PROMISE: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, " (errno %s)\n", strerrorname_np(errno));
	va_end(ap);
	_exit(1);
}

uint64_t race_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

double race_scale(void)
{
	const char *s = getenv("RACE_SCALE");

	return s ? atof(s) : 1;
}

void race_send(int fd, const void *p, size_t n)
{
	const char *b = p;

	while (n) {
		ssize_t r = send(fd, b, n, MSG_NOSIGNAL);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EAGAIN) {
			poll(&(struct pollfd) { .fd = fd, .events = POLLOUT }, 1, 10000);
			continue;
		}
		race_check(r > 0, "send of %zu gave %zd", n, r);
		b += r;
		n -= (size_t)r;
	}
}

void race_recv(int fd, void *p, size_t n)
{
	char *b = p;

	while (n) {
		ssize_t r = recv(fd, b, n, 0);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0 && errno == EAGAIN) {
			poll(&(struct pollfd) { .fd = fd, .events = POLLIN }, 1, 10000);
			continue;
		}
		race_check(r > 0, "recv of %zu gave %zd", n, r);
		b += r;
		n -= (size_t)r;
	}
}

static void warm_up(int fd, bool first)
{
	char b[16] = "warm";
	int i, one = 1;

	race_check(!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), "TCP_NODELAY");
	for (i = 0; i < 300; i++) {
		if (first)
			race_send(fd, b, sizeof(b));
		race_recv(fd, b, sizeof(b));
		if (!first)
			race_send(fd, b, sizeof(b));
	}
}

int race_connect(void (*peer)(int fd))
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sa);
	int l = socket(AF_INET, SOCK_STREAM, 0), fd;

	race_check(l >= 0 && !bind(l, (struct sockaddr *)&sa, len) && !listen(l, 5) &&
		   !getsockname(l, (struct sockaddr *)&sa, &len), "listen");
	peer_pid = fork();
	race_check(peer_pid >= 0, "fork");
	if (peer_pid == 0) {
		unsigned left = alarm(0);

		race_start(left ? left : 60);
		close(l);
		fd = socket(AF_INET, SOCK_STREAM, 0);
		race_check(!connect(fd, (struct sockaddr *)&sa, sizeof(sa)), "connect");
		warm_up(fd, true);
		peer(fd);
		close(fd);
		exit(0);
	}
	fd = accept(l, NULL, NULL);
	race_check(fd >= 0, "accept");
	close(l);
	warm_up(fd, false);
	return fd;
}

void race_end(int fd)
{
	int status = 0;
	pid_t r;

	if (fd >= 0)
		close(fd);
	do {
		r = waitpid(peer_pid, &status, 0);
	} while (r < 0 && errno == EINTR);
	race_check(r == peer_pid && WIFEXITED(status) && !WEXITSTATUS(status), "the peer ended with status %#x", (unsigned)status);
	exit(0);
}
