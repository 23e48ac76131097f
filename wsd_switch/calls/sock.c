/* SPDX-License-Identifier: MIT */
/* sock.c - making, naming and configuring sockets */
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>

#include "wsd_switch/core/agreed.h"
#include "wsd_switch/calls/call.h"
#include "wsd_switch/core/unread.h"

static bool is_tcp(int domain, int type, int protocol)
{
	return (domain == AF_INET || domain == AF_INET6) && (type & 0xf) == SOCK_STREAM &&
	       (protocol == 0 || protocol == IPPROTO_TCP);
}

WSD_EXPORT int socket(int domain, int type, int protocol)
{
	int fd;

	real_ready();
	fd = real.socket(domain, type, protocol);
	if (fd < 0 || !proc_usable() || (unsigned)fd >= TAB_FDS || proc_is_vfork_child())
		return fd;
	if (unlikely(conn_get(fd) != NULL))
		conn_close_fd(fd);	/* closed behind our back */
	if (unlikely(eset_known(fd)))
		eset_close_fd(fd);
	atomic_store_explicit(&fd_kind[fd], is_tcp(domain, type, protocol) ? KIND_TCP : KIND_UNKNOWN,
			      memory_order_relaxed);
	return fd;
}

WSD_EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	struct call k;
	int r, e, kind;

	real_ready();
	if (!proc_usable() || proc_is_vfork_child())
		return real.connect(fd, addr, len);
	if (call_begin(&k, fd)) {
		sa_family_t family = AF_INET;

		/* AF_UNSPEC dissolves the connection: what follows on this descriptor is another one */
		if (addr && len >= sizeof(family))
			fault_copy(&family, &addr->sa_family, sizeof(family));
		if (family == AF_UNSPEC) {
			conn_to_tcp(k.c, WSD_R_OPTION);
			r = CALL_OUTSIDE(&k, real.connect(fd, addr, len));
			e = errno;
			call_end(&k);
			if (r == 0) {
				conn_close_fd(fd);
				atomic_store(&fd_kind[fd], KIND_TCP);
			}
			errno = e;
			return r;
		}
		r = CALL_OUTSIDE(&k, real.connect(fd, addr, len));
		call_end(&k);
		return r;
	}
	kind = conn_kind(fd);
	r = real.connect(fd, addr, len);
	if (kind != KIND_TCP || (r < 0 && errno != EINPROGRESS && errno != EINTR))
		return r;
	e = errno;
	conn_new(fd, WSD_ROLE_CONNECT, real.fcntl64(fd, F_GETFL) & O_NONBLOCK);
	errno = e;
	return r;
}

static int accepted(int l, int fd, int flags)
{
	int e = errno, kind;

	if (fd < 0 || !proc_usable() || proc_is_vfork_child())
		return fd;
	kind = conn_kind(l);
	if (kind == KIND_TCP) {		/* it was no listener when first seen */
		atomic_store(&fd_kind[l], KIND_LISTENER);
		kind = KIND_LISTENER;
	}
	if (kind == KIND_LISTENER)
		conn_new(fd, WSD_ROLE_ACCEPT, flags & SOCK_NONBLOCK);
	else if (conn_get(fd))
		conn_close_fd(fd);
	errno = e;
	return fd;
}

WSD_EXPORT int accept(int l, struct sockaddr *addr, socklen_t *len)
{
	real_ready();
	return accepted(l, real.accept(l, addr, len), 0);
}

WSD_EXPORT int accept4(int l, struct sockaddr *addr, socklen_t *len, int flags)
{
	real_ready();
	return accepted(l, real.accept4(l, addr, len, flags), flags);
}

WSD_EXPORT int listen(int fd, int backlog)
{
	int r;

	real_ready();
	r = real.listen(fd, backlog);
	if (r == 0 && proc_usable() && !proc_is_vfork_child() && conn_kind(fd) == KIND_TCP)
		atomic_store(&fd_kind[fd], KIND_LISTENER);
	return r;
}

/* G8: the flag first, then off the ring, then the kernel; a put in progress fails and meets EPIPE there */
WSD_EXPORT int shutdown(int fd, int how)
{
	struct call k;
	int r;

	if (!call_begin(&k, fd))
		return real.shutdown(fd, how);
	if (how == SHUT_WR || how == SHUT_RDWR) {
		atomic_fetch_or(&k.c->s->flags, S_SHUT_WR);
		if (conn_att(k.c)) {
			atomic_fetch_or(&k.c->tx->xflags, WSD_X_SHUT);
			tx_leave(k.c);
		} else if (conn_agreed(k.c))
			agreed_end(k.t, k.c, fd);
	}
	if (how == SHUT_RD || how == SHUT_RDWR) {
		atomic_fetch_or(&k.c->s->flags, S_SHUT_RD);
		if (conn_att(k.c))
			rx_close_gate(k.c);
	}
	r = CALL_OUTSIDE(&k, real.shutdown(fd, how));
	call_end(&k);
	return r;
}

/* counters that programs read tell the truth about the whole stream (G23) */
static void add_ring_bytes(struct thr *t, struct conn *c, int fd, void *val, socklen_t len)
{
	struct tcp_info ti;
	uint64_t put = atomic_load(&c->s->put), taken = atomic_load(&c->s->taken);

	memset(&ti, 0, sizeof(ti));
	memcpy(&ti, val, len < sizeof(ti) ? len : sizeof(ti));
	if (road_of(c)) {
		put -= atomic_load(&c->s->over_tx);
		taken = agreed_received(t, c, fd, &ti) - ti.tcpi_bytes_received;
	}
	ti.tcpi_bytes_acked += put;
	ti.tcpi_bytes_sent += put;
	ti.tcpi_bytes_received += taken + rx_avail(c);
	memcpy(val, &ti, len < sizeof(ti) ? len : sizeof(ti));
}

/* while another thread has it switched on for a moment (tx.c) what the program set last is the answer */
static int get_nodelay(struct conn *c, int fd, void *val, socklen_t *len)
{
	uint32_t n = atomic_load(&c->s->nodelay_push);
	int r = real.getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, val, len), v;

	if (r == 0 && *len == sizeof(v) && unlikely((n & 1) || n != atomic_load(&c->s->nodelay_push))) {
		v = (int)(atomic_load(&c->s->nodelay_set) & 1);
		memcpy(val, &v, sizeof(v));
	}
	return r;
}

WSD_EXPORT int getsockopt(int fd, int level, int name, void *val, socklen_t *len)
{
	socklen_t room;
	struct call k;
	int r;

	if (!call_begin(&k, fd))
		return real.getsockopt(fd, level, name, val, len);
	if (level == SOL_SOCKET && name == SO_ERROR && atomic_load(&k.c->s->kept_err) &&
	    (!conn_att(k.c) || rx_avail(k.c) == 0 || (atomic_load(&k.c->s->flags) & S_BROKEN))) {
		r = real.getsockopt(fd, level, name, val, len);
		if (r == 0 && *len >= sizeof(int)) {
			int e = atomic_exchange(&k.c->s->kept_err, 0);

			if (e)
				memcpy(val, &e, sizeof(e));
		}
		call_end(&k);
		return r;
	}
	if (level == SOL_SOCKET && name == SO_ERROR && unlikely(unread_maybe(k.c, POLLRDHUP)) && unread_look(k.c, fd) &&
	    fault_copy(&room, len, sizeof(room)) && room >= sizeof(int) && fault_copy(val, val, sizeof(int))) {
		int e = unread_error(k.c, fd);

		r = real.getsockopt(fd, level, name, val, len);
		if (r == 0 && e)
			memcpy(val, &e, sizeof(e));
		call_end(&k);
		return r;
	}
#ifdef TCP_ZEROCOPY_RECEIVE
	if (level == IPPROTO_TCP && name == TCP_ZEROCOPY_RECEIVE)
		conn_to_tcp(k.c, WSD_R_OPTION);
#endif
	if (level == IPPROTO_TCP && name == TCP_NODELAY && conn_ours(k.c)) {
		r = get_nodelay(k.c, fd, val, len);
		call_end(&k);
		return r;
	}
	if (level == IPPROTO_TCP && name == TCP_CORK)
		opt_cork_give(k.c, fd);
	r = real.getsockopt(fd, level, name, val, len);
	if (r == 0 && level == SOL_SOCKET && name == SO_RCVLOWAT && *len >= sizeof(uint32_t) &&
	    (atomic_load(&k.c->s->flags) & S_LOWAT_CUT))
		memcpy(val, (uint32_t *)&k.c->s->lowat, sizeof(uint32_t));
	if (r == 0 && level == IPPROTO_TCP && name == TCP_INFO && (conn_att(k.c) || road_of(k.c)))
		add_ring_bytes(k.t, k.c, fd, val, *len);
	call_end(&k);
	return r;
}

/* before the call: see push_nagled() in tx.c */
static void note_nodelay(struct conn *c, int v)
{
	uint32_t n = atomic_load(&c->s->nodelay_set);

	while (!atomic_compare_exchange_weak(&c->s->nodelay_set, &n, ((n + 2) & ~1u) | (v != 0)))
		;
}

WSD_EXPORT int setsockopt(int fd, int level, int name, const void *val, socklen_t len)
{
	struct call k;
	int r, v = 0;

	if (!call_begin(&k, fd))
		return real.setsockopt(fd, level, name, val, len);
	opt_before_set(k.c, level, name);
	if (val && len >= sizeof(v) && !fault_copy(&v, val, sizeof(v))) {
		v = 0;
	} else if (level == IPPROTO_TCP && name == TCP_CORK && val && len >= sizeof(v) && len <= INT_MAX) {
		r = opt_cork(k.c, fd, v);
		call_end(&k);
		return r;
	}
	if (level == SOL_SOCKET && name == SO_RCVLOWAT)
		eset_rearm(k.c);
	if (level == SOL_SOCKET && name == SO_RCVLOWAT && conn_agreed(k.c)) {
		r = agreed_lowat_set(k.t, k.c, fd, val, len);
		call_end(&k);
		return r;
	}
	if (level == SOL_SOCKET && name == SO_RCVLOWAT && v > 1) {
		atomic_fetch_or(&k.c->s->flags, S_LOWAT);
		if (conn_att(k.c)) {
			uint32_t have;

			rx_close_gate(k.c);
			/* what lies in the ring counts towards the mark (G23) */
			have = rx_avail(k.c);
			if (have) {
				atomic_store(&k.c->s->lowat, (uint32_t)v);
				v = have < (uint32_t)v ? v - (int)have : 1;
				r = real.setsockopt(fd, level, name, &v, sizeof(v));
				if (r == 0)
					atomic_fetch_or(&k.c->s->flags, S_LOWAT_CUT);
				call_end(&k);
				return r;
			}
		}
	}
	if (level == IPPROTO_TCP && name == TCP_NODELAY && val && len >= sizeof(v))
		note_nodelay(k.c, v);
	r = real.setsockopt(fd, level, name, val, len);
	k.c->timeo[0] = k.c->timeo[1] = 0;
	if (r == 0 && level == SOL_SOCKET && name == SO_RCVLOWAT) {
		atomic_store(&k.c->s->lowat, v > 1 ? (uint32_t)v : 1);
		atomic_fetch_and(&k.c->s->flags, v > 1 ? ~S_LOWAT_CUT : ~(S_LOWAT | S_LOWAT_CUT));
	}
	if (r == 0 && level == IPPROTO_TCP && name == TCP_NODELAY && conn_att(k.c)) {
		if (v)
			atomic_fetch_and(&k.c->rx->yflags, ~WSD_Y_NAGLE);
		else
			atomic_fetch_or(&k.c->rx->yflags, WSD_Y_NAGLE);
	}
	call_end(&k);
	return r;
}
