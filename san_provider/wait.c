/* SPDX-License-Identifier: MIT */
/*
 * wait.c - the one descriptor that a sleeper adds to what it waits for, and all that we keep open
 *
 * A private epoll (rule A1: never a file that a peer or the daemon holds too) with the transport's descriptor and the daemon's connection
 * in it, level-triggered. Both come and go; closing takes them out, and putting in what is there already is refused, so
 * san_wait_refresh() needs no memory. Like the client's its number is at the top, where no program meets it.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "proxy_daemon/client/rawsys.h"
#include "san_provider/san.h"

#define FD_TOP_MAX	8192	/* as in proxy_daemon/client: the kernel's table grows with the highest number */
#define FD_TOP_TRIES	64

static int to_top(int fd)
{
	struct rlimit rl;
	long top = FD_TOP_MAX, r;

	if (rawsys6(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&rl, 0, 0) == 0 && rl.rlim_cur < FD_TOP_MAX)
		top = (long)rl.rlim_cur;
	for (long i = 1; i <= FD_TOP_TRIES && top - i > fd; i++) {
		r = rawsys(SYS_fcntl, fd, F_DUPFD_CLOEXEC, top - i);
		if (r >= 0) {
			rawsys(SYS_close, fd, 0, 0);
			return (int)r;
		}
		if (r != -EMFILE && r != -EINVAL)
			break;
	}
	return fd;
}

static void add(int ep, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };

	if (fd >= 0)
		rawsys6(SYS_epoll_ctl, ep, EPOLL_CTL_ADD, fd, (long)&ev, 0, 0);
}

int san_wait_fd(void)
{
	return atomic_load_explicit(&san.wait_fd, memory_order_acquire) - 1;
}

void san_wait_refresh(void)
{
	struct rt_ctx *ctx = atomic_load(&san.rt_remote);
	int ep = san_wait_fd();

	if (!ctx)
		return;
	if (ep < 0) {
		ep = (int)rawsys(SYS_epoll_create1, EPOLL_CLOEXEC, 0, 0);
		if (ep < 0)
			return;		/* the next one may have more luck; sleepers look now and then */
		ep = to_top(ep);
		san.handles_gen++;
	}
	add(ep, rt_ctx_wait_fd(ctx));
	add(ep, proxy_client_fd(san.client));
	atomic_store_explicit(&san.wait_fd, ep + 1, memory_order_release);
}

void san_wait_close(void)
{
	int ep = san_wait_fd();

	atomic_store(&san.wait_fd, 0);
	san.handles_gen++;
	if (ep >= 0)
		rawsys(SYS_close, ep, 0, 0);
}

int san_handles(int *fds, int max)
{
	struct rt_ctx *ctx = atomic_load(&san.rt_remote);
	int own[] = { san.starts ? proxy_client_fd(san.client) : -1, san_wait_fd() }, n = 0;

	for (unsigned i = 0; i < 2; i++)
		if (own[i] >= 0 && n < max)
			fds[n++] = own[i];
	return ctx ? n + (int)rt_ctx_fds(ctx, fds + n, (unsigned)(max - n)) : n;
}

unsigned san_handles_gen(void)
{
	struct rt_ctx *ctx = atomic_load(&san.rt_remote);
	int fd = san.starts ? proxy_client_fd(san.client) : -1;

	if (fd != san.client_fd) {
		san.client_fd = fd;
		san.handles_gen++;
	}
	return san.handles_gen + (ctx ? rt_ctx_fds_gen(ctx) : 0);
}
