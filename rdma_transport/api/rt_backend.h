/* SPDX-License-Identifier: MIT */
/*
 * rt_backend.h - what a backend is
 *
 * A backend fills one static struct rt_backend_ops and is named in base/registry.c. base/ owns the objects:
 * it allocates each with the backend's private bytes behind it, counts them, checks arguments against limits,
 * and calls the backend with what is left to do. A member that is NULL, or lies behind the
 * table's size, is replaced by a stub that answers -EOPNOTSUPP: no caller ever meets NULL.
 *
 * *_open and *_close come in pairs: a failed open has undone itself.
 */
#ifndef RDMA_TRANSPORT_RT_BACKEND_H
#define RDMA_TRANSPORT_RT_BACKEND_H

#include <stdbool.h>
#include "rdma_transport/api/rt.h"

struct rt_backend_ops {
	size_t size;		/* sizeof(*this) at build time; members past it are absent */
	const char *name;
	uint32_t caps;		/* RT_CAP_*; the shared tests check them against behaviour */
	struct rt_limits limits;
	size_t ctx_priv, conn_priv, mr_priv;	/* private bytes of each object, zeroed */

	/* required */
	int (*ctx_open)(struct rt_ctx *ctx, const struct rt_config *cfg);
	void (*ctx_close)(struct rt_ctx *ctx);
	int (*conn_open)(struct rt_conn *conn);
	void (*conn_close)(struct rt_conn *conn);
	int (*conn_connect)(struct rt_conn *conn, const struct rt_peer *peer);
	int (*mr_open)(struct rt_mr *mr);
	void (*mr_close)(struct rt_mr *mr);

	/* optional; the capability beside it says whether it works */
	int (*conn_local)(struct rt_conn *conn, void *buf, size_t *len);	/* RT_CAP_LOCAL */
	int (*conn_ring)(struct rt_conn *conn, struct rt_ring *ret_ring);	/* RT_CAP_SHARED_RING */
	int (*ctx_wait_fd)(struct rt_ctx *ctx);					/* RT_CAP_WAKE */
	void (*conn_flush)(struct rt_conn *conn, int status);			/* any kind of posting */
	void (*conn_orphan)(struct rt_conn *conn);				/* any kind of posting */
	int (*poll)(struct rt_conn *conn, struct rt_completion *ret_wc, unsigned max);
	int (*post_send)(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie);
	int (*post_recv)(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint64_t cookie);
	int (*mr_desc)(const struct rt_mr *mr, void *buf);			/* RT_CAP_WRITE or _READ */
	int (*post_write)(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc,
			  uint64_t offset, uint64_t cookie);
	int (*post_read)(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, const void *desc,
			 uint64_t offset, uint64_t cookie);
	int (*post_put)(struct rt_conn *conn, const struct rt_sge *sge, unsigned n, uint32_t at,
			uint64_t cookie);
	int (*conn_prepare)(struct rt_conn *conn, const struct rt_prepare *prepare);	/* RT_CAP_LOCAL */
	int (*conn_road)(struct rt_conn *conn, struct wsd_put_road *ret_road);	/* RT_CAP_ROAD; this and what follows */
	unsigned (*drain)(struct rt_ctx *ctx, uint64_t *ret_context, unsigned max);
	int (*arm)(struct rt_ctx *ctx);
	unsigned (*ctx_fds)(struct rt_ctx *ctx, int *ret_fds, unsigned max);
	unsigned (*ctx_fds_gen)(struct rt_ctx *ctx);
	int (*drop_device)(struct rt_ctx *ctx, const char *device);
	void (*ctx_orphan)(struct rt_ctx *ctx);
};

struct rt_ctx {
	struct rt_backend_ops ops;	/* completed: no NULL in it */
	uint32_t caps;			/* ctx_open may narrow both */
	struct rt_limits limits;
	unsigned max_conns, max_mrs;
	unsigned n_conns;
	const char *inner;		/* of "fault:NAME": NAME, valid in ctx_open only */
	_Alignas(16) char priv[];
};

struct rt_conn {
	struct rt_ctx *ctx;
	unsigned n_mrs;
	bool connected, prepared;
	bool road;			/* handed out: nothing is posted beside it */
	int error;			/* -errno that sticks */
	_Alignas(16) char priv[];
};

struct rt_mr {
	struct rt_conn *conn;
	void *addr;
	uint32_t len;
	unsigned access;
	_Alignas(16) char priv[];
};

/* base/registry.c; -ENOENT */
int rt_backend_find(const char *name, const struct rt_backend_ops **ret_ops);
/* the i-th name, or NULL behind the last; "fault:" forms are not among them */
const char *rt_backend_name(unsigned i);
/* base/stubs.c: *full = given with its holes filled; -EINVAL: a required member is missing, or a capability
 * is promised without its functions */
int rt_ops_complete(struct rt_backend_ops *full, const struct rt_backend_ops *given);

#endif
