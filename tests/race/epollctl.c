/* SPDX-License-Identifier: MIT */
/*
 * epollctl.c - one thread waits in a set while another changes it: no wake-up is lost
 *
 * The peer sends a message only when the last one was answered, so one lost wake-up stops everything. The other
 * thread registers, changes and removes at random, and always leaves the descriptor registered in the end of a turn:
 * whatever arrived meanwhile must then be reported (G15, G17).
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "race.h"

static int fd, ep;
static unsigned rounds;
static atomic_bool stop;
static bool edge;

static void peer(int s)
{
	char b[32];
	unsigned i;

	for (i = 0; i < rounds; i++) {
		memset(b, (int)i, sizeof(b));
		race_send(s, b, 1 + i % sizeof(b));
		race_recv(s, b, 1);
		race_check(b[0] == (char)i, "answer %#x to message %u", (unsigned)b[0], i);
	}
}

static void *changer(void *arg)
{
	uint32_t base = EPOLLIN | (edge ? EPOLLET : 0);
	struct epoll_event ev;
	uint64_t rng = 9;

	while (!stop) {
		switch (race_rnd(&rng) % 4) {
		case 0:
			ev = (struct epoll_event) { .events = base | EPOLLRDHUP, .data.fd = fd };
			race_check(!epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev), "MOD");
			break;
		case 1:
			race_check(!epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL), "DEL");
			ev = (struct epoll_event) { .events = base, .data.fd = fd };
			race_check(!epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), "ADD");
			break;
		case 2:		/* deaf for a moment */
			ev = (struct epoll_event) { .events = 0, .data.fd = fd };
			race_check(!epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev), "MOD to nothing");
			sched_yield();
			ev = (struct epoll_event) { .events = base, .data.fd = fd };
			race_check(!epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev), "MOD back");
			break;
		default:
			usleep(race_rnd(&rng) % 50);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct epoll_event ev = { .events = EPOLLIN };
	unsigned i, on = 1;
	pthread_t th;
	char b[64];

	race_start(60);
	edge = argc > 1 && !strcmp(argv[1], "edge");
	rounds = (unsigned)(20000 * race_scale());
	fd = race_connect(peer);
	ioctl(fd, FIONBIO, &on);
	ep = epoll_create1(0);
	ev = (struct epoll_event) { .events = EPOLLIN | (edge ? EPOLLET : 0), .data.fd = fd };
	race_check(!epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), "first ADD");
	pthread_create(&th, NULL, changer, NULL);
	for (i = 0; i < rounds; i++) {
		size_t want = 1 + i % 32, got = 0;

		while (got < want) {
			int n = epoll_wait(ep, &ev, 1, 20000);
			ssize_t r;

			race_check(n == 1, "message %u of %u: epoll_wait gave %d: a lost wake-up", i, rounds, n);
			race_check(ev.data.fd == fd, "event for descriptor %d", ev.data.fd);
			while ((r = recv(fd, b, sizeof(b), 0)) > 0) {
				race_check(b[0] == (char)i, "message %#x, must be %#x", (unsigned)b[0], i);
				got += (size_t)r;
			}
			race_check(r < 0 && errno == EAGAIN, "recv gave %zd", r);
		}
		b[0] = (char)i;
		race_send(fd, b, 1);
	}
	stop = true;
	pthread_join(th, NULL);
	close(ep);
	race_end(fd);
}
