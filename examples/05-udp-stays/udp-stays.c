/* SPDX-License-Identifier: MIT */
/*
 * What is no TCP stream is left alone: datagrams, datagram boundaries, and a TCP socket that the
 * same program uses beside them. Both ends are in this process.
 */
#include "examples/example.h"

int main(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	char buf[2000];
	int a, b;

	a = socket(AF_INET, SOCK_DGRAM, 0);
	b = socket(AF_INET, SOCK_DGRAM, 0);
	if (a < 0 || b < 0 || bind(a, (struct sockaddr *)&sin, len) < 0 ||
	    getsockname(a, (struct sockaddr *)&sin, &len) < 0 || connect(b, (struct sockaddr *)&sin, len) < 0)
		die("udp");

	for (unsigned i = 1; i <= 1000; i++) {
		size_t size = i;

		memset(buf, (int)(i & 0xff), size);
		if (send(b, buf, size, 0) != (ssize_t)size)
			die("send");
		/* one datagram each, however large the buffer is */
		if (recv(a, buf, sizeof(buf), 0) != (ssize_t)size || (unsigned char)buf[size - 1] != (i & 0xff)) {
			fprintf(stderr, "datagram %u came otherwise\n", i);
			return 1;
		}
	}
	if (send(b, buf, 0, 0) != 0 || recv(a, buf, sizeof(buf), 0) != 0)	/* an empty one is no end of stream */
		die("empty datagram");
	puts("ok 1001 datagrams");
	return 0;
}
