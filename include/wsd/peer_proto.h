/* SPDX-License-Identifier: MIT */
/*
 * wsd/peer_proto.h - what daemons of two hosts say to each other (docs/peer-link.md has it in words)
 *
 * One TLS 1.3 connection for each pair of addresses, made by whichever daemon needs it first. In it, messages: a struct
 * wsd_peer_hdr, the fixed body of its type, and for some types a tail. Little endian; IP addresses as on the wire.
 *
 * Trust:     who holds the cluster key is a peer, and speaks for the address that the link comes from, no other. Every word is
 *            checked before it is used; what does not fit ends the link, and with it nothing but what depended on it.
 * Versions:  HELLO names a range, the highest common one is spoken. Within a version fields are appended to bodies and types are
 *            added: a body longer than known is read as far as it is known, what a shorter one lacks is 0, a type that
 *            is not known is passed over. So a body is never shorter than in version 1, and never changes its beginning.
 * Ids:       a session's id is chosen by the daemon of the connecting end and means something between these two addresses only.
 *            Bit 0 is set when the daemon with the higher address chose it, so the two never choose the same.
 */
#ifndef WSD_PEER_PROTO_H
#define WSD_PEER_PROTO_H

#include <assert.h>
#include <stdint.h>
#include <wsd/c11.h>

#define WSD_PEER_PORT		9571u
#define WSD_PEER_VERSION_MIN	1u
#define WSD_PEER_VERSION_MAX	1u
#define WSD_PEER_IDENTITY	"wsd-peer/1"	/* PSK identity, and the label that keys are derived under */
#define WSD_PEER_MSG_MAX	65536u		/* no message is longer, header included */
#define WSD_PEER_BLOB_MAX	256u		/* LOCAL */
#define WSD_PEER_SEAMS_MAX	64u		/* FILL */
#define WSD_PEER_FILL_MAX	61440u		/* bytes in one FILL */
#define WSD_PEER_STATES_MAX	1024u		/* sessions in one STATE; more go in further ones */

enum wsd_peer_type {
	WSD_PEER_HELLO = 1,	/* both, first; nothing else is said before the other's has come */
	WSD_PEER_PING,		/* answered by PONG with the same word */
	WSD_PEER_PONG,
	WSD_PEER_BYE,		/* last; why */

	WSD_PEER_OFFER = 10,	/* connecting end's daemon: this connection of yours and mine */
	WSD_PEER_FOUND,		/* accepting end's: it is here, proof comes along */
	WSD_PEER_REFUSE,	/* answers OFFER: it stays on TCP */
	WSD_PEER_SETUP,		/* connecting end's: the proof holds, make the memory */
	WSD_PEER_LOCAL,		/* both: what my client's device must tell yours; tail: the blob */
	WSD_PEER_READY,		/* both: my client is connected */
	WSD_PEER_WITHDRAW,	/* both: no session, or no longer */
	WSD_PEER_ENDED,		/* X's: the sending end is gone; where its stream ends */
	WSD_PEER_FILL,		/* X's: ring bytes that the device may not have brought; tail: seams, then bytes */
	WSD_PEER_DECIDE,	/* X's: was Start seen? */
	WSD_PEER_DECIDED,	/* Y's */
	WSD_PEER_WANT_RETURN,	/* Y's: X shall go back to TCP */
	WSD_PEER_STATE,		/* both, after a link came back: what I still have; tail: list */
	WSD_PEER_HEAD,		/* X's: how far has your client's ring come? */
	WSD_PEER_HEAD_IS,	/* Y's */
	WSD_PEER_WAIT,		/* answers OFFER: not offered at this end yet; FOUND or REFUSE follows */
	WSD_PEER_ASK_END,	/* Y's: the kernel says FIN. ENDED follows, once the sending end has finished */
	WSD_PEER_PLAIN_AT,	/* X's: the frame that ends there is the last, and what follows is plain */
	WSD_PEER_PLAIN_IS,	/* Y's: its client's memory says so */
	_WSD_PEER_TYPES,
};

struct wsd_peer_hdr {
	uint32_t len;		/* of the message, header included */
	uint16_t type;		/* enum wsd_peer_type */
	uint16_t body;		/* bytes of the fixed body; what is behind it is the tail */
	uint64_t id;		/* of the session; 0 in HELLO, PING, PONG, BYE, STATE */
};

/* an address of an IPv4 network is written as ::ffff:a.b.c.d */
struct wsd_peer_addr {
	uint8_t ip[16];
	uint16_t port;
	uint16_t reserved;
	uint32_t reserved2;
};

struct wsd_peer_hello {
	uint16_t min_version, max_version;
	uint32_t sessions_max;	/* remote sessions that this daemon will have at once */
	uint64_t caps;		/* none yet */
	uint8_t host_id[16];	/* random; a link between equal ones is a daemon that meets itself */
	uint64_t boot;		/* random, of this run: another value means that all sessions of the last are gone */
	/* appended: WSD_REMOTE_VERSION of its clients; where the two differ there is no link. 0: a daemon from before version 2 of it */
	uint32_t road;
	uint32_t reserved;
};
#define WSD_PEER_HELLO_V1	40u	/* bytes of it that every daemon sends */

struct wsd_peer_ping {		/* PING, PONG */
	uint64_t stamp;
	uint32_t n_held;	/* sessions that the sender of PING has over this link; not 0: do not close it as idle. PONG: 0 */
	uint32_t reserved;
};

enum wsd_peer_bye {
	WSD_PEER_BYE_IDLE = 1,	/* nothing to say for long */
	WSD_PEER_BYE_STOPPING,	/* this daemon stops */
	WSD_PEER_BYE_VERSION,	/* no common version, of the messages or the road */
	WSD_PEER_BYE_SELF,	/* the host_id is ours */
	WSD_PEER_BYE_PROTOCOL,	/* a message that cannot be */
	WSD_PEER_BYE_ANOTHER,	/* the link that this side is making, or has since made, is the one */
	WSD_PEER_BYE_LIMIT,	/* too many links */
};

struct wsd_peer_reason {	/* BYE: enum wsd_peer_bye. REFUSE, WITHDRAW: enum wsd_reason. DECIDED: enum wsd_peer_decided */
	uint32_t reason;
	uint32_t reserved;
};

/* byte counters of one end's socket, by sock_diag */
struct wsd_peer_counts {
	uint64_t acked, received;
	uint32_t wqueue;
	uint32_t reserved;
};

struct wsd_peer_offer {
	struct wsd_peer_addr local, remote;	/* as the offering end sees them; the ips are those of the link */
	struct wsd_peer_counts counts;
	uint8_t nonce[16];
	uint32_t uid;
	uint32_t flags;			/* WSD_OFFER_* */
	uint32_t ring0, ring1_max;	/* wanted */
};

struct wsd_peer_found {
	struct wsd_peer_counts counts;
	uint8_t nonce[16];
	uint8_t mac[2][3][16];		/* of what it sent [0] and received [1], at 16, 64, 256 bytes */
	uint32_t n_tx, n_rx;		/* how many of each are valid, 0 to 3 */
	uint32_t uid;
	uint32_t flags;
	/* appended: SETUP may name no larger ones, as that memory is charged to the accepting end's user. 0: an older daemon, which does not say */
	uint32_t ring0_max, ring1_max;
};
#define WSD_PEER_FOUND_V1	152u	/* bytes of it that every daemon sends */

struct wsd_peer_setup {
	uint64_t nonce;			/* of the session; not 0 */
	uint32_t epoch;
	uint32_t ring0, ring1_max;
	uint32_t mtu;			/* enum ibv_mtu: the smaller of both goes */
};

struct wsd_peer_ended {
	uint64_t posted;
	uint32_t flags;
	uint32_t reserved;
};
#define WSD_PEER_ENDED_DRAINED	1u	/* all of it was completed: no FILL follows */
#define WSD_PEER_ENDED_LEFT	2u	/* nobody holds the socket any more: nor does anybody read */

struct wsd_peer_fill {			/* tail: n_seams of struct wsd_peer_seam, then len bytes */
	uint64_t from;			/* ring offset */
	uint32_t len;
	uint32_t n_seams;
};
struct wsd_peer_seam {
	uint64_t ring_off, tcp_off;
	uint32_t n, ring;
};

enum wsd_peer_decided { WSD_PEER_TAKEN = 1, WSD_PEER_VOID };

struct wsd_peer_head {			/* HEAD_IS */
	uint64_t head;
};

struct wsd_peer_plain {			/* PLAIN_AT, PLAIN_IS */
	uint64_t tcp_off;
};

struct wsd_peer_state {			/* STATE; tail: n of struct wsd_peer_state_of */
	uint32_t n;
	uint32_t more;			/* not 0: another STATE follows */
};
struct wsd_peer_state_of {
	uint64_t id, posted;
	uint32_t epoch;
	uint32_t flags;			/* WSD_PEER_STATE_* */
};
#define WSD_PEER_STATE_ENDED	1u	/* posted is where the sender's stream ends */
#define WSD_PEER_STATE_RETURN	2u	/* wants the peer to return */

static_assert(sizeof(struct wsd_peer_hdr) == 16, "wire");
static_assert(sizeof(struct wsd_peer_addr) == 24, "wire");
static_assert(sizeof(struct wsd_peer_hello) == 48, "wire");
static_assert(sizeof(struct wsd_peer_ping) == 16, "wire");
static_assert(sizeof(struct wsd_peer_reason) == 8, "wire");
static_assert(sizeof(struct wsd_peer_counts) == 24, "wire");
static_assert(sizeof(struct wsd_peer_offer) == 104, "wire");
static_assert(sizeof(struct wsd_peer_found) == 160, "wire");
static_assert(sizeof(struct wsd_peer_setup) == 24, "wire");
static_assert(sizeof(struct wsd_peer_ended) == 16, "wire");
static_assert(sizeof(struct wsd_peer_fill) == 16, "wire");
static_assert(sizeof(struct wsd_peer_seam) == 24, "wire");
static_assert(sizeof(struct wsd_peer_head) == 8, "wire");
static_assert(sizeof(struct wsd_peer_state) == 8, "wire");
static_assert(sizeof(struct wsd_peer_state_of) == 24, "wire");

#endif
