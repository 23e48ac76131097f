/* SPDX-License-Identifier: MIT */
/*
 * test-transport.c - what every backend must do, one line for each
 *
 * A backend is named with how its two ends are joined. What it promises by RT_CAP_* is
 * tested, what it does not promise must answer -EOPNOTSUPP. Both ends live in this process, with RT_CAP_LOCAL in a context each.
 * verbs runs on tests/fakes/fake_verbs.c, or on a device, and then only what uses it: WSD_TEST_VERBS=rxe0, with WSD_RXE_ADDRESS as
 * its address.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "rdma_transport/api/rt.h"
#include "rdma_transport/base/fault_point.h"
#include "tests/fakes/fake_session.h"
#include "tests/fakes/fake_verbs.h"

#define RING	(64u << 10)
#define ID	0x1122334455667788ull

struct backend {
	char name[16];
};

static bool is_verbs(const char *name)
{
	return strstr(name, "verbs") != NULL;
}

static const char *real_device(void)
{
	return getenv("WSD_TEST_VERBS");
}

/* the caller's limits, with the fake behind verbs */
static int ctx_open(struct rt_ctx **ret, const char *name, struct rt_config cfg)
{
	cfg.size = sizeof(cfg);
	cfg.lib = real_device() ? NULL : &fv_lib;
	return rt_ctx_open(ret, name, &cfg);
}

static int prepare(struct rt_conn *conn)
{
	struct rt_path path = fv_path(0);
	struct rt_prepare p = { .size = sizeof(p), .path = &path, .identity = 1 };

	if (real_device()) {
		snprintf(path.device, sizeof(path.device), "%s", real_device());
		cr_assert_eq(inet_pton(AF_INET, getenv("WSD_RXE_ADDRESS"), path.gid + 12), 1);
		path.timeout = 16;
	}
	return rt_conn_prepare(conn, &p);
}

static struct backend backends[] = {
	{ "shm" },
	{ "fault:shm" },
	{ "verbs" },
	{ "fault:verbs" },
};

static struct criterion_test_params params(void)
{
	unsigned first = 0, n = sizeof(backends) / sizeof(backends[0]);

	while (real_device() && !is_verbs(backends[first].name))
		first++;
	return cr_make_param_array(struct backend, backends + first, n - first);
}

ParameterizedTestParameters(transport, lifecycle)
{
	return params();
}
ParameterizedTestParameters(transport, each_failed_step_is_undone)
{
	return params();
}
ParameterizedTestParameters(transport, messages_arrive_whole_and_in_order)
{
	return params();
}
ParameterizedTestParameters(transport, message_waits_for_a_receive)
{
	return params();
}
ParameterizedTestParameters(transport, writes_reach_only_what_is_exposed)
{
	return params();
}
ParameterizedTestParameters(transport, limits_hold)
{
	return params();
}
ParameterizedTestParameters(transport, what_is_not_promised_is_refused)
{
	return params();
}
ParameterizedTestParameters(transport, close_is_seen_after_the_data)
{
	return params();
}
ParameterizedTestParameters(transport, flush_gives_everything_back)
{
	return params();
}
ParameterizedTestParameters(transport, reads_bring_what_is_exposed)
{
	return params();
}
ParameterizedTestParameters(transport, put_raises_the_head)
{
	return params();
}

struct pair {
	struct rt_ctx *ctx;		/* of end 0 */
	struct rt_ctx *other;		/* of end 1, when it is another one */
	struct rt_conn *c[2];
	struct rt_mr *mr[2][8];		/* of buf() */
	unsigned n_mr[2];
	int fd;
};

static struct rt_peer peer_of(int fd, uint32_t side)
{
	return (struct rt_peer){
		.size = sizeof(struct rt_peer),
		.side = side,
		.fd = fd,
		.length = wsd_session_length(RING),
		.ring_size = RING,
		.session_id = ID,
	};
}

static void pair_open(struct pair *p, const char *name)
{
	uint8_t local[2][RT_LOCAL_MAX];
	size_t len[2] = { sizeof(local[0]), sizeof(local[1]) };

	memset(p, 0, sizeof(*p));
	cr_assert_eq(ctx_open(&p->ctx, name, (struct rt_config){}), 0);
	p->fd = fake_session_new(RING, ID);
	if (rt_ctx_caps(p->ctx) & RT_CAP_LOCAL) {
		cr_assert_eq(ctx_open(&p->other, name, (struct rt_config){}), 0);
		for (uint32_t i = 0; i < 2; i++) {
			cr_assert_eq(rt_conn_new(&p->c[i], i ? p->other : p->ctx), 0);
			cr_assert_eq(prepare(p->c[i]), 0);
			cr_assert_eq(rt_conn_local(p->c[i], local[i], &len[i]), 0);
		}
		for (uint32_t i = 0; i < 2; i++) {
			struct rt_peer peer = { .size = sizeof(peer), .side = i, .remote = local[!i], .remote_len = len[!i] };

			cr_assert_eq(rt_conn_connect(p->c[i], &peer), 0);
		}
		return;
	}
	for (uint32_t i = 0; i < 2; i++) {
		struct rt_peer peer = peer_of(p->fd, i);

		cr_assert_eq(rt_conn_new(&p->c[i], p->ctx), 0);
		cr_assert_eq(rt_conn_connect(p->c[i], &peer), 0);
	}
}

static void pair_close(struct pair *p)
{
	for (int i = 0; i < 2; i++) {
		while (p->n_mr[i])
			rt_mr_drop(p->mr[i][--p->n_mr[i]]);
		p->c[i] = rt_conn_close(p->c[i]);
	}
	p->ctx = rt_ctx_close(p->ctx);
	p->other = rt_ctx_close(p->other);
	close(p->fd);
}

/* memory that end i may name in what it posts */
static void buf(struct pair *p, int i, void *addr, uint32_t n)
{
	if (rt_ctx_caps(p->ctx) & RT_CAP_ANY_MEMORY)
		return;
	cr_assert_lt(p->n_mr[i], 8);
	cr_assert_eq(rt_mr_new(&p->mr[i][p->n_mr[i]], p->c[i], addr, n, RT_ACCESS_LOCAL), 0);
	p->n_mr[i]++;
}

/* end i takes nothing, but makes progress */
static void turn(struct pair *p, int i)
{
	struct rt_completion wc;

	if (p->c[i])
		cr_assert_eq(rt_poll(p->c[i], &wc, 0), 0);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

/* both ends make progress until i has a completion */
static struct rt_completion wait_for(struct pair *p, int i, enum rt_op op)
{
	struct rt_completion wc;
	double end = now() + 10;

	while (now() < end) {
		if (rt_poll(p->c[i], &wc, 1)) {
			cr_assert_eq(wc.op, op, "got op %d, wanted %d (status %d)", wc.op, op, wc.status);
			return wc;
		}
		turn(p, 1 - i);
	}
	cr_assert_fail("no completion");
	return wc;
}

static struct rt_sge sge(const void *p, size_t n)
{
	return (struct rt_sge){ (void *)p, n };
}

ParameterizedTest(struct backend *b, transport, lifecycle)
{
	struct pair p;

	pair_open(&p, b->name);
	cr_assert(rt_ctx_caps(p.ctx));
	cr_assert_eq(rt_conn_error(p.c[0]), 0);
	struct rt_peer again = peer_of(p.fd, 0);
	cr_assert_eq(rt_conn_connect(p.c[0], &again), -EISCONN);
	struct rt_ring r;
	if (!(rt_ctx_caps(p.ctx) & RT_CAP_SHARED_RING)) {
		cr_assert_eq(rt_conn_ring(p.c[1], &r), -EOPNOTSUPP);
		cr_assert_eq(prepare(p.c[0]), -EISCONN);
		pair_close(&p);
		cr_assert_eq(fv_live(), 0);
		return;
	}
	cr_assert_eq(rt_conn_ring(p.c[1], &r), 0);
	cr_assert_eq(r.side, 1);
	cr_assert_eq(r.ring_size, RING);
	cr_assert_eq(r.session_id, ID);
	cr_assert_eq(atomic_load(&((struct wsd_session *)r.base)->attached), 3);
	/* the ring is out: nothing is posted beside it */
	char x = 0;
	struct rt_sge s = sge(&x, 1);
	cr_assert_eq(rt_post_send(p.c[1], &s, 1, 1), -EBUSY);
	/* and closing says nothing in words that are the gate's */
	struct wsd_session *m = fake_session_map(p.fd, wsd_session_length(RING));
	p.c[1] = rt_conn_close(p.c[1]);
	cr_assert_eq(atomic_load(&m->dir[1].xflags), 0);
	pair_close(&p);
	munmap(m, wsd_session_length(RING));
}

static unsigned count_fds(void)
{
	unsigned n = 0;

	DIR *d = opendir("/proc/self/fd");

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static unsigned count_maps(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned n = 0;

	while (fgets(line, sizeof(line), f))
		n += strstr(line, "memfd:session") != NULL;
	fclose(f);
	return n;
}

#ifdef WSD_FAULT_INJECTION
/* one whole life, any step of which may fail; undone completely in that case */
static int life(const char *name, int fd)
{
	struct rt_peer peer = peer_of(fd, 0);
	struct rt_ctx *ctx = NULL;
	struct rt_conn *conn = NULL;
	struct rt_mr *mr = NULL;
	static char buf[64];
	struct rt_sge s = sge(buf, sizeof(buf));
	int r;

	r = ctx_open(&ctx, name, (struct rt_config){});
	if (r) {
		cr_assert_null(ctx);
		return r;
	}
	r = rt_conn_new(&conn, ctx);
	if (r)
		cr_assert_null(conn);
	uint8_t local[RT_LOCAL_MAX];
	size_t len = sizeof(local);
	bool names = rt_ctx_caps(ctx) & RT_CAP_LOCAL;
	if (!r && names) {
		r = prepare(conn);
		if (!r)
			r = rt_conn_local(conn, local, &len);	/* it talks to itself */
		peer.remote = local;
		peer.remote_len = len;
	}
	if (!r)
		r = rt_conn_connect(conn, &peer);
	if (r && conn) {
		cr_assert_eq(count_maps(), 0, "mapping leaked");
		struct rt_ring ring;
		cr_assert_eq(rt_conn_ring(conn, &ring), -ENOTCONN);
		struct wsd_put_road road = { .size = sizeof(road) };
		cr_assert(rt_conn_road(conn, &road) < 0);
	}
	if (!r) {
		r = rt_mr_new(&mr, conn, buf, sizeof(buf), RT_ACCESS_WRITE);
		if (r)
			cr_assert_null(mr);
	}
	if (!r)
		r = rt_post_recv(conn, &s, 1, 7);
	rt_mr_drop(mr);
	rt_conn_close(conn);
	rt_ctx_close(ctx);
	return r;
}
#endif

ParameterizedTest(struct backend *b, transport, each_failed_step_is_undone, .timeout = 20)
{
#ifdef WSD_FAULT_INJECTION
	unsigned n = 0, before;
	int fd = fake_session_new(RING, ID), r;

	before = count_fds();
	do {
		rt_fault_point_arm(++n);
		r = life(b->name, fd);
		rt_fault_point_arm(0);
		if (r)
			cr_assert(r == -ENOMEM || r == -EINVAL || r == -EPROTO || (real_device() && r == -ENOSYS), "fault %u gave %d", n, r);
		cr_assert_eq(count_maps(), 0, "fault %u left a mapping", n);
		cr_assert_eq(fv_live(), 0, "fault %u left %u objects", n, fv_live());
		cr_assert_eq(count_fds(), before, "fault %u left a descriptor", n);
	} while (r);
	cr_assert_gt(n, is_verbs(b->name) ? 20 : 8, "only %u fault points were reached", n);
	close(fd);
#else
	(void)count_fds;
	(void)count_maps;
	cr_skip_test("built without fault_injection");
#endif
}

static void fill(uint8_t *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)((i * 2654435761u + seed) >> 7);
}

ParameterizedTest(struct backend *b, transport, messages_arrive_whole_and_in_order, .timeout = 60)
{
	/* around the header, the ring's end, the ring's size and beyond */
	static const uint32_t sizes[] = { 0, 1, 7, 31, 32, 33, 4096, RING - 33, RING - 32, RING - 31, RING, RING + 1,
					  3 * RING + 5 };
	static uint8_t out[4 * RING], in[4 * RING];
	struct pair p;

	pair_open(&p, b->name);
	if (!(rt_ctx_caps(p.ctx) & RT_CAP_MSG))
		goto out;
	for (int i = 0; i < 2; i++) {
		buf(&p, i, out, sizeof(out));
		buf(&p, i, in, sizeof(in));
	}
	for (unsigned round = 0; round < 40; round++) {
		int from = round & 1;
		uint32_t n = sizes[round % (sizeof(sizes) / sizeof(sizes[0]))];
		struct rt_sge s[3] = { sge(out, n / 3), sge(out + n / 3, 0), sge(out + n / 3, n - n / 3) };
		struct rt_sge r[2] = { sge(in, n / 2), sge(in + n / 2, sizeof(in) - n / 2) };
		struct rt_completion wc;

		fill(out, n, round);
		memset(in, 0xee, sizeof(in));
		cr_assert_eq(rt_post_recv(p.c[1 - from], r, 2, 100 + round), 0);
		cr_assert_eq(rt_post_send(p.c[from], s, 3, 200 + round), 0);
		wc = wait_for(&p, 1 - from, RT_OP_RECV);
		cr_assert_eq(wc.cookie, 100 + round);
		cr_assert_eq(wc.status, 0);
		cr_assert_eq(wc.bytes, n);
		cr_assert_eq(memcmp(in, out, n), 0, "round %u, %u bytes", round, n);
		cr_assert_eq(in[n], 0xee);
		wc = wait_for(&p, from, RT_OP_SEND);
		cr_assert_eq(wc.cookie, 200 + round);
		cr_assert_eq(wc.status, 0);
	}
out:
	pair_close(&p);
}

ParameterizedTest(struct backend *b, transport, message_waits_for_a_receive, .timeout = 20)
{
	static char in[8][16], text[8][16];
	struct rt_completion wc;
	struct pair p;

	pair_open(&p, b->name);
	buf(&p, 1, in, sizeof(in));
	buf(&p, 0, text, sizeof(text));
	for (unsigned i = 0; i < 8; i++) {
		struct rt_sge s = sge(text[i], 16);

		snprintf(text[i], sizeof(text[i]), "message %u", i);
		cr_assert_eq(rt_post_send(p.c[0], &s, 1, i), 0);
	}
	cr_assert_eq(rt_poll(p.c[1], &wc, 1), 0);
	for (unsigned i = 0; i < 8; i++) {
		struct rt_sge s = sge(in[i], 16);

		cr_assert_eq(rt_post_recv(p.c[1], &s, 1, i), 0);
	}
	for (unsigned i = 0; i < 8; i++) {
		char want[16];

		wc = wait_for(&p, 1, RT_OP_RECV);
		cr_assert_eq(wc.cookie, i);
		snprintf(want, sizeof(want), "message %u", i);
		cr_assert_str_eq(in[i], want);
	}
	pair_close(&p);
}

ParameterizedTest(struct backend *b, transport, writes_reach_only_what_is_exposed, .timeout = 30)
{
	static uint8_t target[8192], source[4096];
	uint8_t desc[RT_DESC_MAX], old[RT_DESC_MAX];
	struct rt_sge s = sge(source, sizeof(source));
	struct rt_completion wc;
	struct rt_mr *mr, *local;
	struct pair p;
	uint32_t dl;
	static char note[4], done[4] = "end";
	struct rt_sge rs = sge(note, 4), ds = sge(done, 4);

	pair_open(&p, b->name);
	buf(&p, 0, source, sizeof(source));
	buf(&p, 0, done, sizeof(done));
	buf(&p, 1, note, sizeof(note));
	dl = rt_ctx_limits(p.ctx)->desc_len;
	fill(source, sizeof(source), 1);
	cr_assert_eq(rt_mr_new(&local, p.c[1], target, 10, RT_ACCESS_LOCAL), 0);
	cr_assert_eq(rt_mr_desc(local, desc, sizeof(desc)), -EINVAL);
	rt_mr_drop(local);
	cr_assert_eq(rt_mr_new(&mr, p.c[1], target, 0, RT_ACCESS_WRITE), -EINVAL);
	cr_assert_eq(rt_mr_new(&mr, p.c[1], (void *)(UINTPTR_MAX - 5), 100, RT_ACCESS_WRITE), -EINVAL);
	cr_assert_eq(rt_mr_new(&mr, p.c[1], target, sizeof(target), 0x80), -EINVAL);
	cr_assert_eq(rt_mr_new(&mr, p.c[1], target + 1000, 5000, RT_ACCESS_WRITE), 0);
	cr_assert_eq(rt_mr_desc(mr, desc, dl - 1), -EMSGSIZE);
	cr_assert_eq(rt_mr_desc(mr, desc, sizeof(desc)), 0);

	/* a message sent after a write arrives after its data */
	cr_assert_eq(rt_post_recv(p.c[1], &rs, 1, 5), 0);
	cr_assert_eq(rt_post_write(p.c[0], &s, 1, desc, dl, 904, 1), 0);
	cr_assert_eq(rt_post_send(p.c[0], &ds, 1, 2), 0);
	wc = wait_for(&p, 1, RT_OP_RECV);
	cr_assert_eq(wc.status, 0);
	cr_assert_eq(memcmp(target + 1904, source, sizeof(source)), 0);
	cr_assert_eq(target[1903], 0);
	cr_assert_eq(target[1904 + 4096], 0);
	cr_assert_eq(wait_for(&p, 0, RT_OP_WRITE).status, 0);
	cr_assert_eq(wait_for(&p, 0, RT_OP_SEND).status, 0);

	/* outside: refused here already */
	cr_assert_eq(rt_post_write(p.c[0], &s, 1, desc, dl, 905, 3), -EINVAL);
	cr_assert_eq(rt_post_write(p.c[0], &s, 1, desc, dl, UINT64_MAX - 3, 3), -EINVAL);
	cr_assert_eq(rt_post_write(p.c[0], &s, 1, desc, dl - 1, 0, 3), -EINVAL);

	/* gone: the same place under another generation is not reached by the old name */
	memcpy(old, desc, sizeof(old));
	mr = rt_mr_drop(mr);
	cr_assert_eq(rt_mr_new(&mr, p.c[1], target + 1000, 5000, RT_ACCESS_WRITE), 0);
	memset(target, 0, sizeof(target));
	cr_assert_eq(rt_post_recv(p.c[1], &rs, 1, 6), 0);
	cr_assert_eq(rt_post_write(p.c[0], &s, 1, old, dl, 0, 4), 0);
	wc = wait_for(&p, 1, RT_OP_RECV);
	/* a device need not say more at this end than that it is over */
	if (!is_verbs(b->name) || wc.status != -ECONNRESET)
		cr_assert_eq(wc.status, -EPROTO);
	cr_assert_eq(rt_conn_error(p.c[1]), wc.status);
	for (unsigned i = 0; i < sizeof(target); i++)
		cr_assert_eq(target[i], 0);
	cr_assert_eq(rt_post_recv(p.c[1], &rs, 1, 7), wc.status);
	rt_mr_drop(mr);
	pair_close(&p);
}

ParameterizedTest(struct backend *b, transport, limits_hold, .timeout = 20)
{
	struct rt_config cfg = { .size = sizeof(cfg), .max_conns = 1, .max_mrs = 2, .depth = 3 };
	struct rt_peer peer;
	struct rt_ctx *ctx;
	struct rt_conn *c, *more = NULL;
	struct rt_mr *mr[3] = {};
	static char buf[64];
	struct rt_sge s[64];
	int fd = fake_session_new(RING, ID);

	for (unsigned i = 0; i < 64; i++)
		s[i] = sge(buf, 1);
	cr_assert_eq(ctx_open(&ctx, "nosuch", cfg), -ENOENT);
	cr_assert_eq(ctx_open(&ctx, b->name, cfg), 0);
	cr_assert_eq(rt_ctx_limits(ctx)->depth, 3);
	cr_assert_eq(rt_conn_new(&c, ctx), 0);
	cr_assert_eq(rt_conn_new(&more, ctx), -EMFILE);
	cr_assert_null(more);
	cr_assert_eq(rt_mr_new(&mr[0], c, buf, 1, RT_ACCESS_WRITE), -ENOTCONN);
	cr_assert_eq(rt_post_recv(c, s, 1, 1), -ENOTCONN);
	peer = peer_of(fd, 0);
	uint8_t local[RT_LOCAL_MAX];
	size_t len = sizeof(local);
	if (rt_ctx_caps(ctx) & RT_CAP_LOCAL) {
		cr_assert_eq(rt_conn_connect(c, &peer), -ENOTCONN);
		cr_assert_eq(prepare(c), 0);
		len = 1;
		cr_assert_eq(rt_conn_local(c, local, &len), -EMSGSIZE);
		cr_assert_eq(rt_conn_local(c, local, &len), 0);
		peer.remote = local;
		peer.remote_len = len;
	}
	cr_assert_eq(rt_conn_connect(c, &peer), 0);
	cr_assert_eq(rt_mr_new(&mr[0], c, buf, 1, RT_ACCESS_WRITE), 0);
	cr_assert_eq(rt_mr_new(&mr[1], c, buf, 1, RT_ACCESS_WRITE), 0);
	cr_assert_eq(rt_mr_new(&mr[2], c, buf, 1, RT_ACCESS_WRITE), -EMFILE);
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(rt_post_recv(c, s, 1, i), 0);
	cr_assert_eq(rt_post_recv(c, s, 1, 3), -EAGAIN);
	cr_assert_eq(rt_post_recv(c, s, rt_ctx_limits(ctx)->max_sge + 1, 3), -EINVAL);
	s[0].len = rt_ctx_limits(ctx)->max_msg;
	cr_assert_eq(rt_post_send(c, s, 2, 3), -EMSGSIZE);
	s[0] = (struct rt_sge){ NULL, 1 };
	cr_assert_eq(rt_post_send(c, s, 1, 3), -EINVAL);
	for (unsigned i = 0; i < 2; i++)
		rt_mr_drop(mr[i]);
	rt_conn_close(c);
	cr_assert_eq(rt_conn_new(&c, ctx), 0);
	rt_conn_close(c);
	rt_ctx_close(ctx);
	close(fd);
}

ParameterizedTest(struct backend *b, transport, what_is_not_promised_is_refused)
{
	char text[16], desc[RT_DESC_MAX] = {};
	struct rt_sge s = sge(text, sizeof(text));
	struct pair p;
	uint32_t caps;
	size_t len = sizeof(text);

	pair_open(&p, b->name);
	caps = rt_ctx_caps(p.ctx);
	if (!(caps & RT_CAP_READ))
		cr_assert_eq(rt_post_read(p.c[0], &s, 1, desc, rt_ctx_limits(p.ctx)->desc_len, 0, 1), -EOPNOTSUPP);
	if (!(caps & RT_CAP_WAKE))
		cr_assert_eq(rt_ctx_wait_fd(p.ctx), -EOPNOTSUPP);
	if (!(caps & RT_CAP_LOCAL)) {
		cr_assert_eq(rt_conn_local(p.c[0], text, &len), 0);
		cr_assert_eq(len, 0);
	}
	struct wsd_put_road road = { .size = sizeof(road) };
	uint64_t x;
	if (!(caps & RT_CAP_ROAD)) {
		cr_assert_eq(rt_conn_road(p.c[0], &road), -EOPNOTSUPP);
		cr_assert_eq(rt_ctx_drain(p.ctx, &x, 1), 0);
		cr_assert_eq(rt_ctx_drop_device(p.ctx, "fake0"), 0);
	}
	if (!(caps & RT_CAP_PUT))
		cr_assert_eq(rt_post_put(p.c[0], &s, 1, 0, 1), -EOPNOTSUPP);
	pair_close(&p);
}

ParameterizedTest(struct backend *b, transport, close_is_seen_after_the_data, .timeout = 20)
{
	static char in[2][8], text[8] = "last";
	struct rt_sge s = sge(text, 8), r0 = sge(in[0], 8), r1 = sge(in[1], 8);
	struct rt_completion wc;
	struct pair p;
	bool lingers;

	pair_open(&p, b->name);
	lingers = rt_ctx_caps(p.ctx) & RT_CAP_LINGER;
	buf(&p, 0, text, sizeof(text));
	buf(&p, 1, in, sizeof(in));
	if (lingers) {
		/* what was sent is at the peer, or its memory cannot be given back */
		cr_assert_eq(rt_post_recv(p.c[1], &r0, 1, 10), 0);
		cr_assert_eq(rt_post_recv(p.c[1], &r1, 1, 11), 0);
	}
	cr_assert_eq(rt_post_send(p.c[0], &s, 1, 1), 0);
	if (lingers)
		cr_assert_eq(wait_for(&p, 0, RT_OP_SEND).status, 0);
	while (p.n_mr[0])
		rt_mr_drop(p.mr[0][--p.n_mr[0]]);
	p.c[0] = rt_conn_close(p.c[0]);
	if (!lingers) {
		cr_assert_eq(rt_post_recv(p.c[1], &r0, 1, 10), 0);
		cr_assert_eq(rt_post_recv(p.c[1], &r1, 1, 11), 0);
	}
	wc = wait_for(&p, 1, RT_OP_RECV);
	cr_assert_eq(wc.cookie, 10);
	cr_assert_eq(wc.status, 0);
	cr_assert_str_eq(in[0], "last");
	wc = wait_for(&p, 1, RT_OP_RECV);
	cr_assert_eq(wc.cookie, 11);
	if (!is_verbs(b->name) || wc.status != -EPROTO)
		cr_assert_eq(wc.status, -ECONNRESET);
	cr_assert_eq(rt_conn_error(p.c[1]), wc.status);
	pair_close(&p);
}

ParameterizedTest(struct backend *b, transport, flush_gives_everything_back, .timeout = 20)
{
	static char big[2 * RING];
	struct rt_sge s = sge(big, sizeof(big)), r = sge(big, 16);
	struct rt_completion wc[8];
	struct pair p;
	int n;

	pair_open(&p, b->name);
	buf(&p, 0, big, sizeof(big));
	cr_assert_eq(rt_post_recv(p.c[0], &r, 1, 1), 0);
	cr_assert_eq(rt_post_recv(p.c[0], &r, 1, 2), 0);
	cr_assert_eq(rt_post_send(p.c[0], &s, 1, 3), 0);	/* stands half in the ring */
	cr_assert_eq(rt_poll(p.c[0], wc, 8), 0);
	rt_conn_flush(p.c[0], -ECANCELED);
	n = rt_poll(p.c[0], wc, 8);
	cr_assert_eq(n, 3);
	for (int i = 0; i < n; i++) {
		cr_assert_eq(wc[i].status, -ECANCELED);
		cr_assert_eq(wc[i].bytes, 0);
	}
	cr_assert_eq(rt_poll(p.c[0], wc, 8), 0);
	cr_assert_eq(rt_post_recv(p.c[0], &r, 1, 4), -ECANCELED);
	pair_close(&p);
}

ParameterizedTest(struct backend *b, transport, put_raises_the_head, .timeout = 20)
{
	static char data[RING];
	struct rt_sge s = sge(data, 1000), all = sge(data, RING);
	struct rt_completion wc;
	struct rt_ring r;
	struct pair p;
	struct wsd_session *m;

	pair_open(&p, b->name);
	if (!(rt_ctx_caps(p.ctx) & RT_CAP_PUT)) {
		pair_close(&p);
		return;
	}
	fill((uint8_t *)data, sizeof(data), 9);
	cr_assert_eq(rt_conn_ring(p.c[1], &r), 0);
	m = r.base;
	cr_assert_eq(rt_post_put(p.c[0], &s, 1, 8, 1), -ESTALE);
	cr_assert_eq(rt_post_put(p.c[0], &s, 1, 0, 1), 0);
	wc = wait_for(&p, 0, RT_OP_PUT);
	cr_assert_eq(wc.status, 0);
	cr_assert_eq(WSD_GATE_HEAD(atomic_load(&m->dir[0].gate)), 1000);
	cr_assert_eq(memcmp((char *)m + WSD_SESSION_HDR, data, 1000), 0);
	cr_assert_eq(rt_post_put(p.c[0], &all, 1, 1000, 2), -EAGAIN);
	atomic_store(&m->dir[0].tail, 1000);
	cr_assert_eq(rt_post_put(p.c[0], &all, 1, 1000, 2), 0);
	cr_assert_eq(wait_for(&p, 0, RT_OP_PUT).status, 0);
	cr_assert_eq(WSD_GATE_HEAD(atomic_load(&m->dir[0].gate)), 1000 + RING);
	pair_close(&p);
}

ParameterizedTest(struct backend *b, transport, reads_bring_what_is_exposed, .timeout = 20)
{
	static uint8_t theirs[5000], mine[5000];
	uint8_t desc[RT_DESC_MAX];
	struct rt_sge s = sge(mine, 4000);
	struct rt_mr *mr;
	struct pair p;

	pair_open(&p, b->name);
	if (rt_ctx_caps(p.ctx) & RT_CAP_READ) {
		uint32_t dl = rt_ctx_limits(p.ctx)->desc_len;

		fill(theirs, sizeof(theirs), 3);
		memset(mine, 0, sizeof(mine));
		buf(&p, 0, mine, sizeof(mine));
		cr_assert_eq(rt_mr_new(&mr, p.c[1], theirs, sizeof(theirs), RT_ACCESS_READ), 0);
		cr_assert_eq(rt_mr_desc(mr, desc, sizeof(desc)), 0);
		cr_assert_eq(rt_post_read(p.c[0], &s, 1, desc, dl, 1000, 1), 0);
		cr_assert_eq(wait_for(&p, 0, RT_OP_READ).status, 0);
		cr_assert_eq(memcmp(mine, theirs + 1000, 4000), 0);
		cr_assert_eq(mine[4000], 0);
		cr_assert_eq(rt_post_read(p.c[0], &s, 1, desc, dl, 1001, 2), -EINVAL);
		cr_assert_eq(rt_post_write(p.c[0], &s, 1, desc, dl, 0, 3), -EINVAL);
		/* nor may anything be posted from memory that no region covers */
		s = sge(mine + 4999, 2);
		cr_assert_eq(rt_post_send(p.c[0], &s, 1, 4), -EINVAL);
		rt_mr_drop(mr);
	}
	pair_close(&p);
}
