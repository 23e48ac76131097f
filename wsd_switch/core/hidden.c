/* SPDX-License-Identifier: MIT */
/*
 * hidden.c - descriptors that we, or the provider, keep in the program's table: it does not see them
 *
 * Looked at in each close(), so the common case is two loads. The provider's come and go with its devices: its part of the list is
 * written again when it says that they have changed (ctl.c), under ctl_lock. A number that is not hidden any more is the
 * program's to close: so a hit asks the provider first.
 */
#include "wsd_switch/core/switch.h"

#define OWN_MAX		160
#define PROVIDER_MAX	64

static _Atomic int list[OWN_MAX + PROVIDER_MAX];	/* fd + 1; the provider's first */
static _Atomic uint32_t n_own, n_provider;
static _Atomic int low = INT32_MAX, high = -1;		/* only ever wider */

static void widen(int fd)
{
	int v = atomic_load(&low);

	while (fd < v && !atomic_compare_exchange_weak(&low, &v, fd))
		;
	v = atomic_load(&high);
	while (fd > v && !atomic_compare_exchange_weak(&high, &v, fd))
		;
}

void hidden_add(int fd)
{
	uint32_t i;

	if (fd < 0)
		return;
	for (i = 0; i < OWN_MAX; i++) {
		int z = 0;
		uint32_t n = atomic_load(&n_own);

		if (!atomic_compare_exchange_strong(&list[PROVIDER_MAX + i], &z, fd + 1))
			continue;
		while (n <= i && !atomic_compare_exchange_weak(&n_own, &n, i + 1))
			;
		break;
	}
	widen(fd);
}

void hidden_remove(int fd)
{
	uint32_t i;

	for (i = 0; i < OWN_MAX; i++) {
		int v = fd + 1;

		if (atomic_compare_exchange_strong(&list[PROVIDER_MAX + i], &v, 0))
			return;
	}
}

void hidden_provider(const int *fds, unsigned n)
{
	unsigned i;

	if (n > PROVIDER_MAX)
		n = PROVIDER_MAX;
	for (i = 0; i < PROVIDER_MAX; i++) {
		atomic_store(&list[i], i < n && fds[i] >= 0 ? fds[i] + 1 : 0);
		if (i < n && fds[i] >= 0)
			widen(fds[i]);
	}
	atomic_store(&n_provider, n);
}

static bool listed(int fd)
{
	uint32_t i, n = atomic_load_explicit(&n_provider, memory_order_relaxed);

	for (i = 0; i < n; i++)
		if (atomic_load_explicit(&list[i], memory_order_relaxed) == fd + 1)
			return true;
	n = atomic_load_explicit(&n_own, memory_order_relaxed);
	for (i = 0; i < n; i++)
		if (atomic_load_explicit(&list[PROVIDER_MAX + i], memory_order_relaxed) == fd + 1)
			return true;
	return false;
}

bool hidden_fd(int fd)
{
	if (likely(fd < atomic_load_explicit(&low, memory_order_relaxed) || fd > atomic_load_explicit(&high, memory_order_relaxed)))
		return false;
	if (likely(!listed(fd)))
		return false;
	ctl_hidden_refresh();
	return listed(fd);
}

/* the lowest one at or above from; -1: none */
int hidden_next(unsigned from)
{
	int64_t best = -1;
	uint32_t i;

	for (i = 0; i < OWN_MAX + PROVIDER_MAX; i++) {
		int64_t fd = (int64_t)atomic_load(&list[i]) - 1;

		if (fd >= (int64_t)from && (best < 0 || fd < best))
			best = fd;
	}
	return (int)best;
}
