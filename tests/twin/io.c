/* SPDX-License-Identifier: MIT */
/*
 * io.c - one send or receive, by one of the many calls that do it
 *
 * All shape (how a message is cut into pieces, which flags) comes from a private generator, @sub, so that
 * the end which does not perform the call has nothing to follow.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "twin.h"

#define IOV_MAX_USED 48

/* Cuts [p, p + n) into pieces, some of them empty; returns how many. */
static unsigned cut(struct iovec *iov, unsigned char *p, size_t n, uint64_t *sub)
{
	unsigned want = 1 + tw_mix(sub, IOV_MAX_USED - 1), i;

	for (i = 0; i + 1 < want; i++) {
		size_t len = 0;

		switch (tw_mix(sub, 4)) {
		case 0:
			break;
		case 1:
			len = 1 + tw_mix(sub, 7);
			break;
		case 2:
			len = tw_mix(sub, 300);
			break;
		default:
			len = n ? tw_mix(sub, n + 1 > INT_MAX ? INT_MAX : (unsigned)n + 1) : 0;
		}
		if (len > n)
			len = n;
		iov[i] = (struct iovec) { p, len };
		p += len;
		n -= len;
	}
	iov[i] = (struct iovec) { p, n };
	return i + 1;
}

static ssize_t send_mmsg(struct tw *t, size_t n, int flags, uint64_t sub, int *ret_count)
{
	struct mmsghdr mm[4];
	struct iovec iov[4];
	size_t off = 0, done = 0;
	int i, r;

	memset(mm, 0, sizeof(mm));
	for (i = 0; i < 4; i++) {
		size_t len = i == 3 ? n - off : tw_mix(&sub, (unsigned)(n - off) + 1);

		iov[i] = (struct iovec) { t->buf + off, len };
		mm[i].msg_hdr.msg_iov = &iov[i];
		mm[i].msg_hdr.msg_iovlen = 1;
		off += len;
	}
	r = sendmmsg(t->fd, mm, 4, flags);
	*ret_count = r;
	for (i = 0; i < r; i++)
		done += mm[i].msg_len;
	return r < 0 ? -1 : (ssize_t)done;
}

static ssize_t send_file(struct tw *t, size_t n, bool with_offset)
{
	off_t off = 3;

	if (ftruncate(t->memfd, 0) < 0 || pwrite(t->memfd, t->buf, n, off) != (ssize_t)n)
		tw_fail(t, "cannot write the file to send: %m");
	if (with_offset) {
		ssize_t r = sendfile(t->fd, t->memfd, &off, n);

		if (r >= 0 && off != 3 + r)
			tw_log(t, "sendfile moved the offset to %lld after %zd bytes", (long long)off, r);
		return r;
	}
	if (lseek(t->memfd, off, SEEK_SET) < 0)
		tw_fail(t, "lseek: %m");
	return sendfile(t->fd, t->memfd, NULL, n);
}

/* Through a pipe in pieces a pipe holds; the total is what is compared. */
static ssize_t send_splice(struct tw *t, size_t n)
{
	size_t done = 0;

	while (done < n) {
		size_t piece = n - done > 16384 ? 16384 : n - done;
		ssize_t w = write(t->pipe[1], t->buf + done, piece), s;

		if (w <= 0)
			tw_fail(t, "cannot fill the pipe: %m");
		while (w > 0) {
			s = splice(t->pipe[0], NULL, t->fd, NULL, (size_t)w, 0);
			if (s <= 0) {
				char drop[4096];
				int e = errno;

				while (w > 0 && (s = read(t->pipe[0], drop, sizeof(drop))) > 0)
					w -= s;
				errno = e;
				return done ? (ssize_t)done : -1;
			}
			w -= s;
			done += (size_t)s;
		}
	}
	return (ssize_t)done;
}

ssize_t tw_send(struct tw *t, unsigned kind, size_t n, int flags, uint64_t sub)
{
	struct iovec iov[IOV_MAX_USED];
	struct msghdr mh = { .msg_iov = iov };
	struct sockaddr_storage any = { .ss_family = AF_INET };
	const char *name;
	int count = 0, fd2;
	ssize_t r;

	tw_fill(t, t->buf, n);
	errno = 0;
	switch (kind % TW_SEND_KINDS) {
	default:
		name = "write";
		r = write(t->fd, t->buf, n);
		break;
	case 1:
		name = "send";
		r = send(t->fd, t->buf, n, flags);
		break;
	case 2:
		name = "sendto";
		r = sendto(t->fd, t->buf, n, flags, NULL, 0);
		break;
	case 3:
		name = "sendto+addr";	/* the address is ignored on a connected stream */
		r = sendto(t->fd, t->buf, n, flags, (struct sockaddr *)&any, sizeof(struct sockaddr));
		break;
	case 4:
		name = "writev";
		r = writev(t->fd, iov, (int)cut(iov, t->buf, n, &sub));
		break;
	case 5:
		name = "sendmsg";
		mh.msg_iovlen = cut(iov, t->buf, n, &sub);
		r = sendmsg(t->fd, &mh, flags);
		break;
	case 6:
		name = "sendmmsg";
		r = send_mmsg(t, n, flags, sub, &count);
		tw_log(t, "sendmmsg messages %d", count);
		break;
	case 7:
		name = "sendfile+offset";
		r = send_file(t, n, true);
		break;
	case 8:
		name = "sendfile";
		r = send_file(t, n, false);
		break;
	case 9:
		name = "splice-in";
		r = n ? send_splice(t, n) : 0;
		break;
	case 10:
		name = "syscall(write)";
		r = syscall(SYS_write, t->fd, t->buf, n);
		break;
	case 11:
		name = "syscall(sendto)";
		r = syscall(SYS_sendto, t->fd, t->buf, n, flags, NULL, 0);
		break;
	case 12:
		name = "dprintf";
		r = dprintf(t->fd, "%.*s", (int)n, (char *)t->buf);
		break;
	case 13:
		name = "write-by-dup";
		fd2 = dup(t->fd);
		r = write(fd2, t->buf, n);
		count = errno;
		close(fd2);
		errno = count;
		break;
	}
	if (r > 0)
		t->tx += (uint64_t)r;
	tw_log(t, "%s %zu flags %#x = %zd %s", name, n, (unsigned)flags, r, r < 0 ? strerrorname_np(errno) : "ok");
	return r;
}

/* The calls below know the size of their buffer, so a fortified build goes through their __*_chk twins. */
static unsigned char known[2][8192];
#ifdef __OPTIMIZE__
#define FORTIFIED 1
#else
#define FORTIFIED 0
#endif

static ssize_t recv_mmsg(struct tw *t, size_t n, int flags, int *ret_count)
{
	struct mmsghdr mm[3];
	struct iovec iov[3];
	size_t done = 0, off = 0;
	int i, r;

	memset(mm, 0, sizeof(mm));
	for (i = 0; i < 3; i++) {
		size_t len = i == 2 ? n - off : n / 3;

		iov[i] = (struct iovec) { t->buf + off, len };
		mm[i].msg_hdr.msg_iov = &iov[i];
		mm[i].msg_hdr.msg_iovlen = 1;
		off += len;
	}
	/* With zero-length messages in front a second one would wait: MSG_DONTWAIT and MSG_WAITFORONE only. */
	r = recvmmsg(t->fd, mm, 3, flags | MSG_WAITFORONE, NULL);
	*ret_count = r;
	for (i = 0; i < r; i++)
		done += mm[i].msg_len;
	return r < 0 ? -1 : (ssize_t)done;
}

static ssize_t recv_splice(struct tw *t, size_t n, bool blocking)
{
	size_t done = 0;
	ssize_t s, r;

	if (n > 16384)
		n = 16384;
	s = splice(t->fd, NULL, t->pipe[1], NULL, n, blocking ? 0 : SPLICE_F_NONBLOCK);
	if (s <= 0)
		return s;
	while (done < (size_t)s) {
		r = read(t->pipe[0], t->buf + done, (size_t)s - done);
		if (r <= 0)
			tw_fail(t, "spliced bytes missing in the pipe: %m");
		done += (size_t)r;
	}
	return s;
}

ssize_t tw_recv(struct tw *t, unsigned kind, size_t n, int flags, uint64_t sub)
{
	struct sockaddr_storage from;
	socklen_t fromlen = sizeof(from);
	struct iovec iov[IOV_MAX_USED];
	char control[128];
	struct msghdr mh = { .msg_iov = iov, .msg_name = &from, .msg_namelen = sizeof(from),
			     .msg_control = control, .msg_controllen = sizeof(control), .msg_flags = -1 };
	unsigned char *p = t->buf;
	const char *name;
	bool exact = true, bytes = !(flags & MSG_TRUNC), known_ok = n <= sizeof(known[0]) && FORTIFIED;
	int count = 0, fd2;
	ssize_t r;

	if (n > TW_BUF)
		n = TW_BUF;
	memset(t->buf, 0, n < 65536 ? n : 65536);
	errno = 0;
	switch (kind % TW_RECV_KINDS) {
	default:
		name = "read";
		flags = 0;
		r = read(t->fd, p, n);
		break;
	case 1:
		name = "recv";
		r = recv(t->fd, p, n, flags);
		break;
	case 2:
		name = "recvfrom";
		memset(&from, 0x77, sizeof(from));
		r = recvfrom(t->fd, p, n, flags, (struct sockaddr *)&from, &fromlen);
		if (r >= 0)
			tw_log(t, "recvfrom address length %u family %#x", fromlen, from.ss_family);
		break;
	case 3:
		name = "readv";
		flags = 0;
		r = readv(t->fd, iov, (int)cut(iov, p, n, &sub));
		break;
	case 4:
		name = "recvmsg";
		mh.msg_iovlen = cut(iov, p, n, &sub);
		r = recvmsg(t->fd, &mh, flags);
		if (r >= 0)
			tw_log(t, "recvmsg namelen %u controllen %zu flags %#x", mh.msg_namelen,
			       (size_t)mh.msg_controllen, (unsigned)mh.msg_flags);
		break;
	case 5:
		name = "recvmmsg";
		r = recv_mmsg(t, n, flags & ~(MSG_PEEK | MSG_TRUNC), &count);
		bytes = true;
		flags &= ~(MSG_PEEK | MSG_TRUNC);
		tw_log(t, "recvmmsg messages %d", count);
		break;
	case 6:
		name = "syscall(read)";
		flags = 0;
		r = syscall(SYS_read, t->fd, p, n);
		break;
	case 7:
		name = "syscall(recvfrom)";
		r = syscall(SYS_recvfrom, t->fd, p, n, flags, NULL, NULL);
		break;
	case 8:
		name = "read-known";
		flags = 0;
		if (known_ok)
			p = known[t->me];
		r = known_ok ? read(t->fd, known[t->me], n) : read(t->fd, p, n);
		break;
	case 9:
		name = "recv-known";
		if (known_ok)
			p = known[t->me];
		r = known_ok ? recv(t->fd, known[t->me], n, flags) : recv(t->fd, p, n, flags);
		break;
	case 10:
		name = "splice-out";
		exact = false;		/* how much one call moves depends on the kernel's buffers */
		r = n ? recv_splice(t, n, !t->nb[t->me] && !(flags & MSG_DONTWAIT)) : 0;
		flags = 0;
		break;
	case 11:
		name = "recv-by-dup";
		fd2 = dup(t->fd);
		r = recv(fd2, p, n, flags);
		count = errno;
		close(fd2);
		errno = count;
		break;
	}
	count = errno;
	if (flags & MSG_TRUNC)
		bytes = kind % TW_RECV_KINDS == 0 || kind % TW_RECV_KINDS == 3 || kind % TW_RECV_KINDS == 6 ||
			kind % TW_RECV_KINDS == 8;
	else
		bytes = true;
	if (r > 0 && bytes)
		tw_check(t, p, (size_t)r, !(flags & MSG_PEEK));
	else if (r > 0 && !(flags & MSG_PEEK))
		t->rx += (uint64_t)r;
	if (exact || r <= 0)
		tw_log(t, "%s %zu flags %#x = %zd %s", name, n, (unsigned)flags, r,
		       r < 0 ? strerrorname_np(count) : "ok");
	if (!exact && r > 0) {
		/* bring it to a fixed point: what one whole read would have given */
		size_t want = n > 16384 ? 16384 : n, done = (size_t)r;
		uint32_t fly = t->fly[!t->me];

		if (want > fly)
			want = fly;
		if (done < want)
			tw_recv_all(t, want - done, 4096, sub);
		tw_log(t, "%s %zu = some, then the rest of %zu", name, n, want);
		return (ssize_t)want;
	}
	errno = count;
	return r;
}

/* Waits for the event, at most 10 s, in the kernel. */
static void until(struct tw *t, short ev)
{
	struct pollfd pfd = { .fd = t->fd, .events = ev };
	int r = poll(&pfd, 1, 10000);

	if (r == 0)
		tw_fail(t, "no event %#x in 10 s: %llu sent, %llu received", (unsigned)ev,
			(unsigned long long)t->tx, (unsigned long long)t->rx);
}

void tw_send_all(struct tw *t, size_t n, size_t chunk, uint64_t sub)
{
	while (n) {
		size_t len = chunk > 1 ? 1 + tw_mix(&sub, (unsigned)chunk) : 1;
		ssize_t r;

		if (len > n)
			len = n;
		tw_fill(t, t->buf, len);
		switch (tw_mix(&sub, 4)) {
		case 0:
			r = write(t->fd, t->buf, len);
			break;
		case 1: {
			struct iovec iov[2] = { { t->buf, len / 2 }, { t->buf + len / 2, len - len / 2 } };

			r = writev(t->fd, iov, 2);
			break;
		}
		default:
			r = send(t->fd, t->buf, len, MSG_NOSIGNAL);
		}
		if (r < 0 && (errno == EAGAIN || errno == EINTR)) {
			if (errno == EAGAIN)
				until(t, POLLOUT);
			continue;
		}
		if (r <= 0)
			tw_fail(t, "send of %zu gave %zd: %m", len, r);
		t->tx += (uint64_t)r;
		n -= (size_t)r;
	}
}

void tw_recv_all(struct tw *t, size_t n, size_t chunk, uint64_t sub)
{
	while (n) {
		size_t len = chunk > 1 ? 1 + tw_mix(&sub, (unsigned)chunk) : 1;
		ssize_t r;

		if (len > n)
			len = n;
		r = tw_mix(&sub, 2) ? recv(t->fd, t->buf, len, 0) : read(t->fd, t->buf, len);
		if (r < 0 && (errno == EAGAIN || errno == EINTR)) {
			if (errno == EAGAIN)
				until(t, POLLIN);
			continue;
		}
		if (r <= 0)
			tw_fail(t, "receive of %zu gave %zd (%s) at offset %llu", len, r,
				r ? strerrorname_np(errno) : "end of file", (unsigned long long)t->rx);
		tw_check(t, t->buf, (size_t)r, true);
		n -= (size_t)r;
	}
}
