/* SPDX-License-Identifier: MIT */
/*
 * agreed_rx.c - receiving over a road (Y's half of the agreed cut-over)
 *
 *   PLAIN --- A1's conditions --> GRANTED --- Start is there, and decide was ours to swap --> FRAMED --- RETURN --> DROPPING --> DONE
 *                                    |  the road failed or is revoked before that: void
 *                                    v
 *                                   DONE
 *
 * Invariants:
 *   - all of it under rx_lock, and nothing under it sleeps; what is stored before a kernel call says what the call was for (F8);
 *   - while GRANTED, TCP is read for as much as it held before Start was looked for and not found (A2): such bytes are before S;
 *   - while FRAMED, the order is the sender's: seams say where ring bytes stand, headers where frames do (A3);
 *   - end of stream is answered only where END or the daemons say that the ring ends, too (A7), but inside a frame, behind which
 *     nothing was put;
 *   - EAGAIN is answered after the device was asked, and the kernel.
 */
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "wsd_switch/core/agreed.h"
#include "wsd_switch/core/ring.h"

#define END_WAIT_US	3e6		/* A7: for the daemons to say where the stream ends */
#define BEHIND_NAP_MS	20		/* a frame stands behind ring bytes that have not come: they, or the daemon's, will wake us */
#define BEHIND_ASK_US	0.5e6		/* ... not for so long: does the connection live? */
#define BEHIND_MOST_US	15e6		/* ... and its FIN, or the like, is there: no daemon takes longer to bring them, or to say that it cannot */
#define EMPTIES_MAX	16u		/* behind the same put, where one is (A9): more would keep a receive from returning */
#define END_NAP_MS	1
#define CHILD_NAP_MS	20
#define PEEK_NAP_MS	2
#define LOW_NAP_MS	2	/* a part of the mark was taken, and the kernel waits for all of it */
#define ASK_NAP_MS	10		/* a question that the provider was too busy for is asked again */
#define TAKE_MAX	(64u << 10)	/* bytes of the ring before credit is looked at */

struct need {
	bool no_kernel;		/* what the kernel has is not to be read now: do not wait for POLLIN */
	unsigned nap_ms;
	bool polled;		/* in: completions were taken just now */
	bool quick;		/* in: what takes asking the kernel can wait: -EAGAIN at once */
	enum ahead_end end;	/* of a peek */
	uint32_t mark;		/* in: fewer bytes than these are as none (SO_RCVLOWAT); 0: any counts */
	uint32_t changes;	/* of the road, before it was looked at */
};

/* never sleeps, no cancellation point; C counts what was taken */
ssize_t road_take(struct conn *c, int fd, struct iovec *io, int n, int flags)
{
	struct msghdr m = { .msg_iov = io, .msg_iovlen = (size_t)n };
	ssize_t r = real.syscall(SYS_recvmsg, fd, &m, flags | MSG_DONTWAIT);

	if (r > 0 && !(flags & MSG_PEEK))
		cnt_add64(&c->s->C, (uint64_t)r);
	return r < 0 ? -errno : r;
}

static ssize_t take_vec(struct conn *c, int fd, const struct vec *v, uint64_t n, int flags)
{
	struct iovec io[64];

	return road_take(c, fd, io, vec_iov(v, n, io, 64), flags & (MSG_PEEK | MSG_TRUNC));
}

/* ---- credit ---- */

/* tell the sender how far the program is; flags: WSD_CREDIT_*. Not now is no harm: it is due again at the next look */
static bool credit(struct road *r, uint32_t flags)
{
	struct wsd_remote *rs = r->rs;
	uint64_t w[3];

	if (!road_mine(r) || road_error(r))
		return false;
	if (unlikely(atomic_load_explicit(&r->rx_now, memory_order_relaxed)))
		flags |= WSD_CREDIT_RETURN | WSD_CREDIT_NOW;
	sig_hold();
	if (r->p.hold(r->p.conn, flags & WSD_CREDIT_RETURN ? 2 : 1 | WSD_HOLD_WORDS) != 0) {
		sig_release();
		return false;
	}
	w[0] = batch_credit(r);
	w[1] = flags | (r->p.read && r->p.pull ? WSD_CREDIT_READS : 0);
	w[2] = wsd_remote_check(r->nonce, WSD_CTL_CREDIT, w, 2);
	r->p.word(r->p.conn, WSD_CTL_CREDIT, w, sizeof(w));
	if (flags & WSD_CREDIT_RETURN)
		r->p.nudge(r->p.conn);		/* it may be asleep (F15) */
	r->p.release(r->p.conn);
	sig_release();
	atomic_store_explicit(&rs->told_cursor, w[0], memory_order_relaxed);
	return true;
}

void agreed_credit_due(struct road *r, uint32_t part)
{
	uint32_t lag = road_rx_size(r) / part;

	if ((int64_t)(batch_credit(r) - atomic_load_explicit(&r->rs->told_cursor, memory_order_relaxed)) >= (int64_t)(lag < ROAD_CREDIT_LAG ? lag : ROAD_CREDIT_LAG))
		credit(r, atomic_load(&r->leave) ? WSD_CREDIT_RETURN : 0);
}

/* ---- the ring ---- */

static ssize_t take_ring(struct road *r, const struct vec *v, uint64_t n, int flags)
{
	struct wsd_remote *rs = r->rs;
	uint64_t taken = atomic_load_explicit(&rs->taken, memory_order_relaxed), done = 0;
	struct vec w = *v;

	if (n > TAKE_MAX)
		n = TAKE_MAX;
	while (done < n && w.len) {
		uint64_t k;
		const uint8_t *p = road_at(r, taken + done, n - done, &k);

		if (k > w.len)
			k = w.len;
		/* a whole ring of one piece, so that no position wraps: the mask is that of the piece */
		if (!(flags & MSG_TRUNC) && !ring_drain(p, UINT32_MAX, 0, &w, (size_t)k))
			return done ? (ssize_t)done : -EFAULT;
		vec_skip(&w, (size_t)k);
		done += k;
	}
	if (!(flags & MSG_PEEK)) {
		atomic_store_explicit(&rs->taken, taken + done, memory_order_release);
		agreed_credit_due(r, ROAD_CREDIT_PART);
	}
	return (ssize_t)done;
}

/* ---- frames ---- */

static int broken(struct conn *c, int fd, const char *what)
{
	conn_reset(c, fd, what);
	atomic_store(&c->s->kept_err, 0);	/* told by who calls */
	atomic_store(&road_of(c)->rs->ystate, WSD_Y_DONE);
	return -ECONNRESET;
}

/* a FIN without END: the daemons are asked. false: they had their time */
static bool ask_end(struct conn *c)
{
	struct road *r = road_of(c);

	if (!(atomic_fetch_or(&r->asked, 1u << WSD_SAN_END) & (1u << WSD_SAN_END))) {
		r->end_when = tsc_now();
		agreed_ask(c, WSD_SAN_END, 0, 0);
	}
	return tsc_now() - r->end_when <= (uint64_t)US(END_WAIT_US);
}

enum { TS_CLOSE = 7 };		/* tcpi_state: <netinet/tcp.h> has it, which <linux/tcp.h> bars */

/*
 * The socket is closed, and neither our FIN went nor the peer's came: it was reset, and that was told, by whatever call. What TCP says then is end
 * of stream. A reset behind the peer's FIN (one octet more than ours) is none of this: what came before the FIN is to be had.
 */
static bool was_reset(struct conn *c, int fd)
{
	int state, inq;
	uint64_t k;

	return !(atomic_load(&c->s->flags) & S_SHUT_WR) && !atomic_load(&road_of(c)->rs->end_valid) &&
	       off_kernel_c(fd, &k, &state, &inq) == 0 && state == TS_CLOSE && k == atomic_load(&c->s->C);
}

/* the kernel's end of stream, or a part of a header before it. 1: that is the end; 0: *n, look again; -errno */
static int at_fin(struct conn *c, int fd, struct need *n)
{
	struct road *r = road_of(c);
	int k = road_at_end(r);

	if (k > 0)
		return 1;
	if (k < 0)
		return broken(c, fd, "the end of the stream cannot be had");
	if (atomic_load(&c->s->flags) & S_SHUT_RD)
		return 1;	/* whether a FIN came or not: nothing is there, and nothing is waited for */
	if (!ask_end(c))
		return broken(c, fd, "the stream ended without saying where, and no daemon knows");
	n->no_kernel = true;
	n->nap_ms = END_NAP_MS;
	return 0;
}

/*
 * Ring bytes come before f, and are not here: 0, or -errno. As long as TCP lives so may who brings them, however long that takes; but the
 * header keeps the kernel from telling us that it does not.
 */
static int behind(struct conn *c, int fd, const struct wsd_frame *f)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint64_t taken = atomic_load(&rs->taken), now = tsc_now();
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };
	int k = road_at_end(r);

	if (k < 0 || (atomic_load(&rs->end_valid) == 1 && atomic_load(&rs->end_posted) < f->ring_off))
		return broken(c, fd, "ring bytes before a frame cannot be had");
	if (!r->behind_since || r->behind_at != taken) {
		r->behind_at = taken;
		r->behind_since = now;
	}
	if (likely(now - r->behind_since < (uint64_t)US(BEHIND_ASK_US)) || (atomic_load(&c->s->flags) & S_SHUT_RD) || poll_now(&p) <= 0)
		return 0;
	if (ask_end(c) || (!(p.revents & POLLERR) && now - r->behind_since <= (uint64_t)US(BEHIND_MOST_US)))
		return 0;
	return broken(c, fd, "ring bytes before a frame have not come, and the connection is over");
}

/* the header in hdr is next in TCP: is it its turn? 1, *f; 0: ring bytes come first, *n; -errno */
static int turn(struct conn *c, int fd, const uint8_t *hdr, struct wsd_frame *f, struct need *n)
{
	struct road *r = road_of(c);
	int e;

	if (frame_get(f, hdr, r->nonce, r->epoch) < 0 || atomic_load(&r->rs->y_end) || (e = road_header(r, f)) < 0)
		return broken(c, fd, "what follows in the stream is no frame of this session");
	if (e == 0) {
		n->no_kernel = true;
		n->nap_ms = BEHIND_NAP_MS;
		return behind(c, fd, f);
	}
	r->empties = f->kind == WSD_FRAME_EMPTY && f->ring_off == r->empty_at ? r->empties + 1 : 0;
	r->empty_at = f->ring_off;
	return r->empties > EMPTIES_MAX ? broken(c, fd, "nothing but empty frames") : e;
}

static ssize_t no_header(struct conn *c, int fd, struct need *n)
{
	int e = was_reset(c, fd) ? 1 : at_fin(c, fd, n);

	return e > 0 ? -ENODATA : e < 0 ? e : -EAGAIN;
}

/*
 * A header that came in parts is taken as it comes: left in the kernel, a few bytes at the end of a large segment may be charged as much as
 * the whole of it, close the window, and the rest never comes. What was taken is rs->part, [part_C, C). As header()
 */
static ssize_t header_part(struct conn *c, int fd, struct need *n)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint64_t at = atomic_load(&rs->part_C), have = atomic_load(&c->s->C) - at;
	struct wsd_frame f;
	struct iovec io;
	ssize_t k;
	int e;

	while (have < WSD_FRAME_SIZE) {
		io = (struct iovec){ rs->part + have, WSD_FRAME_SIZE - have };
		k = road_take(c, fd, &io, 1, 0);
		if (k == 0)
			return no_header(c, fd, n);
		if (k < 0)
			return k;
		cnt_add64(&c->s->over_rx, (uint64_t)k);
		have += (uint64_t)k;
	}
	e = turn(c, fd, rs->part, &f, n);
	if (e <= 0)
		return e ? e : -EAGAIN;
	road_announce(r, &f, at);
	atomic_store(&rs->part_C, ~0ull);
	road_header_taken(r);
	return 0;
}

/* TCP says what is next. Bytes of the stream; 0: look again; -EAGAIN: nothing, *n; -ENODATA: end of stream; -errno */
static ssize_t header(struct conn *c, int fd, const struct vec *v, int flags, struct need *n)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint8_t hdr[WSD_FRAME_SIZE];
	struct iovec io[65] = { { hdr, sizeof(hdr) } };
	struct wsd_frame f;
	ssize_t k;
	int m = 1, e;

	if (atomic_load(&rs->part_C) != ~0ull)
		return header_part(c, fd, n);
	if (r->small_frames && !(flags & (MSG_TRUNC | MSG_PEEK))) {
		k = agreed_take_small(c, fd, v);
		if (k)
			return k == -EPROTO ? broken(c, fd, "frames were there and are not any more") : k;
	}
	k = road_take(c, fd, io, 1, MSG_PEEK);
	if (k < 0)
		return k;
	if (k == 0)
		return no_header(c, fd, n);
	if (k < (ssize_t)sizeof(hdr)) {
		atomic_store(&rs->part_C, atomic_load(&c->s->C));
		return header_part(c, fd, n);
	}
	e = turn(c, fd, hdr, &f, n);
	if (e <= 0)
		return e ? e : -EAGAIN;
	road_announce(r, &f, atomic_load(&c->s->C));
	if (f.kind == WSD_FRAME_DATA && !(flags & (MSG_TRUNC | MSG_PEEK)))
		m += vec_iov(v, f.len < v->len ? f.len : v->len, io + 1, 64);
	k = road_take(c, fd, io, m, 0);
	if (k < (ssize_t)WSD_FRAME_SIZE) {
		atomic_store(&rs->in_C, ~0ull);
		return k < 0 ? k : broken(c, fd, "a header was there and is not any more");
	}
	cnt_add64(&c->s->over_rx, WSD_FRAME_SIZE);
	atomic_store_explicit(&r->by_frames, f.kind == WSD_FRAME_DATA, memory_order_relaxed);
	r->small_frames = f.kind == WSD_FRAME_DATA && f.len <= ROAD_SMALL && f.len < v->len;
	road_header_taken(r);
	return k - WSD_FRAME_SIZE;
}

/* the backlog from the fill ring: TCP has not brought it (so far). Bytes, or 0 */
static ssize_t take_fill(struct road *r, const struct vec *v, int flags)
{
	struct wsd_remote *rs = r->rs;
	uint64_t taken = atomic_load(&rs->taken), filled = atomic_load_explicit(&rs->filled, memory_order_acquire), k, at;

	if (filled > rs->ret_end)
		filled = rs->ret_end;
	if (filled <= taken || taken < atomic_load(&rs->fill_from))
		return 0;
	at = taken & (r->fill_max - 1);
	k = r->fill_max - at;
	if (k > filled - taken)
		k = filled - taken;
	if (k > v->len)
		k = v->len;
	if (!(flags & MSG_TRUNC) && !ring_drain(r->fill + at, UINT32_MAX, 0, v, (size_t)k))
		return -EFAULT;
	if (!(flags & MSG_PEEK))
		atomic_store_explicit(&rs->taken, taken + k, memory_order_release);
	return (ssize_t)k;
}

/* the kernel said x (0: end of stream, -errno) where a backlog was to come or to be dropped. As header() */
static ssize_t backlog_without(struct conn *c, int fd, const struct vec *v, int flags, ssize_t x, struct need *n)
{
	struct road *r = road_of(c);
	ssize_t k = take_fill(r, v, flags);
	int e;

	if (k || x)
		return k ? k : x;
	if (atomic_load(&r->rs->taken) >= r->rs->ret_end)
		return -ENODATA;
	e = at_fin(c, fd, n);
	return e > 0 ? -ENODATA : e < 0 ? e : -EAGAIN;
}

/* C but for the part of a header that was taken: where the stream stands */
static uint64_t road_C(struct conn *c)
{
	uint64_t at = atomic_load_explicit(&road_of(c)->rs->part_C, memory_order_relaxed);

	return at != ~0ull ? at : atomic_load(&c->s->C);
}

static ssize_t framed(struct conn *c, int fd, const struct vec *v, int flags, struct need *n)
{
	struct road *r = road_of(c);
	uint64_t k, C = road_C(c);
	struct iovec none = { NULL, 0 };
	ssize_t x;

	if (atomic_load(&r->rs->in_C) < C)
		road_header_taken(r);	/* who took it died before it said so (F8) */
	switch (road_next(r, C, &k)) {
	case STEP_RING:
		atomic_store_explicit(&r->by_frames, false, memory_order_relaxed);
		return take_ring(r, v, k, flags);
	case STEP_HEADER:
		return n->quick ? -EAGAIN : header(c, fd, v, flags, n);
	case STEP_PLAIN:
		x = take_vec(c, fd, v, k, flags);
		if (x == 0 && k != UINT64_MAX && !(atomic_load(&c->s->flags) & S_SHUT_RD))
			return broken(c, fd, "the stream ended before the offset at which it was to go on by RDMA");
		return x == 0 ? -ENODATA : x;
	case STEP_PAYLOAD:
		x = take_vec(c, fd, v, k, flags);
		return x == 0 ? -ENODATA : x;
	case STEP_BACKLOG:
		x = take_vec(c, fd, v, k, flags);
		if (x > 0 && !(flags & MSG_PEEK))
			cnt_add64(&c->s->over_rx, (uint64_t)x);		/* they are counted as taken from the ring */
		if (x > 0 && !(flags & MSG_PEEK))	/* so that the cursor is the program's */
			(void)road_next(r, atomic_load(&c->s->C), &k);
		return x > 0 ? x : backlog_without(c, fd, v, flags, x, n);
	case STEP_DROP:
		none.iov_len = k < (1u << 20) ? k : 1u << 20;
		x = road_take(c, fd, &none, 1, MSG_TRUNC);
		if (x > 0)
			cnt_add64(&c->s->over_rx, (uint64_t)x);
		return x > 0 ? 0 : backlog_without(c, fd, v, flags, x, n);
	case STEP_BROKEN:
		break;
	}
	return broken(c, fd, "offsets out of bounds");
}

/* ---- granted ---- */

/* Start is there: whose is it? 0: look at ystate again */
static int start_found(struct conn *c, int fd, uint64_t S)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint32_t none = WSD_DECIDE_UNSET;

	if (S < atomic_load(&c->s->C))
		return broken(c, fd, "RDMA was to begin at an offset that is passed");
	rs->Y_S = S;
	rs->f_end = 0;
	rs->seam_next = 0;
	atomic_store(&rs->in_C, ~0ull);
	atomic_store(&rs->part_C, ~0ull);
	if (!atomic_compare_exchange_strong(&rs->decide, &none, WSD_DECIDE_TAKEN) && none != WSD_DECIDE_TAKEN) {
		atomic_store(&rs->ystate, WSD_Y_DONE);		/* void: X goes on plain, and knows it (A2) */
		return 0;
	}
	atomic_store(&rs->ystate, WSD_Y_FRAMED);
	return 0;
}

/* The road is gone before Start came. With our queue pair destroyed none can come any more (D15); a process without one
 * leaves it to who has it (F9), or to the daemon. */
static void give_up_grant(struct conn *c)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint32_t none = WSD_DECIDE_UNSET;
	uint64_t S;

	r->p.stop(r->p.conn, 0);
	if (road_start(r, &S))
		return;
	if (atomic_compare_exchange_strong(&rs->decide, &none, WSD_DECIDE_VOID) || none == WSD_DECIDE_VOID) {
		atomic_store(&rs->ystate, WSD_Y_DONE);
		/* or X starts all the same, and learns of it when its device has given up: half a second in which nothing can be sent */
		if (none != WSD_DECIDE_VOID)
			agreed_ask(c, WSD_SAN_WANT_RETURN, 0, 0);
	}
}

static ssize_t granted(struct conn *c, int fd, const struct vec *v, int flags)
{
	struct road *r = road_of(c);
	struct iovec io;
	char x;
	uint64_t S;
	int q = 0;
	ssize_t k;

	/* where X has started its bytes may be on their way: who only leaves, over a road that is whole, has the peer return */
	if (road_mine(r) && (road_error(r) || atomic_load(&r->rs->revoked) || (atomic_load(&r->leave) && !road_start(r, &S)))) {
		give_up_grant(c);
		if (atomic_load(&r->rs->ystate) != WSD_Y_GRANTED)
			return 0;
	}
	if (real.ioctl(fd, SIOCINQ, &q) < 0)
		q = 0;
	if (road_start(r, &S))
		return start_found(c, fd, S);
	if (q > 0)
		return take_vec(c, fd, v, (uint64_t)q, flags);
	io = (struct iovec){ &x, 1 };
	k = road_take(c, fd, &io, 1, MSG_PEEK);
	if (k > 0 && rx_at_mark(fd) && !road_start(r, &S))	/* the kernel counts up to an urgent byte; who sent one starts no more */
		return take_vec(c, fd, v, v->len, flags);
	if (k == -EAGAIN || k > 0)
		return k > 0 ? 0 : k;
	/* an end, or an error: but what X sent by RDMA before it is older (F3) */
	if (road_start(r, &S))
		return start_found(c, fd, S);
	if (k == 0)
		return -ENODATA;
	return k;
}

/* k is pump()'s answer, where the program has, or had, a low-water mark */
static ssize_t marked(struct conn *c, int fd, ssize_t k, struct need *n)
{
	lowat_follow(c, fd);
	if (!(atomic_load(&c->s->flags) & S_LOWAT_CUT))
		return k;
	if (k == -EAGAIN)
		lowat_kernel(c, fd, 1);
	if (k <= 0 || (uint64_t)k >= n->mark || n->end == AHEAD_END || (atomic_load(&c->s->flags) & S_SHUT_RD))
		return k;
	if (n->end == AHEAD_FIN) {	/* of which the kernel says "readable" for good */
		n->no_kernel = true;
		n->nap_ms = END_NAP_MS;
		return -EAGAIN;
	}
	return lowat_below(c, fd);
}

/* bytes, 0: look again, -EAGAIN: nothing, *n says how to wait; -ENODATA: end of stream; -errno */
static ssize_t pump(struct thr *t, struct conn *c, int fd, const struct vec *v, int flags, struct need *n)
{
	struct road *r = road_of(c);
	struct side *s = c->s;
	ssize_t k = 0;

	if (road_mine(r) && !n->polled)
		road_poll(r, 0);
	*n = (struct need){ .quick = n->quick, .mark = n->mark, .changes = road_changes(r) };
	if (!agreed_lock(t, c, fd, &s->rx_lock))
		return -ECONNRESET;
	cnt_add(&s->sleepers, 1);
	if (lowat_any(c))
		lowat_follow(c, fd);
	switch (atomic_load(&r->rs->ystate)) {
	case WSD_Y_GRANTED:
		k = granted(c, fd, v, flags);
		break;
	case WSD_Y_FRAMED:
		if (road_mine(r))
			agreed_grow_rx(c);
		/* fall through */
	case WSD_Y_DROPPING:
		k = framed(c, fd, v, flags, n);
		break;
	}
	if (unlikely(k == -EAGAIN && !n->quick && (atomic_load(&s->flags) & S_SHUT_RD)))
		k = -ENODATA;
	/* that was one step; a peek shows all that is there, as TCP does */
	if (k > 0 && (flags & MSG_PEEK) && (size_t)k < v->len) {
		k = agreed_ahead(c, fd, v, flags, (flags & MSG_WAITALL) || lowat_any(c) ? &n->end : NULL);
		if (k == -EAGAIN)
			k = 0;		/* Start is there */
		if (n->end == AHEAD_FIN && !ask_end(c))
			n->end = AHEAD_END;
	}
	if (lowat_any(c))
		k = marked(c, fd, k, n);
	cnt_add(&s->sleepers, -1u);
	agreed_unlock(&s->rx_lock);
	return k;
}

/* the road is gone: what was not granted, or not used, is plain for good */
void agreed_rx_dead(struct thr *t, struct conn *c, int fd)
{
	struct road *r = road_of(c);
	uint32_t y = atomic_load_explicit(&r->rs->ystate, memory_order_relaxed);

	if ((y != WSD_Y_PLAIN && y != WSD_Y_GRANTED) || !road_mine(r) || !road_dead(r) || !agreed_lock(t, c, fd, &c->s->rx_lock))
		return;
	y = atomic_load(&r->rs->ystate);
	if (y == WSD_Y_PLAIN)
		atomic_store(&r->rs->ystate, WSD_Y_DONE);
	else if (y == WSD_Y_GRANTED)
		give_up_grant(c);
	if (lowat_any(c))
		lowat_follow(c, fd);
	agreed_unlock(&c->s->rx_lock);
}

/* ---- grant (A1) ---- */

bool agreed_plain_in(struct conn *c)
{
	uint32_t y;

	atomic_thread_fence(memory_order_seq_cst);
	y = atomic_load(&road_of(c)->rs->ystate);
	return y == WSD_Y_PLAIN || y == WSD_Y_DONE;
}

static bool may_grant(struct conn *c)
{
	struct road *r = road_of(c);

	return atomic_load_explicit(&r->rs->ystate, memory_order_relaxed) == WSD_Y_PLAIN && road_mine(r) && !road_error(r) &&
	       !atomic_load(&r->rs->revoked) && !atomic_load(&r->leave) && !c->bad_regs &&
	       !(atomic_load(&c->s->flags) & (S_SHUT_RD | S_EOF | S_NO_OPEN | S_LOWAT | S_BROKEN | S_FOREIGN | S_CMSG));
}

/* rx_lock and open_lock held */
static void grant(struct conn *c, int fd)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint64_t w[2] = { r->epoch };

	if (!may_grant(c) || off_check_rx(c, fd) != 1 || r->p.hold(r->p.conn, 2) != 0)
		return;
	/* first the state, then who sleeps: a sleeper counts itself in, then reads the state */
	atomic_store(&rs->ystate, WSD_Y_GRANTED);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&c->s->sleepers) != 0 || !eset_grant(c)) {
		atomic_store(&rs->ystate, WSD_Y_PLAIN);
	} else {
		w[1] = wsd_remote_check(r->nonce, WSD_CTL_GRANT, w, 1);
		r->p.word(r->p.conn, WSD_CTL_GRANT, w, sizeof(w));
		r->p.nudge(r->p.conn);		/* who waits as a sender of nothing may start now */
		log_debug("conn %u: granted", c->index);
	}
	r->p.release(r->p.conn);
}

void agreed_grant(struct thr *t, struct conn *c, int fd)
{
	int e = errno;

	if (!may_grant(c) || !rx_touch(c) || !lock_try(&c->s->open_lock, thr_tid(t)))
		return;
	if (agreed_lock(t, c, fd, &c->s->rx_lock)) {
		grant(c, fd);
		agreed_unlock(&c->s->rx_lock);
	}
	lock_drop(&c->s->open_lock);
	errno = e;
}

/* ---- receive ---- */

static void want_return(struct conn *c)
{
	if (!(atomic_fetch_or(&road_of(c)->asked, 1u << WSD_SAN_WANT_RETURN) & (1u << WSD_SAN_WANT_RETURN)))
		agreed_ask(c, WSD_SAN_WANT_RETURN, 0, 0);
}

static ssize_t fail(int e)
{
	errno = e;
	return -1;
}

/* an error that was kept for the program; 0: none */
static int kept(struct side *s)
{
	return likely(!atomic_load_explicit(&s->kept_err, memory_order_relaxed)) ? 0 : atomic_exchange(&s->kept_err, 0);
}

/* The other direction has things to do that the kernel's receive does not wake up for: the peer asks it to return, or its return waits for room */
static bool sends(const struct road *r)
{
	uint32_t x = atomic_load_explicit(&r->rs->xstate, memory_order_relaxed);

	return x != WSD_X_PLAIN && x != WSD_X_DONE && x != WSD_X_ENDED && road_mine(r);
}

static ssize_t quick(struct thr *t, struct conn *c, const struct vec *v, int flags)
{
	return v->iov->iov_len - v->off < v->len ? 0 : agreed_recv_quick(t, c, (char *)v->iov->iov_base + v->off, v->len, flags);
}

ssize_t agreed_recv(struct thr *t, struct conn *c, int fd, struct vec *v, int flags)
{
	struct side *s = c->s;
	struct road *r = road_of(c);
	bool nb = (flags & MSG_DONTWAIT) || atomic_load_explicit(&s->nonblock, memory_order_relaxed);
	int64_t until = -1;
	struct need n = { 0 };
	/* the kernel, too; who may wait spins first, which costs no system call, where the last bytes came by the ring */
	bool ask = atomic_load_explicit(&r->by_frames, memory_order_relaxed);
	size_t got = 0, low = lowat_of(c) < v->len ? lowat_of(c) : v->len;	/* what is worth returning with */
	ssize_t k;
	int e;

	if (unlikely(flags & (MSG_OOB | MSG_ERRQUEUE)))		/* no stream byte moves */
		return real.recv(fd, v->n ? (char *)v->iov->iov_base + v->off : NULL, v->len, flags);
	if (unlikely(v->len == 0)) {
		/* a receive of nothing waits for data, or the end, all the same */
		char x;
		struct iovec io = { &x, 1 };
		struct vec one = { &io, 1, 0, 1 };

		k = agreed_recv(t, c, fd, &one, (flags & ~(MSG_WAITALL | MSG_TRUNC)) | MSG_PEEK);
		/* once it has waited the kernel's loop is over, for whatever reason */
		return k < 0 && (nb || (errno != EAGAIN && errno != EINTR)) ? -1 : 0;
	}
	if (unlikely((e = kept(s)) != 0))
		return fail(e);
	if (likely(road_mine(r)) && atomic_load_explicit(&r->rs->ystate, memory_order_relaxed) == WSD_Y_FRAMED) {
		road_poll(r, 0);
		n.polled = true;
		k = quick(t, c, v, flags);
		if (k > 0)
			return k;
	}
	rx_touch(c);
	agreed_flush(t, c);		/* who reads has an answer to wait for */
	if (unlikely(!road_mine(r)))
		want_return(c);		/* a second process: fork by itself returned nothing (A4) */
	for (;;) {
		uint32_t y, changes;
		bool beside, more;

		r = road_of(c);		/* another one after a renewal */
		if (unlikely(conn_get(fd) != c) && (fd = conn_number(c)) < 0)	/* closed while we slept: it may be another file's */
			return got ? (ssize_t)got : atomic_load(&s->flags) & S_SHUT_RD ? 0 : fail(EBADF);
		changes = road_changes(r);
		agreed_obey(t, c, fd, false);
		y = atomic_load(&r->rs->ystate);
		if (unlikely(got && y != WSD_Y_FRAMED && rx_at_mark(fd)))
			return (ssize_t)got;		/* reads stop before an urgent byte */
		if (y == WSD_Y_PLAIN || y == WSD_Y_DONE) {
			if (!nb)
				agreed_obey(t, c, fd, true);	/* it may sleep there */
			/* with a mark the kernel waits for all of it, as it is to; but not for what the road brought of it */
			more = got && got < low && !(flags & MSG_WAITALL);
			beside = !nb && (more || (sends(r) && (~flags & (MSG_PEEK | MSG_WAITALL)) && !lowat_any(c)));
			k = rx_plain(t, c, fd, v, beside || (got && !(flags & MSG_WAITALL)) ? flags | MSG_DONTWAIT : flags);
			if (k == RX_AGAIN)
				continue;
			if (k <= 0 && !got && unlikely((e = kept(s)) != 0))	/* met while the return was sent just now */
				return fail(e);
			if (unlikely(beside) && (k > 0 ? (size_t)k < v->len && ((flags & MSG_WAITALL) || got + (size_t)k < low)
						       : k < 0 && errno == EAGAIN && (!got || more || (flags & MSG_WAITALL)))) {
				if (k > 0) {
					got += (size_t)k;
					vec_skip(v, (size_t)k);
					continue;
				}
				if (until < 0)
					until = agreed_timeout(c, fd, SO_RCVTIMEO);
				k = road_sleep(t, c, fd, POLLIN | (agreed_rest(c) ? POLLOUT : 0), until, more ? LOW_NAP_MS : 0, changes);
				if (k < 0)
					return got ? (ssize_t)got : fail((int)-k);
				continue;
			}
			if (y == WSD_Y_PLAIN && (k > 0 || (k < 0 && errno == EAGAIN)) && !(flags & MSG_PEEK))
				agreed_grant(t, c, fd);
			if (k > 0)
				atomic_store_explicit(&r->in_row, 0, memory_order_relaxed);
			if (k == 0)
				atomic_fetch_or(&s->flags, S_EOF);
			if (k < 0 && nb && !got) {
				e = errno;
				agreed_obey(t, c, fd, true);
				errno = e;
			}
			return k > 0 ? (ssize_t)got + k : got ? (ssize_t)got : k;
		}
		n.quick = !nb && !ask && !got;	/* with bytes in hand all that is there goes with them, as in TCP */
		k = pump(t, c, fd, v, flags, &n);
		if (k > 0 && unlikely(flags & MSG_PEEK)) {
			if ((size_t)k < v->len && batch_ask(t, c, fd, &n.nap_ms))
				continue;
			if (nb || (!(flags & MSG_WAITALL) && (size_t)k >= low) || (size_t)k == v->len || n.end == AHEAD_END)
				return k;
			if (until < 0)
				until = agreed_timeout(c, fd, SO_RCVTIMEO);
			/* what is there stays there, so nothing tells that more comes */
			if (road_sleep(t, c, fd, 0, until, PEEK_NAP_MS, n.changes) < 0)
				return k;
			continue;
		}
		if (k > 0) {
			ask = false;
			atomic_store_explicit(&r->in_row, 0, memory_order_relaxed);
			got += (size_t)k;
			vec_skip(v, (size_t)k);
			if (v->len == 0)
				return (ssize_t)got;
			continue;
		}
		if (k == 0)
			continue;
		if (k == -ENODATA) {
			if (!got && unlikely((e = kept(s)) != 0))
				return fail(e);
			if (!got)
				atomic_fetch_or(&s->flags, S_EOF);
			return (ssize_t)got;
		}
		if (k != -EAGAIN) {
			if (got && k != -EFAULT)
				atomic_store(&s->kept_err, (int)-k);
			return got ? (ssize_t)got : fail((int)-k);
		}
		if (got >= low && !(flags & MSG_WAITALL))
			return (ssize_t)got;
		if (nb && !got && batch_ask(t, c, fd, &n.nap_ms))
			continue;
		if (nb && !got)
			agreed_obey(t, c, fd, true);	/* it is going to wait, or to turn in a loop that is as good as waiting */
		if (nb)
			return got ? (ssize_t)got : fail(EAGAIN);
		if (lowat_any(c) && agreed_plain_in(c))
			continue;	/* it returned just now, and the kernel's mark is the program's again */
		if (until < 0)
			until = agreed_timeout(c, fd, SO_RCVTIMEO);
		agreed_obey(t, c, fd, true);
		n.polled = road_spin(t, c, fd, n.no_kernel ? 0 : POLLIN, n.changes);
		if (n.polled && !got && (k = quick(t, c, v, flags)) > 0)
			return k;
		if (n.polled || !ask) {
			ask = true;	/* what ended the spin may be the kernel's; and before a sleep it is asked */
			continue;
		}
		agreed_credit_due(r, 2);
		if (batch_ask(t, c, fd, &n.nap_ms))
			continue;
		k = road_sleep(t, c, fd, (n.no_kernel ? 0 : POLLIN) | (agreed_rest(c) ? POLLOUT : 0), until, n.nap_ms, n.changes);
		if (k < 0)
			return got ? (ssize_t)got : fail((int)-k);
	}
}

/* ---- what waits and FIONREAD want to know ---- */

uint64_t agreed_ring_in(struct conn *c)
{
	struct road *r = road_of(c);
	uint64_t head = atomic_load(&r->rs->head), taken = atomic_load(&r->rs->taken);

	/* what TCP repeats is not what the ring brings */
	return r->taken_before + (atomic_load(&r->rs->ystate) == WSD_Y_FRAMED && head > taken ? head : taken);
}

/* readable now? What stands in the way of the next byte is taken (headers of frames without bytes, dropped bytes) */
static bool readable(struct thr *t, struct conn *c, int fd, struct need *n)
{
	char x;
	/* with a mark all bytes are counted up to it, and none shown */
	struct iovec io = { n->mark > 1 ? NULL : &x, n->mark > 1 ? n->mark : 1 };
	struct vec v = { &io, 1, 0, io.iov_len };
	ssize_t k;
	int i;

	for (i = 0; i < 64; i++) {
		k = pump(t, c, fd, &v, n->mark > 1 ? MSG_PEEK | MSG_TRUNC : MSG_PEEK, n);
		if (k < 0 && k != -EAGAIN && k != -ENODATA)
			atomic_store(&c->s->kept_err, (int)-k);		/* it is told once, and not to us */
		if (k)
			return k != -EAGAIN;
		if (agreed_plain_in(c))
			return false;	/* it returned: the kernel's answer counts, the caller asks it */
	}
	return true;
}

/* Bytes that receives would give now; *ret_before: those that the program has had. -EAGAIN: the direction is plain, the kernel knows; -errno */
static ssize_t all_ahead(struct thr *t, struct conn *c, int fd, uint64_t *ret_before)
{
	ssize_t k = -EAGAIN;
	int i;

	for (i = 0; i < 64 && k == -EAGAIN && !agreed_plain_in(c); i++) {
		struct need n = { 0 };
		struct road *r;

		(void)readable(t, c, fd, &n);	/* what stands in the way */
		batch_ask(t, c, fd, &n.nap_ms);
		if (!agreed_lock(t, c, fd, &c->s->rx_lock))
			return -ECONNRESET;
		if (!agreed_plain_in(c))
			k = agreed_ahead(c, fd, NULL, 0, NULL);
		r = road_of(c);
		*ret_before = atomic_load(&c->s->C) - atomic_load(&c->s->over_rx) + r->taken_before + atomic_load(&r->rs->taken);
		agreed_unlock(&c->s->rx_lock);
	}
	return k;
}

int64_t agreed_inq(struct thr *t, struct conn *c, int fd)
{
	int q = 0, e = errno;
	uint64_t before;
	ssize_t k = all_ahead(t, c, fd, &before);

	if (k == -ECONNRESET)
		return k;
	if (k < 0)
		k = real.ioctl(fd, SIOCINQ, &q) < 0 ? -errno : q;
	errno = e;
	return k;
}

uint64_t agreed_received(struct thr *t, struct conn *c, int fd, const struct tcp_info *kernel)
{
	int e = errno;
	uint64_t before;
	ssize_t k = all_ahead(t, c, fd, &before);

	errno = e;
	return k < 0 ? kernel->tcpi_bytes_received + agreed_ring_in(c) - atomic_load(&c->s->over_rx) : before + (uint64_t)k + off_fin(kernel->tcpi_state);
}

/* Headers and bytes that were had are not the program's: unread in the kernel at the last close they would reset the connection, and take with
 * them what we have sent */
void agreed_swallow(struct thr *t, struct conn *c, int fd)
{
	char x;
	struct iovec io = { &x, 1 };
	struct vec v = { &io, 1, 0, 1 };
	struct need n = { 0 };
	int i;

	for (i = 0; i < 64 && !agreed_plain_in(c); i++)
		if (pump(t, c, fd, &v, MSG_PEEK, &n))
			return;
}

uint32_t agreed_events(struct thr *t, struct conn *c, int fd, uint32_t wanted, uint32_t *ret_mask, unsigned *ret_nap)
{
	struct road *r = road_of(c);
	struct need n = { .mark = lowat_of(c) };
	uint32_t got = 0, x, y;
	int e = errno;

	*ret_mask = wanted;
	*ret_nap = 0;
	agreed_obey(t, c, fd, true);
	y = atomic_load(&r->rs->ystate);
	if (y != WSD_Y_PLAIN && y != WSD_Y_DONE && (wanted & (POLLIN | POLLRDNORM))) {
		if (readable(t, c, fd, &n) || (batch_ask(t, c, fd, ret_nap) && readable(t, c, fd, &n)))
			got |= wanted & (POLLIN | POLLRDNORM);
		if (n.no_kernel)
			*ret_mask &= ~(uint32_t)(POLLIN | POLLRDNORM | POLLRDHUP);
		if (n.nap_ms && (!*ret_nap || n.nap_ms < *ret_nap))
			*ret_nap = n.nap_ms;
		agreed_credit_due(r, 2);
	}
	if (unlikely(!road_mine(r)) && y != WSD_Y_PLAIN && y != WSD_Y_DONE) {
		/* a second process (A4): what the device brings to the first one nobody tells us */
		want_return(c);
		if (!*ret_nap || *ret_nap > CHILD_NAP_MS)
			*ret_nap = CHILD_NAP_MS;
	}
	x = atomic_load(&r->rs->xstate);
	if (road_waits(r, x)) {
		*ret_mask &= ~(uint32_t)(POLLOUT | POLLWRNORM);
		if (!*ret_nap || *ret_nap > 5)
			*ret_nap = 5;
	} else if (agreed_rest(c)) {
		*ret_mask |= POLLOUT;
	}
	if (unlikely(atomic_load_explicit(&r->ask_due, memory_order_relaxed)) && (!*ret_nap || *ret_nap > ASK_NAP_MS))
		*ret_nap = ASK_NAP_MS;
	errno = e;
	return got;
}

/* Nothing but the kernel's end of stream follows. (Behind our own shutdown something may.) */
static bool all_read(struct conn *c)
{
	return atomic_load(&road_of(c)->rs->y_end) || (atomic_load(&c->s->flags) & (S_EOF | S_SHUT_RD)) == S_EOF;
}

/* Under the lock: a grant may be under way that saw no reason to leave */
static bool plain_for_good(struct thr *t, struct conn *c, int fd)
{
	bool ok;

	if ((!agreed_plain_in(c) && !all_read(c)) || !agreed_lock(t, c, fd, &c->s->rx_lock))
		return false;
	ok = agreed_plain_in(c) || all_read(c);
	if (ok)
		atomic_store(&road_of(c)->rs->ystate, WSD_Y_DONE);
	agreed_unlock(&c->s->rx_lock);
	return ok;
}

bool agreed_rx_plain(struct thr *t, struct conn *c, int fd, unsigned ms)
{
	struct road *r = road_of(c);
	int64_t end = road_now() + (int64_t)ms * 1000000;
	uint32_t none = 0;
	bool asked = false, said = !road_mine(r);

	atomic_store(&r->rx_now, true);		/* whoever tells credit meanwhile does not take it back */
	atomic_compare_exchange_strong(&r->leave, &none, WSD_R_OPTION);
	for (;;) {
		struct need n = { 0 };

		if (plain_for_good(t, c, fd))
			return true;
		if (!said)
			said = credit(r, WSD_CREDIT_RETURN);
		if (!asked) {
			asked = true;
			agreed_ask(c, WSD_SAN_WANT_RETURN, 0, 0);
		}
		(void)readable(t, c, fd, &n);
		if (plain_for_good(t, c, fd))
			return true;
		if (road_now() >= end)
			return false;
		thr_nap(500);
	}
}
