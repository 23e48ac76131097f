/* SPDX-License-Identifier: MIT */
/*
 * tail - what was sent last, by processes that are gone at once
 *
 * tail listen ADDRESS PORT N: N connections; of each the bytes must be those announced, then the end of the stream
 * tail connect ADDRESS PORT MS HOW: one; talks until $WSD_LOG says that it sends by RDMA, or for MS milliseconds, announces how many bytes
 * follow, sends them and is gone: HOW is close, exit, shutdown or kill.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST (96u << 10)

static uint8_t pattern(uint32_t seed, uint32_t i)
{
	return (uint8_t)((seed + i) * 2654435761u >> 24);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static struct sockaddr_in address(const char *ip, const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };

	if (inet_pton(AF_INET, ip, &a.sin_addr) != 1)
		die(ip);
	return a;
}

/* the bytes of one that is about to go; 0 or -1 */
static int follow(int s)
{
	static __thread uint8_t buf[16384];
	uint32_t word[2], got = 0;
	ssize_t n;

	for (;;) {
		n = recv(s, word, sizeof(word), MSG_WAITALL);
		if (n != (ssize_t)sizeof(word)) {
			fprintf(stderr, "the talk broke off: %zd, %s\n", n, n < 0 ? strerror(errno) : "end of stream");
			return -1;
		}
		if (word[0])
			break;
		if (send(s, word, sizeof(word), MSG_NOSIGNAL) != (ssize_t)sizeof(word))
			die("answer");
	}
	for (;;) {
		n = recv(s, buf, sizeof(buf), 0);
		if (n < 0) {
			fprintf(stderr, "%u of %u bytes, then %s\n", got, word[0], strerror(errno));
			return -1;
		}
		if (!n)
			break;
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != pattern(word[1], got + (uint32_t)i)) {
				fprintf(stderr, "byte %u of %u is wrong\n", got + (uint32_t)i, word[0]);
				return -1;
			}
		got += (uint32_t)n;
	}
	if (got != word[0]) {
		fprintf(stderr, "%u of %u bytes, then the end of the stream\n", got, word[0]);
		return -1;
	}
	return 0;
}

static void *server(void *arg)
{
	int s = (int)(intptr_t)arg;
	int r = follow(s);

	close(s);
	return (void *)(intptr_t)r;
}

static int listening(const struct sockaddr_in *a, unsigned n)
{
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	pthread_t *t = calloc(n, sizeof(*t));
	unsigned bad = 0;
	void *r;

	if (l < 0 || !t || setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 || bind(l, (const void *)a, sizeof(*a)) < 0 ||
	    listen(l, 64) < 0)
		die("listen");
	for (unsigned i = 0; i < n; i++) {
		int s = accept(l, NULL, NULL);

		if (s < 0)
			die("accept");
		if (pthread_create(&t[i], NULL, server, (void *)(intptr_t)s))
			die("thread");
	}
	for (unsigned i = 0; i < n; i++) {
		pthread_join(t[i], &r);
		bad += r != NULL;
	}
	printf("%u of %u tails were whole\n", n - bad, n);
	return bad != 0;
}

static bool by_rdma(void)
{
	static char text[65536];
	const char *log = getenv("WSD_LOG");
	FILE *f = log ? fopen(log, "re") : NULL;
	size_t n;

	if (!f)
		return false;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = 0;
	return strstr(text, "sends by RDMA") != NULL;
}

static int connecting(const struct sockaddr_in *a, int ms, const char *how)
{
	static uint8_t buf[MOST];
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint32_t word[2] = { 0, (uint32_t)getpid() }, at = 0, n;
	int64_t end = now_ms() + ms, look = 0;

	srand((unsigned)getpid() ^ (unsigned)now_ms());
	if (s < 0 || connect(s, (const void *)a, sizeof(*a)) < 0)
		die("connect");
	while (now_ms() < end) {
		if (now_ms() >= look && by_rdma())
			break;
		look = now_ms() > look ? now_ms() + 50 : look;
		if (send(s, word, sizeof(word), 0) != (ssize_t)sizeof(word) || recv(s, word, sizeof(word), MSG_WAITALL) != (ssize_t)sizeof(word))
			die("talk");
	}
	word[0] = 1 + (uint32_t)rand() % (rand() % 2 ? MOST : 2000);
	for (n = 0; n < word[0]; n++)
		buf[n] = pattern(word[1], n);
	if (send(s, word, sizeof(word), 0) != (ssize_t)sizeof(word))
		die("announce");
	while (at < word[0]) {
		uint32_t most = 1 + (uint32_t)rand() % 20000;
		ssize_t k = send(s, buf + at, word[0] - at < most ? word[0] - at : most, 0);

		if (k < 0)
			die("send");
		at += (uint32_t)k;
	}
	if (!strcmp(how, "kill"))
		raise(SIGKILL);
	if (!strcmp(how, "shutdown"))
		shutdown(s, SHUT_WR);
	if (!strcmp(how, "close"))
		close(s);
	_exit(0);
}

int main(int argc, char **argv)
{
	struct sockaddr_in a;

	if (argc < 5)
		return 2;
	a = address(argv[2], argv[3]);
	if (!strcmp(argv[1], "listen"))
		return listening(&a, (unsigned)atoi(argv[4]));
	return argc < 6 ? 2 : connecting(&a, atoi(argv[4]), argv[5]);
}
