/* SPDX-License-Identifier: MIT */
/*
 * ring.h - bytes between a caller's iovecs and a ring
 *
 * Positions are taken modulo the ring with our own mask, so no word of the peer can move a copy outside it.
 * All copies are fault_copy(): a bad user pointer is an answer, not a signal (G28).
 */
#ifndef WSD_SWITCH_RING_H
#define WSD_SWITCH_RING_H

#include "wsd_switch/core/switch.h"

/* the vec's bytes [from, from + n) into the ring at pos; false: a fault */
static inline bool ring_fill(uint8_t *ring, uint32_t mask, uint32_t pos, const struct vec *v, size_t from, size_t n)
{
	const struct iovec *io = v->iov;
	size_t off = v->off + from;

	while (n) {
		size_t k, r;

		while (off >= io->iov_len) {
			off -= io->iov_len;
			io++;
		}
		pos &= mask;
		k = io->iov_len - off;
		r = (size_t)mask + 1 - pos;
		if (k > n)
			k = n;
		if (k > r)
			k = r;
		if (unlikely(!fault_copy(ring + pos, (const char *)io->iov_base + off, k)))
			return false;
		off += k;
		pos += k;
		n -= k;
	}
	return true;
}

/* n bytes of the ring at pos into the vec's first n; false: a fault */
static inline bool ring_drain(const uint8_t *ring, uint32_t mask, uint32_t pos, const struct vec *v, size_t n)
{
	const struct iovec *io = v->iov;
	size_t off = v->off;

	while (n) {
		size_t k, r;

		while (off >= io->iov_len) {
			off -= io->iov_len;
			io++;
		}
		pos &= mask;
		k = io->iov_len - off;
		r = (size_t)mask + 1 - pos;
		if (k > n)
			k = n;
		if (k > r)
			k = r;
		if (unlikely(!fault_copy((char *)io->iov_base + off, ring + pos, k)))
			return false;
		off += k;
		pos += k;
		n -= k;
	}
	return true;
}

#endif
