/* SPDX-License-Identifier: MIT */
/* frame.c - see wsd/frame.h for the layout. The peer's bytes: every field is checked before anything is returned. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "wsd_switch/core/frame.h"

struct wire {
	uint32_t magic;
	uint8_t kind, version;
	uint16_t zero;
	uint64_t nonce;
	uint32_t epoch, len;
	uint64_t ring_off;
};
_Static_assert(sizeof(struct wire) == WSD_FRAME_SIZE, "no padding");

void frame_put(uint8_t out[WSD_FRAME_SIZE], const struct wsd_frame *f)
{
	struct wire w = {
		.magic = htole32(WSD_FRAME_MAGIC),
		.kind = (uint8_t)f->kind,
		.version = WSD_FRAME_VERSION,
		.nonce = htole64(f->nonce),
		.epoch = htole32(f->epoch),
		.len = htole32(f->len),
		.ring_off = htole64(f->ring_off),
	};

	memcpy(out, &w, sizeof(w));
}

int frame_get(struct wsd_frame *ret, const uint8_t in[WSD_FRAME_SIZE], uint64_t nonce, uint32_t epoch)
{
	struct wire w;
	uint32_t len;

	memcpy(&w, in, sizeof(w));
	len = le32toh(w.len);
	if (le32toh(w.magic) != WSD_FRAME_MAGIC || w.version != WSD_FRAME_VERSION || w.zero != 0 ||
	    le64toh(w.nonce) != nonce || le32toh(w.epoch) != epoch)
		return -EPROTO;
	switch (w.kind) {
	case WSD_FRAME_DATA:
		if (len < 1 || len > WSD_FRAME_LEN_MAX)
			return -EPROTO;
		break;
	case WSD_FRAME_RETURN:
		if (len > WSD_FRAME_LEN_MAX)
			return -EPROTO;
		break;
	case WSD_FRAME_END:
	case WSD_FRAME_EMPTY:
		if (len)
			return -EPROTO;
		break;
	default:
		return -EPROTO;
	}
	*ret = (struct wsd_frame){ .nonce = nonce, .epoch = epoch, .kind = w.kind, .len = len, .ring_off = le64toh(w.ring_off) };
	return 0;
}
