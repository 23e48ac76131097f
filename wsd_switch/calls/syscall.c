/* SPDX-License-Identifier: MIT */
/*
 * syscall.c - syscall(2), for the numbers that touch what we keep (G16)
 *
 * Those go to the function of the same meaning; the rest goes through. The entry is a stub in assembler: clone and its
 * kin may return in a child on another stack, so they must find no frame of ours.
 * Masks have 8 bytes here and 128 in libc's calls.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "wsd_switch/calls/sandbox.h"
#include "wsd_switch/calls/uring.h"
#include "wsd_switch/core/hand_on.h"

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

void *wsd_note_syscall(void);
long wsd_syscall(long n, long a, long b, long c, long d, long e, long f);

__attribute__((visibility("hidden"))) void *wsd_note_syscall(void)
{
	int e = errno;

	real_ready();
	atomic_store(&proc_vfork_seen, 1);
	if (proc_usable() && !proc_is_vfork_child())
		eset_flush_all();
	errno = e;
	return (void *)real.syscall;
}

__asm__(
"	.pushsection .text\n"
"	.hidden wsd_note_syscall, wsd_syscall\n"
"	.globl syscall\n"
"	.type syscall, @function\n"
"syscall:\n"
"	.cfi_startproc\n"
"	endbr64\n"
"	leaq	-56(%rdi), %rax\n"		/* clone, fork, vfork */
"	cmpq	$2, %rax\n"
"	jbe	1f\n"
"	cmpq	$435, %rdi\n"			/* clone3 */
"	je	1f\n"
"	jmp	wsd_syscall\n"
"1:	pushq	%rdi\n"
"	pushq	%rsi\n"
"	pushq	%rdx\n"
"	pushq	%rcx\n"
"	pushq	%r8\n"
"	pushq	%r9\n"
"	subq	$8, %rsp\n"
"	.cfi_adjust_cfa_offset 56\n"
"	call	wsd_note_syscall\n"
"	addq	$8, %rsp\n"
"	popq	%r9\n"
"	popq	%r8\n"
"	popq	%rcx\n"
"	popq	%rdx\n"
"	popq	%rsi\n"
"	popq	%rdi\n"
"	.cfi_adjust_cfa_offset -56\n"
"	jmp	*%rax\n"
"	.cfi_endproc\n"
"	.size syscall, . - syscall\n"
"	.popsection\n"
);

/* false: the kernel shall judge it */
static bool kernel_mask(long p, long len, sigset_t *buf, const sigset_t **ret)
{
	*ret = NULL;
	if (!p)
		return true;
	sigemptyset(buf);
	*ret = buf;
	fault_install();
	return len == 8 && fault_copy(buf, (const void *)p, 8);
}

static bool has(long fd)
{
	return fd == (int)fd && conn_get((int)fd) != NULL;
}

static long do_pselect6(long a, long b, long c, long d, long e, long f, bool *ret_done)
{
	struct { long p, len; } m = { 0, 8 };
	const sigset_t *set;
	sigset_t buf;

	if (f) {
		fault_install();
		if (!fault_copy(&m, (const void *)f, sizeof(m)))
			return 0;
	}
	if (!kernel_mask(m.p, m.len, &buf, &set))
		return 0;
	*ret_done = true;
	return pselect((int)a, (fd_set *)b, (fd_set *)c, (fd_set *)d, (const struct timespec *)e, set);
}

__attribute__((visibility("hidden"))) long wsd_syscall(long n, long a, long b, long c, long d, long e, long f)
{
	const sigset_t *set;
	bool done = false;
	sigset_t buf;
	long r;

	real_ready();
	if (unlikely(!proc_on || atomic_load_explicit(&proc_frozen, memory_order_relaxed)))
		return real.syscall(n, a, b, c, d, e, f);
	switch (n) {
	/* data, and what looks at one connection: only if it is one of ours */
	case SYS_read:
		if (has(a))
			return read((int)a, (void *)b, (size_t)c);
		break;
	case SYS_write:
		if (has(a))
			return write((int)a, (const void *)b, (size_t)c);
		break;
	case SYS_readv:
		if (has(a))
			return readv((int)a, (const struct iovec *)b, (int)c);
		break;
	case SYS_writev:
		if (has(a))
			return writev((int)a, (const struct iovec *)b, (int)c);
		break;
	case SYS_recvfrom:
		if (has(a))
			return recvfrom((int)a, (void *)b, (size_t)c, (int)d, (struct sockaddr *)e, (socklen_t *)f);
		break;
	case SYS_sendto:
		if (has(a))
			return sendto((int)a, (const void *)b, (size_t)c, (int)d, (const struct sockaddr *)e,
				      (socklen_t)f);
		break;
	case SYS_recvmsg:		/* always: it may bring one with a session (SCM_RIGHTS) */
		return recvmsg((int)a, (struct msghdr *)b, (int)c);
	case SYS_sendmsg:		/* always: it may carry one of ours (SCM_RIGHTS) */
		return sendmsg((int)a, (const struct msghdr *)b, (int)c);
	case SYS_sendmmsg:
		return sendmmsg((int)a, (struct mmsghdr *)b, (unsigned)c, (int)d);
	case SYS_recvmmsg:
		return recvmmsg((int)a, (struct mmsghdr *)b, (unsigned)c, (int)d, (struct timespec *)e);
	case SYS_sendfile:
		if (has(a) || has(b))
			return sendfile((int)a, (int)b, (off_t *)c, (size_t)d);
		break;
	case SYS_splice:
		if (has(a) || has(c))
			return splice((int)a, (off64_t *)b, (int)c, (off64_t *)d, (size_t)e, (unsigned)f);
		break;
	case SYS_shutdown:
		if (has(a))
			return shutdown((int)a, (int)b);
		break;
	case SYS_getsockopt:
		if (has(a))
			return getsockopt((int)a, (int)b, (int)c, (void *)d, (socklen_t *)e);
		break;
	case SYS_setsockopt:
		if (has(a))
			return setsockopt((int)a, (int)b, (int)c, (const void *)d, (socklen_t)e);
		break;
	case SYS_ioctl:
		if (has(a))
			return ioctl((int)a, (unsigned long)b, c);
		break;
	/* numbers and sockets that come and go */
	case SYS_fcntl:
		return fcntl((int)a, (int)b, c);
	case SYS_close:
		return close((int)a);
	case SYS_close_range:
		return close_range((unsigned)a, (unsigned)b, (int)c);
	case SYS_dup:
		return dup((int)a);
	case SYS_dup2:
		return dup2((int)a, (int)b);
	case SYS_dup3:
		return dup3((int)a, (int)b, (int)c);
	case SYS_socket:
		return socket((int)a, (int)b, (int)c);
	case SYS_listen:
		return listen((int)a, (int)b);
	case SYS_connect:
		return connect((int)a, (const struct sockaddr *)b, (socklen_t)c);
	case SYS_accept:
		return accept((int)a, (struct sockaddr *)b, (socklen_t *)c);
	case SYS_accept4:
		return accept4((int)a, (struct sockaddr *)b, (socklen_t *)c, (int)d);
	/* waits */
	case SYS_poll:
		return poll((struct pollfd *)a, (nfds_t)b, (int)c);
	case SYS_ppoll:
		if (kernel_mask(d, e, &buf, &set))
			return ppoll((struct pollfd *)a, (nfds_t)b, (const struct timespec *)c, set);
		break;
	case SYS_select:
		return select((int)a, (fd_set *)b, (fd_set *)c, (fd_set *)d, (struct timeval *)e);
	case SYS_pselect6:
		r = do_pselect6(a, b, c, d, e, f, &done);
		if (done)
			return r;
		break;
	case SYS_epoll_create:
		return epoll_create((int)a);
	case SYS_epoll_create1:
		return epoll_create1((int)a);
	case SYS_epoll_ctl:
		return epoll_ctl((int)a, (int)b, (int)c, (struct epoll_event *)d);
	case SYS_epoll_wait:
		return epoll_wait((int)a, (struct epoll_event *)b, (int)c, (int)d);
	case SYS_epoll_pwait:
		if (kernel_mask(e, f, &buf, &set))
			return epoll_pwait((int)a, (struct epoll_event *)b, (int)c, (int)d, set);
		break;
	case SYS_epoll_pwait2:
		if (kernel_mask(e, f, &buf, &set))
			return epoll_pwait2((int)a, (struct epoll_event *)b, (int)c, (const struct timespec *)d, set);
		break;
	/* processes */
	case SYS_execve:
		return execve((const char *)a, (char *const *)b, (char *const *)c);
	case SYS_execveat:
		return execveat((int)a, (const char *)b, (char *const *)c, (char *const *)d, (int)e);
	case SYS_exit_group:
		hand_on_exit();
		break;
	case SYS_prctl:
		return prctl((int)a, b, c, d, e);
	case SYS_seccomp:
		return sandbox_seccomp(a, b, c);
	case SYS_io_uring_setup:
		r = real.syscall(n, a, b);
		if (r >= 0)
			uring_unseen();
		return r;
	case SYS_io_uring_enter:
		if (b)
			uring_unseen();
		break;
	}
	return real.syscall(n, a, b, c, d, e, f);
}
