/* SPDX-License-Identifier: MIT */
/*
 * psk.c - RFC 8446, 4.2.11.2: the binder is HMAC(finished key, hash of the ClientHello up to the list of binders), and the finished key
 * comes from the PSK by HKDF. The list is the end of the message, so its place is known once the extension is.
 */
#include <gnutls/crypto.h>
#include <string.h>
#include <wsd/peer_proto.h>

#include "proxy_daemon/server/san/psk.h"

#define HASH_LEN	32u
#define PRE_SHARED_KEY	41u
#define CLIENT_HELLO	1u
#define LABEL_MAX	16u

/* one binder: u16 length of the list, u8 length of the binder, binder */
static const uint8_t list_head[3] = { 0, 1 + HASH_LEN, HASH_LEN };
#define LIST_LEN	(sizeof(list_head) + HASH_LEN)

int psk_derive(uint8_t ret[static PSK_LEN], const uint8_t *key, unsigned len, const uint8_t ip[2][16])
{
	uint8_t text[sizeof(WSD_PEER_IDENTITY) + 32];	/* the identity with its zero */

	memcpy(text, WSD_PEER_IDENTITY, sizeof(WSD_PEER_IDENTITY));
	memcpy(text + sizeof(WSD_PEER_IDENTITY), ip, 32);
	return gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, len, text, sizeof(text), ret);
}

/* HKDF-Expand-Label(secret, label, context, HASH_LEN), in place */
static int expand(uint8_t secret[static HASH_LEN], const char *label, const uint8_t *context, uint8_t n)
{
	uint8_t info[4 + 6 + LABEL_MAX + HASH_LEN], out[HASH_LEN], len = (uint8_t)(6 + strlen(label));
	gnutls_datum_t key = { secret, HASH_LEN }, text = { info, 4u + len + n };
	int r;

	info[0] = 0;
	info[1] = HASH_LEN;
	info[2] = len;
	memcpy(info + 3, "tls13 ", 6);
	memcpy(info + 9, label, len - 6u);
	info[3 + len] = n;
	if (n)
		memcpy(info + 4 + len, context, n);
	r = gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &key, &text, out, HASH_LEN);
	memcpy(secret, out, HASH_LEN);
	gnutls_memset(out, 0, sizeof(out));
	return r;
}

static int finished_key(uint8_t ret[static HASH_LEN], const uint8_t psk[static PSK_LEN])
{
	static const uint8_t zero[HASH_LEN];
	gnutls_datum_t ikm = { (unsigned char *)psk, PSK_LEN }, salt = { (unsigned char *)zero, HASH_LEN };
	uint8_t nothing[HASH_LEN];
	int r;

	r = gnutls_hash_fast(GNUTLS_DIG_SHA256, "", 0, nothing);
	if (!r)
		r = gnutls_hkdf_extract(GNUTLS_MAC_SHA256, &ikm, &salt, ret);
	if (!r)
		r = expand(ret, "ext binder", nothing, HASH_LEN);
	return r ? r : expand(ret, "finished", NULL, 0);
}

static int transcript(uint8_t ret[static HASH_LEN], const gnutls_datum_t *hello)
{
	uint8_t head[4] = { CLIENT_HELLO, (uint8_t)(hello->size >> 16), (uint8_t)(hello->size >> 8), (uint8_t)hello->size };
	gnutls_hash_hd_t h;
	int r = gnutls_hash_init(&h, GNUTLS_DIG_SHA256);

	if (r)
		return r;
	r = gnutls_hash(h, head, sizeof(head));
	if (!r)
		r = gnutls_hash(h, hello->data, hello->size - LIST_LEN);
	gnutls_hash_deinit(h, ret);
	return r;
}

static int on_extension(void *ctx, unsigned id, const unsigned char *data, unsigned n)
{
	if (id == PRE_SHARED_KEY)
		*(gnutls_datum_t *)ctx = (gnutls_datum_t){ (unsigned char *)data, n };
	return 0;
}

bool psk_has_bound(const uint8_t psk[static PSK_LEN], const gnutls_datum_t *hello)
{
	uint8_t key[HASH_LEN], hash[HASH_LEN], mac[HASH_LEN];
	gnutls_datum_t ext = { 0 };
	const uint8_t *list;
	bool is;

	if (gnutls_ext_raw_parse(&ext, on_extension, hello, GNUTLS_EXT_RAW_FLAG_TLS_CLIENT_HELLO) < 0 || ext.size < LIST_LEN ||
	    ext.data + ext.size != hello->data + hello->size)
		return false;
	list = ext.data + ext.size - LIST_LEN;
	if (memcmp(list, list_head, sizeof(list_head)))
		return false;
	is = !finished_key(key, psk) && !transcript(hash, hello) && !gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, HASH_LEN, hash, HASH_LEN, mac) &&
	     !gnutls_memcmp(mac, list + sizeof(list_head), HASH_LEN);
	gnutls_memset(key, 0, sizeof(key));
	return is;
}
