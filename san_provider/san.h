/* SPDX-License-Identifier: MIT */
/*
 * san.h - the insides of wsd_san.so, the SAN service provider for this host's connections
 *
 * One struct san for the process. A SAN socket (struct san_sock) is made by the switch beside a TCP
 * socket; a struct san_offer stands for one TCP descriptor offered to the daemon, first pending, then with a session
 * or refused. A connecting socket has one offer; a listening one has a bounded list of them,
 * one for each accepted TCP connection whose companion is expected, and WSPAccept moves an offer with a session
 * into a new socket.
 *
 * A session is memory that both ends share (struct wsd_session, backend shm: san.rt), or a connection over RDMA with memory of this
 * end alone (struct wsd_remote, backend verbs: san.rt_remote, opened when the first one is set up, and with it libibverbs). The
 * daemon's answer decides which; an offer asks for RDMA by WSD_CONNECT_SAN.
 *
 * Files: startup.c tables and counting; socket.c sockets, addresses, closing; connect.c connect,
 * listen, accept; reattach.c sessions of other processes; progress.c what the daemon answers; event.c network events; data.c
 * transfers; memory.c registrations; ioctl.c control codes; option.c options; control.c our extensions;
 * table.c handles; error.c codes; remote.c sessions over RDMA; put.c their put road; wait.c what a sleeper waits for.
 *
 * Handles:  what the switch and the daemon give back to us is a number with a generation, looked up in
 *           a table: a stale or invented one answers WSAENOTSOCK and touches nothing.
 * Threads:  one at a time (san_ext.h), but for drain(), arm() and wait_fd() in put.c: they look at nothing but san.rt_remote and
 *           san.wait_fd. Upcalls may call back into the provider, and close the very
 *           socket: after an upcall a socket is looked up again or not used.
 * errno:    left alone by every entry (SAN_ENTRY).
 * Limits:   SAN_SOCKETS, SAN_OFFERS, SAN_REGISTRATIONS for each socket; the transport's and client's own.
 */
#ifndef SAN_PROVIDER_SAN_H
#define SAN_PROVIDER_SAN_H

#include <errno.h>
#include <stdbool.h>
#include <netinet/in.h>
#include <wsd/san_ext.h>
#include <wsd/proxy_proto.h>

#include "proxy_daemon/client/client.h"
#include "rdma_transport/api/rt.h"

#define SAN_SOCKETS		65536u
#define SAN_OFFERS		65536u
#define SAN_REGISTRATIONS	1024u	/* distinct ones of a socket, of each kind */
#define SAN_SGE			4u

/* --- table.c: numbers that stand for pointers --- */

struct san_table {
	struct san_slot *slot;
	uint32_t n, max, n_used;
	uint32_t free;			/* first free slot + 1 */
};

/* a number that is not 0 nor all ones, or 0: full or no memory */
uint64_t san_table_add(struct san_table *t, void *p);
void *san_table_get(const struct san_table *t, uint64_t handle);	/* NULL: not (any more) there */
void san_table_remove(struct san_table *t, uint64_t handle);
/* the i-th entry or NULL, i below t->n */
void *san_table_at(const struct san_table *t, uint32_t i);
void san_table_free(struct san_table *t);

/* --- objects --- */

union san_addr {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

/* in this order: below OFFER_SESSION the outcome is open */
enum offer_state {
	OFFER_PENDING,		/* the daemon has it and has not answered */
	OFFER_SETUP,		/* RDMA: memory mapped, our queue pair made and told; the peer's is awaited */
	OFFER_REMOTE,		/* RDMA: queue pair connected, READY told; GO is awaited */
	OFFER_SESSION,		/* conn is connected */
	OFFER_REFUSED,		/* reason says why */
};

struct san_offer {
	uint64_t cookie;		/* its number in san.offers */
	enum offer_state state;
	uint32_t role;
	struct san_sock *sock;		/* whose it is: a connecting, connected or listening socket */
	struct san_offer *next, *prev;	/* of a listening socket */
	struct wsd_expect expect;	/* role accept; in connect only .data */
	struct rt_conn *conn;
	uint64_t session_id;
	struct wsd_remote *remote;	/* RDMA: memory of this end, mapped; NULL: a session of this host, or none */
	uint64_t remote_length;
	WSDPUTROAD road;		/* RDMA: what was handed out; size 0: not yet */
	unsigned reason;
	bool daemon_knows;		/* a withdrawal is due */
	bool reattach;			/* of another process; role is known with the answer */
	struct wsd_side_at at;		/* reattach: as answered */
	bool unsent;			/* in san.unsent: the daemon's socket was full, or it has not welcomed us */
	struct san_offer *next_unsent, *prev_unsent;
};

struct offer_list {
	struct san_offer *first, *last;
};

struct unsent_list {
	struct san_offer *first, *last;
};

/**
 * enum sock_state - where one SAN socket stands
 *
 * NEW         made by WSPSocket.
 * BOUND       has its local address.
 * LISTENING   has expectations; never connects.
 * CONNECTING  its offer waits for the daemon.
 * CONNECTED   its offer has a session.
 * FAILED      connecting came to nothing; only closing makes sense.
 */
enum sock_state { SOCK_NEW, SOCK_BOUND, SOCK_LISTENING, SOCK_CONNECTING, SOCK_CONNECTED, SOCK_FAILED };

/* what the bytes of a session are used for; the first use decides */
enum sock_use { USE_NONE, USE_RING, USE_MESSAGES, USE_ROAD };

struct san_mem;

struct san_sock {
	uint64_t handle;		/* our descriptor */
	SOCKET up;			/* the switch's */
	enum sock_state state;
	enum sock_use use;
	int family;
	union san_addr local, peer;
	socklen_t local_len, peer_len;

	WSAEVENT event;
	LONG selected, pending;		/* FD_* */
	INT connect_error, accept_error;	/* iErrorCode of what is pending */
	unsigned reason;
	bool debug;

	struct san_offer *offer;	/* role connect, or accepted */
	struct offer_list waiting, ready;	/* listening: pending ones; answered ones in order */
	unsigned n_expected;
	int backlog;

	struct san_mem *mem;
	unsigned n_local, n_rdma;
	uint32_t n_notify;		/* outstanding operations that end in an upcall */
	bool dead;			/* the transport failed: further posts answer error */
	struct san_sock *next_msg, **prev_msg;	/* in san.messages while use is USE_MESSAGES */
};

struct san {
	unsigned starts;		/* WSPStartupEx without WSPCleanup */
	WSPUPCALLTABLEEX up;
	struct proxy_client *client;
	struct rt_ctx *rt;
	struct rt_ctx *_Atomic rt_remote;	/* NULL before the first RDMA session of this process */
	struct san_old_ctx *old;	/* rt_remote of the parents: closed at the end */
	const char *remote_name;	/* of the backend, "verbs" */
	bool forced;
	bool devices_moved;		/* some may be gone and must be let go of */
	uint32_t san_gen;		/* the daemon's, as it was last seen */
	_Atomic int wait_fd;		/* private epoll + 1; 0: none */
	int client_fd;			/* as it was told by handles() */
	unsigned handles_gen;
	struct san_table socks, offers;
	struct san_sock *messages;
	struct unsent_list unsent;	/* offers whose next message goes out at the next progress, in order */
	bool deferred;			/* events to be raised by the next progress */
};

extern struct san san;

/* --- entries --- */

static inline void san_restore_errno(const int *saved)
{
	errno = *saved;
}

#define SAN_ENTRY __attribute__((cleanup(san_restore_errno), unused)) const int san_saved_errno = errno

static inline int san_fail(LPINT lpErrno, int code)
{
	if (lpErrno)
		*lpErrno = code;
	return SOCKET_ERROR;
}

static inline struct san_sock *san_sock_get(SOCKET s)
{
	return san_table_get(&san.socks, s);
}

int san_error_of(int r);		/* error.c: -errno to a WSA code */
unsigned san_reason_of(int r);		/* ... and to what the daemon is told when RDMA cannot be set up */

/* startup.c; for tests: a struct rt_verbs_lib in place of libibverbs. Before WSPStartupEx */
extern const void *san_verbs_lib;

/* --- socket.c --- */
SOCKET WSPAPI san_socket(int af, int type, int protocol, LPWSAPROTOCOL_INFOW info, GROUP g, DWORD flags,
			 LPINT lpErrno);
int WSPAPI san_bind(SOCKET s, const struct sockaddr *name, int namelen, LPINT lpErrno);
int WSPAPI san_closesocket(SOCKET s, LPINT lpErrno);
int WSPAPI san_duplicate(SOCKET s, DWORD pid, LPWSAPROTOCOL_INFOW info, LPINT lpErrno);
/* new and entered, with a handle of the switch; NULL and *lpErrno */
struct san_sock *san_sock_new(int family, LPINT lpErrno);
void san_sock_close(struct san_sock *k);
/* 0, WSAEFAULT, WSAEAFNOSUPPORT */
int san_addr_take(union san_addr *a, socklen_t *len, int family, const struct sockaddr *name, int namelen);

/* --- connect.c --- */
int WSPAPI san_connect(SOCKET s, const struct sockaddr *name, int namelen, LPWSABUF caller_data, LPWSABUF callee_data,
		       LPQOS sqos, LPQOS gqos, LPINT lpErrno);
int WSPAPI san_listen(SOCKET s, int backlog, LPINT lpErrno);
SOCKET WSPAPI san_accept(SOCKET s, struct sockaddr *addr, LPINT addrlen, LPCONDITIONPROC condition, DWORD_PTR data,
			 LPINT lpErrno);
int san_expect(struct san_sock *k, const struct wsd_expect *x);		/* 0 or a WSA code */
int san_unexpect(struct san_sock *k, const struct wsd_expect *x);
/* end of an offer: withdrawn if the daemon knows it, its connection closed, freed */
void san_offer_drop(struct san_offer *o, unsigned reason, uint32_t unread);
void san_offer_withdraw(struct san_offer *o, unsigned reason, uint32_t unread);
/* tell the daemon what is next in its state; 0 or a WSA code and *ret_reason. WSAEWOULDBLOCK: its socket is full, or it has
 * not said yet what it can: nothing was sent */
int san_offer_send(struct san_offer *o, unsigned *ret_reason);
void san_unsent_add(struct san_offer *o);
void san_unsent_remove(struct san_offer *o);
void offer_list_add(struct offer_list *l, struct san_offer *o);
void offer_list_push(struct offer_list *l, struct san_offer *o);	/* in front */
void offer_list_remove(struct offer_list *l, struct san_offer *o);

/* --- reattach.c --- */
int san_reattach(struct san_sock *k, const struct wsd_reattach *x, struct wsd_reattached *ret);	/* 0 or a WSA code */

/* --- event.c --- */
int WSPAPI san_eventselect(SOCKET s, WSAEVENT event, LONG events, LPINT lpErrno);
int WSPAPI san_enumevents(SOCKET s, WSAEVENT event, LPWSANETWORKEVENTS out, LPINT lpErrno);
/* note it and, if selected, set the event object; 1 if it was set */
int san_event(struct san_sock *k, LONG event, INT error);

/* --- progress.c --- */
int san_progress(void);
/* the offer has its outcome: tell whose it is; how many events were raised */
int san_settle(struct san_offer *o);
/* an offer whose outcome was open comes to nothing: all undone, withdrawn if the daemon knows it, and told; as san_settle() */
int san_offer_fail(struct san_offer *o, unsigned reason);
int san_take_message(const struct proxy_msg *m);	/* closes its descriptor; how many events were raised */
void san_after_fork(void);
void san_abandon(void);

/* --- remote.c: sessions over RDMA --- */
/* the daemon's answers, in their order; how many events were raised */
int san_remote_setup(struct san_offer *o, const struct proxy_msg *m);
int san_remote_peer(struct san_offer *o, const struct proxy_msg *m);
int san_remote_go(struct san_offer *o, const struct proxy_msg *m);
/* what is to be sent now in OFFER_SETUP and OFFER_REMOTE; an answer of the client */
int san_remote_send(struct san_offer *o);
/* it ends: what was posted may go out; the daemon is told if nothing is left to send. Before the withdrawal */
void san_remote_stop(struct san_offer *o, unsigned reason);
/* connection and memory are let go of; nothing if there are none */
void san_remote_undo(struct san_offer *o);
/* devices that are going are closed. Others' threads inside: at the next progress */
void san_remote_devices(void);
void san_remote_after_fork(void);
void san_remote_cleanup(void);

/* --- put.c --- */
int WSPAPI san_put_with_signal(SOCKET s, LPWSDPUTROAD road, LPINT lpErrno);
int san_ask(struct san_sock *k, const struct wsd_san_ask *a);	/* 0 or a WSA code */
int san_drain(uint64_t *ret_context, unsigned max);
int san_arm(void);

/* --- wait.c --- */
int san_wait_fd(void);
/* once a context for RDMA is there: make the private epoll, and put in what has come since */
void san_wait_refresh(void);
int san_handles(int *fds, int max);
unsigned san_handles_gen(void);
void san_wait_close(void);		/* also in a forked child */

/* --- data.c --- */
int WSPAPI san_send(SOCKET s, LPWSABUF bufs, DWORD n, LPDWORD sent, DWORD flags, LPWSAOVERLAPPED ov,
		    LPWSAOVERLAPPED_COMPLETION_ROUTINE routine, LPWSATHREADID thread, LPINT lpErrno);
int WSPAPI san_recv(SOCKET s, LPWSABUF bufs, DWORD n, LPDWORD received, LPDWORD flags, LPWSAOVERLAPPED ov,
		    LPWSAOVERLAPPED_COMPLETION_ROUTINE routine, LPWSATHREADID thread, LPINT lpErrno);
int WSPAPI san_rdma_write(SOCKET s, LPWSABUFEX bufs, DWORD n, LPVOID desc, DWORD desc_len, DWORD offset,
			  LPDWORD written, DWORD flags, LPWSAOVERLAPPED ov,
			  LPWSAOVERLAPPED_COMPLETION_ROUTINE routine, LPWSATHREADID thread, LPINT lpErrno);
int WSPAPI san_rdma_read(SOCKET s, LPWSABUFEX bufs, DWORD n, LPVOID desc, DWORD desc_len, DWORD offset,
			 LPDWORD read, DWORD flags, LPWSAOVERLAPPED ov, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine,
			 LPWSATHREADID thread, LPINT lpErrno);
BOOL WSPAPI san_getoverlapped(SOCKET s, LPWSAOVERLAPPED ov, LPDWORD bytes, BOOL wait, LPDWORD flags, LPINT lpErrno);
/* take completions; the socket may be gone afterwards. Returns how many upcalls were made. */
int san_poll(struct san_sock *k);
/* end every outstanding operation with WSA_OPERATION_ABORTED; k is out of the table already */
void san_abort(struct san_sock *k);
void san_messages_leave(struct san_sock *k);

/* --- memory.c --- */
HANDLE WSPAPI san_register(SOCKET s, PVOID buf, DWORD len, DWORD flags, LPINT lpErrno);
int WSPAPI san_deregister(SOCKET s, HANDLE h, LPINT lpErrno);
int WSPAPI san_register_rdma(SOCKET s, PVOID buf, DWORD len, DWORD flags, LPVOID desc, LPDWORD desc_len, LPINT lpErrno);
int WSPAPI san_deregister_rdma(SOCKET s, LPVOID desc, DWORD desc_len, LPINT lpErrno);
/* is the span inside one local registration with these rights? h: in that one */
bool san_mem_covers(const struct san_sock *k, HANDLE h, const void *p, uint32_t len, DWORD rights);
void san_mem_drop_all(struct san_sock *k);

/* --- ioctl.c, option.c, control.c --- */
int WSPAPI san_ioctl(SOCKET s, DWORD code, LPVOID in, DWORD in_len, LPVOID out, DWORD out_len, LPDWORD ret_len,
		     LPWSAOVERLAPPED ov, LPWSAOVERLAPPED_COMPLETION_ROUTINE routine, LPWSATHREADID thread,
		     LPINT lpErrno);
int WSPAPI san_getsockopt(SOCKET s, int level, int name, CHAR *val, LPINT len, LPINT lpErrno);
int WSPAPI san_setsockopt(SOCKET s, int level, int name, const CHAR *val, int len, LPINT lpErrno);
BOOL WSPAPI san_getqosbyname(SOCKET s, LPWSABUF name, LPQOS qos, LPINT lpErrno);
int WSPAPI san_shared_ring(SOCKET s, LPWSDSHAREDRING ring, LPINT lpErrno);
int WSPAPI san_control(LPWSDCONTROL control, LPINT lpErrno);

#endif
