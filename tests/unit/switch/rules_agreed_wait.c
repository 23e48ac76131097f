/* SPDX-License-Identifier: MIT */
/*
 * rules_agreed_wait.c - waiting for connections to other hosts (rules A1, A2; docs/agreed.md) on the road of fake_road.h
 *
 * Threads that sleep are real ones; nothing here wakes them but what the rule says must: a test that hangs is one that failed. Where
 * a step must fall between a look and the sleep behind it, the kernel call of the sleep is hooked.
 */
#include <pthread.h>
#include <sys/select.h>

#include "tests/unit/switch/fake_ends.h"

#define LONG	20000		/* ms: not reached */

TestSuite(waits, .timeout = 60);

/* ---- ends ---- */

static int ep = -1;

static void set_make(int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.u64 = (uint64_t)fd };

	if (ep < 0)
		ep = epoll_create1(0);
	cr_assert_geq(ep, 0);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
}

static void framed(void)
{
	fake_grant(Y);
	fake_start(X);
}

static void framed_back(void)
{
	fake_grant(X);
	fake_start(Y);
}

/* lines of the kernel's set */
static int in_set(int set)
{
	char path[64], line[256];
	int n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", set);
	f = fopen(path, "r");
	cr_assert_not_null(f);
	while (fgets(line, sizeof(line), f))
		n += strncmp(line, "tfd:", 4) == 0;
	fclose(f);
	return n;
}

static int64_t ms_now(void)
{
	return road_now() / 1000000;
}

/* ---- a thread that waits ---- */

enum how { RECV, POLL, SELECT, EPOLL, N_HOW };

/* for who waits for b by epoll */
static void set_for(enum how how, uint32_t et)
{
	if (how != EPOLL)
		return;
	nonblock(b);
	set_make(b, EPOLLIN | et);
}

struct sleeper {
	pthread_t thread;
	enum how how;
	int fd, ret, err, got_fd;
	uint32_t events;
	int max;
	_Atomic int tid;
	_Atomic bool done;
};

static uint32_t wait_for(struct sleeper *s, int ms)
{
	struct epoll_event ev[8];
	struct pollfd p = { s->fd, POLLIN, 0 };
	struct timeval tv = { ms / 1000, ms % 1000 * 1000 };
	fd_set set;
	char c;

	switch (s->how) {
	case RECV:
		s->ret = (int)recv(s->fd, &c, 1, MSG_PEEK);
		s->events = s->ret > 0 ? POLLIN : 0;
		break;
	case POLL:
		s->ret = poll(&p, 1, ms);
		s->events = (uint16_t)p.revents;
		break;
	case SELECT:
		FD_ZERO(&set);
		FD_SET(s->fd, &set);
		s->ret = select(s->fd + 1, &set, NULL, NULL, &tv);
		s->events = s->ret > 0 && FD_ISSET(s->fd, &set) ? POLLIN : 0;
		break;
	default:
		s->ret = epoll_wait(ep, ev, s->max ? s->max : 8, ms);
		s->events = s->ret > 0 ? ev[0].events : 0;
		s->got_fd = s->ret > 0 ? (int)ev[0].data.u64 : -1;
	}
	s->err = errno;
	return s->events;
}

static void *sleeper_main(void *arg)
{
	struct sleeper *s = arg;

	atomic_store(&s->tid, (int)real.syscall(SYS_gettid));
	wait_for(s, LONG);
	atomic_store(&s->done, true);
	return NULL;
}

static void sleeper_begin(struct sleeper *s, enum how how, int fd)
{
	int max = s->max;

	*s = (struct sleeper){ .how = how, .fd = fd, .max = max };
	cr_assert_eq(pthread_create(&s->thread, NULL, sleeper_main, s), 0);
}

static void sleeper_end(struct sleeper *s)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += 8;
	cr_assert_eq(pthread_timedjoin_np(s->thread, NULL, &ts), 0, "nobody woke it");
}

/* it is in the kernel, and not for a moment */
static void until_asleep(struct sleeper *s)
{
	struct timespec nap = { 0, 200000 };
	int i, still = 0;

	for (i = 0; i < 20000 && still < 5; i++) {
		char path[64], line[256] = "";
		FILE *f;
		char *p;

		nanosleep(&nap, NULL);
		cr_assert_not(atomic_load(&s->done), "it did not sleep");
		if (!atomic_load(&s->tid))
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", atomic_load(&s->tid));
		f = fopen(path, "r");
		if (!f)
			continue;
		p = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
		fclose(f);
		still = p && p[2] == 'S' ? still + 1 : 0;
	}
	cr_assert_eq(still, 5, "it does not sleep");
}

static void send_x(const char *s)
{
	unsigned puts = X->puts;

	cr_assert_eq(send(a, s, strlen(s), 0), (ssize_t)strlen(s));
	cr_assert_gt(X->puts, puts, "it did not go by RDMA");
}

static char half[2048];

/* a frame whose ring bytes have not come: the kernel says readable, and it is not */
static void frame_first(void)
{
	cr_assert_eq(send(a, half, sizeof(half), 0), sizeof(half));
	cr_assert_eq(send(a, half, sizeof(half), 0), sizeof(half));
	cr_assert_eq(send(a, "frame", 5, 0), 5);
	cr_assert_eq(X->puts, 2);
	wait_inq(b, WSD_FRAME_SIZE + 5);
}

static void read_all(void)
{
	char buf[5000];
	size_t at = 0;

	while (at < 2 * sizeof(half) + 5) {
		ssize_t r = recv(b, buf + at, sizeof(buf) - at, 0);

		cr_assert_gt(r, 0, "%zd after %zu, errno %d", r, at, errno);
		at += (size_t)r;
	}
	cr_assert_eq(memcmp(buf + 2 * sizeof(half), "frame", 5), 0);
}

/* ---- A1: what arrives wakes who sleeps ---- */

static void wakes(enum how how, uint32_t et)
{
	struct sleeper s = { 0 };

	make_ends(NULL);
	set_for(how, et);
	framed();
	sleeper_begin(&s, how, b);
	until_asleep(&s);
	send_x("x");
	fake_step(X, 8);
	sleeper_end(&s);
	cr_assert_eq(s.ret, 1, "%d, errno %d", s.ret, s.err);
	cr_assert_eq(s.events, POLLIN);
	expect_str(b, 8, "x");
}

Test(waits, a1_sleeper_after_grant_wakes_recv) { wakes(RECV, 0); }
Test(waits, a1_sleeper_after_grant_wakes_poll) { wakes(POLL, 0); }
Test(waits, a1_sleeper_after_grant_wakes_select) { wakes(SELECT, 0); }
Test(waits, a1_sleeper_after_grant_wakes_epoll) { wakes(EPOLL, 0); }
Test(waits, a1_sleeper_after_grant_wakes_epoll_et) { wakes(EPOLL, EPOLLET); }

/* granted while it sleeps already: the wake descriptor comes to it */
static void wakes_before(enum how how, uint32_t et)
{
	struct sleeper s = { 0 };

	make_ends(NULL);
	set_for(how, et);
	sleeper_begin(&s, how, b);
	until_asleep(&s);
	framed();
	until_asleep(&s);
	send_x("x");
	fake_step(X, 8);
	sleeper_end(&s);
	cr_assert_eq(s.events, POLLIN);
	expect_str(b, 8, "x");
}

Test(waits, a1_sleeper_before_grant_wakes_poll) { wakes_before(POLL, 0); }
Test(waits, a1_sleeper_before_grant_wakes_select) { wakes_before(SELECT, 0); }
Test(waits, a1_sleeper_before_grant_wakes_epoll) { wakes_before(EPOLL, 0); }
Test(waits, a1_sleeper_before_grant_wakes_epoll_et) { wakes_before(EPOLL, EPOLLET); }

/* the same, many times over, without waiting until it sleeps: each place of the step is met some time */
static void often(enum how how, uint32_t et)
{
	struct timespec nap = { 0, 0 };
	char c;
	int i;

	make_ends(NULL);
	set_for(how, et);
	framed();
	cfg.road_spin_us = 0;
	for (i = 0; i < 400; i++) {
		struct sleeper s = { 0 };

		sleeper_begin(&s, how, b);
		nap.tv_nsec = (i * 7919) % 150000;
		nanosleep(&nap, NULL);
		send_x("x");
		fake_step(X, 8);
		sleeper_end(&s);
		cr_assert_eq(s.events, POLLIN, "round %d: %u", i, s.events);
		cr_assert_eq(recv(b, &c, 1, 0), 1);
		fake_all();
	}
}

Test(waits, a1_often_recv) { often(RECV, 0); }
Test(waits, a1_often_poll) { often(POLL, 0); }
Test(waits, a1_often_select) { often(SELECT, 0); }
Test(waits, a1_often_epoll) { often(EPOLL, 0); }
Test(waits, a1_often_epoll_et) { often(EPOLL, EPOLLET); }

Test(waits, a1_no_grant_over_sleeper)
{
	struct sleeper s = { 0 };
	struct thr *t;

	make_ends(NULL);
	sleeper_begin(&s, RECV, b);
	until_asleep(&s);
	t = cs_enter();
	cr_assert(rx_touch(cb));
	agreed_grant(t, cb, b);
	cs_leave(t);
	cr_assert_eq(atomic_load(&Y->rs->ystate), WSD_Y_PLAIN);
	cr_assert_eq(send(a, "x", 1, 0), 1);
	sleeper_end(&s);
}

Test(waits, a1_wake_only_after_grant)
{
	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN);
	cr_assert_eq(in_set(ep), 1);
	framed();
	cr_assert_eq(in_set(ep), 3);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_DEL, b, NULL), 0);
	cr_assert_eq(in_set(ep), 0, "the wake descriptors stayed in a set that does not need them");
	set_make(b, EPOLLIN);
	cr_assert_eq(in_set(ep), 3, "a granted connection came to a set, and nothing wakes that");
	close(b);
	cr_assert_eq(in_set(ep), 0);
}

Test(waits, a1_removed_when_lent)
{
	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN);
	framed();
	cr_assert_eq(in_set(ep), 3);
	eset_lent(ep);
	cr_assert_eq(in_set(ep), 1);
}

Test(waits, a1_removed_before_seccomp)
{
	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN);
	framed();
	eset_unwake_all();
	cr_assert_eq(in_set(ep), 1);
}

/* a set that somebody polls: its connections return to TCP, and meanwhile it is readable when they are */
Test(waits, g14_polled_set)
{
	struct pollfd p = { -1, POLLIN, 0 };

	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN);
	framed();
	p.fd = ep;
	cr_assert_eq(poll(&p, 1, 0), 0);
	cr_assert_neq(atomic_load(&Y->r->leave), 0);
	cr_assert_eq(Y->asked[WSD_SAN_WANT_RETURN], 1);
	cr_assert_eq(send(a, "x", 1, 0), 1);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE, "it did not return");
	fake_all();
	cr_assert_eq(poll(&p, 1, LONG), 1);
	cr_assert_eq(poll(&p, 1, LONG), 1);
	expect_str(b, 10, "x");
}

/*
 * A set that was polled gets no wake descriptors. What is put into it later is asked back to TCP, also where the other direction had left for a call
 * that only TCP has; and until it returns its ring is looked at in slices (twin seeds 1200 and 2205 over RDMA: they stood still)
 */
static void put_into_a_polled_set(void)
{
	struct pollfd p = { -1, POLLIN, 0 };

	make_ends(NULL);
	framed();
	send_x("y");
	fake_step(X, 8);
	expect_str(b, 8, "y");
	cr_assert(agreed_tx_plain(thr_get(), cb, b, 0));
	cr_assert_eq(Y->asked[WSD_SAN_WANT_RETURN], 0);
	ep = p.fd = epoll_create1(0);
	cr_assert_eq(poll(&p, 1, 0), 0);
	set_make(b, EPOLLIN);
	cr_assert_eq(in_set(ep), 1);
}

Test(waits, g14_into_a_polled_set_asks)
{
	put_into_a_polled_set();
	cr_assert_eq(Y->asked[WSD_SAN_WANT_RETURN], 1);
	(void)poll(&(struct pollfd){ ep, POLLIN, 0 }, 1, 0);
	cr_assert_eq(Y->asked[WSD_SAN_WANT_RETURN], 1, "once");
	cr_assert_eq(send(a, "x", 1, 0), 1);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE, "it did not return");
}

Test(waits, g14_into_a_polled_set_is_looked_at)
{
	struct sleeper s = { 0 };

	fake_daemons = false;
	put_into_a_polled_set();
	sleeper_begin(&s, EPOLL, b);
	until_asleep(&s);
	send_x("x");
	fake_step(X, 8);
	sleeper_end(&s);
	cr_assert_eq(s.events, POLLIN);
	expect_str(b, 8, "x");
}

/* An error that one of our calls met is as much an error as one that the kernel still keeps, until it is told (twin seed 3702 over RDMA) */
static void error_met_here(bool returning)
{
	struct pollfd p = { -1, POLLIN | POLLOUT | POLLRDHUP, 0 };
	struct linger l = { 1, 0 };
	struct epoll_event ev;
	socklen_t n = sizeof(int);
	int err = 0;

	make_ends(NULL);
	framed();
	send_x("y");
	fake_step(X, 8);
	expect_str(b, 8, "y");
	if (returning) {
		framed_back();
		agreed_leave(cb, WSD_R_OPTION);
	}
	cr_assert_eq(real.setsockopt(a, SOL_SOCKET, SO_LINGER, &l, sizeof(l)), 0);
	real.close(a);
	p.fd = b;
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(poll(&p, 1, LONG), 1);
		cr_assert_eq(p.revents, POLLIN | POLLOUT | POLLRDHUP | POLLERR | POLLHUP, "%#x", p.revents);
	}
	set_make(b, EPOLLIN | EPOLLRDHUP);
	cr_assert_eq(epoll_wait(ep, &ev, 1, LONG), 1);
	cr_assert_eq(ev.events, EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP, "%#x", ev.events);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_DEL, b, NULL), 0);
	set_make(b, EPOLLIN | EPOLLRDHUP | EPOLLET);
	cr_assert_eq(epoll_wait(ep, &ev, 1, LONG), 1);
	cr_assert_eq(ev.events, EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP, "%#x", ev.events);
	cr_assert_eq(epoll_wait(ep, &ev, 1, 0), 0, "an edge is told once: %#x", ev.events);
	cr_assert_eq(getsockopt(b, SOL_SOCKET, SO_ERROR, &err, &n), 0);
	cr_assert_eq(err, ECONNRESET);
	cr_assert_eq(poll(&p, 1, LONG), 1);
	cr_assert_eq(p.revents, POLLIN | POLLOUT | POLLRDHUP | POLLHUP, "%#x", p.revents);
}

Test(waits, error_met_by_a_look) { error_met_here(false); }
Test(waits, error_met_by_a_return) { error_met_here(true); }

/* Who never sleeps asks all the same: what has arrived is found without the device's event */
static void asks_without_sleeping(uint32_t et)
{
	struct epoll_event ev;
	int n = 0;

	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN | et);
	framed();
	cr_assert_eq(epoll_wait(ep, &ev, 1, 0), 0);
	for (int i = 0; i < 3; i++) {
		send_x("x");
		fake_step(X, 8);
		for (n = 0; n < 1000 && epoll_wait(ep, &ev, 1, 0) == 0; n++)
			;
		cr_assert_lt(n, 1000, "never");
		cr_assert_eq(n, 0);
		expect_str(b, 8, "x");
		(void)epoll_wait(ep, &ev, 1, 0);
	}
}

Test(waits, asks_without_sleeping) { asks_without_sleeping(0); }
Test(waits, asks_without_sleeping_et) { asks_without_sleeping(EPOLLET); }

/* an edge shows all that is ready, as TCP's does (twin seed 7007 over RDMA) */
Test(waits, edge_shows_both)
{
	struct epoll_event ev;

	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP);
	framed();
	while (epoll_wait(ep, &ev, 1, 0) > 0)
		;
	for (int i = 0; i < 3; i++) {
		send_x("x");
		fake_step(X, 8);
		cr_assert_eq(epoll_wait(ep, &ev, 1, 0), 1);
		cr_assert_eq(ev.events, EPOLLIN | EPOLLOUT, "%#x", ev.events);
		cr_assert_eq(epoll_wait(ep, &ev, 1, 0), 0);
		if (i == 1)
			expect_str(b, 8, "xx");
	}
}

/* two registrations with the same data: events cannot be told apart */
Test(waits, g18_same_data)
{
	struct epoll_event ev[4] = { { .events = EPOLLIN, .data.u64 = 9 } };

	make_ends(NULL);
	nonblock(a);
	nonblock(b);
	ep = epoll_create1(0);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, a, ev), 0);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, b, ev), 0);
	framed();
	cr_assert_eq(epoll_wait(ep, ev, 4, 0), 0);
	frame_first();
	real.epoll_wait = count_epoll;
	(void)epoll_wait(ep, ev, 4, 0);
	n_kernel_waits = 0;
	cr_assert_eq(epoll_wait(ep, ev, 4, 100), 0);
	cr_assert_leq(n_kernel_waits, 40);
	fake_step(X, 8);
	cr_assert_eq(epoll_wait(ep, ev, 4, LONG), 1);
	cr_assert_eq(ev[0].data.u64, 9);
	read_all();
}

static void ungranted(void)
{
	struct thr *t = cs_enter();

	cr_assert(rx_touch(cb));
	agreed_grant(t, cb, b);
	cs_leave(t);
	cr_assert_eq(atomic_load(&Y->rs->ystate), WSD_Y_PLAIN);
	cr_assert_eq(in_set(ep), 1);
}

Test(waits, a1_nested_set_gets_none)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int outer;

	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN);
	outer = epoll_create1(0);
	cr_assert_eq(epoll_ctl(outer, EPOLL_CTL_ADD, ep, &ev), 0);
	ungranted();
}

Test(waits, a1_set_nested_before_gets_none)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int outer;

	make_ends(NULL);
	nonblock(b);
	outer = epoll_create1(0);
	ep = epoll_create1(0);
	cr_assert_eq(epoll_ctl(outer, EPOLL_CTL_ADD, ep, &ev), 0);
	set_make(b, EPOLLIN);
	ungranted();
}

Test(waits, a1_inherited_set_gets_none)
{
	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN);
	eset_after_fork();		/* as in a child: the set is from before */
	ungranted();
}

Test(waits, a1_oneshot_gets_none)
{
	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN | EPOLLONESHOT);
	ungranted();
}

Test(waits, a1_uncovered_gets_none)
{
	make_ends(NULL);
	nonblock(b);
	ep = epoll_create1(0);
	set_make(a, EPOLLIN);
	ungranted();
}

static void nudge_y(void)
{
	cr_assert_eq(X->r->p.hold(X, 1), 0);
	X->r->p.nudge(X);
	X->r->p.release(X);
	fake_step(X, 1);
}

/* what is ours is not reported, and waiting goes on with the rest of the time */
Test(waits, a1_cookie_swallowed)
{
	struct epoll_event ev[4];
	struct pollfd p = { -1, POLLIN, 0 };
	int64_t t0;

	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN);
	framed();
	cr_assert_eq(ctl_road_arm(), 0);
	nudge_y();
	p.fd = ep;
	cr_assert_eq(real.poll(&p, 1, 0), 1, "the wake descriptor is not there");
	cr_assert_eq(epoll_wait(ep, ev, 4, 0), 0);
	cr_assert_eq(real.poll(&p, 1, 0), 0, "it was not drained");
	cr_assert_eq(ctl_road_arm(), 0);
	nudge_y();
	t0 = ms_now();
	real.epoll_wait = count_epoll;
	cr_assert_eq(epoll_wait(ep, ev, 1, 150), 0);
	cr_assert_geq(ms_now() - t0, 145);
	cr_assert_leq(n_kernel_waits, 12);
}

/* between arming and looking: arm() itself says so */
static void arrives(void)
{
	fake_step(X, 8);
}

static void arm_then_look(enum how how, uint32_t et)
{
	struct sleeper s = { .how = how };

	make_ends(NULL);
	s.fd = b;
	set_for(how, et);
	framed();
	send_x("x");
	fake_in_arm = arrives;
	cr_assert_eq(wait_for(&s, LONG), POLLIN);
	cr_assert_null(fake_in_arm);
}

Test(waits, a1_arm_then_look_recv) { arm_then_look(RECV, 0); }
Test(waits, a1_arm_then_look_poll) { arm_then_look(POLL, 0); }
Test(waits, a1_arm_then_look_select) { arm_then_look(SELECT, 0); }
Test(waits, a1_arm_then_look_epoll) { arm_then_look(EPOLL, 0); }
Test(waits, a1_arm_then_look_epoll_et) { arm_then_look(EPOLL, EPOLLET); }

/* another thread took the completion, not the event's consequences: only the count of changes tells */
static void arrives_and_is_taken(void)
{
	fake_step(X, 8);
	fake_poll(X);
	fake_poll(Y);
}

Test(waits, a1_taken_by_another_before_the_look)
{
	struct sleeper s = { 0 };
	int h;

	make_ends(NULL);
	framed();
	for (h = RECV; h < EPOLL; h++) {
		char c;

		s.how = (enum how)h;
		s.fd = b;
		send_x("x");
		fake_in_arm = arrives_and_is_taken;
		cr_assert_eq(wait_for(&s, LONG), POLLIN, "%d", h);
		cr_assert_eq(recv(b, &c, 1, 0), 1);
		fake_all();
	}
}

/* ---- two who sleep ---- */

static _Atomic int late_tid;
static _Atomic bool let_go;

/* the late one stays between its look and its sleep until the other one has taken the event */
static int late_ppoll(struct pollfd *p, nfds_t n, const struct timespec *to, const sigset_t *mask)
{
	struct timespec nap = { 0, 100000 };

	if ((int)real.syscall(SYS_gettid) == atomic_load(&late_tid))
		while (!atomic_load(&let_go))
			nanosleep(&nap, NULL);
	return libc_calls.ppoll(p, n, to, mask);
}

Test(waits, a1_two_waiters_both_wake)
{
	struct sleeper s[2] = { { 0 }, { 0 } };
	struct timespec nap = { 0, 100000 };
	enum how h[2][2] = { { RECV, RECV }, { POLL, SELECT } };
	char c;
	int i;

	make_ends(NULL);
	framed();
	framed_back();
	cfg.road_spin_us = 0;
	real.ppoll = late_ppoll;
	for (i = 0; i < 2; i++) {
		unsigned was;

		atomic_store(&let_go, false);
		atomic_store(&late_tid, 0);
		sleeper_begin(&s[0], h[i][0], b);
		until_asleep(&s[0]);
		was = fake_armed;
		sleeper_begin(&s[1], h[i][1], a);
		while (!atomic_load(&s[1].tid))
			nanosleep(&nap, NULL);
		atomic_store(&late_tid, atomic_load(&s[1].tid));
		while (__atomic_load_n(&fake_armed, __ATOMIC_SEQ_CST) == was)
			nanosleep(&nap, NULL);
		cr_assert_eq(send(a, "x", 1, 0), 1);
		cr_assert_eq(send(b, "y", 1, 0), 1);
		fake_step(X, 8);
		fake_step(Y, 8);
		sleeper_end(&s[0]);
		atomic_store(&let_go, true);
		sleeper_end(&s[1]);
		cr_assert_eq(recv(b, &c, 1, 0), 1);
		cr_assert_eq(recv(a, &c, 1, 0), 1);
		fake_all();
	}
}

Test(waits, a1_two_waiters_often)
{
	struct timespec nap = { 0, 0 };
	char c;
	int i;

	make_ends(NULL);
	nonblock(a);
	set_make(a, EPOLLIN | EPOLLET);
	framed();
	framed_back();
	cfg.road_spin_us = 0;
	for (i = 0; i < 400; i++) {
		struct sleeper s[2] = { { 0 }, { 0 } };

		sleeper_begin(&s[0], (enum how)(i % 3), b);
		sleeper_begin(&s[1], EPOLL, a);
		nap.tv_nsec = (i * 7919) % 200000;
		nanosleep(&nap, NULL);
		cr_assert_eq(send(a, "x", 1, 0), 1);
		cr_assert_eq(send(b, "y", 1, 0), 1);
		fake_step(X, 8);
		fake_step(Y, 8);
		sleeper_end(&s[0]);
		sleeper_end(&s[1]);
		cr_assert_eq(recv(b, &c, 1, 0), 1);
		cr_assert_eq(recv(a, &c, 1, 0), 1);
		fake_all();
	}
}

/* two connections became readable with one event; both who wait in the set have something to do (F16) */
static void passed_on(uint32_t et)
{
	struct timespec nap = { 0, 0 };
	char c;
	int i;

	make_ends(NULL);
	nonblock(a);
	nonblock(b);
	set_make(a, EPOLLIN | et);
	set_make(b, EPOLLIN | et);
	framed();
	framed_back();
	cfg.road_spin_us = 0;
	for (i = 0; i < 200; i++) {
		struct sleeper s[2] = { { .max = 1 }, { .max = 1 } };

		sleeper_begin(&s[0], EPOLL, a);
		sleeper_begin(&s[1], EPOLL, b);
		nap.tv_nsec = (i * 7919) % 300000;
		nanosleep(&nap, NULL);
		cr_assert_eq(send(a, "x", 1, 0), 1);
		cr_assert_eq(send(b, "y", 1, 0), 1);
		fake_step(X, 8);
		fake_step(Y, 8);
		sleeper_end(&s[0]);
		sleeper_end(&s[1]);
		cr_assert_eq(s[0].ret, 1);
		cr_assert_eq(s[1].ret, 1);
		cr_assert_eq(recv(b, &c, 1, 0), 1);
		cr_assert_eq(recv(a, &c, 1, 0), 1);
		fake_all();
	}
}

Test(waits, f16_wake_is_passed_on) { passed_on(0); }
Test(waits, f16_wake_is_passed_on_et) { passed_on(EPOLLET); }

/* ---- A2: while the direction is being started ---- */

static uint32_t once(int ms)
{
	struct epoll_event ev;

	return epoll_wait(ep, &ev, 1, ms) > 0 ? ev.events : 0;
}

/* an edge-triggered set has been told that a is writable, and the direction is being started */
static void starting(void)
{
	make_ends(NULL);
	nonblock(a);
	set_make(a, EPOLLIN | EPOLLOUT | EPOLLET);
	cr_assert_eq(once(0), EPOLLOUT);
	fake_grant(Y);
	cr_assert_eq(once(0), 0);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_STARTING);
}

Test(waits, a2_send_meanwhile_eagain_and_edge)
{
	starting();
	cr_assert_eq(in_set(ep), 3, "who starts must be woken");
	expect_err(send(a, "x", 1, 0), EAGAIN);
	cr_assert(atomic_load(&X->r->start_seen));
	cr_assert_eq(once(60), 0, "writable while it is being started");
	fake_all();
	cr_assert_eq(once(LONG), EPOLLOUT, "no edge");
	cr_assert_eq(once(0), 0, "twice");
	send_x("x");
}

static void started_by_a_send(void)
{
	size_t n = 0;
	ssize_t r;

	fill_big();
	while ((r = send(a, big, 32768, 0)) > 0) {
		n += (size_t)r;
		cr_assert_leq(n, 1u << 20, "it never starts");
		while (recv(b, back, sizeof(back), MSG_DONTWAIT) > 0)
			;
	}
	cr_assert_eq(errno, EAGAIN);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_STARTING);
}

/* The edge that a send is owed which Start refused comes though the session is over before the next look, or another one has begun */
static void owed(bool looks, bool renewed)
{
	make_ends(NULL);
	nonblock(a);
	set_make(a, EPOLLIN | EPOLLOUT | EPOLLET);
	cr_assert_eq(once(0), EPOLLOUT);
	fake_grant(Y);
	started_by_a_send();
	if (looks)
		cr_assert_eq(once(0), 0);
	if (renewed) {
		atomic_store(&X->rs->xstate, WSD_X_PLAIN);	/* as of a new session */
		X->ctl->grant = (typeof(X->ctl->grant)){ 0 };
		eset_attached(ca);
	} else {
		atomic_store(&ca->stage, ST_NEW);
	}
	cr_assert_eq(once(2000), EPOLLOUT, "no edge");	/* less than a start may take */
	cr_assert_eq(once(0), 0, "twice");
}

Test(waits, a2_edge_outlives_the_session) { owed(true, false); }
Test(waits, a2_edge_outlives_the_session_unseen) { owed(false, false); }
Test(waits, a2_edge_outlives_a_renewal) { owed(true, true); }
Test(waits, a2_edge_outlives_a_renewal_unseen) { owed(false, true); }

/* a start that a send makes, not a wait: who sleeps in the set meanwhile has not looked since (F15) */
Test(waits, f15_start_wakes_the_set)
{
	struct sleeper s = { 0 };

	make_ends(NULL);
	nonblock(a);
	set_make(a, EPOLLIN | EPOLLOUT | EPOLLET);
	cr_assert_eq(once(0), EPOLLOUT);
	sleeper_begin(&s, EPOLL, a);
	until_asleep(&s);
	fake_grant(Y);
	started_by_a_send();
	cr_assert_eq(in_set(ep), 3, "who starts must be woken");
	fake_step(X, 8);
	sleeper_end(&s);
	cr_assert_eq(s.events, EPOLLOUT);
}

/*
 * A start that cannot be just now is none that others see, and wait for: the set is within another one, or somebody is at it. The mark of one who
 * waited says whether a start was begun and put off
 */
Test(waits, a2_no_start_to_be_seen_in_a_nested_set)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int outer = epoll_create1(0);

	ep = epoll_create1(0);
	cr_assert_eq(epoll_ctl(outer, EPOLL_CTL_ADD, ep, &ev), 0);
	make_ends(NULL);
	nonblock(a);
	set_make(a, EPOLLIN);
	fake_grant(Y);
	atomic_store(&X->r->start_seen, true);
	cr_assert_eq(once(0), 0);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_PLAIN);
	cr_assert(atomic_load(&X->r->start_seen), "it was seen");
}

static int (*fake_road_poll)(void *);
static typeof(((struct wsd_remote_ctl *)0)->grant) kept_grant;
static int seen_busy = -1;

static void *obeys(void *arg)
{
	struct thr *t = cs_enter();

	agreed_obey(t, ca, a, true);
	cs_leave(t);
	return arg;
}

/* below the set's lock */
static int busy_poll(void *conn)
{
	pthread_t th;

	Y->r->p.poll = fake_road_poll;
	X->ctl->grant = kept_grant;
	atomic_store(&X->r->start_seen, true);
	cr_assert_eq(pthread_create(&th, NULL, obeys, NULL), 0);
	pthread_join(th, NULL);
	seen_busy = (int)atomic_load(&X->rs->xstate);
	cr_assert(atomic_load(&X->r->start_seen), "it was seen");
	return fake_road_poll(conn);
}

Test(waits, a2_no_start_to_be_seen_in_a_busy_set)
{
	make_ends(NULL);
	nonblock(a);
	nonblock(b);
	set_make(a, EPOLLIN);
	set_make(b, EPOLLIN);
	fake_grant(Y);
	kept_grant = X->ctl->grant;
	X->ctl->grant = (typeof(kept_grant)){ 0 };
	fake_road_poll = Y->r->p.poll;
	Y->r->p.poll = busy_poll;
	cr_assert_eq(once(0), 0);
	cr_assert_eq(seen_busy, WSD_X_PLAIN);
	obeys(NULL);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_STARTING, "and with nobody at it");
}

/* a start that is put off all the same is a change for who waited for it; without one it is none, or who tries before each sleep would not sleep */
Test(waits, a2_put_off_is_a_change)
{
	uint32_t was;
	int i;

	make_ends(NULL);
	fake_grant(Y);
	for (i = 1; i >= 0; i--) {
		atomic_store(&X->r->start_seen, i);
		X->no_slot = 1;
		was = road_changes(X->r);
		obeys(NULL);
		cr_assert_eq(X->no_slot, 0, "it was not tried");
		cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_PLAIN);
		cr_assert_eq(road_changes(X->r) - was, (uint32_t)i);
	}
	obeys(NULL);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_STARTING);
}

/* The start is over, and its edge told, while the send that it was to refuse is about to say that one is due: nobody would look for that */
static void *looks_once(void *arg)
{
	*(uint32_t *)arg = once(LONG);
	return NULL;
}

static uint32_t seen_meanwhile;

static void over_meanwhile(void)
{
	pthread_t th;

	in_yield = NULL;
	atomic_store(&ca->s->open_lock, 0);
	fake_done(X);
	cr_assert_eq(pthread_create(&th, NULL, looks_once, &seen_meanwhile), 0);
	pthread_join(th, NULL);
	cr_assert_eq(seen_meanwhile, EPOLLOUT);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_FRAMED);
}

Test(waits, a2_not_refused_by_a_start_that_is_over)
{
	starting();
	X->done_held = true;
	fake_step(X, 8);
	cfg.spin_us = 0;
	atomic_store(&ca->s->open_lock, 1);	/* as if another thread had it: eset_owe_out() waits for it */
	in_yield = over_meanwhile;
	cr_assert_eq(send(a, "x", 1, 0), 1, "errno %d: and no edge will come", errno);
	cr_assert_eq(seen_meanwhile, EPOLLOUT, "it did not get there");
	fake_all();
	expect_str(b, 8, "x");
}

/* ... and who sleeps in a set that roads wake already looks at the start, which nothing may end but time */
Test(waits, a2_refusal_wakes_the_set)
{
	struct sleeper s = { 0 };
	typeof(X->ctl->grant) grant;

	make_ends(NULL);
	nonblock(a);
	set_make(a, EPOLLIN | EPOLLOUT | EPOLLET);
	framed_back();
	cr_assert_eq(once(0), EPOLLOUT);
	cr_assert_eq(in_set(ep), 3);
	fake_grant(Y);
	grant = X->ctl->grant;
	X->ctl->grant = (typeof(grant)){ 0 };
	sleeper_begin(&s, EPOLL, a);
	until_asleep(&s);
	X->lossy = true;
	X->ctl->grant = grant;		/* a write of the peer's, which wakes nobody */
	started_by_a_send();
	X->r->start_when -= (uint64_t)US(6e6);
	sleeper_end(&s);
	cr_assert_eq(s.events, EPOLLOUT);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
}

/* the edge also wakes who sleeps, and nothing spins meanwhile */
Test(waits, a2_edge_wakes)
{
	struct sleeper s = { 0 };

	make_ends(NULL);
	nonblock(a);
	set_make(a, EPOLLIN | EPOLLOUT | EPOLLET);
	cr_assert_eq(once(0), EPOLLOUT);
	fake_grant(Y);
	sleeper_begin(&s, EPOLL, a);
	until_asleep(&s);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_STARTING);
	fake_step(X, 8);
	sleeper_end(&s);
	cr_assert_eq(s.events, EPOLLOUT);
}

Test(waits, a2_level_triggered)
{
	make_ends(NULL);
	nonblock(a);
	set_make(a, EPOLLIN | EPOLLOUT);
	cr_assert_eq(once(0), EPOLLOUT);
	fake_grant(Y);
	real.epoll_wait = count_epoll;
	cr_assert_eq(once(60), 0, "writable while it is being started");
	cr_assert_leq(n_kernel_waits, 60, "it spins");
	fake_all();
	cr_assert_eq(once(LONG), EPOLLOUT);
	cr_assert_eq(once(LONG), EPOLLOUT);
}

Test(waits, a2_poll_and_select)
{
	struct pollfd p = { -1, POLLIN | POLLOUT, 0 };
	struct timeval tv = { 0, 50000 };
	fd_set w;

	make_ends(NULL);
	fake_grant(Y);
	p.fd = a;
	cr_assert_eq(poll(&p, 1, 50), 0);
	FD_ZERO(&w);
	FD_SET(a, &w);
	cr_assert_eq(select(a + 1, NULL, &w, NULL, &tv), 0);
	cr_assert_not(FD_ISSET(a, &w));
	fake_all();
	cr_assert_eq(poll(&p, 1, LONG), 1);
	cr_assert_eq(p.revents, POLLOUT);
	FD_SET(a, &w);
	cr_assert_eq(select(a + 1, NULL, &w, NULL, NULL), 1);
	cr_assert(FD_ISSET(a, &w));
}

/* ---- what TCP has need not be readable ---- */

static void behind(enum how how, uint32_t et)
{
	struct sleeper s = { .how = how };

	make_ends(NULL);
	s.fd = b;
	set_for(how, et);
	framed();
	frame_first();
	real.epoll_wait = count_epoll;
	real.ppoll = count_ppoll;
	cr_assert_eq(wait_for(&s, 100), 0, "readable without a byte to read");
	cr_assert_leq(n_kernel_waits, 40, "it spins");
	real.epoll_wait = libc_calls.epoll_wait;
	sleeper_begin(&s, how, b);
	until_asleep(&s);
	fake_step(X, 8);
	sleeper_end(&s);
	cr_assert_eq(s.events, POLLIN);
	read_all();
}

Test(waits, a3_behind_poll) { behind(POLL, 0); }
Test(waits, a3_behind_select) { behind(SELECT, 0); }
Test(waits, a3_behind_epoll) { behind(EPOLL, 0); }
Test(waits, a3_behind_epoll_et) { behind(EPOLL, EPOLLET); }

/* a session is over while the kernel's mask is held back for it: from here on the kernel knows all there is (D13) */
Test(waits, d13_mask_after_the_session)
{
	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN);
	framed();
	frame_first();
	cr_assert_eq(once(30), 0);
	atomic_store(&cb->stage, ST_NEW);
	cr_assert_eq(once(LONG), EPOLLIN);
}

/* level-triggered: reported while there is something, by whichever road */
Test(waits, level_while_readable)
{
	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN);
	framed();
	send_x("ab");
	fake_all();
	cr_assert_eq(once(0), EPOLLIN);
	cr_assert_eq(once(0), EPOLLIN);
	expect_str(b, 1, "a");
	cr_assert_eq(once(LONG), EPOLLIN);
	expect_str(b, 1, "b");
	cr_assert_eq(once(0), 0);
	expect_err(recv(b, half, 1, 0), EAGAIN);
}

/* a frame behind ring bytes: both are read without a wait between */
Test(waits, level_across_the_seam)
{
	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN);
	framed();
	frame_first();
	fake_all();
	cr_assert_eq(once(LONG), EPOLLIN);
	cr_assert_eq(recv(b, half, sizeof(half), 0), sizeof(half));
	cr_assert_eq(recv(b, half, sizeof(half), 0), sizeof(half));
	cr_assert_eq(once(LONG), EPOLLIN);
	expect_str(b, 10, "frame");
	cr_assert_eq(once(0), 0);
}

/* edge-triggered: one edge for each arrival */
Test(waits, edge_for_each_arrival)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.u64 = 7 };

	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN | EPOLLET);
	framed();
	send_x("ab");
	fake_all();
	cr_assert_eq(once(0), EPOLLIN);
	cr_assert_eq(once(0), 0);
	expect_str(b, 1, "a");
	cr_assert_eq(once(0), 0, "an edge for what was there");
	nudge_y();
	cr_assert_eq(once(0), 0, "an edge for a change that brought nothing");
	send_x("c");
	fake_all();
	cr_assert_eq(once(LONG), EPOLLIN, "no edge for an arrival behind unread bytes");
	cr_assert_eq(once(0), 0);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_MOD, b, &ev), 0);
	cr_assert_eq(once(0), EPOLLIN, "MOD re-arms");
	expect_str(b, 10, "bc");
	cr_assert_eq(once(0), 0);
}

/* a return has the daemons bring what is not known to be read, also where it is there; and an edge is for what is not (twin seed 56 over RDMA) */
Test(waits, no_edge_for_what_is_brought_twice)
{
	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN | EPOLLET);
	framed();
	send_x("ab");
	fake_all();
	cr_assert_eq(once(0), EPOLLIN);
	fake_fill(X, 0, 2);
	fake_all();
	cr_assert_eq(once(0), 0, "an edge for what was there");
	X->lossy = true;
	send_x("cd");
	cr_assert_eq(once(0), 0);
	fake_fill(X, 0, 4);
	fake_all();
	cr_assert_eq(once(LONG), EPOLLIN, "no edge for what the daemons brought");
	expect_str(b, 10, "abcd");
	cr_assert_eq(once(0), 0);
}

/* a header that stands for no bytes: the kernel says readable */
static void empty_frame(void)
{
	struct wsd_frame f = { .nonce = X->r->nonce, .epoch = X->r->epoch, .kind = WSD_FRAME_EMPTY, .ring_off = atomic_load(&X->rs->posted) };
	uint8_t hdr[WSD_FRAME_SIZE];

	frame_put(hdr, &f);
	cr_assert_eq(real.send(a, hdr, sizeof(hdr), 0), sizeof(hdr));
	atomic_fetch_add(&ca->s->H, sizeof(hdr));
	wait_inq(b, sizeof(hdr));
}

/* What is ours in TCP, a return and what it repeats, an empty frame, is no arrival: an edge for it would be one that TCP does not give */
enum unread { BY_RING, BY_FRAME, BY_BOTH };

static void unread(enum unread how)
{
	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN | EPOLLET);
	framed();
	X->no_slot = 1;		/* TCP is at another offset than the first */
	cr_assert_eq(send(a, "z", 1, 0), 1);
	wait_inq(b, WSD_FRAME_SIZE + 1);
	expect_str(b, 8, "z");
	if (how != BY_FRAME)
		send_x("ab");
	if (how != BY_RING) {
		X->no_slot = 1;
		cr_assert_eq(send(a, "cd", 2, 0), 2);
		wait_inq(b, WSD_FRAME_SIZE + 2);
	}
	fake_all();
	cr_assert_eq(once(0), EPOLLIN);
	cr_assert_eq(once(0), 0);
}

static void x_returns(void)
{
	struct thr *t = cs_enter();

	agreed_leave(ca, WSD_R_OPTION);
	agreed_obey(t, ca, a, true);
	cs_leave(t);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
	wait_inq(b, (int)(atomic_load(&ca->s->H) - atomic_load(&cb->s->C)));
}

static void no_edge_for_ours(enum unread how, bool returns)
{
	char buf[8] = "";

	unread(how);
	if (returns)
		x_returns();
	else
		empty_frame();
	fake_all();
	cr_expect_eq(once(0), 0, "an edge for a header");
	cr_expect_eq(once(0), 0);
	if (how == BY_BOTH) {
		cr_assert_eq(recv(b, buf, 4, MSG_WAITALL), 4);
		cr_assert_eq(memcmp(buf, "abcd", 4), 0);
	} else {
		expect_str(b, 8, how == BY_RING ? "ab" : "cd");
	}
	cr_expect_eq(once(0), 0);
	expect_err(recv(b, buf, 8, 0), EAGAIN);
	cr_assert_eq(send(a, "e", 1, 0), 1);
	fake_all();
	cr_assert_eq(once(LONG), EPOLLIN, "no edge for an arrival");
	cr_assert_eq(once(0), 0);
	expect_str(b, 8, "e");
}

Test(waits, no_edge_for_an_unread_return_ring) { no_edge_for_ours(BY_RING, true); }
Test(waits, no_edge_for_an_unread_return_frame) { no_edge_for_ours(BY_FRAME, true); }
Test(waits, no_edge_for_an_unread_return_both) { no_edge_for_ours(BY_BOTH, true); }
Test(waits, no_edge_for_an_empty_frame_ring) { no_edge_for_ours(BY_RING, false); }
Test(waits, no_edge_for_an_empty_frame_frame) { no_edge_for_ours(BY_FRAME, false); }
Test(waits, no_edge_for_an_empty_frame_both) { no_edge_for_ours(BY_BOTH, false); }

/* ... but what brings a byte, or the end, is one, whatever is unread */
enum news { A_FRAME, A_LONG_FRAME, LOST_BYTES, THE_END, BEHIND_OURS, N_NEWS };

static void edge_for_news(enum unread how)
{
	enum news what;

	for (what = A_FRAME; what < N_NEWS; what++) {
		unread(how);
		switch (what) {
		case BEHIND_OURS:
			empty_frame();
			cr_assert_eq(once(0), 0);
			/* fall through */
		case A_FRAME:
		case A_LONG_FRAME:
			X->no_slot = 1;
			cr_assert_eq(send(a, half, what == A_LONG_FRAME ? sizeof(half) : 1, 0), what == A_LONG_FRAME ? sizeof(half) : 1);
			break;
		case LOST_BYTES:
			X->lossy = true;
			send_x("ef");
			fake_fail(X, -ECONNRESET);
			x_returns();
			break;
		default:
			cr_assert_eq(shutdown(a, SHUT_WR), 0);
			wait_fin(b);
		}
		wait_inq(b, (int)(atomic_load(&ca->s->H) - atomic_load(&cb->s->C)));
		cr_assert_eq(once(LONG), EPOLLIN, "no edge for %d", what);
		cr_assert_eq(once(0), 0, "twice for %d", what);
		close(a);
		close(b);
		close(ep);
		ep = -1;
	}
}

Test(waits, edge_for_news_behind_unread_ring) { edge_for_news(BY_RING); }
Test(waits, edge_for_news_behind_unread_frame) { edge_for_news(BY_FRAME); }
Test(waits, edge_for_news_behind_unread_both) { edge_for_news(BY_BOTH); }

/* Bytes on both roads are one edge, though what is ours in the set takes the place of the kernel's (twin seed 56 over RDMA) */
Test(waits, one_edge_for_both_roads)
{
	struct epoll_event ev[4];
	int max;

	for (max = 1; max <= 4; max++) {
		make_ends(NULL);
		nonblock(b);
		set_make(b, EPOLLIN | EPOLLET);
		framed();
		cr_assert_eq(once(20), 0);	/* armed: the device's descriptor is readable from the next arrival on */
		send_x("ab");
		fake_all();
		X->no_slot = 1;
		cr_assert_eq(send(a, "c", 1, 0), 1);
		wait_inq(b, WSD_FRAME_SIZE + 1);
		cr_assert_eq(epoll_wait(ep, ev, max, 0), 1);
		cr_assert_eq(ev[0].events, EPOLLIN);
		cr_assert_eq(epoll_wait(ep, ev, max, 0), 0, "twice, with room for %d", max);
		expect_str(b, 10, "abc");
		cr_assert_eq(epoll_wait(ep, ev, max, 0), 0);
		close(a);
		close(b);
	}
}

/* ... but where the kernel had room for more it told all there was */
static void no_wait_more(uint32_t et)
{
	struct sleeper s = { 0 };
	int i;

	make_ends(NULL);
	set_for(EPOLL, et);
	framed();
	cfg.road_spin_us = 0;
	real.epoll_wait = count_epoll;
	for (i = 0; i < 3; i++) {
		sleeper_begin(&s, EPOLL, b);
		until_asleep(&s);
		n_kernel_waits = 0;
		send_x("x");
		fake_step(X, 8);
		sleeper_end(&s);
		cr_assert_eq(s.events, POLLIN);
		cr_expect_leq(n_kernel_waits, 1, "%u in round %d", n_kernel_waits, i);	/* once the device was drained */
		expect_str(b, 8, "x");
		fake_all();
	}
}

Test(waits, device_wake_up_costs_one_wait) { no_wait_more(0); }
Test(waits, device_wake_up_costs_one_wait_et) { no_wait_more(EPOLLET); }

/*
 * An event that uses a one-shot registration up is told once, also where the session came, or a start of it had the set woken by roads, while the
 * wait for it slept (no wait with roads): what the kernel is told of the registration later must not arm it again
 */
static struct conn *attaches;
static bool listed;

static int attach_then_wait(int set, struct epoll_event *ev, int max, int ms)
{
	struct conn *c = attaches;

	attaches = NULL;
	if (c) {
		atomic_store(&c->stage, ST_AGREED);
		eset_attached(c);
		cr_assert(!listed || eset_wake(c));
	}
	return libc_calls.epoll_wait(set, ev, max, ms);
}

static void oneshot_once(int ms, bool woken)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLONESHOT, .data.u64 = 5 };

	make_ends(NULL);
	nonblock(b);
	atomic_store(&cb->stage, ST_TCP);
	set_make(b, ev.events);
	cr_assert_eq(send(a, "plain", 5, 0), 5);
	wait_inq(b, 5);
	attaches = cb;
	listed = woken;
	real.epoll_wait = attach_then_wait;
	cr_assert_eq(once(ms), EPOLLIN | EPOLLOUT);
	cr_assert_null(attaches);
	cr_assert_eq(once(0), 0, "twice");
	fake_grant(X);
	cr_assert_eq(once(0), 0, "twice");
	cr_assert_eq(atomic_load(&Y->rs->xstate), WSD_X_STARTING);
	cr_assert_eq(once(0), 0, "twice, armed by what the start holds back");
	fake_all();
	cr_assert_eq(once(0), 0, "twice");
	cr_assert_eq(atomic_load(&Y->rs->xstate), WSD_X_FRAMED);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_MOD, b, &ev), 0);
	cr_assert_eq(once(LONG), EPOLLIN | EPOLLOUT, "MOD arms it again");
	cr_assert_eq(once(0), 0);
}

Test(waits, oneshot_in_a_wait_without_roads) { oneshot_once(LONG, false); }
Test(waits, oneshot_in_a_wait_that_got_roads) { oneshot_once(LONG, true); }
Test(waits, oneshot_in_a_look_without_roads) { oneshot_once(0, false); }
Test(waits, oneshot_in_a_look_that_got_roads) { oneshot_once(0, true); }

/* with room for one event it has to, and only where there are edges */
static void one_at_a_time(uint32_t et)
{
	struct epoll_event ev;

	make_ends(NULL);
	set_for(EPOLL, et);
	framed();
	cr_assert_eq(epoll_wait(ep, &ev, 1, 20), 0);
	send_x("x");
	fake_all();
	real.epoll_wait = count_epoll;
	n_kernel_waits = 0;
	cr_assert_eq(epoll_wait(ep, &ev, 1, 0), 1);
	cr_assert_eq(ev.events, EPOLLIN);
	if (!et)
		cr_expect_eq(n_kernel_waits, 1, "%u", n_kernel_waits);
	expect_str(b, 8, "x");
}

Test(waits, one_at_a_time) { one_at_a_time(0); }
Test(waits, one_at_a_time_et) { one_at_a_time(EPOLLET); }

/* the kernel's edge is taken by the wait that also learns of the session, and is told all the same; and so is its last event (twin seed 2 over RDMA) */
static void edge_when_attached(uint32_t events)
{
	make_ends(NULL);
	nonblock(b);
	atomic_store(&cb->stage, ST_TCP);
	set_make(b, events);
	cr_assert_eq(send(a, "plain", 5, 0), 5);
	wait_inq(b, 5);
	atomic_store(&cb->stage, ST_AGREED);
	eset_attached(cb);
	cr_assert_eq(once(0), EPOLLIN);
	cr_assert_eq(once(0), 0);
	expect_str(b, 10, "plain");
}

Test(waits, edge_when_attached_et) { edge_when_attached(EPOLLIN | EPOLLET); }
Test(waits, edge_when_attached_oneshot) { edge_when_attached(EPOLLIN | EPOLLONESHOT); }

/*
 * A set that is polled itself has nothing to report because something of ours came: neither when its direction was given back just now (twin seed 16
 * over RDMA), nor while it is on its way
 */
static void polled_set(bool started)
{
	struct pollfd p = { -1, POLLIN, 0 };

	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN);
	fake_grant(Y);
	if (started)
		fake_start(X);
	fake_in_arm = nudge_y;	/* behind the look */
	p.fd = ep;
	cr_assert_eq(poll(&p, 1, 0), 0, "nothing is there");
	cr_assert_eq(in_set(ep), started ? 3 : 1);
	cr_assert_eq(send(a, "x", 1, 0), 1);
	fake_all();
	cr_assert_eq(poll(&p, 1, LONG), 1);
	cr_assert_eq(once(LONG), EPOLLIN);
	expect_str(b, 10, "x");
}

Test(waits, polled_set_of_a_grant) { polled_set(false); }
Test(waits, polled_set_of_frames) { polled_set(true); }

/* where what looks at a set, and what begins, meet: at the kernel's set (each marks itself first, and then looks for the other) */
static int seen_x[8], seen_nested;
static unsigned n_added;

static int marked_first(int set, int op, int fd, struct epoll_event *ev)
{
	if (op == EPOLL_CTL_ADD && n_added < 8)
		seen_x[n_added++] = (int)atomic_load(&X->rs->xstate);
	if (op == EPOLL_CTL_DEL)
		seen_nested += eset_sleepers(ca) ? 1 : 100;
	return libc_calls.epoll_ctl(set, op, fd, ev);
}

Test(waits, start_and_nesting_see_each_other)
{
	struct pollfd p = { -1, POLLIN, 0 };

	make_ends(NULL);
	nonblock(a);
	set_make(a, EPOLLIN);
	real.epoll_ctl = marked_first;
	fake_grant(Y);
	cr_assert_eq(once(0), 0);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_STARTING);
	cr_assert_eq(n_added, 2);
	cr_assert(seen_x[0] == WSD_X_STARTING && seen_x[1] == WSD_X_STARTING, "a set that is nested just now takes them out");
	atomic_store(&ca->stage, ST_NEW);	/* the session is over */
	p.fd = ep;
	cr_assert_eq(poll(&p, 1, 0), 0);
	cr_assert_eq(seen_nested, 2, "a start of just now sees no nested set: %d", seen_nested);
}

/* A set within another is not looked at when that is waited for: once all has returned nothing of ours is in it, be it the set's own wait that found so */
Test(waits, nested_set_lets_go)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 1 };
	int outer;

	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN);
	framed();
	outer = epoll_create1(0);
	cr_assert_eq(epoll_ctl(outer, EPOLL_CTL_ADD, ep, &ev), 0);
	cr_assert_eq(in_set(ep), 3, "who returns must be woken");
	cr_assert_eq(send(a, "x", 1, 0), 1);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE, "it did not return");
	fake_all();
	cr_assert_eq(epoll_wait(outer, &ev, 1, LONG), 1);
	cr_assert_eq(once(LONG), EPOLLIN);
	expect_str(b, 10, "x");
	cr_assert_eq(once(0), 0);
	cr_assert_eq(in_set(ep), 1, "the wake descriptors stayed");
	nudge_y();
	cr_assert_eq(epoll_wait(outer, &ev, 1, 0), 0);
}

/* one event at a time: what TCP reports together is not told in two (twin seed 1 over RDMA) */
Test(waits, edges_of_both_directions_together)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET };
	int i;

	make_ends(NULL);
	nonblock(a);
	set_make(a, ev.events);
	framed();
	for (i = 0; i < 6; i++) {
		while (epoll_wait(ep, &ev, 1, 0) > 0)
			;
		cr_assert_eq(send(b, "x", 1, 0), 1);
		wait_inq(a, 1);
		ev.events = EPOLLIN | EPOLLOUT | EPOLLET;
		cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_MOD, a, &ev), 0);
		cr_assert_eq(epoll_wait(ep, &ev, 1, 0), 1);
		cr_assert_eq(ev.events, EPOLLIN | EPOLLOUT, "%#x in round %d", ev.events, i);
		cr_assert_eq(epoll_wait(ep, &ev, 1, 0), 0, "and %#x in round %d", ev.events, i);
		expect_str(a, 1, "x");
	}
}

Test(waits, a3_empty_is_not_readable)
{
	struct pollfd p = { -1, POLLIN, 0 };

	make_ends(NULL);
	set_make(b, EPOLLIN);
	framed();
	empty_frame();
	cr_assert_eq(once(40), 0);
	empty_frame();
	p.fd = b;
	cr_assert_eq(poll(&p, 1, 40), 0);
	send_x("x");
	fake_all();
	cr_assert_eq(once(LONG), EPOLLIN);
	expect_str(b, 10, "x");
}

/* FIN without END: the edge comes when the daemons have said that this is the end */
Test(waits, a7_edge_of_an_end_that_is_asked_for)
{
	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN | EPOLLRDHUP | EPOLLET);
	framed();
	send_x("x");
	fake_all();
	cr_assert_eq(once(0), EPOLLIN);
	expect_str(b, 10, "x");
	expect_err(recv(b, half, 1, 0), EAGAIN);
	fake_daemons = false;
	cr_assert_eq(real.syscall(SYS_shutdown, a, SHUT_WR), 0);
	wait_fin(b);
	cr_assert_eq(once(30), 0);
	fake_answer(Y, WSD_SAN_END);
	cr_assert_eq(once(LONG) & EPOLLIN, EPOLLIN, "no edge");
	cr_assert_eq(recv(b, half, 1, 0), 0);
}

/* the FIN comes while a frame stands behind ring bytes: its edge goes with the one of what can be read then, as programs expect of TCP */
Test(waits, edge_of_a_fin_behind)
{
	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN | EPOLLRDHUP | EPOLLET);
	framed();
	send_x("x");
	X->no_slot = 1;
	cr_assert_eq(send(a, "y", 1, 0), 1);
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	wait_fin(b);
	cr_assert_eq(once(30), 0);
	fake_all();
	cr_assert_eq(once(LONG), EPOLLIN | EPOLLRDHUP);
	expect_str(b, 8, "xy");
	cr_assert_eq(recv(b, half, 1, 0), 0);
	cr_assert_eq(once(0), 0);
}

Test(waits, end_of_stream)
{
	int h;

	make_ends(NULL);
	set_make(b, EPOLLIN);
	framed();
	send_x("ab");
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	wait_fin(b);
	cr_assert_eq(once(0), 0, "the end is readable before the bytes in front of it");
	fake_all();
	for (h = 0; h < 2; h++) {
		cr_assert_eq(once(LONG), EPOLLIN);
		if (!h)
			expect_str(b, 10, "ab");
	}
	cr_assert_eq(recv(b, half, 1, 0), 0);
}

/* both roads and strangers in one wait; only what was asked for is counted */
Test(waits, poll_counts_the_programs)
{
	struct pollfd p[4];
	int pipes[2];
	int64_t t0;

	make_ends(NULL);
	framed();
	cr_assert_eq(pipe(pipes), 0);
	p[0] = (struct pollfd){ pipes[0], POLLIN, 0 };
	p[1] = (struct pollfd){ b, POLLIN | POLLOUT, 0 };
	p[2] = (struct pollfd){ -1, POLLIN, 0x55 };
	p[3] = (struct pollfd){ b, POLLIN, 0 };
	cr_assert_eq(poll(p, 4, LONG), 1);
	cr_assert_eq(p[1].revents, POLLOUT);
	cr_assert_eq(p[2].revents, 0);
	send_x("x");
	fake_step(X, 8);
	cr_assert_eq(poll(p, 4, 0), 2);
	cr_assert_eq(p[1].revents, POLLIN | POLLOUT);
	cr_assert_eq(p[3].revents, POLLIN);
	expect_str(b, 2, "x");
	cr_assert_eq(write(pipes[1], "p", 1), 1);
	p[1].events = POLLIN;
	cr_assert_eq(poll(p, 4, LONG), 1);
	cr_assert_eq(p[0].revents, POLLIN);
	cr_assert_eq(read(pipes[0], half, 1), 1);
	t0 = ms_now();
	cr_assert_eq(poll(p, 4, 80), 0);
	cr_assert_geq(ms_now() - t0, 79);
}

Test(waits, select_says_what_the_kernel_says)
{
	struct timeval tv = { 0, 80000 };
	fd_set r, w, e;
	int pipes[2];

	make_ends(NULL);
	framed();
	cr_assert_eq(pipe(pipes), 0);
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_ZERO(&e);
	FD_SET(b, &r);
	FD_SET(pipes[0], &r);
	FD_SET(b, &e);
	cr_assert_eq(select(1000, &r, &w, &e, &tv), 0);
	cr_assert(!FD_ISSET(b, &r) && !FD_ISSET(pipes[0], &r) && !FD_ISSET(b, &e));
	cr_assert_eq(tv.tv_sec + tv.tv_usec, 0, "Linux leaves what was not slept");
	send_x("x");
	fake_all();
	FD_SET(b, &r);
	FD_SET(b, &w);
	FD_SET(pipes[0], &r);
	cr_assert_eq(select(1000, &r, &w, &e, NULL), 2);
	cr_assert(FD_ISSET(b, &r) && FD_ISSET(b, &w) && !FD_ISSET(pipes[0], &r));
	FD_SET(900, &r);
	expect_err(select(1000, &r, &w, &e, NULL), EBADF);
	cr_assert(FD_ISSET(900, &r), "the sets are left as they were");
}

/* ---- G26 ---- */

static void on_alarm(int sig)
{
}

Test(waits, g26_eintr)
{
	struct sleeper s = { 0 };
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	int h;

	make_ends(NULL);
	set_make(b, EPOLLIN);
	framed();
	cr_assert_eq(sigaction(SIGUSR1, &sa, NULL), 0);
	for (h = POLL; h <= EPOLL; h++) {
		sleeper_begin(&s, (enum how)h, b);
		until_asleep(&s);
		cr_assert_eq(pthread_kill(s.thread, SIGUSR1), 0);
		sleeper_end(&s);
		cr_assert_eq(s.ret, -1);
		cr_assert_eq(s.err, EINTR);
	}
	/* recv goes on: SA_RESTART */
	sleeper_begin(&s, RECV, b);
	until_asleep(&s);
	cr_assert_eq(pthread_kill(s.thread, SIGUSR1), 0);
	until_asleep(&s);
	send_x("x");
	fake_step(X, 8);
	sleeper_end(&s);
	cr_assert_eq(s.ret, 1);
}

/* ---- spins that bring nothing are left out, but for one now and then ---- */

static unsigned n_looks;

static int count_poll(struct pollfd *p, nfds_t n, int ms)
{
	n_looks++;
	return libc_calls.poll(p, n, ms);
}

static bool spun(void)
{
	char c;

	n_looks = 0;
	cr_assert_eq(recv(b, &c, 1, 0), -1);
	cr_assert_eq(errno, EAGAIN);
	return n_looks > 0;
}

Test(waits, vain_spins)
{
	struct timeval tv = { 0, 3000 };
	int i, n = 0;

	make_ends(NULL);
	framed();
	cfg.road_spin_us = 2000;	/* so that a look at TCP falls into it on a busy machine, too */
	cr_assert_eq(setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
	real.poll = count_poll;
	for (i = 0; i < 64; i++)
		n += spun();
	cr_assert(n >= 4 && n <= 30, "%d of 64", n);
	for (i = 0; i < 20 && !spun(); i++)
		;
	cr_assert_lt(i, 20, "never again");
}

/* The peer asks us to return while we sleep in a receive of the other direction, which is plain: it waits for that, and not for long */
Test(waits, f15_return_wakes_a_plain_receive)
{
	struct sleeper s = { 0 };
	int i;

	make_ends(NULL);
	framed();
	sleeper_begin(&s, RECV, a);
	until_asleep(&s);
	atomic_store(&X->rs->x_return, 1);
	cr_assert_eq(Y->r->p.hold(Y, 1), 0);
	Y->r->p.nudge(Y);
	Y->r->p.release(Y);
	fake_step(Y, 1);
	for (i = 0; i < 5000 && atomic_load(&X->rs->xstate) != WSD_X_DONE; i++)
		usleep(1000);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
	cr_assert_eq(send(b, "x", 1, 0), 1);
	sleeper_end(&s);
	cr_assert_eq(s.ret, 1);
}

/* the number that it sleeps on is another file's afterwards */
static void closed_under_a_reader(bool dupped)
{
	struct sleeper s = { 0 };
	int sv[2], d = -1;
	char buf[16];

	make_ends(NULL);
	framed();
	if (dupped)
		d = dup(b);
	sleeper_begin(&s, RECV, b);
	until_asleep(&s);
	cr_assert_eq(close(b), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	cr_assert_eq(real.dup2(sv[0], b), b);
	cr_assert_eq(write(sv[1], "not for it", 10), 10);
	if (dupped) {
		X->no_slot = 1;
		cr_assert_eq(send(a, "x", 1, 0), 1);
	} else {
		nudge_y();
	}
	sleeper_end(&s);
	cr_assert_eq(s.ret, dupped ? 1 : -1);
	if (dupped)
		expect_str(d, 8, "x");
	else
		cr_assert_eq(s.err, EBADF);
	cr_assert_eq(real.recv(b, buf, sizeof(buf), MSG_DONTWAIT), 10);
}

Test(waits, closed_under_a_reader_last) { closed_under_a_reader(false); }
Test(waits, closed_under_a_reader_dup) { closed_under_a_reader(true); }

/* ---- what the program does not see ---- */

/* a sender that waits for room, and a peer that has no more to say: its FIN is no reason to look at room again and again */
static void *big_send(void *arg)
{
	static char much[1 << 20];
	struct sleeper *s = arg;

	atomic_store(&s->tid, (int)real.syscall(SYS_gettid));
	s->ret = (int)send(a, much, sizeof(much), 0);
	atomic_store(&s->done, true);
	return NULL;
}

Test(waits, sender_sleeps_beside_a_fin)
{
	struct fake_opt o = { .sndbuf = 8192, .rcvbuf = 8192 };
	struct sleeper s = { 0 };
	unsigned i, n = 0;
	char buf[65536];

	make_ends(&o);
	framed();
	fake_run = true;
	cr_assert_eq(pthread_create(&s.thread, NULL, big_send, &s), 0);
	until_asleep(&s);
	cr_assert_eq(real.shutdown(b, SHUT_WR), 0);
	real.ppoll = count_ppoll;
	for (i = 0; i < 20; i++)
		until_asleep(&s);
	cr_assert_leq(n_kernel_waits, 20);
	while (n < 1 << 20) {
		ssize_t k = recv(b, buf, sizeof(buf), 0);

		cr_assert_gt(k, 0);
		n += (unsigned)k;
	}
	sleeper_end(&s);
	cr_assert_eq(s.ret, 1 << 20);
}

Test(waits, hidden_descriptors)
{
	struct sleeper s = { 0 };
	int fd;

	make_ends(NULL);
	framed();
	sleeper_begin(&s, POLL, b);
	until_asleep(&s);
	fd = hidden_next(0);
	cr_assert_geq(fd, 3, "the waiter's descriptor is not hidden");
	expect_err(close(fd), EBADF);
	expect_err(dup2(b, fd), EBUSY);
	cr_assert_eq(close_range((unsigned)fd, ~0u, 0), 0);
	cr_assert_geq(real.fcntl64(fd, F_GETFD), 0, "closed");
	send_x("x");
	fake_step(X, 8);
	sleeper_end(&s);
}

/* ---- a forked child and a set of its parent's ---- */

Test(waits, child_in_the_parents_set)
{
	struct epoll_event ev;
	pid_t pid;
	int st;

	make_ends(NULL);
	nonblock(b);
	set_make(b, EPOLLIN);
	framed();
	cr_assert_eq(ctl_road_arm(), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		int64_t t0 = ms_now();

		real.epoll_wait = count_epoll;
		if (epoll_wait(ep, &ev, 1, 200) != 0 || ms_now() - t0 < 190)
			_exit(1);
		_exit(n_kernel_waits > 60 ? 2 : in_set(ep) != 3 ? 3 : 0);
	}
	nudge_y();		/* the parent's descriptor is readable for the child, too, which cannot take anything from it */
	cr_assert_eq(waitpid(pid, &st, 0), pid);
	cr_assert(WIFEXITED(st));
	cr_assert_eq(WEXITSTATUS(st), 0, "%d", WEXITSTATUS(st));
	cr_assert_eq(epoll_wait(ep, &ev, 1, 0), 0);
}
