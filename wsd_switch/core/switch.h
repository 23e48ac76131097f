/* SPDX-License-Identifier: MIT */
/*
 * switch.h - the state of the Windows Sockets switch in one process
 *
 * Every TCP connection that the program made or accepted under us has
 *   a *side*: counts, locks and users, in memory shared with forked children (MAP_SHARED),
 *             never with the peer;
 *   a *conn*: this process's view of it, found by descriptor number in one load; once
 *             attached it points into the session memory that the peer maps as well.
 * A descriptor without a conn is none of our business and goes straight to libc.
 *
 * Life:     conns and sides lie in arrays that are never unmapped, so a stale pointer reads
 *           old data, not a hole. A conn is recycled, and its session unmapped, only after every
 *           thread has left the critical section it was in (cs_enter/cs_leave), and nobody
 *           has it pinned across a kernel call. Kernel calls that may sleep are made outside critical
 *           sections, with the conn pinned.
 * Locks:    none is ever waited for without a bound, for its owner may be stopped, dead, or this very
 *           thread below a signal handler. Not getting one means: go to TCP (gate.md G4, G15).
 *           Order: set->lock, then side->open_lock; pool_lock and ctl_lock are taken alone.
 * Unsafe:   only four things are (end of gate.md): an open gate over a sleeper that does not know; a put
 *           at a wrong start; TCP read out of turn; a peer's word used unchecked.
 */
#ifndef WSD_SWITCH_SWITCH_H
#define WSD_SWITCH_SWITCH_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/single_threaded.h>

#include <wsd/put_road.h>
#include <wsd/shared_ring.h>
#include <wsd/proxy_proto.h>
#include <wsd/stats.h>

#include "common/tsc.h"
#include "wsd_switch/core/real.h"

#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)
#define WSD_EXPORT	__attribute__((visibility("default")))

#define TAB_FDS		(1u << 20)	/* descriptors above are left to the kernel */
#define MAX_CONNS	(1u << 16)	/* connections known at a time in one process */
#define MAX_SETS	(1u << 12)	/* epoll sets mirrored at a time */
#define MAX_THREADS	4096u		/* thread slots; more share one */

/* ---- configuration, read once (config.c) ---- */
struct config {
	bool off;
	bool shake;			/* test mode: gates close and open at random */
	uint64_t shake_seed;
	unsigned offer_after;		/* receives that moved bytes before a connection is offered */
	uint64_t offer_bytes;		/* or bytes either way */
	uint32_t ring_size;		/* 0: the daemon's choice */
	double spin_us;
	const char *catalog, *provider;	/* copies: programs overwrite their environment */
	const char *daemon, *runtime_dir;
	const char *log_path;
	int log_level;
	bool fd_hidden;
	double road_spin_us;
	bool uring_files;		/* the rings of this program are for files, as far as we see (uring.c) */
	bool no_overflow;		/* measurements: RDMA, and TCP only for what the protocol needs */
};
extern struct config cfg;
void config_init(void);

/* ---- the log: silent unless WSD_LOG names a file (log.c) ---- */
void log_write(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...)	log_write(0, __VA_ARGS__)
#define log_warn(...)	log_write(1, __VA_ARGS__)
#define log_debug(...)	do { if (unlikely(cfg.log_level >= 2)) log_write(2, __VA_ARGS__); } while (0)

/* ---- how messages come to who waits for many connections (doze.c) ---- */
struct doze {
	_Atomic uint32_t burst, since;	/* events between two long waits: mean, times 4; so far */
	_Atomic uint64_t next;		/* ticks: when to try one again where there are no bursts */
};

/* ---- threads (thr.c) ---- */
struct thr {
	_Atomic uint32_t tid;		/* 0: slot free */
	_Atomic uint32_t nest;		/* depth of critical sections */
	_Atomic uint64_t seq;		/* outermost sections left */
	uint32_t in_handler;		/* depth of wrapped signal handlers */
	_Atomic uint32_t sig_any;	/* a handler ran since the call began (G26) */
	_Atomic uint32_t sig_eintr;	/* ... one installed without SA_RESTART */
	uint32_t rand;
	/* crowding (G25) */
	uint32_t alone;			/* times it gave way to nobody */
	struct doze polls;		/* of poll and select; sets have their own */
	uint32_t dozes;			/* in a row that found nothing */
	uint32_t slack;			/* the kernel's timer slack: 0 not asked yet, 1 short, 2 long */
	uint32_t n_slept, n_sent;	/* to be measured now and then (worth.c) */
	uint64_t polite_until, crowded_until, crowd_len, crowd_last, rt_when;
	long last_nivcsw;
	int rt_pol;
	/* copy fix-up and signal masks (fault.c, sig.c) */
	uint64_t mask_shadow;		/* SIGSEGV and SIGBUS as the program believes they are blocked */
	uintptr_t handler_frame;	/* of the outermost wrapped handler */
	bool shared;			/* the overflow slot */
	uint8_t woken;			/* by what, in a set's wait (eset.c) */
} __attribute__((aligned(64)));

extern __thread struct thr *thr_self __attribute__((tls_model("initial-exec")));
struct thr *thr_new(void);
void thr_after_fork(void);
uint32_t thr_gettid(void);
void thr_nap(unsigned us);		/* inside a critical section; not a cancellation point; errno is kept */

static inline struct thr *thr_get(void)
{
	struct thr *t = thr_self;

	return likely(t != NULL) ? t : thr_new();
}

/* who holds a lock: the kernel's thread id, unique on the machine among what shares our sides */
static inline uint32_t thr_tid(struct thr *t)
{
	return likely(!t->shared) ? atomic_load_explicit(&t->tid, memory_order_relaxed) : thr_gettid();
}

static inline struct thr *cs_enter(void)
{
	struct thr *t = thr_get();

	if (unlikely(t->shared))
		atomic_fetch_add(&t->nest, 1);
	else
		atomic_store_explicit(&t->nest, atomic_load_explicit(&t->nest, memory_order_relaxed) + 1,
				      memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);	/* the other half is the reclaimer's membarrier */
	return t;
}

static inline void cs_leave(struct thr *t)
{
	uint32_t n;

	atomic_signal_fence(memory_order_seq_cst);
	if (unlikely(t->shared)) {
		atomic_fetch_sub(&t->nest, 1);
		return;
	}
	n = atomic_load_explicit(&t->nest, memory_order_relaxed) - 1;
	if (n == 0)
		atomic_store_explicit(&t->seq, atomic_load_explicit(&t->seq, memory_order_relaxed) + 1,
				      memory_order_release);
	atomic_store_explicit(&t->nest, n, memory_order_release);
}

/* ---- process (proc.c) ---- */
struct proc_page {			/* lies in a page under MADV_WIPEONFORK (G27) */
	_Atomic uint32_t alive;		/* 0: this is a forked child that has not yet been set up */
	uint32_t pid;
};
extern struct proc_page *proc_page;
extern _Atomic uint32_t proc_vfork_seen;
extern _Atomic uint32_t proc_frozen;	/* seccomp: pass everything through (G22) */
extern _Atomic uint32_t proc_uring;	/* an io_uring was made: new connections stay on TCP (G14.3) */
extern uint32_t proc_fork_gen;		/* forks in this process's line so far */
extern bool proc_on;			/* initialised and not switched off */

void proc_init(void);
void proc_child(void);
bool proc_is_vfork_child_slow(void);
bool proc_pid_dead(uint32_t pid);
bool proc_family_dead(uint32_t gen);	/* every process forked after generation gen has ended */

/* in calls that close, duplicate, connect, accept or exec */
static inline bool proc_is_vfork_child(void)
{
	return unlikely(atomic_load_explicit(&proc_vfork_seen, memory_order_relaxed)) &&
	       proc_is_vfork_child_slow();
}

static inline bool proc_usable(void)
{
	if (unlikely(!proc_on || atomic_load_explicit(&proc_frozen, memory_order_relaxed)))
		return false;
	if (unlikely(!atomic_load_explicit(&proc_page->alive, memory_order_relaxed)))
		proc_child();
	return true;
}

/* counts that only one thread of one process can touch need no bus lock; one instruction keeps them
 * exact against signal handlers */
static inline bool solo(void)
{
	return likely(__libc_single_threaded) && proc_fork_gen == 0 &&
	       !atomic_load_explicit(&proc_vfork_seen, memory_order_relaxed);
}

static inline void cnt_add(_Atomic uint32_t *p, uint32_t v)
{
	if (solo())
		__asm__ volatile("addl %1, %0" : "+m"(*(uint32_t *)p) : "er"(v) : "memory", "cc");
	else
		atomic_fetch_add(p, v);
}

static inline void cnt_add64(_Atomic uint64_t *p, uint64_t v)
{
	if (solo())
		__asm__ volatile("addq %1, %0" : "+m"(*(uint64_t *)p) : "er"(v) : "memory", "cc");
	else
		atomic_fetch_add(p, v);
}

/* ---- try-locks with a recorded owner ---- */
bool lock_try_slow(_Atomic uint32_t *l, uint32_t tid, unsigned spins);
bool lock_try_long(_Atomic uint32_t *l, uint32_t tid);	/* gives way now and then; for calls that are system calls anyway */

static inline bool lock_try(_Atomic uint32_t *l, uint32_t tid)
{
	uint32_t z = 0;

	if (solo()) {
		uint8_t ok;

		__asm__ volatile("cmpxchgl %3, %1; sete %0" : "=q"(ok), "+m"(*(uint32_t *)l), "+a"(z)
				 : "r"(tid) : "memory", "cc");
		return ok;
	}
	if (likely(atomic_compare_exchange_strong_explicit(l, &z, tid, memory_order_acquire, memory_order_relaxed)))
		return true;
	return z != tid && lock_try_slow(l, tid, 64);
}

static inline void lock_drop(_Atomic uint32_t *l)
{
	atomic_store_explicit(l, 0, memory_order_release);
}

/* ---- side (side.c) ---- */
#define S_SHUT_RD	0x0001u
#define S_EOF		0x0002u		/* the kernel said end of stream */
#define S_NO_OPEN	0x0004u		/* the receiving gate stays closed for good */
#define S_NO_PUT	0x0008u		/* the sending ring is not used any more */
#define S_SHUT_WR	0x0010u
#define S_LOWAT		0x0020u		/* SO_RCVLOWAT > 1: closed while it lasts */
#define S_BROKEN	0x0040u		/* reset after a peer's fault */
#define S_FOREIGN	0x0080u		/* another program image may hold the socket */
#define S_ATTACHED	0x0100u
#define S_TOLD_RESET	0x0400u		/* ECONNRESET for unread ring bytes was given (G21) */
#define S_LOWAT_CUT	0x0200u		/* the kernel's low-water mark is lower by what the ring held (G23), or ours (agreed_lowat.c) */
#define S_CMSG		0x0800u		/* an option was set that makes recvmsg give control data */
#define S_HANDED	0x1000u		/* unread ring bytes were handed on, and the socket says so (mark.c) */
#define S_LEFT		0x2000u		/* ... to an image that does not run under us, and is no holder any more */
#define S_UNREAD_ASKED	0x4000u		/* unread.c waited for the daemon's word ... */
#define S_UNREAD_RESET	0x8000u		/* ... and has reset the connection */
#define USER_MANY	0xffffffffu

enum cork { CORK_UNKNOWN, CORK_OFF, CORK_WANTED, CORK_ON };

struct side {
	/* receiving: Y */
	_Alignas(64) _Atomic uint64_t C;	/* bytes the program has taken from TCP */
	_Atomic uint64_t taken;			/* bytes taken from the ring: the tail that counts */
	_Atomic uint32_t sleepers;		/* threads in, or about to enter, a kernel wait or receive */
	_Atomic uint32_t rx_lock;		/* bounded TCP reads (G9) */
	_Atomic uint32_t open_lock;		/* opening, and this process's registrations (G15) */
	_Atomic uint32_t rx_user;		/* process that receives or waits; USER_MANY (G14.2) */
	_Atomic uint32_t flags;			/* S_*; only ever set, but S_LOWAT */
	_Atomic int32_t kept_err;		/* error met after bytes had moved (G12) */
	_Atomic uint32_t lowat;
	_Atomic uint32_t lowat_now;		/* S_LOWAT_CUT over a road: the kernel's; rx_lock */
	_Atomic uint32_t holders;		/* processes that hold the socket, as far as we know */
	/* sending: X */
	_Alignas(64) _Atomic uint64_t H;	/* bytes handed to TCP */
	_Atomic uint64_t put;			/* bytes put into the ring */
	_Atomic uint32_t in_send;		/* threads inside a kernel send */
	_Atomic uint32_t tx_lock;		/* putting (G4) */
	_Atomic uint32_t peer_tail;		/* last look at the peer's tail, bounded; tx_lock */
	_Atomic uint32_t base;			/* our own copy; tx_lock */
	_Atomic uint32_t populated;		/* bytes of the sending ring whose pages are there; tx_lock */
	_Atomic int32_t syn;			/* -1: not known (G16) */
	_Atomic uint64_t checked_h;		/* H when the kernel last agreed, plus 1 */
	_Atomic uint64_t seg_t0;		/* G7: when the segment began, in ticks */
	_Atomic uint64_t seg_put;		/* G7: put at that time */
	_Atomic uint32_t nodelay_set;		/* TCP_NODELAY calls of the program, twice, and the last one's value */
	_Atomic uint32_t nodelay_push;		/* odd: switched on for a moment by push_nagled; tx_lock */
	_Atomic uint64_t drain_at;		/* when waiting for TCP to drain last failed */
	/* both */
	_Atomic uint32_t nonblock;
	_Atomic uint32_t why;			/* enum wsd_reason for flags NO_OPEN, NO_PUT */
	uint64_t cookie;
	uint32_t created_gen;
	uint32_t index;
	int32_t shm;			/* segment of the slab, -1: none */
	uint32_t maker;			/* process that made it */
	_Atomic uint32_t att_pid;	/* process that attached it, before any fork */
	_Atomic uint32_t lent;		/* process outside the maker's family that joined it; USER_MANY */
	_Atomic uint32_t cork;		/* enum cork: TCP_CORK here and in the kernel (options.c) */
	_Atomic uint64_t over_rx, over_tx;	/* bytes in C, H that are no bytes of the stream: frame headers, repeated ring bytes (agreed.h) */
};

struct side *side_new(void);
void side_drop(struct side *s);			/* this process holds it no more */
void side_after_fork(void);
/* A side that another image has (carry.c, reattach.c), this process being counted among its holders or not. 0, -EINVAL: nobody has
 * it any more, or another -errno */
int side_attach(int id, uint32_t index, uint64_t cookie, struct side **ret);
int side_join(int id, uint32_t index, uint64_t cookie, struct side **ret);
bool side_lent(struct side *s);			/* a process outside the family uses it, too */

/* ---- ledger (ledger.c): G24, G25 ---- */
struct ledger {
	int64_t c;		/* ticks */
	int64_t began;		/* c when it last began to open */
	uint64_t last;
	uint32_t broke;
	uint32_t more;			/* connections that it pays for, beyond the first */
	bool go;
	bool credit;			/* it began because the peer waits for the ring: a whole spin, though it has not the means */
};

/* ---- connections (conn.c) ---- */
struct eset;
struct reg;

enum conn_stage {
	ST_NEW,			/* counts only; not worth an offer so far */
	ST_OFFERED,		/* the provider was asked */
	ST_ATTACHED,		/* session memory is mapped */
	ST_AGREED,		/* a road to another host's memory (agreed.h): TCP, puts and frames, as agreed */
	ST_TCP,			/* stays on TCP, c->why says why */
};

struct conn {
	struct side *s;
	_Atomic uint32_t stage;		/* enum conn_stage; ST_ATTACHED is stored last */
	uint32_t mask;			/* ring size - 1 */
	struct wsd_ring_dir *rx, *tx;
	uint8_t *rxr, *txr;
	struct wsd_session *hdr;
	struct wsd_session *own;	/* private memory that rx, perhaps hdr as well, points into (carry.c) ... */
	bool own_shared;		/* ... with a copy of what is unread in the session, and the side shared */
	struct ledger led;
	/* receiving */
	_Atomic uint64_t seen;		/* head and base as last read, head << 32 | base: what is before needs no look at the gate */
	uint64_t asked;			/* ticks: the kernel was last asked about input */
	_Atomic uint32_t kevent;	/* it reported something that no exact receive has met (G13) */
	uint32_t used;			/* head when the gate was last opened */
	struct reg *_Atomic regs;	/* registrations in epoll sets; open_lock */
	struct reg *spare_regs;		/* to be used again for this conn; open_lock */
	uint32_t bad_regs;		/* of them ONESHOT, EXCLUSIVE or in an unknown set */
	uint32_t et_regs;
	bool touched;			/* this process has entered itself as a user (rx_touch) */
	_Atomic uint32_t polled;	/* poll or select of ours has covered it */
	uint32_t one_way;		/* waits the ring ended since the program last sent */
	uint64_t acked_c;		/* C when an ACK was last pushed out, or went with a TCP send */
	bool ack_due;			/* TCP bytes were taken and nothing sent since (G29) */
	/* peeked bytes, kept so that a read meets what the peek showed (G12); rx user only */
	uint8_t *peek;
	uint64_t peek_at;
	uint32_t peek_len;
	/* life */
	_Atomic uint32_t n_fd;		/* descriptor numbers of this process */
	_Atomic uint32_t pins;
	uint32_t gen;
	uint32_t index;
	uint8_t role;
	uint8_t lost;			/* offers that came to nothing */
	_Atomic uint32_t why;		/* enum wsd_reason */
	int fd;				/* the number it was made with */
	uint32_t n_recv;
	uint64_t offer_next;		/* bytes at which to think of an offer again */
	uintptr_t san;			/* the provider's socket; 0: none; ctl_lock */
	struct conn *ev_next;		/* events that the provider raised; ctl_lock */
	bool ev_on;
	int64_t timeo[2];		/* SO_RCVTIMEO, SO_SNDTIMEO in ns, plus 1; 0: not known (agreed_wait.c) */
	struct road *_Atomic road;	/* agreed.h */
	uint64_t retry_at;		/* ticks: a session that failed is tried again then, or when retry_gen is not ctl_san_gen any more; 0: n/a */
	uint32_t retry_gen, retry_s;
	uint16_t kept[2];		/* bytes of the stream's beginning that are kept (proof.c), sent and received */
	uint32_t san_flags;		/* WSD_CONNECT_* of its offer */
	bool expected;			/* announced by SIO_WSD_EXPECT, not accepted yet; ctl_lock */
	struct wsd_addr local, remote;	/* as offered */
	struct conn *next;		/* graveyard, free list */
	bool in_gate_stat;
	bool exec_marked;		/* handed on by an exec under way (hand_on.c) */
	bool spawn_dup;			/* a file action of posix_spawn names it: FD_CLOEXEC does not keep it from the child */
	bool exec_left;			/* taken off the holders for an exec under way */
	bool exec_foreign;		/* S_FOREIGN stands for execs alone that failed */
};

extern struct conn *_Atomic *conn_tab;		/* by descriptor */
extern _Atomic uint8_t *fd_kind;		/* by descriptor */
enum { KIND_UNKNOWN, KIND_TCP, KIND_LISTENER, KIND_OTHER, KIND_EPOLL };

extern _Atomic uint32_t fd_high;		/* no descriptor of ours at or above */
void fd_seen(int fd);
void conn_init(void);
struct conn *conn_new(int fd, uint8_t role, bool nonblock);
int conn_close_fd(int fd);			/* before the real close; returns 0 */
void conn_dup_fd(int fd, int nfd);		/* after the real dup */
int conn_number(const struct conn *c);		/* one of this process by which it can be reached, or -1 */
bool conn_add_fd(uint64_t cookie, int nfd);	/* nfd is another number of an attached connection of ours; false: of none */
struct conn *conn_by_id(uint64_t id);
uint64_t conn_id(const struct conn *c);
void conn_detach_all(uint32_t why, bool only_inherited);
void conn_to_tcp(struct conn *c, uint32_t why);	/* both directions, for good */
void conn_reclaim(void);
void conn_after_fork(void);
void conn_fork_count(int step);
bool conn_lock_for_fork(void);
void conn_unlock_for_fork(bool got);
bool conn_elsewhere(struct conn *c);		/* attached by another process of ours, not mapped here */
void conn_reset(struct conn *c, int fd, const char *why);
bool conn_sole_holder(struct conn *c);		/* nobody else holds the socket */
int conn_kind(int fd);				/* classify a descriptor, asking the kernel if need be */
void conn_each(void (*f)(struct conn *c, void *arg), void *arg);
void conn_stats_all(void);

static inline struct conn *conn_get(int fd)
{
	if (unlikely((unsigned)fd >= TAB_FDS))
		return NULL;
	return atomic_load_explicit(&conn_tab[fd], memory_order_acquire);
}

static inline bool conn_att(const struct conn *c)
{
	return atomic_load_explicit(&c->stage, memory_order_acquire) == ST_ATTACHED;
}

enum hand_on { HAND_LEAK, HAND_SEEN, HAND_BLIND };	/* who gets a connection (agreed_hand_on) */

static inline bool conn_agreed(const struct conn *c)
{
	return atomic_load_explicit(&c->stage, memory_order_acquire) == ST_AGREED;
}

/* its bytes go through us, not straight to the kernel */
static inline bool conn_ours(const struct conn *c)
{
	uint32_t st = atomic_load_explicit(&c->stage, memory_order_acquire);

	return st == ST_ATTACHED || st == ST_AGREED;
}

static inline void conn_pin(struct conn *c)
{
	cnt_add(&c->pins, 1);
}

static inline void conn_unpin(struct conn *c)
{
	cnt_add(&c->pins, -1u);
}

/* ---- offers and the provider (ctl.c) ---- */
extern const _Atomic uint32_t *_Atomic ctl_word;	/* NULL: no daemon yet */
extern _Atomic uint32_t ctl_seen;
extern _Atomic uint32_t ctl_waiting;			/* offers outstanding while there is no word */
void ctl_init(void);
void ctl_progress(struct thr *t);
void ctl_offer(struct thr *t, struct conn *c, int fd);
void ctl_retire(struct conn *c, uint32_t why, uint32_t unread);	/* before the last close */
void ctl_unmap(struct conn *c);				/* when no thread is inside */
void ctl_after_fork(void);
void ctl_think(struct thr *t, struct conn *c, int fd, bool received);	/* is it time to offer? */
/* roads (agreed.h): the provider's, for every thread, but ask: false: not now */
extern _Atomic uint32_t ctl_san_gen;	/* moves when devices, links or addresses have changed */
bool ctl_road_over(struct thr *t, struct conn *c, struct road *r);	/* false: not now */
void ctl_road_close(struct road *old);
int ctl_road_arm(void);
unsigned ctl_road_drain(uint64_t *ret, unsigned max);
int ctl_road_wait_fd(void);
bool ctl_road_ask(struct thr *t, struct conn *c, uint32_t what, uint64_t a, uint64_t b);
bool ctl_lock_for_fork(void);
void ctl_unlock_for_fork(bool got);
void ctl_hidden_refresh(void);		/* the provider's descriptors, if they have changed */

/* a session that another process attached (reattach.c) */
struct ctl_session {
	uintptr_t san;			/* the provider's socket */
	WSDPUTROAD road;		/* over RDMA: without a queue pair; base is NULL */
	struct wsd_session *base;
	uint32_t ring_size, side;	/* checked */
	struct wsd_side_at at;		/* where the side lies */
};

/* May wait. 0, -ENOENT: the socket has no session, or another -errno: it may have one, and we cannot have it. */
int ctl_reattach(struct thr *t, int fd, uint64_t cookie, struct ctl_session *ret);
/* the side at x->at is gone: ours in its place. x->at is the last one afterwards, ours if we won. 0 or -errno */
int ctl_reattach_claim(struct thr *t, int fd, uint64_t cookie, const struct wsd_side_at *ours, struct ctl_session *x);
void ctl_reattach_drop(struct thr *t, struct ctl_session *x);
void ctl_point(struct conn *c, struct wsd_session *base, uint32_t ring_size, uint32_t side);
struct wsd_side_at ctl_side_at(const struct side *s);
uint64_t ctl_ipc_ns(void);

static inline void ctl_look(struct thr *t)
{
	const _Atomic uint32_t *w = atomic_load_explicit(&ctl_word, memory_order_relaxed);

	if (likely(w != NULL)) {
		if (likely(atomic_load_explicit(w, memory_order_relaxed) ==
			   atomic_load_explicit(&ctl_seen, memory_order_relaxed)))
			return;
	} else if (likely(!atomic_load_explicit(&ctl_waiting, memory_order_relaxed))) {
		return;
	}
	ctl_progress(t);
}

/* ---- data (rx.c, tx.c) ---- */
struct vec {			/* a caller's iovecs with a position */
	const struct iovec *iov;
	int n;
	size_t off;		/* in iov[0] */
	size_t len;		/* bytes left */
};

int vec_init(struct vec *v, const struct iovec *iov, int n);	/* 0 or -errno as readv would say */
void vec_skip(struct vec *v, size_t n);
int vec_iov(const struct vec *v, size_t n, struct iovec *io, int max);	/* its first n bytes; how many iovecs */

ssize_t rx_recv(struct thr *t, struct conn *c, int fd, struct vec *v, int flags);
ssize_t rx_recvmsg_tcp(struct thr *t, struct conn *c, int fd, struct msghdr *m, int flags);	/* on TCP for good, ring empty */
ssize_t tx_send(struct thr *t, struct conn *c, int fd, struct vec *v, int flags);
/* stages without a ring: the kernel's call, counted. -2 (TX_AGAIN, RX_AGAIN): an agreed direction is not plain any more, nothing was done */
ssize_t tx_plain(struct thr *t, struct conn *c, int fd, struct vec *v, int flags);
bool rx_at_mark(int fd);
ssize_t rx_plain(struct thr *t, struct conn *c, int fd, struct vec *v, int flags);
ssize_t tx_sendfile(struct thr *t, struct conn *c, int fd, int in, off_t *off, size_t n);
bool tx_before_tcp(struct conn *c, int fd);		/* G22: false: errno says why not */
void tx_after_tcp(struct conn *c, int fd, ssize_t r);
void tx_begin_tcp(struct conn *c, int fd);		/* G3: before a kernel send of any kind */
void tx_end_tcp(struct conn *c, ssize_t r);
void rx_begin_tcp(struct conn *c);			/* before a kernel receive that is not ours to shape */
void rx_end_tcp(struct conn *c, ssize_t r);
bool rx_touch(struct conn *c);				/* record this process as a user; false: shared */
uint32_t rx_avail(struct conn *c);			/* bytes in the ring, bounded */
bool rx_readable(struct conn *c, uint32_t *ret_head);	/* ring counts as readable (G9) */
void rx_lowat_restore(struct conn *c, int fd);
void rx_maybe_open(struct thr *t, struct conn *c, int fd, bool nb);
uint64_t rx_close_gate(struct conn *c);			/* always raises the epoch; returns the new word */
void tx_leave(struct conn *c);
struct ledger *rx_ledger(struct conn *c);
bool rx_spin(struct thr *t, struct conn *c, int fd, bool *ret_kernel);

/* ---- options that the ring does not reproduce (options.c): G14.4 ---- */
void opt_before_set(struct conn *c, int level, int name);	/* setsockopt is about to be called */
int opt_cork(struct conn *c, int fd, int v);			/* setsockopt(TCP_CORK) */
void opt_cork_give(struct conn *c, int fd);			/* the kernel is to know what was kept back */
void opt_cork_more(struct conn *c);				/* the kernel holds bytes back for MSG_MORE */
bool opt_may_offer(struct conn *c, int fd);			/* false: it stays on TCP */
void opt_ring_control(struct conn *c, int fd, struct msghdr *m, size_t room);	/* recvmsg moved ring bytes */

/* ---- descriptors of ours in the program's table (hidden.c) ---- */
void hidden_add(int fd);
void hidden_remove(int fd);
void hidden_provider(const int *fds, unsigned n);
bool hidden_fd(int fd);
int hidden_next(unsigned from);

/* ---- what a socket says of itself to every process that holds it (mark.c) ---- */
enum mark { MARK_SESSION, MARK_UNREAD };
bool mark_get(int fd, enum mark m);
void mark_set(int fd, enum mark m, bool on);

/* ---- descriptors that come from another image (reattach.c) ---- */
void reattach_received(int fd);
void reattach_inherited(void);

/* ---- offsets against the kernel (offsets.c): G16 ---- */
int off_check_rx(struct conn *c, int fd);		/* 1 agrees, 0 ask again later, -1 never again */
int off_check_tx(struct conn *c, int fd);
int off_check_tx_loose(struct conn *c, int fd);		/* the same while TCP has bytes unsent: only the count is asked for */
bool off_adopt(struct conn *c, int fd);
bool off_resync_tx(struct conn *c, int fd);
int off_kernel_c(int fd, uint64_t *ret_c, int *ret_state, int *ret_inq);
unsigned off_fin(int state);	/* what a FIN counts in tcpi_bytes_received, by tcpi_state */

/* ---- ledger and crowding ---- */
#define US(x)		tsc_us(x)
#define EARN_WAIT	US(8)	/* at least */
#define EARN_BURST	US(2)
#define EARN_MSG	US(5)
#define COST_OPEN	US(0.5)
#define LED_CAP		US(2000)
#define LED_FIRST	US(400)
#define LED_NEED	US(40)
#define LED_LOW		US(8)
#define LED_REFILL	US(80)
#define ASK_GAP		US(20)

/* what a sleep costs here (worth.c); around a call that may sleep, or a send that may have to wake */
struct worth_sample {
	uint64_t wall, cpu;
	bool on;
};
void worth_begin(struct worth_sample *m, uint32_t *count);
void worth_slept(struct worth_sample *m);
void worth_sent(struct worth_sample *m, ssize_t r);
int64_t worth_wait(void);		/* ticks that a wait which the ring ended awake has saved, at both ends */
int64_t worth_sleep(void);		/* at this one alone */

#define DOZE_WORTH	3	/* messages of a burst that make dozing better than a sleep */
extern const struct timespec doze_time;
void doze_found(struct doze *d, uint32_t n);		/* n events */
void doze_waited(struct doze *d, uint64_t ticks);
int doze_at_stake(struct doze *d, uint32_t n_open);	/* gates whose next message would find them closed after a sleep */
int64_t doze_earned(struct doze *d, uint32_t n_open);	/* ticks that a wait ended awake has saved */
bool doze_may(struct thr *t, struct doze *d, const struct ledger *l, uint32_t n_att, uint32_t n_open);
void doze_begin(struct thr *t, struct doze *d, struct ledger *l);
void doze_over(struct thr *t, struct doze *d, bool slept);

void led_init(struct ledger *l);
void led_add(struct ledger *l, int64_t x);
void led_tcp(struct ledger *l);
bool led_may(struct ledger *l, uint64_t now, bool peer_awake);
void led_sleep(struct ledger *l, int idle);
void spin_done(struct ledger *l, int64_t ticks, int64_t earned);
uint64_t spin_limit(struct ledger *l, int n_open);
bool spin_ok(struct thr *t, struct ledger *l, uint64_t now);
#define SPIN_GAP_US	100
uint64_t spin_until(const struct timespec *to);	/* the end of a wait, in ticks */
int64_t spin_cost(uint64_t t0, uint64_t prev, int64_t away);
bool spin_gap(struct thr *t, uint64_t now);
void spin_gap_set(struct thr *t, uint64_t now);
bool spin_give_way(struct thr *t, int64_t *cost);
int spin_yield(struct thr *t, int64_t *cost);

/* ---- copies that survive bad pointers (fault.c): G28 ---- */
bool fault_copy(void *dst, const void *src, size_t n);	/* false: a fault; dst is undefined */
void fault_install(void);

/* ---- signals (sig.c): G26 ---- */
static inline void sig_call_begin(struct thr *t)
{
	if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed))) {
		atomic_store_explicit(&t->sig_any, 0, memory_order_relaxed);
		atomic_store_explicit(&t->sig_eintr, 0, memory_order_relaxed);
		/* a handler that was left by siglongjmp: the stack is above it again */
		if (t->in_handler && (uintptr_t)__builtin_frame_address(0) > t->handler_frame)
			t->in_handler = 0;
	}
}

/* Handlers are put off while this thread is inside a short section that a handler must not find itself below: the receive
 * lock (G9). No waiting inside. */
extern __thread uint32_t sig_held __attribute__((tls_model("initial-exec")));
extern __thread uint32_t sig_n_off __attribute__((tls_model("initial-exec")));	/* signals put off */
void sig_deliver(void);

static inline void sig_hold(void)
{
	sig_held++;
	atomic_signal_fence(memory_order_seq_cst);
}

static inline void sig_release(void)
{
	atomic_signal_fence(memory_order_seq_cst);
	sig_held--;
	atomic_signal_fence(memory_order_seq_cst);
	if (unlikely(sig_n_off != 0) && sig_held == 0)
		sig_deliver();
}

/* the mask to give to ppoll, pselect, epoll_pwait: `in` or, with SIGSEGV and SIGBUS taken out of it, `out` */
const sigset_t *sig_strip_mask(const sigset_t *in, sigset_t *out);

/* ---- epoll mirrors (eset.c) ---- */
int fd_to_top(int fd);			/* out of the way of a program that counts on low numbers */
void eset_init(void);
void eset_new(int epfd);
void eset_close_fd(int epfd);
void eset_dup_fd(int epfd, int nfd);
int eset_ctl(struct thr *t, int epfd, int op, int fd, struct epoll_event *ev);
int eset_wait(struct thr *t, int epfd, struct epoll_event *ev, int max, const struct timespec *to,
	      const sigset_t *mask);
bool eset_known(int epfd);
void eset_mark_nested(int epfd);
void eset_flush_all(void);
void eset_forget_conn(struct conn *c);
bool eset_grant(struct conn *c);		/* open_lock held: every set that waits for it is woken by roads from now on; false: must not be granted */
bool eset_wake(struct conn *c);		/* the same for who starts to send */
bool eset_may_wake(struct conn *c);	/* would it, just now? Nothing is changed */
void eset_lent(int epfd);		/* another process is to get the set */
void eset_unwake_all(void);
bool eset_enter_open(struct conn *c);	/* open_lock held: put into the lists; false: must not open */
bool eset_sleepers(struct conn *c);
struct ledger *eset_ledger(struct conn *c);
uint64_t eset_asked(struct conn *c);
void eset_attached(struct conn *c);
void eset_rearm(struct conn *c);
void eset_owe_out(struct conn *c);
void eset_drop_fd(int fd, struct conn *c);
void eset_free_regs(struct conn *c);	/* the conn is being recycled */
void eset_after_fork(void);

/* ---- poll and select (wait.c) ---- */
int wait_poll(struct thr *t, struct pollfd *p, nfds_t n, const struct timespec *to, const sigset_t *mask,
	      bool ppoll);
int wait_select(struct thr *t, int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *to,
		const sigset_t *mask);

/* ---- numbers for wsdrun --stats (stats.c) ---- */
void stats_init(void);
void stats_conn(void);
void stats_accelerated(bool rdma);
void stats_conn_end(struct conn *c);
void stats_gate(bool open);

/* ---- test mode ---- */
static inline bool shake_hit(struct thr *t)
{
	if (likely(!cfg.shake))
		return false;
	t->rand = t->rand * 1664525u + 1013904223u;
	return (t->rand >> 24) < 64;
}

#endif
