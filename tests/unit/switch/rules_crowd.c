/* SPDX-License-Identifier: MIT */
/*
 * rules_crowd.c - what waiting may cost, and how a set waits on a crowded machine: G24, G25 (ends.h)
 */
#include <sys/prctl.h>

#include "tests/unit/switch/ends.h"

TestSuite(gate, .init = ends_make, .timeout = 30);

/* ---- G24 ---- */

Test(gate, G24_many_connections_need_more_to_begin)
{
	struct ledger l = { .last = 1, .more = 50 };

	cr_assert_not(led_may(&l, 1 + (uint64_t)(16 * US(500)), false), "not enough to open fifty gates");
	l.last = 1;
	cr_assert(led_may(&l, 1 + (uint64_t)(16 * US(600)), false));
	l = (struct ledger){ .last = 1, .more = 1u << 31 };
	(void)led_may(&l, 1 + (uint64_t)US(1e9), false);
	cr_assert_leq(l.c, LED_CAP, "time alone must not fill it");
	cr_assert(l.go, "so many that it never begins");
}

Test(gate, G24_time_that_others_ran_is_not_paid_for)
{
	uint64_t now = tsc_now();
	int64_t c;

	c = spin_cost(now - (uint64_t)US(3000), now - (uint64_t)US(2990), 0);
	cr_assert_leq(c, US(11), "a preemption was charged: %ld ticks", (long)c);
	c = spin_cost(now - (uint64_t)US(30), now, 0);
	cr_assert_geq(c, US(29));
	cr_assert_leq(spin_cost(now - (uint64_t)US(30), now, US(25)), c - US(24));
}

/* a message each millisecond, and nothing found by waiting for it: one probe in some tens of them, not a sixteenth of all time */
Test(gate, G24_a_sparse_caller_soon_stops_probing)
{
	struct ledger l = { .c = LED_FIRST, .last = 1 };
	uint64_t now = 1;
	unsigned i, n = 0;

	for (i = 0; i < 1000; i++) {
		now += (uint64_t)US(1000);
		if (!led_may(&l, now, false))
			continue;
		n++;
		spin_done(&l, US(40), 0);
		led_sleep(&l, 1);
	}
	cr_assert_leq(n, 80, "%u probes in a second", n);
	cr_assert_geq(n, 10, "it must notice when things change");
}

Test(gate, G24_what_time_filled_is_not_taken_for_earned)
{
	struct ledger l = { .last = 1, .more = 50, .broke = 3 };

	(void)led_may(&l, 1 + (uint64_t)US(1e9), false);
	led_add(&l, EARN_MSG);
	cr_assert_eq(l.broke, 3);
	led_add(&l, US(1000));
	cr_assert_eq(l.broke, 0);
}

/* the peer waits for the ring: a whole spin is tried, on credit, and the credit has an end */
Test(gate, G24_credit_for_who_is_waited_for)
{
	struct ledger l = { .c = LED_LOW, .last = 1, .broke = 5 };
	int i;

	cr_assert_not(led_may(&l, 1, false));
	cr_assert(led_may(&l, 1, true));
	cr_assert_eq(spin_limit(&l, 0), (uint64_t)LED_NEED, "too short to find out");
	for (i = 0; i < 100 && spin_limit(&l, 0) > (uint64_t)LED_LOW; i++)
		spin_done(&l, US(35), EARN_WAIT);		/* found each time, and it never pays */
	cr_assert_leq(i, 4);
	l = (struct ledger){ .c = LED_NEED, .last = 1, .broke = 5 };
	cr_assert(led_may(&l, 1, false));
	l.c = LED_LOW;
	cr_assert_eq(spin_limit(&l, 0), (uint64_t)LED_LOW, "who began by himself spends what he has");
}

static void long_nap(void)
{
	struct timespec ts = { 0, 2000000 };

	nanosleep(&ts, NULL);
}

Test(gate, G24_what_a_sleep_costs_is_measured)
{
	struct worth_sample m;
	uint32_t n = 0, i;
	unsigned measured = 0;

	cr_assert_eq(worth_wait(), EARN_WAIT, "nothing is known yet");
	for (i = 0; i < 4 + 64; i++) {
		worth_begin(&m, &n);
		if (m.on) {
			measured++;
			m.cpu -= 30000;		/* as if it had cost 30 us of CPU time */
			long_nap();
		}
		worth_slept(&m);
	}
	cr_assert_geq(measured, 4);
	cr_assert_leq(measured, 4 + 3, "measuring costs as well");
	cr_assert_eq(worth_wait(), EARN_WAIT, "of sends nothing is known");
	n = 0;
	worth_begin(&m, &n);
	m.cpu -= 10000;
	worth_sent(&m, 1);
	cr_assert_gt(worth_wait(), US(20), "%ld ticks", (long)worth_wait());	/* a mean, to which the making of the ends added */
	cr_assert_leq(worth_wait(), US(60 + 60) - EARN_MSG);
	for (i = 0; i < 1000; i++) {
		n = 0;
		worth_begin(&m, &n);
		m.cpu -= 1000000000;
		worth_sent(&m, 1);
	}
	cr_assert_leq(worth_wait(), US(60 + 60) - EARN_MSG, "one preempted sample must not make spinning free");
	for (i = 0; i < 1000; i++) {
		n = 0;
		worth_begin(&m, &n);
		worth_slept(&m);	/* it did not sleep: no sample */
	}
	cr_assert_gt(worth_wait(), US(20));
}

/* ---- G25: giving way ---- */

Test(gate, G25_who_yields_to_nobody_stops_yielding)
{
	struct thr *t = thr_get();
	int64_t cost = 0;
	int i;

	t->alone = 0;
	t->polite_until = tsc_now() + (uint64_t)US(60e6);
	for (i = 0; i < 1000000 && t->polite_until; i++)	/* others may be here for a while */
		(void)spin_give_way(t, &cost);
	cr_assert_eq(t->polite_until, 0);
	cr_assert_geq(i, 10);
}

Test(gate, G25_a_long_yield_ends_the_spin_and_is_not_paid_for)
{
	struct thr *t = thr_get();
	int64_t cost = 0;

	hooks();
	in_yield = long_nap;
	cr_assert_not(spin_give_way(t, &cost));
	cr_assert_geq(cost, US(1900));
	cr_assert_gt(t->crowded_until, tsc_now() - (uint64_t)US(500), "crowded");
}

/* ---- G25: dozing ---- */

static struct { unsigned n, open; long ns; int error; void (*f)(void); } naps;

static int nap(int ep, struct epoll_event *ev, int max, const struct timespec *to, const sigset_t *mask)
{
	naps.n++;
	naps.open += is_open(ab);
	if (naps.n == 1)
		naps.ns = to->tv_nsec;
	if (naps.error) {
		errno = naps.error;
		return -1;
	}
	run(&naps.f);
	return libc_calls.epoll_pwait2(ep, ev, max, to, mask);
}

/* two pairs in one set, the last one's gate open, and the machine crowded */
static int crowded_set(int members)
{
	int fds[4] = { a, b, -1, -1 }, ep = epoll_create1(0), i;
	struct epoll_event ev = { .events = EPOLLIN };

	cr_assert_geq(ep, 0);
	ends_make();
	fds[2] = a;
	fds[3] = b;
	for (i = 0; i < 4; i++) {
		nonblock(fds[i]);
		ev.data.fd = fds[i];
		if (i >= 4 - members)
			cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, fds[i], &ev), 0);
	}
	rx_ledger(cb)->c = LED_CAP;
	rx_ledger(cb)->go = true;
	tcp_str(a, "x");
	wait_inq(b, 1);
	expect_str(b, 10, "x");
	cr_assert(is_open(ab));
	thr_get()->crowded_until = tsc_now() + (uint64_t)US(60e6);
	hooks();
	real.epoll_pwait2 = nap;
	return ep;
}

static void put_ring(void)
{
	put_str(a, "ring");
}

Test(gate, G25_a_busy_set_dozes_with_its_gates_open)
{
	struct epoll_event ev;
	int ep = crowded_set(4);

	naps.f = put_ring;
	cr_assert_eq(epoll_wait(ep, &ev, 1, 20000), 1);
	cr_assert_eq(ev.data.fd, b);
	cr_assert_eq(naps.n, 1);
	cr_assert_eq(naps.open, 1, "asleep, with the gate closed");
	cr_assert_leq(naps.ns, 100000, "nobody wakes it, so it must be short");
	expect_str(b, 100, "ring");
	cr_assert(on_ring(ab));
}

static int the_set;

static void forget_b(void)
{
	cr_assert_eq(epoll_ctl(the_set, EPOLL_CTL_DEL, b, NULL), 0);
	expect_err(real.epoll_ctl(the_set, EPOLL_CTL_DEL, b, NULL), ENOENT);
	tcp_str(a, "late");
}

Test(gate, G19_what_changes_while_one_dozes_reaches_the_kernel_at_once)
{
	struct epoll_event ev;

	the_set = crowded_set(4);
	naps.f = forget_b;
	cr_assert_eq(epoll_wait(the_set, &ev, 1, 50), 0, "told of a registration that is gone");
	cr_assert_geq(naps.n, 1);
}

static void expect_no_doze(int ep)
{
	struct epoll_event ev;

	cr_assert_eq(epoll_wait(ep, &ev, 1, 20), 0);
	cr_assert_eq(naps.open, 0);
}

Test(gate, G25_a_thread_with_coarse_timers_does_not_doze)
{
	int ep = crowded_set(4);

	cr_assert_eq(real.syscall(SYS_prctl, PR_SET_TIMERSLACK, 50000000, 0, 0, 0), 0);
	thr_get()->slack = 0;
	expect_no_doze(ep);
}

Test(gate, G25_the_bankrupt_do_not_doze)
{
	int ep = crowded_set(4);

	rx_ledger(cb)->c = 0;
	expect_no_doze(ep);
}

Test(gate, G25_it_sleeps_after_a_few_dozes_that_found_nothing)
{
	struct epoll_event ev;
	int ep = crowded_set(4);

	cr_assert_eq(epoll_wait(ep, &ev, 1, 50), 0);
	cr_assert_geq(naps.open, 1);
	cr_assert_leq(naps.open, 4);
	cr_assert_not(is_open(ab), "it never slept (G15)");
}

Test(gate, G25_a_doze_does_not_outlast_the_wait)
{
	struct epoll_event ev;
	struct timespec ts = { 0, 3000 };
	int ep = crowded_set(4);

	cr_assert_eq(epoll_pwait2(ep, &ev, 1, &ts, NULL), 0);
	cr_assert_geq(naps.n, 1);
	cr_assert_leq(naps.ns, 3000);
}

Test(gate, G25_few_connections_do_not_doze)
{
	expect_no_doze(crowded_set(2));
}

Test(gate, G25_where_the_kernel_refuses_short_waits_there_is_no_dozing)
{
	struct epoll_event ev;
	int ep = crowded_set(4);

	naps.error = EPERM;
	errno = 0;
	cr_assert_eq(epoll_wait(ep, &ev, 1, 20), 0, "errno %d", errno);
	cr_assert_eq(errno, 0);
	cr_assert_eq(naps.n, 1, "tried again");
	cr_assert_not(is_open(ab));
}

/* ---- poll and select do the same ---- */

static int poll_nap(struct pollfd *p, nfds_t n, const struct timespec *to, const sigset_t *mask)
{
	naps.n++;
	naps.open += is_open(ab);
	if (naps.n == 1)
		naps.ns = to ? to->tv_nsec : -1;
	if (naps.error && to && to->tv_nsec == doze_time.tv_nsec) {
		errno = naps.error;
		return -1;
	}
	run(&naps.f);
	return libc_calls.ppoll(p, n, to, mask);
}

static void poll_set(struct pollfd p[4])
{
	p[0] = (struct pollfd){ a, POLLIN, 0 };
	p[1] = (struct pollfd){ b, POLLIN, 0 };
	ends_make();
	p[2] = (struct pollfd){ a, POLLIN, 0 };
	p[3] = (struct pollfd){ b, POLLIN, 0 };
	tcp_str(a, "x");
	wait_inq(b, 1);
	cb->led.c = LED_CAP;
	cb->led.go = true;
	expect_str(b, 10, "x");
	cr_assert(is_open(ab));
	thr_get()->crowded_until = tsc_now() + (uint64_t)US(60e6);
	hooks();
	real.ppoll = poll_nap;
}

static void on_usr1(int sig)
{
}

static void get_signal(void)
{
	raise(SIGUSR1);
}

Test(gate, G26_a_signal_between_two_dozes_ends_the_poll)
{
	struct sigaction sa = { .sa_handler = on_usr1 };
	struct pollfd p[4];

	poll_set(p);
	cr_assert_eq(sigaction(SIGUSR1, &sa, NULL), 0);
	naps.f = get_signal;		/* the handler runs here, not in the kernel */
	expect_err(poll(p, 4, 50), EINTR);
	cr_assert_eq(naps.n, 1);
}

Test(gate, G25_poll_of_many_dozes_and_then_sleeps)
{
	struct pollfd p[4];

	poll_set(p);
	naps.f = put_ring;
	cr_assert_eq(poll(p, 4, 20000), 1);
	cr_assert_eq(p[3].revents, POLLIN);
	cr_assert_eq(naps.open, naps.n, "asleep with a closed gate before there was a need");
	cr_assert(naps.ns > 0 && naps.ns <= 100000, "%ld", naps.ns);
	expect_str(b, 100, "ring");
	naps.n = naps.open = 0;
	cr_assert_eq(poll(p, 4, 50), 0);
	cr_assert_geq(naps.open, 1);
	cr_assert_leq(naps.open, 4);
	cr_assert_not(is_open(ab), "it never slept (G15)");
}

Test(gate, G25_where_a_filter_refuses_ppoll_poll_does_not_doze)
{
	struct pollfd p[4];

	poll_set(p);
	naps.error = EPERM;
	errno = 0;
	cr_assert_eq(poll(p, 4, 20), 0, "errno %d", errno);
	cr_assert_eq(errno, 0);
	cr_assert_not(is_open(ab));
}
