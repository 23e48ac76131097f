/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "proxy_daemon/server/conn.h"
#include "proxy_daemon/server/san/link.h"
#include "proxy_daemon/server/san/peer_status.h"

static_assert(LINK_FARS_MAX + 2 < CONN_QUEUE_MAX, "one answer fits");

void peer_status(struct conn *c, bool retry)
{
	struct server *srv = c->srv;
	struct wsd_msg_status_peer m;
	struct far *f = NULL;

	if (retry)
		link_retry(srv);
	if (!srv->links) {
		m = (struct wsd_msg_status_peer){ .hdr = { sizeof(m), WSD_PROXY_VERSION, WSD_MSG_STATUS_PEER, 0 } };
		strncpy(m.why, srv->cfg.san.why_off ? srv->cfg.san.why_off : "could not be set up", sizeof(m.why) - 1);
		(void)conn_send(c, &m, sizeof(m), -1);
	}
	while (!c->dead && (f = far_next(srv, f))) {
		m = (struct wsd_msg_status_peer){ .hdr = { sizeof(m), WSD_PROXY_VERSION, WSD_MSG_STATUS_PEER, 0 } };
		far_describe(f, &m);
		(void)conn_send(c, &m, sizeof(m), -1);
	}
	if (!c->dead)
		(void)conn_send_plain(c, WSD_MSG_STATUS_END);
}
