/* SPDX-License-Identifier: MIT */
/*
 * peer_listen.h - TCP sockets for links: where peers come in, and how we go out
 *
 * One listener for each of our addresses in a declared subnet (or those that `listen` names), never one for all addresses: what
 * comes in by another network is not even heard. Addresses are looked up again at each rescan.
 */
#ifndef PROXYD_SAN_PEER_LISTEN_H
#define PROXYD_SAN_PEER_LISTEN_H

#include <systemd/sd-event.h>

#include "proxy_daemon/server/san/config.h"

#define PEER_LISTENERS_MAX	64u

struct peer_listen;

/* @fd becomes the callee's: connected, non-blocking, close-on-exec. Addresses as by peer_ip() */
typedef void (*peer_accepted)(void *data, int fd, const uint8_t local[16], const uint8_t remote[16]);

int peer_listen_new(struct peer_listen **ret, sd_event *event, const struct san_config *cfg, peer_accepted cb, void *data);
struct peer_listen *peer_listen_free(struct peer_listen *pl);	/* NULL */
void peer_listen_rescan(struct peer_listen *pl);

/* begin to connect, from @local. Return: a descriptor, or -errno */
int peer_connect(const uint8_t local[16], const uint8_t remote[16], uint16_t port);

struct peer_ip_text {
	char text[48];
};
struct peer_ip_text peer_ip_text(const uint8_t ip[16]);

#endif
