/* SPDX-License-Identifier: MIT */
/*
 * wsd/proxy_proto.h - the requests that wsd-proxyd answers (its "IOCTL" ABI)
 *
 * One SOCK_SEQPACKET connection per client process, at WSD_PROXYD_SYSTEM_PATH or, for
 * a private daemon, at the path that wsdrun chose. One packet is one message: a
 * struct wsd_msg_hdr and the fixed body of its type, host byte order (both ends are on
 * one kernel). len is the whole packet and must match exactly what the type says;
 * anything else is answered with WSD_MSG_ERROR and the connection is closed.
 *
 * Trust:     the client checks SO_PEERCRED of the daemon (root or its own user) before
 *            it sends; the daemon takes pid, uid and namespaces of the client from the
 *            kernel, never from a message. A descriptor number is a claim that the
 *            daemon checks in /proc/PID/fd and by sock_diag. No socket is ever passed.
 * Waiting:   requests are sent without waiting; answers to OFFER arrive later. The page
 *            that comes with WSD_MSG_WELCOME has a counter of packets that the daemon
 *            has queued for this client: as long as it has not moved nothing waits, and a look
 *            costs one load.
 * Re-attach: a session belongs to a socket, and one process at a time is its owner at the daemon: who offered it, then who
 *            re-attached last (WSD: control moves on demand). REATTACH is proven like OFFER and answered at once. What
 *            the processes of one side share, the *side*, lies in memory of theirs that the peer cannot write; the daemon only
 *            says where. Whoever finds it gone claims its place (`over`), and the daemon lets one claimant win.
 * Versions:  hdr.version is WSD_PROXY_VERSION; a daemon that does not speak the client's
 *            version answers WSD_MSG_ERROR/WSD_R_VERSION and closes. What was added since is in WSD_CAP_*, told by
 *            hdr.cookie of WSD_MSG_WELCOME; a client sends nothing that the daemon has no bit for.
 */
#ifndef WSD_PROXY_PROTO_H
#define WSD_PROXY_PROTO_H

#include <assert.h>
#include <stdint.h>
#include <wsd/c11.h>

#define WSD_PROXY_VERSION	1u
#define WSD_PROXYD_SYSTEM_PATH	"/run/wsd/proxyd.sock"
#define WSD_PROXY_SOCKET_ENV	"WSD_PROXY_SOCKET"	/* read with secure_getenv: path of the daemon to use */
#define WSD_MSG_MAX		1024u			/* no packet is longer */

enum wsd_msg_type {
	/* client to daemon */
	WSD_MSG_HELLO = 1,	/* first packet of a client that has connections */
	WSD_MSG_OFFER,		/* "my descriptor is a connection that I would have accelerated" */
	WSD_MSG_WITHDRAW,	/* the descriptor is about to be closed, or is TCP for good */
	WSD_MSG_ATTACHED,	/* the session memory is mapped */
	WSD_MSG_STATUS,		/* wsdctl: describe yourself; needs no HELLO */
	WSD_MSG_UNLOAD,		/* wsdctl: stop; root or the daemon's user only */
	WSD_MSG_REATTACH,	/* "my descriptor came from another process: has it a session?"; WSD_CAP_REATTACH */
	WSD_MSG_SIDE,		/* where the counts of this end lie, for who re-attaches; WSD_CAP_REATTACH */
	WSD_MSG_OFFER_SAN,	/* OFFER of a connection whose peer may be on another host; WSD_CAP_SAN, as all below */
	WSD_MSG_SAN_LOCAL,	/* what the peer must know of our queue pair */
	WSD_MSG_SAN_READY,	/* the queue pair is connected */
	WSD_MSG_SAN_ASK,	/* enum wsd_san_what; the answer is a word of struct wsd_remote */

	/* daemon to client */
	WSD_MSG_WELCOME = 64,	/* answers HELLO; carries one descriptor: the notify page, read-only */
	WSD_MSG_SESSION,	/* answers OFFER; carries one descriptor: the session memory */
	WSD_MSG_REFUSED,	/* answers OFFER: stays on TCP, reason given */
	WSD_MSG_REVOKED,	/* the session gets no more use: its gates are closed for good */
	WSD_MSG_STATUS_DAEMON,	/* STATUS: one, first */
	WSD_MSG_STATUS_CONN,	/* STATUS: one for each offer and each session end */
	WSD_MSG_STATUS_END,	/* STATUS, UNLOAD: nothing more follows */
	WSD_MSG_ERROR,		/* the request was malformed or not allowed */
	WSD_MSG_REATTACHED,	/* answers REATTACH; carries one descriptor: the session memory */
	WSD_MSG_SAN_SETUP,	/* answers OFFER_SAN; carries one descriptor: struct wsd_remote */
	WSD_MSG_SAN_REMOTE,	/* SAN_LOCAL of the peer */
	WSD_MSG_SAN_GO,		/* both ends are ready: the connection may be used */
	WSD_MSG_SAN_LOOK,	/* a word of struct wsd_remote has changed; only wakes */
	WSD_MSG_SAN_SIDE,	/* REATTACH of an end over RDMA: SAN_SETUP, this (a struct wsd_msg_side), SAN_GO */

	/* wsdctl and the daemon */
	WSD_MSG_PEERS = 48,		/* wsdctl: which other daemons do you know? Needs no HELLO */
	WSD_MSG_STATUS_PEER = 112,	/* PEERS: one for each, then STATUS_END */
};

/* why a connection is on TCP; shown by wsdctl status and wsdrun --stats. Numbers are ABI. */
enum wsd_reason {
	WSD_R_NONE = 0,
	WSD_R_NOT_YET,		/* too little traffic so far to be worth a session */
	WSD_R_NO_PROVIDER,	/* catalog missing or malformed, or no provider in it could be loaded */
	WSD_R_NO_DAEMON,	/* no daemon answers at the socket */
	WSD_R_DAEMON_CRED,	/* the daemon runs as neither root nor this user */
	WSD_R_VERSION,		/* daemon and client speak different versions */
	WSD_R_PEER_UNAWARE,	/* the other end has not offered its socket */
	WSD_R_NOT_LOCAL,	/* the peer is on another host, in no subnet that the daemon has for a SAN */
	WSD_R_NETNS,		/* the ends are in different network namespaces */
	WSD_R_DEVICE,		/* a socket is bound to a device or VRF */
	WSD_R_NO_PROC,		/* /proc of the client cannot be read (pid namespace, non-dumpable) */
	WSD_R_NO_DIAG,		/* sock_diag does not answer for the socket */
	WSD_R_NOT_TCP,		/* the descriptor is no established TCP connection */
	WSD_R_MISMATCH,		/* the byte counters of the two ends do not agree */
	WSD_R_QUOTA_SESSIONS,	/* the user has as many sessions as the quota allows */
	WSD_R_QUOTA_BYTES,	/* ... or as many bytes of session memory */
	WSD_R_LIMIT,		/* the daemon's own tables are full, or the user's share of them */
	WSD_R_NOMEM,		/* no memory or descriptor could be had */
	WSD_R_NOT_OWNER,	/* the socket is another process's session, or was offered before */
	WSD_R_UNLOADING,	/* the daemon is stopping */
	WSD_R_OPTION,		/* a socket option or call is in use that the ring does not reproduce */
	WSD_R_SHARED,		/* several processes use the socket */
	WSD_R_EXEC,		/* the socket was passed on by exec or SCM_RIGHTS */
	WSD_R_OFFSETS,		/* bytes went around us: offsets disagree with the kernel's */
	WSD_R_PEER_BROKEN,	/* the peer broke the protocol; the connection was reset */
	WSD_R_UNTRACKED,	/* waited for in ways we do not see (io_uring, stdio, aio, ...) */
	WSD_R_SANDBOX,		/* the process entered seccomp */
	WSD_R_TABLE_FULL,	/* descriptor number or count is above our tables */
	WSD_R_OFF,		/* switched off by configuration */
	WSD_R_NOT_SAN,		/* local and remote address are in no declared subnet together */
	WSD_R_NO_RDMA,		/* no RDMA device reaches the peer from the local address */
	WSD_R_NO_PEER,		/* no daemon answers at the peer's host */
	WSD_R_NO_KEY,		/* no cluster key, or the peer's daemon has another */
	WSD_R_MEMLOCK,		/* too little memory may be locked */
	WSD_R_PROOF,		/* the two ends do not hold the same stream */
	WSD_R_RDMA_FAILED,	/* the RDMA path broke; it is tried again later */
	WSD_R_PEER_VERSION,	/* the peer's host has another version of WSD */
	_WSD_R_N,
};

struct wsd_msg_hdr {
	uint32_t len;		/* bytes of this packet, header included */
	uint16_t version;	/* WSD_PROXY_VERSION */
	uint16_t type;		/* enum wsd_msg_type */
	uint64_t cookie;	/* the client's name for the offer; echoed in every answer */
};

struct wsd_msg_hello {
	struct wsd_msg_hdr hdr;
	uint32_t flags;		/* must be 0 */
	uint32_t reserved;	/* must be 0 */
};

struct wsd_addr {
	uint16_t family;	/* AF_INET, AF_INET6: that of the socket; v4-mapped stays AF_INET6 */
	uint16_t port;		/* host order */
	uint32_t scope;		/* IPv6 scope id, or the device that the socket is bound to; else 0 */
	uint8_t ip[16];		/* network order; IPv4 in the first four bytes */
};

#define WSD_ROLE_CONNECT	0u	/* this end called connect(): becomes side 0 */
#define WSD_ROLE_ACCEPT		1u	/* this end called accept(): becomes side 1 */

struct wsd_msg_offer {
	struct wsd_msg_hdr hdr;	/* cookie: unique among the client's live offers, not 0 */
	int32_t fd;		/* descriptor number in the client */
	uint32_t role;		/* WSD_ROLE_*; two ends with one role are refused */
	uint64_t sock_cookie;	/* SO_COOKIE as the client sees it; must equal sock_diag's */
	uint32_t ring_size;	/* wanted; 0: the daemon's choice */
	uint32_t flags;		/* must be 0 */
	/* where to look the socket up: a claim, of which only sock_diag's answer is believed */
	struct wsd_addr local, remote;
};

/*
 * Where a side lies: System V segment and index in it. The daemon believes none of it and hands it to processes that hold the
 * same socket; they check what they find.
 */
struct wsd_side_at {
	uint64_t ipc_ns;	/* inode of the IPC namespace that shm means something in; 0: not to be shared */
	int32_t shm;		/* segment, or -1 */
	uint32_t index;
	uint64_t serial;	/* the daemon's: other at each change, never 0 once told. 0 in requests */
};

struct wsd_msg_reattach {
	struct wsd_msg_hdr hdr;	/* cookie: as in OFFER, or that of this very session */
	int32_t fd;		/* descriptor number in the client */
	uint32_t flags;		/* must be 0 */
	uint64_t sock_cookie;
	struct wsd_addr local, remote;	/* as in OFFER */
	uint64_t over;		/* not 0: the side of this serial is gone, the claim takes its place if it still is the last */
	struct wsd_side_at claim;
};

struct wsd_msg_side {
	struct wsd_msg_hdr hdr;	/* cookie of the offer */
	uint64_t session_id;
	struct wsd_side_at at;
};

struct wsd_msg_withdraw {
	struct wsd_msg_hdr hdr;	/* cookie of the offer */
	uint32_t reason;	/* enum wsd_reason; WSD_R_NONE: the descriptor is being closed */
	uint32_t unread;	/* ring bytes that this end leaves unread */
};

struct wsd_msg_attached {
	struct wsd_msg_hdr hdr;
	uint64_t session_id;
};

struct wsd_msg_plain {		/* STATUS, UNLOAD, STATUS_END */
	struct wsd_msg_hdr hdr;
	uint32_t flags;		/* UNLOAD: WSD_UNLOAD_*; else 0 */
	uint32_t reserved;
};
#define WSD_UNLOAD_WAIT		0u	/* take nothing new, stop when the last session has ended */
#define WSD_UNLOAD_REVOKE	1u	/* close every gate for good, then stop; streams go on over TCP */

#define WSD_CAP_REATTACH	1ull	/* REATTACH and SIDE are understood */
#define WSD_CAP_SAN		2ull	/* OFFER_SAN and the other SAN messages are understood */

struct wsd_msg_welcome {
	struct wsd_msg_hdr hdr;	/* cookie: WSD_CAP_* of this daemon */
	uint32_t page_size;	/* bytes to map of the descriptor that comes with it */
	uint32_t pid;		/* of the daemon */
};

#define WSD_SUBNETS_MAX		64u

#define WSD_SAN_GEN_DEVICES(gen)	((gen) >> 16)

/* the page that comes with WSD_MSG_WELCOME; the daemon writes, the client maps it read-only */
struct wsd_notify_page {
	_Atomic uint32_t queued;	/* packets the daemon has queued for this client, wraps */
	_Atomic uint32_t gone;		/* not 0: the daemon has stopped in good order */
	/* WSD_CAP_SAN; the page is that of WELCOME's page_size, an older daemon leaves zeroes */
	_Atomic uint32_t san_gen;	/* the high half is raised when RDMA devices, links or addresses have changed: what failed may be tried again;
					 * the low half when a peer offered what no client here does: perhaps it is time for one that waits */
	_Atomic uint32_t subnet_seq;	/* odd: the table is being written */
	_Atomic uint32_t n_subnets;
	_Atomic uint32_t reserved;
	struct wsd_subnet {
		uint8_t ip[16];		/* network order; IPv4 in the first four bytes */
		uint16_t family, prefix;
		uint32_t reserved;
	} subnet[WSD_SUBNETS_MAX];	/* a peer in none of them is not worth an OFFER_SAN */
};

struct wsd_msg_session {
	struct wsd_msg_hdr hdr;
	uint64_t session_id;
	uint64_t length;	/* of the memfd: wsd_session_length(ring_size) */
	uint32_t ring_size;
	uint32_t side;		/* 0 or 1, see wsd/shared_ring.h */
};

struct wsd_msg_reattached {
	struct wsd_msg_hdr hdr;
	uint64_t session_id;
	uint64_t length;
	uint32_t ring_size;
	uint32_t side;
	struct wsd_side_at at;	/* of the end whose socket this is; the claim, if it won */
};

/*
 * RDMA. The client offers with digests of the first bytes of the stream, which the daemons compare, proves its
 * socket as with OFFER, gets its memory and a path, answers with what its queue pair is, gets the peer's, says READY and waits for GO:
 *   OFFER_SAN -> SAN_SETUP(fd) -> SAN_LOCAL -> SAN_REMOTE -> SAN_READY -> SAN_GO, or REFUSED or REVOKED at any point.
 * WITHDRAW as always. After GO, and after an own reason to think so, SAN_ASK.
 */
#define WSD_SAN_FORCE		1u	/* OFFER_SAN flags: RDMA also when both ends are on this host */
#define WSD_DIGESTS		3u	/* of the first 16, 64 and 256 bytes of each direction */
#define WSD_SAN_BLOB_MAX	256u

struct wsd_digest {
	uint64_t h[2];
};

struct wsd_msg_offer_san {
	struct wsd_msg_offer offer;	/* hdr's type is WSD_MSG_OFFER_SAN; ring_size: ring 0; flags: WSD_SAN_FORCE or 0 */
	uint32_t n_tx, n_rx;		/* how many digests of each are valid */
	struct wsd_digest tx[WSD_DIGESTS], rx[WSD_DIGESTS];	/* sent by this end, received by this end */
};

struct wsd_san_path {		/* as the daemon chose it */
	char device[64];	/* name of the ibverbs device, zero terminated */
	uint8_t gid[16];	/* of this end; its index is looked up by value */
	uint8_t port, link_layer, mtu, tclass;	/* mtu: enum ibv_mtu, the most this end can */
	uint8_t timeout, retry, rnr_retry, hop_limit;
	uint32_t flow_label;
	uint32_t reserved;
};

#define WSD_SETUP_NO_OVERFLOW	1u	/* flags: TCP carries nothing but what the protocol needs (measurements) */

struct wsd_msg_san_setup {
	struct wsd_msg_hdr hdr;
	uint64_t session_id, nonce, length;
	uint64_t peer_identity;		/* connections with equal ones may share a protection domain (A8) */
	uint32_t side, epoch, ring0, ring1_max, fill_max;
	uint32_t flags;			/* WSD_SETUP_* */
	struct wsd_san_path path;
};

struct wsd_msg_san_blob {	/* SAN_LOCAL, SAN_REMOTE */
	struct wsd_msg_hdr hdr;
	uint64_t session_id;
	uint32_t len, reserved;
	uint8_t blob[WSD_SAN_BLOB_MAX];	/* zero behind len */
};

enum wsd_san_what {
	WSD_SAN_DECIDE = 1,	/* A2: has the peer taken Start? -> decided */
	WSD_SAN_FILL,		/* A4: [a, b) of our source ring to the peer over the daemons' link -> its filled */
	WSD_SAN_END,		/* A7: where does the peer's ring end? -> end_valid */
	WSD_SAN_GROW,		/* ring 1 of b bytes, a 0: receiving, 1: source -> rx1_allowed, tx1_allowed */
	WSD_SAN_WANT_RETURN,	/* the peer is to return its sending direction -> its x_return */
	WSD_SAN_DRAINED,	/* all that was posted, up to a, is completed: closing */
	WSD_SAN_BROKEN,		/* the path failed; a: errno */
	WSD_SAN_PLAIN,		/* A4: plain_H -> the peer's plain_at, then plain_there */
	_WSD_SAN_N,
};

struct wsd_msg_san_plain {	/* SAN_READY, SAN_GO, SAN_ASK, SAN_LOOK */
	struct wsd_msg_hdr hdr;
	uint64_t session_id;
	uint32_t what;		/* enum wsd_san_what in SAN_ASK, else 0 */
	uint32_t reserved;
	uint64_t a, b;
};

struct wsd_msg_refused {	/* also WSD_MSG_REVOKED, WSD_MSG_ERROR */
	struct wsd_msg_hdr hdr;
	uint32_t reason;	/* enum wsd_reason */
	uint32_t reserved;
};

struct wsd_msg_status_daemon {
	struct wsd_msg_hdr hdr;
	uint32_t pid, uid;
	uint32_t unloading;
	uint32_t n_clients, n_offers, n_sessions;
	uint64_t n_sessions_total;
	uint64_t bytes_mapped;		/* session memory in use */
	uint64_t quota_sessions, quota_bytes;	/* per uid */
	uint64_t uptime_us;
	char transports[64];		/* comma separated, zero terminated */
};

struct wsd_msg_status_conn {
	struct wsd_msg_hdr hdr;
	uint64_t session_id;	/* 0: no session, reason says why */
	uint64_t inode;
	uint64_t age_us;
	uint64_t tx_ring, tx_tcp;	/* bytes this end says it sent on each road */
	struct wsd_addr local, remote;
	uint32_t pid, uid;
	int32_t fd;
	uint32_t side;
	uint32_t reason;	/* enum wsd_reason */
	uint32_t gate_open;	/* this end's receiving gate */
	uint32_t on_ring;
	uint32_t unread;	/* bytes in the ring towards this end */
	uint32_t ring_size;
	char comm[16];
	uint32_t transport;	/* enum wsd_transport of the session */
};
/* 0: no session, or an older daemon, which does not say */
enum wsd_transport { WSD_TRANSPORT_NONE, WSD_TRANSPORT_SHM, WSD_TRANSPORT_VERBS };

struct wsd_msg_peers {
	struct wsd_msg_hdr hdr;
	uint32_t flags;			/* WSD_PEERS_*: root or the daemon's user only; else 0 */
	uint32_t reserved;
	struct wsd_addr local, remote;	/* TRY: from which of our addresses to which; ports do not count. Else 0 */
};
#define WSD_PEERS_RETRY		1u	/* forget who did not answer */
#define WSD_PEERS_TRY		2u	/* begin a link, as a connection between these addresses would, whatever came of it before */

struct wsd_msg_status_peer {
	struct wsd_msg_hdr hdr;
	struct wsd_addr local, remote;	/* remote.port: where its daemon listens. Family 0: not a peer, why says what keeps all off */
	uint64_t since_us;		/* so long in this state */
	uint64_t retry_us;		/* not tried before; 0: with the next connection */
	uint64_t rtt_us;		/* of the last PING, 0: none yet */
	uint32_t state;			/* enum wsd_peer_link */
	uint32_t version;		/* spoken, 0: none */
	uint32_t n_held;		/* sessions that need it */
	uint32_t outgoing;		/* we made the connection */
	char why[128];			/* words, zero terminated: why there is no link */
};
enum wsd_peer_link { WSD_PEER_LINK_NONE, WSD_PEER_LINK_CONNECTING, WSD_PEER_LINK_UP };

static_assert(sizeof(struct wsd_msg_status_conn) == 160, "ABI");
static_assert(sizeof(struct wsd_msg_peers) == 72, "ABI");
static_assert(sizeof(struct wsd_msg_status_peer) == 232, "ABI");
static_assert(sizeof(struct wsd_msg_hdr) == 16, "ABI");
static_assert(sizeof(struct wsd_addr) == 24, "ABI");
static_assert(sizeof(struct wsd_msg_offer) == 88, "ABI");
static_assert(sizeof(struct wsd_msg_session) == 40, "ABI");
static_assert(sizeof(struct wsd_side_at) == 24, "ABI");
static_assert(sizeof(struct wsd_msg_reattach) == 112, "ABI");
static_assert(sizeof(struct wsd_msg_side) == 48, "ABI");
static_assert(sizeof(struct wsd_msg_reattached) == 64, "ABI");
static_assert(sizeof(struct wsd_msg_offer_san) == 192, "ABI");
static_assert(sizeof(struct wsd_san_path) == 96, "ABI");
static_assert(sizeof(struct wsd_msg_san_setup) == 168, "ABI");
static_assert(sizeof(struct wsd_msg_san_blob) == 288, "ABI");
static_assert(sizeof(struct wsd_msg_san_plain) == 48, "ABI");
static_assert(sizeof(struct wsd_notify_page) <= 4096, "one page");

#endif
