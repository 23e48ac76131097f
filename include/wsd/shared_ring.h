/* SPDX-License-Identifier: MIT */
/*
 * wsd/shared_ring.h - layout of the session memory of one same-host connection
 *
 * A session is one memfd, made by the daemon, sealed against shrinking and
 * growing, mapped by both ends; the daemon maps the header page alone. It holds,
 * for each of the two directions, a *gate* and a ring of bytes. The protocol that
 * uses it is the gate (docs/protocol.md, rules G1-G29); this header fixes only
 * where the words lie and who may write them.
 *
 *   offset 0                     struct wsd_session, one page
 *   WSD_SESSION_HDR              ring of direction 0 (connecting side sends)
 *   WSD_SESSION_HDR + ring_size  ring of direction 1 (accepting side sends)
 *
 * Side k sends on dir[k] and receives on dir[1 - k]; side 0 connected, side 1 accepted.
 *
 * Trust:   every word here can be changed by the peer at any time. Read it once,
 *          bound it, then use the copy.
 * Units:   bytes; head, tail and base count bytes put and taken and wrap at 2^32;
 *          start counts bytes of the TCP stream of that direction and does not wrap.
 * Threads: all words are atomics. "X" sends in a direction, "Y" receives.
 */
#ifndef WSD_SHARED_RING_H
#define WSD_SHARED_RING_H

#include <assert.h>
#include <stdint.h>
#include <wsd/c11.h>

#define WSD_SESSION_MAGIC	0x3153455357534457ull	/* "WDSWSES1" */
#define WSD_SESSION_VERSION	1u
#define WSD_SESSION_HDR		4096u		/* bytes before the first ring */
#define WSD_RING_MIN		(16u << 10)	/* ring_size is a power of two between these */
#define WSD_RING_MAX		(4u << 20)
#define WSD_RING_DEFAULT	(256u << 10)	/* address space; pages come as they are first used */

/*
 * The gate word. Y owns OPEN, X owns the head and sets ON_RING; both change the word
 * only by atomic read-modify-write. Every opening and closing, and every departure
 * from the ring by X while OPEN, adds one to the epoch.
 */
#define WSD_GATE_OPEN		(1ull << 63)
#define WSD_GATE_ON_RING	(1ull << 62)
#define WSD_GATE_EPOCH_SHIFT	32
#define WSD_GATE_EPOCH_ONE	(1ull << WSD_GATE_EPOCH_SHIFT)
#define WSD_GATE_EPOCH_MASK	(((1ull << 30) - 1) << WSD_GATE_EPOCH_SHIFT)
#define WSD_GATE_HEAD(g)	((uint32_t)(g))

/* the gate word with OPEN and ON_RING as given, head unchanged, epoch raised */
static inline uint64_t wsd_gate_next(uint64_t g, uint64_t flags)
{
	return flags | ((g + WSD_GATE_EPOCH_ONE) & WSD_GATE_EPOCH_MASK) | WSD_GATE_HEAD(g);
}

/* hints, wsd_ring_dir.xflags: written by X */
#define WSD_X_NO_PUT		0x1u	/* X will never put again: Y need not open */
#define WSD_X_SHUT		0x2u	/* X has called shutdown(SHUT_WR): its FIN says nothing of what it still reads */
/* hints, wsd_ring_dir.yflags: written by Y */
#define WSD_Y_HANDED_ON		0x1u	/* unread bytes were left to a process that has not attached (G22) */
#define WSD_Y_NAGLE		0x2u	/* Y's own sends stall without a prompt ACK (G29) */
#define WSD_Y_NO_OPEN		0x4u	/* Y will never open again */
#define WSD_Y_CARRIED		0x8u	/* what lies unread went along through exec as a copy: whoever reads that does not raise tail */

struct wsd_ring_dir {
	_Alignas(128) _Atomic uint64_t gate;	/* X and Y, read-modify-write only */
	_Atomic uint64_t start;			/* X: TCP offset at which the running segment stands */
	_Atomic uint32_t base;			/* X: the head value that lies at ring offset 0 */
	_Atomic uint32_t wcpu;			/* X: CPU it last ran on, plus 1; a hint */
	_Atomic uint32_t xflags;		/* X: WSD_X_*; hints */
	_Atomic uint32_t pad0;
	_Alignas(128) _Atomic uint32_t tail;	/* Y: bytes taken; only ever raised */
	_Atomic uint32_t rcpu;			/* Y: CPU it last waited on, plus 1; a hint */
	_Atomic uint32_t yflags;		/* Y: WSD_Y_*; hints */
	/* away from the gate: a store to its line takes it from a peer that has just met the put */
	_Alignas(128) _Atomic uint64_t stat_ring; /* X: bytes put, for wsdctl status; a claim */
	_Atomic uint64_t stat_tcp;		/* X: bytes sent on TCP, for wsdctl status; a claim */
};

/* wsd_session.revoked, by the daemon: bits that are only ever set */
#define WSD_REVOKED		0x1u
#define WSD_END_GONE(side)	(0x2u << (side))	/* nobody holds the socket of that side: what lies unread there stays unread */

struct wsd_session {
	/* written once by the daemon before either side maps it */
	uint64_t magic;
	uint32_t version;
	uint32_t ring_size;
	uint64_t session_id;
	uint64_t length;			/* of the whole memfd */
	_Atomic uint32_t revoked;		/* daemon: WSD_REVOKED, ...; not 0: no gate may open any more (G21) */
	_Atomic uint32_t attached;		/* one bit a side, set by the side */
	struct wsd_ring_dir dir[2];
};

static_assert(sizeof(struct wsd_session) <= WSD_SESSION_HDR, "the header is one page");

static inline uint64_t wsd_session_length(uint32_t ring_size)
{
	return WSD_SESSION_HDR + 2ull * ring_size;
}

#endif
