/* SPDX-License-Identifier: MIT */
#define HASH_NONFATAL_OOM 1
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "proxy_daemon/server/conn.h"
#include "proxy_daemon/server/end.h"
#include "proxy_daemon/server/log.h"
#include "proxy_daemon/server/procfs.h"
#include "proxy_daemon/server/san/distant.h"
#include "proxy_daemon/server/san/remote.h"

#define CHECK_FIRST_US	1000u		/* the client withdraws just before it closes */
#define CHECK_LAST_US	2000000u	/* then the sweep looks after it */
#define CHECK_HELD_US	64000u		/* who holds it then is not just about to close it */
#define LONELY_US	1000000u	/* a peer that cannot be seen for so long is not here */

static const uint8_t mapped_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

/* ---- places in the list ---- */

void end_cursor_start(struct server *srv, struct end_cursor *cur)
{
	cur->next = TAILQ_FIRST(&srv->ends);
	LIST_INSERT_HEAD(&srv->cursors, cur, link);
}

struct end *end_cursor_next(struct end_cursor *cur)
{
	struct end *e = cur->next;

	if (e)
		cur->next = TAILQ_NEXT(e, link);
	return e;
}

void end_cursor_stop(struct end_cursor *cur)
{
	LIST_REMOVE(cur, link);
}

/* ---- sessions of ends ---- */

static void session_drop(struct server *srv, struct session *s)
{
	unsigned i;

	for (i = 0; i < 2; i++)
		if (s->end[i])
			s->end[i]->session = NULL;
	TAILQ_REMOVE(&srv->sessions, s, link);
	srv->n_sessions--;
	srv->bytes_mapped -= s->length;
	quota_uncharge(s->user[0], s->user[1], s->length);
	user_put(&srv->users, s->user[0]);
	user_put(&srv->users, s->user[1]);
	session_unmap(s);
	log_debug("session %016llx ended", (unsigned long long)s->id);
	free(s);
	server_maybe_done(srv);
}

static void session_revoke(struct session *s, uint32_t reason)
{
	unsigned i;

	if (s->revoked)
		return;
	s->revoked = true;
	session_close_gate(s, 0);
	session_close_gate(s, 1);
	for (i = 0; i < 2; i++)
		if (s->end[i] && s->end[i]->conn && !s->end[i]->given_up)
			conn_send_reason(s->end[i]->conn, WSD_MSG_REVOKED, s->end[i]->cookie, reason);
}

/* What this end would have received must meet the kernel's RST (G21). */
static void session_lose_end(struct end *e)
{
	struct session *s = e->session;

	session_close_gate(s, 1 - e->side);
	s->end[e->side] = NULL;
	e->session = NULL;
	if (!s->end[0] && !s->end[1])
		session_drop(e->srv, s);
}

/* ---- life of an end ---- */

static void detach_conn(struct end *e)
{
	if (!e->conn)
		return;
	HASH_DELETE(hh_conn, e->conn->ends, e);
	e->conn->n_ends--;
	e->conn = NULL;
}

static void stop_waiting(struct end *e)
{
	if (e->state != END_WAITING)
		return;
	distant_drop(e, WSD_R_NOT_TCP);
	HASH_DELETE(hh_waiting, e->srv->ends_waiting, e);
	e->srv->n_waiting--;
}

void end_free(struct end *e)
{
	struct server *srv = e->srv;
	struct end_cursor *cur;

	e->check = sd_event_source_disable_unref(e->check);
	if (e->session)
		session_lose_end(e);
	distant_drop(e, WSD_R_NONE);
	remote_close(e, WSD_R_NONE);
	stop_waiting(e);
	detach_conn(e);
	LIST_FOREACH(cur, &srv->cursors, link)
		if (cur->next == e)
			cur->next = TAILQ_NEXT(e, link);
	TAILQ_REMOVE(&srv->ends, e, link);
	HASH_DELETE(hh_socket, srv->ends_by_socket, e);
	srv->n_ends--;
	e->user->n_ends--;
	user_put(&srv->users, e->user);
	netns_put(e->ns);
	free(e->san);
	free(e);
}

void end_refuse(struct end *e, uint32_t reason)
{
	distant_drop(e, reason);
	stop_waiting(e);
	e->state = END_REFUSED;
	e->reason = reason;
	if (e->conn)
		conn_send_reason(e->conn, WSD_MSG_REFUSED, e->cookie, reason);
}

void end_begin_remote(struct end *e)
{
	stop_waiting(e);
	e->state = END_REMOTE;
	e->reason = WSD_R_NONE;
}

struct end *end_of(struct conn *c, uint64_t cookie)
{
	struct end *e;

	HASH_FIND(hh_conn, c->ends, &cookie, sizeof(cookie), e);
	return e;
}

static void key_ip(uint8_t ret[16], const struct wsd_addr *a)
{
	if (a->family == AF_INET) {
		memcpy(ret, mapped_prefix, 12);
		memcpy(ret + 12, a->ip, 4);
	} else {
		memcpy(ret, a->ip, 16);
	}
}

static void make_key(struct end_key *k, const struct netns *ns, const struct wsd_addr *from,
		     const struct wsd_addr *to)
{
	memset(k, 0, sizeof(*k));
	k->ns_dev = ns->dev;
	k->ns_ino = ns->ino;
	key_ip(k->ip[0], from);
	key_ip(k->ip[1], to);
	k->port[0] = from->port;
	k->port[1] = to->port;
	k->scope = from->scope;
}

static bool is_link_local(const struct wsd_addr *a)
{
	return a->family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)a->ip);
}

static struct end_san *end_san_new(const struct wsd_msg_offer_san *m)
{
	struct end_san *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->flags = m->offer.flags;
	s->n[0] = m->n_tx;
	s->n[1] = m->n_rx;
	memcpy(s->digest[0], m->tx, sizeof(m->tx));
	memcpy(s->digest[1], m->rx, sizeof(m->rx));
	return s;
}

/* the record of an offer that was proven; NULL: no memory */
static struct end *end_new(struct conn *c, const struct wsd_msg_offer *m, const struct wsd_msg_offer_san *san, struct netns *ns,
			   const struct diag_sock *d)
{
	struct server *srv = c->srv;
	struct end *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	if (san) {
		e->san = end_san_new(san);
		if (!e->san)
			goto err_free;
	}
	e->srv = srv;
	e->conn = c;
	e->ns = ns;
	e->state = END_REFUSED;		/* until it waits */
	e->sock_cookie = d->cookie;
	e->cookie = m->hdr.cookie;
	e->local = d->local;
	e->remote = d->remote;
	e->inode = d->inode;
	e->pid = c->pid;
	e->uid = c->uid;
	e->fd = m->fd;
	e->role = m->role;
	e->ring_size = m->ring_size;
	e->since_us = server_now_us(srv);
	proc_comm(c->pid, e->comm);
	make_key(&e->key, ns, &e->local, &e->remote);

	HASH_ADD(hh_socket, srv->ends_by_socket, sock_cookie, sizeof(e->sock_cookie), e);
	if (!e->hh_socket.tbl)
		goto err_free;
	HASH_ADD(hh_conn, c->ends, cookie, sizeof(e->cookie), e);
	if (!e->hh_conn.tbl)
		goto err_socket;
	c->n_ends++;
	TAILQ_INSERT_TAIL(&srv->ends, e, link);
	srv->n_ends++;
	e->user = user_ref(c->user);
	e->user->n_ends++;
	ns->refs++;
	return e;

err_socket:
	HASH_DELETE(hh_socket, srv->ends_by_socket, e);
err_free:
	free(e->san);
	free(e);
	return NULL;
}

static void end_wait(struct end *e)
{
	HASH_ADD(hh_waiting, e->srv->ends_waiting, key, sizeof(e->key), e);
	if (!e->hh_waiting.tbl) {
		end_refuse(e, WSD_R_NOMEM);
		return;
	}
	e->state = END_WAITING;
	e->reason = WSD_R_PEER_UNAWARE;
	e->srv->n_waiting++;
}

static struct end *find_waiting(struct server *srv, const struct end_key *k)
{
	struct end *e;

	HASH_FIND(hh_waiting, srv->ends_waiting, k, sizeof(*k), e);
	return e;
}

static struct end_key reversed(const struct end_key *k)
{
	struct end_key r = *k;

	memcpy(r.ip[0], k->ip[1], 16);
	memcpy(r.ip[1], k->ip[0], 16);
	r.port[0] = k->port[1];
	r.port[1] = k->port[0];
	return r;
}

/* ---- pairing ---- */

static bool flow_agrees(uint64_t acked_before, uint64_t received, uint64_t acked_after, uint32_t wqueue_after)
{
	return received + 1 >= acked_before && received <= acked_after + wqueue_after + 1;
}

bool end_counters_agree(const struct diag_sock *a1, const struct diag_sock *b, const struct diag_sock *a2)
{
	return a1->has_info && b->has_info && a2->has_info &&
	       flow_agrees(a1->acked, b->received, a2->acked, a2->wqueue) &&
	       b->acked <= a2->received + 1 && a1->received <= b->acked + b->wqueue + 1;
}

static uint32_t pick_ring_size(const struct server *srv, const struct end *a, const struct end *b)
{
	uint32_t want = a->ring_size > b->ring_size ? a->ring_size : b->ring_size, size = WSD_RING_MIN;

	if (!want)
		return srv->cfg.ring_size;
	while (size < want && size < WSD_RING_MAX)
		size *= 2;
	return size;
}

static int send_session(struct end *e, int fd)
{
	struct wsd_msg_session m = {
		.hdr = { .len = sizeof(m), .version = WSD_PROXY_VERSION, .type = WSD_MSG_SESSION, .cookie = e->cookie },
		.session_id = e->session->id, .length = e->session->length,
		.ring_size = e->session->ring_size, .side = e->side,
	};

	return conn_send(e->conn, &m, sizeof(m), fd);
}

/* 0: both have (or will find in their socket) the memory; else the reason why neither has */
static uint32_t make_session(struct server *srv, struct end *e0, struct end *e1)
{
	struct end *e[2] = { e0, e1 };
	struct session *s;
	uint32_t reason;
	unsigned i;
	int fd;

	if (srv->n_sessions >= MAX_SESSIONS)
		return WSD_R_LIMIT;
	s = calloc(1, sizeof(*s));
	if (!s)
		return WSD_R_NOMEM;
	s->id = srv->next_session_id++;
	if (!s->id)
		s->id = srv->next_session_id++;
	s->ring_size = pick_ring_size(srv, e0, e1);
	s->length = wsd_session_length(s->ring_size);
	reason = (uint32_t)quota_charge(&srv->quota, e0->user, e1->user, s->length);
	if (reason)
		goto err_free;
	reason = WSD_R_NOMEM;
	if (session_map(s, &fd))
		goto err_uncharge;

	TAILQ_INSERT_TAIL(&srv->sessions, s, link);
	srv->n_sessions++;
	srv->n_sessions_total++;
	srv->bytes_mapped += s->length;
	for (i = 0; i < 2; i++) {
		s->end[i] = e[i];
		s->user[i] = user_ref(e[i]->user);
		stop_waiting(e[i]);
		e[i]->state = END_PAIRED;
		e[i]->reason = WSD_R_NONE;
		e[i]->session = s;
		e[i]->side = i;
	}
	log_debug("session %016llx: pid %d fd %d and pid %d fd %d, rings of %u bytes", (unsigned long long)s->id,
		  e0->pid, e0->fd, e1->pid, e1->fd, s->ring_size);
	if (send_session(e0, fd)) {
		/* nobody knows of it yet */
		e0->state = e1->state = END_REFUSED;
		session_drop(srv, s);
		close(fd);
		return WSD_R_LIMIT;
	}
	if (send_session(e1, fd)) {
		/* to e1 this offer is refused, and what e0 got is of no use */
		e1->given_up = true;
		session_revoke(s, WSD_R_LIMIT);
		conn_send_reason(e1->conn, WSD_MSG_REFUSED, e1->cookie, WSD_R_LIMIT);
	}
	session_keep(s, fd, srv->fd_keep_max);
	return 0;

err_uncharge:
	quota_uncharge(e0->user, e1->user, s->length);
err_free:
	free(s);
	return reason;
}

/* both ends are here: memory is what they share, unless both were told to use RDMA */
static bool rdma_is_forced(const struct end *e0, const struct end *e1)
{
	enum san_transport t = san_config(e0->srv)->transport;

	if (!e0->san || !e1->san || t == SAN_SHM)
		return false;
	return t == SAN_VERBS || (e0->san->flags & e1->san->flags & WSD_SAN_FORCE);
}

static uint32_t join(struct end *e0, struct end *e1)
{
	return rdma_is_forced(e0, e1) ? remote_pair(e0, e1) : make_session(e0->srv, e0, e1);
}

static bool still_that_socket(const struct end *e, const struct diag_sock *d)
{
	return d->inode == e->inode && d->state == TCP_ESTABLISHED;
}

/* e's other end waits: are they one connection, and can they have a session? */
static void try_pair(struct end *e, const struct diag_sock *e1, struct end *peer)
{
	struct diag_sock p, e2;
	uint32_t reason;
	int r;

	r = diag_lookup(peer->ns->diag, &peer->local, &peer->remote, peer->sock_cookie, &p);
	if (r < 0) {
		end_refuse(e, WSD_R_NO_DIAG);
		end_refuse(peer, WSD_R_NO_DIAG);
		return;
	}
	if (r || !still_that_socket(peer, &p)) {
		/* the tuple is a new connection's by now: the old record must not stand in its way */
		end_refuse(peer, WSD_R_NOT_TCP);
		end_wait(e);
		return;
	}
	if (e->role == peer->role) {
		reason = WSD_R_MISMATCH;
	} else if (diag_lookup(e->ns->diag, &e->local, &e->remote, e->sock_cookie, &e2) || !still_that_socket(e, &e2)) {
		end_refuse(e, WSD_R_NOT_TCP);
		return;
	} else if (!end_counters_agree(e1, &p, &e2)) {
		log_client("pids %d and %d: byte counters of the two ends disagree", e->pid, peer->pid);
		reason = WSD_R_MISMATCH;
	} else {
		reason = e->role == WSD_ROLE_CONNECT ? join(e, peer) : join(peer, e);
	}
	if (reason) {
		end_refuse(e, reason);
		end_refuse(peer, reason);
	}
}

/* ---- requests ---- */

static void refuse(struct conn *c, uint64_t cookie, uint32_t reason)
{
	conn_send_reason(c, WSD_MSG_REFUSED, cookie, reason);
}

/* what a client says of its descriptor */
struct claim {
	int fd;
	const struct wsd_addr *local, *remote;
	uint64_t sock_cookie;
};

/* does this process hold the socket it speaks of? 0 with *d filled, or the reason why that is not proven */
static uint32_t prove(struct conn *c, const struct claim *m, struct netns *ns, struct diag_sock *d)
{
	uint64_t inode;
	int r;

	r = proc_socket_inode(c->pid, m->fd, &inode);
	if (r < 0)
		return WSD_R_NO_PROC;
	if (r)
		return WSD_R_NOT_TCP;
	r = diag_lookup(ns->diag, m->local, m->remote, m->sock_cookie, d);
	if (r < 0)
		return WSD_R_NO_DIAG;
	if (r)
		return WSD_R_NOT_TCP;
	if (!conn_alive(c))		/* the pid is nobody's or another's by now */
		return WSD_R_NO_PROC;
	if (!d->inode || d->inode != (uint32_t)inode) {
		log_client("pid %d uid %u: descriptor %d is not the socket it claims", c->pid, c->uid, m->fd);
		return WSD_R_NOT_OWNER;
	}
	return 0;
}

static bool peer_is_here(const struct end *e);

void end_offer(struct conn *c, const struct wsd_msg_offer *m, const struct wsd_msg_offer_san *san)
{
	struct server *srv = c->srv;
	struct end *e, *peer;
	struct diag_sock d;
	struct netns *ns;
	struct end_key rk;
	uint32_t reason;

	HASH_FIND(hh_conn, c->ends, &m->hdr.cookie, sizeof(m->hdr.cookie), e);
	if (e && e->state != END_REFUSED) {
		conn_error(c, WSD_R_PEER_BROKEN, "OFFER with a cookie that is in use");
		return;
	}
	if (e)
		end_free(e);
	if (srv->unloading) {
		refuse(c, m->hdr.cookie, WSD_R_UNLOADING);
		return;
	}
	if (srv->n_ends >= MAX_ENDS || c->user->n_ends >= MAX_ENDS_USER || c->n_ends >= MAX_ENDS_CLIENT) {
		refuse(c, m->hdr.cookie, WSD_R_LIMIT);
		return;
	}
	reason = (uint32_t)netns_get(&srv->netns, c->pid, &ns);
	if (reason) {
		refuse(c, m->hdr.cookie, reason);
		return;
	}
	reason = prove(c, &(struct claim){ m->fd, &m->local, &m->remote, m->sock_cookie }, ns, &d);
	if (!reason && d.state != TCP_ESTABLISHED)
		reason = WSD_R_NOT_TCP;
	if (reason)
		goto out_refuse;
	HASH_FIND(hh_socket, srv->ends_by_socket, &d.cookie, sizeof(d.cookie), e);
	if (e && e->state == END_REFUSED) {
		end_free(e);
		e = NULL;
	}
	reason = WSD_R_NOT_OWNER;
	if (e)
		goto out_refuse;
	e = end_new(c, m, san, ns, &d);
	reason = WSD_R_NOMEM;
	if (!e)
		goto out_refuse;
	netns_put(ns);

	if (d.local.scope && !is_link_local(&d.local)) {
		end_refuse(e, WSD_R_DEVICE);
		return;
	}
	rk = reversed(&e->key);
	peer = find_waiting(srv, &e->key);
	if (peer) {
		/* two sockets, one tuple, not bound: the older one has died since */
		end_refuse(peer, WSD_R_NOT_TCP);
	}
	peer = find_waiting(srv, &rk);
	if (peer && peer->conn) {
		try_pair(e, &d, peer);
		return;
	}
	end_wait(e);
	if (e->state != END_WAITING || !e->san || peer_is_here(e))
		return;
	reason = distant_begin(e);
	if (reason)
		end_refuse(e, reason);
	return;

out_refuse:
	netns_put(ns);
	refuse(c, m->hdr.cookie, reason);
}

static int on_check(sd_event_source *source, uint64_t usec, void *data);

/* look soon whether the socket is still held, then later and later */
static void check_soon(struct end *e, uint64_t first_us)
{
	uint64_t at = server_now_us(e->srv) + first_us;

	e->check_delay_us = CHECK_FIRST_US;
	if (e->check) {
		sd_event_source_set_time(e->check, at);
		sd_event_source_set_enabled(e->check, SD_EVENT_ONESHOT);
		return;
	}
	/* no memory: the sweep comes by */
	(void)sd_event_add_time(e->srv->event, &e->check, CLOCK_MONOTONIC, at, 200, on_check, e);
}

void end_withdraw(struct conn *c, const struct wsd_msg_withdraw *m)
{
	struct session *s;
	struct end *e, *peer;

	HASH_FIND(hh_conn, c->ends, &m->hdr.cookie, sizeof(m->hdr.cookie), e);
	if (!e)
		return;		/* answered or revoked while this was on its way */
	s = e->session;
	if (e->rdma && e->rdma->state == REMOTE_LIVE && m->reason == WSD_R_NONE) {
		/* as below: another process may hold it */
		detach_conn(e);
		check_soon(e, CHECK_FIRST_US);
		return;
	}
	distant_drop(e, m->reason);
	remote_close(e, m->reason);
	if (e->state != END_PAIRED || !s) {
		if (m->reason == WSD_R_NONE || e->state == END_REFUSED) {
			end_free(e);
			return;
		}
		/* no answer is due any more; shown until the descriptor is closed */
		stop_waiting(e);
		e->state = END_REFUSED;
		e->reason = m->reason;
		return;
	}
	if (m->unread)
		log_debug("session %016llx: pid %d leaves %u bytes", (unsigned long long)s->id, e->pid, m->unread);
	if (m->reason == WSD_R_NONE) {
		/* another process may hold the socket: ask the kernel when it is closed */
		detach_conn(e);
		check_soon(e, CHECK_FIRST_US);
		return;
	}
	e->given_up = true;
	e->reason = m->reason;
	session_revoke(s, m->reason);
	peer = s->end[1 - e->side];
	if (!peer || peer->given_up) {
		e->state = END_REFUSED;
		if (peer)
			peer->state = END_REFUSED;
		session_drop(e->srv, s);
	}
}

void end_attached(struct conn *c, const struct wsd_msg_attached *m)
{
	struct end *e;

	HASH_FIND(hh_conn, c->ends, &m->hdr.cookie, sizeof(m->hdr.cookie), e);
	if (e && e->session && e->session->id == m->session_id)
		e->attached = true;
}

void end_side(struct conn *c, const struct wsd_msg_side *m)
{
	struct end *e;

	HASH_FIND(hh_conn, c->ends, &m->hdr.cookie, sizeof(m->hdr.cookie), e);
	if (!e || e->at.serial)
		return;		/* told once; afterwards it changes by a claim */
	if (!(e->session && e->session->id == m->session_id) && !(e->rdma && e->rdma->id == m->session_id))
		return;
	e->at = m->at;
	e->at.serial = 1;
}

/* ---- another process of the same socket ---- */

/* c is the owner of e from now on, by that cookie; false: no memory, nobody is */
static bool swap_owner(struct end *e, struct conn *c, uint64_t cookie, int fd)
{
	detach_conn(e);
	e->cookie = cookie;
	HASH_ADD(hh_conn, c->ends, cookie, sizeof(e->cookie), e);
	if (!e->hh_conn.tbl) {
		check_soon(e, CHECK_FIRST_US);
		return false;
	}
	c->n_ends++;
	e->conn = c;
	e->owner_gone = false;
	e->pid = c->pid;
	e->uid = c->uid;
	e->fd = fd;
	e->attached = false;
	proc_comm(c->pid, e->comm);
	return true;
}

static struct end *find_paired(struct server *srv, uint64_t sock_cookie)
{
	struct end *e;

	HASH_FIND(hh_socket, srv->ends_by_socket, &sock_cookie, sizeof(sock_cookie), e);
	return e && (e->session || (e->rdma && e->rdma->state == REMOTE_LIVE)) ? e : NULL;
}

/* proven: c holds the socket. 0, or the reason why it gets nothing */
static uint32_t reattach(struct conn *c, const struct wsd_msg_reattach *m, const struct netns *ns, uint64_t sock_cookie)
{
	struct wsd_msg_reattached a = {
		.hdr = { .len = sizeof(a), .version = WSD_PROXY_VERSION, .type = WSD_MSG_REATTACHED, .cookie = m->hdr.cookie },
	};
	struct end *e = find_paired(c->srv, sock_cookie);
	uint64_t serial;

	/* the owner may have said where its side lies, or that it goes, in a packet that we have not come to yet */
	if (e && e->conn && e->conn != c) {
		conn_read_now(e->conn);
		e = find_paired(c->srv, sock_cookie);
	}
	if (!e || e->ns != ns)
		return WSD_R_NOT_YET;
	if (!e->at.serial)
		return WSD_R_NOT_YET;	/* nobody of that end has attached: nothing went through the memory */
	/* The rings hold bytes that were read long ago; a socket does not show those to who is given it. Nor could another user
	 * join the side. */
	if (c->uid != 0 && c->uid != e->user->uid)
		return WSD_R_NOT_OWNER;
	if (e->session && e->session->fd < 0)
		return WSD_R_NOMEM;
	serial = e->at.serial;
	if (m->over == serial) {
		e->at = m->claim;
		e->at.serial = serial + 1;
	}
	if (e->rdma) {
		if (remote_send_again(e->rdma, c, m->hdr.cookie, &e->at))
			return WSD_R_LIMIT;
		a.session_id = e->rdma->id;
		goto out;
	}
	a.session_id = e->session->id;
	a.length = e->session->length;
	a.ring_size = e->session->ring_size;
	a.side = e->side;
	a.at = e->at;
	if (conn_send(c, &a, sizeof(a), e->session->fd))
		return WSD_R_LIMIT;
out:
	if ((e->conn != c || e->cookie != m->hdr.cookie) && !swap_owner(e, c, m->hdr.cookie, m->fd))
		log_error("pid %d re-attached, but there is no memory to note it", c->pid);
	log_debug("session %016llx: pid %d fd %d re-attached on side %u", (unsigned long long)a.session_id, c->pid, m->fd, e->side);
	return 0;
}

void end_reattach(struct conn *c, const struct wsd_msg_reattach *m)
{
	struct diag_sock d;
	struct netns *ns;
	struct end *e;
	uint32_t reason;

	HASH_FIND(hh_conn, c->ends, &m->hdr.cookie, sizeof(m->hdr.cookie), e);
	if (e && e->state != END_REFUSED && ((e->state != END_PAIRED && e->state != END_REMOTE) || e->sock_cookie != m->sock_cookie)) {
		conn_error(c, WSD_R_PEER_BROKEN, "REATTACH with a cookie that is in use");
		return;
	}
	if (e && e->state == END_REFUSED)
		end_free(e);
	if (c->n_ends >= MAX_ENDS_CLIENT) {
		refuse(c, m->hdr.cookie, WSD_R_LIMIT);
		return;
	}
	reason = (uint32_t)netns_get(&c->srv->netns, c->pid, &ns);
	if (reason) {
		refuse(c, m->hdr.cookie, reason);
		return;
	}
	/* in any state that the kernel still knows: bytes may be unread behind a FIN */
	reason = prove(c, &(struct claim){ m->fd, &m->local, &m->remote, m->sock_cookie }, ns, &d);
	if (!reason)
		reason = reattach(c, m, ns, d.cookie);
	netns_put(ns);
	if (reason)
		refuse(c, m->hdr.cookie, reason);
}

void end_conn_gone(struct conn *c)
{
	struct end *e, *tmp;

	HASH_ITER(hh_conn, c->ends, e, tmp) {
		if ((e->state == END_PAIRED && e->session) || (e->rdma && e->rdma->state == REMOTE_LIVE)) {
			detach_conn(e);
			e->owner_gone = true;
			check_soon(e, 0);	/* its peer may wait for the answer (G21) */
		} else {
			end_free(e);
		}
	}
}

/* ---- does anybody hold it? ---- */

enum held { HELD_YES, HELD_NO, HELD_UNKNOWN, HELD_FORGOTTEN };

static enum held is_held(const struct end *e)
{
	struct diag_sock d;
	uint64_t inode;
	int r;

	r = diag_lookup(e->ns->diag, &e->local, &e->remote, e->sock_cookie, &d);
	if (r < 0)
		return HELD_UNKNOWN;
	if (r == 0)
		return d.inode ? HELD_YES : HELD_NO;
	/* reset, or closed on both sides: the kernel has forgotten a socket that may be held yet.
	 * Then its holder still reads what the ring has: who offered it, or a child of his, or another number of his. */
	if (!e->conn)
		return e->owner_gone ? HELD_NO : HELD_FORGOTTEN;
	r = proc_socket_inode(e->pid, e->fd, &inode);
	if (r < 0)
		return HELD_UNKNOWN;
	return r == 0 && inode == e->inode ? HELD_YES : HELD_FORGOTTEN;
}

/* nobody holds its socket (G21) */
static void end_left(struct end *e)
{
	if (e->session)
		session_end_gone(e->session, e->side);
	end_free(e);
}

bool end_has_finished(const struct end *e)
{
	struct diag_sock d;
	int r = diag_lookup(e->ns->diag, &e->local, &e->remote, e->sock_cookie, &d);

	return r > 0 || (r == 0 && d.state != TCP_ESTABLISHED && d.state != TCP_CLOSE_WAIT);
}

static int on_check(sd_event_source *source, uint64_t usec, void *data)
{
	struct end *e = data;

	switch (is_held(e)) {
	case HELD_NO:
		end_left(e);
		return 0;
	case HELD_FORGOTTEN:
		end_free(e);
		return 0;
	default:
		break;
	}
	e->check_delay_us *= 2;
	if (e->check_delay_us > CHECK_HELD_US)
		remote_still_held(e);
	if (e->check_delay_us > CHECK_LAST_US) {
		e->check = sd_event_source_disable_unref(e->check);
		return 0;
	}
	sd_event_source_set_time(source, server_now_us(e->srv) + e->check_delay_us);
	sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

/* its peer offers in another namespace: a tunnel or a NAT joins them */
static bool reverse_waits_elsewhere(const struct end *e)
{
	struct netns_table *t = &e->srv->netns;
	struct end_key k = reversed(&e->key);
	unsigned i;

	for (i = 0; i < NETNS_MAX; i++) {
		if (!t->ns[i] || t->ns[i] == e->ns)
			continue;
		k.ns_dev = t->ns[i]->dev;
		k.ns_ino = t->ns[i]->ino;
		if (find_waiting(e->srv, &k))
			return true;
	}
	return false;
}

/* is the socket at the other end in its namespace? Also when nobody can say */
static bool peer_is_here(const struct end *e)
{
	struct wsd_addr from = e->remote, to = e->local;
	struct diag_sock d;
	uint8_t peer_ip[16];
	int r;

	from.scope = to.scope = e->local.scope;
	r = diag_lookup(e->ns->diag, &from, &to, DIAG_ANY_COOKIE, &d);
	if (r < 0)
		return true;
	key_ip(peer_ip, &d.remote);
	return r == 0 && d.local.port == e->key.port[1] && d.remote.port == e->key.port[0] && !memcmp(peer_ip, e->key.ip[0], 16);
}

/* an end that waits for a peer which is not in its namespace waits in vain */
static void look_for_peer(struct end *e)
{
	if (e->distant || server_now_us(e->srv) - e->since_us < LONELY_US || peer_is_here(e))
		return;
	end_refuse(e, reverse_waits_elsewhere(e) ? WSD_R_NETNS : WSD_R_NOT_LOCAL);
}

void end_sweep(struct server *srv, unsigned max)
{
	struct end_cursor *cur = &srv->sweep_at;
	struct end *e;

	while (max--) {
		enum held held;

		e = end_cursor_next(cur);
		if (!e) {
			cur->next = TAILQ_FIRST(&srv->ends);
			return;
		}
		held = is_held(e);
		if (held == HELD_NO || held == HELD_FORGOTTEN) {
			if (e->state == END_WAITING)
				end_refuse(e, WSD_R_NOT_TCP);
			if (held == HELD_NO)
				end_left(e);
			else
				end_free(e);
		} else if (e->state == END_WAITING) {
			look_for_peer(e);
		} else if (!e->check) {
			remote_still_held(e);
		}
	}
}

/* ---- unload ---- */

void end_refuse_waiting(struct server *srv, uint32_t reason)
{
	struct end *e;

	TAILQ_FOREACH(e, &srv->ends, link)
		if (e->state == END_WAITING)
			end_refuse(e, reason);
}

void end_revoke_all(struct server *srv, uint32_t reason)
{
	struct session *s;

	TAILQ_FOREACH(s, &srv->sessions, link)
		session_revoke(s, reason);
	remote_revoke_all(srv, reason);
}
