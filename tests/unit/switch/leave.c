/* SPDX-License-Identifier: MIT */
/*
 * leave.c - what is told to who sent bytes that their receiver never read
 *
 * leave HOW-WHERE[-data] prints every answer; the script leave-ring compares them with those of plain TCP. A child connects, is awake while the
 * parent's last bytes come, so that they may lie in its ring, and lets go of its socket without having read them; HOW:
 *   kill, exit, close, exec (the descriptor has FD_CLOEXEC), half (shutdown(SHUT_WR), and is killed then), alive (shutdown(SHUT_WR), then it
 *   reads all: nothing may be lost or reset)
 * shut: the parent has called shutdown(SHUT_WR) before. The parent's first look afterwards is WHERE; "...-sleep" begins before, asleep in that call. data: the child has sent bytes before that.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../twin/twin.h"

#define ROUNDS	64
#define UNREAD	3000
#define DATA	700

#define say(...) do { printf(__VA_ARGS__); fflush(stdout); } while (0)

static const char *name;
static volatile int *gone;
static char buf[1 << 16];

static void die(const char *what)
{
	fprintf(stderr, "leave: pid %d: %s: %s\n", getpid(), what, strerror(errno));
	_exit(1);
}

static bool has(const char *word)
{
	return strstr(name, word) != NULL;
}

static void until(volatile int *p, int v)
{
	struct timespec ts = { 0, 200000 };
	int i;

	for (i = 0; i < 50000 && *p != v; i++)
		nanosleep(&ts, NULL);
	if (*p != v)
		die("the other one does not go on");
}

/* the parent is asleep, and stays so for some looks */
static void until_asleep(int pid)
{
	struct timespec ts = { 0, 500000 };
	char path[64], b[512], *p;
	int i, f, seen = 0;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	for (i = 0; i < 20000 && seen < 6; i++) {
		f = open(path, O_RDONLY | O_CLOEXEC);
		n = f < 0 ? -1 : read(f, b, sizeof(b) - 1);
		close(f);
		if (n <= 0)
			die("no /proc");
		b[n] = 0;
		p = strrchr(b, ')');
		seen = p && p[2] == 'S' ? seen + 1 : 0;
		nanosleep(&ts, NULL);
	}
}

static void all(int fd, size_t n)
{
	size_t at = 0;
	ssize_t r;

	while (at < n) {
		r = recv(fd, buf, n - at, 0);
		if (r <= 0)
			die("recv");
		at += (size_t)r;
	}
}

static void sends(int fd, size_t n)
{
	if (send(fd, buf, n, 0) != (ssize_t)n)
		die("send");
}

/* for leave-ring: so many of the unread bytes lie in the ring, as the kernel does not have them */
static void say_in_ring(int fd)
{
	const char *path = getenv("LEAVE_IN_RING");
	int all_of_it = 0, in_kernel = 0;
	FILE *f;

	if (!path)
		return;
	if (ioctl(fd, FIONREAD, &all_of_it) || tw_raw_ioctl(fd, FIONREAD, &in_kernel))
		die("FIONREAD");
	f = fopen(path, "we");
	if (!f || fprintf(f, "%d\n", all_of_it - in_kernel) < 0 || fclose(f))
		die("LEAVE_IN_RING");
}

static void child(int port, int parent)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	char *const argv[] = { "sleep", "60", NULL };
	int i, fd, n = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (void *)&a, sizeof(a)))
		die("connect");
	for (i = 0; i < ROUNDS; i++) {
		sends(fd, 200);
		all(fd, 200);
	}
	if (has("data"))
		sends(fd, DATA);
	gone[0] = 1;			/* awake, and done with it: what comes now lies unread */
	for (i = 0; i < 10000 && (ioctl(fd, FIONREAD, &n) || n != UNREAD); i++)
		usleep(500);
	until(&gone[0], 2);
	say_in_ring(fd);
	if (has("sleep"))
		until_asleep(parent);
	if (has("half") || has("alive")) {
		shutdown(fd, SHUT_WR);
		gone[0] = 3;
		until(&gone[0], 4);
	}
	if (has("alive")) {
		ssize_t r;
		size_t at = 0;

		while ((r = recv(fd, buf, sizeof(buf), 0)) > 0)
			at += (size_t)r;
		gone[1] = (int)at;
		gone[2] = r < 0 ? errno : 0;
		_exit(0);
	}
	if (has("kill") || has("half"))
		raise(SIGKILL);
	if (has("exec"))
		execvp("sleep", argv);
	if (has("close")) {
		close(fd);
		gone[0] = 3;
		for (;;)
			pause();
	}
	exit(0);
}

static volatile int n_pipe;

static void on_pipe(int sig)
{
	n_pipe++;
}

static const char *err(long r)
{
	return r < 0 ? strerrorname_np(errno) : "-";
}

static long tried(const char *what, long r)
{
	say("%s: %ld %s, SIGPIPE %d\n", what, r, err(r), n_pipe);
	return r;
}

/* wait: what the kernel knows at once of its own bytes the daemon says a moment later where nothing else tells of it */
static void look_poll(int fd, short ev, int ms, bool wait)
{
	struct pollfd p = { .fd = fd, .events = ev };
	int i, r;

	for (i = 0; (r = poll(&p, 1, ms)) >= 0 && wait && !(p.revents & POLLERR) && i < 2000; i++)
		usleep(1000);

	say("poll %#x: %d, %#x\n", (unsigned)ev, r, (unsigned)p.revents);
}

static void look_select(int fd, int s)
{
	fd_set r, w, e;
	struct timeval tv = { s, 0 };
	int n;

	FD_ZERO(&r);
	FD_SET(fd, &r);
	w = e = r;
	n = select(fd + 1, &r, s ? NULL : &w, &e, &tv);
	say("select: %d, %d %d %d\n", n, FD_ISSET(fd, &r), s ? 0 : FD_ISSET(fd, &w), FD_ISSET(fd, &e));
}

static void look_epoll(int ep, int ms)
{
	struct epoll_event ev[2];
	int r = epoll_wait(ep, ev, 2, ms);

	say("epoll: %d, %#x\n", r, r > 0 ? ev[0].events : 0);
}

static void look_error(int fd)
{
	int v = -1;
	socklen_t l = sizeof(v);
	int r = getsockopt(fd, SOL_SOCKET, SO_ERROR, &v, &l);

	say("SO_ERROR: %d, %s\n", r, v ? strerrorname_np(v) : "0");
}

static void look_rest(int fd)
{
	struct sockaddr_in a;
	socklen_t l = sizeof(a);
	struct tcp_info ti;
	int v = -1;

	tried("getpeername", getpeername(fd, (void *)&a, &l));
	tried("FIONREAD", ioctl(fd, FIONREAD, &v) ? -1 : v);
	l = sizeof(ti);
	tried("state", getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &l) ? -1 : ti.tcpi_state);
	if (!has("shut"))	/* else the FIN, perhaps */
		tried("SIOCOUTQ", ioctl(fd, SIOCOUTQ, &v) ? -1 : v);
}

static long received(int fd, int flags)
{
	struct iovec io[2] = { { buf, 100 }, { buf + 200, 400 } };

	return tried("recv", has("readv") ? readv(fd, io, 2) : recv(fd, buf, 500, flags));
}

static long sent_quietly(int fd)
{
	struct iovec io[2] = { { buf, 3 }, { buf, 4 } };

	return has("write") ? write(fd, buf, 7) : has("sendmsg") ? writev(fd, io, 2) : send(fd, buf, 7, 0);
}

static void sent(int fd)
{
	tried("send", sent_quietly(fd));
}

/* A put in the moment before the daemon has closed the gate is as one from before: the first error counts */
static void sent_in_vain(int fd)
{
	int i;

	for (i = 0; i < 2000 && sent_quietly(fd) > 0; i++)
		usleep(1000);
	tried("send", i < 2000 ? -1 : 0);
}

/* what comes after the first look must be what TCP says, too, in whatever order */
static void aftermath(int fd, int ep)
{
	int i;

	look_epoll(ep, 0);
	look_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0, false);
	if (has("first-error"))
		look_error(fd);
	look_rest(fd);
	if (has("first-write"))
		sent(fd);
	for (i = 0; i < 4 && received(fd, MSG_DONTWAIT) > 0; i++)
		;
	look_error(fd);
	look_epoll(ep, 0);
	look_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0, false);
	received(fd, MSG_DONTWAIT);
	sent(fd);
	look_poll(fd, POLLIN, 0, false);
	look_error(fd);
	tried("shutdown", shutdown(fd, SHUT_WR));
	tried("close", close(fd));
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t l = sizeof(a);
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP };
	int i, fd, ep, ls, st = 0, on = 1;
	struct tcp_info ti;
	bool sleeps;
	pid_t pid;

	name = argc > 1 ? argv[1] : "";
	gone = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	signal(SIGPIPE, on_pipe);
	ls = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(ls, (void *)&a, sizeof(a)) || listen(ls, 1) || getsockname(ls, (void *)&a, &l))
		die("listen");
	pid = fork();
	if (pid == 0)
		child(ntohs(a.sin_port), getppid());
	fd = accept4(ls, NULL, NULL, SOCK_CLOEXEC);
	close(ls);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));	/* so that all has arrived */
	for (i = 0; i < ROUNDS; i++) {
		all(fd, 200);
		sends(fd, 200);
	}
	until(&gone[0], 1);
	ev.events |= has("et") ? EPOLLET : 0;
	ev.events |= has("once") ? EPOLLONESHOT : 0;
	ev.events |= has("out") ? EPOLLOUT : 0;
	ep = epoll_create1(EPOLL_CLOEXEC);
	sends(fd, UNREAD);
	if (has("cork"))
		setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev))
		die("epoll_ctl");
	if (has("data") && has("sleep"))
		all(fd, DATA);		/* else it would not sleep */
	if (has("data") || has("out"))
		look_epoll(ep, 0);
	sleeps = has("sleep");
	while (ioctl(fd, SIOCOUTQ, &i) == 0 && i)
		usleep(500);
	if (has("shut"))
		shutdown(fd, SHUT_WR);
	gone[0] = 2;
	if (!sleeps && (has("half") || has("alive"))) {
		until(&gone[0], 3);
		gone[0] = 4;
	} else if (!sleeps && has("close")) {
		until(&gone[0], 3);
	} else if (!sleeps && has("exec")) {
		do {		/* the new image has no socket */
			l = sizeof(ti);
			getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &l);
		} while (ti.tcpi_state == 1 || (has("shut") && ti.tcpi_state != 7));
	}
	if (!sleeps && (has("kill") || has("half") || has("exit"))) {
		waitpid(pid, &st, 0);
		pid = 0;
	}
	if (has("nothing"))	/* "nothing-first-error" is no "error" */
		;
	else if (has("poll-in"))
		look_poll(fd, POLLIN, sleeps ? 10000 : 0, false);
	else if (has("poll"))
		look_poll(fd, has("out") ? POLLOUT : POLLIN | POLLRDHUP, sleeps ? 10000 : 0, has("out") || has("half"));
	else if (has("select"))
		look_select(fd, sleeps ? 10 : 0);
	else if (has("epoll"))
		look_epoll(ep, sleeps ? 10000 : 0);
	else if (has("peek"))
		received(fd, MSG_PEEK | (sleeps ? 0 : MSG_DONTWAIT));
	else if (has("recv"))
		received(fd, sleeps ? 0 : MSG_DONTWAIT);
	else if (has("send") || has("write"))
		sent_in_vain(fd);
	else if (has("error"))
		look_error(fd);
	if (sleeps && (has("half") || has("alive"))) {
		until(&gone[0], 3);
		gone[0] = 4;
		if (has("half")) {
			waitpid(pid, &st, 0);
			pid = 0;
		}
	}
	if (has("alive")) {
		sends(fd, 50);
		shutdown(fd, SHUT_WR);
		waitpid(pid, &st, 0);
		say("child: %d bytes, %d\n", gone[1], gone[2]);
		pid = 0;
	}
	aftermath(fd, ep);
	if (pid) {
		kill(pid, SIGKILL);
		waitpid(pid, &st, 0);
	}
	return 0;
}
