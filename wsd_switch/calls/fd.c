/* SPDX-License-Identifier: MIT */
/*
 * fd.c - descriptor numbers: closing, duplicating, flags
 *
 * A number is taken out of our tables before the kernel frees it, and entered after the kernel made it: in between it
 * is nobody's. In a vfork child all of this goes straight to the kernel (G27).
 */
#include <limits.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

#include "wsd_switch/core/agreed.h"
#include "wsd_switch/calls/call.h"
#include "wsd_switch/core/hand_on.h"

static void forget(int fd)
{
	if ((unsigned)fd >= TAB_FDS)
		return;
	if (unlikely(eset_known(fd)))
		eset_close_fd(fd);
	if (conn_get(fd))
		conn_close_fd(fd);
	else if (atomic_load_explicit(&fd_kind[fd], memory_order_relaxed) != KIND_UNKNOWN)
		atomic_store_explicit(&fd_kind[fd], KIND_UNKNOWN, memory_order_relaxed);
}

static bool ours(void)
{
	real_ready();
	return proc_usable() && !proc_is_vfork_child();
}

/* not ours: in a vfork child the new image may be given one of our connections (G22) */
static int foreign_dup(int fd, int nfd)
{
	if (nfd >= 0 && proc_usable())
		hand_on_vfork_dup(fd, nfd);
	return nfd;
}

WSD_EXPORT int close(int fd)
{
	if (!ours())
		return real.close(fd);
	if (unlikely(hidden_fd(fd))) {
		errno = EBADF;
		return -1;
	}
	forget(fd);
	return real.close(fd);
}

static void entered(int fd, int nfd)
{
	int e = errno;

	if (nfd < 0 || nfd == fd)
		return;
	forget(nfd);
	conn_dup_fd(fd, nfd);
	eset_dup_fd(fd, nfd);
	errno = e;
}

WSD_EXPORT int dup(int fd)
{
	int n;

	if (!ours())
		return foreign_dup(fd, real.dup(fd));
	n = real.dup(fd);
	entered(fd, n);
	return n;
}

/* The old meaning of nfd goes with the kernel's call; whether that fails is known before. */
static int dup_over(int fd, int nfd, int flags, bool three)
{
	int r;

	if (fd == nfd || nfd < 0 || real.fcntl64(fd, F_GETFD) < 0)
		return three ? real.dup3(fd, nfd, flags) : real.dup2(fd, nfd);
	if (unlikely(hidden_fd(nfd))) {		/* taken, as by an open() that has not returned: that is dup2's word for it */
		errno = EBUSY;
		return -1;
	}
	forget(nfd);
	r = three ? real.dup3(fd, nfd, flags) : real.dup2(fd, nfd);
	entered(fd, r);
	return r;
}

WSD_EXPORT int dup2(int fd, int nfd)
{
	if (!ours())
		return foreign_dup(fd, real.dup2(fd, nfd));
	return dup_over(fd, nfd, 0, false);
}

WSD_EXPORT int dup3(int fd, int nfd, int flags)
{
	if (!ours())
		return foreign_dup(fd, real.dup3(fd, nfd, flags));
	return dup_over(fd, nfd, flags, true);
}

static int set_flags(int fd, int flags)
{
	struct call k;
	int r;

	if (!call_begin(&k, fd))
		return real.fcntl64(fd, F_SETFL, flags);
	if (flags & O_ASYNC)
		conn_to_tcp(k.c, WSD_R_OPTION);
	r = real.fcntl64(fd, F_SETFL, flags);
	if (r == 0)		/* it belongs to the open file: all who share it see it (G23) */
		atomic_store(&k.c->s->nonblock, !!(flags & O_NONBLOCK));
	call_end(&k);
	return r;
}

static int fcntl_in(int fd, int cmd, void *arg)
{
	int r;

	if (!ours()) {
		r = real.fcntl64(fd, cmd, arg);
		return cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC ? foreign_dup(fd, r) : r;
	}
	switch (cmd) {
	case F_DUPFD:
	case F_DUPFD_CLOEXEC:
		r = real.fcntl64(fd, cmd, arg);
		entered(fd, r);
		return r;
	case F_SETFL:
		return set_flags(fd, (int)(intptr_t)arg);
	}
	return real.fcntl64(fd, cmd, arg);
}

WSD_EXPORT int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return fcntl_in(fd, cmd, arg);
}

WSD_EXPORT int fcntl64(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return fcntl_in(fd, cmd, arg);
}

WSD_EXPORT int __fcntl(int fd, int cmd, ...);
WSD_EXPORT int __fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return fcntl_in(fd, cmd, arg);
}

WSD_EXPORT int ioctl(int fd, unsigned long req, ...)
{
	struct call k;
	va_list ap;
	void *arg;
	int r, v = 0;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (!call_begin(&k, fd))
		return real.ioctl(fd, req, arg);
	if (req == FIOASYNC)
		conn_to_tcp(k.c, WSD_R_OPTION);
	r = real.ioctl(fd, req, arg);
	if (r == 0 && (req == SIOCOUTQ || req == SIOCOUTQNSD) && unlikely(conn_agreed(k.c))) {
		/* first ours: on its way back to TCP a byte is counted twice rather than not at all */
		v = (int)agreed_outq(k.t, k.c, fd, req == SIOCOUTQNSD);
		r = real.ioctl(fd, req, arg);
		if (r == 0)
			*(int *)arg += v;
	} else if (r == 0 && req == SIOCINQ && unlikely(conn_agreed(k.c))) {
		int64_t q = agreed_inq(k.t, k.c, fd);

		*(int *)arg = q < 0 ? 0 : q > INT_MAX ? INT_MAX : (int)q;
	} else if (r == 0 && req == FIONBIO) {
		if (fault_copy(&v, arg, sizeof(v)))
			atomic_store(&k.c->s->nonblock, !!v);
	} else if (r == 0 && req == SIOCOUTQ && unlikely(atomic_load(&k.c->s->flags) & S_UNREAD_RESET)) {
		*(int *)arg -= *(int *)arg == 1;	/* the byte that asked for the reset */
	} else if (r == 0 && conn_att(k.c) && req == SIOCINQ) {
		*(int *)arg += (int)rx_avail(k.c);
	} else if (r == 0 && conn_att(k.c) && req == SIOCATMARK && rx_avail(k.c)) {
		*(int *)arg = 0;
	}
	call_end(&k);
	return r;
}

WSD_EXPORT int close_range(unsigned first, unsigned last, int flags)
{
	unsigned i, high;
	int r, ours_at;

	if (!ours() || first > last || (flags & CLOSE_RANGE_CLOEXEC))
		return real.close_range(first, last, flags);
	high = atomic_load(&fd_high);
	for (i = first; i <= last && i < high; i++)
		forget((int)i);
	ctl_hidden_refresh();
	/* around what is ours */
	while ((ours_at = hidden_next(first)) >= 0 && (unsigned)ours_at <= last) {
		if ((unsigned)ours_at > first) {
			r = real.close_range(first, (unsigned)ours_at - 1, flags);
			if (r < 0)
				return r;
		}
		if ((unsigned)ours_at == last)
			return 0;
		first = (unsigned)ours_at + 1;
	}
	return real.close_range(first, last, flags);
}

WSD_EXPORT void closefrom(int low)
{
	if (!ours()) {
		real.closefrom(low);
		return;
	}
	if (close_range(low < 0 ? 0 : (unsigned)low, ~0u, 0) < 0)
		real.closefrom(low);
}
