/* SPDX-License-Identifier: MIT */
/*
 * agreed_wait.c - sleeping beside TCP, the device and the daemon
 *
 * Nobody wakes a thread by a word in memory of this process that another host wrote. So who sleeps arms the device, then looks once more, then
 * sleeps on the descriptor and on the provider's (control.wait_fd), which nobody outside this process holds (A1).
 *
 * Invariant: a completion is found by the look behind arm(), or makes wait_fd readable, or was taken by another thread before that
 * look: then the road's count of changes, read before our own look, is not what it was. What another thread takes
 * while we sleep it tells to who sleeps (waiters); who is not told, the table being full, sleeps in slices.
 */
#include <poll.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "wsd_switch/core/agreed.h"

#define SLICE_MS	10
#define SPIN_ASK_US	20	/* TCP is looked at this often meanwhile */

int64_t road_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

bool road_arm(struct thr *t)
{
	int r;

	sig_hold();
	r = ctl_road_arm();
	sig_release();
	return r == 0;
}

void road_drain(struct thr *t)
{
	uint64_t id[64];
	unsigned i;

	for (i = 0; i < 64; i++) {
		unsigned n;

		sig_hold();
		n = ctl_road_drain(id, 64);
		sig_release();
		if (n < 64)
			break;
	}
}

int road_wait_fd(void)
{
	return ctl_road_wait_fd();
}

bool road_spin(struct thr *t, struct conn *c, int fd, short events, uint32_t changes)
{
	struct road *r = road_of(c);
	uint64_t t0 = tsc_now(), asked = t0, now;

	if (!road_mine(r) || cfg.spin_us <= 0)
		return false;
	for (;;) {
		if (road_changes(r) != changes)
			return true;
		sig_hold();
		r->p.poll(r->p.conn);
		sig_release();
		if (road_changes(r) != changes)
			return true;
		if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed)))
			return false;
		now = tsc_now();
		if (now - t0 > (uint64_t)US(cfg.road_spin_us))
			return false;
		if (events && now - asked > (uint64_t)US(SPIN_ASK_US)) {
			struct pollfd p = { .fd = fd, .events = events };

			asked = now;
			if (real.poll(&p, 1, 0) > 0)
				return true;
		}
		/* a software device works on the CPUs that we spin on */
		if (r->p.caps & WSD_ROAD_SOFT)
			sched_yield();
	}
}

int road_sleep(struct thr *t, struct conn *c, int fd, short events, int64_t until, unsigned nap_ms, uint32_t changes)
{
	struct road *r = road_of(c);
	struct pollfd p[2] = { { .fd = fd, .events = events | POLLRDHUP }, { .fd = road_wait_fd(), .events = POLLIN } };
	int64_t left = SLICE_MS * 1000000ll, rest;
	struct timespec to;
	int k, e;

	if (!events)
		p[0].fd = -1;		/* POLLHUP and POLLERR would not let us sleep */
	if (nap_ms && nap_ms * 1000000ll < left)
		left = nap_ms * 1000000ll;
	if (until) {
		rest = until - road_now();
		if (rest <= 0)
			return -EAGAIN;
		if (rest < left)
			left = rest;
	}
	if (road_mine(r) && !road_arm(t)) {
		road_drain(t);
		if (road_changes(r) != changes)
			return 0;
	}
	if (road_changes(r) != changes)
		return 0;
	if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed))) {
		k = -1;
		e = EINTR;
	} else {
		to = (struct timespec){ left / 1000000000, left % 1000000000 };
		conn_pin(c);
		cs_leave(t);
		k = real.ppoll(p, 2, &to, NULL);
		e = errno;
		cs_enter();
		conn_unpin(c);
	}
	if (k < 0 && e == EINTR && atomic_load(&t->sig_any)) {
		bool intr = atomic_load(&t->sig_eintr);

		sig_call_begin(t);
		return intr || until ? -EINTR : 0;
	}
	if (k < 0)
		return e == EINTR ? 0 : -e;
	if (k > 0 && p[1].revents) {
		road_drain(t);
		ctl_look(t);
	}
	return 0;
}
