/* SPDX-License-Identifier: MIT */
#ifndef PROXYD_SAN_FILL_BUFFER_H
#define PROXYD_SAN_FILL_BUFFER_H

#include <wsd/peer_proto.h>
#include <wsd/remote_session.h>

/* one for the daemon: it has one thread, and what is sent has been copied when the call returns */
struct fill_buffer {
	struct wsd_peer_seam seam[WSD_REMOTE_SEAMS];
	uint8_t bytes[WSD_PEER_FILL_MAX];
	uint8_t tail[WSD_REMOTE_SEAMS * sizeof(struct wsd_peer_seam) + WSD_PEER_FILL_MAX];
};

#endif
