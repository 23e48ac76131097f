/* SPDX-License-Identifier: MIT */
/*
 * test_remote.c - RDMA sessions with both ends on one host: setting up, what the words answer, who dies when
 *
 * The clients are fakes without a device: the daemon never sees one either, it reads sysfs, which here is a folder of the test's.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/proxy/fake_remote.h"

static struct daemon d;
static char sys[64];

static void start_with(const char *const *options, bool device)
{
	strcpy(sys, "/tmp/wsd-proxy-sysfs-XXXXXX");
	cr_assert_not_null(mkdtemp(sys));
	setenv("WSD_TEST_SYSFS", sys, 1);
	if (device)
		fake_device(sys, "0000:0000:0000:0000:0000:ffff:0a07:0001\n");
	daemon_start(&d, options);
}

static void start(void)
{
	start_with((const char *[]){ "--private", "--stay", NULL }, true);
}

static void stop(void)
{
	char cmd[96];

	daemon_stop(&d);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", sys);
	cr_assert_eq(system(cmd), 0);
}

TestSuite(remote, .init = start, .fini = stop, .timeout = 120);

/* ---- setting up ---- */

Test(remote, forced_ends_get_memory_and_a_path)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct status st;
	unsigned i;

	live(f, &p);
	for (i = 0; i < 2; i++) {
		struct wsd_remote *rs = f[i].rs;
		const struct wsd_msg_san_setup *s = &f[i].setup.setup;

		cr_expect_eq(rs->magic, WSD_REMOTE_MAGIC);
		cr_expect_eq(rs->side, i);
		cr_expect_eq(rs->ring0, WSD_REMOTE_RING0);
		cr_expect_eq(rs->session_id, f[0].id);
		cr_expect_eq(rs->nonce, s->nonce);
		cr_expect_eq(rs->off_fill + rs->fill_max, rs->length);
		cr_expect_eq(rs->frame_H, UINT64_MAX);
		cr_expect_str_eq(s->path.device, "rxe0");
		cr_expect_eq(s->path.port, 1);
		cr_expect_eq(s->path.mtu, 5);
		cr_expect_eq(s->path.gid[12], 10, "the address, not the link-local one");
		cr_expect_eq(s->path.timeout, 14);
	}
	cr_expect_eq(f[0].rs->nonce, f[1].rs->nonce);
	cr_expect_neq(f[0].rs->nonce, 0);
	status_get(&d, &st);
	cr_expect_eq(st.d.n_sessions, 1);
	cr_expect_eq(st.conn[0].session_id, f[0].id);
	cr_expect_eq(st.conn[0].transport, WSD_TRANSPORT_VERBS);
	cr_expect_not_null(strstr(st.d.transports, "verbs"));
	done(f, &p);
	cr_expect(UNTIL(status_ends(&d) == 0));
	status_get(&d, &st);
	cr_expect_eq(st.d.bytes_mapped, 0);
	cr_expect_eq(st.d.n_sessions, 0);
}

Test(remote, one_that_is_not_forced_shares_memory)
{
	struct fake f[2] = { 0 };
	struct pair p = pair_make(PAIR_V4);
	struct proxy_msg m;

	offer_san(&f[0], p.end[0], WSD_ROLE_CONNECT, WSD_SAN_FORCE);
	offer_san(&f[1], p.end[1], WSD_ROLE_ACCEPT, 0);
	m = expect(&f[0], PROXY_MSG_SESSION);
	close(m.fd);
	m = expect(&f[1], PROXY_MSG_SESSION);
	close(m.fd);
	done(f, &p);
}

Test(remote, one_that_knows_no_rdma_shares_memory)
{
	struct fake f[2] = { 0 };
	struct pair p = pair_make(PAIR_V4);
	struct proxy_msg m;

	offer_san(&f[0], p.end[0], WSD_ROLE_CONNECT, WSD_SAN_FORCE);
	f[1].pc = proxy_client_new();
	f[1].cookie = 9;
	offer(f[1].pc, p.end[1], WSD_ROLE_ACCEPT, 9);
	m = expect(&f[0], PROXY_MSG_SESSION);
	close(m.fd);
	m = expect(&f[1], PROXY_MSG_SESSION);
	close(m.fd);
	done(f, &p);
}

static void start_bare(void)
{
	start_with((const char *[]){ "--private", "--stay", NULL }, false);
}

Test(remote_bare, no_device_no_session, .init = start_bare, .fini = stop, .timeout = 60)
{
	struct fake f[2] = { 0 };
	struct pair p = pair_make(PAIR_V4);

	offer_san(&f[0], p.end[0], WSD_ROLE_CONNECT, WSD_SAN_FORCE);
	offer_san(&f[1], p.end[1], WSD_ROLE_ACCEPT, WSD_SAN_FORCE);
	expect_refused(f[0].pc, f[0].cookie, WSD_R_NO_RDMA);
	expect_refused(f[1].pc, f[1].cookie, WSD_R_NO_RDMA);
	done(f, &p);
}

Test(remote, a_client_that_cannot_tells_the_other)
{
	struct fake f[2] = { 0 };
	struct pair p;

	offer_both(f, &p);
	say_local(&f[0]);
	proxy_client_withdraw(f[1].pc, f[1].cookie, WSD_R_MEMLOCK, 0);
	expect_refused(f[0].pc, f[0].cookie, WSD_R_MEMLOCK);
	/* and may be offered again */
	munmap(f[0].base, f[0].setup.length);
	munmap(f[1].base, f[1].setup.length);
	offer_san(&f[0], p.end[0], WSD_ROLE_CONNECT, WSD_SAN_FORCE);
	offer_san(&f[1], p.end[1], WSD_ROLE_ACCEPT, WSD_SAN_FORCE);
	take_setup(&f[0]);
	take_setup(&f[1]);
	done(f, &p);
}

/* one end's client goes away at each step of setting up: the other is refused, nothing is kept */
Test(remote, death_while_setting_up)
{
	unsigned step, who;

	for (step = 0; step < 4; step++)
		for (who = 0; who < 2; who++) {
			struct fake f[2] = { 0 };
			struct pair p;
			struct proxy_msg m;

			offer_both(f, &p);
			if (step >= 1)
				say_local(&f[who]);
			if (step >= 2) {
				say_local(&f[1 - who]);
				take_remote(&f[who]);
				take_remote(&f[1 - who]);
			}
			if (step >= 3)
				say_ready(&f[who]);
			f[who].pc = proxy_client_free(f[who].pc);
			do
				m = message(f[1 - who].pc);
			while (m.type == PROXY_MSG_SAN_REMOTE);
			cr_assert_eq(m.type, PROXY_MSG_REFUSED, "step %u: message %d", step, m.type);
			done(f, &p);
			cr_expect(UNTIL(status_ends(&d) == 0));
		}
}

Test(remote, requests_out_of_turn_end_the_connection)
{
	unsigned i;

	for (i = 0; i < 4; i++) {
		struct fake f[2] = { 0 };
		struct pair p;

		offer_both(f, &p);
		switch (i) {
		case 0:
			say_ready(&f[0]);
			break;
		case 1:
			say_local(&f[0]);
			say_local(&f[0]);
			break;
		case 2:
			ask(&f[0], WSD_SAN_DECIDE, 0, 0);
			break;
		case 3:
			say_local(&f[0]);
			say_ready(&f[0]);	/* before it knows the peer */
			break;
		}
		/* the daemon's error is the reason of what is unanswered */
		expect_refused(f[0].pc, f[0].cookie, WSD_R_PEER_BROKEN);
		done(f, &p);
	}
}

Test(remote, another_session_is_not_meant)
{
	struct fake f[2] = { 0 };
	struct pair p;

	offer_both(f, &p);
	cr_assert_eq(proxy_client_san_ready(f[0].pc, f[0].cookie, f[0].id + 1), 0);
	cr_assert_eq(proxy_client_san_ready(f[0].pc, f[0].cookie + 77, f[0].id), 0);
	cr_assert_eq(proxy_client_san_ask(f[0].pc, f[0].cookie, f[0].id + 1, WSD_SAN_END, 0, 0), 0);
	say_local(&f[0]);
	say_local(&f[1]);
	take_remote(&f[0]);
	take_remote(&f[1]);
	done(f, &p);
}

/* ---- words ---- */

Test(remote, decide_void_once_and_for_all)
{
	struct fake f[2] = { 0 };
	struct pair p;
	uint32_t was = WSD_DECIDE_UNSET;

	live(f, &p);
	ask(&f[0], WSD_SAN_DECIDE, 0, 0);
	(void)expect(&f[0], PROXY_MSG_SAN_LOOK);
	cr_expect_eq(atomic_load(&f[0].rs->decided), WSD_DECIDED_VOID);
	cr_expect_not(atomic_compare_exchange_strong(&f[1].rs->decide, &was, WSD_DECIDE_TAKEN));
	done(f, &p);
}

Test(remote, decide_taken_when_it_was_taken)
{
	struct fake f[2] = { 0 };
	struct pair p;

	live(f, &p);
	atomic_store(&f[1].rs->decide, WSD_DECIDE_TAKEN);
	ask(&f[0], WSD_SAN_DECIDE, 0, 0);
	(void)expect(&f[0], PROXY_MSG_SAN_LOOK);
	cr_expect_eq(atomic_load(&f[0].rs->decided), WSD_DECIDED_TAKEN);
	done(f, &p);
}

/* A4: the peer's memory says it before we are told that it does; by whichever process it was asked */
Test(remote, plain_at_reaches_the_peer)
{
	struct fake f[2] = { 0 };
	struct pair p;

	live(f, &p);
	ask(&f[0], WSD_SAN_PLAIN, 77, 0);		/* what counts is the memory's word, and it has none */
	atomic_store(&f[1].rs->plain_H, 1234);
	ask(&f[1], WSD_SAN_PLAIN, 0, 0);
	(void)expect(&f[0], PROXY_MSG_SAN_LOOK);
	(void)expect(&f[1], PROXY_MSG_SAN_LOOK);
	cr_expect_eq(atomic_load(&f[0].rs->plain_at), 1234);
	cr_expect_eq(atomic_load(&f[1].rs->plain_there), 1);
	cr_expect_eq(atomic_load(&f[0].rs->plain_there), 0);
	cr_expect_eq(atomic_load(&f[1].rs->plain_at), 0);
	atomic_store(&f[0].rs->plain_H, 99);
	atomic_store(&f[0].rs->asks, 1u << WSD_SAN_PLAIN);
	cr_assert(UNTIL(atomic_load(&f[1].rs->plain_at) == 99 && atomic_load(&f[0].rs->plain_there) == 1));
	done(f, &p);
}

Test(remote, want_return_reaches_the_peer)
{
	struct fake f[2] = { 0 };
	struct pair p;

	live(f, &p);
	ask(&f[1], WSD_SAN_WANT_RETURN, 0, 0);
	(void)expect(&f[0], PROXY_MSG_SAN_LOOK);
	cr_expect_eq(atomic_load(&f[0].rs->x_return), 1);
	cr_expect_eq(atomic_load(&f[1].rs->x_return), 0);
	done(f, &p);
}

Test(remote, fill_carries_bytes_and_their_seams)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct wsd_seam s;

	live(f, &p);
	add_seam(&f[0], 0, 0);
	post(&f[0], 3000);
	add_seam(&f[0], 3000, 50);
	post(&f[0], 7000);
	/* the first 1000 are known to have been read */
	atomic_store(&f[1].rs->taken, 1000);
	atomic_store(&f[0].rs->cursor, 1000);
	ask(&f[0], WSD_SAN_FILL, 1000, 5000);
	(void)expect(&f[1], PROXY_MSG_SAN_LOOK);
	cr_expect_eq(atomic_load(&f[1].rs->fill_from), 1000);
	cr_expect_eq(atomic_load(&f[1].rs->filled), 5000);
	check_filled(&f[1], 1000, 5000);
	s = f[1].rs->fill_seam[2];
	cr_expect_eq(s.n, 2);
	cr_expect_eq(s.ring_off, 3000);
	cr_expect_eq(s.tcp_off, 50);
	cr_expect_eq(s.check, f[0].rs->seam[2].check);
	cr_expect_eq(f[1].rs->fill_seam[1].n, 0, "behind the cursor");
	/* again and further: what was sent is not sent again, the ring wraps around */
	atomic_store(&f[1].rs->taken, 5000);
	atomic_store(&f[0].rs->cursor, 5000);
	post(&f[0], 12000);
	ask(&f[0], WSD_SAN_FILL, 0, 12000);
	cr_assert(UNTIL(atomic_load(&f[1].rs->filled) == 12000));
	check_filled(&f[1], 5000, 12000);
	done(f, &p);
}

Test(remote, the_cursor_in_the_control_page_counts)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct wsd_remote_ctl *ctl;
	uint64_t w[2] = { 600, 0 };

	live(f, &p);
	add_seam(&f[0], 0, 0);
	post(&f[0], 1000);
	ctl = (struct wsd_remote_ctl *)(f[0].base + f[0].rs->off_ctl);
	ctl->credit.cursor = 600;
	ctl->credit.check = wsd_remote_check(f[0].rs->nonce, WSD_CTL_CREDIT, w, 2);
	atomic_store(&f[1].rs->taken, 600);
	ask(&f[0], WSD_SAN_FILL, 0, 1000);
	cr_assert(UNTIL(atomic_load(&f[1].rs->filled) == 1000));
	cr_expect_eq(atomic_load(&f[1].rs->fill_from), 600);
	check_filled(&f[1], 600, 1000);
	done(f, &p);
}

Test(remote, words_that_cannot_be_end_the_connection)
{
	struct fake f[2] = { 0 };
	struct pair p;

	live(f, &p);
	atomic_store(&f[0].rs->posted, 1ull << 40);
	ask(&f[0], WSD_SAN_FILL, 0, 1ull << 40);
	cr_assert(UNTIL(proxy_client_reason(f[0].pc) == WSD_R_PEER_BROKEN || ({ struct proxy_msg m;
		proxy_client_receive(f[0].pc, &m); false; })));
	cr_expect_eq(atomic_load(&f[1].rs->filled), 0);
	done(f, &p);
}

Test(remote, a_ring_grows_once)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct status st, before;

	live(f, &p);
	status_get(&d, &before);
	ask(&f[0], WSD_SAN_GROW, 0, 256 << 10);
	(void)expect(&f[0], PROXY_MSG_SAN_LOOK);
	cr_expect_eq(atomic_load(&f[0].rs->rx1_allowed), 256u << 10);
	cr_expect_eq(atomic_load(&f[0].rs->tx1_allowed), 0);
	ask(&f[0], WSD_SAN_GROW, 0, 512 << 10);
	(void)expect(&f[0], PROXY_MSG_SAN_LOOK);
	cr_expect_eq(atomic_load(&f[0].rs->rx1_allowed), 256u << 10);
	ask(&f[0], WSD_SAN_GROW, 1, 64 << 10);
	(void)expect(&f[0], PROXY_MSG_SAN_LOOK);
	cr_expect_eq(atomic_load(&f[0].rs->tx1_allowed), 64u << 10);
	status_get(&d, &st);
	cr_expect_eq(st.d.bytes_mapped - before.d.bytes_mapped, 320u << 10);
	ask(&f[0], WSD_SAN_GROW, 0, 3 << 20);
	cr_assert(UNTIL(proxy_client_reason(f[0].pc) == WSD_R_PEER_BROKEN || ({ struct proxy_msg m;
		proxy_client_receive(f[0].pc, &m); false; })));
	done(f, &p);
}

/* a source ring 1: bytes behind the change come from there */
Test(remote, fill_reads_both_rings)
{
	struct fake f[2] = { 0 };
	struct pair p;
	uint64_t o;

	live(f, &p);
	ask(&f[0], WSD_SAN_GROW, 1, 64 << 10);
	(void)expect(&f[0], PROXY_MSG_SAN_LOOK);
	add_seam(&f[0], 0, 0);
	post(&f[0], 5000);
	atomic_store(&f[0].rs->tx1_size, 64u << 10);
	atomic_store(&f[0].rs->ring1_from, 5000);
	for (o = 5000; o < 60000; o++)
		f[0].base[f[0].rs->off_tx1 + (o & 0xffff)] = byte_at(o);
	atomic_store(&f[0].rs->posted, 60000);
	ask(&f[0], WSD_SAN_FILL, 0, 60000);
	cr_assert(UNTIL(atomic_load(&f[1].rs->filled) == 60000));
	check_filled(&f[1], 0, 60000);
	done(f, &p);
}

/* nobody asks: the sweep finds bytes that do not move, unless they have arrived */
Test(remote, the_sweep_delivers_for_who_does_not_call)
{
	struct fake f[2] = { 0 };
	struct pair p;

	live(f, &p);
	add_seam(&f[0], 0, 0);
	post(&f[0], 100);
	add_seam(&f[1], 0, 0);
	post(&f[1], 100);
	atomic_store(&f[0].rs->head, 100);	/* has arrived, and is not read */
	cr_assert(UNTIL(atomic_load(&f[1].rs->filled) == 100));
	check_filled(&f[1], 0, 100);
	cr_expect_eq(atomic_load(&f[0].rs->filled), 0);
	done(f, &p);
}

/* questions of a process that is not the client here (forked, re-attached): bits in the session memory */
Test(remote, the_sweep_takes_questions_of_others)
{
	struct fake f[2] = { 0 };
	struct pair p;

	live(f, &p);
	atomic_store(&f[1].rs->asks, 1u << WSD_SAN_WANT_RETURN | 1u << WSD_SAN_DECIDE);
	cr_assert(UNTIL(atomic_load(&f[0].rs->x_return) == 1 && atomic_load(&f[1].rs->decided) == WSD_DECIDED_VOID));
	cr_expect_eq(atomic_load(&f[1].rs->asks), 0);
	cr_expect_eq(atomic_load(&f[0].rs->decide), WSD_DECIDE_VOID);
	done(f, &p);
}

/* behind RETURN the ring is not read any more: what has arrived there counts no more than what has not (F18) */
Test(remote, the_sweep_delivers_what_a_return_left_in_the_ring)
{
	struct fake f[2] = { 0 };
	struct pair p;

	live(f, &p);
	add_seam(&f[0], 0, 0);
	post(&f[0], 100);
	atomic_store(&f[1].rs->head, 100);
	atomic_store(&f[0].rs->xstate, WSD_X_RETURNING);
	atomic_store(&f[1].rs->ystate, WSD_Y_DROPPING);
	cr_assert(UNTIL(atomic_load(&f[1].rs->filled) == 100));
	check_filled(&f[1], 0, 100);
	done(f, &p);
}

/* ---- ends ---- */

Test(remote, close_leaves_the_tail_and_says_where_it_ends)
{
	struct fake f[2] = { 0 };
	struct pair p;

	live(f, &p);
	add_seam(&f[0], 0, 0);
	post(&f[0], 4000);
	proxy_client_withdraw(f[0].pc, f[0].cookie, WSD_R_NONE, 0);
	close(p.end[0]);
	p.end[0] = -1;
	cr_assert(UNTIL(atomic_load(&f[1].rs->end_valid) == 1));
	cr_expect_eq(atomic_load(&f[1].rs->end_posted), 4000);
	cr_expect_eq(atomic_load(&f[1].rs->filled), 4000);
	check_filled(&f[1], 0, 4000);
	(void)expect(&f[1], PROXY_MSG_SAN_LOOK);
	/* who asks of a peer that is gone gets an answer */
	ask(&f[1], WSD_SAN_DECIDE, 0, 0);
	cr_assert(UNTIL(atomic_load(&f[1].rs->decided) == WSD_DECIDED_VOID));
	done(f, &p);
}

Test(remote, what_was_drained_is_not_filled)
{
	struct fake f[2] = { 0 };
	struct pair p;

	live(f, &p);
	add_seam(&f[0], 0, 0);
	post(&f[0], 4000);
	ask(&f[0], WSD_SAN_DRAINED, 4000, 0);
	proxy_client_withdraw(f[0].pc, f[0].cookie, WSD_R_NONE, 0);
	close(p.end[0]);
	p.end[0] = -1;
	cr_assert(UNTIL(atomic_load(&f[1].rs->end_valid) == 1));
	cr_expect_eq(atomic_load(&f[1].rs->end_posted), 4000);
	cr_expect_eq(atomic_load(&f[1].rs->filled), 0);
	done(f, &p);
}

Test(remote, end_is_answered_behind_a_shutdown)
{
	struct fake f[2] = { 0 };
	struct pair p;

	live(f, &p);
	add_seam(&f[0], 0, 0);
	post(&f[0], 10);
	ask(&f[1], WSD_SAN_END, 0, 0);
	(void)status_sessions(&d);	/* by now it has been heard */
	cr_expect_eq(atomic_load(&f[1].rs->end_valid), 0, "it has not ended");
	shutdown(p.end[0], SHUT_WR);
	ask(&f[1], WSD_SAN_END, 0, 0);
	cr_assert(UNTIL(atomic_load(&f[1].rs->end_valid) == 1));
	cr_expect_eq(atomic_load(&f[1].rs->end_posted), 10);
	cr_expect_eq(atomic_load(&f[1].rs->peer_left), 0, "it reads");
	proxy_client_withdraw(f[0].pc, f[0].cookie, WSD_R_NONE, 0);
	close(p.end[0]);
	p.end[0] = -1;
	cr_expect(UNTIL(atomic_load(&f[1].rs->peer_left) == 1), "said again");
	done(f, &p);
}

Test(remote, a_client_that_gives_up_revokes_the_other)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct proxy_msg m;

	live(f, &p);
	proxy_client_withdraw(f[0].pc, f[0].cookie, WSD_R_RDMA_FAILED, 0);
	do
		m = message(f[1].pc);
	while (m.type == PROXY_MSG_SAN_LOOK);
	cr_expect_eq(m.type, PROXY_MSG_REVOKED);
	cr_expect_eq(m.reason, WSD_R_RDMA_FAILED);
	cr_expect_eq(atomic_load(&f[1].rs->revoked), WSD_R_RDMA_FAILED);
	proxy_client_withdraw(f[1].pc, f[1].cookie, WSD_R_RDMA_FAILED, 0);
	cr_assert(UNTIL(status_sessions(&d) == 0));
	/* and again */
	munmap(f[0].base, f[0].setup.length);
	munmap(f[1].base, f[1].setup.length);
	offer_san(&f[0], p.end[0], WSD_ROLE_CONNECT, WSD_SAN_FORCE);
	offer_san(&f[1], p.end[1], WSD_ROLE_ACCEPT, WSD_SAN_FORCE);
	take_setup(&f[0]);
	take_setup(&f[1]);
	done(f, &p);
}

/* the process with the queue pair dies, another holds the socket */
Test(remote, the_owner_dies_and_the_socket_lives)
{
	struct fake f[2] = { 0 };
	struct pair p;

	live(f, &p);
	add_seam(&f[0], 0, 0);
	post(&f[0], 500);
	f[0].pc = proxy_client_free(f[0].pc);		/* the socket stays open here */
	cr_assert(UNTIL(atomic_load(&f[1].rs->filled) == 500));
	check_filled(&f[1], 0, 500);
	cr_expect(UNTIL(atomic_load(&f[0].rs->owner_gone) == 1));
	cr_expect(UNTIL(atomic_load(&f[1].rs->x_return) == 1));
	cr_expect_eq(atomic_load(&f[1].rs->end_valid), 0);
	cr_expect_eq(atomic_load(&f[1].rs->peer_left), 0);
	close(p.end[0]);
	p.end[0] = -1;
	cr_assert(UNTIL(atomic_load(&f[1].rs->end_valid) == 1));
	cr_expect_eq(atomic_load(&f[1].rs->end_posted), 500);
	cr_expect_eq(atomic_load(&f[1].rs->peer_left), 1);
	done(f, &p);
}

/* a process that is killed: nothing but the kernel says so */
Test(remote, a_killed_process_leaves_its_tail)
{
	struct fake f[2] = { 0 };
	struct pair p = pair_make(PAIR_V4);
	pid_t child;
	int st;

	child = fork();
	cr_assert_geq(child, 0);
	if (!child) {
		close(p.end[1]);
		offer_san(&f[0], p.end[0], WSD_ROLE_CONNECT, WSD_SAN_FORCE);
		take_setup(&f[0]);
		say_local(&f[0]);
		take_remote(&f[0]);
		say_ready(&f[0]);
		(void)expect(&f[0], PROXY_MSG_SAN_GO);
		add_seam(&f[0], 0, 0);
		post(&f[0], 321);
		raise(SIGKILL);
	}
	close(p.end[0]);
	p.end[0] = -1;
	offer_san(&f[1], p.end[1], WSD_ROLE_ACCEPT, WSD_SAN_FORCE);
	take_setup(&f[1]);
	say_local(&f[1]);
	take_remote(&f[1]);
	say_ready(&f[1]);
	(void)expect(&f[1], PROXY_MSG_SAN_GO);
	cr_assert_eq(waitpid(child, &st, 0), child);
	cr_assert(WIFSIGNALED(st));
	cr_assert(UNTIL(atomic_load(&f[1].rs->end_valid) == 1));
	cr_expect_eq(atomic_load(&f[1].rs->end_posted), 321);
	check_filled(&f[1], 0, 321);
	cr_expect_eq(atomic_load(&f[1].rs->peer_left), 1);
	cr_expect_eq(atomic_load(&f[1].rs->x_return), 0, "a RETURN would be answered with a reset, and the tail in TCP be lost");
	done(f, &p);
}

Test(remote, unload_revokes)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct wsd_msg_plain rq = { .hdr = { sizeof(rq), WSD_PROXY_VERSION, WSD_MSG_UNLOAD, 0 }, .flags = WSD_UNLOAD_REVOKE };
	int raw, i;

	live(f, &p);
	raw = raw_connect(&d);
	cr_assert(raw_send(raw, &rq, sizeof(rq)));
	cr_assert(UNTIL(atomic_load(&f[0].rs->revoked) == WSD_R_UNLOADING));
	cr_assert(UNTIL(atomic_load(&f[1].rs->revoked) == WSD_R_UNLOADING));
	cr_assert_eq(daemon_wait(&d), 0);
	close(raw);
	for (i = 0; i < 2; i++) {
		cr_expect_eq(expect(&f[i], PROXY_MSG_REVOKED).reason, WSD_R_UNLOADING);
		cr_expect_eq(atomic_load(&f[i].rs->owner_gone), 0, "the processes live");
		cr_expect_eq(atomic_load(&f[i].rs->end_valid), 0);
	}
	done(f, &p);
	daemon_start(&d, (const char *[]){ "--private", "--stay", NULL });
}

/* ---- limits ---- */

Test(remote, who_is_not_ready_in_time)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct proxy_msg m;

	offer_both(f, &p);
	say_local(&f[0]);
	take_remote(&f[1]);
	cr_assert(UNTIL(proxy_client_receive(f[0].pc, &m) == 1) || UNTIL(proxy_client_receive(f[0].pc, &m) == 1));
	cr_expect_eq(m.type, PROXY_MSG_REFUSED);
	cr_expect_eq(m.reason, WSD_R_RDMA_FAILED);
	expect_refused(f[1].pc, f[1].cookie, WSD_R_RDMA_FAILED);
	done(f, &p);
}

static void start_poor(void)
{
	start_with((const char *[]){ "--private", "--stay", "--quota-bytes", "60k", NULL }, true);
}

Test(remote_poor, quota, .init = start_poor, .fini = stop, .timeout = 60)
{
	struct fake f[2] = { 0 }, g[2] = { 0 };
	struct pair p, q = pair_make(PAIR_V4);
	struct status st;

	live(f, &p);		/* 24 KiB for each end */
	offer_san(&g[0], q.end[0], WSD_ROLE_CONNECT, WSD_SAN_FORCE);
	offer_san(&g[1], q.end[1], WSD_ROLE_ACCEPT, WSD_SAN_FORCE);
	expect_refused(g[0].pc, g[0].cookie, WSD_R_QUOTA_BYTES);
	expect_refused(g[1].pc, g[1].cookie, WSD_R_QUOTA_BYTES);
	/* a ring does not grow beyond it, and FILL does not either */
	ask(&f[0], WSD_SAN_GROW, 0, 64 << 10);
	(void)expect(&f[0], PROXY_MSG_SAN_LOOK);
	cr_expect_eq(atomic_load(&f[0].rs->rx1_allowed), 0);
	status_get(&d, &st);
	cr_expect_eq(st.d.bytes_mapped, 48u << 10);
	add_seam(&f[0], 0, 0);
	post(&f[0], 8192);
	ask(&f[0], WSD_SAN_FILL, 0, 8192);
	proxy_client_withdraw(f[0].pc, f[0].cookie, WSD_R_NONE, 0);
	close(p.end[0]);
	p.end[0] = -1;
	cr_assert(UNTIL(atomic_load(&f[1].rs->end_valid) != 0));
	cr_expect_eq(atomic_load(&f[1].rs->end_valid), atomic_load(&f[1].rs->filled) == 8192 ? 1 : 2);
	done(g, &q);
	done(f, &p);
	cr_expect(UNTIL(status_ends(&d) == 0));
	status_get(&d, &st);
	cr_expect_eq(st.d.bytes_mapped, 0);
}

static char conf[96];

static void start_quota(const char *key, const char *value)
{
	int fd;

	strcpy(conf, "/tmp/wsd-proxy-conf-XXXXXX");
	fd = mkstemp(conf);
	cr_assert_gt(dprintf(fd, "[san]\n%s = %s\n", key, value), 0);
	close(fd);
	start_with((const char *[]){ "--private", "--stay", "--config", conf, NULL }, true);
}

static void start_locked(void)
{
	start_quota("quota-locked", "90K");
}

static void start_larger(void)
{
	start_quota("quota-locked", "260K");
}

static void start_few(void)
{
	start_quota("quota-sessions", "3");
}

static void stop_locked(void)
{
	stop();
	unlink(conf);
}

/* the table of sessions has a share for each user; what has ended counts no more */
Test(remote_few, quota_sessions, .init = start_few, .fini = stop_locked, .timeout = 60)
{
	struct fake f[2] = { 0 }, g[2] = { 0 };
	struct pair p, q = pair_make(PAIR_V4);
	unsigned i;

	for (i = 0; i < 3; i++) {
		live(f, &p);
		offer_san(&g[0], q.end[0], WSD_ROLE_CONNECT, WSD_SAN_FORCE);
		offer_san(&g[1], q.end[1], WSD_ROLE_ACCEPT, WSD_SAN_FORCE);
		expect_refused(g[0].pc, g[0].cookie, WSD_R_LIMIT);
		expect_refused(g[1].pc, g[1].cookie, WSD_R_LIMIT);
		done(f, &p);
		memset(f, 0, sizeof(f));
		cr_assert(UNTIL(status_sessions(&d) == 0));
	}
	done(g, &q);
}

/* 20 KiB for each end: four are 80 KiB, and what has ended counts no more */
Test(remote_locked, quota_locked, .init = start_locked, .fini = stop_locked, .timeout = 60)
{
	struct fake f[2] = { 0 }, g[2] = { 0 }, h[2] = { 0 };
	struct pair p, q, r = pair_make(PAIR_V4);

	live(f, &p);
	live(g, &q);
	offer_san(&h[0], r.end[0], WSD_ROLE_CONNECT, WSD_SAN_FORCE);
	offer_san(&h[1], r.end[1], WSD_ROLE_ACCEPT, WSD_SAN_FORCE);
	expect_refused(h[0].pc, h[0].cookie, WSD_R_MEMLOCK);
	expect_refused(h[1].pc, h[1].cookie, WSD_R_MEMLOCK);
	ask(&g[0], WSD_SAN_GROW, 1, 64 << 10);
	(void)expect(&g[0], PROXY_MSG_SAN_LOOK);
	cr_expect_eq(atomic_load(&g[0].rs->tx1_allowed), 0);
	done(f, &p);
	cr_expect(UNTIL(status_sessions(&d) == 1));
	offer_san(&h[0], r.end[0], WSD_ROLE_CONNECT, WSD_SAN_FORCE);
	offer_san(&h[1], r.end[1], WSD_ROLE_ACCEPT, WSD_SAN_FORCE);
	take_setup(&h[0]);
	take_setup(&h[1]);
	done(g, &q);
	done(h, &r);
}

/* rings grow within half of the quota: the other is for connections that begin */
Test(remote_locked, growth_leaves_room_for_others, .init = start_larger, .fini = stop_locked, .timeout = 60)
{
	struct fake f[2] = { 0 }, g[2] = { 0 };
	struct pair p, q;

	live(f, &p);		/* 40 KiB */
	ask(&f[0], WSD_SAN_GROW, 0, 64 << 10);
	(void)expect(&f[0], PROXY_MSG_SAN_LOOK);
	cr_expect_eq(atomic_load(&f[0].rs->rx1_allowed), 64u << 10);
	ask(&f[0], WSD_SAN_GROW, 1, 64 << 10);
	(void)expect(&f[0], PROXY_MSG_SAN_LOOK);
	cr_expect_eq(atomic_load(&f[0].rs->tx1_allowed), 0);
	live(g, &q);
	done(f, &p);
	done(g, &q);
}

static void check_raised(rlim_t hard)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct rlimit rl = { 8192, hard }, now;

	cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &rl), 0);
	live(f, &p);
	cr_assert_eq(getrlimit(RLIMIT_MEMLOCK, &now), 0);
	cr_expect_geq(now.rlim_cur, (40u << 10) + (1u << 20));
	cr_expect_leq(now.rlim_cur, (40u << 10) + (2u << 20));
	ask(&f[0], WSD_SAN_GROW, 0, 1 << 20);
	(void)expect(&f[0], PROXY_MSG_SAN_LOOK);
	cr_assert_eq(getrlimit(RLIMIT_MEMLOCK, &now), 0);
	cr_expect_geq(now.rlim_cur, (40u << 10) + (2u << 20));
	done(f, &p);
}

/* a process with a small limit gets a larger one: up to its hard limit by any daemon of its user's ... */
Test(remote, the_limit_of_an_admitted_process_is_raised)
{
	struct rlimit rl;

	cr_assert_eq(getrlimit(RLIMIT_MEMLOCK, &rl), 0);
	if (rl.rlim_max < 4u << 20)
		cr_skip_test("the hard limit is too small");
	check_raised(4u << 20);
}

/* ... and beyond by one with CAP_SYS_RESOURCE */
Test(remote, the_hard_limit_is_raised)
{
	struct rlimit rl = { 4096, 4096 }, more = { 8192, 8192 };

	cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &rl), 0);
	if (setrlimit(RLIMIT_MEMLOCK, &more) < 0)
		cr_skip_test("no CAP_SYS_RESOURCE");
	check_raised(8192);
}

/* another process of the socket gets the same memory, and no queue pair; the maker's death is seen all the same */
Test(remote, reattach)
{
	struct fake f[2] = { 0 }, g = { 0 };
	struct pair p;
	struct proxy_msg m;
	struct wsd_side_at at = { .ipc_ns = 7, .shm = 3, .index = 9 };
	int r = -1;

	live(f, &p);
	cr_assert_eq(proxy_client_side(f[0].pc, f[0].cookie, f[0].id, &at), 0);
	g.pc = proxy_client_new();
	g.cookie = 55;
	cr_assert(UNTIL((proxy_client_receive(g.pc, &m),
			 r = proxy_client_reattach(g.pc, p.end[0], sock_cookie(p.end[0]), 55, 0, NULL)) != PROXY_CLIENT_E_BUSY));
	cr_assert_eq(r, 0);
	take_setup(&g);
	cr_expect_eq(g.id, f[0].id);
	cr_expect_eq(g.setup.side, 0);
	m = expect(&g, PROXY_MSG_SAN_SIDE);
	cr_expect_eq(m.at.index, 9);
	cr_expect_eq(m.at.serial, 1);
	(void)expect(&g, PROXY_MSG_SAN_GO);
	atomic_store(&f[0].rs->taken, 5);
	cr_expect_eq(atomic_load(&g.rs->taken), 5);
	/* what changes is told to who has it now */
	ask(&f[1], WSD_SAN_WANT_RETURN, 0, 0);
	(void)expect(&g, PROXY_MSG_SAN_LOOK);
	add_seam(&g, 0, 0);
	post(&g, 100);
	f[0].pc = proxy_client_free(f[0].pc);
	cr_assert(UNTIL(atomic_load(&g.rs->owner_gone) == 1));
	cr_expect_eq(atomic_load(&f[1].rs->filled), 100);
	ask(&g, WSD_SAN_DECIDE, 0, 0);
	cr_assert(UNTIL(atomic_load(&g.rs->decided) == WSD_DECIDED_VOID));
	g.pc = proxy_client_free(g.pc);
	munmap(g.base, g.setup.length);
	done(f, &p);
}
