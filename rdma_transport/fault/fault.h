/* SPDX-License-Identifier: MIT */
/*
 * fault.h - a backend that wraps another and makes chosen calls fail
 *
 * rt_ctx_open("fault:shm") gives it. What fails is armed by rt_fault_arm(), or by WSD_RT_FAULT in the environment
 * (secure_getenv, read at ctx_open): "conn_connect:3:12,post_send:1:104" makes the third
 * conn_connect from then on answer -12 and the first post_send -104. The wrapped call is not made.
 *
 * Threads: as rt.h, and one plan for the process.
 */
#ifndef RDMA_TRANSPORT_FAULT_H
#define RDMA_TRANSPORT_FAULT_H

#include "rdma_transport/api/rt_backend.h"

#define RT_FAULT_OPS(X) \
	X(ctx_open) X(conn_open) X(conn_connect) X(mr_open) X(conn_local) X(conn_ring) X(ctx_wait_fd) \
	X(post_send) X(post_recv) X(mr_desc) X(post_write) X(post_read) X(post_put) X(conn_prepare) X(conn_road)

enum rt_fault_op {
#define X(op) RT_FAULT_##op,
	RT_FAULT_OPS(X)
#undef X
	_RT_FAULT_N,
};

#ifdef WSD_FAULT_INJECTION
extern const struct rt_backend_ops rt_fault_ops;

/* the nth call from now on (1: the next) answers error, once; nth 0 disarms */
void rt_fault_arm(enum rt_fault_op op, unsigned nth, int error);
void rt_fault_disarm_all(void);
/* the text of WSD_RT_FAULT; -EINVAL and nothing armed if it is malformed */
int rt_fault_plan(const char *text);
const char *rt_fault_op_name(enum rt_fault_op op);
#endif

#endif
