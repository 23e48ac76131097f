/* SPDX-License-Identifier: MIT */
/*
 * doze.c - waiting for many connections without spinning and without closing their gates (G25)
 *
 * Where there is no CPU for spinning, or spinning found nothing, who waits for many connections still loses by a sleep: that closes
 * all their gates, and each peer then pays a send by TCP, each connection an opening. So it waits in the kernel for some tens of
 * microseconds with the gates open, which to the peers is being awake, and finds many messages at once. Only while they come in
 * bursts: a single message would wait longer than TCP takes to wake us. Bounded: DOZE_MAX in a row that found nothing, then it sleeps.
 *
 * A burst is what came between two long waits; threads that wait on one set race for the counts, which costs accuracy only.
 */
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "wsd_switch/core/switch.h"

#define BURST_GAP_US	20	/* a wait of so long ends a burst */
#define DOZE_COST	US(4)
#define DOZE_EVERY_US	10000	/* how often it is tried where there was no burst */
#define SLACK_MAX_NS	200000
#define DOZE_MAX	4	/* in a row that found nothing; then it sleeps */

const struct timespec doze_time = { 0, 50000 };		/* the kernel's timer slack comes on top */

static uint32_t get(_Atomic uint32_t *p)
{
	return atomic_load_explicit(p, memory_order_relaxed);
}

static void set(_Atomic uint32_t *p, uint32_t v)
{
	atomic_store_explicit(p, v, memory_order_relaxed);
}

void doze_found(struct doze *d, uint32_t n)
{
	if (n)
		set(&d->since, get(&d->since) + n);
}

void doze_waited(struct doze *d, uint64_t ticks)
{
	uint32_t b = get(&d->burst), n = get(&d->since);

	if (ticks < (uint64_t)US(BURST_GAP_US) || !n)
		return;
	set(&d->burst, b - b / 4 + n);
	set(&d->since, 0);
}

int doze_at_stake(struct doze *d, uint32_t n_open)
{
	uint32_t b = get(&d->burst) / 4;

	return (int)(b < n_open ? b : n_open);
}

/* Of many connections TCP tells several with one wake-up. */
int64_t doze_earned(struct doze *d, uint32_t n_open)
{
	return doze_at_stake(d, n_open) >= DOZE_WORTH ? EARN_BURST : worth_wait();
}

/* A thread that asked for coarse timers would doze for as long as that. */
static bool slack_ok(struct thr *t)
{
	if (!t->slack)
		t->slack = real.syscall(SYS_prctl, PR_GET_TIMERSLACK, 0, 0, 0, 0) > SLACK_MAX_NS ? 2 : 1;
	return t->slack == 1;
}

bool doze_may(struct thr *t, struct doze *d, const struct ledger *l, uint32_t n_att, uint32_t n_open)
{
	uint64_t now;

	if (!l->go || l->c < DOZE_COST || cfg.spin_us <= 0 || t->dozes >= DOZE_MAX || n_att < DOZE_WORTH || !n_open ||
	    !slack_ok(t))
		return false;
	if (get(&d->burst) / 4 >= DOZE_WORTH)
		return true;
	/* on a crowded machine the CPU time of the sleep counts more than the delay; the ledger says when it does not pay */
	now = tsc_now();
	if (now >= t->crowded_until)
		return false;
	if (get(&d->burst) / 4 >= 1)
		return true;
	if (now < atomic_load_explicit(&d->next, memory_order_relaxed))
		return false;
	atomic_store_explicit(&d->next, now + (uint64_t)US(DOZE_EVERY_US), memory_order_relaxed);
	set(&d->burst, 4 * DOZE_WORTH);
	return true;
}

void doze_begin(struct thr *t, struct doze *d, struct ledger *l)
{
	t->dozes++;
	led_add(l, -DOZE_COST);
	doze_waited(d, (uint64_t)US(BURST_GAP_US));
}

/* something was found, or it sleeps now */
void doze_over(struct thr *t, struct doze *d, bool slept)
{
	t->dozes = 0;
	if (slept)
		doze_waited(d, (uint64_t)US(BURST_GAP_US));
}
