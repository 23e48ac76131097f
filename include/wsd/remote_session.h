/* SPDX-License-Identifier: MIT */
/*
 * wsd/remote_session.h - memory of one end of a connection whose ends share none (verbs)
 *
 * One memfd per end, made by that end's daemon, sealed against shrinking and growing, mapped by that daemon and by the processes of this end.
 * The other host reaches two parts of it through its network card: the control page and the receiving ring. The
 * protocol that uses it is the agreed cut-over (rules A1-A9, docs/agreed.md); this header fixes where words lie and who may
 * write them.
 *
 *   offset       registered for            written by
 *   0            never                     see the struct: daemon, X part, Y part
 *   4096         the peer to read, write   the peer's card only
 *   8192         (with the page before)    the peer's card only: receiving ring 0
 *   + ring0      both cards to read        X: source ring 0
 *   + ring0      when ring 1 was granted   the peer's card: receiving ring 1
 *   + ring1_max  ...                       X: source ring 1
 *   + ring1_max  never                     daemon only: fill ring
 *
 * Trust:   the control page and the receiving rings can be changed by the peer at any time, and torn: every record has a check word
 *          over the session's nonce, and counts as absent while it does not fit. The check is no proof of anything: bound what you read.
 * Units:   bytes. posted, head, taken, cursor and ring offsets count ring bytes since the session began; H, C, S and tcp
 *          offsets count what the kernel's TCP was given or gave in this direction, frame headers included (as G16 does).
 *          64 bits, no wrap. Slot of a ring offset: offset & (size - 1).
 * Threads: all shared words are atomics; "X" is this end as sender, holding the side's tx_lock, "Y" as receiver, holding its rx_lock.
 */
#ifndef WSD_REMOTE_SESSION_H
#define WSD_REMOTE_SESSION_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <wsd/c11.h>

#define WSD_REMOTE_MAGIC	0x3153525344535757ull	/* "WWSDSRS1" */
/*
 * The number of the road: what lies in this memory, what the cards write into the other end's, frames, and what the ends and their daemons do about
 * them. A daemon names it in its HELLO, and there is a link between equal ones only; clients compare it with the header's. Raise it with every change
 * after which an end of the build before would misunderstand, or wait for, one of this: a word that means something else, a word that must be answered.
 *   1: until session 7 of issue 8. 2: `plain` and WSD_CREDIT_NOW, a grant that is taken back unused, and `plain` where the card cannot, told by the daemons
 */
#define WSD_REMOTE_VERSION	2u
#define WSD_REMOTE_PAGE		4096u
#define WSD_REMOTE_SEAMS	32u
#define WSD_REMOTE_RING0_MIN	(4u << 10)	/* powers of two */
#define WSD_REMOTE_RING0_MAX	(1u << 20)
#define WSD_REMOTE_RING0	(8u << 10)	/* default: 20 KiB locked for each connection */
#define WSD_REMOTE_RING1_MAX	(4u << 20)
#define WSD_REMOTE_RING1	(1u << 20)	/* default limit of ring 1 and of the fill ring; address space until granted */

/*
 * Ring bytes from ring_off on come, in the stream, behind the TCP byte before tcp_off: they may be read only when C is tcp_off. The first put
 * and every put behind a frame has one. n counts them; the slot is n % WSD_REMOTE_SEAMS. ring: which ring holds the bytes from here on.
 */
struct wsd_seam {
	uint64_t ring_off, tcp_off;
	uint32_t n;		/* from 1: an empty slot is 0 */
	uint32_t ring;
	uint64_t check;
};

/* what X (this end as sender) is doing */
enum wsd_x {
	WSD_X_PLAIN = 0,	/* no grant taken */
	WSD_X_STARTING,		/* Start written, not yet known to be there: nothing may be sent (A2) */
	WSD_X_UNDECIDED,	/* that failed: the daemons decide */
	WSD_X_FRAMED,		/* puts and frames */
	WSD_X_RETURNING,	/* no more puts; what is left of a frame, RETURN, backlog (A4) */
	WSD_X_ENDED,		/* END sent or given up (A7) */
	WSD_X_DONE,		/* plain for good in this session */
};

/* what Y (this end as receiver) is doing */
enum wsd_y {
	WSD_Y_PLAIN = 0,
	WSD_Y_GRANTED,		/* Start may appear at any time (A1) */
	WSD_Y_FRAMED,
	WSD_Y_DROPPING,		/* RETURN was read: plain bytes repeat the ring, up to ret_end */
	WSD_Y_DONE,		/* plain for good in this session */
};

/* A2: who decides whether Start counts */
enum wsd_decide { WSD_DECIDE_UNSET = 0, WSD_DECIDE_TAKEN, WSD_DECIDE_VOID };
/* the answer to X: WSD_DECIDED_* */
enum wsd_decided { WSD_DECIDED_NOT_YET = 0, WSD_DECIDED_TAKEN, WSD_DECIDED_VOID, WSD_DECIDED_NEVER };

struct wsd_remote {
	/* written once by the daemon before anybody else maps it */
	uint64_t magic;
	uint32_t version;
	uint32_t side;			/* 0 connected, 1 accepted */
	uint64_t session_id;		/* one for both ends */
	uint64_t nonce;			/* one for both ends, not 0 */
	uint64_t length;		/* of the memfd */
	uint32_t epoch;
	uint32_t ring0, ring1_max, fill_max;	/* sizes; ring1_max and fill_max may be 0 */
	uint32_t off_ctl, off_rx0, off_tx0, off_rx1, off_tx1, off_fill;

	/* written by the daemon, later. A packet follows each store, to wake; the word is what counts */
	_Alignas(128) _Atomic uint32_t revoked;	/* enum wsd_reason: no new start, X returns, Y grants nothing */
	_Atomic uint32_t x_return;		/* not 0: the peer asks X to return */
	_Atomic uint32_t decide;		/* enum wsd_decide: compare-and-swap from UNSET, Y's process or the daemon */
	_Atomic uint32_t decided;		/* enum wsd_decided, for X: what the peer's decide is */
	_Atomic uint64_t fill_from, filled;	/* ring bytes [fill_from, filled) lie in the fill ring; filled is stored last, only grows */
	_Atomic uint64_t end_posted;		/* end_valid: where the peer's ring bytes end */
	_Atomic uint32_t end_valid;		/* 0: not known, 1: end_posted, 2: cannot be had */
	_Atomic uint32_t rx1_allowed, tx1_allowed;	/* bytes of ring 1 that may be registered */
	_Atomic uint32_t owner_gone;		/* the process with the queue pair is gone: heads do not rise any more but by fill */
	_Atomic uint32_t peer_left;		/* nobody holds the peer's socket any more. Before end_valid */
	_Atomic uint64_t plain_at;		/* for Y, as ctl.plain is: the peer's daemon brought it; 0: it did not */
	_Atomic uint32_t plain_there;		/* for X: 1: plain_H is the peer's plain_at, 2: no daemon can say */
	struct wsd_seam fill_seam[WSD_REMOTE_SEAMS];	/* seams inside [fill_from, filled), in the slot of their n; before filled */

	/* written by X. The daemon reads posted, cursor, S, xstate, the seams and ring1_from to send what a dead process left (A7) */
	_Alignas(128) _Atomic uint32_t xstate;	/* enum wsd_x */
	_Atomic uint32_t seam_n;		/* n of the newest seam; 0: none yet */
	_Atomic uint64_t S;			/* H at which frames begin */
	_Atomic uint64_t posted;		/* stored after the bytes are in the source ring and their seam in seam[] */
	_Atomic uint64_t cursor;		/* the last good value of ctl.credit.cursor: the peer's program has these */
	_Atomic uint64_t ring1_from;		/* ring bytes from here on lie in ring 1; ~0: none */
	_Atomic uint32_t tx1_size;
	/* the last frame, stored before the kernel call that begins it; progress is H itself, so that whoever comes next goes on (A3) */
	_Atomic uint64_t frame_H;		/* H of its first header byte; ~0: no frame yet */
	_Atomic uint64_t frame_off;		/* the ring offset it carries. Order of the stores: frame_H = ~0, these, frame_H */
	_Atomic uint32_t frame_len, frame_kind;
	uint64_t back_H, back_from, back_to;	/* A4: ring bytes [back_from, back_to) go as plain bytes from H == back_H on */
	_Atomic uint64_t plain_H;		/* RETURNING: the peer is told that this is where plain begins, and is not known to know; 0: it is not */
	_Atomic uint32_t rest;			/* 1: a header or backlog is unfinished: waits add EPOLLOUT */
	struct wsd_seam seam[WSD_REMOTE_SEAMS];	/* copies of what was sent */

	/* written by Y */
	_Alignas(128) _Atomic uint32_t ystate;	/* enum wsd_y; also read at the beginning of every wait */
	uint32_t seam_next;			/* n of the seam that was passed last */
	uint64_t Y_S;				/* C at which frames begin */
	_Atomic uint64_t head;			/* ring bytes that have arrived by the card; written by who takes completions */
	_Atomic uint64_t taken;			/* ring bytes the program has: the cursor */
	uint64_t f_end;				/* C at the end of the frame being read; at or below C: none */
	/* the header about to be taken, stored before the kernel call that takes it: whoever finds C > in_C applies it (F8) */
	_Atomic uint64_t in_C;			/* C of its first byte; ~0: applied */
	uint64_t in_off;
	uint32_t in_len, in_kind;
	/* a header of which TCP has brought a part: its bytes [part_C, C) so far; ~0: none */
	_Atomic uint64_t part_C;
	uint8_t part[32];
	/* A4: plain bytes begin at back_C and repeat the ring from ret_from on; the backlog ends at ret_end */
	uint64_t back_C, ret_from, ret_end;
	_Atomic uint64_t told_cursor;
	_Atomic uint32_t rx_ring;		/* which ring holds the bytes behind taken */
	_Atomic uint32_t rx1_size;
	_Atomic uint32_t y_end;			/* END was read */
	_Atomic uint32_t leave;			/* a process of this end without the queue pair wants both directions back on TCP */
	/* its questions, 1 << enum wsd_san_what: the daemon hears no packet of its, and takes them from here in its sweep */
	_Atomic uint32_t asks;
};
static_assert(sizeof(struct wsd_remote) <= WSD_REMOTE_PAGE, "one page");

/*
 * The control page: the peer writes it with word(). grant, credit, ring1 and asleep come from the peer as Y of what we send, start, want,
 * batch, plain and the seams from the peer as X. out is ours to write as X, and the peer's card reads it into its in. check:
 * wsd_remote_check() over the words before it.
 */
#define WSD_CREDIT_RETURN	1u	/* flags: return, please (A4) */
#define WSD_CREDIT_NOW		2u	/* ... and Y cannot wait for the rest of a frame */
#define WSD_CREDIT_READS	4u	/* Y reads out before it sleeps: bytes may be kept back for it */

struct wsd_remote_out {		/* what X keeps back: its ring's bytes [given, posted) */
	uint64_t given, posted;
	uint64_t addr, rkey_ring;	/* of the source ring that holds them; rkey << 32 | ring */
	uint64_t check;			/* as of WSD_CTL_OUT, wherever it is */
};

struct wsd_remote_ctl {
	struct { uint64_t epoch, check; } grant;
	struct { uint64_t cursor, flags, check; } credit;
	struct { uint64_t addr, rkey_size, check; } ring1;	/* rkey << 32 | size */
	struct { uint64_t S, epoch, check; } start;
	struct { uint64_t size, check; } want;			/* ring 1 of this size, please */
	uint64_t backend[8];					/* the transport's own words: receive credits */
	struct wsd_seam seam[WSD_REMOTE_SEAMS];
	struct { uint64_t on, check; } batch;			/* X may keep bytes back, from the next put on */
	struct { uint64_t head, check; } asleep;		/* Y has these, and sleeps if there are no more */
	struct wsd_remote_out out, in;
	struct { uint64_t tcp_off, check; } plain;		/* A4: X's last frame ends there, and what follows is plain */
};
static_assert(sizeof(struct wsd_remote_ctl) <= WSD_REMOTE_PAGE, "one page");

#define WSD_CTL_GRANT	offsetof(struct wsd_remote_ctl, grant)
#define WSD_CTL_CREDIT	offsetof(struct wsd_remote_ctl, credit)
#define WSD_CTL_RING1	offsetof(struct wsd_remote_ctl, ring1)
#define WSD_CTL_START	offsetof(struct wsd_remote_ctl, start)
#define WSD_CTL_WANT	offsetof(struct wsd_remote_ctl, want)
#define WSD_CTL_BACKEND	offsetof(struct wsd_remote_ctl, backend)
#define WSD_CTL_BATCH	offsetof(struct wsd_remote_ctl, batch)
#define WSD_CTL_ASLEEP	offsetof(struct wsd_remote_ctl, asleep)
#define WSD_CTL_OUT	offsetof(struct wsd_remote_ctl, out)
#define WSD_CTL_IN	offsetof(struct wsd_remote_ctl, in)
#define WSD_CTL_PLAIN	offsetof(struct wsd_remote_ctl, plain)
#define WSD_CTL_SEAM(i)	(offsetof(struct wsd_remote_ctl, seam) + (i) * sizeof(struct wsd_seam))

/* check word of a record of n words at offset off of the control page: against torn and stale records, not against malice. Never 0 */
static inline uint64_t wsd_remote_check(uint64_t nonce, uint32_t off, const uint64_t *w, unsigned n)
{
	uint64_t h = nonce ^ (off + 1) * 0x9e3779b97f4a7c15ull;
	unsigned i;

	for (i = 0; i < n; i++) {
		h = (h ^ w[i]) * 0xff51afd7ed558ccdull;
		h ^= h >> 32;
	}
	return h ? h : 1;
}

/* bytes of the memfd for these sizes */
static inline uint64_t wsd_remote_length(uint32_t ring0, uint32_t ring1_max, uint32_t fill_max)
{
	return 2ull * WSD_REMOTE_PAGE + 2ull * ring0 + 2ull * ring1_max + fill_max;
}

#endif
