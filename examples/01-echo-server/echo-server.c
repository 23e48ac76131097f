/* SPDX-License-Identifier: MIT */
/* The smallest server: blocking calls, one connection after the other. */
#include "examples/example.h"

int main(int argc, char **argv)
{
	unsigned long left = number(argc, argv, 2, 0);
	int l = listen_on(number(argc, argv, 1, 0));
	static char buf[65536];

	do {
		int fd = accept(l, NULL, NULL);
		ssize_t n;

		if (fd < 0)
			die("accept");
		while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
			if (write_all(fd, buf, (size_t)n) < 0)
				break;
		if (n < 0)
			perror("recv");
		close(fd);
	} while (--left);
	return 0;
}
