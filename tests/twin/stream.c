/* SPDX-License-Identifier: MIT */
/*
 * stream.c - the bytes of both streams, known from their offset
 *
 * No byte is zero, so that calls which print strings can carry them too.
 */
#include "twin.h"

static unsigned char byte_at(uint64_t key, uint64_t off)
{
	uint64_t z = (off >> 3) + key;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	z ^= z >> 31;
	z = (z >> ((off & 7) * 8)) & 0xff;
	return z ? z : 0x5a;
}

static uint64_t key_of(const struct tw *t, int sender)
{
	return t->seed * 0x9e3779b97f4a7c15ull + t->conn * 2654435761ull + (sender ? 0x1234567887654321ull : 0);
}

void tw_fill(struct tw *t, void *p, size_t n)
{
	uint64_t key = key_of(t, t->me);
	unsigned char *b = p;
	size_t i;

	for (i = 0; i < n; i++)
		b[i] = byte_at(key, t->tx + i);
}

bool tw_check(struct tw *t, const void *p, size_t n, bool advance)
{
	uint64_t key = key_of(t, !t->me);
	const unsigned char *b = p;
	size_t i;

	for (i = 0; i < n; i++) {
		if (b[i] != byte_at(key, t->rx + i)) {
			tw_log(t, "WRONG BYTE at stream offset %llu (+%zu of %zu): %02x, must be %02x",
			       (unsigned long long)(t->rx + i), i, n, b[i], byte_at(key, t->rx + i));
			if (advance)
				t->rx += n;
			return false;
		}
	}
	if (advance)
		t->rx += n;
	return true;
}
