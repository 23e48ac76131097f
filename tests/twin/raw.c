/* SPDX-License-Identifier: MIT */
/*
 * raw.c - system calls made in place
 *
 * A preloaded library replaces libc's functions, also syscall(2). These instructions it cannot see, so what
 * is asked here changes nothing in it: no gate closes because the harness looked.
 */
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "twin.h"

#if defined(__x86_64__)
static long raw5(long nr, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
static long raw5(long nr, long a, long b, long c, long d, long e)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
}
#else
#error "raw system calls: add this machine"
#endif

long tw_raw_write(int fd, const void *p, size_t n)
{
	return raw5(SYS_write, fd, (long)p, (long)n, 0, 0);
}

long tw_raw_read(int fd, void *p, size_t n)
{
	return raw5(SYS_read, fd, (long)p, (long)n, 0, 0);
}

long tw_raw_ioctl(int fd, unsigned long req, void *arg)
{
	return raw5(SYS_ioctl, fd, (long)req, (long)arg, 0, 0);
}

short tw_raw_poll(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };
	struct timespec none = { 0, 0 };

	return raw5(SYS_ppoll, (long)&p, 1, (long)&none, 0, 0) > 0 ? p.revents : 0;
}

void tw_kernel_state(int fd, struct tw_kernel *ret)
{
	struct tcp_info ti;
	socklen_t len = sizeof(ti);

	memset(&ti, 0, sizeof(ti));
	memset(ret, 0, sizeof(*ret));
	if (raw5(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, (long)&ti, (long)&len) < 0) {
		ret->gone = true;
		return;
	}
	ret->sent = ti.tcpi_bytes_sent - ti.tcpi_bytes_retrans;
	ret->received = ti.tcpi_bytes_received;
	ret->notsent = ti.tcpi_notsent_bytes;
	ret->state = ti.tcpi_state;
}
