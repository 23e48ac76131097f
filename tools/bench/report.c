/* SPDX-License-Identifier: MIT */
/* medians, ratios, and the table */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/bench.h"

/* a bar of 1 asks for "no worse than TCP"; equal roads differ by this much in a median of ten rounds */
#define NOISE	.03

static unsigned below;
static FILE *out;

void report_to(FILE *f)
{
	out = f;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double median(const double *v, unsigned n)
{
	double s[ROUNDS_MAX];
	unsigned k = 0;

	for (unsigned i = 0; i < n && k < ROUNDS_MAX; i++)
		if (!isnan(v[i]))
			s[k++] = v[i];
	if (!k)
		return NAN;
	qsort(s, k, sizeof(s[0]), by_value);
	return k % 2 ? s[k / 2] : (s[k / 2 - 1] + s[k / 2]) / 2;
}

/* the least: for ratios, where more is better */
double worst(const double *v, unsigned n)
{
	double w = NAN;

	for (unsigned i = 0; i < n; i++)
		if (isnan(w) || v[i] < w)
			w = v[i];
	return w;
}

unsigned case_values(double *ret, const struct bcase *c, enum metric m, enum road r)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ROUNDS_MAX; i++)
		if (c->res[r][i].done && !isnan(c->res[r][i].m[m]))
			ret[n++] = c->res[r][i].m[m];
	return n;
}

unsigned case_ratios(double *ret, const struct bcase *c, enum metric m, enum road a)
{
	return case_against(ret, c, m, a, ROAD_TCP);
}

unsigned case_against(double *ret, const struct bcase *c, enum metric m, enum road a, enum road to)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ROUNDS_MAX; i++) {
		const struct result *x = &c->res[a][i], *t = &c->res[to][i];
		double p, q;

		if (!x->done || !t->done || isnan(x->m[m]) || isnan(t->m[m]))
			continue;
		p = metric_info[m].less ? t->m[m] : x->m[m];
		q = metric_info[m].less ? x->m[m] : t->m[m];
		/* both nothing: equal; only ours nothing: as good as can be told */
		ret[n++] = q > 0 ? p / q : p > 0 ? 1000 : 1;
	}
	return n;
}

/*
 * The worst run of a road against the median of TCP. Not the worst ratio of a round: TCP has modes of
 * its own (5 or 70 us for one ping-pong), and its luckiest run says nothing about the other road.
 */
double case_worst(const struct bcase *c, enum metric m, enum road a)
{
	return case_worst_to(c, m, a, ROAD_TCP);
}

double case_worst_to(const struct bcase *c, enum metric m, enum road a, enum road to)
{
	double v[ROUNDS_MAX], tcp, x;
	unsigned n = case_values(v, c, m, to);

	tcp = median(v, n);
	n = case_values(v, c, m, a);
	if (!n || isnan(tcp))
		return NAN;
	if (!metric_info[m].less)
		return tcp > 0 ? worst(v, n) / tcp : NAN;
	x = v[0];
	for (unsigned i = 1; i < n; i++)
		if (v[i] > x)
			x = v[i];
	return x > 0 ? tcp / x : 1;
}

const char *number(char buf[24], double v, enum metric m)
{
	if (isnan(v))
		return "-";
	if (!strcmp(metric_info[m].unit, "/s") && fabs(v) >= 1e6)
		snprintf(buf, 24, "%.2f M", v / 1e6);
	else if (!strcmp(metric_info[m].unit, "/s") && fabs(v) >= 1e4)
		snprintf(buf, 24, "%.1f k", v / 1e3);
	else if (fabs(v) >= 1000)
		snprintf(buf, 24, "%.0f", v);
	else
		snprintf(buf, 24, "%.*f", fabs(v) >= 100 ? 1 : fabs(v) >= 10 ? 2 : 3, v);
	return buf;
}

static bool misses(double ratio, double bar)
{
	if (!bar || isnan(ratio))
		return false;
	return ratio < (bar == 1 ? 1 - NOISE : bar);
}

const char *factor(char buf[24], double v)
{
	if (isnan(v))
		return "-";
	snprintf(buf, 24, "%.*f", v >= 100 ? 0 : v >= 10 ? 1 : 2, v);
	return buf;
}

/* "-" where there was no CPU for it */
void report_machine(const struct machine *m)
{
	char b[6][24];

	fprintf(out, "machine: cache-line round trip %s us, two-copy ring %s GB/s, memcpy %s GB/s (64 MiB: %s)\n"
	       "         system call %s us, TCP send + receive of 1 byte %s us\n",
	       number(b[0], m->line_us, M_P50), number(b[1], m->ring_gbs, M_BYTES), number(b[2], m->memcpy_gbs, M_BYTES),
	       number(b[3], m->memcpy_big_gbs, M_BYTES), number(b[4], m->syscall_us, M_P50), number(b[5], m->tcp_call_us, M_P50));
}

void report_others(const struct machine *m)
{
	fprintf(out, "\nother programs took %.1f %% of the machine's CPU time meanwhile%s\n", m->others,
		m->others > 5 ? ": the figures are worth little" : "");
}

void report_head(void)
{
	fprintf(out, "\nratio: how many times better than TCP in the same round, median of rounds; worst: the worst wsd run against TCP's\n"
	       "median; SAN: part of the bytes received that came over it (median, least)\n\n"
	       "%-32s %-10s %-5s %9s %9s %9s %7s %7s %7s %6s  %s\n", "case", "metric", "unit", "tcp", "unix", "wsd",
	       "ratio", "worst", "unix x", "bar", "SAN %");
	fflush(out);
}

static void report_floor(const struct bcase *c)
{
	double v[ROUNDS_MAX], med, wst;
	unsigned n = 0;
	bool ok;

	for (unsigned i = 0; i < ROUNDS_MAX; i++) {
		const struct result *r = &c->res[ROAD_WSD][i];

		if (!r->done || isnan(r->floor))
			continue;
		v[n++] = c->floor == FLOOR_LINE ? r->m[M_P50] / r->floor : r->m[M_BYTES] / r->floor;
	}
	if (!n)
		return;
	med = median(v, n);
	if (c->floor == FLOOR_LINE)	/* less is better here: worst() gives the least of the negatives */
		for (unsigned i = 0; i < n; i++)
			v[i] = -v[i];
	wst = fabs(worst(v, n));
	ok = c->floor == FLOOR_LINE ? med <= c->floor_bar : med >= c->floor_bar;
	below += !ok;
	if (c->floor == FLOOR_LINE)
		fprintf(out, "%-32s   wsd p50 is %.2f x the cache-line round trip (worst %.2f; bar: at most %.2f)%s\n", c->name, med, wst,
		       c->floor_bar, ok ? "" : "  BELOW THE BAR");
	else
		fprintf(out, "%-32s   wsd is %.0f %% of the two-copy ring (worst %.0f; bar: at least %.0f)%s\n", c->name, med * 100,
		       wst * 100, c->floor_bar * 100, ok ? "" : "  BELOW THE BAR");
}

/* idle connections have bars of their own: no CPU, and 24 KiB more than TCP's for each end */
static void report_idle(const struct bcase *c)
{
	double cpu[ROUNDS_MAX], rss[2][ROUNDS_MAX], accel[ROUNDS_MAX];
	unsigned n = 0;
	bool ok;

	for (unsigned i = 0; i < ROUNDS_MAX; i++) {
		const struct result *w = &c->res[ROAD_WSD][i], *t = &c->res[ROAD_TCP][i];

		if (!w->done || !t->done)
			continue;
		cpu[n] = w->m[M_CPU];
		rss[0][n] = w->m[M_RSS_SERVER] - t->m[M_RSS_SERVER];
		rss[1][n] = w->m[M_RSS_CLIENT] - t->m[M_RSS_CLIENT];
		accel[n++] = w->accel;
	}
	if (!n)
		return;
	ok = median(cpu, n) < .05 && median(rss[0], n) <= 24 && median(rss[1], n) <= 24;
	below += !ok;
	fprintf(out, "%-32s   CPU %.3f %%, %.1f and %.1f KiB per connection at server and client more than TCP (bar: none, 24)%s",
	       c->name, median(cpu, n), median(rss[0], n), median(rss[1], n), ok ? "" : "  BELOW THE BAR");
	if (!isnan(median(accel, n)))
		fprintf(out, "; %.0f %% had a session", median(accel, n) * 100);
	fputc('\n', out);
}

void report_case(const struct bcase *c)
{
	double v[ROUNDS_MAX], share[ROUNDS_MAX];
	char b[7][24], s[24] = "-";
	unsigned n, n_share = 0;

	if (c->skipped[0]) {
		fprintf(out, "%-32s skipped: %s\n", c->name, c->skipped);
		fflush(out);
		return;
	}
	if (c->rdma) {
		report_rdma(out, c, &below);
		return;
	}
	for (unsigned i = 0; i < ROUNDS_MAX; i++)
		if (c->res[ROAD_WSD][i].done && !isnan(c->res[ROAD_WSD][i].share))
			share[n_share++] = c->res[ROAD_WSD][i].share;
	if (n_share)
		snprintf(s, sizeof(s), "%.1f %.1f", 100 * median(share, n_share), 100 * worst(share, n_share));

	for (unsigned k = 0; k < c->n_want; k++) {
		enum metric m = c->want[k].m;
		double value[_ROAD_N], ratio, ratio_unix, wst, bar = c->want[k].bar;
		bool miss;

		for (enum road r = 0; r < _ROAD_N; r++) {
			n = case_values(v, c, m, r);
			value[r] = median(v, n);
		}
		n = case_ratios(v, c, m, ROAD_UNIX);
		ratio_unix = median(v, n);
		n = case_ratios(v, c, m, ROAD_WSD);
		ratio = median(v, n);
		wst = case_worst(c, m, ROAD_WSD);
		miss = misses(ratio, bar);
		below += miss;
		fprintf(out, "%-32s %-10s %-5s %9s %9s %9s %7s %7s %7s %6s  %s%s\n", k ? "" : c->name, metric_info[m].key,
		       metric_info[m].unit, number(b[0], value[ROAD_TCP], m), number(b[1], value[ROAD_UNIX], m),
		       number(b[2], value[ROAD_WSD], m), factor(b[3], ratio), factor(b[4], wst), factor(b[5], ratio_unix),
		       bar ? factor(b[6], bar) : "-", k ? "" : s, miss ? "  BELOW THE BAR" : "");
	}
	if (c->floor != FLOOR_NONE)
		report_floor(c);
	if (c->spec.kind == KIND_IDLE)
		report_idle(c);
	if (c->failed[0])
		fprintf(out, "%-32s FAILED: %s\n", c->name, c->failed);
	fflush(out);
}

unsigned report_below(void)
{
	return below;
}
