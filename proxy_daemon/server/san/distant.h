/* SPDX-License-Identifier: MIT */
/*
 * distant.h - two ends on two hosts find each other
 *
 * A struct distant is one connection on its way to a remote session, or one that the peer's daemon has named and nobody here has offered:
 *
 *	LINK	ours, connecting end: the link is being made
 *	OFFERED	... OFFER has gone; FOUND or REFUSE follows
 *	HOME	ours, accepting end: the peer's daemon will name it, or has no reason to
 *	KEPT	the peer's OFFER of a connection that nobody here has offered yet
 *	FOUND	the peer's OFFER and our end: FOUND has gone, SETUP follows
 *
 * Each has a deadline; a link that goes ends them all. Nothing here waits in a way that a client would notice: its connection is on TCP.
 *
 * No user can fill the table for the others: of what is offered here each uid has a share (quota-waiting), and so has, of what a peer's
 * daemon names, each uid that it names.
 *
 * Proof that both ends hold one stream: the tuple is exactly reversed, the addresses are those of the link, both sockets are live and their
 * counters agree (end_counters_agree()), and the first bytes of each direction have the same digests, told as a MAC under both
 * daemons' nonces so that who does not hold the stream learns nothing.
 */
#ifndef PROXYD_SAN_DISTANT_H
#define PROXYD_SAN_DISTANT_H

#include "proxy_daemon/server/diag.h"
#include "proxy_daemon/server/san/peer_codec.h"
#include "proxy_daemon/server/server.h"

#define DISTANT_US		10000000u	/* the deadline of each */
#define DISTANT_KEPT_USER	1024u		/* KEPT ones of one user of one peer; or quota-waiting, if that is less ... */
#define DISTANT_KEPT_FAR	2048u		/* ... of one peer ... */
#define DISTANT_KEPT_MAX	8192u		/* ... of all: the rest is for what is offered here */
#define DISTANT_MAX		16384u

struct distant;
struct end;
struct end_san;

/* for the links; once */
void distant_init(struct server *srv);
void distant_fini(struct server *srv);

/* @e was offered with OFFER_SAN, its peer is not here. 0: it waits, e->distant is set; else the reason why it stays on TCP */
uint32_t distant_begin(struct end *e);
/* @e ends, or is not waiting any more; the peer is told */
void distant_drop(struct end *e, uint32_t reason);

/**
 * proof_macs() - FOUND's part of the proof
 * @san:	digests of the end here
 * @a, @b:	nonces of the offering and the answering daemon
 */
void proof_macs(const struct end_san *san, const uint8_t a[16], const uint8_t b[16], uint8_t ret[2][3][16]);
/* 0: one stream; WSD_R_PROOF; WSD_R_NOT_YET: too little of it is known to both */
uint32_t proof_check(const struct end_san *san, const uint8_t a[16], const struct wsd_peer_found *f);

#endif
