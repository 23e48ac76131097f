/* SPDX-License-Identifier: MIT */
/*
 * test-road.c - puts with a signal (wsd/put_road.h) over the verbs backend
 *
 * On tests/fakes/fake_verbs.c, or with WSD_TEST_VERBS=rxe0 and WSD_RXE_ADDRESS on a device; what needs the fake's controls passes there.
 */
#include "tests/unit/transport/road.h"

Test(road, bytes_over_the_end_of_the_ring, .timeout = 60)
{
	struct end e[2];
	uint64_t taken = 0;
	unsigned seed = 1;

	pair_new(e);
	for (unsigned i = 0; i < 300; i++) {
		uint32_t n = 1 + (uint32_t)rand_r(&seed) % (i % 3 ? 300 : RING);
		uint8_t *rx = (uint8_t *)e[1].m + e[1].m->off_rx0;
		int r;

		UNTIL((r = put(&e[0], n)) != 1 || (look(e), false));
		cr_assert_eq(r, 0);
		arrives(e, 1, taken + n);
		cr_assert_eq(atomic_load(&e[1].m->head), taken + n);
		for (; taken < e[0].posted; taken++)
			cr_assert_eq(rx[taken % RING], byte_at(taken), "byte %llu", (unsigned long long)taken);
		UNTIL((look(e), e[0].posted - atomic_load(&e[0].r.state->done) <= RING / 4));
	}
	if (!real_device())
		cr_assert_lt(fv_signalled(), 300 + 100, "every post asks for a completion");
	pair_free(e);
}

Test(road, words_fetch_and_nudge, .timeout = 30)
{
	struct end e[2];
	uint64_t w[3] = { 5, 6, 7 };
	uint32_t changes;

	pair_new(e);
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 3), 0);
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 1), 1, "held twice");
	cr_assert_eq(e[0].r.word(e[0].r.conn, WSD_CTL_START, w, sizeof(w)), 0);
	cr_assert_eq(e[0].r.fetch(e[0].r.conn, WSD_CTL_START), 0);
	changes = atomic_load(&e[1].r.state->changes);
	cr_assert_eq(e[0].r.nudge(e[0].r.conn), 0);
	cr_assert_eq(e[0].r.nudge(e[0].r.conn), 1, "more posts than were held");
	e[0].r.release(e[0].r.conn);
	UNTIL((look(e), atomic_load(&e[0].r.state->fetched) == 1));
	cr_assert_eq(ctl(&e[1])->start.S, 5);
	cr_assert_eq(ctl(&e[1])->start.check, 7);
	UNTIL((look(e), atomic_load(&e[1].r.state->changes) != changes));
	cr_assert_eq(head(&e[1]), 0);
	/* outside of the page */
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 1), 0);
	cr_assert_eq(e[0].r.word(e[0].r.conn, WSD_REMOTE_PAGE - 8, w, 16), -EINVAL);
	cr_assert_eq(e[0].r.word(e[0].r.conn, 0, w, 65), -EINVAL);
	cr_assert_eq(e[0].r.fetch(e[0].r.conn, WSD_REMOTE_PAGE - 4), -EINVAL);
	cr_assert_eq(e[0].r.put(e[0].r.conn, 0, 8, 8), -EINVAL, "not where the last one ended");
	cr_assert_eq(e[0].r.put(e[0].r.conn, 0, 0, RING + 1), -EINVAL);
	cr_assert_eq(e[0].r.put(e[0].r.conn, 1, 0, 8), -EINVAL, "there is no ring 1");
	e[0].r.release(e[0].r.conn);
	pair_free(e);
}

Test(road, one_doorbell, .timeout = 30)
{
	struct end e[2];
	uint64_t w = 1;

	if (real_device())
		return;
	pair_new(e);
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 3), 0);
	cr_assert_eq(e[0].r.word(e[0].r.conn, WSD_CTL_SEAM(0), &w, 8), 0);
	cr_assert_eq(e[0].r.put(e[0].r.conn, 0, 0, 8), 0);
	cr_assert_eq(head(&e[1]), 0);
	unsigned before = fv_calls(FV_post_send);
	e[0].r.release(e[0].r.conn);
	cr_assert_eq(fv_calls(FV_post_send), before + 1);
	cr_assert_eq(fv_longest_chain(), 2);
	pair_free(e);
}

/* all that hold() and put() refuse, and what is two posts, is the long way's: nothing was done then */
Test(road, a_put_in_one_call, .timeout = 30)
{
	struct end e[2];
	unsigned n = 0;

	if (real_device())
		return;
	pair_new(e);
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 1), 0);
	cr_assert_eq(put_one(&e[0], 8), 1, "somebody else posts");
	e[0].r.release(e[0].r.conn);
	e[0].posted = 8;
	cr_assert_eq(put_one(&e[0], 8), 1, "not where the last one ended");
	e[0].posted = 0;
	cr_assert_eq(put_one(&e[0], 0), 1);
	cr_assert_eq(put_one(&e[0], RING + 1), 1);
	cr_assert_eq(e[0].r.put_one(e[0].r.conn, 1, 0, 8, NULL), 1, "there is no ring 1");
	cr_assert_eq(e[0].r.put_one(e[0].r.conn, 2, 0, 8, NULL), 1);
	cr_assert_eq(fv_calls(FV_post_send), 0);
	cr_assert_eq(put_one(&e[0], RING), 0);
	arrives(e, 1, RING);
	cr_assert_eq(put_one(&e[0], RING - 8), 0);
	arrives(e, 1, 2 * RING - 8);
	cr_assert_eq(put_one(&e[0], 16), 1, "over the ring's end");
	cr_assert_eq(put(&e[0], 8) || put(&e[0], 8), 0);
	arrives(e, 1, 2 * RING + 8);
	/* the receiver does not look: up to its receives, less those for nudges */
	while (put_one(&e[0], 1) == 0 && ++n < 100)
		e[0].r.poll(e[0].r.conn);
	cr_assert(n > 32 && n < 64, "%u", n);
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 1 | WSD_HOLD_WORDS), 0);
	cr_assert_eq(e[0].r.nudge(e[0].r.conn), 0);
	e[0].r.release(e[0].r.conn);
	/* ... and goes on when they come back */
	UNTIL((look(e), put_one(&e[0], 1) == 0));
	/* slots: nothing completes */
	fv_hold(true);
	for (n = 0; put_one(&e[0], 1) == 0; n++) {
		cr_assert_lt(n, 64);
		e[1].r.poll(e[1].r.conn);
	}
	fv_hold(false);
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 8), 0, "slots are kept for words");
	e[0].r.release(e[0].r.conn);
	UNTIL((look(e), put_one(&e[0], 1) == 0));
	fv_fail_nth(FV_post_send, 1, EIO);
	cr_assert_eq(put_one(&e[0], 8), 0, "the error is told by state->error, and sticks");
	cr_assert_eq(error(&e[0]), -ENETDOWN);
	cr_assert_eq(put_one(&e[0], 8), 1);
	pair_free(e);
}

/* the receiver does not look: puts end with its receives, and nothing breaks */
Test(road, credits_are_exhausted, .timeout = 30)
{
	struct end e[2];
	unsigned n = 0;

	pair_new(e);
	UNTIL(put(&e[0], 1) == 1 ? atomic_load(&e[0].r.state->done) + 32 >= n : (n++, e[0].r.poll(e[0].r.conn), n > 100));
	cr_assert_leq(n, 64);
	cr_assert_geq(n, 32);
	cr_assert_eq(put(&e[0], 1), 1);
	/* credit for the peer can be told all the same */
	uint64_t w[3] = {};
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 2 | WSD_HOLD_WORDS), 0);
	cr_assert_eq(e[0].r.word(e[0].r.conn, WSD_CTL_CREDIT, w, sizeof(w)), 0);
	cr_assert_eq(e[0].r.nudge(e[0].r.conn), 0, "none kept for a nudge");
	e[0].r.release(e[0].r.conn);
	/* it looks: there are new ones */
	arrives(e, 1, n);
	UNTIL((look(e), put(&e[0], 1) == 0));
	arrives(e, 1, n + 1);
	cr_assert_eq(error(&e[0]), 0);
	pair_free(e);
}

Test(road, slots_are_exhausted, .timeout = 30)
{
	struct end e[2];
	uint64_t w = 1;
	unsigned n = 0;

	if (real_device())
		return;
	pair_new(e);
	fv_hold(true);
	while (!e[0].r.hold(e[0].r.conn, 1 | WSD_HOLD_WORDS)) {
		cr_assert_eq(e[0].r.word(e[0].r.conn, WSD_CTL_SEAM(0), &w, 8), 0);
		e[0].r.release(e[0].r.conn);
		cr_assert_lt(++n, 65);
	}
	cr_assert_geq(n, 48);
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 1), 1);
	fv_hold(false);
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 8), 0, "slots did not come back");
	e[0].r.release(e[0].r.conn);
	pair_free(e);
}

/* the head is made of what the queue pair said alone, and a step is at most a ring */
Test(road, step_of_the_head_is_bounded, .timeout = 30)
{
	static const struct { uint32_t more; int error; } lies[] = {
		{ RING - 1, 0 }, { RING, -EPROTO }, { 0x80000000u, -EPROTO }, { -2u, -EPROTO }, { -1u, 0 /* a nudge */ },
	};
	struct end e[2];

	pair_new(e);
	cr_assert_eq(put(&e[0], 100), 0);
	arrives(e, 1, 100);
	/* the receiver's memory says that it has had less: nothing is believed of memory */
	atomic_store(&e[1].m->head, 0);
	cr_assert_eq(put(&e[0], RING), 0);
	UNTIL((look(e), head(&e[1]) == 100 + RING));
	cr_assert_eq(error(&e[1]), 0);
	pair_free(e);
	if (real_device())
		return;
	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		uint64_t want = 100 + (lies[i].error ? 0 : 1 + lies[i].more);
		uint32_t changes;

		pair_new(e);
		cr_assert_eq(put(&e[0], 100), 0);
		arrives(e, 1, 100);
		changes = atomic_load(&e[1].r.state->changes);
		fv_lie(lies[i].more);
		cr_assert_eq(put(&e[0], 1), 0);
		look(e);
		cr_assert_eq(error(&e[1]), lies[i].error, "lie %u: error %d", i, error(&e[1]));
		cr_assert_neq(atomic_load(&e[1].r.state->changes), changes, "lie %u: nobody is told", i);
		cr_assert_eq(head(&e[1]), want, "lie %u: head %llu", i, (unsigned long long)head(&e[1]));
		cr_assert_eq(atomic_load(&e[1].m->head), want);
		if (lies[i].error) {
			/* what comes later raises it no more, and nothing goes out */
			put(&e[0], 1);
			look(e);
			cr_assert_eq(head(&e[1]), want);
			cr_assert_eq(put(&e[1], 1), -EPROTO);
		}
		pair_free(e);
	}
}

Test(road, errors_stick, .timeout = 30)
{
	struct end e[2];
	uint64_t x[4];

	if (real_device())
		return;
	pair_new(e);
	cr_assert_eq(put(&e[0], 8), 0);
	arrives(e, 1, 8);
	rt_ctx_drain(e[0].ctx, x, 4);
	fv_drop_path(true);
	cr_assert_eq(put(&e[0], 8), 0);
	cr_assert_eq(rt_ctx_drain(e[0].ctx, x, 4), 1);
	cr_assert_eq(x[0], 100);
	cr_assert_eq(error(&e[0]), -ECONNRESET);
	fv_drop_path(false);
	cr_assert_eq(put(&e[0], 8), -ECONNRESET);
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 1), -ECONNRESET);
	cr_assert_eq(error(&e[1]), 0);
	cr_assert_eq(atomic_load(&e[0].r.state->done) <= 8, true);
	pair_free(e);
}

Test(road, a_doorbell_fails, .timeout = 30)
{
	struct end e[2];

	if (real_device())
		return;
	pair_new(e);
	fv_fail_nth(FV_post_send, 1, EIO);
	cr_assert_eq(put(&e[0], 8), 0);
	cr_assert_eq(error(&e[0]), -ENETDOWN);
	cr_assert_eq(put(&e[0], 8), -ENETDOWN);
	pair_free(e);
}

Test(road, events_mark_errors, .timeout = 30)
{
	static const struct { enum ibv_event_type type; bool qp; int error; } events[] = {
		{ IBV_EVENT_PORT_ERR, false, -ECONNRESET },
		{ IBV_EVENT_DEVICE_FATAL, false, -ENETDOWN },
		{ IBV_EVENT_QP_FATAL, true, -ECONNRESET },
		{ IBV_EVENT_QP_ACCESS_ERR, true, -EPROTO },
		{ IBV_EVENT_COMM_EST, true, 0 },
	};

	if (real_device())
		return;
	for (unsigned i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
		struct end e[2];
		uint64_t x[4];
		uint32_t qpn;

		pair_new(e);
		memcpy(&qpn, e[1].local + 4, 4);
		while (rt_ctx_drain(e[1].ctx, x, 4) || rt_ctx_arm(e[1].ctx))
			;
		struct pollfd p = { rt_ctx_wait_fd(e[1].ctx), POLLIN, 0 };
		cr_assert_eq(poll(&p, 1, 0), 0);
		fv_event(events[i].type, events[i].qp ? qpn : 0);
		struct pollfd q[2] = { p, { rt_ctx_wait_fd(e[0].ctx), POLLIN, 0 } };
		cr_assert_eq(poll(q, 2, 1000) > 0, true);
		rt_ctx_arm(e[0].ctx);
		rt_ctx_drain(e[0].ctx, x, 4);
		rt_ctx_drain(e[1].ctx, x, 4);
		cr_assert_eq(events[i].qp ? error(&e[1]) : error(&e[1]) ?: error(&e[0]), events[i].error, "event %u", i);
		cr_assert_eq(poll(q, 2, 0), 0, "it stays readable");
		pair_free(e);
	}
}

struct sleeper {
	struct end *e;
	unsigned rounds, slept;
	atomic_bool stop;
	char why[200];
};

/* why: something was there to be found, or there was nothing */
static char *sleeps_on(struct sleeper *s, unsigned i)
{
	struct end *e = s->e;
	uint64_t x[4], was = head(e);

	rt_ctx_drain(e->ctx, x, 4);
	snprintf(s->why, sizeof(s->why), "%s: round %u, head %llu, then %llu, posted %llu, done %llu, error %d",
		 head(e) >= i ? "a wake-up was lost" : "nothing came", i, (unsigned long long)was, (unsigned long long)head(e),
		 (unsigned long long)e->posted, (unsigned long long)atomic_load(&e->r.state->done), error(e));
	return s->why;
}

static void *sleeps(void *arg)
{
	struct sleeper *s = arg;
	struct end *e = s->e;

	for (unsigned i = 1; i <= s->rounds; i++) {
		uint64_t x[4];

		while (head(e) < i) {
			struct pollfd p = { rt_ctx_wait_fd(e->ctx), POLLIN, 0 };

			if (rt_ctx_drain(e->ctx, x, 4))
				continue;
			if (rt_ctx_arm(e->ctx) || head(e) >= i)
				continue;
			s->slept++;
			if (poll(&p, 1, 10000) != 1)
				return sleeps_on(s, i);
		}
		double end = now() + 15;
		int r;

		/* not now: the one who looks tells credit this moment */
		while ((r = put(e, 1)) == 1 && now() < end)
			sched_yield();
		if (r) {
			snprintf(s->why, sizeof(s->why), "put in round %u: %d", i, r);
			return s->why;
		}
	}
	return NULL;
}

/* somebody who looks all the time takes completions away from those who sleep */
static void *looks(void *arg)
{
	struct sleeper *s = arg;

	while (!atomic_load(&s->stop)) {
		s->e->r.poll(s->e->r.conn);
		sched_yield();
	}
	return NULL;
}

Test(road, no_wake_up_is_lost, .timeout = 120)
{
	struct end e[2];
	struct sleeper s[2];
	pthread_t t[2], other[2];

	pair_new(e);
	for (int i = 0; i < 2; i++)
		s[i] = (struct sleeper){ .e = &e[i], .rounds = real_device() ? 200 : 2000 };
	cr_assert_eq(put(&e[0], 1), 0);
	s[0].rounds--;	/* that was its first put */
	for (int i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, sleeps, &s[i]), 0);
	/* one of them on a device: an emulated guest has two processors */
	for (int i = !!real_device(); i < 2; i++)
		cr_assert_eq(pthread_create(&other[i], NULL, looks, &s[i]), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	for (int i = !!real_device(); i < 2; i++) {
		atomic_store(&s[i].stop, true);
		pthread_join(other[i], NULL);
	}
	/* where one end goes wrong the other waits in vain */
	cr_assert(!s[0].why[0] && !s[1].why[0], "end 0: %s; end 1: %s", s[0].why, s[1].why);
	pair_free(e);
}

/* a full array loses no context */
Test(road, drain_goes_on_where_it_stopped, .timeout = 30)
{
	struct end e[5][2];
	struct rt_ctx *a = ctx_new(), *b = ctx_new();
	unsigned told = 0;
	uint64_t x;

	for (unsigned i = 0; i < 5; i++) {
		e[i][0].ctx = a;
		e[i][1].ctx = b;
		pair_in(e[i], i, NONCE + i);
		e[i][1].r.context = 10 + i;
		cr_assert_eq(rt_conn_road(e[i][1].conn, &e[i][1].r), 0);
	}
	for (unsigned i = 0; i < 5; i++)
		cr_assert_eq(put(&e[i][0], 4), 0);
	for (unsigned i = 0; i < 5; i++)
		UNTIL((e[i][1].r.poll(e[i][1].r.conn), head(&e[i][1]) == 4));
	cr_assert_eq(rt_ctx_arm(b), 1, "who arms now would sleep over them");
	while (rt_ctx_drain(b, &x, 1)) {
		cr_assert(x >= 10 && x < 15 && !(told & 1u << (x - 10)), "context %llu", (unsigned long long)x);
		told |= 1u << (x - 10);
	}
	cr_assert_eq(told, 31);
	for (unsigned i = 0; i < 5; i++)
		for (int k = 0; k < 2; k++)
			end_close(&e[i][k]);
	rt_ctx_close(a);
	rt_ctx_close(b);
	cr_assert_eq(fv_live(), 0);
}

Test(road, stop_drains, .timeout = 30)
{
	struct end e[2];
	uint64_t x;
	double t0;

	pair_new(e);
	if (!real_device())
		fv_hold(true);
	cr_assert_eq(put(&e[0], 100), 0);
	cr_assert_eq(put(&e[0], 100), 0);
	e[0].r.stop(e[0].r.conn, 1);
	cr_assert_eq(put(&e[0], 1), -ECANCELED);
	end_close(&e[0]);	/* its memory is gone as well */
	t0 = now();
	if (!real_device())
		fv_hold(false);
	UNTIL((e[1].r.poll(e[1].r.conn), head(&e[1]) == 200 || error(&e[1])));
	cr_assert_eq(head(&e[1]), 200);
	int fds[16];
	UNTIL((rt_ctx_drain(e[0].ctx, &x, 1), rt_ctx_fds(e[0].ctx, fds, 16) == 1));
	cr_assert(real_device() || now() - t0 < 1.5, "it lingers though all is there");
	end_close(&e[1]);
	rt_ctx_close(e[0].ctx);
	rt_ctx_close(e[1].ctx);
	cr_assert_eq(fv_live(), 0);
}

/* and gives up: a peer that takes nothing holds nothing up */
Test(road, lingering_ends, .timeout = 30)
{
	struct end e[2];
	double t0;
	uint64_t x;
	int fds[16];

	if (real_device())
		return;
	pair_new(e);
	fv_hold(true);
	cr_assert_eq(put(&e[0], 100), 0);
	t0 = now();
	end_close(&e[0]);
	cr_assert_lt(now() - t0, 1.0, "close waits");
	rt_ctx_drain(e[0].ctx, &x, 1);
	cr_assert_eq(rt_ctx_fds(e[0].ctx, fds, 16), 4);
	UNTIL((rt_ctx_drain(e[0].ctx, &x, 1), rt_ctx_fds(e[0].ctx, fds, 16) == 1));
	cr_assert_gt(now() - t0, 1.5);
	end_close(&e[1]);
	rt_ctx_close(e[0].ctx);
	rt_ctx_close(e[1].ctx);
	cr_assert_eq(fv_live(), 0);
}

Test(road, stop_while_somebody_is_inside, .timeout = 30)
{
	struct end e[2];
	uint64_t w = 77;
	unsigned before;

	pair_new(e);
	before = fv_live();
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 2), 0);
	cr_assert_eq(e[0].r.word(e[0].r.conn, WSD_CTL_SEAM(0), &w, 8), 0);
	e[0].r.stop(e[0].r.conn, 0);
	/* nothing lands from now on, though the queue pair is still there */
	if (!real_device()) {
		uint64_t addr;
		uint32_t qpn, rkey;

		cr_assert_eq(fv_live(), before);
		memcpy(&qpn, e[0].local + 4, 4);
		memcpy(&rkey, e[0].local + 36, 4);
		memcpy(&addr, e[0].local + 40, 8);
		cr_assert_not(fv_stale_write(qpn, addr, rkey, &w, 8));
	}
	cr_assert_eq(e[0].r.word(e[0].r.conn, WSD_CTL_SEAM(0), &w, 8), -ECANCELED);
	e[0].r.release(e[0].r.conn);
	if (!real_device())
		cr_assert_lt(fv_live(), before, "the last one out did not destroy it");
	cr_assert_eq(ctl(&e[1])->seam[0].ring_off, 0);
	pair_free(e);
}

/* a drain that goes on is no excuse: stop(0) says that nothing lands from its return on */
Test(road, stop_cuts_off_what_drains, .timeout = 30)
{
	struct end e[2];
	uint64_t addr, w = 1, x;
	uint32_t qpn, rkey;
	int fds[16];
	double t0;

	if (real_device())
		return;
	pair_new(e);
	memcpy(&qpn, e[0].local + 4, 4);
	memcpy(&rkey, e[0].local + 36, 4);
	memcpy(&addr, e[0].local + 40, 8);
	fv_hold(true);
	cr_assert_eq(put(&e[0], 100), 0);
	e[0].r.stop(e[0].r.conn, 1);
	cr_assert(fv_stale_write(qpn, addr, rkey, &w, 8), "it does not drain");
	e[0].r.stop(e[0].r.conn, 1);
	cr_assert(fv_stale_write(qpn, addr, rkey, &w, 8), "twice the same is not more");
	t0 = now();
	e[0].r.stop(e[0].r.conn, 0);
	cr_assert_not(fv_stale_write(qpn, addr, rkey, &w, 8));
	fv_hold(false);
	e[1].r.poll(e[1].r.conn);
	cr_assert_eq(head(&e[1]), 0, "what was posted went out all the same");
	end_close(&e[0]);
	UNTIL((rt_ctx_drain(e[0].ctx, &x, 1), rt_ctx_fds(e[0].ctx, fds, 16) == 1));
	cr_assert_lt(now() - t0, 1.5, "there is nothing to wait for");
	end_close(&e[1]);
	rt_ctx_close(e[0].ctx);
	rt_ctx_close(e[1].ctx);
	cr_assert_eq(fv_live(), 0);
}

/* both: whoever counts on the queue would wait for ever */
Test(road, a_broken_queue_is_an_error, .timeout = 30)
{
	static const enum fv_fn fns[] = { FV_poll_cq, FV_req_notify_cq };

	if (real_device())
		return;
	for (unsigned i = 0; i < 2; i++) {
		struct end e[2];
		uint64_t x[4];

		pair_new(e);
		while (rt_ctx_drain(e[1].ctx, x, 4))
			;
		fv_fail_nth(fns[i], 1, EIO);
		cr_assert_eq(rt_ctx_arm(e[1].ctx), 1, "%u: he would sleep", i);
		cr_assert_eq(error(&e[1]), -ECONNRESET, "%u: error %d", i, error(&e[1]));
		cr_assert_eq(error(&e[0]), 0);
		cr_assert_eq(rt_ctx_drain(e[1].ctx, x, 4), 1);
		cr_assert_eq(x[0], 101);
		pair_free(e);
	}
}

Test(road, errno_is_left_alone, .timeout = 30)
{
	struct end e[2];
	uint64_t x, w = 1;

	if (real_device())
		return;
	pair_new(e);
	errno = 77;
	cr_assert_eq(put(&e[0], 8), 0);
	look(e);
	rt_ctx_drain(e[0].ctx, &x, 1);
	rt_ctx_arm(e[1].ctx);
	cr_assert_eq(e[1].r.hold(e[1].r.conn, 1 | WSD_HOLD_WORDS), 0);
	fv_fail_nth(FV_post_send, 1, EIO);
	cr_assert_eq(e[1].r.word(e[1].r.conn, WSD_CTL_SEAM(0), &w, 8), 0);
	e[1].r.release(e[1].r.conn);
	cr_assert_eq(put_one(&e[0], 8), 0);
	cr_assert_eq(errno, 77, "a doorbell that failed");
	cr_assert_eq(error(&e[1]), -ENETDOWN);
	e[0].r.stop(e[0].r.conn, 1);
	e[1].r.stop(e[1].r.conn, 0);
	rt_ctx_drop_device(e[1].ctx, NULL);
	cr_assert_eq(errno, 77);
	pair_free(e);
}

static struct end *interrupted;
static unsigned handled;

static void stops(int sig)
{
	interrupted->r.stop(interrupted->r.conn, 0);
	handled++;
}

static void interrupts(void)
{
	raise(SIGUSR1);
}

/* control calls are not made with handlers held off: who comes from one finds the look lock free, or others' */
Test(road, a_handler_does_not_wait_for_its_own_thread, .timeout = 30)
{
	struct end e[2], more = {};

	if (real_device())
		return;
	pair_new(e);
	interrupted = &e[0];
	signal(SIGUSR1, stops);
	more.ctx = e[0].ctx;
	more.m = fake_remote_new(0, RING, 0, 1, NONCE);
	cr_assert_eq(rt_conn_new(&more.conn, more.ctx), 0);
	fv_on(FV_alloc_pd, interrupts);
	alarm(10);
	cr_assert_eq(prepare(&more, 77), 0);
	alarm(0);
	fv_on(FV_alloc_pd, NULL);
	cr_assert_eq(handled, 1);
	cr_assert_eq(error(&e[0]), -ECANCELED);
	interrupts();
	cr_assert_eq(handled, 2, "signals stay blocked");
	end_close(&more);
	pair_free(e);
}

Test(road, device_is_dropped, .timeout = 30)
{
	struct end e[2];
	uint64_t x[4];
	int fds[16];
	unsigned gen;

	pair_new(e);
	cr_assert_eq(put(&e[0], 8), 0);
	arrives(e, 1, 8);
	cr_assert_eq(rt_ctx_drop_device(e[1].ctx, "other"), 0);
	cr_assert_eq(error(&e[1]), 0);
	/* one is inside */
	cr_assert_eq(e[1].r.hold(e[1].r.conn, 1), 0);
	gen = rt_ctx_fds_gen(e[1].ctx);
	cr_assert_eq(rt_ctx_drop_device(e[1].ctx, real_device() ?: "fake0"), -EBUSY);
	cr_assert_eq(error(&e[1]), -ENETDOWN);
	e[1].r.release(e[1].r.conn);
	cr_assert_eq(rt_ctx_drop_device(e[1].ctx, real_device() ?: "fake0"), 0);
	cr_assert_eq(rt_ctx_fds(e[1].ctx, fds, 16), 1, "it is still open");
	cr_assert_neq(rt_ctx_fds_gen(e[1].ctx), gen);
	cr_assert_eq(head(&e[1]), 8, "what had arrived counts");
	cr_assert_eq(put(&e[1], 8), -ENETDOWN);
	cr_assert_eq(e[1].r.poll(e[1].r.conn), 0);
	e[1].r.stop(e[1].r.conn, 1);
	cr_assert_eq(rt_ctx_drain(e[1].ctx, x, 4) <= 1, true);
	cr_assert_eq(rt_ctx_arm(e[1].ctx), 0);
	pair_free(e);
}

/* what the parent's connection is in a child; 0, or bits that say what is wrong */
static int as_a_child(struct end e[2], const int *fds, int n)
{
	struct rt_mr *mr;
	char line[512];
	int bad = 0;
	FILE *f;

	rt_ctx_orphan(e[0].ctx);
	rt_ctx_orphan(e[1].ctx);
	for (int i = 0; i < n; i++)
		bad |= (fcntl(fds[i], F_GETFD) >= 0) * 2;
	bad |= (put(&e[0], 1) != -ECONNRESET) * 4;
	bad |= (e[0].r.poll(e[0].r.conn) != 0) * 8;
	bad |= (rt_mr_new(&mr, e[0].conn, line, sizeof(line), RT_ACCESS_LOCAL) != -ECONNRESET) * 8;
	bad |= (((uint8_t *)e[1].m)[e[1].m->off_rx0] != byte_at(0)) * 16;
	bad |= (head(&e[1]) < 8) * 16;
	f = fopen("/proc/self/maps", "r");
	while (f && fgets(line, sizeof(line), f))
		bad |= (strstr(line, "infiniband") != NULL) * 32;
	if (f)
		fclose(f);
	e[0].r.stop(e[0].r.conn, 1);
	for (int i = 0; i < 2; i++) {
		rt_conn_close(e[i].conn);
		rt_ctx_close(e[i].ctx);
	}
	return bad;
}

/* and it can have connections of its own */
static int on_its_own(void)
{
	struct end e[2];
	int bad;

	pair_new(e);
	bad = put(&e[0], 8) ? 64 : 0;
	arrives(e, 1, 8);
	bad |= (error(&e[0]) || error(&e[1])) * 128;
	for (int i = 0; i < 2; i++) {
		end_close(&e[i]);
		rt_ctx_close(e[i].ctx);
	}
	return bad;
}

Test(road, child_lets_go, .timeout = 60)
{
	struct end e[2];
	int status, fds[16], n;

	pair_new(e);
	cr_assert_eq(put(&e[0], 8), 0);
	arrives(e, 1, 8);
	n = (int)rt_ctx_fds(e[0].ctx, fds, 16);
	cr_assert_eq(n, 4);
	pid_t pid = fork();
	if (!pid) {
		alarm(20);
		_exit(as_a_child(e, fds, n) | on_its_own());
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "child: %#x", status);
	/* the parent's connection is as it was */
	cr_assert_eq(put(&e[0], 8), 0);
	arrives(e, 1, 16);
	pair_free(e);
}

/* RDMAV_FORK_SAFE is for private memory */
Test(road, child_reads_though_the_library_is_fork_safe, .timeout = 60)
{
	struct end e[2];
	int status, fds[16], n;
	uint64_t addr;
	uint32_t rkey;

	if (real_device())
		return;
	fv_fork_safe(true);
	pair_new(e);
	cr_assert_eq(e[1].r.ring1(e[1].r.conn, 0, RING1, &addr, &rkey), 0);
	cr_assert_eq(put(&e[0], 8), 0);
	arrives(e, 1, 8);
	n = (int)rt_ctx_fds(e[0].ctx, fds, 16);
	pid_t pid = fork();
	if (!pid) {
		alarm(20);
		status = ((volatile uint8_t *)e[1].m)[e[1].m->off_rx1] + ((volatile uint8_t *)e[0].m)[e[0].m->off_tx0] != byte_at(0);
		_exit(as_a_child(e, fds, n) | status);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "child: %#x", status);
	pair_free(e);
}

/* whatever lock another thread of the parent holds */
Test(road, child_of_many_threads_lets_go, .timeout = 60)
{
	struct end e[2];
	struct sleeper s[2];
	pthread_t t[2];
	int status, fds[16], n;

	if (real_device())
		return;		/* an emulated guest gets no further while somebody looks all the time */
	pair_new(e);
	cr_assert_eq(put(&e[0], 8), 0);
	arrives(e, 1, 8);
	n = (int)rt_ctx_fds(e[0].ctx, fds, 16);
	for (int i = 0; i < 2; i++) {
		s[i] = (struct sleeper){ .e = &e[i] };
		cr_assert_eq(pthread_create(&t[i], NULL, looks, &s[i]), 0);
	}
	for (unsigned i = 0; i < 20; i++) {
		/* on each second occasion inside a hold, which the child never leaves */
		if (i & 1)
			UNTIL(!e[0].r.hold(e[0].r.conn, 2));
		pid_t pid = fork();
		if (!pid) {
			alarm(20);
			_exit(as_a_child(e, fds, n));
		}
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert_eq(status, 0, "child %u: %#x", i, status);
		if (i & 1)
			e[0].r.release(e[0].r.conn);
		int r;
		UNTIL((r = put(&e[0], 8)) != 1);
		cr_assert_eq(r, 0);
		UNTIL(head(&e[1]) == e[0].posted);
	}
	for (int i = 0; i < 2; i++) {
		atomic_store(&s[i].stop, true);
		pthread_join(t[i], NULL);
	}
	pair_free(e);
}

/* A6: a write of an old session bounces, whatever is there now */
Test(road, stale_write_bounces, .timeout = 30)
{
	struct end e[2];
	uint64_t addr[2], w = 1;
	uint32_t qpn[2], rkey[2], psn[2];

	if (real_device())
		return;
	pair_new(e);
	for (int i = 0; i < 2; i++) {
		memcpy(&qpn[i], e[1].local + 4, 4);
		memcpy(&psn[i], e[1].local + 8, 4);
		memcpy(&rkey[i], e[1].local + 36, 4);
		memcpy(&addr[i], e[1].local + 40, 8);
		if (!i) {
			cr_assert(fv_stale_write(qpn[0], addr[0], rkey[0], &w, 8));
			for (int k = 0; k < 2; k++) {
				e[k].r.stop(e[k].r.conn, 0);
				end_close(&e[k]);
			}
			cr_assert_not(fv_stale_write(qpn[0], addr[0], rkey[0], &w, 8));
			pair_in(e, 1, NONCE + 1);
		}
	}
	cr_assert_neq(qpn[0], qpn[1]);
	cr_assert_neq(rkey[0], rkey[1]);
	cr_assert_neq(psn[0], psn[1]);
	cr_assert_not(fv_stale_write(qpn[1], addr[0], rkey[0], &w, 8), "the old key opens the new session");
	pair_free(e);
}

/* A8 */
Test(road, a_domain_for_each_peer, .timeout = 30)
{
	struct end e[3][2];
	struct rt_ctx *a = ctx_new(), *b = ctx_new();
	uint64_t addr, w = 1;
	uint32_t qpn[3], rkey;

	if (real_device()) {
		rt_ctx_close(a);
		rt_ctx_close(b);
		return;
	}
	for (unsigned i = 0; i < 3; i++) {
		e[i][0].ctx = a;
		e[i][1].ctx = b;
		pair_in(e[i], i == 2 ? 20 : 10, NONCE + i);	/* the third is somebody else's */
		memcpy(&qpn[i], e[i][1].local + 4, 4);
	}
	cr_assert_eq(fv_live_domains(), 4);
	memcpy(&rkey, e[0][1].local + 36, 4);
	memcpy(&addr, e[0][1].local + 40, 8);
	cr_assert(fv_write_by(qpn[0], addr, rkey, &w, 8));
	cr_assert_not(fv_write_by(qpn[2], addr, rkey, &w, 8), "a key opens another peer's connection");
	/* every connection has a region of its own */
	for (unsigned i = 0; i < 3; i++)
		for (unsigned k = 0; k < i; k++)
			cr_assert_neq(memcmp(e[i][1].local + 36, e[k][1].local + 36, 4), 0);
	for (unsigned i = 0; i < 3; i++)
		for (int k = 0; k < 2; k++)
			end_close(&e[i][k]);
	rt_ctx_close(a);
	rt_ctx_close(b);
	cr_assert_eq(fv_live(), 0);
}

Test(road, what_the_peer_says_is_checked, .timeout = 60)
{
	struct end e[2] = {};

	e[0].ctx = ctx_new();
	e[1].ctx = ctx_new();
	for (uint32_t i = 0; i < 2; i++) {
		e[i].len = sizeof(e[i].local);
		e[i].m = fake_remote_new(i, RING, 0, 1, NONCE);
		cr_assert_eq(rt_conn_new(&e[i].conn, e[i].ctx), 0);
		cr_assert_eq(prepare(&e[i], 1), 0);
		cr_assert_eq(prepare(&e[i], 1), -EISCONN);
		cr_assert_eq(rt_conn_local(e[i].conn, e[i].local, &e[i].len), 0);
	}
	for (unsigned i = 0; i < e[1].len; i++) {
		e[1].local[i] ^= 0x40;
		cr_assert_eq(connect_to(&e[0], &e[1]), -EPROTO, "byte %u is not looked at", i);
		e[1].local[i] ^= 0x40;
	}
	e[1].len--;
	cr_assert_eq(connect_to(&e[0], &e[1]), -EINVAL);
	e[1].len++;
	cr_assert_eq(connect_to(&e[0], &e[1]), 0);
	pair_free(e);
}

Test(road, memory_is_checked, .timeout = 30)
{
	static const struct { size_t at; uint32_t value; } wrong[] = {
		{ offsetof(struct wsd_remote, magic), 1 }, { offsetof(struct wsd_remote, version), 9 }, { offsetof(struct wsd_remote, side), 2 },
		{ offsetof(struct wsd_remote, ring0), 4096 }, { offsetof(struct wsd_remote, ring0), 12288 },
		{ offsetof(struct wsd_remote, off_ctl), 0 }, { offsetof(struct wsd_remote, off_rx0), 4096 },
		{ offsetof(struct wsd_remote, off_tx0), 0xfffff000 }, { offsetof(struct wsd_remote, length), 4096 },
	};
	struct end e = { .ctx = ctx_new() };

	e.m = fake_remote_new(0, RING, 0, 1, NONCE);
	cr_assert_eq(rt_conn_new(&e.conn, e.ctx), 0);
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		uint32_t *w = (uint32_t *)((char *)e.m + wrong[i].at), was = *w;
		struct rt_path path = fv_path(0);
		struct rt_prepare p = { .size = sizeof(p), .path = &path, .memory = e.m, .length = wsd_remote_length(RING, 0, 0) };

		*w = wrong[i].value;
		cr_assert_eq(rt_conn_prepare(e.conn, &p), -EINVAL, "word %u", i);
		*w = was;
	}
	e.conn = rt_conn_close(e.conn);
	fake_remote_free(e.m);
	rt_ctx_close(e.ctx);
	cr_assert_eq(fv_live(), 0);
}

Test(road, grows, .timeout = 30)
{
	struct end e[2];
	uint64_t addr = 0, n;
	uint32_t rkey = 0;

	pair_new(e);
	cr_assert_eq(put(&e[0], 100), 0);
	arrives(e, 1, 100);
	cr_assert_eq(e[0].r.peer_ring1(e[0].r.conn, 4096, 1, RING1), -EPROTO, "we have none");
	cr_assert_eq(e[1].r.ring1(e[1].r.conn, 0, 2 * RING1, &addr, &rkey), -EINVAL);
	cr_assert_eq(e[1].r.ring1(e[1].r.conn, 0, RING1, &addr, &rkey), 0);
	cr_assert_eq(addr, (uintptr_t)e[1].m + e[1].m->off_rx1);
	cr_assert_eq(e[1].r.ring1(e[1].r.conn, 0, RING1, &addr, &rkey), -EINVAL, "once");
	cr_assert_eq(e[0].r.ring1(e[0].r.conn, 1, RING1, NULL, NULL), 0);
	cr_assert_eq(e[0].r.ring1(e[0].r.conn, 1, RING1, NULL, NULL), -EINVAL, "once");
	cr_assert_eq(e[0].r.peer_ring1(e[0].r.conn, addr, rkey, RING1 / 2), -EPROTO);
	cr_assert_eq(e[0].r.peer_ring1(e[0].r.conn, addr, rkey, RING1), 0);
	uint8_t *tx = (uint8_t *)e[0].m + e[0].m->off_tx1, *rx = (uint8_t *)e[1].m + e[1].m->off_rx1;
	for (n = 100; n < 100 + RING1; n++)
		tx[n % RING1] = byte_at(n);
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 2), 0);
	cr_assert_eq(e[0].r.put(e[0].r.conn, 1, 100, RING1), 0);
	e[0].r.release(e[0].r.conn);
	arrives(e, 1, 100 + RING1);
	for (n = 100; n < 100 + RING1; n++)
		cr_assert_eq(rx[n % RING1], byte_at(n));
	pair_free(e);
}

static unsigned count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* the kernel's table of descriptors, which every fork copies, grows with the highest number */
Test(road, descriptors_are_high_but_not_too_high, .timeout = 30)
{
	struct rlimit l;
	struct end e[2];
	int fds[16], n;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &l), 0);
	l.rlim_cur = l.rlim_max;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &l), 0);
	pair_new(e);
	n = (int)rt_ctx_fds(e[0].ctx, fds, 16);
	cr_assert_eq(n, 4);
	for (int i = 0; i < n; i++)
		cr_assert(fds[i] < 8192 && fds[i] > (l.rlim_max < 8192 ? 64 : 4096), "descriptor %d", fds[i]);
	pair_free(e);
}

/* what the switch hides it does not let libibverbs close: with no number left to move to it is closed all the same */
Test(road, closes_without_a_number_left, .timeout = 30)
{
	struct rlimit l = { 256, 256 };
	unsigned before = count_fds();
	struct end e[2];
	int fds[256], n = 0;

	if (real_device())
		return;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &l), 0);
	pair_new(e);
	while ((fds[n] = dup(2)) >= 0)
		n++;
	fv_cover_from(100);
	for (int i = 0; i < 2; i++) {
		e[i].r.stop(e[i].r.conn, 0);
		end_close(&e[i]);
	}
	while (n)
		close(fds[--n]);
	for (int i = 0; i < 2; i++)
		rt_ctx_close(e[i].ctx);
	fv_cover_from(0);
	cr_assert_eq(fv_live(), 0);
	cr_assert_eq(count_fds(), before, "the device is still open");
}

/* struct ibv_ah_attr has a byte for it */
Test(road, a_gid_out_of_reach, .timeout = 30)
{
	struct end e = {};

	if (real_device())
		return;
	e.ctx = ctx_new();
	e.m = fake_remote_new(0, RING, 0, 1, NONCE);
	cr_assert_eq(rt_conn_new(&e.conn, e.ctx), 0);
	fv_gid_at(256);
	cr_assert_eq(prepare(&e, 1), -ENODEV);
	fv_gid_at(248);
	cr_assert_eq(prepare(&e, 1), 0);
	fv_gid_at(0);
	end_close(&e);
	rt_ctx_close(e.ctx);
	cr_assert_eq(fv_live(), 0);
}

/* every call of the library that acquires something fails once */
Test(road, each_refusal_of_the_device_is_undone, .timeout = 60)
{
	static const enum fv_fn fns[] = { FV_get_device_list, FV_open_device, FV_query_device, FV_query_port, FV_alloc_pd, FV_reg_mr,
					  FV_create_comp_channel, FV_create_cq, FV_create_qp, FV_modify_qp, FV_query_gid_table, FV_post_recv };
	unsigned before = count_fds();

	if (real_device())
		return;
	for (unsigned i = 0; i < sizeof(fns) / sizeof(fns[0]); i++)
		for (unsigned nth = 1;; nth++) {
			struct end e = { .ctx = ctx_new(), .len = sizeof(e.local) };
			unsigned calls = fv_calls(fns[i]);
			int r;

			e.m = fake_remote_new(0, RING, 0, 1, NONCE);
			cr_assert_eq(rt_conn_new(&e.conn, e.ctx), 0);
			fv_fail_nth(fns[i], nth, ENOMEM);
			r = prepare(&e, 1);
			if (!r) {
				cr_assert_eq(rt_conn_local(e.conn, e.local, &e.len), 0);
				r = connect_to(&e, &e);	/* it talks to itself */
			}
			calls = fv_calls(fns[i]) - calls;
			fv_fail_nth(fns[i], 0, 0);
			end_close(&e);
			rt_ctx_close(e.ctx);
			cr_assert_eq(fv_live(), 0, "function %u, call %u", fns[i], nth);
			cr_assert_eq(count_fds(), before, "function %u, call %u left a descriptor", fns[i], nth);
			if (calls < nth)
				break;
			cr_assert_lt(r, 0, "function %u, call %u failed and nobody saw it", fns[i], nth);
		}
}
