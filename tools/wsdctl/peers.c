/* SPDX-License-Identifier: MIT */
#include <argp.h>
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#include <json-c/json.h>

#include "common/reason.h"
#include "tools/lib/cleanup.h"
#include "tools/lib/human.h"
#include "tools/wsdctl/wsdctl.h"

#define PEERS_MAX	4096u
#define TRY_SECONDS	8	/* longer than any attempt takes */
#define TRY_LOOK_MS	20

struct options {
	const char *socket;
	bool json;
	struct wsd_msg_peers request;
};

/* an address, and which of ours leads to it: the kernel knows, without a packet */
static int parse_try(struct wsd_msg_peers *m, const char *text)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} s;
	_cleanup_close_ int fd = -1;
	socklen_t len;

	memset(&s, 0, sizeof(s));
	if (!strncasecmp(text, "::ffff:", 7) && strchr(text, '.'))
		text += 7;		/* the daemon knows it as the IPv4 address that it is */
	if (inet_pton(AF_INET, text, &s.v4.sin_addr) == 1) {
		s.v4.sin_family = AF_INET;
		s.v4.sin_port = htons(9);
		memcpy(m->remote.ip, &s.v4.sin_addr, 4);
		len = sizeof(s.v4);
	} else if (inet_pton(AF_INET6, text, &s.v6.sin6_addr) == 1) {
		s.v6.sin6_family = AF_INET6;
		s.v6.sin6_port = htons(9);
		memcpy(m->remote.ip, &s.v6.sin6_addr, 16);
		len = sizeof(s.v6);
	} else {
		return -EINVAL;
	}
	fd = socket(s.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, &s.any, len) < 0 || getsockname(fd, &s.any, &len) < 0)
		return -errno;
	m->local.family = m->remote.family = s.any.sa_family;
	if (s.any.sa_family == AF_INET)
		memcpy(m->local.ip, &s.v4.sin_addr, 4);
	else
		memcpy(m->local.ip, &s.v6.sin6_addr, 16);
	m->flags |= WSD_PEERS_TRY;
	return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *o = state->input;
	int r;

	switch (key) {
	case 's':
		o->socket = arg;
		return 0;
	case 'j':
		o->json = true;
		return 0;
	case 'r':
		o->request.flags |= WSD_PEERS_RETRY;
		return 0;
	case 't':
		r = parse_try(&o->request, arg);
		if (r == -EINVAL)
			argp_error(state, "%s: not an address", arg);
		else if (r)
			argp_failure(state, CTL_NO, -r, "%s", arg);
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "too many arguments");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const char *state_name(uint32_t state)
{
	static const char *const name[] = {
		[WSD_PEER_LINK_NONE] = "none", [WSD_PEER_LINK_CONNECTING] = "connecting", [WSD_PEER_LINK_UP] = "up",
	};

	return state < sizeof(name) / sizeof(*name) ? name[state] : "?";
}

/* without the port */
static struct addr_text ip_text(const struct wsd_addr *a)
{
	char ip[INET6_ADDRSTRLEN];
	struct addr_text t = { "?" };

	if ((a->family == AF_INET || a->family == AF_INET6) && inet_ntop(a->family, a->ip, ip, sizeof(ip)))
		strcpy(t.text, ip);
	return t;
}

static void print_peer(const struct wsd_msg_status_peer *p, unsigned n)
{
	char why[sizeof(p->why) + 1] = "";

	if (*p->why)
		human_field(why, sizeof(why), p->why, sizeof(p->why));
	if (!p->remote.family) {
		printf("links to other hosts are off: %s\n", why);
		return;
	}
	if (!n)
		printf("%-24s %-24s %-10s %-8s %8s %8s %9s  %s\n", "peer", "from", "link", "made by", "version", "sessions", "rtt", "why");
	printf("%-24s %-24s %-10s %-8s %8" PRIu32 " %8" PRIu32 " %6" PRIu64 " us  %s", ip_text(&p->remote).text, ip_text(&p->local).text,
	       state_name(p->state), p->state == WSD_PEER_LINK_NONE ? "-" : p->outgoing ? "us" : "it", p->version, p->n_held, p->rtt_us,
	       why);
	if (p->retry_us)
		printf("; next try in %s", human_span(p->retry_us).text);
	putchar('\n');
}

static json_object *json_peer(const struct wsd_msg_status_peer *p)
{
	json_object *o = json_object_new_object();
	char why[sizeof(p->why) + 1] = "";

	if (*p->why)
		human_field(why, sizeof(why), p->why, sizeof(p->why));
	json_object_object_add(o, "peer", json_object_new_string(ip_text(&p->remote).text));
	json_object_object_add(o, "from", json_object_new_string(ip_text(&p->local).text));
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

static void print_json(const struct wsd_msg_status_peer *peer, unsigned n)
{
	json_object *root = json_object_new_object(), *list = json_object_new_array();
	char why[sizeof(peer->why) + 1];

	json_object_object_add(root, "version", json_object_new_int(1));
	json_object_object_add(root, "off", NULL);
	for (unsigned i = 0; i < n; i++) {
		if (peer[i].remote.family) {
			json_object_array_add(list, json_peer(&peer[i]));
			continue;
		}
		human_field(why, sizeof(why), peer[i].why, sizeof(peer[i].why));
		json_object_object_add(root, "off", json_object_new_string(why));
	}
	json_object_object_add(root, "peers", list);
	puts(json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(root);
}

int peers_off(const char *socket, char *ret_why, size_t size)
{
	struct wsd_msg_peers m = { .hdr = { .len = sizeof(m), .version = WSD_PROXY_VERSION, .type = WSD_MSG_PEERS, .cookie = 1 } };
	char path[ENDPOINT_PATH_MAX], why[sizeof(((union message *)0)->peer.why) + 1] = "";
	_cleanup_close_ int fd = -1;
	bool off = false;
	union message a;
	int r;

	r = request_send(&fd, path, socket, &m, sizeof(m));
	while (!r && !(r = request_next(fd, &a)) && a.hdr.type == WSD_MSG_STATUS_PEER)
		if (!a.peer.remote.family) {
			off = true;
			human_field(why, sizeof(why), a.peer.why, sizeof(a.peer.why));
		}
	if (r || a.hdr.type != WSD_MSG_STATUS_END)
		return r ? r : -EBADMSG;
	snprintf(ret_why, size, "%s", why);
	return off;
}

/* one question; prints what goes wrong */
static int ask(const struct options *o, struct wsd_msg_status_peer *ret, unsigned *ret_n)
{
	char path[ENDPOINT_PATH_MAX];
	_cleanup_close_ int fd = -1;
	unsigned n = 0;
	union message m;
	int r;

	r = request_send(&fd, path, o->socket, &o->request, sizeof(o->request));
	if (r) {
		complain("%s: %s", *path ? path : "daemon", endpoint_strerror(r));
		return r == ENDPOINT_E_FOREIGN ? CTL_REFUSED : r == ENDPOINT_E_LONG ? CTL_USAGE : CTL_NO_DAEMON;
	}
	while (!(r = request_next(fd, &m)) && m.hdr.type == WSD_MSG_STATUS_PEER)
		if (n < PEERS_MAX)
			ret[n++] = m.peer;
	*ret_n = n;
	if (!r && m.hdr.type == WSD_MSG_STATUS_END)
		return CTL_OK;
	if (!r && m.hdr.type == WSD_MSG_ERROR)
		complain("%s: the daemon refused (%s)", path, reason_name(m.refused.reason));
	else
		complain("%s: %s", path, status_strerror(r ? r : -EBADMSG));
	return r == -ETIMEDOUT ? CTL_NO_DAEMON : CTL_REFUSED;
}

/* the one that was tried, or NULL; with none at all the reason that all are off */
static const struct wsd_msg_status_peer *tried(const struct options *o, const struct wsd_msg_status_peer *peer, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!memcmp(peer[i].remote.ip, o->request.remote.ip, 16) && !memcmp(peer[i].local.ip, o->request.local.ip, 16))
			return &peer[i];
	return n == 1 && !peer->remote.family ? peer : NULL;
}

static time_t now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static int try_one(struct options *o, struct wsd_msg_status_peer *peer, unsigned *ret_n)
{
	const struct wsd_msg_status_peer *p;
	time_t end = now_s() + TRY_SECONDS;
	int r;

	for (;;) {
		r = ask(o, peer, ret_n);
		if (r)
			return r;
		p = tried(o, peer, *ret_n);
		if (!p || p->state != WSD_PEER_LINK_CONNECTING || now_s() > end)
			break;
		o->request.flags = 0;		/* and look what becomes of it */
		poll(NULL, 0, TRY_LOOK_MS);
	}
	if (p) {
		peer[0] = *p;
		*ret_n = 1;
	} else {
		complain("the daemon does not say what came of it");
	}
	return p && p->state == WSD_PEER_LINK_UP ? CTL_OK : CTL_NO;
}

int cmd_peers(int argc, char **argv)
{
	static const struct argp_option list[] = {
		{ "socket", 's', "PATH", 0, "of the daemon; default: $WSD_PROXY_SOCKET, the system's, this user's", 0 },
		{ "json", 'j', NULL, 0, "as JSON", 0 },
		{ "retry", 'r', NULL, 0, "forget who did not answer: the next connection tries again", 0 },
		{ "try", 't', "ADDRESS", 0, "make a link to the daemon there now, and say what came of it", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = list, .parser = parse,
		.doc = "Show the daemons of other hosts that this host's daemon has looked for, and why there is no link.",
	};
	static struct wsd_msg_status_peer peer[PEERS_MAX];
	struct options o = {
		.request.hdr = { .len = sizeof(o.request), .version = WSD_PROXY_VERSION, .type = WSD_MSG_PEERS, .cookie = 1 },
	};
	unsigned n = 0;
	int r;

	argp_parse(&argp, argc, argv, 0, NULL, &o);
	r = o.request.flags & WSD_PEERS_TRY ? try_one(&o, peer, &n) : ask(&o, peer, &n);
	if (r && r != CTL_NO)
		return r;
	if (o.json)
		print_json(peer, n);
	else if (!n)
		puts("no peer has been looked for");
	for (unsigned i = 0; i < n && !o.json; i++)
		print_peer(&peer[i], i);
	return r;
}
