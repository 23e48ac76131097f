/* SPDX-License-Identifier: MIT */
/*
 * nodelay.c - one thread sends, another sets TCP_NODELAY and asks for it: nobody else changes it
 *
 * (The switch turns it on for a moment to push what Nagle's algorithm holds back.)
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "race.h"

static int fd;
static _Atomic bool over;

static void peer(int s)
{
	unsigned char b[64];
	unsigned i = 0;
	ssize_t r;

	while ((r = recv(s, b, sizeof(b), 0)) > 0)
		if (++i % 4 == 0)
			race_send(s, "x", 1);
	race_check(r == 0, "recv gave %zd", r);
}

static void *sender(void *arg)
{
	uint64_t rng = 9;
	unsigned char b[600] = { 0 };

	while (!over) {
		int i, n = 1 + (int)(race_rnd(&rng) % 3);

		/* by TCP, and in pieces that wait for an ACK; then one that may go by a ring */
		for (i = 0; i < n; i++)
			race_check(send(fd, b, 10, MSG_NOSIGNAL | MSG_DONTROUTE) == 10, "send");
		race_send(fd, b, 1 + race_rnd(&rng) % sizeof(b));
		while (recv(fd, b, sizeof(b), MSG_DONTWAIT) > 0)
			;
	}
	return arg;
}

int main(void)
{
	unsigned i, rounds;
	char rest[256];
	pthread_t th;

	race_start(60);
	rounds = (unsigned)(60000 * race_scale()) + 1000;
	fd = race_connect(peer);
	pthread_create(&th, NULL, sender, NULL);
	for (i = 0; i < rounds; i++) {
		int v = i % 3 == 0, k, got;
		socklen_t l = sizeof(got);

		race_check(!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, sizeof(v)), "TCP_NODELAY");
		for (k = 0; k < 10; k++) {
			got = -1;
			race_check(!getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &got, &l), "getsockopt");
			race_check(!!got == v, "TCP_NODELAY was set to %d and is %d in round %u", v, got, i);
		}
	}
	over = true;
	pthread_join(th, NULL);
	shutdown(fd, SHUT_WR);
	while (recv(fd, rest, sizeof(rest), 0) > 0)
		;
	race_end(fd);
}
