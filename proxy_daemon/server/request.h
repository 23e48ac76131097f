/* SPDX-License-Identifier: MIT */
/*
 * request.h - is this packet a request, and are its fields possible?
 *
 * The one place where bytes of a client become a struct. Looks at nothing but the bytes:
 * what a sound request claims is checked later, against the kernel.
 */
#ifndef PROXYD_REQUEST_H
#define PROXYD_REQUEST_H

#include <stddef.h>
#include <wsd/proxy_proto.h>

union request {
	struct wsd_msg_hdr hdr;
	struct wsd_msg_hello hello;
	struct wsd_msg_offer offer;
	struct wsd_msg_withdraw withdraw;
	struct wsd_msg_attached attached;
	struct wsd_msg_plain plain;
	struct wsd_msg_reattach reattach;
	struct wsd_msg_side side;
	struct wsd_msg_offer_san offer_san;
	struct wsd_msg_san_blob blob;
	struct wsd_msg_san_plain san;
	struct wsd_msg_peers peers;
};

/**
 * request_parse() - check one packet
 * @ret:	filled when 0 is returned, zero behind the body of its type
 * @buf:	the packet, any alignment
 * @len:	its length; longer than WSD_MSG_MAX is refused
 * @ret_what:	what is wrong, for the log; set when the result is not 0
 *
 * Return: 0, or the enum wsd_reason to answer with: WSD_R_VERSION, WSD_R_PEER_BROKEN.
 */
int request_parse(union request *ret, const void *buf, size_t len, const char **ret_what);

#endif
