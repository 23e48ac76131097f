/* SPDX-License-Identifier: MIT */
/* quotas, start, unload, death and return of the daemon */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/proxy/fixture.h"

TestSuite(life, .timeout = 60);

static void start_with(struct daemon *d, const char *a, const char *b)
{
	const char *opt[] = { a, b, NULL };

	daemon_start(d, opt);
}

static struct proxy_msg offer_both(struct proxy_client *pc, const struct pair *p, uint64_t cookie)
{
	struct proxy_msg m1, m2;

	offer(pc, p->end[0], WSD_ROLE_CONNECT, cookie);
	offer(pc, p->end[1], WSD_ROLE_ACCEPT, cookie + 1);
	m1 = message(pc);
	m2 = message(pc);
	cr_assert_eq(m1.type, m2.type);
	if (m2.fd >= 0)
		close(m2.fd);
	return m1;
}

Test(life, quota_of_sessions_is_given_back)
{
	struct proxy_client *pc;
	struct daemon d = { 0 };
	struct pair p[3];
	struct proxy_msg m;
	unsigned i;

	start_with(&d, "--quota-sessions=2", NULL);
	pc = proxy_client_new();
	for (i = 0; i < 3; i++) {
		p[i] = pair_make(PAIR_V4);
		m = offer_both(pc, &p[i], 10 * i + 1);
		cr_assert_eq(m.type, i < 2 ? PROXY_MSG_SESSION : PROXY_MSG_REFUSED);
		if (i == 2)
			cr_expect_eq(m.reason, WSD_R_QUOTA_SESSIONS);
	}
	proxy_client_withdraw(pc, 1, WSD_R_NONE, 0);
	proxy_client_withdraw(pc, 2, WSD_R_NONE, 0);
	close(p[0].end[0]);
	close(p[0].end[1]);
	cr_assert(UNTIL(status_sessions(&d) == 1));
	m = offer_both(pc, &p[2], 101);
	cr_expect_eq(m.type, PROXY_MSG_SESSION, "reason %u", m.reason);
	proxy_client_free(pc);
	daemon_stop(&d);
}

Test(life, quota_of_bytes)
{
	struct proxy_client *pc;
	struct daemon d = { 0 };
	struct pair p = pair_make(PAIR_V4), q = pair_make(PAIR_V4);
	struct proxy_msg m;

	start_with(&d, "--quota-bytes=200k", "--ring-size=64k");
	pc = proxy_client_new();
	m = offer_both(pc, &p, 1);
	cr_expect_eq(m.type, PROXY_MSG_SESSION);
	cr_expect_eq(m.ring_size, 64u << 10);
	m = offer_both(pc, &q, 11);
	cr_expect_eq(m.type, PROXY_MSG_REFUSED);
	cr_expect_eq(m.reason, WSD_R_QUOTA_BYTES);
	proxy_client_free(pc);
	daemon_stop(&d);
}

Test(life, unload_waits_for_what_is_in_use)
{
	struct wsd_msg_plain u = { .hdr = { sizeof(u), WSD_PROXY_VERSION, WSD_MSG_UNLOAD, 0 } }, end;
	struct proxy_client *pc;
	struct daemon d = { 0 };
	struct pair p = pair_make(PAIR_V4), q = pair_make(PAIR_V4);
	struct proxy_msg m;
	struct status s;
	int raw;

	daemon_start(&d, NULL);
	pc = proxy_client_new();
	m = offer_both(pc, &p, 1);
	cr_assert_eq(m.type, PROXY_MSG_SESSION);
	offer(pc, q.end[0], WSD_ROLE_CONNECT, 11);
	cr_assert(UNTIL(status_ends(&d) == 3));
	raw = raw_connect(&d);
	cr_assert(raw_send(raw, &u, sizeof(u)));
	/* what waited will not be paired any more */
	expect_refused(pc, 11, WSD_R_UNLOADING);
	offer(pc, q.end[1], WSD_ROLE_ACCEPT, 12);
	expect_refused(pc, 12, WSD_R_UNLOADING);
	status_get(&d, &s);
	cr_expect_eq(s.d.n_sessions, 1);
	cr_expect_eq(s.d.unloading, 1);
	cr_expect_eq(s.conn[0].transport, WSD_TRANSPORT_SHM);
	proxy_client_withdraw(pc, 1, WSD_R_NONE, 0);
	proxy_client_withdraw(pc, 2, WSD_R_NONE, 0);
	close(p.end[0]);
	close(p.end[1]);
	cr_expect_eq(raw_receive(raw, &end, sizeof(end)), sizeof(end));
	cr_expect_eq(end.hdr.type, WSD_MSG_STATUS_END);
	cr_expect_eq(daemon_wait(&d), 0);
	cr_expect_eq(access(d.path, F_OK), -1);
	proxy_client_free(pc);
	close(raw);
}

static void revoked_by(bool by_signal)
{
	struct wsd_msg_plain u = { .hdr = { sizeof(u), WSD_PROXY_VERSION, WSD_MSG_UNLOAD, 0 }, .flags = WSD_UNLOAD_REVOKE };
	struct proxy_client *pc;
	struct wsd_session *s;
	struct daemon d = { 0 };
	struct pair p = pair_make(PAIR_V4);
	struct proxy_msg m;
	const _Atomic uint32_t *word;
	uint32_t seen;

	daemon_start(&d, NULL);
	pc = proxy_client_new();
	m = offer_both(pc, &p, 1);
	cr_assert_eq(m.type, PROXY_MSG_SESSION);
	s = map_session(&m);
	atomic_store(&s->dir[0].gate, WSD_GATE_OPEN | 3);
	atomic_store(&s->dir[1].gate, WSD_GATE_OPEN | WSD_GATE_ON_RING | 3);
	while (proxy_client_receive(pc, &m))
		;
	cr_assert_not(proxy_client_pending(pc));
	word = proxy_client_notify_word(pc);
	seen = *word;
	if (by_signal)
		daemon_signal(&d, SIGTERM);
	else
		cr_assert(raw_send(raw_connect(&d), &u, sizeof(u)));
	cr_expect_eq(daemon_wait(&d), 0);
	cr_expect_eq(s->revoked, WSD_REVOKED, "somebody holds both sockets");
	cr_expect_eq(s->dir[0].gate & (WSD_GATE_OPEN | WSD_GATE_ON_RING), 0);
	cr_expect_eq(s->dir[1].gate & (WSD_GATE_OPEN | WSD_GATE_ON_RING), 0);
	cr_expect_eq(WSD_GATE_HEAD(s->dir[0].gate), 3);
	cr_expect_neq(*word, seen);
	cr_expect(proxy_client_pending(pc));
	m = message(pc);
	cr_expect_eq(m.type, PROXY_MSG_REVOKED);
	cr_expect_eq(m.reason, WSD_R_UNLOADING);
	m = message(pc);
	cr_expect_eq(m.type, PROXY_MSG_REVOKED);
	cr_expect_eq(proxy_client_receive(pc, &m), 0);
	cr_expect_eq(proxy_client_reason(pc), WSD_R_NO_DAEMON);
	/* the connection itself lives on */
	cr_expect_eq(send(p.end[0], "x", 1, 0), 1);
	proxy_client_free(pc);
}

Test(life, unload_revokes_what_is_in_use) { revoked_by(false); }
Test(life, sigterm_revokes_what_is_in_use) { revoked_by(true); }

Test(life, a_daemon_killed_takes_nothing_with_it_and_its_successor_serves)
{
	struct proxy_client *pc;
	struct wsd_session *s;
	struct daemon d = { 0 };
	struct pair p = pair_make(PAIR_V4), q = pair_make(PAIR_V4);
	struct proxy_msg m;

	daemon_start(&d, NULL);
	pc = proxy_client_new();
	m = offer_both(pc, &p, 1);
	s = map_session(&m);
	offer(pc, q.end[0], WSD_ROLE_CONNECT, 11);
	cr_assert(UNTIL(status_ends(&d) == 3));
	daemon_signal(&d, SIGKILL);
	daemon_wait(&d);
	cr_expect_eq(s->revoked, 0, "sessions go on");
	expect_refused(pc, 11, WSD_R_NO_DAEMON);
	cr_expect_eq(proxy_client_notify_word(pc), NULL);
	cr_expect_eq(access(d.path, F_OK), 0, "this test needs a stale socket");
	cr_expect_eq(proxy_client_offer(pc, q.end[0], WSD_ROLE_CONNECT, sock_cookie(q.end[0]), 12, 0), PROXY_CLIENT_E_DOWN);
	daemon_start(&d, NULL);
	cr_assert(UNTIL(proxy_client_connect(pc) == 0), "no second try");
	m = offer_both(pc, &q, 13);
	cr_expect_eq(m.type, PROXY_MSG_SESSION, "reason %u", m.reason);
	proxy_client_free(pc);
	daemon_stop(&d);
}

Test(life, only_one_daemon_has_a_path)
{
	struct daemon d = { 0 }, e;

	daemon_start(&d, NULL);
	e = d;
	e.pid = fork();
	if (!e.pid) {
		execl(WSD_PROXYD, WSD_PROXYD, "--socket", d.path, NULL);
		_exit(127);
	}
	cr_expect_eq(daemon_wait(&e), 3);
	cr_expect(daemon_reachable(&d), "the second one removed the first one's socket");
	daemon_stop(&d);
}

Test(life, a_file_in_its_place_is_not_removed)
{
	struct daemon d = { .dir = "/tmp/wsd-proxy-test-XXXXXX" };
	int fd;

	cr_assert_not_null(mkdtemp(d.dir));
	snprintf(d.path, sizeof(d.path), "%s/proxyd.sock", d.dir);
	fd = open(d.path, O_CREAT | O_WRONLY, 0600);
	cr_assert_geq(fd, 0);
	d.pid = fork();
	if (!d.pid) {
		execl(WSD_PROXYD, WSD_PROXYD, "--socket", d.path, NULL);
		_exit(127);
	}
	cr_expect_eq(daemon_wait(&d), 1);
	cr_expect_eq(access(d.path, F_OK), 0);
	unlink(d.path);
	chmod(d.dir, 0777);
	d.pid = fork();
	if (!d.pid) {
		execl(WSD_PROXYD, WSD_PROXYD, "--socket", d.path, NULL);
		_exit(127);
	}
	cr_expect_eq(daemon_wait(&d), 1, "it listens where everybody may write");
}

Test(life, a_private_daemon_leaves_when_nobody_needs_it)
{
	const char *opt[] = { "--private", "--idle-exit=1", NULL };
	struct proxy_client *pc;
	struct daemon d = { 0 };
	struct stat st;
	int i;

	daemon_start(&d, opt);
	pc = proxy_client_new();
	cr_assert_eq(proxy_client_connect(pc), 0);
	cr_assert_eq(stat(d.path, &st), 0);
	cr_expect_eq(st.st_mode & 0777, 0600);
	for (i = 0; i < 1500; i++) {	/* longer than its patience */
		cr_assert_eq(waitpid(d.pid, NULL, WNOHANG), 0, "it left a client alone");
		poll(NULL, 0, 1);
	}
	proxy_client_free(pc);
	cr_expect_eq(daemon_wait(&d), 0);
	cr_expect_eq(access(d.path, F_OK), -1);
}

Test(life, options_of_a_file_and_of_the_line)
{
	char conf[] = "/tmp/wsd-proxyd-conf-XXXXXX", opt[64];
	struct daemon d = { 0 };
	struct status s;
	int fd = mkstemp(conf);

	dprintf(fd, "[proxyd]\nquota-sessions = 7\nquota-bytes = 3M\n");
	snprintf(opt, sizeof(opt), "--config=%s", conf);
	start_with(&d, "--quota-sessions=9", opt);
	status_get(&d, &s);
	cr_expect_eq(s.d.quota_sessions, 9);
	cr_expect_eq(s.d.quota_bytes, 3u << 20);
	daemon_stop(&d);
	cr_assert_eq(ftruncate(fd, 0), 0);
	lseek(fd, 0, SEEK_SET);
	dprintf(fd, "[proxyd]\nquota = 7\n");
	d.pid = fork();
	if (!d.pid) {
		execl(WSD_PROXYD, WSD_PROXYD, "--socket=/tmp/wsd-never/s", opt, NULL);
		_exit(127);
	}
	cr_expect_eq(daemon_wait(&d), 1, "an unknown key is passed over");
	unlink(conf);
}

/* the process that is asked about is another one when a forked child speaks */
Test(life, a_forked_child_gets_its_own_connection)
{
	struct daemon d = { 0 };
	struct proxy_client *pc;
	struct pair p = pair_make(PAIR_V4);
	struct proxy_msg m;
	int st;
	pid_t pid;

	daemon_start(&d, NULL);
	pc = proxy_client_new();
	offer(pc, p.end[0], WSD_ROLE_CONNECT, 1);
	cr_assert(UNTIL(status_ends(&d) == 1));
	pid = fork();
	if (!pid) {
		int fd = proxy_client_fd(pc);

		proxy_client_after_fork(pc);
		cr_assert_eq(fcntl(fd, F_GETFD), -1, "the inherited descriptor stays open");
		offer(pc, p.end[1], WSD_ROLE_ACCEPT, 1);
		m = expect_session(pc, 1);
		_exit(0);
	}
	m = expect_session(pc, 1);
	waitpid(pid, &st, 0);
	cr_expect(WIFEXITED(st) && WEXITSTATUS(st) == 0);
	/* the parent's connection is not hurt */
	cr_expect_eq(proxy_client_attached(pc, 1, m.session_id), 0);
	proxy_client_free(pc);
	daemon_stop(&d);
}

static unsigned drain(struct proxy_client *pc[2])
{
	struct proxy_msg m;
	unsigned i, n = 0;

	for (i = 0; i < 2; i++)
		while (proxy_client_receive(pc[i], &m) == 1) {
			cr_assert_eq(m.type, PROXY_MSG_SESSION, "reason %u", m.reason);
			close(m.fd);
			n++;
		}
	return n;
}

/* a thousand connections at once: all get theirs, and nothing is left of them */
Test(life, many_sessions)
{
	enum { N = 1000 };
	static struct pair p[N];
	struct proxy_client *pc[2];
	struct daemon d = { 0 };
	unsigned i, got = 0;

	start_with(&d, "--quota-bytes=2G", NULL);
	pc[0] = proxy_client_new();
	pc[1] = proxy_client_new();
	for (i = 0; i < N; i++) {
		p[i] = pair_make(PAIR_V4);
		cr_assert(UNTIL(proxy_client_offer(pc[0], p[i].end[0], WSD_ROLE_CONNECT, sock_cookie(p[i].end[0]), i + 1, 0) == 0));
		cr_assert(UNTIL(proxy_client_offer(pc[1], p[i].end[1], WSD_ROLE_ACCEPT, sock_cookie(p[i].end[1]), i + 1, 0) == 0));
		if (i % 300 == 299)	/* more than the sockets hold: the daemon queues */
			got += drain(pc);
	}
	cr_assert(UNTIL((got += drain(pc)) == 2 * N), "%u of %u", got, 2 * N);
	cr_expect_eq(status_sessions(&d), N);
	for (i = 0; i < N; i++) {
		while (proxy_client_withdraw(pc[0], i + 1, WSD_R_NONE, 0) == PROXY_CLIENT_E_BUSY)
			poll(NULL, 0, 1);
		while (proxy_client_withdraw(pc[1], i + 1, WSD_R_NONE, 0) == PROXY_CLIENT_E_BUSY)
			poll(NULL, 0, 1);
		close(p[i].end[0]);
		close(p[i].end[1]);
	}
	cr_expect(UNTIL(status_sessions(&d) == 0));
	cr_expect(UNTIL(status_ends(&d) == 0));
	proxy_client_free(pc[0]);
	proxy_client_free(pc[1]);
	daemon_stop(&d);
}
