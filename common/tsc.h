/* SPDX-License-Identifier: MIT */
/*
 * common/tsc.h - a cheap monotonic clock for spinning and policy
 *
 * Units: ticks of the time-stamp counter; tsc_hz() ticks make a second. Only differences taken
 *        on one machine count. Not for protocol decisions: the peer's clock is not ours.
 * Threads: tsc_init() once before the rest; the others from anywhere, signal handlers too.
 */
#ifndef COMMON_TSC_H
#define COMMON_TSC_H

#include <stddef.h>
#include <stdint.h>
#include <x86intrin.h>

extern uint64_t tsc_per_us_x1024;	/* ticks in 1.024 ms / 1000, see tsc_us() */
extern ptrdiff_t tsc_cpu_at;		/* where libc's struct rseq has the CPU, from the thread pointer; 0: it has none */

void tsc_init(void);

static inline uint64_t tsc_now(void)
{
	return __rdtsc();
}

/* microseconds, up to half an hour, to ticks. Of a constant it is a multiplication and a shift: floating point is slow where a CPU is emulated */
static inline int64_t tsc_us(double us)
{
	return (int64_t)(us * 1024) * (int64_t)tsc_per_us_x1024 >> 20;
}

/* the CPU this thread runs on, plus 1; a hint */
static inline uint32_t tsc_cpu1(void)
{
	unsigned aux;

	/* a load; the instruction waits for all before it */
	if (__builtin_expect(tsc_cpu_at != 0, 1))
		aux = *(const volatile uint32_t *)((const char *)__builtin_thread_pointer() + tsc_cpu_at);
	else
		(void)__rdtscp(&aux);
	return (aux & 0xfff) + 1;
}

#endif
