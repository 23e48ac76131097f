/* SPDX-License-Identifier: MIT */
/*
 * siphash.h - SipHash-2-4 with 128 bits of output (Aumasson, Bernstein: "SipHash: a fast short-input PRF", and its reference for 128 bits)
 */
#ifndef WSD_COMMON_SIPHASH_H
#define WSD_COMMON_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

void siphash128(uint64_t ret[2], const void *p, size_t n, uint64_t k0, uint64_t k1);

#endif
