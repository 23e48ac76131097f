/* SPDX-License-Identifier: MIT */
/*
 * end.h - sockets that were offered, from OFFER until nobody holds them
 *
 * The proof that a process holds a socket: its /proc/PID/fd/N names an inode, and sock_diag, asked for
 * the claimed addresses and cookie in that process's network namespace, names the same.
 *
 * Two ends are one connection when they live in one namespace, have exactly reversed
 * addresses (v4-mapped ones compared as IPv4) and scope, are bound to no device, have
 * different roles, and their byte counters agree (end_counters_agree()).
 */
#ifndef PROXYD_END_H
#define PROXYD_END_H

#include "proxy_daemon/server/diag.h"
#include "proxy_daemon/server/server.h"
#include "proxy_daemon/server/session.h"
#include <wsd/proxy_proto.h>

/**
 * enum end_state - where an offered socket stands
 *
 * WAITING  the other end has not been offered; known by its tuple.
 * PAIRED   has a session; leaves this state only with the socket, or for REFUSED when both
 *          ends have withdrawn for good.
 * REMOTE   has a remote session, or is about to get one (san/remote.h); leaves this state as PAIRED does, or
 *          when it cannot be set up.
 * REFUSED  stays on TCP, kept for wsdctl to show; a new offer may replace it.
 */
enum end_state { END_WAITING, END_PAIRED, END_REMOTE, END_REFUSED };

struct end_key {		/* no padding: it is hashed */
	uint64_t ns_dev, ns_ino;
	uint8_t ip[2][16];	/* from, to; IPv4 as v4-mapped */
	uint32_t scope;
	uint16_t port[2];
};

struct end {
	TAILQ_ENTRY(end) link;
	UT_hash_handle hh_socket, hh_waiting, hh_conn;
	struct server *srv;
	struct conn *conn;		/* the owner: who offered it, then who re-attached last. NULL: died, or closed it */
	struct user *user;
	struct netns *ns;
	enum end_state state;
	uint64_t sock_cookie;		/* key of hh_socket */
	uint64_t cookie;		/* key of hh_conn */
	struct end_key key;		/* key of hh_waiting */
	struct wsd_addr local, remote;	/* as sock_diag says */
	uint32_t inode;
	pid_t pid;
	uid_t uid;
	int fd;
	uint32_t role, ring_size;
	uint32_t reason;
	char comm[16];
	uint64_t since_us;

	struct session *session;	/* PAIRED */
	unsigned side;
	struct wsd_side_at at;		/* PAIRED: where its processes share their counts; serial 0: not told */
	struct end_san *san;		/* OFFER_SAN; NULL: memory of this host only */
	struct distant *distant;	/* WAITING for an end on another host (san/distant.h) */
	struct remote *rdma;		/* REMOTE */
	bool attached, given_up;	/* given_up: withdrawn, TCP for good */
	bool owner_gone;		/* ... without closing it: the process ended, or executed another program */
	sd_event_source *check;		/* the next look whether it is still held */
	uint64_t check_delay_us;
};

/* what OFFER_SAN said beside OFFER */
struct end_san {
	uint32_t flags;
	uint32_t n[2];		/* digests of what it sent, received */
	struct wsd_digest digest[2][WSD_DIGESTS];
};

/* san: it came as OFFER_SAN, m is what that begins with; else NULL */
void end_offer(struct conn *c, const struct wsd_msg_offer *m, const struct wsd_msg_offer_san *san);
/* the client's end of that cookie, or NULL */
struct end *end_of(struct conn *c, uint64_t cookie);
/* to TCP for good: tell the client, keep the record */
void end_refuse(struct end *e, uint32_t reason);
/* a remote session is being set up for it */
void end_begin_remote(struct end *e);
/* the kernel says that it has sent a FIN, or that it is no more */
bool end_has_finished(const struct end *e);
void end_withdraw(struct conn *c, const struct wsd_msg_withdraw *m);
void end_attached(struct conn *c, const struct wsd_msg_attached *m);
void end_side(struct conn *c, const struct wsd_msg_side *m);
/* Another process of the same user, or root, holds the socket: it gets the session and is the owner from now on. The one before
 * need not say goodbye; what it says is not heard any more. Charged stays who offered it. */
void end_reattach(struct conn *c, const struct wsd_msg_reattach *m);
/* the conn ends: what waited is forgotten, what is paired goes on until the socket ends */
void end_conn_gone(struct conn *c);
/* look after some ends that have been quiet */
void end_sweep(struct server *srv, unsigned max);
/* unload: refuse what waits; revoke what is paired */
void end_refuse_waiting(struct server *srv, uint32_t reason);
void end_revoke_all(struct server *srv, uint32_t reason);
void end_free(struct end *e);

/**
 * end_counters_agree() - can two sockets be the ends of one stream?
 * @a1, @a2:	one of them, before and after
 * @b:		the other, in between
 *
 * What was acknowledged to a at first b had received by then, and b cannot have received more
 * than a has written at last; likewise the other way. Exact for bytes in flight; one more
 * or less for SYN and FIN.
 */
bool end_counters_agree(const struct diag_sock *a1, const struct diag_sock *b, const struct diag_sock *a2);

void end_cursor_start(struct server *srv, struct end_cursor *cur);
struct end *end_cursor_next(struct end_cursor *cur);
void end_cursor_stop(struct end_cursor *cur);

#endif
