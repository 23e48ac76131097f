/* SPDX-License-Identifier: MIT */
/*
 * stdio.c - streams over connections: libc reads and writes them without us (G14.3, G16)
 *
 * A connection that becomes a FILE is on TCP for good from then on, and libc's own calls are exact for it. Only bytes that lie
 * unread in our ring at that moment need a way into the FILE, before what TCP brings. Such a FILE is made by fopencookie over our
 * own read and write, with the descriptor's number put into it, so that fileno() answers as usual. Filling the buffer of
 * an ordinary FILE instead would lose those bytes when the first thing done to an "r+" stream is a write.
 */
#include <stdarg.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "wsd_switch/core/agreed.h"
#include "wsd_switch/calls/stdio.h"
#include "wsd_switch/core/hand_on.h"

int __vasprintf_chk(char **ret, int flag, const char *fmt, va_list ap);
int __dprintf_chk(int fd, int flag, const char *fmt, ...);
int __vdprintf_chk(int fd, int flag, const char *fmt, va_list ap);

/* is there a connection behind this number, for a call that libc finishes without us? */
static bool has_conn(int fd)
{
	struct thr *t;
	bool yes;

	if (fd < 0 || !proc_usable() || proc_is_vfork_child())
		return false;
	t = cs_enter();
	yes = conn_get(fd) != NULL;
	cs_leave(t);
	return yes;
}

/* ---- a FILE over our own calls ---- */

static ssize_t cookie_read(void *arg, char *buf, size_t n)
{
	return read((int)(intptr_t)arg, buf, n);
}

static ssize_t cookie_write(void *arg, const char *buf, size_t n)
{
	size_t at = 0;
	ssize_t r;

	while (at < n) {
		r = write((int)(intptr_t)arg, buf + at, n - at);
		if (r < 0)
			break;	/* a short count is fopencookie's way to say error; errno is the kernel's */
		at += (size_t)r;
	}
	return (ssize_t)at;
}

static int cookie_seek(void *arg, off64_t *off, int whence)
{
	errno = ESPIPE;
	return -1;
}

static int cookie_close(void *arg)
{
	return close((int)(intptr_t)arg);
}

static FILE *open_cookie(int fd, const char *mode)
{
	static const cookie_io_functions_t io = { cookie_read, cookie_write, cookie_seek, cookie_close };
	FILE *f = fopencookie((void *)(intptr_t)fd, mode, io);

	if (f)
		f->_fileno = fd;
	return f;
}

/* the mode as fdopen judges it against the descriptor: it fails with EINVAL where fopencookie would not look */
static bool mode_fits(int fd, const char *mode)
{
	int acc = real.fcntl64(fd, F_GETFL);

	if (acc < 0)
		return false;
	acc &= O_ACCMODE;
	if (strchr("rwa", *mode) && *mode && acc == O_RDWR)
		return true;
	errno = EINVAL;
	return false;
}

WSD_EXPORT FILE *fdopen(int fd, const char *mode)
{
	bool unread = false;
	struct conn *c;
	struct thr *t;

	real_ready();
	if (!has_conn(fd))
		return real.fdopen(fd, mode);
	t = cs_enter();
	c = conn_get(fd);
	if (c) {
		conn_to_tcp(c, WSD_R_UNTRACKED);
		unread = conn_att(c) && rx_avail(c) != 0;
		if (conn_agreed(c)) {	/* a reader of ours goes on with it; who only writes has to wait until it is TCP */
			unread = *mode == 'r' || strchr(mode, '+');
			if (!unread)
				agreed_hand_on(c, fd, HAND_BLIND);
		}
	}
	cs_leave(t);
	/* for writing only, what is unread stays where our own reads, or another FILE, will find it */
	if (!unread || (*mode != 'r' && !strchr(mode, '+')))
		return real.fdopen(fd, mode);
	return mode_fits(fd, mode) ? open_cookie(fd, mode) : NULL;
}

void stdio_stdin_over_calls(void)
{
	FILE *f = open_cookie(0, "r");

	if (f)
		stdin = f;
}

/* The descriptor goes away inside libc. What the stream still holds is sent while we know the connection. */
static void before_close(FILE *f)
{
	int e = errno, fd = fileno(f);

	if (fd >= 0 && proc_usable() && !proc_is_vfork_child()) {
		if (has_conn(fd))
			fflush(f);
		eset_close_fd(fd);
		conn_close_fd(fd);
	}
	errno = e;
}

WSD_EXPORT int fclose(FILE *f)
{
	real_ready();
	before_close(f);
	return real.fclose(f);
}

WSD_EXPORT FILE *freopen64(const char *path, const char *mode, FILE *f)
{
	real_ready();
	before_close(f);
	return real.freopen64(path, mode, f);
}

WSD_EXPORT FILE *freopen(const char *path, const char *mode, FILE *f)
{
	return freopen64(path, mode, f);	/* one and the same where off_t has 64 bits */
}

/* ---- dprintf ---- */

/* all of it, as libc's own loop does; s is freed */
static int put_all(int fd, char *s, int n)
{
	int at = 0, e;
	ssize_t r;

	if (n < 0)
		return -1;
	while (at < n) {
		r = write(fd, s + at, (size_t)(n - at));
		if (r < 0) {
			n = -1;
			break;
		}
		at += (int)r;
	}
	e = errno;
	free(s);
	errno = e;
	return n;
}

WSD_EXPORT int vdprintf(int fd, const char *fmt, va_list ap)
{
	char *s = NULL;
	int n;

	real_ready();
	if (!has_conn(fd))
		return real.vdprintf(fd, fmt, ap);
	n = vasprintf(&s, fmt, ap);
	return put_all(fd, s, n);
}

WSD_EXPORT int dprintf(int fd, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = vdprintf(fd, fmt, ap);
	va_end(ap);
	return r;
}

/* the check is about %n in writable formats; __vasprintf_chk makes it */
WSD_EXPORT int __vdprintf_chk(int fd, int flag, const char *fmt, va_list ap)
{
	char *s = NULL;
	int n;

	real_ready();
	n = __vasprintf_chk(&s, flag, fmt, ap);
	return put_all(fd, s, n);
}

WSD_EXPORT int __dprintf_chk(int fd, int flag, const char *fmt, ...)
{
	va_list ap;
	int r;

	va_start(ap, fmt);
	r = __vdprintf_chk(fd, flag, fmt, ap);
	va_end(ap);
	return r;
}
