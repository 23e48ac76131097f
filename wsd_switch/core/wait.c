/* SPDX-License-Identifier: MIT */
/*
 * wait.c - poll and select over connections on two roads
 *
 * A ring that is readable (G9) is a hit; without one the wait may spin a little, then counts itself in at every
 * connection it covers, closes their gates, looks once more, and sleeps in the kernel's own call (G14, G15). The kernel's
 * answer is exact for all but the rings, which are added to it. A ring behind TCP bytes on their way is waited for in short
 * pieces (G9).
 *
 * With a connection to another host among them (agreed.h) the wait is a ppoll of our own, select's too: beside the program's
 * descriptors it holds the device's and one by which our other threads wake us (A1), and it asks the kernel only for what
 * the program could be told at once. Such a wait needs not be counted in: whatever is granted meanwhile wakes it.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "wsd_switch/core/agreed.h"
#include "wsd_switch/core/switch.h"
#include "wsd_switch/core/unread.h"

#define ON_STACK 64
#define RD_BITS (POLLIN | POLLRDNORM)

struct item {
	struct conn *c;
	int fd;
	uint32_t i;		/* index in the caller's array; select: the descriptor */
	bool in;		/* input is waited for */
	bool road;		/* to another host, when the wait began */
	uint32_t changes, got;	/* of the road before the last look at it, and what that found */
	uint32_t wanted;
};

struct items {
	struct item *v;
	uint32_t n, cap, n_att, n_road;
	bool counted;
	struct item stack[ON_STACK];
	size_t mapped;
};

static void items_end(struct items *w)
{
	uint32_t i;

	for (i = 0; i < w->n; i++) {
		if (w->counted && !w->v[i].road)
			atomic_fetch_sub(&w->v[i].c->s->sleepers, 1);
		conn_unpin(w->v[i].c);
	}
	w->n = 0;
	if (w->mapped)
		munmap(w->v, w->mapped);
}

static bool items_add(struct items *w, struct conn *c, int fd, uint32_t i, bool in)
{
	if (w->n == w->cap) {
		size_t bytes = sizeof(struct item) * w->cap * 4;
		struct item *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			return false;
		memcpy(p, w->v, sizeof(struct item) * w->n);
		if (w->mapped)
			munmap(w->v, w->mapped);
		w->v = p;
		w->mapped = bytes;
		w->cap *= 4;
	}
	conn_pin(c);
	if (in) {
		rx_touch(c);
		atomic_store_explicit(&c->polled, 1, memory_order_relaxed);
	}
	w->n_att += conn_att(c);
	w->v[w->n] = (struct item){ .c = c, .fd = fd, .i = i, .in = in, .road = conn_agreed(c) };
	w->n_road += w->v[w->n++].road;
	return true;
}

static bool hit(const struct items *w)
{
	uint32_t i, h;

	for (i = 0; i < w->n; i++)
		if (w->v[i].in && conn_att(w->v[i].c) &&
		    (rx_readable(w->v[i].c, &h) || atomic_load_explicit(&w->v[i].c->s->kept_err, memory_order_relaxed)))
			return true;
	return false;
}

typedef int ask_fn(void *arg, const struct timespec *to);
static const struct timespec zero_ts;
static _Atomic bool no_ppoll;	/* a filter around the program refuses it */

/* an error is the call's answer */
static int ask_again(struct thr *t, ask_fn *ask, void *arg)
{
	int r;

	cs_leave(t);
	r = ask(arg, &zero_ts);
	cs_enter();
	return r;
}

static int ask_now(struct thr *t, ask_fn *ask, void *arg)
{
	int e = errno, r = ask_again(t, ask, arg);

	errno = e;		/* an error comes again when the wait itself asks */
	return r;
}

/* the ledger of the first connection with an open gate, and how many there are; NULL: none */
static struct ledger *payer(struct items *w, uint32_t *ret_open, bool *ret_on_ring)
{
	struct ledger *l = NULL;
	uint32_t i;

	*ret_open = 0;
	*ret_on_ring = false;
	for (i = 0; i < w->n; i++) {
		struct conn *c = w->v[i].c;
		uint64_t g;

		if (!w->v[i].in || !conn_att(c) || !((g = atomic_load(&c->rx->gate)) & WSD_GATE_OPEN))
			continue;
		(*ret_open)++;
		*ret_on_ring |= !!(g & WSD_GATE_ON_RING);
		if (!l)
			l = rx_ledger(c);
	}
	return l;
}

/* Wait awake for one of several rings; the first one's ledger pays (G24). While none of them runs the kernel is asked first and every
 * 2 us, else every 5. *ret_kernel: its answer, if it had one. */
static bool spin(struct thr *t, struct items *w, ask_fn *ask, void *arg, uint64_t until, int *ret_kernel)
{
	uint64_t t0 = tsc_now(), now, prev = t0, lim, asked = 0;
	struct ledger *l;
	uint32_t i, n_open, me = tsc_cpu1(), yields = 0;
	int64_t cost = 0;
	bool on_ring = false;

	if (w->n_att > ON_STACK)
		return false;
	l = payer(w, &n_open, &on_ring);
	/* a wait for output or for strangers as well cannot be left to the rings */
	if (!l || !spin_ok(t, l, t0))
		return false;
	lim = spin_limit(l, doze_at_stake(&t->polls, n_open));
	if (on_ring)
		asked = t0;
	for (;;) {
		if (hit(w)) {
			spin_done(l, spin_cost(t0, prev, cost), doze_earned(&t->polls, n_open));
			doze_waited(&t->polls, tsc_now() - t0);
			return true;
		}
		now = tsc_now();
		if (now - asked > (uint64_t)US(on_ring ? 5 : 2)) {
			asked = now;
			*ret_kernel = ask_now(t, ask, arg);
			if (*ret_kernel > 0) {
				spin_done(l, (int64_t)(now - t0) - cost, worth_sleep());
				return false;
			}
		}
		if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed)))
			return false;
		for (i = 0; i < w->n; i++)
			if (conn_att(w->v[i].c) &&
			    atomic_load_explicit(&w->v[i].c->rx->wcpu, memory_order_relaxed) == me)
				break;
		if (i < w->n) {
			int y = spin_yield(t, &cost);

			prev = tsc_now();
			if (hit(w))
				continue;
			if (y || ++yields >= 2)
				break;
			me = tsc_cpu1();
		} else {
			_mm_pause();
		}
		now = tsc_now();
		if (now - prev > (uint64_t)US(SPIN_GAP_US)) {
			cost += (int64_t)(now - prev);
			if (spin_gap(t, now))
				break;
		}
		prev = now;
		if ((int64_t)(now - t0) - cost > (int64_t)lim || now >= until)
			break;
	}
	spin_done(l, (int64_t)(tsc_now() - t0) - cost, 0);
	return false;
}

/* with the gates open for a little longer? The first one's ledger pays. */
static bool doze(struct thr *t, struct items *w)
{
	struct ledger *l;
	uint32_t n_open;
	bool on_ring;

	if (w->n_att < DOZE_WORTH || w->n_att > ON_STACK || atomic_load_explicit(&no_ppoll, memory_order_relaxed))
		return false;
	l = payer(w, &n_open, &on_ring);
	if (!l || !doze_may(t, &t->polls, l, w->n_att, n_open))
		return false;
	doze_begin(t, &t->polls, l);
	return true;
}

/* counted in, then closed (G15); true: something is readable. *ret_behind: a ring behind TCP bytes. */
static bool close_items(struct items *w, bool *ret_behind)
{
	uint32_t i, h;
	bool any = false;

	*ret_behind = false;
	for (i = 0; i < w->n; i++)
		if (likely(!w->v[i].road))
			atomic_fetch_add(&w->v[i].c->s->sleepers, 1);
	w->counted = true;
	for (i = 0; i < w->n; i++) {
		struct conn *c = w->v[i].c;
		uint64_t g;
		bool open;

		if (!w->v[i].in || !conn_att(c))
			continue;
		open = atomic_load_explicit(&c->rx->gate, memory_order_relaxed) & WSD_GATE_OPEN;
		g = rx_close_gate(c);
		if (rx_readable(c, &h) || atomic_load(&c->s->kept_err))
			any = true;
		else if (WSD_GATE_HEAD(g) != (uint32_t)atomic_load(&c->s->taken))
			*ret_behind = true;
		if (open && !any)
			led_sleep(rx_ledger(c), WSD_GATE_HEAD(g) == c->used);
	}
	return any;
}

static void uncount(struct items *w)
{
	uint32_t i;

	if (!w->counted)
		return;
	for (i = 0; i < w->n; i++)
		if (likely(!w->v[i].road))
			atomic_fetch_sub(&w->v[i].c->s->sleepers, 1);
	w->counted = false;
}

static bool is_zero(const struct timespec *to)
{
	return to && to->tv_sec == 0 && to->tv_nsec == 0;
}

static void deadline(struct timespec *end, const struct timespec *to)
{
	clock_gettime(CLOCK_MONOTONIC, end);
	end->tv_sec += to->tv_sec;
	end->tv_nsec += to->tv_nsec;
	if (end->tv_nsec >= 1000000000) {
		end->tv_nsec -= 1000000000;
		end->tv_sec++;
	}
}

/* what is left of a wait; never negative */
static struct timespec left_of(const struct timespec *end)
{
	struct timespec now, r = { 0, 0 };
	int64_t ns;

	clock_gettime(CLOCK_MONOTONIC, &now);
	ns = (end->tv_sec - now.tv_sec) * 1000000000ll + end->tv_nsec - now.tv_nsec;
	if (ns > 0) {
		r.tv_sec = ns / 1000000000;
		r.tv_nsec = ns % 1000000000;
	}
	return r;
}

static bool later(const struct timespec *end, const struct timespec *span)
{
	struct timespec rest = left_of(end);

	return rest.tv_sec > 0 || rest.tv_nsec > span->tv_nsec;
}

/*
 * The common course of poll and select. ask() makes the kernel's call with the time given; it is called once, or in
 * pieces while a ring waits behind TCP bytes. Returns what ask() returned, *ret_ring: add the rings.
 */
static int wait_common(struct thr *t, struct items *w, const struct timespec *to, const sigset_t *mask,
		       ask_fn *ask, void *arg, bool *ret_ring)
{
	struct timespec end = { 0, 0 }, cut, rest;
	const struct timespec *use;
	struct worth_sample m;
	int r = 0, e, before = errno, ms = 1;
	bool behind = false;

	*ret_ring = hit(w);
	doze_over(t, &t->polls, false);
	if (to && !is_zero(to))
		deadline(&end, to);
	if (!*ret_ring && !is_zero(to) && !mask)
		*ret_ring = spin(t, w, ask, arg, to ? spin_until(to) : UINT64_MAX, &r);
	if (r > 0)
		return r;
	for (;;) {
		if (!*ret_ring && unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed)) && !is_zero(to)) {
			sig_call_begin(t);		/* a handler ran while we were awake in here (G26) */
			errno = EINTR;
			return -1;
		}
		if (*ret_ring || is_zero(to)) {
			use = &zero_ts;
		} else if (!mask && (!to || later(&end, &doze_time)) && doze(t, w)) {
			use = &doze_time;
		} else {
			doze_over(t, &t->polls, true);
			*ret_ring = close_items(w, &behind);
			use = *ret_ring ? &zero_ts : to;
			if (to && !*ret_ring) {
				rest = left_of(&end);
				use = &rest;
			}
			if (behind && !*ret_ring) {
				cut.tv_sec = 0;
				cut.tv_nsec = ms * 1000000l;
				if (!to || rest.tv_sec > 0 || rest.tv_nsec > cut.tv_nsec)
					use = &cut;
				ms = ms * 2 < 50 ? ms * 2 : 50;
			}
		}
		m.on = false;
		if (w->n_att)
			worth_begin(&m, &t->n_slept);
		cs_leave(t);
		r = ask(arg, use);
		e = errno;
		cs_enter();
		worth_slept(&m);
		uncount(w);
		errno = e;
		if (r < 0 && use == &doze_time && (e == ENOSYS || e == EPERM)) {
			atomic_store(&no_ppoll, true);
			errno = before;
			continue;
		}
		if (r == 0 && (use == &cut || use == &doze_time)) {
			*ret_ring = hit(w);
			continue;
		}
		if (r == 0 && *ret_ring && !is_zero(to) && !hit(w)) {
			*ret_ring = false;	/* another reader took what ended the wait */
			continue;
		}
		return r;
	}
}

/* ---- connections to other hosts ---- */

#define ALWAYS (POLLERR | POLLHUP | POLLNVAL)
#define ROAD_SLICE_MS 10
#define ROAD_ASK_US 20

/* what the program could be told now; q[].events: what the kernel is to be asked for. *ret_nap: look again after so many ms */
static bool look_roads(struct thr *t, struct items *w, struct pollfd *q, unsigned *ret_nap)
{
	bool any = false;
	uint32_t i, ask;
	unsigned nap;

	*ret_nap = 0;
	for (i = 0; i < w->n; i++) {
		struct item *it = &w->v[i];

		if (!it->road)
			continue;
		it->changes = road_changes(road_of(it->c));
		it->got = road_report(t, it->c, it->fd, it->wanted, 0, &ask, &nap);
		any |= it->got || atomic_load_explicit(&it->c->s->kept_err, memory_order_relaxed);
		q[it->i].events = (short)ask;
		if (nap && (!*ret_nap || nap < *ret_nap))
			*ret_nap = nap;
	}
	return any;
}

static bool roads_changed(const struct items *w)
{
	uint32_t i;

	for (i = 0; i < w->n; i++)
		if (w->v[i].road && road_changes(road_of(w->v[i].c)) != w->v[i].changes)
			return true;
	return false;
}

/* a moment awake, for the device or the kernel. true: look again */
static bool spin_roads(struct thr *t, struct items *w, struct pollfd *q, nfds_t n, uint64_t until)
{
	uint64_t t0 = tsc_now(), asked = t0, now, most = (uint64_t)US(cfg.road_spin_us);
	struct road *r = NULL;
	uint32_t i, looks = 0;

	for (i = 0; i < w->n && !r; i++)
		if (w->v[i].road && road_mine(road_of(w->v[i].c)) && !(agreed_plain_in(w->v[i].c) && agreed_plain_out(w->v[i].c)))
			r = road_of(w->v[i].c);
	if (!r || cfg.spin_us <= 0 || cfg.road_spin_us <= 0)
		return false;
	for (;;) {
		sig_hold();
		r->p.poll(r->p.conn);	/* one queue serves them all */
		sig_release();
		if (roads_changed(w))
			return true;
		if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed)))
			return false;
		now = tsc_now();
		if (now - t0 > most || now >= until)
			return false;
		if (now - asked > (uint64_t)US(ROAD_ASK_US)) {
			asked = now;
			if (real.poll(q, n, 0) > 0)
				return false;	/* the wait itself returns at once */
		}
		road_pause(r, ++looks);
	}
}

/* what the kernel said, joined with the roads and the rings; how many descriptors have something */
static int results(struct thr *t, struct items *w, struct pollfd *q, nfds_t n)
{
	uint32_t i, h, ask, k;
	unsigned nap;
	nfds_t j;
	int r = 0;

	for (i = 0; i < w->n; i++) {
		struct item *it = &w->v[i];
		struct pollfd *p = &q[it->i];

		if (it->road) {
			k = (uint16_t)p->revents;
			if ((k & RD_BITS) || road_changes(road_of(it->c)) != it->changes)
				k = road_report(t, it->c, it->fd, it->wanted, k, &ask, &nap);
			k |= road_kept(it->c, it->fd, it->wanted);
			p->revents = (short)((k | it->got) & (it->wanted | ALWAYS));
		} else if (conn_att(it->c)) {
			if (p->revents & ~(POLLOUT | POLLWRNORM))
				atomic_store_explicit(&it->c->kevent, 1, memory_order_relaxed);
			if (it->in && (rx_readable(it->c, &h) || atomic_load(&it->c->s->kept_err))) {
				doze_found(&t->polls, 1);
				p->revents |= (short)(it->wanted & RD_BITS);
			}
		}
	}
	for (j = 0; j < n; j++)
		r += q[j].revents != 0;
	return r;
}

/*
 * q has n descriptors, with what is wanted of each, and place for two more. As ppoll; no descriptor of ours is counted or shown.
 */
static int wait_roads(struct thr *t, struct items *w, struct pollfd *q, nfds_t n, const struct timespec *to, const sigset_t *mask)
{
	struct waiter me __attribute__((cleanup(waiter_end))) = { 0 };
	struct timespec end = { 0, 0 }, rest, cut;
	bool ready, behind, beside = true, last = false, spun = false;
	unsigned nap;
	uint32_t i;
	int k, e;

	for (i = 0; i < w->n; i++)
		w->v[i].wanted = (uint16_t)q[w->v[i].i].events;
	if (to && !is_zero(to))
		deadline(&end, to);
	for (;;) {
		const struct timespec *use = &zero_ts;
		nfds_t more = 0;

		ready = look_roads(t, w, q, &nap) || hit(w) || is_zero(to) || last;
		if (!ready && !mask && !spun) {
			spun = true;
			if (spin_roads(t, w, q, n, to ? spin_until(to) : UINT64_MAX))
				continue;
		}
		if (!ready && unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed))) {
			sig_call_begin(t);		/* a handler ran while we were awake in here (G26) */
			errno = EINTR;
			return -1;
		}
		if (!ready) {
			/* known to those who may have to wake us, and to the device; then looked at once more (A1) */
			waiter_begin(&me);
			ready = close_items(w, &behind);
			if (behind && (!nap || nap > 2))
				nap = 2;
			if (waiter_fd(&me) < 0 && (!nap || nap > ROAD_SLICE_MS))
				nap = ROAD_SLICE_MS;
			if (!ready && !road_armed(t, &nap)) {
				uncount(w);
				waiter_end(&me);
				continue;
			}
			if (roads_changed(w)) {
				uncount(w);
				waiter_end(&me);
				continue;
			}
		}
		if (!ready) {
			use = to;
			if (to) {
				rest = left_of(&end);
				use = &rest;
			}
			cut = (struct timespec){ nap / 1000, nap % 1000 * 1000000l };
			if (nap && (!to || later(&end, &cut)))
				use = &cut;
			if (beside) {
				q[n] = (struct pollfd){ .fd = road_wait_fd(), .events = POLLIN };
				q[n + 1] = (struct pollfd){ .fd = waiter_fd(&me), .events = POLLIN };
				more = 2;
			}
		}
		cs_leave(t);
		k = real.ppoll(q, n + more, use, mask);
		e = errno;
		cs_enter();
		uncount(w);
		if (k < 0 && e == EINVAL && more) {	/* as many as the process may have open: ours are too many */
			waiter_end(&me);
			beside = false;
			continue;
		}
		if (k > 0 && more && q[n + 1].revents)
			waiter_seen(&me);
		waiter_end(&me);
		if (k < 0) {
			errno = e;
			return -1;
		}
		if (k > 0 && more && q[n].revents)
			road_woken(t);
		k = results(t, w, q, n);
		if (k || is_zero(to) || last)
			return k;
		if (to) {
			rest = left_of(&end);
			last = !rest.tv_sec && !rest.tv_nsec;	/* the roads once more, of which no sleep has told */
		}
	}
}

struct copied {
	struct pollfd *q, stack[ON_STACK + 2];
	size_t mapped;
};

static void copied_end(struct copied *x)
{
	if (x->mapped)
		munmap(x->q, x->mapped);
}

static bool copied_begin(struct copied *x, nfds_t n)
{
	size_t bytes = sizeof(struct pollfd) * (n + 2);
	void *p;

	x->q = x->stack;
	if (n <= ON_STACK)
		return true;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) {
		errno = ENOMEM;
		return false;
	}
	x->q = p;
	x->mapped = bytes;
	return true;
}

static int poll_roads(struct thr *t, struct items *w, struct pollfd *p, nfds_t n, const struct timespec *to, const sigset_t *mask)
{
	struct copied x __attribute__((cleanup(copied_end))) = { .mapped = 0 };
	nfds_t i;
	int r;

	if (!copied_begin(&x, n))
		return -1;
	memcpy(x.q, p, sizeof(*p) * n);
	r = wait_roads(t, w, x.q, n, to, mask);
	for (i = 0; r >= 0 && i < n; i++)
		p[i].revents = x.q[i].revents;
	return r;
}

/* ---- poll ---- */

struct poll_ask {
	struct pollfd *p;
	nfds_t n;
	const sigset_t *mask;
	bool ppoll;
};

static int ask_poll(void *arg, const struct timespec *to)
{
	struct poll_ask *a = arg;

	if (a->ppoll || a->mask || (to && to->tv_nsec % 1000000))
		return real.ppoll(a->p, a->n, to, a->mask);
	return real.poll(a->p, a->n, to ? (int)(to->tv_sec * 1000 + to->tv_nsec / 1000000) : -1);
}

int wait_poll(struct thr *t, struct pollfd *p, nfds_t n, const struct timespec *to, const sigset_t *mask,
	      bool ppoll)
{
	struct items w __attribute__((cleanup(items_end)));
	struct poll_ask a = { p, n, mask, ppoll };
	bool ring = false, again = false;
	enum unread_look look;
	uint32_t i, h;
	nfds_t k;
	int r;

	w.v = w.stack;
	w.n = w.n_att = w.n_road = 0;
	w.cap = ON_STACK;
	w.counted = false;
	w.mapped = 0;
	for (k = 0; k < n; k++) {
		struct conn *c = conn_get(p[k].fd);

		if (c && !items_add(&w, c, p[k].fd, (uint32_t)k, p[k].events & RD_BITS)) {
			conn_to_tcp(c, WSD_R_NOMEM);
			rx_touch(c);
		}
		if (unlikely(!c && p[k].fd >= 0 && eset_known(p[k].fd)))
			eset_mark_nested(p[k].fd);
	}
	if (w.n == 0) {
		cs_leave(t);
		r = ask_poll(&a, to);
		cs_enter();
		return r;
	}
	if (unlikely(w.n_road))
		return poll_roads(t, &w, p, n, to, mask);
	r = wait_common(t, &w, to, mask, ask_poll, &a, &ring);
	if (r < 0)
		return r;
	for (i = 0; i < w.n; i++)
		if (unlikely(unread_maybe(w.v[i].c, (uint16_t)p[w.v[i].i].revents)))
			again |= (look = unread_look(w.v[i].c, w.v[i].fd)) == UNREAD_NEWS || look == UNREAD_TOLD;
	if (unlikely(again)) {
		r = ask_again(t, ask_poll, &a);
		if (r < 0)
			return r;
	}
	for (i = 0; i < w.n; i++) {
		struct item *it = &w.v[i];
		struct pollfd *q = &p[it->i];

		if (!conn_att(it->c))
			continue;
		if (unlikely(again) && q->revents)
			q->revents |= (short)unread_events(it->c, unread_look(it->c, it->fd));
		if (q->revents & ~(POLLOUT | POLLWRNORM))
			atomic_store_explicit(&it->c->kevent, 1, memory_order_relaxed);
		if (!it->in || !(rx_readable(it->c, &h) || atomic_load(&it->c->s->kept_err)))
			continue;
		if (!q->revents)
			r++;
		doze_found(&t->polls, 1);
		q->revents |= q->events & RD_BITS;
	}
	return r;
}

/* ---- select ---- */

struct select_ask {
	int n;
	fd_set *r, *w, *e;
	const sigset_t *mask;
	size_t bytes;
	unsigned long saved[3][FD_SETSIZE / 64];
};

static int ask_select(void *arg, const struct timespec *to)
{
	struct select_ask *a = arg;

	/* the kernel overwrites the sets: each piece of a wait begins with the program's */
	if (a->bytes <= sizeof(a->saved[0])) {
		if (a->r)
			memcpy(a->r, a->saved[0], a->bytes);
		if (a->w)
			memcpy(a->w, a->saved[1], a->bytes);
		if (a->e)
			memcpy(a->e, a->saved[2], a->bytes);
	}
	return real.pselect(a->n, a->r, a->w, a->e, to, a->mask);
}

static bool bit(const fd_set *s, int fd)
{
	return s && (((const unsigned long *)s)[fd / 64] >> (fd % 64) & 1);
}

#define SEL_IN	(POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR)
#define SEL_OUT	(POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR)

/* one of the sets from the answers; how many bits */
static int answers(fd_set *s, const struct pollfd *q, nfds_t n, size_t bytes, short asked, short means)
{
	unsigned long *v = (unsigned long *)s;
	int k = 0;
	nfds_t i;

	if (!s)
		return 0;
	memset(v, 0, bytes);
	for (i = 0; i < n; i++)
		if ((q[i].events & asked) && (q[i].revents & means)) {
			v[q[i].fd / 64] |= 1ul << (q[i].fd % 64);
			k++;
		}
	return k;
}

static uint32_t in_sets(int n, const fd_set *rs, const fd_set *ws, const fd_set *es)
{
	uint32_t k = 0;
	int fd;

	for (fd = 0; fd < n; fd++)
		k += bit(rs, fd) || bit(ws, fd) || bit(es, fd);
	return k;
}

/* select as the kernel answers it, by ppoll */
static int select_roads(struct thr *t, struct items *w, int n, fd_set *rs, fd_set *ws, fd_set *es, size_t bytes,
			const struct timespec *to, const sigset_t *mask)
{
	struct copied x __attribute__((cleanup(copied_end))) = { .mapped = 0 };
	struct timespec end = { 0, 0 }, rest;
	nfds_t k = 0, j;
	uint32_t it = 0;
	int fd, r;

	if (!copied_begin(&x, in_sets(n, rs, ws, es)))
		return -1;
	for (fd = 0; fd < n; fd++) {
		short ev = (short)((bit(rs, fd) ? POLLIN : 0) | (bit(ws, fd) ? POLLOUT : 0) | (bit(es, fd) ? POLLPRI : 0));

		if (!ev)
			continue;
		if (it < w->n && w->v[it].fd == fd)	/* they were entered in this order */
			w->v[it++].i = (uint32_t)k;
		x.q[k++] = (struct pollfd){ .fd = fd, .events = ev };
	}
	if (to && !is_zero(to)) {
		deadline(&end, to);
		rest = *to;
		to = &rest;
	}
	for (;;) {
		bool any = false;

		r = wait_roads(t, w, x.q, k, to, mask);
		if (r < 0)
			return r;
		/* wait_roads leaves its own questions there */
		for (j = 0; j < k; j++) {
			fd = x.q[j].fd;
			x.q[j].events = (short)((bit(rs, fd) ? POLLIN : 0) | (bit(ws, fd) ? POLLOUT : 0) | (bit(es, fd) ? POLLPRI : 0));
			if (x.q[j].revents & POLLNVAL) {
				errno = EBADF;
				return -1;
			}
			any |= ((x.q[j].events & POLLIN) && (x.q[j].revents & SEL_IN)) ||
			       ((x.q[j].events & POLLOUT) && (x.q[j].revents & SEL_OUT)) ||
			       ((x.q[j].events & POLLPRI) && (x.q[j].revents & POLLPRI));
		}
		if (r == 0 || any || is_zero(to))
			break;
		thr_nap(1000);		/* hung up, which select does not tell to who waits for output alone */
		if (to)
			rest = left_of(&end);
	}
	return answers(rs, x.q, k, bytes, POLLIN, SEL_IN) + answers(ws, x.q, k, bytes, POLLOUT, SEL_OUT) +
	       answers(es, x.q, k, bytes, POLLPRI, POLLPRI);
}

int wait_select(struct thr *t, int n, fd_set *rs, fd_set *ws, fd_set *es, const struct timespec *to,
		const sigset_t *mask)
{
	struct items w __attribute__((cleanup(items_end)));
	size_t bytes = n > 0 ? ((size_t)n + 63) / 64 * 8 : 0;
	struct select_ask a = { .n = n, .r = rs, .w = ws, .e = es, .mask = mask, .bytes = bytes };
	bool ring = false, again = false;
	uint32_t i, h;
	int fd, r;

	w.v = w.stack;
	w.n = w.n_att = w.n_road = 0;
	w.cap = ON_STACK;
	w.counted = false;
	w.mapped = 0;
	for (fd = 0; fd < n; fd++) {
		struct conn *c;

		if (!bit(rs, fd) && !bit(ws, fd) && !bit(es, fd))
			continue;
		c = conn_get(fd);
		if (c && !items_add(&w, c, fd, (uint32_t)fd, bit(rs, fd)))
			conn_to_tcp(c, WSD_R_NOMEM);
		if (unlikely(!c && eset_known(fd)))
			eset_mark_nested(fd);
	}
	if (bytes <= sizeof(a.saved[0])) {
		if (rs)
			memcpy(a.saved[0], rs, bytes);
		if (ws)
			memcpy(a.saved[1], ws, bytes);
		if (es)
			memcpy(a.saved[2], es, bytes);
	}
	if (w.n == 0) {
		cs_leave(t);
		r = ask_select(&a, to);
		cs_enter();
		return r;
	}
	if (unlikely(w.n_road))
		return select_roads(t, &w, n, rs, ws, es, bytes, to, mask);
	if (bytes > sizeof(a.saved[0]))
		/* more than FD_SETSIZE: a wait in pieces would need the sets again; these stay on TCP */
		for (i = 0; i < w.n; i++)
			conn_to_tcp(w.v[i].c, WSD_R_UNTRACKED);
	r = wait_common(t, &w, to, mask, ask_select, &a, &ring);
	if (r < 0)
		return r;
	for (i = 0; i < w.n && bytes <= sizeof(a.saved[0]); i++)
		if (unlikely(unread_maybe(w.v[i].c, bit(rs, w.v[i].fd) ? POLLIN : bit(ws, w.v[i].fd) ? POLLOUT : 0)) &&
		    unread_look(w.v[i].c, w.v[i].fd) == UNREAD_NEWS)
			again = true;
	if (unlikely(again)) {
		r = ask_again(t, ask_select, &a);
		if (r < 0)
			return r;
	}
	for (i = 0; i < w.n; i++) {
		struct item *it = &w.v[i];

		if (!conn_att(it->c) || !it->in)
			continue;
		if (bit(rs, it->fd))
			atomic_store_explicit(&it->c->kevent, 1, memory_order_relaxed);
		if (bit(rs, it->fd) || !(rx_readable(it->c, &h) || atomic_load(&it->c->s->kept_err)))
			continue;
		((unsigned long *)rs)[it->fd / 64] |= 1ul << (it->fd % 64);
		doze_found(&t->polls, 1);
		r++;
	}
	return r;
}
