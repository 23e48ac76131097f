/* SPDX-License-Identifier: MIT */
/*
 * agent.c - the server's end on another host
 *
 * "wsd-bench --agent" waits at its address; a connection is one run. The caller sends a line, the words of the spec;
 * what the server's end says on its ROLE_OUT goes back as it comes, at last "share RING TCP CONNS ACCEL" (bytes and
 * connections of the wsd roads). The caller hangs up when the run is over for it: a server that then still runs is
 * ended. For test networks: who can reach the port can make this host measure, and nothing else.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench/bench.h"

#define LINE_MAX_LEN	1024
#define CALL_MS		20000

static struct sockaddr_in address(const struct options *o)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons((uint16_t)o->agent_port), .sin_addr.s_addr = htonl((uint32_t)o->addr),
	};
}

static bool put(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t r = send(fd, p, n, MSG_NOSIGNAL);

		if (r <= 0)
			return false;
		p += r;
		n -= r;
	}
	return true;
}

int agent_call(const struct options *o, const struct spec *s)
{
	struct sockaddr_in in = address(o);
	struct timespec tick = { 0, 50000000 };
	struct spec_words w;
	char line[LINE_MAX_LEN];
	size_t n = 0;
	int fd, r;

	spec_print(&w, s);
	for (unsigned i = 0; i < w.n; i++)
		n += snprintf(line + n, sizeof(line) - n, "%s%c", w.w[i], i + 1 < w.n ? ' ' : '\n');
	/* it may not have come up yet */
	for (unsigned tries = 0;; tries++) {
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			return -errno;
		if (!connect(fd, (struct sockaddr *)&in, sizeof(in)))
			break;
		r = -errno;
		close(fd);
		if (r != -ECONNREFUSED || tries == CALL_MS / 50 || run_stopped())
			return r;
		nanosleep(&tick, NULL);
	}
	if (!put(fd, line, n)) {
		close(fd);
		return -EPIPE;
	}
	return fd;
}

/* the words of the line that the caller sends; false: malformed */
static bool take_spec(int fd, struct spec *ret)
{
	struct timeval tv = { .tv_sec = 5 };
	char line[LINE_MAX_LEN], *w[SPEC_WORDS_MAX], *save, *t;
	size_t n = 0;
	int k = 0;

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	do {
		if (n == sizeof(line) - 1 || recv(fd, line + n, 1, 0) != 1)
			return false;
	} while (line[n++] != '\n');
	line[n - 1] = 0;
	for (t = strtok_r(line, " ", &save); t; t = strtok_r(NULL, " ", &save)) {
		if (k == SPEC_WORDS_MAX)
			return false;
		w[k++] = t;
	}
	return !spec_parse(ret, w, k);
}

static void serve(const struct options *o, int fd)
{
	char buf[2048];
	struct share sum;
	struct spec s;
	bool caller = true;
	int out, n;
	pid_t pid;

	if (!take_spec(fd, &s))
		return;
	s.addr = o->addr;
	s.cpu = -1;
	share_reset();
	pid = run_server(&out, o, &s);
	if (pid < 0)
		return;
	for (;;) {
		struct pollfd p[2] = { { .fd = out, .events = POLLIN }, { .fd = fd, .events = POLLIN } };

		if (poll(p, 2, 1000) <= 0 && !run_stopped())
			continue;
		if (run_stopped() || (p[1].revents && recv(fd, buf, 1, MSG_DONTWAIT) <= 0)) {
			caller = false;
			break;
		}
		if (!p[0].revents)
			continue;
		n = (int)read(out, buf, sizeof(buf));
		if (n <= 0)
			break;
		if (!put(fd, buf, n)) {
			caller = false;
			break;
		}
	}
	run_server_end(pid, out, !caller);
	if (!caller)
		return;
	sum = share_sum();
	n = snprintf(buf, sizeof(buf), "share %llu %llu %llu %llu\n", sum.ring, sum.tcp, sum.conns, sum.accel);
	(void)put(fd, buf, n);
}

int agent_main(const struct options *o)
{
	struct sockaddr_in in = address(o);
	int l, fd, one = 1;

	l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l < 0 || setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) || bind(l, (struct sockaddr *)&in, sizeof(in)) ||
	    listen(l, 4)) {
		fprintf(stderr, "wsd-bench: cannot wait at %s: %m\n", inet_ntoa(in.sin_addr));
		return 1;
	}
	while (!run_stopped()) {
		fd = accept4(l, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		serve(o, fd);
		close(fd);
	}
	close(l);
	return 0;
}
