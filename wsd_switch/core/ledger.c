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

#define BROKE_MAX	6
#define MORE_MAX	64
#define FEE_TCP		US(0.15)
#define POLITE_US	20000
#define ALONE_MAX	16	/* yields to nobody until it is alone */
#define YIELD_LONG_US	200
#define GATE_WORTH	US(10)	/* a gate in use that a sleep would close: closing it, a message by TCP, opening it again */

void led_init(struct ledger *l)
{
	*l = (struct ledger){ .c = LED_FIRST, .last = tsc_now() };
}

/* What it takes to get from TCP to the rings grows with the connections that have to: each is opened, and until all are there the
 * waits end in the kernel. */
static int64_t more(const struct ledger *l)
{
	return US(20) * (l->more < MORE_MAX ? l->more : MORE_MAX);
}

void led_add(struct ledger *l, int64_t x)
{
	int64_t old = l->c;

	l->c += x;
	if (l->c > LED_CAP)
		l->c = LED_CAP;
	if (x > 0) {
		if (l->c >= LED_FIRST + more(l))	/* more than time alone gives */
			l->broke = 0;
		return;
	}
	if (old >= 0 && l->c < 0 && l->broke < BROKE_MAX)
		l->broke++;
	if (l->c < -LED_NEED - more(l))
		l->c = -LED_NEED - more(l);
}

/* what time and TCP's messages fill, at most */
static int64_t most(const struct ledger *l)
{
	return LED_REFILL + more(l);
}

/* Each message that comes by TCP pays a little, some hundredth of what it costs, towards finding out whether the ring would be better:
 * a busy waiter finds out sooner than time alone would have it. */
void led_tcp(struct ledger *l)
{
	if (!l->go && l->c < most(l))
		l->c += FEE_TCP;
}

static void led_fill(struct ledger *l, uint64_t now)
{
	if (l->c < most(l) && now > l->last) {
		l->c += (int64_t)((now - l->last) >> (4 + l->broke));
		if (l->c > most(l))
			l->c = most(l);
	}
	l->last = now;
}

/* may it open a gate? peer_awake: the peer's gate towards us is open, so its answer will be quick */
bool led_may(struct ledger *l, uint64_t now, bool peer_awake)
{
	if (l->go)
		return true;
	led_fill(l, now);
	l->began = l->c;
	l->credit = peer_awake;
	return l->go = l->c >= (peer_awake ? LED_LOW : LED_NEED + more(l));
}

/* Going to sleep; idle: open gates that brought nothing. Who spent what time alone had filled is slowed down like the bankrupt: or a
 * sparse caller would waste a sixteenth of all time. */
void led_sleep(struct ledger *l, int idle)
{
	bool probed = l->go && l->began < LED_FIRST + more(l);

	l->go = false;
	led_add(l, -COST_OPEN * (1 + idle));
	if (probed && l->c >= 0 && l->c < l->began && l->broke < BROKE_MAX)
		l->broke++;
}

bool spin_ok(struct thr *t, struct ledger *l, uint64_t now)
{
	if (unlikely(t->crowded_until) && now >= t->crowded_until)
		t->crowded_until = 0;
	return l->go && !t->crowded_until && cfg.spin_us > 0;
}

/* what a sleep would cost grows with the gates it closes; so does the patience before it */
uint64_t spin_limit(struct ledger *l, int n_open)
{
	int64_t whole = US(cfg.spin_us), m = whole + GATE_WORTH * n_open, least = LED_LOW;

	if (m > US(1000))
		m = US(1000);
	if (l->c < m)
		m = l->c;
	if (l->credit && l->c > US(1) - LED_NEED)
		least = whole < LED_NEED ? whole : LED_NEED;
	return (uint64_t)(m < least ? least : m);
}

/* earned: what the sleep that it saved would have cost; 0: it saved none */
void spin_done(struct ledger *l, int64_t ticks, int64_t earned)
{
	led_add(l, earned - (ticks < 0 ? 0 : ticks));
}

uint64_t spin_until(const struct timespec *to)
{
	return to->tv_sec > 1000 ? UINT64_MAX :	/* no spin lasts that long */
	       tsc_now() + (uint64_t)US((double)to->tv_sec * 1e6 + (double)to->tv_nsec / 1e3);
}

/* What a spin has cost so far, `away` of it not being ours to pay. The last look was at prev: a longer gap is time in which somebody
 * else ran. */
int64_t spin_cost(uint64_t t0, uint64_t prev, int64_t away)
{
	uint64_t now = tsc_now();

	return (int64_t)((now - prev > (uint64_t)US(SPIN_GAP_US) ? prev : now) - t0) - away;
}

/* The scheduler ran somebody else since we last asked */
static bool preempted(struct thr *t)
{
	struct rusage r;
	bool yes;

	getrusage(RUSAGE_THREAD, &r);
	yes = r.ru_nivcsw != t->last_nivcsw;
	t->last_nivcsw = r.ru_nivcsw;
	return yes;
}

/* no spinning for 1 ms, doubling while it goes on */
static void crowd(struct thr *t, uint64_t now)
{
	if (now - t->crowd_last > 16 * t->crowd_len + (uint64_t)US(50000))
		t->crowd_len = (uint64_t)US(1000);
	else if (t->crowd_len < (uint64_t)US(100000))
		t->crowd_len *= 2;
	t->crowd_last = now;
	t->crowded_until = now + t->crowd_len;
}

/* A gap in a spin: true if the scheduler ran somebody else meanwhile; then the machine is crowded. False: it was the
 * hypervisor. */
bool spin_gap(struct thr *t, uint64_t now)
{
	if (!preempted(t))
		return false;
	crowd(t, now);
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

/* A gap in the spin of a set: from now on it gives way between its looks */
void spin_gap_set(struct thr *t, uint64_t now)
{
	if (!preempted(t))
		return;
	t->alone = 0;
	t->polite_until = now + (uint64_t)US(POLITE_US);
}

/* Giving way to whoever else wants this CPU. False: that one keeps it. */
bool spin_give_way(struct thr *t, int64_t *cost)
{
	uint64_t a = tsc_now(), z;

	sched_yield();
	z = tsc_now();
	if (z - a > (uint64_t)US(2)) {
		*cost += (int64_t)(z - a) - US(1);
		t->polite_until = z + (uint64_t)US(POLITE_US);
		t->alone = 0;
	} else if (++t->alone >= ALONE_MAX) {
		t->polite_until = 0;		/* nobody else is here */
	}
	if (z - a < (uint64_t)US(YIELD_LONG_US))
		return true;
	crowd(t, z);
	return false;
}
