/* SPDX-License-Identifier: MIT */
/*
 * wsd/put_road.h - a connection whose bytes are put into memory of the other end, with a signal (WSDPUTWITHSIGNAL)
 *
 * One end's memory is a struct wsd_remote (wsd/remote_session.h). put() sends bytes of the source ring to the same place of the peer's
 * receiving ring and, with their arrival, tells the peer how many there are; word() writes into the peer's control page.
 * All that is posted arrives in the order in which it was posted, or not at all from some point on. What read() and pull() bring from
 * the peer's memory keeps no order with what the peer posts.
 *
 * Threads: put, word, fetch and nudge only between hold() and release(), which make up the posting lock of the connection (senders and
 *          those who give credit both post). hold() never waits: 1 means not now. poll(), and drain() and arm() of the
 *          control table, may be entered by any thread at any time; who finds another one inside gets "nothing".
 *          None of them sleeps, calls up, or may be entered from a signal handler that interrupted it: callers hold their
 *          handlers off while they are inside.
 * Errors:  0; 1: not now, nothing was done; negative: -errno that sticks (state->error): -ECONNRESET the path or the peer is gone,
 *          -EPROTO the peer broke the rules, -ENETDOWN the device is gone, -ECANCELED stop() was called. After an error nothing that is
 *          in flight may be believed to arrive or not to arrive; memory that was written stays as it is, and from stop()'s return on
 *          nothing more is written by the peer.
 * Units:   bytes. Ring offsets count from the beginning of the session and do not wrap in 64 bits.
 */
#ifndef WSD_PUT_ROAD_H
#define WSD_PUT_ROAD_H

#include <stdint.h>
#include <wsd/c11.h>

#define WSD_ROAD_SOFT	0x1u	/* a software device: who spins gives the CPU away between looks, it works on this machine */

#define WSD_PUT_SIGNAL	0x100u	/* beside put()'s ring: raise state->done as soon as it is completed */
#define WSD_HOLD_WORDS	0x100u	/* beside hold()'s n: no put follows, so that credit can be told by who has none */

/* written by whoever takes completions; read at any time */
struct wsd_put_state {
	_Atomic uint64_t head;		/* ring bytes that have arrived here; also stored in wsd_remote.head */
	_Atomic uint64_t done;		/* ring bytes whose put is completed: the peer's device has them */
	_Atomic uint32_t fetched;	/* fetches completed, wraps */
	_Atomic uint32_t reads;		/* reads and pulls completed, wraps */
	_Atomic int32_t error;		/* 0 or -errno; sticks */
	_Atomic uint32_t changes;	/* raised after any change of the above, wraps */
};

typedef struct wsd_put_road {
	uint32_t size;			/* in: sizeof(*this) */
	uint32_t inline_max;		/* bytes of a put that need no DMA from the source ring; a hint */
	uint32_t depth;			/* posts that fit in at once; a hint */
	uint32_t caps;			/* WSD_ROAD_* */
	void *conn;			/* first argument of what follows */
	void *base;			/* struct wsd_remote; mapped until WSPCloseSocket */
	uint64_t length;
	uint64_t session_id;
	uint64_t context;		/* in: the caller's; what drain() returns for this road */
	const struct wsd_put_state *state;

	/* take the posting lock and make sure that n posts (at most 8) and one signal fit; with WSD_HOLD_WORDS only the posts: nudge()
	 * may then say "not now". 1: not now */
	int (*hold)(void *conn, unsigned n);
	/* ring the doorbell for what was posted, and let go */
	void (*release)(void *conn);
	/* the source ring's bytes [at, at + n), to the peer's ring at the same offsets; raises the peer's head to at + n. n is at most the ring's
	 * size; at is where the last put ended. ring: 0 or 1, see wsd/remote_session.h. A put over the ring's end counts as two posts. */
	int (*put)(void *conn, uint32_t ring, uint64_t at, uint32_t n);
	/* n bytes (at most 64) into the peer's struct wsd_remote_ctl at off */
	int (*word)(void *conn, uint32_t off, const void *p, uint32_t n);
	/* read 8 bytes of the peer's control page, behind all that was posted before; then state->fetched rises. One at a time */
	int (*fetch)(void *conn, uint32_t off);
	/* make the peer's waiters look, without bytes: behind a word() that they wait for */
	int (*nudge)(void *conn);

	/* take completions of this connection's queue. 1: something changed */
	int (*poll)(void *conn);
	/* register ring 1 of one direction, whose memory the daemon has allowed. rx: *addr and *rkey are for the peer. 0 or -errno */
	int (*ring1)(void *conn, int tx, uint32_t size, uint64_t *addr, uint32_t *rkey);
	/* the peer told us where its ring 1 is */
	int (*peer_ring1)(void *conn, uint64_t addr, uint32_t rkey, uint32_t size);
	/* from its return on nothing of the peer lands here and nothing of ours is sent. drain: let what is posted go out first, in the
	 * background, for at most two seconds, past WSPCloseSocket */
	void (*stop)(void *conn, int drain);

	/* the rest may be NULL: then nothing is kept back for the peer to pull (docs/agreed.md, "Batching") */
	/* read n bytes (whole words, at most 64) of the peer's control page at off into ours at to, behind all that was posted before; then
	 * state->reads rises. One read or pull at a time */
	int (*read)(void *conn, uint32_t off, uint32_t n, uint32_t to);
	/* read the peer's source ring's bytes [at, at + n), not over its end, into our ring at the same offsets; then head is at + n, if it is not
	 * beyond already, and state->reads rises. addr, rkey: of the peer's source() */
	int (*pull)(void *conn, uint32_t ring, uint64_t at, uint32_t n, uint64_t addr, uint32_t rkey);
	/* where our source ring is, for the peer's pull(). Not posting. 0 or -errno */
	int (*source)(void *conn, uint32_t ring, uint64_t *addr, uint32_t *rkey);
	/* hold(1), put() and release() in one, where nothing else is due and the bytes do not go over the ring's end. *ret_end is made at + n as
	 * soon as nothing but an error of the road keeps them from arriving. 0 or 1. May be NULL */
	int (*put_one)(void *conn, uint32_t ring, uint64_t at, uint32_t n, _Atomic uint64_t *ret_end);
} WSDPUTROAD, *LPWSDPUTROAD;

#endif
