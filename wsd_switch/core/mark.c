/* SPDX-License-Identifier: MIT */
/*
 * mark.c - two bits in the socket itself
 *
 * A process that receives or inherits a TCP descriptor must know whether another one attached it to a session, and whether ring
 * bytes were unread when it was handed on, also when no daemon is there to ask, and at the price of one system call when there was
 * nothing. All that the holders of a socket share is the socket. So the bits lie in two flags of it that any user may set and
 * read, that TCP does not look at, and that nobody uses on TCP sockets:
 *
 *   MARK_SESSION  SO_NOFCS (Ethernet checksums of packet sockets): set when the session is attached, for ever
 *   MARK_UNREAD   SO_WIFI_STATUS (wireless frames): set when unread bytes are handed on, cleared when the ring is empty or
 *                 somebody has re-attached
 *
 * Whoever can set them holds the socket, and so could read or reset the stream anyway.
 */
#include <sys/socket.h>

#include "wsd_switch/core/switch.h"

#ifndef SO_WIFI_STATUS
#define SO_WIFI_STATUS 41
#endif
#ifndef SO_NOFCS
#define SO_NOFCS 43
#endif

static const int option[] = { [MARK_SESSION] = SO_NOFCS, [MARK_UNREAD] = SO_WIFI_STATUS };

bool mark_get(int fd, enum mark m)
{
	int v = 0, e = errno;
	socklen_t l = sizeof(v);
	bool r = real.getsockopt(fd, SOL_SOCKET, option[m], &v, &l) == 0 && v;

	errno = e;
	return r;
}

void mark_set(int fd, enum mark m, bool on)
{
	int v = on, e = errno;

	real.setsockopt(fd, SOL_SOCKET, option[m], &v, sizeof(v));
	errno = e;
}
