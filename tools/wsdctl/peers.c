/* SPDX-License-Identifier: MIT */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "common/reason.h"
#include "tools/lib/cleanup.h"
#include "tools/lib/human.h"
#include "tools/wsdctl/wsdctl.h"

struct options {
	const char *socket;
	bool json;
	uint32_t flags;
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
	case 'r':
		o->flags = WSD_PEERS_RETRY;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "too many arguments");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const char *state_name(uint32_t state)
{
	static const char *const name[] = { [WSD_PEER_LINK_NONE] = "none", [WSD_PEER_LINK_CONNECTING] = "connecting", [WSD_PEER_LINK_UP] = "up" };

	return state < sizeof(name) / sizeof(*name) ? name[state] : "?";
}

static void print_peer(const struct wsd_msg_status_peer *p, unsigned n)
{
	struct addr_text from = addr_text(&p->local);
	char why[sizeof(p->why) + 1];

	human_field(why, sizeof(why), p->why, sizeof(p->why));
	if (!p->remote.family) {
		printf("links to other hosts are off: %s\n", why);
		return;
	}
	if (!n)
		printf("%-24s %-24s %-10s %-8s %8s %8s %9s  %s\n", "peer", "from", "link", "made by", "version", "sessions", "rtt", "why");
	printf("%-24s ", addr_text(&p->remote).text);
	printf("%-24.*s ", strrchr(from.text, ':') ? (int)(strrchr(from.text, ':') - from.text) : 1, from.text);	/* its port is the kernel's choice */
	printf("%-10s %-8s %8" PRIu32 " %8" PRIu32 " %6" PRIu64 " us  %s", state_name(p->state),
	       p->state == WSD_PEER_LINK_NONE ? "-" : p->outgoing ? "us" : "it", p->version, p->n_held, p->rtt_us, why);
	if (p->retry_us)
		printf("; next try in %s", human_span(p->retry_us).text);
	putchar('\n');
}

static json_object *json_peer(const struct wsd_msg_status_peer *p)
{
	json_object *o = json_object_new_object();
	char why[sizeof(p->why) + 1];

	human_field(why, sizeof(why), p->why, sizeof(p->why));
	json_object_object_add(o, "peer", json_object_new_string(addr_text(&p->remote).text));
	json_object_object_add(o, "from", json_object_new_string(addr_text(&p->local).text));
	json_object_object_add(o, "link", json_object_new_string(state_name(p->state)));
	json_object_object_add(o, "outgoing", json_object_new_boolean(p->outgoing != 0));
	json_object_object_add(o, "version", json_object_new_uint64(p->version));
	json_object_object_add(o, "sessions", json_object_new_uint64(p->n_held));
	json_object_object_add(o, "rtt_us", json_object_new_uint64(p->rtt_us));
	json_object_object_add(o, "since_us", json_object_new_uint64(p->since_us));
	json_object_object_add(o, "retry_us", json_object_new_uint64(p->retry_us));
	json_object_object_add(o, "why", *why ? json_object_new_string(why) : NULL);
	return o;
}

static void put_off(json_object *root, const struct wsd_msg_status_peer *p)
{
	char why[sizeof(p->why) + 1];

	human_field(why, sizeof(why), p->why, sizeof(p->why));
	json_object_object_add(root, "off", json_object_new_string(why));
}

int cmd_peers(int argc, char **argv)
{
	static const struct argp_option list[] = {
		{ "socket", 's', "PATH", 0, "of the daemon; default: $WSD_PROXY_SOCKET, the system's, this user's", 0 },
		{ "json", 'j', NULL, 0, "as JSON", 0 },
		{ "retry", 'r', NULL, 0, "forget who did not answer: the next connection tries again", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = list, .parser = parse,
		.doc = "Show the daemons of other hosts that this host's daemon has looked for, and why there is no link.",
	};
	json_object *root = json_object_new_object(), *peers = json_object_new_array();
	struct options o = { 0 };
	char path[ENDPOINT_PATH_MAX];
	_cleanup_close_ int fd = -1;
	unsigned n = 0;
	union message m;
	int r;

	json_object_object_add(root, "version", json_object_new_int(1));
	json_object_object_add(root, "off", NULL);
	json_object_object_add(root, "peers", peers);
	argp_parse(&argp, argc, argv, 0, NULL, &o);
	r = request_open(&fd, path, o.socket, WSD_MSG_PEERS, o.flags);
	if (r) {
		complain("%s: %s", *path ? path : "daemon", endpoint_strerror(r));
		json_object_put(root);
		return r == ENDPOINT_E_FOREIGN ? CTL_REFUSED : r == ENDPOINT_E_LONG ? CTL_USAGE : CTL_NO_DAEMON;
	}
	while (!(r = request_next(fd, &m)) && m.hdr.type == WSD_MSG_STATUS_PEER) {
		if (!o.json)
			print_peer(&m.peer, n);
		else if (m.peer.remote.family)
			json_object_array_add(peers, json_peer(&m.peer));
		else
			put_off(root, &m.peer);
		n++;
	}
	if (!r && m.hdr.type == WSD_MSG_STATUS_END) {
		if (o.json)
			puts(json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
		else if (!n)
			puts("no peer has been looked for");
		json_object_put(root);
		return CTL_OK;
	}
	json_object_put(root);
	if (!r && m.hdr.type == WSD_MSG_ERROR)
		complain("%s: the daemon refused (%s)", path, reason_name(m.refused.reason));
	else
		complain("%s: %s", path, status_strerror(r ? r : -EBADMSG));
	return r == -ETIMEDOUT ? CTL_NO_DAEMON : CTL_REFUSED;
}
