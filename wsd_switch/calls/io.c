/* SPDX-License-Identifier: MIT */
/* io.c - calls that move bytes */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>

#include "wsd_switch/calls/call.h"
#include "wsd_switch/core/agreed.h"
#include "wsd_switch/core/hand_on.h"

#define PLAIN_MS	2000u		/* a direction's way back to TCP takes the peer's next call */
#define SCM_MAX		253u		/* descriptors in one message, the kernel's limit */
#define NO_STREAM_FLAGS (MSG_OOB | MSG_ERRQUEUE)	/* receives that move no byte of the stream */

/* The kernel is to be called with the program's arguments as they are: an agreed direction must be plain TCP for that (A4). false: it
 * did not become so in time; errno */
static bool out_plain(struct call *k, int fd)
{
	if (likely(!conn_agreed(k->c)) || agreed_tx_plain(k->t, k->c, fd, PLAIN_MS))
		return true;
	conn_reset(k->c, fd, "a call that only TCP has, and the sending direction did not return to it");
	errno = ECONNRESET;
	return false;
}

static bool in_plain(struct call *k, int fd, int flags)
{
	if (likely(!conn_agreed(k->c)) || (flags & NO_STREAM_FLAGS) || agreed_rx_plain(k->t, k->c, fd, PLAIN_MS))
		return true;
	conn_reset(k->c, fd, "a call that only TCP has, and the receiving direction did not return to it");
	errno = ECONNRESET;
	return false;
}

static inline void may_cancel(const struct call *k)
{
	if (unlikely(conn_ours(k->c) && !__libc_single_threaded))
		pthread_testcancel();
}

static ssize_t recv_long(struct call *k, int fd, struct vec *v, int flags)
{
	int e = errno;
	ssize_t r = rx_recv(k->t, k->c, fd, v, flags);

	if (r >= 0)
		errno = e;
	if (unlikely(atomic_load_explicit(&k->c->s->flags, memory_order_relaxed) & S_LOWAT_CUT))
		rx_lowat_restore(k->c, fd);
	if (unlikely(atomic_load_explicit(&k->c->stage, memory_order_relaxed) == ST_NEW) && r > 0)
		ctl_think(k->t, k->c, fd, true);
	return r;
}

static ssize_t send_long(struct call *k, int fd, struct vec *v, int flags)
{
	int e = errno;
	ssize_t r = tx_send(k->t, k->c, fd, v, flags);

	if (r >= 0)
		errno = e;
	if (unlikely(atomic_load_explicit(&k->c->stage, memory_order_relaxed) == ST_NEW) && r > 0)
		ctl_think(k->t, k->c, fd, false);
	return r;
}

static ssize_t recv_in(struct call *k, int fd, struct vec *v, int flags)
{
	may_cancel(k);
	return recv_long(k, fd, v, flags);
}

static ssize_t send_in(struct call *k, int fd, struct vec *v, int flags)
{
	ssize_t r = 0;

	may_cancel(k);
	if (conn_agreed(k->c) && v->iov->iov_len - v->off >= v->len)
		r = agreed_send_quick(k->t, k->c, (const char *)v->iov->iov_base + v->off, v->len, flags);
	return r ? r : send_long(k, fd, v, flags);
}

/* inline: what calls and returns cost where a CPU is emulated (decision 37) */
static inline __attribute__((always_inline)) ssize_t recv_buf(struct call *k, int fd, void *buf, size_t n, int flags)
{
	struct iovec io;
	struct vec v;
	ssize_t r;

	may_cancel(k);
	r = conn_agreed(k->c) ? agreed_recv_soon(k->t, k->c, buf, n, flags) : 0;
	if (unlikely(!r)) {
		io = (struct iovec){ buf, n < 0x7ffff000u ? n : 0x7ffff000u };
		v = (struct vec){ &io, 1, 0, io.iov_len };
		r = recv_long(k, fd, &v, flags);
	}
	call_end(k);
	return r;
}

static inline __attribute__((always_inline)) ssize_t send_buf(struct call *k, int fd, const void *buf, size_t n, int flags)
{
	struct iovec io;
	struct vec v;
	ssize_t r;

	may_cancel(k);
	r = conn_agreed(k->c) ? agreed_send_quick(k->t, k->c, buf, n, flags) : 0;
	if (unlikely(!r)) {
		io = (struct iovec){ (void *)buf, n < 0x7ffff000u ? n : 0x7ffff000u };
		v = (struct vec){ &io, 1, 0, io.iov_len };
		r = send_long(k, fd, &v, flags);
	}
	call_end(k);
	return r;
}

WSD_EXPORT ssize_t read(int fd, void *buf, size_t n)
{
	struct call k;

	if (!call_begin(&k, fd))
		return real.read(fd, buf, n);
	if (unlikely(n == 0)) {		/* read(2) of nothing does not reach the socket */
		call_end(&k);
		return real.read(fd, buf, n);
	}
	return recv_buf(&k, fd, buf, n, 0);
}

WSD_EXPORT ssize_t write(int fd, const void *buf, size_t n)
{
	struct call k;

	return call_begin(&k, fd) ? send_buf(&k, fd, buf, n, 0) : real.write(fd, buf, n);
}

WSD_EXPORT ssize_t recv(int fd, void *buf, size_t n, int flags)
{
	struct call k;

	return call_begin(&k, fd) ? recv_buf(&k, fd, buf, n, flags) : real.recv(fd, buf, n, flags);
}

WSD_EXPORT ssize_t send(int fd, const void *buf, size_t n, int flags)
{
	struct call k;

	return call_begin(&k, fd) ? send_buf(&k, fd, buf, n, flags) : real.send(fd, buf, n, flags);
}

/* TCP gives no address: the kernel sets the length to 0 */
WSD_EXPORT ssize_t recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *addr, socklen_t *len)
{
	struct call k;
	ssize_t r;

	if (!call_begin(&k, fd))
		return real.recvfrom(fd, buf, n, flags, addr, len);
	if (unlikely((addr && !conn_ours(k.c)) || (flags & NO_STREAM_FLAGS))) {
		rx_begin_tcp(k.c);
		if (!conn_ours(k.c) || (flags & NO_STREAM_FLAGS)) {
			r = CALL_OUTSIDE(&k, real.recvfrom(fd, buf, n, flags, addr, len));
			rx_end_tcp(k.c, flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE) ? 0 : r);
			if (r > 0 && atomic_load(&k.c->stage) == ST_NEW)
				ctl_think(k.t, k.c, fd, true);
			call_end(&k);
			return r;
		}
		rx_end_tcp(k.c, 0);
	}
	r = recv_buf(&k, fd, buf, n, flags);
	if (r >= 0 && addr && len) {
		socklen_t z = 0;

		if (!fault_copy(len, &z, sizeof(z))) {
			errno = EFAULT;
			return -1;
		}
	}
	return r;
}

WSD_EXPORT ssize_t sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr, socklen_t len)
{
	struct call k;
	ssize_t r;

	if (!call_begin(&k, fd))
		return real.sendto(fd, buf, n, flags, addr, len);
	if (unlikely((flags & MSG_FASTOPEN) || (addr && !conn_ours(k.c)))) {
		r = -1;
		if (out_plain(&k, fd) && tx_before_tcp(k.c, fd)) {
			tx_begin_tcp(k.c, fd);
			if (unlikely(flags & MSG_MORE))
				opt_cork_more(k.c);
			r = CALL_OUTSIDE(&k, real.sendto(fd, buf, n, flags, addr, len));
			tx_end_tcp(k.c, r);
			tx_after_tcp(k.c, fd, r);
		}
		call_end(&k);
		return r;
	}
	return send_buf(&k, fd, buf, n, flags);
}

/* a bad array of iovecs is EFAULT, as the kernel's copy of it would find (G28) */
static bool iov_there(const struct iovec *iov, int n)
{
	struct iovec x;

	return n <= 0 || n > IOV_MAX ||
	       (fault_copy(&x, iov, sizeof(x)) && fault_copy(&x, &iov[n - 1], sizeof(x)));
}

WSD_EXPORT ssize_t readv(int fd, const struct iovec *iov, int n)
{
	struct call k;
	struct vec v;
	ssize_t r;

	if (!call_begin(&k, fd))
		return real.readv(fd, iov, n);
	if (unlikely(!iov_there(iov, n) || vec_init(&v, iov, n) < 0 || v.len == 0)) {
		call_end(&k);
		return real.readv(fd, iov, n);
	}
	r = recv_in(&k, fd, &v, 0);
	call_end(&k);
	return r;
}

WSD_EXPORT ssize_t writev(int fd, const struct iovec *iov, int n)
{
	struct call k;
	struct vec v;
	ssize_t r;

	if (!call_begin(&k, fd))
		return real.writev(fd, iov, n);
	if (unlikely(!iov_there(iov, n) || vec_init(&v, iov, n) < 0 || v.len == 0)) {
		call_end(&k);
		return real.writev(fd, iov, n);
	}
	r = send_in(&k, fd, &v, 0);
	call_end(&k);
	return r;
}

/* with offset -1 these are readv and writev; any other is ESPIPE on a socket */
WSD_EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	struct call k;
	struct vec v;
	ssize_t r;

	real_ready();
	if (off != -1 || !call_begin(&k, fd)) {
		static ssize_t (*f)(int, const struct iovec *, int, off_t, int);

		if (!f)
			*(void **)&f = real_sym("preadv2");
		return f(fd, iov, n, off, flags);
	}
	if (flags & ~RWF_NOWAIT || !iov_there(iov, n) || vec_init(&v, iov, n) < 0) {
		call_end(&k);
		errno = flags & ~RWF_NOWAIT ? EOPNOTSUPP : n < 0 || n > IOV_MAX ? EINVAL : EFAULT;
		return -1;
	}
	r = v.len ? recv_in(&k, fd, &v, flags & RWF_NOWAIT ? MSG_DONTWAIT : 0) : 0;
	call_end(&k);
	return r;
}

WSD_EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	struct call k;
	struct vec v;
	ssize_t r;

	real_ready();
	if (off != -1 || !call_begin(&k, fd)) {
		static ssize_t (*f)(int, const struct iovec *, int, off_t, int);

		if (!f)
			*(void **)&f = real_sym("pwritev2");
		return f(fd, iov, n, off, flags);
	}
	if (flags & ~RWF_NOWAIT || !iov_there(iov, n) || vec_init(&v, iov, n) < 0) {
		call_end(&k);
		errno = flags & ~RWF_NOWAIT ? EOPNOTSUPP : n < 0 || n > IOV_MAX ? EINVAL : EFAULT;
		return -1;
	}
	r = v.len ? send_in(&k, fd, &v, flags & RWF_NOWAIT ? MSG_DONTWAIT : 0) : 0;
	call_end(&k);
	return r;
}

WSD_EXPORT ssize_t preadv64v2(int fd, const struct iovec *iov, int n, off_t off, int flags);
WSD_EXPORT ssize_t preadv64v2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	return preadv2(fd, iov, n, off, flags);
}

WSD_EXPORT ssize_t pwritev64v2(int fd, const struct iovec *iov, int n, off_t off, int flags);
WSD_EXPORT ssize_t pwritev64v2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	return pwritev2(fd, iov, n, off, flags);
}

/* 0, *h and *v; or what the kernel says of such a header before it looks at the stream */
static int header_bad(const struct msghdr *m, struct msghdr *h, struct vec *v)
{
	if (!fault_copy(h, m, sizeof(*h)))
		return EFAULT;
	if (h->msg_iovlen > IOV_MAX)
		return EMSGSIZE;
	if (!iov_there(h->msg_iov, (int)h->msg_iovlen))
		return EFAULT;
	return -vec_init(v, h->msg_iov, (int)h->msg_iovlen);
}

static ssize_t recvmsg_in(struct call *k, int fd, struct msghdr *m, int flags)
{
	struct msghdr h;
	struct vec v;
	ssize_t r;
	int bad = 0;

	if (!conn_ours(k->c) || (flags & NO_STREAM_FLAGS) || (bad = header_bad(m, &h, &v))) {
		if (bad && conn_agreed(k->c)) {		/* no reason to leave the road */
			errno = bad;
			return -1;
		}
		for (;;) {
			if (!in_plain(k, fd, flags))
				return -1;
			rx_begin_tcp(k->c);	/* counted in, then looked at: another thread may have attached it just now */
			if (likely(!conn_agreed(k->c)) || (flags & NO_STREAM_FLAGS) || agreed_plain_in(k->c))
				break;
			rx_end_tcp(k->c, 0);
		}
		r = CALL_OUTSIDE(k, real.recvmsg(fd, m, flags));
		rx_end_tcp(k->c, flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE) ? 0 : r);
		if (r > 0 && atomic_load(&k->c->stage) == ST_NEW)
			ctl_think(k->t, k->c, fd, true);
		return r;
	}
	if (unlikely(atomic_load_explicit(&k->c->s->flags, memory_order_relaxed) & S_CMSG) && rx_avail(k->c) == 0 && v.len &&
	    (!conn_agreed(k->c) || agreed_plain_in(k->c)))
		return rx_recvmsg_tcp(k->t, k->c, fd, m, flags);
	r = recv_in(k, fd, &v, flags);
	if (r >= 0) {
		m->msg_namelen = 0;
		m->msg_controllen = 0;
		m->msg_flags = flags & MSG_CMSG_CLOEXEC;
		if (unlikely(atomic_load_explicit(&k->c->s->flags, memory_order_relaxed) & S_CMSG))
			opt_ring_control(k->c, fd, m, h.msg_controllen);
	}
	return r;
}

/* descriptors that came by SCM_RIGHTS may have a session that another process attached (reattach.c) */
static void take_rights(struct msghdr *m)
{
	struct cmsghdr *c;

	if (proc_is_vfork_child())
		return;
	for (c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t n, i;
		int fd;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0))
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			reattach_received(fd);
		}
	}
}

WSD_EXPORT ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	struct call k;
	ssize_t r;

	if (!call_begin(&k, fd)) {
		r = real.recvmsg(fd, m, flags);
		if (unlikely(r >= 0 && m->msg_controllen) && call_usable())
			take_rights(m);
		return r;
	}
	r = recvmsg_in(&k, fd, m, flags);
	call_end(&k);
	return r;
}

static ssize_t sendmsg_in(struct call *k, int fd, const struct msghdr *m, int flags)
{
	struct msghdr h;
	struct vec v;
	ssize_t r;
	int bad = 0;

	if (!conn_ours(k->c) || (flags & MSG_FASTOPEN) || (bad = header_bad(m, &h, &v)) || h.msg_controllen) {
		if (bad && conn_agreed(k->c)) {
			errno = bad;
			return -1;
		}
		if (flags & MSG_OOB)
			conn_to_tcp(k->c, WSD_R_OPTION);
		if (!out_plain(k, fd) || !tx_before_tcp(k->c, fd))
			return -1;
		tx_begin_tcp(k->c, fd);
		if (unlikely(flags & MSG_MORE))
			opt_cork_more(k->c);
		r = CALL_OUTSIDE(k, real.sendmsg(fd, m, flags));
		tx_end_tcp(k->c, r);
		tx_after_tcp(k->c, fd, r);
		if (r > 0 && atomic_load(&k->c->stage) == ST_NEW)
			ctl_think(k->t, k->c, fd, false);
		return r;
	}
	return send_in(k, fd, &v, flags);
}

/* descriptors that leave by SCM_RIGHTS are handed on first (G22) */
static void look_for_rights(int over, const struct msghdr *m)
{
	struct msghdr h;
	struct cmsghdr *c, first;

	/* without a connection of ours nothing is handed on, and bad pointers are not caught yet */
	if (!atomic_load_explicit(&fd_high, memory_order_relaxed) || !fault_copy(&h, m, sizeof(h)) || h.msg_controllen < sizeof(*c) || !h.msg_control || h.msg_controllen > 1 << 20)
		return;
	for (c = CMSG_FIRSTHDR(&h); c && fault_copy(&first, c, sizeof(first)); c = CMSG_NXTHDR(&h, c)) {
		size_t n, i;
		int fd;

		if (first.cmsg_level != SOL_SOCKET || first.cmsg_type != SCM_RIGHTS || first.cmsg_len < CMSG_LEN(0))
			continue;
		n = (first.cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < n && i < SCM_MAX && fault_copy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd)); i++) {
			hand_on_fd(fd, over);
		}
	}
}

WSD_EXPORT ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	struct call k;
	ssize_t r;

	if (!call_begin(&k, fd)) {
		if (m && call_usable())
			look_for_rights(fd, m);
		return real.sendmsg(fd, m, flags);
	}
	r = sendmsg_in(&k, fd, m, flags);
	call_end(&k);
	return r;
}

WSD_EXPORT int recvmmsg(int fd, struct mmsghdr *m, unsigned n, int flags, struct timespec *to)
{
	struct timespec end, now;
	struct call k;
	unsigned i;
	ssize_t r = 0;

	if (!call_begin(&k, fd)) {
		int got = real.recvmmsg(fd, m, n, flags, to);

		for (i = 0; got > 0 && i < (unsigned)got; i++)
			if (unlikely(m[i].msg_hdr.msg_controllen) && call_usable())
				take_rights(&m[i].msg_hdr);
		return got;
	}
	if (to) {
		if (to->tv_sec < 0 || to->tv_nsec < 0 || to->tv_nsec >= 1000000000) {
			call_end(&k);
			errno = EINVAL;
			return -1;
		}
		clock_gettime(CLOCK_MONOTONIC, &end);
		end.tv_sec += to->tv_sec;
		end.tv_nsec += to->tv_nsec;
	}
	if (n > IOV_MAX)
		n = IOV_MAX;
	for (i = 0; i < n; i++) {
		r = recvmsg_in(&k, fd, &m[i].msg_hdr, flags & ~MSG_WAITFORONE);
		if (r < 0)
			break;
		m[i].msg_len = (unsigned)r;
		if (flags & MSG_WAITFORONE)
			flags |= MSG_DONTWAIT;
		if (to) {
			int64_t left;

			clock_gettime(CLOCK_MONOTONIC, &now);
			left = (end.tv_sec - now.tv_sec) * 1000000000ll + end.tv_nsec - now.tv_nsec;
			if (left < 0)
				left = 0;
			to->tv_sec = left / 1000000000;
			to->tv_nsec = left % 1000000000;
			if (left == 0) {
				i++;
				break;
			}
		}
	}
	if (i > 0 && r < 0 && errno != EAGAIN)
		atomic_store(&k.c->s->kept_err, errno);
	call_end(&k);
	return i > 0 ? (int)i : (int)r;
}

static size_t iov_total(const struct msghdr *m)
{
	size_t i, t = 0;

	for (i = 0; i < m->msg_iovlen; i++)
		t += m->msg_iov[i].iov_len;
	return t;
}

WSD_EXPORT int sendmmsg(int fd, struct mmsghdr *m, unsigned n, int flags)
{
	struct call k;
	unsigned i;
	ssize_t r = 0;

	if (!call_begin(&k, fd)) {
		if (m && call_usable())
			for (i = 0; i < n && i < IOV_MAX; i++)
				look_for_rights(fd, &m[i].msg_hdr);
		return real.sendmmsg(fd, m, n, flags);
	}
	if (n > IOV_MAX)
		n = IOV_MAX;
	for (i = 0; i < n; i++) {
		r = sendmsg_in(&k, fd, &m[i].msg_hdr, flags);
		if (r < 0)
			break;
		m[i].msg_len = (unsigned)r;
		if ((size_t)r < iov_total(&m[i].msg_hdr)) {
			i++;
			break;
		}
	}
	call_end(&k);
	return i > 0 ? (int)i : (int)r;
}

WSD_EXPORT ssize_t sendfile64(int out, int in, off_t *off, size_t n)
{
	struct call k;
	ssize_t r;

	if (call_begin(&k, out)) {
		r = tx_sendfile(k.t, k.c, out, in, off, n);
		if (r > 0 && atomic_load(&k.c->stage) == ST_NEW)
			ctl_think(k.t, k.c, out, false);
		call_end(&k);
		return r;
	}
	if (call_begin(&k, in)) {
		rx_begin_tcp(k.c);
		r = CALL_OUTSIDE(&k, real.sendfile64(out, in, off, n));
		rx_end_tcp(k.c, r);
		call_end(&k);
		return r;
	}
	return real.sendfile64(out, in, off, n);
}

WSD_EXPORT ssize_t sendfile(int out, int in, off_t *off, size_t n)
{
	return sendfile64(out, in, off, n);
}

static bool is_pipe(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

/* room in the pipe, as the kernel's splice waits for it: 1, or 0 when nobody reads it any more, or -1 and errno */
static int pipe_room(struct call *k, int out, bool nb)
{
	struct pollfd p = { .fd = out, .events = POLLOUT };
	int r;

	for (;;) {
		r = nb ? real.poll(&p, 1, 0) : CALL_OUTSIDE(k, real.poll(&p, 1, -1));
		if (r > 0)
			return !(p.revents & POLLERR);
		if (r == 0) {
			errno = EAGAIN;
			return -1;
		}
		if (errno != EINTR || !atomic_load(&k->t->sig_any) || atomic_load(&k->t->sig_eintr))
			return -1;
		sig_call_begin(k->t);		/* a handler with SA_RESTART */
	}
}

/*
 * What the ring holds goes into the pipe by a copy; no more is taken than the pipe has room for. As in the kernel,
 * SPLICE_F_NONBLOCK and O_NONBLOCK of the pipe are about the pipe, O_NONBLOCK of the socket is about the socket; and a
 * non-blocking splice is short only if the pipe is full or the stream has no more (G12).
 */
static ssize_t splice_from_ring(struct call *k, int in, int out, size_t n, unsigned flags)
{
	bool nb = (flags & SPLICE_F_NONBLOCK) || (real.fcntl64(out, F_GETFL) & O_NONBLOCK);
	bool more = atomic_load(&k->c->s->nonblock);
	char buf[4096];
	size_t total = 0;
	ssize_t r = 0, w, at;
	int e = errno;

	while (total < n) {
		struct iovec io = { buf, n - total < sizeof(buf) ? n - total : sizeof(buf) };
		struct vec v = { &io, 1, 0, io.iov_len };

		/* POLLOUT of a pipe means that a page fits */
		r = pipe_room(k, out, nb || total);
		if (r == 0 && !total)	/* EPIPE and SIGPIPE are the kernel's; it takes nothing for them */
			return CALL_OUTSIDE(k, real.splice(in, NULL, out, NULL, n, flags));
		if (r <= 0)
			break;
		r = recv_in(k, in, &v, total ? MSG_DONTWAIT : 0);
		if (r < 0 && total && errno != EAGAIN && errno != EINTR)
			atomic_store(&k->c->s->kept_err, errno);
		if (r <= 0)
			break;
		for (at = 0; at < r; at += w) {
			struct pollfd p = { .fd = out, .events = POLLOUT };

			w = CALL_OUTSIDE(k, real.write(out, buf + at, (size_t)(r - at)));
			if (w < 0) {
				if (errno != EAGAIN && errno != EINTR)
					return -1;	/* the reader left just now: lost, as what lies in its pipe */
				w = 0;		/* another writer was faster */
				(void)CALL_OUTSIDE(k, real.poll(&p, 1, 100));
			}
		}
		total += (size_t)r;
		if (!more && (conn_agreed(k->c) || rx_avail(k->c) == 0))
			break;
	}
	if (total)
		errno = e;
	return total ? (ssize_t)total : r;
}

WSD_EXPORT ssize_t splice(int in, off64_t *in_off, int out, off64_t *out_off, size_t n, unsigned flags)
{
	struct call k;
	ssize_t r;

	if (call_begin(&k, in)) {
		rx_begin_tcp(k.c);
		if (n && (conn_agreed(k.c) ? !agreed_plain_in(k.c) : conn_att(k.c) && rx_avail(k.c)) && !in_off && !out_off &&
		    is_pipe(out)) {
			rx_end_tcp(k.c, 0);
			r = splice_from_ring(&k, in, out, n, flags);
		} else {
			r = CALL_OUTSIDE(&k, real.splice(in, in_off, out, out_off, n, flags));
			rx_end_tcp(k.c, r);
		}
		call_end(&k);
		return r;
	}
	if (call_begin(&k, out)) {
		r = conn_agreed(k.c) && !in_off && !out_off && is_pipe(in) ? agreed_splice(k.t, k.c, out, in, n, flags) : TX_AGAIN;
		if (r != TX_AGAIN) {
			call_end(&k);
			return r;
		}
		r = -1;
		if (out_plain(&k, out) && tx_before_tcp(k.c, out)) {
			tx_begin_tcp(k.c, out);
			if (flags & SPLICE_F_MORE)
				opt_cork_more(k.c);
			r = CALL_OUTSIDE(&k, real.splice(in, in_off, out, out_off, n, flags));
			tx_end_tcp(k.c, r);
			tx_after_tcp(k.c, out, r);
		}
		call_end(&k);
		return r;
	}
	return real.splice(in, in_off, out, out_off, n, flags);
}

/* ---- fortified twins: the size check is libc's, then the same call ---- */

extern void __chk_fail(void) __attribute__((noreturn));
WSD_EXPORT ssize_t __read_chk(int fd, void *buf, size_t n, size_t size);
WSD_EXPORT ssize_t __recv_chk(int fd, void *buf, size_t n, size_t size, int flags);
WSD_EXPORT ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t size, int flags, struct sockaddr *addr,
				  socklen_t *len);

ssize_t __read_chk(int fd, void *buf, size_t n, size_t size)
{
	if (n > size)
		__chk_fail();
	return read(fd, buf, n);
}

ssize_t __recv_chk(int fd, void *buf, size_t n, size_t size, int flags)
{
	if (n > size)
		__chk_fail();
	return recv(fd, buf, n, flags);
}

ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t size, int flags, struct sockaddr *addr, socklen_t *len)
{
	if (n > size)
		__chk_fail();
	return recvfrom(fd, buf, n, flags, addr, len);
}

/* libc's other names for the same calls */
WSD_EXPORT ssize_t __read(int fd, void *buf, size_t n);
WSD_EXPORT ssize_t __write(int fd, const void *buf, size_t n);
WSD_EXPORT ssize_t __send(int fd, const void *buf, size_t n, int flags);

ssize_t __read(int fd, void *buf, size_t n)
{
	return read(fd, buf, n);
}

ssize_t __write(int fd, const void *buf, size_t n)
{
	return write(fd, buf, n);
}

ssize_t __send(int fd, const void *buf, size_t n, int flags)
{
	return send(fd, buf, n, flags);
}
