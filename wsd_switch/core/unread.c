/* SPDX-License-Identifier: MIT */
/*
 * unread.c - a receiver that has gone without reading what we put (unread.h)
 *
 * Three things must be so: the kernel says FIN; our head is not the peer's tail; the daemon, who asks the kernel, says that nobody holds the peer's
 * socket (WSD_END_GONE). A FIN alone may be shutdown(SHUT_WR) of a peer that goes on reading.
 *
 * What poll, epoll, getpeername and all the rest answer then is best left to the kernel, so it gets its reset: one byte is sent to the socket that
 * nobody holds, and answered by RST. As urgent data, which neither Nagle nor TCP_CORK holds back. If the word was wrong (a peer may write it, too, to its
 * own harm) even that byte would not be in the stream.
 *
 * Only the error differs: a reset behind a FIN is EPIPE, and is ECONNRESET without one. It stays the kernel's, so that polls see it, and is put right
 * by who takes it. A FIN that the peer asked for itself (WSD_X_SHUT) would have come before the reset on plain TCP as well.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include "wsd_switch/core/unread.h"

#define WORD_US		100000	/* for the daemon's word: a millisecond, but it looks ever less often, and the machine may be crowded */
#define VAIN_US		2000000	/* a daemon that does not answer is not waited for again so soon */
#define RST_US		10000
#define NAP_US		250

enum { TS_TIME_WAIT = 6, TS_CLOSE = 7, TS_CLOSE_WAIT = 8, TS_LAST_ACK = 9, TS_CLOSING = 11 };

static int state_of(int fd)
{
	struct tcp_info ti;
	socklen_t l = 1;

	return real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &l) == 0 ? ti.tcpi_state : TS_CLOSE;
}

/* what was carried through exec is read from a copy, and the tail does not say so: then a FIN is the end of the stream */
static bool left(const struct conn *c)
{
	return !(atomic_load(&c->tx->yflags) & WSD_Y_CARRIED) && WSD_GATE_HEAD(atomic_load(&c->tx->gate)) != atomic_load(&c->tx->tail);
}

static bool peer_gone(const struct conn *c)
{
	return atomic_load(&c->hdr->revoked) & WSD_END_GONE(c->rx == &c->hdr->dir[0] ? 0 : 1);
}

/* The daemon's word, waited for at one time in a connection's life: a peer of another build may have had a reason for its FIN that it does not publish.
 * In a process whose daemon does not answer only the first of many connections waits. */
static bool asked_daemon(struct conn *c)
{
	static _Atomic uint64_t vain;
	uint64_t t0 = tsc_now(), now = t0, v = atomic_load(&vain);
	bool wait = !(atomic_load(&c->rx->xflags) & WSD_X_SHUT) && (!v || t0 - v > (uint64_t)US(VAIN_US)) &&
		    !(atomic_fetch_or(&c->s->flags, S_UNREAD_ASKED) & S_UNREAD_ASKED);

	while (!peer_gone(c)) {
		if (!wait || !left(c))
			return false;
		if (now - t0 > (uint64_t)US(WORD_US)) {
			atomic_store(&vain, now);
			return false;
		}
		thr_nap(NAP_US);
		now = tsc_now();
	}
	return left(c);
}

/* one thread of all processes that share the socket; the others wait for it */
static void provoke(struct conn *c, int fd)
{
	unsigned us;

	if (!(atomic_fetch_or(&c->s->flags, S_UNREAD_RESET) & S_UNREAD_RESET) &&
	    real.send(fd, "", 1, MSG_OOB | MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
		cnt_add64(&c->s->H, 1);
	for (us = 0; us < RST_US && state_of(fd) != TS_CLOSE; us += NAP_US)
		thr_nap(NAP_US);
}

/* closed by a FIN each way; after a reset, too, the state is CLOSE, but one octet of the stream is missing that is none of the program's */
static bool both_fins(struct conn *c, int fd)
{
	uint64_t k;
	int state, inq;

	return (atomic_load(&c->s->flags) & S_SHUT_WR) && off_kernel_c(fd, &k, &state, &inq) == 0 && k == atomic_load(&c->s->C) + 1;
}

static bool fin_came(struct conn *c, int fd, int state)
{
	return state == TS_CLOSE_WAIT || state == TS_LAST_ACK || state == TS_CLOSING || state == TS_TIME_WAIT ||
	       (state == TS_CLOSE && both_fins(c, fd));
}

enum unread_look unread_look(struct conn *c, int fd)
{
	enum unread_look r = UNREAD_NO;
	int state, e = errno;

	state = state_of(fd);
	if (atomic_load(&c->s->flags) & S_UNREAD_RESET) {
		if (state != TS_CLOSE && !(atomic_load(&c->s->flags) & S_TOLD_RESET)) {
			provoke(c, fd);		/* another thread is at it */
			state = state_of(fd);
		}
		errno = e;
		return state == TS_CLOSE ? UNREAD_RESET : UNREAD_TOLD;	/* else the RST was filtered */
	}
	if (!left(c) || !fin_came(c, fd, state) || !asked_daemon(c))
		goto out;
	log_debug("conn %u (descriptor %d): nobody holds the peer's socket, and %u bytes lie unread there", c->index, fd,
		  WSD_GATE_HEAD(atomic_load(&c->tx->gate)) - atomic_load(&c->tx->tail));
	r = UNREAD_TOLD;
	if (state == TS_CLOSE_WAIT) {
		provoke(c, fd);
		if (state_of(fd) == TS_CLOSE)
			r = UNREAD_NEWS;
	}
out:
	errno = e;
	return r;
}

int unread_error(struct conn *c, int fd)
{
	socklen_t l = sizeof(int);
	int v = 0, e = errno;

	if (!(atomic_load(&c->s->flags) & S_UNREAD_RESET) || state_of(fd) != TS_CLOSE)
		return atomic_fetch_or(&c->s->flags, S_TOLD_RESET) & S_TOLD_RESET ? 0 : ECONNRESET;
	if (atomic_load(&c->rx->xflags) & WSD_X_SHUT)
		return 0;	/* as the kernel tells it */
	if (real.getsockopt(fd, SOL_SOCKET, SO_ERROR, &v, &l) < 0)
		v = 0;
	errno = e;
	if (atomic_load(&c->s->flags) & S_TOLD_RESET)
		return 0;		/* before the RST came */
	return v == EPIPE ? ECONNRESET : v;
}
