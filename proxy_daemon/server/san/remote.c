/* SPDX-License-Identifier: MIT */
#define HASH_NONFATAL_OOM 1
#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "proxy_daemon/server/conn.h"
#include "proxy_daemon/server/end.h"
#include "proxy_daemon/server/log.h"
#include "proxy_daemon/server/san/fill_buffer.h"
#include "proxy_daemon/server/san/link.h"
#include "proxy_daemon/server/san/memlock.h"
#include "proxy_daemon/server/san/remote.h"

#define LINK_LAYER_ETHERNET	2u	/* IBV_LINK_LAYER_ETHERNET */
#define RNR_RETRY		6u	/* receives are credited: it is never needed; 7 would be for ever */
#define HOP_LIMIT		64u

/* ---- packets ---- */

static int send_setup_to(struct remote *r, struct conn *c, uint64_t cookie)
{
	struct wsd_msg_san_setup m = {
		.hdr = { .len = sizeof(m), .version = WSD_PROXY_VERSION, .type = WSD_MSG_SAN_SETUP, .cookie = cookie },
		.session_id = r->id, .nonce = r->mem.nonce, .length = r->mem.length, .peer_identity = r->peer_identity,
		.side = r->side, .epoch = r->epoch,
		.ring0 = r->mem.ring0, .ring1_max = r->mem.ring1_max, .fill_max = r->mem.fill_max, .path = r->path,
	};

	return conn_send(c, &m, sizeof(m), r->mem.fd);
}

static int send_setup(struct remote *r, uint64_t peer_identity)
{
	r->peer_identity = peer_identity;
	return send_setup_to(r, r->end->conn, r->end->cookie);
}

static void send_plain(struct remote *r, uint16_t type)
{
	struct wsd_msg_san_plain m = {
		.hdr = { .len = sizeof(m), .version = WSD_PROXY_VERSION, .type = type, .cookie = r->end->cookie },
		.session_id = r->id,
	};

	(void)conn_send(r->end->conn, &m, sizeof(m), -1);
}

int remote_send_again(struct remote *r, struct conn *c, uint64_t cookie, const struct wsd_side_at *at)
{
	struct wsd_msg_side m = {
		.hdr = { .len = sizeof(m), .version = WSD_PROXY_VERSION, .type = WSD_MSG_SAN_SIDE, .cookie = cookie },
		.session_id = r->id, .at = *at,
	};
	struct wsd_msg_san_plain go = {
		.hdr = { .len = sizeof(go), .version = WSD_PROXY_VERSION, .type = WSD_MSG_SAN_GO, .cookie = cookie },
		.session_id = r->id,
	};
	int res = send_setup_to(r, c, cookie);

	if (!res)
		res = conn_send(c, &m, sizeof(m), -1);
	return res ? res : conn_send(c, &go, sizeof(go), -1);
}

void remote_wake(struct remote *r)
{
	struct conn *c = r->end ? r->end->conn : NULL;

	/* a client that computes for long is not dropped because of packets that only wake: its socket is readable anyway */
	if (r->state == REMOTE_LIVE && c && c->n_queue < CONN_QUEUE_MAX / 4)
		send_plain(r, WSD_MSG_SAN_LOOK);
}

int remote_tell(struct remote *r, uint16_t type, const void *body, size_t n, const void *tail, size_t m)
{
	struct peer_msg msg = {
		.hdr = { .len = (uint32_t)(sizeof(msg.hdr) + n + m), .type = type, .body = (uint16_t)n, .id = r->id },
		.tail = tail, .n_tail = m,
	};

	if (r->peer_gone)
		return -ENOTCONN;
	if (r->key.far)
		return far_send(r->key.far, type, r->id, body, n, tail, m);
	if (!r->peer)
		return -ENOTCONN;
	if (n)
		memcpy(&msg.body, body, n);
	remote_hear(r->peer, &msg);
	return 0;
}

void remote_want_return(struct remote *r)
{
	r->want_asked = true;	/* and asked again over a new link */
	(void)remote_tell(r, WSD_PEER_WANT_RETURN, NULL, 0, NULL, 0);
}

static void tell_reason(struct remote *r, uint16_t type, uint32_t reason)
{
	(void)remote_tell(r, type, &(struct wsd_peer_reason){ .reason = reason }, sizeof(struct wsd_peer_reason), NULL, 0);
}

/* ---- life ---- */

static void uncharge(struct remote *r)
{
	if (!r->user)
		return;
	quota_uncharge_one(r->user, r->charged);
	r->user->n_remotes--;
	r->srv->bytes_mapped -= r->charged;
	user_put(&r->srv->users, r->user);
	r->user = NULL;
	r->charged = 0;
}

static void lose_maker(struct remote *r)
{
	if (r->maker)
		r->maker->n_remotes--;
	r->maker = NULL;
	memlock_release(r->srv, r->lockee, r->locked);
	r->lockee = NULL;
	r->locked = 0;
}

void remote_drop(struct remote *r)
{
	struct server *srv = r->srv;

	if (r->key.far) {
		HASH_DELETE(hh, srv->san.by_far, r);
		far_release(r->key.far);
	}
	if (r->peer) {
		r->peer->peer = NULL;
		remote_peer_gone(r->peer);
	} else if (r->state == REMOTE_LIVE) {
		srv->san.n_sessions--;
	}
	r->deadline = sd_event_source_disable_unref(r->deadline);
	if (r->end)
		r->end->rdma = NULL;
	lose_maker(r);
	uncharge(r);
	memory_drop(&r->mem);
	TAILQ_REMOVE(&srv->san.remotes, r, link);
	srv->san.n_remotes--;
	log_debug("remote session %016llx: side %u has ended", (unsigned long long)r->id, r->side);
	free(r);
	if (!srv->san.n_remotes && srv->san.sweep)
		(void)sd_event_source_set_enabled(srv->san.sweep, SD_EVENT_OFF);
	server_maybe_done(srv);
}

void remote_refuse(struct remote *r, uint32_t reason)
{
	struct end *e = r->end;

	remote_drop(r);
	end_refuse(e, reason);
}

/* ... and the other end */
static void fail(struct remote *r, uint32_t reason)
{
	log_debug("remote session %016llx is not to be: reason %u", (unsigned long long)r->id, reason);
	tell_reason(r, WSD_PEER_WITHDRAW, reason);
	remote_refuse(r, reason);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *data)
{
	struct remote *r = data;

	log_client("remote session %016llx: the clients were not ready in time", (unsigned long long)r->id);
	fail(r, WSD_R_RDMA_FAILED);
	return 0;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
	a = (a ^ b) * 0xff51afd7ed558ccdull;
	return a ^ a >> 32;
}

uint64_t remote_identity(const struct server *srv, const uint8_t ip[16], uint32_t uid)
{
	uint64_t h[2];

	memcpy(h, ip, sizeof(h));
	return mix(mix(mix(srv->san.identity, h[0]), h[1]), uid);
}

uint32_t remote_ring0(const struct end *e)
{
	const struct san_config *cfg = san_config(e->srv);
	uint32_t want = e->ring_size ? e->ring_size : cfg->ring_start, size = WSD_REMOTE_RING0_MIN;

	if (want > cfg->ring_max)
		want = cfg->ring_max;
	while (size < want && size < WSD_REMOTE_RING0_MAX)
		size *= 2;
	return size;
}

void remote_sizes(struct memory_params *p)
{
	if (p->ring1_max < p->ring0)
		p->ring1_max = p->ring0;
	p->fill_max = p->ring1_max < 64u << 10 ? 64u << 10 : p->ring1_max;	/* one FILL fits */
}

static void set_path(struct remote *r, const struct dev_gid *g)
{
	const struct san_config *cfg = san_config(r->srv);

	strcpy(r->path.device, g->device);
	memcpy(r->path.gid, g->gid, 16);
	r->path.port = g->port;
	r->path.link_layer = LINK_LAYER_ETHERNET;
	r->path.mtu = g->mtu;
	r->path.timeout = cfg->qp_timeout;
	r->path.retry = cfg->qp_retry;
	r->path.rnr_retry = RNR_RETRY;
	r->path.hop_limit = HOP_LIMIT;
}

static uint64_t locked_per_qp(const struct server *srv, const struct dev_gid *g)
{
	uint64_t bytes = san_config(srv)->locked_per_qp;

	if (bytes != UINT64_MAX)
		return bytes;
	return g->soft ? 0 : 24u << 10;		/* queues of hardware lie in memory that is locked too */
}

/* memory, quota and limit of one end; the client is not told yet. 0 or the reason why not */
static uint32_t make(struct end *e, const struct memory_params *p, const struct dev_gid *g, struct remote **ret)
{
	struct server *srv = e->srv;
	struct remote *r;
	uint32_t reason;

	if (srv->san.n_remotes >= MAX_REMOTES || e->user->n_remotes >= san_config(srv)->quota_sessions)
		return WSD_R_LIMIT;
	if (!srv->san.fill)
		srv->san.fill = malloc(sizeof(*srv->san.fill));
	if (!srv->san.fill)
		return WSD_R_NOMEM;
	r = calloc(1, sizeof(*r));
	if (!r)
		return WSD_R_NOMEM;
	r->srv = srv;
	r->id = p->session_id;
	r->epoch = p->epoch;
	r->side = p->side;
	r->charged = memory_start(p->ring0);
	r->locked = memory_locked(p->ring0) + locked_per_qp(srv, g);
	reason = (uint32_t)quota_charge_one(&srv->quota, e->user, r->charged);
	if (reason)
		goto err_free;
	reason = memlock_admit(e->conn, r->locked, &r->lockee);
	if (reason)
		goto err_uncharge;
	reason = WSD_R_NOMEM;
	if (memory_make(&r->mem, p))
		goto err_unlock;
	if (r->mem.fd >= srv->fd_keep_max)
		goto err_memory;
	if (sd_event_add_time(srv->event, &r->deadline, CLOCK_MONOTONIC, server_now_us(srv) + srv->san.setup_us, 0, on_deadline, r) < 0)
		goto err_memory;
	set_path(r, g);
	r->user = user_ref(e->user);
	r->user->n_remotes++;
	srv->bytes_mapped += r->charged;
	r->maker = e->conn;
	r->maker->n_remotes++;
	r->end = e;
	TAILQ_INSERT_TAIL(&srv->san.remotes, r, link);
	srv->san.n_remotes++;
	*ret = r;
	return 0;

err_memory:
	memory_drop(&r->mem);
err_unlock:
	memlock_release(srv, r->lockee, r->locked);
err_uncharge:
	quota_uncharge_one(e->user, r->charged);
err_free:
	free(r);
	return reason;
}

static void join_end(struct remote *r)
{
	end_begin_remote(r->end);
	r->end->rdma = r;
	r->end->side = r->side;
}

uint32_t remote_pair(struct end *e0, struct end *e1)
{
	struct server *srv = e0->srv;
	struct memory_params p = { .ring1_max = san_config(srv)->ring_max, .epoch = 1 };
	static const uint8_t here[16];
	const struct dev_gid *g[2];
	struct end *e[2] = { e0, e1 };
	struct remote *r[2];
	uint32_t reason;
	unsigned i;

	/* devices of the daemon's own network only: names elsewhere may mean others */
	if (e0->ns->dev != srv->netns.own_dev || e0->ns->ino != srv->netns.own_ino)
		return WSD_R_NO_RDMA;
	san_watch(srv);
	for (i = 0; i < 2; i++) {
		g[i] = dev_find(&srv->san.devs, &e[i]->local, true);
		if (!g[i])
			return WSD_R_NO_RDMA;
	}
	if (getrandom(&p.nonce, sizeof(p.nonce), GRND_NONBLOCK) < 0)
		return WSD_R_NOMEM;
	if (!p.nonce)
		p.nonce = 1;
	p.session_id = srv->next_session_id++;
	if (!p.session_id)
		p.session_id = srv->next_session_id++;
	p.ring0 = remote_ring0(e0);
	if (remote_ring0(e1) > p.ring0)
		p.ring0 = remote_ring0(e1);
	if (p.ring1_max > WSD_REMOTE_RING1_MAX)
		p.ring1_max = WSD_REMOTE_RING1_MAX;
	remote_sizes(&p);

	for (i = 0; i < 2; i++) {
		p.side = i;
		reason = make(e[i], &p, g[i], &r[i]);
		if (reason) {
			if (i)
				remote_drop(r[0]);
			return reason;
		}
	}
	r[0]->peer = r[1];
	r[1]->peer = r[0];
	join_end(r[0]);
	join_end(r[1]);
	log_debug("remote session %016llx: pid %d fd %d and pid %d fd %d over %s", (unsigned long long)p.session_id,
		  e0->pid, e0->fd, e1->pid, e1->fd, g[0]->device);
	if (send_setup(r[0], remote_identity(srv, here, e1->uid)) || send_setup(r[1], remote_identity(srv, here, e0->uid)))
		fail(r[0], WSD_R_LIMIT);
	return 0;
}

/* was Start taken? Void from now on, if not. A value that cannot be is as good as taken: the client has broken its own stream */
static void say_decided(struct remote *r)
{
	uint32_t was = WSD_DECIDE_UNSET;

	if (atomic_compare_exchange_strong(&r->mem.rs->decide, &was, WSD_DECIDE_VOID))
		was = WSD_DECIDE_VOID;
	tell_reason(r, WSD_PEER_DECIDED, was == WSD_DECIDE_VOID ? WSD_PEER_VOID : WSD_PEER_TAKEN);
}

uint32_t remote_begin(struct end *e, struct far *far, const struct memory_params *p, const struct dev_gid *g, uint64_t peer_identity,
		      uint8_t mtu)
{
	struct remote *r;
	uint32_t reason = make(e, p, g, &r);

	if (reason)
		return reason;
	r->key.far = far;
	r->key.id = p->session_id;
	HASH_ADD(hh, e->srv->san.by_far, key, sizeof(r->key), r);
	if (!r->hh.tbl) {
		r->key.far = NULL;
		remote_drop(r);
		return WSD_R_NOMEM;
	}
	far_hold(far);
	if (mtu < r->path.mtu)
		r->path.mtu = mtu;
	join_end(r);
	log_debug("remote session %016llx: pid %d fd %d over %s", (unsigned long long)r->id, e->pid, e->fd, g->device);
	if (send_setup(r, peer_identity))
		fail(r, WSD_R_LIMIT);
	return 0;
}

void remote_close(struct end *e, uint32_t reason)
{
	struct remote *r = e->rdma;

	if (!r)
		return;
	if (r->srv->finishing) {
		/* the clients go on without a daemon, or return: nothing is known to have ended */
		r->peer = NULL;
		remote_drop(r);
		return;
	}
	if (r->state == REMOTE_SETUP) {
		tell_reason(r, WSD_PEER_WITHDRAW, reason ? reason : WSD_R_NOT_TCP);
	} else {
		say_decided(r);
		/* what was said of a shutdown is said again: nothing that is sent here now is read */
		r->left = !reason;
		r->said_ended = r->said_ended && !r->left;
		if (remote_say_ended(r) && r->key.far && !r->peer_gone) {
			/* the rest goes when the link has room, or is there again */
			lose_maker(r);
			if (!far_is_up(r->key.far) && !r->down_us)
				r->down_us = server_now_us(r->srv);
			r->last_reason = reason;
			r->end->rdma = NULL;
			r->end = NULL;
			return;
		}
		if (reason)
			tell_reason(r, WSD_PEER_WITHDRAW, reason);
	}
	remote_drop(r);
}

void remote_maker_gone(struct conn *c)
{
	struct server *srv = c->srv;
	struct remote *r, *next;

	for (r = TAILQ_FIRST(&srv->san.remotes); r && c->n_remotes; r = next) {
		next = TAILQ_NEXT(r, link);
		if (r->maker != c)
			continue;
		lose_maker(r);
		if (r->state != REMOTE_LIVE || srv->finishing)
			continue;	/* end_conn_gone() has ended, or ends, what was being set up */
		atomic_store(&r->mem.rs->owner_gone, 1);
		(void)fill_send(r, UINT64_MAX);
		r->return_due = true;
		if (r->end && r->end->conn)
			remote_still_held(r->end);
		remote_wake(r);
	}
}

/*
 * A RETURN that comes to a socket nobody holds is answered with a reset, which throws away what its process sent last and the peer has not read:
 * so the peer is not asked for one before it is known that somebody is there to read it.
 */
void remote_still_held(struct end *e)
{
	struct remote *r = e->rdma;

	if (!r || !r->return_due)
		return;
	r->return_due = false;
	remote_want_return(r);
}

/* ---- setting up ---- */

static struct remote *find(struct end *e, uint64_t session_id)
{
	return e && e->rdma && e->rdma->id == session_id ? e->rdma : NULL;
}

static void try_go(struct remote *r)
{
	if (!r->ready || !r->peer_ready || r->state == REMOTE_LIVE)
		return;
	r->state = REMOTE_LIVE;
	r->deadline = sd_event_source_disable_unref(r->deadline);
	if (!r->peer || r->peer->state != REMOTE_LIVE) {
		r->srv->san.n_sessions++;
		r->srv->san.n_sessions_total++;
	}
	r->end->attached = true;
	r->seen_us = server_now_us(r->srv);
	san_sweep_start(r->srv);
	send_plain(r, WSD_MSG_SAN_GO);
}

void remote_local(struct end *e, const struct wsd_msg_san_blob *m)
{
	struct remote *r = find(e, m->session_id);

	if (!r)
		return;
	if (r->got_local) {
		conn_error(e->conn, WSD_R_PEER_BROKEN, "a second SAN_LOCAL");
		return;
	}
	r->got_local = true;
	(void)remote_tell(r, WSD_PEER_LOCAL, NULL, 0, m->blob, m->len);
}

void remote_ready(struct end *e, const struct wsd_msg_san_plain *m)
{
	struct remote *r = find(e, m->session_id);

	if (!r)
		return;
	if (r->ready || !r->got_local || !r->told_remote) {
		conn_error(e->conn, WSD_R_PEER_BROKEN, "SAN_READY out of turn");
		return;
	}
	r->ready = true;
	(void)remote_tell(r, WSD_PEER_READY, NULL, 0, NULL, 0);
	try_go(r);
}

void remote_peer_gone(struct remote *r)
{
	r->peer_gone = true;
	if (r->decide_asked && !atomic_load(&r->mem.rs->decided))
		atomic_store(&r->mem.rs->decided, WSD_DECIDED_NEVER);
	if (r->end_asked && !atomic_load(&r->mem.rs->end_valid))
		atomic_store(&r->mem.rs->end_valid, 2);
	if (r->plain_asked && !atomic_load(&r->mem.rs->plain_there))
		atomic_store(&r->mem.rs->plain_there, 2);
	if (r->decide_asked || r->end_asked || r->plain_asked)
		remote_wake(r);
}

static void hear_local(struct remote *r, const struct peer_msg *m)
{
	struct wsd_msg_san_blob b = {
		.hdr = { .len = sizeof(b), .version = WSD_PROXY_VERSION, .type = WSD_MSG_SAN_REMOTE },
		.session_id = r->id, .len = (uint32_t)m->n_tail,
	};

	if (r->told_remote || !m->n_tail || m->n_tail > sizeof(b.blob) || !r->end->conn)
		return;
	r->told_remote = true;
	b.hdr.cookie = r->end->cookie;
	memcpy(b.blob, m->tail, m->n_tail);
	(void)conn_send(r->end->conn, &b, sizeof(b), -1);
}

static void hear_withdraw(struct remote *r, uint32_t reason)
{
	if (reason == WSD_R_NONE || reason >= _WSD_R_N)
		reason = WSD_R_RDMA_FAILED;
	if (r->state == REMOTE_SETUP) {
		remote_refuse(r, reason);
		return;
	}
	if (!r->end) {
		remote_drop(r);		/* nobody hears its last bytes */
		return;
	}
	remote_revoke(r, reason, true);
	remote_peer_gone(r);
}

/* ---- what the other end says ---- */

static void store_end(struct remote *r, uint64_t posted)
{
	struct wsd_remote *rs = r->mem.rs;
	uint32_t how = 1;

	if (atomic_load(&rs->end_valid))
		return;
	if (r->fill_failed && posted > r->filled && posted > atomic_load(&rs->head))
		how = 2;
	atomic_store(&rs->end_posted, posted);
	atomic_store_explicit(&rs->end_valid, how, memory_order_release);
}

static void hear_fill(struct remote *r, const struct peer_msg *m)
{
	int res = fill_take(r, m);

	if (!res)
		return;
	log_client("remote session %016llx: ring bytes cannot be kept: %s", (unsigned long long)r->id, strerror(-res));
	r->fill_failed = true;
}

void remote_hear(struct remote *r, const struct peer_msg *m)
{
	struct wsd_remote *rs = r->mem.rs;

	switch (m->hdr.type) {
	case WSD_PEER_LOCAL:
		if (r->state == REMOTE_SETUP)
			hear_local(r, m);
		return;
	case WSD_PEER_READY:
		r->peer_ready = true;
		try_go(r);
		return;
	case WSD_PEER_WITHDRAW:
		hear_withdraw(r, m->body.reason.reason);
		return;
	}
	if (r->state != REMOTE_LIVE)
		return;
	if (!r->end && m->hdr.type != WSD_PEER_DECIDE)
		return;
	switch (m->hdr.type) {
	case WSD_PEER_ENDED:
		if (m->body.ended.flags & WSD_PEER_ENDED_LEFT)
			atomic_store(&rs->peer_left, 1);
		store_end(r, m->body.ended.posted);
		break;
	case WSD_PEER_FILL:
		hear_fill(r, m);
		break;
	case WSD_PEER_DECIDE:
		say_decided(r);
		return;
	case WSD_PEER_DECIDED:
		r->decide_asked = false;
		atomic_store(&rs->decided, m->body.reason.reason == WSD_PEER_VOID ? WSD_DECIDED_VOID : WSD_DECIDED_TAKEN);
		break;
	case WSD_PEER_WANT_RETURN:
		if (atomic_exchange(&rs->x_return, 1))
			return;
		break;
	case WSD_PEER_PLAIN_AT:
		/* first the word, then that it is there: the sender goes on by that */
		r->plain_owed = m->body.plain.tcp_off;
		if (atomic_exchange(&rs->plain_at, r->plain_owed) != r->plain_owed)
			remote_wake(r);
		remote_say_plain(r);
		return;
	case WSD_PEER_PLAIN_IS:
		if (!r->plain_asked || m->body.plain.tcp_off != r->plain_asked)
			return;
		r->plain_asked = 0;
		atomic_store(&rs->plain_there, 1);
		break;
	case WSD_PEER_ASK_END:
		if (end_has_finished(r->end)) {
			r->said_ended = false;	/* what was said may have gone with a link */
			(void)remote_say_ended(r);
		}
		return;
	case WSD_PEER_HEAD:
		/* behind RETURN the ring is not read any more: what counts is what the program has (F18) */
		(void)remote_tell(r, WSD_PEER_HEAD_IS,
				  &(struct wsd_peer_head){ atomic_load(atomic_load(&rs->ystate) == WSD_Y_DROPPING ? &rs->taken : &rs->head) },
				  sizeof(struct wsd_peer_head), NULL, 0);
		return;
	case WSD_PEER_HEAD_IS:
		/* what has arrived is the reader's to take */
		if (m->body.head.head < r->asked_posted)
			(void)fill_send(r, r->asked_posted);
		return;
	default:
		return;
	}
	remote_wake(r);
}

/* ---- revocation ---- */

void remote_revoke(struct remote *r, uint32_t reason, bool tell)
{
	uint32_t was = 0;

	if (r->state == REMOTE_SETUP) {
		fail(r, reason);
		return;
	}
	if (!atomic_compare_exchange_strong(&r->mem.rs->revoked, &was, reason) && !tell)
		return;
	if (!r->end)
		return;
	/* ours goes away with our queue pair; what the peer sends would be lost on it, which it else notices late, or when it sends next */
	remote_want_return(r);
	r->end->reason = reason;
	if (tell && r->end->conn)
		conn_send_reason(r->end->conn, WSD_MSG_REVOKED, r->end->cookie, reason);
	else
		remote_wake(r);
}

/* r may take its peer, which may be the next, with it: begin again after each that went */
static void revoke_those(struct server *srv, uint32_t reason, bool tell, bool gone_only)
{
	struct remote *r;
	bool again;

	do {
		again = false;
		TAILQ_FOREACH(r, &srv->san.remotes, link) {
			if (gone_only && dev_has(&srv->san.devs, r->path.device, r->path.port, r->path.gid))
				continue;
			again = r->state == REMOTE_SETUP;
			remote_revoke(r, reason, tell);
			if (again)
				break;
		}
	} while (again);
}

void remote_revoke_all(struct server *srv, uint32_t reason)
{
	revoke_those(srv, reason, true, false);
}

void remote_devices_changed(struct server *srv)
{
	revoke_those(srv, WSD_R_RDMA_FAILED, false, true);
}

void remote_look(const struct remote *r, struct remote_look *ret)
{
	struct wsd_remote *rs = r->mem.rs;
	uint64_t head = atomic_load(&rs->head);
	uint32_t x = atomic_load(&rs->xstate), y = atomic_load(&rs->ystate);

	if (head < r->filled)
		head = r->filled;
	ret->posted = atomic_load(&rs->posted);
	ret->head = head;
	ret->taken = atomic_load(&rs->taken);
	ret->unread = head - ret->taken <= r->mem.ring1_max ? (uint32_t)(head - ret->taken) : r->mem.ring1_max;
	ret->framed_tx = x == WSD_X_FRAMED;
	ret->framed_rx = y == WSD_Y_FRAMED;
}
