/* SPDX-License-Identifier: MIT */
/*
 * conn.c - connections by descriptor number, and taking them back
 *
 * conn_tab[fd] points to the conn of the open file; dup'ed numbers share it. The last number of this process that goes
 * away retires it: leave the ring, close the own gate, tell the provider (G8). It is then put on a graveyard, and its session
 * unmapped and the conn recycled after a grace period: every thread that was inside a critical section has left it
 * since. The reclaimer sees the threads' slots behind a membarrier, so that entering costs no fence.
 */
#include <linux/membarrier.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wsd_switch/core/agreed.h"
#include "wsd_switch/core/carry.h"
#include "wsd_switch/core/hand_on.h"
#include "wsd_switch/core/thr.h"

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

struct conn *_Atomic *conn_tab;
_Atomic uint8_t *fd_kind;

static struct conn *pool;
static struct conn *free_list;
static uint32_t n_fresh;
static struct conn *graves, *grace;	/* closed since; waiting for the grace period that runs */
static uint32_t n_graves;
static uint64_t *grace_seq;		/* by slot: seq when it began, or ~0: was outside */
static uint32_t grace_n;
static _Atomic uint32_t pool_lock;
static bool membarrier_ok;
_Atomic uint32_t fd_high;		/* descriptors below were used */

static void *table(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void conn_init(void)
{
	conn_tab = table(sizeof(*conn_tab) * TAB_FDS);
	fd_kind = (_Atomic uint8_t *)table(TAB_FDS);
	pool = table(sizeof(struct conn) * MAX_CONNS);
	grace_seq = table(sizeof(uint64_t) * (MAX_THREADS + 1));
	if (!conn_tab || !fd_kind || !pool || !grace_seq || !thr_init())
		proc_on = false;
	membarrier_ok = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

/* ---- taking back ---- */

static bool grace_over(void)
{
	uint32_t i;

	for (i = 0; i < grace_n; i++) {
		struct thr *t = i == grace_n - 1 ? &thr_slots[MAX_THREADS] : &thr_slots[i];

		if (grace_seq[i] == ~0ull || atomic_load(&t->nest) == 0)
			continue;
		if (t->shared || atomic_load(&t->seq) == grace_seq[i])
			return false;
	}
	return true;
}

static void grace_begin(void)
{
	uint32_t i;

	grace_n = atomic_load(&thr_used) + 1;
	for (i = 0; i < grace_n; i++) {
		struct thr *t = i == grace_n - 1 ? &thr_slots[MAX_THREADS] : &thr_slots[i];
		uint64_t seq = atomic_load(&t->seq);

		grace_seq[i] = atomic_load(&t->nest) == 0 || t == thr_self ? ~0ull : seq;
	}
}

static void bury(struct conn *c)
{
	if (c->peek)
		munmap(c->peek, (size_t)c->mask + 1);
	c->peek = NULL;
	ctl_unmap(c);
	eset_free_regs(c);
	side_drop(c->s);
	c->gen++;
	c->s = NULL;
	c->next = free_list;
	free_list = c;
}

/* pool_lock held. Called with this thread inside at most its own, outermost, section and no conn in hand. */
static void reclaim(void)
{
	struct conn *c, *next, *stay = NULL;

	if (!membarrier_ok && !solo())
		return;
	if (!grace && graves) {
		if (!solo())
			syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
		grace = graves;
		graves = NULL;
		n_graves = 0;
		grace_begin();
	}
	if (!grace || !grace_over())
		return;
	for (c = grace; c; c = next) {
		next = c->next;
		if (atomic_load(&c->regs))
			eset_forget_conn(c);	/* a lock was not got when it was closed */
		if (atomic_load(&c->pins) || atomic_load(&c->regs)) {
			c->next = stay;
			stay = c;
		} else {
			bury(c);
		}
	}
	grace = stay;
}

void conn_reclaim(void)
{
	struct thr *t = thr_get();

	if (t->in_handler || !lock_try(&pool_lock, thr_tid(t)))
		return;
	reclaim();
	lock_drop(&pool_lock);
}

/* ---- life ---- */

uint64_t conn_id(const struct conn *c)
{
	return ((uint64_t)c->gen << 32) | (c->index + 1);
}

struct conn *conn_by_id(uint64_t id)
{
	uint32_t i = (uint32_t)id;
	struct conn *c;

	if (i == 0 || i > MAX_CONNS)
		return NULL;
	c = &pool[i - 1];
	return c->s && c->gen == (uint32_t)(id >> 32) && atomic_load(&c->n_fd) ? c : NULL;
}

void fd_seen(int fd)
{
	uint32_t h = atomic_load_explicit(&fd_high, memory_order_relaxed);

	while ((uint32_t)fd >= h && !atomic_compare_exchange_weak(&fd_high, &h, (uint32_t)fd + 1))
		;
}

/* what the first connection needs and a program without one should not pay for */
static void conn_first(void)
{
	static _Atomic uint32_t done;

	if (likely(atomic_load_explicit(&done, memory_order_acquire)))
		return;
	tsc_init();
	fault_install();
	atomic_store_explicit(&done, 1, memory_order_release);
}

/* A TCP connection was made or accepted. NULL: no room; the descriptor is then left to the kernel. */
struct conn *conn_new(int fd, uint8_t role, bool nonblock)
{
	struct thr *t = thr_get();
	struct conn *c = NULL;
	struct side *s;
	uint32_t gen;

	if ((unsigned)fd >= TAB_FDS)
		return NULL;
	conn_first();
	if (conn_get(fd))
		conn_close_fd(fd);	/* it was closed behind our back */
	if (!lock_try_long(&pool_lock, thr_tid(t)))
		return NULL;
	s = side_new();
	if (!s)
		goto out;
	if (!free_list && n_fresh < MAX_CONNS) {
		c = &pool[n_fresh];
		c->index = n_fresh++;
	} else {
		c = free_list;
		if (c)
			free_list = c->next;
	}
	if (!c) {
		side_drop(s);
		goto out;
	}
	gen = c->gen;
	{
		uint32_t index = c->index;

		memset(c, 0, sizeof(*c));
		c->index = index;
	}
	c->gen = gen;
	c->role = role;
	c->fd = fd;
	c->s = s;
	atomic_store_explicit(&c->why, WSD_R_NOT_YET, memory_order_relaxed);
	s->nonblock = nonblock;
	led_init(&c->led);
	c->n_fd = 1;
	if (fd <= 2 || unlikely(atomic_load(&proc_uring))) {	/* stdio or a ring may use it without us (G14.3) */
		c->stage = ST_TCP;
		c->why = WSD_R_UNTRACKED;
	}
	fd_seen(fd);
	stats_conn();
	atomic_store_explicit(&conn_tab[fd], c, memory_order_release);
out:
	lock_drop(&pool_lock);
	return c;
}

/* are we the only ones who hold the socket? */
bool conn_sole_holder(struct conn *c)
{
	struct side *s = c->s;

	return (!(atomic_load(&s->flags) & S_FOREIGN) || c->exec_foreign) && !side_lent(s) &&
	       (atomic_load(&s->holders) <= 1 ||
		/* the family is those forked since: a child asks for the maker as well */
		((s->maker == proc_page->pid || proc_pid_dead(s->maker)) && proc_family_dead(s->created_gen)));
}

static void reset(int fd)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int e = errno;

	real.connect(fd, &none, sizeof(none));
	errno = e;
}

static void retire(struct conn *c, int fd)
{
	struct side *s = c->s;
	uint32_t unread = 0;

	eset_forget_conn(c);
	if (conn_att(c)) {
		uint32_t user = atomic_load(&s->rx_user);
		bool sole = conn_sole_holder(c);

		carry_tail(c);
		if (sole || user == proc_page->pid) {
			rx_close_gate(c);
			unread = rx_avail(c);
		}
		if (sole) {
			tx_leave(c);
			/* TCP resets a connection that is closed with bytes unread; ours lie where the kernel
			 * does not see them */
			if (unread)
				reset(fd);
		} else if ((atomic_load(&s->flags) & S_LEFT) && atomic_load(&s->holders) <= 1 && rx_avail(c) &&
			   (atomic_load(&c->rx->yflags) & WSD_Y_HANDED_ON)) {
			/* Who holds it now does not know of them, and nobody who does is left: it would wait for ever (G22). */
			log_error("conn %u (descriptor %d): reset: left to a program that does not run under us, bytes unread",
				  c->index, fd);
			reset(fd);
		}
	}
	if (conn_agreed(c) && agreed_retire(thr_get(), c, fd))
		reset(fd);	/* as TCP does; see above */
	stats_conn_end(c);
	ctl_retire(c, WSD_R_NONE, unread);
}

/* one number of this process goes away; the real close follows */
int conn_close_fd(int fd)
{
	struct thr *t = thr_get();
	struct conn *c;

	if ((unsigned)fd >= TAB_FDS)
		return 0;
	c = atomic_exchange(&conn_tab[fd], NULL);
	atomic_store_explicit(&fd_kind[fd], KIND_UNKNOWN, memory_order_relaxed);
	if (!c)
		return 0;
	eset_drop_fd(fd, c);
	if (atomic_fetch_sub(&c->n_fd, 1) != 1)
		return 0;
	retire(c, fd);
	if (!lock_try(&pool_lock, thr_tid(t)))
		return 0;	/* not taken back: a leak of one conn, bounded by the table */
	c->next = graves;
	graves = c;
	/* with a session the memory is worth having back; without one, in batches */
	if ((++n_graves >= 64 || c->hdr) && !t->in_handler)
		reclaim();
	lock_drop(&pool_lock);
	return 0;
}

/* nfd is counted in n_fd already */
static void enter_fd(struct conn *c, int nfd)
{
	if (nfd <= 2)
		hand_on_std(c, nfd);	/* stdio may read it without us */
	fd_seen(nfd);
	atomic_store_explicit(&conn_tab[nfd], c, memory_order_release);
}

void conn_dup_fd(int fd, int nfd)
{
	struct conn *c = conn_get(fd);
	uint8_t k;

	if ((unsigned)nfd >= TAB_FDS || (unsigned)fd >= TAB_FDS)
		return;
	k = atomic_load_explicit(&fd_kind[fd], memory_order_relaxed);
	atomic_store_explicit(&fd_kind[nfd], k, memory_order_relaxed);
	if (!c)
		return;
	atomic_fetch_add(&c->n_fd, 1);
	enter_fd(c, nfd);
}

int conn_number(const struct conn *c)
{
	uint32_t fd, n = atomic_load(&fd_high);

	if (conn_get(c->fd) == c)
		return c->fd;
	for (fd = 0; fd < n; fd++)
		if (conn_get((int)fd) == c)
			return (int)fd;
	return -1;
}

/* one more number, if it has any: from 0 on it is being retired */
static bool one_more_fd(struct conn *c)
{
	uint32_t n = atomic_load(&c->n_fd);

	while (n)
		if (atomic_compare_exchange_weak(&c->n_fd, &n, n + 1))
			return true;
	return false;
}

bool conn_add_fd(uint64_t cookie, int nfd)
{
	uint32_t i, n;
	struct conn *c = NULL;

	/* under the lock no conn is recycled by another thread, and c->s stays */
	if (!lock_try_long(&pool_lock, thr_tid(thr_get())))
		return false;
	for (i = 0, n = n_fresh; i < n && !c; i++)
		if (pool[i].s && conn_ours(&pool[i]) && pool[i].s->cookie == cookie && one_more_fd(&pool[i]))
			c = &pool[i];
	lock_drop(&pool_lock);
	if (c)
		enter_fd(c, nfd);
	return c;
}

/* both directions on TCP for good; what lies in the ring is still read */
void conn_to_tcp(struct conn *c, uint32_t why)
{
	struct side *s = c->s;

	if ((atomic_fetch_or(&s->flags, S_NO_OPEN | S_NO_PUT) & (S_NO_OPEN | S_NO_PUT)) != (S_NO_OPEN | S_NO_PUT)) {
		atomic_store(&s->why, why);
		log_debug("conn %u: on TCP for good, reason %u", c->index, why);
	}
	if (conn_att(c)) {
		atomic_fetch_or(&c->rx->yflags, WSD_Y_NO_OPEN);
		atomic_fetch_or(&c->tx->xflags, WSD_X_NO_PUT);
		tx_leave(c);
		/* rx_close_gate gives up on a peer that writes the gate for ever by calling us: do not call back */
		if (why != WSD_R_PEER_BROKEN)
			rx_close_gate(c);
		else
			atomic_fetch_and(&c->rx->gate, ~(WSD_GATE_OPEN | WSD_GATE_ON_RING));
	} else if (conn_agreed(c)) {
		agreed_leave(c, why);
	} else {
		uint32_t st = atomic_load(&c->stage);

		atomic_store(&c->why, why);
		if (st == ST_NEW)
			atomic_compare_exchange_strong(&c->stage, &st, ST_TCP);
	}
}

/* The peer broke the protocol: the program gets ECONNRESET, and so does the peer (G10). */
void conn_reset(struct conn *c, int fd, const char *why)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int e = errno;

	log_error("conn %u (descriptor %d): reset: %s", c->index, fd, why);
	atomic_fetch_or(&c->s->flags, S_BROKEN | S_NO_OPEN | S_NO_PUT);
	atomic_store(&c->s->why, WSD_R_PEER_BROKEN);
	if (conn_att(c)) {
		tx_leave(c);
		atomic_fetch_and(&c->rx->gate, ~(WSD_GATE_OPEN | WSD_GATE_ON_RING));
		/* nothing more is taken from that ring */
		atomic_store(&c->s->taken, WSD_GATE_HEAD(atomic_load(&c->rx->gate)));
	}
	atomic_store(&c->s->kept_err, ECONNRESET);
	real.connect(fd, &none, sizeof(none));
	errno = e;
}

/* what a descriptor is, asking the kernel the first time */
int conn_kind(int fd)
{
	int v = 0, e = errno, k = KIND_OTHER;
	socklen_t l = sizeof(v);

	if ((unsigned)fd >= TAB_FDS)
		return KIND_OTHER;
	k = atomic_load_explicit(&fd_kind[fd], memory_order_relaxed);
	if (k != KIND_UNKNOWN)
		return k;
	k = KIND_OTHER;
	if (real.getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &v, &l) == 0 && v == IPPROTO_TCP) {
		l = sizeof(v);
		v = 0;
		if (real.getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &v, &l) == 0 && (v == AF_INET || v == AF_INET6))
			k = KIND_TCP;
		l = sizeof(v);
		v = 0;
		if (k == KIND_TCP && real.getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &v, &l) == 0 && v)
			k = KIND_LISTENER;
	}
	errno = e;
	if (k != KIND_OTHER)	/* what is no socket may be closed without our seeing it: not remembered */
		atomic_store_explicit(&fd_kind[fd], (uint8_t)k, memory_order_relaxed);
	return k;
}

void conn_each(void (*f)(struct conn *c, void *arg), void *arg)
{
	uint32_t i, n = n_fresh;

	for (i = 0; i < n; i++)
		if (pool[i].s && atomic_load(&pool[i].n_fd))
			f(&pool[i], arg);
}

/* a session that a process of ours attached after we were forked by a road that could not be counted */
bool conn_elsewhere(struct conn *c)
{
	return (atomic_load_explicit(&c->s->flags, memory_order_relaxed) & S_ATTACHED) && !conn_ours(c) &&
	       atomic_load(&c->s->att_pid) != proc_page->pid;
}

/* ---- fork ---- */

/* no connection is made between counting the holders and the fork */
bool conn_lock_for_fork(void)
{
	return lock_try_long(&pool_lock, thr_tid(thr_get()));
}

void conn_unlock_for_fork(bool got)
{
	if (got)
		lock_drop(&pool_lock);
}

void conn_fork_count(int step)
{
	uint32_t i, n = n_fresh;

	for (i = 0; i < n; i++) {
		struct side *s = pool[i].s;

		if (!s || !atomic_load(&pool[i].n_fd))
			continue;
		atomic_fetch_add(&s->holders, (uint32_t)step);
		if (atomic_load(&s->lent) && s->maker != proc_page->pid)
			atomic_store(&s->lent, USER_MANY);	/* its maker does not know our family */
	}
}

/* the child's view: other threads are gone, and with them their pins */
void conn_after_fork(void)
{
	uint32_t i, n = n_fresh;

	atomic_store(&pool_lock, 0);
	for (i = 0; i < n; i++) {
		struct conn *c = &pool[i];

		if (!c->s)
			continue;
		atomic_store(&c->pins, 0);
		c->touched = false;
		atomic_store(&c->seen, (uint64_t)(uint32_t)atomic_load(&c->s->taken) << 32);
		c->expected = c->ev_on = false;
		/* an offer that the parent made is the parent's; the child may make its own */
		if (atomic_load(&c->stage) == ST_OFFERED) {
			atomic_store(&c->stage, ST_NEW);
			c->san = 0;
			c->offer_next = 0;
		}
	}
	/* the parent's dead are the parent's to bury: their sides and sessions stay mapped here */
	graves = grace = NULL;
	n_graves = 0;
}

static void stats_one(struct conn *c, void *arg)
{
	stats_conn_end(c);
}

void conn_stats_all(void)
{
	conn_each(stats_one, NULL);
}
