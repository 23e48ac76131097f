/* SPDX-License-Identifier: MIT */
/*
 * hist.h - latencies by logarithmic buckets, 128 to each power of two
 *
 * A value is kept to better than 1 %. Units are the caller's (ticks of the time-stamp counter here).
 */
#ifndef HIST_H
#define HIST_H

#include <stdint.h>

#define HIST_SUB	7
#define HIST_N		((64 - HIST_SUB + 1) << HIST_SUB)

struct hist {
	uint64_t n, max;
	uint32_t count[HIST_N];
};

static inline void hist_add(struct hist *h, uint64_t v)
{
	unsigned shift = 0;

	if (v >> HIST_SUB)
		shift = 63 - __builtin_clzll(v) - HIST_SUB;
	/* at shift s the value's top HIST_SUB + 1 bits are kept; the leading one makes the row */
	h->count[((uint64_t)shift << HIST_SUB) + (v >> shift)]++;
	h->n++;
	if (v > h->max)
		h->max = v;
}

/* the value that the part q (0..1) of all do not exceed; 0 when empty */
double hist_quantile(const struct hist *h, double q);

#endif
