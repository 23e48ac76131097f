/* SPDX-License-Identifier: MIT */
/* A thread for each connection, each waiting in poll() with a time-out before it reads. */
#include <poll.h>
#include <pthread.h>

#include "examples/example.h"

static void *serve(void *arg)
{
	int fd = (int)(intptr_t)arg;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	static _Thread_local char buf[65536];
	ssize_t n;

	for (;;) {
		if (poll(&p, 1, 30000) <= 0)
			break;
		n = recv(fd, buf, sizeof(buf), 0);
		if (n <= 0 || write_all(fd, buf, (size_t)n) < 0)
			break;
	}
	close(fd);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long limit = number(argc, argv, 2, 0);
	int l = listen_on(number(argc, argv, 1, 0));
	pthread_t *t = calloc(limit ? limit : 1, sizeof(*t));

	for (unsigned long i = 0; !limit || i < limit; i++) {
		int fd = accept(l, NULL, NULL);
		pthread_t one;

		if (fd < 0)
			die("accept");
		errno = pthread_create(&one, NULL, serve, (void *)(intptr_t)fd);
		if (errno)
			die("pthread_create");
		if (limit)
			t[i] = one;
		else
			pthread_detach(one);
	}
	for (unsigned long i = 0; i < limit; i++)
		pthread_join(t[i], NULL);
	free(t);
	return 0;
}
