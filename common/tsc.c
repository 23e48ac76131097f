/* SPDX-License-Identifier: MIT */
#include <sys/rseq.h>
#include <time.h>

#include "common/tsc.h"

/* glibc 2.35 and later; weak, so that older ones load us */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

ptrdiff_t tsc_cpu_at;

uint64_t tsc_per_us_x1024 = 2048 * 1024 / 1000 * 1000 / 1024;

#define TRIES	8
#define SPAN_NS	100000

/* Both clocks at one moment. Who is put aside between the two reads would have a rate that is wrong by any factor, so of some tries the
 * quickest counts */
static int64_t both(uint64_t *ret)
{
	uint64_t best = UINT64_MAX, t0, t1;
	struct timespec ts;
	int64_t ns = 0;

	for (unsigned i = 0; i < TRIES; i++) {
		t0 = tsc_now();
		clock_gettime(CLOCK_MONOTONIC, &ts);
		t1 = tsc_now();
		if (t1 - t0 >= best)
			continue;
		best = t1 - t0;
		*ret = t0 + best / 2;
		ns = ts.tv_sec * 1000000000ll + ts.tv_nsec;
	}
	return ns;
}

/* good to about a thousandth, which is all a policy needs */
void tsc_init(void)
{
	uint64_t t0 = 0, t1 = 0;
	int64_t a, b;

	if (&__rseq_size && __rseq_size >= offsetof(struct rseq, cpu_id) + 4)
		tsc_cpu_at = __rseq_offset + (ptrdiff_t)offsetof(struct rseq, cpu_id);
	a = both(&t0);
	do
		b = both(&t1);
	while (b - a < SPAN_NS);
	tsc_per_us_x1024 = (t1 - t0) * 1024 * 1000 / (uint64_t)(b - a);
}
