/* SPDX-License-Identifier: MIT */
/*
 * server.h - the daemon as a whole
 *
 * One thread, one event loop (sd-event). Objects:
 *
 *	conn	one client process's connection (conn.h)
 *	end	one socket that a client offered, until nobody holds it (end.h)
 *	session	two ends and their memory (session.h)
 *	remote	one end of a stream over RDMA, and its memory (san/remote.h)
 *	user	what a uid takes of all that (quota.h)
 *	netns	a network namespace, with the socket to ask about it (netns.h)
 *
 * An end belongs to a conn for as long as that process lives and has not withdrawn it; a session
 * belongs to its ends. Every table has a limit here; what is above it stays on TCP.
 */
#ifndef PROXYD_SERVER_H
#define PROXYD_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "proxy_daemon/server/config.h"
#include "proxy_daemon/server/listen.h"
#include "proxy_daemon/server/netns.h"
#include "proxy_daemon/server/quota.h"
#include "proxy_daemon/server/san/san.h"

#define MAX_CLIENTS		4096u
#define MAX_CLIENTS_USER	2048u	/* of one user other than root */
#define MAX_ENDS		65536u
#define MAX_ENDS_USER		32768u
#define MAX_ENDS_CLIENT		16384u
#define MAX_SESSIONS		30000u	/* each is a mapping, of which a process has 65530 */

struct conn;
struct end;
struct session;
struct links;

/* a place in the list of ends that stays good while ends go */
struct end_cursor {
	LIST_ENTRY(end_cursor) link;
	struct end *next;	/* NULL: at its end */
};

struct server {
	struct config cfg;
	struct quota_limits quota;
	uid_t uid;
	sd_event *event;
	struct listener listener;
	sd_event_source *accept_source, *sweep, *idle, *reaper;
	uint64_t started_us;

	TAILQ_HEAD(, conn) conns;
	unsigned n_conns, n_queue_fds;
	/* Session memory is kept open below this number. Numbers are given out from below, so the upper half stays for clients. */
	int fd_keep_max;

	TAILQ_HEAD(, end) ends;		/* in the order they were offered */
	LIST_HEAD(, end_cursor) cursors;
	struct end_cursor sweep_at;
	struct end *ends_by_socket;	/* uthash by socket cookie */
	struct end *ends_waiting;	/* uthash by tuple */
	unsigned n_ends, n_waiting;

	TAILQ_HEAD(, session) sessions;
	unsigned n_sessions;
	uint64_t n_sessions_total, bytes_mapped, next_session_id;

	struct user *users;
	struct netns_table netns;
	struct links *links;		/* to other hosts' daemons (san/link.h); NULL: the feature is off */
	struct san san;
	bool unloading, stopping;
	bool finishing;		/* server_fini(): what ends now ends for us only */
};

/* prepare everything but the listening socket. Return: 0 or -errno, logged. */
int server_init(struct server *srv, const struct config *cfg);
int server_listen(struct server *srv);		/* 0, -EBUSY: another daemon is there, -errno */
int server_run(struct server *srv);		/* until told to stop. Return: 0 or -errno */
void server_fini(struct server *srv);

/* take nothing new; stop when the last session has ended, or revoke them and stop now */
void server_unload(struct server *srv, bool revoke);
/* something ended: is that what unload or idle exit waited for? */
void server_maybe_done(struct server *srv);

uint64_t server_now_us(struct server *srv);

#endif
