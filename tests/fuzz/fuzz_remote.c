/* SPDX-License-Identifier: MIT */
/*
 * fuzz_remote.c - a hostile peer: control page, head, seams and frames as it likes, into agreed_state.c
 *
 * A libFuzzer target; with -DFUZZ_STANDALONE a program that tries a bounded number of random scripts. The input is a script: words are
 * written into what the peer may write (with a sound check word or without), then the reader takes a step as agreed_rx.c does. Checked: bytes
 * are only read inside the rings; what was taken never goes back; a step says data, wait, or broken; a cursor never passes what was posted.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wsd_switch/core/agreed.h"

#define MUST(cond) do { if (!(cond)) { fprintf(stderr, "not so: %s\n", #cond); abort(); } } while (0)
#define NONCE	0x1122334455667788ull

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

volatile uint8_t fuzz_sink;

static int no(void *conn, unsigned n) { return 1; }
static void no_release(void *conn) { }
static int no_put(void *conn, uint32_t ring, uint64_t at, uint32_t n) { return 1; }
static int no_word(void *conn, uint32_t off, const void *p, uint32_t n) { return 1; }
static int no_fetch(void *conn, uint32_t off) { return 1; }
static int no_post(void *conn) { return 1; }
static void no_stop(void *conn, int drain) { }

static const uint8_t *in;
static size_t left;

static uint8_t byte(void)
{
	if (!left)
		return 0;
	left--;
	return *in++;
}

/* mostly small, now and then near what matters */
static uint64_t num(uint64_t near)
{
	uint8_t how = byte();
	uint64_t v = byte();

	switch (how & 7) {
	case 0: return near + v;
	case 1: return near - v;
	case 2: return v << 56 | v;
	case 3: return near + (v << 8);
	case 4: return ~v;
	case 5: return near;
	}
	return v << (how >> 5);
}

static void say(struct road *r, uint32_t off, uint64_t *w, unsigned n)
{
	uint8_t *p = (uint8_t *)(uintptr_t)r->ctl + off;

	w[n] = byte() % 8 ? wsd_remote_check(NONCE, off, w, n) : byte();
	memcpy(p, w, (n + 1) * 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct road r;
	static struct wsd_put_state st;
	uint64_t len = wsd_remote_length(4096, 8192, 16384), C = 0, n, k, was, S, w[5];
	struct wsd_remote *rs;
	struct wsd_seam seam;
	struct wsd_frame f;
	WSDPUTROAD p;
	uint8_t *mem = aligned_alloc(4096, len);	/* what lies outside meets the sanitizer */
	const uint8_t *at;
	uint32_t flags, header;

	MUST(mem);
	memset(mem, 0, len);
	memset(&r, 0, sizeof(r));
	rs = (struct wsd_remote *)(void *)mem;
	rs->magic = WSD_REMOTE_MAGIC;
	rs->version = WSD_REMOTE_VERSION;
	rs->nonce = NONCE;
	rs->epoch = 7;
	rs->ring0 = 4096;
	rs->ring1_max = 8192;
	rs->fill_max = 16384;
	atomic_store(&rs->ring1_from, ~0ull);
	atomic_store(&rs->frame_H, ~0ull);
	atomic_store(&rs->in_C, ~0ull);
	atomic_store(&rs->ystate, WSD_Y_FRAMED);
	p = (WSDPUTROAD){ .size = sizeof(p), .base = mem, .length = len, .state = &st, .hold = no, .release = no_release, .put = no_put,
			  .word = no_word, .fetch = no_fetch, .nudge = no_post, .poll = no_post, .stop = no_stop };
	MUST(road_bind(&r, &p) == 0);
	in = data;
	left = size;
	while (left) {
		was = atomic_load(&rs->taken);
		switch (byte() % 12) {
		case 0:		/* the head, as completions may raise it */
			n = num(atomic_load(&rs->head));
			atomic_store(&rs->head, n);
			break;
		case 1:
			n = rs->seam_next + 1 + (byte() % 4 == 0) * byte();
			w[0] = num(was);
			w[1] = num(C);
			w[2] = (uint64_t)(byte() % 8 ? byte() % 2 : byte()) << 32 | (uint32_t)n;
			say(&r, (uint32_t)WSD_CTL_SEAM(n % WSD_REMOTE_SEAMS), w, 3);
			break;
		case 2:
			w[0] = num(atomic_load(&rs->posted));
			w[1] = byte();
			say(&r, WSD_CTL_CREDIT, w, 2);
			k = atomic_load(&rs->cursor);
			road_credit(&r, &flags);
			MUST(atomic_load(&rs->cursor) >= k && atomic_load(&rs->cursor) <= atomic_load(&rs->posted));
			break;
		case 3:
			w[0] = num(C);
			w[1] = byte() % 2 ? 7 : byte();
			say(&r, WSD_CTL_START, w, 2);
			if (road_start(&r, &S))
				MUST(S == w[0] && w[1] == 7);
			break;
		case 4:
			w[0] = byte() % 2 ? 7 : byte();
			say(&r, WSD_CTL_GRANT, w, 1);
			(void)road_granted(&r);
			break;
		case 5:		/* any byte of what the peer may write */
			mem[WSD_REMOTE_PAGE + (num(0) + byte() * 16) % (WSD_REMOTE_PAGE + 4096)] = byte();
			break;
		case 6:		/* X: a put, its room, its seam */
			k = road_room(&r);
			MUST(k <= 4096);
			if (k && road_seam(&r, num(C), &seam) == 1) {
				rs->seam[seam.n % WSD_REMOTE_SEAMS] = seam;
				atomic_store(&rs->seam_n, seam.n);
			}
			atomic_fetch_add(&rs->posted, k ? 1 + num(0) % k : 0);
			if (byte() % 2)
				atomic_store(&st.done, atomic_load(&rs->posted));
			break;
		case 7:
			if (byte() % 4 == 0)
				atomic_store(&rs->rx1_size, 8192);
			road_frame_left(&r, num(C), &header, &k);
			MUST(header < WSD_FRAME_SIZE);
			break;
		default:	/* Y */
			switch (road_next(&r, C, &n)) {
			case STEP_RING:
				MUST(n > 0 && was == atomic_load(&rs->taken));
				at = road_at(&r, was, n, &k);
				MUST(k > 0 && k <= n && at >= mem && at + k <= mem + len);
				MUST(at >= r.rx[0] && (at + k <= r.tx[0] || at >= r.rx[1]));
				fuzz_sink = at[0] + at[k - 1];
				atomic_store(&rs->taken, was + 1 + num(0) % k);
				break;
			case STEP_HEADER:
				f = (struct wsd_frame){ .nonce = NONCE, .epoch = 7, .kind = 1 + byte() % 4, .ring_off = num(was) };
				f.len = f.kind >= WSD_FRAME_END ? 0 : (uint32_t)num(f.kind == WSD_FRAME_RETURN ? was - f.ring_off : 1) & WSD_FRAME_LEN_MAX;
				if (road_header(&r, &f) != 1)
					goto out;
				rs->in_off = f.ring_off;
				rs->in_len = f.len;
				rs->in_kind = f.kind;
				atomic_store(&rs->in_C, C);
				C += WSD_FRAME_SIZE;
				road_header_taken(&r);
				MUST(atomic_load(&rs->in_C) == ~0ull);
				break;
			case STEP_BROKEN:
				goto out;
			default:
				MUST(n > 0);
				C += n < 300 ? 1 + num(0) % n : 1 + num(0) % 300;
				break;
			}
			MUST(atomic_load(&rs->taken) >= was);
			(void)road_at_end(&r);
			if (atomic_load(&rs->ystate) == WSD_Y_DONE)
				goto out;
		}
	}
out:
	free(mem);
	return 0;
}

#ifdef FUZZ_STANDALONE
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
	unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 30000u, i, k, n;
	uint8_t b[1024];

	if (argc > 2)
		state ^= strtoull(argv[2], NULL, 0) * 0x2545f4914f6cdd1dull;
	for (i = 0; i < rounds; i++) {
		n = rnd() % sizeof(b);
		for (k = 0; k < n; k++)
			b[k] = (uint8_t)rnd();
		LLVMFuzzerTestOneInput(b, n);
	}
	printf("%u scripts\n", rounds);
	return 0;
}
#endif
