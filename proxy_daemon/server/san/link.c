/* SPDX-License-Identifier: MIT */
/*
 * link.c - see link.h
 *
 * A *wire* is one TCP connection: CONNECTING (ours only) -> SHAKING -> GREETING -> UP -> CLOSING -> dead.
 * Until the handshake is done it belongs to nobody and costs little; then it is proven, belongs to a far and says HELLO. When the
 * other's HELLO has come it is the far's link. A wire is never freed inside a call that uses it: wire_kill() marks
 * it, the loop frees it (on_reap) and tells the user then.
 *
 * Both connect at once: of two daemons the one with the lower address refuses the other's wire while its own is in the making,
 * with BYE ANOTHER, before it says HELLO; so never more than one of both comes up, and messages have one order.
 */
#define HASH_NONFATAL_OOM 1
#include <errno.h>
#include <gnutls/crypto.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>
#include <uthash.h>
#include <wsd/remote_session.h>

#include "proxy_daemon/server/log.h"
#include "proxy_daemon/server/san/link.h"
#include "proxy_daemon/server/san/peer_listen.h"
#include "proxy_daemon/server/san/tls.h"
#include "proxy_daemon/server/server.h"

#define IN_SIZE		(2 * WSD_PEER_MSG_MAX)
#define RECEIVES_A_TURN	8u		/* records of up to 16 KiB; then the others get theirs */
#define SENDS_A_TURN	32u
#define FAREWELL_US	500000u		/* for BYE to get out */
#define SESSIONS_MAX	4096u		/* told in HELLO */

enum wire_state { W_CONNECTING, W_SHAKING, W_GREETING, W_UP, W_CLOSING, W_DEAD };

struct chunk {
	STAILQ_ENTRY(chunk) link;
	uint32_t len, sent;
	uint8_t bytes[];
};

struct wire {
	TAILQ_ENTRY(wire) link;
	struct links *all;
	struct far *far;		/* NULL: not proven, or no longer its link */
	enum wire_state state;
	enum link_why why;		/* of its end */
	bool outgoing, has_room_due;
	int fd;
	uint8_t local[16], remote[16];
	struct tls_session *tls;
	sd_event_source *io, *timer, *again;
	uint32_t events;
	uint64_t deadline_us;		/* until it is up, or closed */

	uint8_t *in;
	size_t n_in;
	STAILQ_HEAD(, chunk) queue;
	size_t n_queue;

	uint32_t version;
	uint64_t used_us;		/* last message other than PING and PONG, or sessions that somebody has */
	uint64_t ping_us, unanswered_us;	/* last PING; the first since which nothing came, 0: none */
};

struct far {
	uint8_t ip[2][16];		/* ours, theirs: the key */
	UT_hash_handle hh;
	struct links *all;
	struct wire *wire;		/* up, or the last one that is not reaped yet */
	struct wire *out;		/* being made by us */
	unsigned n_greeting;		/* made by the peer, proven, no HELLO yet */
	sd_event_source *timer;		/* connect again */
	bool awaited;			/* somebody was told -EINPROGRESS */
	bool expecting;			/* the peer said that its own wire is the one */
	bool met;
	enum link_why why;
	unsigned n_failed, n_held;
	uint64_t retry_us, since_us, rtt_us, boot;
	uint64_t gone_us;		/* when its last link ended; 0: it never had one, or broke the protocol */
	uint8_t host_id[16];
	void *user;
};

struct links {
	struct server *srv;
	struct tls *tls;
	struct peer_listen *listen;
	const struct link_ops *ops;
	struct link_times times;
	TAILQ_HEAD(, wire) wires;
	unsigned n_wires;
	struct far *fars;
	sd_event_source *reaper, *rescan;
	uint8_t host_id[16];
	uint64_t boot, next_id;
	uint32_t road;		/* WSD_REMOTE_VERSION */
};

static const struct link_times default_times = {
	.connect = 1000000, .handshake = 3000000, .ping_held = 1000000, .ping_idle = 15000000, .dead = 5000000, .idle = 60000000,
	.again_min = 200000, .again_max = 5000000, .absent_min = 60000000, .absent_max = 600000000, .rescan = 10000000,
};

static int far_connect(struct far *f);
static void far_down(struct far *f, enum link_why why);

const char *link_why_text(enum link_why why)
{
	static const char *const text[_LINK_WHYS] = {
		[LINK_FINE] = "", [LINK_OFF] = "links to other hosts are off", [LINK_NOT_SAN] = "not in one declared subnet",
		[LINK_ABSENT] = "no daemon listens there", [LINK_SILENT] = "no answer in time",
		[LINK_NO_KEY] = "it does not have our cluster key", [LINK_VERSION] = "no common version", [LINK_ROAD] = "it is another build, whose RDMA sessions differ",
		[LINK_SELF] = "it is this daemon itself", [LINK_BROKEN] = "it broke the protocol",
		[LINK_CLOSED] = "it closed the link", [LINK_LOST] = "it stopped answering, or hung up",
		[LINK_REPLACED] = "replaced by a newer link", [LINK_IDLE] = "closed, nothing to say",
		[LINK_LIMIT] = "too many links", [LINK_NO_MEMORY] = "no memory or descriptors", [LINK_STOPPING] = "this daemon stops",
	};

	return (unsigned)why < _LINK_WHYS && text[why] ? text[why] : "?";
}

static uint64_t now_us(const struct links *l)
{
	return server_now_us(l->srv);
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* ---- fars ---- */

static int by_address(const struct far *f)
{
	return memcmp(f->ip[0], f->ip[1], 16);
}

static bool is_up(const struct far *f)
{
	return f->wire && f->wire->state == W_UP;
}

static struct far *far_find(struct links *l, const uint8_t local[16], const uint8_t remote[16])
{
	uint8_t key[2][16];
	struct far *f;

	memcpy(key[0], local, 16);
	memcpy(key[1], remote, 16);
	HASH_FIND(hh, l->fars, key, sizeof(key), f);
	return f;
}

static void far_free(struct far *f)
{
	HASH_DEL(f->all->fars, f);
	sd_event_source_disable_unref(f->timer);
	free(f);
}

/* the one that is remembered for longest and that nobody uses */
static bool make_room(struct links *l)
{
	struct far *f, *tmp, *oldest = NULL;

	HASH_ITER(hh, l->fars, f, tmp)
		if (!f->wire && !f->out && !f->n_greeting && !f->n_held && !f->user && (!oldest || f->since_us < oldest->since_us))
			oldest = f;
	if (!oldest)
		return false;
	far_free(oldest);
	return true;
}

static struct far *far_get(struct links *l, const uint8_t local[16], const uint8_t remote[16])
{
	struct far *f = far_find(l, local, remote);

	if (f || (HASH_COUNT(l->fars) >= LINK_FARS_MAX && !make_room(l)))
		return f;
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	memcpy(f->ip[0], local, 16);
	memcpy(f->ip[1], remote, 16);
	f->all = l;
	f->why = LINK_IDLE;
	f->since_us = now_us(l);
	HASH_ADD(hh, l->fars, ip, sizeof(f->ip), f);
	if (!f->hh.tbl) {
		free(f);
		return NULL;
	}
	return f;
}

static uint64_t doubled(uint64_t first, uint64_t most, unsigned times)
{
	while (times-- && first < most)
		first *= 2;
	return least(first, most);
}

static int on_far_timer(sd_event_source *source, uint64_t usec, void *data)
{
	struct far *f = data;
	bool was_awaited = f->awaited;
	int r;

	f->expecting = false;
	if (f->wire || f->out || f->n_greeting || (!f->n_held && !was_awaited))
		return 0;
	r = far_connect(f);
	if (r && was_awaited) {
		f->awaited = false;
		far_down(f, f->why);
	}
	return 0;
}

static void far_arm(struct far *f, uint64_t at_us)
{
	if (!f->timer) {
		if (sd_event_add_time(f->all->srv->event, &f->timer, CLOCK_MONOTONIC, at_us, 1000, on_far_timer, f) < 0)
			log_warn("a lost link is not made again: no memory");
		return;
	}
	(void)sd_event_source_set_time(f->timer, at_us);
	(void)sd_event_source_set_enabled(f->timer, SD_EVENT_ONESHOT);
}

/* n_failed is of now: when may the next try be? */
static void far_pause(struct far *f)
{
	const struct link_times *t = &f->all->times;
	uint64_t now = now_us(f->all), wait;

	if (f->n_held)
		wait = doubled(t->again_min, t->again_max, f->n_failed - 1);
	else if (f->gone_us && now - f->gone_us < t->absent_max)
		wait = doubled(t->again_max / 5, t->absent_min, f->n_failed - 1);	/* it was there just now: busy, or starting again */
	else
		wait = doubled(t->absent_min, t->absent_max, f->n_failed - 1);
	f->retry_us = now + wait;
}

/* no link could be made */
static void far_failed(struct far *f, enum link_why why)
{
	if (f->why != why || !f->n_failed)
		f->since_us = now_us(f->all);
	f->why = why;
	f->n_failed++;
	far_pause(f);
	if (f->n_held)
		far_arm(f, f->retry_us);
}

static void far_down(struct far *f, enum link_why why)
{
	unsigned held = f->n_held;

	if (!f->all->ops)
		return;
	f->all->ops->down(f, why);
	/* who held it only while waiting for this link has let go: then it is as absent as others are */
	if (held && !f->n_held && f->n_failed)
		far_pause(f);
}

static void far_forget(struct far *f)
{
	if (f->wire || f->out || f->n_greeting || f->expecting)
		return;
	f->n_failed = 0;
	f->retry_us = 0;
	if (f->n_held)
		far_arm(f, now_us(f->all));
}

/* ---- a wire's life ---- */

static unsigned half_open(const struct links *l, const uint8_t *remote)
{
	const struct wire *w;
	unsigned n = 0;

	TAILQ_FOREACH(w, &l->wires, link)
		n += !w->outgoing && (w->state == W_SHAKING || w->state == W_GREETING) && (!remote || !memcmp(w->remote, remote, 16));
	return n;
}

static void wire_kill(struct wire *w, enum link_why why)
{
	if (w->state == W_DEAD)
		return;
	w->state = W_DEAD;
	if (!w->why)
		w->why = why;
	(void)sd_event_source_set_enabled(w->io, SD_EVENT_OFF);
	(void)sd_event_source_set_enabled(w->all->reaper, SD_EVENT_ONESHOT);
}

static void wire_free(struct wire *w)
{
	struct chunk *k;

	TAILQ_REMOVE(&w->all->wires, w, link);
	w->all->n_wires--;
	sd_event_source_disable_unref(w->io);
	sd_event_source_disable_unref(w->timer);
	sd_event_source_disable_unref(w->again);
	tls_free(w->tls);
	close(w->fd);
	while ((k = STAILQ_FIRST(&w->queue))) {
		STAILQ_REMOVE_HEAD(&w->queue, link);
		free(k);
	}
	free(w->in);
	free(w);
}

/* its link ended, and it did nothing wrong */
static void far_was_there(struct far *f)
{
	f->gone_us = f->since_us;
	f->retry_us = f->why == LINK_IDLE ? 0 : f->since_us + f->all->times.again_min;
}

/* The wire of this far ended. What does that mean for the far? Called by the loop, so the user may be told. */
static void far_lost(struct far *f, struct wire *w)
{
	enum link_why why = w->why;
	bool tell;

	if (f->wire == w) {
		f->wire = NULL;
		f->since_us = now_us(f->all);
		f->gone_us = 0;
		f->why = why;
		f->n_failed = 0;
		f->awaited = false;
		if (why == LINK_BROKEN || why == LINK_SELF || why == LINK_VERSION)
			far_failed(f, why);
		else
			far_was_there(f);
		if (f->n_held)
			far_arm(f, f->retry_us);
		far_down(f, why);
		return;
	}
	if (f->out == w)
		f->out = NULL;
	else
		f->n_greeting--;
	if (is_up(f) || f->out || f->n_greeting)
		return;			/* another one does it */
	if (why == LINK_REPLACED) {	/* the peer's own comes, or has come and gone: wait for it as long as it may take */
		f->expecting = true;
		far_arm(f, now_us(f->all) + f->all->times.handshake);
		return;
	}
	far_failed(f, why);
	tell = f->awaited;
	f->awaited = false;
	if (tell)
		far_down(f, why);
}

static int on_reap(sd_event_source *source, void *data)
{
	struct links *l = data;
	struct wire *w, *next;

	for (w = TAILQ_FIRST(&l->wires); w; w = next) {
		next = TAILQ_NEXT(w, link);
		if (w->state != W_DEAD)
			continue;
		if (w->far)
			far_lost(w->far, w);
		next = TAILQ_NEXT(w, link);	/* the user may have begun another */
		wire_free(w);
	}
	return 0;
}

static void wire_interest(struct wire *w, uint32_t events)
{
	if (w->events == events)
		return;
	w->events = events;
	if (sd_event_source_set_io_events(w->io, events) < 0)
		wire_kill(w, LINK_NO_MEMORY);
}

static void wire_timer(struct wire *w, uint64_t at_us)
{
	(void)sd_event_source_set_time(w->timer, at_us);
	(void)sd_event_source_set_enabled(w->timer, SD_EVENT_ONESHOT);
}

static int enqueue(struct wire *w, uint16_t type, uint64_t id, const void *body, size_t n, const void *tail, size_t m)
{
	size_t len = sizeof(struct wsd_peer_hdr) + n + m, max = len > LINK_BULK ? LINK_QUEUE_BULK : LINK_QUEUE_MAX;
	struct chunk *k;
	int r;

	if (len > WSD_PEER_MSG_MAX)
		return -EMSGSIZE;
	if (w->n_queue + len > max) {
		w->has_room_due = true;
		return -ENOBUFS;
	}
	k = malloc(sizeof(*k) + len);
	if (!k)
		return -ENOMEM;
	r = peer_build(k->bytes, len, type, id, body, n, tail, m);
	if (r < 0) {
		free(k);
		return r;
	}
	k->len = (uint32_t)r;
	k->sent = 0;
	STAILQ_INSERT_TAIL(&w->queue, k, link);
	w->n_queue += len;
	wire_interest(w, EPOLLIN | EPOLLOUT);
	return 0;
}

/* say why and go; @why is what our user hears, if it was its link */
static void wire_bye(struct wire *w, enum wsd_peer_bye bye, enum link_why why)
{
	struct wsd_peer_reason body = { .reason = bye };

	if (w->state != W_GREETING && w->state != W_UP) {
		wire_kill(w, why);
		return;
	}
	w->why = why;
	if (enqueue(w, WSD_PEER_BYE, 0, &body, sizeof(body), NULL, 0) || w->state == W_DEAD) {
		wire_kill(w, why);
		return;
	}
	w->state = W_CLOSING;
	wire_timer(w, now_us(w->all) + FAREWELL_US);
}

static enum link_why why_of(int err)
{
	switch (err) {
	case -EKEYREJECTED:
		return LINK_NO_KEY;
	case -ENOMEM: case -ENOBUFS: case -EMFILE: case -ENFILE:
		return LINK_NO_MEMORY;
	case -ECONNREFUSED: case -EHOSTUNREACH: case -ENETUNREACH: case -EHOSTDOWN:
		return LINK_ABSENT;
	case -ETIMEDOUT:
		return LINK_SILENT;
	case -ECONNRESET: case -EPIPE:
		return LINK_LOST;
	}
	return LINK_BROKEN;
}

static void log_end(const struct wire *w, const char *what)
{
	log_client("peer %s: %s", peer_ip_text(w->remote).text, what);
}

/* ---- messages ---- */

static void schedule(struct wire *w);

static void came_up(struct wire *w, const struct wsd_peer_hello *h)
{
	struct links *l = w->all;
	struct far *f = w->far;
	bool again = f->met && f->boot == h->boot && !memcmp(f->host_id, h->host_id, 16);
	struct wire *old = f->wire;

	if (old) {		/* the peer would not have made or answered another */
		old->far = NULL;
		f->wire = NULL;
		wire_kill(old, LINK_REPLACED);
		if (l->ops)
			l->ops->down(f, LINK_REPLACED);
	}
	if (!w->outgoing)
		f->n_greeting--;
	else
		f->out = NULL;
	w->state = W_UP;
	w->version = h->max_version < WSD_PEER_VERSION_MAX ? h->max_version : WSD_PEER_VERSION_MAX;
	w->used_us = now_us(l);
	w->ping_us = w->unanswered_us = 0;	/* the first goes out now: it measures, and shows early whether anybody is there */
	f->wire = w;
	if (f->out) {
		f->out->far = NULL;
		wire_kill(f->out, LINK_REPLACED);
		f->out = NULL;
	}
	f->met = true;
	f->boot = h->boot;
	memcpy(f->host_id, h->host_id, 16);
	f->why = LINK_FINE;
	f->n_failed = 0;
	f->retry_us = f->rtt_us = 0;
	f->since_us = now_us(l);
	f->awaited = f->expecting = false;
	if (f->timer)
		(void)sd_event_source_set_enabled(f->timer, SD_EVENT_OFF);
	log_info("peer %s: link is up", peer_ip_text(w->remote).text);
	schedule(w);
	if (l->ops)
		l->ops->up(f, again);
}

static void on_hello(struct wire *w, const struct wsd_peer_hello *h)
{
	if (!memcmp(h->host_id, w->all->host_id, 16)) {
		log_end(w, "it is this daemon itself");
		wire_bye(w, WSD_PEER_BYE_SELF, LINK_SELF);
	} else if (h->max_version < WSD_PEER_VERSION_MIN || h->min_version > WSD_PEER_VERSION_MAX) {
		log_end(w, "no common version");
		wire_bye(w, WSD_PEER_BYE_VERSION, LINK_VERSION);
	} else if (h->road != w->all->road) {
		log_client("peer %s: its RDMA sessions are of version %u, ours of %u: connections to it stay on TCP", peer_ip_text(w->remote).text,
			   h->road, w->all->road);
		wire_bye(w, WSD_PEER_BYE_VERSION, LINK_ROAD);
	} else {
		came_up(w, h);
	}
}

static void on_bye(struct wire *w, uint32_t reason)
{
	static const enum link_why why[] = {
		[WSD_PEER_BYE_IDLE] = LINK_IDLE, [WSD_PEER_BYE_STOPPING] = LINK_CLOSED, [WSD_PEER_BYE_VERSION] = LINK_VERSION,
		[WSD_PEER_BYE_SELF] = LINK_SELF, [WSD_PEER_BYE_PROTOCOL] = LINK_BROKEN, [WSD_PEER_BYE_ANOTHER] = LINK_REPLACED,
		[WSD_PEER_BYE_LIMIT] = LINK_LIMIT,
	};
	enum link_why y = reason < sizeof(why) / sizeof(*why) && why[reason] ? why[reason] : LINK_CLOSED;

	if (y == LINK_REPLACED && w->state == W_UP)
		y = LINK_CLOSED;
	if (y == LINK_BROKEN)
		log_end(w, "it says that we broke the protocol");
	wire_kill(w, y);
}

static void on_message(struct wire *w, const struct peer_msg *m)
{
	struct wsd_peer_ping pong = { 0 };
	struct links *l = w->all;

	if (m->hdr.type == WSD_PEER_BYE) {
		on_bye(w, m->body.reason.reason);
		return;
	}
	if ((m->hdr.type == WSD_PEER_HELLO) != (w->state == W_GREETING)) {
		log_end(w, "HELLO is not where it belongs");
		wire_bye(w, WSD_PEER_BYE_PROTOCOL, LINK_BROKEN);
		return;
	}
	switch (m->hdr.type) {
	case WSD_PEER_HELLO:
		on_hello(w, &m->body.hello);
		return;
	case WSD_PEER_PING:
		if (m->body.ping.n_held)
			w->used_us = now_us(l);
		pong.stamp = m->body.ping.stamp;
		if (enqueue(w, WSD_PEER_PONG, 0, &pong, sizeof(pong), NULL, 0))
			wire_kill(w, LINK_BROKEN);	/* it asks and never listens */
		return;
	case WSD_PEER_PONG:
		if (m->body.ping.stamp == w->ping_us)
			w->far->rtt_us = now_us(l) - w->ping_us;
		return;
	case WSD_PEER_OFFER:
		/* the one address that a peer may speak for, and to */
		if (memcmp(m->body.offer.local.ip, w->remote, 16) || memcmp(m->body.offer.remote.ip, w->local, 16)) {
			log_end(w, "OFFER for an address that is not the link's");
			wire_bye(w, WSD_PEER_BYE_PROTOCOL, LINK_BROKEN);
			return;
		}
		break;
	}
	w->used_us = now_us(l);
	if (l->ops)
		l->ops->message(w->far, m);
}

static void parse(struct wire *w)
{
	const char *what = NULL;
	struct peer_msg m;
	size_t at = 0;
	int len, r;

	while (w->state == W_GREETING || w->state == W_UP) {
		len = peer_length(w->in + at, w->n_in - at);
		if (!len || (len > 0 && (size_t)len > w->n_in - at))
			break;
		r = len < 0 ? len : peer_parse(&m, w->in + at, (size_t)len, &what);
		if (r == -EBADMSG) {
			log_end(w, what ? what : "a message of a length that none has");
			wire_bye(w, WSD_PEER_BYE_PROTOCOL, LINK_BROKEN);
			return;
		}
		at += (size_t)len;
		if (!r)
			on_message(w, &m);
		else if (w->state == W_GREETING)	/* not known, but certainly no HELLO */
			wire_bye(w, WSD_PEER_BYE_PROTOCOL, LINK_BROKEN);
	}
	memmove(w->in, w->in + at, w->n_in - at);
	w->n_in -= at;
}

/* ---- bytes ---- */

static void receive(struct wire *w)
{
	unsigned turns;
	ssize_t n;

	for (turns = 0; turns < RECEIVES_A_TURN; turns++) {
		if (w->state != W_GREETING && w->state != W_UP)
			return;
		n = tls_receive(w->tls, w->in + w->n_in, IN_SIZE - w->n_in);
		if (n == -EAGAIN)
			return;
		if (n <= 0) {
			wire_kill(w, n ? why_of((int)n) : LINK_CLOSED);
			return;
		}
		w->n_in += (size_t)n;
		w->unanswered_us = 0;
		parse(w);
	}
	/* GnuTLS may hold more that the kernel no longer knows of */
	(void)sd_event_source_set_enabled(w->again, SD_EVENT_ONESHOT);
}

static void transmit(struct wire *w)
{
	struct chunk *k;
	unsigned turns;
	ssize_t n;

	for (turns = 0; turns < SENDS_A_TURN && (k = STAILQ_FIRST(&w->queue)); turns++) {
		n = tls_send(w->tls, k->bytes + k->sent, k->len - k->sent);
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			wire_kill(w, why_of((int)n));
			return;
		}
		k->sent += (uint32_t)n;
		if (k->sent < k->len)
			continue;
		STAILQ_REMOVE_HEAD(&w->queue, link);
		w->n_queue -= k->len;
		free(k);
	}
	if (w->has_room_due && w->state == W_UP && w->n_queue <= LINK_QUEUE_BULK / 2) {
		w->has_room_due = false;
		if (w->all->ops && w->all->ops->room)
			w->all->ops->room(w->far);
	}
	if (!STAILQ_EMPTY(&w->queue))
		return;
	wire_interest(w, EPOLLIN);
	/* closed with bytes unread it would be a reset, which can overtake BYE: the peer is to close first */
	if (w->state == W_CLOSING && shutdown(w->fd, SHUT_WR) < 0)
		wire_kill(w, w->why);
}

static void drain(struct wire *w)
{
	char waste[4096];
	unsigned turns;
	ssize_t n = 1;

	for (turns = 0; turns < RECEIVES_A_TURN && n > 0; turns++)
		n = recv(w->fd, waste, sizeof(waste), 0);
	if (n == 0 || (n < 0 && errno != EAGAIN))
		wire_kill(w, w->why);
}

static int on_again(sd_event_source *source, void *data)
{
	receive(data);
	return 0;
}

/* what has to be done for a link that is up, and when again */
static void schedule(struct wire *w)
{
	const struct link_times *t = &w->all->times;
	struct far *f = w->far;
	uint64_t now = now_us(w->all), every = f->n_held ? t->ping_held : t->ping_idle, at;
	struct wsd_peer_ping ping = { .n_held = f->n_held };

	if (f->n_held)
		w->used_us = now;
	if (w->unanswered_us && now - w->unanswered_us >= t->dead) {
		log_end(w, link_why_text(LINK_LOST));
		wire_kill(w, LINK_LOST);
		return;
	}
	if (now - w->used_us >= t->idle) {
		wire_bye(w, WSD_PEER_BYE_IDLE, LINK_IDLE);
		return;
	}
	if (now - w->ping_us >= every) {
		w->ping_us = ping.stamp = now;
		if (!w->unanswered_us)
			w->unanswered_us = now;
		(void)enqueue(w, WSD_PEER_PING, 0, &ping, sizeof(ping), NULL, 0);	/* a full queue: it is silence that counts */
	}
	at = least(w->ping_us + every, w->used_us + t->idle);
	if (w->unanswered_us)
		at = least(at, w->unanswered_us + t->dead);
	wire_timer(w, at);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *data)
{
	struct wire *w = data;

	switch (w->state) {
	case W_UP:
		schedule(w);
		break;
	case W_CLOSING:
		wire_kill(w, w->why);
		break;
	case W_DEAD:
		break;
	default:
		if (w->outgoing)
			log_debug("peer %s: no answer in time", peer_ip_text(w->remote).text);
		else
			log_end(w, "half a handshake, given up");
		wire_kill(w, LINK_SILENT);
	}
	return 0;
}

/* the other side holds the key */
static void proven(struct wire *w)
{
	struct wsd_peer_hello hello = {
		.min_version = WSD_PEER_VERSION_MIN, .max_version = WSD_PEER_VERSION_MAX, .sessions_max = SESSIONS_MAX,
		.boot = w->all->boot, .road = w->all->road,
	};
	struct far *f;

	w->in = malloc(IN_SIZE);
	if (!w->in) {
		wire_kill(w, LINK_NO_MEMORY);
		return;
	}
	w->state = W_GREETING;
	wire_interest(w, EPOLLIN);
	if (!w->outgoing) {
		if (tls_has_old_key(w->tls))
			log_info("peer %s: it has the older key", peer_ip_text(w->remote).text);
		f = far_get(w->all, w->local, w->remote);
		if (!f) {
			wire_bye(w, WSD_PEER_BYE_LIMIT, LINK_LIMIT);
			return;
		}
		if (f->out && by_address(f) < 0) {
			wire_bye(w, WSD_PEER_BYE_ANOTHER, LINK_REPLACED);
			return;
		}
		w->far = f;
		f->n_greeting++;
	}
	memcpy(hello.host_id, w->all->host_id, 16);
	if (enqueue(w, WSD_PEER_HELLO, 0, &hello, sizeof(hello), NULL, 0)) {
		wire_kill(w, LINK_NO_MEMORY);
		return;
	}
	receive(w);
}

static void shake(struct wire *w)
{
	int r = tls_shake(w->tls);

	if (r == -EAGAIN) {
		wire_interest(w, tls_wants_write(w->tls) ? EPOLLOUT : EPOLLIN);
	} else if (r) {
		/* whoever connects to us may be anybody; whom we connect to is looked for */
		log_end(w, r == -EKEYREJECTED ? "the cluster keys differ" : r == -ECONNRESET ? "it hung up in the handshake" :
			"no link: not our kind of TLS");
		wire_kill(w, why_of(r));
	} else {
		proven(w);
	}
}

static int start_tls(struct wire *w)
{
	int r = tls_new(&w->tls, w->all->tls, w->fd, w->outgoing, w->local, w->remote);

	if (r)
		return r;
	w->state = W_SHAKING;
	wire_timer(w, now_us(w->all) + w->all->times.handshake);
	return 0;
}

static void connected(struct wire *w)
{
	socklen_t len = sizeof(int);
	int err = 0, r;

	if (getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		err = errno;
	r = err ? -err : start_tls(w);
	if (r) {
		log_debug("peer %s: %s", peer_ip_text(w->remote).text, strerror(-r));
		wire_kill(w, why_of(r));
		return;
	}
	shake(w);
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *data)
{
	struct wire *w = data;

	switch (w->state) {
	case W_CONNECTING:
		connected(w);
		return 0;
	case W_SHAKING:
		shake(w);
		return 0;
	case W_DEAD:
		return 0;
	default:
		break;
	}
	if (!STAILQ_EMPTY(&w->queue) || (revents & EPOLLOUT))
		transmit(w);
	if (!(revents & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return 0;
	if (w->state == W_CLOSING)
		drain(w);
	else
		receive(w);
	return 0;
}

/* Takes fd. Not in the loop yet beyond its timer: the caller says for what it waits */
static int wire_new(struct wire **ret, struct links *l, int fd, bool outgoing, const uint8_t local[16], const uint8_t remote[16],
		    uint32_t events, uint64_t deadline_us)
{
	struct wire *w = calloc(1, sizeof(*w));
	unsigned user_timeout = (unsigned)(l->times.dead / 1000);
	int r;

	if (!w) {
		close(fd);
		return -ENOMEM;
	}
	w->all = l;
	w->fd = fd;
	w->outgoing = outgoing;
	w->events = events;
	memcpy(w->local, local, 16);
	memcpy(w->remote, remote, 16);
	STAILQ_INIT(&w->queue);
	TAILQ_INSERT_TAIL(&l->wires, w, link);
	l->n_wires++;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
	r = sd_event_add_io(l->srv->event, &w->io, fd, events, on_io, w);
	if (r >= 0)
		r = sd_event_add_time(l->srv->event, &w->timer, CLOCK_MONOTONIC, deadline_us, 1000, on_timer, w);
	if (r >= 0)
		r = sd_event_add_defer(l->srv->event, &w->again, on_again, w);
	if (r >= 0)
		r = sd_event_source_set_enabled(w->again, SD_EVENT_OFF);
	if (r < 0) {
		wire_free(w);
		return r;
	}
	*ret = w;
	return 0;
}

/* ---- coming and going ---- */

static void on_accepted(void *data, int fd, const uint8_t local[16], const uint8_t remote[16])
{
	struct links *l = data;
	struct wire *w;
	const char *why = NULL;

	/* before a byte of it is read */
	if (!san_covers_both(&l->srv->cfg.san, local, remote) || !memcmp(local, remote, 16))
		why = "not in a declared subnet";
	else if (l->srv->unloading)
		why = "this daemon stops";
	else if (l->n_wires >= LINK_MAX)
		why = "too many links";
	else if (half_open(l, NULL) >= LINK_HALF_OPEN_MAX || half_open(l, remote) >= LINK_HALF_OPEN_HOST)
		why = "too many half-open links";
	if (why) {
		log_client("peer %s: turned away: %s", peer_ip_text(remote).text, why);
		close(fd);
		return;
	}
	if (wire_new(&w, l, fd, false, local, remote, EPOLLIN, now_us(l) + l->times.handshake))
		return;
	if (start_tls(w))
		wire_kill(w, LINK_NO_MEMORY);
}

/* Return: 0: under way; -EHOSTDOWN: why and retry_us say the rest */
static int far_connect(struct far *f)
{
	struct links *l = f->all;
	struct wire *w;
	int fd, r;

	if (l->n_wires >= LINK_MAX) {
		f->why = LINK_LIMIT;
		if (f->n_held)
			far_arm(f, now_us(l) + l->times.again_max);
		return -EHOSTDOWN;
	}
	fd = peer_connect(f->ip[0], f->ip[1], l->srv->cfg.san.port);
	if (fd < 0) {
		log_debug("peer %s: %s", peer_ip_text(f->ip[1]).text, strerror(-fd));
		far_failed(f, why_of(fd) == LINK_BROKEN ? LINK_ABSENT : why_of(fd));
		return -EHOSTDOWN;
	}
	r = wire_new(&w, l, fd, true, f->ip[0], f->ip[1], EPOLLOUT, now_us(l) + l->times.connect);
	if (r) {
		far_failed(f, LINK_NO_MEMORY);
		return -EHOSTDOWN;
	}
	w->state = W_CONNECTING;
	w->far = f;
	f->out = w;
	return 0;
}

static enum link_why pair_of(struct server *srv, const struct wsd_addr *local, const struct wsd_addr *remote, uint8_t ret[2][16])
{
	if (!srv->links || srv->unloading)
		return LINK_OFF;
	peer_ip(ret[0], local);
	peer_ip(ret[1], remote);
	if (!san_covers_both(&srv->cfg.san, ret[0], ret[1]))
		return LINK_NOT_SAN;
	return memcmp(ret[0], ret[1], 16) ? LINK_FINE : LINK_SELF;
}

int link_get(struct server *srv, const struct wsd_addr *local, const struct wsd_addr *remote, struct far **ret_far)
{
	uint8_t ip[2][16];
	struct far *f = NULL;
	int r;

	if (!pair_of(srv, local, remote, ip))
		f = far_get(srv->links, ip[0], ip[1]);
	*ret_far = f;
	if (!f)
		return -EHOSTDOWN;
	if (is_up(f)) {
		f->wire->used_us = now_us(f->all);
		return 0;
	}
	if (!f->wire && !f->out && !f->n_greeting && !f->expecting) {
		if (now_us(f->all) < f->retry_us)
			return -EHOSTDOWN;
		r = far_connect(f);
		if (r)
			return r;
	}
	f->awaited = true;
	return -EINPROGRESS;
}

int link_try(struct server *srv, const struct wsd_addr *local, const struct wsd_addr *remote, struct far **ret_far)
{
	uint8_t ip[2][16];
	struct far *f = NULL;

	if (!pair_of(srv, local, remote, ip))
		f = far_find(srv->links, ip[0], ip[1]);
	if (f)
		far_forget(f);
	return link_get(srv, local, remote, ret_far);
}

enum link_why far_why(const struct far *f)
{
	return is_up(f) ? LINK_FINE : f->why;
}

enum link_why link_why(struct server *srv, const struct wsd_addr *local, const struct wsd_addr *remote)
{
	uint8_t ip[2][16];
	enum link_why why = pair_of(srv, local, remote, ip);
	struct far *f;

	if (why)
		return why;
	f = far_find(srv->links, ip[0], ip[1]);
	return f ? far_why(f) : LINK_LIMIT;
}

void far_hold(struct far *f)
{
	f->n_held++;
	if (is_up(f))
		wire_timer(f->wire, now_us(f->all));
	else if (!f->wire && !f->out && !f->n_greeting && !f->expecting)
		far_arm(f, now_us(f->all) + f->all->times.again_min);
}

void far_release(struct far *f)
{
	f->n_held--;
	if (is_up(f))
		f->wire->used_us = now_us(f->all);
}

int far_send(struct far *f, uint16_t type, uint64_t id, const void *body, size_t n, const void *tail, size_t m)
{
	if (!is_up(f))
		return -ENOTCONN;
	f->wire->used_us = now_us(f->all);
	return enqueue(f->wire, type, id, body, n, tail, m);
}

void far_broken(struct far *f, const char *what)
{
	if (!is_up(f))
		return;
	log_end(f->wire, what);
	wire_bye(f->wire, WSD_PEER_BYE_PROTOCOL, LINK_BROKEN);
}

bool far_is_up(const struct far *f)
{
	return is_up(f);
}

struct server *far_server(const struct far *f)
{
	return f->all->srv;
}

uint64_t far_new_id(struct far *f)
{
	uint64_t id;

	do
		id = (f->all->next_id++ << 1) | (by_address(f) > 0);
	while (id <= 1);
	return id;
}

bool far_id_is_ours(const struct far *f, uint64_t id)
{
	return (id & 1) == (by_address(f) > 0);
}

const uint8_t *far_host_id(const struct far *f)
{
	return f->host_id;
}

uint64_t far_boot(const struct far *f)
{
	return f->boot;
}

const uint8_t *far_local_ip(const struct far *f)
{
	return f->ip[0];
}

const uint8_t *far_remote_ip(const struct far *f)
{
	return f->ip[1];
}

void **far_user(struct far *f)
{
	return &f->user;
}

/* ---- for people ---- */

struct far *far_next(struct server *srv, struct far *f)
{
	if (!srv->links)
		return NULL;
	return f ? f->hh.next : srv->links->fars;
}

void far_describe(const struct far *f, struct wsd_msg_status_peer *ret)
{
	const struct wire *w = f->wire ? f->wire : f->out;
	uint64_t now = now_us(f->all);

	peer_addr_of(&ret->local, f->ip[0], 0);
	peer_addr_of(&ret->remote, f->ip[1], f->all->srv->cfg.san.port);
	ret->since_us = now - f->since_us;
	ret->n_held = f->n_held;
	if (w) {
		ret->outgoing = w->outgoing;
		ret->version = w->version;
	}
	if (is_up(f)) {
		ret->state = WSD_PEER_LINK_UP;
		ret->rtt_us = f->rtt_us;
	} else if (w || f->n_greeting || f->expecting) {
		ret->state = WSD_PEER_LINK_CONNECTING;
	} else {
		ret->state = WSD_PEER_LINK_NONE;
		ret->retry_us = f->retry_us > now ? f->retry_us - now : 0;
		strncpy(ret->why, link_why_text(f->why), sizeof(ret->why) - 1);
	}
}

/* ---- all of them ---- */

void link_rescan(struct server *srv)
{
	if (srv->links && srv->links->listen)
		peer_listen_rescan(srv->links->listen);
}

static int on_rescan(sd_event_source *source, uint64_t usec, void *data)
{
	struct links *l = data;

	link_rescan(l->srv);
	(void)sd_event_source_set_time(source, now_us(l) + l->times.rescan);
	(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

void link_retry(struct server *srv)
{
	struct far *f, *tmp;

	if (!srv->links)
		return;
	HASH_ITER(hh, srv->links->fars, f, tmp)
		far_forget(f);
}

void link_watch(struct server *srv, const struct link_ops *ops)
{
	if (srv->links)
		srv->links->ops = ops;
}

struct link_times *link_times(struct server *srv)
{
	return srv->links ? &srv->links->times : NULL;
}

int link_init(struct server *srv)
{
	const struct san_config *cfg = &srv->cfg.san;
	struct links *l;
	int r;

	if (!cfg->peers)
		return 0;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->srv = srv;
	l->times = default_times;
	l->road = WSD_REMOTE_VERSION + (secure_getenv("WSD_TEST_ROAD") != NULL);
	TAILQ_INIT(&l->wires);
	r = -EIO;
	if (gnutls_rnd(GNUTLS_RND_NONCE, l->host_id, sizeof(l->host_id)) || gnutls_rnd(GNUTLS_RND_NONCE, &l->boot, sizeof(l->boot)) ||
	    gnutls_rnd(GNUTLS_RND_NONCE, &l->next_id, sizeof(l->next_id)))
		goto err;
	r = tls_init(&l->tls, cfg->key, cfg->key_len, cfg->old_key, cfg->old_key_len);
	if (r)
		goto err;
	r = sd_event_add_defer(srv->event, &l->reaper, on_reap, l);
	if (r < 0)
		goto err;
	(void)sd_event_source_set_enabled(l->reaper, SD_EVENT_OFF);
	(void)sd_event_source_set_priority(l->reaper, SD_EVENT_PRIORITY_IMPORTANT);
	if (cfg->listen) {
		r = peer_listen_new(&l->listen, srv->event, cfg, on_accepted, l);
		if (r)
			goto err;
		r = sd_event_add_time(srv->event, &l->rescan, CLOCK_MONOTONIC, now_us(l), 1000, on_rescan, l);
		if (r < 0)
			goto err;
	}
	srv->links = l;
	link_rescan(srv);
	return 0;

err:
	log_error("no links to other hosts: %s", strerror(-r));
	srv->links = l;
	link_fini(srv);
	return r;
}

void link_fini(struct server *srv)
{
	struct links *l = srv->links;
	struct far *f, *tmp;
	struct wire *w;
	size_t queued;

	if (!l)
		return;
	l->ops = NULL;
	sd_event_source_disable_unref(l->rescan);
	peer_listen_free(l->listen);
	while ((w = TAILQ_FIRST(&l->wires))) {
		if (w->state == W_UP || w->state == W_GREETING) {	/* as far as it goes without waiting */
			wire_bye(w, WSD_PEER_BYE_STOPPING, LINK_STOPPING);
			do {
				queued = w->n_queue;
				transmit(w);
			} while (w->n_queue < queued && w->state == W_CLOSING);
		}
		wire_free(w);
	}
	HASH_ITER(hh, l->fars, f, tmp)
		far_free(f);
	sd_event_source_disable_unref(l->reaper);
	tls_fini(l->tls);
	free(l);
	srv->links = NULL;
}
