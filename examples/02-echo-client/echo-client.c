/* SPDX-License-Identifier: MIT */
/*
 * Sends messages, reads each back and checks every byte; says how long a round trip took.
 * A message larger than all socket buffers together would wait for its own echo, so at most
 * 64 KiB are on their way at a time.
 */
#include <time.h>

#include "examples/example.h"

#define WINDOW 65536

int main(int argc, char **argv)
{
	unsigned long port, bytes, rounds;
	uint8_t out[WINDOW], in[WINDOW];
	struct timespec a, b;
	uint64_t sent = 0, got = 0;
	int fd;

	if (argc < 2) {
		fprintf(stderr, "usage: %s PORT [BYTES [ROUNDS]]\n", argv[0]);
		return 2;
	}
	port = number(argc, argv, 1, 0);
	bytes = number(argc, argv, 2, 64);
	rounds = number(argc, argv, 3, 1000);
	fd = connect_to(port);

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (unsigned long r = 0; r < rounds; r++) {
		for (unsigned long left = bytes; left;) {
			size_t n = left < WINDOW ? left : WINDOW;

			for (size_t i = 0; i < n; i++)
				out[i] = pattern(sent + i);
			if (write_all(fd, out, n) < 0)
				die("send");
			sent += n;
			left -= n;
			for (size_t have = 0; have < n;) {
				ssize_t k = recv(fd, in, n - have, 0);

				if (k < 0)
					die("recv");
				if (k == 0) {
					fprintf(stderr, "end of stream after %llu bytes\n", (unsigned long long)got);
					return 1;
				}
				for (ssize_t i = 0; i < k; i++)
					if (in[i] != pattern(got + (uint64_t)i)) {
						fprintf(stderr, "wrong byte at %llu\n", (unsigned long long)got + (uint64_t)i);
						return 1;
					}
				got += (uint64_t)k;
				have += (size_t)k;
			}
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	close(fd);
	printf("ok %llu bytes, %.2f us a round\n", (unsigned long long)got,
	       ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / 1e3 / (double)(rounds ? rounds : 1));
	return 0;
}
