/* SPDX-License-Identifier: MIT */
/*
 * peer_codec.h - is this a message of wsd/peer_proto.h, and are its fields possible?
 *
 * The one place where bytes of another daemon become a struct. Looks at nothing but the bytes: what a sound message
 * claims is checked later. The daemon is built for little-endian machines only, so nothing is swapped (peer_codec.c asserts it).
 */
#ifndef PROXYD_SAN_PEER_CODEC_H
#define PROXYD_SAN_PEER_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <wsd/peer_proto.h>
#include <wsd/proxy_proto.h>

union peer_body {
	struct wsd_peer_hello hello;
	struct wsd_peer_ping ping;
	struct wsd_peer_reason reason;
	struct wsd_peer_offer offer;
	struct wsd_peer_found found;
	struct wsd_peer_setup setup;
	struct wsd_peer_ended ended;
	struct wsd_peer_fill fill;
	struct wsd_peer_head head;
	struct wsd_peer_plain plain;
	struct wsd_peer_state state;
};

struct peer_msg {
	struct wsd_peer_hdr hdr;
	union peer_body body;	/* zero behind what came */
	const uint8_t *tail;	/* in the buffer that was parsed, any alignment */
	size_t n_tail;		/* LOCAL: the blob. FILL: seams and bytes, as long as the body says. STATE: the list */
};

/**
 * peer_length() - how long is the message that begins here?
 *
 * Return: its length; 0: not enough bytes to tell; -EBADMSG: no message is so short or so long.
 */
int peer_length(const void *buf, size_t n);

/**
 * peer_parse() - check one message
 * @ret:	filled when 0 is returned
 * @buf:	the message, any alignment
 * @n:		its length, as peer_length() said
 * @ret_what:	what is wrong, for the log; set when -EBADMSG is returned
 *
 * Return: 0; -EOPNOTSUPP: sound, but of a type not known, to be passed over; -EBADMSG.
 */
int peer_parse(struct peer_msg *ret, const void *buf, size_t n, const char **ret_what);

/**
 * peer_build() - write one message
 * @buf:	room for WSD_PEER_MSG_MAX, or as much as it needs
 *
 * Return: its length, or -EMSGSIZE.
 */
int peer_build(void *buf, size_t room, uint16_t type, uint64_t id, const void *body, size_t n, const void *tail, size_t m);

/* addresses in the form of the wire: 16 bytes, IPv4 mapped. A socket of AF_INET6 may have a mapped one itself */
void peer_ip(uint8_t ret[16], const struct wsd_addr *a);
void peer_addr(struct wsd_peer_addr *ret, const struct wsd_addr *a);
/* and back: AF_INET when it is mapped */
void peer_addr_of(struct wsd_addr *ret, const uint8_t ip[16], uint16_t port);

#endif
