/* SPDX-License-Identifier: MIT */
/*
 * table.c - handles: slot number and generation in one word
 *
 * Low 32 bits: slot + 1. Above: 31 bits of generation, raised whenever a slot is freed, so that
 * an old handle finds nothing. Slots are reused last freed first.
 */
#include <stdlib.h>
#include <string.h>

#include "san_provider/san.h"

struct san_slot {
	void *p;			/* NULL: free */
	uint32_t gen;
	uint32_t next_free;		/* slot + 1 */
};

#define GEN_MASK 0x7fffffffu

static int grow(struct san_table *t)
{
	uint32_t n = t->n ? 2 * t->n : 64;
	struct san_slot *slot;

	n = n < t->max ? n : t->max;
	if (n == t->n)
		return -ENOMEM;
	slot = reallocarray(t->slot, n, sizeof(*slot));
	if (!slot)
		return -ENOMEM;
	memset(slot + t->n, 0, (n - t->n) * sizeof(*slot));
	for (uint32_t i = n; i > t->n; i--) {
		slot[i - 1].next_free = t->free;
		t->free = i;
	}
	t->slot = slot;
	t->n = n;
	return 0;
}

uint64_t san_table_add(struct san_table *t, void *p)
{
	struct san_slot *s;
	uint32_t i;

	if (!t->free && grow(t))
		return 0;
	i = t->free - 1;
	s = &t->slot[i];
	t->free = s->next_free;
	s->p = p;
	t->n_used++;
	return (uint64_t)(s->gen & GEN_MASK) << 32 | (i + 1);
}

static struct san_slot *find(const struct san_table *t, uint64_t handle)
{
	uint32_t i = (uint32_t)handle - 1;

	if (i >= t->n || !t->slot[i].p || (t->slot[i].gen & GEN_MASK) != handle >> 32)
		return NULL;
	return &t->slot[i];
}

void *san_table_get(const struct san_table *t, uint64_t handle)
{
	struct san_slot *s = find(t, handle);

	return s ? s->p : NULL;
}

void san_table_remove(struct san_table *t, uint64_t handle)
{
	struct san_slot *s = find(t, handle);

	if (!s)
		return;
	s->p = NULL;
	s->gen++;
	s->next_free = t->free;
	t->free = (uint32_t)handle;
	t->n_used--;
}

void *san_table_at(const struct san_table *t, uint32_t i)
{
	return t->slot[i].p;
}

void san_table_free(struct san_table *t)
{
	free(t->slot);
	t->slot = NULL;
	t->n = t->n_used = t->free = 0;
}
