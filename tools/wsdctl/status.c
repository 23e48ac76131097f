/* SPDX-License-Identifier: MIT */
#include <argp.h>
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/lib/cleanup.h"
#include "tools/wsdctl/wsdctl.h"

struct addr_text addr_text(const struct wsd_addr *a)
{
	struct addr_text t = { "?" };
	char ip[INET6_ADDRSTRLEN];

	if (a->family == AF_INET && inet_ntop(AF_INET, a->ip, ip, sizeof(ip)))
		snprintf(t.text, sizeof(t.text), "%s:%u", ip, a->port);
	else if (a->family == AF_INET6 && inet_ntop(AF_INET6, a->ip, ip, sizeof(ip))) {
		if (a->scope)
			snprintf(t.text, sizeof(t.text), "[%s%%%u]:%u", ip, a->scope, a->port);
		else
			snprintf(t.text, sizeof(t.text), "[%s]:%u", ip, a->port);
	}
	return t;
}

const char *transport_name(const struct wsd_msg_status_conn *c)
{
	switch (c->session_id ? c->transport : WSD_TRANSPORT_NONE) {
	case WSD_TRANSPORT_SHM:
		return "shm";
	case WSD_TRANSPORT_VERBS:
		return "verbs";
	}
	return NULL;
}

const char *status_strerror(int r)
{
	switch (r) {
	case -ETIMEDOUT:
		return "it accepted the connection but says nothing (is it stopped?)";
	case -ECONNRESET:
		return "it hung up";
	case -EBADMSG:
		return "its answer makes no sense (another version?)";
	case -EPROTO:
		return "it refused the request";
	}
	return endpoint_strerror(r);
}

/* the two ends of a session beside each other, sessions first, then by inode */
static int by_session(const void *va, const void *vb)
{
	const struct wsd_msg_status_conn *a = va, *b = vb;

	if (!a->session_id != !b->session_id)
		return !a->session_id - !b->session_id;
	if (a->session_id != b->session_id)
		return a->session_id < b->session_id ? -1 : 1;
	if (a->side != b->side)
		return a->side < b->side ? -1 : 1;
	return a->inode < b->inode ? -1 : a->inode > b->inode;
}

static int keep(struct status *s, const struct wsd_msg_status_conn *c)
{
	struct wsd_msg_status_conn *grown;

	if (s->n_conn == STATUS_CONNS) {
		s->truncated = true;
		return 0;
	}
	if (!(s->n_conn & (s->n_conn - 1))) {	/* full at each power of two */
		grown = reallocarray(s->conn, s->n_conn ? 2 * s->n_conn : 1, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		s->conn = grown;
	}
	s->conn[s->n_conn++] = *c;
	return 0;
}

static int collect(struct status *s, int fd)
{
	bool told = false;
	union message m;
	int r;

	for (;;) {
		r = request_next(fd, &m);
		if (r)
			return r;
		switch (m.hdr.type) {
		case WSD_MSG_STATUS_DAEMON:
			s->daemon = m.daemon;
			told = true;
			break;
		case WSD_MSG_STATUS_CONN:
			r = keep(s, &m.conn);
			if (r)
				return r;
			break;
		case WSD_MSG_STATUS_END:
			if (!told)
				return -EBADMSG;
			if (s->n_conn)
				qsort(s->conn, s->n_conn, sizeof(*s->conn), by_session);
			return 0;
		default:
			return -EPROTO;
		}
	}
}

int status_ask(struct status *s, const char *wanted)
{
	_cleanup_close_ int fd = -1;
	int r;

	s->catalog_error = wsd_catalog_load(catalog_path(NULL), s->provider, WSD_CATALOG_PROVIDERS, &s->n_provider,
					    &s->catalog_text);
	r = request_open(&fd, s->path, wanted, WSD_MSG_STATUS, 0);
	if (r) {
		s->error = r;
		return r == ENDPOINT_E_FOREIGN || r == -ECONNRESET ? CTL_REFUSED :
		       r == ENDPOINT_E_LONG ? CTL_USAGE : CTL_NO_DAEMON;
	}
	r = collect(s, fd);
	s->error = r;
	if (!r)
		return CTL_OK;
	return r == -ETIMEDOUT ? CTL_NO_DAEMON : r == -ENOMEM ? CTL_SYSTEM : CTL_REFUSED;
}

void status_clear(struct status *s)
{
	free(s->conn);
	s->conn = NULL;
	s->n_conn = 0;
}

struct options {
	const char *socket;
	bool json, devices;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;

	switch (key) {
	case 's':
		o->socket = arg;
		return 0;
	case 'j':
		o->json = true;
		return 0;
	case 'd':
		o->devices = true;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "too many arguments");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

int cmd_status(int argc, char **argv)
{
	static const struct argp_option list[] = {
		{ "socket", 's', "PATH", 0, "of the daemon; default: $WSD_PROXY_SOCKET, the system's, this user's", 0 },
		{ "json", 'j', NULL, 0, "as JSON", 0 },
		{ "devices", 'd', NULL, 0, "show this host's RDMA devices instead; asks no daemon", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = list, .parser = parse,
		.doc = "Show the daemon, the providers and the connections, with the reason of each that is on TCP.",
	};
	struct options o = { 0 };
	struct status *s = calloc(1, sizeof(*s));
	int r;

	if (!s) {
		complain("no memory");
		return CTL_SYSTEM;
	}
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (o.devices) {
		free(s);
		return devices_print(o.json);
	}
	r = status_ask(s, o.socket);
	if (o.json)
		status_print_json(s);
	else
		status_print(s);
	status_clear(s);
	free(s);
	return r;
}
