/* SPDX-License-Identifier: MIT */
/*
 * side.c - the shared half of a connection's state on our side
 *
 * Sides lie in a slab that forked children share. Only the process that made the slab hands them out and takes
 * them back. A side is taken back when nobody holds the socket: `holders` says 0, or every process that was forked since the side was
 * made has ended. Until then it waits in a list, so the cost of a forking server is bounded by its living children.
 *
 * Where System V shared memory is to be had, the slab lies in a segment that is marked for removal at once: it ends with the last
 * process that has it, needs no descriptor, and a process that comes by a socket others hold as well can
 * attach it by number (carry.c, reattach.c). One outside the maker's family counts itself in as a holder and is noted in `lent`.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "wsd_switch/core/switch.h"

#define NONE 0xffffffffu
#define SLAB_BYTES	(sizeof(struct side) * MAX_CONNS)
#define SHM_IDS_MAX	1024	/* used on this machine; above, the segments are left to others */
#define SLABS_MAX	64	/* of other processes, attached by number */

static struct side *slab;
static uint32_t *next_free;		/* private, parallel to slab */
static uint32_t free_head = NONE, wait_head = NONE, n_fresh;
static _Atomic uint32_t pool_lock;
static int slab_shm = -1;
static struct {
	int id;
	struct side *base;		/* NULL: free */
	uint32_t used;			/* conns of this process, an unused one may be given up for another */
} others[SLABS_MAX];

static void *slab_map(void)
{
	struct shm_info info;
	void *p = (void *)-1;

	slab_shm = -1;
	if (shmctl(0, SHM_INFO, (struct shmid_ds *)&info) >= 0 && info.used_ids < SHM_IDS_MAX)
		slab_shm = shmget(IPC_PRIVATE, SLAB_BYTES, IPC_CREAT | SHM_NORESERVE | 0600);
	if (slab_shm >= 0) {
		p = shmat(slab_shm, NULL, 0);
		shmctl(slab_shm, IPC_RMID, NULL);
	}
	if (p != (void *)-1)
		return p;
	slab_shm = -1;
	return mmap(NULL, SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static void slab_unmap(void *p)
{
	if (slab_shm >= 0)
		shmdt(p);
	else
		munmap(p, SLAB_BYTES);
}

/* the slab of that segment, by its place in others[]; ours is none of them. pool_lock */
static int other_attach(int id, unsigned *ret)
{
	unsigned i, at = SLABS_MAX;
	struct shmid_ds ds;
	void *p;

	for (i = 0; i < SLABS_MAX; i++) {
		if (others[i].base && others[i].id == id) {
			*ret = i;
			return 0;
		}
		if (at == SLABS_MAX && !others[i].base)
			at = i;
	}
	for (i = 0; at == SLABS_MAX && i < SLABS_MAX; i++)
		if (others[i].used == 0)
			at = i;
	if (at == SLABS_MAX)
		return -ENFILE;
	if (shmctl(id, IPC_STAT, &ds) < 0)
		return errno == EIDRM ? -EINVAL : -errno;
	if (ds.shm_perm.cuid != geteuid() || ds.shm_perm.uid != geteuid() || ds.shm_segsz != SLAB_BYTES)
		return -EACCES;
	p = shmat(id, NULL, 0);
	if (p == (void *)-1)
		return errno == EIDRM ? -EINVAL : -errno;
	if (others[at].base)
		shmdt(others[at].base);
	others[at].id = id;
	others[at].base = p;
	others[at].used = 0;
	*ret = at;
	return 0;
}

/* one more holder, if there is any: from 0 on the side may be another connection's */
static bool hold(struct side *s)
{
	uint32_t h = atomic_load(&s->holders);

	while (h)
		if (atomic_compare_exchange_weak(&s->holders, &h, h + 1))
			return true;
	return false;
}

static void lend(struct side *s)
{
	uint32_t u = atomic_load(&s->lent), me = proc_page->pid;

	while (u != me && u != USER_MANY &&
	       !atomic_compare_exchange_weak(&s->lent, &u, u == 0 || proc_pid_dead(u) ? me : USER_MANY))
		;
}

bool side_lent(struct side *s)
{
	uint32_t u = atomic_load(&s->lent);

	return u && !proc_pid_dead(u);
}

static int find(int id, uint32_t index, uint64_t cookie, bool join, struct side **ret)
{
	struct side *base = slab, *s;
	unsigned at = SLABS_MAX;
	int r;

	if (!slab || id != slab_shm) {
		r = other_attach(id, &at);
		if (r)
			return r;
		base = others[at].base;
	}
	if (index >= MAX_CONNS)
		return -EACCES;
	s = &base[index];
	if (s->index != index || s->shm != id || s->cookie != cookie)
		return -EINVAL;		/* it is another connection's by now */
	if (join) {
		if (!hold(s))
			return -EINVAL;
		lend(s);
		if (s->cookie != cookie) {	/* it was taken back between the looks, and is in use again */
			atomic_fetch_sub(&s->holders, 1);
			return -EINVAL;
		}
	}
	if (at < SLABS_MAX)
		others[at].used++;
	*ret = s;
	return 0;
}

static int find_locked(int id, uint32_t index, uint64_t cookie, bool join, struct side **ret)
{
	int r, i;

	for (i = 0; !lock_try_long(&pool_lock, thr_tid(thr_get())); i++)
		if (i == 100)
			return -EBUSY;
	r = find(id, index, cookie, join, ret);
	lock_drop(&pool_lock);
	return r;
}

int side_attach(int id, uint32_t index, uint64_t cookie, struct side **ret)
{
	return find_locked(id, index, cookie, false, ret);
}

int side_join(int id, uint32_t index, uint64_t cookie, struct side **ret)
{
	return find_locked(id, index, cookie, true, ret);
}

static bool slab_make(void)
{
	void *p, *q;

	if (slab)
		return true;
	p = slab_map();
	if (p == MAP_FAILED)
		return false;
	q = mmap(NULL, sizeof(uint32_t) * MAX_CONNS, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (q == MAP_FAILED) {
		slab_unmap(p);
		return false;
	}
	slab = p;
	next_free = q;
	return true;
}

static bool reusable(struct side *s)
{
	return atomic_load(&s->holders) == 0 || (proc_family_dead(s->created_gen) && !side_lent(s));
}

struct side *side_new(void)
{
	struct side *s = NULL;
	uint32_t i, *link, looks;

	if (!lock_try(&pool_lock, thr_tid(thr_get())))
		return NULL;
	if (!slab_make())
		goto out;
	if (free_head == NONE && n_fresh == MAX_CONNS) {
		for (link = &wait_head, looks = 0; *link != NONE && looks < 64; looks++) {
			i = *link;
			if (reusable(&slab[i])) {
				*link = next_free[i];
				next_free[i] = free_head;
				free_head = i;
			} else {
				link = &next_free[i];
			}
		}
	}
	if (free_head != NONE) {
		i = free_head;
		free_head = next_free[i];
	} else if (n_fresh < MAX_CONNS) {
		i = n_fresh++;
	} else {
		goto out;
	}
	s = &slab[i];
	memset(s, 0, sizeof(*s));
	s->index = i;
	s->shm = slab_shm;
	s->maker = proc_page->pid;
	s->created_gen = proc_fork_gen;
	s->holders = 1;
	s->syn = -1;
out:
	lock_drop(&pool_lock);
	return s;
}

void side_drop(struct side *s)
{
	uint32_t i = s->index;
	bool mine = slab && s >= slab && s < slab + MAX_CONNS;
	uint32_t left = atomic_fetch_sub(&s->holders, 1) - 1;

	if (!lock_try(&pool_lock, thr_tid(thr_get())))
		return;		/* lock not got: this one is not used again */
	if (!mine) {
		for (i = 0; i < SLABS_MAX; i++)
			if (others[i].base && s >= others[i].base && s < others[i].base + MAX_CONNS && others[i].used)
				others[i].used--;
		lock_drop(&pool_lock);
		return;
	}
	if (left == 0 || reusable(s)) {
		next_free[i] = free_head;
		free_head = i;
	} else {
		next_free[i] = wait_head;
		wait_head = i;
	}
	lock_drop(&pool_lock);
}

/* a child's own connections need a slab of its own; what it inherited belongs to the parent */
void side_after_fork(void)
{
	slab = NULL;
	next_free = NULL;
	free_head = wait_head = NONE;
	n_fresh = 0;
	atomic_store(&pool_lock, 0);
}
