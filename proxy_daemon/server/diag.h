/* SPDX-License-Identifier: MIT */
/*
 * diag.h - ask the kernel about one TCP socket (sock_diag)
 *
 * Only exact questions by address and cookie: they cost a hash look-up, while a dump walks
 * every socket of the machine. A cookie names one socket for as long as the machine runs.
 *
 * May this block the event loop? The kernel answers within the send itself; the receive does
 * not wait, and an answer that is not there is "no answer".
 */
#ifndef PROXYD_DIAG_H
#define PROXYD_DIAG_H

#include <stdint.h>
#include <wsd/proxy_proto.h>

#define DIAG_ANY_COOKIE	(~0ull)

struct mnl_socket;

struct diag_sock {
	struct wsd_addr local, remote;	/* scope: the device it is bound to */
	uint64_t cookie;
	uint32_t inode;			/* 0: nobody holds it */
	uint8_t state;			/* TCP_ESTABLISHED ... */
	uint32_t wqueue;		/* bytes written and not acknowledged */
	uint64_t acked, received;	/* of tcp_info; one more for a SYN or FIN */
	uint8_t has_info;
};

enum {
	_DIAG_OK,
	DIAG_E_GONE,	/* there is no such socket (any more) */
};

/* a socket to ask in the network namespace of the calling thread. Return: 0 or -errno, also when
 * the kernel has no tcp_diag. */
int diag_open(struct mnl_socket **ret);
struct mnl_socket *diag_close(struct mnl_socket *nl);

/**
 * diag_lookup() - find one socket
 * @local:	its addresses; scope: the device it is bound to, if any
 * @cookie:	its cookie, or DIAG_ANY_COOKIE: a listening socket may be the answer then
 *
 * Return: 0, DIAG_E_GONE, or -errno: no answer.
 */
int diag_lookup(struct mnl_socket *nl, const struct wsd_addr *local, const struct wsd_addr *remote,
		uint64_t cookie, struct diag_sock *ret);

#endif
