/* SPDX-License-Identifier: MIT */
/*
 * agreed_outq.c - what of the bytes sent has not arrived (SIOCOUTQ, SIOCOUTQNSD)
 *
 * TCP counts what the peer's kernel has not acknowledged, whether its program reads or not. Of ring bytes the peer's device says
 * as much with the completion of their put; but not each put has one, so who asks has a read go out behind them, whose completion is for
 * all before it. Programs ask until the answer is 0, so it becomes 0 as long as the connection lives.
 */
#include "wsd_switch/core/agreed.h"

/* tx_lock. One fetch at a time: what was posted behind it has its turn when somebody asks again */
static void ask_device(struct road *r)
{
	uint32_t fetched = atomic_load(&r->p.state->fetched);

	if ((int32_t)(r->out_fetch - fetched) > 0 || r->p.hold(r->p.conn, 1 | WSD_HOLD_WORDS) != 0)
		return;
	r->out_fetch = fetched + 1;
	r->p.fetch(r->p.conn, WSD_CTL_START + 16);
	r->p.release(r->p.conn);
}

/* tx_lock: ring bytes that the peer does not have, as far as we know */
static uint64_t on_the_ring(struct road *r)
{
	struct wsd_remote *rs = r->rs;
	uint64_t posted = atomic_load(&rs->posted), have = atomic_load(&rs->cursor), done;
	uint32_t flags;

	/* another process's puts complete there, and what a road that failed has not brought is the daemons' to bring */
	if (posted == have || !road_mine(r) || road_error(r))
		return 0;
	road_credit(r, &flags);
	r->p.poll(r->p.conn);
	have = atomic_load(&rs->cursor);
	done = atomic_load(&r->p.state->done);
	if (done > have)
		have = done;
	if (posted <= have)
		return 0;
	ask_device(r);
	return posted - have;
}

uint32_t agreed_outq(struct thr *t, struct conn *c, int fd, bool unsent)
{
	struct road *r;
	struct wsd_remote *rs;
	uint64_t n = 0, payload, h;
	uint32_t header;

	agreed_obey(t, c, fd, false);
	if (!agreed_lock(t, c, fd, &c->s->tx_lock))
		return 0;
	r = road_of(c);
	rs = r->rs;
	switch (atomic_load(&rs->xstate)) {
	case WSD_X_FRAMED:
		batch_flush(c);
		/* fall through */
	case WSD_X_ENDED:
		n = unsent ? 0 : on_the_ring(r);
		break;
	case WSD_X_RETURNING:
		/* the backlog, so far as TCP has not taken it; before that what the device has not brought */
		h = atomic_load(&c->s->H);
		road_frame_left(r, h, &header, &payload);
		if (atomic_load(&rs->frame_H) < h && atomic_load(&rs->frame_kind) == WSD_FRAME_RETURN)
			n = payload;
		else if (!road_mine(r) || road_error(r))
			n = atomic_load(&rs->posted) - atomic_load(&rs->cursor);
		else
			n = unsent ? 0 : on_the_ring(r);
		break;
	}
	agreed_unlock(&c->s->tx_lock);
	return n < INT32_MAX / 2 ? (uint32_t)n : INT32_MAX / 2;
}
