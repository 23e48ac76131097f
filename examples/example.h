/* SPDX-License-Identifier: MIT */
/*
 * example.h - the few lines that all examples share
 *
 * Nothing here, nor in any example, knows of this project: they are ordinary socket programs.
 * Each server prints "port N" when it listens, and ends after CONNECTIONS connections (0: never).
 */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

__attribute__((noreturn, unused)) static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* number in argv[i], or the default */
__attribute__((unused)) static unsigned long number(int argc, char **argv, int i, unsigned long def)
{
	char *end;
	unsigned long v;

	if (i >= argc)
		return def;
	v = strtoul(argv[i], &end, 10);
	if (*end || end == argv[i]) {
		fprintf(stderr, "%s: not a number\n", argv[i]);
		exit(2);
	}
	return v;
}

/* listen on a port of the loopback (0: any), say which */
__attribute__((unused)) static int listen_on(unsigned long port)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port),
	};
	socklen_t len = sizeof(sin);
	int one = 1, fd;

	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0 || listen(fd, 128) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sin, &len) < 0)
		die("listen");
	printf("port %u\n", ntohs(sin.sin_port));
	fflush(stdout);
	return fd;
}

__attribute__((unused)) static int connect_to(unsigned long port)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port),
	};
	int one = 1, fd;

	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0)
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

/* write all of it; 0, or -1 with errno */
__attribute__((unused)) static int write_all(int fd, const void *buf, size_t n)
{
	const char *p = buf;

	while (n) {
		ssize_t r = send(fd, p, n, MSG_NOSIGNAL);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -1;
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

/* the byte that belongs at an offset of a stream: does not repeat with any power of two */
__attribute__((unused)) static uint8_t pattern(uint64_t offset)
{
	return (uint8_t)((offset * 2654435761u) >> 13 ^ offset / 251);
}

#endif
