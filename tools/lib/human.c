/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>

#include "tools/lib/human.h"

struct human human_bytes(uint64_t n)
{
	static const char unit[][3] = { "B", "kB", "MB", "GB", "TB", "PB", "EB" };
	struct human h;
	double v = (double)n;
	unsigned u = 0;

	while (v >= 999.5 && u < 6) {
		v /= 1000;
		u++;
	}
	if (!u)
		snprintf(h.text, sizeof(h.text), "%" PRIu64 " B", n);
	else
		snprintf(h.text, sizeof(h.text), "%.*f %s", v < 9.995 ? 2 : v < 99.95 ? 1 : 0, v, unit[u]);
	return h;
}

struct human human_share(uint64_t part, uint64_t whole)
{
	struct human h = { "-" };

	if (whole)
		snprintf(h.text, sizeof(h.text), "%.1f %%", 100.0 * (double)part / (double)whole);
	return h;
}

struct human human_span(uint64_t us)
{
	struct human h;
	uint64_t s = us / 1000000;

	if (us < 10000)
		snprintf(h.text, sizeof(h.text), "%" PRIu64 " us", us);
	else if (s < 10)
		snprintf(h.text, sizeof(h.text), "%" PRIu64 " ms", us / 1000);
	else if (s < 600)
		snprintf(h.text, sizeof(h.text), "%" PRIu64 " s", s);
	else if (s < 86400 * 2)
		snprintf(h.text, sizeof(h.text), "%" PRIu64 " h %02" PRIu64 " min", s / 3600, s / 60 % 60);
	else
		snprintf(h.text, sizeof(h.text), "%" PRIu64 " d", s / 86400);
	return h;
}

void human_field(char *dst, size_t dst_size, const char *src, size_t src_size)
{
	size_t i;

	for (i = 0; i + 1 < dst_size && i < src_size && src[i]; i++)
		dst[i] = src[i] > ' ' && src[i] < 0x7f ? src[i] : src[i] == ' ' ? ' ' : '?';
	if (!i && dst_size > 1)
		dst[i++] = '?';
	dst[i] = 0;
}
