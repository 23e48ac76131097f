/* SPDX-License-Identifier: MIT */
/*
 * fixture.h - a real wsd-proxyd, real TCP pairs on loopback, and what tests do with them
 *
 * Nothing here sleeps to wait: UNTIL() looks again until a deadline.
 */
#ifndef TESTS_PROXY_FIXTURE_H
#define TESTS_PROXY_FIXTURE_H

#include <criterion/criterion.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <wsd/proxy_proto.h>
#include <wsd/shared_ring.h>

#include "proxy_daemon/client/client.h"

#define DEADLINE_MS 8000

/* look at a condition until it holds; false at the deadline */
#define UNTIL(cond) ({						\
	int _tries = DEADLINE_MS;				\
	bool _ok;						\
	while (!(_ok = (cond)) && _tries-- > 0)			\
		poll(NULL, 0, 1);				\
	_ok; })

struct daemon {
	pid_t pid;
	char dir[64], path[96];
};

/* start one with further options (NULL-terminated list) and wait until it takes connections */
void daemon_start(struct daemon *d, const char *const *options);
void daemon_signal(struct daemon *d, int sig);
int daemon_wait(struct daemon *d);		/* its exit status, 128 + signal; fails at the deadline */
void daemon_stop(struct daemon *d);		/* SIGTERM, must exit with 0, removes the directory */
bool daemon_reachable(const struct daemon *d);

/* a connected pair: end[0] connected, end[1] accepted */
struct pair {
	int end[2];
};
enum pair_kind { PAIR_V4, PAIR_V6, PAIR_MAPPED, PAIR_MAPPED_SERVER };
struct pair pair_make(enum pair_kind kind);
uint64_t sock_cookie(int fd);

/* offer, fails the test when that does not work */
void offer(struct proxy_client *pc, int fd, uint32_t role, uint64_t cookie);
/* the next message; fails the test at the deadline */
struct proxy_msg message(struct proxy_client *pc);
struct proxy_msg expect_session(struct proxy_client *pc, uint64_t cookie);
void expect_refused(struct proxy_client *pc, uint64_t cookie, uint32_t reason);
/* map a session's memory and close its descriptor */
struct wsd_session *map_session(struct proxy_msg *m);

/* a connection that speaks for itself */
int raw_connect(const struct daemon *d);
bool raw_send(int fd, const void *buf, size_t len);
/* one packet: its length; 0: the daemon hung up; -1: deadline */
ssize_t raw_receive(int fd, void *buf, size_t room);
bool raw_hello(int fd);

#define STATUS_CONNS 64
struct status {
	struct wsd_msg_status_daemon d;
	struct wsd_msg_status_conn conn[STATUS_CONNS];
	unsigned n;
};
void status_get(const struct daemon *d, struct status *ret);
unsigned status_ends(const struct daemon *d);
unsigned status_sessions(const struct daemon *d);

#endif
