/* SPDX-License-Identifier: MIT */
/*
 * ask.c - SAN_ASK, and the sweep that asks for those who do not call
 *
 * An answer is a word in the memory of who asked, stored before the packet that wakes. Asking twice is the same as asking once.
 */
#include <errno.h>
#include <stdatomic.h>

#include "proxy_daemon/server/conn.h"
#include "proxy_daemon/server/end.h"
#include "proxy_daemon/server/log.h"
#include "proxy_daemon/server/san/memlock.h"
#include "proxy_daemon/server/san/remote.h"

#define FILL_A_REQUEST	16384u		/* ring bytes that take us as long as a request does */

static uint64_t posted_of(const struct remote *r)
{
	return atomic_load_explicit(&r->mem.rs->posted, memory_order_acquire);
}

int remote_say_ended(struct remote *r)
{
	struct wsd_peer_ended m = { .posted = posted_of(r), .flags = r->left ? WSD_PEER_ENDED_LEFT : 0 };
	int res;

	if (r->said_ended)
		return 0;
	if (r->drained == m.posted && m.posted) {
		m.flags |= WSD_PEER_ENDED_DRAINED;
	} else {
		res = fill_send(r, m.posted);
		if (res == -ENOBUFS || res == -ENOTCONN)
			return res;
		if (res == -EPROTO)
			log_client("remote session %016llx: side %u leaves words that cannot be", (unsigned long long)r->id, r->side);
	}
	res = remote_tell(r, WSD_PEER_ENDED, &m, sizeof(m), NULL, 0);
	r->said_ended = !res;
	return res;
}

static void ask_decide(struct remote *r)
{
	struct wsd_remote *rs = r->mem.rs;

	if (atomic_load(&rs->decided)) {
		remote_wake(r);		/* its last word */
		return;
	}
	r->decide_asked = true;
	if (r->peer_gone)
		remote_peer_gone(r);
	else
		(void)remote_tell(r, WSD_PEER_DECIDE, NULL, 0, NULL, 0);	/* DECIDED comes, or the link is late */
}

/* Ring 1 of one direction: once, of its final size. What is not to be had leaves the word at 0, and the client with ring 0. */
static void ask_grow(struct remote *r, uint64_t which, uint64_t bytes)
{
	_Atomic uint32_t *word = which ? &r->mem.rs->tx1_allowed : &r->mem.rs->rx1_allowed;
	uint32_t n = (uint32_t)bytes;

	if (which > 1 || bytes < r->mem.ring0 || bytes > r->mem.ring1_max || (bytes & (bytes - 1))) {
		conn_error(r->end->conn, WSD_R_PEER_BROKEN, "SAN_ASK for a ring that cannot be");
		return;
	}
	if (r->grown[which] || !r->lockee || r->maker != r->end->conn)
		goto out;
	if (quota_more(&r->srv->quota, r->user, n))
		goto out;
	if (memlock_more(r->maker, r->lockee, n))
		goto err_quota;
	if (memory_populate(&r->mem, which ? MEMORY_TX1 : MEMORY_RX1, n)) {
		memlock_less(r->lockee, n);
		goto err_quota;
	}
	r->charged += n;
	r->srv->bytes_mapped += n;
	r->locked += n;
	r->grown[which] = true;
	atomic_store_explicit(word, n, memory_order_release);
out:
	remote_wake(r);
	return;

err_quota:
	quota_less(r->user, n);
	goto out;
}

/* The peer's ring ends where its last word says; as long as somebody holds its socket it has not said it. */
static void ask_end(struct remote *r)
{
	r->end_asked = true;
	if (r->peer_gone)
		remote_peer_gone(r);
	else
		(void)remote_tell(r, WSD_PEER_ASK_END, NULL, 0, NULL, 0);
}

void remote_say_plain(struct remote *r)
{
	struct wsd_peer_plain at = { .tcp_off = r->plain_asked }, is = { .tcp_off = r->plain_owed };

	if (r->plain_due && r->plain_asked)
		r->plain_due = remote_tell(r, WSD_PEER_PLAIN_AT, &at, sizeof(at), NULL, 0) != 0;
	if (r->plain_owed && !remote_tell(r, WSD_PEER_PLAIN_IS, &is, sizeof(is), NULL, 0))
		r->plain_owed = 0;
}

/* The number is in the memory: who asks may be a process that we do not talk to. An answer may take as long as the link does. */
static void ask_plain(struct remote *r)
{
	struct wsd_peer_plain m = { .tcp_off = atomic_load(&r->mem.rs->plain_H) };

	if (!m.tcp_off)
		return;
	r->plain_asked = m.tcp_off;
	r->plain_due = true;
	if (r->peer_gone)
		remote_peer_gone(r);
	else
		remote_say_plain(r);
}

void remote_ask(struct end *e, const struct wsd_msg_san_plain *m)
{
	struct remote *r = e ? e->rdma : NULL;
	uint64_t sent;
	int res;

	if (!r || r->id != m->session_id)
		return;
	sent = r->fill_sent;
	if (r->state != REMOTE_LIVE) {
		conn_error(e->conn, WSD_R_PEER_BROKEN, "SAN_ASK before SAN_GO");
		return;
	}
	switch (m->what) {
	case WSD_SAN_DECIDE:
		ask_decide(r);
		return;
	case WSD_SAN_FILL:
		res = fill_send(r, m->b);
		conn_charge(e->conn, (r->fill_sent - sent + FILL_A_REQUEST - 1) / FILL_A_REQUEST);
		if (res == -EPROTO)
			conn_error(e->conn, WSD_R_PEER_BROKEN, "posted and cursor that cannot be");
		return;
	case WSD_SAN_END:
		ask_end(r);
		return;
	case WSD_SAN_GROW:
		ask_grow(r, m->a, m->b);
		return;
	case WSD_SAN_WANT_RETURN:
		remote_want_return(r);
		return;
	case WSD_SAN_DRAINED:
		r->drained = m->a;
		return;
	case WSD_SAN_BROKEN:
		if (!r->said_broken)	/* the client may say it as often as it likes */
			log_info("remote session %016llx: pid %d says that the path broke: errno %llu", (unsigned long long)r->id,
				 e->pid, (unsigned long long)m->a);
		r->said_broken = true;
		remote_want_return(r);
		return;
	case WSD_SAN_PLAIN:
		ask_plain(r);
		return;
	}
}

/* ---- processes of an end that are not the client we talk to: forked, or come by the socket otherwise ---- */

static void asked_by_word(struct remote *r)
{
	_Atomic uint32_t *w = &r->mem.rs->asks;
	uint32_t asks = atomic_load_explicit(w, memory_order_relaxed) ? atomic_exchange(w, 0) : 0;

	if (asks & 1u << WSD_SAN_DECIDE)
		ask_decide(r);
	if (asks & 1u << WSD_SAN_END)
		ask_end(r);
	if (asks & 1u << WSD_SAN_FILL)
		(void)fill_send(r, UINT64_MAX);
	if (asks & 1u << WSD_SAN_PLAIN)
		ask_plain(r);
	if (asks & (1u << WSD_SAN_WANT_RETURN | 1u << WSD_SAN_BROKEN))
		remote_want_return(r);
}

/* ---- D21: bytes that lie in a source ring, and nothing moves: the path is dead, or who sent them does not call ---- */

static void sweep_one(struct remote *r, uint64_t now)
{
	uint64_t posted = posted_of(r), cursor = fill_cursor(r, posted);
	uint32_t xstate = atomic_load(&r->mem.rs->xstate);

	if (xstate != r->seen_xstate)
		r->asked_posted = 0;	/* a RETURN changes what the peer's answer means */
	if (posted != r->seen_posted || cursor != r->seen_cursor || xstate != r->seen_xstate || posted == cursor) {
		r->seen_posted = posted;
		r->seen_cursor = cursor;
		r->seen_xstate = xstate;
		r->seen_us = now;
		return;
	}
	if (now - r->seen_us < REMOTE_STUCK_US || r->asked_posted == posted || r->fill_sent >= posted)
		return;
	r->asked_posted = posted;
	(void)remote_tell(r, WSD_PEER_HEAD, NULL, 0, NULL, 0);
}

static int on_sweep(sd_event_source *source, uint64_t usec, void *data)
{
	struct server *srv = data;
	uint64_t now = server_now_us(srv);
	struct remote *r, *next;

	for (r = TAILQ_FIRST(&srv->san.remotes); r; r = next) {
		next = TAILQ_NEXT(r, link);
		if (r->state != REMOTE_LIVE)
			continue;
		if (r->end && !r->down_us)
			asked_by_word(r);
		if (r->down_us)
			remote_far_late(r, now);
		else if (!r->end)
			remote_finish(r);
		else if (r->end && !r->peer_gone)
			sweep_one(r, now);
	}
	sd_event_source_set_time(source, now + REMOTE_SWEEP_US);
	sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

void san_sweep_start(struct server *srv)
{
	uint64_t at = server_now_us(srv) + REMOTE_SWEEP_US;
	int on = SD_EVENT_OFF;

	if (!srv->san.sweep) {
		if (sd_event_add_time(srv->event, &srv->san.sweep, CLOCK_MONOTONIC, at, 10000, on_sweep, srv) < 0)
			srv->san.sweep = NULL;	/* no memory: clients ask for themselves */
		return;
	}
	if (sd_event_source_get_enabled(srv->san.sweep, &on) >= 0 && on != SD_EVENT_OFF)
		return;
	sd_event_source_set_time(srv->san.sweep, at);
	sd_event_source_set_enabled(srv->san.sweep, SD_EVENT_ONESHOT);
}
