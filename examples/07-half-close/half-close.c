/* SPDX-License-Identifier: MIT */
/*
 * half-close server [PORT [CONNECTIONS]]: reads to the end of the stream, checks every byte, then answers
 * with the count and resets nothing.
 * half-close client PORT [BYTES]: sends, shuts its side down, and reads the answer to the end.
 */
#include "examples/example.h"

static int server(int argc, char **argv)
{
	unsigned long left = number(argc, argv, 3, 0);
	int l = listen_on(number(argc, argv, 2, 0));
	static uint8_t buf[50000];

	do {
		int fd = accept(l, NULL, NULL);
		uint64_t got = 0;
		char text[64];
		ssize_t n;

		if (fd < 0)
			die("accept");
		while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
			for (ssize_t i = 0; i < n; i++, got++)
				if (buf[i] != pattern(got)) {
					fprintf(stderr, "wrong byte at %llu\n", (unsigned long long)got);
					return 1;
				}
		if (n < 0)
			die("recv");
		n = snprintf(text, sizeof(text), "%llu", (unsigned long long)got);
		if (write_all(fd, text, (size_t)n) < 0)
			die("send");
		close(fd);
	} while (--left);
	return 0;
}

static int client(int argc, char **argv)
{
	unsigned long bytes = number(argc, argv, 3, 1000000), sent = 0, got = 0;
	int fd = connect_to(number(argc, argv, 2, 0));
	uint8_t buf[30011];
	char text[64] = "";
	ssize_t n;

	while (sent < bytes) {
		size_t k = bytes - sent < sizeof(buf) ? bytes - sent : sizeof(buf);

		for (size_t i = 0; i < k; i++)
			buf[i] = pattern(sent + i);
		if (write_all(fd, buf, k) < 0)
			die("send");
		sent += k;
	}
	if (shutdown(fd, SHUT_WR) < 0)
		die("shutdown");
	if (send(fd, buf, 1, MSG_NOSIGNAL) >= 0 || errno != EPIPE) {
		fprintf(stderr, "sending after shutdown did not fail with EPIPE\n");
		return 1;
	}
	while ((n = recv(fd, text + got, sizeof(text) - 1 - got, 0)) > 0)
		got += (unsigned long)n;
	if (n < 0)
		die("recv");
	if (strtoul(text, NULL, 10) != bytes) {
		fprintf(stderr, "the server has %s bytes of %lu\n", text, bytes);
		return 1;
	}
	printf("ok %lu bytes\n", bytes);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc >= 2 && !strcmp(argv[1], "server"))
		return server(argc, argv);
	if (argc >= 3 && !strcmp(argv[1], "client"))
		return client(argc, argv);
	fprintf(stderr, "usage: %s server [PORT [CONNECTIONS]] | client PORT [BYTES]\n", argv[0]);
	return 2;
}
