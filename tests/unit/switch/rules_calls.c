/* SPDX-License-Identifier: MIT */
/*
 * rules_calls.c - what a call promises beyond its bytes: time-outs, signals, options, control data, pipes (ends.h)
 *
 * Each answer here was first seen from kernel TCP.
 */

#include <sys/time.h>

#include "tests/unit/switch/ends.h"

TestSuite(gate, .init = ends_make, .timeout = 30);

/* ---- G2: bytes that Nagle's algorithm holds back are pushed, and the program's TCP_NODELAY stays the program's ---- */

static int nodelay_of_a(void)
{
	int v = -1;
	socklen_t l = sizeof(v);

	cr_assert_eq(libc_calls.getsockopt(a, IPPROTO_TCP, TCP_NODELAY, &v, &l), 0);
	return v;
}

static void program_sets_nodelay(void)
{
	int one = 1;

	cr_assert_eq(setsockopt(a, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
}

static volatile int nodelay_seen;

static void look_at_nodelay(int sig)
{
	int v = -1;
	socklen_t l = sizeof(v);

	getsockopt(a, IPPROTO_TCP, TCP_NODELAY, &v, &l);
	nodelay_seen = v;
}

static void raise_usr1(void)
{
	kill(getpid(), SIGUSR1);
}

/* a has unsent bytes: the next put pushes them. Held by TCP_CORK, which is sure, where Nagle's algorithm depends on an ACK. */
static void push(void (*first)(void), void (*second)(void))
{
	int off = 0, one = 1;

	cr_assert_eq(real.setsockopt(a, IPPROTO_TCP, TCP_NODELAY, &off, sizeof(off)), 0);
	cr_assert_eq(real.setsockopt(a, IPPROTO_TCP, TCP_CORK, &one, sizeof(one)), 0);
	hooks();
	tcp_str(a, "one");
	open_gate(ab);
	in_nodelay[0] = first;
	in_nodelay[1] = second;
	put_str(a, "three");
}

Test(gate, G2_nagled_bytes_are_pushed)
{
	push(NULL, NULL);
	cr_assert_eq(nodelay_of_a(), 0);
}

Test(gate, G2_TCP_NODELAY_set_during_the_push_stays_set)
{
	push(program_sets_nodelay, NULL);
	cr_assert_eq(nodelay_of_a(), 1);
}

Test(gate, G2_TCP_NODELAY_set_behind_the_push_stays_set)
{
	push(NULL, program_sets_nodelay);
	cr_assert_eq(nodelay_of_a(), 1);
}

Test(gate, G2_a_handler_does_not_see_the_push)
{
	cr_assert_neq(signal(SIGUSR1, look_at_nodelay), SIG_ERR);
	nodelay_seen = -1;
	push(raise_usr1, NULL);
	cr_assert_eq(nodelay_seen, 0, "the handler saw %d", nodelay_seen);
}

/* ---- splice from a ring into a pipe: what the kernel's splice from TCP does ---- */

static int pipe_rd, pipe_wr;

static void pipe_make(bool full)
{
	int p[2];

	cr_assert_eq(pipe(p), 0);
	pipe_rd = p[0];
	pipe_wr = p[1];
	if (full) {
		cr_assert_eq(fcntl(pipe_wr, F_SETFL, O_NONBLOCK), 0);
		while (write(pipe_wr, back, 4096) > 0)
			;
		cr_assert_eq(fcntl(pipe_wr, F_SETFL, 0), 0);
	}
	memset(back, 0, sizeof(back));
}

Test(gate, G6_splice_into_a_full_pipe)
{
	open_gate(ab);
	put_str(a, "hello");
	pipe_make(true);
	expect_err(splice(b, NULL, pipe_wr, NULL, 100, SPLICE_F_NONBLOCK), EAGAIN);
	cr_assert_eq(fcntl(pipe_wr, F_SETFL, O_NONBLOCK), 0);
	expect_err(splice(b, NULL, pipe_wr, NULL, 100, 0), EAGAIN);
	cr_assert_eq(atomic_load(&cb->s->taken), 0);
	cr_assert_eq(read(pipe_rd, back, 4096), 4096);
	cr_assert_eq(splice(b, NULL, pipe_wr, NULL, 100, 0), 5);
}

static volatile int alarms;

static void on_alarm_read(int sig)
{
	if (++alarms == 3)
		(void)!read(pipe_rd, back, 4096);
}

static void splice_interrupted(int flags)
{
	struct sigaction sa = { .sa_handler = on_alarm_read, .sa_flags = flags };
	struct itimerval it = { { 0, 5000 }, { 0, 5000 } };

	open_gate(ab);
	put_str(a, "hello");
	pipe_make(true);
	cr_assert_eq(sigaction(SIGALRM, &sa, NULL), 0);
	setitimer(ITIMER_REAL, &it, NULL);
}

Test(gate, G6_splice_waiting_for_a_pipe_is_interrupted)
{
	splice_interrupted(0);
	expect_err(splice(b, NULL, pipe_wr, NULL, 100, 0), EINTR);
	cr_assert_eq(atomic_load(&cb->s->taken), 0);
}

Test(gate, G6_splice_waiting_for_a_pipe_is_restarted)
{
	splice_interrupted(SA_RESTART);
	cr_assert_eq(splice(b, NULL, pipe_wr, NULL, 100, 0), 5);
	cr_assert_geq(alarms, 3);
}

Test(gate, G6_splice_to_nobody_takes_nothing)
{
	open_gate(ab);
	put_str(a, "hello");
	pipe_make(false);
	close(pipe_rd);
	expect_err(splice(b, NULL, pipe_wr, NULL, 100, 0), EPIPE);
	expect_str(b, 100, "hello");
}

/* edge-triggered programs take a short splice for "no more" */
Test(gate, G12_a_nonblocking_splice_takes_all_there_is)
{
	fill_big();
	nonblock(b);
	pipe_make(false);
	cr_assert_eq(send(a, big, 7000, MSG_DONTROUTE), 7000);
	wait_inq(b, 7000);
	cr_assert_eq(recv(b, back, 7000, 0), 7000);
	open_gate(ab);
	cr_assert_eq(send(a, big, 10000, 0), 10000);
	cr_assert_eq(atomic_load(&ca->s->put), 10000);
	cr_assert_eq(send(a, big + 10000, 9000, MSG_DONTROUTE), 9000);
	wait_inq(b, 9000);
	cr_assert_eq(splice(b, NULL, pipe_wr, NULL, 1 << 20, 0), 19000);
	cr_assert_eq(read(pipe_rd, back, sizeof(back)), 19000);
	cr_assert_eq(memcmp(back, big, 19000), 0);
	expect_err(splice(b, NULL, pipe_wr, NULL, 1 << 20, 0), EAGAIN);
}

Test(gate, G6_a_full_pipe_ends_a_long_splice)
{
	fill_big();
	open_gate(ab);
	cr_assert_eq(send(a, big, 10000, 0), 10000);
	pipe_make(false);
	cr_assert_eq(fcntl(pipe_wr, F_SETPIPE_SZ, 4096), 4096);
	cr_assert_eq(splice(b, NULL, pipe_wr, NULL, 1 << 20, 0), 4096);
	cr_assert_eq(read(pipe_rd, back, sizeof(back)), 4096);
	cr_assert_eq(splice(b, NULL, pipe_wr, NULL, 1 << 20, SPLICE_F_NONBLOCK), 4096);
	cr_assert_eq(atomic_load(&cb->s->taken), 8192);
	expect_err(splice(b, NULL, pipe_wr, NULL, 1 << 20, SPLICE_F_NONBLOCK), EAGAIN);
}

/* SPLICE_F_NONBLOCK is not about the socket: behind TCP bytes that do not come it waits as long as SO_RCVTIMEO says */
Test(gate, G6_a_splice_waits_for_the_socket_whatever_its_flags)
{
	struct timeval tv = { 0, 120000 };
	struct timespec t0, t1;

	pipe_make(false);
	cr_assert_eq(setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
	open_gate(ab);
	put_str(a, "xxx");
	atomic_store(&ab->start, 50);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	expect_err(splice(b, NULL, pipe_wr, NULL, 100, SPLICE_F_NONBLOCK), EAGAIN);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	cr_assert_geq((t1.tv_sec - t0.tv_sec) * 1000 + (t1.tv_nsec - t0.tv_nsec) / 1000000, 119);
}

/* ---- G9: time-outs and handlers ---- */

/* a `start` that never comes: SO_RCVTIMEO ends the receive all the same, as it would end TCP's */
Test(gate, G9_a_receive_behind_a_false_start_keeps_its_time_out)
{
	struct timeval tv = { 0, 120000 };
	struct timespec t0, t1;
	int64_t ms;
	int i;

	cr_assert_eq(setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
	open_gate(ab);
	put_str(a, "xxx");
	atomic_store(&ab->start, 50);
	for (i = 0; i < 3; i++) {
		clock_gettime(CLOCK_MONOTONIC, &t0);
		expect_err(recv(b, back, 10, i == 0 ? 0 : i == 1 ? MSG_PEEK : MSG_WAITALL), EAGAIN);
		clock_gettime(CLOCK_MONOTONIC, &t1);
		ms = (t1.tv_sec - t0.tv_sec) * 1000 + (t1.tv_nsec - t0.tv_nsec) / 1000000;
		cr_assert(ms >= 119 && ms < 5000, "%lld ms", (long long)ms);
	}
	/* what came before the time-out is returned */
	tcp_str(a, "first");
	atomic_store(&ab->start, 50);
	expect_str(b, 100, "first");
	cr_assert_eq(atomic_load(&cb->s->taken), 0);
}

/* A handler that reads, while its own thread stands between the kernel's receive and the count of it: it is put off until both
 * are done. Without that it finds bytes that it cannot take, and a blocking read of them would never end. */
static char in_handler[64];
static volatile ssize_t handler_got;
static volatile int handler_runs, handler_value, handler_flags;

static void reading_handler(int sig, siginfo_t *si, void *uc)
{
	int e = errno;

	handler_runs++;
	handler_value = si->si_value.sival_int;
	handler_got = recv(b, in_handler, sizeof(in_handler), handler_flags);
	errno = e;
}

static void raise_in_lock(void)
{
	sigqueue(getpid(), SIGUSR1, (union sigval){ .sival_int = 4711 });
}

static void handle(int flags)
{
	struct sigaction sa = { .sa_sigaction = reading_handler, .sa_flags = SA_SIGINFO | flags };

	cr_assert_eq(sigaction(SIGUSR1, &sa, NULL), 0);
}

Test(gate, G9_a_handler_is_put_off_to_the_end_of_the_receive_lock)
{
	sigset_t was, now;

	tcp_str(a, "first");
	wait_inq(b, 5);
	open_gate(ab);
	put_str(a, "second!");
	handle(SA_RESTART);
	hooks();
	in_recv = raise_in_lock;
	sigprocmask(SIG_SETMASK, NULL, &was);
	expect_str(b, 5, "first");
	sigprocmask(SIG_SETMASK, NULL, &now);
	cr_assert_eq(memcmp(&was, &now, sizeof(uint64_t)), 0, "the mask was left changed");
	cr_assert_eq(handler_runs, 1);
	cr_assert_eq(handler_value, 4711, "another siginfo: %d", handler_value);
	cr_assert_eq(handler_got, 7, "the handler got %zd", handler_got);
	cr_assert_eq(memcmp(in_handler, "second!", 7), 0);
	cr_assert_eq(atomic_load(&cb->s->rx_lock), 0);
	cr_assert_eq(sig_held, 0);
}

Test(gate, G9_a_one_shot_handler_put_off_runs_once)
{
	struct sigaction sa;

	tcp_str(a, "first");
	wait_inq(b, 5);
	open_gate(ab);
	put_str(a, "second!");
	handle((int)SA_RESETHAND);
	handler_flags = MSG_DONTWAIT;
	hooks();
	in_recv = raise_in_lock;
	expect_str(b, 5, "first");
	cr_assert_eq(handler_runs, 1);
	cr_assert_eq(handler_got, 7);
	cr_assert_eq(sigaction(SIGUSR1, NULL, &sa), 0);
	cr_assert_eq(sa.sa_handler, SIG_DFL, "it is still installed");
}

static void raise_two(void)
{
	sigset_t both;

	sigemptyset(&both);
	sigaddset(&both, SIGUSR1);
	sigaddset(&both, SIGUSR2);
	real.pthread_sigmask(SIG_BLOCK, &both, NULL);
	raise_in_lock();
	kill(getpid(), SIGUSR2);
	real.pthread_sigmask(SIG_UNBLOCK, &both, NULL);	/* the kernel stacks the one on the other */
}

static volatile int usr2_runs;

static void count_usr2(int sig)
{
	usr2_runs++;
}

Test(gate, G9_two_signals_put_off_at_once)
{
	struct sigaction sa = { .sa_handler = count_usr2 };
	sigset_t was, now;

	tcp_str(a, "first");
	wait_inq(b, 5);
	open_gate(ab);
	put_str(a, "second!");
	handle(0);
	cr_assert_eq(sigaction(SIGUSR2, &sa, NULL), 0);
	hooks();
	in_recv = raise_two;
	sigprocmask(SIG_SETMASK, NULL, &was);
	expect_str(b, 5, "first");
	sigprocmask(SIG_SETMASK, NULL, &now);
	cr_assert_eq(memcmp(&was, &now, sizeof(uint64_t)), 0, "the mask was left changed");
	cr_assert(handler_runs == 1 && usr2_runs == 1, "%d and %d runs", handler_runs, usr2_runs);
	cr_assert_eq(handler_got, 7);
}

/* ---- G14.4: options that make recvmsg give control data ---- */

/* bytes got; *ret_val: the int in the one control message of that level and type, or -1; *ret_flags */
static ssize_t recv_control(int fd, size_t n, int flags, size_t room, int level, int type, int *ret_val, int *ret_flags)
{
	union {
		struct cmsghdr h;
		char b[256];
	} x;
	struct iovec io = { back, n };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = x.b, .msg_controllen = room };
	struct cmsghdr *h;
	ssize_t r;

	r = recvmsg(fd, &m, flags);
	*ret_val = -1;
	if (r >= 0 && m.msg_controllen >= sizeof(*h))
		for (h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
			if (h->cmsg_level == level && h->cmsg_type == type)
				memcpy(ret_val, CMSG_DATA(h), sizeof(int));
	if (ret_flags)
		*ret_flags = m.msg_flags;
	return r;
}

Test(gate, G14_TCP_INQ_set_late_counts_both_roads_and_then_is_the_kernels)
{
	int one = 1, v, flags;

	open_gate(ab);
	put_str(a, "0123456789");
	open_gate(ba);
	cr_assert_eq(setsockopt(b, IPPROTO_TCP, TCP_INQ, &one, sizeof(one)), 0);
	cr_assert_not(is_open(ab), "the gate stayed open");
	tcp_str(a, "abcdefgh");
	wait_inq(b, 8);
	cr_assert_eq(recv_control(b, 4, 0, 256, IPPROTO_TCP, TCP_CM_INQ, &v, &flags), 4);
	cr_assert(v == 14 && flags == 0, "%d, flags %#x", v, flags);
	cr_assert_eq(recv_control(b, 4, MSG_PEEK, 256, IPPROTO_TCP, TCP_CM_INQ, &v, &flags), 4);
	cr_assert_eq(v, 14, "after a peek %d", v);
	/* room for less than one: cut, and said so */
	cr_assert_eq(recv_control(b, 2, 0, 8, IPPROTO_TCP, TCP_CM_INQ, &v, &flags), 2);
	cr_assert_eq(flags, MSG_CTRUNC);
	cr_assert_eq(recv_control(b, 6, 0, 256, IPPROTO_TCP, TCP_CM_INQ, &v, &flags), 6);
	cr_assert_eq(v, 6, "behind the seam %d", v);
	cr_assert_eq(recv_control(b, 3, 0, 256, IPPROTO_TCP, TCP_CM_INQ, &v, &flags), 3);
	cr_assert_eq(v, 3, "on TCP %d", v);
	cr_assert_eq(recv_control(b, 100, 0, 256, IPPROTO_TCP, TCP_CM_INQ, &v, &flags), 3);
	cr_assert_eq(v, 0);
	expect_err(recv_control(b, 100, MSG_DONTWAIT, 256, IPPROTO_TCP, TCP_CM_INQ, &v, NULL), EAGAIN);
	shutdown(a, SHUT_WR);
	wait_fin(b);
	cr_assert_eq(recv_control(b, 100, 0, 256, IPPROTO_TCP, TCP_CM_INQ, &v, NULL), 0);
	cr_assert_eq(v, 1, "at the end %d", v);
	cr_assert_eq(atomic_load(&cb->s->C), 8);
}

Test(gate, G14_the_last_ring_bytes_before_a_FIN_leave_one_to_read)
{
	int one = 1, v;

	open_gate(ab);
	put_str(a, "0123");
	cr_assert_eq(setsockopt(b, IPPROTO_TCP, TCP_INQ, &one, sizeof(one)), 0);
	shutdown(a, SHUT_WR);
	wait_fin(b);
	cr_assert_eq(recv_control(b, 100, 0, 256, IPPROTO_TCP, TCP_CM_INQ, &v, NULL), 4);
	cr_assert_eq(v, 1, "%d", v);
}

static void time_stamps(int option, int type)
{
	int one = 1, v = -1, i;
	ssize_t r;

	open_gate(ab);
	put_str(a, "older");
	cr_assert_eq(setsockopt(b, SOL_SOCKET, option, &one, sizeof(one)), 0);
	cr_assert_not(is_open(ab), "the gate stayed open");
	r = recv_control(b, 100, 0, 256, SOL_SOCKET, type, &v, NULL);
	cr_assert(r == 5 && v == -1, "%zd bytes from before the option, control %d", r, v);
	/* the kernel begins to take times a moment after it was asked to */
	for (i = 0; i < 2000 && v == -1; i++) {
		tcp_str(a, "newer");
		wait_inq(b, 5);
		cr_assert_eq(recv_control(b, 100, 0, 256, SOL_SOCKET, type, &v, NULL), 5);
	}
	cr_assert_neq(v, -1, "no time stamp ever came");
}

Test(gate, G14_SO_TIMESTAMP_set_late)
{
	time_stamps(SO_TIMESTAMP, SCM_TIMESTAMP);
}

Test(gate, G14_SO_TIMESTAMPNS_set_late)
{
	time_stamps(SO_TIMESTAMPNS, SCM_TIMESTAMPNS);
}

Test(gate, G14_SO_TIMESTAMP_NEW_set_late)
{
	time_stamps(63, 63);
}

/* set before the connection was known to us, or inherited from the listener */
Test(gate, G14_options_found_when_the_offer_is_due)
{
	static const struct { int level, name, value; } o[] = {
		{ SOL_SOCKET, SO_TIMESTAMP, 1 }, { SOL_SOCKET, SO_TIMESTAMPNS, 1 }, { SOL_SOCKET, SO_TIMESTAMPING, 8 },
		{ SOL_SOCKET, 63, 1 }, { SOL_SOCKET, 64, 1 }, { SOL_SOCKET, 65, 8 }, { IPPROTO_TCP, TCP_INQ, 1 },
	};
	int i = 0, zero = 0;

	cr_assert(opt_may_offer(cb, b));
	for (i = 0; i < (int)(sizeof(o) / sizeof(*o)); i++) {
		cr_assert_eq(real.setsockopt(b, o[i].level, o[i].name, &o[i].value, sizeof(int)), 0);
		cr_assert_not(opt_may_offer(cb, b), "option %d", i);
		cr_assert(atomic_load(&cb->s->flags) & S_CMSG);
		cr_assert(atomic_load(&cb->s->flags) & S_NO_OPEN);
		cr_assert_eq(real.setsockopt(b, o[i].level, o[i].name, &zero, sizeof(int)), 0);
		atomic_store(&cb->s->flags, S_ATTACHED);
		cr_assert(opt_may_offer(cb, b));
	}
	cr_assert_eq(real.fcntl64(b, F_SETFL, O_ASYNC), 0);
	cr_assert_not(opt_may_offer(cb, b), "O_ASYNC");
}

/* ---- TCP_CORK, which the kernel hears of when it matters ---- */

static void cork(int v)
{
	cr_assert_eq(setsockopt(a, IPPROTO_TCP, TCP_CORK, &v, sizeof(v)), 0);
}

static int corked(void)
{
	int v = -1;
	socklen_t l = sizeof(v);

	cr_assert_eq(real.getsockopt(a, IPPROTO_TCP, TCP_CORK, &v, &l), 0);
	return v;
}

Test(gate, G2_a_cork_is_kept_back_while_the_ring_is_used)
{
	int v = -1;
	socklen_t l = sizeof(v);

	hooks();
	cork(1);
	cr_assert_eq(corked(), 1, "what the kernel has is not known: it is told");
	cork(0);
	cr_assert_eq(n_cork, 2);
	open_gate(ab);
	cork(1);
	put_str(a, "ring");
	cork(0);
	cr_assert_eq(n_cork, 2);
	expect_str(b, 100, "ring");
	cork(1);
	cr_assert_eq(corked(), 0);
	cr_assert_eq(getsockopt(a, IPPROTO_TCP, TCP_CORK, &v, &l), 0);
	cr_assert_eq(v, 1, "the program does not see what it set");
	cork(0);
	cr_assert_eq(corked(), 0);
}

Test(gate, G2_a_cork_is_there_before_the_first_byte_that_goes_by_tcp)
{
	int q = 0;

	hooks();
	cork(1);
	cork(0);
	open_gate(ab);
	cork(1);
	put_str(a, "ring");
	cr_assert_eq(corked(), 0);
	tcp_str(a, "held");
	cr_assert_eq(corked(), 1);
	cr_assert_eq(real.ioctl(a, SIOCOUTQNSD, &q), 0);
	cr_assert_eq(q, 4, "sent, in spite of the cork");
	cork(0);
	cr_assert_eq(corked(), 0);
	expect_str(b, 4, "ring");
	wait_inq(b, 4);
	expect_str(b, 100, "held");
}

static void uncork(void)
{
	cork(0);
}

Test(gate, G2_two_who_cork_at_once_leave_nothing_held_for_good)
{
	hooks();
	cork(1);
	in_cork = uncork;	/* another thread, before the kernel has heard of ours */
	cork(1);
	cr_assert_eq(corked(), 1);
	cork(0);
	cr_assert_eq(corked(), 0, "swallowed");
	open_gate(ab);
	cork(1);
	in_cork = uncork;	/* the same while a sender gives the kernel what was kept back */
	tcp_str(a, "x");
	cr_assert_eq(corked(), 0);
}

Test(gate, G2_switching_a_cork_off_sends_what_MSG_MORE_held_back)
{
	int q = 0;

	hooks();
	cork(1);
	cork(0);
	cr_assert_eq(send(a, "more", 4, MSG_MORE), 4);
	cr_assert_eq(real.ioctl(a, SIOCOUTQNSD, &q), 0);
	cr_assert_eq(q, 4, "not held back");
	cork(0);
	cr_assert_eq(real.ioctl(a, SIOCOUTQNSD, &q), 0);
	cr_assert_eq(q, 0, "held back still");
}

Test(gate, G22_nothing_is_kept_back_while_others_may_hold_the_socket)
{
	hooks();
	cork(1);
	cork(0);
	atomic_fetch_or(&ca->s->flags, S_FOREIGN);
	cork(1);
	cr_assert_eq(corked(), 1);
	cork(0);
	cr_assert_eq(corked(), 0);
}

/* ---- sets and numbers that come and go ---- */

/* a set is closed while the connection's lock is busy: what stays of its registrations is not the next set's */
Test(gate, G15_a_closed_sets_registrations_are_not_the_next_ones)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 111 };
	int ep, i;

	nonblock(b);
	ep = epoll_create1(0);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev), 0);
	atomic_store(&cb->s->open_lock, 1);	/* somebody's who does not let go */
	close(ep);
	for (i = 0; i < (int)MAX_SETS + 10; i++)
		close(epoll_create1(0));
	ep = epoll_create1(0);
	atomic_store(&cb->s->open_lock, 0);
	expect_err(recv(b, back, 10, 0), EAGAIN);
	cr_assert_eq(send(a, "hello", 5, 0), 5);
	ev.data.u64 = 0;
	cr_assert_eq(epoll_wait(ep, &ev, 1, 0), 0, "an empty set reports %llu", (unsigned long long)ev.data.u64);
	/* and once the lock is free the next new set takes them away */
	close(epoll_create1(0));
	cr_assert_null(atomic_load(&cb->regs));
	expect_str(b, 100, "hello");
}

/* ---- G22: the peer handed unread ring bytes on to somebody who may not know of them; no TCP byte passes them unseen ---- */

static unsigned naps;
static bool comes;

static ssize_t mark_in_send(int fd, const void *buf, size_t n, int flags)
{
	atomic_fetch_or(&ab->yflags, WSD_Y_HANDED_ON);
	return libc_calls.send(fd, buf, n, flags);
}

/* a nap of the sender that waits; somebody comes in the second one, or nobody does */
static bool nap(long nr)
{
	if (nr != SYS_clock_nanosleep)
		return false;
	if (++naps == 2 && comes)
		atomic_fetch_and(&ab->yflags, ~WSD_Y_HANDED_ON);
	return true;
}

static void hand_on(bool somebody_comes)
{
	hooks();
	instead = nap;
	comes = somebody_comes;
	open_gate(ab);
	put_str(a, "ring");
	rx_close_gate(cb);
}

Test(gate, G22_a_mark_that_comes_inside_a_kernel_send_is_seen_after_it)
{
	hand_on(false);
	real.send = mark_in_send;
	cr_assert_eq(send(a, "tcp", 3, 0), 3);	/* it went, and counts */
	cr_assert_gt(naps, 2, "nobody looked at the mark again");
	expect_err(send(a, "more", 4, 0), ECONNRESET);
}

Test(gate, G22_who_comes_in_time_gets_the_ring_first)
{
	hand_on(true);
	real.send = mark_in_send;
	cr_assert_eq(send(a, "tcp", 3, 0), 3);
	cr_assert_eq(naps, 2);
	wait_inq(b, 3);
	expect_str(b, 4, "ring");
	expect_str(b, 3, "tcp");
}

Test(gate, G22_sendfile_and_sendmsg_do_not_pass_the_mark)
{
	struct iovec io = { "tcp", 3 };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };
	FILE *f = tmpfile();

	fputs("file", f);
	fflush(f);
	hand_on(false);
	atomic_fetch_or(&ab->yflags, WSD_Y_HANDED_ON);
	expect_err(sendfile(a, fileno(f), &(off_t){ 0 }, 4), ECONNRESET);
	cr_assert_eq(atomic_load(&ca->s->H), 0, "TCP bytes passed what is in the ring");
	atomic_store(&ca->s->kept_err, 0);
	expect_err(sendmsg(a, &m, 0), ECONNRESET);
	cr_assert_eq(atomic_load(&ca->s->H), 0);
}

/* ---- G21: who has gone without reading what we put ---- */

static bool count_nap(long n)
{
	naps += n == SYS_clock_nanosleep;
	return false;
}

static void left_unread(void)
{
	open_gate(ab);
	put_str(a, "unread");
	hooks();
	instead = count_nap;
}

static void peer_gone(void)
{
	real.close(b);
	wait_fin(a);
	atomic_store(&ses->revoked, WSD_REVOKED | WSD_END_GONE(1));
	rx_close_gate(cb);	/* as the daemon does */
}

Test(gate, G21_what_nobody_will_read_is_a_reset)
{
	struct pollfd p = { a, POLLIN | POLLOUT | POLLRDHUP, 0 };
	char x[8];

	left_unread();
	peer_gone();
	cr_assert_eq(poll(&p, 1, 0), 1);
	cr_assert_eq(p.revents, POLLIN | POLLOUT | POLLRDHUP | POLLERR | POLLHUP, "%#x", (unsigned)p.revents);
	expect_err(recv(a, x, 1, 0), ECONNRESET);
	cr_assert_eq(recv(a, x, 1, 0), 0);
	expect_err(send(a, "x", 1, MSG_NOSIGNAL), EPIPE);
	cr_assert_eq(naps, 0);
}

Test(gate, G21_what_came_is_read_before_the_reset)
{
	char x[8];

	left_unread();
	open_gate(ba);
	put_str(b, "ring");
	tcp_str(b, "tcp");
	peer_gone();
	expect_str(a, 4, "ring");
	expect_str(a, 8, "tcp");
	expect_err(recv(a, x, 1, 0), ECONNRESET);
	cr_assert_eq(recv(a, x, 1, 0), 0);
}

Test(gate, G21_the_error_is_told_to_who_sends_first)
{
	left_unread();
	real.close(b);
	wait_fin(a);
	rx_close_gate(cb);
	atomic_store(&ses->revoked, WSD_REVOKED | WSD_END_GONE(1));
	expect_err(send(a, "x", 1, 0), ECONNRESET);
	expect_err(send(a, "x", 1, MSG_NOSIGNAL), EPIPE);
}

Test(gate, G21_and_to_who_asks_for_it_first)
{
	int v = 0, i;
	socklen_t l = sizeof(v);

	left_unread();
	peer_gone();
	for (i = 0; i < 2; i++) {
		cr_assert_eq(getsockopt(a, SOL_SOCKET, SO_ERROR, &v, &l), 0);
		cr_assert_eq(v, i ? 0 : ECONNRESET, "%d the %d. time", v, i + 1);
	}
}

/* its FIN has not come: who has shut its own side, and is answered by TCP, waits for nobody's word */
Test(gate, G21_without_a_fin_nobody_is_asked)
{
	struct pollfd p = { a, POLLIN, 0 };
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = a };
	int ep = epoll_create1(0);

	left_unread();
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	tcp_str(b, "tcp");
	wait_inq(a, 3);
	cr_assert_eq(poll(&p, 1, 0), 1);
	cr_assert_eq(p.revents, POLLIN);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, a, &ev), 0);
	cr_assert_eq(epoll_wait(ep, &ev, 1, 0), 1);
	cr_assert_eq(naps, 0);
	cr_assert_eq(atomic_load(&ca->s->flags) & S_UNREAD_ASKED, 0, "spent");
	expect_str(a, 3, "tcp");
}

/* the place of an edge that is left out is the next event's: nobody else gets what that connection has */
Test(gate, G21_an_edge_that_is_left_out_leaves_its_place)
{
	struct epoll_event ev[4] = { { .events = EPOLLIN | EPOLLET, .data.fd = a } };
	int ep = epoll_create1(0), sv[2], i, n;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	left_unread();
	open_gate(ba);
	put_str(b, "ring");
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, a, ev), 0);
	ev[0] = (struct epoll_event){ .events = EPOLLPRI | EPOLLRDHUP, .data.fd = sv[0] };
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, sv[0], ev), 0);
	peer_gone();
	cr_assert_eq(real.shutdown(sv[1], SHUT_WR), 0);		/* behind it in what the kernel reports */
	n = epoll_wait(ep, ev, 4, 0);
	cr_assert_geq(n, 1);
	for (i = 0; i < n && ev[i].data.fd != sv[0]; i++)
		;
	cr_assert_lt(i, n);
	cr_expect_eq(ev[i].events, EPOLLRDHUP, "%#x", ev[i].events);
}

/* the one edge of a reset: not the FIN's, and then another one */
Test(gate, G21_an_edge_is_told_once_with_all_there_is)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.fd = a };
	int ep = epoll_create1(0);

	left_unread();
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, a, &ev), 0);
	cr_assert_eq(epoll_wait(ep, &ev, 1, 0), 0);
	peer_gone();
	cr_assert_eq(epoll_wait(ep, &ev, 1, 1000), 1);
	cr_assert_eq(ev.events, EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP, "%#x", ev.events);
	cr_assert_eq(epoll_wait(ep, &ev, 1, 0), 0, "%#x", ev.events);
}

/* after shutdown(SHUT_WR) of ours the two FINs close the connection, and no reset can be had of the kernel */
Test(gate, G21_who_has_shut_its_side_is_told_as_well)
{
	struct pollfd p = { a, POLLIN, 0 };
	char x[8];

	left_unread();
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	peer_gone();
	cr_assert_eq(poll(&p, 1, 0), 1);
	cr_assert_eq(p.revents, POLLIN | POLLERR | POLLHUP, "%#x", (unsigned)p.revents);
	expect_err(recv(a, x, 1, 0), ECONNRESET);
	cr_assert_eq(recv(a, x, 1, 0), 0);
	cr_assert_eq(poll(&p, 1, 0), 1);
	cr_assert_eq(p.revents, POLLIN | POLLHUP, "%#x", (unsigned)p.revents);
}

/* A session is revoked for other reasons, too: the daemon stops. */
Test(gate, G21_a_peer_that_has_shut_its_side_goes_on_reading)
{
	char x[8];

	left_unread();
	atomic_store(&ses->revoked, WSD_REVOKED);
	cr_assert_eq(shutdown(b, SHUT_WR), 0);
	wait_fin(a);
	cr_assert_eq(recv(a, x, 1, 0), 0);
	cr_assert_eq(naps, 0, "it said that it only shut its side");
	tcp_str(a, "behind");
	wait_inq(b, 6);
	expect_str(b, 6, "unread");
	expect_str(b, 8, "behind");
	cr_assert_eq(recv(a, x, 1, 0), 0);
}

Test(gate, G21_without_a_word_the_daemon_is_waited_for_once)
{
	unsigned n;
	char x[8];

	left_unread();
	real.shutdown(b, SHUT_WR);	/* a peer that does not say why */
	wait_fin(a);
	cr_assert_eq(recv(a, x, 1, 0), 0);
	n = naps;
	cr_assert_gt(n, 2);
	cr_assert_lt(n, 1000);
	cr_assert_eq(recv(a, x, 1, 0), 0);
	cr_assert_eq(naps, n, "waited for again");
	expect_str(b, 8, "unread");
}

/* the peer may write the daemon's word: it harms nobody but itself, and not its stream either */
Test(gate, G21_a_word_that_is_not_true_puts_no_byte_into_the_stream)
{
	char x[8];

	left_unread();
	cr_assert_eq(shutdown(b, SHUT_WR), 0);
	wait_fin(a);
	atomic_store(&ses->revoked, WSD_END_GONE(1));
	expect_err(recv(a, x, 1, 0), ECONNRESET);
	expect_str(b, 8, "unread");
	expect_err(recv(b, x, 1, MSG_DONTWAIT), EAGAIN);
}

Test(gate, G21_what_was_carried_through_exec_may_have_been_read)
{
	char x[8];

	left_unread();
	atomic_fetch_or(&ab->yflags, WSD_Y_CARRIED);
	peer_gone();
	cr_assert_eq(recv(a, x, 1, 0), 0);
}
