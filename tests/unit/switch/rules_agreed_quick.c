/* SPDX-License-Identifier: MIT */
/*
 * rules_agreed_quick.c - the usual case (wsd_switch/core/agreed_quick.c), and each thing that makes it another one
 *
 * The other rule tests go through it as well, wherever they do nothing but send and receive; with WSD_TEST_LONG_WAY=1 none does
 * (the tests "...-long").
 */
#include "tests/unit/switch/fake_ends.h"

TestSuite(quick, .timeout = 30);

#define N	24u

/* both directions framed, a message each way behind them */
static void calm(const struct fake_opt *o)
{
	make_ends(o);
	agreed_quick(true);
	fake_run = true;
	fake_grant(Y);
	fake_start(X);
	fake_grant(X);
	fake_start(Y);
	fill_big();
	cr_assert_eq(send(a, big, N, 0), (ssize_t)N);
	cr_assert_eq(recv(b, back, N, 0), (ssize_t)N);
	cr_assert_eq(send(b, big, N, 0), (ssize_t)N);
	cr_assert_eq(recv(a, back, N, 0), (ssize_t)N);
}

static ssize_t quick_send(size_t n, int flags)
{
	struct thr *t = cs_enter();
	ssize_t k;

	X->r->polled = tsc_now();
	k = agreed_send_quick(t, ca, big, n, flags);
	cs_leave(t);
	return k;
}

static ssize_t quick_recv(size_t n, int flags)
{
	struct thr *t = cs_enter();
	ssize_t k;

	k = agreed_recv_quick(t, cb, back, n, flags);
	cs_leave(t);
	return k;
}

static struct {
	uint8_t page[WSD_REMOTE_PAGE];
	uint64_t h, c;
} was;

static void remember(struct fake_end *e)
{
	memcpy(was.page, e->rs, sizeof(was.page));
	was.h = e->c->s->H;
	was.c = e->c->s->C;
}

/* to memcmp a page that others may write is for one thread */
static bool same(struct fake_end *e)
{
	return !memcmp(was.page, e->rs, sizeof(was.page)) && was.h == e->c->s->H && was.c == e->c->s->C;
}

/* what the long way sees to now and then */
static void fresh(void)
{
	uint32_t flags;

	fake_poll(X);
	road_credit(X->r, &flags);
}

#define SEND(word, value) do { \
		fresh(); \
		__typeof__(word) _old = (word); \
		unsigned _puts = X->puts; \
		(word) = (value); \
		remember(X); \
		cr_expect_eq(quick_send(N, 0), 0, "%s: %s", #word, #value); \
		cr_expect(same(X) && X->puts == _puts, "%s: %s", #word, #value); \
		(word) = _old; \
		cr_assert_eq(quick_send(N, 0), (ssize_t)N, "behind %s: %s", #word, #value); \
		cr_assert_eq(recv(b, back, N, 0), (ssize_t)N); \
	} while (0)

Test(quick, send_has_nothing_else_due)
{
	struct wsd_seam *last;
	uint64_t posted;

	calm(NULL);
	SEND(X->rs->leave, 1);
	SEND(X->r->leave, WSD_R_EXEC);
	SEND(X->r->ask_due, 1u << WSD_SAN_FILL);
	SEND(X->rs->peer_left, 1);
	SEND(X->rs->revoked, WSD_R_RDMA_FAILED);
	SEND(X->rs->x_return, 1);
	SEND(X->st.error, -ECONNRESET);
	SEND(ca->s->kept_err, ECONNRESET);
	SEND(ca->s->flags, ca->s->flags | S_SHUT_WR);
	SEND(X->rs->xstate, WSD_X_STARTING);
	SEND(X->rs->xstate, WSD_X_RETURNING);
	SEND(X->r->owner, 1);
	SEND(X->ctl->credit.check, X->ctl->credit.check ^ 8);
	SEND(X->r->credit_seen, X->r->credit_seen | WSD_CREDIT_RETURN);
	SEND(X->r->batch, true);
	SEND(X->r->given, X->r->given - 1);
	SEND(X->r->nagled, true);
	SEND(X->r->last_tcp, tsc_now() - (uint64_t)US(ROAD_QUIET_US) - (1u << 30));
	SEND(ca->s->tx_lock, 1);
	SEND(X->no_slot, 1);
	/* a frame of which the kernel has four bytes */
	X->rs->frame_len = 10;
	SEND(X->rs->frame_H, ca->s->H - 4);
	SEND(X->rs->frame_H, ca->s->H - WSD_FRAME_SIZE - 9);
	/* seams */
	last = &X->rs->seam[X->rs->seam_n % WSD_REMOTE_SEAMS];
	SEND(last->tcp_off, last->tcp_off - 1);
	SEND(last->ring, 1);
	SEND(X->rs->seam_n, 0);
	/* room: what the peer has not read, what our card has not */
	while (X->rs->posted <= X->r->ring0) {
		X->r->in_row = 0;
		cr_assert_eq(send(a, big, N, 0), (ssize_t)N);
		cr_assert_eq(recv(b, back, N, MSG_WAITALL), (ssize_t)N);
	}
	posted = X->rs->posted;
	X->rs->cursor = posted;
	SEND(X->rs->cursor, posted - X->r->ring0);
	posted = X->rs->posted;
	X->rs->cursor = posted;
	SEND(X->st.done, posted - X->r->ring0);
	/* who floods has his rate looked at */
	X->r->sent_when = tsc_now() + (1u << 30);
	SEND(X->r->in_row, ROAD_FLOOD);
}

Test(quick, send_of_another_kind)
{
	struct thr *t;
	int (*put_one)(void *, uint32_t, uint64_t, uint32_t, _Atomic uint64_t *);

	calm(NULL);
	put_one = X->r->p.put_one;
	X->r->p.put_one = NULL;
	cr_expect_eq(quick_send(N, 0), 0, "an older provider");
	X->r->p.put_one = put_one;
	cr_expect_eq(quick_send(N, MSG_OOB), 0);
	cr_expect_eq(quick_send(N, MSG_ZEROCOPY), 0);
	cr_expect_eq(quick_send(0, 0), 0);
	cr_expect_eq(quick_send(X->r->ring0 / 2 + 1, 0), 0, "a put is at most half a ring");
	t = cs_enter();
	X->r->polled = tsc_now() - (uint64_t)US(ROAD_POLL_US) - (1u << 20);
	cr_expect_eq(agreed_send_quick(t, ca, big, 4, 0), 0, "completions were not taken for long");
	X->r->polled = tsc_now();
	cr_expect_eq(agreed_send_quick(t, ca, NULL, 4, 0), 0, "EFAULT is the long way's");
	cs_leave(t);
	cr_assert_eq(quick_send(N, MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE), (ssize_t)N);
	cr_assert_eq(recv(b, back, N, 0), (ssize_t)N);
}

#define RECV(word, value) do { \
		__typeof__(word) _old; \
		fresh(); \
		cr_assert_eq(quick_send(N, 0), (ssize_t)N); \
		fake_poll(Y); \
		_old = (word); \
		(word) = (value); \
		remember(Y); \
		cr_expect_eq(quick_recv(N, 0), 0, "%s: %s", #word, #value); \
		cr_expect(same(Y), "%s: %s", #word, #value); \
		(word) = _old; \
		cr_assert_eq(quick_recv(N, 0), (ssize_t)N, "behind %s: %s", #word, #value); \
		cr_assert_eq(memcmp(back, big, N), 0); \
	} while (0)

Test(quick, recv_has_nothing_else_due)
{
	struct wsd_seam *slot;
	uint32_t next;

	calm(NULL);
	next = Y->rs->seam_next + 1;
	slot = &Y->ctl->seam[next % WSD_REMOTE_SEAMS];
	RECV(Y->rs->leave, 1);
	RECV(Y->rs->x_return, 1);
	RECV(Y->st.error, -ECONNRESET);
	RECV(cb->s->kept_err, ECONNRESET);
	RECV(Y->rs->xstate, WSD_X_PLAIN);
	RECV(Y->rs->ystate, WSD_Y_DROPPING);
	RECV(Y->rs->ystate, WSD_Y_GRANTED);
	RECV(Y->r->owner, 1);
	RECV(Y->r->given, Y->r->given - 1);	/* who reads gives what he kept back first */
	RECV(Y->rs->Y_S, cb->s->C + 1);
	RECV(Y->rs->f_end, cb->s->C + 1);
	cb->s->C++;
	RECV(Y->rs->in_C, cb->s->C - 1);	/* whose header was taken by one that died */
	cb->s->C--;
	RECV(Y->rs->part_C, cb->s->C);
	RECV(Y->rs->seam_next, 0);
	RECV(Y->rs->filled, 1);
	RECV(Y->r->by_frames, true);
	RECV(Y->ctl->want.size, 8192);
	RECV(slot->n, next);
	RECV(Y->rs->head, Y->rs->head + Y->r->ring0);
	RECV(cb->s->flags, cb->s->flags | S_LOWAT);
	RECV(cb->s->flags, cb->s->flags | S_LOWAT_CUT);
	RECV(cb->s->rx_lock, 1);
}

Test(quick, recv_of_another_kind)
{
	struct thr *t;

	calm(NULL);
	cr_assert_eq(quick_send(N, 0), (ssize_t)N);
	fake_poll(Y);
	cr_expect_eq(quick_recv(N, MSG_PEEK), 0);
	cr_expect_eq(quick_recv(N, MSG_TRUNC), 0);
	cr_expect_eq(quick_recv(N + 1, 0), 0, "the kernel may have more");
	cr_expect_eq(quick_recv(0, 0), 0);
	t = cs_enter();
	cr_expect_eq(agreed_recv_quick(t, cb, NULL, N, 0), 0, "EFAULT is the long way's");
	cs_leave(t);
	cr_assert_eq(quick_recv(N, MSG_WAITALL | MSG_DONTWAIT), (ssize_t)N);
	cr_expect_eq(quick_recv(N, 0), 0, "nothing is there");
}

static ssize_t soon(size_t n, int flags)
{
	struct thr *t = cs_enter();
	ssize_t k = agreed_recv_soon(t, cb, back, n, flags);

	cs_leave(t);
	return k;
}

/* it looks where only that may bring bytes and the caller may wait, and leaves all else, and longer waits, to the long way */
Test(quick, an_answer_that_comes_soon)
{
	int spin = cfg.spin_us;
	uint32_t polls;

	calm(NULL);
	cr_assert_eq(quick_send(N, 0), (ssize_t)N);
	cr_expect_eq(soon(N, MSG_DONTWAIT), 0, "no look");
	cr_expect_eq(soon(N, MSG_PEEK), 0);
	cb->s->nonblock = 1;
	cr_expect_eq(soon(N, 0), 0);
	cb->s->nonblock = 0;
	cfg.spin_us = 0;
	cr_expect_eq(soon(N, 0), 0, "told not to spin");
	cfg.spin_us = spin;
	Y->r->vain = ROAD_SPIN_VAIN;
	cr_expect_eq(soon(N, 0), 0, "it was in vain so far");
	Y->r->vain = 1;
	Y->r->by_frames = true;
	cr_expect_eq(soon(N, 0), 0, "they come by TCP");
	Y->r->by_frames = false;
	cr_expect_eq(atomic_load(&Y->rs->head), atomic_load(&Y->rs->taken), "nobody looked");
	cr_assert_eq(soon(N, 0), (ssize_t)N);
	cr_expect_eq(Y->r->vain, 0);
	cr_assert_eq(memcmp(back, big, N), 0);
	/* less than is wanted: at once, for the long way's answer */
	cr_assert_eq(quick_send(N, 0), (ssize_t)N);
	cr_expect_eq(soon(N + 1, 0), 0);
	cr_assert_eq(soon(N, 0), (ssize_t)N);
	/* nothing: it ends, after a few looks */
	polls = Y->polls;
	cr_assert_eq(soon(N, 0), 0);
	cr_expect_gt(Y->polls, polls + 1);
	/* something became due while it looked */
	cr_assert_eq(quick_send(N, 0), (ssize_t)N);
	Y->rs->leave = 1;
	cr_expect_eq(soon(N, 0), 0);
	Y->rs->leave = 0;
	cr_assert_eq(soon(N, 0), (ssize_t)N);
}

/* over the ring's end, up to its last byte, and with credit told in time: many small ones of any length */
Test(quick, bytes_are_the_same)
{
	unsigned seed = 7, quick[2] = {};
	uint64_t at = 0;

	calm(NULL);
	for (unsigned i = 0; i < 20000; i++) {
		size_t n = 1 + rand_r(&seed) % 200, off = at % 1000;

		memcpy(back, big + off, n);
		X->r->polled = tsc_now();
		X->r->in_row = 0;	/* it is no flood */
		quick[0]++;
		if (!({ struct thr *t = cs_enter(); ssize_t k = agreed_send_quick(t, ca, big + off, n, 0); cs_leave(t); k; })) {
			quick[1]++;
			cr_assert_eq(send(a, big + off, n, 0), (ssize_t)n);
		}
		memset(back, 0, n);
		fake_poll(Y);
		if (!quick_recv(n, 0))
			cr_assert_eq(recv(b, back, n, MSG_WAITALL), (ssize_t)n);
		cr_assert_eq(memcmp(back, big + off, n), 0, "message %u", i);
		at += n;
	}
	cr_assert_lt(quick[1], quick[0] / 4, "%u of %u went the long way", quick[1], quick[0]);
}
