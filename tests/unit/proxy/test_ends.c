/* SPDX-License-Identifier: MIT */
/* G21: a session ends with the socket, not with a process */
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/proxy/fixture.h"

static struct daemon d;

static void start(void)
{
	daemon_start(&d, NULL);
}

static void stop(void)
{
	daemon_stop(&d);
}

TestSuite(ends, .init = start, .fini = stop, .timeout = 60);

#define G_EPOCH(g) (((g) & WSD_GATE_EPOCH_MASK) >> WSD_GATE_EPOCH_SHIFT)

struct live {
	struct proxy_client *pc[2];
	struct pair p;
	struct wsd_session *s;
	uint64_t id;
};

/* a session whose two gates are open, with something in each ring; cookies 1 and 2 */
static void live_make(struct live *l)
{
	struct proxy_msg m0, m1;
	unsigned i;

	l->pc[0] = proxy_client_new();
	l->pc[1] = proxy_client_new();
	l->p = pair_make(PAIR_V4);
	offer(l->pc[0], l->p.end[0], WSD_ROLE_CONNECT, 1);
	offer(l->pc[1], l->p.end[1], WSD_ROLE_ACCEPT, 2);
	m0 = expect_session(l->pc[0], 1);
	m1 = expect_session(l->pc[1], 2);
	l->s = map_session(&m0);
	close(m1.fd);
	l->id = m0.session_id;
	proxy_client_attached(l->pc[0], 1, l->id);
	proxy_client_attached(l->pc[1], 2, l->id);
	for (i = 0; i < 2; i++)
		atomic_store(&l->s->dir[i].gate, WSD_GATE_OPEN | WSD_GATE_ON_RING | 5 * WSD_GATE_EPOCH_ONE | 77);
}

static bool is_closed(struct live *l, unsigned dir)
{
	return !(atomic_load(&l->s->dir[dir].gate) & (WSD_GATE_OPEN | WSD_GATE_ON_RING));
}

static bool is_untouched(struct live *l, unsigned dir)
{
	return atomic_load(&l->s->dir[dir].gate) == (WSD_GATE_OPEN | WSD_GATE_ON_RING | 5 * WSD_GATE_EPOCH_ONE | 77);
}

Test(ends, closing_closes_the_gate_that_this_end_received_by)
{
	static struct live l;
	uint64_t g;

	live_make(&l);
	/* the accepting end: it receives direction 0 */
	proxy_client_withdraw(l.pc[1], 2, WSD_R_NONE, 77);
	close(l.p.end[1]);
	cr_assert(UNTIL(is_closed(&l, 0)), "the gate stays open over a closed socket");
	g = atomic_load(&l.s->dir[0].gate);
	cr_expect_gt(G_EPOCH(g), 5, "a put in progress would still succeed");
	cr_expect_eq(WSD_GATE_HEAD(g), 77, "the head moved");
	cr_expect_eq(atomic_load(&l.s->revoked), WSD_REVOKED | WSD_END_GONE(1), "whose bytes lie unread there is told");
	cr_expect(is_untouched(&l, 1), "the other direction was closed, too");
	cr_expect_eq(status_sessions(&d), 1);
	proxy_client_withdraw(l.pc[0], 1, WSD_R_NONE, 0);
	close(l.p.end[0]);
	cr_assert(UNTIL(status_sessions(&d) == 0), "the session outlives both sockets");
	cr_expect(is_closed(&l, 1));
	cr_expect_eq(status_ends(&d), 0);
}

Test(ends, a_withdrawal_before_the_close_is_believed_only_when_the_socket_is_gone)
{
	static struct live l;
	int kept, i;

	live_make(&l);
	kept = dup(l.p.end[1]);
	proxy_client_withdraw(l.pc[1], 2, WSD_R_NONE, 0);
	close(l.p.end[1]);
	/* several looks of the daemon later (1, 2, 4, ... ms) it is still held */
	for (i = 0; i < 60; i++) {
		cr_assert_eq(status_sessions(&d), 1);
		poll(NULL, 0, 1);
	}
	cr_expect(is_untouched(&l, 0));
	close(kept);
	cr_expect(UNTIL(is_closed(&l, 0)));
}

Test(ends, a_socket_closed_without_a_word_is_found_by_the_sweep)
{
	static struct live l;

	live_make(&l);
	close(l.p.end[1]);
	cr_expect(UNTIL(is_closed(&l, 0)));
	cr_expect(is_untouched(&l, 1));
}

/* a child of ours holds end 1, alone, with a connection to the daemon of its own */
static pid_t holder(struct live *l, int fork_again)
{
	struct proxy_msg m0;
	int go[2];
	pid_t pid;
	char c;

	cr_assert_eq(pipe(go), 0);
	l->p = pair_make(PAIR_V4);
	pid = fork();
	if (!pid) {
		struct proxy_client *pc = proxy_client_new();
		struct proxy_msg m;

		close(l->p.end[0]);
		offer(pc, l->p.end[1], WSD_ROLE_ACCEPT, 2);
		m = expect_session(pc, 2);
		proxy_client_attached(pc, 2, m.session_id);
		if (fork_again) {
			pid_t child = fork();

			if (!child) {
				proxy_client_after_fork(pc);
				for (;;)
					pause();
			}
			(void)!write(go[1], &child, sizeof(child));
		} else {
			(void)!write(go[1], "xxxx", 4);
		}
		for (;;)
			pause();
	}
	close(l->p.end[1]);
	l->pc[0] = proxy_client_new();
	offer(l->pc[0], l->p.end[0], WSD_ROLE_CONNECT, 1);
	m0 = expect_session(l->pc[0], 1);
	l->s = map_session(&m0);
	atomic_store(&l->s->dir[0].gate, WSD_GATE_OPEN | WSD_GATE_ON_RING | 5 * WSD_GATE_EPOCH_ONE | 77);
	atomic_store(&l->s->dir[1].gate, WSD_GATE_OPEN | WSD_GATE_ON_RING | 5 * WSD_GATE_EPOCH_ONE | 77);
	cr_assert_eq(read(go[0], fork_again ? (void *)&l->id : &c, fork_again ? 4 : 1), fork_again ? 4 : 1);
	close(go[0]);
	close(go[1]);
	return pid;
}

Test(ends, kill_9_closes_the_gate)
{
	static struct live l;
	pid_t pid = holder(&l, 0);

	kill(pid, SIGKILL);
	cr_expect(UNTIL(is_closed(&l, 0)));
	cr_expect(is_untouched(&l, 1), "what the dead one sent is taken away");
	waitpid(pid, NULL, 0);
}

Test(ends, kill_9_of_the_parent_leaves_the_session_to_the_child)
{
	static struct live l;
	pid_t pid = holder(&l, 1), child = (pid_t)l.id;
	int i;

	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	/* the daemon sees the death (its client is gone from the count), looks, and leaves it */
	cr_assert(UNTIL(({ struct status s; status_get(&d, &s); s.d.n_clients == 2; })));
	for (i = 0; i < 60; i++) {
		cr_assert(is_untouched(&l, 0), "the child's session was closed");
		poll(NULL, 0, 1);
	}
	cr_expect_eq(status_sessions(&d), 1);
	kill(child, SIGKILL);
	cr_expect(UNTIL(is_closed(&l, 0)));
}

Test(ends, a_reset_socket_that_is_held_keeps_its_gate)
{
	struct linger now = { 1, 0 };
	static struct live l;
	int i;

	live_make(&l);
	setsockopt(l.p.end[0], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	proxy_client_withdraw(l.pc[0], 1, WSD_R_NONE, 0);
	close(l.p.end[0]);
	/* the kernel has forgotten both sockets; end 1 is held and its holder says so */
	cr_assert(UNTIL(is_closed(&l, 1)));
	for (i = 0; i < 2500; i++) {	/* over a sweep */
		cr_assert(is_untouched(&l, 0));
		poll(NULL, 0, 1);
	}
	cr_expect_eq(status_sessions(&d), 1);
	close(l.p.end[1]);
	proxy_client_withdraw(l.pc[1], 2, WSD_R_NONE, 0);
	cr_expect(UNTIL(status_sessions(&d) == 0));
}

Test(ends, tcp_for_good_closes_both_gates_and_tells_the_peer)
{
	static struct live l;
	struct proxy_msg m;
	struct status s;

	live_make(&l);
	proxy_client_withdraw(l.pc[1], 2, WSD_R_OPTION, 0);
	m = message(l.pc[0]);
	cr_expect_eq(m.type, PROXY_MSG_REVOKED);
	cr_expect_eq(m.cookie, 1);
	cr_expect_eq(m.reason, WSD_R_OPTION);
	cr_expect(is_closed(&l, 0) && is_closed(&l, 1));
	cr_expect_eq(proxy_client_receive(l.pc[1], &m), 0, "who gave up is told");
	proxy_client_withdraw(l.pc[0], 1, WSD_R_OPTION, 0);
	cr_expect(UNTIL(status_sessions(&d) == 0), "charged though both gave it up");
	status_get(&d, &s);
	cr_expect_eq(s.n, 2);
	cr_expect_eq(s.conn[0].reason, WSD_R_OPTION);
	cr_expect_eq(s.d.bytes_mapped, 0);
	close(l.p.end[0]);
	close(l.p.end[1]);
	cr_expect(UNTIL(status_ends(&d) == 0));
}

Test(ends, a_hostile_gate_word_does_not_hold_the_daemon_up)
{
	static struct live l;
	pid_t pid;

	live_make(&l);
	pid = fork();
	if (!pid) {
		proxy_client_after_fork(l.pc[0]);
		close(l.p.end[0]);
		close(l.p.end[1]);
		for (;;)
			atomic_fetch_add(&l.s->dir[0].gate, 1);
	}
	proxy_client_withdraw(l.pc[1], 2, WSD_R_OPTION, 0);
	cr_expect(UNTIL(is_closed(&l, 1)));
	cr_expect(daemon_reachable(&d));
	cr_expect_eq(status_sessions(&d), 1);
	kill(pid, SIGKILL);
}

/* killed after each step of a connection's life; nothing stays and the daemon goes on */
Test(ends, kill_9_at_each_step_leaves_nothing)
{
	unsigned step;

	for (step = 0; step < 6; step++) {
		struct proxy_client *pc = proxy_client_new();
		struct pair p = pair_make(PAIR_V4);
		struct proxy_msg m = { .fd = -1 };
		int at[2];
		pid_t pid;
		char c;

		cr_assert_eq(pipe(at), 0);
		pid = fork();
		if (!pid) {
			struct proxy_client *mine;
			struct proxy_msg mm;

			close(p.end[0]);
			if (step == 1) {
				raw_connect(&d);
			} else if (step >= 2) {
				mine = proxy_client_new();
				cr_assert_eq(proxy_client_connect(mine), 0);
				if (step >= 3)
					offer(mine, p.end[1], WSD_ROLE_ACCEPT, 1);
				if (step >= 4)
					mm = expect_session(mine, 1);
				if (step >= 5)
					proxy_client_attached(mine, 1, mm.session_id);
			}
			(void)!write(at[1], "x", 1);
			for (;;)
				pause();
		}
		close(p.end[1]);
		if (step >= 4)
			offer(pc, p.end[0], WSD_ROLE_CONNECT, 9);
		cr_assert_eq(read(at[0], &c, 1), 1);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		if (step >= 4) {
			m = expect_session(pc, 9);
			close(m.fd);
			proxy_client_withdraw(pc, 9, WSD_R_NONE, 0);
		}
		close(p.end[0]);
		cr_assert(UNTIL(status_ends(&d) == 0), "step %u leaves a record", step);
		cr_assert_eq(status_sessions(&d), 0);
		proxy_client_free(pc);
		cr_assert(UNTIL(({ struct status s; status_get(&d, &s); s.d.n_clients == 1; })), "step %u", step);
		close(at[0]);
		close(at[1]);
	}
}
