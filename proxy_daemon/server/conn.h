/* SPDX-License-Identifier: MIT */
/*
 * conn.h - one client's connection
 *
 * Its process is known by pid and pidfd, taken from the kernel when it connects. The
 * connection ends when the socket does or when the process dies: a forked child may hold the
 * inherited socket much longer.
 *
 * Answers are sent without waiting; what the socket does not take is queued in bounded
 * memory, and a client that lets that overflow is dropped. The counter in the notify page is
 * raised after a packet is in the socket.
 *
 * A conn is never freed inside a call that uses it: conn_kill() marks it, the loop frees it.
 */
#ifndef PROXYD_CONN_H
#define PROXYD_CONN_H

#include "proxy_daemon/server/server.h"
#include <wsd/proxy_proto.h>

#define CONN_QUEUE_MAX		4096u	/* packets */
#define CONN_QUEUE_FDS_MAX	512u	/* of them with a descriptor */
#define QUEUE_FDS_MAX		2048u	/* ... of all clients */
#define CONN_RATE_BURST		4096u	/* requests at once ... */
#define CONN_RATE_SECOND	20000u	/* ... and per second; above, it is read later */

struct packet;

struct conn {
	TAILQ_ENTRY(conn) link;
	struct server *srv;
	struct user *user;
	int fd, pidfd;
	pid_t pid;
	uid_t uid;
	bool hello, dead, unload_asked, status_active, reading;
	sd_event_source *io, *death, *pace;

	struct wsd_notify_page *page;
	TAILQ_HEAD(, packet) queue;
	unsigned n_queue, n_queue_fds;

	uint32_t tokens;
	uint64_t tokens_us;

	struct end *ends;		/* uthash by the client's cookie */
	unsigned n_ends;
	unsigned n_remotes;		/* queue pairs of its process (san/remote.h) */
	struct end_cursor status_at;
};

int conn_accept(struct server *srv, int fd);	/* takes fd. 0 or -errno */
void conn_free(struct conn *c);
void conn_kill(struct conn *c);

/**
 * conn_send() - send or queue a packet
 * @fd:		goes with it, or -1; stays the caller's
 *
 * Return: 0; -EPIPE: the client is gone; -ENOBUFS: it does not read (with a descriptor: try
 * something smaller; else it was dropped).
 */
int conn_send(struct conn *c, const void *buf, size_t len, int fd);
int conn_send_reason(struct conn *c, uint16_t type, uint64_t cookie, uint32_t reason);
int conn_send_plain(struct conn *c, uint16_t type);

/* WSD_MSG_ERROR, one line in the log, and the end of the connection */
void conn_error(struct conn *c, uint32_t reason, const char *what);

/* take some of what it has sent by now: it may say what another client's request is about */
void conn_read_now(struct conn *c);

/* a request cost as much as so many more: they come out of its rate */
void conn_charge(struct conn *c, uint64_t requests);

/* its process still is the one that connected */
bool conn_alive(const struct conn *c);

/* the daemon stops: tell it by the page */
void conn_say_gone(struct conn *c);

#endif
