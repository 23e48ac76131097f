/* SPDX-License-Identifier: MIT */
/*
 * senders.c - two threads and a signal handler send on one socket
 *
 * Small records of one send call each are never torn or lost, and those of one thread stay in order. No more than a
 * window is under way, so that a send never has to wait half way (where TCP, too, lets another sender in).
 * The handler interrupts a sender anywhere, also inside its send (G4: nothing may wait for the interrupted).
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <sys/socket.h>

#include "race.h"

#define WINDOW 100u

struct record {
	uint32_t who, seq;
	uint8_t fill[24];
};

static int fd;
static unsigned rounds;
static _Atomic int by_handler;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t room = PTHREAD_COND_INITIALIZER;
static unsigned under_way;

static void make(struct record *r, uint32_t who, uint32_t seq)
{
	r->who = who;
	r->seq = seq;
	memset(r->fill, (int)(who * 31 + seq * 7), sizeof(r->fill));
}

static void *sender(void *arg)
{
	uint32_t who = (uint32_t)(uintptr_t)arg, i;
	struct record r;

	for (i = 0; i < rounds; i++) {
		pthread_mutex_lock(&lock);
		while (under_way >= WINDOW)
			pthread_cond_wait(&room, &lock);
		under_way++;
		pthread_mutex_unlock(&lock);
		make(&r, who, i);
		race_send(fd, &r, sizeof(r));
	}
	return NULL;
}

static void *acks(void *arg)
{
	unsigned left = 2 * rounds, i;
	char b[64];

	while (left) {
		ssize_t r = recv(fd, b, sizeof(b), 0);

		if (r < 0)
			continue;
		race_check(r > 0, "end of file with %u acknowledgements to come", left);
		for (i = 0; i < (unsigned)r; i++)
			race_check(b[i] == 'a', "acknowledgement %#x", (unsigned)b[i]);
		left -= (unsigned)r;
		pthread_mutex_lock(&lock);
		under_way -= (unsigned)r;
		pthread_cond_broadcast(&room);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

static void on_timer(int sig)
{
	static atomic_flag busy = ATOMIC_FLAG_INIT;	/* the next tick may come to another thread */
	struct record r;
	int e = errno;

	if (by_handler >= 200 || atomic_flag_test_and_set(&busy))
		return;
	make(&r, 2, (uint32_t)by_handler);
	if (send(fd, &r, sizeof(r), MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof(r))
		by_handler++;
	atomic_flag_clear(&busy);
	errno = e;
}

static void peer(int s)
{
	uint32_t seq[3] = { 0 }, total = 2 * rounds;
	struct record r, want;

	for (;;) {
		race_recv(s, &r, sizeof(r));
		if (r.who == 9)
			break;
		race_check(r.who < 3, "a torn record: from %u", r.who);
		race_check(r.seq == seq[r.who], "record %u of %u, must be %u", r.seq, r.who, seq[r.who]);
		make(&want, r.who, r.seq);
		race_check(!memcmp(&r, &want, sizeof(r)), "a torn record: %u of %u", r.seq, r.who);
		seq[r.who]++;
		if (r.who < 2)
			race_send(s, "a", 1);
	}
	race_check(seq[0] + seq[1] == total, "%u records, must be %u", seq[0] + seq[1], total);
	race_check(r.seq == seq[2], "%u records by the handler, must be %u", seq[2], r.seq);
}

int main(void)
{
	struct itimerval it = { { 0, 1000 }, { 0, 1000 } }, off = { 0 };
	struct sigaction sa = { .sa_handler = on_timer, .sa_flags = SA_RESTART };
	struct record last;
	pthread_t th[3];

	race_start(60);
	rounds = (unsigned)(20000 * race_scale());
	fd = race_connect(peer);
	sigaction(SIGVTALRM, &sa, NULL);
	setitimer(ITIMER_VIRTUAL, &it, NULL);
	pthread_create(&th[0], NULL, sender, (void *)0);
	pthread_create(&th[1], NULL, sender, (void *)1);
	pthread_create(&th[2], NULL, acks, NULL);
	for (int i = 0; i < 3; i++)
		pthread_join(th[i], NULL);
	setitimer(ITIMER_VIRTUAL, &off, NULL);
	make(&last, 9, (uint32_t)by_handler);
	race_send(fd, &last, sizeof(last));
	race_end(fd);
}
