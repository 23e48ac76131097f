/* SPDX-License-Identifier: MIT */
/*
 * fuzz_proxy_request.c - any bytes as a request to wsd-proxyd
 *
 * A libFuzzer target; with -DFUZZ_STANDALONE a program that tries a bounded number of random
 * packets, half of them sound ones with a few bytes changed. Checked: what is accepted keeps the
 * promises that the rest of the daemon relies on.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "proxy_daemon/server/request.h"

#define MUST(cond) do { if (!(cond)) { fprintf(stderr, "not so: %s\n", #cond); abort(); } } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *what = NULL;
	union request rq;
	uint8_t *exact = malloc(size ? size : 1);	/* a read past the end meets the sanitizer */
	int r;

	MUST(exact);
	memcpy(exact, data, size);
	r = request_parse(&rq, exact, size, &what);
	free(exact);
	if (r) {
		MUST(what && (r == WSD_R_VERSION || r == WSD_R_PEER_BROKEN));
		return 0;
	}
	MUST(rq.hdr.len == size && rq.hdr.version == WSD_PROXY_VERSION);
	switch (rq.hdr.type) {
	case WSD_MSG_OFFER:
		MUST(rq.hdr.cookie && rq.offer.sock_cookie && rq.offer.fd >= 0 && rq.offer.role <= 1 && !rq.offer.flags);
		MUST(rq.offer.local.family == AF_INET || rq.offer.local.family == AF_INET6);
		MUST(rq.offer.local.family == rq.offer.remote.family);
		break;
	case WSD_MSG_WITHDRAW:
		MUST(rq.withdraw.reason < _WSD_R_N);
		break;
	case WSD_MSG_OFFER_SAN:
		MUST(rq.hdr.cookie && rq.offer.sock_cookie && rq.offer.fd >= 0 && rq.offer.role <= 1);
		MUST(!(rq.offer.flags & ~WSD_SAN_FORCE) && rq.offer_san.n_tx <= WSD_DIGESTS && rq.offer_san.n_rx <= WSD_DIGESTS);
		MUST(rq.offer.local.family == AF_INET || rq.offer.local.family == AF_INET6);
		MUST(rq.offer.local.family == rq.offer.remote.family);
		break;
	case WSD_MSG_SAN_LOCAL:
		MUST(rq.blob.len && rq.blob.len <= WSD_SAN_BLOB_MAX);
		break;
	case WSD_MSG_SAN_READY:
		MUST(!rq.san.what);
		break;
	case WSD_MSG_SAN_ASK:
		MUST(rq.san.what >= WSD_SAN_DECIDE && rq.san.what < _WSD_SAN_N);
		break;
	case WSD_MSG_REATTACH:
	case WSD_MSG_SIDE:
		break;
	case WSD_MSG_UNLOAD:
		MUST(rq.plain.flags <= WSD_UNLOAD_REVOKE);
		break;
	case WSD_MSG_PEERS:
		MUST(rq.peers.flags <= (WSD_PEERS_RETRY | WSD_PEERS_TRY));
		MUST(!(rq.peers.flags & WSD_PEERS_TRY) || rq.peers.local.family == rq.peers.remote.family);
		break;
	case WSD_MSG_HELLO:
	case WSD_MSG_ATTACHED:
	case WSD_MSG_STATUS:
		break;
	default:
		MUST(!"a type that is no request");
	}
	return 0;
}

#ifdef FUZZ_STANDALONE
#define ROUNDS 2000000u

static uint64_t state = 0x9e3779b97f4a7c15ull;

static uint32_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16);
}

int main(int argc, char **argv)
{
	static const uint16_t size[] = { 0, sizeof(struct wsd_msg_hello), sizeof(struct wsd_msg_offer),
					 sizeof(struct wsd_msg_withdraw), sizeof(struct wsd_msg_attached),
					 sizeof(struct wsd_msg_plain), sizeof(struct wsd_msg_plain),
					 sizeof(struct wsd_msg_reattach), sizeof(struct wsd_msg_side),
					 sizeof(struct wsd_msg_offer_san), sizeof(struct wsd_msg_san_blob),
					 sizeof(struct wsd_msg_san_plain), sizeof(struct wsd_msg_san_plain) };
	unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : ROUNDS, i, n, k;
	_Alignas(8) uint8_t buf[320];

	if (argc > 2)
		state ^= strtoull(argv[2], NULL, 0) * 0x2545f4914f6cdd1dull;
	for (i = 0; i < rounds; i++) {
		for (n = 0; n < sizeof(buf); n++)
			buf[n] = (uint8_t)rnd();
		n = rnd() % sizeof(buf);
		if (i & 1) {
			struct wsd_msg_hdr h = { .version = WSD_PROXY_VERSION, .type = (uint16_t)(1 + rnd() % 12), .cookie = rnd() };
			struct wsd_msg_offer o = { .fd = 3, .role = rnd() & 1, .sock_cookie = 1,
						   .local.family = AF_INET6, .remote.family = AF_INET6 };

			n = h.len = size[h.type];
			o.hdr = h;
			memset(buf, 0, sizeof(buf));
			if (h.type == WSD_MSG_OFFER || h.type == WSD_MSG_OFFER_SAN || h.type == WSD_MSG_REATTACH)
				memcpy(buf, &o, sizeof(o));
			else if (h.type == WSD_MSG_SAN_LOCAL)
				((struct wsd_msg_san_blob *)buf)->len = 1 + rnd() % 300;
			else if (h.type == WSD_MSG_SAN_ASK)
				((struct wsd_msg_san_plain *)buf)->what = rnd() % 9;
			memcpy(buf, &h, sizeof(h));
			for (k = rnd() % 4; k; k--)
				buf[rnd() % n] ^= (uint8_t)(1u << (rnd() & 7));
		}
		LLVMFuzzerTestOneInput(buf, n);
	}
	printf("%u packets\n", rounds);
	return 0;
}
#endif
