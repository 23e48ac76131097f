/* SPDX-License-Identifier: MIT */
/*
 * thr.c - one slot a thread: where the reclaimer sees who is inside
 *
 * A thread claims a slot at its first intercepted call on a connection and gives it back when it ends (pthread key). When
 * all slots are taken the rest share the last one, whose depth is then counted atomically: reclaiming waits for all of
 * them together. A thread that leaves a critical section by siglongjmp keeps memory from being reclaimed, nothing worse.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "wsd_switch/core/thr.h"

__thread struct thr *thr_self __attribute__((tls_model("initial-exec")));

struct thr *thr_slots;			/* MAX_THREADS + 1, the last one shared */
_Atomic uint32_t thr_used;		/* slots [0, thr_used) were ever claimed */
static pthread_key_t thr_key;
static bool thr_key_ok;

static void thr_end(void *arg)
{
	struct thr *t = arg;

	thr_self = NULL;
	if (t->shared)
		return;
	atomic_store(&t->nest, 0);
	atomic_store(&t->tid, 0);
}

bool thr_init(void)
{
	thr_slots = mmap(NULL, sizeof(struct thr) * (MAX_THREADS + 1), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (thr_slots == MAP_FAILED)
		return false;
	thr_slots[MAX_THREADS].shared = true;
	thr_slots[MAX_THREADS].rt_pol = -1;
	atomic_store(&thr_slots[MAX_THREADS].tid, 1);
	thr_key_ok = pthread_key_create(&thr_key, thr_end) == 0;
	return true;
}

static void thr_setup(struct thr *t, uint32_t tid)
{
	t->in_handler = 0;
	t->sig_any = t->sig_eintr = 0;
	t->rand = (uint32_t)(cfg.shake_seed * 2654435761u) ^ tid * 40503u;
	t->alone = t->dozes = t->slack = t->n_slept = t->n_sent = 0;
	atomic_store(&t->polls.burst, 0);
	atomic_store(&t->polls.since, 0);
	atomic_store(&t->polls.next, 0);
	t->polite_until = t->crowded_until = t->crowd_len = t->crowd_last = t->rt_when = 0;
	t->rt_pol = -1;
	t->mask_shadow = 0;
	atomic_store(&t->nest, 0);
}

struct thr *thr_new(void)
{
	uint32_t i, used = atomic_load(&thr_used), tid = (uint32_t)syscall(SYS_gettid);
	struct thr *t = NULL;

	for (i = 0; i < MAX_THREADS; i++) {
		uint32_t z = 0;

		if (atomic_load_explicit(&thr_slots[i].tid, memory_order_relaxed) == 0 &&
		    atomic_compare_exchange_strong(&thr_slots[i].tid, &z, tid)) {
			t = &thr_slots[i];
			break;
		}
	}
	if (!t || !thr_key_ok || pthread_setspecific(thr_key, t) != 0) {
		if (t)
			atomic_store(&t->tid, 0);
		return thr_self = &thr_slots[MAX_THREADS];
	}
	while (used < i + 1 && !atomic_compare_exchange_weak(&thr_used, &used, i + 1))
		;
	thr_setup(t, tid);
	return thr_self = t;
}

uint32_t thr_gettid(void)
{
	return (uint32_t)syscall(SYS_gettid);
}

/* in a forked child only the calling thread exists */
void thr_after_fork(void)
{
	uint32_t i, used = atomic_load(&thr_used);
	struct thr *me = thr_self;

	for (i = 0; i < used; i++) {
		if (&thr_slots[i] == me)
			continue;
		atomic_store(&thr_slots[i].nest, 0);
		atomic_store(&thr_slots[i].tid, 0);
	}
	atomic_store(&thr_slots[MAX_THREADS].nest, 0);
	if (me && !me->shared)
		atomic_store(&me->tid, (uint32_t)syscall(SYS_gettid));
}

bool lock_try_slow(_Atomic uint32_t *l, uint32_t tid, unsigned spins)
{
	while (spins--) {
		uint32_t z = 0;

		_mm_pause();
		if (atomic_load_explicit(l, memory_order_relaxed) == 0 && atomic_compare_exchange_strong(l, &z, tid))
			return true;
	}
	return false;
}

bool lock_try_long(_Atomic uint32_t *l, uint32_t tid)
{
	int i;

	for (i = 0; i < 200; i++) {
		if (lock_try(l, tid))
			return true;
		if (atomic_load(l) == tid)
			return false;	/* this very thread, below a signal handler */
		sched_yield();
	}
	return false;
}

void thr_nap(unsigned us)
{
	struct timespec ts = { us / 1000000, us % 1000000 * 1000l };
	int e = errno;

	real.syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &ts, NULL);
	errno = e;
}
