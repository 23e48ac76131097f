/* SPDX-License-Identifier: MIT */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "proxy_daemon/server/conn.h"
#include "proxy_daemon/server/log.h"
#include "proxy_daemon/server/san/fill_buffer.h"
#include "proxy_daemon/server/san/remote.h"

#define STIR_US	2000000u	/* between two calls to offer again */

const struct san_config *san_config(const struct server *srv)
{
	return &srv->cfg.san;
}

/* tests have files of their own; a daemon with privileges listens to no such thing */
static const char *sysfs(void)
{
	const char *root = secure_getenv("WSD_TEST_SYSFS");

	return root && root[0] == '/' ? root : "/sys";
}

int san_init(struct server *srv)
{
	srv->san.setup_us = REMOTE_SETUP_US;
	if (getrandom(&srv->san.identity, sizeof(srv->san.identity), GRND_NONBLOCK) < 0)
		srv->san.identity = (uintptr_t)srv;
	if (san_config(srv)->peers)
		san_watch(srv);
	return 0;
}

void san_fini(struct server *srv)
{
	uevent_close(srv);
	srv->san.sweep = sd_event_source_disable_unref(srv->san.sweep);
	srv->san.stir = sd_event_source_disable_unref(srv->san.stir);
	free(srv->san.fill);
	srv->san.fill = NULL;
}

void san_page(struct server *srv, struct wsd_notify_page *page)
{
	const struct san_config *cfg = san_config(srv);
	unsigned i, n = cfg->peers ? cfg->n_subnets : 0;
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	atomic_store(&page->san_gen, srv->san.gen);
	atomic_fetch_add(&page->subnet_seq, 1);
	for (i = 0; i < n && i < WSD_SUBNETS_MAX; i++) {
		struct wsd_subnet s = { .family = AF_INET6, .prefix = cfg->subnet[i].prefix };

		memcpy(s.ip, cfg->subnet[i].ip, 16);
		if (s.prefix >= 96 && !memcmp(s.ip, mapped, 12)) {
			s = (struct wsd_subnet){ .family = AF_INET, .prefix = (uint16_t)(s.prefix - 96) };
			memcpy(s.ip, cfg->subnet[i].ip + 12, 4);
		}
		page->subnet[i] = s;
	}
	atomic_store(&page->n_subnets, i);
	atomic_fetch_add(&page->subnet_seq, 1);
}

void san_watch(struct server *srv)
{
	int r;

	if (srv->san.watching)
		return;
	/* first the sockets, then the look: nothing is missed in between */
	r = uevent_open(srv);
	if (r)		/* descriptors may be had again: the next offer tries */
		log_client("device events cannot be had: %s", strerror(-r));
	srv->san.watching = !r;
	dev_scan(&srv->san.devs, sysfs());
	log_info("%u RDMA addresses", srv->san.devs.n);
}

static void next_gen(struct server *srv, bool wake)
{
	struct conn *c;

	srv->san.gen = wake ? srv->san.gen + 1 : (srv->san.gen | 0xffff) + 1;
	TAILQ_FOREACH(c, &srv->conns, link) {
		if (!c->page)
			continue;
		atomic_store(&c->page->san_gen, srv->san.gen);
		if (wake)
			atomic_fetch_add(&c->page->queued, 1);
	}
}

static int on_stir(sd_event_source *source, uint64_t usec, void *data)
{
	struct server *srv = data;

	srv->san.stirred = server_now_us(srv);
	next_gen(srv, true);
	return 0;
}

void san_stir(struct server *srv)
{
	uint64_t now = server_now_us(srv), at = srv->san.stirred + STIR_US;
	int on = SD_EVENT_OFF;

	if (srv->san.stir && sd_event_source_get_enabled(srv->san.stir, &on) >= 0 && on != SD_EVENT_OFF)
		return;		/* the one that is due is for this, too */
	if (!srv->san.stirred || now >= at) {
		on_stir(NULL, now, srv);
	} else if (!srv->san.stir) {
		if (sd_event_add_time(srv->event, &srv->san.stir, CLOCK_MONOTONIC, at, 10000, on_stir, srv) < 0)
			srv->san.stir = NULL;	/* no memory: each end offers in its own time */
	} else {
		sd_event_source_set_time(srv->san.stir, at);
		sd_event_source_set_enabled(srv->san.stir, SD_EVENT_ONESHOT);
	}
}

void san_rescan(struct server *srv)
{
	struct dev_table old = srv->san.devs;	/* no memory to ask for: a device that goes waits for this */

	dev_scan(&srv->san.devs, sysfs());
	if (!dev_same(&old, &srv->san.devs)) {
		log_info("%u RDMA addresses", srv->san.devs.n);
		/* first the new number: who is told to return may look whether it is worth coming back */
		next_gen(srv, false);
		remote_devices_changed(srv);
	}
}
