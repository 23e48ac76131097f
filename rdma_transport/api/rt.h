/* SPDX-License-Identifier: MIT */
/*
 * rt.h - connections between two ends that bytes cross without the kernel's TCP
 *
 * One context per process and backend, one connection per pair of ends, regions of memory that
 * belong to one connection. A backend may offer a shared ring (both ends map it: shm), messages,
 * remote writes and reads, and puts with a signal; RT_CAP_* says which, everything else answers
 * -EOPNOTSUPP. Callers ask for the capability and never for the backend's name.
 *
 * Making a connection: rt_conn_new(); rt_conn_local() gives bytes that the other end needs (none
 * with shm), carried by somebody else; rt_conn_connect() with what came from there.
 *
 * Posting:   an operation that was posted (0) comes back exactly once through rt_poll(), in the
 *            order of its queue (sends, writes, puts and reads are one queue, receives the other). Its memory
 *            is the backend's until then. A message waits until the peer has posted a receive;
 *            it is not lost. A message that is sent after a write arrives after its data.
 * Ownership: a connection outlives its regions, a context its connections.
 * Errors:    -errno. -EPROTO: the peer broke the rules; -ECONNRESET: it is gone. Both stick
 *            to the connection, and everything posted comes back with them.
 * Threads:   one thread at a time per context; with RT_CAP_ROAD the functions of a put road, rt_ctx_drain() and rt_ctx_arm() are apart and may be
 *            entered by any thread (wsd/put_road.h). Nothing here blocks, waits, prints or starts threads.
 * Limits:    every table has one: rt_config, and struct rt_limits for the backend's own.
 */
#ifndef RDMA_TRANSPORT_RT_H
#define RDMA_TRANSPORT_RT_H

#include <stddef.h>
#include <stdint.h>
#include <wsd/put_road.h>

#define RT_CAP_SHARED_RING	0x01u	/* rt_conn_ring(): memory that both ends map */
#define RT_CAP_MSG		0x02u	/* rt_post_send(), rt_post_recv() */
#define RT_CAP_WRITE		0x04u	/* rt_post_write() */
#define RT_CAP_READ		0x08u	/* rt_post_read() */
#define RT_CAP_PUT		0x10u	/* rt_post_put() */
#define RT_CAP_WAKE		0x20u	/* rt_ctx_wait_fd(); a put or message makes it readable */
#define RT_CAP_LOCAL		0x40u	/* rt_conn_local() has bytes for the peer */

#define RT_CAP_ROAD		0x80u	/* rt_conn_road(): puts into memory of the peer, see wsd/put_road.h */
#define RT_CAP_ANY_MEMORY	0x100u	/* sges of messages may lie anywhere; without it inside an rt_mr of the connection */
#define RT_CAP_LINGER		0x200u	/* a closed connection sends what was posted, in the background */

#define RT_ACCESS_LOCAL		0x0u	/* only this end touches it */
#define RT_ACCESS_READ		0x1u	/* the peer may read */
#define RT_ACCESS_WRITE		0x2u	/* the peer may write */

#define RT_DESC_MAX		64u	/* bytes of any descriptor */
#define RT_LOCAL_MAX		256u	/* bytes of any rt_conn_local() */

struct rt_ctx;
struct rt_conn;
struct rt_mr;

struct rt_config {
	size_t size;		/* sizeof(*this); fields behind it are 0 */
	unsigned max_conns;	/* 0: 65536 */
	unsigned max_mrs;	/* for each connection; 0: 4096 */
	unsigned depth;		/* of each queue, 0 or above the limit: the backend's limit */
	const void *lib;	/* verbs: struct rt_verbs_lib in place of libibverbs (tests); NULL: libibverbs.so.1 */
};

struct rt_limits {
	uint32_t max_msg;	/* bytes of one message */
	uint32_t max_rdma;	/* bytes of one write or read */
	uint32_t max_sge;
	uint32_t depth;		/* operations outstanding in each queue */
	uint32_t desc_len;	/* of rt_mr_desc() */
};

struct rt_sge {
	void *addr;
	uint32_t len;
};

/* RT_CAP_LOCAL: the way to the peer, as the daemon chose it */
struct rt_path {
	char device[64];	/* ibverbs' name of it */
	uint8_t gid[16];	/* of this end; its index is looked up by value */
	uint8_t port, link_layer, mtu, tclass;	/* mtu: enum ibv_mtu, at most this */
	uint8_t timeout, retry, rnr_retry, hop_limit;	/* as ibv_modify_qp takes them */
	uint32_t flow_label;
};

/* what a connection of RT_CAP_LOCAL is made of, before rt_conn_local() */
struct rt_prepare {
	size_t size;		/* sizeof(*this) */
	const struct rt_path *path;
	void *memory;		/* struct wsd_remote, for puts: stays mapped until the connection is closed. NULL: for messages */
	uint64_t length;	/* of it */
	uint64_t identity;	/* the peer's: connections of equal ones may share a protection domain (A8) */
};

/* how the other end is reached: the fields of the backend, the others 0 */
struct rt_peer {
	size_t size;		/* sizeof(*this) */
	uint32_t side;		/* 0 connected, 1 accepted */
	int fd;			/* shm: the session memory; stays the caller's, not needed afterwards */
	uint64_t length;	/* shm: of it */
	uint32_t ring_size;
	uint64_t session_id;
	const void *remote;	/* RT_CAP_LOCAL: what rt_conn_local() gave at the other end */
	size_t remote_len;
};

struct rt_ring {
	void *base;		/* struct wsd_session of wsd/shared_ring.h */
	uint64_t length;
	uint64_t session_id;
	uint32_t ring_size;	/* checked copies; the words in memory are the peer's */
	uint32_t side;
};

enum rt_op { RT_OP_SEND = 1, RT_OP_RECV, RT_OP_WRITE, RT_OP_READ, RT_OP_PUT };

struct rt_completion {
	uint64_t cookie;
	enum rt_op op;
	int status;		/* 0 or -errno; -ECANCELED: flushed; -EMSGSIZE: receive too small */
	uint32_t bytes;
};

/**
 * rt_ctx_open() - start a backend
 * @name:	"shm"; "fault:" before a name wraps it (builds with fault_injection)
 *
 * Return: 0, -ENOENT (no such backend), -EINVAL, -ENOMEM, or the backend's.
 */
int rt_ctx_open(struct rt_ctx **ret_ctx, const char *name, const struct rt_config *cfg);
/* accepts NULL; always NULL. All its connections are closed before. */
struct rt_ctx *rt_ctx_close(struct rt_ctx *ctx);

uint32_t rt_ctx_caps(const struct rt_ctx *ctx);
const struct rt_limits *rt_ctx_limits(const struct rt_ctx *ctx);
const char *rt_ctx_name(const struct rt_ctx *ctx);
/* RT_CAP_WAKE: descriptor that is readable when rt_poll() may have something; else -EOPNOTSUPP */
int rt_ctx_wait_fd(struct rt_ctx *ctx);

/* -EMFILE: max_conns are there */
int rt_conn_new(struct rt_conn **ret_conn, struct rt_ctx *ctx);
/* accepts NULL; always NULL. What is still posted is forgotten: rt_conn_flush() first to see it. The peer
 * gets -ECONNRESET once it has taken what was sent completely. */
struct rt_conn *rt_conn_close(struct rt_conn *conn);

/* RT_CAP_LOCAL: open the device, make the queue pair, register the memory. 0, -EINVAL, -ENODEV (no such device, port or GID, or it is down),
 * -ENOSYS (no libibverbs), -EPERM or -ENOMEM (locked memory: -ENOMEM is what the kernel says of RLIMIT_MEMLOCK), -EMFILE, -EISCONN */
int rt_conn_prepare(struct rt_conn *conn, const struct rt_prepare *prepare);

/* *len: in room, out bytes; -EMSGSIZE and the size when it does not fit */
int rt_conn_local(struct rt_conn *conn, void *buf, size_t *len);

/**
 * rt_conn_connect() - reach the peer; nothing of it is believed without a check
 *
 * Return: 0, -EISCONN, -EINVAL (what was handed over is not what it should be), -EPROTO
 * (what the memory or the peer says contradicts it), -ENOMEM.
 */
int rt_conn_connect(struct rt_conn *conn, const struct rt_peer *peer);

/* RT_CAP_SHARED_RING, connected. From then on the ring is the caller's and posting answers -EBUSY; -EBUSY
 * here if something was posted before. */
int rt_conn_ring(struct rt_conn *conn, struct rt_ring *ret_ring);

/* RT_CAP_ROAD, prepared with memory, connected. From then on posting by the functions here answers -EBUSY. size, context: in */
int rt_conn_road(struct rt_conn *conn, struct wsd_put_road *ret_road);
/* RT_CAP_ROAD: take completions of all roads, put the contexts of those that changed into ret; how many, max: there may be more.
 * 0 while another thread is inside (who tells of what it finds) */
unsigned rt_ctx_drain(struct rt_ctx *ctx, uint64_t *ret_context, unsigned max);
/* RT_CAP_ROAD: make rt_ctx_wait_fd() readable at the next completion. 0: armed; 1: something came, drain first */
int rt_ctx_arm(struct rt_ctx *ctx);
/* every descriptor that the context keeps open; returns how many of max. rt_ctx_fds_gen() changes with them */
unsigned rt_ctx_fds(struct rt_ctx *ctx, int *ret_fds, unsigned max);
unsigned rt_ctx_fds_gen(struct rt_ctx *ctx);
/* the device is going: every connection over it fails with -ENETDOWN, and it is closed as soon as no thread is inside. 0, or -EBUSY: call
 * again soon. NULL: every device whose kernel side is gone already */
int rt_ctx_drop_device(struct rt_ctx *ctx, const char *device);
/* in a forked child, once: let go of the devices without a word to the parent's queue pairs; memory stays mapped. Connections there may
 * only be closed, and posting answers the error */
void rt_ctx_orphan(struct rt_ctx *ctx);

/* everything posted comes back with status (-errno), or what has happened already; only close after it */
void rt_conn_flush(struct rt_conn *conn, int status);
/* in a forked child: the parent goes on with this connection, here it may only be closed, and that tells the
 * peer nothing. A ring that was handed out stays mapped until then. */
void rt_conn_orphan(struct rt_conn *conn);
/* 0, or the error that sticks to the connection */
int rt_conn_error(const struct rt_conn *conn);

/**
 * rt_mr_new() - a span of memory for use with one connection
 * @access:	RT_ACCESS_*
 *
 * Return: 0, -EINVAL (no bytes, wraps, unknown access), -ENOTCONN, -EMFILE (max_mrs), -ENOMEM.
 */
int rt_mr_new(struct rt_mr **ret_mr, struct rt_conn *conn, void *addr, uint32_t len, unsigned access);
/* accepts NULL; always NULL. From its return on the peer cannot reach the span. */
struct rt_mr *rt_mr_drop(struct rt_mr *mr);
/* limits.desc_len bytes by which the peer names the span; -EINVAL for a local one */
int rt_mr_desc(const struct rt_mr *mr, void *buf, uint32_t len);
void *rt_mr_addr(const struct rt_mr *mr);
uint32_t rt_mr_len(const struct rt_mr *mr);
unsigned rt_mr_access(const struct rt_mr *mr);

/* 0; -EAGAIN: depth reached; -EMSGSIZE; -EINVAL; -ENOTCONN; the sticking error; -EOPNOTSUPP */
int rt_post_send(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie);
int rt_post_recv(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie);
/* desc: from rt_mr_desc() at the other end; offset: from the beginning of that span */
int rt_post_write(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc,
		  uint32_t desc_len, uint64_t offset, uint64_t cookie);
int rt_post_read(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc,
		 uint32_t desc_len, uint64_t offset, uint64_t cookie);
/* bytes behind ring position at, which must be the head, and raise the head over them, all or nothing.
 * -EAGAIN: no room; -ESTALE: the head is elsewhere */
int rt_post_put(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint32_t at, uint64_t cookie);

/* make progress on this connection and take completions. Return: how many, up to max. */
int rt_poll(struct rt_conn *conn, struct rt_completion *ret_wc, unsigned max);

#endif
