/* SPDX-License-Identifier: MIT */
/*
 * agreed_state.c - what the words of a session between hosts mean
 *
 * No system call, no lock, no wait: input is the session memory and two offsets, so unit tests, the fuzzer and a reader need nothing else.
 * The control page and the receiving rings are the peer's: a record is copied word by word, its check compared, its values bounded, and
 * only the copy is used (G10). A record that does not fit is absent, which is always safe: the peer writes it before what depends on it.
 */
#include <string.h>

#include "wsd_switch/core/agreed.h"

static uint64_t word(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

bool road_record(const struct road *r, uint32_t off, uint64_t *w, unsigned n)
{
	const uint64_t *p = (const uint64_t *)(const void *)((const uint8_t *)r->ctl + off);
	uint64_t check;
	unsigned i;

	for (i = 0; i < n; i++)
		w[i] = word(p + i);
	check = word(p + n);
	atomic_thread_fence(memory_order_acquire);
	return check == wsd_remote_check(r->nonce, off, w, n);
}

static bool power2(uint32_t n, uint32_t min, uint32_t max)
{
	return n >= min && n <= max && !(n & (n - 1));
}

int road_bind(struct road *r, const WSDPUTROAD *p)
{
	struct wsd_remote *rs = p->base;
	uint8_t *b = p->base;
	uint32_t off;

	if (!b || !p->state || !p->hold || !p->release || !p->put || !p->word || !p->fetch || !p->nudge || !p->poll || !p->stop ||
	    p->length < 2 * WSD_REMOTE_PAGE || rs->magic != WSD_REMOTE_MAGIC || rs->version != WSD_REMOTE_VERSION || !rs->nonce)
		return -EINVAL;
	r->ring0 = rs->ring0;
	r->ring1_max = rs->ring1_max;
	r->fill_max = rs->fill_max;
	if (!power2(r->ring0, WSD_REMOTE_RING0_MIN, WSD_REMOTE_RING0_MAX) ||
	    (r->ring1_max && !power2(r->ring1_max, WSD_REMOTE_RING0_MIN, WSD_REMOTE_RING1_MAX)) ||
	    !power2(r->fill_max, r->ring0, WSD_REMOTE_RING1_MAX) || r->fill_max < r->ring1_max ||
	    p->length != wsd_remote_length(r->ring0, r->ring1_max, r->fill_max))
		return -EINVAL;
	r->p = *p;
	r->rs = rs;
	off = WSD_REMOTE_PAGE;
	r->ctl = (const struct wsd_remote_ctl *)(b + off);
	off += WSD_REMOTE_PAGE;
	r->rx[0] = b + off;
	off += r->ring0;
	r->tx[0] = b + off;
	off += r->ring0;
	r->rx[1] = b + off;
	off += r->ring1_max;
	r->tx[1] = b + off;
	off += r->ring1_max;
	r->fill = b + off;
	r->nonce = rs->nonce;
	r->epoch = rs->epoch;
	return 0;
}

bool road_granted(const struct road *r)
{
	uint64_t w[1];

	return road_record(r, WSD_CTL_GRANT, w, 1) && w[0] == r->epoch;
}

void road_credit(struct road *r, uint32_t *ret_flags)
{
	struct wsd_remote *rs = r->rs;
	uint64_t w[2], have = atomic_load_explicit(&rs->cursor, memory_order_relaxed), seen;

	/* the last one again */
	seen = atomic_load_explicit(&r->credit_seen, memory_order_acquire);
	if (likely(((word(&r->ctl->credit.check) ^ seen) & ~7ull) == 0)) {
		*ret_flags = (uint32_t)seen & 7;
		return;
	}
	*ret_flags = 0;
	if (!road_record(r, WSD_CTL_CREDIT, w, 2))
		return;
	*ret_flags = (uint32_t)w[1];
	r->peer_reads = w[1] & WSD_CREDIT_READS;
	/* behind what we know: an older one; beyond what was posted: nonsense, and ignored, for it gives the peer nothing but garbage */
	while (w[0] > have && w[0] <= atomic_load_explicit(&rs->posted, memory_order_relaxed) &&
	       !atomic_compare_exchange_weak_explicit(&rs->cursor, &have, w[0], memory_order_release, memory_order_relaxed))
		;
	/* last, and whole: who comes here with an older one only has it looked at again */
	atomic_store_explicit(&r->credit_seen, (wsd_remote_check(r->nonce, WSD_CTL_CREDIT, w, 2) & ~7ull) | (w[1] & 7), memory_order_release);
}

int road_start(const struct road *r, uint64_t *ret_S)
{
	uint64_t w[2];

	if (!road_record(r, WSD_CTL_START, w, 2) || w[1] != r->epoch)
		return 0;
	*ret_S = w[0];
	return 1;
}

/* ---- Y ---- */

static bool plain_from(const struct road *r, uint64_t C)
{
	uint64_t w[1], end = r->rs->f_end;

	if (C > end)
		return false;
	return unlikely(end && atomic_load_explicit(&r->rs->plain_at, memory_order_acquire) == end) ||
	       (word(&r->ctl->plain.check) && road_record(r, WSD_CTL_PLAIN, w, 1) && w[0] == end);
}

/* 0 is an empty slot */
static uint32_t seam_after(uint32_t n)
{
	return n + 1 ? n + 1 : 1;
}

/* the seam of number n, from the peer's card or from the daemon; false: not there */
static bool seam_get(const struct road *r, uint32_t n, struct wsd_seam *ret)
{
	const struct wsd_seam *f = &r->rs->fill_seam[n % WSD_REMOTE_SEAMS];
	uint64_t w[3];

	if (word((const uint64_t *)(const void *)&r->ctl->seam[n % WSD_REMOTE_SEAMS] + 2) << 32 >> 32 == n &&
	    road_record(r, (uint32_t)WSD_CTL_SEAM(n % WSD_REMOTE_SEAMS), w, 3) && (uint32_t)w[2] == n) {
		*ret = (struct wsd_seam){ .ring_off = w[0], .tcp_off = w[1], .n = n, .ring = (uint32_t)(w[2] >> 32) };
		return true;
	}
	w[0] = __atomic_load_n(&f->ring_off, __ATOMIC_RELAXED);
	w[1] = __atomic_load_n(&f->tcp_off, __ATOMIC_RELAXED);
	if (__atomic_load_n(&f->n, __ATOMIC_RELAXED) != n)
		return false;
	*ret = (struct wsd_seam){ .ring_off = w[0], .tcp_off = w[1], .n = n, .ring = __atomic_load_n(&f->ring, __ATOMIC_RELAXED) };
	return true;
}

uint32_t road_last_ring(const struct road *r)
{
	uint32_t ring = atomic_load_explicit(&r->rs->rx_ring, memory_order_relaxed), n = r->rs->seam_next, i;
	struct wsd_seam s;

	for (i = 0; i < WSD_REMOTE_SEAMS && seam_get(r, n = seam_after(n), &s); i++)
		ring = s.ring;
	return ring;
}

/*
 * A return was read: a TCP byte at C stands for the ring offset pos. What is below taken was had; the rest is the stream's, and may come from
 * the fill ring as well, whichever is first (F18); behind ret_end all is plain.
 */
static enum step next_dropping(struct road *r, uint64_t C, uint64_t *ret_n)
{
	struct wsd_remote *rs = r->rs;
	uint64_t pos = rs->ret_from + (C - rs->back_C), taken = atomic_load_explicit(&rs->taken, memory_order_relaxed);

	if (pos >= rs->ret_end) {
		atomic_store_explicit(&rs->taken, rs->ret_end, memory_order_release);
		atomic_store(&rs->ystate, WSD_Y_DONE);
		*ret_n = UINT64_MAX;
		return STEP_PLAIN;
	}
	if (pos < taken) {
		*ret_n = taken - pos;
		return STEP_DROP;
	}
	if (pos > taken)	/* they were taken with the byte before */
		atomic_store_explicit(&rs->taken, pos, memory_order_release);
	*ret_n = rs->ret_end - pos;
	return STEP_BACKLOG;
}

enum step road_next(struct road *r, uint64_t C, uint64_t *ret_n)
{
	struct wsd_remote *rs = r->rs;
	uint64_t head, filled, h, taken, stop;
	struct wsd_seam s;

	if (C < rs->Y_S) {
		*ret_n = rs->Y_S - C;
		return STEP_PLAIN;
	}
	if (atomic_load_explicit(&rs->ystate, memory_order_relaxed) == WSD_Y_DROPPING)
		return next_dropping(r, C, ret_n);
	/* in X's last frame, whose payload is the stream's as well; X sent none of that behind it before it was there */
	if (unlikely(plain_from(r, C))) {
		atomic_store(&rs->ystate, WSD_Y_DONE);
		*ret_n = UINT64_MAX;
		return STEP_PLAIN;
	}
	if (C < rs->f_end) {
		*ret_n = rs->f_end - C;
		return STEP_PAYLOAD;
	}
	/* what has arrived first, the seams after it: they were written before it (F17) */
	head = atomic_load_explicit(&rs->head, memory_order_acquire);
	filled = atomic_load_explicit(&rs->filled, memory_order_acquire);
	taken = atomic_load_explicit(&rs->taken, memory_order_relaxed);
	if (atomic_load_explicit(&rs->fill_from, memory_order_relaxed) > taken)
		filled = 0;	/* a gap before it: no bytes of ours */
	h = head > filled ? head : filled;
	for (;;) {
		stop = h;
		if (!seam_get(r, seam_after(rs->seam_next), &s)) {
			if (rs->seam_next == 0 && h > taken)
				return STEP_BROKEN;	/* ring bytes without a place in the stream */
			break;
		}
		if (s.ring_off < taken || s.ring > 1 || (s.ring && !atomic_load(&rs->rx1_size)))
			return STEP_BROKEN;
		if (s.ring_off < h)
			stop = s.ring_off;
		if (s.ring_off != taken || h == taken || C < s.tcp_off)
			break;
		if (C > s.tcp_off)
			return STEP_BROKEN;
		rs->seam_next = s.n;
		atomic_store_explicit(&rs->rx_ring, s.ring, memory_order_relaxed);
	}
	if (taken < stop) {
		if (taken < head && stop - taken > road_rx_size(r) && filled < stop)
			return STEP_BROKEN;
		*ret_n = stop - taken;
		return STEP_RING;
	}
	return STEP_HEADER;
}

const uint8_t *road_at(const struct road *r, uint64_t off, uint64_t n, uint64_t *ret_n)
{
	const struct wsd_remote *rs = r->rs;
	uint64_t head = atomic_load_explicit(&rs->head, memory_order_acquire);
	const uint8_t *base = r->rx[atomic_load_explicit(&rs->rx_ring, memory_order_relaxed) ? 1 : 0];
	uint32_t size = road_rx_size(r), at;

	/* the card's where it has come to, the daemon's behind that */
	if (off >= head) {
		base = r->fill;
		size = r->fill_max;
	} else if (n > head - off) {
		n = head - off;
	}
	at = (uint32_t)(off & (size - 1));
	*ret_n = n < size - at ? n : size - at;
	return base + at;
}

int road_header(const struct road *r, const struct wsd_frame *f)
{
	const struct wsd_remote *rs = r->rs;
	uint64_t taken = atomic_load_explicit(&rs->taken, memory_order_relaxed);
	uint32_t most = r->ring1_max > r->ring0 ? r->ring1_max : r->ring0;

	if (f->kind == WSD_FRAME_RETURN)
		return f->ring_off <= taken && f->len <= most && taken - f->ring_off <= f->len ? 1 : -EPROTO;
	if (f->ring_off < taken || f->ring_off - taken > most)
		return -EPROTO;
	return f->ring_off == taken;
}

void road_announce(struct road *r, const struct wsd_frame *f, uint64_t at)
{
	r->rs->in_off = f->ring_off;
	r->rs->in_len = f->len;
	r->rs->in_kind = f->kind;
	atomic_store(&r->rs->in_C, at);
}

void road_header_taken(struct road *r)
{
	struct wsd_remote *rs = r->rs;
	uint64_t at = atomic_load_explicit(&rs->in_C, memory_order_relaxed) + WSD_FRAME_SIZE;

	switch (rs->in_kind) {
	case WSD_FRAME_DATA:
		rs->f_end = at + rs->in_len;
		break;
	case WSD_FRAME_RETURN:
		rs->back_C = at;
		rs->ret_from = rs->in_off;
		rs->ret_end = rs->in_off + rs->in_len;
		atomic_store(&rs->ystate, WSD_Y_DROPPING);
		break;
	case WSD_FRAME_END:
		atomic_store(&rs->y_end, 1);
		break;
	}
	atomic_store_explicit(&rs->in_C, ~0ull, memory_order_release);
}

int road_at_end(const struct road *r)
{
	const struct wsd_remote *rs = r->rs;
	uint64_t taken = atomic_load_explicit(&rs->taken, memory_order_relaxed), end;

	if (atomic_load(&rs->y_end))
		return 1;	/* it was only taken where it says the ring ends */
	switch (atomic_load_explicit(&rs->end_valid, memory_order_acquire)) {
	case 0:
		return 0;
	case 1:
		end = atomic_load_explicit(&rs->end_posted, memory_order_relaxed);
		return end < taken ? -EPROTO : end == taken;
	}
	return -EPROTO;
}

/* ---- X ---- */

uint64_t road_room(const struct road *r)
{
	const struct wsd_remote *rs = r->rs;
	uint64_t posted = atomic_load_explicit(&rs->posted, memory_order_relaxed), size = road_tx_size(r),
		 cursor = atomic_load_explicit(&rs->cursor, memory_order_relaxed),
		 done = atomic_load_explicit(&r->p.state->done, memory_order_acquire), low = cursor < done ? cursor : done;

	/* both: the peer's program has them, and our card has read them (A5) */
	return posted - low < size ? size - (posted - low) : 0;
}

int road_seam(const struct road *r, uint64_t h, struct wsd_seam *ret)
{
	const struct wsd_remote *rs = r->rs;
	uint32_t n = atomic_load_explicit(&rs->seam_n, memory_order_relaxed);
	uint64_t posted = atomic_load_explicit(&rs->posted, memory_order_relaxed);
	const struct wsd_seam *last = &rs->seam[n % WSD_REMOTE_SEAMS], *old = &rs->seam[seam_after(n) % WSD_REMOTE_SEAMS];
	uint32_t ring = posted >= atomic_load_explicit(&rs->ring1_from, memory_order_relaxed);

	if (n && last->tcp_off == h && last->ring == ring)
		return 0;
	/* a slot is free when the peer has read a byte behind its seam */
	if (old->n && atomic_load_explicit(&rs->cursor, memory_order_relaxed) <= old->ring_off)
		return -EAGAIN;
	*ret = (struct wsd_seam){ .ring_off = posted, .tcp_off = h, .n = seam_after(n), .ring = ring };
	{
		uint64_t w[3] = { ret->ring_off, ret->tcp_off, (uint64_t)ring << 32 | ret->n };

		ret->check = wsd_remote_check(r->nonce, (uint32_t)WSD_CTL_SEAM(ret->n % WSD_REMOTE_SEAMS), w, 3);
	}
	return 1;
}

void road_frame_left(const struct road *r, uint64_t h, uint32_t *ret_header, uint64_t *ret_payload)
{
	const struct wsd_remote *rs = r->rs;
	uint64_t at = atomic_load_explicit(&rs->frame_H, memory_order_acquire), sent = h - at,
		 len = atomic_load_explicit(&rs->frame_len, memory_order_relaxed);

	*ret_header = 0;
	*ret_payload = 0;
	if (at == ~0ull || sent == 0)		/* none, or the kernel took nothing of it */
		return;
	if (sent < WSD_FRAME_SIZE)
		*ret_header = (uint32_t)(WSD_FRAME_SIZE - sent);
	if (sent < WSD_FRAME_SIZE + len)
		*ret_payload = WSD_FRAME_SIZE + len - sent - *ret_header;
}

void road_frame_set(struct road *r, uint64_t h, uint32_t kind, uint32_t len, uint64_t off)
{
	struct wsd_remote *rs = r->rs;

	atomic_store(&rs->frame_H, ~0ull);	/* who takes over between these stores finds no frame, which is true (F8) */
	atomic_store_explicit(&rs->frame_kind, kind, memory_order_relaxed);
	atomic_store_explicit(&rs->frame_len, len, memory_order_relaxed);
	atomic_store_explicit(&rs->frame_off, off, memory_order_relaxed);
	atomic_store(&rs->frame_H, h);
}

void road_frame_header(const struct road *r, uint8_t out[WSD_FRAME_SIZE])
{
	const struct wsd_remote *rs = r->rs;
	struct wsd_frame f = { .nonce = r->nonce, .epoch = r->epoch, .kind = atomic_load(&rs->frame_kind), .len = atomic_load(&rs->frame_len),
			       .ring_off = atomic_load(&rs->frame_off) };

	frame_put(out, &f);
}
