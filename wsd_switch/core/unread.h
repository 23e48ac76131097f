/* SPDX-License-Identifier: MIT */
/*
 * unread.h - the peer's socket is nobody's any more, and what we put lies unread in its ring (G21)
 *
 * Of unread bytes in the kernel TCP itself tells the sender, by a reset. Those of a ring the kernel does not know: when a process is killed, exits or
 * executes, the sender gets a FIN. Whoever meets the end of the stream, an event that may be it, or is about to send by TCP asks here first.
 */
#ifndef WSD_SWITCH_UNREAD_H
#define WSD_SWITCH_UNREAD_H

#include "wsd_switch/core/ring.h"
#include "wsd_switch/core/switch.h"

enum unread_look {
	UNREAD_NO,	/* it is not so, or nobody says so */
	UNREAD_RESET,	/* the connection was reset before; our kernel's answers are a reset's */
	UNREAD_NEWS,	/* just now, so what the kernel answered before is old */
	UNREAD_TOLD,	/* it is so, but the connection cannot be reset any more: we say so, once, for the kernel */
};

/* May sleep for some ms, once a connection (0.1 s without a daemon): it needs a moment to see that nobody holds the socket. errno is kept */
enum unread_look unread_look(struct conn *c, int fd);

/* the error of the reset, if it was not told yet, else 0, or where the kernel itself tells the right one; from here on it was. errno is kept */
int unread_error(struct conn *c, int fd);

/* what a poll adds to the kernel's answer */
static inline uint32_t unread_events(const struct conn *c, enum unread_look l)
{
	return l == UNREAD_TOLD && !(atomic_load(&c->s->flags) & S_TOLD_RESET) ? POLLERR : 0;
}

/* Is it worth asking? @events of the kernel, POLL* or EPOLL*, which have the same bits */
static inline bool unread_maybe(const struct conn *c, uint32_t events)
{
	if (likely(!conn_att(c)) || WSD_GATE_HEAD(atomic_load_explicit(&c->tx->gate, memory_order_relaxed)) ==
				    atomic_load_explicit(&c->tx->tail, memory_order_relaxed))
		return false;
	return (events & (POLLIN | POLLRDNORM | POLLRDHUP)) ||
	       (events && (atomic_load_explicit(&c->hdr->revoked, memory_order_relaxed) & ~WSD_REVOKED));
}

#endif
