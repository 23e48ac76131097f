/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "proxy_daemon/server/conn.h"
#include "proxy_daemon/server/end.h"
#include "proxy_daemon/server/log.h"
#include "proxy_daemon/server/san/distant.h"
#include "proxy_daemon/server/san/link.h"
#include "proxy_daemon/server/server.h"

#define SWEEP_US	2000000u
#define SWEEP_ENDS	64u
#define ACCEPT_A_TURN	16u
#define ACCEPT_PAUSE_US	100000u

uint64_t server_now_us(struct server *srv)
{
	uint64_t now = 0;

	(void)sd_event_now(srv->event, CLOCK_MONOTONIC, &now);
	return now;
}

static void idle_restart(struct server *srv)
{
	if (!srv->idle)
		return;
	sd_event_source_set_time(srv->idle, server_now_us(srv) + srv->cfg.idle_exit_s * 1000000ull);
	sd_event_source_set_enabled(srv->idle, SD_EVENT_ONESHOT);
}

void server_maybe_done(struct server *srv)
{
	if (srv->unloading && !srv->n_sessions && !srv->san.n_remotes) {
		srv->stopping = true;
		(void)sd_event_source_set_enabled(srv->reaper, SD_EVENT_ONESHOT);
	}
	if (!srv->n_conns && !srv->n_sessions && !srv->san.n_remotes)
		idle_restart(srv);
}

void server_unload(struct server *srv, bool revoke)
{
	if (!srv->unloading) {
		srv->unloading = true;
		(void)sd_notify(0, "STOPPING=1");
		end_refuse_waiting(srv, WSD_R_UNLOADING);
	}
	if (revoke) {
		end_revoke_all(srv, WSD_R_UNLOADING);
		srv->stopping = true;
		(void)sd_event_source_set_enabled(srv->reaper, SD_EVENT_ONESHOT);
	}
	server_maybe_done(srv);
}

/* runs after whatever marked a connection dead or asked for the end */
static int on_reap(sd_event_source *source, void *data)
{
	struct server *srv = data;
	struct conn *c, *next;

	for (c = TAILQ_FIRST(&srv->conns); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (c->dead)
			conn_free(c);
	}
	if (srv->stopping)
		return sd_event_exit(srv->event, 0);
	return 0;
}

static unsigned accept_some(struct server *srv)
{
	unsigned n;
	int fd, r;

	for (n = 0; n < ACCEPT_A_TURN; n++) {
		fd = accept4(srv->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
				log_client("cannot accept: %s; again soon", strerror(errno));
				(void)sd_event_source_set_enabled(srv->accept_source, SD_EVENT_OFF);
			}
			break;
		}
		r = conn_accept(srv, fd);
		if (r)
			log_client("a client is turned away: %s", strerror(-r));
	}
	if (n && srv->idle)
		(void)sd_event_source_set_enabled(srv->idle, SD_EVENT_OFF);
	return n;
}

static int on_accept(sd_event_source *source, int fd, uint32_t revents, void *data)
{
	struct server *srv = data;

	accept_some(srv);
	if (!srv->n_conns && !srv->n_sessions && !srv->san.n_remotes)
		idle_restart(srv);
	return 0;
}

static int on_sweep(sd_event_source *source, uint64_t usec, void *data)
{
	struct server *srv = data;

	end_sweep(srv, SWEEP_ENDS);
	netns_trim(&srv->netns);
	/* it may have been switched off for want of descriptors */
	(void)sd_event_source_set_enabled(srv->accept_source, SD_EVENT_ON);
	sd_event_source_set_time(source, server_now_us(srv) + SWEEP_US);
	sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

static int on_idle(sd_event_source *source, uint64_t usec, void *data)
{
	struct server *srv = data;

	if (srv->n_conns || srv->n_sessions || srv->san.n_remotes)
		return 0;
	if (accept_some(srv) && srv->n_conns)
		return 0;	/* somebody came at the last moment */
	log_info("no clients for %u s, stopping", srv->cfg.idle_exit_s);
	return sd_event_exit(srv->event, 0);
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *data)
{
	log_info("signal %u: stopping", si->ssi_signo);
	server_unload(data, true);
	return 0;
}

static int add_signals(struct server *srv)
{
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	r = sd_event_add_signal(srv->event, NULL, SIGTERM, on_signal, srv);
	if (r >= 0)
		r = sd_event_add_signal(srv->event, NULL, SIGINT, on_signal, srv);
	return r < 0 ? r : 0;
}

int server_init(struct server *srv, const struct config *cfg)
{
	struct rlimit rl;
	int r;

	memset(srv, 0, sizeof(*srv));
	srv->cfg = *cfg;
	srv->quota = (struct quota_limits){ .sessions = cfg->quota_sessions, .bytes = cfg->quota_bytes };
	srv->uid = geteuid();
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0)
		srv->fd_keep_max = rl.rlim_cur / 2 < INT_MAX ? (int)(rl.rlim_cur / 2) : INT_MAX;
	srv->listener.fd = srv->listener.lock_fd = -1;
	TAILQ_INIT(&srv->conns);
	TAILQ_INIT(&srv->ends);
	TAILQ_INIT(&srv->sessions);
	LIST_INIT(&srv->cursors);
	end_cursor_start(srv, &srv->sweep_at);
	/* ids of another daemon's sessions do not come again */
	if (getrandom(&srv->next_session_id, sizeof(srv->next_session_id), GRND_NONBLOCK) < 0)
		srv->next_session_id = (uint64_t)getpid() << 32;
	TAILQ_INIT(&srv->san.remotes);
	TAILQ_INIT(&srv->san.distants);
	srv->san.uevent_fd = srv->san.route_fd = -1;
	r = netns_init(&srv->netns);
	if (r) {
		log_error("own network namespace cannot be seen: %s", strerror(-r));
		return r;
	}
	r = sd_event_new(&srv->event);
	if (r < 0)
		goto err;
	srv->started_us = server_now_us(srv);
	r = add_signals(srv);
	if (r < 0)
		goto err;
	r = sd_event_add_defer(srv->event, &srv->reaper, on_reap, srv);
	if (r < 0)
		goto err;
	(void)sd_event_source_set_enabled(srv->reaper, SD_EVENT_OFF);
	/* before anything else gets to use what is dead */
	(void)sd_event_source_set_priority(srv->reaper, SD_EVENT_PRIORITY_IMPORTANT);
	r = sd_event_add_time(srv->event, &srv->sweep, CLOCK_MONOTONIC, srv->started_us + SWEEP_US, 0, on_sweep, srv);
	if (r < 0)
		goto err;
	if (cfg->private_daemon && !cfg->stay) {
		r = sd_event_add_time(srv->event, &srv->idle, CLOCK_MONOTONIC,
				      srv->started_us + cfg->idle_exit_s * 1000000ull, 0, on_idle, srv);
		if (r < 0)
			goto err;
	}
	r = san_init(srv);
	if (r < 0)
		goto err;
	return 0;

err:
	log_error("no event loop: %s", strerror(-r));
	server_fini(srv);
	return r;
}

int server_listen(struct server *srv)
{
	int r;

	r = listener_open(&srv->listener, srv->cfg.socket, srv->uid == 0 && !srv->cfg.private_daemon);
	if (r)
		return r;
	r = sd_event_add_io(srv->event, &srv->accept_source, srv->listener.fd, EPOLLIN, on_accept, srv);
	if (r < 0)
		return r;
	(void)link_init(srv);		/* what is wrong with it is logged; this host's connections need none */
	distant_init(srv);
	return 0;
}

int server_run(struct server *srv)
{
	int r;

	(void)sd_notify(0, "READY=1");
	log_info("serving %s", srv->cfg.socket);
	r = sd_event_loop(srv->event);
	if (r < 0)
		log_error("event loop: %s", strerror(-r));
	return r;
}

void server_fini(struct server *srv)
{
	struct conn *c;
	struct end *e;

	srv->accept_source = sd_event_source_disable_unref(srv->accept_source);
	listener_close(&srv->listener);
	srv->finishing = true;
	if (srv->event) {
		srv->unloading = false;		/* nobody is to be told any more */
		TAILQ_FOREACH(c, &srv->conns, link) {
			if (c->unload_asked)
				(void)conn_send_plain(c, WSD_MSG_STATUS_END);
			conn_say_gone(c);
		}
		while ((c = TAILQ_FIRST(&srv->conns)))
			conn_free(c);
		while ((e = TAILQ_FIRST(&srv->ends)))
			end_free(e);
	}
	distant_fini(srv);
	link_fini(srv);
	san_fini(srv);
	srv->idle = sd_event_source_disable_unref(srv->idle);
	srv->sweep = sd_event_source_disable_unref(srv->sweep);
	srv->reaper = sd_event_source_disable_unref(srv->reaper);
	srv->event = sd_event_unref(srv->event);
	netns_fini(&srv->netns);
}
