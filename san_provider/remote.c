/* SPDX-License-Identifier: MIT */
/*
 * remote.c - sessions over RDMA: from the daemon's SETUP to its GO, and their end
 *
 * SETUP brings memory of this end and the way to the peer: both are mapped and made into a queue pair, which is told (LOCAL). REMOTE
 * brings the peer's queue pair; ours is connected with it (READY). GO says that both are. Whatever fails on the way undoes all of it,
 * withdraws the offer with the reason, and the stream stays on TCP. A message out of its order is a broken daemon: the same.
 *
 * The memory holds nothing of the peer's before the queue pair is connected, and its first page never does: what stands there is the
 * daemon's, which is trusted with the stream, but not with our address space. So every word is compared with the message, whose
 * bounds the client has checked, and no offset is used that was not computed here.
 *
 * A process that re-attached (reattach.c) gets SETUP and GO: it has the memory and no queue pair, so its road only says so.
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <wsd/remote_session.h>

#include "proxy_daemon/client/rawsys.h"
#include "san_provider/san.h"

#define DROP_TRIES 16	/* while another thread is inside, which is for some microseconds */

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct san_old_ctx {
	struct san_old_ctx *next;
	struct rt_ctx *ctx;
};

static int open_remote(struct rt_ctx **ret)
{
	struct rt_config cfg = { .size = sizeof(cfg), .max_conns = SAN_OFFERS, .max_mrs = SAN_REGISTRATIONS, .lib = san_verbs_lib };
	struct rt_ctx *ctx = atomic_load(&san.rt_remote);
	int r;

	if (!ctx) {
		r = rt_ctx_open(&ctx, san.remote_name, &cfg);
		if (r)
			return r;
		if (!(rt_ctx_caps(ctx) & RT_CAP_ROAD)) {
			rt_ctx_close(ctx);
			return -EOPNOTSUPP;
		}
		atomic_store(&san.rt_remote, ctx);
		san.handles_gen++;
	}
	*ret = ctx;
	return 0;
}

static bool size_fit(uint32_t v, uint32_t min, uint32_t max)
{
	return v >= min && v <= max && !(v & (v - 1));
}

static bool setup_fit(const struct wsd_msg_san_setup *m)
{
	return size_fit(m->ring0, WSD_REMOTE_RING0_MIN, WSD_REMOTE_RING0_MAX) &&
	       (!m->ring1_max || size_fit(m->ring1_max, m->ring0, WSD_REMOTE_RING1_MAX)) &&
	       (!m->fill_max || size_fit(m->fill_max, WSD_REMOTE_RING0_MIN, WSD_REMOTE_RING1_MAX)) && m->nonce && m->session_id &&
	       m->length == wsd_remote_length(m->ring0, m->ring1_max, m->fill_max);
}

/* what the daemon wrote into it is what it said */
static bool header_fit(const struct wsd_remote *mem, const struct wsd_msg_san_setup *m)
{
	const volatile struct wsd_remote *h = mem;
	uint32_t at = 2 * WSD_REMOTE_PAGE;

	return h->magic == WSD_REMOTE_MAGIC && h->version == WSD_REMOTE_VERSION && h->side == m->side &&
	       h->session_id == m->session_id && h->nonce == m->nonce && h->length == m->length && h->epoch == m->epoch &&
	       h->ring0 == m->ring0 && h->ring1_max == m->ring1_max && h->fill_max == m->fill_max &&
	       h->off_ctl == WSD_REMOTE_PAGE && h->off_rx0 == at && h->off_tx0 == at + m->ring0 &&
	       h->off_rx1 == at + 2 * m->ring0 && h->off_tx1 == at + 2 * m->ring0 + m->ring1_max &&
	       h->off_fill == at + 2 * m->ring0 + 2 * m->ring1_max;
}

/* 0 or why not */
static unsigned map(struct san_offer *o, const struct proxy_msg *m)
{
	const struct wsd_msg_san_setup *s = &m->setup;
	size_t start = 2 * WSD_REMOTE_PAGE + 2 * (size_t)s->ring0;
	void *p;

	if (!setup_fit(s) || s->session_id != m->session_id)
		return WSD_R_PEER_BROKEN;
	p = mmap(NULL, s->length, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	if (p == MAP_FAILED)
		return WSD_R_NOMEM;
	o->remote = p;
	o->remote_length = s->length;
	o->session_id = s->session_id;
	/* present now, while that can still be refused. EINVAL: a kernel before 5.14, they come or fail at their first use */
	if (madvise(p, start, MADV_POPULATE_WRITE) && errno != EINVAL)
		return WSD_R_NOMEM;
	if (((const volatile struct wsd_remote *)o->remote)->version != WSD_REMOTE_VERSION)
		return WSD_R_VERSION;	/* this program was started before the daemon was replaced, or the other way round */
	return header_fit(o->remote, s) ? WSD_R_NONE : WSD_R_PEER_BROKEN;
}

/* 0 or why not */
static unsigned prepare(struct san_offer *o, const struct wsd_msg_san_setup *s)
{
	const struct wsd_san_path *w = &s->path;
	struct rt_path path = {
		.port = w->port, .link_layer = w->link_layer, .mtu = w->mtu, .tclass = w->tclass,
		.timeout = w->timeout, .retry = w->retry, .rnr_retry = w->rnr_retry, .hop_limit = w->hop_limit,
		.flow_label = w->flow_label,
	};
	struct rt_prepare p = {
		.size = sizeof(p), .path = &path, .memory = o->remote, .length = o->remote_length, .identity = s->peer_identity,
	};
	struct rt_ctx *ctx;
	int r;

	memcpy(path.device, w->device, sizeof(path.device));
	path.device[sizeof(path.device) - 1] = 0;
	memcpy(path.gid, w->gid, sizeof(path.gid));
	r = open_remote(&ctx);
	if (r)
		return r == -ENOMEM ? WSD_R_NOMEM : san_reason_of(r);
	r = rt_conn_new(&o->conn, ctx);
	if (r)
		return WSD_R_NOMEM;
	return san_reason_of(rt_conn_prepare(o->conn, &p));
}

int san_remote_send(struct san_offer *o)
{
	uint8_t blob[RT_LOCAL_MAX];
	size_t len = sizeof(blob);

	static_assert(RT_LOCAL_MAX <= WSD_SAN_BLOB_MAX, "it has to fit");
	if (o->state == OFFER_REMOTE)
		return proxy_client_san_ready(san.client, o->cookie, o->session_id);
	if (rt_conn_local(o->conn, blob, &len))
		return -EINVAL;
	return proxy_client_san_local(san.client, o->cookie, o->session_id, blob, len);
}

/* in the new state; sent now or, in its turn, with the next progress */
static int advance(struct san_offer *o, enum offer_state state)
{
	unsigned reason;
	int e;

	o->state = state;
	e = san.unsent.first ? WSAEWOULDBLOCK : san_offer_send(o, &reason);
	if (e == WSAEWOULDBLOCK)
		san_unsent_add(o);
	else if (e)
		return san_offer_fail(o, reason);
	return 0;
}

static bool asked_for(const struct san_offer *o)
{
	return o->reattach || (o->expect.data.flags & (WSD_CONNECT_SAN | WSD_CONNECT_FORCE));
}

int san_remote_setup(struct san_offer *o, const struct proxy_msg *m)
{
	unsigned why;

	if (o->state == OFFER_SESSION || o->state == OFFER_REFUSED)
		return 0;	/* a second answer: the first one stands */
	if (o->state != OFFER_PENDING || !asked_for(o) ||
	    (!o->reattach && m->setup.side != (o->role == WSD_ROLE_CONNECT ? 0 : 1)))
		return san_offer_fail(o, WSD_R_PEER_BROKEN);
	why = map(o, m);
	if (!why && o->reattach) {
		o->role = m->setup.side == 0 ? WSD_ROLE_CONNECT : WSD_ROLE_ACCEPT;
		o->state = OFFER_REMOTE;
		return 0;
	}
	if (!why)
		why = prepare(o, &m->setup);
	if (why)
		return san_offer_fail(o, why);
	san_wait_refresh();
	return advance(o, OFFER_SETUP);
}

int san_remote_peer(struct san_offer *o, const struct proxy_msg *m)
{
	struct rt_peer peer = {
		.size = sizeof(peer),
		.side = o->role == WSD_ROLE_CONNECT ? 0 : 1,
		.session_id = o->session_id,
		.remote = m->blob,
		.remote_len = m->blob_len,
	};
	int r;

	if (o->state >= OFFER_SESSION)
		return 0;
	if (o->state != OFFER_SETUP || o->unsent || m->session_id != o->session_id)
		return san_offer_fail(o, WSD_R_PEER_BROKEN);
	r = rt_conn_connect(o->conn, &peer);
	if (r)
		return san_offer_fail(o, san_reason_of(r));
	return advance(o, OFFER_REMOTE);
}

int san_remote_go(struct san_offer *o, const struct proxy_msg *m)
{
	if (o->state >= OFFER_SESSION)
		return 0;
	if (o->state != OFFER_REMOTE || o->unsent || m->session_id != o->session_id)
		return san_offer_fail(o, WSD_R_PEER_BROKEN);
	o->state = OFFER_SESSION;
	o->reason = WSD_R_NONE;
	return o->reattach ? 0 : san_settle(o);
}

/*
 * What was posted goes out in the background. Whether it arrived is known only if all is completed now; if not, the daemon has
 * the source ring and knows what the peer has taken (A7).
 */
void san_remote_stop(struct san_offer *o, unsigned reason)
{
	const struct wsd_put_state *st = o->road.state;
	uint64_t posted;

	if (!o->remote || !o->road.size || !o->conn)
		return;
	o->road.size = 0;
	o->road.poll(o->road.conn);
	posted = atomic_load_explicit(&o->remote->posted, memory_order_acquire);
	if (o->daemon_knows && !atomic_load(&st->error) && atomic_load(&st->done) >= posted)
		proxy_client_san_ask(san.client, o->cookie, o->session_id, WSD_SAN_DRAINED, posted, 0);
	o->road.stop(o->road.conn, reason != WSD_R_PEER_BROKEN);
}

void san_remote_undo(struct san_offer *o)
{
	if (!o->remote)
		return;
	o->conn = rt_conn_close(o->conn);
	munmap(o->remote, o->remote_length);
	o->remote = NULL;
	o->road.size = 0;
}

/*
 * `rdma link delete` waits until every process has closed the device. Which devices are gone the transport sees itself; when to look
 * the daemon says, by revoking what ran over them and by raising san_gen.
 */
void san_remote_devices(void)
{
	struct rt_ctx *ctx = atomic_load(&san.rt_remote);
	struct wsd_subnet none;
	uint32_t gen = 0;
	int r = -EBUSY;

	if (!ctx)
		return;
	proxy_client_subnets(san.client, &none, 0, &gen);
	gen = WSD_SAN_GEN_DEVICES(gen);
	if (gen != san.san_gen) {	/* also from or to 0: a daemon counts from there, and a new one begins anew */
		san.devices_moved = true;
		san.san_gen = gen;
	}
	if (!san.devices_moved)
		return;
	for (unsigned i = 0; i < DROP_TRIES && r == -EBUSY; i++) {
		if (i)
			sched_yield();
		r = rt_ctx_drop_device(ctx, NULL);
	}
	san.devices_moved = r == -EBUSY;
}

/* the parent's connections are in the old context, to be closed one by one; new ones get a new one */
void san_remote_after_fork(void)
{
	struct rt_ctx *ctx = atomic_exchange(&san.rt_remote, NULL);
	struct san_old_ctx *old;

	if (!ctx)
		return;
	rt_ctx_orphan(ctx);
	san.handles_gen += rt_ctx_fds_gen(ctx) + 1;	/* the sum goes on rising: wait.c */
	san.devices_moved = false;
	for (uint32_t i = 0; i < san.offers.n; i++) {
		struct san_offer *o = san_table_at(&san.offers, i);

		if (o && o->remote)
			o->road.size = 0;	/* nothing to drain here, and nobody to tell */
	}
	old = malloc(sizeof(*old));
	if (!old)
		return;		/* it stays, closed but for its memory */
	*old = (struct san_old_ctx){ san.old, ctx };
	san.old = old;
}

void san_remote_cleanup(void)
{
	struct san_old_ctx *o;

	rt_ctx_close(atomic_exchange(&san.rt_remote, NULL));
	while ((o = san.old)) {
		san.old = o->next;
		rt_ctx_close(o->ctx);
		free(o);
	}
}
