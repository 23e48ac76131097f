/* SPDX-License-Identifier: MIT */
/*
 * ring.c - bytes in and out of one session, by private counters
 *
 * The head lies in the low half of the gate word, beside flags that the daemon may change, so it
 * is raised by compare-and-swap and from the value this end knows. The tail is only ever raised.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "rdma_transport/shm/shm.h"

int shm_ring_room(const struct shm_session *s, uint32_t *ret_room)
{
	uint32_t used = s->tx_head - atomic_load_explicit(&s->tx->tail, memory_order_acquire);

	if (used > s->ring_size)
		return -EPROTO;
	*ret_room = s->ring_size - used;
	return 0;
}

int shm_ring_avail(const struct shm_session *s, uint32_t *ret_avail)
{
	uint64_t gate = atomic_load_explicit(&s->rx->gate, memory_order_acquire);
	uint32_t n = WSD_GATE_HEAD(gate) - s->rx_tail;

	if (n > s->ring_size)
		return -EPROTO;
	*ret_avail = n;
	return 0;
}

/* how many of n bytes lie before the ring's end */
static uint32_t span(const struct shm_session *s, uint32_t pos, uint32_t n)
{
	uint32_t left = s->ring_size - (pos & (s->ring_size - 1));

	return n < left ? n : left;
}

void shm_ring_write(struct shm_session *s, uint32_t distance, const void *from, uint32_t n)
{
	uint32_t pos = s->tx_head + distance, k = span(s, pos, n);

	memcpy(s->tx_ring + (pos & (s->ring_size - 1)), from, k);
	memcpy(s->tx_ring, (const uint8_t *)from + k, n - k);
}

void shm_ring_read(const struct shm_session *s, uint32_t distance, void *to, uint32_t n)
{
	uint32_t pos = s->rx_tail + distance, k = span(s, pos, n);

	memcpy(to, s->rx_ring + (pos & (s->ring_size - 1)), k);
	memcpy((uint8_t *)to + k, s->rx_ring, n - k);
}

/* the next piece of the cursor, at most n bytes; spans of no bytes are stepped over */
static uint32_t piece(struct shm_cursor *c, uint32_t n, void **ret)
{
	uint32_t k;

	while (c->off == c->sge[c->i].len) {
		c->i++;
		c->off = 0;
	}
	k = c->sge[c->i].len - c->off;
	k = k < n ? k : n;
	*ret = (uint8_t *)c->sge[c->i].addr + c->off;
	c->off += k;
	return k;
}

void shm_ring_copy_in(struct shm_session *s, uint32_t distance, struct shm_cursor *from, uint32_t n)
{
	while (n) {
		void *p;
		uint32_t k = piece(from, n, &p);

		shm_ring_write(s, distance, p, k);
		distance += k;
		n -= k;
	}
}

void shm_ring_copy_out(const struct shm_session *s, uint32_t distance, struct shm_cursor *to, uint32_t n)
{
	while (n) {
		void *p;
		uint32_t k = piece(to, n, &p);

		shm_ring_read(s, distance, p, k);
		distance += k;
		n -= k;
	}
}

int shm_ring_publish(struct shm_session *s, uint32_t n)
{
	uint64_t g = atomic_load_explicit(&s->tx->gate, memory_order_relaxed);

	do {
		if (WSD_GATE_HEAD(g) != s->tx_head)
			return -EPROTO;
	} while (!atomic_compare_exchange_weak_explicit(&s->tx->gate, &g, (g & ~0xffffffffull) | (uint32_t)(s->tx_head + n),
							memory_order_release, memory_order_relaxed));
	s->tx_head += n;
	atomic_fetch_add_explicit(&s->tx->stat_ring, n, memory_order_relaxed);
	return 0;
}

void shm_ring_consume(struct shm_session *s, uint32_t n)
{
	s->rx_tail += n;
	atomic_store_explicit(&s->rx->tail, s->rx_tail, memory_order_release);
}

bool shm_ring_ended(const struct shm_session *s)
{
	return (atomic_load(&s->rx->xflags) & WSD_X_NO_PUT) || atomic_load(&s->map->revoked);
}

bool shm_ring_unheard(const struct shm_session *s)
{
	return (atomic_load(&s->tx->yflags) & WSD_Y_NO_OPEN) || atomic_load(&s->map->revoked);
}

void shm_ring_end(struct shm_session *s)
{
	atomic_fetch_or(&s->tx->xflags, WSD_X_NO_PUT);
	atomic_fetch_or(&s->rx->yflags, WSD_Y_NO_OPEN);
}
