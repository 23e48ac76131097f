/* SPDX-License-Identifier: MIT */
/*
 * agreed_peek.c - looking ahead on both roads (MSG_PEEK, FIONREAD)
 *
 * A receive goes step by step: ring bytes, a header, its payload. A peek has to show what the receives after it will give, and TCP shows all
 * that is there. So the steps are made on a copy of Y's words, over a copy of what the kernel has unread, from the beginning each time.
 *
 * Invariants:
 *   - nothing is taken, no word of the session is written, nothing sleeps; rx_lock is held, so what is unread only grows;
 *   - while GRANTED, what the kernel has is counted before Start is looked for (A2);
 *   - what a step would find broken ends the look: the receive that gets there says so.
 */
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "wsd_switch/core/agreed.h"
#include "wsd_switch/core/ring.h"

#define COPY_FIRST	(16u << 10)

struct ahead {
	struct road r;		/* its rs is the copy */
	struct wsd_remote rs;
	int fd;
	uint64_t C, base;	/* where the look is; TCP offset of the copy's first byte */
	uint32_t part;		/* bytes of a header that were taken before */
	uint64_t all;		/* bytes that can be had, the part included */
	uint8_t *copy;
	size_t have, size;
};

static void words(struct ahead *a, struct conn *c)
{
	const struct road *r = road_of(c);
	const struct wsd_remote *rs = r->rs;
	struct wsd_remote *to = &a->rs;
	unsigned i;

	a->r = *r;
	memset(to, 0, sizeof(*to));
	a->r.rs = to;
#define COPY(w)	atomic_store_explicit(&to->w, atomic_load_explicit(&rs->w, memory_order_acquire), memory_order_relaxed)
	/* what has arrived first, the seams after it (F17) */
	COPY(head);
	COPY(filled);
	COPY(fill_from);
	for (i = 0; i < WSD_REMOTE_SEAMS; i++) {
		to->fill_seam[i].ring_off = __atomic_load_n(&rs->fill_seam[i].ring_off, __ATOMIC_RELAXED);
		to->fill_seam[i].tcp_off = __atomic_load_n(&rs->fill_seam[i].tcp_off, __ATOMIC_RELAXED);
		to->fill_seam[i].n = __atomic_load_n(&rs->fill_seam[i].n, __ATOMIC_RELAXED);
		to->fill_seam[i].ring = __atomic_load_n(&rs->fill_seam[i].ring, __ATOMIC_RELAXED);
	}
	COPY(end_valid);
	COPY(end_posted);
	COPY(ystate);
	COPY(taken);
	COPY(in_C);
	COPY(rx_ring);
	COPY(rx1_size);
	COPY(y_end);
#undef COPY
	to->seam_next = rs->seam_next;
	to->Y_S = rs->Y_S;
	to->f_end = rs->f_end;
	to->in_off = rs->in_off;
	to->in_len = rs->in_len;
	to->in_kind = rs->in_kind;
	to->back_C = rs->back_C;
	to->ret_from = rs->ret_from;
	to->ret_end = rs->ret_end;
}

/* how many TCP bytes there are at C */
static uint64_t left(const struct ahead *a)
{
	return a->C - a->base < a->all ? a->base + a->all - a->C : 0;
}

/* n TCP bytes at C, or as many as can be shown: *ret_n. NULL: none */
static const uint8_t *tcp_at(struct ahead *a, const struct conn *c, uint64_t n, uint64_t *ret_n)
{
	uint64_t at = a->C - a->base;
	struct iovec io;
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };
	ssize_t k;

	if (n > left(a))
		n = left(a);
	if (at + n > a->have && a->have < a->all) {
		size_t size = at + n > 2 * a->size ? at + n : 2 * a->size;
		uint8_t *p;

		/* the kernel shows its queue from the beginning only */
		if (size < COPY_FIRST)
			size = COPY_FIRST;
		if (size > a->all)
			size = a->all;
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			return NULL;
		if (a->copy)
			munmap(a->copy, a->size);
		a->copy = p;
		a->size = a->have = size;
		memcpy(p, road_of(c)->rs->part, a->part);
		io = (struct iovec){ p + a->part, size - a->part };
		k = io.iov_len ? real.syscall(SYS_recvmsg, a->fd, &m, MSG_PEEK | MSG_DONTWAIT) : 0;
		a->have = a->part + (k > 0 ? (size_t)k : 0);
		if (a->have < size)
			a->all = a->have;	/* an urgent byte, or another process took some */
	}
	if (at >= a->have)
		return NULL;
	*ret_n = n < a->have - at ? n : a->have - at;
	return *ret_n ? a->copy + at : NULL;
}

/* a header at C is passed; false: the look ends here */
static bool pass_header(struct ahead *a, const struct conn *c)
{
	struct wsd_frame f;
	const uint8_t *p;
	uint64_t n = 0;

	if (left(a) < WSD_FRAME_SIZE || !(p = tcp_at(a, c, WSD_FRAME_SIZE, &n)) || n < WSD_FRAME_SIZE ||
	    frame_get(&f, p, a->r.nonce, a->r.epoch) < 0 || atomic_load(&a->rs.y_end) || road_header(&a->r, &f) != 1)
		return false;
	a->rs.in_off = f.ring_off;
	a->rs.in_len = f.len;
	a->rs.in_kind = f.kind;
	atomic_store(&a->rs.in_C, a->C);
	a->C += WSD_FRAME_SIZE;
	road_header_taken(&a->r);
	return f.kind != WSD_FRAME_END;
}

/* the daemon's bytes of a backlog that TCP has not brought: where, or NULL */
static const uint8_t *fill_at(const struct ahead *a, uint64_t *ret_n)
{
	const struct wsd_remote *rs = &a->rs;
	uint64_t taken = atomic_load(&rs->taken), filled = atomic_load(&rs->filled), at = taken & (a->r.fill_max - 1);

	if (filled > rs->ret_end)
		filled = rs->ret_end;
	if (filled <= taken || taken < atomic_load(&rs->fill_from))
		return NULL;
	*ret_n = filled - taken < a->r.fill_max - at ? filled - taken : a->r.fill_max - at;
	return a->r.fill + at;
}

/* up to most bytes that are next: *ret_n and where they are, if they are wanted; false: no more */
static bool piece(struct ahead *a, const struct conn *c, bool want, uint64_t most, const uint8_t **ret, uint64_t *ret_n)
{
	struct wsd_remote *rs = &a->rs;
	enum step s;
	uint64_t k;

	for (;;) {
		switch (atomic_load(&rs->ystate)) {
		case WSD_Y_FRAMED:
		case WSD_Y_DROPPING:
			s = road_next(&a->r, a->C, &k);
			break;
		default:
			s = STEP_PLAIN;
			k = UINT64_MAX;
		}
		if (s == STEP_HEADER) {
			if (!pass_header(a, c))
				return false;
			continue;
		}
		if (s == STEP_BROKEN)
			return false;
		if (s == STEP_RING) {
			*ret = road_at(&a->r, atomic_load(&rs->taken), k < most ? k : most, ret_n);
			atomic_store(&rs->taken, atomic_load(&rs->taken) + *ret_n);
			return true;
		}
		if (s == STEP_DROP && left(a)) {
			a->C += k < left(a) ? k : left(a);
			continue;
		}
		if (!left(a) && (s == STEP_DROP || s == STEP_BACKLOG)) {
			*ret = fill_at(a, ret_n);
			if (!*ret)
				return false;
			if (*ret_n > most)
				*ret_n = most;
			atomic_store(&rs->taken, atomic_load(&rs->taken) + *ret_n);
			return true;
		}
		if (k > left(a))
			k = left(a);
		if (k > most)
			k = most;
		if (!k || (want && !(*ret = tcp_at(a, c, k, &k))))
			return false;
		*ret_n = k;
		a->C += k;
		return true;
	}
}

static enum ahead_end what_follows(const struct ahead *a, bool fin)
{
	bool whole = false;

	if (atomic_load(&a->rs.y_end))
		return AHEAD_END;
	if (!fin)
		return AHEAD_MORE;
	switch (atomic_load(&a->rs.ystate)) {
	case WSD_Y_FRAMED:
		whole = a->C < a->rs.f_end;
		break;
	case WSD_Y_DROPPING:
		whole = atomic_load(&a->rs.taken) >= a->rs.ret_end;
		break;
	default:
		whole = true;
	}
	return whole || road_at_end(&a->r) != 0 ? AHEAD_END : AHEAD_FIN;
}

/* of TCP no more than what lies before offset most_C */
static ssize_t ahead_to(struct conn *c, int fd, const struct vec *v, int flags, enum ahead_end *ret_end, uint64_t most_C)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };
	bool want = v && !(flags & MSG_TRUNC), fin = ret_end && poll_now(&p) > 0, framed;
	uint64_t most = v ? v->len : INT32_MAX, done = 0, n, S, C = atomic_load(&c->s->C), at;
	struct vec w = v ? *v : (struct vec){ 0 };
	const uint8_t *from = NULL;
	struct ahead a;
	uint32_t y;
	int q = 0;

	words(&a, c);
	y = atomic_load(&a.rs.ystate);
	framed = y == WSD_Y_FRAMED || y == WSD_Y_DROPPING;
	at = framed ? atomic_load(&road_of(c)->rs->part_C) : ~0ull;
	a.fd = fd;
	a.base = a.C = at != ~0ull ? at : C;
	a.part = (uint32_t)(C - a.base);
	a.copy = NULL;
	a.have = a.size = 0;
	if (real.ioctl(fd, SIOCINQ, &q) < 0)
		q = 0;
	a.all = (uint32_t)q + a.part;
	atomic_store(&a.rs.plain_at, atomic_load(&road_of(c)->rs->plain_at));	/* what was counted behind it was sent behind it */
	if (most_C <= C)
		a.all = a.part;
	else if (a.all > most_C - a.base)
		a.all = most_C - a.base;
	if (y == WSD_Y_GRANTED && road_start(&a.r, &S))
		return -EAGAIN;
	if (framed && atomic_load(&a.rs.in_C) < C)
		road_header_taken(&a.r);
	while (done < most && piece(&a, c, want, most - done, &from, &n)) {
		if (want && !ring_drain(from, UINT32_MAX, 0, &w, n)) {
			if (!done)
				done = (uint64_t)-EFAULT;
			break;
		}
		if (v)
			vec_skip(&w, n);
		done += n;
	}
	if (ret_end)
		*ret_end = what_follows(&a, fin);
	if (a.copy)
		munmap(a.copy, a.size);
	return (ssize_t)done;
}

ssize_t agreed_ahead(struct conn *c, int fd, const struct vec *v, int flags, enum ahead_end *ret_end)
{
	return ahead_to(c, fd, v, flags, ret_end, UINT64_MAX);
}

bool agreed_news(struct thr *t, struct conn *c, int fd, bool ask, uint64_t *told_C)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };
	const struct wsd_remote *rs = road_of(c)->rs;
	uint32_t y = atomic_load(&rs->ystate);
	bool news = true, asked;
	uint64_t C;
	int q = 0;

	if ((y != WSD_Y_FRAMED && y != WSD_Y_DROPPING) || !agreed_lock(t, c, fd, &c->s->rx_lock))
		return true;
	/* before the walks: what comes from here on has an edge of its own */
	C = atomic_load(&c->s->C);
	asked = real.ioctl(fd, SIOCINQ, &q) == 0;
	if (ask && (C < *told_C || atomic_load(&rs->taken) < atomic_load(&rs->head) || atomic_load(&rs->taken) < atomic_load(&rs->filled)) &&
	    !lowat_any(c) && poll_now(&p) == 0) {
		ssize_t all = agreed_ahead(c, fd, NULL, 0, NULL);

		news = all <= 0 || all != ahead_to(c, fd, NULL, 0, NULL, *told_C);
	}
	if (asked)
		*told_C = C + (uint32_t)q;
	agreed_unlock(&c->s->rx_lock);
	return news;
}
