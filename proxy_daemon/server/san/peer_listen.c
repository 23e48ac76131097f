/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy_daemon/server/log.h"
#include "proxy_daemon/server/san/peer_codec.h"
#include "proxy_daemon/server/san/peer_listen.h"

#define BACKLOG		64
#define ACCEPT_A_TURN	16u

struct listener_at {
	struct peer_listen *all;
	uint8_t ip[16];
	int fd;			/* -1: free */
	bool wanted;
	sd_event_source *source;
};

struct peer_listen {
	sd_event *event;
	const struct san_config *cfg;
	peer_accepted cb;
	void *data;
	bool complained;
	struct listener_at at[PEER_LISTENERS_MAX];
};

union sock {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static socklen_t to_sock(union sock *ret, const uint8_t ip[16], uint16_t port)
{
	struct wsd_addr a;

	peer_addr_of(&a, ip, port);
	memset(ret, 0, sizeof(*ret));
	ret->any.sa_family = a.family;
	if (a.family == AF_INET) {
		ret->v4.sin_port = htons(port);
		memcpy(&ret->v4.sin_addr, a.ip, 4);
		return sizeof(ret->v4);
	}
	ret->v6.sin6_port = htons(port);
	memcpy(&ret->v6.sin6_addr, a.ip, 16);
	return sizeof(ret->v6);
}

static bool from_sock(uint8_t ret[16], const union sock *s)
{
	struct wsd_addr a = { .family = s->any.sa_family };

	if (s->any.sa_family == AF_INET)
		memcpy(a.ip, &s->v4.sin_addr, 4);
	else if (s->any.sa_family == AF_INET6)
		memcpy(a.ip, &s->v6.sin6_addr, 16);
	else
		return false;
	peer_ip(ret, &a);
	return true;
}

struct peer_ip_text peer_ip_text(const uint8_t ip[16])
{
	struct peer_ip_text t = { "?" };
	struct wsd_addr a;

	peer_addr_of(&a, ip, 0);
	(void)inet_ntop(a.family, a.ip, t.text, sizeof(t.text));
	return t;
}

int peer_connect(const uint8_t local[16], const uint8_t remote[16], uint16_t port)
{
	union sock from, to;
	socklen_t len = to_sock(&from, local, 0);
	int fd, r;

	if (to_sock(&to, remote, port) != len)
		return -EAFNOSUPPORT;
	fd = socket(from.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &(int){ 1 }, sizeof(int));
	if (bind(fd, &from.any, len) < 0 || (connect(fd, &to.any, len) < 0 && errno != EINPROGRESS)) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

static int on_accept(sd_event_source *source, int lfd, uint32_t revents, void *data)
{
	struct listener_at *at = data;
	uint8_t local[16], remote[16];
	socklen_t len, llen;
	union sock s, ls;
	unsigned n;
	int fd;

	for (n = 0; n < ACCEPT_A_TURN; n++) {
		len = sizeof(s);
		fd = accept4(lfd, &s.any, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
				log_client("cannot accept from other hosts: %s; again soon", strerror(errno));
				(void)sd_event_source_set_enabled(at->source, SD_EVENT_OFF);	/* until the next rescan */
			}
			return 0;
		}
		llen = sizeof(ls);
		if (getsockname(fd, &ls.any, &llen) < 0 || !from_sock(local, &ls) || !from_sock(remote, &s)) {
			close(fd);
			continue;
		}
		at->all->cb(at->all->data, fd, local, remote);
	}
	return 0;
}

static void stop(struct listener_at *at)
{
	at->source = sd_event_source_disable_unref(at->source);
	if (at->fd >= 0)
		close(at->fd);
	at->fd = -1;
}

static void start(struct peer_listen *pl, struct listener_at *at, const uint8_t ip[16])
{
	union sock s;
	socklen_t len = to_sock(&s, ip, pl->cfg->port);
	int fd = socket(s.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP), r = 0;

	if (fd < 0)
		return;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	if (s.any.sa_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ 1 }, sizeof(int));
	if (bind(fd, &s.any, len) < 0 || listen(fd, BACKLOG) < 0)
		r = -errno;
	if (!r)
		r = sd_event_add_io(pl->event, &at->source, fd, EPOLLIN, on_accept, at);
	if (r < 0) {
		/* EADDRNOTAVAIL: not there yet, or IPv6 still asks who else has it */
		if (r != -EADDRNOTAVAIL && !pl->complained)
			log_warn("%s port %u: cannot listen for other hosts: %s", peer_ip_text(ip).text, pl->cfg->port, strerror(-r));
		pl->complained |= r != -EADDRNOTAVAIL;
		close(fd);
		return;
	}
	log_info("listening for other hosts at %s port %u", peer_ip_text(ip).text, pl->cfg->port);
	memcpy(at->ip, ip, 16);
	at->all = pl;
	at->fd = fd;
}

static void want(struct peer_listen *pl, const uint8_t ip[16])
{
	struct listener_at *unused = NULL;
	unsigned i;

	for (i = 0; i < PEER_LISTENERS_MAX; i++) {
		if (pl->at[i].fd < 0) {
			unused = unused ? unused : &pl->at[i];
		} else if (!memcmp(pl->at[i].ip, ip, 16)) {
			pl->at[i].wanted = true;
			(void)sd_event_source_set_enabled(pl->at[i].source, SD_EVENT_ON);
			return;
		}
	}
	if (!unused)
		return;
	start(pl, unused, ip);
	unused->wanted = true;
}

void peer_listen_rescan(struct peer_listen *pl)
{
	struct ifaddrs *list, *i;
	uint8_t ip[16];
	unsigned n;

	for (n = 0; n < PEER_LISTENERS_MAX; n++)
		pl->at[n].wanted = false;
	for (n = 0; n < pl->cfg->n_listen_at; n++)
		want(pl, pl->cfg->listen_at[n]);
	if (!pl->cfg->n_listen_at) {
		if (getifaddrs(&list) < 0)
			return;		/* it stays as it is */
		for (i = list; i; i = i->ifa_next)
			if (i->ifa_addr && from_sock(ip, (const union sock *)i->ifa_addr) && san_covers(pl->cfg, ip))
				want(pl, ip);
		freeifaddrs(list);
	}
	for (n = 0; n < PEER_LISTENERS_MAX; n++)
		if (pl->at[n].fd >= 0 && !pl->at[n].wanted)
			stop(&pl->at[n]);
}

int peer_listen_new(struct peer_listen **ret, sd_event *event, const struct san_config *cfg, peer_accepted cb, void *data)
{
	struct peer_listen *pl = calloc(1, sizeof(*pl));
	unsigned i;

	if (!pl)
		return -ENOMEM;
	pl->event = event;
	pl->cfg = cfg;
	pl->cb = cb;
	pl->data = data;
	for (i = 0; i < PEER_LISTENERS_MAX; i++)
		pl->at[i].fd = -1;
	*ret = pl;
	return 0;
}

struct peer_listen *peer_listen_free(struct peer_listen *pl)
{
	unsigned i;

	for (i = 0; pl && i < PEER_LISTENERS_MAX; i++)
		stop(&pl->at[i]);
	free(pl);
	return NULL;
}
