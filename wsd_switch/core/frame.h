/* SPDX-License-Identifier: MIT */
/*
 * frame.h - the codec of wsd/frame.h: bytes to struct and back, no state
 */
#ifndef WSD_SWITCH_FRAME_H
#define WSD_SWITCH_FRAME_H

#include <wsd/frame.h>

void frame_put(uint8_t out[WSD_FRAME_SIZE], const struct wsd_frame *f);
/* 0; -EPROTO: not a frame of this session, or one that no sender makes */
int frame_get(struct wsd_frame *ret, const uint8_t in[WSD_FRAME_SIZE], uint64_t nonce, uint32_t epoch);

#endif
