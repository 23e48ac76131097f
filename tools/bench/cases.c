/* SPDX-License-Identifier: MIT */
/* the table of cases, with the bars they have to clear (docs/performance.md) */
#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/bench.h"

#define CASES_MAX	200

const struct metric_info metric_info[_M_N] = {
	[M_RATE] = { "rate", "/s", false },
	[M_P50] = { "p50", "us", true },
	[M_P90] = { "p90", "us", true },
	[M_P99] = { "p99", "us", true },
	[M_P999] = { "p99.9", "us", true },
	[M_MAX] = { "max", "us", true },
	[M_BYTES] = { "stream", "GB/s", false },
	[M_CPU] = { "cpu", "%", true },
	[M_LATE] = { "late", "%", true },
	[M_RSS_SERVER] = { "rss.server", "KiB", true },
	[M_RSS_CLIENT] = { "rss.client", "KiB", true },
	[M_CALLS_SERVER] = { "calls.server", "", true },
	[M_CALLS_CLIENT] = { "calls.client", "", true },
};
const char *const road_name[_ROAD_N] = { "tcp", "unix", "wsd", "verbs", "rsockets", "smc", "raw" };
const char *const pin_name[_PIN_N] = { "two", "one", "none" };

void result_clear(struct result *r)
{
	*r = (struct result){ .share = NAN, .accel = NAN, .floor = NAN };
	for (unsigned i = 0; i < _M_N; i++)
		r->m[i] = NAN;
}

struct builder {
	struct bcase *c;
	unsigned n;
	const struct options *o;
};

/* one more case with the usual parameters; NULL: not wanted by --pin */
static struct bcase *more(struct builder *b, enum kind kind, enum pin pin, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
static struct bcase *more(struct builder *b, enum kind kind, enum pin pin, const char *fmt, ...)
{
	struct bcase *c = &b->c[b->n++];
	va_list ap;

	if (b->n > CASES_MAX)
		abort();
	*c = (struct bcase){
		.spec = { .kind = kind, .size = 64, .take = 64, .conns = 1, .ms = b->o->ms, .warm = b->o->warm, .cpu = -1 },
		.pin = b->o->pin >= 0 ? (enum pin)b->o->pin : pin,
		.ends = END_SERVER | END_CLIENT,
	};
	va_start(ap, fmt);
	vsnprintf(c->name, sizeof(c->name), fmt, ap);
	va_end(ap);
	return c;
}

static void want(struct bcase *c, enum metric m, double bar)
{
	c->want[c->n_want++] = (struct want){ m, bar };
}

static void want_latency(struct bcase *c, double bar)
{
	want(c, M_P50, bar);
	want(c, M_P99, bar ? 1 : 0);
	want(c, M_P999, 0);
}

static struct bcase *stream(struct builder *b, enum pin pin, long size, const char *name)
{
	struct bcase *c = more(b, KIND_STREAM, pin, "%s", name);

	c->spec.size = size;
	c->spec.take = size > 131072 ? size : 131072;
	c->spec.verify = b->o->verify;
	want(c, M_BYTES, 0);
	return c;
}

static const char *size_name(char buf[24], long size)
{
	if (size >= 1 << 20)
		snprintf(buf, 24, "%ldM", size >> 20);
	else if (size >= 1024)
		snprintf(buf, 24, "%ldK", size >> 10);
	else
		snprintf(buf, 24, "%ld", size);
	return buf;
}

static void make_pingpong(struct builder *b)
{
	static const double bar[_PIN_N] = { 25, 3, 8 };

	for (enum pin p = 0; p < _PIN_N; p++) {
		struct bcase *c;

		if (b->o->pin >= 0 && b->o->pin != (int)p)
			continue;
		c = more(b, KIND_PINGPONG, p, "pingpong/%s", pin_name[p]);
		want(c, M_P50, bar[p]);
		want(c, M_P90, 0);
		want(c, M_P99, 0);
		want(c, M_P999, 0);
		want(c, M_MAX, 0);
		if (p == PIN_TWO) {
			c->floor = FLOOR_LINE;
			c->floor_bar = 2;
		}
	}
}

static void make_stream(struct builder *b)
{
	static const long sizes[] = { 64, 256, 1024, 4096, 16384, 65536, 131072, 262144, 1 << 20 };
	char name[32], s[24];

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct bcase *c;

		if (b->o->quick && i % 2 && sizes[i] != 131072)
			continue;
		snprintf(name, sizeof(name), "stream/%s", size_name(s, sizes[i]));
		c = stream(b, PIN_TWO, sizes[i], name);
		if (sizes[i] == 131072) {
			c->floor = FLOOR_RING;
			c->floor_bar = .85;
		}
	}
}

static void make_rate(struct builder *b)
{
	struct bcase *c = more(b, KIND_STREAM, PIN_TWO, "rate/64");

	c->spec.verify = b->o->verify;
	want(c, M_RATE, 12);
	c = more(b, KIND_STREAM, PIN_TWO, "rate/64-bulk");	/* the receiver takes many at a time */
	c->spec.take = 65536;
	c->spec.verify = b->o->verify;
	want(c, M_RATE, 12);
}

static void make_connrate(struct builder *b)
{
	struct bcase *c = more(b, KIND_CONN, PIN_TWO, "connrate/two");

	want(c, M_RATE, .97);
	want(c, M_P99, 0);
	if (b->o->pin >= 0)
		return;
	c = more(b, KIND_CONN, PIN_NONE, "connrate/none");
	want(c, M_RATE, .97);
}

static struct bcase *echo(struct builder *b, enum pin pin, bool et, long conns, const char *name)
{
	struct bcase *c = more(b, KIND_ECHO, pin, "%s", name);

	c->spec.et = et;
	c->spec.conns = conns;
	return c;
}

static void make_epoll(struct builder *b)
{
	static const long conns[] = { 1, 10, 50, 100, 500, 1000 };
	char name[40];

	for (unsigned lt = 0; lt < 2; lt++) {
		for (unsigned i = 0; i < ARRAY_SIZE(conns); i++) {
			struct bcase *c;

			if (b->o->quick && conns[i] != 1 && conns[i] != 50)
				continue;
			snprintf(name, sizeof(name), "epoll/%s-%ld", lt ? "lt" : "et", conns[i]);
			c = echo(b, PIN_TWO, !lt, conns[i], name);
			want(c, M_RATE, conns[i] >= 500 ? 10 : 15);
			want(c, M_P99, 0);
		}
	}
}

static void make_openloop(struct builder *b)
{
	static const unsigned percent[] = { 5, 20, 50 };
	static const long conns[] = { 1, 100 };

	for (unsigned k = 0; k < ARRAY_SIZE(conns); k++) {
		for (unsigned i = 0; i < ARRAY_SIZE(percent); i++) {
			struct bcase *c;

			if (b->o->quick && percent[i] == 5)
				continue;
			c = more(b, KIND_OPEN, PIN_TWO, "openloop/%ld-%u%%", conns[k], percent[i]);
			c->spec.conns = conns[k];
			c->spec.et = 1;
			c->open_percent = percent[i];
			c->no_unix = true;
			want(c, M_CPU, 1);
			want(c, M_P50, 1);
			want(c, M_P99, 1);
			want(c, M_P999, 1);
			want(c, M_LATE, 0);
		}
	}
}

static void make_idle(struct builder *b)
{
	long n = b->o->quick ? 101 : 1001;
	struct bcase *c = more(b, KIND_IDLE, PIN_NONE, "idle/%ld", n - 1);

	c->spec.conns = n;
	c->spec.ms = 2000;
	c->no_unix = true;
	want(c, M_CPU, 0);
	want(c, M_RSS_SERVER, 0);
	want(c, M_RSS_CLIENT, 0);
}

static void make_unaware(struct builder *b)
{
	static const char *const who[] = { "server", "client" };
	char name[40];

	for (unsigned k = 0; k < 2; k++) {
		struct bcase *c[4];

		c[0] = more(b, KIND_PINGPONG, PIN_TWO, "unaware/pingpong-%s", who[k]);
		want(c[0], M_P50, .97);
		want(c[0], M_P99, .97);
		snprintf(name, sizeof(name), "unaware/stream-128K-%s", who[k]);
		c[1] = stream(b, PIN_TWO, 131072, name);
		c[1]->want[0].bar = .97;
		snprintf(name, sizeof(name), "unaware/epoll-et-50-%s", who[k]);
		c[2] = echo(b, PIN_TWO, true, 50, name);
		want(c[2], M_RATE, .97);
		c[3] = more(b, KIND_STREAM, PIN_TWO, "unaware/rate-64-%s", who[k]);
		want(c[3], M_RATE, .97);
		for (unsigned i = 0; i < 4; i++) {
			c[i]->ends = k ? END_CLIENT : END_SERVER;
			c[i]->no_unix = true;
		}
	}
}

/* the same handful of cases with the machine otherwise used */
static void crowd(struct builder *b, const char *test, unsigned busy, bool quota)
{
	unsigned first = b->n;
	char name[40];
	struct bcase *c;

	c = more(b, KIND_PINGPONG, PIN_NONE, "%s/pingpong", test);
	want_latency(c, 0);
	want(c, M_RATE, 1);
	c = echo(b, PIN_NONE, true, 1, "");
	snprintf(c->name, sizeof(c->name), "%s/epoll-et-1", test);
	want(c, M_RATE, 1);
	want(c, M_P99, 0);
	c = echo(b, PIN_NONE, true, 50, "");
	snprintf(c->name, sizeof(c->name), "%s/epoll-et-50", test);
	want(c, M_RATE, 1);
	want(c, M_P99, 1);
	snprintf(name, sizeof(name), "%s/stream-128K", test);
	c = stream(b, PIN_NONE, 131072, name);
	c->want[0].bar = 1;
	for (unsigned i = first; i < b->n; i++) {
		b->c[i].busy = busy;
		b->c[i].quota = quota;
		/* time slices and quota periods are tens of ms: a shorter run measures luck */
		if (b->c[i].spec.ms < 1000 && !b->o->quick)
			b->c[i].spec.ms = 1000;
		b->c[i].no_unix = true;
	}
}

static void make_busy(struct builder *b)
{
	static const unsigned n[] = { 1, 2, 4 };
	char test[24];

	for (unsigned i = 0; i < ARRAY_SIZE(n); i++) {
		if (b->o->quick && n[i] == 1)
			continue;
		snprintf(test, sizeof(test), "busy/%u", n[i]);
		crowd(b, test, n[i], false);
	}
}

static void make_quota(struct builder *b)
{
	crowd(b, "quota/half", 0, true);
}

static struct bcase *rdma(struct builder *b, enum kind kind, enum raw raw, const char *name)
{
	/* two guests that are emulated have one CPU each */
	struct bcase *c = more(b, kind, b->o->agent_port ? PIN_NONE : PIN_TWO, "rdma/%s", name);

	c->rdma = true;
	c->spec.raw = raw;
	return c;
}

static void against(struct bcase *c, enum road r, double bar)
{
	c->against[c->n_against].road = r;
	c->against[c->n_against++].bar = bar;
}

/* not among the cases that run when none is named: they need a device */
static void make_rdma(struct builder *b)
{
	struct bcase *c;

	c = rdma(b, KIND_PINGPONG, RAW_WRITE_LAT, "pingpong-poll");
	c->spec.poll = 1;
	want(c, M_P50, 0);
	against(c, ROAD_RAW, .8);	/* at most 1.25 x its time */
	against(c, ROAD_RSOCKETS, 1);
	c = rdma(b, KIND_PINGPONG, RAW_SEND_LAT, "pingpong-poll-send");
	c->spec.poll = 1;
	want(c, M_P50, 0);
	against(c, ROAD_RAW, .8);
	c = rdma(b, KIND_PINGPONG, RAW_SEND_LAT_EVENTS, "pingpong-block");
	want(c, M_P50, 0);
	against(c, ROAD_RSOCKETS, 1);
	for (unsigned k = 0; k < 2; k++) {
		c = rdma(b, KIND_STREAM, RAW_WRITE_BW, k ? "stream-64K" : "stream-64K-ring");
		c->spec.size = 65536;
		c->spec.take = 131072;
		c->spec.ring_only = !k;
		c->spec.verify = b->o->verify;
		want(c, M_BYTES, 0);
		against(c, ROAD_RAW, .9);
		against(c, k ? ROAD_TCP : ROAD_RSOCKETS, k ? .9 : 1);
	}
	c = rdma(b, KIND_STREAM, RAW_SEND_BW, "rate-64");
	c->spec.take = 65536;
	c->spec.verify = b->o->verify;
	want(c, M_RATE, 0);
	against(c, ROAD_RSOCKETS, 3);
}

static bool wanted(const char *name, const struct options *o)
{
	if (!o->n_names)
		return strncmp(name, "rdma/", 5) != 0;
	for (unsigned i = 0; i < o->n_names; i++) {
		size_t len = strlen(o->names[i]);

		if (!fnmatch(o->names[i], name, 0))
			return true;
		if (!strncmp(o->names[i], name, len) && name[len] == '/')
			return true;
	}
	return false;
}

int cases_make(struct bcase **ret, unsigned *ret_n, const struct options *o)
{
	struct builder b = { .o = o };
	unsigned n = 0;

	b.c = calloc(CASES_MAX, sizeof(*b.c));
	if (!b.c)
		return -ENOMEM;
	make_pingpong(&b);
	make_stream(&b);
	make_rate(&b);
	make_connrate(&b);
	make_epoll(&b);
	make_openloop(&b);
	make_idle(&b);
	make_unaware(&b);
	make_busy(&b);
	make_quota(&b);
	make_rdma(&b);
	for (unsigned i = 0; i < b.n; i++) {
		if (!wanted(b.c[i].name, o))
			continue;
		if (n != i)
			b.c[n] = b.c[i];
		n++;
	}
	for (unsigned i = 0; i < n; i++)
		for (unsigned k = 0; k < o->rounds; k++)
			for (enum road r = 0; r < _ROAD_N; r++)
				result_clear(&b.c[i].res[r][k]);
	*ret = b.c;
	*ret_n = n;
	return 0;
}

void cases_list(const struct bcase *c, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		printf("%-32s pin %-5s", c[i].name, pin_name[c[i].pin]);
		for (unsigned k = 0; k < c[i].n_want; k++) {
			printf(" %s", metric_info[c[i].want[k].m].key);
			if (c[i].want[k].bar)
				printf(">=%gx", c[i].want[k].bar);
		}
		putchar('\n');
	}
}
