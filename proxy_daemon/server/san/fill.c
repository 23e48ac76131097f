/* SPDX-License-Identifier: MIT */
/*
 * fill.c - ring bytes that go by the daemons (A4, A7)
 *
 * From the source ring of one end into the fill ring of the other, with the seams that lie among them. The source may be
 * written while it is copied: X reuses a slot only after it has read a cursor beyond it, so a copy that saw the new bytes
 * reads a cursor beyond them afterwards, and what is below that cursor is left out. The target ring has no other
 * writer, its space is bounded by what the program has taken, and `filled` is stored when everything below it is there.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "proxy_daemon/server/conn.h"
#include "proxy_daemon/server/end.h"
#include "proxy_daemon/server/log.h"
#include "proxy_daemon/server/san/fill_buffer.h"
#include "proxy_daemon/server/san/remote.h"

static uint64_t load(const _Atomic uint64_t *p)
{
	return atomic_load_explicit((_Atomic uint64_t *)p, memory_order_acquire);
}

uint64_t fill_cursor(const struct remote *r, uint64_t posted)
{
	const struct memory *m = &r->mem;
	uint64_t c = load(&m->rs->cursor), w[3];

	/* the peer's card may have brought a later one that X has not looked at */
	memcpy(w, &m->ctl->credit, sizeof(w));
	if (wsd_remote_check(m->nonce, WSD_CTL_CREDIT, w, 2) == w[2] && w[0] > c)
		c = w[0];
	return c < posted ? c : posted;
}

static uint64_t seam_check(const struct memory *m, const struct wsd_seam *s)
{
	uint64_t w[3] = { s->ring_off, s->tcp_off, s->n | (uint64_t)s->ring << 32 };

	return wsd_remote_check(m->nonce, (uint32_t)WSD_CTL_SEAM(s->n % WSD_REMOTE_SEAMS), w, 3);
}

/* the seams of [from, to), in order; how many */
static unsigned seams_of(const struct remote *r, uint64_t from, uint64_t to, struct wsd_peer_seam ret[WSD_REMOTE_SEAMS])
{
	uint32_t last = atomic_load_explicit(&r->mem.rs->seam_n, memory_order_acquire), i;
	struct wsd_seam s;
	unsigned n = 0;

	for (i = WSD_REMOTE_SEAMS; i-- > 0;) {
		if (last <= i)
			continue;
		s = r->mem.rs->seam[(last - i) % WSD_REMOTE_SEAMS];
		if (s.n != last - i || s.check != seam_check(&r->mem, &s) || s.ring_off < from || s.ring_off >= to)
			continue;
		ret[n++] = (struct wsd_peer_seam){ .ring_off = s.ring_off, .tcp_off = s.tcp_off, .n = s.n, .ring = s.ring };
	}
	return n;
}

/* source bytes [at, at + n), from whichever ring they lie in; not across the change of rings */
static int read_source(struct remote *r, uint64_t at, uint64_t ring1_from, void *buf, uint32_t n)
{
	uint32_t size = atomic_load_explicit(&r->mem.rs->tx1_size, memory_order_acquire);

	if (at < ring1_from)
		return memory_read(&r->mem, MEMORY_TX0, r->mem.ring0, at, buf, n);
	return r->grown[1] ? memory_read(&r->mem, MEMORY_TX1, size, at, buf, n) : -EPROTO;
}

int fill_send(struct remote *r, uint64_t to)
{
	struct fill_buffer *b = r->srv->san.fill;
	uint64_t posted = load(&r->mem.rs->posted), ring1_from = load(&r->mem.rs->ring1_from), at, end, later;
	uint64_t room = r->mem.ring0 + (r->grown[1] ? r->mem.ring1_max : 0);
	struct wsd_peer_fill f;
	unsigned n_seams;
	uint32_t piece;
	size_t tail;
	int res;

	if (to > posted)
		to = posted;
	at = fill_cursor(r, posted);
	if (posted - at > room)
		return -EPROTO;
	if (at < r->fill_sent)
		at = r->fill_sent;
	while (at < to) {
		end = to - at > WSD_PEER_FILL_MAX ? at + WSD_PEER_FILL_MAX : to;
		if (at < ring1_from && end > ring1_from)
			end = ring1_from;
		piece = at < ring1_from ? r->mem.ring0 : r->mem.ring1_max;
		if (end - at > piece)
			end = at + piece;
		res = read_source(r, at, ring1_from, b->bytes, (uint32_t)(end - at));
		if (res)
			return res;
		atomic_thread_fence(memory_order_acquire);
		later = fill_cursor(r, posted);
		if (later >= end) {
			at = later;
			continue;
		}
		if (later < at)
			later = at;
		n_seams = seams_of(r, later, end, b->seam);
		f = (struct wsd_peer_fill){ .from = later, .len = (uint32_t)(end - later), .n_seams = n_seams };
		tail = n_seams * sizeof(b->seam[0]);
		memcpy(b->tail, b->seam, tail);
		memcpy(b->tail + tail, b->bytes + (later - at), f.len);
		res = remote_tell(r, WSD_PEER_FILL, &f, sizeof(f), b->tail, tail + f.len);
		if (res == -ENOBUFS || res == -ENOTCONN)
			r->fill_due = to;	/* by the next room, or the next link */
		if (res)
			return res;
		at = end;
		r->fill_sent = end;
	}
	return 0;
}

/* memory of the fill ring is charged as it is used, at most once around */
static int charge(struct remote *r, uint32_t n)
{
	uint32_t more = (n + 2 * WSD_REMOTE_PAGE - 1) & ~(WSD_REMOTE_PAGE - 1);

	if (more > r->mem.fill_max - r->fill_pages)
		more = r->mem.fill_max - r->fill_pages;
	if (!more)
		return 0;
	if (quota_more(&r->srv->quota, r->user, more))
		return -EDQUOT;
	r->fill_pages += more;
	r->charged += more;
	r->srv->bytes_mapped += more;
	return 0;
}

int fill_take(struct remote *r, const struct peer_msg *m)
{
	const struct wsd_peer_fill *f = &m->body.fill;
	struct wsd_remote *rs = r->mem.rs;
	uint64_t end = f->from + f->len, at = f->from, taken = load(&rs->taken);
	const uint8_t *bytes = m->tail + f->n_seams * sizeof(struct wsd_peer_seam);
	struct wsd_peer_seam s;
	struct wsd_seam w;
	unsigned i;
	int res;

	if (end <= r->filled)
		return 0;
	if (at > r->filled) {
		if (at > taken && r->filled != at)
			return -EPROTO;		/* a gap that the program has not come over */
		r->fill_from = at;
		atomic_store_explicit(&rs->fill_from, at, memory_order_release);
	} else {
		at = r->filled;
	}
	if (end - at > r->mem.fill_max || (end > taken && end - taken > r->mem.fill_max))
		return -EPROTO;
	res = charge(r, (uint32_t)(end - at));
	if (res)
		return res;
	res = memory_write(&r->mem, MEMORY_FILL, r->mem.fill_max, at, bytes + (at - f->from), (uint32_t)(end - at));
	if (res)
		return res;
	for (i = 0; i < f->n_seams; i++) {
		memcpy(&s, m->tail + i * sizeof(s), sizeof(s));
		if (!s.n || s.ring_off < f->from || s.ring_off >= end)
			return -EPROTO;
		if (s.ring_off < at)
			continue;	/* stored with what came before; its slot may be another's by now */
		w = (struct wsd_seam){ .ring_off = s.ring_off, .tcp_off = s.tcp_off, .n = s.n, .ring = s.ring };
		w.check = seam_check(&r->mem, &w);
		rs->fill_seam[s.n % WSD_REMOTE_SEAMS] = w;
	}
	r->filled = end;
	atomic_store_explicit(&rs->filled, end, memory_order_release);
	return 0;
}
