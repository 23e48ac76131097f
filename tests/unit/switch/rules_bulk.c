/* SPDX-License-Identifier: MIT */
/*
 * rules_bulk.c - a bulk sender finds the faster of its two roads, and loses little in looking for it (agreed_bulk.c)
 *
 * The roads are two rates and the time is counted here: a send of n bytes takes n / rate, after a road's buffers are full.
 */
#include <criterion/criterion.h>

#include "wsd_switch/core/agreed.h"

#define PIECE	65536u
#define MB	1000000ull

enum { SAN, TCP };

struct way {
	uint64_t ns_per_mb;
	uint64_t buffer, filled;	/* bytes that it takes at once while it was idle */
};

static struct bulk b;
static uint64_t now_ns, sent[2], pause_ns;
static struct way ways[2];

TestSuite(bulk, .timeout = 30);

static void begin(uint64_t san, uint64_t tcp)
{
	memset(&b, 0, sizeof(b));
	now_ns = 1000000000;
	pause_ns = sent[SAN] = sent[TCP] = 0;
	ways[SAN] = (struct way){ san, 1 << 20, 0 };
	ways[TCP] = (struct way){ tcp, 3 << 20, 0 };
}

static uint64_t ticks(void)
{
	return (uint64_t)US((double)now_ns / 1000);
}

static void run(uint64_t bytes)
{
	uint64_t i;

	for (i = 0; i < bytes; i += PIECE) {
		uint32_t w = bulk_turn(&b, ticks()) ? TCP : SAN;
		uint64_t cost = PIECE * ways[w].ns_per_mb / MB;

		if (ways[w].filled < ways[w].buffer) {
			ways[w].filled += PIECE;
			cost = 5000;
		}
		ways[!w].filled = 0;
		now_ns += cost;
		sent[w] += PIECE;
		bulk_count(&b, PIECE, ticks());
		now_ns += pause_ns;
	}
}

static double share(void)
{
	return (double)sent[TCP] / (double)(sent[SAN] + sent[TCP]);
}

Test(bulk, faster_san_is_kept)
{
	begin(100000, 300000);		/* 10 GB/s, 3.3 GB/s */
	run(4096 * MB);
	cr_assert_lt(share(), .02, "%g", share());
}

Test(bulk, faster_tcp_is_found)
{
	begin(25000000, 13000000);
	run(100 * MB);
	cr_assert_gt(share(), .85, "%g", share());
	run(4096 * MB);
	cr_assert_gt(share(), .97, "%g", share());
}

/* ... soon: Soft-RoCE's 37 MB/s beside 160 of loopback TCP, in the first second (a stretch of 100 ms, twice, cost a sixth of it) */
Test(bulk, slow_san_is_left_soon)
{
	uint64_t t;

	begin(27000000, 6250000);
	t = now_ns;
	run(160 * MB);
	cr_assert_lt(now_ns - t, 160 * 6250000ull * 108 / 100, "%g", (double)(now_ns - t) / 1e9);
}

Test(bulk, equal_stays_with_the_san)
{
	begin(300000, 290000);
	run(4096 * MB);
	cr_assert_lt(share(), .02, "%g", share());
}

/* a road of no use costs no more than a look at it */
Test(bulk, hopeless_trial_ends)
{
	uint64_t t;

	begin(300000, 300000 * 100);
	ways[TCP].buffer = 0;
	t = now_ns;
	run(1024 * MB);
	cr_assert_lt(now_ns - t, 1024 * 300000ull * 112 / 100, "%g", (double)(now_ns - t) / (1024 * 300000.));
}

Test(bulk, change_is_noticed)
{
	begin(300000, 600000);
	run(1024 * MB);
	cr_assert_lt(share(), .05);
	ways[SAN].ns_per_mb = 2000000;
	sent[SAN] = sent[TCP] = 0;
	run(256 * MB);
	cr_assert_gt(share(), .9, "%g", share());
	ways[SAN].ns_per_mb = 300000;
	sent[SAN] = sent[TCP] = 0;
	run(4096 * MB);
	cr_assert_lt(share(), .25, "%g", share());
}

/* who sends now and then is not judged by its own pauses: it stays with the SAN */
Test(bulk, pauses_say_nothing)
{
	begin(300000, 300000);
	pause_ns = 30000000;
	run(64 * MB);
	cr_assert_eq(sent[TCP], 0);
}
