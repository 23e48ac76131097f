/* SPDX-License-Identifier: MIT */
/*
 * peer_status.h - answer WSD_MSG_PEERS: what link.h knows of each peer, or why links are off
 *
 * Sent at once: LINK_FARS_MAX packets fit the client's queue. Who asks again and again without reading is dropped by that.
 */
#ifndef PROXYD_SAN_PEER_STATUS_H
#define PROXYD_SAN_PEER_STATUS_H

#include <stdbool.h>

struct conn;

void peer_status(struct conn *c, bool retry);	/* @retry: link_retry() before */

#endif
