/* SPDX-License-Identifier: MIT */
/* everything that was measured, run by run */
#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "tools/bench/bench.h"

static void add_number(struct json_object *o, const char *key, double v)
{
	/* JSON has no NaN */
	json_object_object_add(o, key, isnan(v) ? NULL : json_object_new_double(v));
}

static struct json_object *machine_json(const struct machine *m)
{
	struct json_object *o = json_object_new_object();
	struct utsname u;

	add_number(o, "cache_line_round_trip_us", m->line_us);
	add_number(o, "two_copy_ring_gbs", m->ring_gbs);
	add_number(o, "memcpy_gbs", m->memcpy_gbs);
	add_number(o, "memcpy_64m_gbs", m->memcpy_big_gbs);
	add_number(o, "system_call_us", m->syscall_us);
	add_number(o, "tcp_send_receive_us", m->tcp_call_us);
	add_number(o, "other_programs_percent", m->others);
	if (!uname(&u))
		json_object_object_add(o, "kernel", json_object_new_string(u.release));
	return o;
}

static struct json_object *metric_json(const struct bcase *c, const struct want *w)
{
	struct json_object *o = json_object_new_object(), *roads = json_object_new_object();
	const struct metric_info *info = &metric_info[w->m];
	double v[ROUNDS_MAX];
	unsigned n;

	json_object_object_add(o, "metric", json_object_new_string(info->key));
	json_object_object_add(o, "unit", json_object_new_string(info->unit));
	json_object_object_add(o, "better", json_object_new_string(info->less ? "less" : "more"));
	for (enum road r = 0; r < _ROAD_N; r++) {
		struct json_object *a;

		n = case_values(v, c, w->m, r);
		if (!n)
			continue;
		a = json_object_new_array();
		for (unsigned i = 0; i < n; i++)
			json_object_array_add(a, json_object_new_double(v[i]));
		json_object_object_add(roads, road_name[r], a);
	}
	json_object_object_add(o, "values", roads);
	n = case_ratios(v, c, w->m, ROAD_WSD);
	add_number(o, "ratio_median", median(v, n));
	add_number(o, "ratio_worst", case_worst(c, w->m, ROAD_WSD));
	add_number(o, "ratio_worst_round", worst(v, n));
	n = case_ratios(v, c, w->m, ROAD_UNIX);
	add_number(o, "unix_ratio_median", median(v, n));
	if (w->bar)
		add_number(o, "bar", w->bar);
	return o;
}

static struct json_object *case_json(const struct bcase *c)
{
	struct json_object *o = json_object_new_object(), *a;
	double share[ROUNDS_MAX], accel[ROUNDS_MAX], fl[ROUNDS_MAX];
	unsigned n = 0;

	json_object_object_add(o, "name", json_object_new_string(c->name));
	json_object_object_add(o, "pin", json_object_new_string(pin_name[c->pin]));
	json_object_object_add(o, "busy", json_object_new_int((int)c->busy));
	json_object_object_add(o, "quota", json_object_new_boolean(c->quota));
	json_object_object_add(o, "connections", json_object_new_int((int)c->spec.conns));
	json_object_object_add(o, "size", json_object_new_int((int)c->spec.size));
	if (c->spec.rate)
		json_object_object_add(o, "offered_rate", json_object_new_int64(c->spec.rate));
	if (c->skipped[0])
		json_object_object_add(o, "skipped", json_object_new_string(c->skipped));
	if (c->failed[0])
		json_object_object_add(o, "failed", json_object_new_string(c->failed));
	for (unsigned i = 0; i < ROUNDS_MAX; i++) {
		if (!c->res[ROAD_WSD][i].done)
			continue;
		share[n] = c->res[ROAD_WSD][i].share;
		accel[n] = c->res[ROAD_WSD][i].accel;
		fl[n++] = c->res[ROAD_WSD][i].floor;
	}
	add_number(o, "san_share_median", median(share, n));
	add_number(o, "san_share_least", worst(share, n));
	if (c->rdma) {
		for (unsigned i = n = 0; i < ROUNDS_MAX; i++)
			if (c->res[ROAD_VERBS][i].done && !isnan(c->res[ROAD_VERBS][i].share))
				share[n++] = c->res[ROAD_VERBS][i].share;
		add_number(o, "verbs_san_share_median", median(share, n));
		add_number(o, "verbs_san_share_least", worst(share, n));
		for (enum road r = 0; r < _ROAD_N; r++)
			if (c->no_road[r][0])
				json_object_object_add(o, road_name[r], json_object_new_string(c->no_road[r]));
	}
	add_number(o, "accelerated_median", median(accel, n));
	if (c->floor != FLOOR_NONE) {
		add_number(o, c->floor == FLOOR_LINE ? "cache_line_round_trip_us" : "two_copy_ring_gbs", median(fl, n));
		add_number(o, "floor_bar", c->floor_bar);
	}
	a = json_object_new_array();
	for (unsigned k = 0; k < c->n_want; k++)
		json_object_array_add(a, metric_json(c, &c->want[k]));
	json_object_object_add(o, "metrics", a);
	return o;
}

int json_write(const char *file, const struct machine *m, const struct bcase *c, unsigned n, const struct options *o)
{
	struct json_object *root = json_object_new_object(), *a = json_object_new_array();
	const char *text;
	FILE *f;
	int r = 0;

	json_object_object_add(root, "tool", json_object_new_string("wsd-bench"));
	json_object_object_add(root, "version", json_object_new_int(1));
	json_object_object_add(root, "time", json_object_new_int64(time(NULL)));
	json_object_object_add(root, "rounds", json_object_new_int((int)o->rounds));
	json_object_object_add(root, "ms", json_object_new_int64(o->ms));
	if (o->preload)
		json_object_object_add(root, "preload", json_object_new_string(o->preload));
	json_object_object_add(root, "machine", machine_json(m));
	for (unsigned i = 0; i < n; i++)
		json_object_array_add(a, case_json(&c[i]));
	json_object_object_add(root, "cases", a);
	json_object_object_add(root, "bars_missed", json_object_new_int((int)report_below()));

	text = json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY);
	f = strcmp(file, "-") ? fopen(file, "we") : stdout;
	if (!f || !text || fprintf(f, "%s\n", text) < 0)
		r = -EIO;
	if (f && f != stdout && fclose(f))
		r = -EIO;
	else if (f == stdout && fflush(f))
		r = -EIO;
	json_object_put(root);
	if (r)
		fprintf(stderr, "wsd-bench: cannot write %s\n", file);
	return r;
}
