/* SPDX-License-Identifier: MIT */
/*
 * rawsys.h - system calls that pass preloaded libc wrappers by
 *
 * This library runs inside programs whose socket calls are intercepted, and is called by the
 * interceptor while that holds its locks; and the interceptor answers EBADF for descriptors that are ours.
 * Arguments behind the fourth are 0. Return: the kernel's own, -errno in the result; errno is not touched.
 */
#ifndef RDMA_TRANSPORT_RAWSYS_H
#define RDMA_TRANSPORT_RAWSYS_H

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline long rt_raw4(long nr, long a, long b, long c, long d)
{
#if defined(__x86_64__) && !defined(__ILP32__)
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = 0;
	register long r9 __asm__("r9") = 0;
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return r;
#else
	int e = errno;
	long r = syscall(nr, a, b, c, d, 0l, 0l);

	r = r < 0 ? -errno : r;
	errno = e;
	return r;
#endif
}

static inline long rt_raw_fcntl(int fd, int cmd)
{
	return rt_raw4(SYS_fcntl, fd, cmd, 0, 0);
}

static inline long rt_raw_close(int fd)
{
	return rt_raw4(SYS_close, fd, 0, 0, 0);
}

#endif
