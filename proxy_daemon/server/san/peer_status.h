/* SPDX-License-Identifier: MIT */
/*
 * peer_status.h - answer WSD_MSG_PEERS: what link.h knows of each peer, or why links are off
 *
 * Sent at once: LINK_FARS_MAX packets fit the client's queue. Who asks again and again without reading is dropped by that.
 */
#ifndef PROXYD_SAN_PEER_STATUS_H
#define PROXYD_SAN_PEER_STATUS_H

#include <wsd/proxy_proto.h>

struct conn;

void peer_status(struct conn *c, const struct wsd_msg_peers *m);

#endif
