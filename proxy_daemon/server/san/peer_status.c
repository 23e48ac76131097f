/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "proxy_daemon/server/conn.h"
#include "proxy_daemon/server/san/link.h"
#include "proxy_daemon/server/san/peer_status.h"

static_assert(LINK_FARS_MAX + 2 < CONN_QUEUE_MAX, "one answer fits");

void peer_status(struct conn *c, const struct wsd_msg_peers *rq)
{
	struct server *srv = c->srv;
	struct wsd_msg_status_peer m;
	struct far *f = NULL;

	if (rq->flags && c->uid != 0 && c->uid != srv->uid) {
		conn_error(c, WSD_R_NOT_OWNER, "PEERS with flags by another user");
		return;
	}
	if (rq->flags & WSD_PEERS_RETRY)
		link_retry(srv);
	if ((rq->flags & WSD_PEERS_TRY) && srv->links && link_try(srv, &rq->local, &rq->remote, &f) == -EHOSTDOWN && !f) {
		/* no far to tell about it */
		m = (struct wsd_msg_status_peer){ .hdr = { sizeof(m), WSD_PROXY_VERSION, WSD_MSG_STATUS_PEER, 0 },
						  .local = rq->local, .remote = rq->remote };
		strncpy(m.why, link_why_text(link_why(srv, &rq->local, &rq->remote)), sizeof(m.why) - 1);
		(void)conn_send(c, &m, sizeof(m), -1);
	}
	f = NULL;
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
