/* SPDX-License-Identifier: MIT */
/*
 * rules_wait.c - the rules of the gate about beginning, opening and sleeping: G2, G4, G11, G14, G15, G17 (ends.h)
 *
 * The other thread or process is a hook in the kernel call that stands at the place where the rule says it may come.
 */
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/select.h>

#include "tests/unit/switch/ends.h"

TestSuite(gate, .init = ends_make, .timeout = 30);

static void rich(struct ledger *l)
{
	l->c = LED_CAP;
	l->broke = 0;
	l->go = true;
}

/* ---- G2: where a segment may begin ---- */

Test(gate, G2_not_on_a_ring_that_is_not_empty)
{
	open_gate(ab);
	put_str(a, "one ");
	tx_leave(ca);
	cr_assert(is_open(ab) && !on_ring(ab));
	cr_assert_eq(send(a, "two", 3, MSG_DONTWAIT), 3);
	cr_assert_eq(atomic_load(&ca->s->put), 4, "a segment began behind unread bytes");
	wait_inq(b, 3);
	expect_str(b, 4, "one ");
	expect_str(b, 100, "two");
}

Test(gate, G2_not_while_somebody_is_in_a_kernel_send)
{
	open_gate(ab);
	tx_begin_tcp(ca, a);
	cr_assert_eq(send(a, "x", 1, MSG_DONTWAIT), 1);
	cr_assert_eq(atomic_load(&ca->s->put), 0, "a segment began beside a kernel send");
	tx_end_tcp(ca, 0);
	wait_inq(b, 1);
	expect_str(b, 1, "x");
}

static int (*wait_hook)(int ep, struct epoll_event *ev, int max, int ms);
static unsigned sends_meanwhile;

/* somebody's whole kernel send passes while the one who begins asks the kernel about H */
static int send_while_asking(int fd, int level, int name, void *v, socklen_t *l)
{
	int r = libc_calls.getsockopt(fd, level, name, v, l);

	if (level == IPPROTO_TCP && name == TCP_INFO && fd == a && sends_meanwhile) {
		sends_meanwhile--;
		tcp_str(a, "before ");
	}
	return r;
}

Test(gate, G2_start_is_H_at_the_time_of_the_swap)
{
	hooks();
	real.getsockopt = send_while_asking;
	open_gate(ab);
	sends_meanwhile = 1;
	cr_assert_eq(send(a, "after", 5, MSG_DONTWAIT), 5);
	cr_assert_eq(sends_meanwhile, 0, "the kernel was not asked");
	if (atomic_load(&ca->s->put))
		cr_assert_eq(atomic_load(&ab->start), atomic_load(&ca->s->H));
	wait_inq(b, 7);
	expect_str(b, 7, "before ");
	if (!atomic_load(&ca->s->put))
		wait_inq(b, 5);
	expect_str(b, 100, "after");
}

/* the peer reads on whenever the sender asks how much is unsent */
static int read_while_asking(int fd, unsigned long nr, ...)
{
	va_list ap;
	void *p;
	ssize_t r;

	va_start(ap, nr);
	p = va_arg(ap, void *);
	va_end(ap);
	if (fd == a && nr == SIOCOUTQNSD) {
		r = libc_calls.recv(b, back, sizeof(back), MSG_DONTWAIT);
		if (r > 0)
			atomic_fetch_add(&cb->s->C, (uint64_t)r);
	}
	return libc_calls.ioctl(fd, nr, p);
}

static void fill_tcp(void)
{
	int nsd = 0;

	while (nsd < 100000) {
		cr_assert_gt(send(a, big, sizeof(big), MSG_DONTROUTE | MSG_DONTWAIT), 0);
		cr_assert_eq(real.ioctl(a, SIOCOUTQNSD, &nsd), 0);
	}
	cr_assert_eq(atomic_load(&ca->s->put), 0);
}

static void cut_over(int flags)
{
	hooks();
	fill_tcp();
	real.ioctl = read_while_asking;
	open_gate(ab);
	cr_assert_eq(send(a, "by ring", 7, flags), 7);
	real.ioctl = libc_calls.ioctl;
	cr_assert_eq(atomic_load(&ca->s->put), 7, "it stayed on TCP");
	while (atomic_load(&cb->s->C) < atomic_load(&ca->s->H)) {
		ssize_t r = libc_calls.recv(b, back, sizeof(back), 0);

		cr_assert_gt(r, 0);
		atomic_fetch_add(&cb->s->C, (uint64_t)r);
	}
	expect_str(b, 100, "by ring");
}

Test(gate, G2_a_sender_of_bulk_waits_for_tcp_to_drain)
{
	cut_over(0);
}

Test(gate, G2_a_non_blocking_sender_of_bulk_does_so_too)
{
	cut_over(MSG_DONTWAIT);
}

/* ---- G4: the sending lock is tried ---- */

Test(gate, G4_who_finds_the_lock_held_sends_by_tcp)
{
	uint64_t t0 = tsc_now();

	open_gate(ab);
	put_str(a, "ring ");
	atomic_store(&ca->s->tx_lock, 1);	/* a live process that never gives it back */
	cr_assert_eq(send(a, "tcp", 3, 0), 3);
	cr_assert_lt(tsc_now() - t0, (uint64_t)US(5e6));
	cr_assert_eq(atomic_load(&ca->s->put), 5);
	cr_assert(!on_ring(ab), "the holder's put would still work");
	atomic_store(&ca->s->tx_lock, 0);
	wait_inq(b, 3);
	expect_str(b, 5, "ring ");
	expect_str(b, 100, "tcp");
}

static void send_beside(void)
{
	tcp_str(a, "beside ");
}

Test(gate, G4_the_holders_put_fails_when_another_went_to_tcp)
{
	int f = file_of("holder");
	off_t off = 0;

	open_gate(ab);
	put_str(a, "ring ");
	hooks();
	in_pread = send_beside;		/* the lock is held, the bytes are copied, the swap is to come */
	cr_assert_eq(sendfile(a, f, &off, 6), 6);
	wait_inq(b, 7);
	expect_str(b, 5, "ring ");
	expect_str(b, 7, "beside ");
	expect_str(b, 100, "holder");
}

/* ---- G11: a receive of the kernel's is exact ---- */

static bool recv_covered = true;

static ssize_t watch_recv(int fd, void *buf, size_t n, int flags)
{
	if (fd == b && !(flags & MSG_PEEK) && (is_open(ab) || !atomic_load(&cb->s->sleepers)))
		recv_covered = false;
	return libc_calls.recv(fd, buf, n, flags);
}

Test(gate, G11_it_sleeps_with_the_gate_closed_and_counted_in)
{
	struct timeval tv = { 0, 20000 };

	hooks();
	real.recv = watch_recv;
	cr_assert_eq(setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
	open_gate(ab);
	expect_err(recv(b, back, 10, 0), EAGAIN);
	cr_assert(recv_covered, "a receive that may sleep under an open gate, or not counted in");
}

static void put_late(void)
{
	put_str(a, "late");
}

Test(gate, G11_a_put_before_the_gate_closed_is_seen)
{
	hooks();
	nonblock(b);
	open_gate(ab);
	in_recv = put_late;	/* the kernel was asked, said no, and only then the bytes came */
	expect_str(b, 100, "late");
	cr_assert_null(in_recv, "the kernel was not asked");
}

/* ---- G14: when a gate opens ---- */

static bool opens(bool nb)
{
	rich(rx_ledger(cb));
	rx_maybe_open(thr_get(), cb, b, nb);
	return is_open(ab);
}

Test(gate, G14_it_opens_when_nothing_is_against_it)
{
	cr_assert(opens(false));
}

Test(gate, G14_not_over_a_sleeper)
{
	rx_begin_tcp(cb);
	cr_assert_not(opens(false));
	rx_end_tcp(cb, 0);
	cr_assert(opens(false));
}

static bool pass_by;

static int sleeper_passes(int fd, int level, int name, void *v, socklen_t *l)
{
	if (pass_by && fd == b && level == IPPROTO_TCP) {
		pass_by = false;
		rx_begin_tcp(cb);	/* came after the first look, gone before the last: only the epoch tells */
		rx_end_tcp(cb, 0);
	}
	return libc_calls.getsockopt(fd, level, name, v, l);
}

Test(gate, G14_a_sleeper_that_came_and_went_makes_the_swap_fail)
{
	hooks();
	real.getsockopt = sleeper_passes;
	pass_by = true;
	cr_assert_not(opens(false));
	cr_assert_not(pass_by, "the kernel was not asked in between");
	cr_assert(opens(false));
}

Test(gate, G14_not_for_two_processes)
{
	atomic_store(&cb->s->rx_user, USER_MANY);
	atomic_fetch_or(&cb->s->flags, S_NO_OPEN);
	cr_assert_not(opens(false));
}

Test(gate, G14_a_second_process_closes_it)
{
	pid_t pid;
	int st;

	cr_assert(opens(false));
	cr_assert(rx_touch(cb));
	pid = fork();
	if (pid == 0) {
		char c;

		_exit(recv(b, &c, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &st, 0), pid);
	cr_assert_eq(st, 0);
	cr_assert_not(is_open(ab), "open over two readers");
	cr_assert_eq(atomic_load(&cb->s->rx_user), USER_MANY);
}

Test(gate, G14_not_where_a_non_blocking_socket_is_waited_for_out_of_our_sight)
{
	nonblock(b);
	cr_assert_not(opens(true));
}

Test(gate, G14_not_in_a_set_that_is_polled)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = b };
	int ep = epoll_create1(0);
	struct pollfd p = { ep, POLLIN, 0 };

	nonblock(b);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev), 0);
	cr_assert(opens(true));
	cr_assert_eq(poll(&p, 1, 0), 0);
	cr_assert_not(is_open(ab), "open while somebody polls the set");
	cr_assert_not(opens(true));
}

Test(gate, G14_not_before_both_have_attached)
{
	atomic_store(&ses->attached, 2);
	cr_assert_not(opens(false));
	atomic_store(&ses->attached, 3);
	atomic_store(&ses->revoked, 1);
	cr_assert_not(opens(false));
}

/* ---- G15: sleeping in a set ---- */

static int hooked_wait(int ep, struct epoll_event *ev, int max, int ms)
{
	int (*f)(int, struct epoll_event *, int, int) = wait_hook;

	if (ms != 0 && f) {
		wait_hook = NULL;
		return f(ep, ev, max, ms);
	}
	return libc_calls.epoll_wait(ep, ev, max, ms);
}

static void enter_open(struct conn *c)
{
	cr_assert(lock_try(&c->s->open_lock, 1));
	cr_assert(eset_enter_open(c));
	lock_drop(&c->s->open_lock);
	open_gate(c->rx);
}

static int send_to_the_sleeper(int ep, struct epoll_event *ev, int max, int ms)
{
	cr_assert_not(is_open(ab), "asleep under an open gate");
	cr_assert_not(is_open(ba));
	cr_assert(eset_sleepers(cb), "not counted in");
	cr_assert_eq(send(a, "wake", 4, 0), 4);
	cr_assert_eq(atomic_load(&ca->s->put), 0);
	return libc_calls.epoll_wait(ep, ev, max, 10000);
}

static int set_of_both(uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.fd = a };
	int ep = epoll_create1(0);

	nonblock(a);
	nonblock(b);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, a, &ev), 0);
	ev.data.fd = b;
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev), 0);
	hooks();
	real.epoll_wait = hooked_wait;
	enter_open(ca);
	enter_open(cb);
	return ep;
}

Test(gate, G15_who_sleeps_has_closed_every_gate_of_the_set)
{
	struct epoll_event ev;
	int ep = set_of_both(EPOLLIN);

	wait_hook = send_to_the_sleeper;
	cr_assert_eq(epoll_wait(ep, &ev, 1, -1), 1);
	cr_assert_eq(ev.data.fd, b);
	expect_str(b, 100, "wake");
}

Test(gate, G15_bytes_put_before_the_closing_are_reported)
{
	struct epoll_event ev;
	int ep = set_of_both(EPOLLIN);

	rx_ledger(cb)->go = false;		/* no spinning: straight to sleep */
	put_str(a, "there");
	cr_assert_eq(epoll_wait(ep, &ev, 1, 10000), 1);
	cr_assert_eq(ev.data.fd, b);
	expect_str(b, 100, "there");
}

static int open_over_the_sleeper(int ep, struct epoll_event *ev, int max, int ms)
{
	cr_assert_not(opens(true), "opened over a sleeper");
	return libc_calls.epoll_wait(ep, ev, max, 0);
}

Test(gate, G15_nobody_opens_over_the_sleeper)
{
	struct epoll_event ev;
	int ep = set_of_both(EPOLLIN);

	wait_hook = open_over_the_sleeper;
	cr_assert_eq(epoll_wait(ep, &ev, 1, 10), 0);
}

/* ---- G17: a set whose sleeper cannot know ---- */

static int add_b_meanwhile(int ep, struct epoll_event *ev, int max, int ms)
{
	struct epoll_event in = { .events = EPOLLIN, .data.fd = b };

	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, b, &in), 0);
	cr_assert_not(is_open(ab), "the sleeper has not closed it");
	return libc_calls.epoll_wait(ep, ev, max, ms);
}

/* a set with a alone, whose sleeper meets the registration of b; b's gate is open */
static int set_that_b_joins(void)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = a };
	int ep = epoll_create1(0);

	nonblock(a);
	nonblock(b);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, a, &ev), 0);
	hooks();
	real.epoll_wait = hooked_wait;
	wait_hook = add_b_meanwhile;
	open_gate(ab);
	return ep;
}

Test(gate, G17_a_registration_with_bytes_in_its_ring_wakes_the_sleeper)
{
	int ep = set_that_b_joins();
	struct epoll_event ev;

	put_str(a, "unread");
	cr_assert_eq(epoll_wait(ep, &ev, 1, 10000), 1);
	cr_assert_eq(ev.data.fd, b);
	expect_str(b, 100, "unread");
}

Test(gate, G17_a_registration_with_an_open_gate_is_closed_for_the_sleeper)
{
	int ep = set_that_b_joins();
	struct epoll_event ev;

	cr_assert_eq(epoll_wait(ep, &ev, 1, 50), 0);
	cr_assert_not(is_open(ab));
}

/* ---- G24: a wait that TCP will end does not spin ---- */

static unsigned n_select;
static bool first_zero;

static int count_select(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *to, const sigset_t *mask)
{
	if (n_select++ == 0)
		first_zero = to && to->tv_sec == 0 && to->tv_nsec == 0;
	return libc_calls.pselect(n, r, w, e, to, mask);
}

Test(gate, G24_select_asks_the_kernel_before_it_spins)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(b, &set);
	open_gate(ab);
	tcp_str(a, "x");
	wait_inq(b, 1);
	hooks();
	real.pselect = count_select;
	rich(&cb->led);
	cr_assert_eq(select(b + 1, &set, NULL, NULL, NULL), 1);
	cr_assert(FD_ISSET(b, &set));
	cr_assert_eq(n_select, 1);
	cr_assert(first_zero, "it span, and slept in the end, over a socket that was readable");
	cr_assert(is_open(ab), "and closed its gate");
	expect_str(b, 10, "x");
}

/* ---- our own descriptors ---- */

/* the kernel's table of them, which every fork copies, grows with the highest number */
Test(gate, our_numbers_are_high_but_not_too_high)
{
	struct rlimit l;
	int fd;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &l), 0);
	l.rlim_cur = l.rlim_max;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &l), 0);
	fd = fd_to_top(dup(0));
	cr_assert(fd < 8192 && fd > (l.rlim_max < 8192 ? 64 : 4096), "%d", fd);
	close(fd);
}
