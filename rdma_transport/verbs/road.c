/* SPDX-License-Identifier: MIT */
/*
 * road.c - puts with a signal (wsd/put_road.h)
 *
 * What is posted between hold() and release() is chained and goes out with one doorbell. A put is a write with immediate
 * data: the low 32 bits of the head that it makes; one that goes over the ring's end is a plain write before that.
 *
 * Slots: sq_head counts posts, sq_tail those that are known to be completed. Only signalled ones say so, each for all before it; at least
 * one of V_UNSIGNALLED + 1 is, and one for each quarter of a ring, so that slots and source bytes always come back.
 * Credits: the receives that the peer has posted, told in ctl.backend[0] and [1]; each immediate takes one. Never more than that are
 * sent, so "receiver not ready" does not happen. Words take none: credit itself can always be told.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "rdma_transport/verbs/verbs.h"

#define CREDIT_OFF	WSD_CTL_BACKEND
#define SCRATCH_OFF	(WSD_REMOTE_PAGE - 8)	/* of the control page: where fetched words land, which nobody reads */
static_assert(sizeof(struct wsd_remote_ctl) <= SCRATCH_OFF, "room for it");

V_INLINE_PATH bool post_try(struct v_conn *c)
{
	if (atomic_load(&c->posting) || atomic_exchange(&c->posting, true))
		return false;
	c->cancel = v_cancel_off();
	c->error = errno;
	c->n_wr = 0;
	c->held = 0;
	return true;
}

bool v_post_try(struct v_conn *c)
{
	return post_try(c);
}

V_INLINE_PATH unsigned slots_free(const struct v_conn *c)
{
	return c->sq_size - (c->sq_head + c->n_wr - atomic_load_explicit(&c->sq_tail, memory_order_acquire));
}

V_INLINE_PATH struct ibv_send_wr *chain_one(struct v_conn *c, enum ibv_wr_opcode op, void *addr, uint32_t n, uint32_t lkey, uint64_t to,
					    uint32_t rkey, enum v_kind kind, bool signalled)
{
	struct ibv_send_wr *wr = &c->wr[c->n_wr];
	struct ibv_sge *sge = &c->sge[c->n_wr];
	uint32_t seq = c->sq_head + c->n_wr;

	sge->addr = (uintptr_t)addr;
	sge->length = n;
	sge->lkey = lkey;
	signalled = signalled || ++c->unsignalled > V_UNSIGNALLED;
	/* one by one: the other fields are 0 since the conn was made, imm_data is what it was */
	wr->wr_id = v_id(c->slot, c->gen, kind, seq);
	wr->next = NULL;
	wr->sg_list = sge;
	wr->num_sge = n ? 1 : 0;
	wr->opcode = op;
	wr->send_flags = (signalled ? IBV_SEND_SIGNALED : 0) | (n && n <= c->inline_max && op != IBV_WR_RDMA_READ ? IBV_SEND_INLINE : 0);
	wr->wr.rdma.remote_addr = to;
	wr->wr.rdma.rkey = rkey;
	if (signalled) {
		c->unsignalled = 0;
		c->unsignalled_bytes = 0;
	}
	if (c->n_wr)
		c->wr[c->n_wr - 1].next = wr;
	atomic_store_explicit(&c->put_end[seq % V_SQ], c->posted, memory_order_relaxed);
	c->n_wr++;
	return wr;
}

static struct ibv_send_wr *chain(struct v_conn *c, enum ibv_wr_opcode op, void *addr, uint32_t n, uint32_t lkey, uint64_t to,
				 uint32_t rkey, enum v_kind kind, bool signalled)
{
	return chain_one(c, op, addr, n, lkey, to, rkey, kind, signalled);
}

static void chain_word(struct v_conn *c, uint32_t off, const void *p, uint32_t n, bool signalled)
{
	uint8_t *copy = c->word[c->n_wr];

	memcpy(copy, p, n);
	chain(c, IBV_WR_RDMA_WRITE, copy, n, 0, c->peer_ctl + off, c->peer_ctl_key, V_WRITE, signalled);
}

V_INLINE_PATH int ring_it(struct v_conn *c)
{
	struct ibv_send_wr *bad;
	int r = 0;

	/* before, as completions may be taken by another thread at once */
	atomic_store_explicit(&c->sq_head, c->sq_head + c->n_wr, memory_order_release);
	if (c->qp)
		r = rt_verbs_post_send(c->ctx->lib, c->qp, c->wr, &bad);
	c->n_wr = 0;
	if (r) {
		r = v_errno(r > 0 ? r : errno);
		v_fail(c, r == -ENETDOWN ? r : -ECONNRESET);
	}
	return r;
}

static int doorbell(struct v_conn *c)
{
	return c->n_wr ? ring_it(c) : 0;
}

/* tell how many receives were posted; false: no slot, a completion brings us back */
static bool chain_credit(struct v_conn *c)
{
	uint64_t w[2];

	if (!slots_free(c) || c->n_wr >= V_CHAIN)
		return false;
	atomic_store(&c->credit_due, false);
	w[0] = atomic_load(&c->recvs);
	w[1] = wsd_remote_check(c->nonce, CREDIT_OFF, w, 1);
	chain_word(c, CREDIT_OFF, w, sizeof(w), false);
	return true;
}

static bool may_tell(struct v_conn *c)
{
	return atomic_load(&c->credit_due) && c->connected && !atomic_load(&c->state.error);
}

V_INLINE_PATH void unlock(struct v_conn *c)
{
	int cancel = c->cancel, error = c->error;

	atomic_store(&c->posting, false);
	v_cancel_back(cancel);
	errno = error;
}

/* what others wanted meanwhile is seen either here, behind the unlock, or by them */
V_INLINE_PATH bool left_behind(struct v_conn *c, bool stuck)
{
	return (atomic_load(&c->closing) != V_OPEN && !atomic_load(&c->closed)) || (!stuck && may_tell(c));
}

void v_post_leftover(struct v_conn *c, bool looking)
{
	bool stuck = false;

	do {
		if (!post_try(c))
			return;
		if (atomic_load(&c->closing) != V_OPEN) {
			if (!atomic_exchange(&c->closed, true))
				v_finish(c, looking);
		} else if (may_tell(c)) {
			stuck = !chain_credit(c);
			doorbell(c);
		}
		unlock(c);
	} while (left_behind(c, stuck));
}

void v_post_done(struct v_conn *c, bool looking)
{
	unlock(c);
	if (unlikely(left_behind(c, false)))
		v_post_leftover(c, looking);
}

/* behind everything: a write that nobody reads, whose completion says that all is there. (Of no length: see road_nudge().) */
int v_last(struct v_conn *c)
{
	if (!slots_free(c))
		return 1;
	memset(c->word[c->n_wr], 0, 8);
	chain(c, IBV_WR_RDMA_WRITE, c->word[c->n_wr], 8, 0, c->peer_ctl + SCRATCH_OFF, c->peer_ctl_key, V_LAST, true);
	c->last = c->sq_head + c->n_wr;
	doorbell(c);
	return 0;
}

/* 0 or -EPROTO. The word is the peer's, and torn until its check fits */
static int look_for_credit(struct v_conn *c)
{
	const volatile uint64_t *told = (const volatile uint64_t *)(c->ctl + CREDIT_OFF);
	uint64_t w[2] = { told[0], told[1] };
	uint32_t n = (uint32_t)w[0];

	if (w[0] > UINT32_MAX || w[1] != wsd_remote_check(c->nonce, CREDIT_OFF, w, 1) || (int32_t)(n - c->peer_recvs) <= 0)
		return 0;
	if (n - c->signals > V_RQ)
		return -EPROTO;	/* it cannot have more of them posted than its queue holds */
	c->peer_recvs = n;
	return 0;
}

static uint32_t credits(const struct v_conn *c)
{
	return c->peer_recvs - c->signals;
}

V_INLINE_PATH bool enough(struct v_conn *c, unsigned n, bool words)
{
	return slots_free(c) >= n + (words ? 1 : V_SPARE_SLOTS) && (words || credits(c) > V_SPARE_CREDITS);
}

static int road_hold(void *conn, unsigned n)
{
	struct v_conn *c = conn;
	bool words = n & WSD_HOLD_WORDS;
	int r;

	n &= ~WSD_HOLD_WORDS;
	r = atomic_load(&c->state.error);
	if (r)
		return r;
	if (n > V_HOLD || !v_post_try(c))
		return 1;
	if (!enough(c, n, words)) {
		r = look_for_credit(c);
		if (!r && !enough(c, n, words)) {
			v_look(c);
			r = !enough(c, n, words);
		}
	}
	r = atomic_load(&c->state.error) ?: r;
	if (r < 0)
		v_fail(c, r);
	if (r) {
		v_post_done(c, false);
		return r;
	}
	c->held = n;
	return 0;
}

static void road_release(void *conn)
{
	struct v_conn *c = conn;

	c->held = 0;
	if (may_tell(c))
		chain_credit(c);
	if (!atomic_load(&c->state.error))
		doorbell(c);
	v_post_done(c, false);
}

static int take_held(struct v_conn *c, unsigned n)
{
	int r = atomic_load_explicit(&c->state.error, memory_order_relaxed);

	if (r)
		return r;
	if (c->held < n)
		return 1;
	c->held -= n;
	return 0;
}

static int road_put(void *conn, uint32_t which, uint64_t at, uint32_t n)
{
	struct v_conn *c = conn;
	const struct v_ring *ring = &c->ring[which & 1];
	uint32_t off, first;
	bool signalled = which & WSD_PUT_SIGNAL;
	int r;

	which &= ~WSD_PUT_SIGNAL;
	if (which > 1 || !ring->size || !ring->rkey || !n || n > ring->size || at != c->posted)
		return -EINVAL;
	off = (uint32_t)at & (ring->size - 1);
	first = n < ring->size - off ? n : ring->size - off;
	if (!credits(c))
		return 1;
	r = take_held(c, first < n ? 2 : 1);
	if (r)
		return r;
	c->unsignalled_bytes += n;
	signalled = signalled || c->unsignalled_bytes >= ring->size / 4;
	if (first < n) {
		chain(c, IBV_WR_RDMA_WRITE, ring->base + off, first, ring->lkey, ring->remote + off, ring->rkey, V_WRITE, false);
		off = 0;
	}
	c->posted = at + n;
	n -= first < n ? first : 0;
	chain(c, IBV_WR_RDMA_WRITE_WITH_IMM, ring->base + off, n, ring->lkey, ring->remote + off, ring->rkey, V_WRITE, signalled)
		->imm_data = htonl((uint32_t)c->posted);
	c->signals++;
	return 0;
}

static int road_put_one(void *conn, uint32_t which, uint64_t at, uint32_t n, _Atomic uint64_t *ret_end)
{
	struct v_conn *c = conn;
	const struct v_ring *ring = &c->ring[which & 1];
	uint32_t off;

	if (which > 1 || !post_try(c))
		return 1;
	off = (uint32_t)at & (ring->size - 1);
	if (unlikely(atomic_load_explicit(&c->state.error, memory_order_relaxed) || !ring->size || !ring->rkey || !n ||
		     n > ring->size - off || at != c->posted || may_tell(c) ||
		     (!enough(c, 1, false) && (look_for_credit(c) || !enough(c, 1, false))))) {
		v_post_done(c, false);
		return 1;
	}
	c->unsignalled_bytes += n;
	c->posted = at + n;
	chain_one(c, IBV_WR_RDMA_WRITE_WITH_IMM, ring->base + off, n, ring->lkey, ring->remote + off, ring->rkey, V_WRITE,
		  c->unsignalled_bytes >= ring->size / 4)->imm_data = htonl((uint32_t)(at + n));
	c->signals++;
	atomic_store_explicit(ret_end, at + n, memory_order_release);
	ring_it(c);
	unlock(c);
	if (unlikely(left_behind(c, false)))
		v_post_leftover(c, false);
	return 0;
}

static int road_word(void *conn, uint32_t off, const void *p, uint32_t n)
{
	struct v_conn *c = conn;
	int r;

	if (!n || n > V_WORD || off >= SCRATCH_OFF || n > SCRATCH_OFF - off)
		return -EINVAL;
	r = take_held(c, 1);
	if (!r)
		chain_word(c, off, p, n, false);
	return r;
}

static int road_fetch(void *conn, uint32_t off)
{
	struct v_conn *c = conn;
	int r;

	if (off > SCRATCH_OFF - 8 || off % 8)
		return -EINVAL;
	r = take_held(c, 1);
	if (!r)
		chain(c, IBV_WR_RDMA_READ, c->ctl + SCRATCH_OFF, 8, c->mr_ctl->lkey, c->peer_ctl + off, c->peer_ctl_key, V_FETCH, true);
	return r;
}

static int road_read(void *conn, uint32_t off, uint32_t n, uint32_t to)
{
	struct v_conn *c = conn;
	int r;

	if (!n || n > V_WORD || n % 8 || off % 8 || to % 8 || off > SCRATCH_OFF - n || to > SCRATCH_OFF - n)
		return -EINVAL;
	r = take_held(c, 1);
	if (!r)
		chain(c, IBV_WR_RDMA_READ, c->ctl + to, n, c->mr_ctl->lkey, c->peer_ctl + off, c->peer_ctl_key, V_READ, true);
	return r;
}

static int road_pull(void *conn, uint32_t which, uint64_t at, uint32_t n, uint64_t addr, uint32_t rkey)
{
	struct v_conn *c = conn;
	uint32_t size = which ? atomic_load(&c->rx_max) : c->ring[0].size, off = (uint32_t)at & (size - 1);
	uint8_t *to = which ? c->base + c->off_rx1 : c->ctl + WSD_REMOTE_PAGE;
	int r;

	if (which > 1 || (which && !c->mr_rx1) || !n || n > size - off || addr > UINT64_MAX - size)
		return -EINVAL;
	r = take_held(c, 1);
	if (r)
		return r;
	atomic_store(&c->pull_to, at + n);
	chain(c, IBV_WR_RDMA_READ, to + off, n, which ? c->mr_rx1->lkey : c->mr_ctl->lkey, addr + off, rkey, V_PULL, true);
	return 0;
}

static int road_source(void *conn, uint32_t which, uint64_t *addr, uint32_t *rkey)
{
	const struct v_conn *c = conn;
	const struct ibv_mr *mr = which ? c->mr_tx1 : c->mr_tx;

	if (which > 1 || !mr)
		return -EINVAL;
	*addr = (uintptr_t)c->ring[which].base;
	*rkey = mr->rkey;
	return 0;
}

static int road_nudge(void *conn)
{
	struct v_conn *c = conn;
	int r;

	if (!credits(c) && (look_for_credit(c) || !credits(c)))
		return 1;
	r = take_held(c, 1);
	if (r)
		return r;
	/* Not of no length: rxe's responder then forgets the region of a fetch before it, and when that is repeated it warns and breaks off.
	 * Nobody reads what is written */
	memset(c->word[c->n_wr], 0, 8);
	chain(c, IBV_WR_RDMA_WRITE_WITH_IMM, c->word[c->n_wr], 8, 0, c->peer_ctl + SCRATCH_OFF, c->peer_ctl_key, V_WRITE, false)->imm_data =
		htonl((uint32_t)c->posted);
	c->signals++;
	return 0;
}

static int road_ring1(void *conn, int tx, uint32_t size, uint64_t *addr, uint32_t *rkey)
{
	struct v_conn *c = conn;
	struct v_ctx *x = c->ctx;
	struct ibv_mr *mr = NULL;
	struct v_guard g;
	int r = 0;

	if (x->orphan)
		return -ECONNRESET;
	if (size < c->ring[0].size || size > c->ring1_max || size & (size - 1) || (tx ? c->mr_tx1 : c->mr_rx1))
		return -EINVAL;
	v_look_wait(x, &g);
	r = atomic_load(&c->state.error);
	if (!r && c->qp) {
		mr = v_reg_session(c, c->dev->domain[c->domain].pd, c->base + (tx ? c->off_tx1 : c->off_rx1), size,
				   tx ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
		if (!mr)
			r = v_errno(errno);
	}
	if (mr && tx) {
		c->mr_tx1 = mr;
		c->ring[1].base = c->base + c->off_tx1;
		c->ring[1].lkey = mr->lkey;
		c->tx1_size = size;
	} else if (mr) {
		c->mr_rx1 = mr;
		*addr = (uintptr_t)c->base + c->off_rx1;
		*rkey = mr->rkey;
		c->rx_max = size;
	}
	v_look_done(x, &g);
	return r;
}

/* both sizes of ring 1 are one; a put to it is refused before the two are known */
static int road_peer_ring1(void *conn, uint64_t addr, uint32_t rkey, uint32_t size)
{
	struct v_conn *c = conn;

	if (!c->tx1_size || c->tx1_size != size || addr % WSD_REMOTE_PAGE || !addr || addr > UINT64_MAX - size)
		return -EPROTO;
	c->ring[1].remote = addr;
	c->ring[1].rkey = rkey;
	c->ring[1].size = size;
	return 0;
}

static void road_stop(void *conn, int drain)
{
	v_stop(conn, drain);
}

int v_conn_road(struct rt_conn *conn, struct wsd_put_road *ret)
{
	struct v_conn *c = v_conn(conn);
	struct wsd_put_road road;

	if (!c || !c->remote)
		return -EINVAL;
	if (ret->size < sizeof(road))
		return -EINVAL;
	c->context = ret->context;
	c->road = true;
	road = (struct wsd_put_road){
		.size = sizeof(road),
		.inline_max = c->inline_max,
		.depth = V_SQ - V_SPARE_SLOTS,
		.caps = c->dev && c->dev->soft ? WSD_ROAD_SOFT : 0,
		.conn = c,
		.base = c->base,
		.length = c->length,
		.session_id = c->session_id,
		.context = c->context,
		.state = &c->state,
		.hold = road_hold,
		.release = road_release,
		.put = road_put,
		.word = road_word,
		.fetch = road_fetch,
		.nudge = road_nudge,
		.poll = v_look,
		.ring1 = road_ring1,
		.peer_ring1 = road_peer_ring1,
		.stop = road_stop,
		.read = road_read,
		.pull = road_pull,
		.source = road_source,
		.put_one = road_put_one,
	};
	*ret = road;
	return 0;
}
