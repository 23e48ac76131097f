/* SPDX-License-Identifier: MIT */
/*
 * proof.h - the first bytes of a stream, by which two daemons see that their clients hold the two ends of one connection
 *
 * Addresses and byte counts say so on one host; between hosts an address may be used twice. So the first bytes of both directions are kept (at most
 * WSD_PROOF_MAX each) and their digests go with an offer. Bytes that did not pass through here (sendfile, splice), or whose order two threads
 * left open, end what is kept: a shorter proof, or none.
 */
#ifndef WSD_SWITCH_PROOF_H
#define WSD_SWITCH_PROOF_H

#include "wsd_switch/core/switch.h"

#define WSD_PROOF_MAX	256u

enum { PROOF_TX, PROOF_RX };

/* r bytes of v went or came at offset `at` of the direction */
void proof_note(struct conn *c, int dir, uint64_t at, const struct vec *v, size_t r);
/* digests of the first 16, 64 and 256 bytes; how many there are */
unsigned proof_digests(const struct conn *c, int dir, struct wsd_digest ret[WSD_DIGESTS]);

#endif
