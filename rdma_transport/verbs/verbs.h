/* SPDX-License-Identifier: MIT */
/*
 * verbs.h - inside the verbs backend
 *
 *   lib.c   libibverbs as a table               conn.c  a queue pair's life, what is told to the peer
 *   dev.c   devices, domains, descriptors       road.c  puts with a signal (wsd/put_road.h)
 *   cq.c    completions, channel, events        msg.c   messages, writes and reads (rt.h)
 *   mr.c    regions of rt.h                     wc.c    how a completion failed
 *
 * Two kinds of lock, both taken by trying:
 *   the context's look lock   whoever takes completions holds it, for all devices and connections; it guards what is destroyed and
 *                             made as well. Calls that must have it (stop, close, prepare) yield until they do: it is never held
 *                             over anything that waits for the network.
 *   a connection's post lock  from hold() to release(). Who holds the look lock only tries it.
 * So the order is post, then look. Who waits for the look lock has signals blocked while it holds it: a handler may come to wait for it, too.
 * Who tries does it below callers that hold their handlers off (wsd/put_road.h).
 * What a thread could not do because another one held a post lock is left behind as
 * a mark (credit_due, closing), and whoever unlocks looks at the marks after it has unlocked.
 *
 * A vconn outlives its rt_conn while it lingers. Completions name it by slot and generation (wr_id), so that one which
 * comes too late names nobody. A queue pair has room reserved in its completion queue for all it can have outstanding: none ever overflows.
 */
#ifndef RDMA_TRANSPORT_VERBS_H
#define RDMA_TRANSPORT_VERBS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/single_threaded.h>
#include <wsd/put_road.h>
#include <wsd/remote_session.h>

#include "rdma_transport/api/rt_backend.h"
#include "rdma_transport/verbs/lib.h"

#define V_DEVICES	8u
#define V_SHARDS	64u
#define V_DOMAINS	1024u
#define V_LINGER	1024u		/* closed connections that still send */
#define V_LINGER_MS	2000u
#define V_SQ		64u		/* sends outstanding: a power of two */
#define V_RQ		64u
#define V_RQ_BATCH	16u		/* receives are posted again, and told, in lots of this */
#define V_UNSIGNALLED	15u		/* at most so many posts in a row without a completion of their own */
#define V_INLINE	128u		/* asked for */
#define V_WORD		64u		/* inline that every device must have */
#define V_HOLD		8u
#define V_CHAIN		(V_HOLD + 1)	/* and one word of credit */
#define V_SPARE_SLOTS	4u		/* kept for words, beside V_HOLD */
#define V_SPARE_CREDITS	2u		/* kept for nudges */
#define V_MSG_SGE	4u
#define V_MSG_SQ	(V_SQ + 8)	/* and words */
#define V_WC		32

#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)
#define V_INLINE_PATH	static inline __attribute__((always_inline))	/* what a send, or a look, is made of is one function */

/* kinds of posts, low bits of wr_id */
enum v_kind { V_WRITE, V_FETCH, V_RECV, V_LAST, V_MSG_TX, V_MSG_RX, V_READ, V_PULL };

static inline uint64_t v_id(uint32_t slot, uint32_t gen, enum v_kind kind, uint32_t seq)
{
	return (uint64_t)slot << 44 | (uint64_t)(gen & 0xffffff) << 20 | (uint64_t)kind << 16 | (seq & 0xffff);
}

struct v_lock {
	atomic_bool held;
	_Atomic(pthread_t) owner;	/* meaningful to the owner only */
};

struct v_domain {
	struct ibv_pd *pd;
	uint64_t identity;
	unsigned refs;
};

struct v_shard {
	struct ibv_cq *cq;
	unsigned size, reserved;
	unsigned stale;			/* of these: by queue pairs that are gone, until the queue was found empty */
	bool armed;			/* asked for an event that was not taken yet */
};

struct v_device {
	char name[64];
	struct ibv_context *context;
	struct ibv_comp_channel *channel;
	struct v_shard shard[V_SHARDS];
	unsigned n_shards;
	struct v_domain *domain;
	unsigned n_domains;
	struct ibv_device_attr attr;
	unsigned refs;			/* connections, lingering ones too; 0: closed when the look lock is let go */
	bool soft;
	bool gone;			/* the kernel says so */
	bool node_known;		/* v_device_gone() can tell by the kernel's name for it */
};

enum v_closing { V_OPEN, V_CLOSE_LATER, V_CLOSE_NOW };

struct v_ring {				/* one ring at both ends */
	uint8_t *base;
	uint32_t size, lkey, rkey;
	uint64_t remote;		/* address */
};

struct v_conn {
	struct v_ctx *ctx;
	struct rt_conn *conn;		/* NULL: it lingers */
	struct v_device *dev;
	struct v_shard *shard;
	int domain;			/* index, or -1 */
	struct ibv_qp *qp;		/* NULL: destroyed */
	uint32_t slot, gen;
	uint32_t psn, qpn;
	uint32_t sq_size, reserved;
	uint8_t mtu, link_layer;
	uint16_t lid;
	struct rt_path path;
	int gid_index;
	unsigned inline_max;
	bool connected, road;
	bool orphan;			/* this process is a child that only forgets it */

	/* the session memory, or msg->ctl; checked copies */
	uint8_t *base;
	uint64_t length, nonce, session_id;
	struct wsd_remote *remote;	/* NULL: messages */
	struct ibv_mr *mr_ctl, *mr_tx, *mr_rx1, *mr_tx1;
	uint8_t *ctl;
	uint64_t peer_ctl;		/* address of the peer's control page */
	uint32_t peer_ctl_key;
	struct v_ring ring[2];		/* what is sent: base, size and lkey ours, the rest the peer's */
	_Atomic uint32_t rx_max;	/* the larger of the receiving rings */
	uint32_t ring1_max, off_rx1, off_tx1;
	uint32_t tx1_size;
	uint64_t context;

	/* poster */
	atomic_bool posting;
	int cancel, error;
	unsigned held;
	bool words_only;
	unsigned n_wr, n_inline;
	struct ibv_send_wr wr[V_CHAIN];
	struct ibv_sge sge[V_CHAIN];
	uint8_t word[V_CHAIN][V_WORD];
	uint64_t posted;		/* ring bytes */
	_Atomic uint64_t pull_to;	/* the head that the last pull makes */
	unsigned unsignalled, unsignalled_bytes;
	uint32_t signals;		/* with immediate, sent so far */
	_Atomic uint32_t sq_head;	/* posts so far */
	_Atomic uint64_t put_end[V_SQ];	/* ring bytes posted up to this post */

	/* looker */
	_Atomic uint32_t sq_tail;	/* posts known to be completed */
	uint32_t rq_used;		/* receives taken since the last lot */
	_Atomic uint32_t recvs;		/* receives posted so far */
	_Atomic uint32_t recvs_told;

	atomic_bool credit_due;
	atomic_int closing;		/* enum v_closing */
	atomic_bool closed;		/* that was seen to */
	bool lingers;			/* in ctx->linger */
	_Atomic uint32_t peer_recvs;	/* told to us so far */

	struct wsd_put_state state;
	atomic_bool changed;		/* stands in ctx->changed or ctx->told */
	struct v_conn *next_changed;

	struct v_conn *next_linger;
	uint64_t linger_end;
	bool last_posted;
	uint32_t last;			/* sq_tail when that is completed */

	struct v_msg *msg;
	struct v_mr *mrs;
};

struct v_mr {
	struct ibv_mr *mr;
	struct rt_mr *rt;
	struct v_mr *next;
};

struct v_ctx {
	const struct rt_verbs_lib *lib;
	struct rt_ctx *rt;
	struct v_lock look;
	struct v_device *dev[V_DEVICES];
	struct v_conn **slot;
	uint32_t n_slots, gen;
	_Atomic(struct v_conn *) changed;	/* pushed by anybody */
	struct v_conn *told;			/* taken from there, not yet delivered */
	struct v_conn *linger;
	unsigned n_linger;
	bool idle;				/* some device has no connection left */
	int ep;
	bool may_sleep;				/* arm() was called: the descriptors want to be looked at */
	_Atomic unsigned fds_gen;
	atomic_bool orphan;
};

static inline struct v_ctx *v_ctx(struct rt_ctx *ctx)
{
	return (struct v_ctx *)ctx->priv;
}

static inline struct v_conn *v_conn(const struct rt_conn *conn)
{
	return *(struct v_conn *const *)conn->priv;
}

/* ---- locks: cq.c. Cancellation is off while one is held, errno is kept ---- */
struct v_guard {
	int cancel, error;
	bool blocked;		/* signals; mask: as they were */
	uint64_t mask;
};

/* with one thread nothing is cancelled: libc's calls do not ask */
static inline int v_cancel_off(void)
{
	int was = -1;

	if (!__libc_single_threaded)
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &was);
	return was;
}

static inline void v_cancel_back(int was)
{
	if (was >= 0)
		pthread_setcancelstate(was, NULL);
}

bool v_look_try(struct v_ctx *x, struct v_guard *g);
void v_look_wait(struct v_ctx *x, struct v_guard *g);
bool v_look_soon(struct v_ctx *x, struct v_guard *g);	/* a few milliseconds */
void v_look_done(struct v_ctx *x, struct v_guard *g);

/* ---- dev.c, look lock held ---- */
int v_device_get(struct v_ctx *x, const char *name, struct v_device **ret);	/* takes the lock itself */
/* the look lock is held. Has it been removed? Also while the removal waits for us, of which nothing is heard */
bool v_device_gone(struct v_device *dev);
void v_device_put(struct v_ctx *x, struct v_device *dev);
void v_devices_sweep(struct v_ctx *x);			/* close those that nobody uses */
int v_domain_get(struct v_ctx *x, struct v_device *dev, uint64_t identity, int *ret);
void v_domain_put(struct v_ctx *x, struct v_device *dev, unsigned i);
int v_shard_get(struct v_ctx *x, struct v_device *dev, unsigned n, struct v_shard **ret);
void v_shard_put(struct v_shard *s, unsigned n);
int v_gid_index(struct v_ctx *x, struct v_device *dev, uint8_t port, const uint8_t gid[16]);
int v_fd_to_top(int fd);
unsigned v_fds(struct v_ctx *x, int *ret_fds, unsigned max);
void v_fds_orphan(struct v_ctx *x);

/* ---- cq.c, look lock held ---- */
void v_take(struct v_ctx *x, struct v_shard *s);	/* completions of a queue */
void v_take_all(struct v_ctx *x);
void v_async(struct v_ctx *x, struct v_device *dev);	/* asynchronous events of a device */
void v_events(struct v_ctx *x);				/* channel and asynchronous events, if there may be any */
void v_untell(struct v_ctx *x, struct v_conn *c);	/* it is going away */
/* any thread */
int v_look(void *conn);					/* struct wsd_put_road.poll: v_take() for its queue, with the lock, if nobody has it */
void v_touch_first(struct v_conn *c);			/* put it on the list */
void v_fail(struct v_conn *c, int error);
unsigned v_drain(struct rt_ctx *ctx, uint64_t *ret_context, unsigned max);
int v_arm(struct rt_ctx *ctx);

/* ---- conn.c ---- */
int v_conn_open(struct rt_conn *conn);
void v_conn_close(struct rt_conn *conn);
int v_conn_prepare(struct rt_conn *conn, const struct rt_prepare *p);
int v_conn_local(struct rt_conn *conn, void *buf, size_t *len);
int v_conn_connect(struct rt_conn *conn, const struct rt_peer *peer);
int v_drop_device(struct rt_ctx *ctx, const char *device);
struct ibv_mr *v_reg_session(struct v_conn *c, struct ibv_pd *pd, void *addr, size_t n, int access);
void v_reset(struct v_conn *c);				/* look lock: nothing comes or goes from here on */
void v_destroy(struct v_conn *c);			/* look lock, and nobody posts: queue pair, regions, place */
void v_free(struct v_conn *c);				/* look lock, destroyed */
void v_stop(struct v_conn *c, bool drain);
void v_finish(struct v_conn *c, bool looking);		/* post lock: what closing asks for */
void v_reap(struct v_ctx *x, bool all);			/* look lock: lingering ones that are done */
int v_recv_post(struct v_conn *c, unsigned n);		/* look lock: empty receives */

/* ---- road.c ---- */
int v_conn_road(struct rt_conn *conn, struct wsd_put_road *ret);
bool v_post_try(struct v_conn *c);
void v_post_done(struct v_conn *c, bool looking);	/* unlocks, then does what others left behind; looking: look lock held */
void v_post_leftover(struct v_conn *c, bool looking);	/* the same without having held it, e.g. credit became due */
int v_last(struct v_conn *c);				/* post lock: a last signalled post; 1: no slot */

/* ---- msg.c ---- */
int v_msg_open(struct v_conn *c);			/* memory; before the queue pair */
void v_msg_free(struct v_conn *c);
void v_msg_done(struct v_conn *c, const struct ibv_wc *wc, bool send);
bool v_msg_bye(struct v_conn *c);			/* look lock: say that this is the end; false: nothing to wait for */
int v_msg_poll(struct rt_conn *conn, struct rt_completion *ret_wc, unsigned max);
void v_msg_flush(struct rt_conn *conn, int status);
int v_msg_send(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie);
int v_msg_recv(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie);
int v_msg_write(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc, uint64_t offset, uint64_t cookie);
int v_msg_read(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc, uint64_t offset, uint64_t cookie);

/* ---- mr.c ---- */
struct v_desc {
	uint64_t addr;
	uint32_t rkey, len, access, reserved;
};
int v_mr_open(struct rt_mr *mr);
void v_mr_close(struct rt_mr *mr);
int v_mr_desc(const struct rt_mr *mr, void *buf);
/* the key of [addr, addr + len) among the connection's regions; false: in none */
bool v_mr_find(const struct v_conn *c, const void *addr, uint32_t len, uint32_t *ret_lkey);

/* ---- wc.c ---- */
int v_status(enum ibv_wc_status status);
int v_errno(int error);					/* of a call, positive; negative result */
uint64_t v_now_ms(void);

/* cq.c: its state was changed */
static inline void v_touch(struct v_conn *c)
{
	/* whoever takes it off the list lowers the flag before he looks: what is counted here before the flag is seen up is seen by him */
	atomic_fetch_add(&c->state.changes, 1);
	if (unlikely(!atomic_load(&c->changed)))
		v_touch_first(c);
}

extern const struct rt_backend_ops rt_verbs_ops;

#endif
