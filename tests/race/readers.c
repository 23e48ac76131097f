/* SPDX-License-Identifier: MIT */
/*
 * readers.c - three threads read one socket, each in its own way: no byte twice, none lost
 *
 * Who gets what is open, so what is compared is how often each byte value came.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "race.h"

static int fd;
static uint64_t total;

static void peer(int s)
{
	uint64_t rng = 5, left = total;
	unsigned char b[6000], ack;
	struct race_tally t = { { 0 } }, theirs;
	size_t i;

	while (left) {
		size_t n = race_rnd(&rng) % 4 ? 1 + race_rnd(&rng) % 200 : 1 + race_rnd(&rng) % sizeof(b);

		if (n > left)
			n = left;
		for (i = 0; i < n; i++) {
			b[i] = (unsigned char)race_rnd(&rng);
			t.n[b[i]]++;
		}
		race_send(s, b, n);
		left -= n;
		if (race_rnd(&rng) % 8 == 0)
			usleep(race_rnd(&rng) % 100);	/* not waiting for anything: lets readers fall asleep */
	}
	shutdown(s, SHUT_WR);
	race_recv(s, &theirs, sizeof(theirs));
	race_check(!memcmp(&t, &theirs, sizeof(t)), "the readers together did not get what was sent");
	race_recv(s, &ack, 1);
}

static void *reader(void *arg)
{
	int how = (int)(uintptr_t)arg;
	struct race_tally *t = calloc(1, sizeof(*t));
	unsigned char b[4096], peek[16];
	uint64_t rng = 77 + (uint64_t)how;
	ssize_t r, i;

	for (;;) {
		size_t n = 1 + race_rnd(&rng) % sizeof(b);

		if (how == 1)
			poll(&(struct pollfd) { .fd = fd, .events = POLLIN }, 1, 10000);
		if (how == 2)
			(void)!recv(fd, peek, sizeof(peek), MSG_PEEK | MSG_DONTWAIT);
		r = how == 0 ? read(fd, b, n) : recv(fd, b, n, how == 1 ? MSG_DONTWAIT : 0);
		if (r < 0 && errno == EAGAIN)
			continue;
		race_check(r >= 0, "receive by reader %d", how);
		if (r == 0)
			return t;
		for (i = 0; i < r; i++)
			t->n[b[i]]++;
	}
}

int main(void)
{
	struct race_tally sum = { { 0 } };
	uint64_t all = 0;
	pthread_t th[3];
	void *res;
	int i, k;

	race_start(60);
	total = (uint64_t)(8e6 * race_scale());
	fd = race_connect(peer);
	for (i = 0; i < 3; i++)
		pthread_create(&th[i], NULL, reader, (void *)(uintptr_t)i);
	for (i = 0; i < 3; i++) {
		pthread_join(th[i], &res);
		for (k = 0; k < 256; k++)
			sum.n[k] += ((struct race_tally *)res)->n[k];
		free(res);
	}
	for (k = 0; k < 256; k++)
		all += sum.n[k];
	race_check(all == total, "%llu bytes, must be %llu", (unsigned long long)all, (unsigned long long)total);
	race_send(fd, &sum, sizeof(sum));
	race_send(fd, "k", 1);
	race_end(fd);
}
