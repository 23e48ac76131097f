/* SPDX-License-Identifier: MIT */
/*
 * uevent.c - devices, links, addresses and routes that come and go
 *
 * What an event says is not used but for one thing: a device that is going is acted upon at once, for its deletion waits until every
 * process has closed it. Everything else is looked at together, a little later. The kernel is the only sender that is heard.
 */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy_daemon/server/log.h"
#include "proxy_daemon/server/san/link.h"
#include "proxy_daemon/server/san/san.h"
#include "proxy_daemon/server/server.h"

#define DEBOUNCE_US	50000u
#define EVENTS_A_TURN	64u

static int open_netlink(int protocol, uint32_t groups)
{
	struct sockaddr_nl sa = { .nl_family = AF_NETLINK, .nl_groups = groups };
	int fd, r;

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

/* one event; its length, 0: nothing (more), -ENOBUFS: some were lost */
static ssize_t next_event(int fd, char *buf, size_t room)
{
	struct sockaddr_nl from;
	socklen_t len;
	ssize_t n;

	for (;;) {
		len = sizeof(from);
		n = recvfrom(fd, buf, room, MSG_DONTWAIT, (struct sockaddr *)&from, &len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == ENOBUFS ? -ENOBUFS : 0;
		if (len == sizeof(from) && from.nl_pid == 0)
			return n;
	}
}

static int on_rescan(sd_event_source *source, uint64_t usec, void *data)
{
	san_rescan(data);
	/* addresses to listen at may have come or gone, and whom no way led to may be there now */
	link_rescan(data);
	link_retry(data);
	return 0;
}

static void rescan_soon(struct server *srv)
{
	uint64_t at = server_now_us(srv) + DEBOUNCE_US;
	int on = SD_EVENT_OFF;

	if (!srv->san.rescan) {
		if (sd_event_add_time(srv->event, &srv->san.rescan, CLOCK_MONOTONIC, at, 1000, on_rescan, srv) < 0) {
			srv->san.rescan = NULL;
			san_rescan(srv);
		}
		return;
	}
	if (sd_event_source_get_enabled(srv->san.rescan, &on) >= 0 && on != SD_EVENT_OFF)
		return;		/* not put off by further events */
	sd_event_source_set_time(srv->san.rescan, at);
	sd_event_source_set_enabled(srv->san.rescan, SD_EVENT_ONESHOT);
}

enum kind { KIND_NOTHING, KIND_SOON, KIND_NOW };

/* "remove@/devices/...", then words "NAME=value", each with its zero */
static enum kind judge(const char *buf, size_t n)
{
	const char *p, *end = buf + n;
	bool remove = false, verbs = false, net = false;

	for (p = buf; p < end; p += strnlen(p, (size_t)(end - p)) + 1) {
		if (!strncmp(p, "ACTION=", 7))
			remove = !strcmp(p + 7, "remove");
		else if (!strncmp(p, "SUBSYSTEM=", 10)) {
			verbs = !strcmp(p + 10, "infiniband") || !strcmp(p + 10, "infiniband_verbs");
			net = !strcmp(p + 10, "net");
		}
	}
	if (verbs)
		return remove ? KIND_NOW : KIND_SOON;
	return net && remove ? KIND_SOON : KIND_NOTHING;
}

static int on_uevent(sd_event_source *source, int fd, uint32_t revents, void *data)
{
	enum kind most = KIND_NOTHING, k;
	char buf[4096 + 1];
	unsigned i;
	ssize_t n;

	for (i = 0; i < EVENTS_A_TURN; i++) {
		n = next_event(fd, buf, sizeof(buf) - 1);
		if (!n)
			break;
		if (n < 0) {
			most = KIND_NOW;
			continue;
		}
		buf[n] = '\0';
		k = judge(buf, (size_t)n);
		if (k > most)
			most = k;
	}
	if (most == KIND_NOW)
		san_rescan(data);
	else if (most == KIND_SOON)
		rescan_soon(data);
	return 0;
}

static int on_route(sd_event_source *source, int fd, uint32_t revents, void *data)
{
	bool any = false;
	char buf[8192];
	unsigned i;

	for (i = 0; i < EVENTS_A_TURN && next_event(fd, buf, sizeof(buf)); i++)
		any = true;
	if (any)
		rescan_soon(data);
	return 0;
}

static int add_sockets(struct server *srv)
{
	struct san *s = &srv->san;
	int r;

	s->uevent_fd = r = open_netlink(NETLINK_KOBJECT_UEVENT, 1);
	if (r < 0)
		return r;
	r = sd_event_add_io(srv->event, &s->uevent, s->uevent_fd, EPOLLIN, on_uevent, srv);
	if (r < 0)
		return r;
	s->route_fd = r = open_netlink(NETLINK_ROUTE,
				       RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE);
	if (r < 0)
		return r;
	r = sd_event_add_io(srv->event, &s->route, s->route_fd, EPOLLIN, on_route, srv);
	return r < 0 ? r : 0;
}

int uevent_open(struct server *srv)
{
	int r = add_sockets(srv);

	if (r)
		uevent_close(srv);
	return r;
}

void uevent_close(struct server *srv)
{
	struct san *s = &srv->san;

	s->rescan = sd_event_source_disable_unref(s->rescan);
	s->uevent = sd_event_source_disable_unref(s->uevent);
	s->route = sd_event_source_disable_unref(s->route);
	if (s->uevent_fd >= 0)
		close(s->uevent_fd);
	if (s->route_fd >= 0)
		close(s->route_fd);
	s->uevent_fd = s->route_fd = -1;
}
