/* SPDX-License-Identifier: MIT */
#include <sys/rseq.h>
#include <time.h>

#include "common/tsc.h"

/* glibc 2.35 and later; weak, so that older ones load us */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

ptrdiff_t tsc_cpu_at;

uint64_t tsc_per_us_x1024 = 2048 * 1024 / 1000 * 1000 / 1024;

/* 100 us of looking at both clocks: good to about a thousandth, which is all a policy needs */
void tsc_init(void)
{
	struct timespec a, b;
	uint64_t t0, t1;
	int64_t ns;

	if (&__rseq_size && __rseq_size >= offsetof(struct rseq, cpu_id) + 4)
		tsc_cpu_at = __rseq_offset + (ptrdiff_t)offsetof(struct rseq, cpu_id);
	clock_gettime(CLOCK_MONOTONIC, &a);
	t0 = tsc_now();
	do {
		clock_gettime(CLOCK_MONOTONIC, &b);
		t1 = tsc_now();
		ns = (b.tv_sec - a.tv_sec) * 1000000000ll + b.tv_nsec - a.tv_nsec;
	} while (ns < 100000);
	tsc_per_us_x1024 = (t1 - t0) * 1024 * 1000 / (uint64_t)ns;
}
