/* SPDX-License-Identifier: MIT */
/*
 * worth.c - what a sleep costs on this machine, measured (G24)
 *
 * A wait that the ring ends awake saves the sleeper's way off the CPU and back, and its peer a send that has to wake somebody. That is
 * over 20 us of CPU time in a virtual machine, where waking another CPU leaves the guest, and a fraction of that where both run on one. So a few sleeps and
 * sends of each process are measured, in CPU time of the thread; what the peer's sends cost is taken to be what ours do.
 *
 * Races between threads lose a sample, nothing more.
 */
#include <time.h>

#include "wsd_switch/core/switch.h"

#define FIRST		4	/* all of the first are measured, then ... */
#define EVERY		32
#define MAX_US		60
#define OFF_CPU_US	2	/* less, and it did not sleep */

static _Atomic int64_t sleep_cost, send_cost;	/* ticks; 0: not known */

static uint64_t cpu_ns(void)
{
	struct timespec ts = { 0, 0 };
	int e = errno;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);	/* a filter may refuse it: then nothing is weighed */
	errno = e;
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void worth_begin(struct worth_sample *m, uint32_t *count)
{
	uint32_t n = (*count)++;

	m->on = n < FIRST || n % EVERY == 0;
	if (likely(!m->on))
		return;
	m->wall = tsc_now();
	m->cpu = cpu_ns();
}

static void mix(_Atomic int64_t *mean, int64_t x)
{
	int64_t old = atomic_load_explicit(mean, memory_order_relaxed);

	if (x > US(MAX_US))
		x = US(MAX_US);
	atomic_store_explicit(mean, old ? old + (x - old) / 8 : x, memory_order_relaxed);
}

void worth_slept(struct worth_sample *m)
{
	int64_t x;

	if (likely(!m->on))
		return;
	x = US((double)(cpu_ns() - m->cpu) / 1000);
	if ((int64_t)(tsc_now() - m->wall) - x > US(OFF_CPU_US))
		mix(&sleep_cost, x);
}

void worth_sent(struct worth_sample *m, ssize_t r)
{
	if (likely(!m->on) || r <= 0)
		return;
	mix(&send_cost, US((double)(cpu_ns() - m->cpu) / 1000));
}

int64_t worth_wait(void)
{
	int64_t s = atomic_load_explicit(&sleep_cost, memory_order_relaxed);
	int64_t w = atomic_load_explicit(&send_cost, memory_order_relaxed);

	if (!s || !w || s + w < EARN_WAIT + EARN_MSG)
		return EARN_WAIT;
	return s + w - EARN_MSG;	/* which the message itself earns */
}

int64_t worth_sleep(void)
{
	int64_t s = atomic_load_explicit(&sleep_cost, memory_order_relaxed);

	return s > EARN_WAIT / 2 ? s : EARN_WAIT / 2;
}
