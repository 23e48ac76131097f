/* SPDX-License-Identifier: MIT */
/*
 * modes.c - O_NONBLOCK changes, peeks, FIONREAD and duplicates come and go in one thread while another reads
 *
 * A blocking reader may meet EAGAIN only while O_NONBLOCK is on; the stream stays whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "race.h"

static int fd;
static unsigned rounds;
static atomic_bool stop;

static void peer(int s)
{
	unsigned char b[512];
	unsigned i, k;

	for (i = 0; i < rounds; i++) {
		unsigned n = 1 + i * 7 % sizeof(b);

		for (k = 0; k < n; k++)
			b[k] = (unsigned char)(i + k);
		race_send(s, b, n);
		if (i % 16 == 0)
			race_recv(s, b, 1);
	}
	race_recv(s, b, 1);
}

static void *meddler(void *arg)
{
	uint64_t rng = 8;
	int v, d;
	char c;

	while (!stop) {
		switch (race_rnd(&rng) % 5) {
		case 0:
			v = (int)(race_rnd(&rng) & 1);
			race_check(!ioctl(fd, FIONBIO, &v), "FIONBIO");
			break;
		case 1:
			v = fcntl(fd, F_GETFL);
			race_check(v >= 0 && !fcntl(fd, F_SETFL, v ^ O_NONBLOCK), "F_SETFL");
			break;
		case 2:
			race_check(!ioctl(fd, FIONREAD, &v) && v >= 0, "FIONREAD %d", v);
			break;
		case 3:
			race_check(recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 1 || errno == EAGAIN, "peek");
			break;
		default:
			d = dup(fd);
			race_check(d >= 0 && !close(d), "dup");
		}
	}
	return NULL;
}

int main(void)
{
	unsigned char b[512];
	unsigned i, k;
	pthread_t th;

	race_start(60);
	rounds = (unsigned)(15000 * race_scale());
	fd = race_connect(peer);
	pthread_create(&th, NULL, meddler, NULL);
	for (i = 0; i < rounds; i++) {
		unsigned n = 1 + i * 7 % sizeof(b);

		race_recv(fd, b, n);
		for (k = 0; k < n; k++)
			race_check(b[k] == (unsigned char)(i + k), "byte %u of message %u", k, i);
		if (i % 16 == 0)
			race_send(fd, "a", 1);
	}
	stop = true;
	pthread_join(th, NULL);
	race_send(fd, "e", 1);
	race_end(fd);
}
