/* SPDX-License-Identifier: MIT */
/*
 * rules_agreed_lowat.c - SO_RCVLOWAT over a road (agreed_lowat.c): each answer is the one that TCP gives for the same bytes
 */
#include <pthread.h>
#include <sys/select.h>

#include "tests/unit/switch/fake_ends.h"

TestSuite(lowat, .timeout = 30);

enum how { POLL, SELECT, EPOLL, EPOLL_ET, RECV, PEEK, N_HOW };

static int set[2] = { -1, -1 };		/* level, edge */
static void mark(int v)
{
	socklen_t l = sizeof(v);
	int is = -1;

	cr_assert_eq(setsockopt(b, SOL_SOCKET, SO_RCVLOWAT, &v, l), 0);
	cr_assert_eq(getsockopt(b, SOL_SOCKET, SO_RCVLOWAT, &is, &l), 0);
	cr_assert_eq(is, v);
}

static int kernel_mark(void)
{
	socklen_t l = sizeof(int);
	int v = -1;

	cr_assert_eq(real.getsockopt(b, SOL_SOCKET, SO_RCVLOWAT, &v, &l), 0);
	return v;
}

static void framed(void)
{
	int i;

	make_ends(NULL);
	for (i = 0; i < 2; i++) {
		struct epoll_event ev = { .events = i ? EPOLLIN | EPOLLET : EPOLLIN };

		set[i] = epoll_create1(0);
		cr_assert_eq(epoll_ctl(set[i], EPOLL_CTL_ADD, b, &ev), 0);
	}
	fake_grant(Y);
	fake_start(X);
}

/* by the ring, or by a frame; it has arrived */
static void say(const char *s, bool frame)
{
	unsigned puts = X->puts;
	int q = 0;

	cr_assert_eq(real.ioctl(b, FIONREAD, &q), 0);
	X->no_slot = frame;
	cr_assert_eq(send(a, s, strlen(s), 0), (ssize_t)strlen(s));
	cr_assert_eq(X->puts - puts, !frame);
	if (frame)	/* a reader may be faster than this look */
		for (int i = 0, now = 0; i < 200 && now <= q; i++) {
			cr_assert_eq(real.ioctl(b, FIONREAD, &now), 0);
			usleep(100);
		}
	fake_step(X, 100);
}

static int readable(enum how how, int ms)
{
	struct pollfd p = { b, POLLIN, 0 };
	struct timeval tv = { ms / 1000, ms % 1000 * 1000 };
	struct epoll_event ev;
	fd_set r;

	switch (how) {
	case POLL:
		return poll(&p, 1, ms);
	case SELECT:
		FD_ZERO(&r);
		FD_SET(b, &r);
		return select(b + 1, &r, NULL, NULL, &tv);
	case EPOLL:
		return epoll_wait(set[0], &ev, 1, ms);
	default:
		return epoll_wait(set[1], &ev, 1, ms);
	}
}

static void expect_all(int want)
{
	enum how h;

	for (h = POLL; h <= EPOLL_ET; h++)
		cr_assert_eq(readable(h, 0), want, "kind %u: not %d", h, want);
}

/* ---- a thread that waits ---- */

static struct {
	pthread_t thread;
	enum how how;
	size_t len;
	ssize_t r;
	_Atomic int tid;
	_Atomic bool done;
} w;

static void *waiting(void *arg)
{
	atomic_store(&w.tid, (int)syscall(SYS_gettid));
	w.r = w.how == RECV || w.how == PEEK ? recv(b, back, w.len, w.how == PEEK ? MSG_PEEK : 0) : readable(w.how, 20000);
	atomic_store(&w.done, true);
	return arg;
}

/* it sleeps, and has a moment to be woken */
static void sleeps(void)
{
	int i, still = 0;

	for (i = 0; i < 20000 && still < 20; i++) {
		char path[64], line[256] = "";
		FILE *f;
		char *p;

		usleep(500);
		cr_assert_not(atomic_load(&w.done), "kind %u: awake with %zd", w.how, w.r);
		if (!atomic_load(&w.tid))
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", atomic_load(&w.tid));
		f = fopen(path, "r");
		if (!f)
			continue;
		p = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
		fclose(f);
		still = p && p[2] == 'S' ? still + 1 : 0;
	}
	cr_assert_eq(still, 20, "it does not sleep");
}

static void begin(enum how how, size_t len)
{
	w.how = how;
	w.len = len;
	w.tid = 0;
	w.done = false;
	cr_assert_eq(pthread_create(&w.thread, NULL, waiting, NULL), 0);
	sleeps();
}

static ssize_t end(void)
{
	int64_t t0 = road_now();

	pthread_join(w.thread, NULL);
	cr_assert_lt(road_now() - t0, 10000000000, "kind %u: not woken, its time was over", w.how);
	return w.r;
}

static void return_it(void)
{
	struct thr *t = cs_enter();

	agreed_leave(ca, WSD_R_OPTION);
	agreed_obey(t, ca, a, true);
	cs_leave(t);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
}

/* ---- */

Test(lowat, counts_both_roads)
{
	framed();
	mark(10);
	expect_all(0);
	say("seven..", false);
	expect_all(0);
	say("xy", true);
	expect_all(0);
	say("z", true);
	expect_all(1);
	expect_str(b, 100, "seven..xyz");
	expect_all(0);
	say("nine bytes", true);
	expect_all(1);
	expect_str(b, 1, "n");
	cr_assert_eq(readable(POLL, 0), 0, "nine are not ten");
	cr_assert_eq(readable(EPOLL, 0), 0);
	mark(9);
	expect_all(1);
	mark(10);
	mark(1);
	expect_all(1);
	expect_str(b, 100, "ine bytes");
	cr_assert_eq(kernel_mark(), 1);
}

/* the same bytes with the kernel's mark before the direction is started */
Test(lowat, set_before_and_while_granted)
{
	make_ends(NULL);
	fake_grant(Y);
	mark(6);
	cr_assert_eq(send(a, "plain", 5, 0), 5);
	wait_inq(b, 5);
	cr_assert_eq(readable(POLL, 0), 0);
	fake_start(X);
	cr_assert_eq(readable(POLL, 0), 0);
	say("r", false);
	cr_assert_eq(readable(POLL, 0), 1);
	expect_str(b, 100, "plainr");
}

/* below the mark it sleeps on, whatever comes and by which road, and what is there keeps nobody awake */
static void wakes_at(enum how how, bool frame)
{
	framed();
	mark(10);
	begin(how, 100);
	say("four", false);
	sleeps();
	say("xyz", true);
	sleeps();
	say("..", !frame);
	sleeps();
	n_kernel_waits = 0;
	real.epoll_wait = count_epoll;
	real.ppoll = count_ppoll;
	usleep(100000);
	if (how != PEEK)
		cr_assert_leq(n_kernel_waits, 20, "it spins");
	say("!", frame);
	cr_assert_eq(end(), how == RECV || how == PEEK ? 10 : 1);
	if (how != RECV)
		expect_str(b, 100, "fourxyz..!");
	else
		cr_assert_eq(memcmp(back, "fourxyz..!", 10), 0);
}

Test(lowat, poll_wakes_by_ring) { wakes_at(POLL, false); }
Test(lowat, poll_wakes_by_frame) { wakes_at(POLL, true); }
Test(lowat, select_wakes_by_ring) { wakes_at(SELECT, false); }
Test(lowat, select_wakes_by_frame) { wakes_at(SELECT, true); }
Test(lowat, epoll_wakes_by_ring) { wakes_at(EPOLL, false); }
Test(lowat, epoll_wakes_by_frame) { wakes_at(EPOLL, true); }
Test(lowat, epoll_et_wakes_by_ring) { wakes_at(EPOLL_ET, false); }
Test(lowat, epoll_et_wakes_by_frame) { wakes_at(EPOLL_ET, true); }
Test(lowat, recv_wakes_by_ring) { wakes_at(RECV, false); }
Test(lowat, recv_wakes_by_frame) { wakes_at(RECV, true); }
Test(lowat, peek_wakes_by_ring) { wakes_at(PEEK, false); }
Test(lowat, peek_wakes_by_frame) { wakes_at(PEEK, true); }

/* ring bytes that stand behind a frame count when it is there; TCP's share alone would be below the kernel's mark */
static void ring_behind_a_frame(enum how how)
{
	struct wsd_frame f = { .kind = WSD_FRAME_DATA, .len = 2 };
	uint8_t bytes[WSD_FRAME_SIZE + 2] = { 0 };
	ssize_t cut;

	framed();
	mark(100);
	f.nonce = X->r->nonce;
	f.epoch = X->r->epoch;
	frame_put(bytes, &f);
	/* the frame's last byte comes behind the put */
	cut = (ssize_t)sizeof(bytes) - 1;
	begin(how, 1000);
	cr_assert_eq(real.send(a, bytes, (size_t)cut, 0), cut);
	atomic_fetch_add(&ca->s->H, sizeof(bytes));
	memset(back, 'r', 98);
	cr_assert_eq(send(a, back, 98, 0), 98);
	cr_assert_eq(X->puts, 1);
	fake_step(X, 100);
	sleeps();
	cr_assert_eq(real.send(a, bytes + cut, 1, 0), 1);
	cr_assert_eq(end(), how == RECV ? 100 : 1);
}

Test(lowat, ring_behind_a_frame_poll) { ring_behind_a_frame(POLL); }
Test(lowat, ring_behind_a_frame_epoll) { ring_behind_a_frame(EPOLL); }
Test(lowat, ring_behind_a_frame_epoll_et) { ring_behind_a_frame(EPOLL_ET); }
Test(lowat, ring_behind_a_frame_recv) { ring_behind_a_frame(RECV); }

/* what a receive has room for is enough */
Test(lowat, recv_of_less_than_the_mark)
{
	framed();
	mark(1000);
	begin(RECV, 5);
	say("four", false);
	sleeps();
	say("5", true);
	cr_assert_eq(end(), 5);
}

Test(lowat, recv_that_does_not_wait)
{
	struct timeval tv = { 0, 20000 };

	framed();
	mark(10);
	say("four", false);
	cr_assert_eq(recv(b, back, 100, MSG_PEEK | MSG_DONTWAIT), 4);
	cr_assert_eq(recv(b, back, 100, MSG_DONTWAIT), 4);
	expect_err(recv(b, back, 100, MSG_DONTWAIT), EAGAIN);
	say("five.", true);
	cr_assert_eq(setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
	cr_assert_eq(recv(b, back, 100, MSG_PEEK), 5);
	cr_assert_eq(recv(b, back, 100, 0), 5);
	expect_err(recv(b, back, 100, 0), EAGAIN);
}

/* a part by the ring, the rest plain, where the kernel's mark holds again */
Test(lowat, recv_across_a_return)
{
	framed();
	mark(10);
	begin(RECV, 100);
	say("four", false);
	sleeps();
	return_it();
	sleeps();
	cr_assert_eq(send(a, "plain", 5, 0), 5);
	sleeps();
	cr_assert_eq(send(a, "!", 1, 0), 1);
	cr_assert_eq(end(), 10);
	cr_assert_eq(memcmp(back, "fourplain!", 10), 0);
	cr_assert_eq(kernel_mark(), 10);
	cr_assert_eq(send(a, "more", 4, 0), 4);
	wait_inq(b, 4);
	expect_all(0);
	cr_assert_eq(send(a, "123456", 6, 0), 6);
	wait_inq(b, 10);
	expect_all(1);
}

/* the return is met by a wait, which has the kernel's answer with the program's mark */
static void return_under(enum how how)
{
	framed();
	mark(10);
	say("four", false);
	begin(how, 100);
	expect_str(b, 4, "four");
	return_it();
	cr_assert_eq(send(a, "plain", 5, 0), 5);
	sleeps();
	cr_assert_eq(atomic_load(&Y->rs->ystate), WSD_Y_DONE);
	cr_assert_eq(kernel_mark(), 10);
	cr_assert_eq(send(a, "plain", 5, 0), 5);
	cr_assert_eq(end(), 1);
}

Test(lowat, return_under_poll) { return_under(POLL); }
Test(lowat, return_under_select) { return_under(SELECT); }
Test(lowat, return_under_epoll) { return_under(EPOLL); }
Test(lowat, return_under_epoll_et) { return_under(EPOLL_ET); }

/* another thread lowers the mark to what the ring holds */
static void lowered(enum how how)
{
	framed();
	mark(10);
	begin(how, 100);
	say("seven..", false);
	sleeps();
	mark(7);
	cr_assert_eq(end(), 1);
}

Test(lowat, lowered_under_poll) { lowered(POLL); }
Test(lowat, lowered_under_select) { lowered(SELECT); }
Test(lowat, lowered_under_epoll) { lowered(EPOLL); }
Test(lowat, lowered_under_epoll_et) { lowered(EPOLL_ET); }

/* an end is readable whatever is before it */
static void ends(enum how how)
{
	framed();
	mark(10);
	say("four", false);
	begin(how, 100);
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	cr_assert_eq(end(), how == RECV ? 4 : 1);
}

Test(lowat, end_wakes_poll) { ends(POLL); }
Test(lowat, end_wakes_epoll) { ends(EPOLL); }
Test(lowat, end_wakes_epoll_et) { ends(EPOLL_ET); }
Test(lowat, end_wakes_recv) { ends(RECV); }

/* headers fill TCP's buffer before the stream's bytes come to the mark: it is readable, or both ends would wait for ever */
Test(lowat, no_room_for_the_mark)
{
	struct fake_opt o = { .rcvbuf = 16384 };
	unsigned n = 0, full = 0;
	int q = -1, v = 8000;

	make_ends(&o);
	fake_grant(Y);
	fake_start(X);
	mark(v);
	while (full < 20) {
		X->no_slot = 1;
		if (send(a, "x", 1, MSG_DONTWAIT) == 1) {
			n++;
			full = 0;
		} else {
			full++;
			usleep(2000);
		}
	}
	cr_assert_eq(ioctl(b, FIONREAD, &q), 0);
	cr_assert_lt(q, v);
	cr_assert_eq(readable(POLL, 2000), 1, "%d of %u bytes", q, n);
}

/* a mark that stood behind what has been read since is not left there */
static void lower_again(enum how how)
{
	framed();
	mark(10);
	say("a", true);
	say("b", true);
	say("c", true);
	expect_all(0);
	cr_assert_eq(recv(b, back, 100, MSG_DONTWAIT), 3);
	begin(how, 100);
	say("ten bytes.", true);
	cr_assert_eq(end(), how == RECV ? 10 : 1);
}

Test(lowat, lower_again_poll) { lower_again(POLL); }
Test(lowat, lower_again_epoll) { lower_again(EPOLL); }
Test(lowat, lower_again_epoll_et) { lower_again(EPOLL_ET); }
Test(lowat, lower_again_recv) { lower_again(RECV); }
