/* SPDX-License-Identifier: MIT */
/* tools/lib/human.h - numbers and foreign text for people to read */
#ifndef TOOLS_LIB_HUMAN_H
#define TOOLS_LIB_HUMAN_H

#include <stddef.h>
#include <stdint.h>

struct human {
	char text[32];
};

/* bytes with three digits and a decimal unit: "0 B", "999 B", "1.00 kB", "12.3 MB" */
struct human human_bytes(uint64_t n);

/* @part of @whole in per cent: "97.4 %", "-" when there is no whole */
struct human human_share(uint64_t part, uint64_t whole);

/* time span: "850 us", "12 s", "3 h 05 min" */
struct human human_span(uint64_t us);

/* copy of a fixed field that may come from anywhere: terminated, nothing unprintable, "?" if empty */
void human_field(char *dst, size_t dst_size, const char *src, size_t src_size);

#endif
