/* SPDX-License-Identifier: MIT */
/*
 * link.h - this daemon's links to those of other hosts
 *
 * A *far* is the daemon at another address, seen from one of ours: one for each (local IP, remote IP), with one link or none. It
 * stays when a link goes, so what is known of the peer (and what the user hangs on it) survives a reconnect.
 *
 *	link_get() = 0		a link is up
 *	-EINPROGRESS		one is being made; up() or down() will tell
 *	-EHOSTDOWN		there is none and none will be tried for now: refuse at once, far_why() says why
 *
 * At most one link of a far is up. When both daemons connect at once, the one made by the lower address stays.
 * A new link that the same peer has proven to be its own replaces an old one: it would not have made it otherwise.
 *
 * Nothing here blocks and nothing here calls back from inside a call: up(), down(), message() and room() come from the loop. They may
 * call all of these functions. Messages arrive in the order they were sent, as long as the link is up; what was not
 * delivered when it goes is lost on both sides, and down() is what tells so.
 *
 * Held fars (those with sessions) are pinged every second and reconnected; others are closed after a minute of silence.
 * A far that is not held may be freed whenever the loop turns: keep no pointer to it.
 */
#ifndef PROXYD_SAN_LINK_H
#define PROXYD_SAN_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "proxy_daemon/server/san/peer_codec.h"

#define LINK_MAX		64u		/* links, half-open ones included */
#define LINK_HALF_OPEN_MAX	16u		/* of them made by others and not proven yet */
#define LINK_HALF_OPEN_HOST	4u		/* ... of one address */
#define LINK_FARS_MAX		1024u
#define LINK_QUEUE_MAX		(4u << 20)	/* bytes waiting to be sent over one link ... */
#define LINK_QUEUE_BULK		(2u << 20)	/* ... above which messages of more than LINK_BULK bytes wait with the caller */
#define LINK_BULK		2048u

struct server;
struct far;

enum link_why {
	LINK_FINE,
	LINK_OFF,	/* no subnets, no key, a private daemon */
	LINK_NOT_SAN,	/* the two addresses lie in no one declared subnet */
	LINK_ABSENT,	/* nobody listens there */
	LINK_SILENT,	/* no answer in time */
	LINK_NO_KEY,	/* there is somebody, without our key */
	LINK_VERSION,	/* speaks no version that we do */
	LINK_ROAD,	/* its clients' road is another than ours: another build */
	LINK_SELF,	/* it is this daemon */
	LINK_BROKEN,	/* said something that cannot be */
	LINK_CLOSED,	/* it went, in good order */
	LINK_LOST,	/* it stopped answering, or the connection broke */
	LINK_REPLACED,	/* by a newer link of the same peer; up() follows */
	LINK_IDLE,	/* nothing to say for long */
	LINK_LIMIT,	/* too many links */
	LINK_NO_MEMORY,
	LINK_STOPPING,	/* this daemon is */
	_LINK_WHYS,
};
const char *link_why_text(enum link_why why);

struct link_ops {
	/* @again: it is the run of the peer's daemon that we spoke with before: sessions may be resumed (STATE); else they are gone */
	void (*up)(struct far *far, bool again);
	/* a link that was up has gone, or one that link_get() began was not made */
	void (*down)(struct far *far, enum link_why why);
	/* OFFER to STATE, WAIT: checked by peer_parse(); an OFFER's addresses are those of the link. @m is good until it returns */
	void (*message)(struct far *far, const struct peer_msg *m);
	/* there is room again after -ENOBUFS */
	void (*room)(struct far *far);
};

/* microseconds; tests shorten them between link_init() and the first link_get() */
struct link_times {
	uint64_t connect;		/* for TCP ... */
	uint64_t handshake;		/* ... then until the other's HELLO */
	uint64_t ping_held, ping_idle;
	uint64_t dead;			/* a PING is unanswered for so long */
	uint64_t idle;			/* a link that is not held is closed */
	uint64_t again_min, again_max;	/* held fars: pause before connecting again, doubling */
	uint64_t absent_min, absent_max; /* others: so long -EHOSTDOWN, doubling */
	uint64_t rescan;
};

int link_init(struct server *srv);	/* 0, also when the feature is off; -errno, logged */
void link_fini(struct server *srv);
void link_watch(struct server *srv, const struct link_ops *ops);	/* once; without, messages are dropped */

struct link_times *link_times(struct server *srv);	/* NULL when the feature is off */

/* addresses of this host may have changed: opens and closes listeners. Also done now and then by itself */
void link_rescan(struct server *srv);
/* forget who did not answer, e.g. because routes changed */
void link_retry(struct server *srv);

/**
 * link_get() - the daemon at @remote, as seen from our address @local; begins to connect where there is none
 * @ret_far:	written when 0, -EINPROGRESS or -EHOSTDOWN is returned; may be NULL in the last case
 *
 * Return: 0, -EINPROGRESS, -EHOSTDOWN as above.
 */
int link_get(struct server *srv, const struct wsd_addr *local, const struct wsd_addr *remote, struct far **ret_far);

/* the same, whatever came of it before */
int link_try(struct server *srv, const struct wsd_addr *local, const struct wsd_addr *remote, struct far **ret_far);

/* why there is no link; NULL: why link_get() gave none at all: LINK_OFF, LINK_NOT_SAN or LINK_LIMIT, which it asks again for */
enum link_why far_why(const struct far *far);
enum link_why link_why(struct server *srv, const struct wsd_addr *local, const struct wsd_addr *remote);

/* counted; a held far is kept, and its link as well */
void far_hold(struct far *far);
void far_release(struct far *far);

/**
 * far_send() - queue a message
 * @body, @n:	struct of @type (n: its size), NULL and 0 for types without
 * @tail, @m:	what goes behind it, or NULL and 0
 *
 * Return: 0; -ENOTCONN: no link; -ENOBUFS: too much is queued, room() follows; -EMSGSIZE; -ENOMEM.
 */
int far_send(struct far *far, uint16_t type, uint64_t id, const void *body, size_t n, const void *tail, size_t m);

/* break the link off: the peer said something that cannot be. @what goes into the log */
void far_broken(struct far *far, const char *what);

bool far_is_up(const struct far *far);
struct server *far_server(const struct far *far);
uint64_t far_new_id(struct far *far);		/* never 0, never twice, never the peer's */
bool far_id_is_ours(const struct far *far, uint64_t id);
const uint8_t *far_host_id(const struct far *far);	/* 16 bytes of the peer's last HELLO */
uint64_t far_boot(const struct far *far);
const uint8_t *far_local_ip(const struct far *far);	/* 16 bytes, IPv4 mapped */
const uint8_t *far_remote_ip(const struct far *far);
/* a pointer of the user's; it is NULL at first, and must be NULL again before the last far_release() */
void **far_user(struct far *far);

/* for wsdctl peers: all fars, one after the other; NULL begins, and ends */
struct far *far_next(struct server *srv, struct far *far);
void far_describe(const struct far *far, struct wsd_msg_status_peer *ret);

#endif
