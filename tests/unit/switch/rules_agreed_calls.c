/* SPDX-License-Identifier: MIT */
/*
 * rules_agreed_calls.c - calls whose answers TCP's must be on connections to other hosts (docs/agreed.md), on the road of fake_road.h
 *
 * What a peek shows and FIONREAD counts over both roads, urgent bytes, shutdown of one side: each by hand.
 */
#include <pthread.h>

#include "tests/unit/switch/ends.h"
#include "tests/unit/switch/fake_road.h"

#define X	(&fake_x)
#define Y	(&fake_y)

TestSuite(calls, .timeout = 20);

static void make(void)
{
	fake_make(NULL);
	a = X->fd;
	b = Y->fd;
	ca = X->c;
	cb = Y->c;
	hooks();
}

static void framed(void)
{
	make();
	fake_grant(Y);
	fake_start(X);
}

static void obey(struct fake_end *e)
{
	struct thr *t = cs_enter();

	agreed_obey(t, e->c, e->fd, true);
	cs_leave(t);
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
	make();
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
	agreed_leave(ca, WSD_R_OPTION);
	obey(X);
	cr_assert_eq(atomic_load(&X->rs->xstate), WSD_X_DONE);
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

/* ---- urgent bytes ---- */

static void wait_urgent(void)
{
	struct pollfd p = { b, POLLPRI, 0 };

	cr_assert_eq(real.poll(&p, 1, 10000), 1);
}

/* sent as TCP's, to a reader that granted: no turning in circles before the mark, no byte of the ring's behind it */
Test(calls, urgent_byte_while_granted)
{
	make();
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
