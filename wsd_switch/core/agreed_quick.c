/* SPDX-License-Identifier: MIT */
/*
 * agreed_quick.c - a small send, or a receive of what is there, over a road on which nothing else is due
 *
 * agreed_send() and agreed_recv() see in each call to all that may be due: starts, returns, questions, credit, frames, seams, growth, floods, marks.
 * Nearly always nothing is. That case is done here, in a fraction of the instructions.
 *
 * Invariants:
 *   - the answer 0 is always right: nothing was changed, and the long way does it;
 *   - what is done is what step(), framed() and take_ring() do in that state; whatever they look at first, below the same lock, is looked
 *     at here, or makes the answer 0. Nothing here sleeps, asks the kernel, or touches the device but for the one put, and looks.
 *
 * A round trip by a device in software, or a fast one, is as long as what its ends do between two posts: so who waits for an answer looks for it at once,
 * for a moment, before the long way sees to all that may be due before a sleep (agreed_recv_soon()).
 *
 * A receive fills the whole buffer or is not done here: with fewer bytes the kernel would have to be asked for more (A3: frames).
 */
#include "wsd_switch/core/agreed.h"

#define QUICK_MAX	4096u	/* more is copied for longer than all this takes */
#define SOON_US		20	/* an answer that comes within this is waited for here */

static bool on = true;

void agreed_quick(bool set)
{
	on = set;
}

static uint64_t word(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

#define GET(x)	atomic_load_explicit(&(x), memory_order_relaxed)

/* agreed_obey() would find nothing to do for X, and nothing is kept back */
static inline __attribute__((always_inline)) bool calm(const struct conn *c, const struct road *r)
{
	const struct wsd_remote *rs = r->rs;
	uint64_t seen = GET(r->credit_seen);

	return on && road_mine(r) && GET(rs->xstate) == WSD_X_FRAMED &&
	       !(GET(rs->leave) | GET(r->leave) | GET(r->ask_due) | GET(rs->peer_left) | GET(rs->revoked) | GET(rs->x_return) |
		 (uint32_t)GET(r->p.state->error) | (uint32_t)GET(c->s->kept_err)) &&
	       !((word(&r->ctl->credit.check) ^ seen) & ~7ull) && !(seen & WSD_CREDIT_RETURN) &&
	       !GET(r->batch) && GET(r->given) == GET(rs->posted);
}

/* ---- X ---- */

/* tx_lock: the next byte may be put, behind the last put, and n of them have room */
static bool may_put(const struct conn *c, const struct road *r, uint64_t posted, uint32_t n, uint64_t now)
{
	const struct wsd_remote *rs = r->rs;
	uint64_t h = GET(c->s->H), at = GET(rs->frame_H), sent = h - at, cursor = GET(rs->cursor),
		 done = atomic_load_explicit(&r->p.state->done, memory_order_acquire), size = road_tx_size(r);
	uint32_t seam = GET(rs->seam_n);
	const struct wsd_seam *last = &rs->seam[seam % WSD_REMOTE_SEAMS];

	return GET(rs->xstate) == WSD_X_FRAMED && !(GET(c->s->flags) & S_SHUT_WR) && !r->nagled &&
	       (at == ~0ull || !sent || sent >= WSD_FRAME_SIZE + (uint64_t)GET(rs->frame_len)) &&	/* no frame is under way */
	       seam && last->tcp_off == h && last->ring == (posted >= GET(rs->ring1_from)) &&		/* no seam is due */
	       n <= size / 2 && posted - (cursor < done ? cursor : done) + n <= size &&			/* A5 */
	       (int64_t)(now - r->last_tcp) <= (int64_t)US(ROAD_QUIET_US);
}

/* tx_lock: sends in a row before this one; from ROAD_FLOOD on it is agreed_bulk.c's */
static uint32_t in_row(const struct road *r, uint64_t now)
{
	return (int64_t)(now - r->sent_when) > (int64_t)US(ROAD_FLOOD_GAP_US) ? 0 : GET(r->in_row);
}

ssize_t agreed_send_quick(struct thr *t, struct conn *c, const void *buf, size_t len, int flags)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint32_t me = thr_tid(t), n = (uint32_t)len, ring, size, row;
	uint64_t now = tsc_now(), posted;
	ssize_t ret = 0;
	uint8_t *to;

	if (unlikely(!len || len > QUICK_MAX || (flags & ~(MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE | MSG_EOR)) || !calm(c, r) ||
		     now - GET(r->polled) >= (uint64_t)US(ROAD_POLL_US) || !r->p.put_one))
		return 0;
	sig_hold();
	if (unlikely(!lock_try(&c->s->tx_lock, me)))
		goto out;
	posted = GET(rs->posted);
	ring = posted >= GET(rs->ring1_from);
	size = ring ? road_tx_size(r) : r->ring0;
	to = r->tx[ring] + (posted & (size - 1));
	/* the copy is to where nobody reads before it is posted */
	row = in_row(r, now);
	if (unlikely(GET(r->batch) || batch_kept(r) || (posted & (size - 1)) + n > size || row >= ROAD_FLOOD || !may_put(c, r, posted, n, now) ||
		     !fault_copy(to, buf, n) || r->p.put_one(r->p.conn, ring, posted, n, &rs->posted) != 0))
		goto unlock;
	r->now = now;
	atomic_store_explicit(&r->given, posted + n, memory_order_relaxed);
	atomic_store_explicit(&r->sender, me, memory_order_relaxed);
	cnt_add64(&c->s->put, n);
	atomic_store_explicit(&r->in_row, row + 1, memory_order_relaxed);
	r->sent_when = tsc_now();
	ret = (ssize_t)n;
unlock:
	lock_drop(&c->s->tx_lock);
out:
	sig_release();
	return ret;
}

/* ---- Y ---- */

/* rx_lock: the next n bytes are the card's, in one piece of the ring at *at */
static bool may_take(const struct conn *c, const struct road *r, uint64_t taken, uint32_t n, const uint8_t **at)
{
	const struct wsd_remote *rs = r->rs;
	uint64_t C = GET(c->s->C), head = atomic_load_explicit(&rs->head, memory_order_acquire);
	uint32_t next = rs->seam_next + 1, size = road_rx_size(r), off = (uint32_t)taken & (size - 1);

	*at = r->rx[GET(rs->rx_ring) ? 1 : 0] + off;
	return GET(rs->ystate) == WSD_Y_FRAMED && head - taken >= n && head - taken <= size && off + n <= size &&
	       C >= rs->Y_S && C >= rs->f_end && GET(rs->in_C) >= C && GET(rs->part_C) == ~0ull &&	/* no frame, and no header */
	       rs->seam_next && next && !GET(rs->filled) &&
	       (uint32_t)word((const uint64_t *)(const void *)&r->ctl->seam[next % WSD_REMOTE_SEAMS] + 2) != next &&
	       !GET(r->by_frames) &&
	       (!__atomic_load_n(&r->ctl->want.size, __ATOMIC_RELAXED) || r->told_ring1 || r->grow_failed);
}

static inline __attribute__((always_inline)) bool may_recv(const struct conn *c, const struct road *r, size_t len, int flags)
{
	return len && len <= QUICK_MAX && !(flags & ~(MSG_DONTWAIT | MSG_WAITALL)) && calm(c, r) && !lowat_any(c);
}

static inline __attribute__((always_inline)) ssize_t take(struct thr *t, struct conn *c, struct road *r, void *buf, uint32_t n)
{
	struct wsd_remote *rs = r->rs;
	const uint8_t *at;
	uint64_t taken;
	ssize_t ret = 0;
	uint32_t lag;

	sig_hold();
	if (unlikely(!lock_try(&c->s->rx_lock, thr_tid(t))))
		goto out;
	taken = GET(rs->taken);
	if (!may_take(c, r, taken, n, &at) || unlikely(!fault_copy(buf, at, n)))
		goto unlock;
	atomic_store_explicit(&rs->taken, taken + n, memory_order_release);
	atomic_store_explicit(&r->in_row, 0, memory_order_relaxed);
	lag = road_rx_size(r) / ROAD_CREDIT_PART;
	if (unlikely(taken + n - GET(rs->told_cursor) >= (lag < ROAD_CREDIT_LAG ? lag : ROAD_CREDIT_LAG)))
		agreed_credit_due(r, ROAD_CREDIT_PART);
	ret = (ssize_t)n;
unlock:
	lock_drop(&c->s->rx_lock);
out:
	sig_release();
	return ret;
}

ssize_t agreed_recv_quick(struct thr *t, struct conn *c, void *buf, size_t len, int flags)
{
	struct road *r = road_of(c);

	return likely(may_recv(c, r, len, flags)) ? take(t, c, r, buf, (uint32_t)len) : 0;
}

/* nothing at all is there, and it comes by the ring, if it comes */
static bool may_look(const struct conn *c, const struct road *r)
{
	const struct wsd_remote *rs = r->rs;

	return GET(rs->head) == GET(rs->taken) && GET(rs->ystate) == WSD_Y_FRAMED && !GET(r->by_frames) && !GET(c->s->nonblock) &&
	       cfg.spin_us > 0 && cfg.road_spin_us > 0 && GET(r->vain) < ROAD_SPIN_VAIN;
}

/* the road of c is the same, and may be used as before */
static inline bool still(const struct conn *c, const struct road *r, int flags)
{
	return conn_agreed(c) && road_of(c) == r && may_recv(c, r, 1, flags);
}

ssize_t agreed_recv_soon(struct thr *t, struct conn *c, void *buf, size_t len, int flags)
{
	struct road *r = road_of(c);
	uint32_t changes = road_changes(r), seen;
	uint64_t until = 0;
	unsigned looks = 0;
	ssize_t k;

	if (unlikely(!may_recv(c, r, len, flags)))
		return 0;
	k = GET(r->rs->head) != GET(r->rs->taken) ? take(t, c, r, buf, (uint32_t)len) : 0;
	if (k || (flags & MSG_DONTWAIT) || !may_look(c, r))
		return k;
	for (;;) {
		sig_hold();
		r->p.poll(r->p.conn);
		sig_release();
		seen = road_changes(r);
		if (seen != changes) {
			if (!still(c, r, flags))
				return 0;
			if (GET(r->rs->head) != GET(r->rs->taken)) {
				atomic_store_explicit(&r->polled, tsc_now(), memory_order_relaxed);
				if (GET(r->vain))
					atomic_store_explicit(&r->vain, 0, memory_order_relaxed);
				return take(t, c, r, buf, (uint32_t)len);
			}
			changes = seen;
		}
		if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed)))
			return 0;
		road_pause(r, ++looks);
		if (looks % ROAD_CLOCK_LOOKS)
			continue;
		if (!until)
			until = tsc_now() + (uint64_t)US(cfg.road_spin_us < SOON_US ? cfg.road_spin_us : SOON_US);
		else if ((int64_t)(tsc_now() - until) > 0)
			return 0;
	}
}
