/* SPDX-License-Identifier: MIT */
/*
 * one connection, one direction, as fast as it goes; the receiver's clock counts
 *
 * With verify, byte i of the stream is pattern[i mod PERIOD]; PERIOD is a prime, so a lost, doubled
 * or moved piece shows at once. Without, one buffer is sent over and over, as iperf does.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/tsc.h"
#include "tools/bench/role.h"

#define PERIOD	65521u

static unsigned char *pattern_new(size_t longest)
{
	unsigned char *p = malloc(PERIOD + longest);
	uint32_t x = 1;

	if (!p)
		die("out of memory");
	for (size_t i = 0; i < PERIOD + longest; i++) {
		if (i < PERIOD) {
			x = x * 1664525 + 1013904223;
			p[i] = (unsigned char)(x >> 24);
		} else {
			p[i] = p[i - PERIOD];
		}
	}
	return p;
}

static void server(const struct spec *s)
{
	int l = net_listen(s), fd = net_accept_one(s, l);
	unsigned char *pattern = pattern_new(s->take), *buf = malloc(s->take);
	uint64_t total = 0, first = 0, calls = 0, every = s->take <= 4096 ? 64 : 1, start = 0;
	uint64_t warm = (uint64_t)tsc_us((double)s->warm * 1000);
	struct span span = { 0 };
	ssize_t n;

	if (!buf)
		die("out of memory");
	for (;;) {
		n = recv(fd, buf, s->take, 0);
		if (n < 0)
			die("receive after %llu bytes: %m", (unsigned long long)total);
		if (!n)
			break;
		if (s->verify && memcmp(buf, pattern + total % PERIOD, n))
			die("wrong bytes between %llu and %llu", (unsigned long long)total, (unsigned long long)total + n);
		total += n;
		if (++calls % every)
			continue;
		if (!start) {
			start = tsc_now();
		} else if (!first && tsc_now() - start >= warm) {
			first = total;
			calls_begin();
			span_begin(&span);
		}
	}
	if (!first)
		die("only %llu bytes came: too few to measure", (unsigned long long)total);
	span_end(&span);
	calls_say(M_CALLS_SERVER, (double)(total - first) / (double)s->size);
	/* the sender waits for this: it says that all has been read, and how much that was */
	write_full(fd, &total, sizeof(total));
	close(fd);
	close(l);
	say_metric(M_BYTES, (double)(total - first) / span_seconds(&span) / 1e9);
	say_metric(M_RATE, (double)(total - first) / (double)s->size / span_seconds(&span));
	free(buf);
	free(pattern);
}

static void client(const struct spec *s)
{
	unsigned char *pattern = pattern_new(s->size);
	int fd = net_connect(s);
	uint64_t total = 0, calls = 0, every = s->size <= 4096 ? 64 : 1, answer;
	uint64_t limit = tsc_now() + (uint64_t)tsc_us((double)(s->ms + s->warm) * 1000), counted = 0;
	uint64_t warm_end = tsc_now() + (uint64_t)tsc_us((double)s->warm * 1000);

	for (;;) {
		write_full(fd, s->verify ? pattern + total % PERIOD : pattern, s->size);
		total += s->size;
		if (++calls % every)
			continue;
		if (tsc_now() >= limit)
			break;
		if (!counted && tsc_now() >= warm_end) {
			calls_begin();
			counted = calls;
		}
	}
	if (counted)
		calls_say(M_CALLS_CLIENT, (double)(calls - counted));
	if (shutdown(fd, SHUT_WR))
		die("shutdown: %m");
	step("waiting for the receiver to have read all");
	read_full(fd, &answer, sizeof(answer));
	if (answer != total)
		die("%llu bytes sent, %llu received", (unsigned long long)total, (unsigned long long)answer);
	close(fd);
	free(pattern);
}

const struct role role_stream = { server, client };
