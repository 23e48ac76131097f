/* SPDX-License-Identifier: MIT */
/*
 * signals.c - waits that are interrupted all the time
 *
 * Without SA_RESTART a sleeping receive ends with EINTR (and the stream goes on unharmed); with it a receive never
 * does, while poll, select and epoll_wait always do. A receive with SO_RCVTIMEO is never restarted. The handler looks at
 * the socket itself (MSG_PEEK), as handlers may.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "race.h"

static int fd;
static unsigned rounds;
static _Atomic int hits;

static void peer(int s)
{
	unsigned char c[8];
	uint64_t rng = 3;
	unsigned i;

	for (i = 0;; i++) {
		race_recv(s, c, 8);
		if (c[0] == 'q')
			return;
		if (race_rnd(&rng) % 4 == 0)
			usleep(race_rnd(&rng) % 600);	/* the other end is interrupted meanwhile */
		race_send(s, c, 8);
	}
}

static void on_signal(int sig)
{
	char c;
	int e = errno;

	hits++;
	(void)!recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
	errno = e;
}

static void phase(bool restart, bool timeo)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = restart ? SA_RESTART : 0 };
	struct timeval tv = { timeo ? 10 : 0, 0 };
	struct itimerval it = { { 0, 300 }, { 0, 300 } }, off = { 0 };
	unsigned interrupted = 0, polls = 0, i;
	int ep = epoll_create1(0);
	struct epoll_event ev = { .events = EPOLLIN };
	unsigned char c[8], d[8];
	ssize_t r;

	race_check(!epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), "ADD");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	sigaction(SIGPROF, &sa, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	hits = 0;
	for (i = 0; i < rounds; i++) {
		memset(c, (int)(i % 100), sizeof(c));
		setitimer(ITIMER_REAL, &off, NULL);
		race_send(fd, c, 8);
		sigaction(SIGALRM, &sa, NULL);
		setitimer(ITIMER_REAL, &it, NULL);
		switch (i % 4) {
		case 1:
			while ((r = poll(&(struct pollfd) { .fd = fd, .events = POLLIN }, 1, 10000)) < 0)
				polls += errno == EINTR;
			race_check(r == 1, "poll");
			break;
		case 2:
			while ((r = epoll_wait(ep, &ev, 1, 10000)) < 0)
				polls += errno == EINTR;
			race_check(r == 1, "epoll_wait");
			break;
		case 3: {
			fd_set in;

			do {
				FD_ZERO(&in);
				FD_SET(fd, &in);
				r = select(fd + 1, &in, NULL, NULL, NULL);
				polls += r < 0 && errno == EINTR;
			} while (r < 0);
			break;
		}
		default:
			break;
		}
		for (size_t got = 0; got < 8;) {
			r = recv(fd, d + got, 8 - got, 0);
			if (r < 0 && errno == EINTR)
				interrupted++;
			else
				race_check(r > 0, "recv gave %zd", r);
			got += r > 0 ? (size_t)r : 0;
		}
		race_check(!memcmp(c, d, 8), "wrong bytes in round %u", i);
	}
	setitimer(ITIMER_REAL, &off, NULL);
	race_check(hits > 0, "no signal came");
	race_check(!restart || timeo || !interrupted, "%u receives interrupted in spite of SA_RESTART", interrupted);
	race_check((restart && !timeo) || interrupted, "no receive was interrupted in %d signals", hits);
	race_check(polls, "no poll was interrupted in %d signals", hits);
	close(ep);
}

static void *watchdog(void *arg)
{
	unsigned i;

	/* SIGALRM is the test's own here, so the limit is kept by a thread; it blocks every signal */
	for (i = 0; i < 600; i++)
		usleep(100000);
	(void)!write(2, "HUNG: not finished in time\n", 27);
	_exit(3);
	return arg;
}

int main(void)
{
	sigset_t all, old;
	pthread_t th;

	race_start(60);
	rounds = (unsigned)(2000 * race_scale()) + 200;
	fd = race_connect(peer);
	alarm(0);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_create(&th, NULL, watchdog, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	phase(false, false);
	phase(true, false);
	phase(true, true);
	race_send(fd, "quitquit", 8);
	race_end(fd);
}
