/* SPDX-License-Identifier: MIT */
#include <string.h>
#include <sys/mman.h>

#include "common/siphash.h"
#include "wsd_switch/core/proof.h"

/* "WSD for" "Linux 1": public; what makes the comparison safe is the daemons' link */
#define KEY0	0x20726f6620445357ull
#define KEY1	0x312078756e694cull

struct proof {
	uint8_t b[2][WSD_PROOF_MAX];
};

static struct proof *_Atomic tab;	/* by conn->index; made at the first byte, never unmapped */

static struct proof *table(void)
{
	struct proof *p = atomic_load_explicit(&tab, memory_order_acquire), *none = NULL;

	if (likely(p != NULL))
		return p;
	p = mmap(NULL, sizeof(*p) * MAX_CONNS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (!atomic_compare_exchange_strong(&tab, &none, p)) {
		munmap(p, sizeof(*p) * MAX_CONNS);
		return none;
	}
	return p;
}

void proof_note(struct conn *c, int dir, uint64_t at, const struct vec *v, size_t r)
{
	size_t off = v->off, n = WSD_PROOF_MAX - (size_t)at;
	const struct iovec *io = v->iov;
	struct proof *p;
	int e = errno;

	if (c->kept[dir] != at || !(p = table())) {
		errno = e;
		return;
	}
	if (n > r)
		n = r;
	while (n) {
		size_t k = io->iov_len - off;

		if (k > n)
			k = n;
		/* the program may have unmapped or changed it meanwhile: then the digests differ, and the stream stays on TCP */
		if (k && !fault_copy(p[c->index].b[dir] + at, (const char *)io->iov_base + off, k))
			break;
		at += k;
		n -= k;
		io++;
		off = 0;
	}
	c->kept[dir] = (uint16_t)at;
	errno = e;
}

unsigned proof_digests(const struct conn *c, int dir, struct wsd_digest ret[WSD_DIGESTS])
{
	static const uint16_t len[WSD_DIGESTS] = { 16, 64, 256 };
	struct proof *p = atomic_load(&tab);
	unsigned n;

	for (n = 0; p && n < WSD_DIGESTS && c->kept[dir] >= len[n]; n++)
		siphash128(ret[n].h, p[c->index].b[dir], len[n], KEY0, KEY1);
	return n;
}
