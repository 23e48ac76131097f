/* SPDX-License-Identifier: MIT */
/*
 * rt.c - the part of every call that is the same for all backends
 *
 * Objects, their counts and limits, and the checks of arguments; then one call through the table.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rdma_transport/api/rt_backend.h"
#include "rdma_transport/base/fault_point.h"

#define MAX_CONNS	65536u
#define MAX_MRS		4096u

int rt_ctx_open(struct rt_ctx **ret_ctx, const char *name, const struct rt_config *cfg)
{
	const struct rt_backend_ops *found;
	struct rt_backend_ops ops;
	struct rt_config c = {};
	struct rt_ctx *ctx;
	int r;

	if (cfg)
		memcpy(&c, cfg, cfg->size < sizeof(c) ? cfg->size : sizeof(c));
	r = rt_backend_find(name, &found);
	if (r)
		return r;
	r = rt_ops_complete(&ops, found);
	if (r)
		return r;

	RT_FAULT_POINT(r, -ENOMEM, err);
	ctx = calloc(1, sizeof(*ctx) + ops.ctx_priv);
	if (!ctx)
		return -ENOMEM;
	ctx->ops = ops;
	ctx->caps = ops.caps;
	ctx->limits = ops.limits;
	if (c.depth && c.depth < ctx->limits.depth)
		ctx->limits.depth = c.depth;
	ctx->max_conns = c.max_conns ? c.max_conns : MAX_CONNS;
	ctx->max_mrs = c.max_mrs ? c.max_mrs : MAX_MRS;
	ctx->inner = strchr(name, ':') ? strchr(name, ':') + 1 : NULL;

	RT_FAULT_POINT(r, -ENOMEM, err_free);
	r = ops.ctx_open(ctx, &c);
	if (r)
		goto err_free;
	ctx->inner = NULL;
	*ret_ctx = ctx;
	return 0;

err_free:
	free(ctx);
err:
	__attribute__((unused));
	return r;
}

struct rt_ctx *rt_ctx_close(struct rt_ctx *ctx)
{
	if (ctx) {
		if (ctx->n_conns)
			abort();	/* its connections would point into freed memory */
		ctx->ops.ctx_close(ctx);
		free(ctx);
	}
	return NULL;
}

uint32_t rt_ctx_caps(const struct rt_ctx *ctx)
{
	return ctx->caps;
}

const struct rt_limits *rt_ctx_limits(const struct rt_ctx *ctx)
{
	return &ctx->limits;
}

const char *rt_ctx_name(const struct rt_ctx *ctx)
{
	return ctx->ops.name;
}

int rt_ctx_wait_fd(struct rt_ctx *ctx)
{
	return ctx->ops.ctx_wait_fd(ctx);
}

int rt_conn_new(struct rt_conn **ret_conn, struct rt_ctx *ctx)
{
	struct rt_conn *conn;
	int r;

	if (ctx->n_conns >= ctx->max_conns)
		return -EMFILE;
	RT_FAULT_POINT(r, -ENOMEM, err);
	conn = calloc(1, sizeof(*conn) + ctx->ops.conn_priv);
	if (!conn)
		return -ENOMEM;
	conn->ctx = ctx;
	RT_FAULT_POINT(r, -ENOMEM, err_free);
	r = ctx->ops.conn_open(conn);
	if (r)
		goto err_free;
	ctx->n_conns++;
	*ret_conn = conn;
	return 0;

err_free:
	free(conn);
err:
	__attribute__((unused));
	return r;
}

struct rt_conn *rt_conn_close(struct rt_conn *conn)
{
	if (conn) {
		if (conn->n_mrs)
			abort();
		conn->ctx->ops.conn_close(conn);
		conn->ctx->n_conns--;
		free(conn);
	}
	return NULL;
}

int rt_conn_prepare(struct rt_conn *conn, const struct rt_prepare *prepare)
{
	struct rt_prepare p = {};
	int r;

	if (conn->connected || conn->prepared)
		return -EISCONN;
	memcpy(&p, prepare, prepare->size < sizeof(p) ? prepare->size : sizeof(p));
	if (!p.path || (p.memory && !p.length))
		return -EINVAL;
	r = conn->ctx->ops.conn_prepare(conn, &p);
	if (!r)
		conn->prepared = true;
	return r;
}

int rt_conn_local(struct rt_conn *conn, void *buf, size_t *len)
{
	return conn->ctx->ops.conn_local(conn, buf, len);
}

int rt_conn_connect(struct rt_conn *conn, const struct rt_peer *peer)
{
	struct rt_peer p = { .fd = -1 };
	int r;

	if (conn->connected)
		return -EISCONN;
	memcpy(&p, peer, peer->size < sizeof(p) ? peer->size : sizeof(p));
	if (p.side > 1 || p.remote_len > RT_LOCAL_MAX)
		return -EINVAL;
	if ((conn->ctx->caps & RT_CAP_LOCAL) && !conn->prepared)
		return -ENOTCONN;
	r = conn->ctx->ops.conn_connect(conn, &p);
	if (!r)
		conn->connected = true;
	return r;
}

int rt_conn_ring(struct rt_conn *conn, struct rt_ring *ret_ring)
{
	return conn->connected ? conn->ctx->ops.conn_ring(conn, ret_ring) : -ENOTCONN;
}

int rt_conn_road(struct rt_conn *conn, struct wsd_put_road *ret_road)
{
	int r;

	if (!(conn->ctx->caps & RT_CAP_ROAD))
		return -EOPNOTSUPP;
	r = conn->connected ? conn->ctx->ops.conn_road(conn, ret_road) : -ENOTCONN;
	if (!r)
		conn->road = true;
	return r;
}

unsigned rt_ctx_drain(struct rt_ctx *ctx, uint64_t *ret_context, unsigned max)
{
	return ctx->ops.drain(ctx, ret_context, max);
}

int rt_ctx_arm(struct rt_ctx *ctx)
{
	return ctx->ops.arm(ctx);
}

unsigned rt_ctx_fds(struct rt_ctx *ctx, int *ret_fds, unsigned max)
{
	return ctx->ops.ctx_fds(ctx, ret_fds, max);
}

unsigned rt_ctx_fds_gen(struct rt_ctx *ctx)
{
	return ctx->ops.ctx_fds_gen(ctx);
}

int rt_ctx_drop_device(struct rt_ctx *ctx, const char *device)
{
	return ctx->ops.drop_device(ctx, device);
}

void rt_ctx_orphan(struct rt_ctx *ctx)
{
	ctx->ops.ctx_orphan(ctx);
}

void rt_conn_flush(struct rt_conn *conn, int status)
{
	if (!conn->error)
		conn->error = status;
	conn->ctx->ops.conn_flush(conn, status);
}

void rt_conn_orphan(struct rt_conn *conn)
{
	conn->error = -ECONNRESET;
	conn->ctx->ops.conn_orphan(conn);
}

int rt_conn_error(const struct rt_conn *conn)
{
	return conn->error;
}

int rt_mr_new(struct rt_mr **ret_mr, struct rt_conn *conn, void *addr, uint32_t len, unsigned access)
{
	struct rt_ctx *ctx = conn->ctx;
	struct rt_mr *mr;
	int r;

	if (!len || !addr || (uintptr_t)addr + len < (uintptr_t)addr ||
	    (access & ~(RT_ACCESS_READ | RT_ACCESS_WRITE)))
		return -EINVAL;
	if (!conn->connected)
		return -ENOTCONN;
	if (conn->n_mrs >= ctx->max_mrs)
		return -EMFILE;
	RT_FAULT_POINT(r, -ENOMEM, err);
	mr = calloc(1, sizeof(*mr) + ctx->ops.mr_priv);
	if (!mr)
		return -ENOMEM;
	mr->conn = conn;
	mr->addr = addr;
	mr->len = len;
	mr->access = access;
	RT_FAULT_POINT(r, -ENOMEM, err_free);
	r = ctx->ops.mr_open(mr);
	if (r)
		goto err_free;
	conn->n_mrs++;
	*ret_mr = mr;
	return 0;

err_free:
	free(mr);
err:
	__attribute__((unused));
	return r;
}

struct rt_mr *rt_mr_drop(struct rt_mr *mr)
{
	if (mr) {
		mr->conn->ctx->ops.mr_close(mr);
		mr->conn->n_mrs--;
		free(mr);
	}
	return NULL;
}

int rt_mr_desc(const struct rt_mr *mr, void *buf, uint32_t len)
{
	struct rt_ctx *ctx = mr->conn->ctx;

	if (mr->access == RT_ACCESS_LOCAL)
		return -EINVAL;
	if (len < ctx->limits.desc_len)
		return -EMSGSIZE;
	return ctx->ops.mr_desc(mr, buf);
}

void *rt_mr_addr(const struct rt_mr *mr)
{
	return mr->addr;
}

uint32_t rt_mr_len(const struct rt_mr *mr)
{
	return mr->len;
}

unsigned rt_mr_access(const struct rt_mr *mr)
{
	return mr->access;
}

static int check_post(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint32_t max, uint32_t cap)
{
	uint64_t sum = 0;

	if (!(conn->ctx->caps & cap))
		return -EOPNOTSUPP;
	if (!conn->connected)
		return -ENOTCONN;
	if (conn->error)
		return conn->error;
	if (conn->road)
		return -EBUSY;
	if (n > conn->ctx->limits.max_sge)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++) {
		if (!sge[i].addr && sge[i].len)
			return -EINVAL;
		sum += sge[i].len;
	}
	return sum > max ? -EMSGSIZE : 0;
}

int rt_post_send(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie)
{
	int r = check_post(conn, sge, n, conn->ctx->limits.max_msg, RT_CAP_MSG);

	return r ? r : conn->ctx->ops.post_send(conn, sge, n, cookie);
}

int rt_post_recv(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie)
{
	int r = check_post(conn, sge, n, UINT32_MAX, RT_CAP_MSG);

	return r ? r : conn->ctx->ops.post_recv(conn, sge, n, cookie);
}

int rt_post_write(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc,
		  uint32_t desc_len, uint64_t offset, uint64_t cookie)
{
	int r = check_post(conn, sge, n, conn->ctx->limits.max_rdma, RT_CAP_WRITE);

	if (!r && desc_len != conn->ctx->limits.desc_len)
		r = -EINVAL;
	return r ? r : conn->ctx->ops.post_write(conn, sge, n, desc, offset, cookie);
}

int rt_post_read(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc,
		 uint32_t desc_len, uint64_t offset, uint64_t cookie)
{
	int r = check_post(conn, sge, n, conn->ctx->limits.max_rdma, RT_CAP_READ);

	if (!r && desc_len != conn->ctx->limits.desc_len)
		r = -EINVAL;
	return r ? r : conn->ctx->ops.post_read(conn, sge, n, desc, offset, cookie);
}

int rt_post_put(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint32_t at, uint64_t cookie)
{
	int r = check_post(conn, sge, n, UINT32_MAX, RT_CAP_PUT);

	return r ? r : conn->ctx->ops.post_put(conn, sge, n, at, cookie);
}

int rt_poll(struct rt_conn *conn, struct rt_completion *ret_wc, unsigned max)
{
	return conn->connected ? conn->ctx->ops.poll(conn, ret_wc, max) : 0;
}
