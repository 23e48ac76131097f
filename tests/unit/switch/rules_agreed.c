/* SPDX-License-Identifier: MIT */
/*
 * rules_agreed.c - the agreed cut-over on a road whose wire is stepped by hand (rules A2-A7, A9)
 *
 * Random interleavings of both roads in both directions, with returns, failures and ends at any point, against a reference stream (SEED=n: that one,
 * SEEDS=n: so many); then each rule alone, by hand.
 */
#include <linux/sockios.h>
#include <pthread.h>

#include "tests/unit/switch/fake_ends.h"

static uint32_t xstate(void)
{
	return atomic_load(&X->rs->xstate);
}

static uint32_t ystate(void)
{
	return atomic_load(&Y->rs->ystate);
}

static void framed(void)
{
	make_ends(NULL);
	fake_grant(Y);
	fake_start(X);
}

Test(rules_agreed, road_and_back, .timeout = 10)
{
	framed();
	cr_assert_eq(send(a, "abc", 3, 0), 3);
	cr_assert_eq(X->puts, 1);
	fake_all();
	expect_str(b, 10, "abc");
	cr_assert_eq(ystate(), WSD_Y_FRAMED);
	cr_assert_eq(xstate(), WSD_X_FRAMED);
}

/* ---- hooks of these tests: sends that the kernel takes in part ---- */

static unsigned cut_from, cut_mod;	/* a sendmsg gets cut_from + rand % cut_mod bytes; cut_mod 0: all */
static uint64_t seed;

static uint32_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16);
}

static long cut_syscall(long n, ...)
{
	long v[6];

	SYSCALL_ARGS(v, n);
	if (n == SYS_sendmsg && cut_mod)
		return short_sendmsg(v, cut_from + rnd() % cut_mod);
	return libc_calls.syscall(n, v[0], v[1], v[2], v[3], v[4], v[5]);
}

static void obey(struct fake_end *e, bool at_wait)
{
	struct thr *t = cs_enter();

	agreed_obey(t, e->c, e->fd, at_wait);
	cs_leave(t);
}

/* ---- A3: both roads, both directions, against a reference stream ---- */

static uint8_t ref(int d, uint64_t p)
{
	p = (p + 1) * 0x9e3779b97f4a7c15ull + (uint64_t)d;
	return (uint8_t)(p >> 56 ^ p >> 24);
}

struct flow {
	struct fake_end *from, *to;
	uint64_t sent, got;
	bool ended, eof;
};

static struct flow flow[2];

static void flow_send(int d, size_t n, int flags)
{
	struct flow *f = &flow[d];
	static uint8_t buf[65536];
	struct iovec io[3];
	size_t i;
	ssize_t r;

	if (f->ended)
		return;
	for (i = 0; i < n; i++)
		buf[i] = ref(d, f->sent + i);
	if (n > 8 && rnd() % 4 == 0) {
		struct msghdr m = { .msg_iov = io, .msg_iovlen = 3 };

		io[0] = (struct iovec){ buf, n / 3 };
		io[1] = (struct iovec){ buf + n / 3, 0 };
		io[2] = (struct iovec){ buf + n / 3, n - n / 3 };
		r = sendmsg(f->from->fd, &m, flags);
	} else {
		r = send(f->from->fd, buf, n, flags);
	}
	if (r < 0)
		cr_assert_eq(errno, EAGAIN, "seed %llu dir %d: send: %s, x %u", (unsigned long long)seed, d, strerror(errno),
			     atomic_load(&f->from->rs->xstate));
	else
		f->sent += (uint64_t)r;
}

/* false: nothing there */
static bool flow_recv(int d, size_t n, int flags)
{
	struct flow *f = &flow[d];
	static uint8_t buf[65536];
	ssize_t r, i;

	if (f->eof)
		return false;
	r = recv(f->to->fd, buf, n, flags);
	if (r < 0) {
		cr_assert_eq(errno, EAGAIN, "dir %d at %llu of %llu: recv: %s, x %u y %u", d, (unsigned long long)f->got,
			     (unsigned long long)f->sent, strerror(errno), atomic_load(&f->from->rs->xstate), atomic_load(&f->to->rs->ystate));
		return false;
	}
	if (r == 0) {
		cr_assert(f->ended, "dir %d: an end that was not sent", d);
		cr_assert_eq(f->got, f->sent, "dir %d: end at %llu of %llu, x %u y %u", d, (unsigned long long)f->got,
			     (unsigned long long)f->sent, atomic_load(&f->from->rs->xstate), atomic_load(&f->to->rs->ystate));
		f->eof = !(flags & MSG_PEEK);
		return false;
	}
	cr_assert_leq(f->got + (uint64_t)r, f->sent, "dir %d: more than was sent: %zd at %llu of %llu, flags %x, x %u y %u", d, r,
		       (unsigned long long)f->got, (unsigned long long)f->sent, (unsigned)flags, atomic_load(&f->from->rs->xstate), atomic_load(&f->to->rs->ystate));
	for (i = 0; i < r; i++)
		cr_assert_eq(buf[i], ref(d, f->got + (uint64_t)i), "dir %d: other byte at %llu (%zd of %zd), x %u y %u", d,
			     (unsigned long long)f->got + (uint64_t)i, i, r, atomic_load(&f->from->rs->xstate), atomic_load(&f->to->rs->ystate));
	if (!(flags & MSG_PEEK))
		f->got += (uint64_t)r;
	return true;
}

/* a peek shows what a receive gives: all of it, when TCP has nothing under way; and FIONREAD is as much */
static void flow_peek(int d, size_t n)
{
	struct flow *f = &flow[d];
	static uint8_t buf[65536];
	int q = 0, all = 0;
	ssize_t r, k;

	(void)flow_recv(d, n, MSG_DONTWAIT | MSG_PEEK);
	if (f->eof || f->ended || rnd() % 2)
		return;
	cr_assert_eq(ioctl(f->to->fd, FIONREAD, &q), 0);
	r = recv(f->to->fd, buf, n, MSG_DONTWAIT | MSG_PEEK);
	if (r < 0)
		r = 0;
	real.ioctl(f->to->fd, SIOCINQ, &all);
	k = (ssize_t)f->got;
	if (atomic_load(&f->from->c->s->H) != atomic_load(&f->to->c->s->C) + (uint64_t)all) {
		(void)flow_recv(d, n, MSG_DONTWAIT);
		cr_assert_geq((ssize_t)f->got - k, r);
		return;
	}
	cr_assert_eq((size_t)r, (size_t)q < n ? (size_t)q : n, "dir %d: %zd shown, FIONREAD %d", d, r, q);
	(void)flow_recv(d, n, MSG_DONTWAIT);
	cr_assert_eq((ssize_t)f->got - k, r, "dir %d at %zd: %zd were shown, x %u y %u", d, k, r,
		     atomic_load(&f->from->rs->xstate), atomic_load(&f->to->rs->ystate));
}

static void show(const struct flow *f)
{
	struct wsd_remote *x = f->from->rs, *y = f->to->rs;
	uint64_t k = 0;
	int q = 0, o = 0, n;

	real.ioctl(f->to->fd, SIOCINQ, &q);
	real.ioctl(f->from->fd, SIOCOUTQ, &o);
	n = road_next(f->to->r, atomic_load(&f->to->c->s->C), &k);
#define L(v) ((long long)atomic_load(&(v)))
	fprintf(stderr, "H %lld frame at %lld kind %lld len %lld off %lld, S %lld posted %lld cursor %lld seam %lld rest %lld error %d, outq %d\n"
		"C %lld f_end %lld seam %u head %lld taken %lld fill %lld-%lld end_valid %lld posted %lld y_end %lld, inq %d, next %d of %llu\n",
		L(f->from->c->s->H), L(x->frame_H), L(x->frame_kind), L(x->frame_len), L(x->frame_off), L(x->S), L(x->posted),
		L(x->cursor), L(x->seam_n), L(x->rest), road_error(f->from->r), o,
		L(f->to->c->s->C), (long long)y->f_end, y->seam_next, L(y->head), L(y->taken), L(y->fill_from), L(y->filled), L(y->end_valid),
		L(y->end_posted), L(y->y_end), q, n, (unsigned long long)k);
}

enum { LIVELY = 1, RETURNS = 2, FAILS = 4, CUTS = 8, ENDS = 16, LATE = 32, GROWS = 64, FLOODS = 128, AWAY = 256, NOW = 512 };

static unsigned n_pulls;

/* some steps of a flood; then all that send() returned for arrives, though nobody calls for the senders any more */
static void episode(uint64_t s)
{
	unsigned i, n = rnd() % 24;
	int d = rnd() % 2;
	struct flow *f = &flow[d];

	for (i = 0; i < n; i++) {
		switch (rnd() % 9) {
		case 0:
		case 1:
			fake_flood(f->from, rnd() % 4 ? ~0ull >> 1 : 0);
			flow_send(d, 1 + rnd() % (rnd() % 4 ? 10 : 600), MSG_DONTWAIT);
			break;
		case 2:
		case 3:
			flow_recv(d, 1 + rnd() % 600, MSG_DONTWAIT);
			break;
		case 4:
		case 5:
			fake_step(rnd() % 2 ? X : Y, 1 + rnd() % 3);
			break;
		case 6:
			f->to->reads_held = rnd() % 2;
			fake_land(f->to);
			break;
		case 7:
			fake_poll(rnd() % 2 ? X : Y);
			break;
		case 8:		/* the daemon's sweep */
			if (rnd() % 4 == 0)
				fake_fill(f->from, atomic_load(&f->from->rs->cursor), atomic_load(&f->from->rs->posted));
			break;
		}
	}
	f->to->reads_held = false;
	fake_land(f->to);
	for (i = 0; i < 30; i++) {
		fake_all();
		while (flow_recv(d, 5000, MSG_DONTWAIT))
			;
	}
	if (f->got != f->sent)
		show(f);
	cr_assert_eq(f->got, f->sent, "seed %llu dir %d: %llu of %llu without the sender, given %llu", (unsigned long long)s, d,
		     (unsigned long long)f->got, (unsigned long long)f->sent, (unsigned long long)atomic_load(&f->from->r->given));
	n_pulls += f->to->pulls;
}

static unsigned n_plain;

/* as before a call that only TCP has: what is open of a frame does not wait for the program's next bytes */
static void plain_now(struct fake_end *e)
{
	agreed_leave(e->c, WSD_R_OPTION);
	atomic_store(&e->r->now_plain, 1);
	obey(e, false);
	n_plain += atomic_load(&e->rs->plain_H) != 0;
}

static void interleave(uint64_t s, unsigned what, unsigned steps)
{
	struct fake_opt o = { .sndbuf = 2304, .rcvbuf = 65536, .ring1_max = what & GROWS ? 16384 : 0 };
	unsigned i, k;

	seed = s * 0x2545f4914f6cdd1dull + 88172645463325252ull;
	fake_run = false;
	fake_late = what & LATE;
	fake_tear = what & LATE && rnd() % 2 ? 8 * (1 + rnd() % 3) : 0;
	fake_daemons = true;
	make_ends(&o);
	memset(flow, 0, sizeof(flow));
	flow[0] = (struct flow){ .from = X, .to = Y };
	flow[1] = (struct flow){ .from = Y, .to = X };
	real.syscall = cut_syscall;
	cut_mod = 0;
	for (i = 0; i < steps; i++) {
		int d = rnd() % 2;
		struct fake_end *e = rnd() % 2 ? X : Y;
		uint32_t op = rnd() % 1000;

		if (what & CUTS) {
			cut_mod = rnd() % 3 ? 0 : 1 + rnd() % 80;
			cut_from = rnd() % 4 ? 0 : rnd() % 4000;
		}
		if (what & FLOODS && op < 300 && rnd() % 8) {
			fake_flood(flow[d].from, rnd() % 2 ? 0 : ~0ull >> 1);
			flow_send(d, 1 + rnd() % 30, MSG_DONTWAIT);
		} else if (op < 350)
			flow_send(d, 1 + rnd() % (rnd() % 8 ? 300 : 9000), MSG_DONTWAIT);
		else if (op < 650)
			flow_recv(d, 1 + rnd() % (rnd() % 4 ? 500 : 9000), MSG_DONTWAIT);
		else if (op < 690)
			flow_peek(d, 1 + rnd() % 3000);
		else if (op < 900)
			fake_step(e, 1 + rnd() % 4);
		else if (op < 920)
			obey(e, true);
		else if (op < 930)
			e->no_slot = rnd() % 3;
		else if (op < 950)
			e->done_held = rnd() % 2;
		else if (op < 960)
			fake_all();
		else if (op > 990 && what & FLOODS)
			e->reads_held = rnd() % 2;
		else if (op > 970 && what & FLOODS)
			fake_land(e);
		else if (op == 960 && what & RETURNS)
			agreed_leave(e->c, WSD_R_OPTION);
		else if (op >= 966 && op < 970 && what & NOW && i > steps / 8)
			plain_now(e);
		else if (op == 961 && what & RETURNS)
			atomic_store(&e->rs->revoked, WSD_R_RDMA_FAILED);
		else if (op == 962 && what & FAILS)
			fake_fail(e, -ECONNRESET);
		else if (op == 963 && what & FAILS)
			fake_fail_both(-ECONNRESET);
		else if (op == 964 && what & FAILS)
			e->lossy = true, e->q_n = 0;
		else if (op == 965 && what & ENDS && i > steps / 3 && !flow[d].ended) {
			cr_assert_eq(shutdown(flow[d].from->fd, SHUT_WR), 0);
			flow[d].ended = true;
		}
	}
	/* the rest arrives, all of it, and its end */
	cut_mod = 0;
	for (k = 0; k < 2; k++) {
		struct fake_end *e = flow[k].from;

		e->done_held = e->reads_held = false;
		e->no_slot = 0;
		fake_land(e);
		if (e->lossy)
			fake_fail(e, -ECONNRESET);
	}
	for (i = 0; i < 60 && what & AWAY; i++)
		episode(s);
	for (i = 0; i < 20000 && !(flow[0].eof && flow[1].eof); i++) {
		for (k = 0; k < 2; k++) {
			struct flow *f = &flow[k];

			fake_all();
			obey(f->from, true);
			/* the sweep of the daemon (D21): who has ended looks no more */
			if (i > 50 && atomic_load(&f->from->rs->xstate) == WSD_X_ENDED)
				fake_fill(f->from, atomic_load(&f->from->rs->cursor), atomic_load(&f->from->rs->posted));
			if (!f->ended && i > 20) {
				cr_assert_eq(shutdown(f->from->fd, SHUT_WR), 0);
				f->ended = true;
			}
			while (flow_recv((int)k, 5000, MSG_DONTWAIT))
				;
		}
		if (i > 100)
			usleep(100);
	}
	for (k = 0; k < 2; k++)
		if (!flow[k].eof)
			show(&flow[k]);
	for (k = 0; k < 2; k++)
		cr_assert(flow[k].eof, "seed %llu dir %u: stands at %llu of %llu, x %u y %u", (unsigned long long)s, k,
			  (unsigned long long)flow[k].got, (unsigned long long)flow[k].sent, atomic_load(&flow[k].from->rs->xstate),
			  atomic_load(&flow[k].to->rs->ystate));
	close(a);
	close(b);
}

#define SEEDS 12	/* SEEDS=n: more; SEED=n: that one */

static void seeds(unsigned what)
{
	const char *one = getenv("SEED"), *n = getenv("SEEDS");
	uint64_t s = one ? strtoull(one, NULL, 0) : 1, last = one ? s : n ? strtoull(n, NULL, 0) : SEEDS;

	for (; s <= last; s++)
		interleave(s, what, 3000);
}

Test(rules_agreed, a3_order_of_roads, .timeout = 60)
{
	seeds(LIVELY);
	seeds(LIVELY | LATE | GROWS);
}

Test(rules_agreed, a3_header_in_parts, .timeout = 60)
{
	seeds(CUTS);
}

Test(rules_agreed, a4_returns, .timeout = 60)
{
	seeds(RETURNS | LATE);
	seeds(RETURNS | CUTS);
}

/* with payload of a frame open */
Test(rules_agreed, a4_now, .timeout = 60)
{
	seeds(NOW | LATE | CUTS);
	seeds(NOW | ENDS | CUTS | LATE | GROWS);
	seeds(NOW | FLOODS | CUTS | LATE | GROWS);
	seeds(NOW | FAILS | CUTS | LATE | GROWS);
	seeds(NOW | FAILS | ENDS | FLOODS | CUTS | LATE);
	cr_assert_gt(n_plain, 0);
}

Test(rules_agreed, a4_failures, .timeout = 60)
{
	seeds(FAILS);
	seeds(FAILS | CUTS | LATE | GROWS);
}

Test(rules_agreed, a7_ends, .timeout = 60)
{
	seeds(ENDS);
	seeds(ENDS | CUTS | RETURNS | FAILS | LATE | GROWS);
}

/* many small sends, kept back at any point; AWAY: nobody calls for the sender afterwards */
Test(rules_agreed, a3_floods, .timeout = 60)
{
	seeds(LIVELY | FLOODS | AWAY);
	seeds(LIVELY | FLOODS | AWAY | LATE | GROWS);
	cr_assert_gt(n_pulls, 0);
	seeds(FLOODS | ENDS | CUTS | RETURNS | FAILS | LATE | GROWS);
}

#define MUCH	200000u

static void *pour(void *arg)
{
	struct flow *f = arg;
	uint8_t buf[7000];
	uint32_t x = 12345;

	while (f->sent < MUCH) {
		size_t n = 1 + (x = x * 1664525 + 1013904223) % sizeof(buf), i;
		ssize_t r;

		if (n > MUCH - f->sent)
			n = MUCH - f->sent;
		for (i = 0; i < n; i++)
			buf[i] = ref((int)(f - flow), f->sent + i);
		r = send(f->from->fd, buf, n, 0);
		cr_assert_eq(r, (ssize_t)n, "blocking send: %zd of %zu, errno %d", r, n, errno);
		f->sent += n;
		while (f == flow && f->sent > MUCH / 2 && !Y->puts)	/* both go back */
			usleep(100);
		if (f == flow && f->sent > MUCH / 2)
			agreed_leave(f->from->c, WSD_R_OPTION);
	}
	cr_assert_eq(shutdown(f->from->fd, SHUT_WR), 0);
	return NULL;
}

static void *drink(void *arg)
{
	struct flow *f = arg;
	uint8_t buf[5000];
	ssize_t r, i;

	while ((r = recv(f->to->fd, buf, sizeof(buf), 0)) > 0) {
		for (i = 0; i < r; i++)
			cr_assert_eq(buf[i], ref((int)(f - flow), f->got + (uint64_t)i), "at %llu", (unsigned long long)f->got + (uint64_t)i);
		f->got += (uint64_t)r;
	}
	cr_assert_eq(r, 0, "errno %d", errno);
	cr_assert_eq(f->got, MUCH);
	return NULL;
}

/* four threads that sleep in send and recv; one direction returns half way */
Test(rules_agreed, a3_blocking, .timeout = 60)
{
	struct fake_opt o = { .sndbuf = 4608, .rcvbuf = 65536 };
	pthread_t t[4];
	int i;

	make_ends(&o);
	fake_run = true;
	flow[0] = (struct flow){ .from = X, .to = Y };
	flow[1] = (struct flow){ .from = Y, .to = X };
	fake_grant(Y);
	fake_grant(X);
	/* both begin framed: 200 kB are soon sent by TCP alone */
	fake_start(X);
	fake_start(Y);
	for (i = 0; i < 4; i++)
		cr_assert_eq(pthread_create(&t[i], NULL, i < 2 ? pour : drink, &flow[i % 2]), 0);
	for (i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	cr_assert(X->puts && Y->puts, "%u and %u puts", X->puts, Y->puts);
}

/* no slot of a seam is used again before the peer has passed it: TCP has room instead */
Test(rules_agreed, a3_33_seams, .timeout = 10)
{
	unsigned i;

	framed();
	fill_big();
	for (i = 0; i < 100; i++) {
		X->no_slot = i % 2;
		cr_assert_eq(send(a, big + i, 1, 0), 1);
	}
	fake_all();
	cr_assert_eq(atomic_load(&X->rs->seam_n), WSD_REMOTE_SEAMS);
	expect_big(b, 100);
	/* read, and told: on by the ring */
	fake_all();
	for (i = 0; i < 2000 && atomic_load(&X->rs->seam_n) == WSD_REMOTE_SEAMS; i++) {
		cr_assert_eq(send(a, big, 1, 0), 1);
		fake_all();
		cr_assert_eq(recv(b, back, 1, 0), 1);
	}
}

/* ---- A2 ---- */

Test(rules_agreed, a2_nothing_sent_until_read, .timeout = 10)
{
	char buf[8];

	make_ends(NULL);
	X->done_held = true;
	cr_assert_eq(send(a, "old", 3, 0), 3);
	fake_grant(Y);
	obey(X, true);
	cr_assert_eq(xstate(), WSD_X_STARTING);
	fake_step(X, 100);
	/* Start lies there, but its read-back is not complete: nothing may follow, on either road */
	expect_err(send(a, "new", 3, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(X->puts, 0);
	cr_assert_eq(atomic_load(&ca->s->H), 3);
	expect_str(b, 8, "old");
	expect_err(recv(b, buf, 8, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(ystate(), WSD_Y_FRAMED);
	fake_done(X);
	cr_assert_eq(send(a, "new", 3, 0), 3);
	cr_assert_eq(X->puts, 1);
	fake_all();
	expect_str(b, 8, "new");
}

/* the write is complete, and not visible: only the read forces it */
Test(rules_agreed, a2_write_completion_is_not_enough, .timeout = 10)
{
	uint64_t S;

	make_ends(NULL);
	fake_grant(Y);
	fake_late = true;
	obey(X, true);
	fake_step(X, 1);
	fake_poll(X);
	obey(X, true);
	cr_assert_eq(xstate(), WSD_X_STARTING);
	cr_assert_eq(road_start(Y->r, &S), 0);
	fake_step(X, 1);
	fake_poll(X);
	cr_assert_eq(road_start(Y->r, &S), 1);
	obey(X, true);
	cr_assert_eq(xstate(), WSD_X_FRAMED);
}

static int (*was_ioctl)(int, unsigned long, ...);

static unsigned at_count;
static bool before_count;

static void start_and_more(void)
{
	real.ioctl = was_ioctl;
	fake_all();
	obey(X, true);
	X->no_slot = 1;
	cr_assert_eq(send(a, "xyz", 3, MSG_DONTWAIT), 3);
	wait_inq(b, (int)WSD_FRAME_SIZE + 3);
}

/* Start arrives, and a frame behind it: before or after TCP's bytes are counted */
static int between_ioctl(int fd, unsigned long req, ...)
{
	bool now = fd == b && req == SIOCINQ && --at_count == 0;
	va_list ap;
	void *p;
	int r;

	va_start(ap, req);
	p = va_arg(ap, void *);
	va_end(ap);
	if (now && before_count)
		start_and_more();
	r = was_ioctl(fd, req, p);
	if (now && !before_count)
		start_and_more();
	return r;
}

Test(rules_agreed, a2_q_before_look, .timeout = 10)
{
	unsigned n, k;

	for (k = 0; k < 2; k++)
		for (n = 1; n <= 2; n++) {
			make_ends(NULL);
			fake_grant(Y);
			cr_assert_eq(send(a, "old", 3, 0), 3);
			wait_inq(b, 3);
			obey(X, true);
			cr_assert_eq(xstate(), WSD_X_STARTING);
			at_count = n;
			before_count = k;
			was_ioctl = real.ioctl;
			real.ioctl = between_ioctl;
			expect_str(b, 100, "oldxyz");
			close(a);
			close(b);
		}
}

static void undecided(void)
{
	make_ends(NULL);
	fake_daemons = false;
	cr_assert_eq(send(a, "old", 3, 0), 3);
	fake_grant(Y);
	obey(X, true);
}

Test(rules_agreed, a2_error_taken, .timeout = 10)
{
	undecided();
	X->done_held = true;
	fake_step(X, 100);
	expect_str(b, 3, "old");
	expect_err(recv(b, back, 8, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(ystate(), WSD_Y_FRAMED);
	fake_fail(X, -ECONNRESET);
	obey(X, true);
	cr_assert_eq(xstate(), WSD_X_UNDECIDED);
	expect_err(send(a, "new", 3, MSG_DONTWAIT), EAGAIN);
	fake_answer(X, WSD_SAN_DECIDE);
	cr_assert_eq(send(a, "new", 3, 0), 3);
	cr_assert_eq(xstate(), WSD_X_DONE);
	expect_str(b, 8, "new");
	cr_assert_eq(ystate(), WSD_Y_DONE);
}

/* a grant that is taken back while nobody uses it: X hears of it by the daemons, and does not start in vain (twin seed 44: EAGAIN for half a second) */
Test(rules_agreed, a2_no_start_after_a_withdrawn_grant, .timeout = 10)
{
	struct thr *t;

	make_ends(NULL);
	fake_grant(Y);
	t = cs_enter();
	cr_assert(agreed_tx_plain(t, cb, b, 1000));
	cs_leave(t);
	expect_err(recv(b, back, 8, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(ystate(), WSD_Y_DONE);
	cr_assert_eq(Y->asked[WSD_SAN_WANT_RETURN], 1);
	obey(X, true);
	cr_assert_eq(send(a, "new", 3, MSG_DONTWAIT), 3);
	expect_str(b, 8, "new");
}

/* ... and where X has started meanwhile its direction goes on: the road is whole, and what is under way arrives by it */
Test(rules_agreed, a2_started_before_the_grant_was_withdrawn, .timeout = 10)
{
	struct thr *t;

	make_ends(NULL);
	fake_grant(Y);
	fake_start(X);
	t = cs_enter();
	cr_assert(agreed_tx_plain(t, cb, b, 1000));
	cs_leave(t);
	cr_assert_eq(ystate(), WSD_Y_GRANTED);
	cr_assert_eq(send(a, "new", 3, 0), 3);
	expect_err(recv(b, back, 8, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(ystate(), WSD_Y_FRAMED);
	cr_assert_not(Y->stopped);
	fake_all();
	expect_str(b, 8, "new");
	cr_assert_eq(X->puts, 1);
}

static unsigned naps_left;

static long slow_nap(long n, ...)
{
	long v[6];
	va_list ap;
	int i;

	va_start(ap, n);
	for (i = 0; i < 6; i++)
		v[i] = va_arg(ap, long);
	va_end(ap);
	if (n != SYS_clock_nanosleep)
		return libc_calls.syscall(n, v[0], v[1], v[2], v[3], v[4], v[5]);
	usleep(5000);
	if (naps_left && !--naps_left)
		fake_all();
	return 0;
}

/* A sender that does not wait does so for its own Start, where the machine is busy for many milliseconds: of TCP's empty buffer it would not hear
 * EAGAIN (twin seed 44); but not for ever */
Test(rules_agreed, a2_start_on_a_busy_machine, .timeout = 20)
{
	undecided();
	real.syscall = slow_nap;
	naps_left = 30;
	cr_assert_eq(send(a, "new", 3, MSG_DONTWAIT), 3);
	cr_assert_eq(xstate(), WSD_X_FRAMED);
	fake_all();
	expect_str(b, 3, "old");
	expect_str(b, 8, "new");
}

Test(rules_agreed, a2_start_is_not_waited_for_for_ever, .timeout = 20)
{
	undecided();
	real.syscall = slow_nap;
	naps_left = 0;
	expect_err(send(a, "new", 3, MSG_DONTWAIT), EAGAIN);
}

/* a device that neither completes the read-back nor fails: the daemons decide after a while */
Test(rules_agreed, a2_silent_device, .timeout = 20)
{
	make_ends(NULL);
	cr_assert_eq(send(a, "old", 3, 0), 3);
	fake_grant(Y);
	X->lossy = true;
	obey(X, true);
	expect_err(send(a, "new", 3, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(xstate(), WSD_X_STARTING);
	X->r->start_when -= (uint64_t)US(4e6);
	obey(X, true);
	cr_assert_eq(xstate(), WSD_X_STARTING);
	X->r->start_when -= (uint64_t)US(2e6);
	cr_assert_eq(send(a, "new", 3, 0), 3);
	cr_assert_eq(xstate(), WSD_X_DONE);
	wait_inq(b, 6);
	expect_str(b, 8, "oldnew");
}

/* void, and then Start is visible after all: Y's swap fails, and what follows is plain */
Test(rules_agreed, a2_void_then_late_start, .timeout = 10)
{
	undecided();
	fake_late = true;
	X->done_held = true;
	fake_step(X, 1);
	fake_daemons = true;
	X->error = -ECONNRESET;
	obey(X, true);
	cr_assert_eq(xstate(), WSD_X_UNDECIDED);
	cr_assert_eq(send(a, "new", 3, 0), 3);
	cr_assert_eq(xstate(), WSD_X_DONE);
	cr_assert_eq(atomic_load(&Y->rs->decide), WSD_DECIDE_VOID);
	fake_visible(X);
	wait_inq(b, 6);
	expect_str(b, 8, "oldnew");
	cr_assert_eq(ystate(), WSD_Y_DONE);
}

Test(rules_agreed, a2_no_answer_resets, .timeout = 20)
{
	undecided();
	fake_fail(X, -ECONNRESET);
	expect_err(send(a, "new", 3, 0), ECONNRESET);
	cr_assert_eq(xstate(), WSD_X_DONE);
}

/* shut down while Start is under way: nothing goes by the ring behind the FIN */
Test(rules_agreed, a2_shutdown_while_starting, .timeout = 10)
{
	make_ends(NULL);
	cr_assert_eq(send(a, "old", 3, 0), 3);
	fake_grant(Y);
	obey(X, true);
	cr_assert_eq(xstate(), WSD_X_STARTING);
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	fake_all();
	expect_err(send(a, "new", 3, MSG_NOSIGNAL), EPIPE);
	cr_assert_eq(X->puts, 0);
	wait_fin(b);
	expect_str(b, 3, "old");
	cr_assert_eq(recv(b, back, 8, 0), 0);
}

/* ---- A4 ---- */

/* every F, P and number of bytes read of a ring, the return itself in parts */
Test(rules_agreed, a4_return_at_every_byte, .timeout = 60)
{
	unsigned p, told, got, q;

	for (p = 0; p <= 6; p++)
		for (got = 0; got <= p; got++)
			for (told = 0; told <= got; told++)
				for (q = 0; q < 2; q++) {
					static const char text[] = "abcdefghij";
					unsigned i;

					framed();
					X->rs->cursor = 0;
					for (i = 0; i < p; i++)
						cr_assert_eq(send(a, text + i, 1, 0), 1);
					fake_step(X, 100);
					/* what is told: the cursor X holds */
					if (told)
						expect_str(b, told, (char[8]){ text[0], told > 1 ? text[1] : 0, told > 2 ? text[2] : 0, told > 3 ? text[3] : 0,
								   told > 4 ? text[4] : 0, told > 5 ? text[5] : 0 });
					atomic_store(&X->rs->cursor, told);
					for (i = told; i < got; i++)
						expect_str(b, 1, (char[2]){ text[i] });
					if (q)
						fake_fail_both(-ECONNRESET);
					agreed_leave(ca, WSD_R_OPTION);
					real.syscall = cut_syscall;
					cut_from = 1;
					cut_mod = 1;
					for (i = 0; i < 60 && xstate() != WSD_X_DONE; i++)
						obey(X, true);
					cut_mod = 0;
					cr_assert_eq(xstate(), WSD_X_DONE, "p %u got %u told %u", p, got, told);
					cr_assert_eq(atomic_load(&ca->s->H), 32 + p - told);
					cr_assert_eq(send(a, "END", 3, 0), 3);
					wait_inq(b, (int)(32 + p - told + 3));
					for (i = got; i < p; i++)
						expect_str(b, 1, (char[2]){ text[i] });
					expect_str(b, 10, "END");
					cr_assert_eq(ystate(), WSD_Y_DONE);
					close(a);
					close(b);
				}
}

static void raw_frame(uint32_t kind, uint32_t len, uint64_t off, uint64_t nonce, uint32_t ep)
{
	struct wsd_frame f = { .nonce = nonce, .epoch = ep, .kind = kind, .len = len, .ring_off = off };
	uint8_t h[WSD_FRAME_SIZE];

	frame_put(h, &f);
	cr_assert_eq(libc_calls.send(a, h, sizeof(h), 0), (ssize_t)sizeof(h));
	wait_inq(b, sizeof(h));
}

Test(rules_agreed, a4_F_beyond_cursor, .timeout = 10)
{
	framed();
	raw_frame(WSD_FRAME_RETURN, 0, 1, X->r->nonce, 7);
	expect_err(recv(b, back, 8, 0), ECONNRESET);
}

Test(rules_agreed, a4_wrong_nonce, .timeout = 10)
{
	framed();
	raw_frame(WSD_FRAME_RETURN, 0, 0, X->r->nonce + 1, 7);
	expect_err(recv(b, back, 8, 0), ECONNRESET);
}

Test(rules_agreed, a4_wrong_epoch, .timeout = 10)
{
	framed();
	raw_frame(WSD_FRAME_DATA, 1, 0, X->r->nonce, 8);
	expect_err(recv(b, back, 8, 0), ECONNRESET);
}

/* the connection is reset while the return waits for room: told, not waited for */
Test(rules_agreed, a4_reset_in_return, .timeout = 10)
{
	struct linger l = { 1, 0 };

	framed();
	cr_assert_eq(send(a, "abc", 3, 0), 3);
	agreed_leave(ca, WSD_R_OPTION);
	real.syscall = cut_syscall;
	cut_from = 5;
	cut_mod = 1;
	obey(X, true);
	cut_mod = 0;
	cr_assert_eq(xstate(), WSD_X_DONE);	/* parts of five, until all is gone */
	agreed_leave(cb, WSD_R_OPTION);
	fake_all();
	cr_assert_eq(real.setsockopt(b, SOL_SOCKET, SO_LINGER, &l, sizeof(l)), 0);
	real.close(b);
	atomic_store(&X->rs->xstate, WSD_X_RETURNING);
	atomic_store(&X->rs->frame_H, ~0ull);
	cr_assert_eq(send(a, "x", 1, MSG_NOSIGNAL), -1);
	cr_assert(errno == EPIPE || errno == ECONNRESET, "errno %d", errno);
}

/* ---- A5 ---- */

Test(rules_agreed, a5_reuse_needs_both, .timeout = 10)
{
	uint64_t w[3];

	framed();
	fill_big();
	X->done_held = true;
	cr_assert_eq(send(a, big, 2048, 0), 2048);
	cr_assert_eq(send(a, big + 2048, 2048, 0), 2048);
	cr_assert_eq(X->puts, 2);
	cr_assert_eq(road_room(X->r), 0);
	/* the cursor alone */
	w[0] = 4096;
	w[1] = 0;
	w[2] = wsd_remote_check(X->r->nonce, WSD_CTL_CREDIT, w, 2);
	memcpy(&X->ctl->credit, w, sizeof(w));
	obey(X, false);
	cr_assert_eq(road_room(X->r), 0, "not completed");
	atomic_store(&X->rs->cursor, 0);
	memset(&X->ctl->credit, 0, sizeof(w));
	X->r->credit_seen = 0;
	/* the completion alone */
	fake_done(X);
	fake_all();
	cr_assert_eq(atomic_load(&X->st.done), 4096);
	cr_assert_eq(road_room(X->r), 0, "not read");
	memcpy(&X->ctl->credit, w, sizeof(w));
	obey(X, false);
	cr_assert_eq(road_room(X->r), 4096);
}

/* records of another session, torn, or beyond what was posted, are none */
Test(rules_agreed, a5_record_must_fit, .timeout = 10)
{
	uint64_t w[3] = { 2, 0 };
	uint32_t flags;

	framed();
	cr_assert_eq(send(a, "abc", 3, 0), 3);
	w[2] = wsd_remote_check(X->r->nonce + 1, WSD_CTL_CREDIT, w, 2);
	memcpy(&X->ctl->credit, w, sizeof(w));
	road_credit(X->r, &flags);
	cr_assert_eq(atomic_load(&X->rs->cursor), 0);
	w[0] = 4;
	w[2] = wsd_remote_check(X->r->nonce, WSD_CTL_CREDIT, w, 2);
	memcpy(&X->ctl->credit, w, sizeof(w));
	road_credit(X->r, &flags);
	cr_assert_eq(atomic_load(&X->rs->cursor), 0);
}

/* ---- A7 ---- */

Test(rules_agreed, a7_fin_overtakes, .timeout = 10)
{
	framed();
	cr_assert_eq(send(a, "tail", 4, 0), 4);
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	wait_fin(b);
	expect_err(recv(b, back, 8, MSG_DONTWAIT), EAGAIN);
	fake_all();
	expect_str(b, 8, "tail");
	cr_assert_eq(recv(b, back, 8, 0), 0);
	cr_assert_eq(Y->asked[WSD_SAN_END], 0);
}

Test(rules_agreed, a7_no_end_asks, .timeout = 10)
{
	framed();
	fake_daemons = false;
	cr_assert_eq(send(a, "tail", 4, 0), 4);
	fake_fail(X, 0);
	real.shutdown(a, SHUT_WR);
	wait_fin(b);
	expect_err(recv(b, back, 8, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(Y->asked[WSD_SAN_END], 1);
	fake_answer(Y, WSD_SAN_END);
	expect_str(b, 8, "tail");
	cr_assert_eq(recv(b, back, 8, 0), 0);
}

/* the daemons know where it ends before they bring what is missing: that is no end */
Test(rules_agreed, a7_end_not_equal_waits, .timeout = 10)
{
	framed();
	fake_daemons = false;
	cr_assert_eq(send(a, "tail", 4, 0), 4);
	fake_fail(X, 0);
	real.shutdown(a, SHUT_WR);
	wait_fin(b);
	atomic_store(&Y->rs->end_posted, 4);
	atomic_store(&Y->rs->end_valid, 1);
	expect_err(recv(b, back, 8, MSG_DONTWAIT), EAGAIN);
	fake_fill(X, 0, 4);
	expect_str(b, 8, "tail");
	cr_assert_eq(recv(b, back, 8, 0), 0);
}

Test(rules_agreed, a7_no_answer_resets, .timeout = 20)
{
	framed();
	fake_daemons = false;
	real.shutdown(a, SHUT_WR);
	wait_fin(b);
	expect_err(recv(b, back, 8, 0), ECONNRESET);
}

/* the peer has ended and we never read it: our answer is not lost with a reset */
Test(rules_agreed, a7_end_unread_no_reset, .timeout = 10)
{
	framed();
	cr_assert_eq(send(a, "ask", 3, 0), 3);
	fake_all();
	expect_str(b, 3, "ask");
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	wait_fin(b);
	cr_assert_eq(send(b, "answer", 6, 0), 6);
	cr_assert_eq(close(b), 0);
	wait_fin(a);
	expect_str(a, 10, "answer");
	cr_assert_eq(recv(a, back, 8, 0), 0);
}

/* nobody holds the peer's socket: nothing of ours is sent there, or its kernel's reset throws away what is on its way to us */
Test(rules_agreed, a7_peer_left_no_return, .timeout = 10)
{
	int q = -1;

	framed();
	cr_assert_eq(send(a, "unread", 6, 0), 6);
	fake_all();
	atomic_store(&X->rs->peer_left, 1);
	atomic_store(&X->rs->x_return, 1);
	expect_err(recv(a, back, 8, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	wait_fin(b);
	cr_assert_eq(real.ioctl(b, SIOCINQ, &q), 0);
	cr_assert_eq(q, 0);
}

/* ---- A9 ---- */

static void age(void)
{
	X->r->last_tcp = tsc_now() - (uint64_t)US(31e6);
}

Test(rules_agreed, a9_empty_frame_after_30s, .timeout = 10)
{
	uint64_t h;

	framed();
	h = atomic_load(&ca->s->H);
	cr_assert_eq(send(a, "abc", 3, 0), 3);
	cr_assert_eq(atomic_load(&ca->s->H), h);
	age();
	cr_assert_eq(send(a, "def", 3, 0), 3);
	cr_assert_eq(atomic_load(&ca->s->H), h + WSD_FRAME_SIZE);
	cr_assert_eq(send(a, "ghi", 3, 0), 3);	/* behind it, with a seam */
	cr_assert_eq(atomic_load(&ca->s->H), h + WSD_FRAME_SIZE);
	cr_assert_eq(X->puts, 3);
	fake_all();
	wait_inq(b, WSD_FRAME_SIZE);
	expect_str(b, 20, "abcdefghi");
	cr_assert_eq(atomic_load(&cb->s->C), WSD_FRAME_SIZE);
}

/* in parts, each of them a send's */
Test(rules_agreed, a9_empty_frame_in_parts, .timeout = 10)
{
	framed();
	real.syscall = cut_syscall;
	age();
	cut_from = 7;
	cut_mod = 1;
	cr_assert_eq(send(a, "abc", 3, 0), 3);
	cr_assert_eq(atomic_load(&ca->s->H), 7);
	cut_mod = 0;
	cr_assert_eq(send(a, "def", 3, MSG_DONTWAIT), 3, "the socket is writable");
	cr_assert_eq(atomic_load(&ca->s->H), WSD_FRAME_SIZE);
	cr_assert_eq(X->puts, 2);
	fake_all();
	wait_inq(b, WSD_FRAME_SIZE);
	expect_str(b, 20, "abcdef");
}

Test(rules_agreed, a9_idle_stays_idle, .timeout = 10)
{
	framed();
	age();
	obey(X, true);
	expect_err(recv(a, back, 1, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(atomic_load(&ca->s->H), 0);
}

/* a receive of nothing waits for data, takes none, and does not turn in circles where there is some (twin seed 20 over RDMA) */
Test(rules_agreed, receive_of_nothing, .timeout = 10)
{
	struct timeval tv = { 0, 10000 };
	char x;

	framed();
	expect_err(recv(b, &x, 0, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(send(a, "abc", 3, 0), 3);
	fake_all();
	cr_assert_eq(recv(b, &x, 0, 0), 0);
	expect_str(b, 10, "abc");
	expect_err(recv(b, &x, 0, MSG_DONTWAIT), EAGAIN);
	/* what ended the wait is not asked */
	cr_assert_eq(setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
	cr_assert_eq(recv(b, &x, 0, 0), 0);
	expect_err(recv(b, &x, 1, 0), EAGAIN);
}

/* the end of a frame is not held back; the program sees, and gets back, its own setting */
Test(rules_agreed, nagle_is_off_while_framed, .timeout = 10)
{
	int v = 0;
	socklen_t l = sizeof(v);

	make_ends(NULL);
	cr_assert_eq(setsockopt(a, IPPROTO_TCP, TCP_NODELAY, &v, l), 0);
	fake_grant(Y);
	fake_start(X);
	v = 7;
	cr_assert_eq(getsockopt(a, IPPROTO_TCP, TCP_NODELAY, &v, &l), 0);
	cr_assert_eq(v, 0);
	cr_assert_eq(real.getsockopt(a, IPPROTO_TCP, TCP_NODELAY, &v, &l), 0);
	cr_assert_neq(v, 0);
	agreed_leave(X->c, WSD_R_OPTION);
	obey(X, false);
	cr_assert_eq(xstate(), WSD_X_DONE);
	cr_assert_eq(real.getsockopt(a, IPPROTO_TCP, TCP_NODELAY, &v, &l), 0);
	cr_assert_eq(v, 0);
}
