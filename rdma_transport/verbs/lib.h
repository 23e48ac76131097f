/* SPDX-License-Identifier: MIT */
/*
 * lib.h - libibverbs as a table
 *
 * The library is opened when the first connection is prepared, never linked: a program that meets no RDMA never loads it. Tests put
 * tests/fakes/fake_verbs.c here (rt_config.lib). The functions are libibverbs', errors are theirs too: NULL and errno, or errno as the
 * result, or -1 and errno.
 *
 * reg_mr to query_gid_table are looked up by name. What verbs.h does inline goes through the device's own table where the entry (post_send to
 * req_notify_cq) is NULL: a jump less for each post and look.
 */
#ifndef RDMA_TRANSPORT_VERBS_LIB_H
#define RDMA_TRANSPORT_VERBS_LIB_H

#include <infiniband/verbs.h>

#define RT_VERBS_NAMED(X) \
	X(struct ibv_device **, get_device_list, (int *n)) \
	X(void, free_device_list, (struct ibv_device **list)) \
	X(const char *, get_device_name, (struct ibv_device *device)) \
	X(struct ibv_context *, open_device, (struct ibv_device *device)) \
	X(int, close_device, (struct ibv_context *context)) \
	X(int, query_device, (struct ibv_context *context, struct ibv_device_attr *attr)) \
	X(int, query_port, (struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr)) \
	X(struct ibv_pd *, alloc_pd, (struct ibv_context *context)) \
	X(int, dealloc_pd, (struct ibv_pd *pd)) \
	X(struct ibv_mr *, reg_mr, (struct ibv_pd *pd, void *addr, size_t length, int access)) \
	X(int, dereg_mr, (struct ibv_mr *mr)) \
	X(struct ibv_comp_channel *, create_comp_channel, (struct ibv_context *context)) \
	X(int, destroy_comp_channel, (struct ibv_comp_channel *channel)) \
	X(struct ibv_cq *, create_cq, (struct ibv_context *context, int cqe, void *cookie, struct ibv_comp_channel *channel, int vector)) \
	X(int, destroy_cq, (struct ibv_cq *cq)) \
	X(int, get_cq_event, (struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cookie)) \
	X(void, ack_cq_events, (struct ibv_cq *cq, unsigned int n)) \
	X(struct ibv_qp *, create_qp, (struct ibv_pd *pd, struct ibv_qp_init_attr *attr)) \
	X(int, modify_qp, (struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)) \
	X(int, destroy_qp, (struct ibv_qp *qp)) \
	X(int, get_async_event, (struct ibv_context *context, struct ibv_async_event *event)) \
	X(void, ack_async_event, (struct ibv_async_event *event))

struct rt_verbs_lib {
#define X(ret, name, args) ret (*name) args;
	RT_VERBS_NAMED(X)
#undef X
	ssize_t (*query_gid_table)(struct ibv_context *context, struct ibv_gid_entry *entries, size_t max, uint32_t flags, size_t entry_size);
	int (*post_send)(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
	int (*post_recv)(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
	int (*poll_cq)(struct ibv_cq *cq, int n, struct ibv_wc *wc);
	int (*req_notify_cq)(struct ibv_cq *cq, int solicited_only);
};

static inline int rt_verbs_post_send(const struct rt_verbs_lib *lib, struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	return lib->post_send ? lib->post_send(qp, wr, bad) : ibv_post_send(qp, wr, bad);
}

static inline int rt_verbs_post_recv(const struct rt_verbs_lib *lib, struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	return lib->post_recv ? lib->post_recv(qp, wr, bad) : ibv_post_recv(qp, wr, bad);
}

static inline int rt_verbs_poll_cq(const struct rt_verbs_lib *lib, struct ibv_cq *cq, int n, struct ibv_wc *wc)
{
	return lib->poll_cq ? lib->poll_cq(cq, n, wc) : ibv_poll_cq(cq, n, wc);
}

static inline int rt_verbs_req_notify_cq(const struct rt_verbs_lib *lib, struct ibv_cq *cq, int solicited_only)
{
	return lib->req_notify_cq ? lib->req_notify_cq(cq, solicited_only) : ibv_req_notify_cq(cq, solicited_only);
}

/* lib.c: 0; -ENOSYS: no libibverbs here, or one that lacks a function; -ENOMEM: it would complain of the limit of locked memory on stderr */
int rt_verbs_lib_get(const struct rt_verbs_lib **ret);
/* driver.c: with dlopen()'s handle of libibverbs, before its first list of devices. Cannot fail */
void rt_verbs_drivers(void *libibverbs);

#endif
