/* SPDX-License-Identifier: MIT */
/* backend.c - the table of the verbs backend, and its context */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "rdma_transport/base/fault_point.h"
#include "rdma_transport/base/rawsys.h"
#include "rdma_transport/verbs/verbs.h"

/* libibverbs is not touched before a connection needs it */
static int ctx_open(struct rt_ctx *ctx, const struct rt_config *cfg)
{
	struct v_ctx *x = v_ctx(ctx);
	int r;

	x->rt = ctx;
	x->lib = cfg->lib;
	RT_FAULT_POINT(r, -ENOMEM, err);
	x->ep = (int)rt_raw4(SYS_epoll_create1, EPOLL_CLOEXEC, 0, 0, 0);
	if (x->ep < 0)
		return x->ep;
	x->ep = v_fd_to_top(x->ep);
	return 0;

err:
	__attribute__((unused));
	return r;
}

static void ctx_close(struct rt_ctx *ctx)
{
	struct v_ctx *x = v_ctx(ctx);
	struct v_guard g;

	if (!x->orphan) {
		v_look_wait(x, &g);
		v_take_all(x);
		v_reap(x, true);
		v_look_done(x, &g);
		rt_raw_close(x->ep);
	}
	free(x->slot);
}

static int ctx_wait_fd(struct rt_ctx *ctx)
{
	return v_ctx(ctx)->ep;
}

static unsigned ctx_fds(struct rt_ctx *ctx, int *ret_fds, unsigned max)
{
	struct v_ctx *x = v_ctx(ctx);
	struct v_guard g;
	unsigned n;

	if (x->orphan)
		return 0;
	v_look_wait(x, &g);
	n = v_fds(x, ret_fds, max);
	v_look_done(x, &g);
	return n;
}

static unsigned ctx_fds_gen(struct rt_ctx *ctx)
{
	return v_ctx(ctx)->fds_gen;
}

/* the only thread of a child; locks are as another thread of the parent held them, and its queues half written */
static void ctx_orphan(struct rt_ctx *ctx)
{
	struct v_ctx *x = v_ctx(ctx);

	if (atomic_exchange(&x->orphan, true))
		return;
	v_fds_orphan(x);
	for (uint32_t i = 0; i < x->n_slots; i++)
		if (x->slot[i]) {
			x->slot[i]->state.error = x->slot[i]->state.error ?: -ECONNRESET;
			x->slot[i]->qp = NULL;
		}
}

static void conn_orphan(struct rt_conn *conn)
{
	struct v_conn *c = v_conn(conn);

	if (c)
		c->orphan = true;
}

static void conn_flush(struct rt_conn *conn, int status)
{
	if (v_conn(conn) && v_conn(conn)->msg)
		v_msg_flush(conn, status);
}

const struct rt_backend_ops rt_verbs_ops = {
	.size = sizeof(rt_verbs_ops),
	.name = "verbs",
	.caps = RT_CAP_MSG | RT_CAP_WRITE | RT_CAP_READ | RT_CAP_WAKE | RT_CAP_LOCAL | RT_CAP_ROAD | RT_CAP_LINGER,
	.limits = {
		.max_msg = 1u << 30,
		.max_rdma = 1u << 30,
		.max_sge = V_MSG_SGE,
		.depth = V_RQ,
		.desc_len = sizeof(struct v_desc),
	},
	.ctx_priv = sizeof(struct v_ctx),
	.conn_priv = sizeof(struct v_conn *),
	.mr_priv = sizeof(struct v_mr),
	.ctx_open = ctx_open,
	.ctx_close = ctx_close,
	.conn_open = v_conn_open,
	.conn_close = v_conn_close,
	.conn_connect = v_conn_connect,
	.mr_open = v_mr_open,
	.mr_close = v_mr_close,
	.conn_local = v_conn_local,
	.ctx_wait_fd = ctx_wait_fd,
	.conn_flush = conn_flush,
	.conn_orphan = conn_orphan,
	.poll = v_msg_poll,
	.post_send = v_msg_send,
	.post_recv = v_msg_recv,
	.mr_desc = v_mr_desc,
	.post_write = v_msg_write,
	.post_read = v_msg_read,
	.conn_prepare = v_conn_prepare,
	.conn_road = v_conn_road,
	.drain = v_drain,
	.arm = v_arm,
	.ctx_fds = ctx_fds,
	.ctx_fds_gen = ctx_fds_gen,
	.drop_device = v_drop_device,
	.ctx_orphan = ctx_orphan,
};
