/* SPDX-License-Identifier: MIT */
/*
 * remote.h - remote sessions: one struct remote for each end that has one here
 *
 * Two ends of one stream, each with memory of its own (memory.h). What happens at one is told to the other by messages of
 * wsd/peer_proto.h: over the link to another daemon, or, when both ends are this daemon's (far_self), by a call.
 *
 *	SETUP	the client makes its queue pair: SAN_SETUP -> SAN_LOCAL -> SAN_REMOTE -> SAN_READY. Any failure refuses both ends
 *	LIVE	both were told GO. The words of the memory count from now on; the daemon helps when one cannot help itself
 *
 * It ends when nobody holds the socket, or its client withdraws for good. Before it goes, what it sent and the peer's
 * program has not got goes to the peer as FILL, then ENDED: where its ring bytes end (A7).
 *
 * The *maker* is the process that has the queue pair. When it goes, heads do not rise any more: owner_gone, FILL, and the peer is asked to
 * return. The socket, and with it the session, may live on in another process.
 */
#ifndef PROXYD_SAN_REMOTE_H
#define PROXYD_SAN_REMOTE_H

#include "proxy_daemon/server/san/memory.h"
#include "proxy_daemon/server/san/peer_codec.h"
#include "proxy_daemon/server/san/san.h"
#include "proxy_daemon/server/server.h"
#include <uthash.h>

#define REMOTE_SETUP_US		10000000u	/* from SETUP to GO */
#define REMOTE_SWEEP_US		250000u
#define REMOTE_STUCK_US		500000u		/* neither posted nor cursor have moved */

struct diag_sock;
struct lockee;

enum remote_state { REMOTE_SETUP, REMOTE_LIVE };

struct remote {
	TAILQ_ENTRY(remote) link;
	struct server *srv;
	struct end *end;		/* whose it is; NULL: gone, and its last bytes wait for room in the link */
	struct remote *peer;		/* the other end, when that is ours too; NULL: it has gone */
	struct remote_key {		/* ... or on another host; key of by_far. far is held */
		struct far *far;
		uint64_t id;
	} key;
	UT_hash_handle hh;
	enum remote_state state;
	uint64_t id;			/* one for both ends; also the clients' session_id */
	uint32_t epoch;
	uint64_t peer_identity;
	unsigned side;
	struct wsd_san_path path;

	struct memory mem;
	struct user *user;		/* charged; a reference */
	uint64_t charged;
	struct lockee *lockee;
	uint64_t locked;
	struct conn *maker;		/* NULL: gone */

	bool got_local, told_remote, ready, peer_ready;
	bool peer_gone;			/* it has said its last word */
	bool decide_asked, end_asked, want_asked;	/* to be asked again over a new link */
	bool listed;			/* in the peer's STATE */
	uint64_t plain_asked;		/* PLAIN_AT was said with this, and not answered; again over a new link. 0: it was not */
	uint64_t plain_owed;		/* PLAIN_IS is to be said with this; 0: it was */
	bool plain_due;			/* PLAIN_AT had no room so far */
	uint32_t last_reason;		/* end is NULL: of the WITHDRAW that is due */
	uint64_t down_us;		/* since when there is no link; 0: there is */
	uint64_t fill_due;		/* so far, when the link has room again; 0: nothing is */
	bool said_ended, said_broken;
	bool left;			/* nobody holds our socket any more */
	bool return_due;		/* the maker is gone: WANT_RETURN, if somebody else holds the socket */
	sd_event_source *deadline;

	/* what we send: never believed from the page what we know ourselves */
	uint64_t fill_sent;		/* ring bytes below have gone as FILL */
	uint64_t drained;		/* completed, says the client */
	uint64_t seen_posted, seen_cursor, seen_us, asked_posted;
	uint32_t seen_xstate;
	/* what we receive */
	uint64_t fill_from, filled;
	uint32_t fill_pages;		/* bytes of the fill ring that are charged */
	bool fill_failed, grown[2];
};

struct remote_look {
	uint64_t posted, head, taken;
	uint32_t unread;		/* bounded by the ring */
	bool framed_tx, framed_rx;
};

/* Both ends are here and have been proven to be one stream: side 0, side 1. 0, or the reason why neither has a session */
uint32_t remote_pair(struct end *e0, struct end *e1);

/* its other end is on another host and has been found; the client is told. 0 or the reason why not, then nothing has changed */
uint32_t remote_begin(struct end *e, struct far *far, const struct memory_params *p, const struct dev_gid *g, uint64_t peer_identity,
		      uint8_t mtu);
/* Whose the other end is (A8): the address that the link has proven (zeroes: this host) and the user that its daemon names. What a
 * peer says of itself is not in it: it could say what another one says */
uint64_t remote_identity(const struct server *srv, const uint8_t ip[16], uint32_t uid);
uint32_t remote_ring0(const struct end *e);		/* what it wanted, as a size; at most ring-max */
void remote_sizes(struct memory_params *p);		/* the other sizes, by ring0 and ring1_max */

/* requests of the end's client; what is about another session, or comes too late, is passed over */
void remote_local(struct end *e, const struct wsd_msg_san_blob *m);
void remote_ready(struct end *e, const struct wsd_msg_san_plain *m);
void remote_ask(struct end *e, const struct wsd_msg_san_plain *m);

/* another process has the end: the memory, where its side lies, GO. 0 or -errno of conn_send(): nothing of it counts then */
int remote_send_again(struct remote *r, struct conn *c, uint64_t cookie, const struct wsd_side_at *at);
/* The client has withdrawn for good: its remote is gone afterwards, the peer knows. Also used for the end's last word (nobody holds
 * the socket). */
void remote_close(struct end *e, uint32_t reason);
/* a client's connection ends: it made queue pairs */
void remote_maker_gone(struct conn *c);
/* somebody holds the socket of an end whose client is gone, and it is not just being closed */
void remote_still_held(struct end *e);
/* another message of the other end has come */
void remote_hear(struct remote *r, const struct peer_msg *m);
/* no new start, return what can be: the daemon stops, or the device has gone */
void remote_revoke(struct remote *r, uint32_t reason, bool tell);
void remote_revoke_all(struct server *srv, uint32_t reason);
/* the table of devices has changed */
void remote_devices_changed(struct server *srv);
void remote_look(const struct remote *r, struct remote_look *ret);

/* --- far_sessions.c: links --- */
struct remote *remote_by_id(struct far *far, uint64_t id);	/* NULL: none */
void remote_far_up(struct far *far, bool again);
void remote_far_down(struct far *far);
void remote_far_room(struct far *far);
void remote_finish(struct remote *r);		/* its end is gone, and nothing else says when to try its last word again */
void remote_state_came(struct far *far, const struct peer_msg *m);
/* the link is gone for too long */
void remote_far_late(struct remote *r, uint64_t now);

/* --- between remote.c, ask.c and fill.c --- */

/* to the other end. 0, or -errno: it did not go */
int remote_tell(struct remote *r, uint16_t type, const void *body, size_t n, const void *tail, size_t m);
/* the other end is to return; also when there is no link now */
void remote_want_return(struct remote *r);
/* a word has changed */
void remote_wake(struct remote *r);
/* what it sent, [from what went before, to), as far as the peer's program has not got it. 0, -EPROTO: the client's words cannot be,
 * other -errno: not all of it went */
int fill_send(struct remote *r, uint64_t to);
/* FILL came. 0 or -errno */
int fill_take(struct remote *r, const struct peer_msg *m);
/* the cursor that we know of what r sends, at most posted */
uint64_t fill_cursor(const struct remote *r, uint64_t posted);
/* ask.c: ENDED, once. 0; else it was not said: -ENOBUFS: no room for all of the bytes before it; -ENOTCONN: no link, or nobody there */
int remote_say_ended(struct remote *r);
void remote_say_plain(struct remote *r);		/* what is owed of it; again when the link has room */
/* before GO: this end's client hears why, and it is gone */
void remote_refuse(struct remote *r, uint32_t reason);
/* its peer must have been told, and knows nothing of it any more; its end goes on without */
void remote_drop(struct remote *r);
/* the other end will say nothing more: who waits for it is answered */
void remote_peer_gone(struct remote *r);

#endif
