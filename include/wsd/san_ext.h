/* SPDX-License-Identifier: MIT */
/*
 * wsd/san_ext.h - what this project adds to the SAN SPI
 *
 * All of it is found the documented way, WSPIoctl(SIO_GET_EXTENSION_FUNCTION_POINTER) with a
 * GUID, on a socket that need not be valid. A provider that has none of these answers
 * WSAEINVAL and is driven by the documented functions alone.
 *
 * How the switch uses them for one connection, TCP descriptor N, on one host:
 *   connecting end: WSPSocket, WSPBind(local), WSPEventSelect(FD_CONNECT),
 *                   WSPConnect(peer, caller data = struct wsd_connect_data) -> WSAEWOULDBLOCK
 *                   ... progress() ... WPUSetEvent -> WSPEnumNetworkEvents -> FD_CONNECT
 *                   -> WSPSharedRing
 *   accepting end:  WSPSocket, WSPBind(local), WSPListen once per local address,
 *                   WSPEventSelect(FD_ACCEPT); for each accepted descriptor worth it
 *                   WSPIoctl(SIO_WSD_EXPECT, struct wsd_expect) on that listener
 *                   ... progress() ... WPUSetEvent -> WSPEnumNetworkEvents -> FD_ACCEPT
 *                   -> WSPAccept(condition function: callee data carries wsd_connect_data of
 *                   the expectation; CF_ACCEPT or CF_REJECT) -> WSPSharedRing on the new socket
 *
 *                   An expectation that was refused takes the same way: FD_ACCEPT, WSPAccept asks
 *                   the condition function, so that the switch sees which one it is, and then answers WSAETIMEDOUT;
 *                   until the next WSPAccept socket_reason(listener) says why.
 *
 *   a TCP descriptor that came from another process (WSD's duplication, where control moves on demand): WSPSocket,
 *                   WSPIoctl(SIO_WSD_REATTACH) -> connected, WSPSharedRing
 *
 *                   Over RDMA the same with WSPPutWithSignal in place of WSPSharedRing.
 *
 * Threads: a provider with these extensions is entered by one thread at a time (the switch
 *          serialises), never from a signal handler, and never blocks; SIO_WSD_REATTACH waits, for as long as it is told.
 *          The functions of a put road, drain() and arm() are apart: any thread, at any time (wsd/put_road.h).
 */
#ifndef WSD_SAN_EXT_H
#define WSD_SAN_EXT_H

#include <stdint.h>
#include <wsd/c11.h>
#include <wsd/proxy_proto.h>
#include <wsd/put_road.h>
#include <wsd/san_spi.h>

/* {6f3d0b5e-2d0c-4a53-9b8e-7d5a1c52e001} */
#define WSAID_WSDSHAREDRING \
	{ 0x6f3d0b5e, 0x2d0c, 0x4a53, { 0x9b, 0x8e, 0x7d, 0x5a, 0x1c, 0x52, 0xe0, 0x01 } }
/* {6f3d0b5e-2d0c-4a53-9b8e-7d5a1c52e002} */
#define WSAID_WSDPUTWITHSIGNAL \
	{ 0x6f3d0b5e, 0x2d0c, 0x4a53, { 0x9b, 0x8e, 0x7d, 0x5a, 0x1c, 0x52, 0xe0, 0x02 } }
/* {6f3d0b5e-2d0c-4a53-9b8e-7d5a1c52e003} */
#define WSAID_WSDCONTROL \
	{ 0x6f3d0b5e, 0x2d0c, 0x4a53, { 0x9b, 0x8e, 0x7d, 0x5a, 0x1c, 0x52, 0xe0, 0x03 } }

/* caller data of WSPConnect, callee data shown to the condition function */
struct wsd_connect_data {
	uint32_t size;		/* sizeof(*this) */
	int32_t fd;		/* the TCP descriptor that this SAN socket accompanies */
	uint64_t sock_cookie;	/* its SO_COOKIE */
	uint64_t context;	/* the caller's own; on accept that of the expectation */
	/* the peer may be on another host; 0 or WSD_CONNECT_* */
	uint32_t flags;
	uint32_t n_tx, n_rx;	/* digests of the stream's first bytes, see struct wsd_msg_offer_san */
	uint32_t reserved;
	struct wsd_digest tx[WSD_DIGESTS], rx[WSD_DIGESTS];
};
#define WSD_CONNECT_SAN		1u	/* over RDMA, if the daemons can; without it only memory of this host */
#define WSD_CONNECT_FORCE	2u	/* ... also when both ends are on this host */

/* WSPIoctl on a listening SAN socket: a TCP connection was accepted, expect its companion. In:
 * struct wsd_expect. WSAENOBUFS when no more can be expected. */
#define SIO_WSD_EXPECT		0x98000001u	/* IOC_IN | IOC_VENDOR, code 1 */
/* the same struct: forget it; WSAEINVAL when not expected (any more) */
#define SIO_WSD_UNEXPECT	0x98000002u

struct wsd_expect {
	struct wsd_connect_data data;
	uint16_t family;	/* of both addresses */
	uint16_t local_port, remote_port;	/* host order */
	uint16_t reserved;
	uint8_t local_ip[16], remote_ip[16];	/* network order; IPv4 in the first four bytes */
};

/*
 * WSPIoctl on a new SAN socket: the session of a TCP socket that this process holds and another one attached. In: struct wsd_reattach,
 * out: struct wsd_reattached; 0 and the socket is connected. WSAETIMEDOUT: no answer in time; WSAENETDOWN: no daemon;
 * WSAENOTCONN: it has no session, or not for us, socket_reason() says which (WSD_R_NOT_YET: it has none).
 * Once more on a connected one, with `over`: claim the place of a side that is gone.
 */
#define SIO_WSD_REATTACH	0xd8000003u	/* IOC_INOUT | IOC_VENDOR, code 3 */

/* where the counts lie that the processes of one end share; the provider passes it on and knows no more of it */
struct wsd_side_place {
	uint64_t ipc_ns;
	int32_t shm;
	uint32_t index;
	uint64_t serial;	/* the last one known at the daemon; other at each change */
};

struct wsd_reattach {
	uint32_t size;		/* sizeof(*this) */
	int32_t fd;		/* the TCP descriptor */
	uint64_t sock_cookie;
	uint64_t over;		/* 0, or the serial of a side that is gone ... */
	struct wsd_side_place mine;	/* ... whose place this one takes, if it still is the last */
	uint32_t timeout_ms;
	uint32_t reserved;
};

struct wsd_reattached {
	uint32_t size;		/* in: sizeof(*this) */
	uint32_t reserved;
	struct wsd_side_place at;	/* the last one: the claim, if it won */
};

/* the session memory of a connected SAN socket; see wsd/shared_ring.h */
typedef struct wsd_shared_ring {
	uint32_t size;		/* in: sizeof(*this) */
	uint32_t side;		/* 0 or 1 */
	void *base;		/* struct wsd_session; mapped until WSPCloseSocket */
	uint64_t length;
	uint64_t session_id;
	uint32_t ring_size;	/* checked against the mapping, trust this copy */
	uint32_t reserved;
} WSDSHAREDRING, *LPWSDSHAREDRING;

/* 0 or SOCKET_ERROR and WSAENOTSOCK, WSAENOTCONN, WSAEINVAL (size), WSAEOPNOTSUPP */
typedef int(WSPAPI *LPFN_WSDSHAREDRING)(SOCKET s, LPWSDSHAREDRING ring, LPINT lpErrno);

/* the same for a connected SAN socket over RDMA: WSPSharedRing answers WSAEOPNOTSUPP there, this one WSAEOPNOTSUPP elsewhere */
typedef int(WSPAPI *LPFN_WSDPUTWITHSIGNAL)(SOCKET s, LPWSDPUTROAD road, LPINT lpErrno);

/* WSPIoctl on such a socket, in: struct wsd_san_ask. Never blocks; the answer is a word of struct wsd_remote. WSAENETDOWN: no daemon;
 * WSAEWOULDBLOCK: its socket is full, ask again */
#define SIO_WSD_SAN_ASK		0x98000004u	/* IOC_IN | IOC_VENDOR, code 4 */

struct wsd_san_ask {
	uint32_t size;		/* sizeof(*this) */
	uint32_t what;		/* enum wsd_san_what */
	uint64_t a, b;
};

/* provider-wide control; filled once, valid until WSPCleanup */
typedef struct wsd_control {
	uint32_t size;		/* in: sizeof(*this) */
	uint32_t reserved;
	/* receive what waits and raise the events it means through WPUSetEvent. Returns the number of
	 * events raised. Never blocks. Call when *notify_word() changed, or, while that is NULL and offers are
	 * outstanding, now and then. */
	int (*progress)(void);
	/* the word that changes when progress() has something to do; NULL while the daemon has
	 * not welcomed us. Look it up again after each progress(). */
	const _Atomic uint32_t *(*notify_word)(void);
	/* the descriptor that the provider keeps open in this process, or -1. The switch hides it. */
	int (*handle)(void);
	/* why nothing is accelerated just now: enum wsd_reason, 0 when the daemon is there */
	unsigned (*reason)(void);
	/* why connect or accept of that socket ended without a session: enum wsd_reason */
	unsigned (*socket_reason)(SOCKET s);
	/* tell the daemon why the companion is closed (enum wsd_reason) and what was left unread;
	 * WSPCloseSocket follows. Optional: without it the reason is "closed". */
	void (*retire)(SOCKET s, unsigned reason, uint32_t unread);
	/* first call in a forked child: drop (without farewell) the inherited daemon connection.
	 * Mapped rings stay mapped. */
	void (*after_fork)(void);
	/* where the daemon is, as the environment said when the process began (WSD_PROXY_SOCKET, XDG_RUNTIME_DIR; NULL: not
	 * set): programs clear theirs before the provider is loaded. Optional; before the first connect or expect. */
	void (*set_places)(const char *socket_path, const char *runtime_dir);
	/* where our side of that connected socket lies, for processes that re-attach. Optional: without it they cannot. */
	void (*side)(SOCKET s, const struct wsd_side_place *at);

	/* RDMA; all optional, NULL in a provider without put roads. */
	/* every descriptor that the provider keeps open in this process, up to max; returns how many. The switch hides them, and asks
	 * again when handles_gen() has changed. */
	int (*handles)(int *fds, int max);
	unsigned (*handles_gen)(void);
	/* Any thread, see wsd/put_road.h. Takes completions of all roads; ret_context: of those whose state changed. Returns how many,
	 * max: call again. */
	int (*drain)(uint64_t *ret_context, unsigned max);
	/* ask the devices to make wait_fd() readable at the next completion. 0: armed; 1: something came meanwhile, drain() first */
	int (*arm)(void);
	/* readable when drain() may have something, once armed, or progress(); private to this process, level-triggered. -1: no road so far */
	int (*wait_fd)(void);
	/* where RDMA may reach: a copy of the daemon's table; returns how many of max. gen: changes when something may be tried again */
	unsigned (*subnets)(struct wsd_subnet *ret, unsigned max, uint32_t *ret_gen);
	/* use RDMA also between ends of one host: WSD_TRANSPORT=verbs, or the catalog's entry says so */
	int (*forced)(void);
	/* the key "options" of the provider's entry in the catalog; before the first socket. "transport=verbs": forced() */
	void (*set_options)(const char *options);
	/* in place of after_fork() in a child that was forked while another thread of the parent was inside the provider: what is open is closed,
	 * without a word to anybody; nothing else of the provider is called in this process. Optional. */
	void (*abandon)(void);
} WSDCONTROL, *LPWSDCONTROL;

typedef int(WSPAPI *LPFN_WSDCONTROL)(LPWSDCONTROL control, LPINT lpErrno);

#endif
