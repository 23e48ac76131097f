/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

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

TestSuite(pairing, .init = start, .fini = stop, .timeout = 60);

static void pairs(enum pair_kind kind)
{
	struct proxy_client *a = proxy_client_new(), *b = proxy_client_new();
	struct pair p = pair_make(kind);
	struct proxy_msg ma, mb;
	struct wsd_session *sa, *sb;

	/* bytes that went both ways before, some of them not read yet */
	cr_assert_eq(send(p.end[0], "hello", 5, 0), 5);
	cr_assert_eq(send(p.end[1], "good day", 8, 0), 8);
	offer(a, p.end[0], WSD_ROLE_CONNECT, 7);
	offer(b, p.end[1], WSD_ROLE_ACCEPT, 8);
	ma = expect_session(a, 7);
	mb = expect_session(b, 8);
	cr_expect_eq(ma.side, 0);
	cr_expect_eq(mb.side, 1);
	cr_expect_eq(ma.session_id, mb.session_id);
	cr_expect_eq(ma.length, wsd_session_length(WSD_RING_DEFAULT));
	cr_expect_eq(fcntl(ma.fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
		     F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	cr_expect_neq(fcntl(ma.fd, F_GETFD) & FD_CLOEXEC, 0);
	cr_expect_eq(ftruncate(ma.fd, 0), -1, "the memory can be cut off");
	sa = map_session(&ma);
	sb = map_session(&mb);
	cr_expect_eq(sa->magic, WSD_SESSION_MAGIC);
	cr_expect_eq(sa->version, WSD_SESSION_VERSION);
	cr_expect_eq(sa->session_id, ma.session_id);
	cr_expect_eq(sa->ring_size, ma.ring_size);
	cr_expect_eq(sa->revoked, 0);
	((char *)sa)[WSD_SESSION_HDR] = 42;
	cr_expect_eq(((char *)sb)[WSD_SESSION_HDR], 42, "two memories");
	proxy_client_free(a);
	proxy_client_free(b);
}

Test(pairing, v4_ends_get_one_memory) { pairs(PAIR_V4); }
Test(pairing, v6_ends_get_one_memory) { pairs(PAIR_V6); }
Test(pairing, mapped_ends_get_one_memory) { pairs(PAIR_MAPPED); }
Test(pairing, v4_client_of_a_v6_server_gets_one_memory) { pairs(PAIR_MAPPED_SERVER); }

Test(pairing, both_ends_in_one_process_over_one_connection)
{
	struct proxy_client *pc = proxy_client_new();
	struct pair p = pair_make(PAIR_V4);
	struct proxy_msg m1, m2;

	offer(pc, p.end[1], WSD_ROLE_ACCEPT, 1);
	offer(pc, p.end[0], WSD_ROLE_CONNECT, 2);
	m1 = message(pc);
	m2 = message(pc);
	cr_expect_eq(m1.type, PROXY_MSG_SESSION);
	cr_expect_eq(m2.type, PROXY_MSG_SESSION);
	cr_expect_eq(m1.session_id, m2.session_id);
	cr_expect_eq(m1.side + m2.side, 1);
	proxy_client_free(pc);
}

Test(pairing, two_connections_do_not_meet)
{
	struct proxy_client *pc = proxy_client_new();
	struct pair p = pair_make(PAIR_V4), q = pair_make(PAIR_V4);
	struct proxy_msg m;

	offer(pc, p.end[0], WSD_ROLE_CONNECT, 1);
	offer(pc, q.end[1], WSD_ROLE_ACCEPT, 2);
	cr_assert(UNTIL(status_ends(&d) == 2));
	cr_expect_eq(proxy_client_receive(pc, &m), 0);
	cr_expect_eq(status_sessions(&d), 0);
	proxy_client_free(pc);
}

Test(pairing, while_traffic_flows_counters_still_agree)
{
	struct proxy_client *pc = proxy_client_new();
	pid_t pid;
	int i;

	for (i = 0; i < 20; i++) {
		struct pair p = pair_make(PAIR_V4);
		struct proxy_msg m1, m2;
		uint64_t moved = 0;

		pid = fork();
		if (!pid) {
			char buf[4096] = { 0 };
			/* both directions at once, never stopping */
			fcntl(p.end[0], F_SETFL, O_NONBLOCK);
			fcntl(p.end[1], F_SETFL, O_NONBLOCK);
			for (;;) {
				(void)!write(p.end[0], buf, sizeof(buf));
				(void)!write(p.end[1], buf, 100);
				(void)!read(p.end[0], buf, sizeof(buf));
				(void)!read(p.end[1], buf, sizeof(buf));
			}
		}
		cr_assert(UNTIL(({
			struct tcp_info ti;
			socklen_t len = sizeof(ti);
			getsockopt(p.end[1], IPPROTO_TCP, TCP_INFO, &ti, &len);
			moved = ti.tcpi_unacked + ti.tcpi_last_data_recv + 1;
			ti.tcpi_rcv_space > 0 && moved;
		})));
		offer(pc, p.end[0], WSD_ROLE_CONNECT, 2 * i + 1);
		offer(pc, p.end[1], WSD_ROLE_ACCEPT, 2 * i + 2);
		m1 = message(pc);
		m2 = message(pc);
		cr_assert_eq(m1.type, PROXY_MSG_SESSION, "reason %u in round %d", m1.reason, i);
		cr_assert_eq(m2.type, PROXY_MSG_SESSION);
		close(m1.fd);
		close(m2.fd);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		close(p.end[0]);
		close(p.end[1]);
	}
	proxy_client_free(pc);
}

Test(pairing, the_wrong_claims_are_refused)
{
	struct proxy_client *pc = proxy_client_new();
	struct pair p = pair_make(PAIR_V4), q = pair_make(PAIR_V4);
	int udp = socket(AF_INET, SOCK_DGRAM, 0), file = open("/dev/null", O_RDONLY);
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int pipes[2];

	(void)file;
	cr_assert_eq(connect(udp, (struct sockaddr *)&sin, sizeof(sin)), 0);
	cr_assert_eq(pipe(pipes), 0);
	/* UDP */
	offer(pc, udp, WSD_ROLE_CONNECT, 1);
	expect_refused(pc, 1, WSD_R_NOT_TCP);
	/* a foreign cookie with one's own addresses, and the other way round */
	cr_assert_eq(proxy_client_offer(pc, p.end[0], WSD_ROLE_CONNECT, sock_cookie(q.end[0]), 2, 0), 0);
	expect_refused(pc, 2, WSD_R_NOT_TCP);
	cr_assert_eq(proxy_client_offer(pc, p.end[0], WSD_ROLE_CONNECT, 0xdeadbeef, 3, 0), 0);
	expect_refused(pc, 3, WSD_R_NOT_TCP);
	/* no socket at all: the library does not even ask */
	cr_expect_eq(proxy_client_offer(pc, pipes[0], WSD_ROLE_CONNECT, 5, 4, 0), PROXY_CLIENT_E_SOCKET);
	/* half closed */
	shutdown(q.end[0], SHUT_WR);
	offer(pc, q.end[0], WSD_ROLE_CONNECT, 5);
	expect_refused(pc, 5, WSD_R_NOT_TCP);
	/* twice */
	offer(pc, p.end[0], WSD_ROLE_CONNECT, 6);
	cr_assert(UNTIL(status_ends(&d) == 1));
	offer(pc, p.end[0], WSD_ROLE_CONNECT, 7);
	expect_refused(pc, 7, WSD_R_NOT_OWNER);
	proxy_client_free(pc);
}

/* everything right but the descriptor: addresses and cookie are those of another's socket */
static void claim(int raw, int32_t fd, uint64_t scookie, const struct pair *p, uint32_t reason)
{
	struct wsd_msg_offer o = {
		.hdr = { sizeof(o), WSD_PROXY_VERSION, WSD_MSG_OFFER, 99 }, .fd = fd, .sock_cookie = scookie,
		.local = { .family = AF_INET, .ip = { 127, 0, 0, 1 } }, .remote = { .family = AF_INET, .ip = { 127, 0, 0, 1 } },
	};
	struct sockaddr_in sin;
	socklen_t len = sizeof(sin);
	struct wsd_msg_refused m;

	getsockname(p->end[0], (struct sockaddr *)&sin, &len);
	o.local.port = ntohs(sin.sin_port);
	len = sizeof(sin);
	getpeername(p->end[0], (struct sockaddr *)&sin, &len);
	o.remote.port = ntohs(sin.sin_port);
	cr_assert(raw_send(raw, &o, sizeof(o)));
	cr_assert_eq(raw_receive(raw, &m, sizeof(m)), sizeof(m));
	cr_assert_eq(m.hdr.type, WSD_MSG_REFUSED);
	cr_assert_eq(m.hdr.cookie, 99);
	cr_assert_eq(m.reason, reason, "reason %u, not %u", m.reason, reason);
}

Test(pairing, knowing_a_socket_is_not_holding_it)
{
	struct pair p = pair_make(PAIR_V4), q = pair_make(PAIR_V4);
	uint64_t c = sock_cookie(p.end[0]);
	int report[2], st;
	pid_t pid;

	cr_assert_eq(pipe(report), 0);
	pid = fork();
	if (!pid) {
		/* holds q, knows everything of p, and has closed it */
		int raw, pipes[2];

		close(p.end[1]);
		raw = raw_connect(&d);
		cr_assert(raw_hello(raw));
		cr_assert_eq(pipe(pipes), 0);
		claim(raw, q.end[0], c, &p, WSD_R_NOT_OWNER);
		claim(raw, q.end[1], c, &p, WSD_R_NOT_OWNER);
		claim(raw, raw, c, &p, WSD_R_NOT_OWNER);
		claim(raw, pipes[0], c, &p, WSD_R_NOT_TCP);
		claim(raw, 9999, c, &p, WSD_R_NOT_TCP);
		claim(raw, INT32_MAX, c, &p, WSD_R_NOT_TCP);
		(void)!write(report[1], "x", 1);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &st, 0), pid);
	cr_assert(WIFEXITED(st) && WEXITSTATUS(st) == 0, "the claims were not all refused");
	cr_expect_eq(status_ends(&d), 0);
}

Test(pairing, one_role_twice_is_refused)
{
	struct proxy_client *pc = proxy_client_new();
	struct pair p = pair_make(PAIR_V4);
	struct proxy_msg m;

	offer(pc, p.end[0], WSD_ROLE_CONNECT, 1);
	offer(pc, p.end[1], WSD_ROLE_CONNECT, 2);
	m = message(pc);
	cr_expect_eq(m.reason, WSD_R_MISMATCH);
	m = message(pc);
	cr_expect_eq(m.reason, WSD_R_MISMATCH);
	cr_expect_eq(status_sessions(&d), 0);
	proxy_client_free(pc);
}

Test(pairing, a_socket_bound_to_a_device_stays)
{
	struct proxy_client *pc = proxy_client_new();
	struct pair p = pair_make(PAIR_V4);

	if (setsockopt(p.end[0], SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) < 0)
		cr_skip_test("no right to bind to a device");
	offer(pc, p.end[0], WSD_ROLE_CONNECT, 1);
	expect_refused(pc, 1, WSD_R_DEVICE);
	proxy_client_free(pc);
}

/* the same four numbers again and again: each connection gets its own session or none */
Test(pairing, a_reused_tuple_never_meets_an_old_record)
{
	struct proxy_client *pc = proxy_client_new();
	struct sockaddr_in srv = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } }, cli = srv;
	socklen_t len = sizeof(srv);
	struct linger now = { 1, 0 };
	int l = socket(AF_INET, SOCK_STREAM, 0), one = 1, i;
	uint64_t last_id = 0, cookie = 1;

	cr_assert_eq(bind(l, (struct sockaddr *)&srv, sizeof(srv)), 0);
	cr_assert_eq(listen(l, 4), 0);
	getsockname(l, (struct sockaddr *)&srv, &len);
	for (i = 0; i < 10; i++) {
		struct proxy_msg m1, m2;
		struct pair p;

		p.end[0] = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(p.end[0], SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		cr_assert_eq(bind(p.end[0], (struct sockaddr *)&cli, sizeof(cli)), 0);
		cr_assert_eq(connect(p.end[0], (struct sockaddr *)&srv, sizeof(srv)), 0);
		len = sizeof(cli);
		getsockname(p.end[0], (struct sockaddr *)&cli, &len);
		p.end[1] = accept(l, NULL, NULL);
		cr_assert_geq(p.end[1], 0);

		offer(pc, p.end[0], WSD_ROLE_CONNECT, cookie++);
		if (i % 3) {
			offer(pc, p.end[1], WSD_ROLE_ACCEPT, cookie++);
			m1 = message(pc);
			m2 = message(pc);
			/* what waited of the round before is told that it is over */
			while (m1.type == PROXY_MSG_REFUSED) {
				m1 = m2;
				m2 = message(pc);
			}
			cr_assert_eq(m1.type, PROXY_MSG_SESSION, "round %d: reason %u", i, m1.reason);
			cr_assert_eq(m2.type, PROXY_MSG_SESSION, "round %d: reason %u", i, m2.reason);
			cr_expect_eq(m1.session_id, m2.session_id);
			cr_expect_neq(m1.session_id, last_id);
			last_id = m1.session_id;
			close(m1.fd);
			close(m2.fd);
		} else {
			/* this one stays behind, offered by one end only */
			cr_assert(UNTIL(status_ends(&d) > 0));
		}
		/* reset: no TIME_WAIT keeps the tuple busy. No farewell to the daemon. */
		setsockopt(p.end[0], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		close(p.end[0]);
		close(p.end[1]);
	}
	proxy_client_free(pc);
}

Test(pairing, an_offer_withdrawn_is_gone)
{
	struct proxy_client *pc = proxy_client_new();
	struct pair p = pair_make(PAIR_V4);
	struct proxy_msg m;

	offer(pc, p.end[0], WSD_ROLE_CONNECT, 1);
	cr_assert_eq(proxy_client_withdraw(pc, 1, WSD_R_NONE, 0), 0);
	offer(pc, p.end[1], WSD_ROLE_ACCEPT, 2);
	cr_assert(UNTIL(status_ends(&d) == 1));
	cr_expect_eq(status_sessions(&d), 0);
	/* and may come again */
	offer(pc, p.end[0], WSD_ROLE_CONNECT, 3);
	m = message(pc);
	cr_expect_eq(m.type, PROXY_MSG_SESSION);
	m = message(pc);
	cr_expect_eq(m.type, PROXY_MSG_SESSION);
	proxy_client_free(pc);
}

Test(pairing, a_peer_that_is_not_here_is_told)
{
	struct proxy_client *pc = proxy_client_new();
	struct pair p = pair_make(PAIR_V4);
	struct linger now = { 1, 0 };

	/* the other end vanishes without a packet that says so: repair mode is the only way */
	int on = 1;

	if (setsockopt(p.end[1], IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0)
		cr_skip_test("no right to TCP_REPAIR");
	(void)now;
	close(p.end[1]);
	offer(pc, p.end[0], WSD_ROLE_CONNECT, 1);
	expect_refused(pc, 1, WSD_R_NOT_LOCAL);
	proxy_client_free(pc);
}

/* a pair whose four numbers are given, so that it can exist in two namespaces at once */
static struct pair fixed_pair(void)
{
	struct sockaddr_in srv = { .sin_family = AF_INET, .sin_port = htons(24301), .sin_addr = { htonl(0x7f090807) } };
	struct sockaddr_in cli = { .sin_family = AF_INET, .sin_port = htons(24302), .sin_addr = { htonl(0x7f090806) } };
	int l = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	struct pair p;

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	cr_assert_eq(bind(l, (struct sockaddr *)&srv, sizeof(srv)), 0);
	cr_assert_eq(listen(l, 4), 0);
	p.end[0] = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(p.end[0], SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	cr_assert_eq(bind(p.end[0], (struct sockaddr *)&cli, sizeof(cli)), 0);
	cr_assert_eq(connect(p.end[0], (struct sockaddr *)&srv, sizeof(srv)), 0);
	p.end[1] = accept(l, NULL, NULL);
	close(l);
	return p;
}

Test(pairing, network_namespaces_are_apart)
{
	struct proxy_client *pc = proxy_client_new();
	struct proxy_msg m;
	struct status s;
	struct pair p;
	int st, step[2], i;
	pid_t pid;
	char c;

	if (geteuid() != 0)
		cr_skip_test("needs root");
	cr_assert_eq(pipe(step), 0);
	p = fixed_pair();
	offer(pc, p.end[0], WSD_ROLE_CONNECT, 1);
	cr_assert(UNTIL(status_ends(&d) == 1));
	pid = fork();
	if (!pid) {
		struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
		struct pair q, r;
		int ctl;

		proxy_client_after_fork(pc);
		cr_assert_eq(unshare(CLONE_NEWNET), 0);
		ctl = socket(AF_INET, SOCK_DGRAM, 0);
		cr_assert_eq(ioctl(ctl, SIOCSIFFLAGS, &ifr), 0);
		/* the very same tuple, here: it must not meet the one outside */
		q = fixed_pair();
		offer(pc, q.end[1], WSD_ROLE_ACCEPT, 2);
		cr_assert(UNTIL(status_ends(&d) == 2));
		cr_assert_eq(status_sessions(&d), 0, "two connections were taken for one");
		/* a socket of the namespace outside, offered by a process that is in here */
		offer(pc, p.end[1], WSD_ROLE_ACCEPT, 9);
		expect_refused(pc, 9, WSD_R_NOT_TCP);
		/* but two ends in here do meet */
		r = pair_make(PAIR_V6);
		offer(pc, r.end[0], WSD_ROLE_CONNECT, 3);
		offer(pc, r.end[1], WSD_ROLE_ACCEPT, 4);
		m = message(pc);
		cr_assert_eq(m.type, PROXY_MSG_SESSION, "reason %u", m.reason);
		m = message(pc);
		cr_assert_eq(m.type, PROXY_MSG_SESSION);
		(void)!write(step[1], "x", 1);
		for (;;)
			pause();
	}
	for (i = 0; i < DEADLINE_MS && waitpid(pid, &st, WNOHANG) == 0; i++)
		if (poll(&(struct pollfd){ .fd = step[0], .events = POLLIN }, 1, 1) == 1)
			break;
	cr_assert_eq(poll(&(struct pollfd){ .fd = step[0], .events = POLLIN }, 1, 0), 1, "the inner part failed");
	cr_assert_eq(read(step[0], &c, 1), 1);
	status_get(&d, &s);
	cr_expect_eq(s.d.n_sessions, 1);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	/* G21 works in there, too, though no process is left in it */
	cr_expect(UNTIL(status_sessions(&d) == 0));
	cr_expect(UNTIL(status_ends(&d) == 1));
	proxy_client_free(pc);
}

Test(pairing, the_daemon_has_given_up_what_it_does_not_need)
{
	char path[64], line[256];
	int seccomp = -1, nnp = -1;
	unsigned long long eff = 0;
	struct status s;
	FILE *f;

	status_get(&d, &s);	/* it answers, so it is past its start */
	snprintf(path, sizeof(path), "/proc/%d/status", d.pid);
	cr_assert_not_null(f = fopen(path, "r"));
	while (fgets(line, sizeof(line), f)) {
		sscanf(line, "Seccomp: %d", &seccomp);
		sscanf(line, "NoNewPrivs: %d", &nnp);
		sscanf(line, "CapEff: %llx", &eff);
	}
	fclose(f);
	cr_expect_eq(nnp, 1);
#ifndef __SANITIZE_ADDRESS__
	cr_expect_neq(seccomp, 0, "no filter");
#endif
	/* ptrace, read search, sys_admin, net_admin, sys_resource */
	cr_expect_eq(eff & ~(1ull << 19 | 1ull << 2 | 1ull << 21 | 1ull << 12 | 1ull << 24), 0, "%llx", eff);
}
