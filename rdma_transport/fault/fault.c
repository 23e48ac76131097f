/* SPDX-License-Identifier: MIT */
/*
 * fault.c - the wrapper: each object of ours owns one of the wrapped backend
 *
 * Argument checks have been done once by base/ for the outer object; the inner calls go through the public
 * functions again, so that limits and states of the inner objects hold as well.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rdma_transport/fault/fault.h"

static struct {
	unsigned left;
	int error;
} plan[_RT_FAULT_N];

static const char *const op_name[_RT_FAULT_N] = {
#define X(op) [RT_FAULT_##op] = #op,
	RT_FAULT_OPS(X)
#undef X
};

const char *rt_fault_op_name(enum rt_fault_op op)
{
	return op < _RT_FAULT_N ? op_name[op] : NULL;
}

void rt_fault_arm(enum rt_fault_op op, unsigned nth, int error)
{
	plan[op].left = nth;
	plan[op].error = error;
}

void rt_fault_disarm_all(void)
{
	memset(plan, 0, sizeof(plan));
}

int rt_fault_plan(const char *text)
{
	rt_fault_disarm_all();
	while (*text) {
		size_t n = strcspn(text, ":");
		unsigned long nth, error;
		unsigned op = 0;
		char *end;

		while (op < _RT_FAULT_N && (strlen(op_name[op]) != n || memcmp(op_name[op], text, n)))
			op++;
		if (op == _RT_FAULT_N || text[n] != ':')
			goto bad;
		nth = strtoul(text + n + 1, &end, 10);
		if (*end != ':' || nth > 1000000000)
			goto bad;
		error = strtoul(end + 1, &end, 10);
		if ((*end && *end != ',') || !error || error > 4095)
			goto bad;
		rt_fault_arm(op, (unsigned)nth, -(int)error);
		text = *end ? end + 1 : end;
	}
	return 0;
bad:
	rt_fault_disarm_all();
	return -EINVAL;
}

static int hit(enum rt_fault_op op)
{
	return plan[op].left && !--plan[op].left ? plan[op].error : 0;
}

static struct rt_ctx **inner_ctx(struct rt_ctx *ctx)
{
	return (struct rt_ctx **)ctx->priv;
}

static struct rt_conn **inner_conn(struct rt_conn *conn)
{
	return (struct rt_conn **)conn->priv;
}

static struct rt_mr **inner_mr(const struct rt_mr *mr)
{
	return (struct rt_mr **)mr->priv;
}

static int ctx_open(struct rt_ctx *ctx, const struct rt_config *cfg)
{
	const char *env = secure_getenv("WSD_RT_FAULT");
	int r;

	if (env && rt_fault_plan(env))
		return -EINVAL;
	if (!ctx->inner || strchr(ctx->inner, ':'))
		return -EINVAL;		/* nothing wrapped, or wrapped twice */
	r = hit(RT_FAULT_ctx_open);
	if (r)
		return r;
	r = rt_ctx_open(inner_ctx(ctx), ctx->inner, cfg);
	if (r)
		return r;
	ctx->caps = rt_ctx_caps(*inner_ctx(ctx));
	ctx->limits = *rt_ctx_limits(*inner_ctx(ctx));
	return 0;
}

static void ctx_close(struct rt_ctx *ctx)
{
	rt_ctx_close(*inner_ctx(ctx));
}

static int ctx_wait_fd(struct rt_ctx *ctx)
{
	return hit(RT_FAULT_ctx_wait_fd) ?: rt_ctx_wait_fd(*inner_ctx(ctx));
}

static int conn_open(struct rt_conn *conn)
{
	return hit(RT_FAULT_conn_open) ?: rt_conn_new(inner_conn(conn), *inner_ctx(conn->ctx));
}

static void conn_close(struct rt_conn *conn)
{
	rt_conn_close(*inner_conn(conn));
}

static int conn_connect(struct rt_conn *conn, const struct rt_peer *peer)
{
	return hit(RT_FAULT_conn_connect) ?: rt_conn_connect(*inner_conn(conn), peer);
}

static int conn_local(struct rt_conn *conn, void *buf, size_t *len)
{
	return hit(RT_FAULT_conn_local) ?: rt_conn_local(*inner_conn(conn), buf, len);
}

static int conn_ring(struct rt_conn *conn, struct rt_ring *ret_ring)
{
	return hit(RT_FAULT_conn_ring) ?: rt_conn_ring(*inner_conn(conn), ret_ring);
}

static int conn_prepare(struct rt_conn *conn, const struct rt_prepare *prepare)
{
	return hit(RT_FAULT_conn_prepare) ?: rt_conn_prepare(*inner_conn(conn), prepare);
}

/* the road is the inner one's: what happens on it does not pass here */
static int conn_road(struct rt_conn *conn, struct wsd_put_road *ret_road)
{
	return hit(RT_FAULT_conn_road) ?: rt_conn_road(*inner_conn(conn), ret_road);
}

static unsigned drain(struct rt_ctx *ctx, uint64_t *ret_context, unsigned max)
{
	return rt_ctx_drain(*inner_ctx(ctx), ret_context, max);
}

static int arm(struct rt_ctx *ctx)
{
	return rt_ctx_arm(*inner_ctx(ctx));
}

static unsigned ctx_fds(struct rt_ctx *ctx, int *ret_fds, unsigned max)
{
	return rt_ctx_fds(*inner_ctx(ctx), ret_fds, max);
}

static unsigned ctx_fds_gen(struct rt_ctx *ctx)
{
	return rt_ctx_fds_gen(*inner_ctx(ctx));
}

static int drop_device(struct rt_ctx *ctx, const char *device)
{
	return rt_ctx_drop_device(*inner_ctx(ctx), device);
}

static void ctx_orphan(struct rt_ctx *ctx)
{
	rt_ctx_orphan(*inner_ctx(ctx));
}

static void conn_flush(struct rt_conn *conn, int status)
{
	rt_conn_flush(*inner_conn(conn), status);
}

static void conn_orphan(struct rt_conn *conn)
{
	rt_conn_orphan(*inner_conn(conn));
}

static int mr_open(struct rt_mr *mr)
{
	return hit(RT_FAULT_mr_open) ?:
	       rt_mr_new(inner_mr(mr), *inner_conn(mr->conn), mr->addr, mr->len, mr->access);
}

static void mr_close(struct rt_mr *mr)
{
	rt_mr_drop(*inner_mr(mr));
}

static int mr_desc(const struct rt_mr *mr, void *buf)
{
	return hit(RT_FAULT_mr_desc) ?: rt_mr_desc(*inner_mr(mr), buf, mr->conn->ctx->limits.desc_len);
}

/* what broke the inner connection breaks the outer one */
static int pass(struct rt_conn *conn, int r)
{
	conn->error = rt_conn_error(*inner_conn(conn));
	return r;
}

static int poll_inner(struct rt_conn *conn, struct rt_completion *ret_wc, unsigned max)
{
	return pass(conn, rt_poll(*inner_conn(conn), ret_wc, max));
}

static int post_send(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie)
{
	return hit(RT_FAULT_post_send) ?: pass(conn, rt_post_send(*inner_conn(conn), sge, n, cookie));
}

static int post_recv(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie)
{
	return hit(RT_FAULT_post_recv) ?: pass(conn, rt_post_recv(*inner_conn(conn), sge, n, cookie));
}

static int post_write(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc,
		      uint64_t offset, uint64_t cookie)
{
	return hit(RT_FAULT_post_write) ?: pass(conn, rt_post_write(*inner_conn(conn), sge, n, desc,
						conn->ctx->limits.desc_len, offset, cookie));
}

static int post_read(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc,
		     uint64_t offset, uint64_t cookie)
{
	return hit(RT_FAULT_post_read) ?: pass(conn, rt_post_read(*inner_conn(conn), sge, n, desc,
					       conn->ctx->limits.desc_len, offset, cookie));
}

static int post_put(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint32_t at, uint64_t cookie)
{
	return hit(RT_FAULT_post_put) ?: pass(conn, rt_post_put(*inner_conn(conn), sge, n, at, cookie));
}

const struct rt_backend_ops rt_fault_ops = {
	.size = sizeof(rt_fault_ops),
	.name = "fault",
	.caps = 0,		/* the wrapped one's, from ctx_open on */
	.ctx_priv = sizeof(struct rt_ctx *),
	.conn_priv = sizeof(struct rt_conn *),
	.mr_priv = sizeof(struct rt_mr *),
	.ctx_open = ctx_open,
	.ctx_close = ctx_close,
	.conn_open = conn_open,
	.conn_close = conn_close,
	.conn_connect = conn_connect,
	.mr_open = mr_open,
	.mr_close = mr_close,
	.conn_local = conn_local,
	.conn_ring = conn_ring,
	.ctx_wait_fd = ctx_wait_fd,
	.conn_flush = conn_flush,
	.conn_orphan = conn_orphan,
	.poll = poll_inner,
	.post_send = post_send,
	.post_recv = post_recv,
	.mr_desc = mr_desc,
	.post_write = post_write,
	.post_read = post_read,
	.post_put = post_put,
	.conn_prepare = conn_prepare,
	.conn_road = conn_road,
	.drain = drain,
	.arm = arm,
	.ctx_fds = ctx_fds,
	.ctx_fds_gen = ctx_fds_gen,
	.drop_device = drop_device,
	.ctx_orphan = ctx_orphan,
};
