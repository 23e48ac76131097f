/* SPDX-License-Identifier: MIT */
/* G22: another process of the same socket gets the session, and nobody else */
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
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

TestSuite(reattach, .init = start, .fini = stop, .timeout = 60);

static const struct wsd_side_at first_side = { .ipc_ns = 11, .shm = 22, .index = 33 };
static const struct wsd_side_at other_side = { .ipc_ns = 11, .shm = 44, .index = 55 };

struct live {
	struct proxy_client *pc[2];
	struct pair p;
	struct wsd_session *s;
	uint64_t id;
};

/* a session; end 1 has said where its side lies. Cookies 1 and 2 */
static void live_make(struct live *l)
{
	struct proxy_msg m0, m1;

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
	cr_assert_eq(proxy_client_side(l->pc[1], 2, l->id, &first_side), 0);
}

/* a client that has been welcomed */
static struct proxy_client *client_up(void)
{
	struct proxy_client *pc = proxy_client_new();
	struct proxy_msg m;

	cr_assert_eq(proxy_client_connect(pc), 0);
	cr_assert(UNTIL(proxy_client_receive(pc, &m) == 0 && proxy_client_notify_word(pc)));
	return pc;
}

static void ask(struct proxy_client *pc, int fd, uint64_t cookie, uint64_t over, const struct wsd_side_at *claim)
{
	cr_assert_eq(proxy_client_reattach(pc, fd, sock_cookie(fd), cookie, over, claim), 0);
}

static struct proxy_msg expect_reattached(struct proxy_client *pc, uint64_t cookie)
{
	struct proxy_msg m = message(pc);

	cr_assert_eq(m.type, PROXY_MSG_REATTACHED, "message %d, reason %u", m.type, m.reason);
	cr_assert_eq(m.cookie, cookie);
	return m;
}

static bool same(const struct wsd_side_at *a, const struct wsd_side_at *b)
{
	return a->ipc_ns == b->ipc_ns && a->shm == b->shm && a->index == b->index;
}

Test(reattach, a_holder_gets_the_same_memory_its_side_and_the_place)
{
	static struct live l;
	struct proxy_client *pc;
	struct wsd_session *s;
	struct proxy_msg m;

	live_make(&l);
	pc = client_up();
	ask(pc, l.p.end[1], 7, 0, NULL);
	m = expect_reattached(pc, 7);
	cr_expect_eq(m.session_id, l.id);
	cr_expect_eq(m.side, 1);
	cr_expect(same(&m.at, &first_side));
	cr_expect_neq(m.at.serial, 0);
	s = map_session(&m);
	atomic_store(&l.s->dir[0].start, 4711);
	cr_expect_eq(atomic_load(&s->dir[0].start), 4711, "another memory");
}

Test(reattach, the_session_lives_while_anybody_holds_the_socket)
{
	static struct live l;
	struct proxy_client *pc;
	struct proxy_msg m;
	int kept, i;

	live_make(&l);
	kept = dup(l.p.end[1]);
	pc = client_up();
	ask(pc, kept, 7, 0, NULL);
	m = expect_reattached(pc, 7);
	close(m.fd);
	/* who was the owner goes, with and without a word */
	proxy_client_withdraw(l.pc[1], 2, WSD_R_NONE, 0);
	proxy_client_free(l.pc[1]);
	close(l.p.end[1]);
	for (i = 0; i < 60; i++) {
		cr_assert_eq(status_sessions(&d), 1);
		cr_assert_eq(atomic_load(&l.s->revoked), 0, "closed under a holder");
		poll(NULL, 0, 1);
	}
	proxy_client_withdraw(pc, 7, WSD_R_NONE, 0);
	close(kept);
	cr_expect(UNTIL(atomic_load(&l.s->revoked) != 0), "nobody holds it, and its gate stays");
}

Test(reattach, the_new_owner_goes_and_the_old_one_stays)
{
	static struct live l;
	struct proxy_client *pc;
	struct proxy_msg m;
	int i;

	live_make(&l);
	pc = client_up();
	ask(pc, l.p.end[1], 7, 0, NULL);
	m = expect_reattached(pc, 7);
	close(m.fd);
	proxy_client_withdraw(pc, 7, WSD_R_NONE, 0);
	proxy_client_free(pc);
	for (i = 0; i < 60; i++) {
		cr_assert_eq(atomic_load(&l.s->revoked), 0);
		poll(NULL, 0, 1);
	}
	/* and it may ask as well */
	ask(l.pc[1], l.p.end[1], 9, 0, NULL);
	m = expect_reattached(l.pc[1], 9);
	close(m.fd);
	cr_expect_eq(status_sessions(&d), 1);
}

Test(reattach, of_two_that_claim_the_place_of_a_dead_side_one_wins)
{
	static struct live l;
	struct wsd_side_at mine[2] = { other_side, other_side };
	struct proxy_client *pc[2];
	struct proxy_msg m[2];
	unsigned i;

	live_make(&l);
	mine[1].index = 99;
	for (i = 0; i < 2; i++) {
		pc[i] = client_up();
		ask(pc[i], l.p.end[1], 7, 0, NULL);
		m[i] = expect_reattached(pc[i], 7);
		close(m[i].fd);
	}
	cr_assert_eq(m[0].at.serial, m[1].at.serial);
	for (i = 0; i < 2; i++) {
		ask(pc[i], l.p.end[1], 7, m[i].at.serial, &mine[i]);
		m[i] = expect_reattached(pc[i], 7);
		close(m[i].fd);
		cr_expect(same(&m[i].at, &mine[0]), "claimant %u was told another place", i);
	}
}

Test(reattach, what_the_owner_said_last_is_heard_first)
{
	unsigned round;

	/* SIDE and REATTACH wait in two sockets; the daemon may come to either first */
	for (round = 0; round < 50; round++) {
		struct proxy_client *pc = client_up();
		struct proxy_msg m;
		struct live l;

		live_make(&l);
		ask(pc, l.p.end[1], 7, 0, NULL);
		m = expect_reattached(pc, 7);
		cr_assert(same(&m.at, &first_side));
		close(m.fd);
		proxy_client_free(pc);
		proxy_client_free(l.pc[0]);
		proxy_client_free(l.pc[1]);
		close(l.p.end[0]);
		close(l.p.end[1]);
		munmap(l.s, l.s->length);
	}
}

Test(reattach, without_a_session_there_is_nothing)
{
	struct proxy_client *pc = client_up(), *owner = client_up();
	struct pair p = pair_make(PAIR_V4);
	static struct live l;
	struct proxy_msg m;

	ask(pc, p.end[0], 7, 0, NULL);
	expect_refused(pc, 7, WSD_R_NOT_YET);
	/* offered, and waiting for its peer */
	offer(owner, p.end[0], WSD_ROLE_CONNECT, 3);
	cr_assert(UNTIL(status_ends(&d) == 1));
	ask(pc, p.end[0], 7, 0, NULL);
	expect_refused(pc, 7, WSD_R_NOT_YET);
	/* one side has not said that it attached */
	live_make(&l);
	ask(pc, l.p.end[0], 8, 0, NULL);
	expect_refused(pc, 8, WSD_R_NOT_YET);
	/* given up by both: nothing went through it that is unread */
	proxy_client_withdraw(l.pc[0], 1, WSD_R_OPTION, 0);
	proxy_client_withdraw(l.pc[1], 2, WSD_R_OPTION, 0);
	cr_assert(UNTIL(status_sessions(&d) == 0));
	ask(pc, l.p.end[1], 8, 0, NULL);
	m = message(pc);
	cr_expect_eq(m.type, PROXY_MSG_REFUSED);
}

Test(reattach, a_revoked_session_is_handed_out_for_what_is_unread)
{
	static struct live l;
	struct proxy_client *pc = client_up();
	struct wsd_session *s;
	struct proxy_msg m;

	live_make(&l);
	proxy_client_withdraw(l.pc[0], 1, WSD_R_OPTION, 0);
	m = message(l.pc[1]);
	cr_assert_eq(m.type, PROXY_MSG_REVOKED);
	ask(pc, l.p.end[1], 7, 0, NULL);
	m = expect_reattached(pc, 7);
	s = map_session(&m);
	cr_expect_neq(atomic_load(&s->revoked), 0);
}

Test(reattach, behind_a_fin_it_still_is_handed_out)
{
	static struct live l;
	struct proxy_client *pc = client_up();
	struct proxy_msg m;

	live_make(&l);
	shutdown(l.p.end[0], SHUT_WR);
	ask(pc, l.p.end[1], 7, 0, NULL);
	m = expect_reattached(pc, 7);
	close(m.fd);
}

/* ---- what must not work ---- */

Test(reattach, who_does_not_hold_the_socket_gets_nothing)
{
	static struct live l;
	struct pair other = pair_make(PAIR_V4);
	struct proxy_client *pc = client_up();
	struct wsd_msg_reattach m = { .hdr = { sizeof(m), WSD_PROXY_VERSION, WSD_MSG_REATTACH, 7 } };
	struct wsd_msg_refused a;
	pid_t pid;
	int raw, st;

	live_make(&l);
	/* another socket of ours under the cookie of that one */
	cr_assert_eq(proxy_client_reattach(pc, other.end[1], sock_cookie(l.p.end[1]), 7, 0, NULL), 0);
	expect_refused(pc, 7, WSD_R_NOT_TCP);
	/* the right socket under a wrong cookie */
	cr_assert_eq(proxy_client_reattach(pc, l.p.end[1], sock_cookie(l.p.end[1]) + 1000, 7, 0, NULL), 0);
	expect_refused(pc, 7, WSD_R_NOT_TCP);
	/* all words right, and another process's descriptor */
	pid = fork();
	if (!pid) {
		close(l.p.end[1]);
		raw = raw_connect(&d);
		cr_assert(raw_hello(raw));
		m.fd = other.end[1];
		m.sock_cookie = sock_cookie(l.p.end[0]) + 1;
		for (uint64_t k = 0; k < 8; k++) {	/* the neighbours of a cookie that it knows */
			uint16_t port[2];
			struct sockaddr_storage ss;
			socklen_t len = sizeof(ss);

			getpeername(l.p.end[0], (struct sockaddr *)&ss, &len);
			memcpy(&port[0], (char *)&ss + 2, 2);
			len = sizeof(ss);
			getsockname(l.p.end[0], (struct sockaddr *)&ss, &len);
			memcpy(&port[1], (char *)&ss + 2, 2);
			m.local = (struct wsd_addr){ .family = AF_INET, .port = __builtin_bswap16(port[0]), .ip = { 127, 0, 0, 1 } };
			m.remote = (struct wsd_addr){ .family = AF_INET, .port = __builtin_bswap16(port[1]), .ip = { 127, 0, 0, 1 } };
			m.sock_cookie = sock_cookie(l.p.end[0]) + k;
			if (!raw_send(raw, &m, sizeof(m)) || raw_receive(raw, &a, sizeof(a)) != sizeof(a) ||
			    a.hdr.type != WSD_MSG_REFUSED)
				_exit(1);
		}
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &st, 0), pid);
	cr_expect_eq(st, 0, "a process without the socket got its session");
	cr_expect_eq(status_sessions(&d), 1);
}

Test(reattach, another_network_namespace_gets_nothing)
{
	static struct live l;
	pid_t pid;
	int st;

	live_make(&l);
	pid = fork();
	if (!pid) {
		struct proxy_client *pc;
		struct proxy_msg m = { .fd = -1 };

		if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 && unshare(CLONE_NEWNET) < 0)
			_exit(0);
		pc = client_up();
		ask(pc, l.p.end[1], 7, 0, NULL);
		m = message(pc);
		_exit(m.type == PROXY_MSG_REFUSED ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &st, 0), pid);
	cr_expect_eq(st, 0);
}

/* the rings show what was read before the socket was handed on */
Test(reattach, another_user_gets_nothing_though_it_holds_the_socket)
{
	static struct live l;
	pid_t pid;
	int st;

	if (getuid() != 0)
		cr_skip_test("needs root");
	cr_assert_eq(chmod(d.dir, 0755), 0);
	cr_assert_eq(chmod(d.path, 0666), 0);
	live_make(&l);
	pid = fork();
	if (!pid) {
		struct proxy_client *pc;
		struct proxy_msg a = { .fd = -1 };

		if (setgid(65534) || setuid(65534))
			_exit(2);
		pc = client_up();
		ask(pc, l.p.end[1], 7, 0, NULL);
		a = message(pc);
		_exit(a.type == PROXY_MSG_REFUSED && (a.reason == WSD_R_NOT_OWNER || a.reason == WSD_R_NO_PROC) ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &st, 0), pid);
	cr_expect_eq(st, 0);
}

Test(reattach, only_the_owner_says_where_the_side_lies_and_once)
{
	static struct live l;
	struct proxy_client *pc = client_up();
	struct proxy_msg m;

	live_make(&l);
	proxy_client_side(l.pc[1], 2, l.id, &other_side);
	proxy_client_side(l.pc[0], 2, l.id, &other_side);
	proxy_client_side(pc, 2, l.id, &other_side);
	ask(pc, l.p.end[1], 7, 0, NULL);
	m = expect_reattached(pc, 7);
	close(m.fd);
	cr_expect(same(&m.at, &first_side));
}

Test(reattach, cookies_in_use_and_impossible_sides_end_the_connection)
{
	static struct live l;
	struct wsd_msg_reattach m = { .hdr = { sizeof(m), WSD_PROXY_VERSION, WSD_MSG_REATTACH, 7 },
				      .fd = 1, .sock_cookie = 1, .local.family = AF_INET, .remote.family = AF_INET };
	struct wsd_msg_reattach bad[5];
	struct proxy_client *pc = client_up();
	struct pair p = pair_make(PAIR_V4);
	struct wsd_msg_refused a;
	struct proxy_msg r;
	unsigned i;

	live_make(&l);
	offer(pc, p.end[0], WSD_ROLE_CONNECT, 5);
	ask(pc, l.p.end[1], 5, 0, NULL);
	r = message(pc);
	cr_expect_eq(r.type, PROXY_MSG_REFUSED);
	cr_expect_eq(r.reason, WSD_R_PEER_BROKEN);
	for (i = 0; i < 5; i++)
		bad[i] = m;
	bad[0].flags = 1;
	bad[1].claim.serial = 1;
	bad[2].claim.shm = -2;
	bad[3].fd = -1;
	bad[4].claim = (struct wsd_side_at){ .ipc_ns = 1, .shm = -1 };
	for (i = 0; i < 5; i++) {
		int raw = raw_connect(&d);

		cr_assert(raw_hello(raw));
		cr_assert(raw_send(raw, &bad[i], sizeof(m)));
		cr_assert_eq(raw_receive(raw, &a, sizeof(a)), sizeof(a));
		cr_expect_eq(a.hdr.type, WSD_MSG_ERROR, "%u", i);
		close(raw);
	}
	cr_expect_eq(status_sessions(&d), 1);
}

Test(reattach, asking_without_end_costs_nothing_that_stays)
{
	static struct live l;
	struct proxy_client *pc = client_up();
	struct proxy_msg m;
	unsigned i;

	live_make(&l);
	for (i = 0; i < 3000; i++) {
		ask(pc, l.p.end[1], 100 + i % 3, 0, NULL);
		m = expect_reattached(pc, 100 + i % 3);
		close(m.fd);
	}
	cr_expect_eq(status_ends(&d), 2);
	proxy_client_free(pc);
	cr_expect_eq(status_sessions(&d), 1);
	cr_expect(daemon_reachable(&d));
}
