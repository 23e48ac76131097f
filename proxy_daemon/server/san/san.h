/* SPDX-License-Identifier: MIT */
/*
 * san.h - the daemon's part in RDMA connections, as the rest of the daemon sees it
 *
 *	dev.c		which devices, ports and GIDs there are (sysfs; no device is ever opened: that would hold up its deletion)
 *	uevent.c	devices, links, addresses that come and go
 *	route.c		whether the way to a peer leads over a device
 *	memory.c	the memory of one end
 *	memlock.c	what client processes may lock
 *	remote.c	sessions: setting up, ending, what the clients ask
 *	fill.c		ring bytes that the device did not bring
 *	distant.c	two ends on two hosts find each other; proof.c: that they hold one stream
 *	far_sessions.c	what becomes of sessions when a link goes and comes
 *
 * Nothing of it costs anything before the first OFFER_SAN, unless subnets are declared.
 */
#ifndef PROXYD_SAN_SAN_H
#define PROXYD_SAN_SAN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>
#include <wsd/proxy_proto.h>

#include "proxy_daemon/server/san/config.h"
#include "proxy_daemon/server/san/dev.h"

#define MAX_REMOTES	8192u		/* ends with remote sessions; each is two pages mapped and a descriptor */

struct server;
struct distant;
struct remote;
struct lockee;
struct fill_buffer;

struct san {
	struct dev_table devs;
	bool watching;				/* uevent.c has its sockets */
	int uevent_fd, route_fd;
	sd_event_source *uevent, *route, *rescan, *sweep, *stir;
	uint32_t gen;				/* as in the notify pages */
	uint64_t stirred;			/* us: san_stir() */
	TAILQ_HEAD(, remote) remotes;
	unsigned n_remotes;
	struct remote *by_far;			/* uthash: those whose other end is on another host */
	TAILQ_HEAD(, distant) distants;
	struct distant *distants_by_id;		/* uthash: those that the other daemon knows by an id */
	unsigned n_distants;
	unsigned n_sessions;			/* live ones, by their first end here */
	uint64_t n_sessions_total;
	struct lockee *lockees;			/* uthash by pid */
	struct fill_buffer *fill;
	uint64_t identity;			/* random, of this run */
	uint64_t setup_us;			/* how long setting up may take */
};

int san_init(struct server *srv);		/* 0 or -errno */
void san_fini(struct server *srv);
const struct san_config *san_config(const struct server *srv);

/* what a new client's page says of us */
void san_page(struct server *srv, struct wsd_notify_page *page);

/* devices are looked at, and looked after, from now on */
void san_watch(struct server *srv);
/* a peer offers what no client here does now: perhaps one would, and waits for its time. Clients are told, every 2 s at most;
 * what comes sooner is told then */
void san_stir(struct server *srv);
/* something may have changed: look again, tell the clients, revoke what lost its device */
void san_rescan(struct server *srv);

void san_sweep_start(struct server *srv);	/* there is a live session */

/* uevent.c */
int uevent_open(struct server *srv);		/* 0 or -errno: then nothing is noticed but by failures */
void uevent_close(struct server *srv);

#endif
