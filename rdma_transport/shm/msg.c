/* SPDX-License-Identifier: MIT */
/*
 * msg.c - messages and writes as frames in the ring
 *
 * A frame is a header and its payload, as one run of ring bytes; a payload may be longer than the ring and
 * then flows through it. Progress is made by whoever posts or polls: nothing happens by itself.
 * A message stays in the ring until a receive is posted, so nothing is lost that comes early. A
 * write is carried out by its target when that polls: the span is looked up among those that this end
 * has exposed, by a key and a generation that the frame brings and that are checked like
 * every other word of it.
 *
 * The end: this end marks both directions when it closes or fails; the peer takes what was
 * put completely and then fails with -ECONNRESET.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rdma_transport/base/fault_point.h"
#include "rdma_transport/shm/shm.h"

#define FRAME_MAGIC	0x4653444du	/* "MDSF" */

#define FRAMES_A_POLL	256u

enum frame_kind { FRAME_MSG = 1, FRAME_WRITE };

struct frame {
	uint32_t magic;
	uint32_t kind;
	uint32_t len;			/* of the payload */
	uint32_t key, gen;		/* writes: the span; else 0 */
	uint32_t reserved;
	uint64_t offset;		/* writes: in the span; else 0 */
};

struct shm_msg {
	struct shm_queue tx, rx;
	/* the frame being taken; kind 0: none */
	struct frame in;
	uint32_t in_moved;
	const struct rt_mr *in_mr;	/* NULL in a write: the span went away */
	struct rt_sge in_sge;
	struct shm_cursor in_at;
};

static struct shm_op *queue_op(struct shm_queue *q, uint32_t i)
{
	return &q->op[(q->first + i) % SHM_DEPTH];
}

static void queue_done(struct shm_queue *q, int status)
{
	struct shm_op *op = queue_op(q, q->next++);

	op->done = true;
	op->status = status;
}

static void queue_fail(struct shm_queue *q, int status)
{
	while (q->next < q->n)
		queue_done(q, status);
}

static void fail(struct rt_conn *conn, int status)
{
	struct shm_conn *c = shm_conn(conn);

	if (!conn->error)
		conn->error = status;
	if (c->msg) {
		queue_fail(&c->msg->tx, status);
		queue_fail(&c->msg->rx, status);
		c->msg->in.kind = 0;
	}
	if (c->msg && c->s.map)
		shm_ring_end(&c->s);
}

void shm_flush(struct rt_conn *conn, int status)
{
	fail(conn, status);
}

void shm_msg_free(struct shm_conn *c)
{
	free(c->msg);
	c->msg = NULL;
}

static int need_msg(struct shm_conn *c)
{
	int r = 0;

	if (c->msg)
		return 0;
	if (c->ring_out)
		return -EBUSY;
	RT_FAULT_POINT(r, -ENOMEM, out);
	c->msg = calloc(1, sizeof(*c->msg));
	r = c->msg ? 0 : -ENOMEM;
out:
	__attribute__((unused));
	return r;
}

static int enqueue(struct rt_conn *conn, bool send, enum rt_op kind, const struct rt_sge *sge, unsigned n,
		   uint64_t cookie, struct shm_op **ret_op)
{
	struct shm_conn *c = shm_conn(conn);
	struct shm_queue *q;
	struct shm_op *op;
	int r;

	r = need_msg(c);
	if (r)
		return r;
	q = send ? &c->msg->tx : &c->msg->rx;
	if (q->n >= conn->ctx->limits.depth)
		return -EAGAIN;
	op = queue_op(q, q->n);
	*op = (struct shm_op){ .cookie = cookie, .kind = kind, .n = n };
	for (unsigned i = 0; i < n; i++) {
		op->sge[i] = sge[i];
		op->total += sge[i].len;
	}
	op->at.sge = op->sge;
	*ret_op = op;
	q->n++;
	return 0;
}

/* put the front of the send queue into the ring, as far as there is room */
static void tx_progress(struct rt_conn *conn)
{
	struct shm_conn *c = shm_conn(conn);
	struct shm_queue *q = &c->msg->tx;
	struct shm_session *s = &c->s;

	if (q->next < q->n && shm_ring_unheard(s)) {
		queue_fail(q, -ECONNRESET);
		return;
	}
	while (q->next < q->n) {
		struct shm_op *op = queue_op(q, q->next);
		uint32_t room, put = 0, k;
		int r;

		r = shm_ring_room(s, &room);
		if (r) {
			fail(conn, r);
			return;
		}
		if (!op->begun) {
			struct frame f = {
				.magic = FRAME_MAGIC,
				.kind = op->kind == RT_OP_SEND ? FRAME_MSG : FRAME_WRITE,
				.len = op->total,
				.key = op->key,
				.gen = op->gen,
				.offset = op->offset,
			};

			if (room < sizeof(f))
				return;
			shm_ring_write(s, 0, &f, sizeof(f));
			put = sizeof(f);
			op->begun = true;
		}
		k = op->total - op->moved;
		k = k < room - put ? k : room - put;
		shm_ring_copy_in(s, put, &op->at, k);
		op->moved += k;
		if (put + k) {
			r = shm_ring_publish(s, put + k);
			if (r) {
				fail(conn, r);
				return;
			}
		}
		if (op->moved < op->total)
			return;
		queue_done(q, 0);
	}
}

static const struct rt_mr *find_span(const struct shm_conn *c, const struct frame *f)
{
	const struct rt_mr *mr;

	if (f->key >= c->n_keys)
		return NULL;
	mr = c->key[f->key];
	if (!mr || shm_mr(mr)->gen != f->gen || !(mr->access & RT_ACCESS_WRITE))
		return NULL;
	if (f->offset > mr->len || f->len > mr->len - f->offset)
		return NULL;
	return mr;
}

/* take a header; 1 taken, 0 not now, or -errno */
static int rx_begin(struct rt_conn *conn, uint32_t avail)
{
	struct shm_conn *c = shm_conn(conn);
	struct shm_msg *m = c->msg;
	struct frame f;

	if (avail < sizeof(f))
		return 0;
	shm_ring_read(&c->s, 0, &f, sizeof(f));
	if (f.magic != FRAME_MAGIC || f.reserved || f.len > SHM_MSG_MAX)
		return -EPROTO;
	m->in_moved = 0;
	if (f.kind == FRAME_MSG) {
		if (f.key || f.gen || f.offset)
			return -EPROTO;
		if (m->rx.next == m->rx.n)
			return 0;
		if (f.len > queue_op(&m->rx, m->rx.next)->total)
			return -EMSGSIZE;
	} else if (f.kind == FRAME_WRITE) {
		m->in_mr = find_span(c, &f);
		if (!m->in_mr)
			return -EPROTO;
		m->in_sge = (struct rt_sge){ (uint8_t *)m->in_mr->addr + f.offset, f.len };
		m->in_at = (struct shm_cursor){ .sge = &m->in_sge };
	} else {
		return -EPROTO;
	}
	m->in = f;
	shm_ring_consume(&c->s, sizeof(f));
	return 1;
}

/* take payload; 1 the frame is complete, 0 more must come, or -errno */
static int rx_payload(struct rt_conn *conn, uint32_t avail)
{
	struct shm_conn *c = shm_conn(conn);
	struct shm_msg *m = c->msg;
	struct shm_op *op;
	uint32_t k = m->in.len - m->in_moved;

	k = k < avail ? k : avail;
	if (m->in.kind == FRAME_WRITE) {
		if (!m->in_mr)
			return -EPROTO;
		shm_ring_copy_out(&c->s, 0, &m->in_at, k);
	} else {
		op = queue_op(&m->rx, m->rx.next);
		shm_ring_copy_out(&c->s, 0, &op->at, k);
		op->moved += k;
	}
	if (k)
		shm_ring_consume(&c->s, k);
	m->in_moved += k;
	if (m->in_moved < m->in.len)
		return 0;
	if (m->in.kind == FRAME_MSG)
		queue_done(&m->rx, 0);
	m->in.kind = 0;
	return 1;
}

static void rx_progress(struct rt_conn *conn)
{
	struct shm_conn *c = shm_conn(conn);
	unsigned budget = FRAMES_A_POLL;	/* a peer that never stops must not keep us here */
	bool ended;
	uint32_t avail;
	int r;

	do {
		ended = shm_ring_ended(&c->s);	/* before the head: what was put before it counts */
		r = shm_ring_avail(&c->s, &avail);
		if (!r)
			r = c->msg->in.kind ? rx_payload(conn, avail) : rx_begin(conn, avail);
		if (!r && ended && (c->msg->in.kind || avail < sizeof(struct frame)))
			r = -ECONNRESET;	/* what is missing will never come */
	} while (r == 1 && --budget);
	if (r < 0)
		fail(conn, r);
}

static int give_back(struct shm_queue *q, struct rt_completion *wc, unsigned max)
{
	unsigned n = 0;

	while (n < max && q->next) {
		struct shm_op *op = queue_op(q, 0);

		wc[n++] = (struct rt_completion){
			.cookie = op->cookie,
			.op = op->kind,
			.status = op->status,
			.bytes = op->status ? 0 : op->moved,
		};
		q->first = (q->first + 1) % SHM_DEPTH;
		q->n--;
		q->next--;
	}
	return n;
}

int shm_poll(struct rt_conn *conn, struct rt_completion *ret_wc, unsigned max)
{
	struct shm_conn *c = shm_conn(conn);
	unsigned n;

	if (!c->msg)
		return 0;
	if (!conn->error)
		rx_progress(conn);
	if (!conn->error)
		tx_progress(conn);
	n = give_back(&c->msg->rx, ret_wc, max);
	return n + give_back(&c->msg->tx, ret_wc + n, max - n);
}

int shm_post_send(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie)
{
	struct shm_op *op;
	int r = enqueue(conn, true, RT_OP_SEND, sge, n, cookie, &op);

	if (!r)
		tx_progress(conn);
	return r;
}

int shm_post_recv(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie)
{
	struct shm_op *op;

	return enqueue(conn, false, RT_OP_RECV, sge, n, cookie, &op);
}

int shm_post_write(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc, uint64_t offset,
		   uint64_t cookie)
{
	struct shm_desc d;
	struct shm_op *op;
	uint64_t total = 0;
	int r;

	memcpy(&d, desc, sizeof(d));
	for (unsigned i = 0; i < n; i++)
		total += sge[i].len;
	if (d.magic != SHM_DESC_MAGIC || offset > d.len || total > d.len - offset)
		return -EINVAL;
	r = enqueue(conn, true, RT_OP_WRITE, sge, n, cookie, &op);
	if (r)
		return r;
	op->key = d.key;
	op->gen = d.gen;
	op->offset = offset;
	tx_progress(conn);
	return 0;
}

int shm_post_put(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint32_t at, uint64_t cookie)
{
	struct shm_conn *c = shm_conn(conn);
	struct shm_session *s = &c->s;
	struct shm_op *op;
	uint32_t room;
	int r;

	r = need_msg(c);
	if (r)
		return r;
	if (at != s->tx_head || c->msg->tx.next < c->msg->tx.n)
		return -ESTALE;
	if (shm_ring_unheard(s))
		return -ECONNRESET;
	r = shm_ring_room(s, &room);
	if (r) {
		fail(conn, r);
		return r;
	}
	r = enqueue(conn, true, RT_OP_PUT, sge, n, cookie, &op);
	if (r)
		return r;
	if (op->total > room) {
		c->msg->tx.n--;
		return -EAGAIN;
	}
	shm_ring_copy_in(s, 0, &op->at, op->total);
	op->moved = op->total;
	r = op->total ? shm_ring_publish(s, op->total) : 0;
	if (r)
		fail(conn, r);
	else
		queue_done(&c->msg->tx, 0);
	return 0;
}

void shm_msg_forget(struct rt_conn *conn, const struct rt_mr *mr)
{
	struct shm_msg *m = shm_conn(conn)->msg;

	if (m && m->in.kind == FRAME_WRITE && m->in_mr == mr)
		m->in_mr = NULL;
}
