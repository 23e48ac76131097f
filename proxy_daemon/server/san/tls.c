/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>
#include <wsd/peer_proto.h>

#include "proxy_daemon/server/log.h"
#include "proxy_daemon/server/san/config.h"
#include "proxy_daemon/server/san/psk.h"
#include "proxy_daemon/server/san/tls.h"

/* AES-128 and ChaCha20 are what GnuTLS 3.7 has for an external PSK: it is bound to SHA-256. */
#define PRIORITY	"NONE:+VERS-TLS1.3:+AEAD:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:+ECDHE-PSK:+GROUP-X25519:" \
			"+GROUP-SECP256R1:+SIGN-ALL:%DISABLE_TLS13_COMPAT_MODE"
#define HELLO_MAX	4096u	/* no handshake message of ours is nearly as long */

struct tls {
	uint8_t key[2][SAN_KEY_MAX];	/* the one that is offered, the older one */
	unsigned key_len[2];
	gnutls_priority_t priority;
	gnutls_psk_server_credentials_t server;
};

struct tls_session {
	struct tls *tls;
	gnutls_session_t gs;
	gnutls_psk_client_credentials_t client;
	uint8_t ip[2][16];	/* of the client, of the server */
	bool old;		/* server: the client has the older key */
};

static int derive(const struct tls_session *s, bool old, uint8_t ret[static PSK_LEN])
{
	return psk_derive(ret, s->tls->key[old], s->tls->key_len[old], s->ip);
}

/* There are two keys: which is it? Only the first ClientHello tells; the answer to a second one, after a HelloRetryRequest, stays */
static int on_client_hello(gnutls_session_t gs, unsigned type, unsigned when, unsigned incoming, const gnutls_datum_t *msg)
{
	struct tls_session *s = gnutls_session_get_ptr(gs);
	uint8_t psk[PSK_LEN];

	if (!derive(s, true, psk) && psk_has_bound(psk, msg))
		s->old = true;
	gnutls_memset(psk, 0, sizeof(psk));
	return 0;
}

static int on_identity(gnutls_session_t gs, const gnutls_datum_t *name, gnutls_datum_t *ret_key)
{
	const struct tls_session *s = gnutls_session_get_ptr(gs);

	if (name->size != sizeof(WSD_PEER_IDENTITY) - 1 || memcmp(name->data, WSD_PEER_IDENTITY, name->size))
		return -1;
	ret_key->data = gnutls_malloc(PSK_LEN);
	if (!ret_key->data)
		return -1;
	ret_key->size = PSK_LEN;
	return derive(s, s->old, ret_key->data) ? -1 : 0;
}

int tls_init(struct tls **ret, const uint8_t *key, unsigned len, const uint8_t *old, unsigned old_len)
{
	struct tls *tls = calloc(1, sizeof(*tls));
	int r;

	if (!tls || len > SAN_KEY_MAX || old_len > SAN_KEY_MAX) {
		free(tls);
		return -ENOMEM;
	}
	memcpy(tls->key[0], key, len);
	tls->key_len[0] = len;
	memcpy(tls->key[1], old, old_len);
	tls->key_len[1] = old_len;
	r = gnutls_priority_init(&tls->priority, PRIORITY, NULL);
	if (r)
		goto err_free;
	r = gnutls_psk_allocate_server_credentials(&tls->server);
	if (r)
		goto err_priority;
	gnutls_psk_set_server_credentials_function2(tls->server, on_identity);
	*ret = tls;
	return 0;

err_priority:
	gnutls_priority_deinit(tls->priority);
err_free:
	log_error("TLS for links to other hosts cannot be set up: %s", gnutls_strerror(r));
	gnutls_memset(tls, 0, sizeof(*tls));
	free(tls);
	return -EPROTO;
}

struct tls *tls_fini(struct tls *tls)
{
	if (!tls)
		return NULL;
	gnutls_psk_free_server_credentials(tls->server);
	gnutls_priority_deinit(tls->priority);
	gnutls_memset(tls, 0, sizeof(*tls));
	free(tls);
	return NULL;
}

static int become_client(struct tls_session *s)
{
	static const gnutls_datum_t name = { (unsigned char *)WSD_PEER_IDENTITY, sizeof(WSD_PEER_IDENTITY) - 1 };
	uint8_t psk[PSK_LEN];
	gnutls_datum_t key = { psk, PSK_LEN };
	int r;

	r = derive(s, false, psk);
	if (!r)
		r = gnutls_psk_allocate_client_credentials(&s->client);
	if (!r)
		r = gnutls_psk_set_client_credentials2(s->client, &name, &key, GNUTLS_PSK_KEY_RAW);
	if (!r)
		r = gnutls_credentials_set(s->gs, GNUTLS_CRD_PSK, s->client);
	gnutls_memset(psk, 0, sizeof(psk));
	return r;
}

int tls_new(struct tls_session **ret, struct tls *tls, int fd, bool client, const uint8_t local[16], const uint8_t remote[16])
{
	struct tls_session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->tls = tls;
	memcpy(s->ip[!client], local, 16);
	memcpy(s->ip[client], remote, 16);
	r = gnutls_init(&s->gs, (client ? GNUTLS_CLIENT : GNUTLS_SERVER) | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL |
			GNUTLS_NO_TICKETS | GNUTLS_NO_AUTO_SEND_TICKET);
	if (r) {
		s->gs = NULL;
		goto err;
	}
	gnutls_session_set_ptr(s->gs, s);
	r = gnutls_priority_set(s->gs, tls->priority);
	if (!r)
		r = client ? become_client(s) : gnutls_credentials_set(s->gs, GNUTLS_CRD_PSK, tls->server);
	if (r)
		goto err;
	if (!client && tls->key_len[1])
		gnutls_handshake_set_hook_function(s->gs, GNUTLS_HANDSHAKE_CLIENT_HELLO, GNUTLS_HOOK_PRE, on_client_hello);
	gnutls_handshake_set_max_packet_length(s->gs, HELLO_MAX);
	gnutls_transport_set_int(s->gs, fd);
	*ret = s;
	return 0;

err:
	tls_free(s);
	return r == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EPROTO;
}

struct tls_session *tls_free(struct tls_session *s)
{
	if (!s)
		return NULL;
	if (s->gs)
		gnutls_deinit(s->gs);
	if (s->client)
		gnutls_psk_free_client_credentials(s->client);
	gnutls_memset(s, 0, sizeof(*s));
	free(s);
	return NULL;
}

/* an alert about keys, or none that tells them from others: a peer says as little as it can */
static int alert_means(gnutls_alert_description_t a)
{
	switch (a) {
	case GNUTLS_A_DECRYPT_ERROR: case GNUTLS_A_UNKNOWN_PSK_IDENTITY: case GNUTLS_A_HANDSHAKE_FAILURE:
	case GNUTLS_A_ILLEGAL_PARAMETER: case GNUTLS_A_BAD_RECORD_MAC: case GNUTLS_A_ACCESS_DENIED:
	case GNUTLS_A_INSUFFICIENT_SECURITY: case GNUTLS_A_MISSING_EXTENSION: case GNUTLS_A_CERTIFICATE_REQUIRED:
	case GNUTLS_A_INTERNAL_ERROR:
		return -EKEYREJECTED;
	default:
		return -EPROTO;
	}
}

static int errno_of(const struct tls_session *s, int r)
{
	switch (r) {
	case GNUTLS_E_AGAIN: case GNUTLS_E_INTERRUPTED:
		return -EAGAIN;
	case GNUTLS_E_PUSH_ERROR: case GNUTLS_E_PULL_ERROR: case GNUTLS_E_PREMATURE_TERMINATION: case GNUTLS_E_INVALID_SESSION:
		return -ECONNRESET;
	case GNUTLS_E_MEMORY_ERROR:
		return -ENOMEM;
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return alert_means(gnutls_alert_get(s->gs));
	case GNUTLS_E_DECRYPTION_FAILED: case GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER: case GNUTLS_E_INSUFFICIENT_CREDENTIALS:
	case GNUTLS_E_NO_CIPHER_SUITES: case GNUTLS_E_INSUFFICIENT_SECURITY: case GNUTLS_E_BAD_COOKIE:
		return -EKEYREJECTED;
	default:
		return -EPROTO;
	}
}

int tls_shake(struct tls_session *s)
{
	int r;

	do
		r = gnutls_handshake(s->gs);
	while (r == GNUTLS_E_INTERRUPTED || r == GNUTLS_E_WARNING_ALERT_RECEIVED);
	if (r == GNUTLS_E_AGAIN)
		return -EAGAIN;
	if (r) {
		log_debug("TLS handshake: %s%s%s", gnutls_strerror(r), r == GNUTLS_E_FATAL_ALERT_RECEIVED ? ": " : "",
			  r == GNUTLS_E_FATAL_ALERT_RECEIVED ? gnutls_alert_get_name(gnutls_alert_get(s->gs)) : "");
		if (r != GNUTLS_E_FATAL_ALERT_RECEIVED)
			(void)gnutls_alert_send_appropriate(s->gs, r);
		return errno_of(s, r);
	}
	/* the priorities allow nothing else; this is what everything behind it stands on */
	if (gnutls_protocol_get_version(s->gs) != GNUTLS_TLS1_3 || gnutls_kx_get(s->gs) != GNUTLS_KX_ECDHE_PSK ||
	    gnutls_auth_get_type(s->gs) != GNUTLS_CRD_PSK)
		return -EPROTO;
	return 0;
}

bool tls_has_old_key(const struct tls_session *s)
{
	return s->old;
}

bool tls_wants_write(const struct tls_session *s)
{
	return gnutls_record_get_direction(s->gs) == 1;
}

ssize_t tls_send(struct tls_session *s, const void *buf, size_t n)
{
	ssize_t r = gnutls_record_send(s->gs, buf, n);

	return r < 0 ? errno_of(s, (int)r) : r;
}

ssize_t tls_receive(struct tls_session *s, void *buf, size_t n)
{
	ssize_t r = gnutls_record_recv(s->gs, buf, n);

	return r < 0 ? errno_of(s, (int)r) : r;
}
