/* SPDX-License-Identifier: MIT */
/*
 * wsd/frame.h - what the TCP bytes of a direction look like from its Start on (A3)
 *
 * Behind the agreed offset S every byte that this direction sends on TCP belongs to a frame: a header of 32 bytes and, for DATA, len
 * bytes of the stream. The header names the ring offset that it follows, so that both roads have one order. Little endian.
 *
 *   off size
 *     0   4  magic     WSD_FRAME_MAGIC
 *     4   1  kind      enum wsd_frame_kind
 *     5   1  version   WSD_FRAME_VERSION
 *     6   2  zero
 *     8   8  nonce     of the session
 *    16   4  epoch     of the session
 *    20   4  len       DATA: bytes of the stream that follow, 1 .. WSD_FRAME_LEN_MAX; RETURN: bytes that follow and repeat the ring; else 0
 *    24   8  ring_off  DATA, EMPTY: the ring offset it follows; RETURN: from which ring offset on plain bytes repeat; END: where the ring ends
 *
 * len promises that the next len bytes of TCP are the next bytes of the stream, not that they are there: a short send
 * leaves payload open, and the program's next bytes go on in it without a header.
 */
#ifndef WSD_FRAME_H
#define WSD_FRAME_H

#include <stdint.h>
#include <wsd/c11.h>

#define WSD_FRAME_SIZE		32u
#define WSD_FRAME_MAGIC		0x46445357u	/* "WSDF" */
#define WSD_FRAME_VERSION	1u
#define WSD_FRAME_LEN_MAX	(1u << 30)

enum wsd_frame_kind {
	WSD_FRAME_DATA = 1,
	WSD_FRAME_RETURN,	/* A4: plain from here on */
	WSD_FRAME_END,		/* A7: nothing follows on either road */
	WSD_FRAME_EMPTY,	/* A9: only to be seen */
};

struct wsd_frame {
	uint64_t nonce;
	uint32_t epoch;
	uint32_t kind;		/* enum wsd_frame_kind */
	uint32_t len;
	uint64_t ring_off;
};

#endif
