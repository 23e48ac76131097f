/* SPDX-License-Identifier: MIT */
/*
 * tx.c - sending: into the ring while the peer is awake, on TCP otherwise (X's half of the gate)
 *
 * Invariants:
 *   - bytes become the peer's by one compare-and-swap of the gate word, from exactly the word that was read before all
 *     checks (G1). If it fails nothing was sent;
 *   - a segment starts on an empty ring, with nobody inside a kernel send, at start = H, stored before that swap (G2);
 *   - everything that goes to TCP counts itself in, leaves the ring, calls, adds to H, counts itself out (G3);
 *   - tx_lock is tried, never waited for (G4): the loser goes to TCP, and the raised epoch makes the holder's put fail;
 *   - a non-blocking send is short or EAGAIN only if the kernel's own send just was (G5).
 */
#include <limits.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "wsd_switch/core/agreed.h"
#include "wsd_switch/core/proof.h"
#include "wsd_switch/core/ring.h"
#include "wsd_switch/core/switch.h"
#include "wsd_switch/core/unread.h"

#define PUT_PIECE	(16u << 10)	/* published at a time, so that the reader starts while we copy */
#define KERNEL_PIECE	(256u << 10)	/* G5 */
#define ROOM_SPIN_US	40		/* without the reader moving */
#define ROOM_MAX_US	50000	/* in all */
#define ROOM_NB_US	50	/* in all, non-blocking: some more than ... */
#define ROOM_NB_BYTES	3000	/* ... what the kernel's copy would take, in bytes per microsecond */
#define SEG_MAX_US	20e6		/* G7 */
#define SEG_MAX_BYTES	(4ull << 30)
#define DRAIN_MAX_US	50000
#define DRAIN_NB_US	1500
#define DRAIN_EVERY_US	20000
#define DRAIN_NEAR	(256 << 10)	/* bytes that may be gone within a nap */
#define ACK_BULK	32768
#define WAKE_MAX	4096	/* more, and copying costs, not waking */
#define NAGLE_MAX	65536	/* more than a segment is not held back by Nagle's algorithm */
#define PAGE		4096u

/* leave the ring: puts in progress fail, and the next segment starts at a new H (G3, G8). */
void tx_leave(struct conn *c)
{
	uint64_t g = atomic_load(&c->tx->gate);
	int i;

	for (i = 0; (g & WSD_GATE_OPEN) && i < 100000; i++)
		if (atomic_compare_exchange_weak(&c->tx->gate, &g, wsd_gate_next(g, WSD_GATE_OPEN)))
			return;
}

/* where we run, so that a peer on the same CPU gives way instead of spinning (G25) */
static inline void note_cpu(struct conn *c)
{
	uint32_t cpu = tsc_cpu1();

	if (atomic_load_explicit(&c->tx->wcpu, memory_order_relaxed) != cpu)
		atomic_store_explicit(&c->tx->wcpu, cpu, memory_order_relaxed);
}

void tx_begin_tcp(struct conn *c, int fd)
{
	if (unlikely(atomic_load_explicit(&c->s->cork, memory_order_relaxed) == CORK_WANTED))
		opt_cork_give(c, fd);
	cnt_add(&c->s->in_send, 1);
	if (conn_att(c)) {
		note_cpu(c);
		atomic_thread_fence(memory_order_seq_cst);
		tx_leave(c);
	}
}

void tx_end_tcp(struct conn *c, ssize_t r)
{
	if (r > 0) {
		cnt_add64(&c->s->H, (uint64_t)r);
		c->ack_due = false;
		if (conn_att(c))
			atomic_store_explicit(&c->tx->stat_tcp, atomic_load_explicit(&c->s->H, memory_order_relaxed),
					      memory_order_relaxed);
	}
	cnt_add(&c->s->in_send, -1u);
}

struct pinned {
	struct conn *c;
	bool in_kernel;
};

static void pinned_end(struct pinned *p)
{
	if (p->in_kernel) {
		/* how much of it went is not known: the next segment asks the kernel, and H disagreeing stays on TCP */
		atomic_store(&p->c->s->checked_h, 0);
		cnt_add(&p->c->s->in_send, -1u);
		conn_unpin(p->c);
	}
}

/*
 * G22: the peer handed its unread ring bytes on to somebody who may not run under us and has not come: no TCP byte may pass
 * them. So the mark is looked at before each kernel send, and after it, for it may have come meanwhile.
 */

/* A bounded wait, then a reset. true: go on. */
static bool handed_on_ok(struct conn *c, int fd)
{
	int i;

	for (i = 0; i < 200; i++) {
		if (!(atomic_load(&c->tx->yflags) & WSD_Y_HANDED_ON) ||
		    WSD_GATE_HEAD(atomic_load(&c->tx->gate)) == atomic_load(&c->tx->tail))
			return true;
		thr_nap(i < 20 ? 1000 : 10000);
	}
	conn_reset(c, fd, "the peer's new process never took what was in the ring");
	return false;
}

static bool handed_on(struct conn *c)
{
	return !(atomic_load_explicit(&c->tx->gate, memory_order_relaxed) & WSD_GATE_OPEN) &&
	       unlikely(atomic_load_explicit(&c->tx->yflags, memory_order_relaxed) & WSD_Y_HANDED_ON);
}

bool tx_before_tcp(struct conn *c, int fd)
{
	uint64_t g;

	if (likely(!conn_att(c)) || likely((g = atomic_load_explicit(&c->tx->gate, memory_order_relaxed)) & WSD_GATE_OPEN))
		return true;
	if (handed_on(c) && !handed_on_ok(c, fd)) {
		errno = ECONNRESET;
		return false;
	}
	if (unlikely(WSD_GATE_HEAD(g) != atomic_load_explicit(&c->tx->tail, memory_order_relaxed)) && unread_look(c, fd)) {
		int e = unread_error(c, fd);

		if (e) {
			errno = e;
			return false;
		}
	}
	return true;
}

/* The mark may have come while bytes went to TCP. They are there, and count as sent; but they must not be read before the
 * ring's by somebody who does not know of those. */
void tx_after_tcp(struct conn *c, int fd, ssize_t r)
{
	int e = errno;

	if (r > 0 && conn_att(c) && handed_on(c) && !handed_on_ok(c, fd))
		atomic_store(&c->s->kept_err, ECONNRESET);
	errno = e;
}

/* one kernel send of at most max of v's bytes, by G3 */
static ssize_t kernel_send(struct thr *t, struct conn *c, int fd, const struct vec *v, size_t max, int flags)
{
	struct pinned p __attribute__((cleanup(pinned_end))) = { c, false };
	struct worth_sample m1;
	struct iovec tmp[64];
	struct msghdr m = { 0 };
	ssize_t r;
	int e;

	tx_begin_tcp(c, fd);
	if (unlikely(conn_agreed(c)) && !agreed_plain_out(c)) {
		tx_end_tcp(c, 0);
		return TX_AGAIN;
	}
	conn_pin(c);
	p.in_kernel = true;
	if (unlikely(flags & MSG_MORE))
		opt_cork_more(c);
	m1.on = false;
	if (conn_att(c) && max <= WAKE_MAX && !(atomic_load_explicit(&c->tx->gate, memory_order_relaxed) & WSD_GATE_OPEN))
		worth_begin(&m1, &t->n_sent);		/* the peer sleeps */
	cs_leave(t);
	if (v->n <= 1 || v->iov->iov_len - v->off >= max) {
		size_t k = v->n ? v->iov->iov_len - v->off : 0;

		r = real.send(fd, v->n ? (const char *)v->iov->iov_base + v->off : NULL, k < max ? k : max, flags);
	} else if (v->off == 0 && max >= v->len) {
		m.msg_iov = (struct iovec *)v->iov;
		m.msg_iovlen = (size_t)v->n;
		r = real.sendmsg(fd, &m, flags);
	} else {
		struct iovec *io = tmp, *big = NULL;
		size_t left = max;
		int i;

		/* the whole rest goes in one call: a short count must be the kernel's (G5) */
		if (v->n > 64)
			io = big = __builtin_alloca(sizeof(*io) * (size_t)(v->n < IOV_MAX ? v->n : IOV_MAX));
		for (i = 0; i < v->n && left; i++) {
			io[i] = v->iov[i];
			if (i == 0) {
				io[i].iov_base = (char *)io[i].iov_base + v->off;
				io[i].iov_len -= v->off;
			}
			if (io[i].iov_len > left)
				io[i].iov_len = left;
			left -= io[i].iov_len;
		}
		m.msg_iov = io;
		m.msg_iovlen = (size_t)i;
		r = real.sendmsg(fd, &m, flags);
	}
	e = errno;
	worth_sent(&m1, r);
	p.in_kernel = false;
	cs_enter();
	tx_end_tcp(c, r);
	conn_unpin(c);
	tx_after_tcp(c, fd, r);
	errno = e;
	return r;
}

/* the peer's tail, bounded; -1: it is out of bounds even after a second look */
static int look_tail(struct conn *c, uint32_t head, uint32_t *ret)
{
	uint32_t tail = atomic_load_explicit(&c->tx->tail, memory_order_acquire);

	if (head - tail > c->mask + 1)
		return -1;
	atomic_store_explicit(&c->s->peer_tail, tail, memory_order_relaxed);
	*ret = tail;
	return 0;
}

/* Bytes that Nagle's algorithm holds back would wait for an ACK that a peer on the ring delays: switching it off for a moment
 * sends them, and bytes that TCP_CORK holds as well. true: nothing is unsent now. */
static bool push_nagled(struct conn *c, int fd)
{
	struct side *s = c->s;
	int v = 0, one = 1, nsd = 1;
	socklen_t l = sizeof(v);
	uint32_t set, now;

	sig_hold();		/* a handler is to see the program's value, and to keep what it sets */
	set = atomic_load(&s->nodelay_set);
	if (real.getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &l) < 0 || v) {
		sig_release();
		return false;
	}
	atomic_store(&s->nodelay_push, (atomic_load(&s->nodelay_push) + 1) | 1);
	real.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	/* Back to what the program set last. It is recorded before it is set: a call that is under way is seen here, and
	 * its value given for it, or it comes after ours. */
	do {
		now = set;
		if (now)
			v = (int)(now & 1);
		real.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, sizeof(v));
	} while ((set = atomic_load(&s->nodelay_set)) != now);
	atomic_store(&s->nodelay_push, (atomic_load(&s->nodelay_push) + 1) & ~1u);
	sig_release();
	return real.ioctl(fd, SIOCOUTQNSD, &nsd) == 0 && nsd == 0;
}

#define SEG_DRAIN	2	/* the peer, which is awake, has yet to read what is before */

/* G2. tx_lock held, ON_RING clear in g. 1: start and base are stored, put; 0 or SEG_DRAIN: not now; -1: never */
static int segment_begin(struct conn *c, int fd, uint64_t g)
{
	struct side *s = c->s;
	uint32_t head = WSD_GATE_HEAD(g), tail;
	uint64_t h;
	int r;

	if (look_tail(c, head, &tail) < 0)
		return -1;
	if (tail != head)
		return SEG_DRAIN;
	if (atomic_load(&s->in_send) != 0)	/* first this, then H; the epoch covers what comes after */
		return 0;
	h = atomic_load(&s->H);
	if (atomic_load_explicit(&s->checked_h, memory_order_relaxed) != h + 1) {
		int nsd;

		/* the common reason first, and the one that waiting may cure */
		if (real.ioctl(fd, SIOCOUTQNSD, &nsd) == 0 && nsd > 0 && (nsd > NAGLE_MAX || !push_nagled(c, fd)))
			return SEG_DRAIN;
		r = off_check_tx(c, fd);
		if (r <= 0)
			return r;
		if (atomic_load(&s->in_send) != 0 || atomic_load(&s->H) != h)
			return 0;
		atomic_store_explicit(&s->checked_h, h + 1, memory_order_relaxed);
	}
	atomic_store_explicit(&c->tx->start, h, memory_order_relaxed);
	atomic_store_explicit(&s->base, head, memory_order_relaxed);
	atomic_store_explicit(&c->tx->base, head, memory_order_relaxed);
	atomic_store_explicit(&s->seg_t0, tsc_now(), memory_order_relaxed);
	atomic_store_explicit(&s->seg_put, atomic_load_explicit(&s->put, memory_order_relaxed), memory_order_relaxed);
	return 1;
}

/* pages of the ring up to `to` bytes are there, so that a write cannot meet SIGBUS when memory is short */
static bool populate(struct conn *c, uint32_t to)
{
	struct side *s = c->s;
	uint32_t have = atomic_load_explicit(&s->populated, memory_order_relaxed), want;
	int e = errno;

	if (likely(to <= have))
		return true;
	want = have < PAGE ? PAGE : have;
	while (want < to)
		want *= 2;
	if (want > c->mask + 1)
		want = c->mask + 1;
	if (madvise(c->txr + have, want - have, MADV_POPULATE_WRITE) < 0 && errno != EINVAL) {
		errno = e;
		return false;
	}
	errno = e;
	atomic_store_explicit(&s->populated, want, memory_order_relaxed);
	return true;
}

/* where the bytes of a put come from */
struct source {
	struct vec *v;		/* memory ... */
	int in;			/* ... or, v NULL, a regular file */
	off_t pos;
	size_t left;
	bool eof;
	bool unasked;		/* that it is a regular file is not known yet */
};

/* How a put of little from a file asks: what does not answer at once from memory, as a regular file mostly does, may be something
 * that waits, or that the kernel's sendfile() refuses; it is looked at. true: it is a regular file. */
static bool is_file(int fd)
{
	struct stat st;
	int e = errno;
	bool yes = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);

	errno = e;
	return yes;
}

/* n bytes to ring position pos; how many came, or -errno */
static ssize_t source_fill(struct source *src, struct conn *c, uint32_t pos, size_t n)
{
	struct iovec io[2];
	size_t k;

	if (src->v)
		return likely(ring_fill(c->txr, c->mask, pos, src->v, 0, n)) ? (ssize_t)n : -EFAULT;
	pos &= c->mask;
	k = (size_t)c->mask + 1 - pos;
	io[0] = (struct iovec){ c->txr + pos, k < n ? k : n };
	io[1] = (struct iovec){ c->txr, n - io[0].iov_len };
	if (src->unasked) {
		int e = errno;
		ssize_t r = real.syscall(SYS_preadv2, src->in, io, io[1].iov_len ? 2 : 1, src->pos, 0, RWF_NOWAIT);

		if (r > 0)
			return r;
		errno = e;
		if (!is_file(src->in))
			return -EINVAL;
		src->unasked = false;
	}
	n = (size_t)preadv(src->in, io, io[1].iov_len ? 2 : 1, src->pos);
	if ((ssize_t)n < 0)
		return -errno;
	if (n == 0)
		src->eof = true;
	return (ssize_t)n;
}

static void source_skip(struct source *src, size_t n)
{
	src->left -= n;
	if (src->v)
		vec_skip(src->v, n);
	else
		src->pos += (off_t)n;
}

/* G25 for a sender waiting for room: true when there is some; bounded by ROOM_SPIN_US since the reader last moved */
static bool wait_room(struct thr *t, struct conn *c, uint32_t head, size_t need, uint32_t *tail,
		      uint64_t most)
{
	uint64_t t0 = tsc_now(), now, begin = t0;
	uint32_t old = *tail, me = tsc_cpu1(), room, comfort = (c->mask + 1) / 4;
	int64_t cost = 0;
	int i, yields = 0;

	if (now = t0, now < t->crowded_until)
		return false;
	if (comfort < need)
		comfort = (uint32_t)need;
	for (;;) {
		if (look_tail(c, head, tail) < 0)
			return false;
		room = c->mask + 1 - (head - *tail);
		/* a quarter of the ring, so that the two do not meet at its end for every message; what is needed if
		 * the reader pauses */
		if (room >= comfort || (room >= need && *tail == old))
			return true;
		for (i = 0; i < 32; i++)	/* each look takes the line from the reader */
			_mm_pause();
		if (!(atomic_load_explicit(&c->tx->gate, memory_order_relaxed) & WSD_GATE_OPEN))
			return false;
		if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed)))
			return false;
		now = tsc_now();
		if ((int32_t)(*tail - old) > 0) {
			old = *tail;
			t0 = now;
			yields = 0;
		}
		if (now - begin > most)
			return false;
		if (atomic_load_explicit(&c->tx->rcpu, memory_order_relaxed) == me) {
			if (spin_yield(t, &cost) || ++yields >= 2)
				return false;
			me = tsc_cpu1();
		} else if (now - t0 > (uint64_t)US(ROOM_SPIN_US)) {
			return false;
		}
	}
}

/* How long a send may wait for room from now, in ticks. A non-blocking one in all about as long as the kernel would copy. */
static uint64_t room_patience(bool nb, size_t left, uint64_t *until)
{
	uint64_t now;

	if (!nb)
		return (uint64_t)US(ROOM_MAX_US);
	now = tsc_now();
	if (!*until)
		*until = now + (uint64_t)US(ROOM_NB_US + (double)left / ROOM_NB_BYTES);
	return *until > now ? *until - now : 0;
}

/*
 * A sender that fills TCP faster than the peer reads would never find it empty (G2), and never meet the ring. While the peer is
 * awake it may wait a little for that; now and then only, and never on a crowded machine. A non-blocking sender no longer than
 * its copies into the kernel have taken meanwhile, and only if the rate at which TCP drains says that it will be worth it.
 * true: look again.
 */
static bool wait_drain(struct thr *t, struct conn *c, int fd, bool nb)
{
	struct side *s = c->s;
	uint64_t t0 = tsc_now(), now = t0, last = atomic_load_explicit(&s->drain_at, memory_order_relaxed), moved = t0;
	uint64_t most = (uint64_t)US(nb ? DRAIN_NB_US : DRAIN_MAX_US);
	uint32_t head, tail, old = 0;
	int nsd, old_nsd = -1, first = -1;

	if (now < t->crowded_until || now - last < (uint64_t)US(DRAIN_EVERY_US))
		return false;
	for (;;) {
		uint64_t g = atomic_load(&c->tx->gate);

		head = WSD_GATE_HEAD(g);
		tail = atomic_load_explicit(&c->tx->tail, memory_order_acquire);
		if (real.ioctl(fd, SIOCOUTQNSD, &nsd) < 0)
			break;
		if (tail == head && nsd == 0)
			return g & WSD_GATE_OPEN;	/* closed: the peer went to sleep on an empty stream */
		now = tsc_now();
		if (first < 0)
			first = nsd;
		if (tail != old || nsd != old_nsd)
			moved = now;
		old = tail;
		old_nsd = nsd;
		if (now - moved > (uint64_t)US(nb ? 200 : 3000) || now - t0 > most ||
		    unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed)))
			break;
		if (nb && now - t0 > most / 8 && (double)nsd * (double)(now - t0) > (double)(first - nsd) * (double)(most - (now - t0)))
			break;
		/* TCP would have us sleep as well; but not past the end, or the peer finds nothing and sleeps */
		if (nsd > DRAIN_NEAR || atomic_load_explicit(&c->tx->rcpu, memory_order_relaxed) == tsc_cpu1())
			thr_nap(nsd > DRAIN_NEAR ? 20 : 1);
	}
	atomic_store_explicit(&s->drain_at, now, memory_order_relaxed);
	return false;
}

/*
 * Put as much of src as the ring takes; bytes put. Stops early when the gate is closed, the ring is full and there is no room after
 * a short wait (room_patience), or G2 says no (wait_drain). -EPROTO: the peer broke the protocol.
 */
static ssize_t put_some(struct thr *t, struct conn *c, int fd, struct source *src, bool nb)
{
	struct side *s = c->s;
	uint64_t g, next, put, until = 0;
	uint32_t head, tail, room, base, off, lost = 0;
	size_t done = 0, n;
	ssize_t r;

	if (!lock_try(&s->tx_lock, thr_tid(t)))
		return 0;
	while (src->left) {
		g = atomic_load_explicit(&c->tx->gate, memory_order_acquire);
		if (!(g & WSD_GATE_OPEN))
			break;
		if (unlikely(!(g & WSD_GATE_ON_RING))) {
			r = segment_begin(c, fd, g);
			if (r == SEG_DRAIN && wait_drain(t, c, fd, nb))
				continue;
			if (r == 0 || r == SEG_DRAIN)
				break;
			if (r < 0) {
				if (look_tail(c, WSD_GATE_HEAD(g), &tail) < 0) {
					lock_drop(&s->tx_lock);
					return -EPROTO;
				}
				atomic_fetch_or(&s->flags, S_NO_PUT);
				atomic_store(&s->why, WSD_R_OFFSETS);
				break;
			}
		} else {
			put = atomic_load_explicit(&s->put, memory_order_relaxed);
			if (unlikely(tsc_now() - atomic_load_explicit(&s->seg_t0, memory_order_relaxed) >
					     (uint64_t)US(SEG_MAX_US) ||
				     put - atomic_load_explicit(&s->seg_put, memory_order_relaxed) > SEG_MAX_BYTES))
				break;		/* G7: the caller's bytes go through TCP */
		}
		head = WSD_GATE_HEAD(g);
		tail = atomic_load_explicit(&s->peer_tail, memory_order_relaxed);
		n = src->left < PUT_PIECE ? src->left : PUT_PIECE;
		base = atomic_load_explicit(&s->base, memory_order_relaxed);
		off = (head - base) & c->mask;
		room = c->mask + 1 - (head - tail);
		/* look at the peer's tail when room is short, and once a page to start over at offset 0 while the
		 * ring is empty: a chatty connection keeps to one page */
		if (head - tail > c->mask + 1 || room < n || (done == 0 && room < src->left) ||
		    (off >> 12) != ((off + (uint32_t)n) >> 12)) {
			if (look_tail(c, head, &tail) < 0) {
				lock_drop(&s->tx_lock);
				return -EPROTO;
			}
			room = c->mask + 1 - (head - tail);
			if (tail == head && off != 0) {
				off = 0;
				atomic_store_explicit(&s->base, head, memory_order_relaxed);
				atomic_store_explicit(&c->tx->base, head, memory_order_relaxed);
			}
		}
		/* a message that would fit into an empty ring is not split (G5) */
		if (done == 0 && src->left <= c->mask + 1 && room < src->left) {
			if (!wait_room(t, c, head, src->left, &tail, room_patience(nb, src->left, &until)))
				break;
			continue;
		}
		if (room < n && room < PUT_PIECE / 4) {
			if (!wait_room(t, c, head, n < PUT_PIECE / 2 ? n : PUT_PIECE / 2, &tail,
				       room_patience(nb, src->left, &until))) {
				if (room == 0)
					break;
			} else {
				continue;
			}
		}
		if (n > room)
			n = room;
		if (unlikely(!populate(c, off + n > c->mask + 1 ? c->mask + 1 : off + (uint32_t)n)))
			break;
		r = source_fill(src, c, off, n);
		if (unlikely(r <= 0))
			break;			/* the kernel tells the program exactly what is wrong */
		n = (size_t)r;
		note_cpu(c);
		next = WSD_GATE_OPEN | WSD_GATE_ON_RING | (g & WSD_GATE_EPOCH_MASK) | (uint32_t)(head + n);
		if (!atomic_compare_exchange_strong(&c->tx->gate, &g, next)) {
			if (++lost > 8)
				break;		/* a peer that does nothing else: TCP */
			continue;		/* closed under us: nothing was sent (G1) */
		}
		lost = 0;
		put = atomic_load_explicit(&s->put, memory_order_relaxed) + n;
		atomic_store_explicit(&s->put, put, memory_order_relaxed);
		atomic_store_explicit(&c->tx->stat_ring, put, memory_order_relaxed);
		done += n;
		source_skip(src, n);
		if (unlikely(c->ack_due)) {	/* G29 */
			int two = 2, e = errno;

			c->ack_due = false;
			/* also after bulk: what is not acknowledged counts against the peer's EPOLLOUT */
			if ((atomic_load_explicit(&c->tx->yflags, memory_order_relaxed) & WSD_Y_NAGLE) ||
			    atomic_load(&s->C) - c->acked_c > ACK_BULK)
				real.setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &two, sizeof(two));
			c->acked_c = atomic_load(&s->C);
			errno = e;
		}
	}
	lock_drop(&s->tx_lock);
	return (ssize_t)done;
}

static bool may_put(struct conn *c)
{
	return !(atomic_load_explicit(&c->s->flags, memory_order_relaxed) &
		 (S_NO_PUT | S_SHUT_WR | S_BROKEN | S_FOREIGN)) &&
	       (atomic_load_explicit(&c->tx->gate, memory_order_relaxed) & WSD_GATE_OPEN);
}

static bool has_sndtimeo(int fd)
{
	struct timeval tv = { 0, 0 };
	socklen_t l = sizeof(tv);

	return real.getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, &l) == 0 && (tv.tv_sec || tv.tv_usec);
}

/* a handler without SA_RESTART ran while we waited: as if it had come in the kernel's send (G26) */
static bool tx_interrupted(struct thr *t)
{
	bool r = atomic_load(&t->sig_eintr);

	sig_call_begin(t);
	return r;
}

/* a connection without a session: the kernel's call, counted; see rx_plain() */
ssize_t tx_plain(struct thr *t, struct conn *c, int fd, struct vec *v, int flags)
{
	bool nb = (flags & MSG_DONTWAIT) || atomic_load_explicit(&c->s->nonblock, memory_order_relaxed);
	uint64_t h = atomic_load_explicit(&c->s->H, memory_order_relaxed);
	ssize_t r;
	int e;

	if (!nb || v->n != 1 || !__libc_single_threaded) {
		r = kernel_send(t, c, fd, v, v->len, flags);
		if (unlikely(h < WSD_PROOF_MAX) && r > 0 && atomic_load(&c->s->H) == h + (uint64_t)r && !atomic_load(&c->s->in_send))
			proof_note(c, PROOF_TX, h, v, (size_t)r);
		return r;
	}
	tx_begin_tcp(c, fd);
	if (unlikely(conn_agreed(c)) && !agreed_plain_out(c)) {
		tx_end_tcp(c, 0);
		return TX_AGAIN;
	}
	r = real.send(fd, (const char *)v->iov->iov_base + v->off, v->len, flags);
	e = errno;
	tx_end_tcp(c, r);
	if (unlikely(h < WSD_PROOF_MAX) && r > 0)
		proof_note(c, PROOF_TX, h, v, (size_t)r);
	errno = e;
	return r;
}

ssize_t tx_send(struct thr *t, struct conn *c, int fd, struct vec *v, int flags)
{
	struct side *s = c->s;
	struct source src = { .v = v, .left = v->len };
	size_t done = 0, piece;
	bool nb;
	ssize_t r;
	int e;

	c->one_way = 0;
	if (!conn_att(c)) {
		if (unlikely(conn_elsewhere(c)))
			conn_reset(c, fd, "attached by another process after the fork");
		if (!conn_agreed(c)) {
			r = tx_plain(t, c, fd, v, flags);
			if (likely(r != TX_AGAIN))
				return r;
		}
		return agreed_send(t, c, fd, v, flags);
	}
	if (unlikely(atomic_load_explicit(&s->kept_err, memory_order_relaxed))) {
		e = atomic_exchange(&s->kept_err, 0);
		if (e) {
			errno = e;
			return -1;
		}
	}
	/* a closed gate is a reason to look whether the peer's bytes were handed on (G22); an open one says they were not */
	if (!tx_before_tcp(c, fd))
		return -1;
	if (unlikely(flags & ~(MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE | MSG_EOR)) || unlikely(v->len == 0)) {
		if (flags & MSG_OOB)
			conn_to_tcp(c, WSD_R_OPTION);		/* G22: before urgent data, for good */
		return kernel_send(t, c, fd, v, v->len, flags);
	}
	if (unlikely(cfg.shake) && shake_hit(t))
		return kernel_send(t, c, fd, v, v->len, flags);
	nb = (flags & MSG_DONTWAIT) || atomic_load_explicit(&s->nonblock, memory_order_relaxed);
	while (may_put(c)) {
		r = put_some(t, c, fd, &src, nb);
		if (unlikely(r < 0)) {
			conn_reset(c, fd, "tail out of bounds");
			if (done)
				return (ssize_t)done;
			errno = ECONNRESET;
			return -1;
		}
		done += (size_t)r;
		if (likely(v->len == 0))
			return (ssize_t)done;
		if (!(atomic_load_explicit(&c->tx->gate, memory_order_relaxed) & WSD_GATE_OPEN))
			break;
		if (!nb && unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed)) && tx_interrupted(t)) {
			if (done)
				return (ssize_t)done;
			errno = EINTR;
			return -1;
		}
		/* the ring is full, or may not be used now (G5) */
		piece = nb || v->len <= KERNEL_PIECE || has_sndtimeo(fd) ? v->len : KERNEL_PIECE;
		r = kernel_send(t, c, fd, v, piece, flags | (done ? MSG_NOSIGNAL : 0));
		if (r < 0)
			goto kept;
		done += (size_t)r;
		vec_skip(v, (size_t)r);
		src.left = v->len;
		if (v->len == 0 || nb || (size_t)r < piece)
			return (ssize_t)done;
	}
	r = kernel_send(t, c, fd, v, v->len, flags | (done ? MSG_NOSIGNAL : 0));
	if (r >= 0)
		return (ssize_t)done + r;
kept:
	if (!done)
		return -1;
	if (errno != EAGAIN && errno != EINTR && errno != EFAULT && errno != EPIPE)	/* EPIPE is told again to senders */
		atomic_store(&s->kept_err, errno);	/* the kernel tells it once (G12) */
	return (ssize_t)done;
}

static ssize_t kernel_sendfile(struct thr *t, struct conn *c, int fd, int in, off_t *off, size_t n)
{
	struct pinned p __attribute__((cleanup(pinned_end))) = { c, false };
	ssize_t r;
	int e;

	if (!tx_before_tcp(c, fd))
		return -1;
	tx_begin_tcp(c, fd);
	if (unlikely(conn_agreed(c)) && !agreed_plain_out(c)) {
		tx_end_tcp(c, 0);
		return TX_AGAIN;
	}
	conn_pin(c);
	p.in_kernel = true;
	cs_leave(t);
	r = real.sendfile64(fd, in, off, n);
	e = errno;
	p.in_kernel = false;
	cs_enter();
	tx_end_tcp(c, r);
	conn_unpin(c);
	tx_after_tcp(c, fd, r);
	errno = e;
	return r;
}

/* sendfile from a regular file is a put too (G6) */
ssize_t tx_sendfile(struct thr *t, struct conn *c, int fd, int in, off_t *off, size_t n)
{
	struct side *s = c->s;
	struct source src = { .v = NULL, .in = in, .left = n < 0x7ffff000u ? n : 0x7ffff000u };
	struct stat st;
	bool nb;
	off_t from;
	ssize_t r;

	if (!conn_att(c)) {
		r = kernel_sendfile(t, c, fd, in, off, n);
		while (unlikely(r == TX_AGAIN)) {
			r = agreed_sendfile(t, c, fd, in, off, n);
			if (r == TX_AGAIN)
				r = kernel_sendfile(t, c, fd, in, off, n);
		}
		return r;
	}
	if (!may_put(c) || n == 0 || atomic_load_explicit(&s->kept_err, memory_order_relaxed) ||
	    (atomic_load_explicit(&c->tx->yflags, memory_order_relaxed) & WSD_Y_HANDED_ON))
		return kernel_sendfile(t, c, fd, in, off, n);
	if (unlikely(cfg.shake) && shake_hit(t))
		return kernel_sendfile(t, c, fd, in, off, n);
	st.st_size = 0;
	src.unasked = n <= PUT_PIECE;
	if (!src.unasked && (fstat(in, &st) < 0 || !S_ISREG(st.st_mode)))
		return kernel_sendfile(t, c, fd, in, off, n);
	if (off) {
		if (!fault_copy(&from, off, sizeof(from)) || from < 0)
			return kernel_sendfile(t, c, fd, in, off, n);
	} else {
		from = lseek(in, 0, SEEK_CUR);
		if (from < 0)
			return kernel_sendfile(t, c, fd, in, off, n);
	}
	src.pos = from;
	nb = atomic_load_explicit(&s->nonblock, memory_order_relaxed);
	if (from < st.st_size && (uint64_t)(st.st_size - from) < src.left)
		src.left = (size_t)(st.st_size - from);		/* so that the last put ends at the file's end */
	r = put_some(t, c, fd, &src, nb);
	if (r < 0) {
		conn_reset(c, fd, "tail out of bounds");
		errno = ECONNRESET;
		return -1;
	}
	if (r > 0) {
		if (off) {
			from += r;
			if (!fault_copy(off, &from, sizeof(from)))
				return r;
		} else {
			(void)lseek(in, from + r, SEEK_SET);
		}
	}
	if ((size_t)r == n || (r && src.left == 0) || src.eof)
		return r || !src.eof ? r : kernel_sendfile(t, c, fd, in, off, n);
	/* the whole rest in one kernel call (G5); it says EAGAIN, EFAULT, EPIPE or end of file itself */
	{
		ssize_t k = kernel_sendfile(t, c, fd, in, off, n - (size_t)r);

		if (k >= 0)
			return r + k;
		if (!r)
			return k;
		if (errno != EAGAIN && errno != EINTR && errno != EPIPE)
			atomic_store(&s->kept_err, errno);
		return r;
	}
}
