/* SPDX-License-Identifier: MIT */
/*
 * fuzz_frame.c - any bytes as a frame header of the agreed cut-over
 *
 * A libFuzzer target; with -DFUZZ_STANDALONE a program that tries a bounded number of random headers, half of them sound ones with a
 * few bits changed. Checked: what is accepted keeps the promises of frame.h and is the same bytes when built again.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wsd_switch/core/frame.h"

#define MUST(cond) do { if (!(cond)) { fprintf(stderr, "not so: %s\n", #cond); abort(); } } while (0)
#define NONCE	0x1122334455667788ull
#define EPOCH	7u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *in = malloc(WSD_FRAME_SIZE), out[WSD_FRAME_SIZE];	/* a read past the end meets the sanitizer */
	struct wsd_frame f;

	MUST(in);
	memset(in, 0, WSD_FRAME_SIZE);
	memcpy(in, data, size < WSD_FRAME_SIZE ? size : WSD_FRAME_SIZE);
	if (frame_get(&f, in, NONCE, EPOCH) == 0) {
		MUST(f.nonce == NONCE && f.epoch == EPOCH && f.kind >= WSD_FRAME_DATA && f.kind <= WSD_FRAME_EMPTY);
		MUST(f.len <= WSD_FRAME_LEN_MAX && (f.kind != WSD_FRAME_DATA || f.len) && (f.kind < WSD_FRAME_END || !f.len));
		frame_put(out, &f);
		MUST(!memcmp(in, out, WSD_FRAME_SIZE));
	}
	MUST(frame_get(&f, in, NONCE + 1, EPOCH) < 0 || frame_get(&f, in, NONCE, EPOCH) < 0);
	free(in);
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
	unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 1000000u, i, k, sound = 0;
	uint8_t b[WSD_FRAME_SIZE];
	struct wsd_frame f;

	for (i = 0; i < rounds; i++) {
		f = (struct wsd_frame){ .nonce = NONCE, .epoch = EPOCH, .kind = 1 + rnd() % 4, .len = rnd() >> rnd() % 32,
					.ring_off = (uint64_t)rnd() << rnd() % 32 };
		if (f.kind >= WSD_FRAME_END)
			f.len = 0;
		frame_put(b, &f);
		if (i & 1)
			for (k = 0; k < sizeof(b); k++)
				b[k] = (uint8_t)rnd();
		for (k = i & 2 ? rnd() % 3 : 0; k; k--)
			b[rnd() % sizeof(b)] ^= (uint8_t)(1u << (rnd() & 7));
		LLVMFuzzerTestOneInput(b, sizeof(b));
		sound += frame_get(&f, b, NONCE, EPOCH) == 0;
	}
	printf("%u headers, %u of them sound\n", rounds, sound);
	return sound > rounds / 10 ? 0 : 1;
}
#endif
