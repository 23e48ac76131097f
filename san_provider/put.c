/* SPDX-License-Identifier: MIT */
/*
 * put.c - WSPPutWithSignal, SIO_WSD_SAN_ASK, and completions of all roads
 *
 * The road itself is the transport's; here it is handed out, with the memory that belongs to it.
 */
#include <stdatomic.h>

#include "san_provider/san.h"

/* a process without the queue pair: it re-attached, or nothing is left of it */
static const struct wsd_put_state nowhere_state = { .error = -ECANCELED };

static int no_hold(void *conn, unsigned n)
{
	return -ECANCELED;
}

static void no_release(void *conn)
{
}

static int no_put(void *conn, uint32_t ring, uint64_t at, uint32_t n)
{
	return -ECANCELED;
}

static int no_word(void *conn, uint32_t off, const void *p, uint32_t n)
{
	return -ECANCELED;
}

static int no_fetch(void *conn, uint32_t off)
{
	return -ECANCELED;
}

static int no_nudge(void *conn)
{
	return -ECANCELED;
}

static int no_poll(void *conn)
{
	return 0;
}

static int no_ring1(void *conn, int tx, uint32_t size, uint64_t *addr, uint32_t *rkey)
{
	return -ECANCELED;
}

static int no_peer_ring1(void *conn, uint64_t addr, uint32_t rkey, uint32_t size)
{
	return -ECANCELED;
}

static void no_stop(void *conn, int drain)
{
}

static const WSDPUTROAD nowhere = {
	.size = sizeof(nowhere), .state = &nowhere_state, .hold = no_hold, .release = no_release, .put = no_put, .word = no_word,
	.fetch = no_fetch, .nudge = no_nudge, .poll = no_poll, .ring1 = no_ring1, .peer_ring1 = no_peer_ring1, .stop = no_stop,
};

int WSPAPI san_put_with_signal(SOCKET s, LPWSDPUTROAD road, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	struct san_offer *o;
	WSDPUTROAD r;
	int e = 0;
	SAN_ENTRY;

	if (!k)
		return san_fail(lpErrno, WSAENOTSOCK);
	if (!road || road->size < sizeof(*road))
		return san_fail(lpErrno, WSAEINVAL);
	if (k->state != SOCK_CONNECTED)
		return san_fail(lpErrno, WSAENOTCONN);
	o = k->offer;
	if (!o->remote)
		return san_fail(lpErrno, WSAEOPNOTSUPP);
	if (o->conn) {
		r = (WSDPUTROAD){ .size = sizeof(r), .context = road->context };
		e = rt_conn_road(o->conn, &r);
	} else {
		r = nowhere;
		r.context = road->context;
	}
	if (e)
		return san_fail(lpErrno, san_error_of(e));
	r.base = o->remote;
	r.length = o->remote_length;
	r.session_id = o->session_id;
	o->road = r;
	*road = r;
	return 0;
}

int san_ask(struct san_sock *k, const struct wsd_san_ask *a)
{
	struct san_offer *o = k->offer;

	if (a->size < sizeof(*a) || a->what < WSD_SAN_DECIDE || a->what >= _WSD_SAN_N)
		return WSAEINVAL;
	if (k->state != SOCK_CONNECTED)
		return WSAENOTCONN;
	if (!o->remote)
		return WSAEOPNOTSUPP;
	if (!o->daemon_knows)
		return WSAENETDOWN;
	switch (proxy_client_san_ask(san.client, o->cookie, o->session_id, a->what, a->a, a->b)) {
	case 0:
		return 0;
	case PROXY_CLIENT_E_BUSY:
		return WSAEWOULDBLOCK;
	default:
		return WSAENETDOWN;
	}
}

int san_drain(uint64_t *ret_context, unsigned max)
{
	struct rt_ctx *ctx = atomic_load_explicit(&san.rt_remote, memory_order_acquire);
	SAN_ENTRY;

	return ctx ? (int)rt_ctx_drain(ctx, ret_context, max) : 0;
}

int san_arm(void)
{
	struct rt_ctx *ctx = atomic_load_explicit(&san.rt_remote, memory_order_acquire);
	SAN_ENTRY;

	return ctx ? rt_ctx_arm(ctx) : 0;
}
