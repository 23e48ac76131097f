/* SPDX-License-Identifier: MIT */
/*
 * road.h - two ends of a road in one process, each in a context of its own, for the tests of the verbs backend. Included once in each program
 */
#ifndef WSD_TESTS_UNIT_TRANSPORT_ROAD_H
#define WSD_TESTS_UNIT_TRANSPORT_ROAD_H

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rdma_transport/base/fault_point.h"
#include "tests/fakes/fake_remote.h"
#include "tests/fakes/fake_verbs.h"

#define UNUSED __attribute__((unused))
#define RING	8192u
#define RING1	65536u
#define NONCE	0x1234567812345678ull

struct end {
	struct rt_ctx *ctx;
	struct rt_conn *conn;
	struct wsd_remote *m;
	struct wsd_put_road r;
	uint8_t local[RT_LOCAL_MAX];
	size_t len;
	uint64_t posted;
};

static UNUSED const char *real_device(void)
{
	return getenv("WSD_TEST_VERBS");
}

static UNUSED double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

#define UNTIL(x) do { double end_ = now() + 15; while (!(x)) { cr_assert_lt(now(), end_, "never: %s", #x); sched_yield(); } } while (0)

static UNUSED int prepare(struct end *e, uint64_t identity)
{
	struct rt_path path = fv_path(0);
	struct rt_prepare p = { .size = sizeof(p), .path = &path, .memory = e->m, .length = e->m->length, .identity = identity };

	if (real_device()) {
		snprintf(path.device, sizeof(path.device), "%s", real_device());
		cr_assert_eq(inet_pton(AF_INET, getenv("WSD_RXE_ADDRESS"), path.gid + 12), 1);
		path.timeout = 12;
	}
	return rt_conn_prepare(e->conn, &p);
}

static UNUSED struct rt_ctx *ctx_new(void)
{
	struct rt_config cfg = { .size = sizeof(cfg), .lib = real_device() ? NULL : &fv_lib };
	struct rt_ctx *ctx;

	cr_assert_eq(rt_ctx_open(&ctx, "verbs", &cfg), 0);
	return ctx;
}

static UNUSED int connect_to(struct end *e, const struct end *peer)
{
	struct rt_peer p = { .size = sizeof(p), .side = e->m->side, .remote = peer->local, .remote_len = peer->len };

	return rt_conn_connect(e->conn, &p);
}

/* in contexts that are there */
static UNUSED void pair_in(struct end e[2], uint64_t identity, uint64_t nonce)
{
	for (uint32_t i = 0; i < 2; i++) {
		struct rt_ctx *ctx = e[i].ctx;

		e[i] = (struct end){ .ctx = ctx, .len = sizeof(e[i].local) };
		e[i].m = fake_remote_new(i, RING, RING1, 1, nonce);
		cr_assert_eq(rt_conn_new(&e[i].conn, ctx), 0);
		cr_assert_eq(prepare(&e[i], identity), 0);
		cr_assert_eq(rt_conn_local(e[i].conn, e[i].local, &e[i].len), 0);
	}
	for (uint32_t i = 0; i < 2; i++) {
		cr_assert_eq(connect_to(&e[i], &e[!i]), 0);
		e[i].r = (struct wsd_put_road){ .size = sizeof(e[i].r), .context = 100 + i };
		cr_assert_eq(rt_conn_road(e[i].conn, &e[i].r), 0);
	}
}

static UNUSED void pair_new(struct end e[2])
{
	e[0].ctx = ctx_new();
	e[1].ctx = ctx_new();
	pair_in(e, 1, NONCE);
}

static UNUSED void end_close(struct end *e)
{
	e->conn = rt_conn_close(e->conn);
	fake_remote_free(e->m);
	e->m = NULL;
}

static UNUSED void pair_free(struct end e[2])
{
	for (int i = 0; i < 2; i++)
		end_close(&e[i]);
	for (int i = 0; i < 2; i++)
		e[i].ctx = rt_ctx_close(e[i].ctx);
	cr_assert_eq(fv_live(), 0, "%u objects are left", fv_live());
}

static UNUSED int error(const struct end *e)
{
	return atomic_load(&e->r.state->error);
}

static UNUSED uint64_t head(const struct end *e)
{
	return atomic_load(&e->r.state->head);
}

static UNUSED struct wsd_remote_ctl *ctl(struct end *e)
{
	return (void *)((uint8_t *)e->m + e->m->off_ctl);
}

static UNUSED uint8_t byte_at(uint64_t o)
{
	return (uint8_t)((o + 1) * 0x9e3779b97f4a7c15ull >> 33);
}

static UNUSED int put_one(struct end *e, uint32_t n)
{
	_Atomic uint64_t end = ~0ull;
	int r = e->r.put_one(e->r.conn, 0, e->posted, n, &end);

	cr_assert(r ? r == 1 && end == ~0ull : end == e->posted + n, "%d: %llu", r, (unsigned long long)end);
	if (!r)
		e->posted += n;
	return r;
}

/* 0, 1 or the error. Every other one is tried by put_one() first */
static UNUSED int put(struct end *e, uint32_t n)
{
	static _Thread_local unsigned which;
	uint8_t *tx = (uint8_t *)e->m + e->m->off_tx0;
	int r;

	for (uint32_t i = 0; i < n; i++)
		tx[(e->posted + i) % RING] = byte_at(e->posted + i);
	if (which++ % 2 && !put_one(e, n))
		return 0;
	r = e->r.hold(e->r.conn, 2);
	if (r)
		return r;
	r = e->r.put(e->r.conn, 0, e->posted, n);
	e->r.release(e->r.conn);
	if (!r)
		e->posted += n;
	return r;
}

static UNUSED void look(struct end e[2])
{
	e[0].r.poll(e[0].r.conn);
	e[1].r.poll(e[1].r.conn);
}

static UNUSED void arrives(struct end e[2], int i, uint64_t want)
{
	UNTIL((look(e), head(&e[i]) >= want || error(&e[i])));
	cr_assert_eq(error(&e[i]), 0, "error %d", error(&e[i]));
	cr_assert_eq(head(&e[i]), want);
}

#endif
