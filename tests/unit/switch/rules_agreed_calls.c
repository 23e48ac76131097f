/* SPDX-License-Identifier: MIT */
/*
 * rules_agreed_calls.c - calls whose answers TCP's must be on connections to other hosts (docs/agreed.md), on the road of fake_road.h
 *
 * What a peek shows and FIONREAD counts over both roads, urgent bytes, shutdown of one side: each by hand.
 */
#include <limits.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <sys/mman.h>

#include "tests/unit/switch/fake_ends.h"
#include "wsd_switch/core/hand_on.h"

TestSuite(calls, .timeout = 20);

static void framed(void)
{
	make_ends(NULL);
	fake_grant(Y);
	fake_start(X);
}

static void obey(struct fake_end *e)
{
	struct thr *t = cs_enter();

	agreed_obey(t, e->c, e->fd, true);
	cs_leave(t);
}

/* X returns its direction, as far as that goes now */
static void x_leaves(unsigned state)
{
	agreed_leave(ca, WSD_R_OPTION);
	obey(X);
	cr_assert_eq(atomic_load(&X->rs->xstate), state);
}

/* by the ring, by a frame: true; it has arrived */
static void say(const char *s, bool frame)
{
	unsigned puts = X->puts;
	uint64_t h = atomic_load(&ca->s->H);

	X->no_slot = frame;
	cr_assert_eq(send(a, s, strlen(s), 0), (ssize_t)strlen(s));
	cr_assert_eq(X->puts - puts, !frame, "\"%s\" went by the other road", s);
	cr_assert_eq(atomic_load(&ca->s->H) - h, frame ? WSD_FRAME_SIZE + strlen(s) : 0);
	fake_all();
}

static void all_arrived(void)
{
	wait_inq(b, (int)(atomic_load(&ca->s->H) - atomic_load(&cb->s->C)));
}

static int inq(int fd)
{
	int q = -1;

	cr_assert_eq(ioctl(fd, FIONREAD, &q), 0);
	return q;
}

static void expect_peek(int fd, size_t max, const char *want)
{
	char buf[256] = "";
	ssize_t r = recv(fd, buf, max, MSG_PEEK);

	cr_assert_eq(r, (ssize_t)strlen(want), "shown %zd (errno %d), wanted \"%s\"", r, errno, want);
	cr_assert_eq(memcmp(buf, want, strlen(want)), 0, "shown \"%.*s\", wanted \"%s\"", (int)r, buf, want);
}

/* ---- peeks ---- */

Test(calls, peek_shows_both_roads)
{
	char buf[3][4];
	struct iovec io[5] = { { buf[0], 2 }, { NULL, 0 }, { buf[1], 3 }, { NULL, 0 }, { buf[2], 4 } };
	struct msghdr m = { .msg_iov = io, .msg_iovlen = 5 };

	framed();
	say("abc", false);
	say("def", true);
	say("g", true);
	say("hi", false);
	say("jkl", true);
	all_arrived();
	expect_peek(b, 100, "abcdefghijkl");
	cr_assert_eq(inq(b), 12);
	expect_peek(b, 12, "abcdefghijkl");
	expect_peek(b, 8, "abcdefgh");
	expect_peek(b, 4, "abcd");
	cr_assert_eq(recvmsg(b, &m, MSG_PEEK), 9);
	cr_assert(!memcmp(buf[0], "ab", 2) && !memcmp(buf[1], "cde", 3) && !memcmp(buf[2], "fghi", 4));
	cr_assert_eq(recv(b, NULL, 100, MSG_PEEK | MSG_TRUNC), 12);
	cr_assert_eq(atomic_load(&Y->rs->taken), 0);
	expect_str(b, 5, "abcde");
	expect_peek(b, 100, "fghijkl");		/* inside a frame */
	cr_assert_eq(inq(b), 7);
	expect_str(b, 100, "fghijkl");
	cr_assert_eq(inq(b), 0);
	expect_err(recv(b, back, 8, MSG_PEEK | MSG_DONTWAIT), EAGAIN);
}

/* plain bytes, Start, frames; and the ring's that have not arrived are not skipped */
Test(calls, peek_across_start)
{
	make_ends(NULL);
	cr_assert_eq(send(a, "old", 3, 0), 3);
	fake_grant(Y);
	all_arrived();
	expect_peek(b, 100, "old");
	fake_start(X);
	X->no_slot = 1;
	cr_assert_eq(send(a, "fr", 2, 0), 2);
	all_arrived();
	cr_assert_eq(inq(b), 5);
	expect_peek(b, 100, "oldfr");
	cr_assert_eq(send(a, "ring", 4, 0), 4);
	X->no_slot = 1;
	cr_assert_eq(send(a, "x", 1, 0), 1);
	all_arrived();
	expect_peek(b, 100, "oldfr");
	cr_assert_eq(inq(b), 5);
	fake_all();
	expect_peek(b, 100, "oldfrringx");
	cr_assert_eq(inq(b), 10);
	expect_str(b, 100, "oldfrringx");
}

/* a backlog that repeats, in part, what was had; plain bytes behind it */
Test(calls, peek_across_return)
{
	framed();
	say("abcdef", false);
	expect_str(b, 2, "ab");
	x_leaves(WSD_X_DONE);
	cr_assert_eq(send(a, "plain", 5, 0), 5);
	all_arrived();
	expect_peek(b, 100, "cdefplain");
	cr_assert_eq(inq(b), 9);
	expect_str(b, 3, "cde");
	expect_peek(b, 100, "fplain");
	cr_assert_eq(inq(b), 6);
	expect_str(b, 100, "fplain");
}

/* the path failed, the bytes before a frame come by the daemons, the return is half here */
Test(calls, peek_of_what_daemons_bring)
{
	framed();
	say("ab", false);
	X->lossy = true;
	cr_assert_eq(send(a, "cd", 2, 0), 2);
	X->no_slot = 1;
	cr_assert_eq(send(a, "ef", 2, 0), 2);
	all_arrived();
	expect_peek(b, 100, "ab");
	cr_assert_eq(inq(b), 2);
	fake_fail_both(-ECONNRESET);
	obey(X);
	all_arrived();
	expect_peek(b, 100, "abcdef");
	cr_assert_eq(inq(b), 6);
	expect_str(b, 3, "abc");
	expect_peek(b, 100, "def");
	expect_str(b, 100, "def");
}

Test(calls, peek_with_a_header_in_parts)
{
	struct wsd_frame f = { .epoch = 7, .kind = WSD_FRAME_DATA, .len = 5 };
	uint8_t h[WSD_FRAME_SIZE];

	framed();
	f.nonce = X->r->nonce;
	frame_put(h, &f);
	cr_assert_eq(libc_calls.send(a, h, 20, 0), 20);
	wait_inq(b, 20);
	expect_err(recv(b, back, 8, MSG_PEEK | MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(atomic_load(&cb->s->C), 20, "left in the kernel");
	cr_assert_eq(libc_calls.send(a, h + 20, WSD_FRAME_SIZE - 20, 0), WSD_FRAME_SIZE - 20);
	cr_assert_eq(libc_calls.send(a, "hel", 3, 0), 3);
	wait_inq(b, WSD_FRAME_SIZE - 17);
	cr_assert_eq(inq(b), 3);
	expect_peek(b, 8, "hel");
	cr_assert_eq(libc_calls.send(a, "lo", 2, 0), 2);
	wait_inq(b, 5);
	expect_peek(b, 8, "hello");
	cr_assert_eq(inq(b), 5);
	expect_str(b, 8, "hello");
}

/* more than is copied at once, in many frames */
Test(calls, peek_of_much)
{
	size_t at = 0, n;
	int i;

	framed();
	fill_big();
	for (i = 0; i < 40; i++) {
		n = i % 2 ? 1 + (size_t)i * 37 : 90;
		X->no_slot = i % 2;
		cr_assert_eq(send(a, big + at, n, 0), (ssize_t)n);
		at += n;
		fake_all();
	}
	cr_assert_gt(at, 16384);
	all_arrived();
	cr_assert_eq(inq(b), at);
	cr_assert_eq(recv(b, back, sizeof(back), MSG_PEEK), (ssize_t)at);
	cr_assert_eq(memcmp(back, big, at), 0);
	memset(back, 0, at);
	expect_big(b, at);
}

Test(calls, peek_into_nowhere)
{
	struct iovec io[2] = { { back, 2 }, { (void *)8, 100 } };
	struct msghdr m = { .msg_iov = io, .msg_iovlen = 2 };

	framed();
	say("ab", false);
	say("cd", true);
	all_arrived();
	cr_assert_eq(recvmsg(b, &m, MSG_PEEK), 2);
	io[0].iov_len = 0;
	expect_err(recvmsg(b, &m, MSG_PEEK), EFAULT);
	expect_str(b, 8, "abcd");
}

static ssize_t peeked;
static char peek_buf[16];

static void *peek_all(void *arg)
{
	peeked = recv(b, peek_buf, *(size_t *)arg, MSG_PEEK | MSG_WAITALL);
	return NULL;
}

Test(calls, peek_that_waits_for_all)
{
	size_t n = 9;
	pthread_t th;

	framed();
	say("abc", false);
	cr_assert_eq(pthread_create(&th, NULL, peek_all, &n), 0);
	say("def", true);
	say("ghi", false);
	pthread_join(th, NULL);
	cr_assert_eq(peeked, 9);
	cr_assert_eq(memcmp(peek_buf, "abcdefghi", 9), 0);
	expect_str(b, 3, "abc");
	/* no more will come: END is there, or only the FIN in front of ring bytes, for which the daemons are asked */
	cr_assert_eq(pthread_create(&th, NULL, peek_all, &n), 0);
	say("jk", false);
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	pthread_join(th, NULL);
	cr_assert_eq(peeked, 8);
	cr_assert_eq(memcmp(peek_buf, "defghijk", 8), 0);
	expect_str(b, 9, "defghijk");
	cr_assert_eq(recv(b, back, 8, 0), 0);
}

Test(calls, peek_that_waits_for_a_lost_tail)
{
	size_t n = 9;
	pthread_t th;

	framed();
	say("abc", false);
	X->lossy = true;
	cr_assert_eq(send(a, "def", 3, 0), 3);
	cr_assert_eq(pthread_create(&th, NULL, peek_all, &n), 0);
	real.shutdown(a, SHUT_WR);
	pthread_join(th, NULL);
	cr_assert_eq(peeked, 6);
	cr_assert_eq(memcmp(peek_buf, "abcdef", 6), 0);
	expect_str(b, 9, "abcdef");
	cr_assert_eq(recv(b, back, 8, 0), 0);
}

Test(calls, peek_that_waits_is_over_in_time)
{
	struct timeval tv = { 0, 30000 };

	framed();
	cr_assert_eq(setsockopt(b, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
	say("abc", false);
	cr_assert_eq(recv(b, back, 9, MSG_PEEK | MSG_WAITALL), 3);
	cr_assert_eq(recv(b, back, 9, MSG_PEEK | MSG_WAITALL | MSG_DONTWAIT), 3);
	expect_str(b, 9, "abc");
}

/* ---- TCP_INFO ---- */

static uint64_t received(void)
{
	struct tcp_info ti = { 0 };
	socklen_t l = sizeof(ti);

	cr_assert_eq(getsockopt(b, IPPROTO_TCP, TCP_INFO, &ti, &l), 0);
	return ti.tcpi_bytes_received;
}

/* the stream's bytes, read or not: neither headers that lie unread, nor what a return repeats */
Test(calls, info_counts_the_stream)
{
	framed();
	say("abc", false);
	say("defg", true);
	all_arrived();
	cr_assert_eq(received(), 7);
	expect_str(b, 2, "ab");
	cr_assert_eq(received(), 7);
	expect_str(b, 3, "cde");		/* inside the frame */
	cr_assert_eq(received(), 7);
	say("hij", false);
	x_leaves(WSD_X_DONE);
	cr_assert_eq(send(a, "kl", 2, 0), 2);
	all_arrived();
	cr_assert_eq(received(), 12);
	expect_str(b, 4, "fghi");
	cr_assert_eq(received(), 12);
	expect_str(b, 8, "jkl");
	cr_assert_eq(received(), 12);
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	cr_assert_eq(recv(b, back, 8, 0), 0);
	cr_assert_eq(received(), 13, "the kernel counts a FIN");
}

Test(calls, info_counts_a_fin_behind_frames)
{
	framed();
	say("abc", true);
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	{
		struct pollfd p = { b, POLLRDHUP, 0 };

		cr_assert_eq(real.poll(&p, 1, 5000), 1);
	}
	cr_assert_eq(received(), 4);
	expect_str(b, 8, "abc");
	cr_assert_eq(received(), 4);
}

/* ---- urgent bytes ---- */

static void wait_urgent(void)
{
	struct pollfd p = { b, POLLPRI, 0 };

	cr_assert_eq(real.poll(&p, 1, 10000), 1);
}

/* sent as TCP's, to a reader that granted: no turning in circles before the mark, no byte of the ring's behind it */
Test(calls, urgent_byte_while_granted)
{
	make_ends(NULL);
	fake_grant(Y);
	cr_assert_eq(send(a, "ab", 2, 0), 2);
	cr_assert_eq(send(a, "!", 1, MSG_OOB), 1);
	cr_assert_eq(send(a, "cd", 2, 0), 2);
	wait_urgent();
	expect_str(b, 8, "ab");
	cr_assert_eq(recv(b, back, 1, MSG_OOB), 1);
	cr_assert_eq(back[0], '!');
	expect_str(b, 8, "cd");
}

/* the direction returns for it; a receive that began with ring bytes stops at the mark */
Test(calls, urgent_byte_behind_a_return)
{
	pthread_t th;
	size_t n = 2;

	framed();
	say("ab", false);
	cr_assert_eq(pthread_create(&th, NULL, peek_all, &n), 0);	/* somebody who takes what is in the way */
	cr_assert_eq(send(a, "!", 1, MSG_OOB), 1);
	pthread_join(th, NULL);
	cr_assert_eq(send(a, "cd", 2, 0), 2);
	wait_urgent();
	expect_str(b, 8, "ab");
	cr_assert_eq(recv(b, back, 1, MSG_OOB), 1);
	expect_str(b, 8, "cd");
}

/* ---- shutdown of the receiving side ---- */

/* as TCP: no more than what is there, at once; what comes later is there, too */
Test(calls, shut_rd)
{
	struct pollfd p = { .events = POLLIN | POLLRDHUP };

	framed();
	say("abc", false);
	cr_assert_eq(shutdown(b, SHUT_RD), 0);
	expect_str(b, 8, "abc");
	cr_assert_eq(recv(b, back, 8, 0), 0);
	cr_assert_eq(recv(b, back, 8, MSG_DONTWAIT), 0);
	cr_assert_eq(recv(b, back, 8, MSG_PEEK | MSG_WAITALL), 0);
	p.fd = b;
	cr_assert_eq(poll(&p, 1, 0), 1);
	cr_assert_eq(p.revents, POLLIN | POLLRDHUP);
	say("de", true);
	say("fg", false);
	all_arrived();
	cr_assert_eq(recv(b, back, 8, MSG_WAITALL), 4);
	cr_assert_eq(memcmp(back, "defg", 4), 0);
	cr_assert_eq(recv(b, back, 8, 0), 0);
	cr_assert_eq(Y->asked[WSD_SAN_END], 0);
	cr_assert_eq(send(b, "x", 1, 0), 1);
	expect_str(a, 8, "x");
}

/* a frame is there and the ring bytes before it are not: nothing is readable now */
Test(calls, shut_rd_behind_ring_bytes)
{
	framed();
	cr_assert_eq(send(a, "abc", 3, 0), 3);
	X->no_slot = 1;
	cr_assert_eq(send(a, "de", 2, 0), 2);
	all_arrived();
	cr_assert_eq(shutdown(b, SHUT_RD), 0);
	cr_assert_eq(recv(b, back, 8, 0), 0);
	fake_all();
	expect_str(b, 8, "abcde");
}

static void *recv_one(void *arg)
{
	peeked = recv(b, peek_buf, 8, 0);
	return NULL;
}

Test(calls, shut_rd_wakes_a_reader)
{
	pthread_t th;

	framed();
	cr_assert_eq(pthread_create(&th, NULL, recv_one, NULL), 0);
	usleep(20000);
	cr_assert_eq(shutdown(b, SHUT_RD), 0);
	pthread_join(th, NULL);
	cr_assert_eq(peeked, 0);
}

/* ---- F7: a sender that does not wait, has said the half of a frame, and does not come back ---- */

static size_t give_most;	/* bytes that the kernel takes of the next sendmsg; 0: all, ~0: none */

static long short_syscall(long n, ...)
{
	size_t most = give_most;
	long v[6];

	SYSCALL_ARGS(v, n);
	if (n != SYS_sendmsg || !most)
		return libc_calls.syscall(n, v[0], v[1], v[2], v[3], v[4], v[5]);
	give_most = ~0ull;
	return short_sendmsg(v, most == ~0ull ? 0 : most);
}

/* "abc" by the ring, lost when lost; then n bytes of "defgh" in a frame */
static void half_a_frame(bool lost, size_t n)
{
	ssize_t k;

	framed();
	real.syscall = short_syscall;
	X->lossy = lost;
	cr_assert_eq(send(a, "abc", 3, 0), 3);
	X->no_slot = 1;
	give_most = WSD_FRAME_SIZE + n;
	k = send(a, "defgh", 5, MSG_DONTWAIT);
	cr_assert_eq(k, (ssize_t)n, "%zd, errno %d, x %u", k, errno, atomic_load(&X->rs->xstate));
	give_most = 0;
	wait_inq(b, (int)(WSD_FRAME_SIZE + n));
	expect_err(recv(b, back, 8, MSG_DONTWAIT), EAGAIN);
}

enum { IT_POLLS, IT_IS_SILENT, IT_SHUTS_DOWN, IT_CLOSES, N_ITS };

Test(calls, f7_all_bytes_arrive)
{
	int what;

	for (what = 0; what < N_ITS; what++) {
		struct pollfd p = { .events = POLLIN };

		half_a_frame(true, 2);
		p.fd = a;
		fake_fail_both(-ECONNRESET);
		switch (what) {
		case IT_POLLS:
			cr_assert_eq(poll(&p, 1, 0), 0);
			break;
		case IT_IS_SILENT:
			fake_fill(X, atomic_load(&X->rs->cursor), atomic_load(&X->rs->posted));	/* the daemon's sweep (D21) */
			break;
		case IT_SHUTS_DOWN:
			cr_assert_eq(shutdown(a, SHUT_WR), 0);
			expect_err(recv(a, back, 8, MSG_DONTWAIT), EAGAIN);
			break;
		case IT_CLOSES:
			cr_assert_eq(close(a), 0);
			fake_fill(X, 0, 3);	/* of who is gone: remote_say_ended() */
		}
		expect_str(b, 8, "abcde");
		if (what >= IT_SHUTS_DOWN) {
			cr_assert_eq(recv(b, back, 8, 0), 0);
			close(b);
			if (what == IT_SHUTS_DOWN)
				close(a);
			continue;
		}
		expect_err(recv(b, back, 8, MSG_DONTWAIT), EAGAIN);
		/* and should it come back, later, it goes on where it was */
		X->r->polled = 0;
		cr_assert_eq(send(a, "fghij", 5, 0), 5);
		cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
		expect_str(b, 8, "fghij");
		close(a);
		close(b);
	}
}

static unsigned n_held;		/* of the first calls: what they sent is with the kernel */

static long held_sendmsg(long n, ...)
{
	long v[6], r;
	va_list ap;
	int i;

	va_start(ap, n);
	for (i = 0; i < 6; i++)
		v[i] = va_arg(ap, long);
	va_end(ap);
	r = libc_calls.syscall(n, v[0], v[1], v[2], v[3], v[4], v[5]);
	if (n == SYS_sendmsg && n_held) {
		int q;

		n_held--;
		cr_assert_eq(libc_calls.ioctl(b, SIOCINQ, &q), 0);
		cr_assert_eq(q, 0, "a part came alone");
	}
	return r;
}

/* A send that goes on behind the end of an open frame arrives as one, as TCP's segment does: who slept in recv() got a part (twin seed 54 over RDMA) */
static void past_an_open_frame(bool returns)
{
	half_a_frame(false, 2);
	fake_all();
	expect_str(b, 8, "abcde");
	if (returns)
		agreed_leave(ca, WSD_R_OPTION);
	real.syscall = held_sendmsg;
	n_held = returns ? 2 : 1;	/* payload; RETURN */
	cr_assert_eq(send(a, "fghijklm", 8, 0), 8);
	cr_assert_eq(n_held, 0);
	wait_inq(b, WSD_FRAME_SIZE + 8);
	cr_assert_eq(atomic_load(&X->rs->xstate), returns ? WSD_X_DONE : WSD_X_FRAMED);
	expect_str(b, 20, "fghijklm");
	cr_assert_eq(send(a, "n", 1, 0), 1);
	fake_all();
	expect_str(b, 20, "n");
	cr_assert_eq(atomic_load(&ca->s->H) > atomic_load(&cb->s->C), 0);
}

Test(calls, past_an_open_frame) { past_an_open_frame(false); }
Test(calls, past_an_open_frame_returns) { past_an_open_frame(true); }

/* what a call does before the kernel is called in its place */
static bool only_tcp(struct fake_end *e, unsigned ms)
{
	struct thr *t = cs_enter();
	bool ok = agreed_tx_plain(t, e->c, e->fd, ms);

	cs_leave(t);
	return ok;
}

/* F7: the program will send nothing more by send(); what it does send is the frame's, and the stream's, and needs no header behind it */
Test(calls, plain_within_a_frame)
{
	int q = 0;

	half_a_frame(false, 2);
	fake_run = true;
	fake_all();
	cr_assert(only_tcp(X, 2000));
	cr_assert_eq(send(a, "fghijklm", 8, 0), 8);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
	cr_assert_eq(ioctl(a, SIOCOUTQ, &q), 0);
	wait_inq(b, WSD_FRAME_SIZE + 10);
	cr_assert_eq(inq(b), 13);
	expect_str(b, 20, "abcdefghijklm");
	cr_assert_eq(atomic_load(&Y->rs->ystate), WSD_Y_DONE);
	cr_assert_eq(send(a, "x", 1, 0), 1);
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	expect_str(b, 8, "x");
	cr_assert_eq(recv(b, back, 8, 0), 0);
}

/* the same, when it is the peer that has to be plain */
Test(calls, plain_within_a_frame_for_the_peer)
{
	struct thr *t;

	half_a_frame(false, 2);
	fake_run = true;
	fake_all();
	t = cs_enter();
	cr_assert_not(agreed_rx_plain(t, cb, b, 0));
	cs_leave(t);
	obey(X);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
	expect_str(b, 8, "abcde");
	t = cs_enter();
	cr_assert(agreed_rx_plain(t, cb, b, 0));
	cs_leave(t);
	cr_assert_eq(send(a, "fghij", 5, 0), 5);
	expect_str(b, 8, "fghij");
}

/* the peer asked for the return before, by the daemons, and comes to a call that cannot wait only then; meanwhile its reads tell credit */
Test(calls, plain_within_a_frame_for_the_peer_later)
{
	struct thr *t;

	half_a_frame(false, 2);
	fake_run = true;
	fake_all();
	atomic_store(&X->rs->x_return, 1);
	obey(X);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_RETURNING);
	t = cs_enter();
	Y->no_slot = 2;
	cr_assert_not(agreed_rx_plain(t, cb, b, 0));
	cr_assert_not(agreed_rx_plain(t, cb, b, 0), "credit could not be told the first time");
	agreed_credit_due(Y->r, UINT32_MAX);
	cs_leave(t);
	obey(X);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
	expect_str(b, 8, "abcde");
}

/* nothing is sent before it is known to be there */
static void plain_is_under_way(void)
{
	struct pollfd p = { .events = POLLOUT };

	half_a_frame(false, 2);
	fake_all();
	cr_assert_not(only_tcp(X, 0));
	cr_assert_neq(atomic_load(&X->rs->plain_H), 0);
	p.fd = a;
	cr_assert_eq(poll(&p, 1, 0), 0);
	expect_err(send(a, "fg", 2, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(X->asked[WSD_SAN_PLAIN], 0);
}

static void plain_goes_on(const char *unread)
{
	obey(X);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
	cr_assert_eq(send(a, "fghijklm", 8, MSG_DONTWAIT), 8);
	expect_str(b, 20, unread);
	cr_assert_eq(atomic_load(&Y->rs->ystate), WSD_Y_DONE);
}

/* the path fails, and the word was there, or was not: the daemons say the same */
Test(calls, plain_within_a_frame_fails)
{
	int there;

	for (there = 0; there < 2; there++) {
		plain_is_under_way();
		X->done_held = true;
		fake_step(X, there ? 9 : 0);
		cr_assert_eq(Y->ctl->plain.check != 0, there);
		fake_fail_both(-ECONNRESET);
		plain_goes_on("abcdefghijklm");
		close(a);
		close(b);
	}
}

/* it is gone already, and the program comes to a call that only TCP has */
Test(calls, plain_within_a_frame_without_a_path)
{
	half_a_frame(true, 2);
	fake_fail_both(-ECONNRESET);
	obey(X);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_RETURNING);
	cr_assert(only_tcp(X, 0));
	plain_goes_on("abcdefghijklm");
}

/* the device says nothing, for good */
Test(calls, plain_within_a_frame_silence)
{
	plain_is_under_way();
	X->r->asked_when -= (uint64_t)US(6e6);
	obey(X);
	cr_assert(X->stopped);
	plain_goes_on("abcdefghijklm");
}

/* who wrote it forked, and calls no more; its child does not see it arrive */
Test(calls, plain_within_a_frame_of_a_parent)
{
	plain_is_under_way();
	fake_daemons = false;
	X->r->owner++;
	obey(X);
	cr_assert_eq(atomic_load(&X->rs->asks) & 1u << WSD_SAN_PLAIN, 1u << WSD_SAN_PLAIN);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_RETURNING);
	fake_sweep(X);
	plain_goes_on("abcdefghijklm");
}

/* a child's call, with no word of the parent's: and what the parent knows of its other reads says nothing about it */
Test(calls, plain_within_a_frame_of_a_child)
{
	half_a_frame(false, 2);
	fake_all();
	fake_daemons = false;
	X->r->owner++;
	cr_assert_not(only_tcp(X, 0));
	cr_assert_neq(atomic_load(&X->rs->plain_H), 0);
	X->r->owner--;
	atomic_store(&X->r->asked, 0);
	obey(X);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_RETURNING);
	cr_assert_not(X->stopped, "a queue pair that was never asked is not one that does not answer");
	cr_assert_eq(X->asked[WSD_SAN_PLAIN], 1);
	fake_sweep(X);
	plain_goes_on("abcdefghijklm");
}

/* neither the path nor the daemons say anything: nothing is guessed */
static void nobody_knows(bool never)
{
	plain_is_under_way();
	fake_daemons = false;
	fake_fail_both(-ECONNRESET);
	obey(X);
	cr_assert_eq(X->asked[WSD_SAN_PLAIN], 1);
	expect_err(send(a, "fg", 2, MSG_DONTWAIT), EAGAIN);
	X->r->asked_when -= (uint64_t)US(4e6);
	expect_err(send(a, "fg", 2, MSG_DONTWAIT), EAGAIN);
	if (never)
		atomic_store(&X->rs->plain_there, 2);
	else
		X->r->asked_when -= (uint64_t)US(12e6);
	expect_err(send(a, "fg", 2, MSG_DONTWAIT), ECONNRESET);
}

Test(calls, plain_within_a_frame_nobody_knows) { nobody_knows(false); }
Test(calls, plain_within_a_frame_never_known) { nobody_knows(true); }

/* FIONREAD looks ahead by the daemons' word, too */
Test(calls, plain_within_a_frame_is_counted)
{
	plain_is_under_way();
	fake_fail_both(-ECONNRESET);
	obey(X);
	cr_assert_eq(send(a, "fghijklm", 8, MSG_DONTWAIT), 8);
	wait_inq(b, WSD_FRAME_SIZE + 10);
	cr_assert_eq(inq(b), 13);
	expect_peek(b, 20, "abcdefghijklm");
	expect_str(b, 20, "abcdefghijklm");
}

/* SIOCOUTQ was asked just before, and its answer is under way: it says nothing about what was posted behind it */
Test(calls, plain_within_a_frame_behind_a_question)
{
	int q = 0;

	half_a_frame(false, 2);
	X->unsignalled = true;
	cr_assert_eq(send(a, "f", 1, MSG_DONTWAIT), 1);
	cr_assert_eq(ioctl(a, SIOCOUTQ, &q), 0);
	cr_assert_not(only_tcp(X, 0));
	cr_assert_neq(atomic_load(&X->rs->plain_H), 0);
	while (X->q_n > 1) {		/* the last one is the read that tells */
		fake_step(X, 1);
		fake_poll(X);
		obey(X);
		cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_RETURNING);
	}
	fake_all();
	obey(X);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
}

/* what is left of the frame is the program's to send: room in TCP is nothing to wake up for. Behind our FIN there always is some */
Test(calls, half_a_frame_does_not_spin)
{
	struct pollfd p = { .events = POLLIN };

	half_a_frame(false, 2);
	p.fd = a;
	x_leaves(WSD_X_RETURNING);
	real.ppoll = count_ppoll;
	cr_assert_eq(poll(&p, 1, 100), 0);
	cr_assert_leq(n_kernel_waits, 30);
	n_kernel_waits = 0;
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	cr_assert_eq(poll(&p, 1, 100), 0);
	cr_assert_leq(n_kernel_waits, 30);
}

/* what a pipe holds is payload, too: splice() needs no return (twin seed 42 over RDMA: reset after 2 s) */
Test(calls, half_a_frame_takes_a_pipes_bytes)
{
	int p[2];

	half_a_frame(false, 2);
	cr_assert_eq(pipe(p), 0);
	cr_assert_eq(fcntl(p[0], F_SETFL, O_NONBLOCK), 0);
	expect_err(splice(p[0], NULL, a, NULL, 9, 0), EAGAIN);
	cr_assert_eq(write(p[1], "fg", 2), 2);
	cr_assert_eq(splice(p[0], NULL, a, NULL, 9, 0), 2);
	fake_all();
	expect_str(b, 8, "abcdefg");
	/* behind the payload the direction can return, and does */
	cr_assert_eq(write(p[1], "hijkl", 5), 5);
	cr_assert_eq(splice(p[0], NULL, a, NULL, 9, 0), 1);
	cr_assert_eq(atomic_load(&X->r->leave), 0);
	cr_assert_eq(splice(p[0], NULL, a, NULL, 9, 0), 4);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
	fake_all();
	all_arrived();
	expect_str(b, 8, "hijkl");
	cr_assert_eq(close(p[1]), 0);
	cr_assert_eq(splice(p[0], NULL, a, NULL, 9, 0), 0);
}

/* ... and with the return under way; who may wait does, for the pipe */
static void *write_later(void *arg)
{
	usleep(20000);
	cr_assert_eq(write(*(int *)arg, "f", 1), 1);
	return NULL;
}

Test(calls, half_a_frame_waits_for_a_pipe)
{
	pthread_t th;
	int p[2];

	half_a_frame(false, 2);
	cr_assert_eq(pipe(p), 0);
	x_leaves(WSD_X_RETURNING);
	expect_err(splice(p[0], NULL, a, NULL, 9, SPLICE_F_NONBLOCK), EAGAIN);
	cr_assert_eq(pthread_create(&th, NULL, write_later, &p[1]), 0);
	cr_assert_eq(splice(p[0], NULL, a, NULL, 9, 0), 1);
	pthread_join(th, NULL);
	cr_assert_eq(write(p[1], "ghijk", 5), 5);
	cr_assert_eq(splice(p[0], NULL, a, NULL, 9, 0), 2);
	cr_assert_eq(splice(p[0], NULL, a, NULL, 9, 0), 3);
	fake_all();
	cr_assert_eq(recv(b, back, 11, MSG_WAITALL), 11);
	cr_assert_eq(memcmp(back, "abcdefghijk", 11), 0);
}

/*
 * Behind what completes a frame more of the same call follows, and TCP is told so. Where none does, by bad memory or a signal, nothing is held
 * back: as the kernel's own call, which sends what it has (measured on 6.18: nothing unsent, with and without Nagle's algorithm)
 */
static int unsent(int fd)
{
	int n = -1;

	cr_assert_eq(real.ioctl(fd, SIOCOUTQNSD, &n), 0);
	return n;
}

static void cut_short(bool returns, bool nagle)
{
	uint8_t *hole = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec io[2] = { { (char[]){ "fgh" }, 3 }, { hole, 100 } };
	struct msghdr m = { .msg_iov = io, .msg_iovlen = 2 };
	int v = 0, was;
	socklen_t l = sizeof(was);

	half_a_frame(false, 2);
	fake_all();
	expect_str(b, 8, "abcde");
	if (nagle)
		cr_assert_eq(real.setsockopt(a, IPPROTO_TCP, TCP_NODELAY, &v, sizeof(v)), 0);
	if (returns)
		x_leaves(WSD_X_RETURNING);
	cr_assert_eq(sendmsg(a, &m, 0), 3);
	cr_assert_eq(unsent(a), 0, "%d bytes are held back", unsent(a));
	cr_assert_eq(real.getsockopt(a, IPPROTO_TCP, TCP_NODELAY, &was, &l), 0);
	cr_assert_eq(!was, nagle, "TCP_NODELAY is not as it was");
	cr_assert_eq(atomic_load(&X->rs->xstate), returns ? WSD_X_DONE : WSD_X_FRAMED);
	all_arrived();
	expect_str(b, 8, "fgh");
	cr_assert_eq(send(a, "ijk", 3, 0), 3);
	fake_all();
	expect_str(b, 8, "ijk");
}

Test(calls, nothing_held_behind_bad_memory) { cut_short(false, false); }
Test(calls, nothing_held_behind_bad_memory_nagle) { cut_short(false, true); }
Test(calls, nothing_held_behind_bad_memory_return) { cut_short(true, false); }

static void on_usr1(int sig)
{
}

static long signalled_sendmsg(long n, ...)
{
	long v[6], r;

	SYSCALL_ARGS(v, n);
	r = libc_calls.syscall(n, v[0], v[1], v[2], v[3], v[4], v[5]);
	if (n == SYS_sendmsg) {
		real.syscall = libc_calls.syscall;
		raise(SIGUSR1);
	}
	return r;
}

Test(calls, nothing_held_behind_a_signal)
{
	struct sigaction sa = { .sa_handler = on_usr1 };

	half_a_frame(false, 2);
	fake_all();
	expect_str(b, 8, "abcde");
	cr_assert_eq(sigaction(SIGUSR1, &sa, NULL), 0);
	real.syscall = signalled_sendmsg;
	cr_assert_eq(send(a, "fghij", 5, 0), 3);
	cr_assert_eq(unsent(a), 0, "%d bytes are held back", unsent(a));
	expect_str(b, 8, "fgh");
}

/* ... and by then the number is another file's: its options are left alone, and the connection's other number serves */
static int other_fd, held_fd, touched;

static void *take_number(void *arg)
{
	cr_assert_eq(close(a), 0);
	cr_assert_eq(real.dup2(other_fd, a), a);
	return arg;
}

static long closing_sendmsg(long n, ...)
{
	pthread_t th;
	long v[6], r;

	SYSCALL_ARGS(v, n);
	r = libc_calls.syscall(n, v[0], v[1], v[2], v[3], v[4], v[5]);
	if (n == SYS_sendmsg) {
		real.syscall = libc_calls.syscall;
		cr_assert_eq(pthread_create(&th, NULL, take_number, NULL), 0);
		pthread_join(th, NULL);
		raise(SIGUSR1);
	}
	return r;
}

static int spied_setsockopt(int fd, int level, int name, const void *v, socklen_t l)
{
	touched += fd == a;
	return libc_calls.setsockopt(fd, level, name, v, l);
}

Test(calls, nothing_held_behind_a_close)
{
	struct sigaction sa = { .sa_handler = on_usr1 };

	half_a_frame(false, 2);
	fake_all();
	expect_str(b, 8, "abcde");
	cr_assert_eq(sigaction(SIGUSR1, &sa, NULL), 0);
	other_fd = real.socket(AF_INET, SOCK_STREAM, 0);
	held_fd = dup(a);
	real.setsockopt = spied_setsockopt;
	real.syscall = closing_sendmsg;
	cr_assert_eq(send(a, "fghij", 5, 0), 3);
	cr_assert_eq(touched, 0, "another file's option was set");
	cr_assert_eq(unsent(held_fd), 0, "%d bytes are held back", unsent(held_fd));
	expect_str(b, 8, "fgh");
	cr_assert_eq(close(held_fd), 0);
}

/* The number is closed while the call sleeps, and another file has it: what the pipe holds is not for that */
struct splicer {
	int in;
	_Atomic int tid;
	ssize_t ret;
	int err;
};

static void *splice_main(void *arg)
{
	struct splicer *s = arg;

	atomic_store(&s->tid, (int)real.syscall(SYS_gettid));
	s->ret = splice(s->in, NULL, a, NULL, 9, 0);
	s->err = errno;
	return NULL;
}

static void closed_under_a_splice(bool dupped)
{
	struct splicer s = { 0 };
	int p[2], sv[2], d = -1, i, still = 0;
	pthread_t th;
	char buf[8];

	half_a_frame(false, 2);
	cr_assert_eq(pipe(p), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	if (dupped)
		d = dup(a);
	s.in = p[0];
	cr_assert_eq(pthread_create(&th, NULL, splice_main, &s), 0);
	for (i = 0; i < 10000 && still < 5; i++) {
		char path[64], line[256] = "", *at;
		FILE *f;

		usleep(200);
		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", atomic_load(&s.tid));
		f = fopen(path, "r");
		if (!f)
			continue;
		at = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
		still = at && at[2] == 'S' ? still + 1 : 0;
		fclose(f);
	}
	cr_assert_eq(still, 5, "it does not sleep");
	cr_assert_eq(close(a), 0);
	cr_assert_eq(real.dup2(sv[0], a), a);
	cr_assert_eq(write(p[1], "fg", 2), 2);
	pthread_join(th, NULL);
	cr_assert_eq(real.recv(sv[1], buf, sizeof(buf), MSG_DONTWAIT), -1, "another file has the bytes");
	if (!dupped) {
		cr_assert_eq(s.ret, -1);
		cr_assert_eq(s.err, EBADF);
		return;
	}
	cr_assert_eq(s.ret, 2, "%zd, errno %d", s.ret, s.err);
	fake_all();
	expect_str(b, 8, "abcdefg");
	cr_assert_eq(close(d), 0);
}

Test(calls, closed_under_a_splice_last) { closed_under_a_splice(false); }
Test(calls, closed_under_a_splice_dup) { closed_under_a_splice(true); }

/* the same when the return itself found no room before the FIN */
Test(calls, return_behind_a_fin_does_not_spin)
{
	struct pollfd p = { .events = POLLIN };

	framed();
	cr_assert_eq(send(a, "abc", 3, 0), 3);
	real.syscall = short_syscall;
	give_most = ~0ull;
	x_leaves(WSD_X_RETURNING);
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	give_most = 0;
	p.fd = a;
	real.ppoll = count_ppoll;
	cr_assert_eq(poll(&p, 1, 100), 0);
	cr_assert_leq(n_kernel_waits, 30);
	expect_err(send(a, "x", 1, MSG_NOSIGNAL), EPIPE);
	fake_all();
	expect_str(b, 8, "abc");
	cr_assert_eq(recv(b, back, 8, 0), 0);
}

static void *recv_from_a(void *arg)
{
	peeked = recv(a, peek_buf, 8, 0);
	return NULL;
}

/* TCP had no room for it; there is some now, and who could send it sleeps in a receive */
static void return_waits_for_room(bool both)
{
	pthread_t th;
	int i;

	make_ends(NULL);
	fake_grant(Y);
	if (both)
		fake_grant(X);
	fake_start(X);
	if (both)
		fake_start(Y);
	cr_assert_eq(send(a, "abc", 3, 0), 3);
	real.syscall = short_syscall;
	give_most = ~0ull;
	agreed_leave(ca, WSD_R_OPTION);
	obey(X);
	cr_assert_eq(pthread_create(&th, NULL, recv_from_a, NULL), 0);
	usleep(30000);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_RETURNING);
	give_most = 0;
	for (i = 0; i < 5000 && atomic_load(&X->rs->xstate) != WSD_X_DONE; i++)
		usleep(1000);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
	cr_assert_eq(send(b, "x", 1, 0), 1);
	fake_all();
	pthread_join(th, NULL);
	cr_assert_eq(peeked, 1);
}

Test(calls, return_waits_for_room_framed) { return_waits_for_room(true); }
Test(calls, return_waits_for_room_plain) { return_waits_for_room(false); }

/* ---- ends ---- */

static void reset_by(int fd)
{
	struct linger l = { 1, 0 };

	cr_assert_eq(real.setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l)), 0);
	cr_assert_eq(real.close(fd), 0);
}

/* the kernel tells it once, and told it to us */
Test(calls, error_of_a_return_is_told)
{
	struct pollfd p;

	framed();
	reset_by(b);
	p = (struct pollfd){ a, POLLRDHUP, 0 };
	cr_assert_eq(real.poll(&p, 1, 10000), 1);
	agreed_leave(ca, WSD_R_OPTION);
	obey(X);
	expect_err(recv(a, back, 8, 0), ECONNRESET);
	expect_err(send(a, "x", 1, MSG_NOSIGNAL), EPIPE);
}

/* ... once: behind it is the end of the stream, which no daemon has to be asked for (twin seed 7007 over RDMA) */
static void behind_a_reset(bool by_recv)
{
	struct pollfd p;
	socklen_t l = sizeof(int);
	int e = 0;

	framed();
	reset_by(a);
	p = (struct pollfd){ b, POLLRDHUP, 0 };
	cr_assert_eq(real.poll(&p, 1, 10000), 1);
	if (by_recv) {
		expect_err(recv(b, back, 8, 0), ECONNRESET);
	} else {
		cr_assert_eq(getsockopt(b, SOL_SOCKET, SO_ERROR, &e, &l), 0);
		cr_assert_eq(e, ECONNRESET);
	}
	cr_expect_eq(recv(b, back, 8, MSG_DONTWAIT), 0);
	cr_expect_eq(recv(b, back, 8, 0), 0);
}

/* behind a FIN it is not: what came before that is to be had, and the daemons say how much it is */
Test(calls, behind_a_reset_behind_a_fin_it_is_not)
{
	struct pollfd p;
	ssize_t k = -1;
	int i;

	framed();
	cr_assert_eq(send(a, "x", 1, 0), 1);
	cr_assert_eq(real.shutdown(a, SHUT_WR), 0);
	p = (struct pollfd){ b, POLLRDHUP, 0 };
	cr_assert_eq(real.poll(&p, 1, 10000), 1);
	cr_assert_eq(real.send(b, "y", 1, 0), 1);
	reset_by(a);
	p = (struct pollfd){ b, 0, 0 };
	cr_assert_eq(real.poll(&p, 1, 10000), 1);
	cr_assert(p.revents & POLLHUP);
	for (i = 0; i < 10 && (k = recv(b, back, 8, MSG_DONTWAIT)) < 0; i++)
		cr_assert_eq(errno, EAGAIN);
	cr_assert_eq(k, 1, "a short stream");
	cr_assert_eq(recv(b, back, 8, 0), 0);
}

Test(calls, behind_a_reset_is_the_end) { behind_a_reset(true); }
Test(calls, behind_a_reset_that_was_asked_for_is_the_end) { behind_a_reset(false); }

/* the same where the receive itself has the return sent */
Test(calls, error_of_a_return_is_told_in_recv)
{
	struct pollfd p;

	framed();
	reset_by(b);
	p = (struct pollfd){ a, POLLRDHUP, 0 };
	cr_assert_eq(real.poll(&p, 1, 10000), 1);
	agreed_leave(ca, WSD_R_OPTION);
	expect_err(recv(a, back, 8, 0), ECONNRESET);
}

/* nothing comes behind the end of a stream that another image would have to know of */
Test(calls, handed_on_behind_the_end)
{
	struct thr *t;

	framed();
	say("abc", false);
	expect_str(b, 3, "abc");
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	wait_fin(b);
	t = cs_enter();
	agreed_hand_on(ca, a, HAND_BLIND);
	agreed_hand_on(cb, b, HAND_BLIND);
	cs_leave(t);
	cr_assert_not((atomic_load(&ca->s->flags) | atomic_load(&cb->s->flags)) & S_BROKEN);
	cr_assert_eq(libc_calls.recv(b, back, 8, 0), 0);
	cr_assert_eq(send(b, "x", 1, 0), 1);
	expect_str(a, 8, "x");
	expect_err(send(a, "x", 1, MSG_NOSIGNAL | MSG_DONTROUTE), EPIPE);
}

/* a start that saw no reason to leave is not made behind the answer that there is none */
Test(calls, plain_for_good)
{
	struct thr *t;

	make_ends(NULL);
	fake_grant(Y);
	t = cs_enter();
	cr_assert(agreed_tx_plain(t, ca, a, 100));
	cs_leave(t);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
}

static int (*was_getsockopt)(int, int, int, void *, socklen_t *);
static pthread_t asker;
static _Atomic int asker_said = -1;

static void *ask_for_plain(void *arg)
{
	struct thr *t = cs_enter();

	atomic_store(&asker_said, agreed_rx_plain(t, cb, b, 5000));
	cs_leave(t);
	return NULL;
}

/* in the middle of a grant, behind its look for reasons against it */
static int in_grant(int fd, int level, int name, void *v, socklen_t *l)
{
	int i, r = was_getsockopt(fd, level, name, v, l);

	if (fd == b && level == IPPROTO_TCP && name == TCP_INFO) {
		real.getsockopt = was_getsockopt;
		cr_assert_eq(pthread_create(&asker, NULL, ask_for_plain, NULL), 0);
		for (i = 0; i < 100 && atomic_load(&asker_said) < 0; i++)
			usleep(1000);
	}
	return r;
}

Test(calls, plain_while_a_grant_is_under_way)
{
	struct thr *t;

	make_ends(NULL);
	was_getsockopt = real.getsockopt;
	real.getsockopt = in_grant;
	t = cs_enter();
	cr_assert(rx_touch(cb));
	agreed_grant(t, cb, b);
	cs_leave(t);
	cr_assert_eq(real.getsockopt, was_getsockopt);
	pthread_join(asker, NULL);
	cr_assert_eq(asker_said, 1);
	cr_assert_eq(atomic_load(&Y->rs->ystate), WSD_Y_DONE, "granted, and said to be plain");
}

/* "ab" by the ring, lost without a word; "cd" in a frame */
static void frame_behind_lost_bytes(void)
{
	framed();
	fake_daemons = false;
	X->lossy = true;
	cr_assert_eq(send(a, "ab", 2, 0), 2);
	X->no_slot = 1;
	cr_assert_eq(send(a, "cd", 2, 0), 2);
	all_arrived();
	expect_err(recv(b, back, 8, MSG_DONTWAIT), EAGAIN);
}

/* the header that is there keeps the kernel from telling of the reset behind it */
Test(calls, reset_behind_a_frame_whose_time_never_comes)
{
	frame_behind_lost_bytes();
	reset_by(a);
	expect_err(recv(b, back, 8, 0), ECONNRESET);
}

Test(calls, what_cannot_be_had_before_a_frame)
{
	frame_behind_lost_bytes();
	atomic_store(&Y->rs->end_valid, 2);
	expect_err(recv(b, back, 8, 0), ECONNRESET);
}

/* each takes some work, and none gives the program a byte: a receive would not return */
Test(calls, nothing_but_empty_frames)
{
	struct wsd_frame f = { .epoch = 7, .kind = WSD_FRAME_EMPTY };
	uint8_t h[WSD_FRAME_SIZE];
	int i;

	framed();
	f.nonce = X->r->nonce;
	frame_put(h, &f);
	for (i = 0; i < 100; i++)
		cr_assert_eq(libc_calls.send(a, h, sizeof(h), 0), (ssize_t)sizeof(h));
	wait_inq(b, 100 * (int)sizeof(h));
	expect_err(recv(b, back, 8, MSG_DONTWAIT), ECONNRESET);
}

/* more of them than we give to the kernel at once: no bytes are not the end of the stream, and not "no room" */
Test(calls, many_empty_iovecs)
{
	struct iovec io[70] = { { NULL, 0 } };
	char buf[8] = "";

	framed();
	io[68] = (struct iovec){ (char[]){ "ab" }, 2 };
	io[69] = (struct iovec){ (char[]){ "c" }, 1 };
	X->no_slot = 1;
	cr_assert_eq(writev(a, io, 70), 3);
	all_arrived();
	io[68] = (struct iovec){ buf, 1 };
	io[69] = (struct iovec){ buf + 1, 6 };
	cr_assert_eq(readv(b, io, 70), 3);
	cr_assert_eq(memcmp(buf, "abc", 3), 0);
}

/* a file that cannot be read on is not the connection's to tell */
Test(calls, sendfile_of_half_a_file)
{
	uint8_t *p = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int mem = open("/proc/self/mem", O_RDONLY);
	off_t off = (off_t)(uintptr_t)p;

	framed();
	cr_assert(p != MAP_FAILED && mem >= 0);
	cr_assert_eq(munmap(p + 4096, 4096), 0);
	cr_assert_eq(sendfile(a, mem, &off, 8192), 4096);
	expect_err(recv(a, back, 8, MSG_DONTWAIT), EAGAIN);
	expect_err(sendfile(a, mem, &off, 8192), EIO);
}

/* a process that is no more, without a word to ours of it */
static uint32_t dead(void)
{
	pid_t pid = (pid_t)libc_calls.syscall(SYS_fork);

	cr_assert_geq(pid, 0);
	if (pid == 0)
		libc_calls.syscall(SYS_exit_group, 0);	/* the switch never hears of it */
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	return (uint32_t)pid;
}

/* killed behind the kernel's call, before it counted what that took; the peer has no more to send, which changes nothing here */
Test(calls, sender_that_died_in_a_send)
{
	uint64_t h;

	framed();
	h = atomic_load(&ca->s->H);
	X->no_slot = 1;
	cr_assert_eq(send(a, "abc", 3, 0), 3);
	cr_assert_eq(real.shutdown(b, SHUT_WR), 0);
	wait_fin(a);
	atomic_store(&ca->s->H, h);
	atomic_store(&ca->s->tx_lock, dead());
	cr_assert_eq(send(a, "def", 3, 0), 3);
	cr_assert_eq(atomic_load(&ca->s->H), h + WSD_FRAME_SIZE + 3);
	fake_all();
	all_arrived();
	expect_str(b, 8, "abcdef");
}

static long cancel_in_recvmsg(long nr, ...)
{
	long x[6], r;

	SYSCALL_ARGS(x, nr);
	r = libc_calls.syscall(nr, x[0], x[1], x[2], x[3], x[4], x[5]);
	if (nr == SYS_recvmsg) {
		real.syscall = libc_calls.syscall;
		pthread_cancel(pthread_self());
	}
	return r;
}

static void *peek_to_the_end(void *arg)
{
	peeked = recv(b, peek_buf, 8, MSG_PEEK | MSG_WAITALL);
	return NULL;
}

/* it goes where it sleeps, not below the lock */
Test(calls, cancelled_below_the_lock)
{
	pthread_t th;

	framed();
	say("abcd", true);
	all_arrived();
	expect_str(b, 1, "a");
	real.syscall = cancel_in_recvmsg;
	cr_assert_eq(pthread_create(&th, NULL, peek_to_the_end, NULL), 0);
	pthread_join(th, NULL);
	cr_assert_eq(real.syscall, libc_calls.syscall);
	cr_assert_eq(atomic_load(&cb->s->rx_lock), 0);
	cr_assert_eq(atomic_load(&cb->s->sleepers), 0);
	cr_assert_eq(atomic_load(&cb->pins), 0);
	expect_str(b, 8, "bcd");
}

/* ---- many small frames ---- */

static unsigned n_takes;

static long count_takes(long nr, ...)
{
	long x[6];

	SYSCALL_ARGS(x, nr);
	n_takes += nr == SYS_recvmsg;
	return libc_calls.syscall(nr, x[0], x[1], x[2], x[3], x[4], x[5]);
}

/* messages of 64 bytes and less by frames, ring bytes between some: the same bytes whatever a receive asks for, and not two calls for each */
static void small_frames(size_t piece, unsigned most_takes)
{
	char msg[64], buf[65536];
	unsigned i, sent = 0, got = 0, k;

	framed();
	for (i = 0; i < 200; i++) {
		uint32_t n = i % 7 == 0 ? 1 : 64 - i % 5;

		for (k = 0; k < n; k++)
			msg[k] = (char)(sent + k);
		X->no_slot = i % 50 != 49;
		cr_assert_eq(send(a, msg, n, 0), n);
		sent += n;
	}
	X->no_slot = 0;
	fake_all();
	all_arrived();
	real.syscall = count_takes;
	while (got < sent) {
		ssize_t r = recv(b, buf, piece, 0);

		cr_assert_gt(r, 0);
		for (k = 0; k < (unsigned)r; k++)
			cr_assert_eq(buf[k], (char)(got + k), "byte %u", got + k);
		got += (unsigned)r;
	}
	real.syscall = libc_calls.syscall;
	cr_assert_eq(got, sent);
	cr_assert_leq(n_takes, most_takes, "%u calls", n_takes);
	expect_err(recv(b, buf, 8, MSG_DONTWAIT), EAGAIN);
	cr_assert_eq(cb->s->C, ca->s->H);
}

Test(calls, small_frames_go_together) { small_frames(65536, 40); }
Test(calls, small_frames_in_pieces_of_100) { small_frames(100, 600); }
Test(calls, small_frames_in_pieces_of_63) { small_frames(63, 700); }
Test(calls, small_frames_byte_by_byte) { small_frames(1, 30000); }

/* a program without memory there gets what fitted, and the rest afterwards */
Test(calls, small_frames_efault)
{
	long page = sysconf(_SC_PAGESIZE);
	char *p = mmap(NULL, 2 * (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned i;
	ssize_t r;

	framed();
	cr_assert_eq(mprotect(p + page, (size_t)page, PROT_NONE), 0);
	for (i = 0; i < 8; i++)
		say("12345678", true);
	all_arrived();
	expect_str(b, 8, "12345678");		/* small ones are expected now */
	r = recv(b, p + page - 20, 56, 0);
	cr_assert(r == 16 || r == 20, "%zd", r);
	cr_assert_eq(memcmp(p + page - 20, "12345678123456781234", (size_t)r), 0);
	expect_str(b, 100, r == 16 ? "1234567812345678123456781234567812345678" : "567812345678123456781234567812345678");
}

/* ---- children: no queue pair, and a daemon that hears no packet of theirs ---- */

static int status_of(pid_t pid)
{
	int st;

	cr_assert_eq(waitpid(pid, &st, 0), pid);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 256 + WTERMSIG(st);
}

static void wait_asks(struct fake_end *e, uint32_t what)
{
	int i;

	for (i = 0; i < 10000 && !(atomic_load(&e->rs->asks) & 1u << what); i++)
		usleep(1000);
	cr_assert(atomic_load(&e->rs->asks) & 1u << what, "question %u was not asked", what);
}

/* forked while Start is under way; the parent does not call. The daemon takes the question from the session's memory (A2, F10) */
Test(calls, child_asks_to_decide)
{
	pid_t pid;

	make_ends(NULL);
	fake_grant(Y);
	obey(X);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_STARTING);
	pid = fork();
	if (pid == 0)
		_exit(send(a, "new", 3, 0) == 3 ? 0 : errno);
	wait_asks(X, WSD_SAN_DECIDE);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_UNDECIDED);
	fake_sweep(X);
	cr_assert_eq(status_of(pid), 0);
	cr_assert_eq(send(a, "er", 2, 0), 2);
	expect_str(b, 3, "new");
	expect_str(b, 8, "er");
}

/* and should the parent call first, it asks: it has not waited yet */
Test(calls, parent_finds_it_undecided)
{
	pid_t pid;

	make_ends(NULL);
	fake_daemons = false;
	fake_grant(Y);
	obey(X);
	pid = fork();
	if (pid == 0)
		_exit(send(a, "new", 3, MSG_DONTWAIT) < 0 && errno == EAGAIN ? 0 : 1);
	cr_assert_eq(status_of(pid), 0);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_UNDECIDED);
	expect_err(send(a, "new", 3, MSG_DONTWAIT), EAGAIN);
	fake_answer(X, WSD_SAN_DECIDE);
	cr_assert_eq(send(a, "new", 3, 0), 3);
	expect_str(b, 8, "new");
}

/* a child that reads to the end while its parent sleeps elsewhere: ring bytes that came, a return, and a FIN without END */
Test(calls, child_reads_to_the_end)
{
	char buf[16];
	pid_t pid;

	framed();
	say("abc", false);
	pid = fork();
	if (pid == 0) {
		if (recv(b, buf, 6, MSG_WAITALL) != 6 || memcmp(buf, "abcdef", 6))
			_exit(1);
		_exit(recv(b, buf, 6, 0) == 0 ? 0 : 2);
	}
	wait_asks(Y, WSD_SAN_WANT_RETURN);
	/* not heard of in time: what is sent now goes by the card, which tells the parent alone, and the sender is gone then */
	cr_assert_eq(send(a, "def", 3, 0), 3);
	X->lossy = true;
	real.shutdown(a, SHUT_WR);
	wait_asks(Y, WSD_SAN_END);
	fake_sweep(Y);
	cr_assert_eq(status_of(pid), 0);
}

/* ---- who comes by the socket alone joins the session (reattach.c) ---- */

/* passed on in the middle: ring bytes and a frame unread, the peer sends on, and returns only later */
Test(calls, joined_session_reads_both_roads)
{
	char buf[16] = "";
	pid_t pid;

	framed();
	say("abc", false);
	say("de", true);
	all_arrived();
	pid = fork();
	if (pid == 0) {
		fake_forget(Y);
		reattach_received(b);
		if (!conn_get(b) || !conn_agreed(conn_get(b)))
			_exit(1);
		if (recv(b, buf, 10, MSG_WAITALL) != 10 || memcmp(buf, "abcdefghij", 10))
			_exit(2);
		if (send(b, "answer", 6, 0) != 6)
			_exit(3);
		_exit(recv(b, buf, 10, 0) == 0 ? 0 : 4);
	}
	wait_asks(Y, WSD_SAN_WANT_RETURN);
	say("fgh", true);
	fake_sweep(Y);
	cr_assert_eq(send(a, "ij", 2, 0), 2);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE, "it was asked to return");
	expect_str(a, 10, "answer");
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	cr_assert_eq(status_of(pid), 0);
}

/* unread bytes are no reset where who gets it joins; nothing is waited for but what is sent */
Test(calls, handed_on_with_bytes_unread)
{
	struct thr *t;

	framed();
	fake_grant(X);
	fake_start(Y);
	say("abc", false);
	t = cs_enter();
	agreed_hand_on(cb, b, HAND_SEEN);
	cs_leave(t);
	cr_assert_eq(atomic_load(&Y->rs->xstate), WSD_X_DONE);
	cr_assert(mark_get(b, MARK_UNREAD));
	expect_str(b, 8, "abc");
}

/* what leaks into a child is not waited for, and stays what it is (system() with sockets that have no FD_CLOEXEC) */
Test(calls, leak_does_not_reset)
{
	framed();
	say("abc", false);
	cr_assert_eq(system("true"), 0);
	cr_assert(!mark_get(b, MARK_UNREAD));
	expect_str(b, 8, "abc");
}

/* ---- more than half a ring ---- */

/* what has room as a whole arrives at once: who sleeps in recv() gets it with one call, as of TCP's (twin seed 21 over RDMA) */
Test(calls, whole_sends_are_one_put)
{
	static char buf[4096], got[4096];
	unsigned i, puts;

	framed();
	fake_run = true;
	for (i = 0; i < 6; i++) {
		memset(buf, 'a' + (int)i, sizeof(buf));
		puts = X->puts;
		cr_assert_eq(send(a, buf, 2900, 0), 2900);
		cr_assert_eq(X->puts - puts, 1, "%u puts in round %u", X->puts - puts, i);
		cr_assert_eq(recv(b, got, sizeof(got), 0), 2900);
		cr_assert_eq(memcmp(buf, got, 2900), 0);
	}
}

/* ... and without room for all of it it is a frame: half of it on the ring was another edge, too (twin seed 92 over RDMA) */
Test(calls, whole_sends_are_one_frame)
{
	static char buf[4096], got[8192];

	framed();
	fake_run = true;
	cr_assert_eq(send(a, buf, 1500, 0), 1500);
	cr_assert_eq(X->puts, 1);
	memset(buf, 'b', sizeof(buf));
	cr_assert_eq(send(a, buf, 2900, 0), 2900);
	cr_assert_eq(X->puts, 1);
	cr_assert_eq(atomic_load(&ca->s->H), WSD_FRAME_SIZE + 2900);
	wait_inq(b, WSD_FRAME_SIZE + 2900);
	cr_assert_eq(recv(b, got, sizeof(got), 0), 4400);
	cr_assert_eq(memcmp(buf, got + 1500, 2900), 0);
}

/* ---- a flood that goes by TCP ---- */

static int nodelay(int fd)
{
	int v = -1;
	socklen_t l = sizeof(v);

	cr_assert_eq(real.getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &l), 0);
	return v;
}

/* where TCP is the faster road (here: it is said to be) Nagle's algorithm collects the flood, and no frame is held where ring bytes follow */
Test(calls, flood_by_tcp)
{
	char buf[8192];
	unsigned i, n = 0, puts;
	int off = 0;

	make_ends(NULL);
	cr_assert_eq(setsockopt(a, IPPROTO_TCP, TCP_NODELAY, &off, sizeof(off)), 0);
	fake_grant(Y);
	fake_start(X);
	fake_run = true;
	X->r->flood = (struct bulk){ .rate = { 100, 200 }, .road = 1, .again = 64, .left = 64, .since = tsc_now(), .begun = tsc_now(),
				     .last = tsc_now() };
	for (i = 0; i < 64; i++)
		say("12345678", false);
	puts = X->puts;
	cr_assert_eq(nodelay(a), 1);
	for (i = 0; i < 8; i++) {
		atomic_store(&X->r->in_row, 64);	/* as without pauses */
		X->r->sent_when = tsc_now() + (uint64_t)US(1e6);
		cr_assert_eq(send(a, "abcdefgh", 8, 0), 8);
	}
	cr_assert_eq(X->puts, puts, "not by TCP");
	cr_assert_eq(nodelay(a), 0);
	/* the other end answers: it is none any more */
	fake_grant(X);
	fake_start(Y);
	cr_assert_eq(send(b, "x", 1, 0), 1);
	expect_str(a, 8, "x");
	cr_assert_eq(send(a, "ijklmnop", 8, 0), 8);
	cr_assert_eq(X->puts, puts + 1);
	cr_assert_eq(nodelay(a), 1);
	while (n < 73 * 8) {
		ssize_t r = recv(b, buf + n, sizeof(buf) - n, 0);

		cr_assert_gt(r, 0);
		n += (unsigned)r;
	}
	cr_assert_eq(n, 73 * 8);
	for (i = 0; i < 73; i++)
		cr_assert_eq(memcmp(buf + 8 * i, i < 64 ? "12345678" : i < 72 ? "abcdefgh" : "ijklmnop", 8), 0, "message %u", i);
}

/* a header that nobody can read is an error of the call, not a reason to leave the road (and be reset: the peer does not call here) */
Test(calls, bad_headers)
{
	struct iovec io = { (void *)8, 5 };
	struct msghdr many = { .msg_iov = &io, .msg_iovlen = IOV_MAX + 1 }, array = { .msg_iov = (struct iovec *)8, .msg_iovlen = 1 };

	framed();
	say("abc", false);
	expect_err(recvmsg(b, (struct msghdr *)8, 0), EFAULT);
	expect_err(recvmsg(b, &array, 0), EFAULT);
	expect_err(recvmsg(b, &many, 0), EMSGSIZE);
	expect_err(sendmsg(a, (struct msghdr *)8, 0), EFAULT);
	expect_err(sendmsg(a, &array, 0), EFAULT);
	expect_err(sendmsg(a, &many, 0), EMSGSIZE);
	say("de", false);
	expect_str(b, 8, "abcde");
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_FRAMED);
	cr_assert_eq(atomic_load(&Y->rs->ystate), WSD_Y_FRAMED);
}

/* ---- wsdrun --stats ---- */

void stats_open(const char *path);

/* what ends on a road has not ended on TCP only */
Test(calls, statistics_know_of_roads)
{
	struct { uint64_t magic; uint32_t n_slots, overflow; } head = { WSD_STATS_MAGIC, WSD_STATS_SLOTS, 0 };
	char path[] = "/tmp/wsd-stats-XXXXXX";
	int fd = mkstemp(path);
	const struct wsd_stats_file *f;
	unsigned i;

	cr_assert(fd >= 0 && ftruncate(fd, WSD_STATS_LENGTH) == 0 && pwrite(fd, &head, sizeof(head), 0) == sizeof(head));
	f = mmap(NULL, WSD_STATS_LENGTH, PROT_READ, MAP_SHARED, fd, 0);
	cr_assert_neq((void *)f, MAP_FAILED);
	stats_open(path);
	unlink(path);
	framed();
	say("abc", false);
	stats_accelerated(true);
	stats_accelerated(false);
	conn_stats_all();
	cr_expect_eq(f->slot[0].pid, (uint32_t)getpid());
	cr_expect_eq(f->slot[0].ring_tx, 3);
	cr_expect_eq(f->slot[0].accelerated, 2);
	cr_expect_eq(f->slot[0].accelerated_rdma, 1);
	for (i = 0; i < WSD_STATS_REASONS; i++)
		cr_expect_eq(f->slot[0].reason[i], 0, "reason %u", i);
	close(fd);
}

/* ---- SIOCOUTQ ---- */

static int outq(unsigned long which)
{
	int q = -1;

	cr_assert_eq(ioctl(a, which, &q), 0);
	return q;
}

/* what the peer's device does not have is on its way; that its program has not read it is not asked. Puts without a completion are asked for */
Test(calls, outq_counts_the_ring)
{
	unsigned fetches;

	framed();
	X->unsignalled = true;
	cr_assert_eq(outq(SIOCOUTQ), 0);
	fetches = X->fetches;
	cr_assert_eq(send(a, "abc", 3, 0), 3);
	cr_assert_eq(outq(SIOCOUTQ), 3);
	cr_assert_eq(outq(SIOCOUTQNSD), 0);
	cr_assert_eq(outq(SIOCOUTQ), 3);
	cr_assert_eq(X->fetches - fetches, 1, "one is enough");
	cr_assert_eq(send(a, "de", 2, 0), 2);
	cr_assert_eq(outq(SIOCOUTQ), 5);
	cr_assert_eq(fake_step(X, 100), 4, "a seam, two puts and a fetch");
	cr_assert_eq(outq(SIOCOUTQ), 2);
	fake_step(X, 100);
	cr_assert_eq(outq(SIOCOUTQ), 0);
	cr_assert_eq(X->fetches - fetches, 2);
	expect_str(b, 10, "abcde");
}

static void until_acknowledged(void)
{
	int i;

	for (i = 0; i < 2000 && outq(SIOCOUTQ); i++)
		usleep(1000);
	cr_assert_eq(outq(SIOCOUTQ), 0);
}

/* shut down: it becomes 0 all the same; by frames it is the kernel's */
Test(calls, outq_to_the_end)
{
	framed();
	X->unsignalled = true;
	X->no_slot = 1;
	cr_assert_eq(send(a, "frame", 5, 0), 5);
	cr_assert_eq(send(a, "ring", 4, 0), 4);
	cr_assert_geq(outq(SIOCOUTQ), 4);
	cr_assert_eq(shutdown(a, SHUT_WR), 0);
	cr_assert_geq(outq(SIOCOUTQ), 4);
	fake_step(X, 100);
	until_acknowledged();
}

/* in a return that waits for the rest of a frame what was on the ring before it is as there as ever, though nobody has read it */
Test(calls, outq_of_an_open_frame)
{
	half_a_frame(false, 2);
	x_leaves(WSD_X_RETURNING);
	cr_assert_geq(outq(SIOCOUTQ), 3);
	fake_all();
	until_acknowledged();
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_RETURNING);
	cr_assert_eq(atomic_load(&X->rs->cursor), 0);
}

/* on their way back to TCP bytes are counted there; a road that failed leaves them to the daemons */
Test(calls, outq_of_a_return)
{
	struct fake_opt o = { .sndbuf = 4096, .rcvbuf = 4096, .ring0 = 65536 };
	char buf[20000] = { 0 };
	size_t sent = 0, got = 0;
	int q;

	make_ends(&o);
	fake_grant(Y);
	fake_start(X);
	while (sent < 60000) {
		cr_assert_eq(send(a, buf, sizeof(buf), 0), sizeof(buf));
		sent += sizeof(buf);
	}
	cr_assert_eq(outq(SIOCOUTQ), (int)sent);
	fake_fail_both(-ECONNRESET);
	agreed_leave(ca, WSD_R_RDMA_FAILED);
	obey(X);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_RETURNING);
	q = outq(SIOCOUTQ);
	cr_assert(q >= (int)sent / 2 && q <= (int)sent + (int)WSD_FRAME_SIZE, "%d of %zu", q, sent);	/* but for what TCP has brought */
	cr_assert_geq(outq(SIOCOUTQNSD), (int)sent / 4);
	while (got < sent) {
		ssize_t r = recv(b, buf, sizeof(buf), MSG_DONTWAIT);

		if (r > 0)
			got += (size_t)r;
		else
			obey(X);
	}
	until_acknowledged();
}

/* a return repeats what the peer is not known to have: with a large ring, too, no more than TCP's buffers hold while its program does not read, or
 * a call that needs TCP would be waited for in vain (twin seed 42 over RDMA) */
Test(calls, credit_keeps_a_return_short)
{
	struct fake_opt o = { .ring0 = 1u << 20 };
	char buf[20000] = { 0 };
	int i;

	make_ends(&o);
	fake_grant(Y);
	fake_start(X);
	for (i = 0; i < 10; i++) {
		cr_assert_eq(send(a, buf, sizeof(buf), 0), sizeof(buf));
		fake_all();
		cr_assert_eq(recv(b, buf, sizeof(buf), MSG_WAITALL), sizeof(buf));
		fake_all();
	}
	obey(X);
	cr_assert_leq(atomic_load(&X->rs->posted) - atomic_load(&X->rs->cursor), (64u << 10) + sizeof(buf));
}
