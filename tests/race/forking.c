/* SPDX-License-Identifier: MIT */
/*
 * forking.c - a process forks while its other thread is in the middle of sending and receiving
 *
 * Children that touch nothing cost nothing; children that send are heard; nobody's lock is left taken. The peer echoes
 * what the thread sends, and counts the children's bytes, which are marked by their top bit.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "race.h"

static int fd;
static atomic_bool stop;
static unsigned forks;

static void peer(int s)
{
	unsigned char b[256], out[256];
	unsigned marked = 0, expect = 0;
	ssize_t r, i, k;
	bool last = false;

	while (!last) {
		r = recv(s, b, sizeof(b), 0);
		race_check(r > 0, "recv gave %zd", r);
		for (i = k = 0; i < r; i++) {
			if (b[i] == 0xff) {
				last = true;
			} else if (b[i] & 0x80) {
				marked++;
			} else {
				race_check(b[i] == expect % 128, "byte %u, must be %u", b[i], expect % 128);
				expect++;
				out[k++] = b[i];
			}
		}
		race_send(s, out, (size_t)k);
	}
	race_check(marked == (forks + 2) / 3, "%u bytes from children, must be %u", marked, (forks + 2) / 3);
}

static void *talker(void *arg)
{
	unsigned sent = 0, got = 0, n, i;
	unsigned char b[64];

	while (!stop) {
		n = 1 + sent % 50;
		for (i = 0; i < n; i++)
			b[i] = (unsigned char)((sent + i) % 128);
		race_send(fd, b, n);
		sent += n;
		race_recv(fd, b, n);
		for (i = 0; i < n; i++)
			race_check(b[i] == (got + i) % 128, "echo");
		got += n;
	}
	return NULL;
}

int main(void)
{
	pthread_t th;
	unsigned i;
	int status;
	pid_t pid;

	race_start(60);
	forks = (unsigned)(150 * race_scale()) + 3;
	fd = race_connect(peer);
	pthread_create(&th, NULL, talker, NULL);
	for (i = 0; i < forks; i++) {
		pid = fork();
		race_check(pid >= 0, "fork");
		if (pid == 0) {
			if (i % 3 == 0 && send(fd, "\x81", 1, MSG_NOSIGNAL) != 1)
				_exit(1);
			if (i % 3 == 1)
				close(fd);
			_exit(0);
		}
		race_check(waitpid(pid, &status, 0) == pid && status == 0, "child %u: status %#x", i, (unsigned)status);
	}
	stop = true;
	pthread_join(th, NULL);
	race_send(fd, "\xff", 1);
	race_end(fd);
}
