/* SPDX-License-Identifier: MIT */
/*
 * misuse.c - calls that must fail, and fail as the kernel fails them
 *
 * None of these may move a byte or change the connection.
 */
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "twin.h"

/* The compiler knows these calls are wrong; it must not say so. */
static void *hide(void *p)
{
	__asm__ volatile("" : "+r"(p));
	return p;
}

static volatile int minus_one = -1;

static void bad_pointers(struct tw *t, bool some)
{
	void *bad = t->buf + TW_BUF;	/* the page behind the buffer is PROT_NONE */
	struct iovec iov[2] = { { bad, 10 }, { t->buf, 10 } };
	struct msghdr mh = { .msg_iov = hide(iov), .msg_iovlen = 1 };

	tw_res(t, "write of a bad pointer", write(t->fd, hide(bad), 10));
	tw_res(t, "send of a bad pointer", send(t->fd, hide(bad), 10, MSG_NOSIGNAL));
	tw_res(t, "writev of a bad pointer", writev(t->fd, iov, 2));
	tw_res(t, "sendmsg of a bad pointer", sendmsg(t->fd, &mh, MSG_NOSIGNAL));
	tw_res(t, "sendmsg of a bad header", sendmsg(t->fd, hide(bad), MSG_NOSIGNAL));
	tw_res(t, "writev of a bad list", writev(t->fd, hide(bad), 1));
	tw_res(t, "write of NULL", write(t->fd, hide(NULL), 1));
	if (!some)
		return;
	tw_res(t, "read to a bad pointer", read(t->fd, hide(bad), 10));
	tw_res(t, "recv to a bad pointer", recv(t->fd, hide(bad), 10, MSG_DONTWAIT));
	tw_res(t, "peek to a bad pointer", recv(t->fd, hide(bad), 10, MSG_PEEK | MSG_DONTWAIT));
	tw_res(t, "readv to a bad pointer", readv(t->fd, iov, 2));
	tw_res(t, "recvmsg to a bad pointer", recvmsg(t->fd, &mh, MSG_DONTWAIT));
	tw_res(t, "recvmsg to a bad header", recvmsg(t->fd, hide(bad), MSG_DONTWAIT));
	tw_res(t, "read-only memory", read(t->fd, hide((void *)"constant"), 4));
}

static void bad_lists(struct tw *t)
{
	static struct iovec many[1025];
	struct msghdr mh = { .msg_iov = many, .msg_iovlen = 1025 };
	struct iovec neg = { t->buf, (size_t)-1 };

	tw_res(t, "writev of 1025", writev(t->fd, many, 1025));
	tw_res(t, "readv of 1025", readv(t->fd, many, 1025));
	tw_res(t, "readv of -1", readv(t->fd, many, minus_one));
	tw_res(t, "writev of 0", writev(t->fd, many, 0));
	tw_res(t, "readv of 0", readv(t->fd, many, 0));
	tw_res(t, "writev of 1024 empty", writev(t->fd, many, 1024));
	tw_res(t, "sendmsg of 1025", sendmsg(t->fd, &mh, MSG_NOSIGNAL));
	tw_res(t, "recvmsg of 1025", recvmsg(t->fd, &mh, MSG_DONTWAIT));
	tw_res(t, "writev of a negative length", writev(t->fd, &neg, 1));
	tw_res(t, "readv of a negative length", readv(t->fd, &neg, 1));
	mh.msg_iovlen = 0;
	tw_res(t, "sendmsg of none", sendmsg(t->fd, &mh, MSG_NOSIGNAL));
}

static void wrong_kind(struct tw *t, int fd, const char *what)
{
	struct sockaddr_storage sa;
	struct msghdr mh = { .msg_iovlen = 0 };
	socklen_t len = sizeof(sa);

	tw_log(t, "on %s:", what);
	tw_res(t, "send", send(fd, t->buf, 1, MSG_NOSIGNAL));
	tw_res(t, "recv", recv(fd, t->buf, 1, MSG_DONTWAIT));
	tw_res(t, "sendto", sendto(fd, t->buf, 1, MSG_NOSIGNAL, NULL, 0));
	tw_res(t, "recvfrom", recvfrom(fd, t->buf, 1, MSG_DONTWAIT, NULL, NULL));
	tw_res(t, "sendmsg", sendmsg(fd, &mh, 0));
	tw_res(t, "recvmsg", recvmsg(fd, &mh, MSG_DONTWAIT));
	tw_res(t, "recvmmsg", recvmmsg(fd, NULL, 0, MSG_DONTWAIT, NULL));
	tw_res(t, "shutdown", shutdown(fd, SHUT_RDWR));
	tw_res(t, "getpeername", getpeername(fd, (struct sockaddr *)&sa, &len));
	tw_res(t, "getsockopt", getsockopt(fd, SOL_SOCKET, SO_ERROR, &sa, &len));
	tw_res(t, "accept", accept(fd, NULL, NULL));
	tw_res(t, "listen", listen(fd, 1));
}

static void bad_number(struct tw *t, int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int v;

	tw_res(t, "read", read(fd, t->buf, 1));
	tw_res(t, "write", write(fd, t->buf, 1));
	tw_res(t, "fcntl", fcntl(fd, F_GETFL));
	tw_res(t, "ioctl", ioctl(fd, FIONREAD, &v));
	tw_res(t, "dup", dup(fd));
	tw_res(t, "close", fd < 0 ? close(fd) : 0);
	tw_res(t, "poll", poll(&pfd, 1, 0));
	tw_log(t, "revents %#x", (unsigned)pfd.revents);
}

static void bad_sets(struct tw *t)
{
	struct epoll_event ev = { .events = EPOLLIN };
	struct timeval neg = { 0, -1 };
	struct timespec ts = { -1, 0 };
	struct pollfd pfd = { .fd = t->fd, .events = POLLIN };
	int ep = epoll_create1(0), other = dup(0);

	tw_res(t, "epoll_create1 of nonsense", epoll_create1(0x12345));
	tw_res(t, "epoll_create 0", epoll_create(0));
	tw_res(t, "MOD of what is not in", epoll_ctl(ep, EPOLL_CTL_MOD, t->fd, &ev));
	tw_res(t, "DEL of what is not in", epoll_ctl(ep, EPOLL_CTL_DEL, t->fd, NULL));
	tw_res(t, "operation 17", epoll_ctl(ep, 17, t->fd, &ev));
	tw_res(t, "ADD without event", epoll_ctl(ep, EPOLL_CTL_ADD, t->fd, hide(NULL)));
	tw_res(t, "ADD of itself", epoll_ctl(ep, EPOLL_CTL_ADD, ep, &ev));
	tw_res(t, "ADD of -1", epoll_ctl(ep, EPOLL_CTL_ADD, -1, &ev));
	tw_res(t, "ADD of a file", epoll_ctl(ep, EPOLL_CTL_ADD, t->memfd, &ev));
	tw_res(t, "a socket as set", epoll_ctl(t->fd, EPOLL_CTL_ADD, other, &ev));
	tw_res(t, "ADD", epoll_ctl(ep, EPOLL_CTL_ADD, t->fd, &ev));
	tw_res(t, "ADD again", epoll_ctl(ep, EPOLL_CTL_ADD, t->fd, &ev));
	tw_res(t, "epoll_wait of 0 events", epoll_wait(ep, &ev, 0, 0));
	tw_res(t, "epoll_wait of -1 events", epoll_wait(ep, &ev, minus_one, 0));
	tw_res(t, "epoll_wait on a socket", epoll_wait(t->fd, &ev, 1, 0));
	ev = (struct epoll_event) { .events = EPOLLIN | EPOLLEXCLUSIVE };
	tw_res(t, "MOD to exclusive", epoll_ctl(ep, EPOLL_CTL_MOD, t->fd, &ev));
	tw_res(t, "DEL", epoll_ctl(ep, EPOLL_CTL_DEL, t->fd, &ev));
	ev = (struct epoll_event) { .events = EPOLLIN | EPOLLEXCLUSIVE };
	tw_res(t, "ADD exclusive", epoll_ctl(ep, EPOLL_CTL_ADD, t->fd, &ev));
	tw_res(t, "epoll_wait exclusive", epoll_wait(ep, &ev, 1, 0) >= 0 ? 0 : -1);
	close(ep);
	close(other);
	tw_res(t, "epoll_wait on a closed set", epoll_wait(ep, &ev, 1, 0));
	tw_res(t, "select with a negative time", select(0, NULL, NULL, NULL, &neg));
	tw_res(t, "ppoll with a negative time", ppoll(&pfd, 1, &ts, NULL));
	tw_res(t, "select of -1 descriptors", select(-1, NULL, NULL, NULL, NULL));
	tw_res(t, "poll of a bad list", poll(hide(t->buf + TW_BUF), 1, 0));
}

/* A set inside a set: readable when the inner one has something. */
static void nested(struct tw *t)
{
	struct epoll_event ev = { .events = EPOLLIN }, in = { .events = EPOLLIN };
	int outer = epoll_create1(0), inner = epoll_create1(0);

	tw_res(t, "inner ADD", epoll_ctl(inner, EPOLL_CTL_ADD, t->fd, &in));
	tw_res(t, "outer ADD", epoll_ctl(outer, EPOLL_CTL_ADD, inner, &ev));
	tw_res(t, "outer wait", epoll_wait(outer, &ev, 1, 0));
	tw_res(t, "inner wait", epoll_wait(inner, &ev, 1, 0));
	close(inner);
	tw_res(t, "outer wait, inner closed", epoll_wait(outer, &ev, 1, 0));
	close(outer);
}

void tw_misuse(struct tw *t, int a, unsigned which)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	struct stat st;
	loff_t off = 0;
	int v = 1, p[2], r;

	if (!MINE(t, a))
		return;
	errno = 0;
	switch (which) {
	case 0:
	case 1:
		bad_pointers(t, t->fly[!a] > 0);
		return;
	case 2:
		bad_lists(t);
		return;
	case 3:
		if (pipe(p) < 0)
			tw_fail(t, "pipe: %m");
		wrong_kind(t, p[0], "a pipe");
		close(p[0]);
		close(p[1]);
		return;
	case 4:
		wrong_kind(t, -1, "no descriptor");
		bad_number(t, -1);
		return;
	case 5:
		wrong_kind(t, 1000, "a number never opened");
		bad_number(t, 1000);
		return;
	case 6:
		bad_sets(t);
		return;
	case 7:
		getpeername(t->fd, (struct sockaddr *)&sa, &len);
		tw_res(t, "connect again", connect(t->fd, (struct sockaddr *)&sa, len));
		tw_res(t, "bind again", bind(t->fd, (struct sockaddr *)&sa, len));
		tw_res(t, "listen", listen(t->fd, 5));
		tw_res(t, "accept", accept(t->fd, NULL, NULL));
		tw_res(t, "accept4 with nonsense", accept4(t->fd, NULL, NULL, 0x7f));
		return;
	case 8:
		tw_res(t, "lseek", lseek(t->fd, 0, SEEK_CUR));
		tw_res(t, "pread", pread(t->fd, t->buf, 1, 0));
		tw_res(t, "pwrite", pwrite(t->fd, t->buf, 1, 0));
		tw_res(t, "ftruncate", ftruncate(t->fd, 0));
		tw_res(t, "fsync", fsync(t->fd));
		r = fstat(t->fd, &st);
		tw_log(t, "fstat %d socket %d", r, S_ISSOCK(st.st_mode));
		tw_res(t, "isatty", isatty(t->fd));
		return;
	case 9:
		tw_res(t, "ioctl nonsense", ioctl(t->fd, 0x7fee, &v));
		tw_res(t, "FIONREAD of NULL", ioctl(t->fd, FIONREAD, hide(NULL)));
		tw_res(t, "fcntl nonsense", fcntl(t->fd, 9999, 0));
		tw_res(t, "F_DUPFD out of range", fcntl(t->fd, F_DUPFD, INT_MAX));
		tw_res(t, "dup2 to -1", dup2(t->fd, -1));
		tw_res(t, "dup3 to itself", dup3(t->fd, t->fd, 0));
		tw_res(t, "shutdown 77", shutdown(t->fd, 77));
		return;
	case 10:
		len = 2;
		tw_res(t, "SO_RCVTIMEO too short", setsockopt(t->fd, SOL_SOCKET, SO_RCVTIMEO, &v, len));
		tw_res(t, "no such option", setsockopt(t->fd, SOL_SOCKET, 9999, &v, sizeof(v)));
		tw_res(t, "no such level", getsockopt(t->fd, 9999, 1, &v, &len));
		tw_res(t, "getsockopt to NULL", getsockopt(t->fd, SOL_SOCKET, SO_ERROR, hide(NULL), &len));
		len = (socklen_t)-1;
		tw_res(t, "getpeername length -1", getpeername(t->fd, (struct sockaddr *)&sa, &len));
		return;
	case 11:
		tw_res(t, "recv OOB without any", recv(t->fd, t->buf, 1, MSG_OOB));
		tw_res(t, "recv ERRQUEUE", recv(t->fd, t->buf, 1, MSG_ERRQUEUE | MSG_DONTWAIT));
		return;
	case 12:
		tw_res(t, "sendfile from a socket", sendfile(t->fd, t->fd, NULL, 10));
		tw_res(t, "sendfile from a bad number", sendfile(t->fd, -1, NULL, 10));
		tw_res(t, "sendfile of nothing", sendfile(t->fd, t->memfd, NULL, 0));
		off = -5;
		tw_res(t, "sendfile from a negative offset", sendfile64(t->fd, t->memfd, &off, 10));
		off = 1 << 30;
		tw_res(t, "sendfile behind the end", sendfile64(t->fd, t->memfd, &off, 10));
		tw_res(t, "splice between sockets", splice(t->fd, NULL, t->fd, NULL, 10, 0));
		off = 0;
		tw_res(t, "splice with an offset", splice(t->fd, &off, t->pipe[1], NULL, 10, SPLICE_F_NONBLOCK));
		return;
	case 13:
		nested(t);
		return;
	case 14: {
		/* a control message the kernel does not know */
		union {
			char b[CMSG_SPACE(sizeof(int))];
			struct cmsghdr align;
		} u;
		struct iovec iov = { t->buf, 0 };
		struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.b, .msg_controllen = sizeof(u.b) };
		struct cmsghdr *c;

		memset(&u, 0, sizeof(u));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = 0x7777;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		tw_res(t, "sendmsg with unknown control", sendmsg(t->fd, &mh, MSG_NOSIGNAL));
		return;
	}
	default:
		tw_res(t, "read of 0", read(t->fd, t->buf, 0));
		tw_res(t, "write of 0", write(t->fd, t->buf, 0));
		tw_res(t, "send of 0", send(t->fd, t->buf, 0, 0));
		tw_res(t, "read of 0 to NULL", read(t->fd, hide(NULL), 0));
		tw_res(t, "recv of 0, not waiting", recv(t->fd, t->buf, 0, MSG_DONTWAIT));
	}
}
