/* SPDX-License-Identifier: MIT */
/*
 * role.h - what the two measured processes share
 *
 * A role is a process of its own: "wsd-bench @server kind=3 size=64 ...". It talks to wsd-bench by
 * lines on descriptor ROLE_OUT ("ready PORT PID", "step WHAT", "m KEY VALUE", "fail WHY", "end"), never by a socket.
 * Whatever goes wrong ends the process with a message: wsd-bench reports the run as failed.
 */
#ifndef ROLE_H
#define ROLE_H

#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "tools/bench/bench.h"
#include "tools/bench/hist.h"

#define ROLE_OUT	3

#define die(...) role_die(__func__, __VA_ARGS__)
_Noreturn __attribute__((format(printf, 2, 3))) void role_die(const char *where, const char *fmt, ...);

void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void say_metric(enum metric m, double v);
void step(const char *what);	/* what this process does from now on, for who asks why it stands still; never while it measures */

int net_listen(const struct spec *s);		/* says "ready" */
int net_accept(int l, bool nonblock);
int net_accept_one(const struct spec *s, int l);	/* a blocking one, on any road */
void net_poll(bool on);			/* read_full and read_some: no call blocks, over and over */
ssize_t read_some(int fd, void *buf, size_t n);	/* like recv() */
int net_connect(const struct spec *s);
void read_full(int fd, void *buf, size_t n);	/* dies at EOF */
void write_full(int fd, const void *buf, size_t n);

static inline int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* both clocks at one moment: ticks become seconds over the whole measured span */
struct span { uint64_t t0, t1; int64_t ns0, ns1; };
void span_begin(struct span *s);
void span_end(struct span *s);
double span_seconds(const struct span *s);
double span_us(const struct span *s, double ticks);
double process_cpu(pid_t pid);			/* seconds used so far by any process; 0: this one */
/* calls.c: system calls of this process since calls_begin(), per message; says nothing where they cannot be counted */
void calls_begin(void);
void calls_say(enum metric m, double messages);

void say_latency(const struct span *s, const struct hist *h);

struct role {
	void (*server)(const struct spec *s);
	void (*client)(const struct spec *s);
};
extern const struct role role_pingpong, role_stream, role_conn, role_echo, role_open, role_idle, role_raw;

/* smc.c: dies when the kernel carries connections of AF_SMC to this port by TCP, and says why it does */
void smc_check(long port);

/* the event loop that answers each message with itself; ends when all connections have ended */
void echo_server(const struct spec *s);
int poller_new(void);
void poller_add(int ep, int fd, void *tag, uint32_t events);

#endif
