/* SPDX-License-Identifier: MIT */
/*
 * twin.h - one socket program whose every result can be compared with another run of itself
 *
 * Two ends, 0 and 1, hold one loopback TCP connection and run the *same* program in lock-step: every
 * choice comes from one generator that both draw from in the same order, so each end knows what the
 * other does without being told. An operation is written once, as a function both ends call; the parts
 * that touch the socket are done by the end whose turn it is. Between steps both meet at a barrier.
 *
 * What is written to the log must be deterministic on kernel TCP. Three things make it so:
 *  - no more is left in flight than a fresh connection's buffers hold (TW_FLY_MAX), so a send is whole;
 *  - the barrier waits until the kernel has delivered what the other end's kernel socket has sent. It asks
 *    by system calls made in place (raw.c), which no preloaded library sees: the harness observes the
 *    kernel's connection and never disturbs what is being tested;
 *  - what depends on timing (how much fits, when an ACK came) is brought to a fixed point, then logged.
 *
 * Bytes are never hashed: each is known from its offset, so the receiver names the first wrong one.
 *
 * Threads: an end is used by its own thread only. Errors: a harness failure ends the process with a line.
 */
#ifndef TWIN_H
#define TWIN_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TW_FLY_MAX	(40u << 10)	/* most bytes in flight between steps */
#define TW_BUF		(1u << 20)

struct tw {
	int me;			/* 0 or 1: which end this is */
	int fd;			/* the connection */
	int ctl_rd, ctl_wr;	/* pipes to and from the other end, for barriers */
	int log_fd;
	int peer_tid;		/* to see whether the other end sleeps */
	int family;		/* 4, 6 or 'm' (an IPv6 socket with a v4-mapped address) */
	bool threads;		/* both ends are threads of one process */
	bool nagle;
	bool device;		/* RDMA: who asks may be a round trip early */

	/* the plan: equal on both ends, index is the end */
	uint64_t rng;
	unsigned step, conn;
	uint32_t fly[2];	/* bytes sent by end i that the other has not taken */
	bool fin[2];		/* end i has shut its sending side */
	bool nb[2];		/* O_NONBLOCK at end i */
	bool ep_in[2];		/* end i's socket is in its epoll set ... */
	uint32_t ep_ev[2];	/* ... with these events */
	bool over;		/* the connection has ended */

	/* this end's own */
	uint64_t seed;
	uint64_t tx, rx;	/* offsets in the two streams */
	uint64_t told;		/* tx at the last barrier */
	int epfd;
	int memfd;		/* a regular file for sendfile */
	int pipe[2];		/* for splice */
	unsigned char *buf;	/* TW_BUF bytes, followed by a page that cannot be touched */
};

#define MINE(t, a) ((t)->me == (a))

/* twin.c: generator, log, barrier */
uint64_t tw_rnd(struct tw *t);
unsigned tw_pick(struct tw *t, unsigned n);		/* 0 .. n - 1 */
unsigned tw_mix(uint64_t *s, unsigned n);		/* the same from a private state, for use by one end only */
void tw_log(struct tw *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void tw_res(struct tw *t, const char *what, long ret);	/* return value, and errno when it is negative */
void tw_fail(struct tw *t, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));
void tw_barrier(struct tw *t);
void tw_tell(struct tw *t);				/* one-way: the other end's tw_await() returns */
void tw_await(struct tw *t);
void tw_peer_asleep(struct tw *t);			/* wait, bounded, until the other end sleeps in the kernel */
uint64_t tw_now_us(void);

/* stream.c: the two byte streams */
void tw_fill(struct tw *t, void *p, size_t n);		/* bytes at tx; does not advance */
bool tw_check(struct tw *t, const void *p, size_t n, bool advance);

/* io.c: one call of a chosen kind, logged; these touch the socket and move tx or rx */
#define TW_SEND_KINDS 14
#define TW_RECV_KINDS 12
ssize_t tw_send(struct tw *t, unsigned kind, size_t n, int flags, uint64_t sub);
ssize_t tw_recv(struct tw *t, unsigned kind, size_t n, int flags, uint64_t sub);
void tw_send_all(struct tw *t, size_t n, size_t chunk, uint64_t sub);	/* whatever the socket's mode; not logged */
void tw_recv_all(struct tw *t, size_t n, size_t chunk, uint64_t sub);

/* ready.c */
#define TW_READY_KINDS 6
int tw_ready(struct tw *t, unsigned kind, short events, int timeout_ms);
void tw_ep_ctl(struct tw *t, int op, uint32_t events);
int tw_ep_wait(struct tw *t, unsigned kind, int max, int timeout_ms);

/* ops.c, misuse.c, ends.c: steps, called by both ends */
void tw_step(struct tw *t);
void tw_misuse(struct tw *t, int a, unsigned which);
void tw_end(struct tw *t);

/* raw.c: system calls made in place, on the kernel's connection */
long tw_raw_write(int fd, const void *p, size_t n);
long tw_raw_read(int fd, void *p, size_t n);
long tw_raw_ioctl(int fd, unsigned long req, void *arg);
short tw_raw_poll(int fd, short events);		/* now */
struct tw_kernel {
	uint64_t sent;		/* first transmissions, in bytes (and FIN) */
	uint64_t received;
	uint32_t notsent;
	uint8_t state;		/* TCP_* */
	bool gone;		/* no longer a TCP socket */
};
void tw_kernel_state(int fd, struct tw_kernel *ret);

#endif
