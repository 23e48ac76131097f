/* SPDX-License-Identifier: MIT */
/*
 * uring.c - io_uring: the kernel reads, writes and waits for connections there without us (G14.3)
 *
 * Where a process has a ring all its connections are on TCP. But many a server has one for its disks alone (MariaDB, PostgreSQL), and
 * with WSD_URING=files a ring that liburing made, with no flags, is left alone as long as each entry that goes into it is an operation
 * on a regular file or a block device. Not by default: a ring that turns to a connection later could find bytes unread in ours. liburing makes its system calls itself, but entries reach the kernel by those of its functions below only, and lie
 * from sqe_head to sqe_tail until then; the layout has been the same since its first release. The first entry of another
 * kind ends this for the process, before the kernel sees it; so does a ring made or entered in any other way.
 */
#include <dlfcn.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <sys/stat.h>

#include "wsd_switch/calls/uring.h"
#include "wsd_switch/core/hand_on.h"

struct __kernel_timespec;
struct io_uring_cqe;

/* what liburing promises of its struct io_uring, as far as we look */
struct io_uring {
	unsigned *khead, *ktail, *kring_mask, *kring_entries, *kflags, *kdropped, *array;
	struct io_uring_sqe *sqes;
	unsigned sqe_head, sqe_tail;
};

void uring_unseen(void)
{
	if (!proc_on || atomic_exchange(&proc_uring, 1))
		return;
	if (proc_usable())
		hand_on_all_untracked();
}

/* errno is kept by the caller */
static bool of_files(const struct io_uring_sqe *e)
{
	struct stat st;

	switch (e->opcode) {
	case IORING_OP_NOP:
		return true;
	case IORING_OP_READV:
	case IORING_OP_WRITEV:
	case IORING_OP_READ_FIXED:
	case IORING_OP_WRITE_FIXED:
	case IORING_OP_READ:
	case IORING_OP_WRITE:
	case IORING_OP_FSYNC:
	case IORING_OP_SYNC_FILE_RANGE:
	case IORING_OP_FALLOCATE:
	case IORING_OP_FADVISE:
		/* a number of the ring's own table of files could be any */
		return !(e->flags & IOSQE_FIXED_FILE) && fstat(e->fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
	}
	return false;
}

static void look(const struct io_uring *r)
{
	int e = errno;
	unsigned i, n;

	if (!proc_on || atomic_load_explicit(&proc_uring, memory_order_relaxed))
		return;
	n = r->sqe_tail - r->sqe_head;
	if (n && (!r->kring_mask || n > *r->kring_mask + 1)) {
		uring_unseen();
		n = 0;
	}
	for (i = 0; i < n; i++) {
		if (!of_files(&r->sqes[(r->sqe_head + i) & *r->kring_mask])) {
			uring_unseen();
			break;
		}
	}
	errno = e;
}

/* a plug-in that was loaded with RTLD_LOCAL brings liburing where RTLD_NEXT does not find it */
static void *in_liburing(const char *name)
{
	static const char *const libs[] = { "liburing.so.2", "liburing.so.1" };
	void *f, *h;
	unsigned i;

	real_ready();
	f = real_sym(name);
	for (i = 0; !f && i < 2; i++) {
		h = dlopen(libs[i], RTLD_LAZY | RTLD_NOLOAD);	/* kept: the pointer stays */
		if (h)
			f = dlsym(h, name);
	}
	return f;
}

#define REAL(name) \
	static __typeof__(name) *_Atomic f_; \
	__typeof__(name) *f = atomic_load_explicit(&f_, memory_order_relaxed); \
	if (unlikely(!f)) { \
		f = (__typeof__(name) *)in_liburing(#name); \
		if (!f) \
			return -ENOSYS; \
		atomic_store_explicit(&f_, f, memory_order_relaxed); \
	}

/* ---- rings ---- */

/* a ring was made, if r says so: seen tells whether what goes into it will be */
#define MADE(name, seen, ...) do { \
	int r_; \
	REAL(name); \
	r_ = f(__VA_ARGS__); \
	if (r_ >= 0 && !(cfg.uring_files && (seen))) \
		uring_unseen(); \
	return r_; \
} while (0)

int io_uring_setup(unsigned n, struct io_uring_params *p);
int io_uring_queue_init(unsigned n, struct io_uring *r, unsigned flags);
int io_uring_queue_init_params(unsigned n, struct io_uring *r, struct io_uring_params *p);
int io_uring_queue_init_mem(unsigned n, struct io_uring *r, struct io_uring_params *p, void *buf, size_t len);

WSD_EXPORT int io_uring_setup(unsigned n, struct io_uring_params *p)
{
	MADE(io_uring_setup, false, n, p);
}

WSD_EXPORT int io_uring_queue_init(unsigned n, struct io_uring *r, unsigned flags)
{
	MADE(io_uring_queue_init, flags == 0, n, r, flags);
}

WSD_EXPORT int io_uring_queue_init_params(unsigned n, struct io_uring *r, struct io_uring_params *p)
{
	unsigned flags = p ? p->flags : 1;

	MADE(io_uring_queue_init_params, flags == 0, n, r, p);
}

WSD_EXPORT int io_uring_queue_init_mem(unsigned n, struct io_uring *r, struct io_uring_params *p, void *buf, size_t len)
{
	MADE(io_uring_queue_init_mem, false, n, r, p, buf, len);
}

/* ---- entries: each of these may hand them to the kernel ---- */

#define HANDS(name, r, ...) do { \
	REAL(name); \
	look(r); \
	return f(r, ##__VA_ARGS__); \
} while (0)

int io_uring_submit(struct io_uring *r);
int io_uring_submit_and_wait(struct io_uring *r, unsigned n);
int io_uring_submit_and_wait_timeout(struct io_uring *r, struct io_uring_cqe **c, unsigned n, struct __kernel_timespec *t, sigset_t *m);
int io_uring_submit_and_wait_min_timeout(struct io_uring *r, struct io_uring_cqe **c, unsigned n, struct __kernel_timespec *t,
					 unsigned min, sigset_t *m);
int io_uring_submit_and_wait_reg(struct io_uring *r, struct io_uring_cqe **c, unsigned n, int i);
int io_uring_submit_and_get_events(struct io_uring *r);
int io_uring_wait_cqes(struct io_uring *r, struct io_uring_cqe **c, unsigned n, struct __kernel_timespec *t, sigset_t *m);
int io_uring_wait_cqes_min_timeout(struct io_uring *r, struct io_uring_cqe **c, unsigned n, struct __kernel_timespec *t, unsigned min,
				   sigset_t *m);
int io_uring_wait_cqe_timeout(struct io_uring *r, struct io_uring_cqe **c, struct __kernel_timespec *t);

WSD_EXPORT int io_uring_submit(struct io_uring *r)
{
	HANDS(io_uring_submit, r);
}

WSD_EXPORT int io_uring_submit_and_wait(struct io_uring *r, unsigned n)
{
	HANDS(io_uring_submit_and_wait, r, n);
}

WSD_EXPORT int io_uring_submit_and_wait_timeout(struct io_uring *r, struct io_uring_cqe **c, unsigned n, struct __kernel_timespec *t,
						sigset_t *m)
{
	HANDS(io_uring_submit_and_wait_timeout, r, c, n, t, m);
}

WSD_EXPORT int io_uring_submit_and_wait_min_timeout(struct io_uring *r, struct io_uring_cqe **c, unsigned n, struct __kernel_timespec *t,
						    unsigned min, sigset_t *m)
{
	HANDS(io_uring_submit_and_wait_min_timeout, r, c, n, t, min, m);
}

WSD_EXPORT int io_uring_submit_and_wait_reg(struct io_uring *r, struct io_uring_cqe **c, unsigned n, int i)
{
	HANDS(io_uring_submit_and_wait_reg, r, c, n, i);
}

WSD_EXPORT int io_uring_submit_and_get_events(struct io_uring *r)
{
	HANDS(io_uring_submit_and_get_events, r);
}

WSD_EXPORT int io_uring_wait_cqes(struct io_uring *r, struct io_uring_cqe **c, unsigned n, struct __kernel_timespec *t, sigset_t *m)
{
	HANDS(io_uring_wait_cqes, r, c, n, t, m);
}

WSD_EXPORT int io_uring_wait_cqes_min_timeout(struct io_uring *r, struct io_uring_cqe **c, unsigned n, struct __kernel_timespec *t,
					      unsigned min, sigset_t *m)
{
	HANDS(io_uring_wait_cqes_min_timeout, r, c, n, t, min, m);
}

WSD_EXPORT int io_uring_wait_cqe_timeout(struct io_uring *r, struct io_uring_cqe **c, struct __kernel_timespec *t)
{
	HANDS(io_uring_wait_cqe_timeout, r, c, t);
}

/* who calls these keeps the entries himself */
int io_uring_enter(unsigned fd, unsigned n, unsigned min, unsigned flags, sigset_t *m);
int io_uring_enter2(unsigned fd, unsigned n, unsigned min, unsigned flags, sigset_t *m, size_t len);

WSD_EXPORT int io_uring_enter(unsigned fd, unsigned n, unsigned min, unsigned flags, sigset_t *m)
{
	REAL(io_uring_enter);
	if (n)
		uring_unseen();
	return f(fd, n, min, flags, m);
}

WSD_EXPORT int io_uring_enter2(unsigned fd, unsigned n, unsigned min, unsigned flags, sigset_t *m, size_t len)
{
	REAL(io_uring_enter2);
	if (n)
		uring_unseen();
	return f(fd, n, min, flags, m, len);
}
