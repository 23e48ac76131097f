/* SPDX-License-Identifier: MIT */
/*
 * reattach.c - a TCP descriptor that comes from another image, and whose session we do not map (G22)
 *
 * It came by SCM_RIGHTS, or was there when the program began (posix_spawn, system, popen, what exec did not carry). Ring bytes
 * may be unread in its session, and TCP bytes behind them. So before the program's first receive:
 *
 *   - the socket says whether it was ever attached (mark.c). If not, nothing was put into a ring, and it is no business of ours;
 *   - the daemon hands out the session memory, for holding the socket is the proof, and says where the side lies;
 *   - the side is shared with whoever has it: `taken` and C are one for all processes of that end, as after fork. Whoever takes
 *     first has the bytes, as in the kernel;
 *   - nobody has it any more: one process takes its place, chosen by the daemon (claim), with `taken` from the tail, which its
 *     last holder raised with every byte it took, and C from the kernel. The others share that one's;
 *   - both gates are closed for good before we look at what is unread. If nothing is, nothing can come, and the descriptor is
 *     left to the kernel. Else it is a connection of ours until then: ring bytes first, then the TCP bytes behind them;
 *   - what we cannot have we must not miss: if the socket says that bytes were unread when it was handed on, or the memory shows
 *     some, and there is no way to them, the connection is reset. Never silence, never a gap.
 *
 * From the side's words nothing is believed that the owner's user could not do to us anyway: it is the same user (side.c), and
 * what they say is bounded where it is used.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>

#include "wsd_switch/calls/stdio.h"
#include "wsd_switch/core/agreed.h"
#include "wsd_switch/core/switch.h"

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

#define CLAIMS_MAX	16
#define FDS_BLIND	1024	/* descriptors looked at where there is no /proc */

static void reset(int fd, const char *why)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int e = errno;

	log_error("descriptor %d: reset: %s", fd, why);
	real.connect(fd, &none, sizeof(none));
	errno = e;
}

static bool same_place(const struct wsd_side_at *a, const struct wsd_side_at *b)
{
	return a->ipc_ns == b->ipc_ns && a->shm == b->shm && a->index == b->index;
}

/* our own side as it must be when we are the first: before anybody can join it. False: not known, or the peer broke the rules */
static bool prepare_alone_ring(struct conn *c, int fd)
{
	struct side *s = c->s;
	uint32_t head = WSD_GATE_HEAD(atomic_load(&c->rx->gate)), tail = atomic_load(&c->rx->tail);
	int state, inq, i, r = -EAGAIN;
	uint64_t C = 0;

	for (i = 0; i < 1000 && r == -EAGAIN; i++)
		r = off_kernel_c(fd, &C, &state, &inq);
	if (r < 0 || head - tail > c->mask + 1)
		return false;
	(void)opt_may_offer(c, fd);	/* what the side knew of the socket's options */
	atomic_store(&s->C, C);
	atomic_store(&s->taken, tail);
	atomic_store(&s->att_pid, proc_page->pid);
	return true;
}

static bool prepare_alone(struct conn *c, int fd, const struct ctl_session *x)
{
	if (x->base)
		return prepare_alone_ring(c, fd);
	atomic_store(&c->s->att_pid, proc_page->pid);
	return off_adopt(c, fd);	/* what is not in the kernel lies in the session's memory */
}

/* The last user died in the middle of something: its C may lack what it took. Nobody takes any TCP byte but under the lock while
 * the ring is not empty. */
static void repair(struct thr *t, struct side *s, int fd)
{
	uint32_t u = atomic_load(&s->rx_user), owner = atomic_load(&s->rx_lock);
	int state, inq;
	uint64_t C;

	if (!proc_pid_dead(u) && !(owner && proc_pid_dead(owner)))
		return;
	if (!lock_try_long(&s->rx_lock, thr_tid(t)) &&
	    !(owner && proc_pid_dead(owner) && atomic_compare_exchange_strong(&s->rx_lock, &owner, thr_tid(t))))
		return;
	if (off_kernel_c(fd, &C, &state, &inq) == 0 && state != 7 /* CLOSE */ && C > atomic_load(&s->C))
		atomic_store(&s->C, C);
	lock_drop(&s->rx_lock);
}

/* c has the side that counts. 0 or -errno: there is one, and we cannot have it */
static int find_side(struct thr *t, struct conn *c, int fd, struct ctl_session *x, bool *ret_alone)
{
	uint64_t cookie = c->s->cookie, ns = ctl_ipc_ns(), over;
	struct wsd_side_at mine = ctl_side_at(c->s);
	struct side *s;
	int i, r;

	for (i = 0; i < CLAIMS_MAX; i++) {
		if (x->at.ipc_ns == 0 || x->at.ipc_ns != ns || x->at.shm < 0)
			return -EXDEV;
		/* ours may be the very place of the one that is gone, if that was made by us */
		r = same_place(&x->at, &mine) ? -EINVAL : side_join(x->at.shm, x->at.index, cookie, &s);
		if (r == 0) {
			side_drop(c->s);
			c->s = s;
			repair(t, s, fd);
			*ret_alone = false;
			return 0;
		}
		if (r != -EINVAL)
			return r;
		if (!prepare_alone(c, fd, x))
			return -EPROTO;
		over = x->at.serial;
		r = ctl_reattach_claim(t, fd, cookie, &mine, x);
		if (r)
			return r;
		if (x->at.serial == over + 1 && same_place(&x->at, &mine)) {
			*ret_alone = true;
			return 0;
		}
	}
	return -EBUSY;
}

/* is anything unread as far as the memory shows? Of use only when the side is out of reach. */
static bool memory_shows_unread(const struct conn *c)
{
	return WSD_GATE_HEAD(atomic_load(&c->rx->gate)) != atomic_load(&c->rx->tail);
}

/* a session over RDMA: its queue pair is, or was, another's; we read what is there, and return both directions, as a child does */
static const char *adopt_road(struct thr *t, struct conn *c, int fd, struct ctl_session *x, bool unread)
{
	bool alone;

	if (find_side(t, c, fd, x, &alone) || !agreed_adopt(c, &x->road)) {
		conn_close_fd(fd);
		return unread ? "it is in the middle of RDMA, and its session cannot be joined" : NULL;
	}
	atomic_fetch_or(&c->s->flags, S_NO_OPEN | S_NO_PUT | S_ATTACHED | S_FOREIGN);
	atomic_store(&c->why, WSD_R_EXEC);
	conn_to_tcp(c, WSD_R_EXEC);
	mark_set(fd, MARK_UNREAD, false);
	log_debug("conn %u (descriptor %d): re-attached to a session over RDMA", c->index, fd);
	if (agreed_over(c))
		conn_close_fd(fd);
	return NULL;
}

/* 0, or why what may be unread is out of reach */
static const char *adopt(struct thr *t, int fd, uint64_t cookie, bool unread)
{
	int fl = real.fcntl64(fd, F_GETFL), r;
	struct ctl_session x;
	bool alone, settled;
	struct conn *c;
	uint32_t n;

	r = ctl_reattach(t, fd, cookie, &x);
	log_debug("descriptor %d: a session of another process%s: %d", fd, unread ? ", bytes unread" : "", r);
	if (r)
		return unread ? "bytes are unread in its ring, and nobody hands them out" : NULL;
	c = conn_new(fd, x.side == 0 ? WSD_ROLE_CONNECT : WSD_ROLE_ACCEPT, fl >= 0 && (fl & O_NONBLOCK));
	if (!c) {
		ctl_reattach_drop(t, &x);
		return unread ? "no room for it" : NULL;
	}
	c->san = x.san;
	c->s->cookie = cookie;
	if (!x.base)
		return adopt_road(t, c, fd, &x, unread);
	ctl_point(c, x.base, x.ring_size, x.side);
	settled = atomic_load(&c->rx->yflags) & WSD_Y_NO_OPEN;
	r = find_side(t, c, fd, &x, &alone);
	if (r) {
		unread |= memory_shows_unread(c);
		log_debug("conn %u (descriptor %d): another process's side is out of reach (%d)", c->index, fd, r);
		conn_close_fd(fd);
		return unread ? "bytes are unread in its ring, and their reader cannot be joined" : NULL;
	}
	atomic_fetch_or(&c->s->flags, S_NO_OPEN | S_NO_PUT | S_ATTACHED | S_FOREIGN);
	atomic_store(&c->s->why, WSD_R_EXEC);
	atomic_store(&c->why, WSD_R_EXEC);
	atomic_store(&c->seen, (uint64_t)(uint32_t)atomic_load(&c->s->taken) << 32);	/* nothing read ahead */
	atomic_store_explicit(&c->stage, ST_ATTACHED, memory_order_release);
	conn_to_tcp(c, WSD_R_EXEC);	/* both gates are closed, and stay so */
	n = WSD_GATE_HEAD(atomic_load(&c->rx->gate));
	/* Its gate was closed for good before it was handed on, and the socket says that nothing was unread: the tail may be
	 * behind, for who took the rest from a copy (carry.c) could not raise it. */
	if (alone && settled && !unread)
		atomic_store(&c->s->taken, n);
	n -= (uint32_t)atomic_load(&c->s->taken);
	log_debug("conn %u (descriptor %d): re-attached, %u bytes unread", c->index, fd, n);
	if (n > c->mask + 1) {
		conn_reset(c, fd, "head out of bounds");
		return NULL;
	}
	/* who has come can take them: the peer need not wait any more */
	atomic_fetch_and(&c->s->flags, ~S_HANDED);
	mark_set(fd, MARK_UNREAD, false);
	atomic_fetch_and(&c->rx->yflags, ~WSD_Y_HANDED_ON);
	if (n == 0)
		conn_close_fd(fd);
	return NULL;
}

static uint64_t cookie_of(int fd)
{
	uint64_t k = 0;
	socklen_t l = sizeof(k);

	return real.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &k, &l) == 0 ? k : 0;
}

/* true: it is a connection of ours now */
static bool look(int fd, bool usable)
{
	const char *why = "its unread bytes were left to a process in which the switch is off";
	struct thr *t;
	uint64_t cookie;
	bool unread;

	if (!mark_get(fd, MARK_SESSION))
		return false;
	unread = mark_get(fd, MARK_UNREAD);
	if (!usable) {
		if (unread)
			reset(fd, why);
		return false;
	}
	if ((unsigned)fd >= TAB_FDS || conn_kind(fd) != KIND_TCP || (cookie = cookie_of(fd)) == 0)
		return false;
	if (conn_add_fd(cookie, fd))
		return false;	/* it was here before */
	t = cs_enter();
	why = adopt(t, fd, cookie, unread);
	cs_leave(t);
	if (why)
		reset(fd, why);
	return conn_get(fd) != NULL;
}

void reattach_received(int fd)
{
	int e = errno;

	if (proc_on && !atomic_load_explicit(&proc_frozen, memory_order_relaxed)) {
		if (conn_get(fd))
			conn_close_fd(fd);	/* the number before was closed behind our back */
		if (eset_known(fd))
			eset_close_fd(fd);
		if ((unsigned)fd < TAB_FDS)
			atomic_store_explicit(&fd_kind[fd], KIND_UNKNOWN, memory_order_relaxed);
		(void)look(fd, true);
	}
	errno = e;
}

void reattach_inherited(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	bool std = false;
	int fd;

	for (fd = 0; !d && fd < FDS_BLIND; fd++)
		if (!(proc_on && conn_get(fd)) && look(fd, proc_on))
			std |= fd == 0;
	while (d && (e = readdir(d)))
		if (*e->d_name >= '0' && *e->d_name <= '9' && (fd = atoi(e->d_name)) != dirfd(d) &&
		    !(proc_on && conn_get(fd)) && look(fd, proc_on))
			std |= fd == 0;
	if (d)
		closedir(d);
	if (std)
		stdio_stdin_over_calls();
}
