/* SPDX-License-Identifier: MIT */
/* wsd-bench: what turns runs into figures must not be wrong itself */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/bench.h"
#include "tools/bench/hist.h"

static struct hist *hist_new(void)
{
	struct hist *h = calloc(1, sizeof(*h));

	cr_assert_not_null(h);
	return h;
}

Test(hist, a_value_is_kept_to_one_percent)
{
	for (uint64_t v = 1; v < 1ull << 62; v = v * 3 / 2 + 1) {
		struct hist *h = hist_new();
		double q;

		hist_add(h, v);
		q = hist_quantile(h, .5);
		cr_assert_leq(fabs(q - (double)v), (double)v * .01, "%llu became %g", (unsigned long long)v, q);
		free(h);
	}
}

Test(hist, every_value_has_a_bucket)
{
	struct hist *h = hist_new();

	hist_add(h, 0);
	hist_add(h, UINT64_MAX);	/* under a sanitizer an index outside shows */
	cr_assert_eq(h->n, 2);
	cr_assert_eq(h->max, UINT64_MAX);
	cr_assert_eq(hist_quantile(h, 0), 0);
	free(h);
}

Test(hist, quantiles_are_those_of_the_values)
{
	struct hist *h = hist_new();

	for (uint64_t v = 1; v <= 10000; v++)
		hist_add(h, v);
	cr_assert_float_eq(hist_quantile(h, .5), 5000, 50);
	cr_assert_float_eq(hist_quantile(h, .99), 9900, 99);
	cr_assert_float_eq(hist_quantile(h, .999), 9990, 99);
	cr_assert_eq(hist_quantile(h, 1), 10000);
	free(h);
}

Test(hist, empty_is_zero)
{
	struct hist *h = hist_new();

	cr_assert_eq(hist_quantile(h, .5), 0);
	free(h);
}

Test(report, median_ignores_what_was_not_measured)
{
	cr_assert_float_eq(median((double[]){ 3, NAN, 1, 2 }, 4), 2, 1e-9);
	cr_assert_float_eq(median((double[]){ 4, 1, 2, 3 }, 4), 2.5, 1e-9);
	cr_assert(isnan(median((double[]){ NAN }, 1)));
	cr_assert(isnan(median(NULL, 0)));
}

static struct bcase *case_new(enum metric m, double tcp, double wsd)
{
	struct bcase *c = calloc(1, sizeof(*c));

	cr_assert_not_null(c);
	for (enum road r = 0; r < _ROAD_N; r++)
		result_clear(&c->res[r][0]);
	c->res[ROAD_TCP][0].m[m] = tcp;
	c->res[ROAD_WSD][0].m[m] = wsd;
	c->res[ROAD_TCP][0].done = c->res[ROAD_WSD][0].done = true;
	snprintf(c->name, sizeof(c->name), "a/b");
	c->want[c->n_want++] = (struct want){ m, 2 };
	return c;
}

Test(report, a_ratio_above_one_is_better_whatever_the_metric)
{
	struct bcase *rate = case_new(M_RATE, 10, 30), *time = case_new(M_P50, 30, 10), *none = case_new(M_CPU, 0, 0);
	double v[ROUNDS_MAX];

	cr_assert_eq(case_ratios(v, rate, M_RATE, ROAD_WSD), 1);
	cr_assert_float_eq(v[0], 3, 1e-9);
	cr_assert_eq(case_ratios(v, time, M_P50, ROAD_WSD), 1);
	cr_assert_float_eq(v[0], 3, 1e-9);
	cr_assert_eq(case_ratios(v, none, M_CPU, ROAD_WSD), 1);
	cr_assert_float_eq(v[0], 1, 1e-9);
	cr_assert_eq(case_ratios(v, rate, M_RATE, ROAD_UNIX), 0, "a road that was not run has no ratio");
	free(rate), free(time), free(none);
}

Test(report, a_ratio_is_taken_within_its_round)
{
	struct bcase *c = case_new(M_RATE, 10, 30);
	double v[ROUNDS_MAX];

	/* the second round's wsd run failed, the third has both */
	result_clear(&c->res[ROAD_TCP][1]);
	c->res[ROAD_TCP][1].m[M_RATE] = 1;
	c->res[ROAD_TCP][1].done = true;
	c->res[ROAD_TCP][2] = c->res[ROAD_TCP][0];
	c->res[ROAD_WSD][2] = c->res[ROAD_WSD][0];
	c->res[ROAD_WSD][2].m[M_RATE] = 5;
	cr_assert_eq(case_ratios(v, c, M_RATE, ROAD_WSD), 2);
	cr_assert_float_eq(v[0], 3, 1e-9);
	cr_assert_float_eq(v[1], .5, 1e-9);
	cr_assert_float_eq(worst(v, 2), .5, 1e-9);
	free(c);
}

Test(report, the_worst_run_is_held_against_the_median_of_tcp)
{
	struct bcase *rate = case_new(M_RATE, 10, 30), *time = case_new(M_P50, 10, 4);
	struct bcase *both[] = { rate, time };

	for (unsigned i = 0; i < 2; i++) {
		for (unsigned k = 1; k < 3; k++) {
			both[i]->res[ROAD_TCP][k] = both[i]->res[ROAD_TCP][0];
			both[i]->res[ROAD_WSD][k] = both[i]->res[ROAD_WSD][0];
		}
	}
	rate->res[ROAD_TCP][1].m[M_RATE] = 1000;	/* TCP's luck */
	rate->res[ROAD_WSD][2].m[M_RATE] = 5;
	cr_assert_float_eq(case_worst(rate, M_RATE, ROAD_WSD), .5, 1e-9);
	time->res[ROAD_TCP][1].m[M_P50] = 1;
	time->res[ROAD_WSD][2].m[M_P50] = 20;
	cr_assert_float_eq(case_worst(time, M_P50, ROAD_WSD), .5, 1e-9);
	cr_assert(isnan(case_worst(time, M_P50, ROAD_UNIX)));
	free(rate), free(time);
}

Test(report, a_missed_bar_is_counted)
{
	struct bcase *good = case_new(M_RATE, 10, 30), *bad = case_new(M_RATE, 10, 19);
	FILE *null = fopen("/dev/null", "w");

	report_to(null);
	report_case(good);
	cr_assert_eq(report_below(), 0);
	report_case(bad);
	cr_assert_eq(report_below(), 1);
	fclose(null);
	free(good), free(bad);
}

Test(spec, words_carry_every_parameter)
{
	struct spec a = { .kind = KIND_OPEN, .road = ROAD_UNIX, .size = 64, .take = 65536, .conns = 100, .ms = 500, .warm = 150, .et = 1,
			  .verify = 1, .rate = 12345, .cpu = -1, .port = 40000, .peer = 77,
			  .addr = 0x0a630001, .poll = 1, .ring_only = 1, .raw = RAW_SEND_BW }, b;
	struct spec_words w;
	char *argv[SPEC_WORDS_MAX];

	spec_print(&w, &a);
	for (unsigned i = 0; i < w.n; i++)
		argv[i] = w.w[i];
	cr_assert_eq(spec_parse(&b, argv, (int)w.n), 0);
	cr_assert_eq(memcmp(&a, &b, sizeof(a)), 0);
}

Test(spec, malformed_words_are_refused)
{
	static const char *const bad[] = { "size", "size=", "size=x", "size=1x", "size=0", "size=999999999", "conns=0", "conns=99999",
					   "kind=99", "kind=-1", "ms=0", "road=99", "road=-1", "raw=99", "raw=-1", "addr=-1",
					   "addr=4294967296", "unknown=1", "=1", "ms=60001", "warm=60001", "warm=-1", "take=-1", "take=67108865",
					   "rate=-1", "rate=1000000001" };

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		char w[4][SPEC_WORD_LEN] = { "size=64", "conns=1", "ms=10", "" };
		char *argv[] = { w[0], w[1], w[2], w[3] };
		struct spec s;

		snprintf(w[3], sizeof(w[3]), "%s", bad[i]);
		cr_assert_eq(spec_parse(&s, argv, 3), 0);
		cr_assert_lt(spec_parse(&s, argv, 4), 0, "\"%s\" was taken", bad[i]);
	}
}

Test(spec, no_message_is_larger_than_a_role_has_room_for)
{
	static const struct { enum kind kind; long most; } k[] = {
		{ KIND_PINGPONG, 65536 }, { KIND_CONN, 4096 }, { KIND_ECHO, 4096 }, { KIND_OPEN, 4096 }, { KIND_IDLE, 4096 },
		{ KIND_STREAM, 1 << 26 }, { KIND_RAW, 1 << 26 },
	};

	cr_assert_eq(ARRAY_SIZE(k), _KIND_N);
	for (unsigned i = 0; i < ARRAY_SIZE(k); i++)
		for (long over = 0; over < 2; over++) {
			char w[4][SPEC_WORD_LEN] = { "conns=1", "ms=10" };
			char *argv[] = { w[0], w[1], w[2], w[3] };
			struct spec s;

			snprintf(w[2], sizeof(w[2]), "kind=%d", k[i].kind);
			snprintf(w[3], sizeof(w[3]), "size=%ld", k[i].most + over);
			cr_assert_eq(spec_parse(&s, argv, 4) < 0, over, "kind %d, size %ld", k[i].kind, k[i].most + over);
		}
}

Test(cases, names_are_unique_and_every_case_measures)
{
	static char all[] = "*";
	char *names[] = { all };
	struct options o = { .rounds = 1, .ms = 100, .warm = 10, .pin = -1, .names = names, .n_names = 1 };
	char *argv[SPEC_WORDS_MAX];
	struct spec_words w;
	struct bcase *c;
	struct spec s;
	unsigned n;

	cr_assert_eq(cases_make(&c, &n, &o), 0);
	cr_assert_gt(n, 40);
	for (unsigned i = 0; i < n; i++) {
		cr_assert_gt(c[i].n_want, 0, "%s measures nothing", c[i].name);
		cr_assert_leq(c[i].n_want, WANT_MAX);
		spec_print(&w, &c[i].spec);
		for (unsigned k = 0; k < w.n; k++)
			argv[k] = w.w[k];
		cr_assert_eq(spec_parse(&s, argv, (int)w.n), 0, "%s: its roles would not take it", c[i].name);
		for (unsigned k = 0; k < i; k++)
			cr_assert_str_neq(c[i].name, c[k].name);
	}
	free(c);
}

Test(cases, rdma_is_run_only_when_it_is_named)
{
	static char name[] = "rdma";
	char *names[] = { name };
	struct options o = { .rounds = 1, .ms = 100, .warm = 10, .pin = -1 };
	struct bcase *c;
	unsigned n;

	cr_assert_eq(cases_make(&c, &n, &o), 0);
	for (unsigned i = 0; i < n; i++)
		cr_assert_not(c[i].rdma, "%s needs a device", c[i].name);
	free(c);
	o.names = names;
	o.n_names = 1;
	cr_assert_eq(cases_make(&c, &n, &o), 0);
	cr_assert_gt(n, 4);
	for (unsigned i = 0; i < n; i++) {
		cr_assert(c[i].rdma);
		cr_assert_gt(c[i].n_against, 0);
		cr_assert_neq(c[i].spec.raw, RAW_NONE);
	}
	free(c);
}

/* a case of the test rdma, three rounds: wsd's time is x, perftest's y */
static struct bcase *latencies(const double x[3], const double y[3])
{
	struct bcase *c = calloc(1, sizeof(*c));

	cr_assert_not_null(c);
	*c = (struct bcase){ .name = "rdma/t", .rdma = true, .want = { { M_P50, 0 } }, .n_want = 1, .against = { { ROAD_RAW, .8 } }, .n_against = 1 };
	for (enum road r = 0; r < _ROAD_N; r++)
		for (unsigned i = 0; i < ROUNDS_MAX; i++)
			result_clear(&c->res[r][i]);
	for (unsigned i = 0; i < 3; i++) {
		c->res[ROAD_VERBS][i].m[M_P50] = x[i];
		c->res[ROAD_RAW][i].m[M_P50] = y[i];
		c->res[ROAD_VERBS][i].done = c->res[ROAD_RAW][i].done = true;
		c->res[ROAD_VERBS][i].share = .5 + i / 10.;
	}
	return c;
}

Test(rdma, wsd_is_held_against_the_bare_device_within_a_round)
{
	/* medians of the two roads are 20 and 20: within the rounds it takes 1.25, 2 and 1.25 times as long */
	struct bcase *good = latencies((double[]){ 12.5, 20, 50 }, (double[]){ 10, 20, 40 });
	struct bcase *bad = latencies((double[]){ 13, 20, 52 }, (double[]){ 10, 10, 40 });
	char *text = NULL;
	size_t len = 0;
	unsigned below = 0;
	double v[ROUNDS_MAX];
	FILE *f = open_memstream(&text, &len);

	cr_assert_eq(case_against(v, good, M_P50, ROAD_VERBS, ROAD_RAW), 3);
	cr_assert_float_eq(median(v, 3), .8, 1e-9);
	cr_assert_float_eq(case_worst_to(good, M_P50, ROAD_VERBS, ROAD_RAW), 20. / 50, 1e-9);
	report_rdma(f, good, &below);
	cr_assert_eq(below, 0);
	report_rdma(f, bad, &below);
	cr_assert_eq(below, 1);
	for (unsigned i = 0; i < 3; i++)
		good->res[ROAD_VERBS][i].share = 0;
	report_rdma(f, good, &below);
	cr_assert_eq(below, 2, "what went by TCP meets no bar of RDMA");
	fclose(f);
	cr_assert_not_null(strstr(text, "60.0 (50.0)"), "every figure of wsd states its share of the SAN: %s", text);
	free(text);
	free(good), free(bad);
}

Test(share, both_hosts_count)
{
	struct share here = { .ring = 60, .tcp = 40, .conns = 1, .accel = 1 }, there = { .ring = 0, .tcp = 100, .conns = 1, .accel = 0 };
	struct result r;

	result_clear(&r);
	share_tell(&r, &here, &there);
	cr_assert_float_eq(r.share, .3, 1e-9);
	cr_assert_float_eq(r.accel, .5, 1e-9);
}
