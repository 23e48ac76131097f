/* SPDX-License-Identifier: MIT */
/*
 * rules_agreed_batch.c - bytes that a flood keeps back (wsd_switch/core/agreed_batch.c), on the road of fake_road.h
 *
 * Random floods with nobody who calls for the sender afterwards are in rules_agreed.c (a3_floods); here is each rule by hand.
 */
#include <sys/ioctl.h>
#include <sys/select.h>

#include "tests/unit/switch/fake_ends.h"

#define LONG	20000		/* ms: not reached */
#define EVER	(~0ull >> 1)

TestSuite(batch, .timeout = 30);

static void obey(struct fake_end *e)
{
	struct thr *t = cs_enter();

	agreed_obey(t, e->c, e->fd, true);
	cs_leave(t);
}

/* one small send of a flood, right behind the last put */
static void say(const char *s)
{
	fake_flood(X, EVER);
	cr_assert_eq(send(a, s, strlen(s), 0), (ssize_t)strlen(s));
}

static uint64_t kept(void)
{
	return atomic_load(&X->rs->posted) - atomic_load(&X->r->given);
}

/* "0" is put, and says that what follows may be kept back */
static void batching(const struct fake_opt *o)
{
	make_ends(o);
	fake_grant(Y);
	fake_start(X);
	X->r->peer_reads = true;
	X->done_held = true;
	say("0");
	cr_assert(X->r->batch);
	cr_assert_eq(X->puts, 1);
	cr_assert_eq(X->signals, 1, "nobody would know when it is completed");
}

/* nobody but Y does anything from here on */
static void by_itself(void)
{
	fake_run = true;
	while (fake_step(X, 1) || fake_step(Y, 1))
		;
}

static void nothing_there(void)
{
	char c;

	expect_err(recv(b, &c, 1, MSG_DONTWAIT), EAGAIN);
}

/* who asks what has not arrived may be about to leave: it goes */
Test(batch, outq_sends_what_is_kept)
{
	int q = -1, i;

	batching(NULL);
	say("12");
	cr_assert_eq(kept(), 2);
	cr_assert_eq(ioctl(a, TIOCOUTQ, &q), 0);
	cr_assert_eq(kept(), 0);
	cr_assert_eq(q, 3);
	fake_done(X);
	for (i = 0; i < 3; i++)
		fake_all();
	cr_assert_eq(ioctl(a, TIOCOUTQ, &q), 0);
	cr_assert_eq(q, 0);
}

Test(batch, small_sends_go_together)
{
	batching(NULL);
	say("12");
	say("3");
	cr_assert_eq(X->puts, 1);
	cr_assert_eq(kept(), 3);
	fake_done(X);
	fake_all();
	fake_flood(X, 0);
	cr_assert_eq(send(a, "4", 1, 0), 1);
	cr_assert_eq(X->puts, 2);
	cr_assert_eq(kept(), 0);
	fake_all();
	expect_str(b, 100, "01234");
	cr_assert_eq(Y->pulls, 0);
}

/* a put was made a moment ago: it is as good as under way */
Test(batch, completed_at_once)
{
	batching(NULL);
	fake_done(X);
	fake_all();
	say("1");
	cr_assert_eq(X->puts, 1);
	fake_flood(X, 0);
	cr_assert_eq(send(a, "2", 1, 0), 1);
	cr_assert_eq(X->puts, 2);
}

Test(batch, a_quarter_of_the_ring_goes)
{
	char s[201] = "";

	batching(NULL);
	memset(s, 'x', 200);
	while (kept() + 200 < 1024)
		say(s);
	cr_assert_eq(X->puts, 1);
	say(s);
	cr_assert_eq(X->puts, 2);
	cr_assert_eq(kept(), 0);
}

Test(batch, who_waits_sends_first)
{
	char c;

	batching(NULL);
	say("1");
	expect_err(recv(a, &c, 1, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(kept(), 0);
	say("2");
	cr_assert_eq(kept(), 1);
	obey(X);
	cr_assert_eq(kept(), 0);
	fake_all();
	expect_str(b, 100, "012");
}

/* its flag stands in the credit; without it nobody would fetch them */
Test(batch, the_peer_must_ask)
{
	static const struct fake_opt no = { .no_reads = true };
	unsigned i, k;

	for (k = 0; k < 2; k++) {
		make_ends(k ? &no : NULL);
		fake_grant(Y);
		fake_start(X);
		fill_big();
		cr_assert_eq(send(a, big, 2000, 0), 2000);
		fake_all();
		expect_big(b, 2000);
		fake_all();
		obey(X);
		cr_assert_eq(X->r->peer_reads, !k);
		X->done_held = true;
		X->puts = 0;
		for (i = 0; i < 10; i++)
			say("x");
		cr_assert_eq(X->puts, k ? 10 : 1);
		close(a);
		close(b);
	}
}

Test(batch, over_after_a_while)
{
	unsigned i;

	batching(NULL);
	fake_done(X);
	for (i = 0; i < 100 && X->r->batch; i++) {
		fake_all();
		X->r->in_row = 0;
		X->r->put_pause = 0;
		cr_assert_eq(send(a, "1", 1, 0), 1);
		fake_all();
		cr_assert_eq(recv(b, back, 2, 0) > 0, 1);
	}
	cr_assert(!X->r->batch);
	fake_all();
	nothing_there();
	cr_assert_eq(Y->n_reads, 0, "asked though nothing can be kept back");
}

/* ---- who waits for them ---- */

Test(batch, asked_once_and_asleep)
{
	batching(NULL);
	fake_all();
	expect_str(b, 1, "0");
	nothing_there();
	cr_assert_eq(Y->n_reads, 1);
	fake_all();
	nothing_there();
	nothing_there();
	cr_assert_eq(Y->n_reads, 1, "asked again for the same head");
	cr_assert_eq(Y->pulls, 0);
	say("1");		/* the last put's completion is held, but the peer is asleep */
	cr_assert_eq(X->puts, 2);
	say("2");
	cr_assert_eq(X->puts, 2);
	fake_all();
	expect_str(b, 1, "1");
	nothing_there();
	cr_assert_eq(Y->n_reads, 2);
}

Test(batch, recv_fetches)
{
	batching(NULL);
	say("12");
	by_itself();
	cr_assert_eq(recv(b, back, 3, MSG_WAITALL), 3);
	cr_assert(!memcmp(back, "012", 3));
	cr_assert_eq(X->puts, 1);
	cr_assert_eq(Y->pulls, 1);
}

Test(batch, peek_fetches)
{
	batching(NULL);
	say("12");
	by_itself();
	cr_assert_eq(recv(b, back, 3, MSG_PEEK | MSG_WAITALL), 3);
	cr_assert(!memcmp(back, "012", 3));
	expect_str(b, 3, "012");
}

Test(batch, poll_and_select_fetch)
{
	struct pollfd p = { .fd = b, .events = POLLIN };
	struct timeval tv = { LONG / 1000, 0 };
	fd_set r;

	batching(NULL);
	p.fd = b;
	say("1");
	by_itself();
	expect_str(b, 1, "0");
	cr_assert_eq(poll(&p, 1, LONG), 1);
	expect_str(b, 100, "1");
	fake_run = false;
	fake_done(X);
	fake_all();
	X->done_held = true;
	fake_flood(X, 0);
	cr_assert_eq(send(a, "2", 1, 0), 1);
	say("3");
	by_itself();
	expect_str(b, 1, "2");
	FD_ZERO(&r);
	FD_SET(b, &r);
	cr_assert_eq(select(b + 1, &r, NULL, NULL, &tv), 1);
	expect_str(b, 100, "3");
	cr_assert_eq(Y->pulls, 2);
}

/* edge-triggered: new bytes are an edge, also where the program has not read the old ones, or read them without EAGAIN */
Test(batch, sets_fetch)
{
	static const uint32_t how[] = { EPOLLIN, EPOLLIN | EPOLLET, EPOLLIN | EPOLLET };
	struct epoll_event ev = { 0 };
	unsigned k;
	int ep;

	for (k = 0; k < 3; k++) {
		fake_run = false;
		batching(NULL);
		ep = epoll_create1(0);
		ev.events = how[k];
		cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev), 0);
		say("1");
		by_itself();
		cr_assert_eq(epoll_wait(ep, &ev, 1, LONG), 1);
		if (Y->pulls) {		/* told together */
			expect_str(b, 100, "01");
		} else {
			if (k < 2)
				expect_str(b, 1, "0");
			cr_assert_eq(epoll_wait(ep, &ev, 1, LONG), 1, "way %u", k);
			expect_str(b, 100, k < 2 ? "1" : "01");
		}
		cr_assert_eq(Y->pulls, 1);
		close(ep);
		close(a);
		close(b);
	}
}

Test(batch, fionread_fetches)
{
	int q = 0;

	batching(NULL);
	say("12");
	by_itself();
	while (q < 3)
		cr_assert_eq(ioctl(b, FIONREAD, &q), 0);
	cr_assert_eq(Y->pulls, 1);
}

Test(batch, no_slot_to_ask)
{
	struct pollfd p = { .events = POLLIN };

	batching(NULL);
	say("1");
	by_itself();
	expect_str(b, 1, "0");
	Y->no_slot = 2;
	p.fd = b;
	cr_assert_eq(poll(&p, 1, LONG), 1);
	expect_str(b, 1, "1");
}

/* ---- what is fetched, and when ---- */

/* F17: what is under way may have a seam before it */
Test(batch, not_before_what_is_under_way)
{
	batching(NULL);
	say("12");
	fake_step(X, 2);		/* the word, the seam */
	nothing_there();
	fake_step(Y, 100);
	fake_poll(Y);
	nothing_there();
	cr_assert_eq(Y->n_reads, 1);
	cr_assert_eq(Y->pulls, 0);
	by_itself();
	cr_assert_eq(recv(b, back, 3, MSG_WAITALL), 3);
	cr_assert(!memcmp(back, "012", 3));
}

/* the ring's end parts them, and the second half is behind what was given, too */
Test(batch, over_the_end_of_the_ring)
{
	unsigned i;

	make_ends(NULL);
	fake_grant(Y);
	fake_start(X);
	fill_big();
	for (i = 0; i < 4; i++) {
		cr_assert_eq(send(a, big, 1023, 0), 1023);
		fake_all();
		expect_big(b, 1023);
		fake_all();
	}
	X->r->peer_reads = X->done_held = true;
	say("0");
	say("123456789");
	cr_assert_eq(kept(), 9);
	by_itself();
	cr_assert_eq(recv(b, back, 10, MSG_WAITALL), 10);
	cr_assert(!memcmp(back, "0123456789", 10));
	cr_assert_eq(Y->pulls, 2);
}

/* a pull's answer may be late: until then X may not use its place again (C) */
Test(batch, no_credit_beyond_a_pull)
{
	char s[101] = "";
	unsigned i;

	batching(NULL);
	say("12");
	fake_all();
	expect_str(b, 1, "0");
	nothing_there();
	fake_all();
	Y->reads_held = true;
	nothing_there();
	cr_assert_eq(Y->pulls, 1);
	fake_step(Y, 100);		/* read from X's memory, not here so far */
	fake_done(X);
	memset(s, 'x', 100);
	for (i = 0; i < 100; i++) {
		fake_flood(X, 0);
		cr_assert_eq(send(a, s, 100, 0), 100);
		fake_step(X, 100);
		fake_poll(X);
		fake_poll(Y);
		cr_assert_gt(recv(b, back, 4096, 0), 0);
		fake_step(Y, 100);
		cr_assert_leq(atomic_load(&X->rs->cursor), 1, "credit for %llu", (unsigned long long)atomic_load(&X->rs->cursor));
	}
	cr_assert_leq(atomic_load(&X->rs->posted), 4097);
	Y->reads_held = false;
	fake_land(Y);
	fake_all();
	nothing_there();
	for (i = 0; i < 100 && atomic_load(&X->rs->cursor) <= 1; i++) {
		struct pollfd p = { .fd = b, .events = POLLIN };

		poll(&p, 1, 0);
		fake_all();
		obey(X);
	}
	cr_assert_gt(atomic_load(&X->rs->cursor), 1);
}

/* ... but only a pull's */
Test(batch, a_question_holds_no_credit)
{
	char s[301] = "";
	unsigned i;

	batching(NULL);
	fake_all();
	expect_str(b, 1, "0");
	Y->reads_held = true;
	nothing_there();
	cr_assert_eq(Y->n_reads, 1);
	fake_done(X);
	memset(s, 'x', 300);
	for (i = 0; i < 5; i++) {
		fake_poll(X);
		fake_flood(X, 0);
		cr_assert_eq(send(a, s, 300, 0), 300);
		fake_step(X, 100);
		fake_poll(Y);
		cr_assert_eq(recv(b, back, 300, 0), 300);
	}
	fake_step(Y, 100);
	obey(X);
	cr_assert_geq(atomic_load(&X->rs->cursor), 1024);
	Y->reads_held = false;
	fake_land(Y);
}

static void answer(uint64_t given, uint64_t posted, uint32_t ring, uint64_t tear)
{
	uint64_t *w = (uint64_t *)(void *)&Y->ctl->in;

	w[0] = given;
	w[1] = posted;
	w[2] = (uintptr_t)X->r->tx[0];
	w[3] = 21ull << 32 | ring;
	w[4] = wsd_remote_check(Y->rs->nonce, WSD_CTL_OUT, w, 4) ^ tear;
}

/* read while X was writing it: X will see that we are asleep. It may be stopped there, and is not asked for ever */
Test(batch, torn)
{
	unsigned i;

	batching(NULL);
	fake_all();
	expect_str(b, 1, "0");
	nothing_there();
	fake_all();
	answer(1, 3, 0, 8);
	for (i = 0; i < 10; i++) {
		nothing_there();
		fake_all();
	}
	cr_assert_eq(Y->pulls, 0);
	cr_assert_eq(Y->n_reads, 1);
	say("12");
	cr_assert_eq(X->puts, 2);
	fake_all();
	expect_str(b, 2, "12");
}

/* the daemon has brought them meanwhile (its sweep), and the program has them: they are not fetched over what comes next */
Test(batch, not_what_was_filled)
{
	batching(NULL);
	say("12");
	fake_all();
	fake_fill(X, 0, 3);
	expect_str(b, 3, "012");
	by_itself();
	nothing_there();
	cr_assert_eq(Y->pulls, 0);
	say("34");
	cr_assert_eq(recv(b, back, 2, MSG_WAITALL), 2);
	cr_assert(!memcmp(back, "34", 2));
}

/* a child cannot put them: who lets go of the socket does it */
Test(batch, let_go)
{
	struct thr *t;

	batching(NULL);
	say("12");
	t = cs_enter();
	batch_last(t, ca);
	cs_leave(t);
	cr_assert_eq(kept(), 0);
}

/* another thread's flood stays its own */
Test(batch, of_another_thread)
{
	char c;

	batching(NULL);
	say("1");
	X->r->sender++;
	expect_err(recv(a, &c, 1, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(kept(), 1);
	X->r->sender--;
	expect_err(recv(a, &c, 1, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(kept(), 0);
}

/* who looks once and then does something else for long */
Test(batch, one_look_is_enough)
{
	struct pollfd p = { .events = POLLIN };

	batching(NULL);
	say("1");
	by_itself();
	expect_str(b, 1, "0");
	p.fd = b;
	cr_assert_eq(poll(&p, 1, 0), 1);
	expect_str(b, 1, "1");
	cr_assert_eq(recv(a, back, 1, MSG_DONTWAIT), -1);
}

/* a path that answers nothing: only who asks waits for it */
Test(batch, unanswered)
{
	unsigned i, before;

	batching(NULL);
	fake_all();
	expect_str(b, 1, "0");
	Y->reads_held = true;
	nothing_there();
	cr_assert_eq(Y->n_reads, 1);
	before = Y->polls;
	for (i = 0; i < 10; i++)
		nothing_there();
	cr_assert_leq(Y->polls - before, 40, "%u looks at the device", Y->polls - before);
	fake_land(Y);
}

/* what another host says is bounded: not over what is unread, no ring that is not there, not backwards */
Test(batch, hostile_answers)
{
	static const struct { uint64_t given, posted; uint32_t ring; } bad[] = {
		{ 1, 4098, 0 }, { 1, ~0ull, 0 }, { 0, 1ull << 63, 0 }, { 1, 0, 0 }, { 1, 1, 0 }, { 2, 3, 0 }, { ~0ull, 3, 0 }, { 1, 3, 1 }, { 1, 3, 7 },
		{ 1, 3, ~0u },
	};
	unsigned i;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		fake_run = false;
		batching(NULL);
		fake_all();
		expect_str(b, 1, "0");
		nothing_there();
		fake_all();
		answer(bad[i].given, bad[i].posted, bad[i].ring, 0);
		nothing_there();
		cr_assert_eq(Y->pulls, 0, "answer %u", i);
		cr_assert_eq(Y->n_reads, 1);
		close(a);
		close(b);
	}
}

/* ---- beside frames, returns and ends ---- */

Test(batch, a_frame_comes_behind)
{
	unsigned k;

	for (k = 1; k < 3; k++) {	/* hold() fails: of the put; and of what goes before the frame */
		fake_run = false;
		batching(NULL);
		say("12");
		X->no_slot = k;
		say("frame");
		cr_assert_eq(kept(), k == 1 ? 0 : 2);
		by_itself();
		cr_assert_eq(recv(b, back, 8, MSG_WAITALL), 8);
		cr_assert(!memcmp(back, "012frame", 8));
		cr_assert_eq(Y->pulls, k - 1);
		close(a);
		close(b);
	}
}

/* what has a seam is never kept back, nor is what comes before it then */
Test(batch, seams_go_at_once)
{
	batching(NULL);
	say("1");
	X->no_slot = 2;
	say("frame");
	say("2");
	cr_assert_eq(kept(), 0);
	say("3");
	cr_assert_eq(kept(), 1);
	by_itself();
	cr_assert_eq(recv(b, back, 9, MSG_WAITALL), 9);
	cr_assert(!memcmp(back, "01frame23", 9));
}

Test(batch, returned_with_the_rest)
{
	batching(NULL);
	say("12");
	fake_all();
	agreed_leave(ca, WSD_R_OPTION);
	obey(X);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
	cr_assert_eq(send(a, "plain", 5, 0), 5);
	cr_assert_eq(recv(b, back, 8, MSG_WAITALL), 8);
	cr_assert(!memcmp(back, "012plain", 8));
}

Test(batch, ended_with_the_rest)
{
	unsigned k;

	for (k = 0; k < 2; k++) {	/* 1: there is no slot, and X will not call again: the daemons bring them */
		fake_run = false;
		batching(NULL);
		say("12");
		X->no_slot = k;
		cr_assert_eq(shutdown(a, SHUT_WR), 0);
		cr_assert_eq(kept(), k ? 2 : 0);
		fake_all();
		cr_assert_eq(X->asked[WSD_SAN_FILL], k);
		cr_assert_eq(recv(b, back, 4, MSG_WAITALL), 3);
		cr_assert(!memcmp(back, "012", 3));
		cr_assert_eq(recv(b, back, 4, 0), 0);
		close(a);
		close(b);
	}
}

/* the ring that Y reads now is not the one into which the next bytes come */
Test(batch, fetched_into_the_new_ring)
{
	static const struct fake_opt o = { .ring1_max = 16384 };
	uint64_t w[3];
	unsigned i;

	make_ends(&o);
	fake_grant(Y);
	fake_start(X);
	fill_big();
	for (i = 0; i < 40 && !atomic_load(&X->rs->tx1_size); i++) {	/* until it has grown */
		unsigned k;

		for (k = 0; k < 10 && !atomic_load(&X->rs->tx1_size); k++)
			cr_assert_eq(send(a, big, 500, 0), 500);
		fake_all();
		while (recv(b, back, 4096, MSG_DONTWAIT) > 0)
			;
		fake_all();
	}
	cr_assert(atomic_load(&X->rs->tx1_size));
	w[0] = atomic_load(&X->rs->ring1_from);
	X->r->peer_reads = X->done_held = true;
	X->puts = 0;
	cr_assert_eq(send(a, "old", 3, 0), 3);	/* with the seam of ring 1, if it is the first there */
	say("a");
	say("bc");
	cr_assert_eq(kept(), 2);
	cr_assert_geq(atomic_load(&X->r->given), w[0]);
	fake_all();
	/* nothing is read: the seam is not passed */
	{
		struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
		int ep = epoll_create1(0);

		by_itself();
		cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev), 0);
		cr_assert_eq(epoll_wait(ep, &ev, 1, LONG), 1);
		while (!Y->pulls)
			cr_assert_eq(epoll_wait(ep, &ev, 1, LONG), 1);
		close(ep);
	}
	cr_assert_eq(recv(b, back, 6, MSG_WAITALL), 6);
	cr_assert(!memcmp(back, "oldabc", 6));
}
