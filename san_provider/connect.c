/* SPDX-License-Identifier: MIT */
/*
 * connect.c - WSPConnect, WSPListen and WSPAccept between two ends that TCP has joined already
 *
 * WSPConnect offers the TCP descriptor to the daemon and would block. A listening socket offers each
 * descriptor that the switch expects a companion for. Both ends are told the outcome by the
 * daemon (progress.c). Nothing here ever uses one of the three error codes that promise that TCP would
 * fail as well: TCP stands already. An offer that is never answered stays pending; there are no timers.
 */
#include <stdlib.h>
#include <string.h>

#include "san_provider/san.h"

void offer_list_add(struct offer_list *l, struct san_offer *o)
{
	o->next = NULL;
	o->prev = l->last;
	*(l->last ? &l->last->next : &l->first) = o;
	l->last = o;
}

void offer_list_push(struct offer_list *l, struct san_offer *o)
{
	o->prev = NULL;
	o->next = l->first;
	*(l->first ? &l->first->prev : &l->last) = o;
	l->first = o;
}

void offer_list_remove(struct offer_list *l, struct san_offer *o)
{
	*(o->prev ? &o->prev->next : &l->first) = o->next;
	*(o->next ? &o->next->prev : &l->last) = o->prev;
	o->next = o->prev = NULL;
}

void san_offer_withdraw(struct san_offer *o, unsigned reason, uint32_t unread)
{
	if (o->daemon_knows)
		proxy_client_withdraw(san.client, o->cookie, reason, unread);
	o->daemon_knows = false;
}

void san_unsent_add(struct san_offer *o)
{
	struct unsent_list *l = &san.unsent;

	o->unsent = true;
	o->next_unsent = NULL;
	o->prev_unsent = l->last;
	*(l->last ? &l->last->next_unsent : &l->first) = o;
	l->last = o;
}

void san_unsent_remove(struct san_offer *o)
{
	struct unsent_list *l = &san.unsent;

	if (!o->unsent)
		return;
	o->unsent = false;
	*(o->prev_unsent ? &o->prev_unsent->next_unsent : &l->first) = o->next_unsent;
	*(o->next_unsent ? &o->next_unsent->prev_unsent : &l->last) = o->prev_unsent;
}

void san_offer_drop(struct san_offer *o, unsigned reason, uint32_t unread)
{
	san_remote_stop(o, reason);
	san_offer_withdraw(o, reason, unread);
	san_unsent_remove(o);
	if (o->remote)
		san_remote_undo(o);
	else
		rt_conn_close(o->conn);
	san_table_remove(&san.offers, o->cookie);
	free(o);
}

/* an answer of the client, or -errno */
static int send_next(struct san_offer *o)
{
	const struct wsd_connect_data *d = &o->expect.data;

	if (o->state != OFFER_PENDING)
		return san_remote_send(o);
	if (d->flags) {
		struct proxy_san_offer x = {
			.flags = san.forced || (d->flags & WSD_CONNECT_FORCE) ? WSD_SAN_FORCE : 0,
			.n_tx = d->n_tx, .n_rx = d->n_rx,
		};
		int r;

		memcpy(x.tx, d->tx, sizeof(x.tx));
		memcpy(x.rx, d->rx, sizeof(x.rx));
		r = proxy_client_offer_san(san.client, d->fd, o->role, d->sock_cookie, o->cookie, &x);
		if (r != PROXY_CLIENT_E_NO_SAN)
			return r;
	}
	return proxy_client_offer(san.client, d->fd, o->role, d->sock_cookie, o->cookie, 0);
}

int san_offer_send(struct san_offer *o, unsigned *ret_reason)
{
	*ret_reason = WSD_R_NOMEM;
	switch (send_next(o)) {
	case 0:
		o->daemon_knows = true;
		*ret_reason = WSD_R_NONE;
		return 0;
	case PROXY_CLIENT_E_BUSY:
		*ret_reason = WSD_R_NONE;
		return WSAEWOULDBLOCK;
	case PROXY_CLIENT_E_DOWN:
		*ret_reason = proxy_client_reason(san.client);
		return WSAENETDOWN;
	case PROXY_CLIENT_E_LIMIT:
		*ret_reason = WSD_R_LIMIT;
		return WSAENOBUFS;
	case PROXY_CLIENT_E_SOCKET:
		*ret_reason = WSD_R_NOT_TCP;
		return WSAEINVAL;
	default:
		return WSAENOBUFS;
	}
}

/* sent, or waiting to be sent behind those that wait already. 0 or a WSA code, and then *ret_reason */
static int offer_new(struct san_offer **ret_o, struct san_sock *k, uint32_t role, const struct wsd_connect_data *d,
		     unsigned *ret_reason)
{
	struct san_offer *o;
	int e;

	*ret_reason = WSD_R_NOMEM;
	o = calloc(1, sizeof(*o));
	if (!o)
		return WSAENOBUFS;
	o->cookie = san_table_add(&san.offers, o);
	if (!o->cookie) {
		*ret_reason = WSD_R_TABLE_FULL;
		e = WSAENOBUFS;
		goto err_free;
	}
	o->role = role;
	o->sock = k;
	o->expect.data = *d;
	*ret_reason = WSD_R_NONE;
	e = san.unsent.first ? WSAEWOULDBLOCK : san_offer_send(o, ret_reason);
	if (e == WSAEWOULDBLOCK)
		san_unsent_add(o);
	else if (e)
		goto err_remove;
	*ret_o = o;
	return 0;

err_remove:
	san_table_remove(&san.offers, o->cookie);
err_free:
	free(o);
	return e;
}

static bool data_fit(const struct wsd_connect_data *d)
{
	return d->size >= sizeof(*d) && d->fd >= 0 && !(d->flags & ~(WSD_CONNECT_SAN | WSD_CONNECT_FORCE)) &&
	       d->n_tx <= WSD_DIGESTS && d->n_rx <= WSD_DIGESTS;
}

int WSPAPI san_connect(SOCKET s, const struct sockaddr *name, int namelen, LPWSABUF caller_data, LPWSABUF callee_data,
		       LPQOS sqos, LPQOS gqos, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	struct wsd_connect_data d;
	int e;
	SAN_ENTRY;

	if (!k)
		return san_fail(lpErrno, WSAENOTSOCK);
	switch (k->state) {
	case SOCK_NEW:
	case SOCK_BOUND:
		break;
	case SOCK_CONNECTING:
		return san_fail(lpErrno, WSAEALREADY);
	case SOCK_CONNECTED:
		return san_fail(lpErrno, WSAEISCONN);
	default:
		return san_fail(lpErrno, WSAEINVAL);
	}
	if (sqos || gqos)
		return san_fail(lpErrno, WSAEOPNOTSUPP);
	e = san_addr_take(&k->peer, &k->peer_len, k->family, name, namelen);
	if (e)
		return san_fail(lpErrno, e);
	/* without the TCP descriptor there is no proof of who the peer is */
	if (!caller_data || !caller_data->buf || caller_data->len < sizeof(d))
		return san_fail(lpErrno, WSAEINVAL);
	memcpy(&d, caller_data->buf, sizeof(d));
	if (!data_fit(&d))
		return san_fail(lpErrno, WSAEINVAL);
	e = offer_new(&k->offer, k, WSD_ROLE_CONNECT, &d, &k->reason);
	if (e)
		return san_fail(lpErrno, e);
	k->state = SOCK_CONNECTING;
	return san_fail(lpErrno, WSAEWOULDBLOCK);
}

int WSPAPI san_listen(SOCKET s, int backlog, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	SAN_ENTRY;

	if (!k)
		return san_fail(lpErrno, WSAENOTSOCK);
	switch (k->state) {
	case SOCK_BOUND:
	case SOCK_LISTENING:
		/* kept for the record only: each expectation is a connection that TCP's
		 * backlog has let through already */
		k->backlog = backlog;
		k->state = SOCK_LISTENING;
		return 0;
	case SOCK_CONNECTING:
	case SOCK_CONNECTED:
		return san_fail(lpErrno, WSAEISCONN);
	default:
		return san_fail(lpErrno, WSAEINVAL);
	}
}

int san_expect(struct san_sock *k, const struct wsd_expect *x)
{
	struct san_offer *o;
	int e;

	if (k->state != SOCK_LISTENING || !data_fit(&x->data) || x->family != k->family)
		return WSAEINVAL;
	e = offer_new(&o, k, WSD_ROLE_ACCEPT, &x->data, &k->reason);
	if (e)
		return e;
	o->expect = *x;
	offer_list_add(&k->waiting, o);
	k->n_expected++;
	return 0;
}

static struct san_offer *find_expected(const struct offer_list *l, const struct wsd_connect_data *d)
{
	/* newest first: what is taken back is most often what came last. Not by descriptor: dup2 may
	 * have given the socket another number meanwhile */
	for (struct san_offer *o = l->last; o; o = o->prev)
		if (o->expect.data.sock_cookie == d->sock_cookie && o->expect.data.context == d->context)
			return o;
	return NULL;
}

int san_unexpect(struct san_sock *k, const struct wsd_expect *x)
{
	struct offer_list *l = &k->waiting;
	struct san_offer *o;

	o = find_expected(l, &x->data);
	if (!o) {
		l = &k->ready;
		o = find_expected(l, &x->data);
	}
	if (!o)
		return WSAEINVAL;
	offer_list_remove(l, o);
	k->n_expected--;
	san_offer_drop(o, WSD_R_NONE, 0);
	return 0;
}

static void expected_addr(union san_addr *a, socklen_t *len, const struct wsd_expect *x, bool remote)
{
	const uint8_t *ip = remote ? x->remote_ip : x->local_ip;
	uint16_t port = htons(remote ? x->remote_port : x->local_port);

	memset(a, 0, sizeof(*a));
	if (x->family == AF_INET6) {
		a->in6.sin6_family = AF_INET6;
		a->in6.sin6_port = port;
		memcpy(&a->in6.sin6_addr, ip, 16);
		*len = sizeof(a->in6);
	} else {
		a->in.sin_family = AF_INET;
		a->in.sin_port = port;
		memcpy(&a->in.sin_addr, ip, 4);
		*len = sizeof(a->in);
	}
}

static int ask(LPCONDITIONPROC condition, DWORD_PTR data, const struct san_offer *o)
{
	union san_addr caller, callee;
	socklen_t caller_len, callee_len;
	struct wsd_connect_data d = o->expect.data;
	WSABUF id[2], callee_data = { sizeof(d), (char *)&d };

	if (!condition)
		return CF_ACCEPT;
	expected_addr(&caller, &caller_len, &o->expect, true);
	expected_addr(&callee, &callee_len, &o->expect, false);
	id[0] = (WSABUF){ caller_len, (char *)&caller };
	id[1] = (WSABUF){ callee_len, (char *)&callee };
	return condition(&id[0], NULL, NULL, NULL, &id[1], &callee_data, NULL, data);
}

/* the event goes down before the accept is complete, and up again if more wait: so none is lost */
static void rearm(struct san_sock *k)
{
	INT ignored;

	if (k->event && (k->selected & FD_ACCEPT))
		san.up.lpWPUResetEvent(k->event, &ignored);
	k->pending &= ~FD_ACCEPT;
	if (k->ready.first)
		san_event(k, FD_ACCEPT, 0);
}

static struct san_sock *accepted(struct san_offer *o, int family, LPINT lpErrno)
{
	struct san_sock *n = san_sock_new(family, lpErrno);

	if (!n)
		return NULL;
	expected_addr(&n->local, &n->local_len, &o->expect, false);
	expected_addr(&n->peer, &n->peer_len, &o->expect, true);
	n->state = SOCK_CONNECTED;
	n->use = o->remote ? USE_ROAD : USE_NONE;
	n->offer = o;
	o->sock = n;
	return n;
}

SOCKET WSPAPI san_accept(SOCKET s, struct sockaddr *addr, LPINT addrlen, LPCONDITIONPROC condition, DWORD_PTR data,
			 LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s), *n;
	struct san_offer *o;
	uint64_t cookie;
	int answer, family, e;
	SAN_ENTRY;

	e = !k ? WSAENOTSOCK : k->state != SOCK_LISTENING ? WSAEINVAL : !k->ready.first ? WSAEWOULDBLOCK : 0;
	if (!e && addr && (!addrlen || *addrlen < (int)(k->family == AF_INET6 ? sizeof(struct sockaddr_in6) :
									      sizeof(struct sockaddr_in))))
		e = WSAEFAULT;
	if (e)
		goto err;
	o = k->ready.first;
	cookie = o->cookie;
	family = k->family;
	offer_list_remove(&k->ready, o);
	k->n_expected--;
	k->reason = o->reason;
	/* in the condition function socket_reason() of the listener tells the outcome */
	answer = ask(condition, data, o);

	k = san_sock_get(s);
	if (k)
		rearm(k);
	k = san_sock_get(s);
	if (san_table_get(&san.offers, cookie) != o) {
		e = WSAENOTSOCK;
		goto err;
	}
	if (answer == CF_DEFER && k) {
		offer_list_push(&k->ready, o);
		k->n_expected++;
		san_event(k, FD_ACCEPT, 0);
		e = WSATRY_AGAIN;
		goto err;
	}
	if (answer != CF_ACCEPT || !k) {
		e = WSAECONNREFUSED;
		goto err_drop;
	}
	if (o->state == OFFER_REFUSED) {
		e = WSAETIMEDOUT;
		goto err_drop;
	}
	n = accepted(o, family, &e);
	if (!n)
		goto err_drop;
	if (!o->remote)		/* RDMA: READY said it */
		proxy_client_attached(san.client, o->cookie, o->session_id);
	if (addr) {
		memcpy(addr, &n->peer, n->peer_len);
		*addrlen = n->peer_len;
	}
	return (SOCKET)n->handle;

err_drop:
	san_offer_drop(o, WSD_R_NONE, 0);
err:
	san_fail(lpErrno, e);
	return INVALID_SOCKET;
}
