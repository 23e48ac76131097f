/* SPDX-License-Identifier: MIT */
#include "tools/bench/hist.h"

double hist_quantile(const struct hist *h, double q)
{
	uint64_t want = (uint64_t)(q * (double)h->n), seen = 0;
	unsigned i, shift, top;

	if (!h->n)
		return 0;
	if (want >= h->n)
		return (double)h->max;
	for (i = 0; i < HIST_N; i++) {
		seen += h->count[i];
		if (seen > want)
			break;
	}
	shift = i >> HIST_SUB;
	top = i & ((1u << HIST_SUB) - 1);
	if (shift) {	/* rows after the first hold values with the leading one set */
		shift--;
		top += 1u << HIST_SUB;
	}
	/* the middle of the bucket */
	return ((double)top + (shift ? 0.5 : 0)) * (double)(1ull << shift);
}
