/* SPDX-License-Identifier: MIT */
/*
 * progress.c - what the daemon has answered, and fork
 *
 * An answer carries the cookie of an offer; one that we do not know (withdrawn meanwhile) is dropped,
 * its descriptor closed. A session is mapped and its descriptor closed at once: none stays.
 */
#include <stdatomic.h>

#include "proxy_daemon/client/rawsys.h"
#include "san_provider/san.h"

/* 0, or why there is no session after all */
static unsigned attach(struct san_offer *o, const struct proxy_msg *m)
{
	struct rt_peer peer = {
		.size = sizeof(peer),
		.side = m->side,
		.fd = m->fd,
		.length = m->length,
		.ring_size = m->ring_size,
		.session_id = m->session_id,
	};
	int r;

	if (m->side != (o->role == WSD_ROLE_CONNECT ? 0 : 1))
		return WSD_R_PEER_BROKEN;
	r = rt_conn_new(&o->conn, san.rt);
	if (r)
		return WSD_R_NOMEM;
	r = rt_conn_connect(o->conn, &peer);
	if (r) {
		o->conn = rt_conn_close(o->conn);
		return r == -EPROTO || r == -EINVAL ? WSD_R_PEER_BROKEN : WSD_R_NOMEM;
	}
	o->session_id = m->session_id;
	return 0;
}

int san_settle(struct san_offer *o)
{
	struct san_sock *k = o->sock;
	bool ok = o->state == OFFER_SESSION;

	if (o->role == WSD_ROLE_ACCEPT) {
		offer_list_remove(&k->waiting, o);
		offer_list_add(&k->ready, o);
		return san_event(k, FD_ACCEPT, 0);
	}
	k->reason = o->reason;
	k->state = ok ? SOCK_CONNECTED : SOCK_FAILED;
	if (ok && o->remote)
		k->use = USE_ROAD;
	else if (ok)
		proxy_client_attached(san.client, o->cookie, o->session_id);
	return san_event(k, FD_CONNECT, ok ? 0 : WSAETIMEDOUT);
}

int san_offer_fail(struct san_offer *o, unsigned reason)
{
	san_remote_undo(o);
	san_offer_withdraw(o, reason, 0);
	san_unsent_remove(o);
	o->state = OFFER_REFUSED;
	o->reason = reason;
	return o->reattach ? 0 : san_settle(o);
}

static int on_session(struct san_offer *o, const struct proxy_msg *m)
{
	if (o->state != OFFER_PENDING)
		return 0;	/* a second answer: the first one stands */
	o->reason = attach(o, m);
	o->state = o->reason ? OFFER_REFUSED : OFFER_SESSION;
	if (o->reason)
		san_offer_withdraw(o, o->reason, 0);
	return san_settle(o);
}

/* somebody waits for it (reattach.c): no event */
static void on_reattached(struct san_offer *o, const struct proxy_msg *m)
{
	if (!o->reattach)
		return;
	o->at = m->at;
	if (o->state != OFFER_PENDING)
		return;		/* mapped already: this answers a claim */
	o->role = m->side == 0 ? WSD_ROLE_CONNECT : WSD_ROLE_ACCEPT;
	o->reason = attach(o, m);
	o->state = o->reason ? OFFER_REFUSED : OFFER_SESSION;
}

static int on_refused(struct san_offer *o, const struct proxy_msg *m)
{
	if (o->state >= OFFER_SESSION) {
		if (o->reattach)
			o->daemon_knows = false;	/* a claim came to nothing; the session stands */
		return 0;
	}
	o->daemon_knows = false;
	return san_offer_fail(o, m->reason);
}

static int on_revoked(struct san_offer *o, const struct proxy_msg *m)
{
	if (m->reason == WSD_R_RDMA_FAILED)
		san.devices_moved = true;
	if (!o)
		return 0;
	if (o->state == OFFER_SETUP || o->state == OFFER_REMOTE)
		return san_offer_fail(o, m->reason);
	/* the memory says it too, where both ends look anyway */
	if (o->state == OFFER_SESSION && o->sock)
		o->sock->reason = m->reason;
	return 0;
}

/* what could not be sent before */
static int send_waiting(void)
{
	struct san_offer *o;
	int n = 0, e;

	while ((o = san.unsent.first)) {
		unsigned reason;

		e = san_offer_send(o, &reason);
		if (e == WSAEWOULDBLOCK)
			break;
		san_unsent_remove(o);
		if (e)
			n += san_offer_fail(o, reason);
	}
	return n;
}

static int on_message(const struct proxy_msg *m)
{
	struct san_offer *o = san_table_get(&san.offers, m->cookie);

	switch (m->type) {
	case PROXY_MSG_SESSION:
		return o && !o->reattach ? on_session(o, m) : 0;
	case PROXY_MSG_REFUSED:
		return o ? on_refused(o, m) : 0;
	case PROXY_MSG_REATTACHED:
		if (o)
			on_reattached(o, m);
		return 0;
	case PROXY_MSG_REVOKED:
		return on_revoked(o, m);
	case PROXY_MSG_SAN_SETUP:
		return o ? san_remote_setup(o, m) : 0;
	case PROXY_MSG_SAN_REMOTE:
		return o ? san_remote_peer(o, m) : 0;
	case PROXY_MSG_SAN_GO:
		return o ? san_remote_go(o, m) : 0;
	case PROXY_MSG_SAN_SIDE:
		if (o && o->reattach)
			o->at = m->at;
		return 0;
	case PROXY_MSG_SAN_LOOK:
		return 1;	/* who waits looks at the memory itself */
	}
	return 0;
}

int san_take_message(const struct proxy_msg *m)
{
	int n = on_message(m);

	if (m->fd >= 0)
		rawsys(SYS_close, m->fd, 0, 0);
	return n;
}

static int raise_deferred(void)
{
	int n = 0;

	san.deferred = false;
	for (uint32_t i = 0; i < san.socks.n; i++) {
		struct san_sock *k = san_table_at(&san.socks, i);

		if (k && (k->pending & FD_CONNECT))
			n += san_event(k, FD_CONNECT, k->connect_error);
		k = i < san.socks.n ? san_table_at(&san.socks, i) : NULL;
		if (k && (k->pending & FD_ACCEPT))
			n += san_event(k, FD_ACCEPT, k->accept_error);
	}
	return n;
}

int san_progress(void)
{
	struct proxy_msg m;
	int n = 0;
	SAN_ENTRY;

	if (!san.starts)
		return 0;
	if (san.deferred)
		n += raise_deferred();
	while (san.starts && proxy_client_receive(san.client, &m) == 1)
		n += san_take_message(&m);
	if (san.starts)
		n += send_waiting();
	if (san.starts) {
		san_remote_devices();
		san_wait_refresh();
	}
	for (struct san_sock *k = san.messages, *next; k; k = next) {
		uint64_t following;

		next = k->next_msg;
		following = next ? next->handle : 0;
		if (k->n_notify)
			n += san_poll(k);
		next = following ? san_sock_get(following) : NULL;
	}
	return n;
}

/*
 * The child keeps what is mapped and nothing else. Offers that waited are the parent's: here they have
 * failed, which the next progress tells. Sessions are the parent's at the daemon: closing them here
 * only unmaps. A put road cannot be posted to here, its memory is still read and written. One that runs messages cannot be run by two processes and is over in the child.
 */
void san_after_fork(void)
{
	SAN_ENTRY;

	if (!san.starts)
		return;
	proxy_client_after_fork(san.client);
	san_wait_close();
	san_remote_after_fork();
	for (uint32_t i = 0; i < san.offers.n; i++) {
		struct san_offer *o = san_table_at(&san.offers, i);

		if (!o)
			continue;
		o->daemon_knows = false;
		san_unsent_remove(o);
		if (o->state < OFFER_SESSION) {
			struct san_sock *k = o->sock;

			san_remote_undo(o);
			o->state = OFFER_REFUSED;
			o->reason = WSD_R_SHARED;
			san.deferred = true;
			if (o->role == WSD_ROLE_ACCEPT) {
				offer_list_remove(&k->waiting, o);
				offer_list_add(&k->ready, o);
				k->pending |= FD_ACCEPT;
			} else {
				k->reason = o->reason;
				k->state = SOCK_FAILED;
				k->connect_error = WSAETIMEDOUT;
				k->pending |= FD_CONNECT;
			}
		} else if (o->conn && o->sock && o->sock->use == USE_MESSAGES) {
			rt_conn_orphan(o->conn);
			o->sock->dead = true;
			o->sock->n_notify = 0;
			san_messages_leave(o->sock);
		}
	}
}

/* Tables and lists are as that thread left them: nothing is read but what is one word, or made to be read so (rt_ctx_orphan()). */
void san_abandon(void)
{
	struct rt_ctx *ctx = atomic_exchange(&san.rt_remote, NULL);
	int fd = san.client ? proxy_client_fd(san.client) : -1;
	SAN_ENTRY;

	if (ctx)
		rt_ctx_orphan(ctx);
	san_wait_close();
	if (fd >= 0)
		rawsys(SYS_close, fd, 0, 0);
}
