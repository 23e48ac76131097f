/* SPDX-License-Identifier: MIT */
/*
 * agreed_grow.c - a larger ring for bulk
 *
 * Rings begin small, so that a thousand idle connections lock little memory. A sender that lacks room asks for ring 1, once:
 *
 *   X: want{size} ----> Y: GROW of its daemon, memory; registers it; ring1{addr, rkey, size} ----> X: GROW, registers, ring 1 from `posted` on
 *
 * Invariant: the bytes of a seam's ring are in that ring and nowhere else; X changes ring only with a seam that says so, and Y reads the new one
 * only behind it. Ring 0 stays as it is. A daemon that has no memory to give does not answer, and nothing is lost but speed.
 */
#include "wsd_switch/core/agreed.h"

static uint32_t usable(const struct road *r, uint64_t size)
{
	return size > r->ring0 && size <= r->ring1_max && !(size & (size - 1)) ? (uint32_t)size : 0;
}

static bool say(struct road *r, uint32_t off, uint64_t *w, unsigned n)
{
	if (r->p.hold(r->p.conn, 1 | WSD_HOLD_WORDS) != 0)
		return false;
	w[n] = wsd_remote_check(r->nonce, off, w, n);
	r->p.word(r->p.conn, off, w, (n + 1) * 8);
	r->p.release(r->p.conn);
	return true;
}

/* ask once, until the daemon has answered by its word */
static bool allowed(struct conn *c, _Atomic uint32_t *word, uint32_t *asked, uint32_t which, uint32_t size)
{
	if (atomic_load_explicit(word, memory_order_acquire) >= size)
		return true;
	if (*asked != size) {
		*asked = size;
		agreed_ask(c, WSD_SAN_GROW, which, size);
	}
	return false;
}

/* tx_lock held, FRAMED; called while puts lack room */
void agreed_grow_tx(struct conn *c)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint64_t w[3], addr;
	uint32_t size, rkey;

	if (!r->p.ring1 || !r->p.peer_ring1 || !r->ring1_max || atomic_load(&rs->tx1_size) || r->grow_failed)
		return;
	if (!r->wanted) {
		w[0] = r->ring1_max;
		r->wanted = w[0] > r->ring0 && say(r, WSD_CTL_WANT, w, 1);
		return;
	}
	if (!road_record(r, WSD_CTL_RING1, w, 2))
		return;
	size = usable(r, (uint32_t)w[1]);
	if (!size) {
		r->grow_failed = true;
		return;
	}
	if (!allowed(c, &rs->tx1_allowed, &r->asked_tx1, 1, size))
		return;
	if (r->p.ring1(r->p.conn, 1, size, &addr, &rkey) != 0 || r->p.peer_ring1(r->p.conn, w[0], (uint32_t)(w[1] >> 32), size) != 0) {
		r->grow_failed = true;
		return;
	}
	atomic_store(&rs->tx1_size, size);
	atomic_store(&rs->ring1_from, atomic_load(&rs->posted));
	log_debug("conn %u: sends through a ring of %u bytes from %llu on", c->index, size, (unsigned long long)atomic_load(&rs->posted));
}

/* rx_lock held */
void agreed_grow_rx(struct conn *c)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint64_t w[3], addr;
	uint32_t size, rkey;

	if (likely(!__atomic_load_n(&r->ctl->want.size, __ATOMIC_RELAXED)) || !r->p.ring1 || r->told_ring1 || r->grow_failed || !road_record(r, WSD_CTL_WANT, w, 1))
		return;
	if (w[0] > r->ring1_max)
		w[0] = r->ring1_max;
	size = usable(r, w[0]);
	if (!size) {
		r->grow_failed = true;
		return;
	}
	if (!atomic_load(&rs->rx1_size)) {
		if (!allowed(c, &rs->rx1_allowed, &r->asked_rx1, 0, size))
			return;
		if (r->p.ring1(r->p.conn, 0, size, &addr, &rkey) != 0) {
			r->grow_failed = true;
			return;
		}
		r->ring1_addr = addr;
		r->ring1_rkey = rkey;
		atomic_store(&rs->rx1_size, size);
	}
	w[0] = r->ring1_addr;
	w[1] = (uint64_t)r->ring1_rkey << 32 | atomic_load(&rs->rx1_size);
	r->told_ring1 = say(r, WSD_CTL_RING1, w, 2);
}
