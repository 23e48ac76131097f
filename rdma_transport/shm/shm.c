/* SPDX-License-Identifier: MIT */
/* shm.c - the table of the shm backend, and spans of memory that the peer may name */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rdma_transport/base/fault_point.h"
#include "rdma_transport/shm/shm.h"

static int ctx_open(struct rt_ctx *ctx, const struct rt_config *cfg)
{
	return 0;
}

static void ctx_close(struct rt_ctx *ctx)
{
}

static int conn_open(struct rt_conn *conn)
{
	return 0;
}

/* with the ring handed out the words are the switch's; else tell the peer that this is the end */
static void conn_close(struct rt_conn *conn)
{
	struct shm_conn *c = shm_conn(conn);

	if (c->msg && c->s.map)
		shm_ring_end(&c->s);
	shm_msg_free(c);
	free(c->key);
	shm_session_unmap(&c->s);
}

static void conn_orphan(struct rt_conn *conn)
{
	shm_msg_free(shm_conn(conn));	/* with it goes the wish to say anything at the end */
}

static int conn_connect(struct rt_conn *conn, const struct rt_peer *peer)
{
	return shm_session_map(&shm_conn(conn)->s, peer);
}

static int conn_ring(struct rt_conn *conn, struct rt_ring *ret_ring)
{
	struct shm_conn *c = shm_conn(conn);
	const struct shm_session *s = &c->s;

	if (c->msg)
		return -EBUSY;	/* messages run in it */
	c->ring_out = true;
	*ret_ring = (struct rt_ring){ s->map, s->length, s->session_id, s->ring_size, s->side };
	return 0;
}

static int find_key(struct shm_conn *c, uint32_t *ret_key)
{
	struct rt_mr **more;
	uint32_t n;

	for (uint32_t i = 0; i < c->n_keys; i++)
		if (!c->key[i]) {
			*ret_key = i;
			return 0;
		}
	n = c->n_keys ? 2 * c->n_keys : 8;	/* bounded by max_mrs, which base/ counts */
	more = reallocarray(c->key, n, sizeof(*more));
	if (!more)
		return -ENOMEM;
	memset(more + c->n_keys, 0, (n - c->n_keys) * sizeof(*more));
	*ret_key = c->n_keys;
	c->key = more;
	c->n_keys = n;
	return 0;
}

static int mr_open(struct rt_mr *mr)
{
	struct shm_conn *c = shm_conn(mr->conn);
	struct shm_mr *m = shm_mr(mr);
	int r;

	if (mr->access == RT_ACCESS_LOCAL)
		return 0;
	RT_FAULT_POINT(r, -ENOMEM, err);
	r = find_key(c, &m->key);
	if (r)
		goto err;
	m->gen = ++c->gen;
	m->exposed = true;
	c->key[m->key] = mr;
	return 0;

err:
	return r;
}

static void mr_close(struct rt_mr *mr)
{
	struct shm_mr *m = shm_mr(mr);

	if (!m->exposed)
		return;
	shm_conn(mr->conn)->key[m->key] = NULL;
	shm_msg_forget(mr->conn, mr);
}

static int mr_desc(const struct rt_mr *mr, void *buf)
{
	struct shm_desc d = { SHM_DESC_MAGIC, shm_mr(mr)->key, shm_mr(mr)->gen, mr->len };

	memcpy(buf, &d, sizeof(d));
	return 0;
}

const struct rt_backend_ops rt_shm_ops = {
	.size = sizeof(rt_shm_ops),
	.name = "shm",
	.caps = RT_CAP_SHARED_RING | RT_CAP_MSG | RT_CAP_WRITE | RT_CAP_PUT | RT_CAP_ANY_MEMORY,
	.limits = {
		.max_msg = SHM_MSG_MAX,
		.max_rdma = SHM_MSG_MAX,
		.max_sge = SHM_SGE,
		.depth = SHM_DEPTH,
		.desc_len = sizeof(struct shm_desc),
	},
	.conn_priv = sizeof(struct shm_conn),
	.mr_priv = sizeof(struct shm_mr),
	.ctx_open = ctx_open,
	.ctx_close = ctx_close,
	.conn_open = conn_open,
	.conn_close = conn_close,
	.conn_connect = conn_connect,
	.mr_open = mr_open,
	.mr_close = mr_close,
	.conn_ring = conn_ring,
	.conn_flush = shm_flush,
	.conn_orphan = conn_orphan,
	.poll = shm_poll,
	.post_send = shm_post_send,
	.post_recv = shm_post_recv,
	.mr_desc = mr_desc,
	.post_write = shm_post_write,
	.post_put = shm_post_put,
};
