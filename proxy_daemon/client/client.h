/* SPDX-License-Identifier: MIT */
/*
 * proxy_daemon/client/client.h - this process's connection to wsd-proxyd
 *
 * Lives in the process of an unmodified program, so it must not be noticed: it never
 * blocks, prints, starts threads or raises a signal, and makes its system calls itself (not
 * through libc symbols, which the switch intercepts). errno is left alone. Its one
 * descriptor sits at the top of the descriptor range, close-on-exec; the switch hides it.
 *
 * How it is used (san_provider):
 *
 *	pc = proxy_client_new();
 *	r = proxy_client_offer(pc, fd, WSD_ROLE_CONNECT, sock_cookie, cookie, 0);  connects if needed
 *	...
 *	if (proxy_client_pending(pc))                        one load when nothing waits
 *		while (proxy_client_receive(pc, &msg) == 1)
 *			switch (msg.type) ...
 *
 * Life of an offer: proxy_client_offer() -> 0; later exactly one of PROXY_MSG_SESSION or
 * PROXY_MSG_REFUSED with its cookie, unless withdrawn before. WSD_R_NO_DAEMON (or another
 * reason of the connection) as the reason of a refusal means that the daemon went away
 * before it answered: the offer may be made again. After PROXY_MSG_SESSION: map msg.fd, close
 * it, proxy_client_attached(); at the end proxy_client_withdraw(). A session goes on when the
 * daemon dies; nothing is reported then.
 *
 * Life of an offer over RDMA: proxy_client_offer_san() -> 0; later PROXY_MSG_SESSION (both ends are on this host), or
 * PROXY_MSG_SAN_SETUP: map msg.fd, make a queue pair, proxy_client_san_local(); PROXY_MSG_SAN_REMOTE: connect it,
 * proxy_client_san_ready(); PROXY_MSG_SAN_GO: use it. Until GO it is unanswered: PROXY_MSG_REFUSED may come at any point, also
 * because the daemon went away. Afterwards PROXY_MSG_REVOKED and PROXY_MSG_SAN_LOOK. A reattached end gets SETUP, SAN_SIDE and GO at
 * once: it has the memory and no queue pair.
 *
 * Daemon:    WSD_PROXY_SOCKET if set (secure_getenv: ignored in set-id programs), and then
 *            only that; else WSD_PROXYD_SYSTEM_PATH; else $XDG_RUNTIME_DIR/wsd/proxyd.sock.
 *            It must run as root or as our effective user (SO_PEERCRED), its path must be
 *            a socket and no symbolic link, in a directory of root or ours that not
 *            everybody may write.
 * Ownership: a received message's fd is the caller's, close it.
 * Errors:    0 or an answer from enum proxy_client_answer; -errno for what should not
 *            happen (-ENOMEM, -EINVAL). Nothing here is fatal: the stream stays on TCP.
 * Threads:   one thread at a time, never from a signal handler. Only proxy_client_pending(),
 *            proxy_client_notify_word()'s word and proxy_client_fd() may be looked at freely by others;
 *            the word stays readable until proxy_client_free(), even after a reconnect.
 */
#ifndef PROXY_DAEMON_CLIENT_H
#define PROXY_DAEMON_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <wsd/proxy_proto.h>

enum proxy_client_answer {
	_PROXY_CLIENT_OK,
	PROXY_CLIENT_E_DOWN,	/* no daemon now, see proxy_client_reason(); try again later */
	PROXY_CLIENT_E_BUSY,	/* its socket is full; try again later */
	PROXY_CLIENT_E_LIMIT,	/* PROXY_CLIENT_OFFERS wait for an answer already: WSD_R_LIMIT */
	PROXY_CLIENT_E_SOCKET,	/* the descriptor offered is no connected IP socket: WSD_R_NOT_TCP */
	PROXY_CLIENT_E_NO_SAN,	/* the daemon knows nothing of RDMA: offer without */
};

#define PROXY_CLIENT_OFFERS	4096u	/* unanswered offers of one process */

enum proxy_msg_type {
	PROXY_MSG_SESSION = 1,	/* the peer offered its end too: map fd */
	PROXY_MSG_REFUSED,	/* stays on TCP, reason says why */
	PROXY_MSG_REVOKED,	/* an existing session's gates are closed for good */
	PROXY_MSG_REATTACHED,	/* another process had it: map fd; `at` says where its side lies */
	PROXY_MSG_SAN_SETUP,	/* RDMA: map fd (a struct wsd_remote), make the queue pair that `setup` describes */
	PROXY_MSG_SAN_REMOTE,	/* what the peer's queue pair is: blob */
	PROXY_MSG_SAN_GO,	/* both ends are ready */
	PROXY_MSG_SAN_LOOK,	/* a word of struct wsd_remote has changed */
	PROXY_MSG_SAN_SIDE,	/* reattached over RDMA, between SETUP and GO: `at` says where its side lies */
};

struct proxy_msg {
	enum proxy_msg_type type;
	uint32_t reason;	/* REFUSED, REVOKED: enum wsd_reason, never WSD_R_NONE; WSD_R_VERSION for one of a later build */
	uint64_t cookie;	/* as given to proxy_client_offer() */
	/* SESSION, REATTACHED; checked: the fd is a memfd of exactly length bytes, sealed against
	 * shrinking and growing, not huge pages; length is wsd_session_length(ring_size);
	 * ring_size a power of two in bounds. What the memory holds is not checked. */
	uint64_t session_id;
	uint64_t length;
	uint32_t ring_size;
	uint32_t side;		/* 0 or 1 */
	int fd;			/* close-on-exec, the caller's; -1 in other messages */
	struct wsd_side_at at;	/* REATTACHED, SAN_SIDE; not checked */
	union {
		/* SAN_SETUP; session_id, length, side above too. Checked: the fd as above, length is wsd_remote_length() of the
		 * sizes, which are powers of two in bounds; the ids are not 0; path.device is a name, terminated, without '/'; the
		 * small numbers are ones that ibverbs takes. What the memory holds is not checked. */
		struct wsd_msg_san_setup setup;
		struct {		/* SAN_REMOTE */
			uint32_t blob_len;	/* 1 .. WSD_SAN_BLOB_MAX */
			uint8_t blob[WSD_SAN_BLOB_MAX];
		};
	};
};

/* what OFFER_SAN says beside the socket */
struct proxy_san_offer {
	uint32_t ring0;		/* wanted, 0: the daemon's choice */
	uint32_t flags;		/* WSD_SAN_FORCE or 0 */
	uint32_t n_tx, n_rx;	/* digests, see struct wsd_msg_offer_san */
	struct wsd_digest tx[WSD_DIGESTS], rx[WSD_DIGESTS];
};

struct proxy_client;

/**
 * proxy_client_new() - make a client; meets no daemon yet and opens nothing
 *
 * Return: the client, or NULL when memory is short.
 */
struct proxy_client *proxy_client_new(void);

/**
 * proxy_client_set_places() - say where the daemon is, instead of the environment as it is now
 * @socket_path:	as WSD_PROXY_SOCKET; NULL or empty: not set
 * @runtime_dir:	as XDG_RUNTIME_DIR; NULL or empty: not set
 *
 * For a caller that read the environment when the process began: nginx and others clear it. The strings are copied. Call before the
 * first offer.
 */
void proxy_client_set_places(struct proxy_client *pc, const char *socket_path, const char *runtime_dir);

/* close the connection, forget everything; accepts NULL; always NULL. Pointers got from
 * proxy_client_notify_word() become invalid. */
struct proxy_client *proxy_client_free(struct proxy_client *pc);

/**
 * proxy_client_connect() - be connected if that can be had at once
 *
 * Costs a clock read (vdso) while a failure backs off: 100 ms after the first, doubling to 5 s.
 * proxy_client_offer() calls it.
 *
 * Return: 0, PROXY_CLIENT_E_DOWN, or a negative errno.
 */
int proxy_client_connect(struct proxy_client *pc);

/* enum wsd_reason: why there is no daemon; WSD_R_NO_DAEMON before the first connect; WSD_R_NONE
 * when connected */
unsigned proxy_client_reason(const struct proxy_client *pc);

/**
 * proxy_client_offer() - tell the daemon that a connection may be accelerated
 * @fd:		TCP descriptor of this process; read with getsockname, getpeername and
 *		SO_BINDTOIFINDEX, never written or kept
 * @role:	WSD_ROLE_CONNECT or WSD_ROLE_ACCEPT
 * @sock_cookie: its SO_COOKIE
 * @cookie:	the caller's name for the offer: not 0, unique among its live offers and sessions
 * @ring_size:	wanted, 0: the daemon's choice
 *
 * Return: 0 (an answer comes by proxy_client_receive()), an answer, or a negative errno.
 */
int proxy_client_offer(struct proxy_client *pc, int fd, uint32_t role, uint64_t sock_cookie,
		       uint64_t cookie, uint32_t ring_size);

/**
 * proxy_client_withdraw() - an offer or session ends
 * @reason:	enum wsd_reason; WSD_R_NONE: the descriptor is being closed
 * @unread:	ring bytes that this end leaves unread
 *
 * Call it just before the descriptor is closed. Never fails in a way that matters: the
 * daemon finds out by itself, later. No message with this cookie comes after it.
 * Does not connect. Return: 0, PROXY_CLIENT_E_DOWN, PROXY_CLIENT_E_BUSY.
 */
int proxy_client_withdraw(struct proxy_client *pc, uint64_t cookie, uint32_t reason, uint32_t unread);

/* the memory of the session is mapped. Return: as proxy_client_withdraw(). */
int proxy_client_attached(struct proxy_client *pc, uint64_t cookie, uint64_t session_id);

/**
 * proxy_client_side() - where the counts of this end lie, for processes that re-attach
 * @cookie:	of an offer with a session
 *
 * Return: as proxy_client_withdraw(); 0 also when the daemon cannot keep it.
 */
int proxy_client_side(struct proxy_client *pc, uint64_t cookie, uint64_t session_id, const struct wsd_side_at *at);

/**
 * proxy_client_reattach() - ask for the session of a socket that came from another process
 * @cookie:	as in proxy_client_offer(), or that of a session that was re-attached, to claim
 * @over:	not 0: the side of that serial is gone
 * @claim:	where ours lies; NULL: nowhere. serial is not looked at
 *
 * PROXY_MSG_REATTACHED or PROXY_MSG_REFUSED answers it. The daemon must have welcomed us: until then PROXY_CLIENT_E_BUSY.
 *
 * Return: as proxy_client_offer().
 */
int proxy_client_reattach(struct proxy_client *pc, int fd, uint64_t sock_cookie, uint64_t cookie, uint64_t over,
			  const struct wsd_side_at *claim);

/**
 * proxy_client_offer_san() - offer a connection whose peer may be on another host, or that is to use RDMA
 *
 * As proxy_client_offer(). The daemon must have welcomed us: until then PROXY_CLIENT_E_BUSY.
 *
 * Return: as proxy_client_offer(), or PROXY_CLIENT_E_NO_SAN.
 */
int proxy_client_offer_san(struct proxy_client *pc, int fd, uint32_t role, uint64_t sock_cookie, uint64_t cookie,
			   const struct proxy_san_offer *x);

/* what the peer must know of our queue pair, at most WSD_SAN_BLOB_MAX bytes. Return: as proxy_client_withdraw(), -EINVAL. */
int proxy_client_san_local(struct proxy_client *pc, uint64_t cookie, uint64_t session_id, const void *blob, size_t len);
/* the queue pair is connected. Return: as proxy_client_withdraw(). */
int proxy_client_san_ready(struct proxy_client *pc, uint64_t cookie, uint64_t session_id);
/* Ask; the answer is a word of struct wsd_remote, and PROXY_MSG_SAN_LOOK. Return: as proxy_client_withdraw(). */
int proxy_client_san_ask(struct proxy_client *pc, uint64_t cookie, uint64_t session_id, enum wsd_san_what what, uint64_t a,
			 uint64_t b);

/**
 * proxy_client_subnets() - where RDMA may reach, as the daemon says
 * @ret:	room for @max entries; checked: family AF_INET or AF_INET6, prefix at most its bits
 * @ret_gen:	changes when RDMA devices, links or addresses have; may be NULL
 *
 * Return: how many; 0 also while there is no daemon, or one that knows nothing of RDMA.
 */
unsigned proxy_client_subnets(const struct proxy_client *pc, struct wsd_subnet *ret, unsigned max, uint32_t *ret_gen);

/* The one call that waits: until a message is there or ms have passed; true: look. For who cannot go on without the answer. */
bool proxy_client_wait(struct proxy_client *pc, unsigned ms);

/**
 * proxy_client_receive() - take one message
 *
 * Never blocks. Call it until it returns 0. What does not follow the protocol ends the
 * connection. When the connection ends, each unanswered offer is reported as refused.
 *
 * Return: 1 with *ret_msg filled (fd then the caller's), 0 nothing (more) waits.
 */
int proxy_client_receive(struct proxy_client *pc, struct proxy_msg *ret_msg);

/**
 * proxy_client_pending() - has proxy_client_receive() something to do? One or two loads.
 *
 * While the daemon has not welcomed us, it says whether any offer is unanswered.
 * A daemon that was killed is noticed by the next request that is sent, or by a receive.
 */
bool proxy_client_pending(const struct proxy_client *pc);

/* the word that changes when a message was queued; NULL until welcomed and while down. Look it up
 * again after each receive. */
const _Atomic uint32_t *proxy_client_notify_word(const struct proxy_client *pc);

/* our descriptor, or -1 */
int proxy_client_fd(const struct proxy_client *pc);

/**
 * proxy_client_moved() - the switch had to move our descriptor (dup2 onto its number)
 * @fd:		a duplicate of it, from now on ours
 *
 * The old number is the program's and is not closed.
 */
void proxy_client_moved(struct proxy_client *pc, int fd);

/**
 * proxy_client_after_fork() - first call in a forked child
 *
 * Closes the inherited connection without farewell and forgets the parent's offers without a
 * report; the next offer connects anew.
 */
void proxy_client_after_fork(struct proxy_client *pc);

#endif
