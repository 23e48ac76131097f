/* SPDX-License-Identifier: MIT */
/*
 * rx.c - receiving: ring and TCP as one stream (Y's half of the gate)
 *
 * Invariants, each kept by the rule named:
 *   - the ring is read only while C = start (G9); TCP is read without bound only with the gate
 *     closed and the ring empty (G11), else for at most start - C bytes under rx_lock;
 *   - whoever may sleep in the kernel counts itself in (sleepers), then closes the gate and raises the epoch,
 *     then looks at head once more; the opener looks at the sleepers last, then opens by a
 *     compare-and-swap from the word it read before (G14, G15). So either it sees the sleeper, or it fails;
 *   - EAGAIN and short counts are given only with proof that there was nothing (G12, G13);
 *   - a word of the peer is read once, bounded, and used from the copy (G10).
 */
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "wsd_switch/core/agreed.h"
#include "wsd_switch/core/proof.h"
#include "wsd_switch/core/ring.h"
#include "wsd_switch/core/switch.h"
#include "wsd_switch/core/unread.h"

#define TAKE_PIECE	(32u << 10)	/* tail moves at least this often, so that a sender finds room early */
#define SHORT_CUT_US	30		/* G13: how long an answer of the kernel may stand in for asking it */
#define BOUNDED_WAIT_MAX 50		/* ms (G9) */
#define ONE_WAY_MIN	64		/* waits in a row without a send between */
#define ONE_WAY_US	1.5
#define QUICK_LOOKS	256
#define QUICK_US	6		/* what so many cost, about: 25 ns each on the machine of docs/performance.md */
#define CHECK_MAX_US	10		/* more is not what the check took, but who ran meanwhile */

struct ledger *rx_ledger(struct conn *c)
{
	struct ledger *l = eset_ledger(c);

	return l ? l : &c->led;
}

static bool peer_awake(const struct conn *c)
{
	return atomic_load_explicit(&c->tx->gate, memory_order_relaxed) & WSD_GATE_OPEN;
}

/* Close and raise the epoch whether it was open or not: an opener that looked before we counted ourselves in must fail.
 * Bounded, for the peer may write the word for ever. */
uint64_t rx_close_gate(struct conn *c)
{
	uint64_t g = atomic_load(&c->rx->gate), n;
	int i;

	for (i = 0; i < 100000; i++) {
		n = wsd_gate_next(g, 0);
		if (atomic_compare_exchange_weak(&c->rx->gate, &g, n)) {
			if (g & WSD_GATE_OPEN)
				stats_gate(false);
			return n;
		}
	}
	atomic_fetch_and(&c->rx->gate, ~(WSD_GATE_OPEN | WSD_GATE_ON_RING));
	conn_to_tcp(c, WSD_R_PEER_BROKEN);
	return atomic_load(&c->rx->gate);
}

/* bytes in the ring; more than the ring holds is shown as 0 here and judged by rx_recv */
uint32_t rx_avail(struct conn *c)
{
	uint32_t a;

	if (unlikely(!c->rx))
		return 0;	/* no ring: agreed connections have their own count (agreed_inq) */
	a = WSD_GATE_HEAD(atomic_load(&c->rx->gate)) - (uint32_t)atomic_load(&c->s->taken);
	return a <= c->mask + 1 ? a : 0;
}

/* The ring counts as readable only if it is not empty and C = start (G9). */
bool rx_readable(struct conn *c, uint32_t *ret_head)
{
	uint32_t h = WSD_GATE_HEAD(atomic_load_explicit(&c->rx->gate, memory_order_acquire));

	*ret_head = h;
	if (h == (uint32_t)atomic_load_explicit(&c->s->taken, memory_order_relaxed) ||
	    atomic_load_explicit(&c->rx->start, memory_order_relaxed) !=
		    atomic_load_explicit(&c->s->C, memory_order_relaxed))
		return false;
	/* below a low-water mark the kernel's answer counts, whose own mark was cut by what the ring holds (G23) */
	return likely(!(atomic_load_explicit(&c->s->flags, memory_order_relaxed) & S_LOWAT)) ||
	       rx_avail(c) >= atomic_load(&c->s->lowat);
}

/*
 * This process uses the receiving direction (G14.2). A second one closes the gate for good; the first
 * touch after the only other user ended, or after everybody else let go of the socket, takes over.
 */
bool rx_touch(struct conn *c)
{
	struct side *s = c->s;
	uint32_t me = proc_page->pid, u = atomic_load_explicit(&s->rx_user, memory_order_relaxed);

	if (likely(u == me && c->touched))
		return true;
	if (u == USER_MANY && c->touched)
		return false;
	for (;;) {
		uint32_t next = me;

		if (u == USER_MANY || u == me) {
			/* the record says nothing about the gate: whoever marked it may not have closed yet, and a
			 * user before us may have died with it open. Each process closes at its first touch. */
			c->touched = true;
			if (conn_att(c) && atomic_load(&s->holders) + proc_fork_gen > 1)
				rx_close_gate(c);
			return u == me;
		}
		if (u != 0 && atomic_load(&s->holders) > 1 && !proc_pid_dead(u))
			next = USER_MANY;
		if (!atomic_compare_exchange_strong(&s->rx_user, &u, next))
			continue;
		if (next == me) {
			u = me;
			continue;
		}
		atomic_fetch_or(&s->flags, S_NO_OPEN);
		atomic_store(&s->why, WSD_R_SHARED);
		if (conn_att(c))
			rx_close_gate(c);
		c->touched = true;
		return false;
	}
}

void rx_begin_tcp(struct conn *c)
{
	cnt_add(&c->s->sleepers, 1);
	if (conn_att(c))
		rx_close_gate(c);
}

void rx_end_tcp(struct conn *c, ssize_t r)
{
	if (r > 0)
		cnt_add64(&c->s->C, (uint64_t)r);
	cnt_add(&c->s->sleepers, -1u);
}

/* ---- kernel receives; called and left inside the critical section, the call itself is outside ---- */

/* The receive lock (G9). Signal handlers wait until it is dropped: one that reads would find its own thread inside, with bytes taken
 * from TCP that C does not count yet, and could neither wait for them nor pass them. */
static bool rx_lock_try(struct thr *t, struct side *s)
{
	sig_hold();
	if (lock_try(&s->rx_lock, thr_tid(t)))
		return true;
	sig_release();
	return false;
}

static void rx_lock_drop(struct side *s)
{
	lock_drop(&s->rx_lock);
	sig_release();
}

/* The same after a bounded wait. A dead owner's is taken over: it held no bytes in hand, and C is set afresh where it matters
 * (resync_c). */
static bool rx_lock_get(struct thr *t, struct side *s)
{
	uint32_t owner;
	int i;

	for (i = 0; i < 200; i++) {
		if (rx_lock_try(t, s))
			return true;
		if (atomic_load(&s->rx_lock) == thr_tid(t))
			return false;	/* below a handler that went to the kernel unwrapped (sig.c) */
		sched_yield();
	}
	owner = atomic_load(&s->rx_lock);
	if (!owner || !proc_pid_dead(owner))
		return false;
	sig_hold();
	if (atomic_compare_exchange_strong(&s->rx_lock, &owner, thr_tid(t)))
		return true;
	sig_release();
	return false;
}

struct pinned {
	struct thr *t;
	struct conn *c;
	bool in_kernel;
};

/* a cancelled thread leaves its counts as if the call had returned (G26) */
static void pinned_end(struct pinned *p)
{
	if (p->in_kernel) {
		cnt_add(&p->c->s->sleepers, -1u);
		if (atomic_load(&p->c->s->rx_lock) == thr_tid(p->t))
			rx_lock_drop(p->c->s);
		conn_unpin(p->c);
	}
}

/* sleepers is counted in already and stays so */
static ssize_t kernel_recv(struct thr *t, struct conn *c, int fd, const struct vec *v, size_t max, int flags)
{
	struct pinned p __attribute__((cleanup(pinned_end))) = { t, c, false };
	struct iovec tmp[64];
	struct msghdr m = { 0 };
	ssize_t r;

	conn_pin(c);
	p.in_kernel = true;
	cs_leave(t);
	if (v->n <= 1 || v->iov->iov_len - v->off >= max) {
		size_t k = v->n ? v->iov->iov_len - v->off : 0;

		if (k > max)
			k = max;
		r = real.recv(fd, v->n ? (char *)v->iov->iov_base + v->off : NULL, k, flags);
	} else if (v->off == 0 && max >= v->len) {
		m.msg_iov = (struct iovec *)v->iov;
		m.msg_iovlen = (size_t)v->n;
		r = real.recvmsg(fd, &m, flags);
	} else {
		int i, n = v->n < 64 ? v->n : 64;
		size_t left = max;

		for (i = 0; i < n && left; i++) {
			tmp[i] = v->iov[i];
			if (i == 0) {
				tmp[i].iov_base = (char *)tmp[i].iov_base + v->off;
				tmp[i].iov_len -= v->off;
			}
			if (tmp[i].iov_len > left)
				tmp[i].iov_len = left;
			left -= tmp[i].iov_len;
		}
		m.msg_iov = tmp;
		m.msg_iovlen = (size_t)i;
		r = real.recvmsg(fd, &m, flags);
	}
	p.in_kernel = false;
	cs_enter();
	conn_unpin(c);
	return r;
}

/* a connection without a session: the kernel's call, counted */
ssize_t rx_plain(struct thr *t, struct conn *c, int fd, struct vec *v, int flags)
{
	bool nb = (flags & MSG_DONTWAIT) || atomic_load_explicit(&c->s->nonblock, memory_order_relaxed);
	uint64_t C = atomic_load_explicit(&c->s->C, memory_order_relaxed);
	ssize_t r;

	cnt_add(&c->s->sleepers, 1);
	if (unlikely(conn_agreed(c)) && !agreed_plain_in(c)) {
		cnt_add(&c->s->sleepers, -1u);
		return RX_AGAIN;
	}
	/* what does not sleep may stay in the critical section, and alone there is nobody to cancel it */
	if (likely(nb && v->n == 1 && __libc_single_threaded))
		r = real.recv(fd, (char *)v->iov->iov_base + v->off, v->len, flags);
	else
		r = kernel_recv(t, c, fd, v, v->len, flags);
	if (r > 0 && !(flags & MSG_PEEK)) {
		cnt_add64(&c->s->C, (uint64_t)r);
		if (unlikely(C < WSD_PROOF_MAX) && !(flags & MSG_TRUNC) && atomic_load(&c->s->C) == C + (uint64_t)r &&
		    atomic_load(&c->s->sleepers) == 1)
			proof_note(c, PROOF_RX, C, v, (size_t)r);
	}
	cnt_add(&c->s->sleepers, -1u);
	return r;
}

/* ---- the ring ---- */

static void raise_tail(struct conn *c, uint32_t to)
{
	uint32_t cur = atomic_load_explicit(&c->rx->tail, memory_order_relaxed);

	while ((int32_t)(to - cur) > 0 && !atomic_compare_exchange_weak_explicit(&c->rx->tail, &cur, to,
										 memory_order_release,
										 memory_order_relaxed))
		;
}

static bool advance_taken(struct side *s, uint64_t from, uint64_t to)
{
	if (solo()) {
		uint8_t ok;

		__asm__ volatile("cmpxchgq %3, %1; sete %0" : "=q"(ok), "+m"(*(uint64_t *)&s->taken), "+a"(from)
				 : "r"(to) : "memory", "cc");
		return ok;
	}
	return atomic_compare_exchange_strong(&s->taken, &from, to);
}

/* bytes that a peek has shown are taken from its copy (G12) */
static bool drain(struct thr *t, struct conn *c, uint64_t taken, uint32_t base, const struct vec *v, uint32_t n)
{
	if (unlikely(c->peek_len != 0) && rx_lock_try(t, c->s)) {
		bool ok = true, hit = false;

		if (c->peek_len && taken >= c->peek_at && taken + n <= c->peek_at + c->peek_len) {
			struct iovec *io = (struct iovec *)v->iov;
			size_t off = v->off, at = taken - c->peek_at, left = n;

			for (hit = true; left && ok; io++, off = 0) {
				size_t k = io->iov_len - off;

				if (k > left)
					k = left;
				ok = fault_copy((char *)io->iov_base + off, c->peek + at, k);
				at += k;
				left -= k;
			}
		}
		rx_lock_drop(c->s);
		if (hit)
			return ok;
	}
	return ring_drain(c->rxr, c->mask, (uint32_t)taken - base, v, n);
}

static void peek_forget(struct thr *t, struct conn *c, uint64_t taken)
{
	if (likely(c->peek_len == 0) || taken < c->peek_at + c->peek_len || !rx_lock_try(t, c->s))
		return;
	if (taken >= c->peek_at + c->peek_len)		/* another thread's peek may have come between */
		c->peek_len = 0;
	rx_lock_drop(c->s);
}

/* After a receive: if the ring is empty now, the program's own low-water mark holds again (G23). Not before its end: the rest of
 * the mark is waited for in the kernel with the mark as it was cut. */
void rx_lowat_restore(struct conn *c, int fd)
{
	int v = (int)atomic_load(&c->s->lowat), e = errno;

	if (conn_agreed(c) || rx_avail(c) != 0)		/* over a road: agreed_lowat.c */
		return;
	atomic_fetch_and(&c->s->flags, ~S_LOWAT_CUT);
	real.setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof(v));
	errno = e;
}

enum take { TAKE_SOME, TAKE_EMPTY, TAKE_TCP_FIRST, TAKE_FAULT, TAKE_BROKEN, TAKE_MOVED };

/*
 * Take what the ring has for v. *ret_n bytes were taken (TAKE_SOME). G9, G10: no lock; a second reader or a signal
 * handler that took the same bytes makes the compare-and-swap fail, and the copy is made again. With going_on it is taken only
 * if nobody took anything since *ret_taken was last written (G12).
 */
static enum take take_ring(struct thr *t, struct conn *c, struct vec *v, int flags, bool going_on, size_t *ret_n,
			   uint64_t *ret_g, uint64_t *ret_taken)
{
	struct side *s = c->s;
	uint32_t avail, n, base;
	uint64_t taken, g, start, C, seen;

	for (;;) {
		taken = atomic_load_explicit(&s->taken, memory_order_acquire);
		/* Bytes before a head that was read once need no look at the gate, whose line the sender is writing:
		 * while they are unread no segment starts and base stays. */
		seen = atomic_load_explicit(&c->seen, memory_order_relaxed);
		avail = (uint32_t)(seen >> 32) - (uint32_t)taken;
		if (avail - 1 < c->mask && !(going_on && taken != *ret_taken)) {
			base = (uint32_t)seen;
			*ret_g = WSD_GATE_OPEN | WSD_GATE_ON_RING;
			goto take;
		}
		g = atomic_load_explicit(&c->rx->gate, memory_order_acquire);
		avail = WSD_GATE_HEAD(g) - (uint32_t)taken;
		if (unlikely(going_on && taken != *ret_taken))
			return TAKE_MOVED;
		*ret_g = g;
		*ret_taken = taken;
		if (avail == 0)
			return TAKE_EMPTY;
		start = atomic_load_explicit(&c->rx->start, memory_order_relaxed);
		base = atomic_load_explicit(&c->rx->base, memory_order_relaxed);
		C = atomic_load_explicit(&s->C, memory_order_acquire);
		if (unlikely(avail > c->mask + 1 || C != start)) {
			if (atomic_load(&s->taken) != taken)
				continue;	/* another reader was here: start and C are of another segment */
			if (avail > c->mask + 1 || C > start)
				return TAKE_BROKEN;
			return TAKE_TCP_FIRST;
		}
		atomic_store_explicit(&c->seen, (uint64_t)WSD_GATE_HEAD(g) << 32 | base, memory_order_relaxed);
take:
		n = avail < v->len ? avail : (uint32_t)v->len;
		if (n > TAKE_PIECE)
			n = TAKE_PIECE;
		if (!(flags & MSG_TRUNC) && unlikely(!drain(t, c, taken, base, v, n))) {
			if (atomic_load(&s->taken) != taken)
				continue;
			return TAKE_FAULT;
		}
		if (likely(advance_taken(s, taken, taken + n)))
			break;
	}
	raise_tail(c, (uint32_t)taken + n);
	peek_forget(t, c, taken + n);
	*ret_n = n;
	*ret_taken = taken + n;
	return TAKE_SOME;
}

/*
 * Ring not empty, but C < start: those TCP bytes come first. At most start - C of them, without waiting, under the receive lock and
 * counted as a receive (G9). Returns bytes, 0 for end of stream, -errno; -EBUSY: look at the ring again.
 */
static ssize_t take_tcp_bounded(struct thr *t, struct conn *c, int fd, struct vec *v, int flags, uint64_t taken)
{
	struct side *s = c->s;
	uint64_t start, C;
	ssize_t r;

	if (!rx_lock_get(t, s))
		return -EAGAIN;
	cnt_add(&s->sleepers, 1);
	C = atomic_load(&s->C);
	start = atomic_load(&c->rx->start);
	if (atomic_load(&s->taken) != taken || C >= start) {
		r = -EBUSY;
		goto out;
	}
	r = kernel_recv(t, c, fd, v, start - C, (flags & MSG_TRUNC) | MSG_DONTWAIT);
	if (r > 0)
		cnt_add64(&s->C, (uint64_t)r);
	else if (r < 0)
		r = -errno;
out:
	cnt_add(&s->sleepers, -1u);
	rx_lock_drop(s);
	return r;
}

/*
 * Gate open, ring empty, X not on the ring: TCP may be read without closing the gate, for as much as lay in its queue while the
 * word did not change. Those bytes were handed to TCP before any later put, so they precede the start of any later segment
 * (the same argument as A2's). Without this a receiver that drains a full TCP would open and close for every call, and a
 * busy sender would never meet an open gate. Returns bytes, 0: nothing of that kind here, -errno.
 */
static ssize_t take_tcp_queued(struct thr *t, struct conn *c, int fd, struct vec *v, int flags, uint64_t g)
{
	struct side *s = c->s;
	ssize_t r = 0;
	int q = 0, e = errno;

	if (!rx_lock_try(t, s))
		return 0;
	cnt_add(&s->sleepers, 1);
	if (real.ioctl(fd, SIOCINQ, &q) < 0 || q <= 0 || atomic_load(&c->rx->gate) != g ||
	    WSD_GATE_HEAD(g) != (uint32_t)atomic_load(&s->taken))
		goto out;
	r = kernel_recv(t, c, fd, v, (size_t)q < v->len ? (size_t)q : v->len, (flags & MSG_TRUNC) | MSG_DONTWAIT);
	if (r > 0)
		cnt_add64(&s->C, (uint64_t)r);
	else
		r = 0;			/* the exact receive says what it is */
out:
	errno = e;
	cnt_add(&s->sleepers, -1u);
	rx_lock_drop(s);
	return r;
}

/* C set afresh from the kernel, under the receive lock, after a wait that brought nothing (G9) */
static bool resync_c(struct thr *t, struct conn *c, int fd)
{
	struct side *s = c->s;
	uint64_t k;
	int state = 0, inq = 0, r;
	bool ok = true, may_come;

	if (!rx_lock_get(t, s))
		return true;
	r = off_kernel_c(fd, &k, &state, &inq);
	if (r == 0) {
		may_come = state == 1 || state == 4 || state == 5;	/* ESTABLISHED, FIN_WAIT1, FIN_WAIT2 */
		if (may_come && k != atomic_load(&s->C) && k <= atomic_load(&c->rx->start))
			atomic_store(&s->C, k);
		if (!may_come && inq == 0 && atomic_load(&s->C) < atomic_load(&c->rx->start) && rx_avail(c))
			ok = false;	/* FIN or RST, all that came is taken: what precedes the ring never will */
	} else if (r != -EAGAIN) {
		ok = false;
	}
	rx_lock_drop(s);
	return ok;
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* a receive that waits for the TCP bytes before start */
struct bounded {
	int ms;			/* the next sleep; 0: the first */
	int64_t end;		/* SO_RCVTIMEO's, on now_ns's clock; 0: without */
};

/* wait for the TCP bytes before start; 0: look again, -errno as recv would give it */
static int wait_bounded(struct thr *t, struct conn *c, int fd, struct bounded *b)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct timespec to;
	int64_t left;
	int r, e;

	if (b->ms == 0) {
		struct timeval tv = { 0, 0 };
		socklen_t l = sizeof(tv);

		b->ms = 1;
		if (real.getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &l) == 0 && (tv.tv_sec || tv.tv_usec))
			b->end = now_ns() + (int64_t)tv.tv_sec * 1000000000 + tv.tv_usec * 1000;
	}
	left = b->ms * 1000000ll;
	if (b->end) {
		int64_t rest = b->end - now_ns();

		if (rest <= 0)
			return -EAGAIN;
		if (rest < left)
			left = rest;
	}
	cnt_add(&c->s->sleepers, 1);
	rx_close_gate(c);
	if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed))) {
		/* a handler ran since the call began: as if in the kernel's receive (G26) */
		r = -1;
		e = EINTR;
	} else {
		to = (struct timespec){ left / 1000000000, left % 1000000000 };
		conn_pin(c);
		cs_leave(t);
		r = real.ppoll(&p, 1, &to, NULL);
		e = errno;
		cs_enter();
		conn_unpin(c);
	}
	cnt_add(&c->s->sleepers, -1u);
	if (r < 0 && e == EINTR && atomic_load(&t->sig_any)) {
		bool intr = atomic_load(&t->sig_eintr);

		sig_call_begin(t);
		/* with SA_RESTART recv would go on; with a time-out it never does */
		return intr || b->end ? -EINTR : 0;
	}
	if (r < 0)
		return -e;
	if (r == 0) {
		b->ms = b->ms * 2 < BOUNDED_WAIT_MAX ? b->ms * 2 : BOUNDED_WAIT_MAX;
		if (!resync_c(t, c, fd))
			return -ECONNRESET;
	}
	return 0;
}

/* ---- waiting with an open gate (G24, G25) ---- */

/* true: look again (there is data, or the gate changed); false: go to sleep. *ret_kernel: TCP has something. */
bool rx_spin(struct thr *t, struct conn *c, int fd, bool *ret_kernel)
{
	uint64_t t0, now, prev, ask, lim;
	struct ledger *l = &c->led;
	uint32_t me = tsc_cpu1(), taken = (uint32_t)atomic_load_explicit(&c->s->taken, memory_order_relaxed), i = 0, yields = 0;
	int64_t yield_cost = 0;
	bool pause = false;

	*ret_kernel = false;
	if (!l->go || cfg.spin_us <= 0)
		return false;
	if (atomic_load_explicit(&c->rx->rcpu, memory_order_relaxed) != me)
		atomic_store_explicit(&c->rx->rcpu, me, memory_order_relaxed);
	/* A quick answer is found without asking the clock, which costs as much as the line takes to come over. A peer on this very
	 * CPU cannot run while we look. */
	if (++c->one_way <= ONE_WAY_MIN && !t->crowded_until &&
	    atomic_load_explicit(&c->rx->wcpu, memory_order_relaxed) != me)
		for (i = 0; i < QUICK_LOOKS; i++) {
			uint64_t g = atomic_load_explicit(&c->rx->gate, memory_order_acquire);

			if (WSD_GATE_HEAD(g) != taken) {
				spin_done(l, 0, worth_wait());
				return true;
			}
			if (unlikely(!(g & WSD_GATE_OPEN)))
				return true;
			_mm_pause();
		}
	t0 = prev = ask = tsc_now();
	if (i)
		t0 -= (uint64_t)US(QUICK_US);	/* they are paid for like the rest (G24) */
	if (!spin_ok(t, l, prev))
		return false;
	lim = spin_limit(l, 0);
	/* A stream one way: looking at each put takes the gate's line from the sender for each of them. A short while without
	 * looking lets it put several. */
	if (c->one_way > ONE_WAY_MIN)
		while (tsc_now() - prev < (uint64_t)US(ONE_WAY_US))
			_mm_pause();
	for (;;) {
		bool here = atomic_load_explicit(&c->rx->wcpu, memory_order_relaxed) == me;

		for (i = here ? 15 : 0; i < 16; i++) {
			uint64_t g = atomic_load_explicit(&c->rx->gate, memory_order_acquire);

			if (WSD_GATE_HEAD(g) != taken) {
				spin_done(l, spin_cost(t0, prev, yield_cost), worth_wait());
				return true;
			}
			if (unlikely(!(g & WSD_GATE_OPEN)))
				return true;
			/* not at first: one costs 40 to 140 cycles on newer machines */
			if (pause)
				_mm_pause();
		}
		if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed)))
			break;
		if (atomic_load_explicit(&c->rx->wcpu, memory_order_relaxed) == me) {
			int r = spin_yield(t, &yield_cost);

			prev = tsc_now();
			if (WSD_GATE_HEAD(atomic_load_explicit(&c->rx->gate, memory_order_acquire)) != taken) {
				spin_done(l, spin_cost(t0, prev, yield_cost), worth_wait());
				return true;
			}
			if (r || ++yields >= 2)
				break;
			me = tsc_cpu1();
		}
		now = tsc_now();
		if (now - prev > (uint64_t)US(SPIN_GAP_US)) {
			yield_cost += (int64_t)(now - prev);
			if (spin_gap(t, now))
				break;
		}
		prev = now;
		pause = now - t0 > (uint64_t)US(2) && !here;
		if ((int64_t)(now - t0) - yield_cost > (int64_t)lim)
			break;
		if (now - ask > (uint64_t)US(2) &&
		    !(atomic_load_explicit(&c->rx->gate, memory_order_relaxed) & WSD_GATE_ON_RING)) {
			struct pollfd p = { .fd = fd, .events = POLLIN };
			int e = errno;

			ask = now;
			if (real.poll(&p, 1, 0) != 0) {
				errno = e;
				*ret_kernel = true;
				spin_done(l, (int64_t)(now - t0) - yield_cost, worth_sleep());
				return false;
			}
		}
	}
	spin_done(l, (int64_t)(tsc_now() - t0) - yield_cost, 0);
	return false;
}

/* ---- opening (G14, G15) ---- */

void rx_maybe_open(struct thr *t, struct conn *c, int fd, bool nb)
{
	struct side *s = c->s;
	struct wsd_session *hdr = c->hdr;
	uint64_t g = atomic_load_explicit(&c->rx->gate, memory_order_relaxed), t0;
	struct ledger *l;
	int r;

	if (g & WSD_GATE_OPEN)
		return;
	if (unlikely(atomic_load_explicit(&s->flags, memory_order_relaxed) &
		     (S_SHUT_RD | S_EOF | S_NO_OPEN | S_LOWAT | S_BROKEN | S_FOREIGN)))
		return;
	if (atomic_load_explicit(&hdr->attached, memory_order_acquire) != 3 || atomic_load(&hdr->revoked))
		return;
	if (WSD_GATE_HEAD(g) != (uint32_t)atomic_load(&s->taken))
		return;
	/* every wait for it must go through us (G14.3) */
	if (c->bad_regs || (nb && !atomic_load_explicit(&c->regs, memory_order_relaxed) &&
			    !atomic_load_explicit(&c->polled, memory_order_relaxed)))
		return;
	l = rx_ledger(c);
	if (!led_may(l, tsc_now(), peer_awake(c)) && !shake_hit(t))
		return;
	if (!lock_try(&s->open_lock, thr_tid(t)))
		return;
	if (!rx_touch(c) || !eset_enter_open(c))
		goto out;
	g = atomic_load(&c->rx->gate);
	/* registrations change under open_lock only */
	if (c->bad_regs || (nb && !atomic_load(&c->regs) && !atomic_load(&c->polled)))
		goto out;
	if ((g & WSD_GATE_OPEN) || atomic_load(&s->sleepers) != 0 || eset_sleepers(c))
		goto out;
	t0 = tsc_now();
	r = off_check_rx(c, fd);
	t0 = tsc_now() - t0;		/* most of what opening costs */
	led_add(l, -(int64_t)(t0 < (uint64_t)US(CHECK_MAX_US) ? t0 : (uint64_t)US(CHECK_MAX_US)));
	if (r <= 0) {
		if (r < 0)
			conn_to_tcp(c, WSD_R_OFFSETS);
		goto out;
	}
	/* last look, then the swap: a sleeper that came after it raises the epoch (G15) */
	if (atomic_load(&s->sleepers) != 0 || eset_sleepers(c) || atomic_load(&hdr->revoked) ||
	    (atomic_load(&s->flags) & (S_SHUT_RD | S_NO_OPEN | S_LOWAT | S_FOREIGN)))
		goto out;
	c->used = WSD_GATE_HEAD(g);
	atomic_store_explicit(&c->rx->rcpu, tsc_cpu1(), memory_order_relaxed);
	if (atomic_compare_exchange_strong(&c->rx->gate, &g, wsd_gate_next(g, WSD_GATE_OPEN)))
		stats_gate(true);
out:
	lock_drop(&s->open_lock);
}

static ssize_t fail(int e)
{
	errno = e;
	return -1;
}

/* TCP stands at the urgent mark */
bool rx_at_mark(int fd)
{
	int v = 0;

	return real.ioctl(fd, SIOCATMARK, &v) == 0 && v;
}

/* ---- MSG_PEEK (G12) ---- */

/* keep a private copy of all that the ring holds, if it is not there yet; rx_lock held */
static bool peek_fill(struct conn *c, uint64_t taken, uint32_t base, uint32_t avail)
{
	uint8_t *p = c->peek;
	uint32_t i, k;

	if (c->peek_len && c->peek_at <= taken && taken + avail <= c->peek_at + c->peek_len)
		return true;
	if (!p) {
		/* receives are called from signal handlers, malloc is not */
		p = mmap(NULL, (size_t)c->mask + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			return false;
		c->peek = p;
	}
	if (c->peek_len && taken >= c->peek_at && taken < c->peek_at + c->peek_len) {
		/* what was shown before stays as it was shown */
		k = (uint32_t)(c->peek_at + c->peek_len - taken);
		memmove(p, p + (taken - c->peek_at), k);
	} else {
		k = 0;
	}
	for (i = k; i < avail; i++)
		p[i] = c->rxr[((uint32_t)taken + i - base) & c->mask];
	c->peek_at = taken;
	c->peek_len = avail;
	return true;
}

static ssize_t vec_put(const struct vec *v, size_t at, const uint8_t *src, size_t n)
{
	struct vec w = *v;

	if (n > w.len - at)
		n = w.len - at;
	if (at)
		vec_skip(&w, at);
	while (n > 0) {
		size_t k = w.iov->iov_len - w.off;

		if (k > n)
			k = n;
		if (!fault_copy((char *)w.iov->iov_base + w.off, src, k))
			return -EFAULT;
		src += k;
		n -= k;
		vec_skip(&w, k);
	}
	return 0;
}

/* TCP bytes [from, ...) of what a kernel peek shows, appended at v[at]; returns how many, or -errno */
static ssize_t peek_kernel(struct thr *t, struct conn *c, int fd, const struct vec *v, size_t at, size_t from)
{
	size_t n = v->len - at + from;
	struct iovec io;
	struct vec w;
	uint8_t *tmp;
	ssize_t r;

	if (n > (1u << 20))
		n = 1u << 20;
	tmp = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (tmp == MAP_FAILED)
		return -ENOMEM;
	io = (struct iovec){ tmp, n };
	w = (struct vec){ &io, 1, 0, n };
	r = kernel_recv(t, c, fd, &w, n, MSG_PEEK | MSG_DONTWAIT);
	if (r < 0) {
		r = -errno;
	} else if ((size_t)r <= from) {
		r = 0;
	} else {
		r -= (ssize_t)from;
		if (vec_put(v, at, tmp + from, (size_t)r) < 0)
			r = -EFAULT;
	}
	munmap(tmp, n);
	return r;
}

/* EOF while bytes of ours lie unread in the peer's ring: where nobody holds the peer's socket any more TCP says ECONNRESET (G21) */
static bool peer_left_unread(struct conn *c, int fd)
{
	return unlikely(unread_maybe(c, POLLRDHUP)) && unread_look(c, fd) && unread_error(c, fd) == ECONNRESET;
}

static ssize_t rx_peek(struct thr *t, struct conn *c, int fd, struct vec *v, int flags, bool nb)
{
	struct side *s = c->s;
	struct bounded bound = { 0 };
	int more, tries = 0;
	ssize_t r = 0, k;

	for (;;) {
		uint64_t g, taken, start, C;
		uint32_t avail, base;
		size_t got = 0, first;

		cnt_add(&s->sleepers, 1);
		g = rx_close_gate(c);
		taken = atomic_load(&s->taken);
		avail = WSD_GATE_HEAD(g) - (uint32_t)taken;
		start = atomic_load(&c->rx->start);
		base = atomic_load(&c->rx->base);
		C = atomic_load(&s->C);
		if (avail == 0) {
			/* gate closed, ring empty: the kernel's answer is exact */
			atomic_store(&c->kevent, 0);
			r = kernel_recv(t, c, fd, v, v->len, flags);
			cnt_add(&s->sleepers, -1u);
			return r == 0 && peer_left_unread(c, fd) ? fail(ECONNRESET) : r;
		}
		if (avail > c->mask + 1 || C > start) {
			cnt_add(&s->sleepers, -1u);
			if (atomic_load(&s->taken) != taken)
				continue;
			conn_reset(c, fd, "head or start out of bounds");
			errno = ECONNRESET;
			return -1;
		}
		first = C < start ? start - C : 0;
		if (first) {
			struct vec w = *v;

			r = kernel_recv(t, c, fd, &w, first < v->len ? first : v->len, MSG_PEEK | MSG_DONTWAIT);
			if (r < 0) {
				int e = errno;

				cnt_add(&s->sleepers, -1u);
				if (e != EAGAIN || nb) {
					errno = e;
					return -1;
				}
				r = wait_bounded(t, c, fd, &bound);
				if (r < 0) {
					errno = (int)-r;
					return -1;
				}
				continue;
			}
			got = (size_t)r;
			if (got < first)
				goto out;
		}
		if (got < v->len) {
			if (!rx_lock_get(t, s))
				goto out_or_again;
			if (atomic_load(&s->taken) != taken || !peek_fill(c, taken, base, avail)) {
				rx_lock_drop(s);
				goto out_or_again;
			}
			k = (ssize_t)(v->len - got < avail ? v->len - got : avail);
			r = vec_put(v, got, c->peek + (taken - c->peek_at), (size_t)k);
			rx_lock_drop(s);
			if (r < 0) {
				cnt_add(&s->sleepers, -1u);
				errno = EFAULT;
				return -1;
			}
			got += (size_t)k;
		}
		if (got < v->len && real.ioctl(fd, SIOCINQ, &more) == 0 && (size_t)more > first && !rx_at_mark(fd)) {
			k = peek_kernel(t, c, fd, v, got, first);
			if (k > 0)
				got += (size_t)k;
		}
out:
		cnt_add(&s->sleepers, -1u);
		if (unlikely(atomic_load(&s->taken) != taken || atomic_load(&s->C) != C))
			continue;	/* another reader took some of it meanwhile: look again */
		return (ssize_t)got;
out_or_again:
		cnt_add(&s->sleepers, -1u);
		if (got)
			return (ssize_t)got;
		if (nb || ++tries > 20)
			return fail(EAGAIN);	/* another reader is in there, or no memory for the copy */
	}
}

/* ---- receive ---- */

/* EAGAIN or a short count, at this very moment, is the truth: the gate is open, the ring is empty, and either the
 * kernel was asked a moment ago or it says so now (G13) */
static bool nothing_there(struct thr *t, struct conn *c, int fd, uint64_t g)
{
	uint64_t now, asked;
	uint32_t kevent;
	ssize_t n;
	char x;
	int e = errno;

	if (!(g & WSD_GATE_OPEN))
		return false;
	now = tsc_now();
	if ((g & WSD_GATE_ON_RING) && !atomic_load_explicit(&c->kevent, memory_order_relaxed) &&
	    atomic_load_explicit(&c->rx->start, memory_order_relaxed) == atomic_load(&c->s->C)) {
		asked = eset_asked(c);
		if (c->asked > asked)
			asked = c->asked;
		if (now - asked < (uint64_t)US(SHORT_CUT_US))
			return true;
	}
	if (shake_hit(t))
		return false;
	kevent = atomic_exchange(&c->kevent, 0);	/* before the look: what is reported after it stays */
	n = real.recv(fd, &x, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n >= 0 || errno != EAGAIN) {
		if (n < 0 && errno != EINTR)
			atomic_store(&c->s->kept_err, errno);	/* the kernel told it to us, once */
		errno = e;
		if (kevent)
			atomic_store(&c->kevent, 1);
		return false;
	}
	errno = e;
	if (atomic_load(&c->rx->gate) != g)
		return false;
	c->asked = now;
	return true;
}

ssize_t rx_recvmsg_tcp(struct thr *t, struct conn *c, int fd, struct msghdr *m, int flags)
{
	struct pinned p __attribute__((cleanup(pinned_end))) = { t, c, false };
	struct side *s = c->s;
	ssize_t r;
	int e = atomic_exchange(&s->kept_err, 0);

	if (e)
		return fail(e);
	rx_begin_tcp(c);
	conn_pin(c);
	p.in_kernel = true;
	cs_leave(t);
	r = real.recvmsg(fd, m, flags);
	e = errno;
	p.in_kernel = false;
	cs_enter();
	conn_unpin(c);
	rx_end_tcp(c, flags & MSG_PEEK ? 0 : r);
	if (r == 0 && !(flags & MSG_PEEK)) {
		atomic_fetch_or(&s->flags, S_EOF);
		if (peer_left_unread(c, fd))
			return fail(ECONNRESET);
	}
	errno = e;
	return r;
}

ssize_t rx_recv(struct thr *t, struct conn *c, int fd, struct vec *v, int flags)
{
	struct side *s = c->s;
	bool nb, kern, more, slept = false;
	uint32_t head;
	size_t got = 0, n;
	uint64_t g, taken = 0, at_c = 0;
	struct bounded bound = { 0 };
	struct worth_sample m;
	int e, rounds = 0;
	ssize_t r;

	if (!conn_att(c)) {
		rx_touch(c);
		if (unlikely(conn_elsewhere(c)))
			conn_reset(c, fd, "attached by another process after the fork");
		if (!conn_agreed(c)) {
			r = rx_plain(t, c, fd, v, flags);
			if (likely(r != RX_AGAIN))
				return r;
		}
		return agreed_recv(t, c, fd, v, flags);
	}
	if (unlikely(v->len == 0) && rx_readable(c, &head))
		return 0;	/* a receive of nothing waits for data all the same */
	if (unlikely(flags & (MSG_OOB | MSG_ERRQUEUE)) || unlikely(v->len == 0)) {
		/* urgent data, the error queue, nothing wanted: the kernel's answer; no stream byte moves */
		cnt_add(&s->sleepers, 1);
		rx_close_gate(c);
		r = kernel_recv(t, c, fd, v, v->len, flags);
		cnt_add(&s->sleepers, -1u);
		return r;
	}
	(void)rx_touch(c);
	nb = (flags & MSG_DONTWAIT) || atomic_load_explicit(&s->nonblock, memory_order_relaxed);
	if (unlikely(atomic_load_explicit(&s->kept_err, memory_order_relaxed)) && rx_avail(c) == 0) {
		e = atomic_exchange(&s->kept_err, 0);
		if (e)
			return fail(e);
	}
	if (unlikely(flags & MSG_PEEK))
		return rx_peek(t, c, fd, v, flags, nb);
	if (unlikely(cfg.shake) && shake_hit(t))
		rx_close_gate(c);
	if (unlikely(atomic_load_explicit(&c->rx->yflags, memory_order_relaxed) & WSD_Y_HANDED_ON))
		atomic_fetch_and(&c->rx->yflags, ~WSD_Y_HANDED_ON);	/* a holder is here (G22) */

again:
	switch (take_ring(t, c, v, flags, got != 0, &n, &g, &taken)) {
	case TAKE_MOVED:
		goto done;
	case TAKE_SOME:
		if (!got)
			at_c = atomic_load_explicit(&s->C, memory_order_relaxed);
		led_add(rx_ledger(c), EARN_MSG);
		got += n;
		if (likely(n == v->len)) {
			if (likely(g & WSD_GATE_OPEN))
				return (ssize_t)got;
			goto done;
		}
		vec_skip(v, n);
		goto again;
	case TAKE_FAULT:
		if (got)
			goto done;
		return fail(EFAULT);
	case TAKE_BROKEN:
		conn_reset(c, fd, "head or start out of bounds");
		if (got)
			goto done;
		return fail(ECONNRESET);
	case TAKE_TCP_FIRST:
		r = take_tcp_bounded(t, c, fd, v, flags, taken);
		if (r > 0) {
			at_c = atomic_load(&s->C);
			got += (size_t)r;
			vec_skip(v, (size_t)r);
			c->ack_due = true;
			if (v->len)
				goto again;
			goto done;
		}
		if (r == -EBUSY)
			goto again;
		if (r != -EAGAIN && r != -EINTR) {
			/* FIN or RST while C < start: what was sent before the ring can never come */
			if (r == 0 || r == -ECONNRESET)
				conn_reset(c, fd, "stream ended before the ring's start");
			if (got) {
				atomic_store(&s->kept_err, r ? (int)-r : ECONNRESET);
				goto done;
			}
			return fail(r ? (int)-r : ECONNRESET);
		}
		if (got && !(flags & MSG_WAITALL))
			goto done;
		if (nb)
			return got ? (ssize_t)got : fail(EAGAIN);
		r = wait_bounded(t, c, fd, &bound);
		if (r < 0) {
			if (r == -ECONNRESET)
				conn_reset(c, fd, "stream ended before the ring's start");
			return got ? (ssize_t)got : fail((int)-r);
		}
		goto again;
	case TAKE_EMPTY:
		break;
	}

	/* the ring is empty */
	if (unlikely(atomic_load_explicit(&s->flags, memory_order_relaxed) & S_HANDED)) {
		atomic_fetch_and(&s->flags, ~S_HANDED);
		mark_set(fd, MARK_UNREAD, false);	/* nothing of ours is left for whom it was handed to */
	}
	/* the rest of a low-water mark is waited for in the kernel, which has it cut (G23) */
	more = (flags & MSG_WAITALL) ||
	       (unlikely(atomic_load_explicit(&s->flags, memory_order_relaxed) & S_LOWAT) && !nb &&
		got < atomic_load(&s->lowat));
	/* Nothing can be behind the ring but the end of the stream: who waits level-triggered is told of it, and who waits
	 * edge-triggered as well unless he was told already (G13) */
	if (got && !more && (!nb || !c->et_regs || !atomic_load_explicit(&c->kevent, memory_order_relaxed)) &&
	    (g & (WSD_GATE_OPEN | WSD_GATE_ON_RING)) == (WSD_GATE_OPEN | WSD_GATE_ON_RING))
		goto done;
	if (got && unlikely(atomic_load(&s->C) != at_c))
		goto done;	/* another reader was at TCP meanwhile (G12) */
	if ((g & (WSD_GATE_OPEN | WSD_GATE_ON_RING)) == WSD_GATE_OPEN) {
		if (got && rx_at_mark(fd))
			goto done;	/* an urgent byte is next: reads stop there */
		r = take_tcp_queued(t, c, fd, v, flags, g);
		if (r > 0) {
			at_c = atomic_load(&s->C);
			got += (size_t)r;
			vec_skip(v, (size_t)r);
			c->ack_due = true;
			c->asked = 0;
			if (v->len && (nb || (flags & MSG_WAITALL)))
				goto again;
			goto done;
		}
	}
	if (nb) {
		if (nothing_there(t, c, fd, g)) {
			if (got)
				goto done;
			return fail(EAGAIN);
		}
		/* something came while the kernel was asked: no reason to close the gate */
		g = atomic_load_explicit(&c->rx->gate, memory_order_relaxed);
		if ((g & WSD_GATE_OPEN) && WSD_GATE_HEAD(g) != (uint32_t)atomic_load(&s->taken) && rounds++ < 4)
			goto again;
	} else if (!got && (g & WSD_GATE_OPEN) && !slept) {
		if (rx_spin(t, c, fd, &kern))
			goto again;
		slept = !kern;
		/* TCP has something: it is taken with the gate left open, or a fast receiver of a full stream would have it
		 * closed nearly always, and the sender never begin a segment */
		if (kern && !(g & WSD_GATE_ON_RING) && rounds++ < 2)
			goto again;
	}

	/* G11: gate closed and ring empty, so the kernel's receive is exact */
	cnt_add(&s->sleepers, 1);
	g = rx_close_gate(c);
	if (WSD_GATE_HEAD(g) != (uint32_t)atomic_load(&s->taken)) {
		cnt_add(&s->sleepers, -1u);
		goto again;
	}
	if (got && unlikely(atomic_load(&s->taken) != taken || rx_at_mark(fd))) {
		cnt_add(&s->sleepers, -1u);
		goto done;	/* another reader was at the ring meanwhile (G12), or an urgent byte is next: reads stop there */
	}
	m.on = false;
	if (!nb && !got)
		worth_begin(&m, &t->n_slept);	/* a system call now and then: before the look for signals */
	if (!nb && !got && unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed))) {
		bool intr = atomic_load(&t->sig_eintr);

		sig_call_begin(t);
		if (intr) {		/* the signal came while we span: as if it had come in the kernel (G26) */
			cnt_add(&s->sleepers, -1u);
			return fail(EINTR);
		}
	}
	if (!got && unlikely(atomic_load_explicit(&s->kept_err, memory_order_relaxed)) &&
	    (e = atomic_exchange(&s->kept_err, 0)) != 0) {
		cnt_add(&s->sleepers, -1u);
		return fail(e);
	}
	if (!nb && !got && slept)
		led_sleep(&c->led, WSD_GATE_HEAD(g) == c->used);
	atomic_store_explicit(&c->kevent, 0, memory_order_relaxed);
	r = kernel_recv(t, c, fd, v, v->len, (flags & ~MSG_PEEK) | (got && !more ? MSG_DONTWAIT : 0));
	e = errno;
	worth_slept(&m);
	if (r > 0)
		cnt_add64(&s->C, (uint64_t)r);
	cnt_add(&s->sleepers, -1u);
	if (r > 0) {
		led_tcp(rx_ledger(c));
		got += (size_t)r;
		c->ack_due = true;
		c->asked = 0;
		goto done;
	}
	if (r == 0) {
		if (got)
			return (ssize_t)got;	/* the kernel says it again */
		atomic_fetch_or(&s->flags, S_EOF);
		if (peer_left_unread(c, fd))
			return fail(ECONNRESET);
		return 0;
	}
	if (e == EAGAIN) {
		c->asked = tsc_now();
		rx_maybe_open(t, c, fd, nb);
		errno = EAGAIN;
	} else if (got && e != EINTR) {
		atomic_store(&s->kept_err, e);
	}
	if (got)
		return (ssize_t)got;
	errno = e;
	return -1;

done:
	e = errno;
	rx_maybe_open(t, c, fd, nb);
	errno = e;
	return (ssize_t)got;
}
