/* SPDX-License-Identifier: MIT */
/*
 * session.h - the memory of one session, as the daemon holds it
 *
 * The daemon makes the memfd, sends it to both ends and keeps the mapping of the header page,
 * to close gates (G21) and to look (status), and no ring is ever read. The descriptor stays too, for who re-attaches, while
 * the daemon has descriptors to spare (session_keep()).
 *
 * Trust: both ends write the page at any time; what is read from it is only shown.
 */
#ifndef PROXYD_SESSION_H
#define PROXYD_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <wsd/shared_ring.h>

struct end;
struct user;

struct session {
	TAILQ_ENTRY(session) link;
	uint64_t id;
	uint64_t length;
	uint32_t ring_size;
	bool revoked;
	struct wsd_session *hdr;
	int fd;			/* of the memory; -1: not kept */
	struct end *end[2];	/* NULL: nobody holds that socket any more */
	struct user *user[2];	/* charged; references */
};

/* memory and header, sealed. *ret_fd is the caller's. Return: 0 or -errno. */
int session_map(struct session *s, int *ret_fd);
void session_unmap(struct session *s);

/* takes fd: kept as s->fd, or closed if its number is max or more */
void session_keep(struct session *s, int fd, int max);

/* the gate of direction dir opens never again, whatever its ends do */
void session_close_gate(struct session *s, unsigned dir);

/* nobody holds the socket of that side: says so to the other one, whose bytes may lie unread there (G21) */
void session_end_gone(struct session *s, unsigned side);

struct session_look {
	uint64_t tx_ring, tx_tcp;
	bool gate_open, on_ring;
	uint32_t unread;	/* bounded by the ring */
};

/* what the end on that side sees; claims of the ends */
void session_look(const struct session *s, unsigned side, struct session_look *ret);

#endif
