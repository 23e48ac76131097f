/* SPDX-License-Identifier: MIT */
/* short connections, one after the other: connect, one request, one answer, close */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/tsc.h"
#include "tools/bench/role.h"

#define LAST		'E'	/* a request that ends the server */
#define CONNECTIONS_MAX	20000	/* a run must not use up the ephemeral ports */

static void server(const struct spec *s)
{
	char buf[SIZE_MAX_SMALL];
	int l = net_listen(s);

	do {
		int fd = net_accept(l, false);

		read_full(fd, buf, s->size);
		write_full(fd, buf, s->size);
		close(fd);
	} while (buf[0] != LAST);
	close(l);
}

static void once(const struct spec *s, char first)
{
	char out[SIZE_MAX_SMALL], in[SIZE_MAX_SMALL];
	int fd = net_connect(s);

	memset(out, 'x', s->size);
	out[0] = first;
	write_full(fd, out, s->size);
	read_full(fd, in, s->size);
	if (memcmp(in, out, s->size))
		die("the answer is not the request");
	close(fd);
}

static void client(const struct spec *s)
{
	static struct hist h;
	struct span span;
	uint64_t t, u, limit;

	for (int i = 0; i < 50; i++)
		once(s, 'w');
	span_begin(&span);
	limit = tsc_now() + (uint64_t)tsc_us((double)s->ms * 1000);
	for (t = tsc_now(); t < limit && h.n < CONNECTIONS_MAX; t = u) {
		once(s, 'x');
		u = tsc_now();
		hist_add(&h, u - t);
	}
	span_end(&span);
	once(s, LAST);
	say_metric(M_RATE, (double)h.n / span_seconds(&span));
	say_latency(&span, &h);
}

const struct role role_conn = { server, client };
