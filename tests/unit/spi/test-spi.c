/* SPDX-License-Identifier: MIT */
/* test-spi.c - wsd_san.so behind its table, with a fake switch above and a fake daemon below */
#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <wsd/shared_ring.h>

#include "tests/fakes/fake_daemon.h"
#include "tests/fakes/fake_session.h"
#include "tests/unit/spi/fixture.h"

#define RING WSD_RING_MIN

#define AT(table, member, n) static_assert(offsetof(table, member) == (n) * sizeof(void *), #member)
AT(WSPPROC_TABLE, lpWSPAccept, 0);
AT(WSPPROC_TABLE, lpWSPAddressToString, 1);
AT(WSPPROC_TABLE, lpWSPAsyncSelect, 2);
AT(WSPPROC_TABLE, lpWSPBind, 3);
AT(WSPPROC_TABLE, lpWSPCancelBlockingCall, 4);
AT(WSPPROC_TABLE, lpWSPCleanup, 5);
AT(WSPPROC_TABLE, lpWSPCloseSocket, 6);
AT(WSPPROC_TABLE, lpWSPConnect, 7);
AT(WSPPROC_TABLE, lpWSPDuplicateSocket, 8);
AT(WSPPROC_TABLE, lpWSPEnumNetworkEvents, 9);
AT(WSPPROC_TABLE, lpWSPEventSelect, 10);
AT(WSPPROC_TABLE, lpWSPGetOverlappedResult, 11);
AT(WSPPROC_TABLE, lpWSPGetPeerName, 12);
AT(WSPPROC_TABLE, lpWSPGetSockName, 13);
AT(WSPPROC_TABLE, lpWSPGetSockOpt, 14);
AT(WSPPROC_TABLE, lpWSPGetQOSByName, 15);
AT(WSPPROC_TABLE, lpWSPIoctl, 16);
AT(WSPPROC_TABLE, lpWSPJoinLeaf, 17);
AT(WSPPROC_TABLE, lpWSPListen, 18);
AT(WSPPROC_TABLE, lpWSPRecv, 19);
AT(WSPPROC_TABLE, lpWSPRecvDisconnect, 20);
AT(WSPPROC_TABLE, lpWSPRecvFrom, 21);
AT(WSPPROC_TABLE, lpWSPSelect, 22);
AT(WSPPROC_TABLE, lpWSPSend, 23);
AT(WSPPROC_TABLE, lpWSPSendDisconnect, 24);
AT(WSPPROC_TABLE, lpWSPSendTo, 25);
AT(WSPPROC_TABLE, lpWSPSetSockOpt, 26);
AT(WSPPROC_TABLE, lpWSPShutdown, 27);
AT(WSPPROC_TABLE, lpWSPSocket, 28);
AT(WSPPROC_TABLE, lpWSPStringToAddress, 29);
AT(WSPUPCALLTABLEEX, lpWPUCloseEvent, 0);
AT(WSPUPCALLTABLEEX, lpWPUCloseSocketHandle, 1);
AT(WSPUPCALLTABLEEX, lpWPUCreateEvent, 2);
AT(WSPUPCALLTABLEEX, lpWPUCreateSocketHandle, 3);
AT(WSPUPCALLTABLEEX, lpWPUFDIsSet, 4);
AT(WSPUPCALLTABLEEX, lpWPUGetProviderPath, 5);
AT(WSPUPCALLTABLEEX, lpWPUModifyIFSHandle, 6);
AT(WSPUPCALLTABLEEX, lpWPUPostMessage, 7);
AT(WSPUPCALLTABLEEX, lpWPUQueryBlockingCallback, 8);
AT(WSPUPCALLTABLEEX, lpWPUQuerySocketHandleContext, 9);
AT(WSPUPCALLTABLEEX, lpWPUQueueApc, 10);
AT(WSPUPCALLTABLEEX, lpWPUResetEvent, 11);
AT(WSPUPCALLTABLEEX, lpWPUSetEvent, 12);
AT(WSPUPCALLTABLEEX, lpWPUOpenCurrentThread, 13);
AT(WSPUPCALLTABLEEX, lpWPUCloseThread, 14);
AT(WSPUPCALLTABLEEX, lpWPUCompleteOverlappedRequest, 15);
static_assert(offsetof(WSAPROTOCOL_INFOW, ProviderId) == 20 && offsetof(WSAPROTOCOL_INFOW, iVersion) == 72 &&
	      offsetof(WSAPROTOCOL_INFOW, dwProviderReserved) == 112, "WSAPROTOCOL_INFOW");
static_assert(SIO_GET_EXTENSION_FUNCTION_POINTER == 0xC8000006 && SIO_ADDRESS_LIST_QUERY == 0x48000016 &&
	      SIO_GET_QOS == 0xC8000007 && SIO_SET_QOS == 0x8800000B && SIO_ADDRESS_LIST_CHANGE == 0x28000017, "codes");

static struct fake_daemon d;

static void with_daemon(void)
{
	fake_daemon_start(&d);
	begin();
}

static void done(void)
{
	end();
	fake_daemon_stop(&d);
}

/* the daemon takes what was said, the provider what it answered */
static int turn(void)
{
	fake_daemon_pump(&d);
	return control.progress();
}

static LONG events(SOCKET s, struct event *ev, int *error)
{
	WSANETWORKEVENTS ne;
	INT e = 0;

	cr_assert_eq(t.lpWSPEnumNetworkEvents(s, ev, &ne, &e), 0);
	*error = ne.lNetworkEvents & FD_CONNECT ? ne.iErrorCode[FD_CONNECT_BIT] : ne.iErrorCode[FD_ACCEPT_BIT];
	return ne.lNetworkEvents;
}

static unsigned session_id;

/* a connected SAN socket beside fd, with memory of fd */
static SOCKET connected(int tcp, int mem, uint64_t id)
{
	struct event ev = {};
	SOCKET s = new_bound(tcp);
	unsigned offer = d.n_offers;
	int err;
	INT e;

	cr_assert_eq(t.lpWSPEventSelect(s, &ev, FD_CONNECT, &e), 0);
	cr_assert_eq(connect_beside(s, tcp), WSAEWOULDBLOCK);
	turn();
	fake_daemon_session(&d, offer, mem, RING, id, 0);
	cr_assert_eq(control.progress(), 1);
	cr_assert_eq(events(s, &ev, &err), FD_CONNECT);
	cr_assert_eq(err, 0);
	cr_assert_eq(t.lpWSPEventSelect(s, NULL, 0, &e), 0);
	return s;
}

static int accept_all(LPWSABUF caller, LPWSABUF caller_data, LPQOS q, LPQOS gq, LPWSABUF callee, LPWSABUF callee_data,
		      GROUP *g, DWORD_PTR ctx)
{
	if (ctx)
		memcpy((void *)ctx, callee_data->buf, sizeof(struct wsd_connect_data));
	return CF_ACCEPT;
}

static SOCKET accepted(int tcp, int mem, uint64_t id)
{
	struct event ev = {};
	SOCKET l = new_listener(tcp, &ev), s;
	struct wsd_expect x = expectation(tcp, 5);
	unsigned offer = d.n_offers;
	INT e;

	cr_assert_eq(t.lpWSPIoctl(l, SIO_WSD_EXPECT, &x, sizeof(x), NULL, 0, NULL, NULL, NULL, NULL, &e), 0);
	turn();
	fake_daemon_session(&d, offer, mem, RING, id, 1);
	cr_assert_eq(control.progress(), 1);
	s = t.lpWSPAccept(l, NULL, NULL, accept_all, 0, &e);
	cr_assert_neq(s, INVALID_SOCKET, "%d", e);
	cr_assert_eq(t.lpWSPCloseSocket(l, &e), 0);
	return s;
}

Test(startup, fills_seventeen_entries)
{
	void **entry = (void **)&t;
	unsigned n = 0;

	begin();
	for (unsigned i = 0; i < 30; i++)
		n += entry[i] != NULL;
	cr_assert_eq(n, 17);
	end();
}

Test(startup, versions_arguments_and_counting)
{
	WSAPROTOCOL_INFOW info = {};
	WSPUPCALLTABLEEX holes = uptable;
	WSPDATA data;
	INT e;

	load();
	holes.lpWPUSetEvent = NULL;
	cr_assert_eq(startup(0x0101, &data, &info, &uptable, &t), WSAVERNOTSUPPORTED);
	cr_assert_eq(startup(0x0002, &data, &info, &uptable, &t), WSAVERNOTSUPPORTED);
	cr_assert_eq(startup(0x0202, NULL, &info, &uptable, &t), WSAEFAULT);
	cr_assert_eq(startup(0x0202, &data, NULL, &uptable, &t), WSAEFAULT);
	cr_assert_eq(startup(0x0202, &data, &info, NULL, &t), WSAEFAULT);
	cr_assert_eq(startup(0x0202, &data, &info, &holes, &t), WSAEFAULT);
	cr_assert_eq(startup(0x0202, &data, &info, &uptable, NULL), WSAEFAULT);
	cr_assert_eq(startup(0x0202, &data, &info, &uptable, &t), 0);
	cr_assert_eq(data.wVersion, 0x0202);
	cr_assert_neq(data.szDescription[0], 0);
	cr_assert_eq(startup(0x0302, &data, &info, &uptable, &t), 0);
	cr_assert_eq(t.lpWSPCleanup(&e), 0);
	cr_assert_neq(t.lpWSPSocket(AF_INET, SOCK_STREAM, 6, NULL, 0, WSA_FLAG_OVERLAPPED, &e), INVALID_SOCKET);
	cr_assert_eq(t.lpWSPCleanup(&e), 0);
	cr_assert_eq(up.handles, 0, "the last cleanup closes what is open");
	cr_assert_eq(t.lpWSPSocket(AF_INET, SOCK_STREAM, 6, NULL, 0, WSA_FLAG_OVERLAPPED, &e), INVALID_SOCKET);
	cr_assert_eq(e, WSANOTINITIALISED);
}

Test(startup, transport_that_does_not_start)
{
	WSAPROTOCOL_INFOW info = {};
	WSPDATA data;

	load();
	setenv("WSD_TRANSPORT", "nosuch", 1);
	cr_assert_eq(startup(0x0202, &data, &info, &uptable, &t), WSAEPROVIDERFAILEDINIT);
	setenv("WSD_TRANSPORT", "shm", 1);
	cr_assert_eq(startup(0x0202, &data, &info, &uptable, &t), 0);
}

Test(ioctl, extensions_by_guid)
{
	static const GUID read = WSAID_RDMAREAD, cache = WSAID_MEMORYREGISTRATIONCACHECALLBACK, put = WSAID_WSDPUTWITHSIGNAL;
	static const GUID unknown = { 0x6f3d0b5e, 1, 2, { 3 } };
	void *f;
	DWORD n;
	INT e;

	begin();
	cr_assert_eq(get_ext(&read, &f), WSAEOPNOTSUPP);
	cr_assert_eq(get_ext(&cache, &f), WSAEOPNOTSUPP);
	cr_assert_eq(get_ext(&put, &f), 0);
	cr_assert_eq(get_ext(&unknown, &f), WSAEINVAL);
	cr_assert_eq(t.lpWSPIoctl(0, SIO_GET_EXTENSION_FUNCTION_POINTER, (void *)&read, 3, &f, sizeof(f), &n, NULL, NULL,
				  NULL, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEFAULT);
	end();
}

Test(ioctl, address_list_after_a_probe)
{
	SOCKET_ADDRESS_LIST *l;
	DWORD need = 0, got;
	bool loopback = false;
	INT e;

	begin();
	cr_assert_eq(t.lpWSPIoctl(0, SIO_ADDRESS_LIST_QUERY, NULL, 0, NULL, 0, &need, NULL, NULL, NULL, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEFAULT);
	l = malloc(need);
	cr_assert_eq(t.lpWSPIoctl(0, SIO_ADDRESS_LIST_QUERY, NULL, 0, l, need, &got, NULL, NULL, NULL, &e), 0);
	for (int i = 0; i < l->iAddressCount; i++)
		loopback |= l->Address[i].lpSockaddr->sa_family == AF_INET &&
			    ((struct sockaddr_in *)l->Address[i].lpSockaddr)->sin_addr.s_addr == htonl(INADDR_LOOPBACK);
	cr_assert(loopback);
	free(l);
	end();
}

Test(socket, arguments)
{
	WSAPROTOCOL_INFOW adopted = { .dwProviderReserved = 1 };
	INT e = 0;

	begin();
#define REFUSED(call, code)                             \
	do {                                            \
		cr_assert_eq(call, INVALID_SOCKET);     \
		cr_assert_eq(e, code, "%d, not %s", e, #code); \
	} while (0)
	REFUSED(t.lpWSPSocket(AF_UNIX, SOCK_STREAM, 0, NULL, 0, 1, &e), WSAEAFNOSUPPORT);
	REFUSED(t.lpWSPSocket(AF_INET, SOCK_DGRAM, 0, NULL, 0, 1, &e), WSAESOCKTNOSUPPORT);
	REFUSED(t.lpWSPSocket(AF_INET, SOCK_STREAM, 17, NULL, 0, 1, &e), WSAEPROTONOSUPPORT);
	REFUSED(t.lpWSPSocket(AF_INET, SOCK_STREAM, 0, NULL, 0, 0, &e), WSAEINVAL);
	REFUSED(t.lpWSPSocket(AF_INET, SOCK_STREAM, 0, &adopted, 0, 1, &e), WSAEINVAL);
	up.refuse_handles = 1;
	REFUSED(t.lpWSPSocket(AF_INET, SOCK_STREAM, 0, NULL, 0, 1, &e), WSAENOBUFS);
	up.refuse_handles = 0;
	end();
}

Test(socket, stale_handles_touch_nothing)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	SOCKET bad[] = { 0, 1, 2, INVALID_SOCKET, 0x700000001ull, 0 };
	WSAPROTOCOL_INFOW info;
	WSANETWORKEVENTS ne;
	WSAOVERLAPPED ov = {};
	struct wsd_expect x = {};
	WSDSHAREDRING ring = { .size = sizeof(ring) };
	char buf[64];
	WSABUF b = { 64, buf };
	WSABUFEX bx = { 64, buf, buf };
	DWORD n, f = 0;
	INT e, len = 4;
	SOCKET was;

	begin();
	was = t.lpWSPSocket(AF_INET, SOCK_STREAM, 0, NULL, 0, 1, &e);
	bad[5] = was;
	cr_assert_eq(t.lpWSPCloseSocket(was, &e), 0);
	cr_assert_neq(t.lpWSPSocket(AF_INET, SOCK_STREAM, 0, NULL, 0, 1, &e), was, "a handle came back");
	for (unsigned i = 0; i < 6; i++) {
		SOCKET s = bad[i];

		if (s == 1)
			continue;	/* may be a real one */
#define NOTSOCK(call)                                                                \
	do {                                                                         \
		e = 0;                                                               \
		cr_assert(call, #call);                                              \
		cr_assert_eq(e, WSAENOTSOCK, "%s on %zx gave %d", #call, (size_t)s, e); \
	} while (0)
		NOTSOCK(t.lpWSPBind(s, (void *)&a, sizeof(a), &e));
		NOTSOCK(t.lpWSPListen(s, 1, &e));
		NOTSOCK(t.lpWSPConnect(s, (void *)&a, sizeof(a), NULL, NULL, NULL, NULL, &e));
		NOTSOCK(t.lpWSPAccept(s, NULL, NULL, NULL, 0, &e) == INVALID_SOCKET);
		NOTSOCK(t.lpWSPEventSelect(s, &a, FD_CONNECT, &e));
		NOTSOCK(t.lpWSPEnumNetworkEvents(s, NULL, &ne, &e));
		NOTSOCK(t.lpWSPGetSockOpt(s, WSD_WIN_SOL_SOCKET, SO_MAX_MSG_SIZE, buf, &len, &e));
		NOTSOCK(t.lpWSPSetSockOpt(s, WSD_WIN_SOL_SOCKET, SO_DEBUG, buf, 4, &e));
		NOTSOCK(!t.lpWSPGetQOSByName(s, &b, NULL, &e));
		NOTSOCK(t.lpWSPIoctl(s, SIO_WSD_EXPECT, &x, sizeof(x), NULL, 0, &n, NULL, NULL, NULL, &e));
		NOTSOCK(t.lpWSPDuplicateSocket(s, 1, &info, &e));
		NOTSOCK(t.lpWSPSend(s, &b, 1, &n, 0, &ov, NULL, NULL, &e));
		NOTSOCK(t.lpWSPRecv(s, &b, 1, &n, &f, &ov, NULL, NULL, &e));
		NOTSOCK(!t.lpWSPGetOverlappedResult(s, &ov, &n, FALSE, &f, &e));
		NOTSOCK(rdma_write(s, &bx, 1, buf, 16, 0, &n, 0, &ov, NULL, NULL, &e));
		NOTSOCK(!reg_mem(s, buf, 8, MEM_READ, &e));
		NOTSOCK(dereg_mem(s, buf, &e));
		NOTSOCK(reg_rdma(s, buf, 8, MEM_READ, buf, &n, &e));
		NOTSOCK(dereg_rdma(s, buf, 16, &e));
		NOTSOCK(shared_ring(s, &ring, &e));
		NOTSOCK(t.lpWSPCloseSocket(s, &e));
		control.retire(s, 0, 0);
		cr_assert_eq(control.socket_reason(s), 0);
	}
	end();
}

Test(connect, session_comes)
{
	WSDSHAREDRING ring = { .size = sizeof(ring) };
	int tcp[2], mem = fake_session_new(RING, 42);
	struct event ev = {};
	struct wsd_session *m = fake_session_map(mem, wsd_session_length(RING));
	SOCKET s;
	int err;
	INT e;

	with_daemon();
	tcp_pair(AF_INET, tcp);
	s = new_bound(tcp[0]);
	cr_assert_eq(t.lpWSPEventSelect(s, &ev, FD_CONNECT | FD_CLOSE, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEINVAL);
	cr_assert_eq(t.lpWSPEventSelect(s, &ev, FD_CONNECT, &e), 0);
	cr_assert_eq(connect_beside(s, tcp[0]), WSAEWOULDBLOCK);
	cr_assert_eq(connect_beside(s, tcp[0]), WSAEALREADY);
	cr_assert_eq(turn(), 0);
	cr_assert_eq(d.n_offers, 1);
	cr_assert_eq(d.offer[0].m.fd, tcp[0]);
	cr_assert_eq(d.offer[0].m.role, WSD_ROLE_CONNECT);
	cr_assert_eq(d.offer[0].m.sock_cookie, connect_data(tcp[0], 0).sock_cookie);
	cr_assert_eq(shared_ring(s, &ring, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAENOTCONN);
	cr_assert_not_null(control.notify_word());
	cr_assert_geq(control.handle(), 0);
	cr_assert_eq(control.reason(), 0);

	fake_daemon_session(&d, 0, mem, RING, 42, 0);
	errno = 77;
	cr_assert_eq(control.progress(), 1);
	cr_assert_eq(errno, 77, "errno is the program's");
	cr_assert_eq(ev.set, 1);
	cr_assert_eq(events(s, &ev, &err), FD_CONNECT);
	cr_assert_eq(err, 0);
	cr_assert_eq(ev.set, 0, "the provider resets the event");
	cr_assert_eq(events(s, &ev, &err), 0);
	cr_assert_eq(connect_beside(s, tcp[0]), WSAEISCONN);
	ring.size = 8;
	cr_assert_eq(shared_ring(s, &ring, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEINVAL);
	ring.size = sizeof(ring);
	cr_assert_eq(shared_ring(s, &ring, &e), 0);
	cr_assert_eq(ring.side, 0);
	cr_assert_eq(ring.ring_size, RING);
	cr_assert_eq(ring.session_id, 42);
	cr_assert_eq(((struct wsd_session *)ring.base)->magic, WSD_SESSION_MAGIC);
	cr_assert_eq(atomic_load(&m->attached), 1);
	fake_daemon_pump(&d);
	cr_assert_eq(d.n_attached, 1);
	cr_assert_eq(d.attached[0].session_id, 42);

	control.retire(s, WSD_R_OPTION, 9);
	cr_assert_eq(t.lpWSPCloseSocket(s, &e), 0);
	fake_daemon_pump(&d);
	cr_assert_eq(d.n_withdraws, 1, "told once");
	cr_assert_eq(d.withdraw[0].reason, WSD_R_OPTION);
	cr_assert_eq(d.withdraw[0].unread, 9);
	cr_assert_eq(msync(ring.base, 4096, MS_ASYNC), -1, "still mapped");
	cr_assert_eq(up.closed, 1);
	cr_assert_eq(d.withdraw[0].hdr.cookie, d.offer[0].m.hdr.cookie);
	done();
}

Test(connect, refused_is_no_final_code)
{
	struct event ev = {};
	int tcp[2], err;
	SOCKET s;
	INT e;

	with_daemon();
	tcp_pair(AF_INET6, tcp);
	s = new_bound(tcp[0]);
	cr_assert_eq(connect_beside(s, tcp[0]), WSAEWOULDBLOCK);
	turn();
	fake_daemon_refuse(&d, 0, WSD_R_PEER_UNAWARE);
	cr_assert_eq(control.progress(), 0, "nobody has asked for the event yet");
	cr_assert_eq(t.lpWSPEventSelect(s, &ev, FD_CONNECT, &e), 0);
	cr_assert_eq(ev.set, 1, "pending at once");
	cr_assert_eq(events(s, &ev, &err), FD_CONNECT);
	cr_assert_eq(err, WSAETIMEDOUT);
	cr_assert_eq(control.socket_reason(s), WSD_R_PEER_UNAWARE);
	cr_assert_eq(t.lpWSPCloseSocket(s, &e), 0);
	fake_daemon_pump(&d);
	cr_assert_eq(d.n_withdraws, 0, "a refused offer is over");
	done();
}

Test(connect, arguments)
{
	struct wsd_connect_data cd;
	struct sockaddr_in a = { .sin_family = AF_INET }, a6 = { .sin_family = AF_INET6 };
	WSABUF b = { sizeof(cd), (char *)&cd };
	int tcp[2], p[2];
	QOS q;
	SOCKET s;
	INT e;

	with_daemon();
	tcp_pair(AF_INET, tcp);
	cd = connect_data(tcp[0], 1);
	s = new_bound(tcp[0]);
#define NO(code, ...)                                                            \
	do {                                                                     \
		cr_assert_eq(t.lpWSPConnect(s, __VA_ARGS__, &e), SOCKET_ERROR);  \
		cr_assert_eq(e, code, "%d, not %s", e, #code);                   \
	} while (0)
	NO(WSAEFAULT, NULL, 0, &b, NULL, NULL, NULL);
	NO(WSAEFAULT, (void *)&a, 3, &b, NULL, NULL, NULL);
	NO(WSAEAFNOSUPPORT, (void *)&a6, sizeof(a6), &b, NULL, NULL, NULL);
	NO(WSAEINVAL, (void *)&a, sizeof(a), NULL, NULL, NULL, NULL);
	NO(WSAEOPNOTSUPP, (void *)&a, sizeof(a), &b, NULL, &q, NULL);
	b.len--;
	NO(WSAEINVAL, (void *)&a, sizeof(a), &b, NULL, NULL, NULL);
	b.len++;
	cd.size--;
	NO(WSAEINVAL, (void *)&a, sizeof(a), &b, NULL, NULL, NULL);
	cd.size++;
	cr_assert_eq(pipe(p), 0);
	cd.fd = p[0];
	NO(WSAEINVAL, (void *)&a, sizeof(a), &b, NULL, NULL, NULL);
	cr_assert_eq(control.socket_reason(s), WSD_R_NOT_TCP);
	fake_daemon_pump(&d);
	cr_assert_eq(d.n_offers, 0);
	done();
}

Test(connect, no_daemon)
{
	int tcp[2];
	SOCKET s;

	setenv(WSD_PROXY_SOCKET_ENV, "/tmp/nosuchdir/nosuch", 1);
	begin();
	tcp_pair(AF_INET, tcp);
	s = new_bound(tcp[0]);
	cr_assert_eq(connect_beside(s, tcp[0]), WSAENETDOWN);
	cr_assert_eq(control.socket_reason(s), WSD_R_NO_DAEMON);
	cr_assert_eq(control.reason(), WSD_R_NO_DAEMON);
	cr_assert_eq(control.handle(), -1);
	cr_assert_null(control.notify_word());
	end();
}

Test(connect, daemon_that_dies)
{
	struct event ev = {};
	int tcp[2], err;
	SOCKET s;
	INT e;

	with_daemon();
	tcp_pair(AF_INET, tcp);
	s = new_bound(tcp[0]);
	cr_assert_eq(t.lpWSPEventSelect(s, &ev, FD_CONNECT, &e), 0);
	cr_assert_eq(connect_beside(s, tcp[0]), WSAEWOULDBLOCK);
	turn();
	fake_daemon_stop(&d);
	cr_assert_eq(control.progress(), 1);
	cr_assert_eq(events(s, &ev, &err), FD_CONNECT);
	cr_assert_eq(err, WSAETIMEDOUT);
	cr_assert_eq(control.socket_reason(s), WSD_R_NO_DAEMON);
	end();
}

Test(connect, never_answered_stays_pending)
{
	struct event ev = {};
	int tcp[2];
	SOCKET s;
	INT e;

	with_daemon();
	d.silent = true;
	tcp_pair(AF_INET, tcp);
	s = new_bound(tcp[0]);
	cr_assert_eq(t.lpWSPEventSelect(s, &ev, FD_CONNECT, &e), 0);
	cr_assert_eq(connect_beside(s, tcp[0]), WSAEWOULDBLOCK);
	for (int i = 0; i < 100; i++)
		cr_assert_eq(turn(), 0);
	cr_assert_eq(t.lpWSPCloseSocket(s, &e), 0);
	done();
}

/* memory that is not what it should be: no session, and the daemon is told */
Test(connect, bad_sessions)
{
	static const char *const how[] = { "magic", "side", "id", "head" };
	int err;
	INT e;

	with_daemon();
	for (unsigned i = 0; i < 4; i++) {
		struct event ev = {};
		int tcp[2], mem = fake_session_new(RING, 42);
		struct wsd_session *m = fake_session_map(mem, wsd_session_length(RING));
		unsigned offer = d.n_offers, gone = d.n_withdraws;
		SOCKET s;

		tcp_pair(AF_INET, tcp);
		s = new_bound(tcp[0]);
		cr_assert_eq(t.lpWSPEventSelect(s, &ev, FD_CONNECT, &e), 0);
		cr_assert_eq(connect_beside(s, tcp[0]), WSAEWOULDBLOCK);
		turn();
		if (i == 0)
			m->magic++;
		if (i == 3)
			atomic_store(&m->dir[0].gate, RING + 1);
		fake_daemon_session(&d, offer, mem, RING, i == 2 ? 43 : 42, i == 1);
		control.progress();
		cr_assert_eq(events(s, &ev, &err), FD_CONNECT, "%s", how[i]);
		cr_assert_eq(err, WSAETIMEDOUT, "%s", how[i]);
		cr_assert_eq(control.socket_reason(s), WSD_R_PEER_BROKEN);
		fake_daemon_pump(&d);
		cr_assert_eq(d.n_withdraws, gone + 1);
		cr_assert_eq(t.lpWSPCloseSocket(s, &e), 0);
	}
	done();
}

static int answer;

static int condition(LPWSABUF caller, LPWSABUF caller_data, LPQOS q, LPQOS gq, LPWSABUF callee, LPWSABUF callee_data,
		     GROUP *g, DWORD_PTR ctx)
{
	struct wsd_connect_data cd;
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	cr_assert_eq(callee_data->len, sizeof(cd));
	memcpy(&cd, callee_data->buf, sizeof(cd));
	cr_assert_eq(cd.context, 31);
	cr_assert_eq(getpeername(cd.fd, (void *)&a, &len), 0);
	cr_assert_eq(caller->len, len);
	if (a.ss_family == AF_INET)
		cr_assert_eq(memcmp(caller->buf, &a, 8), 0);
	cr_assert_null(caller_data);
	cr_assert_eq(*(int *)ctx, 1234);
	return answer;
}

static SOCKET do_accept(SOCKET l, INT *e)
{
	struct sockaddr_storage a;
	INT len = sizeof(a);
	int magic = 1234;

	*e = 0;
	return t.lpWSPAccept(l, (void *)&a, &len, condition, (DWORD_PTR)&magic, e);
}

static int expect(SOCKET l, DWORD code, int fd)
{
	struct wsd_expect x = expectation(fd, 31);
	INT e = 0;

	return t.lpWSPIoctl(l, code, &x, sizeof(x), NULL, 0, NULL, NULL, NULL, NULL, &e) ? e : 0;
}

Test(accept, expected_companions)
{
	int tcp[6][2], mem = fake_session_new(RING, 42), err;
	WSDSHAREDRING ring = { .size = sizeof(ring) };
	struct event ev = {};
	SOCKET l, s[2];
	INT e;

	with_daemon();
	for (int i = 0; i < 6; i++)
		tcp_pair(AF_INET, tcp[i]);
	l = new_listener(tcp[0][1], &ev);
	cr_assert_eq(do_accept(l, &e), INVALID_SOCKET);
	cr_assert_eq(e, WSAEWOULDBLOCK);
	for (int i = 0; i < 6; i++)
		cr_assert_eq(expect(l, SIO_WSD_EXPECT, tcp[i][1]), 0);
	turn();
	cr_assert_eq(d.n_offers, 6);
	cr_assert_eq(d.offer[3].m.role, WSD_ROLE_ACCEPT);
	cr_assert_eq(d.offer[3].m.fd, tcp[3][1]);
	cr_assert_eq(expect(l, SIO_WSD_UNEXPECT, tcp[5][1]), 0);
	cr_assert_eq(expect(l, SIO_WSD_UNEXPECT, tcp[5][1]), WSAEINVAL);
	fake_daemon_session(&d, 5, mem, RING, 42, 1);	/* crosses the withdrawal */
	cr_assert_eq(turn(), 0);
	cr_assert_eq(d.n_withdraws, 1);

	for (int i = 0; i < 4; i++)
		fake_daemon_session(&d, i, mem, RING, 42, 1);
	fake_daemon_refuse(&d, 4, WSD_R_QUOTA_BYTES);
	cr_assert_eq(control.progress(), 5);
	cr_assert_eq(events(l, &ev, &err), FD_ACCEPT);

	answer = CF_ACCEPT;
	s[0] = do_accept(l, &e);
	cr_assert_neq(s[0], INVALID_SOCKET);
	cr_assert_eq(ev.set, 1, "more wait");
	answer = CF_DEFER;
	cr_assert_eq(do_accept(l, &e), INVALID_SOCKET);
	cr_assert_eq(e, WSATRY_AGAIN);
	answer = CF_REJECT;
	cr_assert_eq(do_accept(l, &e), INVALID_SOCKET);
	cr_assert_eq(e, WSAECONNREFUSED);
	answer = CF_ACCEPT;
	s[1] = do_accept(l, &e);
	cr_assert_neq(s[1], INVALID_SOCKET);
	up.refuse_handles = 1;
	cr_assert_eq(do_accept(l, &e), INVALID_SOCKET);
	cr_assert_eq(e, WSAENOBUFS);
	up.refuse_handles = 0;
	/* the refused one: the condition function sees which, the listener's reason says why */
	cr_assert_eq(do_accept(l, &e), INVALID_SOCKET);
	cr_assert_eq(e, WSAETIMEDOUT);
	cr_assert_eq(control.socket_reason(l), WSD_R_QUOTA_BYTES);
	cr_assert_eq(ev.set, 0);
	cr_assert_eq(do_accept(l, &e), INVALID_SOCKET);
	cr_assert_eq(e, WSAEWOULDBLOCK);

	cr_assert_eq(shared_ring(s[1], &ring, &e), 0);
	cr_assert_eq(ring.side, 1);
	fake_daemon_pump(&d);
	cr_assert_eq(d.n_attached, 2);
	cr_assert_eq(d.n_withdraws, 3, "unexpected, rejected, no handle");

	/* closing the listener takes back what is still expected, and leaves the accepted alone */
	cr_assert_eq(expect(l, SIO_WSD_EXPECT, tcp[5][1]), 0);
	cr_assert_eq(t.lpWSPCloseSocket(l, &e), 0);
	fake_daemon_pump(&d);
	cr_assert_eq(d.n_withdraws, 4);
	cr_assert_eq(shared_ring(s[0], &ring, &e), 0);
	done();
}

Test(accept, wrong_uses)
{
	struct wsd_expect x;
	struct event ev = {};
	int tcp[2];
	SOCKET s;
	INT e;

	with_daemon();
	tcp_pair(AF_INET, tcp);
	s = t.lpWSPSocket(AF_INET, SOCK_STREAM, 0, NULL, 0, 1, &e);
	cr_assert_eq(t.lpWSPListen(s, 1, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEINVAL, "not bound");
	cr_assert_eq(expect(s, SIO_WSD_EXPECT, tcp[1]), WSAEINVAL);
	s = new_listener(tcp[1], &ev);
	cr_assert_eq(connect_beside(s, tcp[1]), WSAEINVAL);
	x = expectation(tcp[1], 1);
	x.family = AF_INET6;
	cr_assert_eq(t.lpWSPIoctl(s, SIO_WSD_EXPECT, &x, sizeof(x), NULL, 0, NULL, NULL, NULL, NULL, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEINVAL);
	cr_assert_eq(t.lpWSPIoctl(s, SIO_WSD_EXPECT, &x, 5, NULL, 0, NULL, NULL, NULL, NULL, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEFAULT);
	done();
}

/* two sockets of this process at the two ends of one session, driven by documented functions alone */
struct ends {
	int tcp[2][2];
	SOCKET s[2];
	char pool[2][4096];
	HANDLE h[2];
};

static void ends_open(struct ends *n)
{
	int mem = fake_session_new(RING, ++session_id);
	INT e;

	with_daemon();
	tcp_pair(AF_INET, n->tcp[0]);
	tcp_pair(AF_INET, n->tcp[1]);
	n->s[0] = connected(n->tcp[0][0], mem, session_id);
	n->s[1] = accepted(n->tcp[1][1], mem, session_id);
	close(mem);
	for (int i = 0; i < 2; i++) {
		n->h[i] = reg_mem(n->s[i], n->pool[i], sizeof(n->pool[i]), MEM_READWRITE, &e);
		cr_assert_not_null(n->h[i]);
	}
}

static int post(struct ends *n, int i, bool send, char *p, ULONG len, LPWSAOVERLAPPED ov)
{
	WSABUF b = { len, p };
	DWORD moved, flags = 0;
	INT e = 0;
	int r = send ? t.lpWSPSend(n->s[i], &b, 1, &moved, 0, ov, NULL, NULL, &e) :
		       t.lpWSPRecv(n->s[i], &b, 1, &moved, &flags, ov, NULL, NULL, &e);

	return r ? e : 0;
}

static int result(struct ends *n, int i, LPWSAOVERLAPPED ov, DWORD *bytes)
{
	DWORD flags;
	INT e = 0;

	return t.lpWSPGetOverlappedResult(n->s[i], ov, bytes, FALSE, &flags, &e) ? 0 : e;
}

#define POLLED { .hEvent = (WSAEVENT)1 }

Test(data, polled_messages)
{
	static struct ends n;
	WSAOVERLAPPED r = POLLED, s = POLLED;
	char unregistered[8];
	DWORD bytes;
	WSDSHAREDRING ring = { .size = sizeof(ring) };
	INT e;

	ends_open(&n);
	cr_assert_eq(post(&n, 1, false, unregistered, 8, &r), WSAEFAULT);
	cr_assert_eq(post(&n, 1, false, n.pool[1], sizeof(n.pool[1]) + 1, &r), WSAEFAULT);
	cr_assert_eq(post(&n, 1, false, n.pool[1], 256, NULL), WSAEINVAL);
	cr_assert_eq(post(&n, 1, false, n.pool[1], 256, &r), WSA_IO_PENDING);
	cr_assert_eq(r.Internal, WSS_OPERATION_IN_PROGRESS);
	cr_assert_eq(result(&n, 1, &r, &bytes), WSA_IO_INCOMPLETE);
	strcpy(n.pool[0], "negotiate");
	cr_assert_eq(post(&n, 0, true, n.pool[0], 10, &s), WSA_IO_PENDING);
	cr_assert_eq(result(&n, 1, &r, &bytes), 0);
	cr_assert_eq(bytes, 10);
	cr_assert_str_eq(n.pool[1], "negotiate");
	cr_assert_eq(result(&n, 0, &s, &bytes), 0);
	cr_assert_eq(up.n_complete, 0, "bit 0 of hEvent: no notification");
	cr_assert_eq(shared_ring(n.s[0], &ring, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEINVAL, "messages run in it");
	done();
}

Test(data, notified_messages_and_close)
{
	static struct ends n;
	WSAOVERLAPPED r[3] = {}, s = {}, peer = {};
	DWORD bytes;
	SOCKET was;
	INT e;

	ends_open(&n);
	was = n.s[1];
	for (int i = 0; i < 3; i++)
		cr_assert_eq(post(&n, 1, false, n.pool[1] + 16 * i, 16, &r[i]), WSA_IO_PENDING);
	cr_assert_eq(post(&n, 0, false, n.pool[0] + 512, 16, &peer), WSA_IO_PENDING);
	cr_assert_eq(post(&n, 0, true, n.pool[0], 5, &s), WSA_IO_PENDING);
	cr_assert_eq(control.progress(), 2);
	cr_assert_eq(up.n_complete, 2);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(up.complete[i].error, 0);
		cr_assert_eq(up.complete[i].bytes, 5);
		cr_assert_eq(up.complete[i].s & 1, 0);
	}
	/* the session's switch is told of its own close, the peer of a reset */
	cr_assert_eq(t.lpWSPCloseSocket(was, &e), 0);
	cr_assert_eq(up.n_complete, 4);
	for (unsigned i = 2; i < 4; i++) {
		cr_assert_eq(up.complete[i].ov, &r[i - 1]);
		cr_assert_eq(up.complete[i].error, WSA_OPERATION_ABORTED);
		cr_assert_eq(up.complete[i].bytes, 0);
	}
	cr_assert_eq(control.progress(), 1);
	cr_assert_eq(up.complete[4].ov, &peer);
	cr_assert_eq(up.complete[4].error, WSAECONNRESET);
	cr_assert_eq(result(&n, 0, &peer, &bytes), WSAECONNRESET);
	cr_assert_eq(post(&n, 0, true, n.pool[0], 5, &s), WSAECONNRESET);
	done();
}

static SOCKET to_close;

static int close_in_upcall(SOCKET s, LPWSAOVERLAPPED ov, DWORD error, DWORD bytes, LPINT err)
{
	INT e;

	up.n_complete++;
	__atomic_store_n(&ov->Internal, 0, __ATOMIC_RELEASE);
	t.lpWSPCloseSocket(to_close, &e);
	return 0;
}

Test(data, upcall_closes_the_socket)
{
	static struct ends n;
	WSAOVERLAPPED r[2] = {}, s = POLLED;

	uptable.lpWPUCompleteOverlappedRequest = close_in_upcall;
	ends_open(&n);
	to_close = n.s[1];
	for (int i = 0; i < 2; i++)
		cr_assert_eq(post(&n, 1, false, n.pool[1] + 16 * i, 16, &r[i]), WSA_IO_PENDING);
	cr_assert_eq(post(&n, 0, true, n.pool[0], 5, &s), WSA_IO_PENDING);
	control.progress();
	cr_assert_eq(up.n_complete, 2, "one arrived, the other aborted");
	done();
}

Test(data, registrations_are_counted_and_writes_bounded)
{
	static struct ends n;
	static char target[1000];
	WSAOVERLAPPED w = POLLED, r = POLLED, s = POLLED;
	char desc[64], desc2[64];
	DWORD len = 0, len2, bytes;
	WSABUFEX bx;
	HANDLE again;
	INT e;

	ends_open(&n);
	again = reg_mem(n.s[0], n.pool[0], sizeof(n.pool[0]), MEM_READWRITE, &e);
	cr_assert_eq(again, n.h[0]);
	cr_assert_eq(dereg_mem(n.s[0], again, &e), 0);
	cr_assert_eq(dereg_mem(n.s[1], n.h[0], &e), SOCKET_ERROR, "another socket's");
	cr_assert_null(reg_mem(n.s[0], n.pool[0], 10, 8, &e));
	cr_assert_eq(e, WSAEINVAL);
	cr_assert_null(reg_mem(n.s[0], NULL, 10, MEM_READ, &e));
	cr_assert_eq(e, WSAEFAULT);

	cr_assert_eq(reg_rdma(n.s[1], target, sizeof(target), MEM_WRITE, desc, &len, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEFAULT);
	cr_assert_gt(len, 0);
	cr_assert_eq(reg_rdma(n.s[1], target, sizeof(target), MEM_WRITE, desc, &len, &e), 0);
	len2 = len;
	cr_assert_eq(reg_rdma(n.s[1], target, sizeof(target), MEM_WRITE, desc2, &len2, &e), 0);
	cr_assert_eq(memcmp(desc, desc2, len), 0);
	cr_assert_eq(dereg_rdma(n.s[1], desc, len, &e), 0);

	memset(n.pool[0], 7, 100);
	bx = (WSABUFEX){ 100, n.pool[0], n.h[1] };
	cr_assert_eq(rdma_write(n.s[0], &bx, 1, desc, len, 0, &bytes, 0, &w, NULL, NULL, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEFAULT, "a handle of another socket");
	bx.handle = n.h[0];
	cr_assert_eq(rdma_write(n.s[0], &bx, 1, desc, len, 901, &bytes, 0, &w, NULL, NULL, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEINVAL);
	cr_assert_eq(rdma_write(n.s[0], &bx, 1, desc, len, 900, &bytes, 0, &w, NULL, NULL, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSA_IO_PENDING);
	cr_assert_eq(post(&n, 1, false, n.pool[1], 16, &r), WSA_IO_PENDING);
	cr_assert_eq(post(&n, 0, true, n.pool[0], 4, &s), WSA_IO_PENDING);
	cr_assert_eq(result(&n, 1, &r, &bytes), 0);
	cr_assert_eq(target[899], 0);
	cr_assert_eq(target[900], 7);
	cr_assert_eq(target[999], 7);
	cr_assert_eq(result(&n, 0, &w, &bytes), 0);
	cr_assert_eq(bytes, 100);

	cr_assert_eq(dereg_rdma(n.s[1], desc, len, &e), 0);
	cr_assert_eq(dereg_rdma(n.s[1], desc, len, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEINVAL);
	cr_assert_eq(dereg_mem(n.s[0], n.h[0], &e), 0);
	cr_assert_eq(dereg_mem(n.s[0], n.h[0], &e), SOCKET_ERROR);
	cr_assert_eq(post(&n, 0, true, n.pool[0], 4, &s), WSAEFAULT, "no longer registered");
	done();
}

Test(data, ring_excludes_messages)
{
	static struct ends n;
	WSDSHAREDRING ring = { .size = sizeof(ring) };
	WSAOVERLAPPED ov = POLLED;
	INT e;

	ends_open(&n);
	cr_assert_eq(shared_ring(n.s[0], &ring, &e), 0);
	cr_assert_eq(shared_ring(n.s[0], &ring, &e), 0);
	cr_assert_eq(post(&n, 0, true, n.pool[0], 4, &ov), WSAEOPNOTSUPP);
	cr_assert_eq(WSD_GATE_HEAD(atomic_load(&((struct wsd_session *)ring.base)->dir[0].gate)), 0);
	done();
}

Test(option, sizes)
{
	uint32_t v = 0;
	INT len = 2, e;
	SOCKET s;

	begin();
	s = t.lpWSPSocket(AF_INET, SOCK_STREAM, 0, NULL, 0, 1, &e);
	cr_assert_eq(t.lpWSPGetSockOpt(s, WSD_WIN_SOL_SOCKET, SO_MAX_MSG_SIZE, (char *)&v, &len, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEFAULT);
	cr_assert_eq(len, 4);
	cr_assert_eq(t.lpWSPGetSockOpt(s, WSD_WIN_SOL_SOCKET, SO_MAX_MSG_SIZE, (char *)&v, &len, &e), 0);
	cr_assert_gt(v, 0);
	cr_assert_eq(t.lpWSPGetSockOpt(s, WSD_WIN_SOL_SOCKET, 0x1234, (char *)&v, &len, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAENOPROTOOPT);
	v = 1;
	cr_assert_eq(t.lpWSPSetSockOpt(s, WSD_WIN_SOL_SOCKET, SO_DEBUG, (char *)&v, 4, &e), 0);
	v = 0;
	cr_assert_eq(t.lpWSPGetSockOpt(s, WSD_WIN_SOL_SOCKET, SO_DEBUG, (char *)&v, &len, &e), 0);
	cr_assert_eq(v, 1);
	cr_assert_eq(t.lpWSPSetSockOpt(s, WSD_WIN_SOL_SOCKET, SO_MAX_MSG_SIZE, (char *)&v, 4, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAENOPROTOOPT);
	end();
}

Test(fork, child_keeps_the_ring_and_says_nothing, .timeout = 20)
{
	int tcp[3][2], mem = fake_session_new(RING, 42), status, err;
	WSDSHAREDRING ring = { .size = sizeof(ring) };
	struct event ev = {}, lev = {};
	SOCKET s, pending, l;
	pid_t pid;
	INT e;

	with_daemon();
	for (int i = 0; i < 3; i++)
		tcp_pair(AF_INET, tcp[i]);
	s = connected(tcp[0][0], mem, 42);
	cr_assert_eq(shared_ring(s, &ring, &e), 0);
	pending = new_bound(tcp[1][0]);
	cr_assert_eq(t.lpWSPEventSelect(pending, &ev, FD_CONNECT, &e), 0);
	cr_assert_eq(connect_beside(pending, tcp[1][0]), WSAEWOULDBLOCK);
	l = new_listener(tcp[2][1], &lev);
	cr_assert_eq(expect(l, SIO_WSD_EXPECT, tcp[2][1]), 0);
	fake_daemon_pump(&d);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		bool ok;

		control.after_fork();
		ok = control.handle() == -1 && !ev.set && control.progress() == 2 && ev.set && lev.set;
		ok = ok && events(pending, &ev, &err) == FD_CONNECT && err == WSAETIMEDOUT;
		ok = ok && ((struct wsd_session *)ring.base)->magic == WSD_SESSION_MAGIC;
		ok = ok && !t.lpWSPCloseSocket(s, &e) && !t.lpWSPCloseSocket(pending, &e) && !t.lpWSPCloseSocket(l, &e);
		_exit(!ok);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
	fake_daemon_pump(&d);
	cr_assert_eq(d.n_withdraws, 0, "the child spoke for its parent");
	cr_assert_eq(d.n_clients, 1);
	/* the parent's offer still gets its answer */
	fake_daemon_refuse(&d, 1, WSD_R_NETNS);
	cr_assert_eq(control.progress(), 1);
	cr_assert_eq(control.socket_reason(pending), WSD_R_NETNS);
	done();
}

static unsigned open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

Test(burst, many_sessions_no_descriptors, .timeout = 60)
{
	enum { N = 300 };
	static struct event ev[N];
	static SOCKET s[N];
	int tcp[2];
	unsigned fds;
	double t0, t1;
	INT e;

	with_daemon();
	tcp_pair(AF_INET, tcp);
	s[0] = new_bound(tcp[0]);
	cr_assert_eq(connect_beside(s[0], tcp[0]), WSAEWOULDBLOCK);
	turn();
	fds = open_fds();
	for (int i = 1; i < N; i++) {
		s[i] = new_bound(tcp[0]);
		cr_assert_eq(t.lpWSPEventSelect(s[i], &ev[i], FD_CONNECT, &e), 0);
		cr_assert_eq(connect_beside(s[i], tcp[0]), WSAEWOULDBLOCK);
		turn();
	}
	t0 = 0;
	for (int i = 1; i < N; i++) {
		int mem = fake_session_new(WSD_RING_DEFAULT, i);

		fake_daemon_session(&d, i, mem, WSD_RING_DEFAULT, i, 0);
		close(mem);
		t1 = now();
		cr_assert_eq(control.progress(), 1);
		t0 += now() - t1;
		fake_daemon_pump(&d);
	}
	fprintf(stderr, "%.1f us a session\n", t0 * 1e6 / (N - 1));
	cr_assert_eq(open_fds(), fds);
	for (int i = 0; i < N; i++) {
		cr_assert_eq(t.lpWSPCloseSocket(s[i], &e), 0);
		fake_daemon_pump(&d);
	}
	cr_assert_eq(open_fds(), fds);
	cr_assert_eq(d.n_withdraws, N);
	done();
}

/* more than the socket to the daemon takes: they wait here and go out in order, none is refused */
Test(burst, daemon_that_does_not_read, .timeout = 60)
{
	enum { N = 900 };
	static SOCKET s[N];
	struct event ev = {};
	int tcp[2];
	SOCKET l;
	INT e;

	with_daemon();
	tcp_pair(AF_INET, tcp);
	for (int i = 0; i < N / 2; i++) {
		s[i] = new_bound(tcp[0]);
		cr_assert_eq(connect_beside(s[i], tcp[0]), WSAEWOULDBLOCK);
	}
	l = new_listener(tcp[1], &ev);
	for (int i = 0; i < N / 2; i++) {
		struct wsd_expect x = expectation(tcp[1], i);

		cr_assert_eq(t.lpWSPIoctl(l, SIO_WSD_EXPECT, &x, sizeof(x), NULL, 0, NULL, NULL, NULL, NULL, &e), 0);
	}
	fake_daemon_pump(&d);
	cr_assert_lt(d.n_offers, N, "the test fills nothing");
	cr_assert_gt(d.n_offers, 0);
	cr_assert_eq(t.lpWSPCloseSocket(s[0], &e), 0);		/* sent */
	cr_assert_eq(t.lpWSPCloseSocket(s[N / 2 - 1], &e), 0);	/* not sent: never will be */
	for (double end = now() + 10; d.n_offers < N - 1 && now() < end;) {
		control.progress();
		fake_daemon_pump(&d);
	}
	cr_assert_eq(d.n_offers, N - 1);
	cr_assert_eq(d.offer[N - 2].m.role, WSD_ROLE_ACCEPT, "in order");
	cr_assert_eq(d.n_withdraws, 1);
	done();
}
