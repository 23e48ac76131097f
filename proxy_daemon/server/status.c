/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proxy_daemon/server/conn.h"
#include "proxy_daemon/server/end.h"
#include "proxy_daemon/server/san/remote.h"
#include "proxy_daemon/server/status.h"

static void send_daemon(struct conn *c)
{
	const struct server *srv = c->srv;
	struct wsd_msg_status_daemon m = {
		.hdr = { .len = sizeof(m), .version = WSD_PROXY_VERSION, .type = WSD_MSG_STATUS_DAEMON },
		.pid = (uint32_t)getpid(), .uid = srv->uid, .unloading = srv->unloading,
		.n_clients = srv->n_conns, .n_offers = srv->n_waiting, .n_sessions = srv->n_sessions,
		.n_sessions_total = srv->n_sessions_total, .bytes_mapped = srv->bytes_mapped,
		.quota_sessions = srv->quota.sessions, .quota_bytes = srv->quota.bytes,
		.uptime_us = server_now_us((struct server *)srv) - srv->started_us,
		.transports = "shm",
	};

	m.n_sessions += srv->san.n_sessions;
	m.n_sessions_total += srv->san.n_sessions_total;
	if (srv->san.devs.n)
		strcpy(m.transports, "shm,verbs");

	(void)conn_send(c, &m, sizeof(m), -1);
}

static void add_remote(struct wsd_msg_status_conn *m, const struct remote *r)
{
	struct remote_look look;

	remote_look(r, &look);
	m->session_id = r->id;
	m->transport = WSD_TRANSPORT_VERBS;
	m->side = r->side;
	m->ring_size = r->mem.ring0;
	m->tx_ring = look.posted;
	m->gate_open = m->on_ring = look.framed_rx;
	m->unread = look.unread;
}

static void send_end(struct conn *c, const struct end *e)
{
	struct wsd_msg_status_conn m = {
		.hdr = { .len = sizeof(m), .version = WSD_PROXY_VERSION, .type = WSD_MSG_STATUS_CONN, .cookie = e->cookie },
		.inode = e->inode, .age_us = server_now_us(e->srv) - e->since_us,
		.local = e->local, .remote = e->remote,
		.pid = (uint32_t)e->pid, .uid = e->uid, .fd = e->fd, .reason = e->reason,
		.side = e->role == WSD_ROLE_CONNECT ? 0 : 1,
	};
	struct session_look look;

	memcpy(m.comm, e->comm, sizeof(m.comm));
	if (e->session) {
		session_look(e->session, e->side, &look);
		m.session_id = e->session->id;
		m.transport = WSD_TRANSPORT_SHM;
		m.side = e->side;
		m.ring_size = e->session->ring_size;
		m.tx_ring = look.tx_ring;
		m.tx_tcp = look.tx_tcp;
		m.gate_open = look.gate_open;
		m.on_ring = look.on_ring;
		m.unread = look.unread;
	}
	if (e->rdma)
		add_remote(&m, e->rdma);
	(void)conn_send(c, &m, sizeof(m), -1);
}

void status_start(struct conn *c)
{
	send_daemon(c);
	end_cursor_start(c->srv, &c->status_at);
	c->status_active = true;
	if (!c->n_queue)
		status_continue(c);
}

void status_continue(struct conn *c)
{
	const struct server *srv = c->srv;
	bool all = c->uid == 0 || c->uid == srv->uid;
	struct end *e;

	while (!c->dead && !c->n_queue) {
		e = end_cursor_next(&c->status_at);
		if (!e) {
			end_cursor_stop(&c->status_at);
			c->status_active = false;
			(void)conn_send_plain(c, WSD_MSG_STATUS_END);
			return;
		}
		if (all || e->uid == c->uid)
			send_end(c, e);
	}
}
