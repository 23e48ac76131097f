/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "proxy_daemon/server/san/peer_codec.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "bodies are copied as they are: swap them here first");

/* version 1 bodies; a type whose id must be 0 is one between daemons, not about a session */
static const struct shape {
	uint16_t body;
	bool known, about_session, tail;
	uint16_t grown;		/* with what was appended since; what a sender lacks of it is zero. 0: nothing was */
} shapes[_WSD_PEER_TYPES] = {
	[WSD_PEER_HELLO] = { WSD_PEER_HELLO_V1, true, false, false, sizeof(struct wsd_peer_hello) },
	[WSD_PEER_PING] = { sizeof(struct wsd_peer_ping), true, false, false },
	[WSD_PEER_PONG] = { sizeof(struct wsd_peer_ping), true, false, false },
	[WSD_PEER_BYE] = { sizeof(struct wsd_peer_reason), true, false, false },
	[WSD_PEER_OFFER] = { sizeof(struct wsd_peer_offer), true, true, false },
	[WSD_PEER_FOUND] = { WSD_PEER_FOUND_V1, true, true, false, sizeof(struct wsd_peer_found) },
	[WSD_PEER_REFUSE] = { sizeof(struct wsd_peer_reason), true, true, false },
	[WSD_PEER_SETUP] = { sizeof(struct wsd_peer_setup), true, true, false },
	[WSD_PEER_LOCAL] = { 0, true, true, true },
	[WSD_PEER_READY] = { 0, true, true, false },
	[WSD_PEER_WITHDRAW] = { sizeof(struct wsd_peer_reason), true, true, false },
	[WSD_PEER_ENDED] = { sizeof(struct wsd_peer_ended), true, true, false },
	[WSD_PEER_FILL] = { sizeof(struct wsd_peer_fill), true, true, true },
	[WSD_PEER_DECIDE] = { 0, true, true, false },
	[WSD_PEER_DECIDED] = { sizeof(struct wsd_peer_reason), true, true, false },
	[WSD_PEER_WANT_RETURN] = { 0, true, true, false },
	[WSD_PEER_STATE] = { sizeof(struct wsd_peer_state), true, false, true },
	[WSD_PEER_HEAD] = { 0, true, true, false },
	[WSD_PEER_HEAD_IS] = { sizeof(struct wsd_peer_head), true, true, false },
	[WSD_PEER_WAIT] = { 0, true, true, false },
	[WSD_PEER_ASK_END] = { 0, true, true, false },
	[WSD_PEER_PLAIN_AT] = { sizeof(struct wsd_peer_plain), true, true, false },
	[WSD_PEER_PLAIN_IS] = { sizeof(struct wsd_peer_plain), true, true, false },
};

int peer_length(const void *buf, size_t n)
{
	uint32_t len;

	if (n < sizeof(struct wsd_peer_hdr))
		return 0;
	memcpy(&len, buf, sizeof(len));
	return len < sizeof(struct wsd_peer_hdr) || len > WSD_PEER_MSG_MAX ? -EBADMSG : (int)len;
}

static const char *body_fault(const struct peer_msg *m)
{
	const union peer_body *b = &m->body;

	switch (m->hdr.type) {
	case WSD_PEER_HELLO:
		if (!b->hello.min_version || b->hello.min_version > b->hello.max_version)
			return "HELLO with an empty range of versions";
		break;
	case WSD_PEER_BYE:
		if (!b->reason.reason)
			return "BYE without a reason";
		break;
	case WSD_PEER_REFUSE:
		if (!b->reason.reason)
			return "REFUSE without a reason";
		break;
	case WSD_PEER_DECIDED:
		if (b->reason.reason != WSD_PEER_TAKEN && b->reason.reason != WSD_PEER_VOID)
			return "DECIDED neither way";
		break;
	case WSD_PEER_OFFER:
		if (!b->offer.local.port || !b->offer.remote.port)
			return "OFFER without ports";
		break;
	case WSD_PEER_FOUND:
		if (b->found.n_tx > 3 || b->found.n_rx > 3)
			return "FOUND with more proofs than there are";
		break;
	case WSD_PEER_SETUP:
		if (!b->setup.nonce)
			return "SETUP without a nonce";
		break;
	case WSD_PEER_LOCAL:
		if (m->n_tail > WSD_PEER_BLOB_MAX)
			return "LOCAL with a long blob";
		break;
	case WSD_PEER_FILL:
		if (b->fill.n_seams > WSD_PEER_SEAMS_MAX || b->fill.len > WSD_PEER_FILL_MAX)
			return "FILL of too much";
		if (b->fill.n_seams * sizeof(struct wsd_peer_seam) + b->fill.len != m->n_tail)
			return "FILL that is not as long as it says";
		if (b->fill.from + b->fill.len < b->fill.from)
			return "FILL beyond the end of numbers";
		break;
	case WSD_PEER_STATE:
		if (b->state.n > WSD_PEER_STATES_MAX || b->state.n * sizeof(struct wsd_peer_state_of) != m->n_tail)
			return "STATE that is not as long as it says";
		break;
	}
	return NULL;
}

int peer_parse(struct peer_msg *ret, const void *buf, size_t n, const char **ret_what)
{
	const uint8_t *bytes = buf;
	const struct shape *s;
	struct peer_msg m;
	const char *what;
	size_t body;

	memset(&m, 0, sizeof(m));
	if (n < sizeof(m.hdr)) {
		*ret_what = "message shorter than its header";
		return -EBADMSG;
	}
	memcpy(&m.hdr, bytes, sizeof(m.hdr));
	body = m.hdr.body;
	if (m.hdr.len != n || n > WSD_PEER_MSG_MAX || body > n - sizeof(m.hdr)) {
		*ret_what = "lengths that contradict each other";
		return -EBADMSG;
	}
	s = m.hdr.type < _WSD_PEER_TYPES ? &shapes[m.hdr.type] : NULL;
	if (!s || !s->known)
		return -EOPNOTSUPP;
	if (body < s->body) {
		*ret_what = "body shorter than its type";
		return -EBADMSG;
	}
	m.tail = bytes + sizeof(m.hdr) + body;
	m.n_tail = n - sizeof(m.hdr) - body;
	if (m.n_tail && !s->tail) {
		*ret_what = "bytes behind the body";
		return -EBADMSG;
	}
	if (s->about_session != (m.hdr.id != 0)) {
		*ret_what = s->about_session ? "about a session, without its id" : "about no session, with an id";
		return -EBADMSG;
	}
	memcpy(&m.body, bytes + sizeof(m.hdr), body < s->grown ? body : s->grown ? s->grown : s->body);
	what = body_fault(&m);
	if (what) {
		*ret_what = what;
		return -EBADMSG;
	}
	*ret = m;
	return 0;
}

int peer_build(void *buf, size_t room, uint16_t type, uint64_t id, const void *body, size_t n, const void *tail, size_t m)
{
	struct wsd_peer_hdr h = { .type = type, .body = (uint16_t)n, .id = id };
	uint8_t *out = buf;

	if (n > sizeof(union peer_body) || m > WSD_PEER_MSG_MAX - sizeof(h) - n || sizeof(h) + n + m > room)
		return -EMSGSIZE;
	h.len = (uint32_t)(sizeof(h) + n + m);
	memcpy(out, &h, sizeof(h));
	if (n)
		memcpy(out + sizeof(h), body, n);
	if (m)
		memcpy(out + sizeof(h) + n, tail, m);
	return (int)h.len;
}

void peer_ip(uint8_t ret[16], const struct wsd_addr *a)
{
	if (a->family == AF_INET6) {
		memcpy(ret, a->ip, 16);
		return;
	}
	memset(ret, 0, 10);
	memset(ret + 10, 0xff, 2);
	memcpy(ret + 12, a->ip, 4);
}

void peer_addr(struct wsd_peer_addr *ret, const struct wsd_addr *a)
{
	memset(ret, 0, sizeof(*ret));
	peer_ip(ret->ip, a);
	ret->port = a->port;
}

void peer_addr_of(struct wsd_addr *ret, const uint8_t ip[16], uint16_t port)
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
	bool v4 = !memcmp(ip, mapped, 12);

	memset(ret, 0, sizeof(*ret));
	ret->family = v4 ? AF_INET : AF_INET6;
	ret->port = port;
	memcpy(ret->ip, v4 ? ip + 12 : ip, v4 ? 4 : 16);
}
