/* SPDX-License-Identifier: MIT */
/*
 * msg.c - messages, writes and reads (rt.h)
 *
 * Operations wait in a queue here until they can be posted: a message needs a receive of the peer, told as a road's credit is (road.c), in a
 * control page that belongs to the connection. So a message that comes early waits at its sender and "receiver not ready"
 * does not happen. All posts are signalled and complete in their order. The end is a word behind everything (BYE).
 * Everything here runs under the look lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <endian.h>
#include <sys/mman.h>

#include "rdma_transport/base/fault_point.h"
#include "rdma_transport/verbs/verbs.h"

#define CREDIT_OFF	WSD_CTL_BACKEND
#define BYE_OFF		(WSD_CTL_BACKEND + 16)
#define NONCE		0x6d657373616765ull	/* no session: against torn words only */
#define WORD_SLOTS	2u			/* kept for credit and the end */

struct v_op {
	uint64_t cookie, remote;
	struct ibv_sge sge[V_MSG_SGE];
	uint32_t rkey, total, bytes, seq;
	unsigned n;
	enum rt_op kind;
	bool done;
	int status;
};

/* [0, next) completed, [next, posted) with the device, [posted, n) waiting */
struct v_queue {
	struct v_op op[V_RQ];
	uint32_t first, n, posted, next;
};

struct v_msg {
	struct v_queue tx, rx;
	uint32_t sends;		/* messages posted: each takes a receive of the peer */
	bool bye;
};

static struct v_op *at(struct v_queue *q, uint32_t i)
{
	return &q->op[(q->first + i) % V_RQ];
}

int v_msg_open(struct v_conn *c)
{
	void *page;
	int r = -ENOMEM;

	RT_FAULT_POINT(r, -ENOMEM, err);
	c->msg = calloc(1, sizeof(*c->msg));
	if (!c->msg)
		return -ENOMEM;
	RT_FAULT_POINT(r, -ENOMEM, err);
	page = mmap(NULL, WSD_REMOTE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		goto err;
	/* a child would get the parent's page, and the parent a copy that the device does not write */
	madvise(page, WSD_REMOTE_PAGE, MADV_DONTFORK);
	c->ctl = page;
	c->nonce = NONCE;
	return 0;

err:
	return r;	/* the caller calls v_msg_free() */
}

void v_msg_free(struct v_conn *c)
{
	if (c->msg && c->ctl)
		munmap(c->ctl, WSD_REMOTE_PAGE);
	free(c->msg);
	c->msg = NULL;
}

static void give_up(struct v_queue *q, int status)
{
	for (; q->next < q->n; q->next++) {
		at(q, q->next)->done = true;
		at(q, q->next)->status = status;
		at(q, q->next)->bytes = 0;
	}
	q->posted = q->n;
}

/* nothing of what was posted is the device's any more */
static void fail(struct v_conn *c, int status)
{
	if (c->conn && !c->conn->error)
		c->conn->error = status;
	v_fail(c, status);
	v_reset(c);
	give_up(&c->msg->tx, status);
	give_up(&c->msg->rx, status);
}

static bool slot(const struct v_conn *c, unsigned spare)
{
	return c->qp && c->sq_head - c->sq_tail + spare < c->sq_size;
}

static int post(struct v_conn *c, struct ibv_send_wr *wr, enum v_kind kind)
{
	struct ibv_send_wr *bad;
	int r;

	wr->wr_id = v_id(c->slot, c->gen, kind, c->sq_head);
	wr->send_flags |= IBV_SEND_SIGNALED;
	c->sq_head++;
	r = rt_verbs_post_send(c->ctx->lib, c->qp, wr, &bad);
	return r ? v_errno(r > 0 ? r : errno) : 0;
}

static int post_word(struct v_conn *c, uint32_t off, uint64_t value)
{
	uint64_t w[2] = { value };
	struct ibv_sge sge = { (uintptr_t)w, sizeof(w), 0 };
	struct ibv_send_wr wr = {
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IBV_WR_RDMA_WRITE,
		.send_flags = IBV_SEND_INLINE,
		.wr.rdma = { c->peer_ctl + off, c->peer_ctl_key },
	};

	w[1] = wsd_remote_check(NONCE, off, w, 1);
	return post(c, &wr, V_WRITE);
}

static bool word(const struct v_conn *c, uint32_t off, uint64_t *ret)
{
	const volatile uint64_t *p = (const volatile uint64_t *)(c->ctl + off);
	uint64_t w[2] = { p[0], p[1] };

	*ret = w[0];
	return w[0] && w[1] == wsd_remote_check(NONCE, off, w, 1);
}

static void tell(struct v_conn *c)
{
	if (c->recvs == c->recvs_told || !slot(c, 0) || c->conn->error)
		return;
	c->recvs_told = c->recvs;
	if (post_word(c, CREDIT_OFF, c->recvs))
		fail(c, -ECONNRESET);
}

static bool may_send(struct v_conn *c)
{
	uint64_t told;

	if (c->peer_recvs - c->msg->sends)
		return true;
	if (word(c, CREDIT_OFF, &told) && told <= UINT32_MAX && (uint32_t)told - c->msg->sends <= V_RQ)
		c->peer_recvs = (uint32_t)told;
	return c->peer_recvs - c->msg->sends;
}

static void tx_progress(struct v_conn *c)
{
	struct v_queue *q = &c->msg->tx;

	while (q->posted < q->n && slot(c, WORD_SLOTS) && (!c->state.error || c->state.error == -ECANCELED)) {
		struct v_op *op = at(q, q->posted);
		struct ibv_send_wr wr = { .sg_list = op->sge, .num_sge = (int)op->n, .wr.rdma = { op->remote, op->rkey } };

		if (op->kind == RT_OP_SEND && !may_send(c))
			return;
		c->msg->sends += op->kind == RT_OP_SEND;
		wr.opcode = op->kind == RT_OP_SEND ? IBV_WR_SEND : op->kind == RT_OP_WRITE ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ;
		op->seq = c->sq_head;
		q->posted++;
		if (post(c, &wr, V_MSG_TX))
			fail(c, -ECONNRESET);
	}
}

void v_msg_done(struct v_conn *c, const struct ibv_wc *wc, bool send)
{
	struct v_queue *q = send ? &c->msg->tx : &c->msg->rx;
	int status = v_status(wc->status);
	struct v_op *op;

	if (c->state.error && c->state.error != -ECANCELED)
		return;
	if (status == -ECANCELED) {
		v_async(c->ctx, c->dev);	/* it may say why */
		status = c->state.error ?: -ECONNRESET;
	} else if (!send && wc->status == IBV_WC_LOC_LEN_ERR) {
		status = -EMSGSIZE;
	}
	if (q->next == q->posted || (send && (uint16_t)at(q, q->next)->seq != (uint16_t)wc->wr_id))
		status = -EPROTO;
	if (status) {
		fail(c, status);
		return;
	}
	op = at(q, q->next++);
	op->done = true;
	op->bytes = send ? op->total : wc->byte_len;
	if (send)
		c->sq_tail = op->seq + 1;
}

bool v_msg_bye(struct v_conn *c)
{
	tx_progress(c);
	if (!c->msg->bye && c->msg->tx.posted == c->msg->tx.n && slot(c, 0) && !post_word(c, BYE_OFF, 1)) {
		c->msg->bye = true;
		c->last = c->sq_head;
	}
	return c->msg->bye;
}

static unsigned give_back(struct v_queue *q, struct rt_completion *wc, unsigned max)
{
	unsigned n = 0;

	for (; n < max && q->next; n++) {
		struct v_op *op = at(q, 0);

		wc[n] = (struct rt_completion){ op->cookie, op->kind, op->status, op->status ? 0 : op->bytes };
		q->first = (q->first + 1) % V_RQ;
		q->n--;
		q->next--;
		q->posted--;
	}
	return n;
}

int v_msg_poll(struct rt_conn *conn, struct rt_completion *ret_wc, unsigned max)
{
	struct v_conn *c = v_conn(conn);
	struct v_guard g;
	uint64_t bye;
	unsigned n;
	bool ended;

	if (!c->msg || c->ctx->orphan)
		return 0;
	v_look_wait(c->ctx, &g);
	ended = word(c, BYE_OFF, &bye);		/* before the completions: what was sent before it counts */
	if (c->shard)
		v_take(c->ctx, c->shard);
	if (!conn->error && (c->state.error || ended))
		fail(c, c->state.error ?: -ECONNRESET);
	if (!conn->error) {
		tell(c);
		tx_progress(c);
		v_take(c->ctx, c->shard);
	}
	n = give_back(&c->msg->rx, ret_wc, max);
	n += give_back(&c->msg->tx, ret_wc + n, max - n);
	v_look_done(c->ctx, &g);
	return (int)n;
}

void v_msg_flush(struct rt_conn *conn, int status)
{
	struct v_conn *c = v_conn(conn);
	struct v_guard g;

	if (c->ctx->orphan)
		return;
	v_look_wait(c->ctx, &g);
	fail(c, status);
	v_look_done(c->ctx, &g);
}

/* look lock held */
static int enqueue(struct v_conn *c, struct v_queue *q, enum rt_op kind, const struct rt_sge *sge, unsigned n, uint64_t cookie,
		   struct v_op **ret)
{
	struct v_op *op = at(q, q->n);

	if (!c->qp)
		return c->state.error ?: -ECONNRESET;
	if (q->n >= c->conn->ctx->limits.depth)
		return -EAGAIN;
	*op = (struct v_op){ .cookie = cookie, .kind = kind };
	for (unsigned i = 0; i < n; i++) {
		struct ibv_sge *s = &op->sge[op->n];

		if (!sge[i].len)
			continue;
		*s = (struct ibv_sge){ (uintptr_t)sge[i].addr, sge[i].len, 0 };
		if (!v_mr_find(c, sge[i].addr, sge[i].len, &s->lkey))
			return -EINVAL;
		op->total += sge[i].len;
		op->n++;
	}
	q->n++;
	*ret = op;
	return 0;
}

static int post_tx(struct rt_conn *conn, enum rt_op kind, const struct rt_sge *sge, unsigned n, const struct v_desc *d, uint64_t offset,
		   uint64_t cookie)
{
	struct v_conn *c = v_conn(conn);
	struct v_op *op;
	struct v_guard g;
	int r;

	if (!c->msg)
		return -EBUSY;	/* made for puts */
	if (c->ctx->orphan)
		return -ECONNRESET;
	v_look_wait(c->ctx, &g);
	r = enqueue(c, &c->msg->tx, kind, sge, n, cookie, &op);
	if (!r && d && (offset > d->len || op->total > d->len - offset)) {
		c->msg->tx.n--;
		r = -EINVAL;
	}
	if (!r) {
		op->remote = d ? d->addr + offset : 0;
		op->rkey = d ? d->rkey : 0;
		tx_progress(c);
	}
	v_look_done(c->ctx, &g);
	return r;
}

int v_msg_send(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie)
{
	return post_tx(conn, RT_OP_SEND, sge, n, NULL, 0, cookie);
}

static int post_rdma(struct rt_conn *conn, enum rt_op kind, const struct rt_sge *sge, unsigned n, const void *desc, uint64_t offset,
		     uint64_t cookie)
{
	struct v_desc d;

	memcpy(&d, desc, sizeof(d));
	d = (struct v_desc){ le64toh(d.addr), le32toh(d.rkey), le32toh(d.len), le32toh(d.access), d.reserved };
	if (d.reserved || d.addr > UINT64_MAX - d.len || !(d.access & (kind == RT_OP_READ ? RT_ACCESS_READ : RT_ACCESS_WRITE)))
		return -EINVAL;
	return post_tx(conn, kind, sge, n, &d, offset, cookie);
}

int v_msg_write(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc, uint64_t offset, uint64_t cookie)
{
	return post_rdma(conn, RT_OP_WRITE, sge, n, desc, offset, cookie);
}

int v_msg_read(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc, uint64_t offset, uint64_t cookie)
{
	return post_rdma(conn, RT_OP_READ, sge, n, desc, offset, cookie);
}

int v_msg_recv(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie)
{
	struct v_conn *c = v_conn(conn);
	struct ibv_recv_wr wr = {}, *bad;
	struct v_op *op;
	struct v_guard g;
	int r;

	if (!c->msg)
		return -EBUSY;
	if (c->ctx->orphan)
		return -ECONNRESET;
	v_look_wait(c->ctx, &g);
	r = enqueue(c, &c->msg->rx, RT_OP_RECV, sge, n, cookie, &op);
	if (!r) {
		wr.wr_id = v_id(c->slot, c->gen, V_MSG_RX, 0);
		wr.sg_list = op->sge;
		wr.num_sge = (int)op->n;
		if (rt_verbs_post_recv(c->ctx->lib, c->qp, &wr, &bad)) {
			c->msg->rx.n--;
			r = -ECONNRESET;
		} else {
			c->msg->rx.posted++;
			c->recvs++;
			tell(c);
		}
	}
	v_look_done(c->ctx, &g);
	return r;
}
