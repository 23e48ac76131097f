/* SPDX-License-Identifier: MIT */
/*
 * agreed.h - connections whose ends share no memory: the agreed cut-over (A1-A9, docs/agreed.md)
 *
 * A connection in stage ST_AGREED has a *road*: the provider's functions that put bytes into the peer's memory, and this end's session memory
 * (wsd/remote_session.h), which all processes of the end map. Each direction is plain TCP until Y granted and X started, then puts and
 * frames, then, after a return, plain TCP again, for good in this session (decision D13: a new session makes all anew, A6).
 *
 * Files: agreed_state.c what the words mean, without a system call; agreed_tx.c X; agreed_rx.c Y; agreed_small.c many small frames at once; agreed_peek.c looking ahead;
 * agreed_quick.c the usual case; agreed_lowat.c SO_RCVLOWAT; agreed_outq.c SIOCOUTQ; agreed_wait.c sleeping beside TCP and the device; agreed_grow.c larger rings; agreed_bulk.c the faster road; agreed_batch.c many
 * small puts at once; agreed_ctl.c life.
 *
 * Invariants:
 *   - a byte that send() returned for is posted, or TCP has it. Nothing waits for another call to be sent, but what Y's card can fetch;
 *   - plain bytes are sent only counted in (in_send) and with a look at xstate after that; plain bytes are received without bound only
 *     counted in (sleepers) and with a look at ystate after that. Who changes those states looks at the counts after it. (As G3, G15.)
 *   - tx_lock orders puts, frames and xstate; rx_lock orders what is taken and ystate. They are held over calls that do not sleep,
 *     with signal handlers put off, and are waited for: there is no other road to go to. A dead owner's is taken over: what it was about to
 *     do lies in the session memory, what it did is read from the kernel (G16).
 *   - order: never tx_lock and rx_lock together. open_lock, then rx_lock (grant); under tx_lock open_lock is only tried (start). Under either
 *     ctl_lock is only tried (agreed_ask), and the road's posting lock comes last.
 */
#ifndef WSD_SWITCH_AGREED_H
#define WSD_SWITCH_AGREED_H

#include <wsd/frame.h>
#include <wsd/put_road.h>
#include <wsd/remote_session.h>

#include "wsd_switch/core/frame.h"
#include "wsd_switch/core/switch.h"

struct bulk {			/* agreed_bulk.c; tx_lock */
	uint64_t rate[2];	/* by the ring, by TCP: bytes per 65,536 ticks; 0: not measured */
	uint64_t since, begun, last;	/* ticks: this stretch; since when it is measured (0: not yet); the last bytes */
	uint64_t bytes;
	uint32_t road, again, left;
	bool trial;
};

struct road {			/* one per session and process; freed when nobody can be inside its conn any more */
	WSDPUTROAD p;
	struct road *next;		/* sessions before this one (agreed_renew) ... */
	uintptr_t san;			/* ... whose memory is unmapped with the conn: the provider's socket */
	struct wsd_remote *rs;
	const struct wsd_remote_ctl *ctl;
	uint8_t *rx[2], *tx[2];
	const uint8_t *fill;
	/* checked copies */
	uint64_t nonce;
	uint32_t epoch, ring0, ring1_max, fill_max;
	uint32_t owner;			/* the process that has the queue pair; others only read and send on TCP */
	uint32_t fetch_want;		/* state->fetched when Start (STARTING), or `plain` (RETURNING), is known to be there; tx_lock */
	uint32_t out_fetch;		/* state->fetched when what SIOCOUTQ asked for is known; tx_lock */
	uint64_t granted_H;		/* H + 1 when the grant was seen first; tx_lock */
	_Atomic uint32_t leave;		/* enum wsd_reason: X is to return, Y to grant nothing more */
	bool plain_put;			/* we wrote plain_H into the peer's `plain`, and fetch_want is its read-back; tx_lock */
	uint32_t start_looks;		/* ... since Start; tx_lock */
	_Atomic bool start_seen;	/* a sender of this process waits, or waited, for a start to end */
	_Atomic bool rx_now;		/* Y: credit says WSD_CREDIT_NOW from now on */
	_Atomic uint32_t now_plain;	/* not 0: X is to return though payload of a frame is open */
	_Atomic uint32_t asked;		/* bits of enum wsd_san_what that were asked for */
	_Atomic uint32_t ask_due;	/* the same, not sent so far: the provider was busy */
	uint64_t ask_a[_WSD_SAN_N], ask_b[_WSD_SAN_N];	/* their arguments */
	uint64_t start_when, asked_when, end_when;	/* ticks, of Start, DECIDE and END */
	uint64_t last_tcp;		/* ticks: X's last TCP bytes; tx_lock */
	uint64_t since;			/* ticks: the session's beginning */
	uint64_t taken_before;		/* ring bytes that the sessions before this one brought */
	/* growth; grow_failed: not tried again */
	struct bulk bulk, flood;
	/* agreed_batch.c, X: ring bytes the card has; the rest up to posted is kept back. tx_lock */
	_Atomic uint64_t given;
	_Atomic uint64_t credit_seen;	/* check of the last credit, its low bits the flags */
	uint64_t now;			/* ticks: this send's beginning; tx_lock */
	_Atomic uint64_t polled;	/* ticks: completions were taken */
	uint64_t put_cost, put_when, put_pause;	/* ticks */
	uint32_t batch_idle;
	_Atomic bool batch;
	_Atomic uint32_t sender;	/* tid of the last one */
	_Atomic bool peer_reads;
	/* ... Y: rx_lock */
	_Atomic uint64_t pull_from;	/* of the pull under way; ~0: none */
	_Atomic uint32_t reads_want;	/* state->reads when the last question, or pull, is completed */
	uint64_t asked_head;		/* head then, + 1 */
	bool ask_out;			/* its answer was not looked at so far */
	_Atomic uint32_t in_row;	/* small sends without a receive or a pause between them */
	uint64_t sent_when;		/* ticks: the last send; tx_lock */
	bool held;			/* TCP was told that more follows (MSG_MORE); tx_lock */
	bool nagled;			/* FRAMED with Nagle's algorithm as the program has it; tx_lock */
	_Atomic uint32_t vain;		/* spins that brought nothing since the last that did, and those left out */
	_Atomic bool by_frames;		/* Y: the last bytes came by TCP; so the next may */
	bool small_frames;		/* ... in frames of no more than ROAD_SMALL; rx_lock */
	uint32_t empties;		/* empty frames in a row behind ring offset empty_at; rx_lock */
	uint64_t empty_at;
	uint64_t behind_at, behind_since;	/* a frame stands behind ring bytes from here on, which have not come since (ticks); rx_lock */
	bool wanted, told_ring1, grow_failed;
	uint32_t asked_tx1, asked_rx1;	/* sizes that the daemon was asked for */
	uint64_t ring1_addr;
	uint32_t ring1_rkey;
	_Atomic uint32_t granted_sets;	/* this process's sets have been told */
	_Atomic uint64_t told_in;	/* edge-triggered sets: what was there when input was last reported */
	_Atomic uint32_t told_out;
};

extern _Atomic uint32_t road_any;	/* not 0: there is, or was, a road */

/* not NULL in stage ST_AGREED. Another one after a renewal: who loops looks again */
static inline struct road *road_of(const struct conn *c)
{
	return atomic_load_explicit(&c->road, memory_order_acquire);
}

/* ---- agreed_state.c: no system call, no lock, no wait ---- */

/* what p->base says, checked and pointed to. 0 or -EINVAL */
int road_bind(struct road *r, const WSDPUTROAD *p);
/* n words and their check at off of the control page; false: not (yet) there */
bool road_record(const struct road *r, uint32_t off, uint64_t *w, unsigned n);
bool road_granted(const struct road *r);
/* takes over a valid record: rs->cursor; *ret_flags: WSD_CREDIT_* or 0. tx_lock */
void road_credit(struct road *r, uint32_t *ret_flags);
/* X waits for a word of its own to be there: nothing may be sent meanwhile */
static inline bool road_waits(const struct road *r, uint32_t x)
{
	return x == WSD_X_STARTING || x == WSD_X_UNDECIDED ||
	       (unlikely(x == WSD_X_RETURNING) && atomic_load_explicit(&r->rs->plain_H, memory_order_relaxed));
}
/* 1 and *ret_S: Start is there; 0: not; */
int road_start(const struct road *r, uint64_t *ret_S);

enum step {
	STEP_PLAIN,	/* n TCP bytes that are the stream's as they are */
	STEP_PAYLOAD,	/* the same, of a frame */
	STEP_RING,	/* n ring bytes */
	STEP_HEADER,	/* TCP has to say what is next */
	STEP_DROP,	/* n TCP bytes that were had from the ring */
	STEP_BACKLOG,	/* n TCP bytes that repeat what the ring should have had */
	STEP_BROKEN,
};
/* what is next in the stream, with C taken from TCP; passes seams. rx_lock; ystate FRAMED or DROPPING */
enum step road_next(struct road *r, uint64_t C, uint64_t *ret_n);
/* the ring of the bytes behind the last seam that has arrived. rx_lock */
uint32_t road_last_ring(const struct road *r);
/* n ring bytes behind taken, all in one piece of memory: where they are. rx_lock */
const uint8_t *road_at(const struct road *r, uint64_t off, uint64_t n, uint64_t *ret_n);
/* a header at C: 1: take it, 0: ring bytes come first, -EPROTO */
int road_header(const struct road *r, const struct wsd_frame *f);
/* what it says, and where it is, before the kernel call that takes its last byte, or behind it if it is all taken (F8) */
void road_announce(struct road *r, const struct wsd_frame *f, uint64_t at);
/* ... it was taken: C counts it already */
void road_header_taken(struct road *r);
/* the receiving end of the stream is reached: END was read, or the daemon knows. 1, 0: not known, -EPROTO: it cannot be had */
int road_at_end(const struct road *r);

/* Y: how large the ring is that holds what is next */
static inline uint32_t road_rx_size(const struct road *r)
{
	uint32_t n = atomic_load_explicit(&r->rs->rx1_size, memory_order_relaxed);

	return atomic_load_explicit(&r->rs->rx_ring, memory_order_relaxed) && n ? n : r->ring0;
}

/* X: which ring and how large */
static inline uint32_t road_tx_size(const struct road *r)
{
	uint32_t n = atomic_load_explicit(&r->rs->tx1_size, memory_order_relaxed);

	return n ? n : r->ring0;
}
/* bytes that a put may have now (A5) */
uint64_t road_room(const struct road *r);
/* 1: *ret must be written before the next put; 0: none is due; -EAGAIN: no slot is free. h: H */
int road_seam(const struct road *r, uint64_t h, struct wsd_seam *ret);
/* what is left of the frame under way: header bytes and payload bytes */
void road_frame_left(const struct road *r, uint64_t h, uint32_t *ret_header, uint64_t *ret_payload);
void road_frame_set(struct road *r, uint64_t h, uint32_t kind, uint32_t len, uint64_t off);
void road_frame_header(const struct road *r, uint8_t out[WSD_FRAME_SIZE]);

#define ROAD_POLL_US	500		/* a sender asks the device, whose completions nobody took meanwhile: for errors, and for what it keeps back */
#define ROAD_QUIET_US	30e6		/* A9: middle boxes forget a connection without TCP bytes */
#define ROAD_FLOOD	64u		/* small sends without a receive, ... */
#define ROAD_CLOCK_LOOKS 4		/* of a spin between two looks at the clock */
#define ROAD_SOFT_LOOKS	8		/* ... before a software device has the CPU: more often is a system call a look */
#define ROAD_SPIN_VAIN	8		/* spins one after the other that brought nothing: then only now and then */
#define ROAD_FLOOD_GAP_US 50		/* ... and with no longer pause between them: before that they take the ring */
#define ROAD_CREDIT_PART 4u		/* of the ring: credit is told after so much, ... */
#define ROAD_CREDIT_LAG	(64u << 10)	/* ... or this: what a return repeats must go into TCP's buffers, though nobody reads meanwhile (A4) */

/* ---- agreed_tx.c ---- */
#define TX_AGAIN	(-2)		/* kernel sends: the direction is framed now; nothing was sent */
#define RX_AGAIN	(-2)
ssize_t agreed_send(struct thr *t, struct conn *c, int fd, struct vec *v, int flags);
ssize_t agreed_sendfile(struct thr *t, struct conn *c, int fd, int in, off_t *off, size_t n);
/* from a pipe, where a frame is open: as splice(), or TX_AGAIN: none is, and nothing was moved */
ssize_t agreed_splice(struct thr *t, struct conn *c, int fd, int in, size_t n, unsigned flags);
/* steps that are due: start, return, rests. In each call, and with at_wait before each sleep. Never waits */
void agreed_obey(struct thr *t, struct conn *c, int fd, bool at_wait);
/* counted in (in_send): may plain bytes be sent? */
bool agreed_plain_out(struct conn *c);
bool agreed_rest(const struct conn *c);	/* some of ours waits for room in TCP: waits ask for POLLOUT, too */
void agreed_end(struct thr *t, struct conn *c, int fd);		/* A7: before shutdown or the last close */
/* the sending direction becomes plain TCP for good, or has ended; at most ms. false: it is not yet */
bool agreed_tx_plain(struct thr *t, struct conn *c, int fd, unsigned ms);

/* ---- agreed_bulk.c: under tx_lock ---- */
#define BULK_LEN	(16u << 10)	/* a send of less is not bulk */
/* a send of len bytes is better a frame, room or not; *ret_flood: it is one of many small ones */
bool bulk_by_tcp(struct road *r, size_t len, bool *ret_flood);
void bulk_sent(struct road *r, size_t len, size_t n);	/* ... and n of them were sent, on either road */
/* the same of one kind of sends, with the time as an argument */
bool bulk_turn(struct bulk *b, uint64_t now);
void bulk_count(struct bulk *b, size_t n, uint64_t now);

/* ---- agreed_batch.c ---- */
static inline bool batch_kept(const struct road *r)
{
	return atomic_load_explicit(&r->given, memory_order_relaxed) != atomic_load_explicit(&r->rs->posted, memory_order_relaxed);
}
/* X, posting: may what was appended just now, with no seam, be kept back? It is published then */
bool batch_keep(struct road *r);
/* X, posting n bytes: say so if the flood has begun, or is over; before a put. As the road's word() */
int batch_word(struct road *r, uint32_t n, bool flood);
/* X, posting: all up to posted. As the road's put() */
int batch_put(struct road *r);
void batch_cost(struct road *r, uint64_t since);	/* a put that began then is over */
/* tx_lock, FRAMED: what is kept back goes now; false: it cannot */
bool batch_flush(struct conn *c);
void agreed_flush(struct thr *t, struct conn *c);	/* the same without the lock, of what this thread sent */
void batch_last(struct thr *t, struct conn *c);	/* ... of all threads, before this process lets go */
/* Y: the cursor that X may be told */
uint64_t batch_credit(const struct road *r);
/* Y: before a sleep, or an answer that says that nothing is there: are bytes kept back? *nap_ms is lowered if it cannot ask now. true: look again.
 * Spins for some round trips at most */
bool batch_ask(struct thr *t, struct conn *c, int fd, unsigned *nap_ms);

/* ---- agreed_quick.c: all n bytes, or 0: not this one, and nothing was changed. errno is left alone ---- */
ssize_t agreed_send_quick(struct thr *t, struct conn *c, const void *buf, size_t n, int flags);
ssize_t agreed_recv_quick(struct thr *t, struct conn *c, void *buf, size_t n, int flags);
ssize_t agreed_recv_soon(struct thr *t, struct conn *c, void *buf, size_t n, int flags);	/* who may wait spins for a moment */
void agreed_quick(bool set);		/* for tests of the long way */

/* ---- agreed_grow.c ---- */
void agreed_grow_tx(struct conn *c);
void agreed_grow_rx(struct conn *c);

/* ---- agreed_rx.c ---- */
ssize_t agreed_recv(struct thr *t, struct conn *c, int fd, struct vec *v, int flags);
void agreed_credit_due(struct road *r, uint32_t part);	/* the sender is told, if a part of the ring was taken since. rx_lock */
bool agreed_plain_in(struct conn *c);	/* counted in (sleepers): may plain bytes be taken without bound? */
int64_t agreed_inq(struct thr *t, struct conn *c, int fd);	/* FIONREAD, or -errno */
struct tcp_info;
/* TCP_INFO: bytes of the stream that came, read or not, with the octet of a FIN; the kernel counts headers, and repeated bytes, that lie unread */
uint64_t agreed_received(struct thr *t, struct conn *c, int fd, const struct tcp_info *kernel);
void agreed_grant(struct thr *t, struct conn *c, int fd);	/* A1, if all conditions hold */
void agreed_rx_dead(struct thr *t, struct conn *c, int fd);
void agreed_swallow(struct thr *t, struct conn *c, int fd);	/* before the last close */
bool agreed_rx_plain(struct thr *t, struct conn *c, int fd, unsigned ms);

/* a receive of the kernel's that never sleeps, no cancellation point; C counts what was taken. Bytes, 0 at the end, -errno. rx_lock */
ssize_t road_take(struct conn *c, int fd, struct iovec *io, int n, int flags);

/* ---- agreed_lowat.c: SO_RCVLOWAT ---- */
int agreed_lowat_set(struct thr *t, struct conn *c, int fd, const void *val, socklen_t len);	/* setsockopt() */
/* rx_lock: whose mark the kernel has follows the direction's state */
void lowat_follow(struct conn *c, int fd);
/* rx_lock, CUT: the kernel says when it has n bytes */
void lowat_kernel(struct conn *c, int fd, uint32_t n);
/* rx_lock: fewer bytes than the mark are there. 1: readable all the same, 0: look again, -EAGAIN: it is not, and the kernel wakes for more */
int lowat_below(struct conn *c, int fd);

static inline bool lowat_any(const struct conn *c)
{
	return unlikely(atomic_load_explicit(&c->s->flags, memory_order_relaxed) & (S_LOWAT | S_LOWAT_CUT));
}

/* the program's mark; 1: none */
static inline uint32_t lowat_of(const struct conn *c)
{
	return likely(!(atomic_load_explicit(&c->s->flags, memory_order_relaxed) & S_LOWAT)) ? 1 : atomic_load(&c->s->lowat);
}

/* ---- agreed_outq.c ---- */
/* bytes sent that neither the kernel nor the peer's device has; unsent: only those that wait for the kernel (SIOCOUTQNSD) */
uint32_t agreed_outq(struct thr *t, struct conn *c, int fd, bool unsent);

/* ---- agreed_small.c ---- */
#define ROAD_SMALL	512u
/* a header is next: as many small frames as are there, and fit, at once. Bytes; 0: not here; -errno, -EPROTO: the stream is lost. rx_lock */
ssize_t agreed_take_small(struct conn *c, int fd, const struct vec *v);

/* ---- agreed_peek.c ---- */
/*
 * Shows in v all that a receive could have now, of both roads, in order, as far as it goes; with MSG_TRUNC, or without v (to INT32_MAX), it only
 * counts. -EAGAIN: Start is there; -EFAULT. *ret_end, if asked for: what may come behind that. rx_lock; not PLAIN
 */
enum ahead_end {
	AHEAD_MORE,
	AHEAD_FIN,	/* a FIN has come, which may have overtaken ring bytes (A7) */
	AHEAD_END,	/* nothing */
};
ssize_t agreed_ahead(struct conn *c, int fd, const struct vec *v, int flags, enum ahead_end *ret_end);
/*
 * The kernel says that TCP has brought something. false: no byte of the stream, and no end, since *told_C, the TCP offset up to which all was told, as were
 * the ring's bytes; asked only if `ask`, and where something is unread that was told: all else is news. *told_C is what TCP has now
 */
bool agreed_news(struct thr *t, struct conn *c, int fd, bool ask, uint64_t *told_C);

/* ring bytes that came in all sessions, taken or not */
uint64_t agreed_ring_in(struct conn *c);

/* What a wait needs to know. Returns the events that are there (POLLIN, POLLOUT, ... as in wanted); *ret_mask: what the kernel may be asked
 * for on fd meanwhile; *ret_nap: the answer may change without anybody waking us: sleep at most so many ms (0: no such thing). */
uint32_t agreed_events(struct thr *t, struct conn *c, int fd, uint32_t wanted, uint32_t *ret_mask, unsigned *ret_nap);

/* ---- agreed_wait.c ---- */
/* who sleeps, for those of our threads that have to wake it; fd: raised by them. Place 0: none, it sleeps in slices */
struct waiter {
	int place;
};
void waiter_begin(struct waiter *w);
void waiter_end(struct waiter *w);
int waiter_fd(const struct waiter *w);	/* -1: none */
void waiter_seen(const struct waiter *w);	/* its descriptor was readable; before looking */
/* the same for a set, which keeps its place: who sleeps there counts itself in and out */
bool waiter_keep(struct waiter *w);
void waiter_count(const struct waiter *w, int n);
void waiter_tell(const struct waiter *w);
void waiters_tell(void);		/* all who sleep look again */
void waiters_after_fork(void);
/* before a sleep: completions are signalled from now on. false: something came, look again */
bool road_arm(struct thr *t);
/* the same, having taken what came. false: look again. *nap_ms is lowered where the device is too busy to be armed */
bool road_armed(struct thr *t, unsigned *nap_ms);
unsigned road_drain(struct thr *t);	/* and wakes who sleeps; completions taken */
void road_woken(struct thr *t);		/* road_wait_fd() was readable */
int road_wait_fd(void);			/* -1: none */
/* sleep until fd has one of events, or the device, the daemon or another thread says something. until: CLOCK_MONOTONIC ns, 0: for ever.
 * 0: look again; -errno as the kernel's call would fail (EINTR by G26, EAGAIN: until is over) */
int road_sleep(struct thr *t, struct conn *c, int fd, short events, int64_t until, unsigned nap_ms, uint32_t changes);
/* look at the road, and now and then at fd, for a moment without sleeping; true: look again. changes: road_changes() before the last look */
bool road_spin(struct thr *t, struct conn *c, int fd, short events, uint32_t changes);
void road_poll(struct road *r, unsigned us);	/* take completions, if nobody did for so long */
/* between two looks of who spins; how many there were. A software device works on the CPUs that we spin on */
static inline void road_pause(const struct road *r, unsigned looks)
{
	if (!(r->p.caps & WSD_ROAD_SOFT))
		_mm_pause();
	else if (looks % ROAD_SOFT_LOOKS == 0)
		sched_yield();
}
int64_t agreed_timeout(struct conn *c, int fd, int name);	/* when a call that begins now is over, by SO_RCVTIMEO or SO_SNDTIMEO; 0: never */
int64_t road_now(void);			/* CLOCK_MONOTONIC, ns */
struct pollfd;
int poll_now(struct pollfd *p);		/* one descriptor, no sleep, no cancellation point: below a lock */
/* What to report of fd now. kernel: what the kernel said, 0 when it was not asked; *ret_ask, *ret_nap: as agreed_events() */
uint32_t road_report(struct thr *t, struct conn *c, int fd, uint32_t wanted, uint32_t kernel, uint32_t *ret_ask, unsigned *ret_nap);
/* An error that a call of ours met, and nobody was told of so far, shows as if the kernel still had it; 0: there is none */
uint32_t road_kept(struct conn *c, int fd, uint32_t wanted);

/* ---- agreed_ctl.c ---- */
bool agreed_attach(struct conn *c, int fd, const WSDPUTROAD *p);	/* ctl_lock, open_lock */
void agreed_detach(struct conn *c);					/* nobody is inside */
void agreed_ask(struct conn *c, uint32_t what, uint64_t a, uint64_t b);
void agreed_ask_due(struct thr *t, struct conn *c);			/* what could not be sent before */
void agreed_leave(struct conn *c, uint32_t why);			/* both directions are to go back to TCP; never waits */
/* both directions are plain again, for a reason that may pass: the session is over, another one may be offered */
void agreed_renew(struct thr *t, struct conn *c);
/*
 * The connection goes where our memory of it does not: another image, another process, seccomp, stdio. Both directions are asked back to TCP.
 * BLIND: who gets it knows nothing of frames, so both become plain in time, or it is reset. SEEN: it runs under us and joins the session
 * (reattach.c); only what it sends, libc may send without us. LEAK: it will hardly be used there; not waited for.
 */
void agreed_hand_on(struct conn *c, int fd, enum hand_on how);
/* p: a session that another process of this end made, and c has its side: we are as a child of that one */
bool agreed_adopt(struct conn *c, const WSDPUTROAD *p);
bool agreed_over(struct conn *c);	/* both directions are plain for good */
/* the last number of this process is about to be closed. true: with bytes unread where the kernel does not see them */
bool agreed_retire(struct thr *t, struct conn *c, int fd);
/* a lock of the side, handlers put off. false: its owner does not let go: reset */
bool agreed_lock(struct thr *t, struct conn *c, int fd, _Atomic uint32_t *lock);
void agreed_unlock(_Atomic uint32_t *lock);

static inline bool road_mine(const struct road *r)
{
	return r->owner == proc_page->pid;
}

extern _Atomic uint32_t road_gen;	/* the daemon said something: it may be in any session's memory */

/* differs after anything that a look could find but the kernel would not tell */
static inline uint32_t road_changes(const struct road *r)
{
	return atomic_load_explicit(&r->p.state->changes, memory_order_acquire) + atomic_load_explicit(&road_gen, memory_order_acquire);
}

bool road_dead(const struct road *r);		/* nothing of ours goes by it any more */

static inline int road_error(const struct road *r)
{
	return road_mine(r) ? atomic_load_explicit(&r->p.state->error, memory_order_acquire) : -ECONNRESET;
}

#endif
