/* SPDX-License-Identifier: MIT */
/*
 * agreed_bulk.c - which of its two roads a sender takes that fills them
 *
 * A frame goes by TCP at any time (A3), not only where a put lacks room; so who sends large pieces, or small ones one after the other with no answer
 * between them (a flood), may use whichever road moves them faster. That is measured, not guessed: a device in software is slower than loopback
 * TCP, which also makes few packets of many messages, another one ten times as fast, and a path may be slower than its device. Bytes are
 * measured for large pieces, messages for a flood.
 *
 *   SAN, a stretch of bytes --> TCP for as many, as a trial --> the faster one; the other is tried again after 64 stretches, 128, ...
 *
 * A stretch begins with bytes that are not measured: a road that was idle takes the first ones into empty buffers. TCP must be faster by an eighth
 * to be chosen. A trial ends early when it has taken longer (twice as long, before it is measured) than the other road would
 * need. What was chosen goes on being measured:
 * once it is slower than what the other one had, that one is tried at once, so that one wrong measurement does not stay.
 *
 * Invariant: all of it under tx_lock, of one process, about speed alone: any answer is right for the stream.
 */
#include "wsd_switch/core/agreed.h"

#define MESSAGE		4096		/* what one of a flood counts as */
#define STRETCH		(4u << 20)	/* to settle, and again to be measured; or, where that takes longer, */
#define STRETCH_US	25000		/* what moves in this time, and LEAST */
#define STRETCH_LEAST	(256u << 10)
#define AGAIN_FIRST	64		/* stretches until the other road is tried again */
#define AGAIN_MOST	4096
#define PAUSE_US	20000		/* the program did something else: not the road's time */

enum { BY_SAN, BY_TCP };

static void stretch(struct bulk *b, uint64_t now)
{
	b->begun = 0;
	b->bytes = 0;
	b->since = b->last = now;
}

static void go_to(struct bulk *b, uint32_t road, bool trial, uint64_t now)
{
	b->road = road;
	b->trial = trial;
	stretch(b, now);
}

/* bytes per 65,536 ticks, not 0 */
static uint64_t rate_of(uint64_t bytes, uint64_t ticks)
{
	return bytes * 65536 / (ticks ? ticks : 1) + 1;
}

/* is this much on the road it is on better than what the other one had? */
static bool better(const struct bulk *b, uint64_t rate)
{
	return b->road == BY_TCP ? rate > b->rate[BY_SAN] + b->rate[BY_SAN] / 8 : rate + rate / 8 >= b->rate[BY_TCP];
}

static void judge(struct bulk *b, uint64_t rate, uint64_t now)
{
	b->rate[b->road] = rate;
	if (!b->rate[!b->road]) {
		go_to(b, !b->road, true, now);
	} else if (b->trial && !better(b, rate)) {
		b->again = b->again * 2 < AGAIN_MOST ? b->again * 2 : AGAIN_MOST;
		b->left = b->again;
		go_to(b, !b->road, false, now);
	} else if (b->trial) {
		b->again = b->left = AGAIN_FIRST;
		b->trial = false;
		stretch(b, now);
		b->begun = now;
	} else if (!better(b, rate) || --b->left == 0) {
		go_to(b, !b->road, true, now);
	} else {
		stretch(b, now);
		b->begun = now;		/* it is settled */
	}
}

static bool enough(const struct bulk *b, uint64_t took)
{
	return b->bytes >= STRETCH || (b->bytes >= STRETCH_LEAST && took >= (uint64_t)US(STRETCH_US));
}

bool bulk_turn(struct bulk *b, uint64_t now)
{
	if (!b->again) {
		b->again = AGAIN_FIRST / 2;	/* the first judgement doubles it */
		b->left = AGAIN_FIRST;
		stretch(b, now);
	}
	if ((int64_t)(now - b->last) > (int64_t)US(PAUSE_US))
		stretch(b, now);
	return b->road == BY_TCP;
}

void bulk_count(struct bulk *b, size_t n, uint64_t now)
{
	uint64_t took;

	b->last = now;
	b->bytes += n;
	if (!b->begun) {
		if (enough(b, now - b->since)) {
			b->begun = now;
			b->bytes = 0;
		} else if (b->trial && !better(b, rate_of(STRETCH, (now - b->since) / 2))) {
			judge(b, rate_of(b->bytes, now - b->since), now);
		}
		return;
	}
	took = now - b->begun;
	if (enough(b, took) || (b->trial && !better(b, rate_of(STRETCH, took))))
		judge(b, rate_of(b->bytes, took), now);
}

bool bulk_by_tcp(struct road *r, size_t len, bool *ret_flood)
{
	uint64_t now = r->now = tsc_now();

	*ret_flood = false;
	if (len >= BULK_LEN)
		return !cfg.no_overflow && bulk_turn(&r->bulk, now);
	/* who thinks, or waits, between two messages does not fill a road */
	if ((int64_t)(now - r->sent_when) > (int64_t)US(ROAD_FLOOD_GAP_US))
		atomic_store_explicit(&r->in_row, 0, memory_order_relaxed);
	*ret_flood = atomic_load_explicit(&r->in_row, memory_order_relaxed) >= ROAD_FLOOD;
	return *ret_flood && !cfg.no_overflow && bulk_turn(&r->flood, now);
}

void bulk_sent(struct road *r, size_t len, size_t n)
{
	uint32_t row = atomic_load_explicit(&r->in_row, memory_order_relaxed);
	uint64_t now = tsc_now();

	if (len >= BULK_LEN) {
		row = 0;
		if (r->bulk.again)
			bulk_count(&r->bulk, n, now);
	} else if (row < ROAD_FLOOD) {
		row++;
	} else if (r->flood.again) {
		bulk_count(&r->flood, MESSAGE, now);
	}
	atomic_store_explicit(&r->in_row, row, memory_order_relaxed);
	r->sent_when = now;
}
