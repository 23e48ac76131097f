/* SPDX-License-Identifier: MIT */
#include <endian.h>
#include <string.h>

#include "common/siphash.h"

struct sip {
	uint64_t a, b, c, d;
};

static uint64_t rotl(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

static void rounds(struct sip *s, int n)
{
	while (n--) {
		s->a += s->b;
		s->c += s->d;
		s->b = rotl(s->b, 13) ^ s->a;
		s->d = rotl(s->d, 16) ^ s->c;
		s->a = rotl(s->a, 32);
		s->c += s->b;
		s->a += s->d;
		s->b = rotl(s->b, 17) ^ s->c;
		s->d = rotl(s->d, 21) ^ s->a;
		s->c = rotl(s->c, 32);
	}
}

static void word(struct sip *s, uint64_t m)
{
	s->d ^= m;
	rounds(s, 2);
	s->a ^= m;
}

void siphash128(uint64_t ret[2], const void *p, size_t n, uint64_t k0, uint64_t k1)
{
	struct sip s = { k0 ^ 0x736f6d6570736575ull, k1 ^ 0x646f72616e646f6dull ^ 0xee, k0 ^ 0x6c7967656e657261ull, k1 ^ 0x7465646279746573ull };
	const uint8_t *b = p;
	uint64_t m, last = (uint64_t)n << 56;
	size_t i;

	for (i = 0; i + 8 <= n; i += 8) {
		memcpy(&m, b + i, 8);
		word(&s, le64toh(m));
	}
	m = 0;
	memcpy(&m, b + i, n - i);
	word(&s, last | le64toh(m));
	s.c ^= 0xee;
	rounds(&s, 4);
	ret[0] = s.a ^ s.b ^ s.c ^ s.d;
	s.b ^= 0xdd;
	rounds(&s, 4);
	ret[1] = s.a ^ s.b ^ s.c ^ s.d;
}
