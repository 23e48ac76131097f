/* SPDX-License-Identifier: MIT */
/*
 * shm.h - the backend for two ends on one host: a session memfd that both map
 *
 * Files: session.c maps a session and believes nothing; ring.c moves bytes by head and tail;
 * msg.c makes messages and writes out of them; shm.c is the table.
 *
 * A session is used in one way only: either its ring is handed out (rt_conn_ring) and the gate
 * protocol drives it, or messages, writes and puts are posted. Memory for the second is
 * allocated at the first post.
 *
 * Trust: the peer may change every word and byte of the session at any time. A word is read
 *        once, bounded, and the copy used. What this end has put and taken is counted in private memory.
 */
#ifndef RDMA_TRANSPORT_SHM_H
#define RDMA_TRANSPORT_SHM_H

#include <stdbool.h>
#include <wsd/shared_ring.h>
#include "rdma_transport/api/rt_backend.h"

#define SHM_SGE		4u
#define SHM_DEPTH	32u
#define SHM_MSG_MAX	(1u << 30)

extern const struct rt_backend_ops rt_shm_ops;

/* --- session.c --- */

struct shm_session {
	struct wsd_session *map;
	uint64_t length, session_id;
	uint32_t ring_size, side;
	struct wsd_ring_dir *tx, *rx;	/* into map */
	uint8_t *tx_ring, *rx_ring;
	uint32_t tx_head;		/* bytes this end has put: counts, the gate's copy is checked against it */
	uint32_t rx_tail;		/* bytes this end has taken: the one that counts */
};

/* 0, -EINVAL (not the kind of descriptor), -EPROTO (its words contradict peer), -ENOMEM, -errno of mmap */
int shm_session_map(struct shm_session *s, const struct rt_peer *peer);
void shm_session_unmap(struct shm_session *s);

/* --- ring.c --- */

/* bytes in a span list from a position on */
struct shm_cursor {
	const struct rt_sge *sge;
	uint32_t i, off;
};

/* 0 and the bytes that can be put or taken, or -EPROTO: the words are out of bounds */
int shm_ring_room(const struct shm_session *s, uint32_t *ret_room);
int shm_ring_avail(const struct shm_session *s, uint32_t *ret_avail);
/* bytes at distance from the head, not yet visible; the caller has seen the room */
void shm_ring_copy_in(struct shm_session *s, uint32_t distance, struct shm_cursor *from, uint32_t n);
void shm_ring_write(struct shm_session *s, uint32_t distance, const void *from, uint32_t n);
/* make n bytes visible; -EPROTO: the head is not where this end left it */
int shm_ring_publish(struct shm_session *s, uint32_t n);
/* bytes at distance from the tail */
void shm_ring_copy_out(const struct shm_session *s, uint32_t distance, struct shm_cursor *to, uint32_t n);
void shm_ring_read(const struct shm_session *s, uint32_t distance, void *to, uint32_t n);
void shm_ring_consume(struct shm_session *s, uint32_t n);
/* the peer has closed, or the daemon has taken the session back: nothing will be put any more */
bool shm_ring_ended(const struct shm_session *s);
/* ... and nothing that this end puts will be read */
bool shm_ring_unheard(const struct shm_session *s);
/* tell the peer the same of this end */
void shm_ring_end(struct shm_session *s);

/* --- msg.c --- */

struct shm_op {
	uint64_t cookie;
	struct rt_sge sge[SHM_SGE];
	uint32_t n, total;
	struct shm_cursor at;
	uint32_t moved;			/* payload bytes so far */
	uint32_t kind;			/* enum rt_op */
	bool begun, done;
	int status;
	uint32_t key, gen;		/* of the span a write goes to */
	uint64_t offset;
};

struct shm_queue {
	struct shm_op op[SHM_DEPTH];
	uint32_t first, n;		/* posted and not yet given back */
	uint32_t next;			/* how many of them are done, from first */
};

struct shm_msg;

struct shm_conn {
	struct shm_session s;
	struct shm_msg *msg;		/* NULL until something is posted */
	struct rt_mr **key;		/* spans the peer may reach, by key */
	uint32_t n_keys, gen;
	bool ring_out;			/* rt_conn_ring() gave the words away: nothing is posted */
};

struct shm_mr {
	uint32_t key, gen;
	bool exposed;
};

static inline struct shm_conn *shm_conn(struct rt_conn *conn)
{
	return (struct shm_conn *)conn->priv;
}

static inline struct shm_mr *shm_mr(const struct rt_mr *mr)
{
	return (struct shm_mr *)mr->priv;
}

struct shm_desc {		/* rt_mr_desc() */
	uint32_t magic;
	uint32_t key, gen;
	uint32_t len;
};
#define SHM_DESC_MAGIC 0x44534457u

int shm_post_send(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie);
int shm_post_recv(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie);
int shm_post_write(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc, uint64_t offset,
		   uint64_t cookie);
int shm_post_put(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint32_t at, uint64_t cookie);
int shm_poll(struct rt_conn *conn, struct rt_completion *ret_wc, unsigned max);
void shm_flush(struct rt_conn *conn, int status);
void shm_msg_free(struct shm_conn *c);
/* the span goes away: a write that is half received must not touch it */
void shm_msg_forget(struct rt_conn *conn, const struct rt_mr *mr);

#endif
