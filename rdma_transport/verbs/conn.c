/* SPDX-License-Identifier: MIT */
/*
 * conn.c - a connection's queue pair, from its making to its end
 *
 * Made in prepare (INIT, receives posted, so that nothing of the peer can meet an empty queue), connected by what the daemons carried.
 * The end: from the moment v_stop() returns nothing more of the peer lands here: the queue pair is in RESET at once, and is
 * destroyed, and its keys with it, by whoever is the last one inside. A drained end keeps both until the last post
 * is completed, in a bounded list; then the session's memory is still the peer's to write, as it is registered by pages
 * and not by mappings, and nobody looks at it.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "rdma_transport/base/fault_point.h"
#include "rdma_transport/verbs/verbs.h"

#define BLOB_VERSION	1u
#define SLOTS_MAX	(1u << 20)
#define MAX24		0xffffffu

/* rt_conn_local(), little endian; without holes */
struct v_blob {
	uint16_t version, len;
	uint32_t qpn, psn;
	uint32_t ring0;			/* 0: messages */
	uint8_t gid[16];
	uint16_t lid;
	uint8_t mtu, link_layer;
	uint32_t ctl_rkey;
	uint64_t ctl_addr;
	uint32_t recvs, reserved;
	uint64_t check;			/* with the session's nonce: it is the same session */
};
static_assert(sizeof(struct v_blob) == 64, "no holes");

static uint64_t blob_check(const struct v_blob *b, uint64_t nonce)
{
	uint64_t w[7];

	memcpy(w, b, sizeof(w));
	return wsd_remote_check(nonce, ~0u, w, 7);
}

int v_conn_open(struct rt_conn *conn)
{
	return 0;
}

/* the constants are read once; what is told by them is where the header says that it is */
static int check_memory(struct v_conn *c, const struct rt_prepare *p)
{
	const volatile struct wsd_remote *m = p->memory;
	uint32_t ring0, ring1, fill;
	uint64_t at = 2 * WSD_REMOTE_PAGE;

	if ((uintptr_t)p->memory % WSD_REMOTE_PAGE || p->length < 2 * WSD_REMOTE_PAGE)
		return -EINVAL;
	ring0 = m->ring0;
	ring1 = m->ring1_max;
	fill = m->fill_max;
	if (m->magic != WSD_REMOTE_MAGIC || m->version != WSD_REMOTE_VERSION || m->side > 1 || m->length != p->length)
		return -EINVAL;
	if (ring0 < WSD_REMOTE_RING0_MIN || ring0 > WSD_REMOTE_RING0_MAX || ring0 & (ring0 - 1) || ring1 > WSD_REMOTE_RING1_MAX ||
	    ring1 & (ring1 - 1) || fill > WSD_REMOTE_RING1_MAX || p->length != wsd_remote_length(ring0, ring1, fill))
		return -EINVAL;
	if (m->off_ctl != WSD_REMOTE_PAGE || m->off_rx0 != at || m->off_tx0 != at + ring0 || m->off_rx1 != at + 2 * ring0 ||
	    m->off_tx1 != at + 2 * ring0 + ring1 || m->off_fill != at + 2 * ring0 + 2 * ring1)
		return -EINVAL;
	c->nonce = m->nonce;
	c->session_id = m->session_id;
	if (!c->nonce)
		return -EINVAL;
	c->remote = p->memory;
	c->base = p->memory;
	c->length = p->length;
	c->ctl = c->base + WSD_REMOTE_PAGE;
	c->ring[0].base = c->base + at + ring0;
	c->ring[0].size = ring0;
	c->rx_max = ring0;
	c->ring1_max = ring1;
	c->off_rx1 = (uint32_t)(at + 2 * ring0);
	c->off_tx1 = c->off_rx1 + ring1;
	return 0;
}

static int check_path(struct rt_path *to, const struct rt_path *p)
{
	*to = *p;
	if (!memchr(to->device, 0, sizeof(to->device)) || !to->device[0] || !to->port || to->timeout > 31 || to->retry > 7)
		return -EINVAL;
	if (to->mtu < IBV_MTU_256 || to->mtu > IBV_MTU_4096)
		return -EINVAL;
	to->timeout = to->timeout ?: 14;
	to->retry = to->retry ?: 7;
	to->rnr_retry = to->rnr_retry && to->rnr_retry < 7 ? to->rnr_retry : 6;	/* 7 is for ever */
	to->hop_limit = to->hop_limit ?: 64;
	return 0;
}

static int slot_get(struct v_ctx *x, struct v_conn *c)
{
	uint32_t i = 0, n;

	while (i < x->n_slots && x->slot[i])
		i++;
	if (i == x->n_slots) {
		struct v_conn **more, **old = x->slot;

		n = x->n_slots ? 2 * x->n_slots : 16;
		if (n > SLOTS_MAX)
			return -EMFILE;
		more = calloc(n, sizeof(*more));
		if (!more)
			return -ENOMEM;
		if (old)
			memcpy(more, old, x->n_slots * sizeof(*more));
		x->slot = more;		/* a table is there whenever another thread forks */
		atomic_signal_fence(memory_order_seq_cst);
		x->n_slots = n;
		free(old);
	}
	x->slot[i] = c;
	c->slot = i;
	c->gen = ++x->gen;
	return 0;
}

int v_recv_post(struct v_conn *c, unsigned n)
{
	struct ibv_recv_wr wr[V_RQ] = {}, *bad;

	for (unsigned i = 0; i < n; i++) {
		wr[i].wr_id = v_id(c->slot, c->gen, V_RECV, 0);
		wr[i].next = i + 1 < n ? &wr[i + 1] : NULL;
	}
	if (rt_verbs_post_recv(c->ctx->lib, c->qp, wr, &bad))
		return -ECONNRESET;
	c->recvs += n;
	return 0;
}

static int make_qp(struct v_ctx *x, struct v_conn *c, struct ibv_pd *pd)
{
	struct ibv_qp_init_attr init = {
		.send_cq = c->shard->cq,
		.recv_cq = c->shard->cq,
		.cap = {
			.max_send_wr = c->sq_size,
			.max_recv_wr = V_RQ,
			.max_send_sge = c->remote ? 1 : V_MSG_SGE,
			.max_recv_sge = c->remote ? 1 : V_MSG_SGE,
			.max_inline_data = V_INLINE,
		},
		.qp_type = IBV_QPT_RC,
	};
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = c->path.port,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ,
	};
	int r;

	RT_FAULT_POINT(r, -ENOMEM, err);
	c->qp = x->lib->create_qp(pd, &init);
	if (!c->qp && errno == EINVAL) {
		init.cap.max_inline_data = V_WORD;
		c->qp = x->lib->create_qp(pd, &init);
	}
	if (!c->qp)
		return v_errno(errno);
	c->qpn = c->qp->qp_num;
	if (init.cap.max_inline_data < V_WORD || init.cap.max_send_wr < c->sq_size || init.cap.max_recv_wr < V_RQ) {
		r = -EOPNOTSUPP;
		goto err;
	}
	c->inline_max = init.cap.max_inline_data < V_INLINE ? init.cap.max_inline_data : V_INLINE;
	RT_FAULT_POINT(r, -ENOMEM, err);
	r = x->lib->modify_qp(c->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
	if (r)
		r = v_errno(r > 0 ? r : errno);
err:
	return r;
}

/*
 * A libibverbs that was asked for fork safety (RDMAV_FORK_SAFE, ibv_fork_init()) may keep what is registered out of children, which is for
 * private memory. Children read the session's, which is shared.
 */
struct ibv_mr *v_reg_session(struct v_conn *c, struct ibv_pd *pd, void *addr, size_t n, int access)
{
	struct ibv_mr *mr = c->ctx->lib->reg_mr(pd, addr, n, access);
	int e = errno;

	if (mr && c->remote)
		madvise(addr, n, MADV_DOFORK);
	errno = e;
	return mr;
}

static int make_regions(struct v_ctx *x, struct v_conn *c, struct ibv_pd *pd)
{
	size_t n = WSD_REMOTE_PAGE + (c->remote ? c->ring[0].size : 0);
	int r;

	RT_FAULT_POINT(r, -ENOMEM, err);
	c->mr_ctl = v_reg_session(c, pd, c->ctl, n, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ);
	if (!c->mr_ctl)
		return v_errno(errno);
	if (!c->remote)
		return 0;
	RT_FAULT_POINT(r, -ENOMEM, err);
	c->mr_tx = v_reg_session(c, pd, c->ring[0].base, c->ring[0].size, IBV_ACCESS_REMOTE_READ);
	if (!c->mr_tx)
		return v_errno(errno);
	c->ring[0].lkey = c->mr_tx->lkey;
	return 0;

err:
	__attribute__((unused));
	return r;
}

static void drop_region(struct v_ctx *x, struct ibv_mr **mr)
{
	if (*mr)
		x->lib->dereg_mr(*mr);
	*mr = NULL;
}

/* the device's part; regions behind the queue pair */
static void undo(struct v_ctx *x, struct v_conn *c)
{
	if (c->qp)
		x->lib->destroy_qp(c->qp);
	c->qp = NULL;
	drop_region(x, &c->mr_ctl);
	drop_region(x, &c->mr_tx);
	drop_region(x, &c->mr_rx1);
	drop_region(x, &c->mr_tx1);
	for (struct v_mr *m = c->mrs; m; m = m->next)
		drop_region(x, &m->mr);
	if (c->shard)
		v_shard_put(c->shard, c->reserved);
	c->shard = NULL;
	if (c->domain >= 0)
		v_domain_put(x, c->dev, (unsigned)c->domain);
	c->domain = -1;
	if (c->dev)
		v_device_put(x, c->dev);
	c->dev = NULL;
}

void v_reset(struct v_conn *c)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RESET };

	if (c->qp)
		c->ctx->lib->modify_qp(c->qp, &attr, IBV_QP_STATE);
}

void v_destroy(struct v_conn *c)
{
	if (!c->qp)
		return;
	v_reset(c);
	undo(c->ctx, c);
}

void v_free(struct v_conn *c)
{
	v_untell(c->ctx, c);
	if (c->slot < c->ctx->n_slots && c->ctx->slot[c->slot] == c)
		c->ctx->slot[c->slot] = NULL;
	v_msg_free(c);
	free(c);
}

static int make(struct v_ctx *x, struct v_conn *c, uint64_t identity)
{
	struct ibv_port_attr attr = {};
	struct ibv_pd *pd = NULL;
	struct v_guard g;
	int r;

	r = v_device_get(x, c->path.device, &c->dev);
	if (r)
		return r;
	v_look_wait(x, &g);
	r = v_domain_get(x, c->dev, identity, &c->domain);
	if (!r) {
		pd = c->dev->domain[c->domain].pd;
		r = v_shard_get(x, c->dev, c->reserved, &c->shard);
	}
	v_look_done(x, &g);
	if (r)
		return r;
	r = v_gid_index(x, c->dev, c->path.port, c->path.gid);
	if (r < 0)
		return r;
	c->gid_index = r;
	if (x->lib->query_port(c->dev->context, c->path.port, &attr) || attr.state != IBV_PORT_ACTIVE)
		return -ENODEV;
	c->lid = attr.lid;
	c->link_layer = attr.link_layer;
	c->mtu = c->path.mtu < attr.active_mtu ? c->path.mtu : (uint8_t)attr.active_mtu;
	r = make_regions(x, c, pd);
	if (!r)
		r = make_qp(x, c, pd);
	if (r)
		return r;
	v_look_wait(x, &g);
	r = slot_get(x, c);
	v_look_done(x, &g);
	if (!r && c->remote)
		r = v_recv_post(c, V_RQ);
	return r;
}

int v_conn_prepare(struct rt_conn *conn, const struct rt_prepare *p)
{
	struct v_ctx *x = v_ctx(conn->ctx);
	struct v_conn *c;
	struct v_guard g;
	int r;

	if (v_conn(conn))
		return -EISCONN;
	if (x->orphan)
		return -ECONNRESET;
	if (!x->lib) {
		r = rt_verbs_lib_get(&x->lib);
		if (r)
			return r;
	}
	RT_FAULT_POINT(r, -ENOMEM, err);
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->ctx = x;
	c->conn = conn;
	c->domain = -1;
	c->slot = UINT32_MAX;
	r = check_path(&c->path, p->path);
	if (!r)
		r = p->memory ? check_memory(c, p) : v_msg_open(c);
	if (r)
		goto err_free;
	c->sq_size = p->memory ? V_SQ : V_MSG_SQ;
	c->reserved = c->sq_size + V_RQ;
	if (getrandom(&c->psn, sizeof(c->psn), GRND_NONBLOCK) != sizeof(c->psn))
		c->psn = (uint32_t)v_now_ms() * 2654435761u;
	c->psn &= MAX24;
	r = make(x, c, p->identity);
	if (r)
		goto err_undo;
	*(struct v_conn **)conn->priv = c;
	return 0;

err_undo:
	v_look_wait(x, &g);
	undo(x, c);
	v_free(c);
	v_look_done(x, &g);
	return r;
err_free:
	v_msg_free(c);
	free(c);
err:
	__attribute__((unused));
	return r;
}

int v_conn_local(struct rt_conn *conn, void *buf, size_t *len)
{
	struct v_conn *c = v_conn(conn);
	struct v_blob b = {};
	size_t room = *len;

	if (!c)
		return -ENOTCONN;
	if (!c->qp)
		return c->state.error ?: -ECONNRESET;
	*len = sizeof(b);
	if (room < sizeof(b))
		return -EMSGSIZE;
	b.version = htole16(BLOB_VERSION);
	b.len = htole16(sizeof(b));
	b.qpn = htole32(c->qpn);
	b.psn = htole32(c->psn);
	b.ring0 = htole32(c->ring[0].size);
	memcpy(b.gid, c->path.gid, sizeof(b.gid));
	b.lid = htole16(c->lid);
	b.mtu = c->mtu;
	b.link_layer = c->link_layer;
	b.ctl_rkey = htole32(c->mr_ctl->rkey);
	b.ctl_addr = htole64((uintptr_t)c->ctl);
	b.recvs = htole32(c->recvs);
	b.check = htole64(blob_check(&b, c->nonce));
	memcpy(buf, &b, sizeof(b));
	return 0;
}

static int check_blob(const struct v_conn *c, struct v_blob *b, const struct rt_peer *peer)
{
	static const uint8_t none[16];

	if (peer->remote_len < sizeof(*b) || !peer->remote)
		return -EINVAL;
	memcpy(b, peer->remote, sizeof(*b));
	if (le16toh(b->version) != BLOB_VERSION || le16toh(b->len) != sizeof(*b) || b->reserved ||
	    le64toh(b->check) != blob_check(b, c->nonce))
		return -EPROTO;
	b->qpn = le32toh(b->qpn);
	b->psn = le32toh(b->psn);
	b->ring0 = le32toh(b->ring0);
	b->lid = le16toh(b->lid);
	b->ctl_rkey = le32toh(b->ctl_rkey);
	b->ctl_addr = le64toh(b->ctl_addr);
	b->recvs = le32toh(b->recvs);
	if (b->qpn < 2 || b->qpn > MAX24 || b->psn > MAX24 || b->mtu < IBV_MTU_256 || b->mtu > IBV_MTU_4096 ||
	    b->link_layer != c->link_layer || b->recvs > V_RQ || b->ring0 != c->ring[0].size)
		return -EPROTO;
	if (b->ctl_addr % WSD_REMOTE_PAGE || !b->ctl_addr || b->ctl_addr > UINT64_MAX - WSD_REMOTE_PAGE - b->ring0)
		return -EPROTO;
	if (c->link_layer == IBV_LINK_LAYER_ETHERNET && (!memcmp(b->gid, none, 16) || b->gid[0] == 0xff))
		return -EPROTO;
	return 0;
}

static int to_rts(struct v_ctx *x, struct v_conn *c, const struct v_blob *b)
{
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = c->mtu < b->mtu ? c->mtu : b->mtu,
		.dest_qp_num = b->qpn,
		.rq_psn = b->psn,
		.max_dest_rd_atomic = 1,
		.min_rnr_timer = 12,
		.ah_attr = {
			.dlid = b->lid,
			.port_num = c->path.port,
			.is_global = 1,
			.grh = {
				.sgid_index = (uint8_t)c->gid_index,
				.hop_limit = c->path.hop_limit,
				.traffic_class = c->path.tclass,
				.flow_label = c->path.flow_label,
			},
		},
	};
	int r;

	memcpy(a.ah_attr.grh.dgid.raw, b->gid, 16);
	RT_FAULT_POINT(r, -ENOMEM, out);
	r = x->lib->modify_qp(c->qp, &a, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			      IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	if (r)
		return v_errno(r > 0 ? r : errno);
	a = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS,
		.sq_psn = c->psn,
		.timeout = c->path.timeout,
		.retry_cnt = c->path.retry,
		.rnr_retry = c->path.rnr_retry,
		.max_rd_atomic = 1,
	};
	RT_FAULT_POINT(r, -ENOMEM, out);
	r = x->lib->modify_qp(c->qp, &a, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			      IBV_QP_MAX_QP_RD_ATOMIC);
	if (r)
		r = v_errno(r > 0 ? r : errno);
out:
	return r;
}

int v_conn_connect(struct rt_conn *conn, const struct rt_peer *peer)
{
	struct v_conn *c = v_conn(conn);
	struct v_blob b;
	int cancel, r;

	if (!c)
		return -ENOTCONN;
	if (!c->qp)
		return c->state.error ?: -ECONNRESET;
	r = check_blob(c, &b, peer);
	if (r)
		return r;
	c->peer_ctl = b.ctl_addr;
	c->peer_ctl_key = b.ctl_rkey;
	c->ring[0].remote = b.ctl_addr + WSD_REMOTE_PAGE;
	c->ring[0].rkey = b.ctl_rkey;
	c->peer_recvs = b.recvs;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	r = to_rts(c->ctx, c, &b);
	pthread_setcancelstate(cancel, NULL);
	c->connected = !r;
	return r;
}

/* ---- the end ---- */

static void linger_remove(struct v_ctx *x, struct v_conn *c)
{
	struct v_conn **p = &x->linger;

	if (!c->lingers)
		return;
	while (*p != c)
		p = &(*p)->next_linger;
	*p = c->next_linger;
	c->lingers = false;
	x->n_linger--;
}

static bool lingered(struct v_conn *c, uint64_t now)
{
	int32_t error = atomic_load(&c->state.error);

	if (!c->qp || now >= c->linger_end || (error && error != -ECANCELED))
		return true;
	return c->last_posted && (int32_t)(atomic_load(&c->sq_tail) - c->last) >= 0;
}

void v_reap(struct v_ctx *x, bool all)
{
	uint64_t now = v_now_ms();
	struct v_conn *c, *next;

	for (c = x->linger; c; c = next) {
		next = c->next_linger;
		if (!all && !lingered(c, now)) {
			if (!c->last_posted && !c->msg && v_post_try(c)) {
				c->last_posted = !v_last(c);
				v_post_done(c, true);
			}
			if (c->msg)
				c->last_posted = v_msg_bye(c);
			continue;
		}
		if (!v_post_try(c))
			continue;	/* the next pass will do it */
		linger_remove(x, c);
		v_destroy(c);
		v_post_done(c, true);
		if (!c->conn)
			v_free(c);
	}
}

static void linger_add(struct v_ctx *x, struct v_conn *c)
{
	struct v_conn **p = &x->linger;

	if (x->n_linger >= V_LINGER)
		v_reap(x, false);
	if (x->n_linger >= V_LINGER) {
		v_destroy(c);
		return;
	}
	while (*p)
		p = &(*p)->next_linger;
	c->next_linger = NULL;
	*p = c;
	c->lingers = true;
	c->linger_end = v_now_ms() + V_LINGER_MS;
	x->n_linger++;
}

void v_finish(struct v_conn *c, bool looking)
{
	struct v_ctx *x = c->ctx;
	struct v_guard g;

	if (!looking)
		v_look_wait(x, &g);
	if (c->qp && atomic_load(&c->closing) == V_CLOSE_LATER) {
		c->last_posted = c->msg ? v_msg_bye(c) : !v_last(c);
		linger_add(x, c);
	} else {
		v_destroy(c);
	}
	if (!looking)
		v_look_done(x, &g);
}

void v_stop(struct v_conn *c, bool drain)
{
	struct v_ctx *x = c->ctx;
	int32_t none = 0;
	struct v_guard g;
	int open = V_OPEN;
	bool later;

	if (x->orphan)
		return;
	later = atomic_compare_exchange_strong(&c->state.error, &none, -ECANCELED) && drain && c->connected;
	v_touch(c);
	/* what drains already goes on, or is cut off if that is what is asked now */
	if (later || (drain && atomic_load(&c->closing) != V_OPEN)) {
		atomic_compare_exchange_strong(&c->closing, &open, V_CLOSE_LATER);
	} else if (atomic_exchange(&c->closing, V_CLOSE_NOW) != V_CLOSE_NOW) {
		v_look_wait(x, &g);
		v_reset(c);
		c->linger_end = 0;
		v_look_done(x, &g);
	}
	v_post_leftover(c, false);
}

void v_conn_close(struct rt_conn *conn)
{
	struct v_conn *c = v_conn(conn);
	struct v_guard g;
	struct v_ctx *x;

	if (!c)
		return;
	x = c->ctx;
	if (x->orphan || c->orphan) {
		if (c->slot < x->n_slots && x->slot[c->slot] == c)
			x->slot[c->slot] = NULL;
		v_untell(x, c);
		c->ctl = NULL;	/* not there in a child */
		v_msg_free(c);
		free(c);
		return;
	}
	v_stop(c, true);
	v_look_wait(x, &g);
	v_untell(x, c);
	c->conn = NULL;
	c->remote = NULL;	/* the caller unmaps it */
	if (!c->lingers) {
		v_destroy(c);
		v_free(c);
	}
	v_look_done(x, &g);
}

int v_drop_device(struct rt_ctx *ctx, const char *device)
{
	struct v_ctx *x = v_ctx(ctx);
	struct v_guard g;
	int r = 0;

	if (x->orphan)
		return 0;
	if (!v_look_soon(x, &g))
		return -EBUSY;
	v_take_all(x);		/* what has arrived counts */
	for (uint32_t i = 0; i < x->n_slots; i++) {
		struct v_conn *c = x->slot[i];

		if (!c || !c->qp || (device ? strcmp(c->dev->name, device) != 0 : !v_device_gone(c->dev)))
			continue;
		v_fail(c, -ENETDOWN);
		atomic_store(&c->closing, V_CLOSE_NOW);
		v_reset(c);
		if (v_post_try(c)) {
			bool lingers = c->lingers, closed = !c->conn;

			linger_remove(x, c);
			v_destroy(c);
			v_post_done(c, true);
			if (lingers && closed)
				v_free(c);
		} else {
			r = -EBUSY;	/* who is inside destroys it on his way out */
		}
	}
	v_look_done(x, &g);
	return r;
}
