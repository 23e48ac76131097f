/* SPDX-License-Identifier: MIT */
/* test-spi-daemon.c - two SAN sockets of this process meet through the real wsd-proxyd */
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <wsd/shared_ring.h>

#include "tests/unit/spi/fixture.h"

static char dir[] = "/tmp/wsd-spi-XXXXXX";
static char path[64];
static pid_t pid;

static void start(void)
{
	double end = now() + 10;

	cr_assert_not_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	setenv(WSD_PROXY_SOCKET_ENV, path, 1);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		execl(WSD_PROXYD, WSD_PROXYD, "--socket", path, (char *)NULL);
		_exit(127);
	}
	while (access(path, F_OK) && now() < end)
		poll(NULL, 0, 1);
}

static void stop(void)
{
	int status;

	kill(pid, SIGTERM);
	waitpid(pid, &status, 0);
	unlink(path);
	rmdir(dir);
}

static int accept_it(LPWSABUF a, LPWSABUF b, LPQOS c, LPQOS x, LPWSABUF y, LPWSABUF z, GROUP *g, DWORD_PTR ctx)
{
	return CF_ACCEPT;
}

static void meet(int family)
{
	WSDSHAREDRING r[2] = { { .size = sizeof(r[0]) }, { .size = sizeof(r[0]) } };
	struct event ce = {}, le = {};
	double end = now() + 10;
	struct wsd_expect x;
	WSANETWORKEVENTS ne;
	SOCKET s, l, a;
	int tcp[2];
	INT e;

	tcp_pair(family, tcp);
	s = new_bound(tcp[0]);
	cr_assert_eq(t.lpWSPEventSelect(s, &ce, FD_CONNECT, &e), 0);
	while ((e = connect_beside(s, tcp[0])) == WSAENETDOWN && now() < end)
		poll(NULL, 0, 1);	/* it may not listen yet */
	cr_assert_eq(e, WSAEWOULDBLOCK, "%d", e);
	l = new_listener(tcp[1], &le);
	x = expectation(tcp[1], 9);
	cr_assert_eq(t.lpWSPIoctl(l, SIO_WSD_EXPECT, &x, sizeof(x), NULL, 0, NULL, NULL, NULL, NULL, &e), 0);
	while (!(ce.set && le.set) && now() < end) {
		control.progress();
		poll(NULL, 0, 1);
	}
	cr_assert(ce.set && le.set, "no answer");
	cr_assert_eq(t.lpWSPEnumNetworkEvents(s, &ce, &ne, &e), 0);
	cr_assert_eq(ne.iErrorCode[FD_CONNECT_BIT], 0, "reason %u", control.socket_reason(s));
	a = t.lpWSPAccept(l, NULL, NULL, accept_it, 0, &e);
	cr_assert_neq(a, INVALID_SOCKET, "%d, reason %u", e, control.socket_reason(l));
	cr_assert_eq(shared_ring(s, &r[0], &e), 0);
	cr_assert_eq(shared_ring(a, &r[1], &e), 0);
	cr_assert_eq(r[0].session_id, r[1].session_id);
	cr_assert_eq(r[0].side + r[1].side, 1);
	cr_assert_neq(r[0].base, r[1].base);
	atomic_store(&((struct wsd_session *)r[0].base)->dir[0].start, 4711);
	cr_assert_eq(atomic_load(&((struct wsd_session *)r[1].base)->dir[0].start), 4711);
	cr_assert_eq(atomic_load(&((struct wsd_session *)r[1].base)->attached), 3);
	t.lpWSPCloseSocket(s, &e);
	t.lpWSPCloseSocket(a, &e);
	t.lpWSPCloseSocket(l, &e);
	close(tcp[0]);
	close(tcp[1]);
}

Test(real_daemon, both_ends_meet, .timeout = 60)
{
	start();
	begin();
	meet(AF_INET);
	meet(AF_INET6);
	end();
	stop();
}
