/* SPDX-License-Identifier: MIT */
/* test_tsc.c - the rate of the time stamp counter, measured by who is put aside just then */
#include <criterion/criterion.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/tsc.h"

static int aside;		/* in which calls from now on the caller is put aside for 3 ms, one bit each */
static int behind;		/* behind the reading of the clock, not before it */

static void wait_ms(long ms)
{
	struct timespec a, b;

	syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &a);
	do
		syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &b);
	while ((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec < ms * 1000000);
}

/* instead of libc's */
int clock_gettime(clockid_t clock, struct timespec *ts)
{
	int now = aside & 1, r;

	aside >>= 1;
	if (now && !behind)
		wait_ms(3);
	r = (int)syscall(SYS_clock_gettime, clock, ts);
	if (now && behind)
		wait_ms(3);
	return r;
}

static void measured(int calls, int after)
{
	double right, got;
	int tries;

	tsc_init();
	right = (double)tsc_per_us_x1024;
	/* the machine itself may be busy: that is not what is tested */
	for (tries = 0; tries < 5; tries++) {
		aside = calls;
		behind = after;
		tsc_init();
		got = (double)tsc_per_us_x1024;
		if (got > 0.8 * right && got < 1.25 * right)
			return;
	}
	cr_assert_fail("%f ticks, and %f by who was put aside", right, got);
}

Test(tsc, put_aside_behind_the_clock, .timeout = 20)
{
	measured(1, 1);
	measured(2, 1);
	measured(1 << 8, 1);
}

Test(tsc, put_aside_before_the_clock, .timeout = 20)
{
	measured(1, 0);
	measured(2, 0);
	measured(1 << 8, 0);
}
