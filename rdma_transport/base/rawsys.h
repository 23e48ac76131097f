/* SPDX-License-Identifier: MIT */
/*
 * rawsys.h - one system call that passes a preloaded libc wrapper by
 *
 * This library runs inside programs whose socket calls are intercepted, and is called by the
 * interceptor while that holds its locks. fcntl() is the only intercepted call needed here.
 * Return: the kernel's own, -errno in the result; errno is not touched.
 */
#ifndef RDMA_TRANSPORT_RAWSYS_H
#define RDMA_TRANSPORT_RAWSYS_H

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

static inline long rt_raw_fcntl(int fd, int cmd)
{
#if defined(__x86_64__) && !defined(__ILP32__)
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "0"((long)SYS_fcntl), "D"((long)fd), "S"((long)cmd), "d"(0L)
			 : "rcx", "r11", "memory");
	return r;
#else
	int r = fcntl(fd, cmd);

	return r < 0 ? -errno : r;
#endif
}

#endif
