/* SPDX-License-Identifier: MIT */
/* the test "rdma": a line for each road, and what wsd is held against: the bare device, rsockets, TCP */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tools/bench/bench.h"

static const enum road shown[] = { ROAD_TCP, ROAD_VERBS, ROAD_RSOCKETS, ROAD_SMC, ROAD_RAW };
static const char *const raw_name[_RAW_N] = {
	[RAW_NONE] = "", [RAW_WRITE_LAT] = "ib_write_lat", [RAW_SEND_LAT] = "ib_send_lat", [RAW_SEND_LAT_EVENTS] = "ib_send_lat -e",
	[RAW_WRITE_BW] = "ib_write_bw", [RAW_SEND_BW] = "ib_send_bw",
};

struct figure { double median, worst, share, least; unsigned n; };

static struct figure figure(const struct bcase *c, enum metric m, enum road r)
{
	double v[ROUNDS_MAX], share[ROUNDS_MAX];
	struct figure f;
	unsigned n_share = 0;

	f.n = case_values(v, c, m, r);
	f.median = median(v, f.n);
	if (metric_info[m].less)
		for (unsigned i = 0; i < f.n; i++)
			v[i] = -v[i];
	f.worst = fabs(worst(v, f.n));
	for (unsigned i = 0; i < ROUNDS_MAX; i++)
		if (c->res[r][i].done && !isnan(c->res[r][i].share))
			share[n_share++] = 100 * c->res[r][i].share;
	f.share = median(share, n_share);
	f.least = worst(share, n_share);
	return f;
}

/* a figure of wsd that is TCP's meets no bar; warm-up counts in the share, and overflow is TCP by design */
static bool by_san(const struct bcase *c)
{
	return figure(c, c->want[0].m, ROAD_VERBS).share >= (c->spec.kind == KIND_STREAM && !c->spec.ring_only ? 1 : 50);
}

static bool below_bar(const struct bcase *c, unsigned i, double *ret_ratio, double *ret_worst)
{
	double v[ROUNDS_MAX];
	enum metric m = c->want[0].m;

	*ret_ratio = median(v, case_against(v, c, m, ROAD_VERBS, c->against[i].road));
	*ret_worst = case_worst_to(c, m, ROAD_VERBS, c->against[i].road);
	return !(*ret_ratio >= c->against[i].bar) || !by_san(c);	/* no figure: the bar is not met either */
}

void report_rdma(FILE *f, const struct bcase *c, unsigned *below)
{
	enum metric m = c->want[0].m;
	char b[2][24], x[2][24], s[96];
	double v[ROUNDS_MAX], ratio, wst;
	bool any = false;

	fprintf(f, "%-28s %s, %s: median (worst), ratio to TCP (worst), SAN %% (least), system calls per message\n", c->name, metric_info[m].key, metric_info[m].unit);
	for (unsigned i = 0; i < ARRAY_SIZE(shown); i++) {
		enum road r = shown[i];
		struct figure g = figure(c, m, r);

		any |= g.n > 0 && r == ROAD_VERBS;
		if (!g.n) {
			if (c->no_road[r][0])
				fprintf(f, "  %-26s %s\n", road_name[r], c->no_road[r]);
			continue;
		}
		s[0] = 0;
		if (!isnan(g.share))
			snprintf(s, sizeof(s), "  %.1f (%.1f)", g.share, g.least);
		for (unsigned k = 0; k < 2; k++) {
			struct figure calls = figure(c, k ? M_CALLS_SERVER : M_CALLS_CLIENT, r);

			if (calls.n)
				snprintf(s + strlen(s), sizeof(s) - strlen(s), "  %s %.2f", k ? "receiver" : "calls: sender", calls.median);
		}
		fprintf(f, "  %-9s%-17s %9s (%s)  %7s (%s)%s\n", road_name[r], r == ROAD_RAW ? raw_name[c->spec.raw] : "",
			number(b[0], g.median, m), number(b[1], g.worst, m),
			factor(x[0], median(v, case_against(v, c, m, r, ROAD_TCP))), factor(x[1], case_worst_to(c, m, r, ROAD_TCP)), s);
	}
	for (unsigned i = 0; any && i < c->n_against; i++) {
		bool miss = below_bar(c, i, &ratio, &wst);

		if (isnan(ratio))
			continue;
		*below += miss;
		fprintf(f, "  verbs against %-8s       %9s (%s), bar %s%s\n", road_name[c->against[i].road], factor(x[0], ratio), factor(x[1], wst),
			factor(b[0], c->against[i].bar), !by_san(c) ? "  BELOW THE BAR: most went by TCP" : miss ? "  BELOW THE BAR" : "");
	}
	if (c->failed[0])
		fprintf(f, "  FAILED: %s\n", c->failed);
	fflush(f);
}

void rdma_markdown(FILE *f, const struct bcase *c, unsigned n)
{
	char b[2][24], x[2][24];
	double ratio, wst;

	fprintf(f, "\n| case | unit | kernel TCP | wsd (SAN %%) | rsockets | SMC-R | perftest | wsd against, median (worst), bar |\n"
		"| --- | --- | --- | --- | --- | --- | --- | --- |\n");
	for (unsigned k = 0; k < n; k++, c++) {
		enum metric m = c->want[0].m;

		if (!c->rdma)
			continue;
		fprintf(f, "| %s | %s | ", c->name + strlen("rdma/"), metric_info[m].unit);
		for (unsigned i = 0; i < ARRAY_SIZE(shown); i++) {
			struct figure g = figure(c, m, shown[i]);

			if (!g.n)
				fprintf(f, "-");
			else
				fprintf(f, "%s (%s)", number(b[0], g.median, m), number(b[1], g.worst, m));
			if (!isnan(g.share) && shown[i] == ROAD_VERBS)
				fprintf(f, ", SAN %.1f (%.1f)", g.share, g.least);
			if (shown[i] == ROAD_RAW && g.n)
				fprintf(f, " %s", raw_name[c->spec.raw]);
			fprintf(f, " | ");
		}
		for (unsigned i = 0; i < c->n_against; i++) {
			bool miss = below_bar(c, i, &ratio, &wst);

			if (!isnan(ratio))
				fprintf(f, "%s %s (%s), bar %s%s; ", road_name[c->against[i].road], factor(x[0], ratio),
					factor(x[1], wst), factor(b[0], c->against[i].bar), miss ? ", **missed**" : "");
		}
		fprintf(f, "%s |\n", c->failed[0] ? " **failed**" : "");
	}
}
