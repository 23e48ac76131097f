/* SPDX-License-Identifier: MIT */
/*
 * rules.c - the rules of the gate (docs/protocol.md), one by one, from inside (ends.h)
 */
#include "tests/unit/switch/ends.h"

TestSuite(gate, .init = ends_make, .timeout = 30);

/* ---- G1, G3: what a closing or TCP bytes do to a put that is under way ---- */

static void close_b_gate(void)
{
	rx_close_gate(cb);
}

Test(gate, G1_a_put_fails_once_the_gate_is_closed)
{
	int f = file_of("hello");
	off_t off = 0;

	open_gate(ab);
	hooks();
	in_pread = close_b_gate;
	cr_assert_eq(sendfile(a, f, &off, 5), 5);
	cr_assert_null(in_pread, "the put was not interrupted");
	cr_assert_eq(atomic_load(&ca->s->put), 0);
	cr_assert_eq(WSD_GATE_HEAD(atomic_load(&ab->gate)), 0, "a closed gate took bytes");
	cr_assert_eq(atomic_load(&ca->s->H), 5);
	expect_str(b, 100, "hello");
}

static void send_on_tcp(void)
{
	tcp_str(a, "first");
}

Test(gate, G3_tcp_bytes_make_a_put_under_way_start_again)
{
	int f = file_of("second");
	off_t off = 0;

	open_gate(ab);
	hooks();
	in_pread = send_on_tcp;
	cr_assert_eq(sendfile(a, f, &off, 6), 6);
	cr_assert_eq(atomic_load(&ca->s->H) + atomic_load(&ca->s->put), 11);
	if (atomic_load(&ca->s->put))
		cr_assert_eq(atomic_load(&ab->start), 5, "the put has the start of before");
	wait_inq(b, (int)atomic_load(&ca->s->H));
	cr_assert_eq(recv(b, back, 11, MSG_WAITALL), 11);
	cr_assert_eq(memcmp(back, "firstsecond", 11), 0, "got %.11s", back);
}

/* ---- G5 ---- */

Test(gate, G5_nonblocking_rest_is_one_kernel_call)
{
	hooks();
	fill_big();
	open_gate(ab);
	cr_assert_eq(send(a, big, 100000, MSG_DONTWAIT), 100000);
	cr_assert_eq(n_send, 1, "%u kernel calls", n_send);
	cr_assert_eq(atomic_load(&ca->s->put), RING);
	cr_assert_eq(atomic_load(&ca->s->H), 100000 - RING);
	expect_big(b, 100000);
}

Test(gate, G5_short_and_eagain_are_the_kernels_own)
{
	hooks();
	fill_big();
	open_gate(ab);
	send_short = 1000;
	cr_assert_eq(send(a, big, 100000, MSG_DONTWAIT), RING + 1000);
	cr_assert_eq(n_send, 1);
	send_short = 0;
	/* the ring is full: only the kernel may say so */
	send_error = EAGAIN;
	expect_err(send(a, big, 10, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(n_send, 2);
	cr_assert_eq(atomic_load(&ca->s->kept_err), 0);
	expect_big(b, RING + 1000);
}

Test(gate, G5_a_message_that_fits_an_empty_ring_is_not_split)
{
	hooks();
	fill_big();
	open_gate(ab);
	cr_assert_eq(send(a, big, 10000, MSG_DONTWAIT), 10000);
	cr_assert_eq(atomic_load(&ca->s->put), 10000);
	cr_assert_eq(send(a, big + 10000, 8000, MSG_DONTWAIT), 8000);
	cr_assert_eq(atomic_load(&ca->s->put), 10000, "a part of it was put");
	cr_assert_eq(atomic_load(&ca->s->H), 8000);
	cr_assert_not(on_ring(ab), "TCP bytes and still on the ring");
	cr_assert_eq(n_send, 1);
	wait_inq(b, 8000);
	expect_big(b, 18000);
}

/* ---- G6 ---- */

Test(gate, G6_sendfile_of_a_regular_file_is_put)
{
	int f = file_of("0123456789");
	off_t off = 3;

	open_gate(ab);
	cr_assert_eq(sendfile(a, f, &off, 4), 4);
	cr_assert_eq(off, 7);
	cr_assert_eq(lseek(f, 0, SEEK_CUR), 0);
	cr_assert_eq(sendfile(a, f, NULL, 2), 2);
	cr_assert_eq(lseek(f, 0, SEEK_CUR), 2);
	cr_assert_eq(sendfile(a, f, NULL, 100), 8, "up to the end of the file");
	cr_assert_eq(atomic_load(&ca->s->put), 14);
	cr_assert_eq(atomic_load(&ca->s->H), 0);
	expect_str(b, 100, "34560123456789");
}

Test(gate, G6_splice_from_a_pipe_is_tcps)
{
	int p[2];

	open_gate(ab);
	cr_assert_eq(pipe(p), 0);
	cr_assert_eq(write(p[1], "piped", 5), 5);
	put_str(a, "ring ");
	cr_assert_eq(splice(p[0], NULL, a, NULL, 5, 0), 5);
	cr_assert_eq(atomic_load(&ca->s->put), 5);
	cr_assert_eq(atomic_load(&ca->s->H), 5);
	cr_assert_not(on_ring(ab));
	wait_inq(b, 5);
	expect_str(b, 10, "ring piped");
}

Test(gate, G6_control_data_is_tcps)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(uint32_t))];
	} ctl = { .h = { CMSG_LEN(sizeof(uint32_t)), SOL_SOCKET, SO_TIMESTAMPING } };
	struct iovec io = { "xyz", 3 };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1 };

	open_gate(ab);
	cr_assert_eq(sendmsg(a, &m, 0), 3);
	cr_assert_eq(atomic_load(&ca->s->put), 3);
	m.msg_control = &ctl;
	m.msg_controllen = sizeof(ctl);
	cr_assert_eq(sendmsg(a, &m, 0), 3);
	cr_assert_eq(atomic_load(&ca->s->put), 3, "control data and the ring");
	cr_assert_eq(atomic_load(&ca->s->H), 3);
}

Test(gate, G6_the_five_flags_are_put_and_no_other)
{
	static const int ring[] = { 0, MSG_NOSIGNAL, MSG_DONTWAIT, MSG_MORE, MSG_EOR };
	static const int tcp[] = { MSG_ZEROCOPY, MSG_DONTROUTE, MSG_CONFIRM };
	uint64_t put = 0, h = 0;
	size_t i;

	for (i = 0; i < sizeof(ring) / sizeof(*ring); i++) {
		open_gate(ab);
		cr_assert_eq(send(a, "x", 1, ring[i]), 1);
		cr_assert_eq(atomic_load(&ca->s->put), ++put, "flags %x", (unsigned)ring[i]);
		expect_str(b, 10, "x");
	}
	for (i = 0; i < sizeof(tcp) / sizeof(*tcp); i++) {
		open_gate(ab);
		cr_assert_eq(send(a, "x", 1, tcp[i]), 1);
		cr_assert_eq(atomic_load(&ca->s->H), ++h, "flags %x", (unsigned)tcp[i]);
		cr_assert_eq(atomic_load(&ca->s->put), put, "flags %x", (unsigned)tcp[i]);
		wait_inq(b, 1);
		expect_str(b, 10, "x");
	}
}

Test(gate, G6_urgent_data_leaves_for_good)
{
	open_gate(ab);
	put_str(a, "in");
	cr_assert_eq(send(a, "!", 1, MSG_OOB), 1);
	cr_assert_not(on_ring(ab));
	cr_assert_eq(atomic_load(&ca->s->why), WSD_R_OPTION);
	cr_assert(atomic_load(&ca->s->flags) & S_NO_PUT);
	cr_assert_eq(send(a, "t", 1, 0), 1);
	cr_assert_eq(atomic_load(&ca->s->put), 2);
	cr_assert_eq(atomic_load(&ca->s->H), 2);
}

/* ---- G7 ---- */

static void expect_new_segment(void)
{
	uint32_t e = epoch(ab);

	cr_assert_eq(send(a, "tcp", 3, 0), 3);
	cr_assert_eq(atomic_load(&ca->s->H), 3, "the segment went on");
	cr_assert_not(on_ring(ab));
	cr_assert_neq(epoch(ab), e, "it left without a new epoch (G3)");
	wait_inq(b, 3);
	expect_str(b, 7, "ringtcp");
	cr_assert(is_open(ab));
	put_str(a, "new");
	cr_assert_eq(atomic_load(&ab->start), 3, "the new segment starts at H");
	expect_str(b, 100, "new");
}

Test(gate, G7_an_old_segment_leaves)
{
	open_gate(ab);
	put_str(a, "ri");
	atomic_store(&ca->s->seg_t0, tsc_now() - (uint64_t)US(15e6));
	put_str(a, "ng");
	atomic_store(&ca->s->seg_t0, tsc_now() - (uint64_t)US(60e6));
	expect_new_segment();
}

Test(gate, G7_a_long_segment_leaves)
{
	open_gate(ab);
	put_str(a, "ri");
	atomic_store(&ca->s->seg_put, atomic_load(&ca->s->put) - (1ull << 30));
	put_str(a, "ng");
	atomic_store(&ca->s->seg_put, atomic_load(&ca->s->put) - (8ull << 30));
	expect_new_segment();
}

/* ---- G8 ---- */

Test(gate, G8_after_shutdown_a_send_meets_epipe)
{
	uint32_t e;

	open_gate(ab);
	put_str(a, "before");
	e = epoch(ab);
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	cr_assert(atomic_load(&ca->s->flags) & S_SHUT_WR);
	cr_assert_not(on_ring(ab));
	cr_assert_neq(epoch(ab), e);
	expect_err(send(a, "x", 1, MSG_NOSIGNAL), EPIPE);
	cr_assert_eq(atomic_load(&ca->s->put), 6);
	expect_str(b, 100, "before");
	cr_assert_eq(recv(b, back, 10, 0), 0);
}

static void shut_a(void)
{
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
}

Test(gate, G8_a_put_under_way_at_the_shutdown_meets_epipe)
{
	int f = file_of("late");
	off_t off = 0;

	open_gate(ab);
	put_str(a, "early");
	hooks();
	in_pread = shut_a;
	expect_err(sendfile(a, f, &off, 4), EPIPE);
	cr_assert_null(in_pread, "the put was not interrupted");
	cr_assert_eq(off, 0);
	cr_assert_eq(atomic_load(&ca->s->put), 5, "bytes were put after the FIN");
	expect_str(b, 100, "early");
	cr_assert_eq(recv(b, back, 10, 0), 0);
}

Test(gate, G8_close_leaves_the_ring_and_closes_the_own_gate)
{
	int other;
	uint32_t e;

	open_gate(ab);
	open_gate(ba);
	put_str(a, "bye");
	e = epoch(ab);
	other = dup(a);
	cr_assert_eq(close(a), 0);
	cr_assert(on_ring(ab) && is_open(ba), "another number of it is open");
	cr_assert_eq(close(other), 0);
	cr_assert_not(on_ring(ab));
	cr_assert_neq(epoch(ab), e);
	cr_assert_not(is_open(ba));
	expect_str(b, 100, "bye");
	cr_assert_eq(recv(b, back, 10, 0), 0);
}

Test(gate, G8_close_with_unread_ring_bytes_resets)
{
	struct pollfd p = { b, 0, 0 };

	open_gate(ba);
	put_str(b, "never read");
	cr_assert_eq(close(a), 0);
	cr_assert_eq(real.poll(&p, 1, 10000), 1);
	expect_err(recv(b, back, 10, 0), ECONNRESET);
}

/* ---- G9 ---- */

Test(gate, G9_the_ring_waits_for_the_tcp_bytes_before_it)
{
	uint32_t head;

	tcp_str(a, "first");
	wait_inq(b, 5);
	open_gate(ab);
	put_str(a, "second!");
	cr_assert_eq(atomic_load(&ab->start), 5);
	cr_assert_not(rx_readable(cb, &head), "C < start");
	tcp_str(a, "third");
	wait_inq(b, 10);
	hooks();
	expect_str(b, 3, "fir");
	cr_assert_not(rx_readable(cb, &head));
	n_recv = 0;
	expect_str(b, 100, "stsecond!third");
	cr_assert_eq(first_recv_len, 2, "%zu asked for, start - C is 2", first_recv_len);
	cr_assert_eq(atomic_load(&cb->s->C), 10);
	cr_assert_eq(atomic_load(&cb->s->taken), 7);
}

Test(gate, G9_tcp_before_the_ring_is_read_for_start_minus_c_only)
{
	tcp_str(a, "first");
	wait_inq(b, 5);
	open_gate(ab);
	put_str(a, "second!");
	tcp_str(a, "third");
	wait_inq(b, 10);
	hooks();
	expect_str(b, 100, "firstsecond!third");
	cr_assert_eq(first_recv_len, 5, "%zu asked for, start - C is 5", first_recv_len);
}

Test(gate, G9_a_false_start_makes_nothing_readable)
{
	struct pollfd p = { b, POLLIN, 0 };
	uint32_t head;

	nonblock(b);
	open_gate(ab);
	put_str(a, "xxx");
	atomic_store(&ab->start, 50);
	cr_assert_not(rx_readable(cb, &head));
	cr_assert_eq(poll(&p, 1, 0), 0);
	expect_err(recv(b, back, 10, 0), EAGAIN);
	cr_assert_eq(atomic_load(&cb->s->taken), 0);
}

/* ---- G12 ---- */

static void other_reader(void)
{
	atomic_fetch_add(&cb->s->taken, 3);
	atomic_store(&ab->tail, 3);
}

Test(gate, G12_not_past_a_seam_where_another_reader_was)
{
	tcp_str(a, "first");
	wait_inq(b, 5);
	open_gate(ab);
	put_str(a, "second");
	hooks();
	in_recv = other_reader;
	expect_str(b, 100, "first");
	expect_str(b, 100, "ond");
}

static int et_set(int fd)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.fd = fd };
	int ep = epoll_create1(0);

	cr_assert_geq(ep, 0);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
	return ep;
}

/* a file that does not answer at once is read all the same, and errno stays as it was */
Test(gate, G6_a_file_that_is_not_in_memory)
{
	int f = file_of("slow");
	off_t off = 0;

	open_gate(ab);
	hooks();
	preadv2_error = EAGAIN;
	errno = 0;
	cr_assert_eq(sendfile(a, f, &off, 4), 4);
	cr_assert_eq(errno, 0);
	cr_assert_eq(preadv2_error, 0, "it was not asked");
	cr_assert_eq(atomic_load(&ca->s->put), 4);
	expect_str(b, 100, "slow");
}

Test(gate, G12_an_edge_triggered_short_count_has_its_proof)
{
	nonblock(b);
	et_set(b);
	open_gate(ab);
	put_str(a, "ring");
	cb->asked = 0;
	atomic_store(&cb->kevent, 1);
	hooks();
	expect_str(b, 100, "ring");
	cr_assert_eq(n_recv, 1, "short behind an event of the kernel's, and it was not asked");
	cr_assert_eq(recv_flags, MSG_PEEK | MSG_DONTWAIT);
	cr_assert(on_ring(ab), "the look is proof enough: the gate stays open (G13)");
}

/* all that can be behind the ring is the end of the stream, and of that the kernel has not told yet: the edge is still to come */
Test(gate, G13_a_short_count_needs_no_look_while_the_kernel_has_told_nothing)
{
	struct epoll_event ev;
	int ep;

	nonblock(b);
	ep = et_set(b);
	open_gate(ab);
	put_str(a, "ring");
	cb->asked = 0;
	cr_assert_eq(real.shutdown(a, SHUT_WR), 0, "as when a process dies");
	wait_fin(b);
	hooks();
	expect_str(b, 100, "ring");
	cr_assert_eq(n_recv, 0, "the kernel was asked for nothing");
	cr_assert_eq(atomic_load(&cb->kevent), 0);
	cr_assert_eq(epoll_wait(ep, &ev, 1, 1000), 1, "the end of the stream was not told");
	cr_assert_eq(recv(b, back, 10, 0), 0);
}

static void put_two(void)
{
	put_str(a, "two");
}

Test(gate, G13_a_message_that_comes_while_the_kernel_is_asked_leaves_the_gate_open)
{
	nonblock(b);
	et_set(b);
	open_gate(ab);
	put_str(a, "one");
	expect_str(b, 3, "one");
	cb->asked = 0;
	hooks();
	in_recv = put_two;
	expect_str(b, 100, "two");
	cr_assert(on_ring(ab));
}

Test(gate, G12_an_error_after_bytes_is_kept_for_the_next_receive)
{
	nonblock(b);
	et_set(b);
	open_gate(ab);
	put_str(a, "ring");
	rx_close_gate(cb);
	hooks();
	recv_error = ECONNRESET;
	expect_str(b, 100, "ring");
	cr_assert_eq(recv_error, 0, "the kernel was not asked");
	expect_err(recv(b, back, 10, 0), ECONNRESET);
	expect_err(recv(b, back, 10, 0), EAGAIN);	/* once */
}

Test(gate, G12_a_kept_error_is_what_SO_ERROR_says)
{
	socklen_t l = sizeof(int);
	int e = 0;

	nonblock(b);
	et_set(b);
	open_gate(ab);
	put_str(a, "ring");
	rx_close_gate(cb);
	hooks();
	recv_error = ETIMEDOUT;
	expect_str(b, 100, "ring");
	cr_assert_eq(getsockopt(b, SOL_SOCKET, SO_ERROR, &e, &l), 0);
	cr_assert_eq(e, ETIMEDOUT);
	cr_assert_eq(getsockopt(b, SOL_SOCKET, SO_ERROR, &e, &l), 0);
	cr_assert_eq(e, 0);
}

Test(gate, G12_a_senders_error_after_puts_is_kept)
{
	hooks();
	open_gate(ab);
	send_error = ECONNRESET;
	cr_assert_eq(send(a, big, 100000, MSG_DONTWAIT), RING);
	expect_err(send(a, big, 1, MSG_DONTWAIT), ECONNRESET);
	cr_assert_eq(n_send, 1, "the error was the kernel's again");
	cr_assert_eq(send(a, big, 1, MSG_DONTWAIT), 1);
}

Test(gate, G12_a_read_meets_what_the_peek_showed)
{
	open_gate(ab);
	put_str(a, "secret");
	cr_assert_eq(recv(b, back, 4, MSG_PEEK), 4);
	cr_assert_eq(memcmp(back, "secr", 4), 0);
	cr_assert_eq(atomic_load(&cb->s->taken), 0);
	cr_assert_not(is_open(ab), "a peek closes the gate");
	memset(ca->txr, 'X', 6);
	cr_assert_eq(recv(b, back, 100, MSG_PEEK), 6);
	cr_assert_eq(memcmp(back, "secret", 6), 0, "another peek: %.6s", back);
	expect_str(b, 2, "se");
	expect_str(b, 100, "cret");
	cr_assert_eq(close(b), 0);	/* frees the copy: the leak checker looks */
}

Test(gate, G12_a_peek_joins_the_parts)
{
	tcp_str(a, "first");
	wait_inq(b, 5);
	open_gate(ab);
	put_str(a, "second");
	tcp_str(a, "third");
	wait_inq(b, 10);
	cr_assert_eq(recv(b, back, 100, MSG_PEEK), 16);
	cr_assert_eq(memcmp(back, "firstsecondthird", 16), 0, "%.16s", back);
	cr_assert_eq(atomic_load(&cb->s->C), 0);
	expect_str(b, 100, "firstsecondthird");
	cr_assert_eq(close(b), 0);	/* frees the copy: the leak checker looks */
}

/* ---- G13 ---- */

/* b's gate open, on the ring, the ring empty */
static void running_segment(void)
{
	nonblock(b);
	et_set(b);
	open_gate(ab);
	put_str(a, "x");
	expect_str(b, 1, "x");
	cr_assert(on_ring(ab));
}

/* the kernel calls of a receive that met EAGAIN when the kernel was asked age before, the call itself being quick */
static unsigned eagain_calls(uint64_t age)
{
	int i;

	for (i = 0; i < 10000; i++) {
		uint64_t t0 = tsc_now();

		cb->asked = t0 - age;
		n_recv = 0;
		expect_err(recv(b, back, 10, 0), EAGAIN);
		if (tsc_now() - t0 < (uint64_t)US(25))
			break;
		if (!on_ring(ab))
			cr_assert_fail("the gate was closed");
	}
	return n_recv;
}

Test(gate, G13_eagain_without_a_system_call_for_a_moment)
{
	running_segment();
	hooks();
	cr_assert_eq(eagain_calls(0), 0);
	cr_assert(on_ring(ab));
	cr_assert_eq(eagain_calls((uint64_t)US(1000)), 1, "long ago");
	cr_assert(on_ring(ab));
}

Test(gate, G13_not_where_tcp_bytes_may_come_first)
{
	running_segment();
	hooks();
	atomic_store(&ab->start, 5);
	cr_assert_eq(eagain_calls(0), 1);
}

Test(gate, G13_not_once_the_kernel_reported_an_event)
{
	running_segment();
	hooks();
	atomic_store(&cb->kevent, 1);
	libc_calls.shutdown(a, SHUT_WR);
	wait_fin(b);
	cb->asked = tsc_now();
	cr_assert_eq(recv(b, back, 10, 0), 0, "the FIN behind the event was not seen");
	cr_assert_gt(n_recv, 0);
}

Test(gate, G13_epoll_marks_the_connection_whose_event_it_told)
{
	struct epoll_event ev;
	int ep;

	nonblock(b);
	ep = et_set(b);
	open_gate(ab);
	put_str(a, "x");
	expect_str(b, 1, "x");
	cr_assert_eq(atomic_load(&cb->kevent), 0);
	real.shutdown(a, SHUT_WR);
	wait_fin(b);
	cr_assert_eq(epoll_wait(ep, &ev, 1, 10000), 1);
	cr_assert(ev.events & EPOLLRDHUP);
	cr_assert_eq(atomic_load(&cb->kevent), 1);
	cb->asked = tsc_now();
	cr_assert_eq(recv(b, back, 10, 0), 0);
}

/* ---- G16 ---- */

Test(gate, G16_bytes_sent_around_us_keep_the_sender_on_tcp)
{
	cr_assert_eq(real.send(a, "around", 6, 0), 6);
	open_gate(ab);
	cr_assert_eq(send(a, "us", 2, 0), 2);
	cr_assert_eq(atomic_load(&ca->s->put), 0, "a segment at a wrong start");
	cr_assert(atomic_load(&ca->s->flags) & S_NO_PUT);
	cr_assert_eq(atomic_load(&ca->s->why), WSD_R_OFFSETS);
	wait_inq(b, 8);
	expect_str(b, 100, "aroundus");
	cr_assert_eq(send(a, "x", 1, 0), 1);
	cr_assert_eq(atomic_load(&ca->s->put), 0);
}

Test(gate, G16_bytes_received_around_us_keep_the_gate_closed)
{
	tcp_str(a, "around us");
	wait_inq(b, 9);
	cr_assert_eq(real.recv(b, back, 7, 0), 7);
	expect_str(b, 100, "us");
	cr_assert_not(is_open(ab), "C is wrong and the gate open");
	cr_assert(atomic_load(&cb->s->flags) & S_NO_OPEN);
	cr_assert_eq(atomic_load(&cb->s->why), WSD_R_OFFSETS);
	cr_assert(atomic_load(&ab->yflags) & WSD_Y_NO_OPEN);
}

Test(gate, G16_counts_that_agree_open_and_start)
{
	tcp_str(a, "hi");
	wait_inq(b, 2);
	expect_str(b, 100, "hi");
	cr_assert(is_open(ab));
	put_str(a, "there");
	expect_str(b, 100, "there");
}

/* the counts of a fresh connection agree with any other: the cookie alone tells them apart */
Test(gate, G16_another_socket_under_the_number_starts_no_segment)
{
	int old_a = a, old_b = b;
	struct conn *old = ca;
	struct wsd_ring_dir *old_ab = ab;

	open_gate(ab);
	ends_make();
	cr_assert_eq(real.dup2(a, old_a), old_a);
	cr_assert_eq(send(old_a, "x", 1, MSG_NOSIGNAL), 1);
	cr_assert_eq(atomic_load(&old->s->put), 0, "put on the session of another socket");
	cr_assert_eq(WSD_GATE_HEAD(atomic_load(&old_ab->gate)), 0);
	cr_assert_eq(atomic_load(&old->s->why), WSD_R_OFFSETS);
	real.close(old_b);
}

/* ---- G18 ---- */

/* the gate is open and its set has it in the list, as rx_maybe_open does it */
static void open_in_set(struct conn *c)
{
	cr_assert(lock_try(&c->s->open_lock, 1));
	cr_assert(eset_enter_open(c));
	lock_drop(&c->s->open_lock);
	open_gate(c->rx);
}

/* Two connections of one set, a kernel event of one in an earlier wait, ring hits of both in the next, in which the kernel has nothing:
 * each is told under its own data, whatever place the earlier event had. */
Test(gate, G18_ring_hits_are_told_each_under_its_own_data)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.u64 = 1 }, got[4];
	int ep = epoll_create1(0), round, k;

	nonblock(a);
	nonblock(b);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, a, &ev), 0);
	ev.data.u64 = 2;
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev), 0);
	for (round = 0; round < 8; round++) {
		int to = round & 1 ? a : b, from = round & 1 ? b : a;
		uint64_t t0;
		unsigned seen = 0;

		cr_assert_eq(send(from, "tcp", 3, 0), 3);
		cr_assert_eq(epoll_wait(ep, got, 4, 10000), 1);
		cr_assert_eq(got[0].data.u64, to == a ? 1 : 2);
		expect_str(to, 3, "tcp");
		open_in_set(ca);
		open_in_set(cb);
		put_str(a, "to b");
		put_str(b, "to a");
		for (t0 = tsc_now(); tsc_now() - t0 < (uint64_t)US(50);)
			;	/* the kernel is asked again, and has nothing */
		for (k = 0; k < 2;) {
			int n = epoll_wait(ep, got + k, 4 - k, 10000);

			cr_assert_geq(n, 1, "round %d: an edge is missing", round);
			for (; n > 0; n--, k++)
				seen |= (unsigned)got[k].data.u64;
		}
		cr_assert_eq(seen, 3);
		expect_str(b, 4, "to b");
		expect_str(a, 4, "to a");
		expect_err(recv(a, back, 1, MSG_DONTWAIT), EAGAIN);
		expect_err(recv(b, back, 1, MSG_DONTWAIT), EAGAIN);
		rx_close_gate(ca);
		rx_close_gate(cb);
		tx_leave(ca);
		tx_leave(cb);
	}
}

/* ---- G19 ---- */

/* the events that the kernel's own set has for fd; -1: it is not in there */
static long kernel_has(int ep, int fd)
{
	char path[64], line[256];
	unsigned ev;
	long got = -1;
	FILE *f;
	int tfd;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", ep);
	f = fopen(path, "re");
	cr_assert_not_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "tfd: %d events: %x", &tfd, &ev) == 2 && tfd == fd)
			got = (long)(ev & ~(unsigned)(EPOLLERR | EPOLLHUP));
	fclose(f);
	return got;
}

static int lt_set(void)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = b };
	int ep = epoll_create1(0);

	nonblock(b);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev), 0);
	cr_assert_eq(kernel_has(ep, b), EPOLLIN, "with a closed gate it is the kernel's at once");
	open_gate(ab);
	return ep;
}

Test(gate, G19_a_level_triggered_change_stays_in_the_mirror_until_the_wait)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLPRI, .data.fd = b }, got;
	int ep = lt_set();

	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_MOD, b, &ev), 0);
	cr_assert_eq(kernel_has(ep, b), EPOLLIN, "it was not deferred");
	cr_assert_eq(epoll_wait(ep, &got, 1, 0), 0);
	cr_assert_eq(kernel_has(ep, b), EPOLLIN | EPOLLPRI);
}

Test(gate, G19_the_errors_are_exact)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = b }, got;
	int ep = lt_set();

	expect_err(epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev), EEXIST);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_DEL, b, NULL), 0);
	expect_err(epoll_ctl(ep, EPOLL_CTL_DEL, b, NULL), ENOENT);
	expect_err(epoll_ctl(ep, EPOLL_CTL_MOD, b, &ev), ENOENT);
	cr_assert_eq(kernel_has(ep, b), EPOLLIN, "it was not deferred");
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev), 0);
	expect_err(epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev), EEXIST);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_DEL, b, NULL), 0);
	cr_assert_eq(epoll_wait(ep, &got, 1, 0), 0);
	cr_assert_eq(kernel_has(ep, b), -1);
	expect_err(epoll_ctl(ep, EPOLL_CTL_DEL, b, NULL), ENOENT);
}

Test(gate, G19_an_edge_triggered_change_reaches_the_kernel_at_once)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.fd = b };
	int ep = lt_set();

	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_MOD, b, &ev), 0);
	cr_assert_eq(kernel_has(ep, b), (long)(uint32_t)(EPOLLIN | EPOLLET));
}

Test(gate, G19_flushed_before_the_number_is_freed)
{
	int ep = lt_set(), held = real.dup(b);	/* somebody else holds the file: its close removes nothing */

	cr_assert_geq(held, 0);
	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_DEL, b, NULL), 0);
	cr_assert_eq(kernel_has(ep, b), EPOLLIN, "it was not deferred");
	cr_assert_eq(close(b), 0);
	cr_assert_eq(kernel_has(ep, b), -1, "the kernel's set has it for ever");
}

/* the same where a number of our own keeps the socket: the connection lives on, so only the closing of the number can do it */
Test(gate, G19_flushed_before_a_number_is_freed_whose_socket_lives_on)
{
	struct epoll_event ev;
	int ep = lt_set(), two;

	cr_assert_eq(epoll_ctl(ep, EPOLL_CTL_DEL, b, NULL), 0);
	cr_assert_eq(kernel_has(ep, b), EPOLLIN, "it was not deferred");
	two = dup(b);
	cr_assert_geq(two, 0);
	cr_assert_eq(close(b), 0);
	cr_assert_eq(kernel_has(ep, b), -1, "the kernel's set has it for ever");
	tcp_str(a, "hello");
	wait_inq(two, 5);
	cr_assert_eq(epoll_wait(ep, &ev, 1, 0), 0, "told of a registration that was deleted");
}

/* ---- G20 ---- */

Test(gate, G20_ring_bytes_first_then_the_end)
{
	open_gate(ab);
	put_str(a, "in the ring");
	real.close(a);		/* as the kernel closes it at kill -9: nobody left the ring */
	wait_fin(b);
	expect_str(b, 6, "in the");
	expect_str(b, 100, " ring");
	cr_assert_eq(recv(b, back, 10, 0), 0);
	cr_assert_eq(recv(b, back, 10, 0), 0);
	cr_assert_not(is_open(ab), "a gate open behind the end");
}

Test(gate, G20_the_end_comes_behind_ring_bytes_for_edge_triggered_readers)
{
	nonblock(b);
	et_set(b);
	open_gate(ab);
	put_str(a, "last");
	cr_assert_eq(close(a), 0);
	wait_fin(b);
	expect_str(b, 100, "last");
	cr_assert_eq(recv(b, back, 10, 0), 0);
}

/* ---- G23 ---- */

Test(gate, G23_FIONREAD_counts_both_roads)
{
	int n = 0;

	tcp_str(a, "four");
	wait_inq(b, 4);
	open_gate(ab);
	put_str(a, "seven..");
	cr_assert_eq(ioctl(b, FIONREAD, &n), 0);
	cr_assert_eq(n, 11);
	expect_str(b, 6, "fourse");
	cr_assert_eq(ioctl(b, FIONREAD, &n), 0);
	cr_assert_eq(n, 5);
}

Test(gate, G23_TCP_INFO_counts_ring_bytes)
{
	struct tcp_info mine, kernel;
	socklen_t l = sizeof(mine), k = sizeof(kernel);

	open_gate(ab);
	put_str(a, "seven..");
	expect_str(b, 3, "sev");
	cr_assert_eq(getsockopt(a, IPPROTO_TCP, TCP_INFO, &mine, &l), 0);
	cr_assert_eq(real.getsockopt(a, IPPROTO_TCP, TCP_INFO, &kernel, &k), 0);
	cr_assert_eq(mine.tcpi_bytes_sent, kernel.tcpi_bytes_sent + 7);
	cr_assert_eq(mine.tcpi_bytes_acked, kernel.tcpi_bytes_acked + 7);
	cr_assert_eq(getsockopt(b, IPPROTO_TCP, TCP_INFO, &mine, &l), 0);
	cr_assert_eq(real.getsockopt(b, IPPROTO_TCP, TCP_INFO, &kernel, &k), 0);
	cr_assert_eq(mine.tcpi_bytes_received, kernel.tcpi_bytes_received + 7);
}

Test(gate, G23_no_urgent_mark_while_the_ring_is_not_empty)
{
	struct pollfd p = { b, POLLPRI, 0 };
	int mark = -1;

	open_gate(ab);
	put_str(a, "ring");
	cr_assert_eq(send(a, "!", 1, MSG_OOB), 1);
	cr_assert_eq(real.poll(&p, 1, 10000), 1);
	cr_assert_eq(real.ioctl(b, SIOCATMARK, &mark), 0);
	cr_assert_eq(mark, 1, "the kernel alone would say yes");
	cr_assert_eq(ioctl(b, SIOCATMARK, &mark), 0);
	cr_assert_eq(mark, 0);
	expect_str(b, 100, "ring");
	cr_assert_eq(ioctl(b, SIOCATMARK, &mark), 0);
	cr_assert_eq(mark, 1);
}

static int kernel_lowat(void)
{
	socklen_t l = sizeof(int);
	int v = -1;

	cr_assert_eq(real.getsockopt(b, SOL_SOCKET, SO_RCVLOWAT, &v, &l), 0);
	return v;
}

Test(gate, G23_a_low_water_mark_counts_what_the_ring_holds)
{
	struct pollfd p = { b, POLLIN, 0 };
	socklen_t l = sizeof(int);
	uint32_t head;
	int v = 10;

	open_gate(ab);
	put_str(a, "seven..");
	cr_assert_eq(setsockopt(b, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof(v)), 0);
	cr_assert_not(is_open(ab));
	cr_assert_eq(kernel_lowat(), 3);
	v = 0;
	cr_assert_eq(getsockopt(b, SOL_SOCKET, SO_RCVLOWAT, &v, &l), 0);
	cr_assert_eq(v, 10, "the program reads back what it set");
	cr_assert_not(rx_readable(cb, &head));
	cr_assert_eq(poll(&p, 1, 0), 0);
	tcp_str(a, "xyz");
	wait_inq(b, 3);
	cr_assert_eq(poll(&p, 1, 0), 1);
	cr_assert_eq(recv(b, back, 100, 0), 10);
	cr_assert_eq(memcmp(back, "seven..xyz", 10), 0);
	cr_assert_eq(kernel_lowat(), 10, "the program's own mark is not back");
}

/* ---- G24 ---- */

static void set_ledger(struct ledger *l, int64_t c, uint32_t broke)
{
	l->c = c;
	l->last = tsc_now();
	l->broke = broke;
	l->go = false;
}

Test(gate, G24_a_bankrupt_ledger_does_not_open)
{
	set_ledger(&cb->led, -LED_NEED, 6);
	tcp_str(a, "x");
	wait_inq(b, 1);
	expect_str(b, 10, "x");
	cr_assert_not(is_open(ab));
	set_ledger(&cb->led, LED_FIRST, 0);
	tcp_str(a, "x");
	wait_inq(b, 1);
	expect_str(b, 10, "x");
	cr_assert(is_open(ab));
}

Test(gate, G24_ring_reads_and_short_waits_earn)
{
	int64_t c;

	open_gate(ab);
	put_str(a, "x");
	set_ledger(&cb->led, 0, 0);
	expect_str(b, 1, "x");
	cr_assert_geq(cb->led.c, EARN_MSG);
	c = cb->led.c;
	spin_done(&cb->led, US(1), EARN_WAIT);
	cr_assert_gt(cb->led.c, c, "a wait that the ring ended");
	c = cb->led.c;
	spin_done(&cb->led, US(1), 0);
	cr_assert_lt(cb->led.c, c, "a fruitless one");
	c = cb->led.c;
	cb->led.go = true;
	led_sleep(&cb->led, 2);
	cr_assert_eq(c - cb->led.c, 3 * COST_OPEN);
	cr_assert_not(cb->led.go, "it decides again after each sleep");
}

Test(gate, G24_it_refills_with_time_and_slower_after_each_bankruptcy)
{
	struct ledger l = { 0 };
	int i;

	l.last = 1;
	cr_assert_not(led_may(&l, 1 + (uint64_t)(16 * US(30)), false), "30 us in hand are less than a full spin");
	cr_assert(led_may(&l, 1 + (uint64_t)(16 * US(45)), false));
	l = (struct ledger){ .last = 1 };
	cr_assert(led_may(&l, 1 + (uint64_t)(16 * US(10)), true), "the peer is awake: both must try together");
	l = (struct ledger){ .last = 1 };
	(void)led_may(&l, 1 + (uint64_t)US(1e9), false);
	cr_assert_eq(l.c, LED_REFILL, "time alone fills no more than two spins");
	l = (struct ledger){ .last = 1 };
	for (i = 0; i < 20; i++) {
		l.c = 0;
		led_add(&l, -US(1));
	}
	cr_assert_eq(l.broke, 6, "1/1024 is the least");
	l.c = 0;
	cr_assert_not(led_may(&l, 1 + (uint64_t)(16 * US(45)), false));
	l.last = 1;
	l.c = 0;
	cr_assert(led_may(&l, 1 + (uint64_t)(1024 * US(45)), false));
	led_add(&l, LED_FIRST);
	cr_assert_eq(l.broke, 0, "earned back");
	led_add(&l, US(1e6));
	cr_assert_eq(l.c, LED_CAP);
}

/* ---- G25 ---- */

static struct thr *stay_here(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(tsc_cpu1() - 1, &one);
	cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	atomic_store(&ab->wcpu, tsc_cpu1());	/* the peer was seen here */
	cb->led.go = true;
	hooks();
	n_yield = 0;
	return thr_get();
}

static void put_now(void)
{
	put_str(a, "now");
}

Test(gate, G25_a_peer_on_this_cpu_is_given_way_to)
{
	stay_here();
	open_gate(ab);
	in_yield = put_now;
	expect_str(b, 10, "now");
	cr_assert_geq(n_yield, 1);
	cr_assert_eq(n_recv, 0, "the kernel was asked");
}

Test(gate, G25_two_fruitless_yields_are_enough)
{
	struct thr *t = stay_here();
	bool kern;

	open_gate(ab);
	cs_enter();
	cr_assert_not(rx_spin(t, cb, b, &kern));
	cs_leave(t);
	cr_assert_not(kern);
	cr_assert(n_yield == 1 || n_yield == 2, "%u", n_yield);	/* 1: it took over 1 ms */
	t->crowded_until = 0;
	t->rt_pol = SCHED_FIFO;
	t->rt_when = tsc_now();
	n_yield = 0;
	cb->led.go = true;
	cs_enter();
	cr_assert_not(rx_spin(t, cb, b, &kern));
	cs_leave(t);
	cr_assert_eq(n_yield, 0, "a peer of lower priority gets nothing from a yield");
}

static bool open_at_sleep;

static ssize_t asleep_recv(int fd, void *buf, size_t n, int flags)
{
	open_at_sleep = is_open(ab);
	real.recv = hook_recv;
	tcp_str(a, "tcp");
	return libc_calls.recv(fd, buf, n, flags);
}

Test(gate, G25_no_spinning_on_a_crowded_machine)
{
	struct thr *t = stay_here();

	open_gate(ab);
	t->crowded_until = tsc_now() + (uint64_t)US(60e6);
	real.recv = asleep_recv;
	open_at_sleep = true;
	expect_str(b, 10, "tcp");
	cr_assert_eq(n_yield, 0);
	cr_assert_not(open_at_sleep, "asleep with an open gate (G11)");
	cr_assert(is_open(ab), "opening stays allowed");
}

Test(gate, G25_crowding_doubles_and_ends)
{
	struct thr *t = thr_get();
	uint64_t now = tsc_now(), len = 0;
	struct rusage r;
	int i;

	for (i = 0; i < 20; i++) {
		t->last_nivcsw = -1;	/* there were switches since */
		cr_assert(spin_gap(t, now));
		cr_assert_geq(t->crowd_len, len);
		cr_assert(i == 0 || t->crowd_len == 2 * len || t->crowd_len == len);
		len = t->crowd_len;
		if (i == 0)
			cr_assert_eq(len, US(1000));
		cr_assert_eq(t->crowded_until, now + len);
		now += (uint64_t)US(100);
	}
	cr_assert_leq(len, US(200000));
	t->last_nivcsw = -1;
	cr_assert(spin_gap(t, now + 100 * len));
	cr_assert_eq(t->crowd_len, US(1000), "quiet for long: it begins again");
	t->crowded_until = 0;
	for (i = 0; i < 1000; i++) {	/* no switch: it was the hypervisor */
		getrusage(RUSAGE_THREAD, &r);
		t->last_nivcsw = r.ru_nivcsw;
		if (!spin_gap(t, now))
			break;
		t->crowded_until = 0;
	}
	cr_assert_eq(t->crowded_until, 0);
	cr_assert_lt(i, 1000);
}

/* ---- G27 ---- */

Test(gate, G27_a_vfork_child_closes_and_the_parent_keeps)
{
	uint64_t g;
	pid_t pid;
	int st;

	open_gate(ab);
	put_str(a, "before");
	g = atomic_load(&ab->gate);
	pid = vfork();
	if (pid == 0) {
		close(b);
		dup2(0, a);
		close_range((unsigned)a, (unsigned)a, 0);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &st, 0), pid);
	cr_assert_eq(st, 0);
	cr_assert_eq(conn_get(a), ca);
	cr_assert_eq(conn_get(b), cb);
	cr_assert_eq(atomic_load(&ca->n_fd), 1);
	cr_assert_eq(atomic_load(&cb->n_fd), 1);
	cr_assert_eq(atomic_load(&ab->gate), g, "the child touched the gate");
	put_str(a, ", after");
	expect_str(b, 100, "before, after");
}

Test(gate, G27_a_forked_child_sets_itself_up)
{
	uint32_t gen = proc_fork_gen, pid = proc_page->pid;
	pid_t child;
	int st;

	tcp_str(a, "a");
	wait_inq(b, 1);
	expect_str(b, 1, "a");		/* this process is b's user */
	put_str(a, "child");
	child = fork();
	if (child == 0) {
		bool ok = proc_page->pid == (uint32_t)getpid() && proc_page->pid != pid &&
			  atomic_load(&proc_page->alive) && proc_fork_gen == gen + 1 &&
			  atomic_load(&cb->s->holders) == 2 && !cb->touched;

		if (!ok)
			_exit(1);
		if (recv(b, back, 100, 0) != 5 || memcmp(back, "child", 5))
			_exit(2);
		/* the second user: closed for good (G14.2) */
		if (is_open(ab) || !(atomic_load(&cb->s->flags) & S_NO_OPEN) ||
		    atomic_load(&cb->s->rx_user) != USER_MANY)
			_exit(3);
		_exit(0);
	}
	cr_assert_eq(waitpid(child, &st, 0), child);
	cr_assert_eq(st, 0, "child: %d", WEXITSTATUS(st));
	cr_assert_eq(proc_page->pid, pid);
	cr_assert_eq(atomic_load(&cb->s->taken), 5, "what the child took is taken here as well");
	tcp_str(a, "parent");
	wait_inq(b, 6);
	expect_str(b, 100, "parent");
	cr_assert_not(is_open(ab));
}

Test(gate, G27_fork_alone_makes_no_second_user)
{
	pid_t child;
	int st;

	tcp_str(a, "a");
	wait_inq(b, 1);
	expect_str(b, 1, "a");
	child = fork();
	if (child == 0) {
		close(a);
		close(b);
		_exit(0);
	}
	cr_assert_eq(waitpid(child, &st, 0), child);
	cr_assert_eq(st, 0);
	cr_assert_eq(atomic_load(&cb->s->rx_user), proc_page->pid);
	cr_assert(is_open(ab));
	put_str(a, "still");
	expect_str(b, 100, "still");
}

/* ---- G29 ---- */

static void take_tcp_byte_at_a(void)
{
	tcp_str(b, "?");
	wait_inq(a, 1);
	expect_str(a, 10, "?");
}

Test(gate, G29_the_first_put_after_tcp_bytes_pushes_the_ack)
{
	int off = 0;

	hooks();
	cr_assert_eq(setsockopt(b, IPPROTO_TCP, TCP_NODELAY, &off, sizeof(off)), 0);
	cr_assert(atomic_load(&ab->yflags) & WSD_Y_NAGLE, "b did not publish that it is under Nagle");
	take_tcp_byte_at_a();
	cr_assert(ca->ack_due);
	open_gate(ab);
	put_str(a, "!");
	cr_assert_eq(n_quickack, 1);
	put_str(a, "!");
	cr_assert_eq(n_quickack, 1, "once");
}

Test(gate, G29_not_where_the_peer_has_no_need)
{
	int off = 0, on = 1;

	hooks();
	cr_assert_eq(setsockopt(b, IPPROTO_TCP, TCP_NODELAY, &off, sizeof(off)), 0);
	cr_assert_eq(setsockopt(b, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
	cr_assert_not(atomic_load(&ab->yflags) & WSD_Y_NAGLE);
	take_tcp_byte_at_a();
	open_gate(ab);
	put_str(a, "!");
	cr_assert_eq(n_quickack, 0);
}

Test(gate, G29_not_after_a_tcp_send_that_carried_the_ack)
{
	hooks();
	atomic_fetch_or(&ab->yflags, WSD_Y_NAGLE);
	take_tcp_byte_at_a();
	tcp_str(a, "ack");
	cr_assert_not(ca->ack_due);
	open_gate(ab);
	put_str(a, "!");
	cr_assert_eq(n_quickack, 0);
}

/* ---- words of a hostile peer (G10) ---- */

static void expect_broken(int fd, struct conn *c)
{
	expect_err(recv(fd, back, 64, 0), ECONNRESET);
	cr_assert(atomic_load(&c->s->flags) & S_BROKEN);
	cr_assert_eq(atomic_load(&c->s->why), WSD_R_PEER_BROKEN);
	cr_assert_not(is_open(c->rx));
}

Test(gate, G10_head_beyond_the_ring)
{
	open_gate(ab);
	put_str(a, "x");
	atomic_fetch_add(&ab->gate, RING);	/* 16385 bytes in a ring of 16384 */
	cr_assert_eq(rx_avail(cb), 0);
	expect_broken(b, cb);
	expect_err(recv(a, back, 1, 0), ECONNRESET);	/* the peer is told by the kernel */
}

Test(gate, G10_head_behind_the_tail)
{
	open_gate(ab);
	put_str(a, "four");
	expect_str(b, 4, "four");
	atomic_store(&cb->seen, 0);
	atomic_fetch_sub(&ab->gate, 1);
	expect_broken(b, cb);
}

Test(gate, G10_start_before_what_was_taken)
{
	tcp_str(a, "four");
	wait_inq(b, 4);
	expect_str(b, 4, "four");
	put_str(a, "ring");
	atomic_store(&ab->start, 3);
	expect_broken(b, cb);
}

Test(gate, G10_head_beyond_the_ring_at_a_peek)
{
	open_gate(ab);
	put_str(a, "x");
	atomic_fetch_add(&ab->gate, RING);
	expect_err(recv(b, back, 64, MSG_PEEK), ECONNRESET);
	cr_assert(atomic_load(&cb->s->flags) & S_BROKEN);
}

Test(gate, G9_start_beyond_the_end_of_the_stream)
{
	open_gate(ab);
	put_str(a, "never");
	atomic_store(&ab->start, 50);
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	wait_fin(b);
	expect_broken(b, cb);
	cr_assert_neq(memcmp(back, "never", 5), 0, "bytes behind a gap were given");
}

Test(gate, G10_tail_beyond_head)
{
	open_gate(ab);
	atomic_store(&ab->tail, 1);
	expect_err(send(a, "x", 1, MSG_NOSIGNAL), ECONNRESET);
	cr_assert(atomic_load(&ca->s->flags) & S_BROKEN);
	cr_assert_eq(atomic_load(&ca->s->put), 0);
}

Test(gate, G10_tail_beyond_head_in_a_segment)
{
	open_gate(ab);
	cr_assert_eq(send(a, big, 10000, 0), 10000);
	atomic_store(&ab->tail, 10001);
	expect_err(send(a, big, 10000, MSG_NOSIGNAL | MSG_DONTWAIT), ECONNRESET);
	cr_assert(atomic_load(&ca->s->flags) & S_BROKEN);
	cr_assert_eq(atomic_load(&ca->s->put), 10000);
}

Test(gate, G10_any_base_stays_inside_the_ring)
{
	static const uint32_t bases[] = { 1, RING - 1, RING, 0x7fffffff, 0x80000000, 0xffffffff, 12345678 };
	size_t i;

	memset(ca->txr, 'r', RING);
	memset(ca->rxr, 'S', RING);	/* the other direction's ring lies right behind */
	for (i = 0; i < sizeof(bases) / sizeof(*bases); i++) {
		size_t k;

		open_gate(ab);
		memset(big, 'r', 10000);
		cr_assert_eq(send(a, big, 10000, 0), 10000);
		atomic_store(&ab->base, bases[i]);
		memset(back, 0, 10000);
		cr_assert_eq(recv(b, back, 10000, 0), 10000);
		for (k = 0; k < 10000; k++)
			cr_assert_eq(back[k], 'r', "base %x: a byte from outside the ring", bases[i]);
		/* and our own next put does not believe it */
		atomic_store(&ab->base, ~bases[i]);
		cr_assert_eq(send(a, "r", 1, 0), 1);
		cr_assert_eq(ca->rxr[0], 'S');
		cr_assert_eq(recv(b, back, 10, 0), 1);
	}
}
