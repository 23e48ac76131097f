/* SPDX-License-Identifier: MIT */
/*
 * proc.c - this process, its forked children, and who is still alive among them
 *
 * A fork is seen by a page under MADV_WIPEONFORK (G27): the child finds it zero at its first intercepted call and sets itself
 * up, however it was made. Children made by fork() are also entered, before they exist, in a table shared by the
 * whole family; by it a side whose other holders were killed can be used and recycled again.
 *
 * vfork children run in our memory: once vfork, clone or clone3 was seen, calls that close, duplicate, connect, accept or
 * exec compare the real pid with the owner's, and touch nothing in such a child.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wsd_switch/core/proc.h"
#include "wsd_switch/core/thr.h"

#define FAMILY_MAX 4096u

struct family {				/* MAP_SHARED */
	_Atomic uint32_t overflow;	/* a child found no slot: nothing is ever called dead again */
	_Atomic uint32_t n;
	struct {
		_Atomic uint32_t pid;	/* 0: free, 1: being forked */
		_Atomic uint32_t gen;
	} p[FAMILY_MAX];
};

struct proc_page *proc_page;
_Atomic uint32_t proc_vfork_seen;
_Atomic uint32_t proc_frozen;
_Atomic uint32_t proc_uring;
uint32_t proc_fork_gen;
bool proc_on;

static struct family *family;
static struct proc_page no_page;
static int fork_slot = -1;		/* between prepare and parent/child, under the caller's fork */
static bool fork_ctl, fork_pool;
static __thread bool fork_counted __attribute__((tls_model("initial-exec")));	/* this thread's fork_prepare did it */
static _Atomic uint32_t fork_lock;

bool proc_is_vfork_child_slow(void)
{
	return (uint32_t)syscall(SYS_getpid) != proc_page->pid && atomic_load(&proc_page->alive);
}

bool proc_pid_dead(uint32_t pid)
{
	int e = errno;
	bool dead;

	if (pid == 0 || pid == USER_MANY)
		return false;
	dead = syscall(SYS_kill, (pid_t)pid, 0) < 0 && errno == ESRCH;
	errno = e;
	return dead;
}

static int family_add(uint32_t gen)
{
	uint32_t i, z;

	for (i = 0; i < FAMILY_MAX; i++) {
		z = atomic_load(&family->p[i].pid);
		if (z > 1 && proc_pid_dead(z)) {
			if (!atomic_compare_exchange_strong(&family->p[i].pid, &z, 1))
				continue;
		} else {
			if (z != 0 || !atomic_compare_exchange_strong(&family->p[i].pid, &z, 1))
				continue;
		}
		atomic_store(&family->p[i].gen, gen);
		z = atomic_load(&family->n);
		while (z < i + 1 && !atomic_compare_exchange_weak(&family->n, &z, i + 1))
			;
		return (int)i;
	}
	atomic_store(&family->overflow, 1);
	return -1;
}

/* Every process forked after generation gen, but this one, has ended. */
bool proc_family_dead(uint32_t gen)
{
	uint32_t i, n = atomic_load(&family->n);

	if (atomic_load(&family->overflow))
		return false;
	for (i = 0; i < n; i++) {
		uint32_t pid = atomic_load(&family->p[i].pid);

		if (pid == 0 || pid == proc_page->pid || atomic_load(&family->p[i].gen) <= gen)
			continue;
		if (pid == 1 || !proc_pid_dead(pid))
			return false;
	}
	return true;
}

/* fork(): count the child in as a holder of every socket before it exists */
static void fork_prepare(void)
{
	fork_counted = false;
	if (!proc_usable() || proc_is_vfork_child())
		return;
	if (!lock_try(&fork_lock, thr_tid(thr_get())))
		return;		/* two forks at once: the second child counts itself in (proc_child) */
	eset_flush_all();
	fork_ctl = ctl_lock_for_fork();
	fork_pool = conn_lock_for_fork();
	conn_fork_count(1);
	proc_fork_gen++;
	fork_slot = family_add(proc_fork_gen);
	fork_counted = true;
}

static bool fork_mine(void)
{
	return atomic_load(&fork_lock) == thr_tid(thr_get());
}

static void fork_parent(void)
{
	if (!proc_on || atomic_load(&proc_frozen) || !fork_mine())
		return;
	/* the child enters its own pid */
	conn_unlock_for_fork(fork_pool);
	ctl_unlock_for_fork(fork_ctl);
	lock_drop(&fork_lock);
}

static void fork_child(void)
{
	if (!proc_on || atomic_load(&proc_frozen))
		return;
	proc_child();
}

/* fork() failed: nobody was made */
void proc_fork_failed(void)
{
	if (!proc_on || atomic_load(&proc_frozen))
		return;
	if (!fork_counted)
		return;
	fork_counted = false;
	conn_fork_count(-1);
	if (fork_slot >= 0)
		atomic_store(&family->p[fork_slot].pid, 0);
	fork_slot = -1;
}

/* first call in a forked child; the parent's other threads do not exist here */
void proc_child(void)
{
	bool counted = fork_counted && fork_lock && thr_self && !thr_self->shared &&
		       atomic_load(&fork_lock) == thr_tid(thr_self);
	uint32_t pid = (uint32_t)syscall(SYS_getpid);

	proc_page->pid = pid;
	atomic_store(&proc_page->alive, 1);
	thr_after_fork();
	if (!counted) {
		conn_fork_count(1);
		proc_fork_gen++;
		fork_slot = family_add(proc_fork_gen);
	}
	if (fork_slot >= 0)
		atomic_store(&family->p[fork_slot].pid, pid);
	fork_slot = -1;
	atomic_store(&fork_lock, 0);
	side_after_fork();
	conn_after_fork();
	eset_after_fork();
	ctl_after_fork();
	stats_init();
}

void proc_fork_begin(struct proc_fork *f)
{
	f->was = fork_counted;
	fork_prepare();
	f->counted = fork_counted;
}

void proc_fork_end(const struct proc_fork *f, bool failed)
{
	if (f->counted) {
		fork_parent();
		if (failed)
			proc_fork_failed();
	}
	fork_counted = f->was;
}

void proc_init(void)
{
	void *p;

	proc_page = &no_page;
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return;
	family = mmap(NULL, sizeof(*family), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (family == MAP_FAILED || madvise(p, 4096, MADV_WIPEONFORK) < 0)
		return;
	proc_page = p;
	proc_page->pid = (uint32_t)syscall(SYS_getpid);
	atomic_store(&proc_page->alive, 1);
	if (pthread_atfork(fork_prepare, fork_parent, fork_child) != 0)
		return;
	proc_on = true;
}
