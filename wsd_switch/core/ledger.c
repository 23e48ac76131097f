/* SPDX-License-Identifier: MIT */
/*
 * ledger.c - what spinning and opening may cost (G24, G25)
 *
 * Each waiter (a blocking connection, an epoll set) keeps what the ring saved it minus what waiting on it cost,
 * in ticks of CPU time. It opens and spins ("go") only while that is well above zero; the state lasts until it
 * sleeps, so a cycle is all ring or all TCP. Races between threads on a ledger cost accuracy, never safety.
 */
#include <sched.h>
#include <sys/resource.h>

#include "wsd_switch/core/switch.h"

#define BROKE_MAX 6
#define GATE_WORTH	US(1.5)		/* an open gate that a sleep would close: closing it, a message by TCP, opening it again */

void led_init(struct ledger *l)
{
	l->c = LED_FIRST;
	l->last = tsc_now();
	l->broke = 0;
	l->go = false;
}

void led_add(struct ledger *l, int64_t x)
{
	int64_t old = l->c;

	l->c += x;
	if (l->c > LED_CAP)
		l->c = LED_CAP;
	if (x > 0) {
		if (l->c >= LED_FIRST)
			l->broke = 0;
		return;
	}
	if (old >= 0 && l->c < 0 && l->broke < BROKE_MAX)
		l->broke++;
	if (l->c < -LED_NEED)
		l->c = -LED_NEED;
}

static void led_fill(struct ledger *l, uint64_t now)
{
	if (l->c < LED_REFILL && now > l->last) {
		l->c += (int64_t)((now - l->last) >> (4 + l->broke));
		if (l->c > LED_REFILL)
			l->c = LED_REFILL;
	}
	l->last = now;
}

/* may it open a gate? peer_awake: the peer's gate towards us is open, so its answer will be quick */
bool led_may(struct ledger *l, uint64_t now, bool peer_awake)
{
	if (l->go)
		return true;
	led_fill(l, now);
	return l->go = l->c >= (peer_awake ? LED_LOW : LED_NEED);
}

/* going to sleep; idle: open gates that brought nothing */
void led_sleep(struct ledger *l, int idle)
{
	l->go = false;
	led_add(l, -COST_OPEN * (1 + idle));
}

bool spin_ok(struct thr *t, struct ledger *l, uint64_t now)
{
	return l->go && now >= t->crowded_until && cfg.spin_us > 0;
}

/* what a sleep would cost grows with the gates it closes; so does the patience before it */
uint64_t spin_limit(struct ledger *l, int n_open)
{
	int64_t m = US(cfg.spin_us) + GATE_WORTH * n_open;

	if (m > US(1000))
		m = US(1000);
	if (l->c < m)
		m = l->c;
	return (uint64_t)(m < LED_LOW ? LED_LOW : m);
}

void spin_done(struct ledger *l, int64_t ticks, bool hit, int n_open)
{
	if (ticks < 0)
		ticks = 0;
	led_add(l, hit ? EARN_WAIT + GATE_WORTH * n_open - ticks : -ticks);
}

/* A gap in a spin: true if the scheduler ran somebody else meanwhile. Then the machine is crowded: no spinning for
 * 1 ms, doubling while it goes on. False: it was the hypervisor. */
bool spin_gap(struct thr *t, uint64_t now)
{
	struct rusage r;
	bool preempted;

	getrusage(RUSAGE_THREAD, &r);
	preempted = r.ru_nivcsw != t->last_nivcsw;
	t->last_nivcsw = r.ru_nivcsw;
	if (!preempted)
		return false;
	if (now - t->crowd_last > 16 * t->crowd_len + (uint64_t)US(50000))
		t->crowd_len = (uint64_t)US(1000);
	else if (t->crowd_len < (uint64_t)US(100000))
		t->crowd_len *= 2;
	t->crowd_last = now;
	t->crowded_until = now + t->crowd_len;
	return true;
}

/* The peer last ran on this CPU: give way. *cost grows by time that was not ours to pay. Not 0: do not wait here. */
int spin_yield(struct thr *t, int64_t *cost)
{
	uint64_t a = tsc_now(), z;

	if (t->rt_pol < 0 || a - t->rt_when > (uint64_t)US(100000)) {
		t->rt_pol = sched_getscheduler(0);
		t->rt_when = a;
	}
	if (t->rt_pol == SCHED_FIFO || t->rt_pol == SCHED_RR)
		return 1;
	sched_yield();
	z = tsc_now();
	if (z - a > (uint64_t)US(1))
		*cost += (int64_t)(z - a) - US(1);
	if (z - a > (uint64_t)US(1000)) {
		spin_gap(t, z);
		return 1;
	}
	return 0;
}
