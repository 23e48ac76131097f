/* SPDX-License-Identifier: MIT */
/*
 * options.c - socket options that the ring does not reproduce (G14.4)
 *
 * Set while a connection is known they send it to TCP at once (calls/sock.c). Set before, on a socket that was not connected yet
 * or on the listener that an accepted one inherits them from, they are found when the connection is about to be offered.
 *
 * Some make recvmsg() give control data. S_CMSG says that one was set: what the ring still holds then came before it and carries no
 * time stamp, as in TCP; TCP_INQ counts it; and once the ring is empty the kernel answers recvmsg() itself.
 */
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>

#include "wsd_switch/core/switch.h"

/* the 64-bit relatives, which libc's headers name on 32-bit machines only */
#ifndef SO_TIMESTAMP_NEW
#define SO_TIMESTAMP_NEW	63
#define SO_TIMESTAMPNS_NEW	64
#define SO_TIMESTAMPING_NEW	65
#endif

static bool makes_control(int level, int name)
{
	if (level == IPPROTO_TCP)
		return name == TCP_INQ;
	if (level != SOL_SOCKET)
		return false;
	switch (name) {
	case SO_TIMESTAMP:
	case SO_TIMESTAMPNS:
	case SO_TIMESTAMPING:
	case SO_TIMESTAMP_NEW:
	case SO_TIMESTAMPNS_NEW:
	case SO_TIMESTAMPING_NEW:
		return true;
	}
	return false;
}

static bool not_for_rings(int level, int name)
{
	if (makes_control(level, name))
		return true;
	if (level == IPPROTO_TCP)
		return name == TCP_ULP || name == TCP_REPAIR || name == TCP_MD5SIG;
	if (level != SOL_SOCKET)
		return false;
	switch (name) {
	case SO_PEEK_OFF:
	case SO_ATTACH_FILTER:
	case SO_ATTACH_BPF:
	case SO_BINDTODEVICE:
		return true;
	}
	return false;
}

void opt_before_set(struct conn *c, int level, int name)
{
	if (likely(!not_for_rings(level, name)))
		return;
	if (makes_control(level, name))
		atomic_fetch_or(&c->s->flags, S_CMSG);
	conn_to_tcp(c, WSD_R_OPTION);
}

/*
 * TCP_CORK holds back what goes by TCP; the ring holds nothing back. Servers set and clear it around each answer, so on an attached
 * connection it is kept here and given to the kernel before the next byte that goes there. Only switching on is ever owed, and the
 * worst that a race makes of it is a cork that the kernel does not have: it delays nothing. The state is the program's word since it
 * was first heard, so nothing is kept while another program may hold the socket.
 */
int opt_cork(struct conn *c, int fd, int v)
{
	struct side *s = c->s;
	uint32_t old = atomic_load(&s->cork);
	bool keep = conn_att(c) && !(atomic_load(&s->flags) & S_FOREIGN);
	int r;

	while (keep && (old == CORK_OFF || old == CORK_WANTED))
		if (atomic_compare_exchange_weak(&s->cork, &old, v ? CORK_WANTED : CORK_OFF))
			return 0;
	/* before the call: who gives a cork meanwhile looks again after it */
	atomic_store(&s->cork, v ? CORK_ON : CORK_OFF);
	r = real.setsockopt(fd, IPPROTO_TCP, TCP_CORK, &v, sizeof(v));
	if (r < 0 || (v && atomic_load(&s->cork) != CORK_ON))
		atomic_store(&s->cork, CORK_UNKNOWN);		/* the kernel hears of the next one */
	return r;
}

/* Switching a cork off also sends what MSG_MORE held back, though there is no cork. */
void opt_cork_more(struct conn *c)
{
	uint32_t old = CORK_OFF;

	atomic_compare_exchange_strong(&c->s->cork, &old, CORK_UNKNOWN);
}

void opt_cork_give(struct conn *c, int fd)
{
	uint32_t old = CORK_WANTED;
	int v = 1, e = errno;

	if (!atomic_compare_exchange_strong(&c->s->cork, &old, CORK_ON))
		return;
	real.setsockopt(fd, IPPROTO_TCP, TCP_CORK, &v, sizeof(v));
	v = 0;
	if (atomic_load(&c->s->cork) != CORK_ON)	/* switched off meanwhile */
		real.setsockopt(fd, IPPROTO_TCP, TCP_CORK, &v, sizeof(v));
	errno = e;
}

/* value of an integer option; 0 also where there is none */
static int value(int fd, int level, int name)
{
	int v = 0;
	socklen_t l = sizeof(v);

	return real.getsockopt(fd, level, name, &v, &l) == 0 && l == sizeof(v) ? v : 0;
}

bool opt_may_offer(struct conn *c, int fd)
{
	static const int names[] = { SO_TIMESTAMP, SO_TIMESTAMPNS, SO_TIMESTAMPING, SO_TIMESTAMP_NEW, SO_TIMESTAMPNS_NEW,
				     SO_TIMESTAMPING_NEW };
	char name[16];
	socklen_t l = sizeof(name);
	bool ok = true;
	int e = errno, v;
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (value(fd, SOL_SOCKET, names[i])) {
			opt_before_set(c, SOL_SOCKET, names[i]);
			ok = false;
		}
	if (value(fd, IPPROTO_TCP, TCP_INQ)) {
		opt_before_set(c, IPPROTO_TCP, TCP_INQ);
		ok = false;
	}
	/* SO_PEEK_OFF is -1 when off; kernels without it for TCP answer with an error */
	v = -1;
	l = sizeof(v);
	if ((real.getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &v, &l) == 0 && v >= 0) ||
	    (l = sizeof(name), real.getsockopt(fd, IPPROTO_TCP, TCP_ULP, name, &l) == 0 && l > 0 && name[0]) ||
	    value(fd, IPPROTO_TCP, TCP_REPAIR) || (real.fcntl64(fd, F_GETFL) & O_ASYNC)) {
		conn_to_tcp(c, WSD_R_OPTION);
		ok = false;
	}
	v = value(fd, SOL_SOCKET, SO_RCVLOWAT);
	if (v > 1 && !(atomic_load(&c->s->flags) & S_LOWAT)) {
		atomic_store(&c->s->lowat, (uint32_t)v);
		atomic_fetch_or(&c->s->flags, S_LOWAT);
	}
	errno = e;
	return ok;
}

/* what put_cmsg() of the kernel does */
static void put_int(struct msghdr *m, size_t room, int type, int v)
{
	union {
		struct cmsghdr h;
		char b[CMSG_SPACE(sizeof(int))];
	} x = { .h = { .cmsg_level = IPPROTO_TCP, .cmsg_type = type, .cmsg_len = CMSG_LEN(sizeof(int)) } };
	size_t n = x.h.cmsg_len;

	if (!m->msg_control || room < sizeof(x.h)) {
		m->msg_flags |= MSG_CTRUNC;
		return;
	}
	if (room < n) {
		m->msg_flags |= MSG_CTRUNC;
		n = room;
		x.h.cmsg_len = n;
	}
	memcpy(CMSG_DATA(&x.h), &v, sizeof(v));
	if (fault_copy(m->msg_control, &x, n))
		m->msg_controllen = room < sizeof(x.b) ? room : sizeof(x.b);
}

void opt_ring_control(struct conn *c, int fd, struct msghdr *m, size_t room)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };
	int q = 0, e = errno;

	if (value(fd, IPPROTO_TCP, TCP_INQ)) {
		if (real.ioctl(fd, SIOCINQ, &q) < 0)
			q = 0;
		q += (int)rx_avail(c);
		if (q == 0 && real.poll(&p, 1, 0) > 0)
			q = 1;		/* the end of the stream counts as one */
		put_int(m, room, TCP_CM_INQ, q);
	}
	errno = e;
}
