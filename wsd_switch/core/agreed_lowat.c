/* SPDX-License-Identifier: MIT */
/*
 * agreed_lowat.c - SO_RCVLOWAT over a road
 *
 * The program's mark counts bytes of the stream, on whichever road they came; the kernel's would count headers and leave the ring out. So
 * while a direction is not plain the kernel's mark is ours (S_LOWAT_CUT; getsockopt() shows the program's): 1 for who takes all that comes,
 * and where bytes lie unread that are fewer than the mark, one more than the kernel has of them: it then wakes for each byte that comes,
 * and not for those that are there. What is on the ring wakes as always.
 *
 * Invariants:
 *   - flags S_LOWAT and S_LOWAT_CUT and the kernel's mark change under rx_lock;
 *   - with the direction plain the kernel's mark is the program's again before the lock is let go.
 */
#include <linux/sockios.h>
#include <poll.h>
#include <sys/socket.h>

#include "wsd_switch/core/agreed.h"

void lowat_kernel(struct conn *c, int fd, uint32_t n)
{
	int v = (int)n, e = errno;

	if (atomic_load(&c->s->lowat_now) == n)
		return;
	atomic_store(&c->s->lowat_now, n);
	real.setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof(v));
	errno = e;
}

void lowat_follow(struct conn *c, int fd)
{
	struct side *s = c->s;
	uint32_t f = atomic_load(&s->flags);
	bool plain = agreed_plain_in(c);

	if (plain && (f & S_LOWAT_CUT)) {
		lowat_kernel(c, fd, atomic_load(&s->lowat));
		atomic_fetch_and(&s->flags, ~S_LOWAT_CUT);
	} else if (!plain && (f & S_LOWAT) && !(f & S_LOWAT_CUT)) {
		atomic_fetch_or(&s->flags, S_LOWAT_CUT);
		atomic_store(&s->lowat_now, 0);		/* the program's, which we did not set */
		lowat_kernel(c, fd, 1);
	}
}

int lowat_below(struct conn *c, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int q = 0, now = 0, e = errno, r;

	if (real.ioctl(fd, SIOCINQ, &q) < 0)
		q = 0;
	lowat_kernel(c, fd, (uint32_t)q + 1);
	r = poll_now(&p) > 0;
	if (r && (real.ioctl(fd, SIOCINQ, &now) < 0 || now <= q)) {
		/* An end or an error came just now. Else TCP has no room for more, headers and all, and says so rather than wait for ever */
		p.events = POLLRDHUP;
		r = poll_now(&p) > 0 ? 0 : 1;
	} else {
		r = r ? 0 : -EAGAIN;
	}
	errno = e;
	return r;
}

int agreed_lowat_set(struct thr *t, struct conn *c, int fd, const void *val, socklen_t len)
{
	struct side *s = c->s;
	socklen_t l;
	int v = 1, r;

	if (!agreed_lock(t, c, fd, &s->rx_lock)) {
		errno = ECONNRESET;
		return -1;
	}
	r = real.setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, val, len);
	l = sizeof(v);
	if (r == 0 && real.getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &v, &l) == 0) {	/* it may be less than was asked for */
		atomic_store(&s->lowat, v > 1 ? (uint32_t)v : 1);
		atomic_fetch_and(&s->flags, v > 1 ? ~S_LOWAT_CUT : ~(S_LOWAT | S_LOWAT_CUT));
		if (v > 1)
			atomic_fetch_or(&s->flags, S_LOWAT);
		lowat_follow(c, fd);
	}
	agreed_unlock(&s->rx_lock);
	/* who waits looks with the new one: the kernel knows nothing of what the ring holds */
	eset_rearm(c);
	waiters_tell();
	return r;
}
