/* SPDX-License-Identifier: MIT */
/* one connection, blocking calls, one message at a time */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/tsc.h"
#include "tools/bench/role.h"

static void server(const struct spec *s)
{
	static char buf[SIZE_MAX_PINGPONG];
	int l = net_listen(s), fd = net_accept_one(s, l);

	net_poll(s->poll && s->road != ROAD_VERBS);
	for (;;) {
		ssize_t n = read_some(fd, buf, s->size);

		if (n < 0)
			die("receive: %m");
		if (!n)
			break;
		if (n < s->size)
			read_full(fd, buf + n, s->size - n);
		write_full(fd, buf, s->size);
	}
	close(fd);
	close(l);
}

/* each message has a number, so an old answer is not taken for the new one */
static void trip(const struct spec *s, int fd)
{
	static char out[SIZE_MAX_PINGPONG], in[SIZE_MAX_PINGPONG];
	static uint64_t seq;

	seq++;
	memcpy(out, &seq, s->size < 8 ? s->size : 8);
	write_full(fd, out, s->size);
	read_full(fd, in, s->size);
	if (memcmp(in, out, s->size))
		die("the answer to message %llu is another", (unsigned long long)seq);
}

static void client(const struct spec *s)
{
	static struct hist h;
	int fd = net_connect(s);
	int64_t warm_end = now_ns() + s->warm * 1000000;
	uint64_t t, u, limit;
	struct span span;

	net_poll(s->poll && s->road != ROAD_VERBS);
	do
		trip(s, fd);
	while (now_ns() < warm_end);

	calls_begin();
	span_begin(&span);
	/* the end is told in ticks, so the loop has one cheap clock; the span says what they were worth */
	limit = tsc_now() + (uint64_t)tsc_us((double)s->ms * 1000);
	for (t = tsc_now(); t < limit; t = u) {
		trip(s, fd);
		u = tsc_now();
		hist_add(&h, u - t);
	}
	span_end(&span);
	calls_say(M_CALLS_CLIENT, (double)h.n);
	close(fd);
	say_metric(M_RATE, (double)h.n / span_seconds(&span));
	say_latency(&span, &h);
}

const struct role role_pingpong = { server, client };
