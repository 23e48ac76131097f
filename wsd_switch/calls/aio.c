/* SPDX-License-Identifier: MIT */
/*
 * aio.c - POSIX aio on connections: libc's threads read and write them without us (G14.3)
 *
 * The connection is on TCP for good from then on. A read that meets bytes unread in our ring is answered here, at once: it
 * copies what there is, sets the control block as libc would, and notifies. Where the ring is not readable yet (TCP bytes before it
 * are on their way) libc's thread could read past it: that connection is reset.
 */
#include <aio.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wsd_switch/core/hand_on.h"

/* true: the connection has bytes in the ring that a read by libc would miss */
static bool to_libc(int fd)
{
	bool unread = false;
	struct conn *c;
	struct thr *t;

	real_ready();
	if (!proc_usable() || !conn_get(fd))
		return false;
	t = cs_enter();
	c = conn_get(fd);
	if (c)
		unread = hand_on_untracked(c);
	cs_leave(t);
	return unread;
}

struct note {
	void (*fn)(union sigval);
	union sigval val;
};

static void *note_thread(void *arg)
{
	struct note n = *(struct note *)arg;

	free(arg);
	n.fn(n.val);
	return NULL;
}

static void notify(const struct sigevent *ev)
{
	if (ev->sigev_notify == SIGEV_SIGNAL) {
		siginfo_t si = { 0 };

		si.si_signo = ev->sigev_signo;
		si.si_code = SI_ASYNCIO;
		si.si_pid = getpid();
		si.si_uid = getuid();
		si.si_value = ev->sigev_value;
		real.syscall(SYS_rt_sigqueueinfo, getpid(), ev->sigev_signo, &si);
	} else if (ev->sigev_notify == SIGEV_THREAD) {
		struct note *n = malloc(sizeof(*n));
		pthread_attr_t own, *at = ev->sigev_notify_attributes;
		pthread_t th;

		if (!n)
			return;
		n->fn = ev->sigev_notify_function;
		n->val = ev->sigev_value;
		if (!at) {
			pthread_attr_init(&own);
			pthread_attr_setdetachstate(&own, PTHREAD_CREATE_DETACHED);
			at = &own;
		}
		if (pthread_create(&th, at, note_thread, n) != 0)
			free(n);
		if (at == &own)
			pthread_attr_destroy(&own);
	}
}

/* a read that the ring can answer; false: libc's business */
static bool answer(struct aiocb *cb)
{
	ssize_t r;
	int e = errno;

	if (!to_libc(cb->aio_fildes))
		return false;
	r = recv(cb->aio_fildes, (void *)cb->aio_buf, cb->aio_nbytes, MSG_DONTWAIT);
	if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		if (to_libc(cb->aio_fildes)) {
			struct thr *t = cs_enter();
			struct conn *c = conn_get(cb->aio_fildes);

			if (c)
				conn_reset(c, cb->aio_fildes, "aio_read before TCP bytes that precede the ring's");
			cs_leave(t);
		}
		errno = e;
		return false;
	}
	cb->__return_value = r;
	__atomic_store_n(&cb->__error_code, r < 0 ? errno : 0, __ATOMIC_RELEASE);
	errno = e;
	notify(&cb->aio_sigevent);
	return true;
}

WSD_EXPORT int aio_read(struct aiocb *cb)
{
	return answer(cb) ? 0 : real.aio_read(cb);
}

WSD_EXPORT int aio_write(struct aiocb *cb)
{
	(void)to_libc(cb->aio_fildes);
	return real.aio_write(cb);
}

WSD_EXPORT int lio_listio(int mode, struct aiocb *const list[], int n, struct sigevent *ev)
{
	struct aiocb **rest = NULL;
	int i, r;

	real_ready();
	for (i = 0; i < n; i++) {
		struct aiocb *cb = list[i];

		if (!cb || cb->aio_lio_opcode == LIO_NOP)
			continue;
		if (cb->aio_lio_opcode != LIO_READ) {
			(void)to_libc(cb->aio_fildes);
			continue;
		}
		if (!to_libc(cb->aio_fildes))
			continue;
		if (!rest) {		/* libc passes over a NULL in its list */
			rest = malloc(sizeof(*rest) * (size_t)n);
			if (!rest) {
				errno = EAGAIN;
				return -1;
			}
			memcpy(rest, list, sizeof(*rest) * (size_t)n);
		}
		if (answer(cb))
			rest[i] = NULL;
	}
	r = real.lio_listio(mode, rest ? rest : list, n, ev);
	if (rest) {
		int e = errno;

		free(rest);
		errno = e;
	}
	return r;
}

WSD_EXPORT int aio_read64(struct aiocb64 *cb)
{
	return aio_read((struct aiocb *)cb);
}

WSD_EXPORT int aio_write64(struct aiocb64 *cb)
{
	return aio_write((struct aiocb *)cb);
}

WSD_EXPORT int lio_listio64(int mode, struct aiocb64 *const list[], int n, struct sigevent *ev)
{
	return lio_listio(mode, (struct aiocb *const *)list, n, ev);
}
