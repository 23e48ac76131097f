/* SPDX-License-Identifier: MIT */
/* stubs.c - what stands in an ops table where a backend has nothing */
#include <errno.h>
#include <string.h>

#include "rdma_transport/api/rt_backend.h"

static int no_local(struct rt_conn *conn, void *buf, size_t *len)
{
	*len = 0;	/* the peer needs nothing from us */
	return 0;
}

static int no_ring(struct rt_conn *conn, struct rt_ring *ret_ring)
{
	return -EOPNOTSUPP;
}

static int no_wait_fd(struct rt_ctx *ctx)
{
	return -EOPNOTSUPP;
}

static void no_flush(struct rt_conn *conn, int status)
{
}

static void no_orphan(struct rt_conn *conn)
{
}

static int no_poll(struct rt_conn *conn, struct rt_completion *ret_wc, unsigned max)
{
	return 0;
}

static int no_post(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie)
{
	return -EOPNOTSUPP;
}

static int no_desc(const struct rt_mr *mr, void *buf)
{
	return -EOPNOTSUPP;
}

static int no_rdma(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc,
		   uint64_t offset, uint64_t cookie)
{
	return -EOPNOTSUPP;
}

static int no_put(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint32_t at, uint64_t cookie)
{
	return -EOPNOTSUPP;
}

static int no_prepare(struct rt_conn *conn, const struct rt_prepare *prepare)
{
	return -EOPNOTSUPP;
}

static int no_road(struct rt_conn *conn, struct wsd_put_road *ret_road)
{
	return -EOPNOTSUPP;
}

static unsigned no_drain(struct rt_ctx *ctx, uint64_t *ret_context, unsigned max)
{
	return 0;
}

static int no_arm(struct rt_ctx *ctx)
{
	return 0;
}

static unsigned no_fds(struct rt_ctx *ctx, int *ret_fds, unsigned max)
{
	return 0;
}

static unsigned no_fds_gen(struct rt_ctx *ctx)
{
	return 0;
}

static int no_drop(struct rt_ctx *ctx, const char *device)
{
	return 0;	/* it is not open here */
}

static void no_ctx_orphan(struct rt_ctx *ctx)
{
}

static bool promises_kept(const struct rt_backend_ops *o)
{
	uint32_t posting = RT_CAP_MSG | RT_CAP_WRITE | RT_CAP_READ | RT_CAP_PUT;

	if ((o->caps & RT_CAP_LOCAL) && (!o->conn_local || !o->conn_prepare))
		return false;
	if ((o->caps & RT_CAP_ROAD) && (!(o->caps & RT_CAP_LOCAL) || !o->conn_road || !o->drain || !o->arm || !o->ctx_fds ||
					!o->ctx_fds_gen || !o->drop_device || !o->ctx_orphan))
		return false;
	if ((o->caps & RT_CAP_SHARED_RING) && !o->conn_ring)
		return false;
	if ((o->caps & RT_CAP_WAKE) && !o->ctx_wait_fd)
		return false;
	if ((o->caps & RT_CAP_MSG) && (!o->post_send || !o->post_recv))
		return false;
	if ((o->caps & RT_CAP_WRITE) && !o->post_write)
		return false;
	if ((o->caps & RT_CAP_READ) && !o->post_read)
		return false;
	if ((o->caps & RT_CAP_PUT) && !o->post_put)
		return false;
	if ((o->caps & (RT_CAP_WRITE | RT_CAP_READ)) && !o->mr_desc)
		return false;
	return !(o->caps & posting) || (o->poll && o->conn_flush && o->conn_orphan);
}

int rt_ops_complete(struct rt_backend_ops *full, const struct rt_backend_ops *given)
{
	struct rt_backend_ops o = {};

	memcpy(&o, given, given->size < sizeof(o) ? given->size : sizeof(o));
	o.size = sizeof(o);
	if (!o.name || !o.ctx_open || !o.ctx_close || !o.conn_open || !o.conn_close || !o.conn_connect ||
	    !o.mr_open || !o.mr_close || !promises_kept(&o) || o.limits.desc_len > RT_DESC_MAX)
		return -EINVAL;
	o.conn_local = o.conn_local ?: no_local;
	o.conn_ring = o.conn_ring ?: no_ring;
	o.ctx_wait_fd = o.ctx_wait_fd ?: no_wait_fd;
	o.conn_flush = o.conn_flush ?: no_flush;
	o.conn_orphan = o.conn_orphan ?: no_orphan;
	o.poll = o.poll ?: no_poll;
	o.post_send = o.post_send ?: no_post;
	o.post_recv = o.post_recv ?: no_post;
	o.mr_desc = o.mr_desc ?: no_desc;
	o.post_write = o.post_write ?: no_rdma;
	o.post_read = o.post_read ?: no_rdma;
	o.post_put = o.post_put ?: no_put;
	o.conn_prepare = o.conn_prepare ?: no_prepare;
	o.conn_road = o.conn_road ?: no_road;
	o.drain = o.drain ?: no_drain;
	o.arm = o.arm ?: no_arm;
	o.ctx_fds = o.ctx_fds ?: no_fds;
	o.ctx_fds_gen = o.ctx_fds_gen ?: no_fds_gen;
	o.drop_device = o.drop_device ?: no_drop;
	o.ctx_orphan = o.ctx_orphan ?: no_ctx_orphan;
	*full = o;
	return 0;
}
