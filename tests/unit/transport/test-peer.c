/* SPDX-License-Identifier: MIT */
/*
 * test-peer.c - what a peer, or a device, may say to the verbs backend, and the counts that keep its queues from overflowing
 *
 * On tests/fakes/fake_verbs.c alone, which aborts where a real device would be given more than it holds.
 */
#include "tests/unit/transport/road.h"

static uint32_t qpn_of(const struct end *e)
{
	uint32_t qpn;

	memcpy(&qpn, e->local + 4, 4);
	return qpn;
}

static struct end both_new(struct end e[2], struct rt_ctx *a, struct rt_ctx *b, uint64_t nonce)
{
	e[0].ctx = a;
	e[1].ctx = b;
	pair_in(e, 1, nonce);
	return e[0];
}

/* credit as the peer would tell it */
static void tell(struct end *e, uint64_t n, uint64_t wrong)
{
	uint64_t w[2] = { n };

	w[1] = wsd_remote_check(NONCE, WSD_CTL_BACKEND, w, 1) ^ wrong;
	memcpy((uint8_t *)ctl(e) + WSD_CTL_BACKEND, w, sizeof(w));
}

Test(peer, credit_is_bounded, .timeout = 30)
{
	struct end e[2];
	unsigned n = 0;

	pair_new(e);
	while (put(&e[0], 1) == 0)
		cr_assert_lt(++n, 100);
	tell(&e[0], 64 + 16, 1);
	cr_assert_eq(put(&e[0], 1), 1, "a torn word");
	tell(&e[0], 1ull << 32 | (64 + 16), 0);
	cr_assert_eq(put(&e[0], 1), 1, "more than 32 bits");
	tell(&e[0], 3, 0);
	cr_assert_eq(put(&e[0], 1), 1, "an old one");
	tell(&e[0], n + 65, 0);
	cr_assert_eq(put(&e[0], 1), -EPROTO, "more than its queue holds");
	cr_assert_eq(error(&e[0]), -EPROTO);
	pair_free(e);
	/* as much as it holds is believed */
	pair_new(e);
	for (n = 0; put(&e[0], 1) == 0; n++)
		;
	tell(&e[0], n + 64, 0);
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 1), 0);
	e[0].r.release(e[0].r.conn);
	cr_assert_eq(error(&e[0]), 0);
	pair_free(e);
}

Test(peer, a_message_is_none, .timeout = 30)
{
	struct end e[2];

	pair_new(e);
	fv_message_by(qpn_of(&e[0]));
	e[1].r.poll(e[1].r.conn);
	cr_assert_eq(error(&e[1]), -EPROTO);
	cr_assert_eq(head(&e[1]), 0);
	pair_free(e);
}

Test(peer, a_completion_of_what_was_not_posted, .timeout = 30)
{
	struct end e[2];
	uint64_t w = 1;
	static const uint32_t more[] = { 64, 1000, 0x8000 };

	for (unsigned i = 0; i < 3; i++) {
		pair_new(e);
		fv_lie_post(more[i]);
		cr_assert_eq(e[0].r.hold(e[0].r.conn, 2 | WSD_HOLD_WORDS), 0);
		cr_assert_eq(e[0].r.word(e[0].r.conn, WSD_CTL_SEAM(0), &w, 8), 0);
		cr_assert_eq(e[0].r.fetch(e[0].r.conn, WSD_CTL_SEAM(0)), 0);
		e[0].r.release(e[0].r.conn);
		e[0].r.poll(e[0].r.conn);
		cr_assert_eq(error(&e[0]), -EPROTO, "%u: error %d", more[i], error(&e[0]));
		cr_assert_eq(atomic_load(&e[0].r.state->fetched), 0);
		pair_free(e);
	}
}

/* a peer that is wrong, and knows the nonce: it is one of its ends */
Test(peer, every_word_of_its_blob_is_bounded, .timeout = 60)
{
	static const struct { unsigned at, len; uint64_t v; } wrong[] = {
		{ 0, 2, 2 }, { 2, 2, 60 }, { 4, 4, 0 }, { 4, 4, 1 }, { 4, 4, 0x1000000 }, { 8, 4, 0x1000000 }, { 12, 4, 0 }, { 12, 4, 4096 },
		{ 12, 4, 2 * RING }, { 34, 1, 0 }, { 34, 1, 6 }, { 35, 1, IBV_LINK_LAYER_INFINIBAND }, { 40, 8, 0 }, { 40, 8, 0x10008 },
		{ 40, 8, ~0xfffull }, { 40, 8, ~0xfffull - RING }, { 48, 4, 65 }, { 52, 4, 1 },
	};
	struct end e[2];
	uint8_t good[64];
	uint64_t w[8];

	e[0].ctx = ctx_new();
	e[1].ctx = ctx_new();
	for (uint32_t i = 0; i < 2; i++) {
		e[i].len = sizeof(e[i].local);
		e[i].m = fake_remote_new(i, RING, 0, 1, NONCE);
		cr_assert_eq(rt_conn_new(&e[i].conn, e[i].ctx), 0);
		cr_assert_eq(prepare(&e[i], 1), 0);
		cr_assert_eq(rt_conn_local(e[i].conn, e[i].local, &e[i].len), 0);
		cr_assert_eq(e[i].len, 64);
	}
	memcpy(good, e[1].local, 64);
	for (unsigned i = 0; i <= sizeof(wrong) / sizeof(wrong[0]) + 1; i++) {
		memcpy(e[1].local, good, 64);
		if (i < sizeof(wrong) / sizeof(wrong[0]))
			memcpy(e[1].local + wrong[i].at, &wrong[i].v, wrong[i].len);
		else if (i == sizeof(wrong) / sizeof(wrong[0]))
			memset(e[1].local + 16, 0, 16);
		else
			e[1].local[16] = 0xff;		/* a group's */
		memcpy(w, e[1].local, 64);
		w[7] = wsd_remote_check(NONCE, ~0u, w, 7);
		memcpy(e[1].local, w, 64);
		cr_assert_eq(connect_to(&e[0], &e[1]), -EPROTO, "word %u", i);
	}
	memcpy(e[1].local, good, 64);
	cr_assert_eq(connect_to(&e[0], &e[1]), 0);
	pair_free(e);
}

/* the smallest of both paths and both ports; a receiver that is never ready is not waited for */
Test(peer, path, .timeout = 30)
{
	struct end e[2];
	struct rt_path path = fv_path(0);
	struct rt_prepare p = { .size = sizeof(p), .path = &path, .identity = 1 };

	pair_new(e);
	cr_assert_eq(fv_mtu(qpn_of(&e[0])), IBV_MTU_1024, "the port's");
	pair_free(e);
	path.rnr_retry = 7;
	for (uint32_t i = 0; i < 2; i++) {
		e[i] = (struct end){ .ctx = ctx_new(), .len = sizeof(e[i].local) };
		e[i].m = fake_remote_new(i, RING, 0, 1, NONCE);
		p.memory = e[i].m;
		p.length = e[i].m->length;
		path.mtu = i ? IBV_MTU_512 : IBV_MTU_4096;
		cr_assert_eq(rt_conn_new(&e[i].conn, e[i].ctx), 0);
		cr_assert_eq(rt_conn_prepare(e[i].conn, &p), 0);
		cr_assert_eq(rt_conn_local(e[i].conn, e[i].local, &e[i].len), 0);
	}
	for (uint32_t i = 0; i < 2; i++) {
		cr_assert_eq(connect_to(&e[i], &e[!i]), 0);
		cr_assert_eq(fv_mtu(qpn_of(&e[i])), IBV_MTU_512, "end %u", i);
	}
	pair_free(e);
}

/* words, and credit with them, find room when puts find none */
Test(peer, slots_are_kept_for_words, .timeout = 30)
{
	struct end e[2];
	uint64_t w = 1;

	pair_new(e);
	fv_hold(true);
	while (!e[0].r.hold(e[0].r.conn, 1)) {
		cr_assert_eq(e[0].r.word(e[0].r.conn, WSD_CTL_SEAM(0), &w, 8), 0);
		e[0].r.release(e[0].r.conn);
	}
	cr_assert_eq(e[0].r.hold(e[0].r.conn, 2 | WSD_HOLD_WORDS), 0);
	e[0].r.release(e[0].r.conn);
	fv_hold(false);
	pair_free(e);
}

/* what became due while somebody posted goes out with his doorbell */
Test(peer, credit_goes_with_a_doorbell, .timeout = 30)
{
	struct end e[2];
	uint64_t w = 1;
	unsigned before;

	pair_new(e);
	cr_assert_eq(e[1].r.hold(e[1].r.conn, 2), 0);
	for (unsigned i = 0; i < 20; i++)
		cr_assert_eq(put(&e[0], 1), 0);
	e[1].r.poll(e[1].r.conn);
	cr_assert_eq(head(&e[1]), 20);
	cr_assert_eq(ctl(&e[0])->backend[0], 0, "beside who posts");
	cr_assert_eq(e[1].r.word(e[1].r.conn, WSD_CTL_SEAM(0), &w, 8), 0);
	before = fv_calls(FV_post_send);
	e[1].r.release(e[1].r.conn);
	cr_assert_eq(ctl(&e[0])->backend[0], 64 + 16);
	cr_assert_eq(fv_calls(FV_post_send), before + 1);
	pair_free(e);
}

/* an event is taken off by who drains, also long after arm() */
Test(peer, descriptor_does_not_stay_readable, .timeout = 30)
{
	struct end e[2];
	uint64_t x[4];

	pair_new(e);
	struct pollfd p = { rt_ctx_wait_fd(e[1].ctx), POLLIN, 0 };
	while (rt_ctx_drain(e[1].ctx, x, 4) || rt_ctx_arm(e[1].ctx))
		;
	for (unsigned i = 0; i < 3; i++)
		rt_ctx_drain(e[1].ctx, x, 4);
	cr_assert_eq(put(&e[0], 1), 0);
	cr_assert_eq(poll(&p, 1, 0), 1, "it was armed");
	cr_assert_eq(rt_ctx_drain(e[1].ctx, x, 4), 1);
	cr_assert_eq(poll(&p, 1, 0), 0);
	pair_free(e);
}

/* a slot's next connection is not told of the last one's completions */
Test(peer, late_completions_name_nobody, .timeout = 30)
{
	struct rt_ctx *a = ctx_new(), *b = ctx_new();
	struct end keep[2], e[2];

	both_new(keep, a, b, NONCE);
	both_new(e, a, b, NONCE + 1);
	cr_assert_eq(put(&e[0], 8), 0);
	for (int i = 0; i < 2; i++) {
		e[i].r.stop(e[i].r.conn, 0);
		end_close(&e[i]);
	}
	both_new(e, a, b, NONCE + 2);
	look(e);
	cr_assert_eq(head(&e[1]), 0);
	cr_assert_eq(error(&e[0]) ?: error(&e[1]), 0);
	for (int i = 0; i < 2; i++) {
		end_close(&keep[i]);
		end_close(&e[i]);
	}
	rt_ctx_close(a);
	rt_ctx_close(b);
	cr_assert_eq(fv_live(), 0);
}

/* room in a completion queue comes back when what is gone has left it, and not before */
Test(peer, completion_queues_never_overflow, .timeout = 60)
{
	struct rt_ctx *a = ctx_new(), *b = ctx_new();
	struct end keep[2], e[2];
	unsigned live = 0;
	uint64_t x;

	both_new(keep, a, b, NONCE);
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < (round ? 200u : 40u); i++) {
			both_new(e, a, b, NONCE + 1 + i);
			while (put(&e[0], 1) == 0)
				;
			for (int k = 0; k < 2; k++) {
				e[k].r.stop(e[k].r.conn, 0);
				end_close(&e[k]);
			}
			if (!round)
				continue;	/* nobody looks */
			rt_ctx_drain(a, &x, 1);
			rt_ctx_drain(b, &x, 1);
			if (!i)
				live = fv_live();
			cr_assert_eq(fv_live(), live, "queues grow: %u, then %u", live, fv_live());
		}
	for (int i = 0; i < 2; i++)
		end_close(&keep[i]);
	rt_ctx_close(a);
	rt_ctx_close(b);
	cr_assert_eq(fv_live(), 0);
}

/* the list of those that still send has an end */
Test(peer, lingering_is_bounded, .timeout = 60)
{
	struct rt_ctx *a = ctx_new(), *b = ctx_new();
	unsigned most = 0, n = 1030;
	struct end e[2];

	fv_hold(true);
	for (unsigned i = 0; i < n; i++) {
		both_new(e, a, b, NONCE);
		cr_assert_eq(put(&e[0], 1), 0);
		e[1].r.stop(e[1].r.conn, 0);
		end_close(&e[0]);
		end_close(&e[1]);
		if (i == 1023)
			most = fv_live();
	}
	cr_assert_leq(fv_live(), most + 4, "%u, then %u", most, fv_live());
	rt_ctx_close(a);
	rt_ctx_close(b);
	cr_assert_eq(fv_live(), 0);
}

Test(peer, what_had_arrived_before_the_device_went_counts, .timeout = 30)
{
	struct end e[2];
	uint64_t x[4];
	int fds[16];

	pair_new(e);
	cr_assert_eq(put(&e[0], 8), 0);
	cr_assert_eq(rt_ctx_drop_device(e[1].ctx, NULL), 0);
	cr_assert_eq(error(&e[1]), 0, "it is still there");
	cr_assert_eq(rt_ctx_drop_device(e[1].ctx, "fake0"), 0);
	cr_assert_eq(head(&e[1]), 8);
	cr_assert_eq(error(&e[1]), -ENETDOWN);
	/* one that said so itself */
	fv_event(IBV_EVENT_DEVICE_FATAL, 0);
	rt_ctx_arm(e[0].ctx);
	rt_ctx_drain(e[0].ctx, x, 4);
	cr_assert_eq(error(&e[0]), -ENETDOWN);
	cr_assert_eq(rt_ctx_drop_device(e[0].ctx, NULL), 0);
	cr_assert_eq(rt_ctx_fds(e[0].ctx, fds, 16), 1);
	pair_free(e);
}

Test(peer, another_port_fails, .timeout = 30)
{
	struct end e[2];
	uint64_t x[4];

	pair_new(e);
	for (uint32_t port = 2; port; port--) {
		fv_event(IBV_EVENT_PORT_ERR, port);
		for (int i = 0; i < 2; i++) {
			rt_ctx_arm(e[i].ctx);
			rt_ctx_drain(e[i].ctx, x, 4);
		}
		cr_assert_eq(error(&e[0]) ?: error(&e[1]), port == 1 ? -ECONNRESET : 0, "port %u", port);
	}
	pair_free(e);
}

/* a driver that lets go of its processes makes both descriptors readable for ever */
Test(peer, a_device_that_was_pulled_out, .timeout = 30)
{
	static const enum fv_fn fns[] = { FV_get_async_event, FV_get_cq_event };

	for (unsigned i = 0; i < 2; i++) {
		struct end e[2];
		uint64_t x[4];

		pair_new(e);
		struct pollfd p = { rt_ctx_wait_fd(e[1].ctx), POLLIN, 0 };
		while (rt_ctx_drain(e[1].ctx, x, 4) || rt_ctx_arm(e[1].ctx))
			;
		fv_fail_nth(fns[i], 1, EIO);
		if (i)
			cr_assert_eq(put(&e[0], 1), 0);
		else
			fv_event(IBV_EVENT_COMM_EST, qpn_of(&e[1]));
		cr_assert_eq(poll(&p, 1, 0), 1);
		rt_ctx_arm(e[1].ctx);
		rt_ctx_drain(e[1].ctx, x, 4);
		cr_assert_eq(error(&e[1]), -ENETDOWN, "%u: error %d", i, error(&e[1]));
		cr_assert_eq(poll(&p, 1, 0), 0, "%u: nobody sleeps any more", i);
		e[1].r.stop(e[1].r.conn, 1);
		rt_ctx_drain(e[0].ctx, x, 4);
		pair_free(e);
	}
}
