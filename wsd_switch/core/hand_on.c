/* SPDX-License-Identifier: MIT */
/*
 * hand_on.c - connections that somebody else will use without us (hand_on.h)
 *
 * Which descriptors a new image inherits only the kernel knows: FD_CLOEXEC is not tracked, and a vfork child closes its
 * copies in a table of its own. So each number that we know is asked for (F_GETFD), and in a vfork child each up to the highest
 * that one has duplicated to, by SO_COOKIE. posix_spawn's file actions may
 * close some more; those connections then stay on TCP without need.
 */
#include <fcntl.h>

#include "wsd_switch/calls/stdio.h"
#include "wsd_switch/core/agreed.h"
#include "wsd_switch/core/carry.h"
#include "wsd_switch/core/hand_on.h"
#include "wsd_switch/core/receiver.h"
#include "wsd_switch/core/sig.h"

/* Both gates are closed on return, so what rx_avail says can only shrink. Over a road: plain, reset, or, if it is not meant to be used there,
 * on its way. */
static bool leave(struct conn *c, int fd, uint32_t why, enum hand_on how)
{
	conn_to_tcp(c, why);
	if (conn_agreed(c)) {
		agreed_hand_on(c, fd, how);
		return false;
	}
	return conn_att(c) && rx_avail(c) != 0;
}

/* true: it was not marked before */
static bool mark(struct conn *c)
{
	return !(atomic_fetch_or(&c->rx->yflags, WSD_Y_HANDED_ON) & WSD_Y_HANDED_ON);
}

/* true: bytes of the ring are unread */
static bool to_other_image(struct conn *c, int fd, enum hand_on how)
{
	opt_cork_give(c, fd);
	atomic_fetch_or(&c->s->flags, S_FOREIGN);
	return leave(c, fd, WSD_R_EXEC, how);
}

/* every process that comes by the socket sees it (mark.c) */
static void tell_unread(struct conn *c, int fd)
{
	atomic_fetch_or(&c->s->flags, S_HANDED);
	mark_set(fd, MARK_UNREAD, true);
}

void hand_on_mark(struct conn *c, int fd)
{
	tell_unread(c, fd);
	c->exec_marked |= mark(c);
}

/*
 * Bytes are unread that go out over a Unix socket, perhaps with TCP bytes behind them already. A receiver under us takes them first
 * (reattach.c), or resets if it cannot have them; so the peer may go on sending. Any other would miss them, and nobody would
 * notice: reset now. Where it is not known who receives the peer is told to wait, and resets after a time.
 */
static void pass_unread(struct conn *c, int fd, int over)
{
	enum receiver r;

	conn_pin(c);
	cs_leave(thr_get());
	r = receiver_of(over);
	cs_enter();
	conn_unpin(c);
	if (r == RECEIVER_OTHER) {
		conn_reset(c, fd, "passed, with bytes unread in the ring, to a process that does not run under us");
		return;
	}
	tell_unread(c, fd);
	if (r == RECEIVER_UNKNOWN)
		(void)mark(c);
}

static bool seen_by_receiver(struct conn *c, int over)
{
	enum receiver r;

	conn_pin(c);
	cs_leave(thr_get());
	r = receiver_of(over);
	cs_enter();
	conn_unpin(c);
	return r == RECEIVER_OURS;
}

void hand_on_fd(int fd, int over)
{
	struct conn *c;
	struct thr *t;
	int e = errno;

	if (eset_known(fd)) {
		eset_flush_all();
		eset_lent(fd);		/* another process may wait on it */
	}
	t = cs_enter();
	c = conn_get(fd);
	if (c && to_other_image(c, fd, conn_agreed(c) && seen_by_receiver(c, over) ? HAND_SEEN : HAND_BLIND)) {
		if (c->own && !c->own_shared)	/* what lies in our own memory nobody else can have (carry.c) */
			conn_reset(c, fd, "passed on with bytes unread from before exec");
		else
			pass_unread(c, fd, over);
	}
	if (c)
		c->exec_foreign = false;
	cs_leave(t);
	errno = e;
}

bool hand_on_untracked(struct conn *c)
{
	bool unread = leave(c, conn_number(c), WSD_R_UNTRACKED, HAND_BLIND);

	if (unread)
		(void)mark(c);
	return unread;
}

void hand_on_std(struct conn *c, int nfd)
{
	if (!conn_agreed(c)) {
		(void)hand_on_untracked(c);
		return;
	}
	(void)leave(c, conn_number(c), WSD_R_UNTRACKED, HAND_SEEN);
	if (nfd == 0 && !agreed_plain_in(c))
		stdio_stdin_over_calls();
}

static void one_untracked(struct conn *c, void *arg)
{
	(void)hand_on_untracked(c);
}

void hand_on_all_untracked(void)
{
	int e = errno;
	struct thr *t = cs_enter();

	conn_each(one_untracked, NULL);
	cs_leave(t);
	errno = e;
}

static bool inherited(int fd)
{
	int fl = real.fcntl64(fd, F_GETFD);

	return fl >= 0 && !(fl & FD_CLOEXEC);
}

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif
#define VFORK_FDS_MAX	1024

static _Atomic uint32_t vfork_high = 3;		/* vfork children have duplicated to numbers below */

void hand_on_vfork_dup(int fd, int nfd)
{
	uint32_t h = atomic_load(&vfork_high);
	struct conn *c;
	struct thr *t;
	int e = errno;

	while (nfd >= 0 && nfd < VFORK_FDS_MAX && (uint32_t)nfd >= h &&
	       !atomic_compare_exchange_weak(&vfork_high, &h, (uint32_t)nfd + 1))
		;
	t = cs_enter();
	c = conn_get(fd);
	if (c)		/* the number may mean something else in the child: then it stays on TCP without need */
		(void)to_other_image(c, fd, nfd <= 2 ? HAND_SEEN : HAND_LEAK);
	cs_leave(t);
	errno = e;
}

static uint64_t cookie_of(int fd)
{
	uint64_t k = 0;
	socklen_t l = sizeof(k);

	return real.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &k, &l) == 0 ? k : 0;
}

static void exec_one(struct conn *c, int fd, bool image, bool other, struct carry *k, bool vfork_child, bool renamed)
{
	uint32_t flags = atomic_load(&c->s->flags);
	bool sole = image && !vfork_child && conn_sole_holder(c), unread;
	enum hand_on how;

	if (!image || vfork_child)
		c->exec_foreign = false;	/* a child that may live */
	else if (!(flags & S_FOREIGN))
		c->exec_foreign = true;		/* if we come back from exec */
	how = fd > 2 && !renamed && !c->spawn_dup && !(image && sole) ? HAND_LEAK : other ? HAND_BLIND : HAND_SEEN;
	unread = to_other_image(c, fd, how);
	if (!unread || (flags & (S_SHUT_RD | S_BROKEN)))
		return;
	if (!image && c->own && !c->own_shared) {
		/* neither the daemon nor the peer knows of what lies in our own memory (carry.c), and no child of libc's gets it */
		conn_reset(c, fd, "a child inherits it with bytes unread from before exec");
		return;
	}
	if (!k || !carry_add(k, c, fd, sole, sole || fd == 0 || (renamed && fd > 2) ||
			     (!vfork_child && atomic_load(&c->s->rx_user) == proc_page->pid)))
		hand_on_mark(c, fd);
}

struct by_cookie {
	uint64_t cookie;
	int fd;
	struct carry *k;
	bool other;
};

static void exec_renamed(struct conn *c, void *arg)
{
	const struct by_cookie *b = arg;

	if (conn_ours(c) && c->s->cookie == b->cookie)
		exec_one(c, b->fd, true, b->other, b->k, true, true);
}

void hand_on_exec_begin(bool image, const struct exec_call *x, struct carry *k)
{
	bool other = atomic_load(&road_any) && x && carry_other_image(x);
	bool vfork_child = proc_is_vfork_child();
	uint32_t fd, n = atomic_load(&fd_high), high = atomic_load(&vfork_high);
	struct by_cookie b = { .k = k, .other = other };
	struct conn *c;
	struct thr *t;
	int e = errno;

	if (!vfork_child) {
		eset_flush_all();
		sig_exec_begin(image);
	}
	t = cs_enter();
	for (fd = 0; fd < n; fd++) {
		c = conn_get((int)fd);
		if (!c)
			continue;
		if (inherited((int)fd) || (!image && c->spawn_dup)) {
			if (!vfork_child || !conn_ours(c) || cookie_of((int)fd) == c->s->cookie)
				exec_one(c, (int)fd, image, other, k, vfork_child, false);
		} else if (image && !vfork_child && conn_att(c) && atomic_load(&c->s->rx_user) == proc_page->pid) {
			rx_close_gate(c);	/* exec closes it (G8); should exec fail it opens again */
		}
	}
	for (fd = 0; image && vfork_child && fd < high; fd++) {
		if (!inherited((int)fd) || (b.cookie = cookie_of((int)fd)) == 0)
			continue;
		b.fd = (int)fd;
		conn_each(exec_renamed, &b);
	}
	cs_leave(t);
	errno = e;
}

static void left(struct conn *c, void *arg)
{
	if (!conn_att(c) || !(atomic_load(&c->rx->yflags) & WSD_Y_HANDED_ON) || rx_avail(c) == 0)
		return;
	if (c->spawn_dup && conn_get(c->fd) == c)	/* it is meant to read it */
		conn_reset(c, c->fd, "given, with bytes unread in the ring, to a program that does not run under us");
	else
		atomic_fetch_or(&c->s->flags, S_LEFT);	/* most likely it only leaks; conn.c, retire() */
}

void hand_on_spawn_begin(const struct exec_call *x)
{
	int e = errno;
	struct thr *t;

	hand_on_exec_begin(false, x, NULL);
	if (!carry_other_image(x))
		return;
	t = cs_enter();
	conn_each(left, NULL);
	cs_leave(t);
	errno = e;
}

void hand_on_spawn_dup(int fd)
{
	struct thr *t = cs_enter();
	struct conn *c = conn_get(fd);

	if (c)
		c->spawn_dup = true;
	cs_leave(t);
}

/* It failed, so nobody else has it: whoever reads here takes the bytes. Marks of SCM_RIGHTS stay. */
static void unmark(struct conn *c, void *arg)
{
	if (c->exec_marked && *(bool *)arg && conn_att(c))
		atomic_fetch_and(&c->rx->yflags, ~WSD_Y_HANDED_ON);
	c->exec_marked = false;
	if (c->exec_left && *(bool *)arg)
		atomic_fetch_add(&c->s->holders, 1);
	c->exec_left = false;
}

void hand_on_exec_end(bool image, bool failed)
{
	int e = errno;
	struct thr *t;

	if (!proc_is_vfork_child())
		sig_exec_end(image);
	t = cs_enter();
	conn_each(unmark, &failed);
	cs_leave(t);
	errno = e;
}

void hand_on_sandbox(void)
{
	uint32_t fd, n = atomic_load(&fd_high);
	struct conn *c;
	struct thr *t;
	int e = errno;

	eset_flush_all();
	t = cs_enter();
	for (fd = 0; fd < n; fd++) {
		c = conn_get((int)fd);
		if (c && leave(c, (int)fd, WSD_R_SANDBOX, HAND_BLIND))
			conn_reset(c, (int)fd, "unread bytes in the ring of a process that enters seccomp");
	}
	eset_unwake_all();
	conn_stats_all();	/* nothing may be counted afterwards */
	cs_leave(t);
	errno = e;
}

static void at_exit(struct conn *c, void *arg)
{
	if (conn_att(c) && atomic_load(&c->s->rx_user) == proc_page->pid)
		rx_close_gate(c);
	carry_tail(c);
}

void hand_on_exit(void)
{
	struct thr *t;

	if (!proc_usable() || proc_is_vfork_child())
		return;
	t = cs_enter();
	conn_each(at_exit, NULL);
	conn_stats_all();
	cs_leave(t);
}
