/* SPDX-License-Identifier: MIT */
/*
 * offsets.c - our counts against the kernel's (G16)
 *
 *   C = tcpi_bytes_received - SIOCINQ - (1 if the peer's FIN was received)
 *   H = tcpi_bytes_acked + SIOCOUTQ - syn - (1 if our FIN was sent)
 *
 * each between two equal TCP_INFOs. The usual case is looked at first and costs one: C as above, or with nothing unsent
 * H = tcpi_bytes_sent - tcpi_bytes_retrans; only a difference is looked into. A mismatch means that bytes went around us (a call we
 * do not intercept, another program): TCP for good. SO_COOKIE is looked at first: the number may be another socket by now.
 */
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>

#include "wsd_switch/core/switch.h"

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif
enum { TS_ESTABLISHED = 1, TS_TIME_WAIT = 6, TS_CLOSE = 7, TS_CLOSE_WAIT = 8, TS_LAST_ACK = 9, TS_CLOSING = 11 };

static bool tcp_info_get(int fd, struct tcp_info *ti)
{
	socklen_t l = sizeof(*ti);

	memset(ti, 0, sizeof(*ti));
	return real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, ti, &l) == 0 &&
	       l >= offsetof(struct tcp_info, tcpi_bytes_retrans) + 8;
}

unsigned off_fin(int state)
{
	return state == TS_CLOSE_WAIT || state == TS_LAST_ACK || state == TS_CLOSING || state == TS_TIME_WAIT;
}

static bool same_socket(struct conn *c, int fd)
{
	uint64_t k = 0;
	socklen_t l = sizeof(k);

	return real.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &k, &l) == 0 && k == c->s->cookie;
}

/* 0 and the kernel's C, or -EAGAIN when it moved meanwhile, or another -errno. In state CLOSE it is not known whether a FIN
 * was received: *ret_c may be one too high. */
int off_kernel_c(int fd, uint64_t *ret_c, int *ret_state, int *ret_inq)
{
	struct tcp_info a, b;
	int inq, i;

	for (i = 0; i < 3; i++) {
		if (!tcp_info_get(fd, &a))
			return -ENOTCONN;
		if (real.ioctl(fd, SIOCINQ, &inq) < 0)
			return -errno;
		if (!tcp_info_get(fd, &b))
			return -ENOTCONN;
		if (a.tcpi_bytes_received != b.tcpi_bytes_received || a.tcpi_state != b.tcpi_state)
			continue;
		*ret_state = b.tcpi_state;
		*ret_inq = inq;
		*ret_c = b.tcpi_bytes_received - (uint64_t)inq - off_fin(b.tcpi_state);
		return 0;
	}
	return -EAGAIN;
}

int off_check_rx(struct conn *c, int fd)
{
	struct tcp_info ti;
	uint64_t k;
	int state, inq, r, e = errno;

	if (!same_socket(c, fd)) {
		errno = e;
		return -1;
	}
	/* the usual case costs one TCP_INFO; a difference may be bytes that came in between, and is looked at again */
	if (tcp_info_get(fd, &ti) && real.ioctl(fd, SIOCINQ, &inq) == 0 && ti.tcpi_state == TS_ESTABLISHED &&
	    ti.tcpi_bytes_received - (uint64_t)inq == atomic_load(&c->s->C)) {
		errno = e;
		return 1;
	}
	r = off_kernel_c(fd, &k, &state, &inq);
	errno = e;
	if (r == -EAGAIN)
		return 0;
	if (r < 0)
		return -1;
	if (state != TS_ESTABLISHED)
		return 0;
	if (k != atomic_load(&c->s->C)) {
		log_warn("conn %u: received %llu from TCP, the kernel says %llu", c->index,
			 (unsigned long long)atomic_load(&c->s->C), (unsigned long long)k);
		return -1;
	}
	return 1;
}

/* The counts agree with H: what the SYN makes of them is kept, as bytes_sent is wrong for good once the kernel could not hand a segment down (link
 * down: it counts those too, and again when they go) */
static void learn_syn(struct side *s, int fd, struct tcp_info *a)
{
	struct tcp_info b;
	int outq, tries;
	int64_t d;

	for (tries = 0; tries < 4; tries++, *a = b) {
		if (real.ioctl(fd, SIOCOUTQ, &outq) < 0 || !tcp_info_get(fd, &b))
			return;
		d = (int64_t)(a->tcpi_bytes_acked + (uint64_t)outq - atomic_load(&s->H));
		if (a->tcpi_bytes_acked == b.tcpi_bytes_acked && (d == 0 || d == 1)) {
			atomic_store(&s->syn, (int32_t)d);
			return;
		}
	}
}

/* loose: also while TCP has bytes unsent */
static int check_tx(struct conn *c, int fd, bool loose)
{
	struct side *s = c->s;
	struct tcp_info a, b;
	uint64_t total, h;
	int outq, nsd, e = errno, r = 0, tries = 8;
	int32_t syn;

	if (!same_socket(c, fd)) {
		r = -1;
		goto out;
	}
	/* the usual case: one TCP_INFO, which the kernel takes at one moment, says it all */
	if ((loose || atomic_load(&s->syn) >= 0) && tcp_info_get(fd, &a) && a.tcpi_state == TS_ESTABLISHED &&
	    (a.tcpi_notsent_bytes == 0 || loose) &&
	    a.tcpi_bytes_sent - a.tcpi_bytes_retrans + a.tcpi_notsent_bytes == atomic_load(&s->H)) {
		if (unlikely(atomic_load(&s->syn) < 0))
			learn_syn(s, fd, &a);
		r = 1;
		goto out;
	}
again:
	if (!tcp_info_get(fd, &a) || real.ioctl(fd, SIOCOUTQ, &outq) < 0 || real.ioctl(fd, SIOCOUTQNSD, &nsd) < 0 ||
	    !tcp_info_get(fd, &b)) {
		r = -1;
		goto out;
	}
	/* only quiet, established connections: no FIN either way, nothing unsent, which covers bytes
	 * held back by TCP_CORK or MSG_MORE (G2) */
	if (b.tcpi_state != TS_ESTABLISHED || (nsd != 0 && !loose))
		goto out;
	if (a.tcpi_bytes_acked != b.tcpi_bytes_acked || a.tcpi_bytes_sent != b.tcpi_bytes_sent) {
		if (--tries)
			goto again;	/* the peer reads just now */
		goto out;
	}
	h = atomic_load(&s->H);
	total = b.tcpi_bytes_sent - b.tcpi_bytes_retrans + b.tcpi_notsent_bytes;
	syn = atomic_load(&s->syn);
	if (syn < 0) {
		int64_t d = (int64_t)(b.tcpi_bytes_acked + (uint64_t)outq - total);

		if (d != 0 && d != 1)
			goto out;
		syn = (int32_t)d;
		if (total == h)
			atomic_store(&s->syn, syn);
	}
	if (b.tcpi_bytes_acked + (uint64_t)outq - (uint64_t)syn != h) {
		log_warn("conn %u: gave %llu to TCP, the kernel says %llu", c->index, (unsigned long long)h,
			 (unsigned long long)(b.tcpi_bytes_acked + (uint64_t)outq - (uint64_t)syn));
		r = -1;
		goto out;
	}
	r = 1;
out:
	errno = e;
	return r;
}

int off_check_tx(struct conn *c, int fd)
{
	return check_tx(c, fd, false);
}

int off_check_tx_loose(struct conn *c, int fd)
{
	return check_tx(c, fd, true);
}

/* H as the kernel has it, after a sender that died inside a send; false: it does not say */
bool off_resync_tx(struct conn *c, int fd)
{
	struct side *s = c->s;
	struct tcp_info a, b;
	int outq, i, e = errno;
	bool ok = false;

	for (i = 0; i < 8 && !ok; i++) {
		if (!tcp_info_get(fd, &a) || real.ioctl(fd, SIOCOUTQ, &outq) < 0 || !tcp_info_get(fd, &b))
			break;
		/* the peer's FIN changes nothing of it */
		if (a.tcpi_bytes_acked != b.tcpi_bytes_acked || atomic_load(&s->syn) < 0 ||
		    (b.tcpi_state != TS_ESTABLISHED && b.tcpi_state != TS_CLOSE_WAIT))
			continue;
		atomic_store(&s->H, b.tcpi_bytes_acked + (uint64_t)outq - (uint64_t)atomic_load(&s->syn));
		ok = true;
	}
	errno = e;
	return ok;
}

/* both counts of a side that nobody kept (reattach.c); the connection moves meanwhile only by its peer */
bool off_adopt(struct conn *c, int fd)
{
	struct tcp_info ti;
	uint64_t k;
	int state, inq, i, r = -EAGAIN, e = errno;

	for (i = 0; i < 1000 && r == -EAGAIN; i++)
		r = off_kernel_c(fd, &k, &state, &inq);
	if (r == 0 && tcp_info_get(fd, &ti)) {
		atomic_store(&c->s->C, k);
		atomic_store(&c->s->H, ti.tcpi_bytes_sent - ti.tcpi_bytes_retrans + ti.tcpi_notsent_bytes);
	} else {
		r = -1;
	}
	errno = e;
	return r == 0;
}
