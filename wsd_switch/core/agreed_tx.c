/* SPDX-License-Identifier: MIT */
/*
 * agreed_tx.c - sending over a road (X's half of the agreed cut-over)
 *
 *   PLAIN --- granted, quiet, counted senders out --> STARTING --- the read-back is complete --> FRAMED
 *                                                        | it failed: the daemons decide
 *                                                        v
 *                                                     UNDECIDED --- taken --> RETURNING, void --> DONE
 *   FRAMED --- a reason to leave --> RETURNING --- RETURN and its backlog are TCP's, or the peer has `plain` --> DONE
 *   FRAMED --- shutdown, close --> ENDED
 *
 * Invariants:
 *   - all of it under tx_lock, and nothing under it sleeps;
 *   - what send() returned for is posted (rs->posted was raised: then the road, or A4's backlog, or the daemon (A7) brings it), or TCP has it;
 *   - a put is made only when no frame is half sent, and, when TCP bytes came since the last one, behind a seam (A3);
 *   - a frame is described in the session memory before the kernel is given its first byte; how far it is, H says.
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "wsd_switch/core/agreed.h"
#include "wsd_switch/core/ring.h"

#define PUT_MAX		(64u << 10)	/* bytes of one put */
#define FRAME_NB	(64u << 10)	/* a frame binds what comes next to TCP: not more than what the kernel may take at once */
#define FRAME_MAX	(256u << 10)	/* the same for who waits until all is sent */
#define START_BYTES	(64u << 10)	/* sent since the grant was seen: time to start without waiting for a wait */
#define NB_LEAST_US	1000		/* a non-blocking sender waits this long for its own Start, */
#define NB_WAIT_US	50000		/* or so, as long as all of them together do not wait for more than ... */
#define NB_NAPS		200u		/* looks behind that time that it has all the same, ... */
#define NB_NAPS_LEAST	20u		/* ... or so many where the device would have said that the path is dead, ... */
#define NB_MOST_US	500e3		/* ... after this */
#define NB_ALL_US	200e3
#define NB_EACH_US	2e6		/* ... in this time */
#define NB_NAP_US	50
#define START_US	5e6		/* A2: for the device to say that Start is there, or that it is not */
#define START_LOOKS	20u
#define DECIDE_US	3e6		/* A2: for the daemons */
#define PLAIN_US	15e6		/* A4: they say sooner that they cannot say */
#define ROOM_NAP_MS	1
#define POLL_BATCH_US	20
#define SPLICE_PAGE	4096u		/* less than a writable socket has room for */

struct want {
	short events;		/* of the kernel */
	unsigned nap_ms;	/* look again after so long anyway; 0: somebody will wake us */
};

/* bytes from memory of ours and of the program, never sleeping, never a signal, no cancellation point. H counts them. */
static ssize_t give(struct conn *c, int fd, struct iovec *io, int n, bool more)
{
	struct msghdr m = { .msg_iov = io, .msg_iovlen = (size_t)n };
	ssize_t r = real.syscall(SYS_sendmsg, fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));

	if (r > 0)
		cnt_add64(&c->s->H, (uint64_t)r);
	return r < 0 ? -errno : r;
}

/* Sent when the program did not ask: the kernel tells an error once, and who asks next must hear it. (EPIPE is told again.) */
static void keep(struct conn *c, ssize_t r)
{
	if (r < 0 && r != -EAGAIN && r != -EPIPE)
		atomic_store(&c->s->kept_err, (int)-r);
}

/* n bytes of the source ring at off as iovecs */
static int ring_iov(const struct road *r, uint64_t off, uint64_t n, struct iovec *io)
{
	bool one = off >= atomic_load(&r->rs->ring1_from);
	uint32_t size = one ? road_tx_size(r) : r->ring0, at = (uint32_t)(off & (size - 1));
	uint64_t k = n < size - at ? n : size - at;

	/* up to where ring 1 begins; the rest comes with the next call */
	if (!one && off + k > atomic_load(&r->rs->ring1_from))
		k = atomic_load(&r->rs->ring1_from) - off;
	io[0] = (struct iovec){ r->tx[one] + at, k };
	return 1;
}

/*
 * What is left of the frame under way: its header, then payload, the program's (DATA) or the ring's (RETURN). v may be NULL. Bytes of v
 * that went, or -errno.
 */
static ssize_t push(struct conn *c, int fd, const struct vec *v)
{
	struct road *r = road_of(c);
	uint8_t hdr[WSD_FRAME_SIZE];
	struct iovec io[66];
	uint64_t h = atomic_load(&c->s->H), payload;
	uint32_t header, kind = atomic_load(&r->rs->frame_kind);
	bool more;
	ssize_t k;
	int n = 0;

	road_frame_left(r, h, &header, &payload);
	if (h == atomic_load(&r->rs->frame_H)) {	/* a new one */
		header = WSD_FRAME_SIZE;
		payload = atomic_load(&r->rs->frame_len);
	}
	if (header) {
		road_frame_header(r, hdr);
		io[n++] = (struct iovec){ hdr + WSD_FRAME_SIZE - header, header };
	}
	if (payload && atomic_load(&r->rs->frame_kind) == WSD_FRAME_RETURN)
		n += ring_iov(r, atomic_load(&r->rs->frame_off) + atomic_load(&r->rs->frame_len) - payload, payload, io + n);
	else if (payload && v)
		n += vec_iov(v, payload < v->len ? payload : v->len, io + n, 64);
	if (!n)
		return 0;
	/* A send that crosses the end of an open frame: TCP makes one segment of it, and who sleeps in recv() gets it whole. The next frame, or RETURN and
	 * the plain bytes behind it, push it out; should they not come TCP itself does, soon */
	more = kind == WSD_FRAME_DATA ? !header && v && v->len > payload && !cfg.no_overflow : r->held && kind == WSD_FRAME_RETURN;
	k = give(c, fd, io, n, more);
	if (k < 0)
		return k;
	r->held = more;
	r->last_tcp = tsc_now();
	cnt_add64(&c->s->over_tx, atomic_load(&r->rs->frame_kind) == WSD_FRAME_RETURN ? (uint64_t)k :
				  (uint64_t)k < header ? (uint64_t)k : header);
	return k > header && atomic_load(&r->rs->frame_kind) == WSD_FRAME_DATA ? k - header : 0;
}

/* ---- puts ---- */

/* a put of n bytes of v, or they are kept back for the next one; 0: not now, -EFAULT */
static ssize_t put(struct conn *c, const struct vec *v, uint32_t n, bool flood)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint64_t posted = atomic_load_explicit(&rs->posted, memory_order_relaxed);
	uint32_t ring = posted >= atomic_load_explicit(&rs->ring1_from, memory_order_relaxed), size = ring ? road_tx_size(r) : r->ring0;
	struct wsd_seam seam;
	int due = road_seam(r, atomic_load_explicit(&c->s->H, memory_order_relaxed), &seam), k = 0;
	uint64_t t0;

	if (due < 0 || (due > 0 && !batch_flush(c)) || r->p.hold(r->p.conn, 4) != 0)
		return 0;
	if (unlikely(!ring_fill(r->tx[ring], size - 1, (uint32_t)(posted & (size - 1)), v, 0, n))) {
		r->p.release(r->p.conn);
		return -EFAULT;
	}
	if (due) {
		rs->seam[seam.n % WSD_REMOTE_SEAMS] = seam;
		atomic_store_explicit(&rs->seam_n, seam.n, memory_order_relaxed);
	}
	atomic_store_explicit(&r->sender, thr_tid(thr_get()), memory_order_relaxed);
	/* from here on nothing keeps these bytes from arriving */
	atomic_store_explicit(&rs->posted, posted + n, memory_order_release);
	cnt_add64(&c->s->put, n);
	if (!due && batch_keep(r)) {
		r->p.release(r->p.conn);
		return n;
	}
	t0 = flood || r->batch ? tsc_now() : 0;
	k = batch_word(r, n, flood);
	if (due && !k) {
		uint64_t w[4] = { seam.ring_off, seam.tcp_off, (uint64_t)seam.ring << 32 | seam.n, seam.check };

		k = r->p.word(r->p.conn, (uint32_t)WSD_CTL_SEAM(seam.n % WSD_REMOTE_SEAMS), w, sizeof(w));
	}
	if (!k)
		k = batch_put(r);
	r->p.release(r->p.conn);
	if (t0)
		batch_cost(r, t0);
	/* hold() promised room: a road that refuses all the same is not used again, and the return brings these bytes (A4) */
	if (unlikely(k))
		agreed_leave(c, WSD_R_RDMA_FAILED);
	return n;
}

/* Half of a ring, so that the other half is under way meanwhile; but what has room as a whole arrives at once, as one segment of TCP's does: *ret_whole */
static uint32_t put_most(const struct road *r, size_t len, bool *ret_whole)
{
	uint32_t size = road_tx_size(r), most = size / 2 < PUT_MAX ? size / 2 : PUT_MAX;

	*ret_whole = len <= size && len <= PUT_MAX;
	return len <= most || (*ret_whole && road_room(r) >= len) ? (uint32_t)len : most;
}

/* how many bytes a put of the vec may have; 0: TCP's turn */
static uint32_t put_size(struct conn *c, size_t len)
{
	struct road *r = road_of(c);
	bool whole;
	uint32_t flags, n = put_most(r, len, &whole);

	if (road_room(r) >= n && (n == len || !whole))
		return n;
	road_credit(r, &flags);
	r->p.poll(r->p.conn);
	n = put_most(r, len, &whole);
	if (road_room(r) >= n && (n == len || !whole))
		return n;
	batch_flush(c);
	agreed_grow_tx(c);
	n = put_most(r, len, &whole);
	/* not a part by each road: as a frame it arrives whole, too */
	return road_room(r) >= n && (n == len || !whole || cfg.no_overflow) ? n : 0;
}

/* ---- start (A2) ---- */

/* tx_lock held, PLAIN */
static void start(struct conn *c, int fd)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint64_t w[3];
	bool ok;
	int k;

	if (!lock_try(&c->s->open_lock, thr_tid(thr_get())))
		return;
	/* Others see a start, and wait for its end: one that cannot be is none. Looked at again below */
	if (atomic_load(&c->s->in_send) != 0 || !eset_may_wake(c)) {
		lock_drop(&c->s->open_lock);
		return;
	}
	atomic_store(&rs->xstate, WSD_X_STARTING);	/* then the sets, then the senders, then H (F13) */
	atomic_thread_fence(memory_order_seq_cst);
	/* sets that wait for it are woken by roads from here on (F15). One that is put into another meanwhile sees us, or we see that (eset_mark_nested) */
	ok = eset_wake(c);
	lock_drop(&c->s->open_lock);
	if (!ok || atomic_load(&c->s->in_send) != 0)
		goto not_now;
	k = off_check_tx_loose(c, fd);
	if (k < 0) {
		atomic_store(&rs->xstate, WSD_X_DONE);
		agreed_ask(c, WSD_SAN_BROKEN, EBADMSG, 0);
		return;
	}
	if (k == 0 || r->p.hold(r->p.conn, 3 | WSD_HOLD_WORDS) != 0)
		goto not_now;
	w[0] = atomic_load(&c->s->H);
	w[1] = r->epoch;
	w[2] = wsd_remote_check(r->nonce, WSD_CTL_START, w, 2);
	atomic_store(&rs->frame_H, ~0ull);
	atomic_store(&rs->S, w[0]);
	r->fetch_want = atomic_load(&r->p.state->fetched) + 1;
	r->start_when = tsc_now();
	r->start_looks = 0;
	r->p.word(r->p.conn, WSD_CTL_START, w, sizeof(w));
	r->p.fetch(r->p.conn, WSD_CTL_START + 16);
	r->p.release(r->p.conn);
	return;
not_now:
	atomic_store(&rs->xstate, WSD_X_PLAIN);
	/* only for who waits: a change of our own would keep ourselves awake, start after start */
	if (unlikely(atomic_exchange(&r->start_seen, false))) {
		atomic_fetch_add(&road_gen, 1);
		waiters_tell();
	}
}

/*
 * While the direction is framed Nagle's algorithm is off: it would hold back the end of a frame until the peer acknowledges what is before it, and
 * the next bytes, which go by the ring, do not push it out. The program is shown, and gets back, what it set (calls/sock.c).
 */
static void nagle_off(struct conn *c, int fd)
{
	struct side *s = c->s;
	int v = 1, one = 1;
	socklen_t l = sizeof(v);
	uint32_t none = 0;

	if (real.getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &l) < 0 || v)
		return;
	atomic_compare_exchange_strong(&s->nodelay_set, &none, 2);	/* as if it had set what it has */
	atomic_fetch_or(&s->nodelay_push, 1);
	real.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void nagle_back(struct conn *c, int fd)
{
	struct side *s = c->s;
	int v;

	if (!(atomic_load(&s->nodelay_push) & 1))
		return;
	v = (int)(atomic_load(&s->nodelay_set) & 1);
	real.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, sizeof(v));
	atomic_store(&s->nodelay_push, (atomic_load(&s->nodelay_push) + 1) & ~1u);
}

/*
 * tx_lock held, FRAMED. A flood that goes by TCP is TCP's to collect: no ring bytes stand behind its frames, and before some do the algorithm is
 * off again, which sends what was held.
 */
static void nagle_now(struct conn *c, int fd, bool flood)
{
	struct road *r = road_of(c);

	if (likely(r->nagled == flood))
		return;
	r->nagled = flood;
	if (flood)
		nagle_back(c, fd);
	else
		nagle_off(c, fd);
}

/* tx_lock held, STARTING: has it arrived? */
static void started(struct conn *c, int fd)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;

	if (road_mine(r)) {
		r->p.poll(r->p.conn);
		if (atomic_load(&r->p.state->fetched) == r->fetch_want) {
			r->last_tcp = tsc_now();
			atomic_store(&rs->xstate, WSD_X_FRAMED);
			nagle_off(c, fd);
			log_debug("conn %u: sends by RDMA from TCP offset %llu on", c->index, (unsigned long long)atomic_load(&rs->S));
			return;
		}
		/* a look may find another thread at it */
		if (!road_error(r) && (++r->start_looks < START_LOOKS || tsc_now() - r->start_when < (uint64_t)US(START_US)))
			return;
		if (!road_error(r)) {
			/* a device says after its retries that a path is gone, a few seconds at most. This one says nothing, and would for ever */
			log_warn("conn %u: the device does not answer", c->index);
			r->p.stop(r->p.conn, 0);
		}
	}
	/* nobody here knows: the daemons decide (A2). A child cannot see the parent's completion (F10). */
	atomic_store(&rs->xstate, WSD_X_UNDECIDED);
	r->asked_when = tsc_now();
	agreed_ask(c, WSD_SAN_DECIDE, 0, 0);
}

/* tx_lock held, UNDECIDED */
static void decided(struct conn *c, int fd)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;

	switch (atomic_load(&rs->decided)) {
	case WSD_DECIDED_TAKEN:
		atomic_store(&rs->xstate, WSD_X_FRAMED);	/* and the error has it return at once */
		return;
	case WSD_DECIDED_VOID:
		atomic_store(&rs->xstate, WSD_X_DONE);
		return;
	case WSD_DECIDED_NOT_YET:
		if (!r->asked_when) {	/* another process of this end came to it */
			r->asked_when = tsc_now();
			agreed_ask(c, WSD_SAN_DECIDE, 0, 0);
		}
		if (tsc_now() - r->asked_when < (uint64_t)US(DECIDE_US))
			return;
	}
	atomic_store(&rs->xstate, WSD_X_DONE);
	conn_reset(c, fd, "the path failed while the direction was being started, and the daemons cannot say on which side of it");
}

/* ---- return (A4) ---- */

static bool must_return(struct conn *c, bool ask)
{
	struct road *r = road_of(c);
	uint32_t flags = 0;

	if (ask && road_mine(r)) {
		sig_hold();
		r->p.poll(r->p.conn);
		sig_release();
	}
	road_credit(r, &flags);
	if (unlikely(flags & WSD_CREDIT_NOW))
		atomic_store_explicit(&r->now_plain, 1, memory_order_relaxed);
	return road_error(r) || atomic_load_explicit(&r->rs->peer_left, memory_order_relaxed) || (flags & WSD_CREDIT_RETURN) || atomic_load_explicit(&r->leave, memory_order_relaxed) ||
	       atomic_load_explicit(&r->rs->revoked, memory_order_relaxed) || atomic_load_explicit(&r->rs->x_return, memory_order_relaxed);
}

/*
 * tx_lock held. Nobody holds the peer's socket: its kernel would answer what we send with a reset, and throw away what its program sent before it
 * went. So nothing of ours is sent any more; what the program sends from here on is plain, and gets TCP's answer.
 */
static void left(struct conn *c, int fd)
{
	struct road *r = road_of(c);

	atomic_store(&r->rs->rest, 0);
	nagle_back(c, fd);
	atomic_store(&r->rs->xstate, WSD_X_DONE);
	log_debug("conn %u: the peer has left", c->index);
}

/* tx_lock held, FRAMED: no more puts from here on */
static void return_begin(struct conn *c)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint64_t posted = atomic_load(&rs->posted), cursor = atomic_load(&rs->cursor);

	atomic_store(&rs->xstate, WSD_X_RETURNING);
	log_debug("conn %u: returns to TCP (error %d, leave %u, revoked %u), %llu ring bytes not known to be read", c->index, road_error(r),
		  atomic_load(&r->leave), atomic_load(&rs->revoked), (unsigned long long)(posted - cursor));
	/*
	 * Ring bytes that stand before a frame which TCP has cannot come behind it. The daemons bring them, also where the road is whole: it may
	 * fail before they have arrived, and nobody looks then. (frame_off may be of a frame of which TCP took nothing so far; one that
	 * it took may stand before that.)
	 */
	if (posted > cursor && atomic_load(&c->s->H) > atomic_load(&rs->S))
		agreed_ask(c, WSD_SAN_FILL, cursor, posted);
	if (road_mine(r) && road_error(r))
		agreed_ask(c, WSD_SAN_BROKEN, (uint64_t)-road_error(r), 0);
	atomic_store(&rs->rest, 1);
}

/* the peer knows plain_H */
static bool known_plain(const struct road *r)
{
	return atomic_load(&r->rs->plain_there) == 1 || (r->plain_put && (int32_t)(atomic_load(&r->p.state->fetched) - r->fetch_want) >= 0);
}

/*
 * tx_lock held, RETURNING. Payload is open that the program may never send, and RETURN cannot stand before it. Where somebody waits for the
 * return the peer is told by its control page that the stream is plain behind it, which makes it plain at once; of the ring it has all that was
 * before the frame, or gets it from the daemons. Nothing is sent until that is known to be there (A2). Who has no road for that, or none any more,
 * or a device that does not answer, has the daemons say the same: whichever comes first, or both. Only if these are silent, too, can nobody
 * say how the peer reads what follows: so this is not done without need.
 */
static void return_at(struct conn *c, int fd, uint64_t end)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint32_t fetched = atomic_load(&r->p.state->fetched);
	uint64_t w[2] = { end };
	uint32_t flags;

	road_credit(r, &flags);
	if (flags & WSD_CREDIT_NOW)
		atomic_store(&r->now_plain, 1);
	if (!atomic_load(&rs->plain_H)) {
		if (!atomic_load(&r->now_plain))
			return;
		if (road_mine(r) && !road_error(r)) {
			if (road_dead(r) || !batch_flush(c) || r->p.hold(r->p.conn, 2 | WSD_HOLD_WORDS) != 0)
				return;
			w[1] = wsd_remote_check(r->nonce, WSD_CTL_PLAIN, w, 1);
			r->fetch_want = r->out_fetch = ((int32_t)(r->out_fetch - fetched) > 0 ? r->out_fetch : fetched) + 1;
			r->plain_put = true;
			atomic_store(&rs->plain_H, end);
			r->p.word(r->p.conn, WSD_CTL_PLAIN, w, sizeof(w));
			r->p.fetch(r->p.conn, WSD_CTL_START + 16);
			r->p.release(r->p.conn);
			r->asked_when = tsc_now();
		} else {
			atomic_store(&rs->plain_H, end);
		}
	}
	if (road_mine(r))
		r->p.poll(r->p.conn);
	/* not by our device: a child does not see it arrive, and the path may be gone */
	if (!known_plain(r) && !(atomic_load(&r->asked) & (1u << WSD_SAN_PLAIN))) {
		if (r->plain_put && !road_error(r) && tsc_now() - r->asked_when < (uint64_t)US(START_US))
			return;
		if (r->plain_put && road_mine(r) && !road_error(r))
			r->p.stop(r->p.conn, 0);	/* one that never answers; where a child spoke first ours was not asked */
		r->asked_when = tsc_now();
		atomic_fetch_or(&r->asked, 1u << WSD_SAN_PLAIN);
		agreed_ask(c, WSD_SAN_PLAIN, end, 0);
	}
	if (known_plain(r)) {
		atomic_store(&rs->rest, 0);
		nagle_back(c, fd);
		atomic_store(&rs->xstate, WSD_X_DONE);
		log_debug("conn %u: plain within a frame that ends at TCP offset %llu", c->index, (unsigned long long)end);
		return;
	}
	/* an outage that takes the path takes their link, too, and may pass; a parent may hear of its word meanwhile */
	if (tsc_now() - r->asked_when < (uint64_t)US(atomic_load(&rs->plain_there) == 2 ? DECIDE_US : PLAIN_US))
		return;
	atomic_store(&rs->xstate, WSD_X_DONE);
	conn_reset(c, fd, "the path failed while the direction returned within a frame, and the daemons cannot say whether the peer has heard of it");
}

/* tx_lock held, RETURNING: as much as TCP takes. A DATA frame that is half sent is the program's to finish. 0 or -errno */
static ssize_t return_go(struct conn *c, int fd)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;

	for (;;) {
		uint64_t h = atomic_load(&c->s->H), at = atomic_load(&rs->frame_H), payload, cursor;
		uint32_t header, flags;
		ssize_t k;

		road_frame_left(r, h, &header, &payload);
		if (at != ~0ull && h > at && atomic_load(&rs->frame_kind) == WSD_FRAME_RETURN) {
			if (!header && !payload) {
				atomic_store(&rs->rest, 0);
				nagle_back(c, fd);
				atomic_store(&rs->xstate, WSD_X_DONE);
				return 0;
			}
		} else if (!header && !payload) {
			road_credit(r, &flags);
			cursor = atomic_load(&rs->cursor);
			road_frame_set(r, h, WSD_FRAME_RETURN, (uint32_t)(atomic_load(&rs->posted) - cursor), cursor);
		} else if (!header) {
			return_at(c, fd, h + payload);
			return 0;
		}
		k = push(c, fd, NULL);
		if (k == -EPIPE) {	/* behind a FIN, or a reset: the daemons have the rest to bring (A7) */
			atomic_store(&rs->rest, 0);
			atomic_store(&rs->xstate, WSD_X_ENDED);
		}
		if (k < 0 || atomic_load(&c->s->H) == h)
			return k == -EAGAIN ? 0 : k;
	}
}

bool agreed_rest(const struct conn *c)
{
	const struct road *r = road_of(c);
	uint64_t payload;
	uint32_t header;

	if (likely(!atomic_load_explicit(&r->rs->rest, memory_order_relaxed)))
		return false;
	road_frame_left(r, atomic_load(&c->s->H), &header, &payload);
	return header || !payload || atomic_load(&r->rs->frame_kind) != WSD_FRAME_DATA;
}

/* ---- keeping the connection (A9) ---- */

static bool due_quiet(const struct road *r)
{
	return (int64_t)(r->now - r->last_tcp) > (int64_t)US(ROAD_QUIET_US);
}

/* tx_lock held, no frame under way, a put was just made. What the kernel does not take now is due again at the next send. */
static void quiet(struct conn *c, int fd)
{
	struct road *r = road_of(c);

	batch_flush(c);
	road_frame_set(r, atomic_load(&c->s->H), WSD_FRAME_EMPTY, 0, atomic_load(&r->rs->posted));
	keep(c, push(c, fd, NULL));
}

/* ---- steps ---- */

/* bytes of v that are sent now; 0: *w says what to wait for (events 0 and nap 0: look again at once); -errno */
static ssize_t step(struct thr *t, struct conn *c, int fd, const struct vec *v, bool nb, struct want *w)
{
	struct side *s = c->s;
	struct road *r = road_of(c);
	uint64_t h, payload;
	uint32_t header, x, n;
	ssize_t k = 0;

	*w = (struct want){ 0, 0 };
	if (!agreed_lock(t, c, fd, &s->tx_lock))
		return -ECONNRESET;
	x = atomic_load(&r->rs->xstate);
	h = atomic_load(&s->H);
	road_frame_left(r, h, &header, &payload);
	if (x == WSD_X_RETURNING && !((header || payload) && atomic_load(&r->rs->frame_kind) == WSD_FRAME_DATA)) {
		k = return_go(c, fd);
		if (atomic_load(&r->rs->xstate) == WSD_X_RETURNING)
			w->events = POLLOUT;
		agreed_unlock(&s->tx_lock);
		return k;
	}
	if (x != WSD_X_FRAMED && x != WSD_X_RETURNING) {
		agreed_unlock(&s->tx_lock);
		return 0;
	}
	if (unlikely(road_waits(r, x))) {
		agreed_unlock(&s->tx_lock);
		return 0;
	}
	/* shut down, perhaps while Start was under way: nothing is put behind a FIN */
	if (unlikely(atomic_load_explicit(&s->flags, memory_order_relaxed) & S_SHUT_WR)) {
		agreed_unlock(&s->tx_lock);
		return -EPIPE;
	}
	if (unlikely(header && atomic_load(&r->rs->frame_kind) == WSD_FRAME_EMPTY)) {
		k = push(c, fd, NULL);
		h = atomic_load(&s->H);
		road_frame_left(r, h, &header, &payload);
	}
	if (unlikely(k < 0)) {
		;
	} else if (header || payload) {
		k = push(c, fd, v);
	} else {
		bool own = road_mine(r) && !road_error(r), flood = false, tcp = own && bulk_by_tcp(r, v->len, &flood);

		n = own && !tcp && likely(!r->held) ? put_size(c, v->len) : 0;
		nagle_now(c, fd, tcp && v->len < BULK_LEN);
		if (n)
			k = put(c, v, n, flood);
		if (k > 0 && unlikely(due_quiet(r)))
			quiet(c, fd);
		if (k == 0 && cfg.no_overflow && !road_error(r)) {
			w->nap_ms = ROOM_NAP_MS;
			agreed_unlock(&s->tx_lock);
			return 0;
		}
		if (k == 0) {
			uint32_t max = nb ? FRAME_NB : FRAME_MAX;

			batch_flush(c);		/* they come before it; if they cannot go now, they are fetched */
			road_frame_set(r, h, WSD_FRAME_DATA, v->len < max ? (uint32_t)v->len : max, atomic_load(&r->rs->posted));
			k = push(c, fd, v);
			if (unlikely(k == 0))	/* the header alone: the kernel says why no byte went with it */
				k = push(c, fd, v);
		}
	}
	if (k > 0)
		bulk_sent(r, v->len, (size_t)k);
	agreed_unlock(&s->tx_lock);
	if (k == -EAGAIN || k == 0) {
		w->events = POLLOUT;
		return 0;
	}
	return k;
}

/* ---- what is due ---- */

static bool try_start(struct conn *c, bool at_wait)
{
	struct road *r = road_of(c);
	uint64_t h = atomic_load_explicit(&c->s->H, memory_order_relaxed);

	if (!road_mine(r) || road_error(r) || atomic_load(&r->leave) || atomic_load(&r->rs->revoked) || atomic_load(&r->rs->x_return) || atomic_load(&r->rs->peer_left) ||
	    (atomic_load(&c->s->flags) & (S_SHUT_WR | S_BROKEN | S_FOREIGN | S_NO_PUT)) || !road_granted(r))
		return false;
	if (!r->granted_H)
		r->granted_H = h + 1;
	return at_wait || h + 1 - r->granted_H >= START_BYTES;
}

void agreed_obey(struct thr *t, struct conn *c, int fd, bool at_wait)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint32_t x = atomic_load_explicit(&rs->xstate, memory_order_relaxed);
	int e = errno;

	if (unlikely(atomic_load_explicit(&rs->leave, memory_order_relaxed)) && !atomic_load_explicit(&r->leave, memory_order_relaxed))
		agreed_leave(c, WSD_R_EXEC);
	if (unlikely(atomic_load_explicit(&r->ask_due, memory_order_relaxed)))
		agreed_ask_due(t, c);
	switch (x) {
	case WSD_X_PLAIN:
		if (!try_start(c, at_wait) && !(road_mine(r) && road_dead(r)))
			return;
		break;
	case WSD_X_FRAMED:
		if (likely(road_mine(r) && !must_return(c, at_wait))) {
			if (at_wait)
				agreed_flush(t, c);
			return;
		}
		break;
	case WSD_X_DONE:
		agreed_rx_dead(t, c, fd);
		agreed_renew(t, c);
		return;
	case WSD_X_ENDED:
		/* what was posted before the end, over a path that died since */
		if (likely(!road_mine(r) || atomic_load(&rs->posted) == atomic_load(&rs->cursor)))
			return;
		if (at_wait) {
			sig_hold();
			r->p.poll(r->p.conn);
			sig_release();
		}
		if (unlikely(road_error(r)) && !(atomic_fetch_or(&r->asked, 1u << WSD_SAN_FILL) & (1u << WSD_SAN_FILL)))
			agreed_ask(c, WSD_SAN_FILL, atomic_load(&rs->cursor), atomic_load(&rs->posted));
		return;
	}
	if (!agreed_lock(t, c, fd, &c->s->tx_lock))
		return;
	/* it may be another state by now */
	x = atomic_load(&rs->xstate);
	if (x == WSD_X_PLAIN && road_mine(r) && road_dead(r))
		atomic_store(&rs->xstate, WSD_X_DONE);
	else if (x == WSD_X_PLAIN && try_start(c, at_wait))
		start(c, fd);
	else if (x == WSD_X_STARTING)
		started(c, fd);
	else if (x == WSD_X_UNDECIDED)
		decided(c, fd);
	x = atomic_load(&rs->xstate);
	if (x != WSD_X_ENDED && x != WSD_X_DONE && atomic_load(&rs->peer_left))
		left(c, fd);
	else if (x == WSD_X_FRAMED && must_return(c, false))
		return_begin(c);
	if (atomic_load(&rs->xstate) == WSD_X_RETURNING)
		keep(c, return_go(c, fd));
	agreed_unlock(&c->s->tx_lock);
	errno = e;
}

bool agreed_plain_out(struct conn *c)
{
	uint32_t x;

	atomic_thread_fence(memory_order_seq_cst);
	x = atomic_load(&road_of(c)->rs->xstate);
	return x == WSD_X_PLAIN || x == WSD_X_DONE;
}

/* ---- send ---- */

/* as the kernel does for who did not say MSG_NOSIGNAL */
static ssize_t broken_pipe(struct thr *t, int flags)
{
	if (!(flags & MSG_NOSIGNAL))
		real.syscall(SYS_tgkill, getpid(), thr_tid(t), SIGPIPE);
	errno = EPIPE;
	return -1;
}

/*
 * May a non-blocking sender wait for its own Start any longer? That is a round trip; but where the path is dead its loop has others to serve: all
 * together, in this process, wait NB_ALL_US of NB_EACH_US
 */
struct start_wait {
	uint64_t since;		/* ticks; 0: it does not wait */
	unsigned naps;
};

static bool start_patience(struct start_wait *w, uint64_t now)
{
	static _Atomic uint64_t begun, spent;	/* ticks: this stretch of time, and what was waited in it */
	uint64_t b = atomic_load_explicit(&begun, memory_order_relaxed), took = now - w->since;

	if (!b || (int64_t)(now - b) > (int64_t)US(NB_EACH_US)) {
		atomic_store_explicit(&begun, now, memory_order_relaxed);
		atomic_store_explicit(&spent, 0, memory_order_relaxed);
	}
	if (took <= (uint64_t)US(NB_LEAST_US))
		return true;
	/* a machine that has other things to do makes both slow, the round trip and our looks: time alone does not count */
	if ((took > (uint64_t)US(NB_WAIT_US) && w->naps++ > (took > (uint64_t)US(NB_MOST_US) ? NB_NAPS_LEAST : NB_NAPS)) ||
	    atomic_load_explicit(&spent, memory_order_relaxed) > (uint64_t)US(NB_ALL_US))
		return false;
	atomic_fetch_add_explicit(&spent, (uint64_t)US(NB_NAP_US), memory_order_relaxed);
	return true;
}

/* Start is under way, or undecided: its round trip. 0: look again; -errno */
static int wait_start(struct thr *t, struct conn *c, int fd, bool nb, int64_t until, struct start_wait *w, uint32_t changes)
{
	struct road *r = road_of(c);
	uint64_t now = tsc_now();

	atomic_store(&r->start_seen, true);	/* first this, then a look: see start() */
	if (!road_waits(r, atomic_load(&r->rs->xstate)))
		return 0;
	if (!w->since)
		w->since = now;
	if (road_spin(t, c, fd, 0, changes))
		return 0;
	if (!nb)
		return road_sleep(t, c, fd, 0, until, 10, changes);
	if (!start_patience(w, now)) {
		eset_owe_out(c);	/* its end is an edge */
		r = road_of(c);
		/* over meanwhile: who looked at that knew of no edge that is due, and sleeps */
		return road_waits(r, atomic_load(&r->rs->xstate)) ? -EAGAIN : 0;
	}
	thr_nap(NB_NAP_US);
	return 0;
}

/* overflow is off: the peer's credit comes without a signal. true: there is room */
static bool wait_credit(struct thr *t, struct conn *c, size_t len)
{
	struct road *r = road_of(c);
	uint64_t t0 = tsc_now();
	bool ok = false;

	uint32_t flags, n = road_tx_size(r) / 2;

	if (len < n)
		n = (uint32_t)len;
	while (!ok && tsc_now() - t0 < (uint64_t)US(1000)) {
		sig_hold();
		r->p.poll(r->p.conn);
		sig_release();
		road_credit(r, &flags);
		ok = road_room(r) >= n || road_error(r);
		if (!ok && (r->p.caps & WSD_ROAD_SOFT))
			sched_yield();
	}
	return ok;
}

/* More was to follow what TCP holds (push), and does not, by a signal or bad memory: the kernel sends at once what such a call has. */
static void push_held(struct thr *t, struct conn *c, int fd)
{
	struct road *r = road_of(c);
	int v = 1, one = 1, e = errno;
	socklen_t l = sizeof(v);

	if (likely(!r->held) || (conn_get(fd) != c && (fd = conn_number(c)) < 0) ||	/* closed while we slept: it may be another file's */
	    !agreed_lock(t, c, fd, &c->s->tx_lock))
		return;
	if (atomic_load(&c->s->cork) < CORK_WANTED && real.getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &l) == 0) {
		real.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));	/* sends it whatever the value was */
		if (!v)
			real.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, sizeof(v));
		r->held = false;
	}
	agreed_unlock(&c->s->tx_lock);
	errno = e;
}

static ssize_t ended(struct thr *t, struct conn *c, int fd, size_t done, int e, int flags)
{
	if (done) {
		push_held(t, c, fd);
		if (e != EAGAIN && e != EINTR && e != EFAULT && e != EPIPE && e != EBADF)
			atomic_store(&c->s->kept_err, e);
		return (ssize_t)done;
	}
	if (e == EPIPE)
		return broken_pipe(t, flags);
	errno = e;
	return -1;
}

ssize_t agreed_send(struct thr *t, struct conn *c, int fd, struct vec *v, int flags)
{
	struct side *s = c->s;
	struct road *r;
	bool nb = (flags & MSG_DONTWAIT) || atomic_load_explicit(&s->nonblock, memory_order_relaxed);
	int64_t until = -1;
	struct start_wait start_wait = { 0 };
	size_t done = 0;
	struct want w;
	ssize_t k;

	if (unlikely(atomic_load_explicit(&s->kept_err, memory_order_relaxed))) {
		int e = atomic_exchange(&s->kept_err, 0);

		if (e) {
			errno = e;
			return -1;
		}
	}
	if (unlikely(v->len == 0))
		return real.send(fd, NULL, 0, flags);	/* no byte of the stream; the kernel knows whether that is an error */
	if (unlikely(flags & ~(MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE | MSG_EOR)) && !agreed_tx_plain(t, c, fd, 2000)) {
		conn_reset(c, fd, "a send of a kind that only TCP has, and the direction did not return to it");
		errno = ECONNRESET;
		return -1;
	}
	for (;;) {
		uint32_t x, changes;

		r = road_of(c);		/* another one after a renewal */
		if (unlikely(conn_get(fd) != c) && (fd = conn_number(c)) < 0)	/* closed while we slept: it may be another file's */
			return done ? (ssize_t)done : ended(t, c, fd, 0, EBADF, flags);
		if (road_mine(r))
			road_poll(r, r->batch ? POLL_BATCH_US : ROAD_POLL_US);
		changes = road_changes(r);
		agreed_obey(t, c, fd, false);
		x = atomic_load_explicit(&r->rs->xstate, memory_order_relaxed);
		if (x == WSD_X_PLAIN || x == WSD_X_DONE) {
			k = tx_plain(t, c, fd, v, flags | (done ? MSG_NOSIGNAL : 0));
			if (k == TX_AGAIN)
				continue;
			return k >= 0 ? (ssize_t)done + k : ended(t, c, fd, done, errno, MSG_NOSIGNAL);
		}
		if (x == WSD_X_ENDED)
			return ended(t, c, fd, done, EPIPE, flags);
		if (road_waits(r, x)) {
			int e;

			if (until < 0)
				until = nb ? 0 : agreed_timeout(c, fd, SO_SNDTIMEO);
			e = wait_start(t, c, fd, nb, until, &start_wait, changes);

			if (e)
				return ended(t, c, fd, done, -e, flags);
			continue;
		}
		k = step(t, c, fd, v, nb, &w);
		if (k < 0)
			return ended(t, c, fd, done, (int)-k, flags);
		if (k > 0) {
			done += (size_t)k;
			vec_skip(v, (size_t)k);
			if (v->len == 0)
				return (ssize_t)done;
			if (!nb && unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed)) && atomic_load(&t->sig_eintr))
				return ended(t, c, fd, done, EINTR, flags);
			continue;
		}
		if (!w.events && !w.nap_ms)
			continue;
		if (nb)
			return ended(t, c, fd, done, EAGAIN, flags);
		if (w.nap_ms && !w.events && wait_credit(t, c, v->len))
			continue;
		if (until < 0)
			until = agreed_timeout(c, fd, SO_SNDTIMEO);
		k = road_sleep(t, c, fd, w.events, until, w.nap_ms, changes);
		if (k < 0)
			return ended(t, c, fd, done, (int)-k, flags);
	}
}

/* a file's bytes by way of memory: a put copies anyway, and a frame must know how many will come */
ssize_t agreed_sendfile(struct thr *t, struct conn *c, int fd, int in, off_t *off, size_t n)
{
	char buf[16384];
	struct iovec io = { buf, sizeof(buf) };
	struct vec v = { &io, 1, 0, 0 };
	struct stat st;
	size_t done = 0;
	off_t pos;
	ssize_t k, r = 0;

	if (n > 0x7ffff000u)
		n = 0x7ffff000u;	/* as the kernel's */

	/* what is no regular file is the kernel's to judge: it may answer an error, or move bytes that we must move ourselves */
	if (fstat(in, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))) {
		if (!agreed_tx_plain(t, c, fd, 2000)) {
			errno = EAGAIN;
			return -1;
		}
		if (!agreed_plain_out(c) && road_of(c)->rs->xstate == WSD_X_ENDED)
			return broken_pipe(t, 0);
		return TX_AGAIN;
	}
	if (off ? !fault_copy(&pos, off, sizeof(pos)) : (pos = lseek(in, 0, SEEK_CUR)) < 0) {
		errno = off ? EFAULT : errno;
		return -1;
	}
	while (done < n) {
		k = pread(in, buf, n - done < sizeof(buf) ? n - done : sizeof(buf), pos);
		if (k <= 0) {
			r = done ? 0 : k;	/* the file's error is the next call's, and not the socket's */
			break;
		}
		io = (struct iovec){ buf, (size_t)k };
		v = (struct vec){ &io, 1, 0, (size_t)k };
		r = agreed_send(t, c, fd, &v, done ? MSG_NOSIGNAL : 0);
		if (r <= 0)
			break;
		done += (size_t)r;
		pos += r;
		if (r < k)
			break;
	}
	if (!done)
		return r;
	if (r < 0 && errno != EAGAIN && errno != EINTR && errno != EPIPE)
		atomic_store(&c->s->kept_err, errno);
	if (off)
		(void)fault_copy(off, &pos, sizeof(pos));
	else
		(void)lseek(in, pos, SEEK_SET);
	return (ssize_t)done;
}

/*
 * A short send has left payload of a frame open, so the direction cannot return (F7); but the pipe's next bytes are that payload, and the kernel may
 * move them. A page at a time into a socket that has room, so that it does not sleep. As the kernel's call; -EAGAIN: one of both has to be
 * waited for, *w; 0 and *w empty: no payload is open. tx_lock
 */
static ssize_t splice_payload(struct conn *c, int fd, int in, size_t n, unsigned flags, struct pollfd *w)
{
	struct road *r = road_of(c);
	struct pollfd p[2] = { { .fd = fd, .events = POLLOUT }, { .fd = in, .events = POLLIN } };
	uint32_t x = atomic_load(&r->rs->xstate), header;
	uint64_t payload;
	ssize_t k;

	w->events = 0;
	road_frame_left(r, atomic_load(&c->s->H), &header, &payload);
	if ((x != WSD_X_FRAMED && x != WSD_X_RETURNING) || !payload || atomic_load(&r->rs->frame_kind) != WSD_FRAME_DATA || road_waits(r, x))
		return 0;
	if (header) {
		k = push(c, fd, NULL);
		road_frame_left(r, atomic_load(&c->s->H), &header, &payload);
		if (k < 0 && k != -EAGAIN)
			return k;
	}
	*w = p[1];
	if (poll_now(&p[1]) <= 0)
		return -EAGAIN;
	*w = p[0];
	if (header || poll_now(&p[0]) <= 0)
		return -EAGAIN;
	if (n > payload)
		n = payload;
	k = real.syscall(SYS_splice, in, NULL, fd, NULL, n < SPLICE_PAGE ? n : SPLICE_PAGE, flags | SPLICE_F_NONBLOCK);
	if (k > 0) {
		cnt_add64(&c->s->H, (uint64_t)k);
		r->last_tcp = tsc_now();
	}
	return k < 0 ? -errno : k;
}

ssize_t agreed_splice(struct thr *t, struct conn *c, int fd, int in, size_t n, unsigned flags)
{
	bool nb = atomic_load_explicit(&c->s->nonblock, memory_order_relaxed);
	int64_t until = -1;
	size_t done = 0;
	int e = errno;

	while (done < n) {
		uint32_t changes = road_changes(road_of(c));
		struct pollfd w;
		ssize_t k;

		if (unlikely(conn_get(fd) != c) && (fd = conn_number(c)) < 0) {	/* closed while we slept: it may be another file's */
			errno = done ? e : EBADF;
			return done ? (ssize_t)done : -1;
		}
		agreed_obey(t, c, fd, false);
		if (!agreed_lock(t, c, fd, &c->s->tx_lock)) {
			errno = done ? e : ECONNRESET;
			return done ? (ssize_t)done : -1;
		}
		k = splice_payload(c, fd, in, n - done, flags, &w);
		agreed_unlock(&c->s->tx_lock);
		if (k > 0) {
			done += (size_t)k;
			continue;
		}
		if (k == 0 && !w.events) {	/* the rest is for who makes the direction plain */
			errno = e;
			return done ? (ssize_t)done : TX_AGAIN;
		}
		if (done || k != -EAGAIN || (w.fd == fd && nb) ||
		    (w.fd == in && ((flags & SPLICE_F_NONBLOCK) || (real.fcntl64(in, F_GETFL) & O_NONBLOCK)))) {
			errno = k < 0 && !done ? (int)-k : e;
			return done ? (ssize_t)done : k < 0 ? -1 : 0;
		}
		if (until < 0)
			until = agreed_timeout(c, fd, SO_SNDTIMEO);
		/* a pipe is waited for without the socket's time-out */
		k = road_sleep(t, c, w.fd, w.events, w.fd == fd ? until : 0, 0, changes);
		if (k < 0) {
			errno = (int)-k;
			return -1;
		}
	}
	errno = e;
	return (ssize_t)done;
}

/* ---- ends ---- */

/* A7: nothing of ours follows on either road. Without room for it nothing is said, and the peer asks. */
void agreed_end(struct thr *t, struct conn *c, int fd)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint64_t payload;
	uint32_t header;
	int e = errno;

	agreed_obey(t, c, fd, false);
	if (!agreed_lock(t, c, fd, &c->s->tx_lock))
		return;
	if (atomic_load(&rs->xstate) == WSD_X_FRAMED) {
		road_frame_left(r, atomic_load(&c->s->H), &header, &payload);
		if (road_mine(r) && !batch_flush(c))
			agreed_ask(c, WSD_SAN_FILL, atomic_load(&rs->cursor), atomic_load(&rs->posted));
		if (header && !payload)
			keep(c, push(c, fd, NULL));
		road_frame_left(r, atomic_load(&c->s->H), &header, &payload);
		if (!header && !payload) {
			road_frame_set(r, atomic_load(&c->s->H), WSD_FRAME_END, 0, atomic_load(&rs->posted));
			keep(c, push(c, fd, NULL));
		}
		atomic_store(&rs->xstate, WSD_X_ENDED);
	} else if (atomic_load(&rs->xstate) == WSD_X_RETURNING) {
		/* TCP is full, or payload is open: what is left cannot follow the FIN, and the peer asks for it */
		atomic_store(&rs->rest, 0);
		atomic_store(&rs->xstate, WSD_X_ENDED);
	} else if (atomic_load(&rs->xstate) == WSD_X_PLAIN) {
		atomic_store(&rs->xstate, WSD_X_DONE);	/* no start any more */
	}
	agreed_unlock(&c->s->tx_lock);
	errno = e;
}

bool agreed_tx_plain(struct thr *t, struct conn *c, int fd, unsigned ms)
{
	struct road *r = road_of(c);
	int64_t end = road_now() + (int64_t)ms * 1000000;
	uint32_t none = 0, x;

	atomic_compare_exchange_strong(&r->leave, &none, WSD_R_OPTION);
	atomic_store(&r->now_plain, 1);
	for (;;) {
		agreed_obey(t, c, fd, false);
		x = atomic_load(&r->rs->xstate);
		if (x == WSD_X_PLAIN) {		/* a start that saw no reason to leave may be under way: not behind the lock */
			if (!agreed_lock(t, c, fd, &c->s->tx_lock))
				return false;
			x = atomic_load(&r->rs->xstate);
			if (x == WSD_X_PLAIN)
				atomic_store(&r->rs->xstate, WSD_X_DONE);
			agreed_unlock(&c->s->tx_lock);
		}
		if (x == WSD_X_DONE || x == WSD_X_PLAIN || x == WSD_X_ENDED)	/* ended: nothing is sent any more, of either kind */
			return true;
		if (road_now() >= end)
			return false;
		thr_nap(200);
	}
}
