/* SPDX-License-Identifier: MIT */
/*
 * eset.c - mirrors of the program's epoll sets
 *
 * The kernel's set stays what sleeps and wakes (design section 2). The mirror knows which of our connections are in it and keeps the *open
 * list*: registrations whose gate is open, or closed with something left in the ring (G15).
 *
 * Invariant between opener and sleeper: the opener enters the list, then looks at `sleepers`, then swaps the gate
 * word; the sleeper counts itself in, then walks the whole list and closes each gate. Entries only ever move to lower
 * places (the last one fills a hole, new place stored first) and the walk goes downwards, so it misses none that was entered before it
 * began; for one entered later the opener sees the sleeper.
 *
 * Changes of mirror and list are made under set->lock, which is tried with a bound. Not got: the connection goes to TCP for
 * good and the kernel's own set is exact for it. The walk takes no lock.
 *
 * Sets with connections to other hosts (agreed.h) are waited for by road_wait(). Their registrations are on the set's road list; one is
 * looked at when the kernel reported it, when its road changed since the last look, or when that left something (hot). From the
 * first grant or start on two descriptors more are in the set, the device's and one by which other threads wake it (A1), with cookies of
 * ours; they go with the last such registration, and before the set gets to others. A kernel event of such a connection says
 * that there are TCP bytes, which may be a header whose ring bytes are still on their way: what it is worth road_report() says, and
 * meanwhile the kernel is not asked (hold).
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "wsd_switch/core/agreed.h"
#include "wsd_switch/core/switch.h"
#include "wsd_switch/core/unread.h"

#define KICK_COOKIE	0x9c5d0e7b31f6a284ull	/* the eventfd of G17; never reported */
#define WAKE_COOKIE	0x9c5d0e7b31f70000ull	/* wake descriptors (A1): | generation << 1 | which; never reported */
#define WAKE_MASK	(~0xffffull)
#define WAKE_GEN(g)	(((g) & 0x7fffu) << 1)
#define WAKE_DEVICE	0u
#define WAKE_THREADS	1u
#define WAKES		2		/* there are no more */
#define WOKEN_DEVICE	1u	/* t->woken */
#define WOKEN_FOREIGN	2u	/* a cookie that is none of ours: a parent's, in a set that it shares with us */
#define BAD_EVENTS	(EPOLLONESHOT | EPOLLEXCLUSIVE)
#define IN_EVENTS	(EPOLLIN | EPOLLRDNORM)
#define OUT_EVENTS	(EPOLLOUT | EPOLLWRNORM)
#define EVENT_BITS	(EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLRDNORM | EPOLLRDBAND | EPOLLWRNORM | \
			 EPOLLWRBAND | EPOLLMSG)
#define FD_TOP_MAX	8192	/* the kernel's table, which each fork copies, grows with the highest number */
#define HASH		256u
#define SETS_PER_CHUNK	64u

struct reg {
	struct eset *set;
	struct conn *c;
	int fd;
	uint32_t events;
	epoll_data_t data;
	bool want;		/* registered, as the program sees it */
	bool in_kernel;		/* registered in the kernel's set, with ... */
	bool dirty;		/* ... not these events and data (G19) */
	bool bad;
	bool rep;		/* last_rep is valid: edge-triggered, that head was reported */
	uint32_t last_rep;
	uint32_t k_events;
	epoll_data_t k_data;
	int32_t open_idx;
	uint32_t round, ev_idx;
	/* to another host */
	int32_t road_idx;
	uint32_t kev;		/* what the kernel reported in this round */
	uint32_t hold, extra;	/* the kernel's mask is without, and with, these */
	uint32_t seen;		/* road_changes() before the last look ... */
	_Atomic bool seen_ok;	/* ... if there was one */
	bool hot;		/* look again whatever changed */
	bool in_due;		/* edge-triggered: the kernel's edge came before there was something to read ... */
	bool hup_due;		/* ... and with it the one of the peer's FIN */
	uint64_t told_C;	/* edge-triggered: TCP's bytes were told up to this offset (agreed_news) */
	_Atomic bool out_due;	/* edge-triggered: writable again after the start (A2) ... */
	bool out_told;		/* ... as was said */
	struct reg *next_conn, *next_fd, *next_data, *next_dirty;
};

struct eset {
	_Atomic uint32_t lock;
	_Atomic uint32_t sleepers;
	_Atomic uint32_t dozers;	/* in the kernel as well, but with the gates open (doze.c) */
	_Atomic uint32_t n_open;
	uint32_t cap;
	struct reg *_Atomic *_Atomic open;
	_Atomic uint32_t n_dirty;
	_Atomic uint32_t n_att;		/* registrations of attached connections */
	_Atomic uint32_t nested;	/* polled, or member of another set: nothing opens (G14.4) */
	_Atomic uint32_t n_fd;
	struct reg *by_fd[HASH], *by_data[HASH];
	struct reg *dirty;
	bool ambiguous;			/* registrations of two connections share one data: events cannot be told apart */
	bool inherited;			/* from before a fork, not touched by this process yet */
	bool starved;			/* with room for one event the kernel had it, and a ring had something too */
	bool kicked;
	int epfd;
	uint32_t round, rot;
	/* connections to other hosts */
	struct reg *_Atomic *_Atomic roads;
	uint32_t road_cap, road_rot;
	_Atomic uint32_t n_roads;
	uint32_t n_et;			/* registrations with EPOLLET */
	_Atomic uint32_t relist;	/* some are not listed yet */
	struct waiter wake;		/* its place stays with this memory, set after set */
	bool wake_on;			/* both descriptors are in the kernel's set */
	bool road_turn;			/* with room for one event: the roads before the kernel, which may have kept one of them out just now */
	bool road_alone;		/* the kernel's event was of the only road */
	_Atomic uint32_t foreign;	/* a parent's wake descriptors are in it */
	int wake_fd;
	uint32_t wake_gen;
	_Atomic uint64_t asked;
	struct ledger led;
	struct doze doze;
};

static struct eset *_Atomic *set_tab;
static struct eset *set_pool;
static uint32_t set_fresh;
static struct reg *reg_free;
static _Atomic uint32_t pool_lock;
static struct reg *reg_chunk;
static uint32_t reg_left;
static _Atomic int kick_fd = -1;
static _Atomic uint32_t leftovers;	/* a closed set kept registrations, for a lock was not got */

static void sets_sweep(struct thr *t);

static unsigned hash_fd(int fd)
{
	return (unsigned)fd % HASH;
}

static unsigned hash_data(uint64_t d)
{
	return (unsigned)((d * 0x9e3779b97f4a7c15ull) >> 56) % HASH;
}

void eset_init(void)
{
	set_tab = mmap(NULL, sizeof(*set_tab) * TAB_FDS, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	set_pool = mmap(NULL, sizeof(*set_pool) * MAX_SETS, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (set_tab == MAP_FAILED || set_pool == MAP_FAILED)
		proc_on = false;
}

static struct eset *set_of(int epfd)
{
	return (unsigned)epfd < TAB_FDS ? atomic_load_explicit(&set_tab[epfd], memory_order_acquire) : NULL;
}

bool eset_known(int epfd)
{
	return set_of(epfd) != NULL;
}

/* a place that nothing refers to any more: a registration left in it would be reported for the next set there */
static bool set_unused(const struct eset *s)
{
	unsigned h;

	if (atomic_load(&s->n_fd) || atomic_load(&s->sleepers) || atomic_load(&s->dozers) || atomic_load(&s->lock))
		return false;
	for (h = 0; h < HASH; h++)
		if (s->by_fd[h])
			return false;
	return true;
}

void eset_new(int epfd)
{
	struct eset *s = NULL;
	uint32_t i;

	if ((unsigned)epfd >= TAB_FDS)
		return;
	if (set_of(epfd))
		eset_close_fd(epfd);
	if (unlikely(atomic_load(&leftovers)))
		sets_sweep(thr_get());
	if (!lock_try_long(&pool_lock, thr_tid(thr_get())))
		return;
	if (set_fresh < MAX_SETS) {
		s = &set_pool[set_fresh++];
	} else {
		for (i = 0; i < MAX_SETS && !s; i++)
			if (set_unused(&set_pool[i]))
				s = &set_pool[i];
	}
	if (s) {
		struct reg *_Atomic *open = atomic_load(&s->open), *_Atomic *roads = atomic_load(&s->roads);
		uint32_t cap = s->cap, road_cap = s->road_cap, gen = s->wake_gen;
		struct waiter wake = s->wake;

		memset(s, 0, sizeof(*s));
		atomic_store(&s->open, open);
		s->cap = cap;
		atomic_store(&s->roads, roads);
		s->road_cap = road_cap;
		s->wake_gen = gen;
		s->wake = wake;
		s->epfd = epfd;
		led_init(&s->led);
		atomic_store(&s->n_fd, 1);
	}
	lock_drop(&pool_lock);
	fd_seen(epfd);
	atomic_store_explicit(&set_tab[epfd], s, memory_order_release);
}

void eset_dup_fd(int epfd, int nfd)
{
	struct eset *s = set_of(epfd);

	if (!s || (unsigned)nfd >= TAB_FDS)
		return;
	atomic_fetch_add(&s->n_fd, 1);
	fd_seen(nfd);
	atomic_store(&set_tab[nfd], s);
}

/* ---- registrations; set->lock and the conn's open_lock held ---- */

static struct reg *reg_find(struct eset *s, int fd, struct conn *c)
{
	struct reg *r;

	for (r = s->by_fd[hash_fd(fd)]; r; r = r->next_fd)
		if (r->fd == fd && r->c == c)
			return r;
	return NULL;
}

static struct reg *reg_alloc(struct conn *c)
{
	struct reg *r = c->spare_regs;

	if (r) {
		c->spare_regs = r->next_conn;
		return r;
	}
	if (!lock_try_long(&pool_lock, thr_tid(thr_get())))
		return NULL;
	r = reg_free;
	if (r) {
		reg_free = r->next_conn;
	} else {
		if (reg_left == 0) {
			void *p = mmap(NULL, 256 * sizeof(*r), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				       -1, 0);

			if (p != MAP_FAILED) {
				reg_chunk = p;
				reg_left = 256;
			}
		}
		if (reg_left)
			r = &reg_chunk[--reg_left];
	}
	lock_drop(&pool_lock);
	return r;
}

void eset_free_regs(struct conn *c)
{
	struct reg *r;

	if (!c->spare_regs || !lock_try_long(&pool_lock, thr_tid(thr_get())))
		return;
	while ((r = c->spare_regs)) {
		c->spare_regs = r->next_conn;
		r->c = NULL;
		r->next_conn = reg_free;
		reg_free = r;
	}
	lock_drop(&pool_lock);
}

static void data_link(struct eset *s, struct reg *r)
{
	unsigned h = hash_data(r->data.u64);
	struct reg *o;

	for (o = s->by_data[h]; o; o = o->next_data)
		if (o->data.u64 == r->data.u64 && o->c != r->c)
			s->ambiguous = true;
	r->next_data = s->by_data[h];
	s->by_data[h] = r;
}

static void data_unlink(struct eset *s, struct reg *r)
{
	struct reg **l = &s->by_data[hash_data(r->data.u64)];

	while (*l && *l != r)
		l = &(*l)->next_data;
	if (*l)
		*l = r->next_data;
}

static void set_data(struct eset *s, struct reg *r, const struct epoll_event *ev)
{
	if (r->data.u64 != ev->data.u64) {
		data_unlink(s, r);
		r->data = ev->data;
		data_link(s, r);
	}
}

/* the last entry fills the hole: new place first, so that a downward walk meets it once or twice, never not */
static void list_remove(struct eset *s, struct reg *r)
{
	struct reg *_Atomic *open = atomic_load(&s->open);
	uint32_t n = atomic_load(&s->n_open), last = n - 1;
	struct reg *m;

	if (r->open_idx < 0)
		return;
	m = atomic_load(&open[last]);
	if (m != r) {
		m->open_idx = r->open_idx;
		atomic_store(&open[r->open_idx], m);
	}
	atomic_store(&open[last], NULL);
	atomic_store(&s->n_open, last);
	r->open_idx = -1;
}

static bool list_enter(struct eset *s, struct reg *r)
{
	uint32_t n = atomic_load(&s->n_open);
	struct reg *_Atomic *open = atomic_load(&s->open), *_Atomic *big;
	uint32_t i;

	if (r->open_idx >= 0)
		return true;
	if (n == s->cap) {
		uint32_t cap = s->cap ? s->cap * 2 : 512;

		/* the old array may be under somebody's walk: it stays mapped, at most as much again in all */
		big = mmap(NULL, cap * sizeof(*big), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (big == MAP_FAILED)
			return false;
		for (i = 0; i < n; i++)
			atomic_store(&big[i], atomic_load(&open[i]));
		atomic_store(&s->open, big);
		s->cap = cap;
		open = big;
	}
	r->open_idx = (int32_t)n;
	atomic_store(&open[n], r);
	atomic_store(&s->n_open, n + 1);
	return true;
}

/* ---- connections to other hosts: the list, the wake descriptors; set->lock held ---- */

static bool road_enter(struct eset *s, struct reg *r)
{
	uint32_t n = atomic_load(&s->n_roads), i;
	struct reg *_Atomic *v = atomic_load(&s->roads), *_Atomic *big;

	if (r->road_idx >= 0)
		return true;
	if (n == s->road_cap) {
		uint32_t cap = s->road_cap ? s->road_cap * 2 : 512;

		big = mmap(NULL, cap * sizeof(*big), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (big == MAP_FAILED)
			return false;
		for (i = 0; i < n; i++)
			atomic_store(&big[i], atomic_load(&v[i]));
		atomic_store(&s->roads, big);
		s->road_cap = cap;
		v = big;
	}
	r->road_idx = (int32_t)n;
	r->seen_ok = false;
	atomic_store(&v[n], r);
	atomic_store(&s->n_roads, n + 1);
	return true;
}

/* something is under way that TCP alone does not tell */
static bool road_live(struct conn *c)
{
	return !agreed_plain_in(c) || !agreed_plain_out(c);
}

static uint64_t wake_cookie(const struct eset *s, uint32_t which)
{
	return WAKE_COOKIE | WAKE_GEN(s->wake_gen) | which;
}

static bool wake_add(const struct eset *s, int fd, uint32_t which)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = wake_cookie(s, which) };

	return real.epoll_ctl(s->epfd, EPOLL_CTL_ADD, fd, &ev) == 0 ||
	       (errno == EEXIST && real.epoll_ctl(s->epfd, EPOLL_CTL_MOD, fd, &ev) == 0);
}

static void wake_remove(struct eset *s)
{
	struct epoll_event x;
	int e = errno;

	if (!s->wake_on)
		return;
	s->wake_on = false;
	real.epoll_ctl(s->epfd, EPOLL_CTL_DEL, s->wake_fd, &x);
	real.epoll_ctl(s->epfd, EPOLL_CTL_DEL, waiter_fd(&s->wake), &x);
	errno = e;
}

/* roads wake who sleeps there, or can be made to */
static bool wake_may(struct eset *s)
{
	int fd = road_wait_fd();

	return (s->wake_on && s->wake_fd == fd) ||
	       (fd >= 0 && !atomic_load(&s->nested) && !s->inherited && !atomic_load(&s->foreign) && waiter_keep(&s->wake));
}

/* who sleeps there already is woken by them, too: and then arms the device like all others */
static bool wake_install(struct eset *s)
{
	int fd = road_wait_fd(), e = errno;
	bool ok;

	if (s->wake_on && s->wake_fd == fd)
		return true;
	if (!wake_may(s))
		return false;
	wake_remove(s);
	s->wake_gen++;
	s->wake_fd = fd;
	s->wake_on = true;
	ok = wake_add(s, fd, WAKE_DEVICE) && wake_add(s, waiter_fd(&s->wake), WAKE_THREADS);
	if (!ok)
		wake_remove(s);
	else if (atomic_load(&s->sleepers))
		waiter_tell(&s->wake);
	errno = e;
	return ok;
}

static void road_leave_list(struct eset *s, struct reg *r)
{
	struct reg *_Atomic *v = atomic_load(&s->roads);
	uint32_t last = atomic_load(&s->n_roads) - 1;
	struct reg *m;

	if (r->road_idx < 0)
		return;
	m = atomic_load(&v[last]);
	if (m != r) {
		m->road_idx = r->road_idx;
		atomic_store(&v[r->road_idx], m);
	}
	atomic_store(&s->n_roads, last);
	r->road_idx = -1;
	if (last == 0)
		wake_remove(s);
}

static void reg_remove(struct eset *s, struct reg *r)
{
	struct conn *c = r->c;
	struct reg **l = &s->by_fd[hash_fd(r->fd)], *p;

	list_remove(s, r);
	road_leave_list(s, r);
	while (*l && *l != r)
		l = &(*l)->next_fd;
	if (*l)
		*l = r->next_fd;
	data_unlink(s, r);
	if (r->dirty) {
		l = &s->dirty;
		while (*l && *l != r)
			l = &(*l)->next_dirty;
		if (*l)
			*l = r->next_dirty;
		r->dirty = false;
		atomic_fetch_sub(&s->n_dirty, 1);
	}
	p = atomic_load(&c->regs);
	if (p == r) {
		atomic_store(&c->regs, r->next_conn);
	} else {
		while (p && p->next_conn != r)
			p = p->next_conn;
		if (p)
			p->next_conn = r->next_conn;
	}
	if (r->bad)
		c->bad_regs--;
	if (r->events & EPOLLET) {
		c->et_regs--;
		s->n_et--;
	}
	if (conn_att(c))
		atomic_fetch_sub(&s->n_att, 1);
	r->want = r->in_kernel = false;
	r->next_conn = c->spare_regs;
	c->spare_regs = r;
}

static struct reg *reg_add(struct eset *s, int fd, struct conn *c, const struct epoll_event *ev)
{
	struct reg *r = reg_alloc(c);

	if (!r)
		return NULL;
	/* walkers without a lock may still look at it: these two never become NULL */
	r->set = s;
	r->c = c;
	memset(&r->fd, 0, sizeof(*r) - offsetof(struct reg, fd));
	r->fd = fd;
	r->open_idx = r->road_idx = -1;
	r->data = ev->data;
	r->next_fd = s->by_fd[hash_fd(fd)];
	s->by_fd[hash_fd(fd)] = r;
	data_link(s, r);
	r->next_conn = atomic_load(&c->regs);
	atomic_store(&c->regs, r);
	if (conn_att(c))
		atomic_fetch_add(&s->n_att, 1);
	else if (unlikely(conn_agreed(c)) && !road_enter(s, r))
		atomic_store(&s->relist, 1);
	return r;
}

static void reg_events(struct reg *r, uint32_t events)
{
	struct conn *c = r->c;
	bool bad = events & BAD_EVENTS;

	c->bad_regs += bad - r->bad;
	r->bad = bad;
	c->et_regs += !!(events & EPOLLET) - !!(r->events & EPOLLET);
	r->set->n_et += (uint32_t)!!(events & EPOLLET) - !!(r->events & EPOLLET);
	r->events = events;
	r->rep = r->seen_ok = false;
	r->hold = r->extra = 0;
}

static uint32_t kernel_events(const struct reg *r)
{
	return (r->events & ~r->hold) | r->extra;
}

/* bring the kernel's set up to date for one registration (G19) */
static void flush_one(struct eset *s, struct reg *r)
{
	struct epoll_event ev = { .events = kernel_events(r), .data = r->data };
	int e = errno;

	if (r->want && !r->in_kernel)
		real.epoll_ctl(s->epfd, EPOLL_CTL_ADD, r->fd, &ev);
	else if (!r->want && r->in_kernel)
		real.epoll_ctl(s->epfd, EPOLL_CTL_DEL, r->fd, &ev);
	else if (r->want && (r->k_events != ev.events || r->k_data.u64 != r->data.u64))
		real.epoll_ctl(s->epfd, EPOLL_CTL_MOD, r->fd, &ev);
	r->in_kernel = r->want;
	r->k_events = ev.events;
	r->k_data = r->data;
	errno = e;
}

/* set->lock held */
static void flush(struct eset *s, struct thr *t)
{
	struct reg *r;

	while ((r = s->dirty)) {
		struct conn *c = r->c;

		s->dirty = r->next_dirty;
		r->dirty = false;
		atomic_fetch_sub(&s->n_dirty, 1);
		flush_one(s, r);
		if (!r->want && lock_try_long(&c->s->open_lock, thr_tid(t))) {
			reg_remove(s, r);
			/* nothing we know of waits for it now (G14.3) */
			if (!atomic_load(&c->regs) && !atomic_load(&c->polled) && conn_att(c) &&
			    atomic_load(&c->s->nonblock))
				rx_close_gate(c);
			lock_drop(&c->s->open_lock);
		}
	}
}

static bool flush_set(struct eset *s, struct thr *t)
{
	if (likely(!atomic_load_explicit(&s->n_dirty, memory_order_relaxed)))
		return true;
	if (!lock_try_long(&s->lock, thr_tid(t)))
		return false;
	flush(s, t);
	lock_drop(&s->lock);
	return true;
}

void eset_flush_all(void)
{
	uint32_t i;

	for (i = 0; i < set_fresh; i++)
		if (atomic_load(&set_pool[i].n_fd))
			flush_set(&set_pool[i], thr_get());
}

/* ---- opening ---- */

bool eset_may_wake(struct conn *c)
{
	uint32_t tid = thr_tid(thr_get());
	struct reg *r;

	for (r = atomic_load(&c->regs); r; r = r->next_conn) {
		bool mine = atomic_load(&r->set->lock) == tid, ok;

		if (!mine && !lock_try(&r->set->lock, tid))
			return false;
		ok = wake_may(r->set);
		if (!mine)
			lock_drop(&r->set->lock);
		if (!ok)
			return false;
	}
	return true;
}

bool eset_wake(struct conn *c)
{
	uint32_t tid = thr_tid(thr_get());
	struct reg *r;

	for (r = atomic_load(&c->regs); r; r = r->next_conn) {
		bool mine = atomic_load(&r->set->lock) == tid, ok;	/* a look at the set may be what brought us here */

		if (!mine && !lock_try(&r->set->lock, tid))
			return false;
		ok = road_enter(r->set, r) && wake_install(r->set);
		if (!mine)
			lock_drop(&r->set->lock);
		if (!ok)
			return false;
	}
	return true;
}

bool eset_grant(struct conn *c)
{
	/* every wait for it goes through us (G14.3) */
	if (c->bad_regs || (atomic_load(&c->s->nonblock) && !atomic_load(&c->regs) && !atomic_load(&c->polled)))
		return false;
	return eset_wake(c);
}

bool eset_enter_open(struct conn *c)
{
	uint32_t tid = thr_tid(thr_get());
	struct reg *r;

	for (r = atomic_load(&c->regs); r; r = r->next_conn) {
		bool ok;

		if (atomic_load(&r->set->nested) || r->set->inherited)
			return false;
		if (r->open_idx >= 0)
			continue;
		if (!lock_try(&r->set->lock, tid))
			return false;
		ok = list_enter(r->set, r);
		lock_drop(&r->set->lock);
		if (!ok)
			return false;
	}
	return true;
}

bool eset_sleepers(struct conn *c)
{
	struct reg *r;

	for (r = atomic_load(&c->regs); r; r = r->next_conn)
		if (atomic_load(&r->set->sleepers) || atomic_load(&r->set->nested))
			return true;
	return false;
}

struct ledger *eset_ledger(struct conn *c)
{
	struct reg *r = atomic_load_explicit(&c->regs, memory_order_acquire);

	return r ? &r->set->led : NULL;
}

uint64_t eset_asked(struct conn *c)
{
	struct reg *r = atomic_load_explicit(&c->regs, memory_order_acquire);

	return r ? atomic_load_explicit(&r->set->asked, memory_order_relaxed) : 0;
}

void eset_attached(struct conn *c)
{
	struct reg *r;

	for (r = atomic_load(&c->regs); r; r = r->next_conn)
		if (conn_agreed(c))
			atomic_store(&r->set->relist, 1);	/* entered by who waits next */
		else
			atomic_fetch_add(&r->set->n_att, 1);
}

/* ---- G17: wake a set whose sleeper cannot know ---- */

int fd_to_top(int fd)
{
	struct rlimit l;
	int hi = -1, from;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return fd;
	from = l.rlim_cur > FD_TOP_MAX ? FD_TOP_MAX - 512 : (int)l.rlim_cur - 1;
	for (; hi < 0 && from > 64; from -= 16)
		hi = real.fcntl64(fd, F_DUPFD_CLOEXEC, from);
	if (hi < 0)
		return fd;
	real.close(fd);
	return hi;
}

static int kick_get(void)
{
	int fd = atomic_load(&kick_fd), e = errno, z = -1;

	if (fd >= 0)
		return fd;
	fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd >= 0) {
		fd = fd_to_top(fd);
		if (!atomic_compare_exchange_strong(&kick_fd, &z, fd)) {
			real.close(fd);
			fd = z;
		} else {
			hidden_add(fd);
		}
	}
	errno = e;
	return fd;
}

static void kick(struct eset *s)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT, .data.u64 = KICK_COOKIE };
	int fd = kick_get(), e = errno;

	if (fd < 0)
		return;
	s->kicked = true;
	if (real.epoll_ctl(s->epfd, EPOLL_CTL_ADD, fd, &ev) < 0 && errno == EEXIST)
		real.epoll_ctl(s->epfd, EPOLL_CTL_MOD, fd, &ev);
	errno = e;
}

static void unkick(struct eset *s)
{
	struct epoll_event x;
	int e = errno;

	s->kicked = false;
	real.epoll_ctl(s->epfd, EPOLL_CTL_DEL, atomic_load(&kick_fd), &x);
	errno = e;
}

static bool wants_in(const struct reg *r)
{
	return r->want && (r->events & IN_EVENTS);
}

/* A wait that sleeps already begins to cover c (G17): close, and if the ring is readable wake it. */
static void cover(struct eset *s, struct reg *r, struct conn *c)
{
	uint32_t head;

	if (unlikely(conn_agreed(c))) {
		if (road_live(c) && (r->bad || !wake_install(s)))
			agreed_leave(c, WSD_R_UNTRACKED);
		if (s->wake_on && atomic_load(&s->sleepers))
			waiter_tell(&s->wake);		/* it may be readable just now */
		return;
	}
	if (!conn_att(c))
		return;
	if (!(atomic_load(&c->rx->gate) & WSD_GATE_OPEN) && rx_avail(c) == 0)
		return;
	if (!list_enter(s, r) || r->bad || atomic_load(&s->nested) || atomic_load(&s->sleepers))
		rx_close_gate(c);
	if ((atomic_load(&s->sleepers) || atomic_load(&s->nested)) && wants_in(r) && rx_readable(c, &head))
		kick(s);
}

/* ---- epoll_ctl ---- */

static int plain_ctl(struct conn *c, int epfd, int op, int fd, struct epoll_event *ev)
{
	int r = real.epoll_ctl(epfd, op, fd, ev);

	/* whoever waits there does so without our knowing: the connection stays on TCP */
	if (r == 0 && op != EPOLL_CTL_DEL && c)
		conn_to_tcp(c, WSD_R_UNTRACKED);
	return r;
}

/* May the call stay in the mirror until the next kernel wait on the set (G19)? */
static bool may_defer(struct eset *s, struct reg *r, struct conn *c, const struct epoll_event *ev)
{
	if (!conn_att(c) || cfg.shake || !(atomic_load_explicit(&c->rx->gate, memory_order_relaxed) & WSD_GATE_OPEN))
		return false;
	if (r && ((r->events & (EPOLLET | BAD_EVENTS)) || (r->in_kernel && (r->k_events & (EPOLLET | BAD_EVENTS)))))
		return false;
	if (ev && (ev->events & (EPOLLET | BAD_EVENTS | EPOLLWAKEUP)))
		return false;
	return !s->inherited && !atomic_load(&s->nested) && atomic_load(&c->n_fd) == 1;
}

static void make_dirty(struct eset *s, struct reg *r)
{
	if (r->dirty)
		return;
	r->dirty = true;
	r->next_dirty = s->dirty;
	s->dirty = r;
	atomic_fetch_add(&s->n_dirty, 1);
}

static void touch_all(struct eset *s, struct thr *t)
{
	unsigned h;
	struct reg *r;

	for (h = 0; h < HASH; h++)
		for (r = s->by_fd[h]; r; r = r->next_fd) {
			rx_touch(r->c);
			if (conn_att(r->c) && rx_avail(r->c))
				list_enter(s, r);	/* unread from before: a closed gate whose ring is not empty */
		}
	s->inherited = false;		/* last: a second thread waits for the lock until then */
}

int eset_ctl(struct thr *t, int epfd, int op, int fd, struct epoll_event *ev)
{
	struct eset *s = set_of(epfd);
	struct conn *c = conn_get(fd);
	struct epoll_event in;
	struct reg *r;
	bool locked;
	int ret;

	if (!c) {
		if (op == EPOLL_CTL_ADD && set_of(fd))
			eset_mark_nested(fd);
		return real.epoll_ctl(epfd, op, fd, ev);
	}
	if (!s)
		return plain_ctl(c, epfd, op, fd, ev);
	if (unlikely(op != EPOLL_CTL_ADD && op != EPOLL_CTL_MOD && op != EPOLL_CTL_DEL))
		return real.epoll_ctl(epfd, op, fd, ev);
	memset(&in, 0, sizeof(in));
	if (op != EPOLL_CTL_DEL && (!ev || !fault_copy(&in, ev, sizeof(in))))
		return real.epoll_ctl(epfd, op, fd, ev);
	if (!lock_try_long(&s->lock, thr_tid(t)))
		return plain_ctl(c, epfd, op, fd, ev);
	if (s->inherited)
		touch_all(s, t);
	locked = lock_try_long(&c->s->open_lock, thr_tid(t));
	if (!locked) {
		lock_drop(&s->lock);
		return plain_ctl(c, epfd, op, fd, ev);
	}
	if (op != EPOLL_CTL_DEL)
		rx_touch(c);
	r = reg_find(s, fd, c);
	if (may_defer(s, r, c, op == EPOLL_CTL_DEL ? NULL : &in)) {
		bool have = r && r->want;

		ret = -1;
		if (op == EPOLL_CTL_ADD && have) {
			errno = EEXIST;
		} else if (op != EPOLL_CTL_ADD && !have) {
			errno = ENOENT;
		} else {
			if (!r)
				r = reg_add(s, fd, c, &in);
			if (!r)
				goto eager;
			if (op == EPOLL_CTL_DEL) {
				r->want = false;
			} else {
				r->want = true;
				set_data(s, r, &in);
				reg_events(r, in.events);
			}
			make_dirty(s, r);
			ret = 0;
			if (r->want)
				cover(s, r, c);
			/* the mirror first, then the look: a sleeper came with what it had (G19) */
			if ((atomic_load(&s->sleepers) || atomic_load(&s->dozers)) && r->dirty) {
				lock_drop(&c->s->open_lock);
				flush(s, t);
				lock_drop(&s->lock);
				return 0;
			}
		}
		goto out;
	}
eager:
	if (r && r->dirty) {
		struct reg **l = &s->dirty;

		while (*l && *l != r)
			l = &(*l)->next_dirty;
		if (*l)
			*l = r->next_dirty;
		r->dirty = false;
		atomic_fetch_sub(&s->n_dirty, 1);
		flush_one(s, r);
		if (!r->want) {
			reg_remove(s, r);
			r = NULL;
		}
	}
	ret = real.epoll_ctl(epfd, op, fd, ev);
	if (ret < 0)
		goto out;
	if (op == EPOLL_CTL_DEL) {
		if (r)
			reg_remove(s, r);
		goto out;
	}
	if (!r)
		r = reg_add(s, fd, c, &in);
	if (!r) {
		c->bad_regs++;		/* no memory for the mirror: it never opens */
		conn_to_tcp(c, WSD_R_NOMEM);
		goto out;
	}
	r->want = r->in_kernel = true;
	set_data(s, r, &in);
	reg_events(r, in.events);
	r->k_events = in.events;
	r->k_data = in.data;
	if (in.events & EPOLLET) {
		/* the kernel has an edge of its own now: the next wait joins it to the ring's */
		atomic_store_explicit(&s->asked, 0, memory_order_relaxed);
		s->starved = false;
	}
	cover(s, r, c);
out:
	lock_drop(&c->s->open_lock);
	lock_drop(&s->lock);
	return ret;
}

/* ---- looking and waiting ---- */

/* LT EPOLLOUT inside a running segment with room (G18) */
static bool room_now(struct conn *c)
{
	uint64_t g = atomic_load_explicit(&c->tx->gate, memory_order_relaxed);
	uint32_t used;

	if ((g & (WSD_GATE_OPEN | WSD_GATE_ON_RING)) != (WSD_GATE_OPEN | WSD_GATE_ON_RING) ||
	    (atomic_load_explicit(&c->s->flags, memory_order_relaxed) & (S_NO_PUT | S_SHUT_WR | S_BROKEN)))
		return false;
	used = WSD_GATE_HEAD(g) - atomic_load_explicit(&c->s->peer_tail, memory_order_relaxed);
	if (used > (c->mask + 1) / 2)
		used = WSD_GATE_HEAD(g) - atomic_load_explicit(&c->tx->tail, memory_order_relaxed);
	return used < (c->mask + 1) / 2;
}

#define SEEN_RING	1u	/* *seen: some gate is on its ring */

/* a ring hit that also waits, level-triggered, for what only the kernel knows */
static uint32_t kernel_part(const struct reg *r)
{
	struct pollfd p = { .fd = r->fd, .events = (short)(r->events & EVENT_BITS) };
	int e = errno;

	if (poll_now(&p) < 0)
		p.revents = 0;
	errno = e;
	return (uint16_t)p.revents;
}

static uint32_t ring_events(struct reg *r, unsigned *seen)
{
	struct conn *c = r->c;
	uint32_t e = 0, head;

	if (!r->want)
		return 0;
	if (atomic_load_explicit(&c->rx->gate, memory_order_relaxed) & WSD_GATE_ON_RING)
		*seen |= SEEN_RING;
	if ((r->events & EPOLLOUT) && !(r->events & EPOLLET) && room_now(c))
		e |= EPOLLOUT | (r->events & EPOLLWRNORM);
	if ((r->events & (EPOLLET | EPOLLOUT)) == (EPOLLET | EPOLLOUT) && r->rep && rx_avail(c) == 0 &&
	    r->last_rep != WSD_GATE_HEAD(atomic_load_explicit(&c->rx->gate, memory_order_relaxed))) {
		/* something arrived since and was read without a wait: TCP's edge for it shows what is ready now */
		e |= room_now(c) ? r->events & (EPOLLOUT | EPOLLWRNORM) : kernel_part(r) & (EPOLLOUT | EPOLLWRNORM);
	}
	if (!(r->events & IN_EVENTS))
		return e;
	if (rx_readable(c, &head)) {
		if (!((r->events & EPOLLET) && r->rep && r->last_rep == head))
			e |= r->events & IN_EVENTS;
	} else if ((r->events & EPOLLET) && !(r->rep && r->last_rep == head) && rx_avail(c)) {
		/* new bytes behind TCP bytes that the program knows of but has not read: TCP gives an edge for each arrival */
		e |= kernel_part(r) & IN_EVENTS;
	}
	return e;
}

/* An edge was reported up to the head read here: with input in it the program reads on until EAGAIN, so a newer head is told as
 * well; without, only an empty ring may be called told. */
static void edge_told(struct reg *r, uint32_t e)
{
	uint32_t h = WSD_GATE_HEAD(atomic_load(&r->c->rx->gate));

	if ((e & IN_EVENTS) || h == (uint32_t)atomic_load(&r->c->s->taken)) {
		r->rep = true;
		r->last_rep = h;
	}
}

/* a one-shot registration has fired on the ring: the kernel must not fire it as well */
static void disarm(struct eset *s, struct reg *r)
{
	struct epoll_event ev = { .events = r->events & ~EVENT_BITS, .data = r->data };
	int e = errno;

	real.epoll_ctl(s->epfd, EPOLL_CTL_MOD, r->fd, &ev);
	errno = e;
	r->events = r->k_events = ev.events;
}

/* ring hits behind n kernel events already in ev; set->lock held */
static int look(struct eset *s, struct epoll_event *ev, int n, int max, unsigned *seen)
{
	uint32_t n_open = atomic_load(&s->n_open), k, i, e;	/* first this: the array only grows */
	uint32_t n_kernel = (uint32_t)n;
	struct reg *_Atomic *open = atomic_load(&s->open);

	*seen = 0;
	if (!n_open)
		return n;
	i = s->rot++ % n_open;
	for (k = 0; k < n_open && n < max; k++, i++) {
		struct reg *r;

		if (i >= n_open)
			i = 0;
		r = atomic_load_explicit(&open[i], memory_order_relaxed);
		if (!r || !(e = ring_events(r, seen)))
			continue;
		if ((r->events & EPOLLOUT) && !(e & EPOLLOUT) && room_now(r->c))
			e |= r->events & (EPOLLOUT | EPOLLWRNORM);
		/* what TCP would report together is reported together */
		if (((r->events & EPOLLOUT) && !(e & EPOLLOUT)) ||
		    (!(r->events & EPOLLET) && atomic_load_explicit(&r->c->kevent, memory_order_relaxed)))
			e |= kernel_part(r);
		if (r->events & EPOLLONESHOT)
			disarm(s, r);
		if (r->events & EPOLLET)
			edge_told(r, e);
		if (r->round == s->round && r->ev_idx < n_kernel && !s->ambiguous) {
			ev[r->ev_idx].events |= e;
		} else {
			ev[n].events = e;
			ev[n++].data = r->data;
		}
	}
	doze_found(&s->doze, (uint32_t)n);
	return n;
}

static bool any_hit(struct eset *s, unsigned *seen)
{
	uint32_t n = atomic_load(&s->n_open), i;
	struct reg *_Atomic *open = atomic_load(&s->open);

	for (i = 0; i < n; i++) {
		struct reg *r = atomic_load_explicit(&open[i], memory_order_relaxed);

		if (r && conn_att(r->c) && ring_events(r, seen))
			return true;
	}
	return false;
}

/* a kernel event and a ring hit of one registration are one event, however little room there is (G18) */
static void join_ring(struct eset *s, struct reg *r, struct epoll_event *ev)
{
	unsigned seen = 0;
	uint32_t e = ring_events(r, &seen);

	if (!e)
		return;
	ev->events |= e;
	if (r->events & EPOLLET)
		edge_told(r, e);
}

static bool has_roads(struct eset *s)
{
	return unlikely(atomic_load_explicit(&s->n_roads, memory_order_relaxed) || atomic_load_explicit(&s->relist, memory_order_relaxed) ||
			atomic_load_explicit(&s->foreign, memory_order_relaxed));
}

static void wake_reported(struct eset *s, uint64_t cookie)
{
	if (s->wake_on && cookie == wake_cookie(s, WAKE_DEVICE))
		thr_get()->woken |= WOKEN_DEVICE;
	else if (s->wake_on && cookie == wake_cookie(s, WAKE_THREADS))
		waiter_seen(&s->wake);
	else if (!s->wake_on)
		thr_get()->woken |= WOKEN_FOREIGN;
	/* else of an older generation, taken out meanwhile */
}

/* What the kernel reported: remember it for G13, and take out the kick. Returns the events left. set->lock held
 * or, `locked` false, not: then every connection of the set is marked. roads: look_roads() follows. */
static int reported(struct eset *s, struct epoll_event *ev, int n, bool locked, bool roads)
{
	int i, j = 0;

	s->round++;
	for (i = 0; i < n; i++) {
		struct reg *r = NULL;

		if (unlikely(ev[i].data.u64 == KICK_COOKIE)) {
			if (s->kicked)
				unkick(s);
			continue;
		}
		if (unlikely((ev[i].data.u64 & WAKE_MASK) == WAKE_COOKIE)) {
			wake_reported(s, ev[i].data.u64);
			continue;
		}
		if (i != j)
			ev[j] = ev[i];
		if (atomic_load_explicit(&s->n_att, memory_order_relaxed) || has_roads(s)) {
			if (locked && !s->ambiguous)
				for (r = s->by_data[hash_data(ev[i].data.u64)]; r; r = r->next_data)
					if (r->data.u64 == ev[i].data.u64)
						break;
			if (r) {
				if (ev[i].events & ~(EPOLLOUT | EPOLLWRNORM))
					atomic_store_explicit(&r->c->kevent, 1, memory_order_relaxed);
			} else if (!locked || s->ambiguous) {
				unsigned h;

				for (h = 0; h < HASH; h++)
					for (r = s->by_fd[h]; r; r = r->next_fd)
						atomic_store_explicit(&r->c->kevent, 1, memory_order_relaxed);
				r = NULL;
			}
			if (r) {
				r->round = s->round;
				r->ev_idx = (uint32_t)j;
				if (unlikely(roads && (r->road_idx >= 0 || conn_agreed(r->c))) && !conn_att(r->c)) {
					r->kev = ev[j++].events;	/* which lists it if it was attached just now */
					continue;
				}
				if (unlikely(unread_maybe(r->c, ev[j].events))) {
					enum unread_look look = unread_look(r->c, r->fd);

					if (look == UNREAD_NEWS && (r->events & (EPOLLET | EPOLLONESHOT)) == EPOLLET) {
						r->round--;	/* the next one has its place */
						continue;	/* the edge of the reset says both */
					}
					if (look == UNREAD_NEWS)
						ev[j].events = kernel_part(r);
					ev[j].events |= unread_events(r->c, look);
				}
				if (conn_att(r->c))
					join_ring(s, r, &ev[j]);
				if ((r->events & EPOLLET) && conn_att(r->c))
					edge_told(r, 0);	/* what arrives from here on is news */
				if (r->events & EPOLLONESHOT)
					r->events &= ~EVENT_BITS;
			}
		}
		j++;
	}
	return j;
}

static _Atomic bool no_pwait2;	/* the kernel, or a filter around the program, does not have it */

static bool pwait2_ok(void)
{
	return real.epoll_pwait2 && !atomic_load_explicit(&no_pwait2, memory_order_relaxed);
}

static int kernel_wait(struct eset *s, int epfd, struct epoll_event *ev, int max, const struct timespec *to,
		       const sigset_t *mask)
{
	int r, ms, e = errno;

	if (to && to->tv_sec == 0 && to->tv_nsec == 0 && !mask)
		return real.epoll_wait(epfd, ev, max, 0);
	if (!to)
		return mask ? real.epoll_pwait(epfd, ev, max, -1, mask) : real.epoll_wait(epfd, ev, max, -1);
	ms = to->tv_sec < 2000000 ? (int)(to->tv_sec * 1000 + (to->tv_nsec + 999999) / 1000000) : INT_MAX;
	if (to->tv_nsec % 1000000 == 0 && to->tv_sec < 2000000)
		return mask ? real.epoll_pwait(epfd, ev, max, ms, mask) : real.epoll_wait(epfd, ev, max, ms);
	if (pwait2_ok()) {
		r = real.epoll_pwait2(epfd, ev, max, to, mask);
		if (r >= 0 || (errno != ENOSYS && errno != EPERM))
			return r;
		atomic_store(&no_pwait2, true);
		errno = e;
	}
	return real.epoll_pwait(epfd, ev, max, ms, mask);
}

/* counted in at a set as one who is, or will be, in the kernel's wait; a cancellation counts it out */
struct asleep {
	_Atomic uint32_t *in;
};

static void asleep_begin(struct asleep *a, _Atomic uint32_t *count)
{
	a->in = count;
	atomic_fetch_add(count, 1);
}

static void asleep_end(struct asleep *a)
{
	if (a->in)
		atomic_fetch_sub(a->in, 1);
	a->in = NULL;
}

/* entries that are closed and empty leave the list (G15) */
static void clean(struct eset *s, struct thr *t)
{
	uint32_t i;

	if (!atomic_load_explicit(&s->n_open, memory_order_relaxed) || !lock_try(&s->lock, thr_tid(t)))
		return;
	for (i = atomic_load(&s->n_open); i-- > 0;) {
		struct reg *r = atomic_load(&atomic_load(&s->open)[i]);
		struct conn *c = r ? r->c : NULL;

		if (!c || !lock_try(&c->s->open_lock, thr_tid(t)))
			continue;
		if (!conn_att(c) ||
		    (!(atomic_load(&c->rx->gate) & WSD_GATE_OPEN) && rx_avail(c) == 0))
			list_remove(s, r);
		lock_drop(&c->s->open_lock);
	}
	lock_drop(&s->lock);
}

/* true: something is readable, do not sleep */
static bool close_all(struct eset *s, int *idle, bool *tcp_first)
{
	uint32_t i = atomic_load(&s->n_open);
	struct reg *_Atomic *open = atomic_load(&s->open);
	bool any = false;

	*idle = 0;
	*tcp_first = false;
	while (i-- > 0) {
		struct reg *r = atomic_load(&open[i]);
		struct conn *c = r ? r->c : NULL;
		uint32_t head;
		uint64_t g;

		if (!c || !conn_att(c))
			continue;
		g = rx_close_gate(c);
		head = WSD_GATE_HEAD(g);
		if (head == c->used)
			(*idle)++;
		if (head == (uint32_t)atomic_load(&c->s->taken) || !wants_in(r))
			continue;
		if ((r->events & EPOLLET) && r->rep && r->last_rep == head)
			continue;
		if (rx_readable(c, &head))
			any = true;
		else
			*tcp_first = true;
	}
	return any;
}

static int64_t ts_left(const struct timespec *end)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (end->tv_sec - now.tv_sec) * 1000000000ll + end->tv_nsec - now.tv_nsec;
}

static bool mask_would_deliver(const sigset_t *mask)
{
	sigset_t pend;
	int i;

	if (!mask || sigpending(&pend) < 0)
		return false;
	for (i = 1; i < 65; i++)
		if (sigismember(&pend, i) == 1 && sigismember(mask, i) == 0)
			return true;
	return false;
}

static uint32_t n_open_of(struct eset *s)
{
	return atomic_load_explicit(&s->n_open, memory_order_relaxed);
}

/* G18, G24: look, spin, and say whether to sleep; at `until`, in ticks, at the latest. Returns events, -1 to sleep. */
static int awake(struct thr *t, struct eset *s, int epfd, struct epoll_event *ev, int max, bool zero,
		 const sigset_t *mask, uint64_t until)
{
	uint64_t t0 = tsc_now(), now, prev = t0, lim;
	struct ledger *l = &s->led;
	struct timespec none = { 0, 0 };
	uint32_t me, i = 0, yields = 0, n_open;
	unsigned seen = 0;
	bool ask;
	int64_t cost = 0;
	int n = 0, m;

	/* about to sleep in the kernel anyway, which looks itself */
	if (!zero && (mask || !spin_ok(t, l, t0)) && !any_hit(s, &seen))
		return -1;
	ask = t0 - atomic_load_explicit(&s->asked, memory_order_relaxed) > (uint64_t)ASK_GAP;
	if (!lock_try_long(&s->lock, thr_tid(t)))
		return -1;
	s->round++;	/* what the kernel reported in an earlier wait is not in this ev[] */
	if (ask) {
		m = max > 1 ? (max + 1) / 2 : !s->starved;
		s->starved = false;
		flush(s, t);
		if (m > 0) {
			atomic_store_explicit(&s->asked, t0, memory_order_relaxed);
			n = kernel_wait(s, epfd, ev, m, &none, NULL);
			if (n < 0) {
				lock_drop(&s->lock);
				return n;
			}
			if (n > 0 && (n = reported(s, ev, n, true, false)) == 0)
				n = reported(s, ev, kernel_wait(s, epfd, ev, m, &none, NULL), true, false);
			if (max == 1 && n == 1)
				s->starved = any_hit(s, &seen);
		}
	}
	n = look(s, ev, n, max, &seen);
	lock_drop(&s->lock);
	if (n > 0)
		return n;
	n_open = atomic_load_explicit(&s->n_open, memory_order_relaxed);
	if (zero || !n_open || mask || !spin_ok(t, l, t0))
		return -1;
	me = tsc_cpu1();
	lim = spin_limit(l, doze_at_stake(&s->doze, n_open));
	for (;;) {
		struct reg *r;

		n_open = atomic_load_explicit(&s->n_open, memory_order_relaxed);
		if (!n_open)
			return -1;
		seen = 0;
		if (any_hit(s, &seen)) {
			spin_done(l, spin_cost(t0, prev, cost), doze_earned(&s->doze, n_open));
			doze_waited(&s->doze, tsc_now() - t0);
			if (!lock_try_long(&s->lock, thr_tid(t)))
				return -1;
			s->round++;
			n = look(s, ev, 0, max, &seen);
			lock_drop(&s->lock);
			if (n)
				return n;
			return -1;
		}
		if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed)))
			return -1;
		r = atomic_load(&atomic_load(&s->open)[i++ % n_open]);
		if (r && conn_att(r->c) &&
		    atomic_load_explicit(&r->c->rx->wcpu, memory_order_relaxed) == me) {
			int y = spin_yield(t, &cost);

			prev = tsc_now();
			if (any_hit(s, &seen))
				continue;
			if (y || ++yields >= 2)
				break;
			me = tsc_cpu1();
		} else if (prev < t->polite_until) {
			bool ok = spin_give_way(t, &cost);

			prev = tsc_now();
			if (any_hit(s, &seen))
				continue;
			if (!ok)
				break;
			me = tsc_cpu1();
		} else {
			_mm_pause();
		}
		now = tsc_now();
		if (now - prev > (uint64_t)US(SPIN_GAP_US)) {
			cost += (int64_t)(now - prev);
			spin_gap_set(t, now);
		}
		prev = now;
		if ((int64_t)(now - t0) - cost > (int64_t)lim || now >= until)
			break;
		if (now - atomic_load_explicit(&s->asked, memory_order_relaxed) > (uint64_t)US(seen & SEEN_RING ? 5 : 2)) {
			atomic_store_explicit(&s->asked, now, memory_order_relaxed);
			if (!lock_try_long(&s->lock, thr_tid(t)))
				return -1;
			flush(s, t);
			n = kernel_wait(s, epfd, ev, max, &none, NULL);
			if (n > 0)
				n = reported(s, ev, n, true, false);
			lock_drop(&s->lock);
			if (n) {
				spin_done(l, (int64_t)(now - t0) - cost, n > 0 ? worth_sleep() : 0);
				return n;
			}
		}
	}
	spin_done(l, (int64_t)(tsc_now() - t0) - cost, 0);
	return -1;
}

static bool may_doze(struct thr *t, struct eset *s, const sigset_t *mask)
{
	return !mask && pwait2_ok() &&
	       doze_may(t, &s->doze, &s->led, atomic_load_explicit(&s->n_att, memory_order_relaxed), n_open_of(s));
}

/* ---- sets with connections to other hosts ---- */

#define NESTED_LOOKS	4
#define ROAD_SLICE_MS	10	/* no wake descriptors could be had */
#define FOREIGN_NAP_US	20000
#define ROAD_ASK_US	20

static void relist(struct eset *s)
{
	struct reg *r;
	unsigned h;

	atomic_store(&s->relist, 0);
	for (h = 0; h < HASH; h++)
		for (r = s->by_fd[h]; r; r = r->next_fd)
			if (conn_agreed(r->c)) {
				/* listed from an earlier session, perhaps: what was seen of that counts no more */
				r->seen_ok = r->rep = r->out_told = false;
				if (!road_enter(s, r))
					atomic_store(&s->relist, 1);
			}
}

/* edges of input: the kernel's, and one for each arrival on the ring */
static uint32_t road_edge_in(struct thr *t, struct reg *r, uint32_t kernel, uint32_t e)
{
	const struct wsd_remote *rs = road_of(r->c)->rs;
	uint64_t head = atomic_load(&rs->head), filled = atomic_load(&rs->filled);
	uint32_t there = (uint32_t)(head > filled ? head : filled);	/* what the daemons bring again is no news */
	bool old;

	if (!(e & IN_EVENTS)) {
		r->in_due |= (kernel & IN_EVENTS) != 0;
		r->hup_due |= (kernel & EPOLLRDHUP & r->events) && (r->events & IN_EVENTS);
		return r->hup_due ? e & ~EPOLLRDHUP : e;	/* TCP never tells it alone: there is an end to read */
	}
	old = r->rep && r->last_rep == there && !r->in_due;
	if (!(kernel & IN_EVENTS) && old)
		return e & ~IN_EVENTS;
	/* headers, and what a return repeats, are an edge of the kernel's, and no arrival */
	if (((kernel & IN_EVENTS) || r->in_due) &&
	    !agreed_news(t, r->c, r->fd, old && !(kernel & (EPOLLERR | EPOLLHUP | EPOLLRDHUP | EPOLLPRI)), &r->told_C))
		return e & ~IN_EVENTS;
	if (r->hup_due)
		e |= EPOLLRDHUP;
	r->in_due = r->hup_due = false;
	r->rep = true;
	r->last_rep = there;
	return e;
}

/* A send may have been refused while the direction was being started, which no kernel edge ends (A2). */
static uint32_t road_edge_out(struct reg *r, uint32_t wanted)
{
	const struct road *road = road_of(r->c);
	uint32_t x = atomic_load(&road->rs->xstate), out = wanted & (EPOLLOUT | EPOLLWRNORM);
	struct pollfd p = { .fd = r->fd, .events = (short)out };
	int e = errno;

	if (x == WSD_X_PLAIN && !r->out_due)	/* owed in the session before this one, or for a start that was put off */
		return 0;
	if (road_waits(road, x)) {
		r->out_due = true;
		return 0;
	}
	if (r->out_told && !r->out_due)
		return 0;
	r->out_told = x != WSD_X_PLAIN;
	r->out_due = false;
	if (!out || poll_now(&p) < 0)
		p.revents = 0;
	errno = e;
	return (uint16_t)p.revents & out;
}

/* one look; reported: kernel is what the kernel said of it just now */
static uint32_t road_look(struct thr *t, struct eset *s, struct reg *r, bool reported, uint32_t kernel, uint32_t changes, unsigned *ret_nap)
{
	struct conn *c = r->c;
	uint32_t wanted = r->events & EVENT_BITS, ask, e, x, kept;
	bool et = r->events & EPOLLET;
	unsigned nap;

	e = road_report(t, c, r->fd, wanted, kernel, &ask, &nap);
	if (et && (e & IN_EVENTS))
		batch_ask(t, c, r->fd, &nap);	/* new bytes are an edge, though the program may never look at these again */
	kept = unlikely((r->events & EPOLLONESHOT) && !wanted) ? 0 : road_kept(c, r->fd, wanted);
	e |= kept & IN_EVENTS;
	r->seen = changes;
	atomic_store_explicit(&r->seen_ok, true, memory_order_relaxed);
	if (et) {
		e = road_edge_in(t, r, kernel, e);
		e |= road_edge_out(r, wanted);
		if ((e & IN_EVENTS) && !reported && (wanted & ask & OUT_EVENTS & ~e))
			e |= kernel_part(r) & wanted & ask & OUT_EVENTS;	/* an edge shows all that is ready */
	} else if (e && !reported && (wanted & ask & ~IN_EVENTS)) {
		e |= kernel_part(r) & wanted & ask & ~IN_EVENTS;	/* what TCP would report together is reported together */
	}
	if (!et || e)
		e |= kept;
	x = atomic_load(&road_of(c)->rs->xstate);
	r->hot = nap || (e & IN_EVENTS && !et) || road_waits(road_of(c), x);
	if (nap && (!*ret_nap || nap < *ret_nap))
		*ret_nap = nap;
	r->hold = et ? 0 : wanted & ~ask;
	r->extra = ask & ~wanted & EPOLLOUT;
	if (unlikely(r->events & EPOLLONESHOT)) {
		if (reported)
			r->k_events &= ~EVENT_BITS;
		if (e) {
			r->hold = r->extra = 0;
			if (reported)
				r->events &= ~EVENT_BITS;
			else
				disarm(s, r);
		}
	}
	if (r->in_kernel && !r->dirty && kernel_events(r) != r->k_events)
		flush_one(s, r);
	return e;
}

/* Of the n events in ev the first n_kernel are the kernel's, of this round; max of them in all. set->lock held */
static int look_roads(struct thr *t, struct eset *s, struct epoll_event *ev, uint32_t n_kernel, int n, int max, unsigned *ret_nap)
{
	uint32_t n_roads, i, k;
	bool live = false;
	int j, m;

	if (unlikely(atomic_load(&s->relist)))
		relist(s);
	n_roads = atomic_load(&s->n_roads);
	s->road_alone = false;
	if (!n_roads)
		return n;
	i = s->road_rot++ % n_roads;
	for (k = 0; k < n_roads; k++, i++) {
		struct reg *r;
		uint32_t changes, e;
		bool rep;

		if (i >= n_roads)
			i = 0;
		r = atomic_load_explicit(&atomic_load(&s->roads)[i], memory_order_relaxed);
		rep = r->round == s->round && r->ev_idx < n_kernel && !s->ambiguous;
		s->road_alone = rep && n_roads == 1;
		if (unlikely(!conn_agreed(r->c))) {
			if (r->hold || r->extra || r->out_due) {	/* the session is over, and the kernel knows all there is */
				if (r->out_due)
					r->k_events = 0;	/* a send that was refused is owed an edge, which a change gives */
				r->out_due = false;
				r->hold = r->extra = 0;
				flush_one(s, r);
			}
			continue;
		}
		if (!r->want)
			continue;
		live |= road_live(r->c);
		changes = road_changes(road_of(r->c));
		/* without the wake descriptors nobody takes completions but who looks, once in a slice */
		if (!rep && !r->hot && r->seen_ok && r->seen == changes && !(s->ambiguous && n_kernel) && (s->wake_on || !road_live(r->c)) &&
		    !atomic_load_explicit(&r->c->s->kept_err, memory_order_relaxed))
			continue;
		if (!rep && n >= max)
			continue;
		e = road_look(t, s, r, rep, rep ? r->kev : 0, changes, ret_nap);
		live |= road_live(r->c);
		if (rep)
			ev[r->ev_idx].events = e;
		else if (e)
			ev[n++] = (struct epoll_event){ .events = e, .data = r->data };
	}
	if (live && !wake_install(s) && (!*ret_nap || *ret_nap > ROAD_SLICE_MS))
		*ret_nap = ROAD_SLICE_MS;
	if (!live && atomic_load_explicit(&s->nested, memory_order_relaxed))
		wake_remove(s);		/* who waits for the outer set does not look, and saw it readable for each arrival elsewhere */
	/* the kernel's that came to nothing */
	for (j = m = 0; j < n; j++)
		if (ev[j].events) {
			if (j != m)
				ev[m] = ev[j];
			m++;
		}
	s->round++;	/* places in ev are not what they were */
	return m;
}

/* n events of the kernel, which was asked for so many, or n -1: only what we know. With the rings and the roads. */
static int joined(struct thr *t, struct eset *s, struct epoll_event *ev, int n, int asked, int max, unsigned *ret_nap)
{
	bool locked = lock_try_long(&s->lock, thr_tid(t));
	struct timespec none = { 0, 0 };
	int n_kernel, e = errno, i;
	unsigned seen;

	n_kernel = n < 0 ? 0 : reported(s, ev, n, locked, true);
	/* Cookies of ours in the place of others: an edge left in the kernel would be told a second time, behind what the roads have of it */
	for (i = 0; locked && n_kernel == 0 && n > 0 && n == asked && s->n_et && s->wake_on && i < WAKES; i++) {
		n = kernel_wait(s, s->epfd, ev, asked, &none, NULL);
		n_kernel = n < 0 ? 0 : reported(s, ev, n, locked, true);
		errno = e;
	}
	n = n_kernel;
	if (!locked) {
		*ret_nap = 1;
		return n;
	}
	if (n == 0)
		s->round++;
	n = look(s, ev, n, n + (max - n + 1) / 2, &seen);
	n = look_roads(t, s, ev, (uint32_t)n_kernel, n, max, ret_nap);
	/* not without need: what TCP reports together is then told in two */
	s->road_turn = max == 1 && n_kernel > 0 && !s->road_alone;
	lock_drop(&s->lock);
	return n;
}

static void road_woke(struct thr *t)
{
	if (t->woken & WOKEN_DEVICE)
		road_woken(t);
	if (t->woken & WOKEN_FOREIGN)
		thr_nap(FOREIGN_NAP_US);
	t->woken = 0;
}

/* since the last look. Without the lock: entries are never unmapped */
static bool roads_changed(struct eset *s)
{
	uint32_t i, n = atomic_load(&s->n_roads);
	struct reg *_Atomic *v = atomic_load(&s->roads);

	if (atomic_load(&s->relist))
		return true;
	for (i = 0; i < n; i++) {
		struct reg *r = atomic_load_explicit(&v[i], memory_order_relaxed);

		if (r->want && conn_agreed(r->c) && (!r->seen_ok || r->seen != road_changes(road_of(r->c))))
			return true;
	}
	return false;
}

/* a moment awake, for the device or the kernel. true: look again */
static bool spin_roads(struct thr *t, struct eset *s, int epfd, uint64_t until)
{
	uint64_t t0 = tsc_now(), asked = t0, now, most = (uint64_t)US(cfg.road_spin_us);
	struct reg *_Atomic *v = atomic_load(&s->roads);
	struct pollfd p = { .fd = epfd, .events = POLLIN };
	struct road *r = NULL;
	unsigned looks = 0;
	uint32_t i, n = atomic_load(&s->n_roads);

	for (i = 0; i < n && !r; i++) {
		struct conn *c = atomic_load(&v[i])->c;

		if (conn_agreed(c) && road_mine(road_of(c)) && road_live(c))
			r = road_of(c);
	}
	if (!r || cfg.spin_us <= 0 || cfg.road_spin_us <= 0)
		return false;
	for (;;) {
		sig_hold();
		r->p.poll(r->p.conn);	/* one queue serves them all */
		sig_release();
		if (roads_changed(s))
			return true;
		if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed)))
			return false;
		now = tsc_now();
		if (now - t0 > most || now >= until)
			return false;
		if (now - asked > (uint64_t)US(ROAD_ASK_US)) {
			asked = now;
			if (real.poll(&p, 1, 0) > 0)
				return false;	/* the wait itself returns at once */
		}
		road_pause(r, ++looks);
	}
}

/* counted in at a set: for openers and granters, and for who takes completions */
struct road_asleep {
	struct eset *s;
	struct waiter w;	/* as it was then */
};

static void road_asleep_begin(struct road_asleep *a, struct eset *s)
{
	a->s = s;
	atomic_fetch_add(&s->sleepers, 1);
	a->w = s->wake;
	waiter_count(&a->w, 1);
}

static void road_asleep_end(struct road_asleep *a)
{
	if (!a->s)
		return;
	waiter_count(&a->w, -1);
	atomic_fetch_sub(&a->s->sleepers, 1);
	a->s = NULL;
}

static int road_wait(struct thr *t, struct eset *s, int epfd, struct epoll_event *ev, int max, const struct timespec *to,
		     const sigset_t *mask)
{
	struct road_asleep a __attribute__((cleanup(road_asleep_end))) = { NULL };
	bool zero = to && to->tv_sec == 0 && to->tv_nsec == 0, last = zero, spun = false, any, tcp_first, unflushed;
	struct timespec end = { 0, 0 }, rest, cut, none = { 0, 0 };
	uint64_t until = to ? spin_until(to) : UINT64_MAX;
	const struct timespec *use;
	int n, m, e, idle, rounds = 0, half = max > 1 ? (max + 1) / 2 : 1;
	unsigned nap;

	if (to) {
		clock_gettime(CLOCK_MONOTONIC, &end);
		end.tv_sec += to->tv_sec;
		end.tv_nsec += to->tv_nsec;
		if (end.tv_nsec >= 1000000000) {
			end.tv_nsec -= 1000000000;
			end.tv_sec++;
		}
	}
	for (;;) {
		int64_t left = to ? ts_left(&end) : INT64_MAX;

		nap = 0;
		if (to && left <= 0) {
			last = true;
			left = 0;
		}
		rest = (struct timespec){ left / 1000000000, left % 1000000000 };
		if (unlikely(mask && mask_would_deliver(mask))) {
			cs_leave(t);
			n = kernel_wait(s, epfd, ev, max, to ? &rest : NULL, mask);
			cs_enter();
			return n > 0 ? joined(t, s, ev, n, max, max, &nap) : n;
		}
		/* who never sleeps does not arm the device, and is told nothing by it */
		if (zero && s->wake_on)
			(void)road_drain(t);
		/* what there is now, the kernel's first; with room for one, in turns */
		road_woke(t);
		flush_set(s, t);
		n = max == 1 && s->road_turn ? joined(t, s, ev, -1, 0, max, &nap) : 0;
		if (n == 0) {
			m = kernel_wait(s, epfd, ev, half, &none, NULL);
			if (m < 0)
				return m;
			n = joined(t, s, ev, m, half, max, &nap);
			if (n == 0 && m > 0 && last && ++rounds < 4)
				continue;	/* only cookies */
		}
		if (n > 0)
			goto found;
		if (last)
			return 0;
		if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed))) {
			sig_call_begin(t);		/* a handler ran while we were awake in here (G26) */
			errno = EINTR;
			return -1;
		}
		if (!spun && !mask) {
			spun = true;
			if (spin_roads(t, s, epfd, until))
				continue;
		}
		/* counted in, the gates closed (G15), the device armed, looked once more (A1) */
		road_asleep_begin(&a, s);
		unflushed = !flush_set(s, t);
		tcp_first = false;
		any = atomic_load(&s->n_open) && close_all(s, &idle, &tcp_first);
		if ((any && ++rounds < 4) || (s->wake_on && !road_armed(t, &nap)) || roads_changed(s)) {
			road_asleep_end(&a);
			continue;
		}
		if ((any || tcp_first || unflushed) && (!nap || nap > 2))
			nap = 2;
		use = to ? &rest : NULL;
		cut = (struct timespec){ nap / 1000, nap % 1000 * 1000000l };
		if (nap && (!to || left > nap * 1000000ll))
			use = &cut;
		cs_leave(t);
		n = kernel_wait(s, epfd, ev, max, use, mask);
		e = errno;
		cs_enter();
		road_asleep_end(&a);
		if (n < 0) {
			errno = e;
			return n;
		}
		if (n > 0) {
			nap = 0;
			n = joined(t, s, ev, n, max, max, &nap);
			if (n > 0)
				goto found;
		}
	}
found:
	road_woke(t);
	/* one wake-up may stand for several connections: whoever reports one passes it on (F16) */
	if (s->wake_on && atomic_load(&s->sleepers))
		waiter_tell(&s->wake);
	doze_over(t, &s->doze, false);
	return n;
}

int eset_wait(struct thr *t, int epfd, struct epoll_event *ev, int max, const struct timespec *to,
	      const sigset_t *mask)
{
	struct eset *s = set_of(epfd);
	struct asleep a __attribute__((cleanup(asleep_end))) = { NULL };
	struct timespec end = { 0, 0 }, cut, rest;
	unsigned loops = 0;
	bool zero = to && to->tv_sec == 0 && to->tv_nsec == 0, tcp_first, locked, unflushed;
	unsigned seen;
	bool doze = false;
	int n, idle, rounds = 0, backoff_ms = 1, e, tries;
	const struct timespec *use = to;
	uint64_t until = UINT64_MAX;
	struct worth_sample m;

	/* the kernel says EINVAL, EFAULT */
	if (!s || max <= 0 || !ev || !fault_copy(ev, ev, sizeof(*ev))) {
		cs_leave(t);
		n = kernel_wait(NULL, epfd, ev, max, to, mask);
		cs_enter();
		return n;
	}
	if (unlikely(s->inherited) && lock_try_long(&s->lock, thr_tid(t))) {
		touch_all(s, t);
		lock_drop(&s->lock);
	}
	if (to && !zero) {
		until = spin_until(to);
		clock_gettime(CLOCK_MONOTONIC, &end);
		end.tv_sec += to->tv_sec;
		end.tv_nsec += to->tv_nsec;
		if (end.tv_nsec >= 1000000000) {
			end.tv_nsec -= 1000000000;
			end.tv_sec++;
		}
	}
	for (;; loops++) {
		if (to && !zero && loops) {
			int64_t left = ts_left(&end);

			if (left < 0)
				left = 0;
			rest.tv_sec = left / 1000000000;
			rest.tv_nsec = left % 1000000000;
			to = &rest;
		}
		if (has_roads(s))
			return road_wait(t, s, epfd, ev, max, to, mask);
		if (unlikely(mask != NULL) && mask_would_deliver(mask)) {
			/* rings that always have something must not keep the signals of a masked wait out: one
			 * of them waits, so this does not sleep */
			cs_leave(t);
			n = kernel_wait(s, epfd, ev, max, to, mask);
			cs_enter();
			if (n > 0) {
				locked = lock_try_long(&s->lock, thr_tid(t));
				n = reported(s, ev, n, locked, false);
				if (locked)
					lock_drop(&s->lock);
			}
			return n;
		}
		n = (int)atomic_load_explicit(&s->n_att, memory_order_relaxed);
		s->led.more = n > 1 ? (uint32_t)n - 1 : 0;
		if (atomic_load(&s->n_open)) {
			n = awake(t, s, epfd, ev, max, zero, mask, until);
			if (n > 0)
				doze_over(t, &s->doze, false);
			if (n >= 0)
				return n;
		}
		if (zero) {
			/* no sleep, so the gates stay as they are */
			flush_set(s, t);
			do {	/* again if all that came was the kick, now taken out */
				n = tries = kernel_wait(s, epfd, ev, max, to, mask);
				e = errno;
				if (n > 0) {
					locked = lock_try_long(&s->lock, thr_tid(t));
					n = reported(s, ev, n, locked, false);
					if (locked)
						lock_drop(&s->lock);
				}
			} while (n == 0 && tries > 0 && ++rounds < 4);
			atomic_store_explicit(&s->asked, tsc_now(), memory_order_relaxed);
			errno = e;
			return n;
		}
		if (unlikely(atomic_load_explicit(&t->sig_any, memory_order_relaxed)) && rounds == 0) {
			/* a handler ran while we were awake in here: as if in the kernel (G26) */
			sig_call_begin(t);
			errno = EINTR;
			return -1;
		}
		doze = may_doze(t, s, mask);
		if (doze) {
			doze_begin(t, &s->doze, &s->led);
			asleep_begin(&a, &s->dozers);	/* so that changes reach the kernel at once (G19) */
		} else {
			/* sleep: counted in first, then every gate closed, then looked at once more (G15) */
			doze_over(t, &s->doze, true);
			asleep_begin(&a, &s->sleepers);
		}
		if (has_roads(s)) {	/* since it looked: now it is counted in, and who installs the wake descriptors would see it */
			asleep_end(&a);
			continue;
		}
		unflushed = !flush_set(s, t);
		tcp_first = false;
		if (!doze && atomic_load(&s->n_open)) {
			bool any = close_all(s, &idle, &tcp_first);

			if (any && ++rounds < 4) {
				asleep_end(&a);
				if (!lock_try_long(&s->lock, thr_tid(t)))
					continue;
				s->round++;
				n = look(s, ev, 0, max, &seen);
				lock_drop(&s->lock);
				if (n > 0)
					return n;
				continue;
			}
			if (any)
				tcp_first = true;	/* somebody else keeps taking it: look again soon */
			led_sleep(&s->led, idle);
		}
		use = to;
		if (doze) {
			cut = doze_time;
			if (!to || ts_left(&end) > cut.tv_nsec)
				use = &cut;
		} else if (tcp_first || unflushed) {
			/* a ring behind TCP bytes on their way: another reader may take what would wake us (G9) */
			cut.tv_sec = 0;
			cut.tv_nsec = backoff_ms * 1000000l;
			if (!to || ts_left(&end) > cut.tv_nsec)
				use = &cut;
			backoff_ms = backoff_ms * 2 < 50 ? backoff_ms * 2 : 50;
		}
		m.on = false;
		if (atomic_load_explicit(&s->n_att, memory_order_relaxed))	/* else there is nothing to weigh */
			worth_begin(&m, &t->n_slept);
		cs_leave(t);
		n = kernel_wait(s, epfd, ev, max, use, mask);
		e = errno;
		cs_enter();
		worth_slept(&m);
		asleep_end(&a);
		atomic_store_explicit(&s->asked, tsc_now(), memory_order_relaxed);
		if (n > 0) {
			int was = n;

			if (atomic_load_explicit(&s->n_att, memory_order_relaxed) || s->kicked || s->wake_on || has_roads(s)) {
				locked = lock_try_long(&s->lock, thr_tid(t));
				n = reported(s, ev, n, locked, false);
				if (locked) {
					/* the rings fill the rest; whoever reports one passes the wake-up on, as TCP
					 * wakes all who wait level-triggered */
					if (n < was) {
						n = look(s, ev, n, max, &seen);
						if (n > 0 && atomic_load(&s->sleepers))
							kick(s);
					}
					lock_drop(&s->lock);
				}
			}
			if (n == 0 && was > 0) {	/* only the kick */
				road_woke(t);
				rounds = 0;
				if (to && ts_left(&end) <= 0)
					return 0;
				continue;
			}
		}
		if (!doze || n)
			clean(s, t);
		if (n == 0 && (use == &cut || doze)) {
			rounds = 0;
			if (!to || ts_left(&end) > 0)
				continue;
			/* the rings, of which no sleep has told */
			if (doze && lock_try_long(&s->lock, thr_tid(t))) {
				s->round++;
				n = look(s, ev, 0, max, &seen);
				lock_drop(&s->lock);
			}
		}
		errno = e;
		return n;
	}
}

/* ---- ends ---- */

/* set->lock held. *ret_live: something is under way that TCP alone does not tell. true: one of them has something now */
static bool nested_look(struct eset *s, struct thr *t, bool *ret_live)
{
	bool any = false;
	uint32_t i;

	*ret_live = false;
	if (atomic_load(&s->relist))
		relist(s);
	for (i = 0; i < atomic_load(&s->n_roads); i++) {
		struct reg *r = atomic_load(&atomic_load(&s->roads)[i]);
		uint32_t ask;
		unsigned nap;

		if (!r->want || !conn_agreed(r->c))
			continue;
		agreed_leave(r->c, WSD_R_UNTRACKED);
		any |= road_live(r->c) && (road_report(t, r->c, r->fd, r->events & EVENT_BITS, 0, &ask, &nap) || nap) && road_live(r->c);
		if (road_live(r->c)) {
			*ret_live = true;
		} else if (r->hold | r->extra) {
			r->hold = r->extra = 0;
			flush_one(s, r);
		}
	}
	return any;
}

/*
 * Its connections to other hosts return to TCP, of which the kernel knows. Meanwhile the wake descriptors show through: what has come by them is
 * taken first, and once all have returned they go. true: one of them has something now
 */
static bool nested_roads(struct eset *s)
{
	struct thr *t = thr_get();
	bool any, live;
	int i = 0;

	if (!lock_try_long(&s->lock, thr_tid(t)))
		return true;
	do {
		any = nested_look(s, t, &live);
		if (!live)
			wake_remove(s);
		if (!s->wake_on || road_arm(t))
			break;
		road_drain(t);
		any = true;
	} while (++i < NESTED_LOOKS);
	lock_drop(&s->lock);
	return any;
}

/* every call of this process goes straight to the kernel from now on, waits, too */
void eset_unwake_all(void)
{
	struct thr *t = thr_get();
	uint32_t i;

	for (i = 0; i < set_fresh; i++) {
		struct eset *s = &set_pool[i];

		if (!s->wake_on || !lock_try_long(&s->lock, thr_tid(t)))
			continue;
		wake_remove(s);
		lock_drop(&s->lock);
	}
}

/* the set's descriptor goes to another process: nothing of ours stays in it */
void eset_lent(int epfd)
{
	struct thr *t = thr_get();
	struct eset *s = set_of(epfd);

	eset_mark_nested(epfd);
	if (!s || !lock_try_long(&s->lock, thr_tid(t)))
		return;
	wake_remove(s);
	lock_drop(&s->lock);
}

/* The set is about to be polled, or put into another one: from now on nothing in it opens, and what its rings still
 * hold shows as the kick. */
void eset_mark_nested(int epfd)
{
	struct eset *s = set_of(epfd);
	unsigned seen = 0;
	int idle;
	bool x, roads, was;

	if (!s)
		return;
	/* first this, then the look at who is live: who begins something marks itself live, then looks here (wake_install) */
	was = atomic_exchange(&s->nested, 1);
	roads = has_roads(s) && nested_roads(s);
	if (!was) {
		flush_set(s, thr_get());
		/* close_all knows of input alone; an edge for output may be due as well */
		if (close_all(s, &idle, &x) | any_hit(s, &seen))
			kick(s);
	} else {
		if (s->kicked)
			unkick(s);
		if (any_hit(s, &seen))
			kick(s);
	}
	if (roads && !s->kicked)
		kick(s);
}

/* the last descriptor of a connection goes away: the kernel forgets its registrations, so do we */
void eset_forget_conn(struct conn *c)
{
	struct thr *t = thr_get();
	struct reg *r;
	int guard = 0;

	/* what the program asked for happens before the number is free (G19); another process may hold the file, and then
	 * the kernel's set keeps it */
	for (r = atomic_load(&c->regs); r; r = r->next_conn)
		if (r->dirty)
			flush_set(r->set, t);
	for (r = atomic_load(&c->regs); r; r = r->next_conn)
		r->want = false;	/* nothing more is reported for it, whoever holds the lock */
	while ((r = atomic_load(&c->regs)) && guard++ < 10000) {
		struct eset *s = r->set;

		if (!lock_try_long(&s->lock, thr_tid(t)))
			return;
		if (lock_try_long(&c->s->open_lock, thr_tid(t))) {
			reg_remove(s, r);
			lock_drop(&c->s->open_lock);
		}
		lock_drop(&s->lock);
	}
}

/* what makes the kernel report an edge again does so for the ring (SO_RCVLOWAT) */
void eset_rearm(struct conn *c)
{
	struct reg *r;

	for (r = atomic_load(&c->regs); r; r = r->next_conn)
		r->rep = r->seen_ok = false;
}

/*
 * A send is about to be refused by a start, which may be over, and its session, before a wait looks. First this, then the caller looks whether it
 * is over: if not, what ends it changes the road, and a look behind that finds the edge due. Who sleeps there looks now: it may have begun before the start
 */
void eset_owe_out(struct conn *c)
{
	struct thr *t = thr_get();
	struct reg *r;
	bool locked;

	sig_hold();
	locked = lock_try_long(&c->s->open_lock, thr_tid(t));	/* else it is walked all the same */
	atomic_fetch_add(&road_gen, 1);
	for (r = atomic_load(&c->regs); r; r = r->next_conn) {
		r->out_due = true;
		r->seen_ok = false;
		if (r->set->wake_on && atomic_load(&r->set->sleepers))
			waiter_tell(&r->set->wake);
	}
	if (locked)
		lock_drop(&c->s->open_lock);
	sig_release();
	atomic_thread_fence(memory_order_seq_cst);
}

void eset_drop_fd(int fd, struct conn *c)
{
	struct thr *t = thr_get();
	struct reg *r;

	for (r = atomic_load(&c->regs); r; r = r->next_conn)
		if (r->dirty)
			flush_set(r->set, t);
}

/* the set is closed: its registrations go. false: some are left, for a lock was not got. */
static bool set_clear(struct eset *s, struct thr *t)
{
	bool all = true;
	struct reg *r;
	unsigned h;

	if (!lock_try_long(&s->lock, thr_tid(t)))
		return false;
	for (h = 0; h < HASH; h++)
		while ((r = s->by_fd[h])) {
			struct conn *c = r->c;

			if (!lock_try_long(&c->s->open_lock, thr_tid(t))) {
				all = false;
				break;
			}
			reg_remove(s, r);
			if (!atomic_load(&c->regs) && !atomic_load(&c->polled) && conn_att(c) &&
			    atomic_load(&c->s->nonblock))
				rx_close_gate(c);
			lock_drop(&c->s->open_lock);
		}
	lock_drop(&s->lock);
	return all;
}

static void sets_sweep(struct thr *t)
{
	uint32_t i, n = set_fresh;

	atomic_store(&leftovers, 0);
	for (i = 0; i < n; i++)
		if (!atomic_load(&set_pool[i].n_fd) && !set_unused(&set_pool[i]) && !set_clear(&set_pool[i], t))
			atomic_store(&leftovers, 1);
}

void eset_close_fd(int epfd)
{
	struct thr *t = thr_get();
	struct eset *s;

	if ((unsigned)epfd >= TAB_FDS)
		return;
	s = atomic_exchange(&set_tab[epfd], NULL);
	if (!s)
		return;
	if (atomic_load(&s->n_fd) > 1) {
		uint32_t i;

		/* the kernel's set lives on under another number */
		flush_set(s, t);
		atomic_fetch_sub(&s->n_fd, 1);
		if (s->epfd == epfd)
			for (i = 0; i < TAB_FDS && i < 65536; i++)
				if (atomic_load(&set_tab[i]) == s) {
					s->epfd = (int)i;
					break;
				}
		return;
	}
	if (!set_clear(s, t))
		atomic_store(&leftovers, 1);
	atomic_store(&s->n_fd, 0);
}

void eset_after_fork(void)
{
	uint32_t i;

	waiters_after_fork();
	atomic_store(&pool_lock, 0);
	for (i = 0; i < set_fresh; i++) {
		struct eset *s = &set_pool[i];

		atomic_store(&s->lock, 0);
		atomic_store(&s->sleepers, 0);
		atomic_store(&s->dozers, 0);
		if (s->wake_on)
			atomic_store(&s->foreign, 1);	/* they are the parent's, whose set this is as well: not ours to take out (D18) */
		s->wake_on = false;
		s->wake = (struct waiter){ 0 };
		if (atomic_load(&s->n_fd))
			s->inherited = true;
	}
}
