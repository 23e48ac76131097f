/* SPDX-License-Identifier: MIT */
/*
 * agreed_small.c - many small frames with two system calls
 *
 * A sender of small messages that has no room in the ring makes a frame of each. One by one they cost the receiver two calls each, where TCP
 * gives all that is there with one. So they are shown (MSG_PEEK), their payloads copied to the program, and all of them taken together.
 *
 * Invariants: only whole DATA frames whose turn it is, none with ring bytes before it; what was taken ends with the last one's payload. That
 * one's header is announced before the call that takes it, so who takes over from a dead receiver is behind it or before all of them (F8).
 */
#include <string.h>
#include <sys/socket.h>

#include "wsd_switch/core/agreed.h"
#include "wsd_switch/core/ring.h"

#define SHOWN	4096u		/* on the program's stack, perhaps a handler's */

ssize_t agreed_take_small(struct conn *c, int fd, const struct vec *v)
{
	struct road *r = road_of(c);
	uint8_t shown[SHOWN];
	struct iovec io = { shown, sizeof(shown) };
	struct wsd_frame f, last;
	struct vec w = *v;
	size_t have, at = 0, next, headers = 0, done = 0;
	ssize_t k = road_take(c, fd, &io, 1, MSG_PEEK);

	have = k > 0 ? (size_t)k : 0;
	while (at + WSD_FRAME_SIZE <= have && frame_get(&f, shown + at, r->nonce, r->epoch) == 0 && f.kind == WSD_FRAME_DATA &&
	       f.len <= w.len && f.len <= ROAD_SMALL && road_header(r, &f) == 1) {
		next = at + WSD_FRAME_SIZE + f.len;
		if (next > have || !ring_drain(shown + at + WSD_FRAME_SIZE, UINT32_MAX, 0, &w, f.len))
			break;
		vec_skip(&w, f.len);
		done += f.len;
		headers++;
		last = f;
		at = next;
	}
	if (!headers || atomic_load(&r->rs->y_end))
		return 0;
	road_announce(r, &last, atomic_load(&c->s->C) + at - last.len - WSD_FRAME_SIZE);
	io = (struct iovec){ NULL, at };
	k = road_take(c, fd, &io, 1, MSG_TRUNC);
	if (k != (ssize_t)at) {		/* they were there, and nobody else takes any */
		atomic_store(&r->rs->in_C, ~0ull);
		return k < 0 ? k : -EPROTO;
	}
	cnt_add64(&c->s->over_rx, headers * WSD_FRAME_SIZE);
	road_header_taken(r);
	return (ssize_t)done;
}
