/* SPDX-License-Identifier: MIT */
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

#include "proxy_daemon/server/end.h"
#include "proxy_daemon/server/san/distant.h"

/* bytes that so many digests speak of */
static const unsigned bytes_of[WSD_DIGESTS + 1] = { 0, 16, 64, 256 };

/* direction and number are in it, so that none can stand for another */
static bool mac_of(const struct wsd_digest *d, unsigned dir, unsigned i, const uint8_t a[16], const uint8_t b[16], uint8_t ret[16])
{
	struct { uint64_t dir, i; struct wsd_digest d; } text = { dir, i, *d };
	uint8_t key[32], full[32];

	memcpy(key, a, 16);
	memcpy(key + 16, b, 16);
	if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, sizeof(key), &text, sizeof(text), full) < 0)
		return false;
	memcpy(ret, full, 16);
	return true;
}

void proof_macs(const struct end_san *san, const uint8_t a[16], const uint8_t b[16], uint8_t ret[2][3][16])
{
	unsigned dir, i;

	memset(ret, 0, 2 * 3 * 16);
	for (dir = 0; dir < 2; dir++)
		for (i = 0; i < san->n[dir]; i++)
			if (!mac_of(&san->digest[dir][i], dir, i, a, b, ret[dir][i]))
				memset(ret[dir][i], 0, 16);	/* agrees with nothing */
}

uint32_t proof_check(const struct end_san *san, const uint8_t a[16], const struct wsd_peer_found *f)
{
	const uint32_t theirs[2] = { f->n_tx, f->n_rx };
	unsigned dir, n, sum = 0, most = 0;
	uint8_t mac[16];

	for (dir = 0; dir < 2; dir++) {
		/* what they sent is what we received */
		n = san->n[1 - dir] < theirs[dir] ? san->n[1 - dir] : theirs[dir];
		if (n > WSD_DIGESTS)
			return WSD_R_PROOF;
		if (!n)
			continue;
		if (!mac_of(&san->digest[1 - dir][n - 1], dir, n - 1, a, f->nonce, mac) || gnutls_memcmp(mac, f->mac[dir][n - 1], 16))
			return WSD_R_PROOF;
		sum += bytes_of[n];
		if (bytes_of[n] > most)
			most = bytes_of[n];
	}
	return sum >= 32 || most >= 64 ? 0 : WSD_R_NOT_YET;
}
