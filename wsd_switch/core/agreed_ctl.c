/* SPDX-License-Identifier: MIT */
/*
 * agreed_ctl.c - life of connections between hosts: attached, asked about, left, closed
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "wsd_switch/core/agreed.h"

#define LOCK_MAX_MS	5000	/* the lock is held over calls that do not sleep; a stopped owner is waited for this long */

_Atomic uint32_t road_any;

bool agreed_adopt(struct conn *c, const WSDPUTROAD *p)
{
	struct road *r = calloc(1, sizeof(*r));

	if (!r || road_bind(r, p) < 0) {
		free(r);
		return false;
	}
	atomic_store(&road_any, 1);
	atomic_store_explicit(&c->road, r, memory_order_release);
	atomic_store_explicit(&c->stage, ST_AGREED, memory_order_release);
	log_debug("conn %u: session %llx by RDMA, of another process", c->index, (unsigned long long)p->session_id);
	return true;
}

bool agreed_over(struct conn *c)
{
	struct wsd_remote *rs = road_of(c)->rs;

	return atomic_load(&rs->xstate) == WSD_X_DONE && atomic_load(&rs->ystate) == WSD_Y_DONE;
}

bool agreed_attach(struct conn *c, int fd, const WSDPUTROAD *p)
{
	struct road *r = calloc(1, sizeof(*r));

	if (!r || road_bind(r, p) < 0) {
		free(r);
		return false;
	}
	r->owner = proc_page->pid;
	r->since = tsc_now();
	r->next = road_of(c);
	if (r->next)
		r->taken_before = r->next->taken_before + atomic_load(&r->next->rs->taken);
	atomic_store(&road_any, 1);
	atomic_store(&c->s->att_pid, proc_page->pid);
	atomic_fetch_or(&c->s->flags, S_ATTACHED);
	atomic_store(&c->why, WSD_R_NONE);
	atomic_store_explicit(&c->road, r, memory_order_release);
	atomic_store_explicit(&c->stage, ST_AGREED, memory_order_release);
	log_debug("conn %u: session %llx by RDMA", c->index, (unsigned long long)p->session_id);
	return true;
}

void agreed_detach(struct conn *c)
{
	struct road *r = atomic_exchange(&c->road, NULL), *next;

	for (; r; r = next) {
		next = r->next;
		ctl_road_close(r);
		free(r);
	}
}

bool road_dead(const struct road *r)
{
	return road_error(r) || atomic_load_explicit(&r->rs->revoked, memory_order_relaxed);
}

static bool may_come_back(const struct road *r)
{
	switch (atomic_load(&r->rs->revoked)) {
	case WSD_R_NONE:
	case WSD_R_RDMA_FAILED:
	case WSD_R_UNLOADING:
		return !atomic_load(&r->leave) && !atomic_load(&r->rs->peer_left);
	}
	return false;
}

/*
 * D13: a session has one grant in each direction, and is over when both are plain again. Its memory stays, for others may be inside, until
 * the conn is closed; its queue pair and what it locked go now.
 */
void agreed_renew(struct thr *t, struct conn *c)
{
	struct road *r = road_of(c);

	if (atomic_load(&r->rs->xstate) != WSD_X_DONE || atomic_load(&r->rs->ystate) != WSD_Y_DONE || !road_mine(r) || !may_come_back(r) ||
	    (atomic_load(&c->s->flags) & (S_SHUT_RD | S_SHUT_WR | S_EOF | S_NO_OPEN | S_NO_PUT | S_BROKEN | S_FOREIGN)) ||
	    atomic_load(&r->ask_due))
		return;
	if (ctl_road_over(t, c, r))
		log_debug("conn %u: the session is over; another one may follow", c->index);
}

#define HAND_ON_MS	2000u
#define SEEN_MS		50u

void agreed_hand_on(struct conn *c, int fd, enum hand_on how)
{
	struct road *r = road_of(c);
	struct thr *t = thr_get();

	atomic_store(&r->rs->leave, 1);
	atomic_store(&r->rs->x_return, 1);
	agreed_leave(c, WSD_R_EXEC);
	if (fd < 0 || how == HAND_LEAK)
		return;
	if (agreed_tx_plain(t, c, fd, HAND_ON_MS)) {
		if (agreed_rx_plain(t, c, fd, how == HAND_SEEN ? SEEN_MS : HAND_ON_MS))
			return;
		if (how == HAND_SEEN) {
			mark_set(fd, MARK_UNREAD, true);
			return;
		}
	}
	conn_reset(c, fd, "handed on, and did not return to TCP in time");
}

/* ---- questions for the daemon ---- */

void agreed_ask_due(struct thr *t, struct conn *c)
{
	struct road *r = road_of(c);
	uint32_t due = atomic_load_explicit(&r->ask_due, memory_order_acquire), what;

	for (what = 1; due && what < _WSD_SAN_N; what++) {
		if (!(atomic_fetch_and(&r->ask_due, ~(1u << what)) & (1u << what)))
			continue;
		if (!ctl_road_ask(t, c, what, r->ask_a[what], r->ask_b[what])) {
			atomic_fetch_or(&r->ask_due, 1u << what);
			return;		/* the provider is busy: agreed_obey() comes back to it */
		}
	}
}

void agreed_ask(struct conn *c, uint32_t what, uint64_t a, uint64_t b)
{
	struct road *r = road_of(c);

	if (!road_mine(r)) {	/* the offer is another process's, which may not call for long, or is gone: the daemon's sweep finds it */
		atomic_store(&r->rs->leave, 1);
		atomic_store(&r->rs->x_return, 1);
		atomic_fetch_or(&r->rs->asks, 1u << what);
		return;
	}
	/* another process may have joined the session: then the daemon hears the packets of that one (reattach.c) */
	if (unlikely(atomic_load(&c->s->flags) & S_FOREIGN) && what != WSD_SAN_GROW)
		atomic_fetch_or(&r->rs->asks, 1u << what);
	r->ask_a[what] = a;
	r->ask_b[what] = b;
	atomic_fetch_or(&r->ask_due, 1u << what);
	agreed_ask_due(thr_get(), c);
}

void agreed_leave(struct conn *c, uint32_t why)
{
	struct road *r = road_of(c);
	uint32_t none = 0, bit = 1u << WSD_SAN_WANT_RETURN;
	bool first = atomic_compare_exchange_strong(&r->leave, &none, why);

	/* a call that only TCP has may have made one direction leave, and asked for nothing (agreed_tx_plain) */
	if ((atomic_fetch_or(&r->asked, bit) & bit) && !first)
		return;
	log_debug("conn %u: both directions are to return to TCP, reason %u", c->index, why);
	agreed_ask(c, WSD_SAN_WANT_RETURN, 0, 0);
}

/* ---- locks ---- */

/* what the kernel did for an owner that died meanwhile is read from the kernel (G16) */
static bool taken_over(struct conn *c, int fd, bool rx)
{
	uint64_t k;
	int state, inq;

	if (!rx)
		return off_resync_tx(c, fd);
	if (off_kernel_c(fd, &k, &state, &inq) < 0)
		return false;
	atomic_store(&c->s->C, k);
	return true;
}

bool agreed_lock(struct thr *t, struct conn *c, int fd, _Atomic uint32_t *lock)
{
	uint32_t me = thr_tid(t), owner;
	int64_t end = 0;
	unsigned i;

	for (i = 0;; i++) {
		sig_hold();
		if (lock_try(lock, me))
			return true;
		owner = atomic_load(lock);
		if (owner == me) {	/* below a handler that went to the kernel unwrapped (sig.c): nothing here can wait for ourselves */
			sig_release();
			return false;
		}
		if (i > 20 && owner && proc_pid_dead(owner) && atomic_compare_exchange_strong(lock, &owner, me)) {
			if (taken_over(c, fd, lock == &c->s->rx_lock))
				return true;
			lock_drop(lock);
			sig_release();
			break;
		}
		sig_release();
		if (i < 50) {
			sched_yield();
			continue;
		}
		if (!end)
			end = road_now() + LOCK_MAX_MS * 1000000ll;
		else if (road_now() > end)
			break;
		thr_nap(i < 200 ? 50 : 1000);
	}
	conn_reset(c, fd, "another process holds the direction and does not go on");
	return false;
}

void agreed_unlock(_Atomic uint32_t *lock)
{
	lock_drop(lock);
	sig_release();
}

/* ---- the end ---- */

bool agreed_retire(struct thr *t, struct conn *c, int fd)
{
	struct road *r = road_of(c);
	struct wsd_remote *rs = r->rs;
	uint64_t taken;
	bool sole = conn_sole_holder(c), unread;

	if (road_mine(r)) {
		road_poll(r, 0);
		batch_last(t, c);		/* who still has the socket cannot put them */
	}
	if (sole)
		agreed_swallow(t, c, fd);
	taken = atomic_load(&rs->taken);
	unread = sole && atomic_load(&rs->ystate) == WSD_Y_FRAMED && atomic_load(&rs->head) > taken;
	if (sole && !unread)
		agreed_end(t, c, fd);		/* others may go on with it: no end (F6) */
	atomic_store(&c->s->taken, r->taken_before + taken);	/* for the statistics */
	agreed_ask_due(t, c);
	return unread;
}
