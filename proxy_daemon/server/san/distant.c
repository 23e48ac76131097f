/* SPDX-License-Identifier: MIT */
#define HASH_NONFATAL_OOM 1
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <uthash.h>

#include "proxy_daemon/server/conn.h"
#include "proxy_daemon/server/end.h"
#include "proxy_daemon/server/log.h"
#include "proxy_daemon/server/san/distant.h"
#include "proxy_daemon/server/san/link.h"
#include "proxy_daemon/server/san/remote.h"
#include "proxy_daemon/server/san/route.h"

enum distant_state { DISTANT_LINK, DISTANT_OFFERED, DISTANT_HOME, DISTANT_KEPT, DISTANT_FOUND };

struct distant {
	TAILQ_ENTRY(distant) link;
	struct server *srv;
	struct distant_key {		/* of by_id. far is held; id: OFFERED, KEPT, FOUND, else 0 and not in the table */
		struct far *far;
		uint64_t id;
	} key;
	UT_hash_handle hh;
	struct end *end;		/* NULL: KEPT */
	struct user *user;		/* whose share it takes, a reference; NULL: KEPT */
	enum distant_state state;
	struct wsd_peer_offer offer;	/* theirs: KEPT, FOUND */
	uint8_t nonce[16];		/* OFFERED: ours */
	struct diag_sock before;	/* OFFERED: our socket then */
	sd_event_source *deadline;
};

static uint32_t reason_of(enum link_why why)
{
	switch (why) {
	case LINK_NOT_SAN:
		return WSD_R_NOT_SAN;
	case LINK_NO_KEY:
		return WSD_R_NO_KEY;
	case LINK_VERSION:
	case LINK_ROAD:
		return WSD_R_PEER_VERSION;
	case LINK_LIMIT:
		return WSD_R_LIMIT;
	default:
		return WSD_R_NO_PEER;
	}
}

static void say_reason(struct far *far, uint16_t type, uint64_t id, uint32_t reason)
{
	struct wsd_peer_reason m = { .reason = reason };

	(void)far_send(far, type, id, &m, sizeof(m), NULL, 0);
}

/* ---- life ---- */

static void put(struct distant *d)
{
	struct server *srv = d->srv;

	d->deadline = sd_event_source_disable_unref(d->deadline);
	if (d->end)
		d->end->distant = NULL;
	if (d->key.id)
		HASH_DELETE(hh, srv->san.distants_by_id, d);
	TAILQ_REMOVE(&srv->san.distants, d, link);
	srv->san.n_distants--;
	if (d->user) {
		d->user->n_distants--;
		user_put(&srv->users, d->user);
	}
	far_release(d->key.far);
	free(d);
}

/* our end stays on TCP */
static void give_up(struct distant *d, uint32_t reason)
{
	struct end *e = d->end;

	put(d);
	if (e)
		end_refuse(e, reason);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *data)
{
	struct distant *d = data;

	if (d->state == DISTANT_KEPT || d->state == DISTANT_FOUND)
		say_reason(d->key.far, WSD_PEER_REFUSE, d->key.id, WSD_R_PEER_UNAWARE);
	else if (d->state == DISTANT_OFFERED)
		say_reason(d->key.far, WSD_PEER_WITHDRAW, d->key.id, WSD_R_PEER_UNAWARE);
	give_up(d, d->state == DISTANT_LINK ? WSD_R_NO_PEER : WSD_R_PEER_UNAWARE);
	return 0;
}

/* false: its user has as many as the share allows */
static bool give_end(struct distant *d, struct end *e)
{
	if (e->user->n_distants >= san_config(d->srv)->quota_waiting)
		return false;
	d->end = e;
	d->user = user_ref(e->user);
	d->user->n_distants++;
	e->distant = d;
	return true;
}

static struct distant *distant_new(struct server *srv, struct far *far, struct end *e, enum distant_state state)
{
	struct distant *d;

	if (srv->san.n_distants >= DISTANT_MAX)
		return NULL;
	d = calloc(1, sizeof(*d));
	if (!d)
		return NULL;
	d->srv = srv;
	if (sd_event_add_time(srv->event, &d->deadline, CLOCK_MONOTONIC, server_now_us(srv) + DISTANT_US, 0, on_deadline, d) < 0 ||
	    (e && !give_end(d, e))) {
		sd_event_source_disable_unref(d->deadline);
		free(d);
		return NULL;
	}
	d->key.far = far;
	d->state = state;
	far_hold(far);
	TAILQ_INSERT_TAIL(&srv->san.distants, d, link);
	srv->san.n_distants++;
	return d;
}

void distant_drop(struct end *e, uint32_t reason)
{
	struct distant *d = e->distant;

	if (!d)
		return;
	if (d->state == DISTANT_OFFERED)
		say_reason(d->key.far, WSD_PEER_WITHDRAW, d->key.id, reason ? reason : WSD_R_NOT_TCP);
	else if (d->state == DISTANT_FOUND)
		say_reason(d->key.far, WSD_PEER_REFUSE, d->key.id, reason ? reason : WSD_R_NOT_TCP);
	put(d);
}

static struct distant *by_id(struct far *far, uint64_t id)
{
	struct distant_key k;
	struct distant *d;

	memset(&k, 0, sizeof(k));
	k.far = far;
	k.id = id;
	HASH_FIND(hh, far_server(far)->san.distants_by_id, &k, sizeof(k), d);
	return d;
}

/* false: no memory, it has none */
static bool give_id(struct distant *d, uint64_t id)
{
	d->key.id = id;
	HASH_ADD(hh, d->srv->san.distants_by_id, key, sizeof(d->key), d);
	if (!d->hh.tbl)
		d->key.id = 0;
	return d->key.id;
}

/* ---- our end's side ---- */

static struct wsd_peer_counts counts_of(const struct diag_sock *s)
{
	return (struct wsd_peer_counts){ .acked = s->acked, .received = s->received, .wqueue = s->wqueue };
}

static struct diag_sock of_counts(const struct wsd_peer_counts *c)
{
	return (struct diag_sock){ .acked = c->acked, .received = c->received, .wqueue = c->wqueue, .has_info = 1 };
}

static uint32_t ring1_max(const struct server *srv)
{
	uint32_t max = san_config(srv)->ring_max;

	return max < WSD_REMOTE_RING1_MAX ? max : WSD_REMOTE_RING1_MAX;
}

/* the socket as it is now; the reason why it is none any more */
static uint32_t look_again(const struct end *e, struct diag_sock *ret)
{
	if (diag_lookup(e->ns->diag, &e->local, &e->remote, e->sock_cookie, ret) || ret->inode != e->inode || ret->state != TCP_ESTABLISHED)
		return WSD_R_NOT_TCP;
	return 0;
}

static void say_offer(struct distant *d)
{
	struct end *e = d->end;
	struct wsd_peer_offer m = { .uid = e->uid, .flags = e->san->flags, .ring0 = remote_ring0(e), .ring1_max = ring1_max(d->srv) };
	uint32_t reason = look_again(e, &d->before);

	if (!reason && (getrandom(d->nonce, sizeof(d->nonce), GRND_NONBLOCK) != sizeof(d->nonce) || !give_id(d, far_new_id(d->key.far))))
		reason = WSD_R_NOMEM;
	if (reason) {
		give_up(d, reason);
		return;
	}
	peer_addr(&m.local, &e->local);
	peer_addr(&m.remote, &e->remote);
	m.counts = counts_of(&d->before);
	memcpy(m.nonce, d->nonce, sizeof(m.nonce));
	d->state = DISTANT_OFFERED;
	if (far_send(d->key.far, WSD_PEER_OFFER, d->key.id, &m, sizeof(m), NULL, 0))
		give_up(d, WSD_R_NO_PEER);
}

/* the peer has named this connection, and we have it */
static void say_found(struct distant *d)
{
	struct wsd_peer_found m = { .uid = d->end->uid, .flags = d->end->san->flags, .n_tx = d->end->san->n[0], .n_rx = d->end->san->n[1] };
	struct diag_sock now;
	uint32_t reason = look_again(d->end, &now);

	if (!reason && getrandom(m.nonce, sizeof(m.nonce), GRND_NONBLOCK) != sizeof(m.nonce))
		reason = WSD_R_NOMEM;
	if (reason) {
		say_reason(d->key.far, WSD_PEER_REFUSE, d->key.id, reason);
		give_up(d, reason);
		return;
	}
	m.counts = counts_of(&now);
	m.ring0_max = remote_ring0(d->end);
	m.ring1_max = ring1_max(d->srv);
	proof_macs(d->end->san, d->offer.nonce, m.nonce, m.mac);
	d->state = DISTANT_FOUND;
	if (far_send(d->key.far, WSD_PEER_FOUND, d->key.id, &m, sizeof(m), NULL, 0))
		give_up(d, WSD_R_NO_PEER);
}

static bool same_addr(const struct wsd_peer_addr *a, const struct wsd_addr *b)
{
	struct wsd_peer_addr x;

	peer_addr(&x, b);
	return !memcmp(a->ip, x.ip, 16) && a->port == x.port;
}

static struct distant *kept_for(const struct end *e, struct far *far)
{
	struct distant *d;

	TAILQ_FOREACH(d, &e->srv->san.distants, link)
		if (d->state == DISTANT_KEPT && d->key.far == far && same_addr(&d->offer.local, &e->remote) && same_addr(&d->offer.remote, &e->local))
			return d;
	return NULL;
}

uint32_t distant_begin(struct end *e)
{
	struct server *srv = e->srv;
	const struct san_config *cfg = san_config(srv);
	const struct dev_gid *g;
	uint8_t ip[2][16];
	struct distant *d;
	struct far *far = NULL;
	int r;

	peer_ip(ip[0], &e->local);
	peer_ip(ip[1], &e->remote);
	if (cfg->transport == SAN_SHM || !cfg->n_subnets || !san_covers_both(cfg, ip[0], ip[1]))
		return WSD_R_NOT_SAN;
	if (!cfg->peers)
		return WSD_R_NO_KEY;
	if (e->ns->dev != srv->netns.own_dev || e->ns->ino != srv->netns.own_ino)
		return WSD_R_NO_RDMA;
	san_watch(srv);
	g = dev_find(&srv->san.devs, &e->local, false);
	if (!g || (g->ifindex && route_is_direct(&e->local, &e->remote, g->ifindex) != 1))
		return WSD_R_NO_RDMA;
	r = link_get(srv, &e->local, &e->remote, &far);
	if (!far || (r && r != -EINPROGRESS))
		return reason_of(far ? far_why(far) : link_why(srv, &e->local, &e->remote));
	if (e->role == WSD_ROLE_CONNECT) {
		d = distant_new(srv, far, e, DISTANT_LINK);
		if (d && !r)
			say_offer(d);
		return d ? 0 : WSD_R_LIMIT;
	}
	d = kept_for(e, far);
	if (!d)
		return distant_new(srv, far, e, DISTANT_HOME) ? 0 : WSD_R_LIMIT;
	if (!give_end(d, e)) {
		say_reason(far, WSD_PEER_REFUSE, d->key.id, WSD_R_LIMIT);
		put(d);
		return WSD_R_LIMIT;
	}
	say_found(d);
	return 0;
}

/* ---- the other daemon's words ---- */

static void on_offer(struct far *far, const struct peer_msg *m)
{
	const struct wsd_peer_offer *o = &m->body.offer;
	struct server *srv = far_server(far);
	struct distant *d, *k;
	unsigned n = 0, all = 0, one = 0, most = san_config(srv)->quota_waiting;

	if (far_id_is_ours(far, m->hdr.id) || by_id(far, m->hdr.id) || remote_by_id(far, m->hdr.id)) {
		far_broken(far, "an OFFER under an id that is taken");
		return;
	}
	if (srv->unloading) {
		say_reason(far, WSD_PEER_REFUSE, m->hdr.id, WSD_R_UNLOADING);
		return;
	}
	TAILQ_FOREACH(d, &srv->san.distants, link) {
		all += d->state == DISTANT_KEPT;
		if (d->key.far != far)
			continue;
		if (d->state == DISTANT_HOME && same_addr(&o->local, &d->end->remote) && same_addr(&o->remote, &d->end->local)) {
			d->offer = *o;
			if (give_id(d, m->hdr.id))
				say_found(d);
			else
				say_reason(far, WSD_PEER_REFUSE, m->hdr.id, WSD_R_NOMEM);
			return;
		}
		n += d->state == DISTANT_KEPT;
		one += d->state == DISTANT_KEPT && d->offer.uid == o->uid;
	}
	if (most > DISTANT_KEPT_USER)
		most = DISTANT_KEPT_USER;
	k = one < most && n < DISTANT_KEPT_FAR && all < DISTANT_KEPT_MAX ? distant_new(srv, far, NULL, DISTANT_KEPT) : NULL;
	if (k && !give_id(k, m->hdr.id)) {
		put(k);
		k = NULL;
	}
	if (!k) {
		say_reason(far, WSD_PEER_REFUSE, m->hdr.id, WSD_R_LIMIT);
		return;
	}
	k->offer = *o;
	san_stir(srv);
	(void)far_send(far, WSD_PEER_WAIT, k->key.id, NULL, 0, NULL, 0);
}

/* 0: the session is being set up; else the reason */
static uint32_t set_up(struct distant *d, const struct memory_params *p, uint32_t uid, uint8_t mtu)
{
	struct server *srv = d->srv;
	struct end *e = d->end;
	const struct dev_gid *g = dev_find(&srv->san.devs, &e->local, false);

	uint32_t reason;

	if (!g)
		return WSD_R_NO_RDMA;
	e->distant = NULL;	/* it stops waiting, and not because it was dropped */
	reason = remote_begin(e, d->key.far, p, g, remote_identity(srv, far_remote_ip(d->key.far), uid), mtu);
	if (reason)
		e->distant = d;
	else
		d->end = NULL;
	return reason;
}

static bool is_size(uint32_t v, uint32_t min, uint32_t max)
{
	return v >= min && v <= max && !(v & (v - 1));
}

static void on_found(struct distant *d, const struct peer_msg *m)
{
	const struct wsd_peer_found *f = &m->body.found;
	struct memory_params p = { .session_id = d->key.id, .side = 0, .epoch = 1, .ring1_max = ring1_max(d->srv) };
	struct wsd_peer_setup s;
	struct diag_sock after, there = of_counts(&f->counts);
	uint32_t reason;

	if ((f->ring0_max && !is_size(f->ring0_max, WSD_REMOTE_RING0_MIN, WSD_REMOTE_RING0_MAX)) ||
	    (f->ring1_max && !is_size(f->ring1_max, WSD_REMOTE_RING0_MIN, WSD_REMOTE_RING1_MAX))) {
		far_broken(d->key.far, "a FOUND with sizes that cannot be");
		return;
	}
	reason = look_again(d->end, &after);
	if (!reason && !end_counters_agree(&d->before, &there, &after))
		reason = WSD_R_MISMATCH;
	if (!reason)
		reason = proof_check(d->end->san, d->nonce, f);
	if (!reason && (getrandom(&p.nonce, sizeof(p.nonce), GRND_NONBLOCK) < 0 || !p.nonce))
		reason = WSD_R_NOMEM;
	p.ring0 = remote_ring0(d->end);
	if (f->ring0_max && p.ring0 > f->ring0_max)
		p.ring0 = f->ring0_max;
	if (f->ring1_max && p.ring1_max > f->ring1_max)
		p.ring1_max = f->ring1_max;
	remote_sizes(&p);
	s = (struct wsd_peer_setup){ .nonce = p.nonce, .epoch = p.epoch, .ring0 = p.ring0, .ring1_max = p.ring1_max, .mtu = 5 };
	if (!reason && far_send(d->key.far, WSD_PEER_SETUP, d->key.id, &s, sizeof(s), NULL, 0))
		reason = WSD_R_NO_PEER;
	if (!reason)
		reason = set_up(d, &p, f->uid, 5);
	if (reason) {
		say_reason(d->key.far, WSD_PEER_WITHDRAW, d->key.id, reason);
		give_up(d, reason);
		return;
	}
	put(d);
}

static void on_setup(struct distant *d, const struct peer_msg *m)
{
	const struct wsd_peer_setup *s = &m->body.setup;
	struct memory_params p = { .session_id = d->key.id, .side = 1, .nonce = s->nonce, .epoch = s->epoch, .ring0 = s->ring0,
				   .ring1_max = s->ring1_max };
	uint32_t reason = 0;

	if (!is_size(s->ring0, WSD_REMOTE_RING0_MIN, WSD_REMOTE_RING0_MAX) ||
	    !is_size(s->ring1_max, s->ring0, WSD_REMOTE_RING1_MAX) || s->mtu < 1 || s->mtu > 5) {
		far_broken(d->key.far, "a SETUP that cannot be");
		return;
	}
	/* charged to our user: no more than FOUND allowed. An older daemon does not look there */
	if (s->ring0 > remote_ring0(d->end) || s->ring1_max > ring1_max(d->srv))
		reason = WSD_R_LIMIT;
	remote_sizes(&p);
	if (!reason)
		reason = set_up(d, &p, d->offer.uid, (uint8_t)s->mtu);
	if (reason) {
		say_reason(d->key.far, WSD_PEER_WITHDRAW, d->key.id, reason);
		give_up(d, reason);
		return;
	}
	put(d);
}

static void on_message(struct far *far, const struct peer_msg *m)
{
	struct distant *d;
	struct remote *r;

	if (m->hdr.type == WSD_PEER_OFFER) {
		on_offer(far, m);
		return;
	}
	if (m->hdr.type == WSD_PEER_STATE) {
		remote_state_came(far, m);
		return;
	}
	r = remote_by_id(far, m->hdr.id);
	if (r) {
		remote_hear(r, m);
		return;
	}
	d = by_id(far, m->hdr.id);
	switch (m->hdr.type) {
	case WSD_PEER_FOUND:
		if (d && d->state == DISTANT_OFFERED)
			on_found(d, m);
		else
			say_reason(far, WSD_PEER_WITHDRAW, m->hdr.id, WSD_R_NOT_TCP);
		return;
	case WSD_PEER_SETUP:
		if (d && d->state == DISTANT_FOUND)
			on_setup(d, m);
		else
			say_reason(far, WSD_PEER_WITHDRAW, m->hdr.id, WSD_R_NOT_TCP);
		return;
	case WSD_PEER_REFUSE:
	case WSD_PEER_WITHDRAW:
		if (d)
			give_up(d, m->body.reason.reason && m->body.reason.reason < _WSD_R_N ? m->body.reason.reason : WSD_R_NO_PEER);
		return;
	}
	/* what is about a session that has ended here */
}

static void on_up(struct far *far, bool again)
{
	struct server *srv = far_server(far);
	struct distant *d, *next;

	remote_far_up(far, again);
	for (d = TAILQ_FIRST(&srv->san.distants); d; d = next) {
		next = TAILQ_NEXT(d, link);
		if (d->key.far == far && d->state == DISTANT_LINK)
			say_offer(d);
	}
}

static void on_down(struct far *far, enum link_why why)
{
	struct server *srv = far_server(far);
	struct distant *d, *next;

	for (d = TAILQ_FIRST(&srv->san.distants); d; d = next) {
		next = TAILQ_NEXT(d, link);
		if (d->key.far == far)
			give_up(d, reason_of(why));
	}
	remote_far_down(far);
}

static const struct link_ops ops = { .up = on_up, .down = on_down, .message = on_message, .room = remote_far_room };

void distant_init(struct server *srv)
{
	if (srv->links)
		link_watch(srv, &ops);
}

void distant_fini(struct server *srv)
{
	struct distant *d;

	struct remote *r;

	while ((d = TAILQ_FIRST(&srv->san.distants)))
		put(d);
	/* whose last bytes waited for room */
	while ((r = TAILQ_FIRST(&srv->san.remotes)))
		remote_drop(r);
}
