/* SPDX-License-Identifier: MIT */
/*
 * far_sessions.c - remote sessions and the link that their other ends are behind
 *
 * What was under way when a link broke is lost on both sides. Over the next link to the same run of the peer's daemon each tells the
 * other which sessions it has (STATE), and says again what may not have arrived: all of it means the same when said twice.
 * Another run has none of them. While there is no link nothing can be decided or filled: after a while both return to TCP, and
 * who waits for an answer is told that there is none.
 */
#define HASH_NONFATAL_OOM 1
#include <stdatomic.h>
#include <string.h>

#include "proxy_daemon/server/end.h"
#include "proxy_daemon/server/san/link.h"
#include "proxy_daemon/server/san/remote.h"

#define RETURN_US	5000000u	/* without a link: return to TCP */
#define NEVER_US	10000000u	/* ... and nothing is to be had any more */

struct remote *remote_by_id(struct far *far, uint64_t id)
{
	struct remote_key k;
	struct remote *r;

	memset(&k, 0, sizeof(k));
	k.far = far;
	k.id = id;
	HASH_FIND(hh, far_server(far)->san.by_far, &k, sizeof(k), r);
	return r;
}

static void say_state(struct far *far)
{
	struct wsd_peer_state_of list[WSD_PEER_STATES_MAX];
	struct server *srv = far_server(far);
	struct wsd_peer_state m = { 0 };
	struct remote *r;

	TAILQ_FOREACH(r, &srv->san.remotes, link) {
		if (r->key.far != far || r->state != REMOTE_LIVE || r->peer_gone)
			continue;
		if (m.n == WSD_PEER_STATES_MAX) {
			m.more = 1;
			(void)far_send(far, WSD_PEER_STATE, 0, &m, sizeof(m), list, m.n * sizeof(list[0]));
			m.n = 0;
		}
		list[m.n++] = (struct wsd_peer_state_of){
			.id = r->id, .epoch = r->epoch,
			.posted = atomic_load_explicit(&r->mem.rs->posted, memory_order_acquire),
			.flags = (r->said_ended ? WSD_PEER_STATE_ENDED : 0) | (r->want_asked ? WSD_PEER_STATE_RETURN : 0),
		};
	}
	m.more = 0;
	(void)far_send(far, WSD_PEER_STATE, 0, &m, sizeof(m), list, m.n * sizeof(list[0]));
}

/* its last bytes, for which there was no room or no memory; it may be gone afterwards */
static void finish(struct remote *r)
{
	struct wsd_peer_reason m = { .reason = r->last_reason };

	r->down_us = 0;
	if (remote_say_ended(r))
		return;
	if (m.reason)
		(void)remote_tell(r, WSD_PEER_WITHDRAW, &m, sizeof(m), NULL, 0);
	remote_drop(r);
}

void remote_finish(struct remote *r)
{
	if (!r->fill_due)	/* else the link says when */
		finish(r);
}

static void say_again(struct remote *r)
{
	r->down_us = 0;
	r->asked_posted = 0;
	if (r->fill_sent || r->fill_due) {
		r->fill_sent = r->fill_due = 0;	/* from the cursor; what is there already is passed over */
		(void)fill_send(r, UINT64_MAX);
	}
	if (r->want_asked)
		(void)remote_tell(r, WSD_PEER_WANT_RETURN, NULL, 0, NULL, 0);
	if (r->decide_asked)
		(void)remote_tell(r, WSD_PEER_DECIDE, NULL, 0, NULL, 0);
	r->plain_due = r->plain_asked;
	remote_say_plain(r);
	if (r->end_asked && !atomic_load(&r->mem.rs->end_valid))
		(void)remote_tell(r, WSD_PEER_ASK_END, NULL, 0, NULL, 0);
	if (r->said_ended) {
		r->said_ended = false;
		(void)remote_say_ended(r);
	}
}

static void lose(struct remote *r, uint32_t reason)
{
	r->down_us = 0;
	if (!r->end) {
		remote_drop(r);
		return;
	}
	remote_revoke(r, reason, true);
	remote_peer_gone(r);
}

void remote_far_up(struct far *far, bool again)
{
	struct server *srv = far_server(far);
	struct remote *r, *next;

	if (again)
		say_state(far);
	for (r = TAILQ_FIRST(&srv->san.remotes); r; r = next) {
		next = TAILQ_NEXT(r, link);
		if (r->key.far != far || r->state != REMOTE_LIVE || r->peer_gone)
			continue;
		if (!again)
			lose(r, WSD_R_RDMA_FAILED);
		else if (r->end)
			say_again(r);
		else
			finish(r);
	}
}

void remote_far_down(struct far *far)
{
	struct server *srv = far_server(far);
	uint64_t now = server_now_us(srv);
	struct remote *r, *next;

	for (r = TAILQ_FIRST(&srv->san.remotes); r; r = next) {
		next = TAILQ_NEXT(r, link);
		if (r->key.far != far)
			continue;
		r->listed = false;	/* by a STATE that has not come whole */
		if (r->state == REMOTE_SETUP)
			remote_refuse(r, WSD_R_NO_PEER);
		else if (!r->down_us)
			r->down_us = now;
	}
}

void remote_far_room(struct far *far)
{
	struct server *srv = far_server(far);
	struct remote *r, *next;
	uint64_t to;

	for (r = TAILQ_FIRST(&srv->san.remotes); r; r = next) {
		next = TAILQ_NEXT(r, link);
		if (r->key.far != far)
			continue;
		to = r->fill_due;
		r->fill_due = 0;
		if (!r->end) {
			finish(r);	/* for ENDED alone there may have been no room, either */
			continue;
		}
		if (to)
			(void)fill_send(r, to);
		remote_say_plain(r);
	}
}

void remote_far_late(struct remote *r, uint64_t now)
{
	if (now - r->down_us < RETURN_US)
		return;
	if (r->end && !atomic_exchange(&r->mem.rs->x_return, 1))
		remote_wake(r);
	if (now - r->down_us >= NEVER_US)
		lose(r, WSD_R_NO_PEER);
}

void remote_state_came(struct far *far, const struct peer_msg *m)
{
	struct server *srv = far_server(far);
	struct wsd_peer_state_of s;
	struct remote *r, *next;
	uint32_t i;

	for (i = 0; i < m->body.state.n; i++) {
		memcpy(&s, m->tail + i * sizeof(s), sizeof(s));
		r = remote_by_id(far, s.id);
		if (r && r->epoch == s.epoch)
			r->listed = true;
	}
	if (m->body.state.more)
		return;
	for (r = TAILQ_FIRST(&srv->san.remotes); r; r = next) {
		next = TAILQ_NEXT(r, link);
		if (r->key.far != far || r->state != REMOTE_LIVE || r->peer_gone)
			continue;
		if (!r->listed)
			lose(r, WSD_R_RDMA_FAILED);
		else
			r->listed = false;
	}
}
