/* SPDX-License-Identifier: MIT */
/*
 * fuzz_peer.c - any bytes as a message of another host's daemon
 *
 * A libFuzzer target; with -DFUZZ_STANDALONE a program that tries a bounded number of random messages, half of them sound ones
 * with a few bytes changed. Checked: what is accepted keeps the promises that the rest of the daemon relies on, and is
 * built again from what was read.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy_daemon/server/san/config.h"
#include "proxy_daemon/server/san/peer_codec.h"

#define MUST(cond) do { if (!(cond)) { fprintf(stderr, "not so: %s\n", #cond); abort(); } } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct peer_msg *m, const uint8_t *exact, size_t len)
{
	const union peer_body *b = &m->body;
	bool about_session = true;

	MUST(m->hdr.len == len && m->hdr.type < _WSD_PEER_TYPES);
	MUST(m->tail >= exact + sizeof(m->hdr) && m->tail + m->n_tail == exact + len);
	switch (m->hdr.type) {
	case WSD_PEER_HELLO:
		MUST(b->hello.min_version && b->hello.min_version <= b->hello.max_version);
		about_session = false;
		break;
	case WSD_PEER_PING: case WSD_PEER_PONG: case WSD_PEER_BYE:
		about_session = false;
		break;
	case WSD_PEER_STATE:
		MUST(b->state.n <= WSD_PEER_STATES_MAX && m->n_tail == b->state.n * sizeof(struct wsd_peer_state_of));
		about_session = false;
		break;
	case WSD_PEER_LOCAL:
		MUST(m->n_tail <= WSD_PEER_BLOB_MAX);
		break;
	case WSD_PEER_FILL:
		MUST(b->fill.n_seams <= WSD_PEER_SEAMS_MAX && b->fill.len <= WSD_PEER_FILL_MAX);
		MUST(m->n_tail == b->fill.n_seams * sizeof(struct wsd_peer_seam) + b->fill.len);
		MUST(b->fill.from + b->fill.len >= b->fill.from);
		break;
	case WSD_PEER_FOUND:
		MUST(b->found.n_tx <= 3 && b->found.n_rx <= 3);
		break;
	case WSD_PEER_SETUP:
		MUST(b->setup.nonce);
		break;
	case WSD_PEER_DECIDED:
		MUST(b->reason.reason == WSD_PEER_TAKEN || b->reason.reason == WSD_PEER_VOID);
		break;
	case WSD_PEER_REFUSE:
		MUST(b->reason.reason);
		break;
	}
	MUST((m->hdr.id != 0) == about_session);
	MUST(m->n_tail == 0 || m->hdr.type == WSD_PEER_LOCAL || m->hdr.type == WSD_PEER_FILL || m->hdr.type == WSD_PEER_STATE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t again[WSD_PEER_MSG_MAX];
	uint8_t *exact = malloc(size ? size : 1), key[SAN_KEY_MAX];	/* a read past the end meets the sanitizer */
	const char *what = NULL;
	struct san_config c;
	struct peer_msg m;
	int len, r;

	MUST(exact);
	memcpy(exact, data, size);
	len = peer_length(exact, size);
	MUST(len == 0 ? size < sizeof(struct wsd_peer_hdr) : len < 0 || len >= (int)sizeof(struct wsd_peer_hdr));
	MUST(len <= (int)WSD_PEER_MSG_MAX);
	r = peer_parse(&m, exact, size, &what);
	MUST(r != -1 && (r >= 0) == !r);
	if (!r) {
		MUST((size_t)len == size);
		check(&m, exact, size);
		/* its body as far as it is known: the message of this version */
		r = peer_build(again, sizeof(again), m.hdr.type, m.hdr.id, exact + sizeof(m.hdr),
			       m.hdr.body <= sizeof(m.body) ? m.hdr.body : sizeof(m.body), m.tail, m.n_tail);
		MUST(r > 0 && r <= len);
		MUST(!peer_parse(&m, again, (size_t)r, &what));
		check(&m, again, (size_t)r);
	} else if (what) {
		MUST(*what);
	}
	/* the same bytes as a key, and as values of the file */
	r = san_key_parse(key, (const char *)exact, size);
	MUST(r < 0 || (r >= (int)SAN_KEY_MIN && r <= (int)SAN_KEY_MAX));
	if (size && size < 200) {
		char text[200];

		memcpy(text, exact, size);
		text[size] = '\0';
		san_config_default(&c);
		(void)san_config_set(&c, "subnets", text);
		(void)san_config_set(&c, "listen", text);
		(void)san_config_set(&c, "key-file", text);
		(void)san_config_set(&c, "port", text);
		(void)san_config_set(&c, "ring-start", text);
		MUST(c.n_subnets <= SAN_SUBNETS_MAX && c.n_listen_at <= SAN_LISTEN_MAX && c.port && c.ring_start >= 4096);
		MUST(!c.n_subnets || (c.subnet[0].prefix && c.subnet[0].prefix <= 128));
	}
	free(exact);
	return 0;
}

#ifdef FUZZ_STANDALONE
#define ROUNDS 1000000u

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
	static const uint16_t size[_WSD_PEER_TYPES] = {
		[WSD_PEER_HELLO] = sizeof(struct wsd_peer_hello), [WSD_PEER_PING] = sizeof(struct wsd_peer_ping),
		[WSD_PEER_PONG] = sizeof(struct wsd_peer_ping), [WSD_PEER_BYE] = sizeof(struct wsd_peer_reason),
		[WSD_PEER_OFFER] = sizeof(struct wsd_peer_offer), [WSD_PEER_FOUND] = sizeof(struct wsd_peer_found),
		[WSD_PEER_REFUSE] = sizeof(struct wsd_peer_reason), [WSD_PEER_SETUP] = sizeof(struct wsd_peer_setup),
		[WSD_PEER_WITHDRAW] = sizeof(struct wsd_peer_reason), [WSD_PEER_ENDED] = sizeof(struct wsd_peer_ended),
		[WSD_PEER_FILL] = sizeof(struct wsd_peer_fill), [WSD_PEER_DECIDED] = sizeof(struct wsd_peer_reason),
		[WSD_PEER_STATE] = sizeof(struct wsd_peer_state), [WSD_PEER_HEAD_IS] = sizeof(struct wsd_peer_head),
		[WSD_PEER_PLAIN_AT] = sizeof(struct wsd_peer_plain), [WSD_PEER_PLAIN_IS] = sizeof(struct wsd_peer_plain),
	};
	static const char letters[] = "0123456789abcdefABCDEF+/=:., kmg";
	unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : ROUNDS, i, n, k, seams;
	uint64_t accepted = 0;
	uint8_t buf[512];
	const char *what;
	struct peer_msg m;

	if (argc > 2)
		state ^= strtoull(argv[2], NULL, 0) * 0x2545f4914f6cdd1dull;
	for (i = 0; i < rounds; i++) {
		for (n = 0; n < sizeof(buf); n++)
			buf[n] = i % 4 == 2 ? (uint8_t)letters[rnd() % (sizeof(letters) - 1)] : (uint8_t)rnd();
		n = rnd() % sizeof(buf);
		if (i & 1) {
			struct wsd_peer_hdr h = { .type = (uint16_t)(rnd() % (_WSD_PEER_TYPES + 2)), .id = rnd() & 3 };
			struct wsd_peer_fill fill = { .from = rnd(), .len = rnd() % 100, .n_seams = rnd() % 3 };
			struct wsd_peer_state st = { .n = rnd() % 5 };

			h.body = (uint16_t)(h.type < _WSD_PEER_TYPES ? size[h.type] : rnd() % 20);
			n = (unsigned)sizeof(h) + h.body;
			seams = fill.n_seams * (unsigned)sizeof(struct wsd_peer_seam);
			n += h.type == WSD_PEER_FILL ? seams + fill.len : h.type == WSD_PEER_LOCAL ? rnd() % 260 :
			     h.type == WSD_PEER_STATE ? st.n * (unsigned)sizeof(struct wsd_peer_state_of) : 0;
			h.len = n;
			memset(buf + sizeof(h), 1, h.body);
			memcpy(buf, &h, sizeof(h));
			if (h.type == WSD_PEER_FILL)
				memcpy(buf + sizeof(h), &fill, sizeof(fill));
			if (h.type == WSD_PEER_STATE)
				memcpy(buf + sizeof(h), &st, sizeof(st));
			for (k = rnd() % 3; k; k--)
				buf[rnd() % n] ^= (uint8_t)(1u << (rnd() & 7));
		}
		LLVMFuzzerTestOneInput(buf, n);
		accepted += !peer_parse(&m, buf, n, &what);
	}
	printf("%u messages, %llu of them sound\n", rounds, (unsigned long long)accepted);
	return accepted > rounds / 10 ? 0 : 1;
}
#endif
