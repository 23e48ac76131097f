/* SPDX-License-Identifier: MIT */
/* control.c - our extensions of the SPI: the shared ring and provider-wide control (wsd/san_ext.h) */
#include <string.h>

#include "san_provider/san.h"

int WSPAPI san_shared_ring(SOCKET s, LPWSDSHAREDRING ring, LPINT lpErrno)
{
	struct san_sock *k = san_sock_get(s);
	struct rt_ring r;
	int e;
	SAN_ENTRY;

	if (!k)
		return san_fail(lpErrno, WSAENOTSOCK);
	if (!ring || ring->size < sizeof(*ring))
		return san_fail(lpErrno, WSAEINVAL);
	if (k->state != SOCK_CONNECTED)
		return san_fail(lpErrno, WSAENOTCONN);
	if (k->use == USE_MESSAGES)
		return san_fail(lpErrno, WSAEINVAL);	/* messages run in it already */
	if (k->offer->remote)
		return san_fail(lpErrno, WSAEOPNOTSUPP);
	e = rt_conn_ring(k->offer->conn, &r);
	if (e)
		return san_fail(lpErrno, san_error_of(e));
	k->use = USE_RING;
	*ring = (WSDSHAREDRING){
		.size = sizeof(*ring),
		.side = r.side,
		.base = r.base,
		.length = r.length,
		.session_id = r.session_id,
		.ring_size = r.ring_size,
	};
	return 0;
}

static const _Atomic uint32_t *notify_word(void)
{
	return san.starts ? proxy_client_notify_word(san.client) : NULL;
}

static int handle(void)
{
	return san.starts ? proxy_client_fd(san.client) : -1;
}

static unsigned reason(void)
{
	return san.starts ? proxy_client_reason(san.client) : WSD_R_NO_PROVIDER;
}

static unsigned socket_reason(SOCKET s)
{
	const struct san_sock *k = san_sock_get(s);

	return k ? k->reason : WSD_R_NONE;
}

static void set_places(const char *socket_path, const char *runtime_dir)
{
	proxy_client_set_places(san.client, socket_path, runtime_dir);
}

static void retire(SOCKET s, unsigned why, uint32_t unread)
{
	struct san_sock *k = san_sock_get(s);
	SAN_ENTRY;

	why = why < _WSD_R_N ? why : WSD_R_NONE;
	if (!k || !k->offer)
		return;
	san_remote_stop(k->offer, why);
	san_offer_withdraw(k->offer, why, unread);
}

static void side(SOCKET s, const struct wsd_side_place *p)
{
	struct san_sock *k = san_sock_get(s);
	struct wsd_side_at at = { .ipc_ns = p->ipc_ns, .shm = p->shm, .index = p->index };
	SAN_ENTRY;

	if (k && k->offer && k->offer->state == OFFER_SESSION && k->offer->daemon_knows)
		proxy_client_side(san.client, k->offer->cookie, k->offer->session_id, &at);
}

static unsigned subnets(struct wsd_subnet *ret, unsigned max, uint32_t *ret_gen)
{
	*ret_gen = 0;
	return san.starts ? proxy_client_subnets(san.client, ret, max, ret_gen) : 0;
}

static int forced(void)
{
	return san.forced;
}

/* the key "options" of our entry in the catalog: words, of which we know one */
static void set_options(const char *options)
{
	char word[] = "transport=verbs";
	const char *at = strstr(options, word);

	if (at && (at == options || at[-1] == ' ') && (!at[sizeof(word) - 1] || at[sizeof(word) - 1] == ' '))
		san.forced = true;
}

int WSPAPI san_control(LPWSDCONTROL control, LPINT lpErrno)
{
	if (!control || control->size < sizeof(*control))
		return san_fail(lpErrno, WSAEINVAL);
	if (!san.starts)
		return san_fail(lpErrno, WSANOTINITIALISED);
	*control = (WSDCONTROL){
		.size = sizeof(*control),
		.progress = san_progress,
		.notify_word = notify_word,
		.handle = handle,
		.reason = reason,
		.socket_reason = socket_reason,
		.retire = retire,
		.after_fork = san_after_fork,
		.set_places = set_places,
		.side = side,
		.handles = san_handles,
		.handles_gen = san_handles_gen,
		.drain = san_drain,
		.arm = san_arm,
		.wait_fd = san_wait_fd,
		.subnets = subnets,
		.forced = forced,
		.set_options = set_options,
		.abandon = san_abandon,
	};
	return 0;
}
