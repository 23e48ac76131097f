/* SPDX-License-Identifier: MIT */
/*
 * reattach.c - SIO_WSD_REATTACH: a session that another process attached
 *
 * WSD moves the control of a socket by WSPDuplicateSocket, which extracts in one process what WSPSocket takes over in
 * another. Here the daemon has all that would be extracted, and holding the TCP socket is the proof, so the process that wants
 * control asks alone. It must know before its first receive, so this is the one entry that waits, for as long as the caller says.
 *
 * While it waits messages for others are taken as in progress(), and their events raised.
 */
#include <stdlib.h>
#include <time.h>

#include "san_provider/san.h"

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void drain(void)
{
	struct proxy_msg m;

	while (proxy_client_receive(san.client, &m) == 1)
		(void)san_take_message(&m);
}

/* wait for the next message; false: the time is over */
static bool wait_some(uint64_t end)
{
	uint64_t now = now_ms(), left = end - now;

	if (now >= end)
		return false;
	/* a full socket of the daemon is no event: look now and then */
	(void)proxy_client_wait(san.client, left < 20 ? (unsigned)left : 20);
	drain();
	return true;
}

static struct wsd_side_at to_at(const struct wsd_side_place *p)
{
	return (struct wsd_side_at){ .ipc_ns = p->ipc_ns, .shm = p->shm, .index = p->index };
}

/* 0 or a WSA code and *ret_reason */
static int send_request(struct san_offer *o, const struct wsd_reattach *x, uint64_t end, unsigned *ret_reason)
{
	struct wsd_side_at mine = to_at(&x->mine);

	for (;;) {
		drain();
		switch (proxy_client_reattach(san.client, x->fd, x->sock_cookie, o->cookie, x->over, &mine)) {
		case 0:
			o->daemon_knows = true;
			return 0;
		case PROXY_CLIENT_E_BUSY:
			if (wait_some(end))
				continue;
			*ret_reason = WSD_R_NO_DAEMON;
			return WSAETIMEDOUT;
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
			*ret_reason = WSD_R_NOMEM;
			return WSAENOBUFS;
		}
	}
}

/* k is out of reach of anybody else meanwhile: the switch has told nobody of it */
static int ask(struct san_sock *k, const struct wsd_reattach *x, uint64_t end)
{
	struct san_offer *o = calloc(1, sizeof(*o));
	int e;

	k->reason = WSD_R_NOMEM;
	if (!o)
		return WSAENOBUFS;
	o->cookie = san_table_add(&san.offers, o);
	if (!o->cookie) {
		free(o);
		k->reason = WSD_R_TABLE_FULL;
		return WSAENOBUFS;
	}
	o->reattach = true;
	o->sock = k;
	k->offer = o;
	e = send_request(o, x, end, &k->reason);
	while (!e && o->state < OFFER_SESSION)
		if (!wait_some(end)) {
			k->reason = WSD_R_NO_DAEMON;
			e = WSAETIMEDOUT;
		}
	if (!e && o->state == OFFER_REFUSED) {
		k->reason = o->reason;
		e = WSAENOTCONN;
	}
	if (e) {
		k->offer = NULL;
		san_offer_drop(o, WSD_R_NONE, 0);
		return e;
	}
	if (o->remote)
		k->use = USE_ROAD;
	else
		proxy_client_attached(san.client, o->cookie, o->session_id);
	k->reason = WSD_R_NONE;
	k->state = SOCK_CONNECTED;
	return 0;
}

static int claim(struct san_sock *k, const struct wsd_reattach *x, uint64_t end)
{
	struct san_offer *o = k->offer;
	int e;

	o->at.serial = 0;
	e = send_request(o, x, end, &k->reason);
	while (!e && !o->at.serial)
		if (!wait_some(end) || !o->daemon_knows)
			e = WSAETIMEDOUT;
	return e;
}

int san_reattach(struct san_sock *k, const struct wsd_reattach *x, struct wsd_reattached *ret)
{
	uint64_t end = now_ms() + x->timeout_ms;
	int e;

	if (x->size < sizeof(*x) || ret->size < sizeof(*ret) || x->fd < 0 || !x->sock_cookie)
		return WSAEINVAL;
	if (k->state == SOCK_CONNECTED && k->offer && k->offer->reattach && x->over)
		e = claim(k, x, end);
	else if ((k->state == SOCK_NEW || k->state == SOCK_BOUND) && !x->over)
		e = ask(k, x, end);
	else
		e = WSAEINVAL;
	if (e)
		return e;
	ret->at = (struct wsd_side_place){ k->offer->at.ipc_ns, k->offer->at.shm, k->offer->at.index, k->offer->at.serial };
	return 0;
}
