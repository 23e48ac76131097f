/* SPDX-License-Identifier: MIT */
/*
 * ends.h - both ends of one connection in one process, for tests that are made of the switch's own sources
 *
 * Both ends of a loopback TCP connection are conns of this one process, on a session memory that the test made, so that each
 * interleaving is made by hand: a gate opened or a count changed between two calls, a step of the other end inside a kernel call
 * (hooks in `real`, preadv and sched_yield), a hostile word. The calls made here (send, recv, close ...) are the switch's
 * wrappers. Included once in each test program.
 *
 * "a" connected and mostly sends, "b" accepted and mostly receives.
 */
#ifndef WSD_TESTS_UNIT_SWITCH_ENDS_H
#define WSD_TESTS_UNIT_SWITCH_ENDS_H

#include <criterion/criterion.h>

#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "wsd_switch/core/switch.h"

#define UNUSED __attribute__((unused))
#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif
#define RING	(16u << 10)	/* the smallest */
#define BOTH	(WSD_GATE_OPEN | WSD_GATE_ON_RING)

/* ---- the two ends ---- */

static UNUSED int a, b;
static UNUSED struct conn *ca, *cb;
static UNUSED struct wsd_session *ses;
static UNUSED struct wsd_ring_dir *ab, *ba;	/* a sends on ab */

static UNUSED void attach_end(struct conn *c, int fd, unsigned side)
{
	socklen_t l = sizeof(c->s->cookie);

	cr_assert_eq(real.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &c->s->cookie, &l), 0);
	c->hdr = ses;
	c->tx = &ses->dir[side];
	c->rx = &ses->dir[1 - side];
	c->txr = (uint8_t *)ses + WSD_SESSION_HDR + side * (size_t)RING;
	c->rxr = (uint8_t *)ses + WSD_SESSION_HDR + (1 - side) * (size_t)RING;
	c->mask = RING - 1;
	atomic_store(&c->s->att_pid, proc_page->pid);
	atomic_fetch_or(&c->s->flags, S_ATTACHED);
	atomic_store(&c->why, WSD_R_NONE);
	atomic_store(&c->stage, ST_ATTACHED);
	atomic_fetch_or(&ses->attached, 1u << side);
}

static UNUSED void ends_make(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t l = sizeof(sa);
	int one = 1, ls;
	size_t page = 4096, len = wsd_session_length(RING);
	uint8_t *p;

	signal(SIGPIPE, SIG_IGN);
	real_ready();
	cr_assert(proc_usable());
	cfg.shake = false;
	ls = real.socket(AF_INET, SOCK_STREAM, 0);
	cr_assert_eq(bind(ls, (struct sockaddr *)&sa, sizeof(sa)), 0);
	cr_assert_eq(real.listen(ls, 1), 0);
	cr_assert_eq(getsockname(ls, (struct sockaddr *)&sa, &l), 0);
	a = real.socket(AF_INET, SOCK_STREAM, 0);
	cr_assert_eq(real.connect(a, (struct sockaddr *)&sa, sizeof(sa)), 0);
	b = real.accept(ls, NULL, NULL);
	cr_assert_geq(b, 3);
	real.close(ls);
	real.setsockopt(a, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	real.setsockopt(b, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));

	/* a copy outside the session memory is a SIGSEGV in the switch's own code and fails the test */
	p = mmap(NULL, len + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(p, MAP_FAILED);
	ses = mmap(p + page, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	cr_assert_neq(ses, MAP_FAILED);
	ses->magic = WSD_SESSION_MAGIC;
	ses->version = WSD_SESSION_VERSION;
	ses->ring_size = RING;
	ses->session_id = 1;
	ses->length = len;
	ab = &ses->dir[0];
	ba = &ses->dir[1];

	ca = conn_new(a, WSD_ROLE_CONNECT, false);
	cb = conn_new(b, WSD_ROLE_ACCEPT, false);
	cr_assert(ca && cb);
	attach_end(ca, a, 0);
	attach_end(cb, b, 1);
}

static UNUSED void open_gate(struct wsd_ring_dir *d)
{
	atomic_store(&d->gate, wsd_gate_next(atomic_load(&d->gate), WSD_GATE_OPEN));
}

static UNUSED bool on_ring(struct wsd_ring_dir *d)
{
	return (atomic_load(&d->gate) & BOTH) == BOTH;
}

static UNUSED bool is_open(struct wsd_ring_dir *d)
{
	return atomic_load(&d->gate) & WSD_GATE_OPEN;
}

static UNUSED uint32_t epoch(struct wsd_ring_dir *d)
{
	return (uint32_t)((atomic_load(&d->gate) & WSD_GATE_EPOCH_MASK) >> WSD_GATE_EPOCH_SHIFT);
}

/* TCP bytes of the kernel's own count have arrived */
static UNUSED void wait_inq(int fd, int n)
{
	struct timespec nap = { 0, 1000000 };
	int q = 0, i;

	for (i = 0; i < 10000; i++) {
		cr_assert_eq(real.ioctl(fd, SIOCINQ, &q), 0);
		if (q >= n)
			return;
		nanosleep(&nap, NULL);
	}
	cr_assert_fail("%d bytes did not arrive, %d did", n, q);
}

static UNUSED void wait_fin(int fd)
{
	struct pollfd p = { fd, POLLRDHUP, 0 };

	cr_assert_eq(real.poll(&p, 1, 10000), 1, "no FIN came");
}

static UNUSED void nonblock(int fd)
{
	cr_assert_eq(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

static UNUSED void put_str(int fd, const char *s)
{
	uint64_t was = atomic_load(&conn_get(fd)->s->put);

	cr_assert_eq(send(fd, s, strlen(s), 0), (ssize_t)strlen(s));
	cr_assert_eq(atomic_load(&conn_get(fd)->s->put) - was, strlen(s), "\"%s\" did not go into the ring", s);
}

/* by TCP, whatever the gate is: a flag that is not the ring's (G6) */
static UNUSED void tcp_str(int fd, const char *s)
{
	uint64_t was = atomic_load(&conn_get(fd)->s->H);

	cr_assert_eq(send(fd, s, strlen(s), MSG_DONTROUTE), (ssize_t)strlen(s));
	cr_assert_eq(atomic_load(&conn_get(fd)->s->H) - was, strlen(s), "\"%s\" did not go to TCP", s);
}

static UNUSED void expect_str(int fd, size_t max, const char *want)
{
	char buf[256] = "";
	ssize_t r;

	cr_assert_leq(max, sizeof(buf));
	r = recv(fd, buf, max, 0);
	cr_assert_eq(r, (ssize_t)strlen(want), "got %zd (errno %d), wanted \"%s\"", r, errno, want);
	cr_assert_eq(memcmp(buf, want, strlen(want)), 0, "got \"%.*s\", wanted \"%s\"", (int)r, buf, want);
}

#define expect_err(call, e) \
	do { \
		ssize_t _r; \
		errno = 0; \
		_r = (call); \
		cr_assert_eq(_r, -1, #call " gave %zd", _r); \
		cr_assert_eq(errno, (e), #call ": errno %d", errno); \
	} while (0)

/* ---- hooks ---- */

static UNUSED unsigned n_recv, n_send, n_quickack, n_yield, n_cork;
static UNUSED size_t first_recv_len;
static UNUSED int recv_flags;
static UNUSED void (*in_recv)(void), (*in_pread)(void), (*in_yield)(void), (*in_cork)(void);
static UNUSED int recv_error, send_error, preadv2_error;	/* given once instead of the call */
static UNUSED ssize_t send_short;
static UNUSED struct real_table libc_calls;

static UNUSED void run(void (**hook)(void))
{
	void (*f)(void) = *hook;

	*hook = NULL;
	if (f)
		f();
}

static UNUSED ssize_t hook_recv(int fd, void *buf, size_t n, int flags)
{
	ssize_t r;

	if (n_recv++ == 0)
		first_recv_len = n;
	recv_flags = flags;
	if (recv_error && !(flags & MSG_PEEK)) {
		errno = recv_error;
		recv_error = 0;
		return -1;
	}
	r = libc_calls.recv(fd, buf, n, flags);
	run(&in_recv);
	return r;
}

static UNUSED ssize_t hook_send(int fd, const void *buf, size_t n, int flags)
{
	n_send++;
	if (send_error) {
		errno = send_error;
		send_error = 0;
		return -1;
	}
	if (send_short && (size_t)send_short < n)
		n = (size_t)send_short;
	return libc_calls.send(fd, buf, n, flags);
}

static void (*in_nodelay[2])(void) UNUSED;	/* after the first, and the second, setting of TCP_NODELAY */

static UNUSED int hook_setsockopt(int fd, int level, int name, const void *v, socklen_t l)
{
	if (level == IPPROTO_TCP && name == TCP_NODELAY) {
		int r = libc_calls.setsockopt(fd, level, name, v, l);
		void (*f)(void) = in_nodelay[0];

		in_nodelay[0] = in_nodelay[1];
		in_nodelay[1] = NULL;
		if (f)
			f();
		return r;
	}
	if (level == IPPROTO_TCP && name == TCP_QUICKACK)
		n_quickack++;
	if (level == IPPROTO_TCP && name == TCP_CORK) {
		n_cork++;
		run(&in_cork);
	}
	return libc_calls.setsockopt(fd, level, name, v, l);
}

static UNUSED bool (*instead)(long n);	/* true: this system call is left out, and gives 0 */

/* long v[6], the arguments behind @last of a function in place of syscall() */
#define SYSCALL_ARGS(v, last) do {					\
	va_list ap_;							\
									\
	va_start(ap_, last);						\
	for (int i_ = 0; i_ < 6; i_++)					\
		(v)[i_] = va_arg(ap_, long);				\
	va_end(ap_);							\
} while (0)

/* the kernel takes so many bytes of a sendmsg; 0: EAGAIN */
static UNUSED long short_sendmsg(const long v[6], size_t most)
{
	struct msghdr m = *(const struct msghdr *)v[1];
	struct iovec io[70];
	size_t k;

	if (!most) {
		errno = EAGAIN;
		return -1;
	}
	cr_assert_leq(m.msg_iovlen, 70);
	for (k = 0; k < m.msg_iovlen && most; k++) {
		io[k] = m.msg_iov[k];
		if (io[k].iov_len > most)
			io[k].iov_len = most;
		most -= io[k].iov_len;
	}
	m.msg_iov = io;
	m.msg_iovlen = k;
	return libc_calls.syscall(SYS_sendmsg, v[0], &m, v[2]);
}

static UNUSED long hook_syscall(long n, ...)
{
	long v[6], r;

	SYSCALL_ARGS(v, n);
	if (instead && instead(n))
		return 0;
	if (n == SYS_preadv2 && preadv2_error) {
		errno = preadv2_error;
		preadv2_error = 0;
		return -1;
	}
	r = libc_calls.syscall(n, v[0], v[1], v[2], v[3], v[4], v[5]);
	if (n == SYS_preadv2)
		run(&in_pread);
	return r;
}

static UNUSED void hooks(void)
{
	if (real.syscall == hook_syscall)
		return;
	libc_calls = real;
	real.syscall = hook_syscall;
	real.recv = hook_recv;
	real.send = hook_send;
	real.setsockopt = hook_setsockopt;
}

/* the switch's own call, in the middle of a put from a file */
ssize_t preadv(int fd, const struct iovec *io, int n, off_t off)
{
	ssize_t r = real.syscall(SYS_preadv, fd, io, n, off, 0);

	run(&in_pread);
	return r;
}

int sched_yield(void)
{
	n_yield++;
	run(&in_yield);
	return (int)real.syscall(SYS_sched_yield);
}

static UNUSED int file_of(const char *s)
{
	int f = memfd_create("rules", 0);

	cr_assert_geq(f, 0);
	cr_assert_eq(write(f, s, strlen(s)), (ssize_t)strlen(s));
	cr_assert_eq(lseek(f, 0, SEEK_SET), 0);
	return f;
}

static UNUSED uint8_t big[200000], back[200000];

static UNUSED void fill_big(void)
{
	size_t i;

	for (i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i * 131 + (i >> 8));
}

static UNUSED void expect_big(int fd, size_t n)
{
	size_t at = 0;

	while (at < n) {
		ssize_t r = recv(fd, back + at, n - at, 0);

		cr_assert_gt(r, 0, "after %zu of %zu: %zd, errno %d", at, n, r, errno);
		at += (size_t)r;
	}
	cr_assert_eq(memcmp(back, big, n), 0, "other bytes, or in another order");
}

#endif
