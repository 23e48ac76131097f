/* SPDX-License-Identifier: MIT */
#include <string.h>
#include <sys/socket.h>

#include "proxy_daemon/server/request.h"

static const size_t request_size[] = {
	[WSD_MSG_HELLO] = sizeof(struct wsd_msg_hello),
	[WSD_MSG_OFFER] = sizeof(struct wsd_msg_offer),
	[WSD_MSG_WITHDRAW] = sizeof(struct wsd_msg_withdraw),
	[WSD_MSG_ATTACHED] = sizeof(struct wsd_msg_attached),
	[WSD_MSG_STATUS] = sizeof(struct wsd_msg_plain),
	[WSD_MSG_UNLOAD] = sizeof(struct wsd_msg_plain),
	[WSD_MSG_REATTACH] = sizeof(struct wsd_msg_reattach),
	[WSD_MSG_PEERS] = sizeof(struct wsd_msg_peers),
	[WSD_MSG_SIDE] = sizeof(struct wsd_msg_side),
	[WSD_MSG_OFFER_SAN] = sizeof(struct wsd_msg_offer_san),
	[WSD_MSG_SAN_LOCAL] = sizeof(struct wsd_msg_san_blob),
	[WSD_MSG_SAN_READY] = sizeof(struct wsd_msg_san_plain),
	[WSD_MSG_SAN_ASK] = sizeof(struct wsd_msg_san_plain),
};
#define N_REQUESTS (sizeof(request_size) / sizeof(*request_size))

static const char *offer_fault(const struct wsd_msg_offer *m, uint32_t flags)
{
	if (!m->hdr.cookie)
		return "OFFER without a cookie";
	if (m->fd < 0)
		return "OFFER of a negative descriptor";
	if (m->role > WSD_ROLE_ACCEPT)
		return "OFFER with an unknown role";
	if (!m->sock_cookie)
		return "OFFER without a socket cookie";
	if (m->flags & ~flags)
		return "OFFER with flags";
	if (m->local.family != AF_INET && m->local.family != AF_INET6)
		return "OFFER of an unknown address family";
	if (m->local.family != m->remote.family)
		return "OFFER with two address families";
	return NULL;
}

static const char *side_fault(const struct wsd_side_at *at)
{
	return at->serial || at->shm < -1 || (at->ipc_ns && at->shm < 0) ? "a side that cannot be" : NULL;
}

static const char *reattach_fault(const struct wsd_msg_reattach *m)
{
	if (!m->hdr.cookie)
		return "REATTACH without a cookie";
	if (m->fd < 0)
		return "REATTACH of a negative descriptor";
	if (!m->sock_cookie)
		return "REATTACH without a socket cookie";
	if (m->flags)
		return "REATTACH with flags";
	if (m->local.family != AF_INET && m->local.family != AF_INET6)
		return "REATTACH of an unknown address family";
	if (m->local.family != m->remote.family)
		return "REATTACH with two address families";
	return side_fault(&m->claim);
}

static const char *peers_fault(const struct wsd_msg_peers *m)
{
	if (m->flags & ~(WSD_PEERS_RETRY | WSD_PEERS_TRY) || m->reserved)
		return "PEERS with unknown flags";
	if ((m->flags & WSD_PEERS_TRY) && ((m->local.family != AF_INET && m->local.family != AF_INET6) ||
					   m->local.family != m->remote.family))
		return "PEERS to try, of no one address family";
	return NULL;
}

int request_parse(union request *ret, const void *buf, size_t len, const char **ret_what)
{
	struct wsd_msg_hdr hdr;
	const char *what = NULL;

	if (len < sizeof(hdr)) {
		*ret_what = "packet shorter than its header";
		return WSD_R_PEER_BROKEN;
	}
	memcpy(&hdr, buf, sizeof(hdr));
	if (hdr.version != WSD_PROXY_VERSION) {
		*ret_what = "another version of the protocol";
		return WSD_R_VERSION;
	}
	if (hdr.type >= N_REQUESTS || !request_size[hdr.type]) {
		*ret_what = "unknown request";
		return WSD_R_PEER_BROKEN;
	}
	if (hdr.len != len || len != request_size[hdr.type]) {
		*ret_what = "length does not fit the request";
		return WSD_R_PEER_BROKEN;
	}
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, buf, len);

	switch (hdr.type) {
	case WSD_MSG_HELLO:
		if (ret->hello.flags || ret->hello.reserved)
			what = "HELLO with flags";
		break;
	case WSD_MSG_OFFER:
		what = offer_fault(&ret->offer, 0);
		break;
	case WSD_MSG_OFFER_SAN:
		what = offer_fault(&ret->offer_san.offer, WSD_SAN_FORCE);
		if (!what && (ret->offer_san.n_tx > WSD_DIGESTS || ret->offer_san.n_rx > WSD_DIGESTS))
			what = "OFFER_SAN with more digests than there are";
		break;
	case WSD_MSG_SAN_LOCAL:
		if (!ret->blob.len || ret->blob.len > WSD_SAN_BLOB_MAX || ret->blob.reserved)
			what = "SAN_LOCAL of a length that cannot be";
		break;
	case WSD_MSG_SAN_READY:
		if (ret->san.what || ret->san.reserved || ret->san.a || ret->san.b)
			what = "SAN_READY with more to say";
		break;
	case WSD_MSG_SAN_ASK:
		if (ret->san.what < WSD_SAN_DECIDE || ret->san.what >= _WSD_SAN_N || ret->san.reserved)
			what = "SAN_ASK for something unknown";
		break;
	case WSD_MSG_WITHDRAW:
		if (ret->withdraw.reason >= _WSD_R_N)
			what = "WITHDRAW for an unknown reason";
		break;
	case WSD_MSG_REATTACH:
		what = reattach_fault(&ret->reattach);
		break;
	case WSD_MSG_SIDE:
		what = side_fault(&ret->side.at);
		break;
	case WSD_MSG_STATUS:
		if (ret->plain.flags || ret->plain.reserved)
			what = "STATUS with flags";
		break;
	case WSD_MSG_PEERS:
		what = peers_fault(&ret->peers);
		break;
	case WSD_MSG_UNLOAD:
		if (ret->plain.flags > WSD_UNLOAD_REVOKE || ret->plain.reserved)
			what = "UNLOAD with unknown flags";
		break;
	}
	if (what) {
		*ret_what = what;
		return WSD_R_PEER_BROKEN;
	}
	return 0;
}
