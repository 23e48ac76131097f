/* SPDX-License-Identifier: MIT */
/*
 * closing.c - close, dup2 and shutdown while another thread sleeps in recv on the same number
 *
 * On kernel TCP a sleeping recv holds the socket: closing its number does not wake it, and what the peer sends next
 * still comes to it. dup2 of something else over the number does not move it either. shutdown(SHUT_RD) wakes it
 * with the end of the stream. A number that is in use again belongs to the new socket at once.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "race.h"

static int fd;
static _Atomic int tid;
static unsigned rounds;

static void peer(int s)
{
	char c;
	unsigned i;

	for (i = 0; i < rounds; i++) {
		race_recv(s, &c, 1);
		race_check(c == 'g', "go-ahead %#x", (unsigned)c);
		race_send(s, "answer", 6);
	}
	while (recv(s, &c, 1, 0) > 0)
		;
}

static void *sleeper(void *arg)
{
	static __thread char b[16];
	ssize_t r;

	tid = (int)syscall(SYS_gettid);
	r = recv(fd, b, sizeof(b), 0);
	tid = 0;
	race_check(r == (ssize_t)(intptr_t)arg, "the sleeping recv gave %zd, must be %zd", r, (ssize_t)(intptr_t)arg);
	race_check(r <= 0 || !memcmp(b, "answer", 6), "wrong bytes");
	return NULL;
}

static void until_asleep(void)
{
	uint64_t end = race_now_us() + 5000000;
	char path[64], text[300], *p;

	while (race_now_us() < end) {
		int f;
		ssize_t n;

		if (!tid) {
			sched_yield();
			continue;
		}
		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
		f = open(path, O_RDONLY);
		n = f < 0 ? 0 : read(f, text, sizeof(text) - 1);
		if (f >= 0)
			close(f);
		text[n > 0 ? n : 0] = 0;
		p = strrchr(text, ')');
		if (p && p[2] == 'S')
			return;
		sched_yield();
	}
	race_check(false, "the reader does not sleep");
}

int main(void)
{
	int keep, other[2], number;
	pthread_t th;
	unsigned i;

	race_start(60);
	rounds = (unsigned)(300 * race_scale()) + 2;
	fd = race_connect(peer);
	keep = fcntl(fd, F_DUPFD, 50);
	race_check(keep >= 50 && !socketpair(AF_UNIX, SOCK_STREAM, 0, other), "set-up");
	number = fd;
	for (i = 0; i < rounds; i++) {
		pthread_create(&th, NULL, sleeper, (void *)6);
		until_asleep();
		if (i & 1) {
			race_check(!close(number), "close");
		} else {
			/* now the number is a Unix socket: what it gets is not for the sleeper */
			race_check(dup2(other[0], number) == number, "dup2");
			race_check(write(other[1], "u", 1) == 1, "write");
		}
		race_send(keep, "g", 1);
		pthread_join(th, NULL);
		if (!(i & 1)) {
			char c = 0;

			race_check(read(number, &c, 1) == 1 && c == 'u', "the new socket's byte");
		}
		race_check(dup2(keep, number) == number, "dup2 back");
	}
	pthread_create(&th, NULL, sleeper, (void *)0);
	until_asleep();
	race_check(!shutdown(keep, SHUT_RD), "shutdown");
	pthread_join(th, NULL);
	close(keep);
	close(other[0]);
	close(other[1]);
	race_end(number);
}
