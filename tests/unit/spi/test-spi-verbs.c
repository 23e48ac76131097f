/* SPDX-License-Identifier: MIT */
/*
 * test-spi-verbs.c - sessions over RDMA: the provider's half, between a fake daemon and a device
 *
 * In a guest of scripts/rxe-vm (tests/rxe/t/one/spi.sh) that is its rxe device, by libibverbs. Without a device only those
 * tests make sense that come to nothing before it is needed (meson.build names them).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <wsd/remote_session.h>
#include <wsd/shared_ring.h>

#include "san_provider/san.h"
#include "tests/fakes/fake_daemon.h"
#include "tests/fakes/fake_session.h"
#include "tests/unit/spi/fixture.h"

#define RING0 WSD_REMOTE_RING0
#define NONCE 0x1234567890abcdefull

static struct fake_daemon d;
static int tcp[2];
static bool is_child;	/* forked by a test: Criterion knows nothing of it */

#define must(x)                                                                  \
	do {                                                                     \
		if (!is_child) {                                                 \
			cr_assert(x);                                            \
		} else if (!(x)) {                                               \
			fprintf(stderr, "child: line %d: %s\n", __LINE__, #x);   \
			_exit(1);                                                \
		}                                                                \
	} while (0)

static void with_daemon(uint64_t caps)
{
	fake_daemon_start(&d);
	d.caps = caps;
	begin();
	tcp_pair(AF_INET, tcp);
}

static void done(void)
{
	end();
	close(tcp[0]);
	close(tcp[1]);
	fake_daemon_stop(&d);
}

/* the daemon takes what was said, the provider what it answered, until nothing more is said */
static int turns(void)
{
	int n = 0;

	for (int i = 0; i < 6; i++) {
		fake_daemon_pump(&d);
		n += control.progress();
	}
	return n;
}

static bool mapped(const char *name)
{
	char line[512];
	bool found = false;
	FILE *f = fopen("/proc/self/maps", "r");

	while (!found && fgets(line, sizeof(line), f))
		found = strstr(line, name);
	fclose(f);
	return found;
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

/* --- one end as its daemon makes it --- */

struct end {
	SOCKET s;		/* the connection; 0 while it is expected */
	SOCKET listener;
	struct event ev;
	unsigned offer;		/* in d.offer_san */
	struct wsd_msg_san_setup setup;
	struct wsd_remote *mem;	/* the daemon's own mapping */
	int fd;
	WSDPUTROAD road;
};

static struct end a, b;		/* connected, accepted */

/* that of the guest's device whose address is an IPv4 one; zeroes: no device */
static void find_gid(const char *device, uint8_t gid[16])
{
	char path[128], line[64];
	unsigned w[8];

	for (int i = 0; i < 16; i++) {
		FILE *f;

		snprintf(path, sizeof(path), "/sys/class/infiniband/%s/ports/1/gids/%d", device, i);
		f = fopen(path, "r");
		if (!f)
			return;
		if (fgets(line, sizeof(line), f) && sscanf(line, "%x:%x:%x:%x:%x:%x:%x:%x", &w[0], &w[1], &w[2], &w[3], &w[4],
							   &w[5], &w[6], &w[7]) == 8 && !w[0] && w[5] == 0xffff)
			for (int j = 0; j < 8; j++) {
				gid[2 * j] = (uint8_t)(w[j] >> 8);
				gid[2 * j + 1] = (uint8_t)w[j];
			}
		fclose(f);
	}
}

static uint32_t ring1 = 64 << 10;

static void memory_new(struct end *n, uint32_t side, uint64_t id)
{
	const uint32_t fill = 64 << 10;
	const char *device = getenv("WSD_RXE_DEVICE");
	struct wsd_remote *m;

	n->setup = (struct wsd_msg_san_setup){
		.session_id = id, .nonce = NONCE, .length = wsd_remote_length(RING0, ring1, fill), .peer_identity = 7, .side = side,
		.epoch = 1, .ring0 = RING0, .ring1_max = ring1, .fill_max = fill,
		.path = { .port = 1, .link_layer = 2, .mtu = 5, .timeout = 14, .retry = 7, .rnr_retry = 6,
			  .hop_limit = 64 },
	};
	snprintf(n->setup.path.device, sizeof(n->setup.path.device), "%s", device ? device : "none");
	find_gid(n->setup.path.device, n->setup.path.gid);
	n->fd = memfd_create(side ? "wsd-test-remote-b" : "wsd-test-remote-a", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	must(n->fd >= 0 && !ftruncate(n->fd, n->setup.length));
	m = n->mem = mmap(NULL, n->setup.length, PROT_READ | PROT_WRITE, MAP_SHARED, n->fd, 0);
	must(m != MAP_FAILED);
	*m = (struct wsd_remote){
		.magic = WSD_REMOTE_MAGIC, .version = WSD_REMOTE_VERSION, .side = side, .session_id = id, .nonce = NONCE,
		.length = n->setup.length, .epoch = 1, .ring0 = RING0, .ring1_max = ring1, .fill_max = fill, .off_ctl = 4096,
		.off_rx0 = 8192, .off_tx0 = 8192 + RING0, .off_rx1 = 8192 + 2 * RING0, .off_tx1 = 8192 + 2 * RING0 + ring1,
		.off_fill = 8192 + 2 * RING0 + 2 * ring1, .ring1_from = ~0ull, .frame_H = ~0ull, .in_C = ~0ull,
	};
	must(fcntl(n->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
}

static void memory_free(struct end *n)
{
	if (n->mem) {
		munmap(n->mem, n->setup.length);
		close(n->fd);
	}
	n->mem = NULL;
}

static const struct fake_offer_san *offer_of(const struct end *n)
{
	return &d.offer_san[n->offer];
}

static void say(struct end *n, uint16_t type, void *m, size_t len, int fd)
{
	struct wsd_msg_hdr h = { .len = len, .version = WSD_PROXY_VERSION, .type = type, .cookie = offer_of(n)->m.offer.hdr.cookie };

	memcpy(m, &h, sizeof(h));
	fake_daemon_send(&d, offer_of(n)->client, m, len, fd);
}

static void say_setup(struct end *n)
{
	say(n, WSD_MSG_SAN_SETUP, &n->setup, sizeof(n->setup), n->fd);
}

static void say_plain(struct end *n, uint16_t type)
{
	struct wsd_msg_san_plain m = { .session_id = n->setup.session_id };

	say(n, type, &m, sizeof(m), -1);
}

static void say_remote(struct end *n, const struct wsd_msg_san_blob *of_peer)
{
	struct wsd_msg_san_blob m = *of_peer;

	say(n, WSD_MSG_SAN_REMOTE, &m, sizeof(m), -1);
}

static void say_refused(struct end *n, uint16_t type, uint32_t reason)
{
	struct wsd_msg_refused m = { .reason = reason };

	say(n, type, &m, sizeof(m), -1);
}

static struct wsd_connect_data san_data(int fd, uint32_t flags)
{
	struct wsd_connect_data x = connect_data(fd, 1);

	x.flags = flags;
	x.n_tx = 2;
	x.n_rx = 1;
	x.tx[1].h[1] = 0x77;
	x.rx[0].h[0] = 0x88;
	return x;
}

static void connecting(struct end *n, uint32_t flags)
{
	struct wsd_connect_data x = san_data(tcp[0], flags);
	INT e;

	*n = (struct end){ .s = new_bound(tcp[0]), .fd = -1 };
	must(t.lpWSPEventSelect(n->s, &n->ev, FD_CONNECT, &e) == 0);
	must(connect_with(n->s, &x) == WSAEWOULDBLOCK);
}

static void expecting(struct end *n, uint32_t flags)
{
	struct wsd_expect x = expectation(tcp[1], 5);
	INT e;

	*n = (struct end){ .fd = -1 };
	x.data.flags = flags;
	n->listener = new_listener(tcp[1], &n->ev);
	must(t.lpWSPIoctl(n->listener, SIO_WSD_EXPECT, &x, sizeof(x), NULL, 0, NULL, NULL, NULL, NULL, &e) == 0);
}

/* both offers are at the daemon */
static void offered(void)
{
	unsigned i = d.n_offers_san;

	connecting(&a, WSD_CONNECT_SAN | WSD_CONNECT_FORCE);
	expecting(&b, WSD_CONNECT_SAN | WSD_CONNECT_FORCE);
	turns();
	must(d.n_offers_san == i + 2);
	a.offer = i;
	b.offer = i + 1;
	memory_new(&a, 0, 100 + i);
	memory_new(&b, 1, 100 + i);
}

static int accept_all(LPWSABUF x, LPWSABUF y, LPQOS q, LPQOS gq, LPWSABUF z, LPWSABUF w, GROUP *g, DWORD_PTR ctx)
{
	return CF_ACCEPT;
}

/* what FD_CONNECT said: 0 or a WSA code */
static int connect_result(struct end *n)
{
	WSANETWORKEVENTS ne;
	INT e;

	must(n->ev.set);
	must(t.lpWSPEnumNetworkEvents(n->s, &n->ev, &ne, &e) == 0);
	must(ne.lNetworkEvents == FD_CONNECT);
	return ne.iErrorCode[FD_CONNECT_BIT];
}

static void roads(void)
{
	INT e = 0;

	must(connect_result(&a) == 0);
	b.s = t.lpWSPAccept(b.listener, NULL, NULL, accept_all, 0, &e);
	must(b.s != INVALID_SOCKET);
	a.road = b.road = (WSDPUTROAD){ .size = sizeof(a.road) };
	a.road.context = 0xa;
	b.road.context = 0xb;
	must(put_with_signal(a.s, &a.road, &e) == 0);
	must(put_with_signal(b.s, &b.road, &e) == 0);
}

static void connected(void)
{
	unsigned l = d.n_locals;

	offered();
	say_setup(&a);
	say_setup(&b);
	turns();
	must(d.n_locals == l + 2);
	say_remote(&a, &d.local[l + 1]);
	say_remote(&b, &d.local[l]);
	turns();
	must(d.n_readies == d.n_locals);
	must(!a.ev.set && !b.ev.set);
	say_plain(&a, WSD_MSG_SAN_GO);
	say_plain(&b, WSD_MSG_SAN_GO);
	must(turns() == 2);
	roads();
}

static void close_end(struct end *n)
{
	INT e;

	if (n->s)
		must(t.lpWSPCloseSocket(n->s, &e) == 0);
	if (n->listener)
		must(t.lpWSPCloseSocket(n->listener, &e) == 0);
	n->s = n->listener = 0;
	memory_free(n);
}

static void close_both(void)
{
	close_end(&a);
	close_end(&b);
	must(!mapped("wsd-test-remote"));
}

/* --- offers --- */

Test(offer, waits_for_welcome_and_says_all, .timeout = 60)
{
	with_daemon(WSD_CAP_REATTACH | WSD_CAP_SAN);
	d.silent = true;
	connecting(&a, WSD_CONNECT_SAN);
	turns();
	cr_assert_eq(d.n_offers_san + d.n_offers, 0);
	d.silent = false;
	fake_daemon_welcome(&d, 0);
	turns();
	cr_assert_eq(d.n_offers, 0);
	cr_assert_eq(d.n_offers_san, 1);
	cr_assert_eq(d.offer_san[0].m.offer.flags, 0);
	cr_assert_eq(d.offer_san[0].m.offer.fd, tcp[0]);
	cr_assert_eq(d.offer_san[0].m.offer.role, WSD_ROLE_CONNECT);
	cr_assert(d.offer_san[0].m.n_tx == 2 && d.offer_san[0].m.n_rx == 1);
	cr_assert(d.offer_san[0].m.tx[1].h[1] == 0x77 && d.offer_san[0].m.rx[0].h[0] == 0x88);
	expecting(&b, WSD_CONNECT_SAN | WSD_CONNECT_FORCE);
	turns();
	cr_assert_eq(d.n_offers_san, 2);
	cr_assert_eq(d.offer_san[1].m.offer.flags, WSD_SAN_FORCE);
	cr_assert_eq(d.offer_san[1].m.offer.role, WSD_ROLE_ACCEPT);
	close_both();
	done();
}

Test(offer, plain_to_a_daemon_that_knows_no_rdma, .timeout = 60)
{
	with_daemon(WSD_CAP_REATTACH);
	connecting(&a, WSD_CONNECT_SAN | WSD_CONNECT_FORCE);
	turns();
	cr_assert_eq(d.n_offers, 1);
	cr_assert_eq(d.offer[0].m.flags, 0);
	close_both();
	done();
}

Test(offer, plain_unless_asked_for, .timeout = 60)
{
	with_daemon(WSD_CAP_REATTACH | WSD_CAP_SAN);
	connecting(&a, 0);
	turns();
	cr_assert_eq(d.n_offers, 1);
	cr_assert_eq(d.n_offers_san, 0);
	close_both();
	done();
}

Test(offer, arguments, .timeout = 60)
{
	struct wsd_connect_data x;
	struct wsd_expect y;
	SOCKET s, l;
	INT e;

	with_daemon(WSD_CAP_SAN);
	s = new_bound(tcp[0]);
	l = new_listener(tcp[1], &b.ev);
	for (int i = 0; i < 3; i++) {
		x = san_data(tcp[0], i == 0 ? 4 : WSD_CONNECT_SAN);
		x.n_tx = i == 1 ? WSD_DIGESTS + 1 : 0;
		x.n_rx = i == 2 ? WSD_DIGESTS + 1 : 0;
		cr_assert_eq(connect_with(s, &x), WSAEINVAL, "%d", i);
		y = expectation(tcp[1], 1);
		y.data = x;
		cr_assert_eq(t.lpWSPIoctl(l, SIO_WSD_EXPECT, &y, sizeof(y), NULL, 0, NULL, NULL, NULL, NULL, &e), SOCKET_ERROR);
		cr_assert_eq(e, WSAEINVAL, "%d", i);
	}
	t.lpWSPCloseSocket(s, &e);
	t.lpWSPCloseSocket(l, &e);
	done();
}

Test(offer, forced_by_the_catalog_or_the_environment, .timeout = 60)
{
	with_daemon(WSD_CAP_SAN);
	cr_assert_not(control.forced());
	control.set_options("transport=verbsy xtransport=verbs");
	cr_assert_not(control.forced());
	control.set_options("x transport=verbs");
	cr_assert(control.forced());
	connecting(&a, WSD_CONNECT_SAN);
	turns();
	cr_assert_eq(d.offer_san[0].m.offer.flags, WSD_SAN_FORCE);
	close_both();
	end();
	setenv("WSD_TRANSPORT", "verbs", 1);
	begin();
	cr_assert(control.forced());
	done();
}

Test(offer, answered_with_memory_of_this_host, .timeout = 60)
{
	WSDSHAREDRING ring = { .size = sizeof(ring) };
	struct wsd_msg_session m = { .session_id = 5, .length = wsd_session_length(WSD_RING_MIN), .ring_size = WSD_RING_MIN };
	WSDPUTROAD road = { .size = sizeof(road) };
	int mem = fake_session_new(WSD_RING_MIN, 5);
	INT e;

	with_daemon(WSD_CAP_SAN);
	connecting(&a, WSD_CONNECT_SAN);
	turns();
	say(&a, WSD_MSG_SESSION, &m, sizeof(m), mem);
	cr_assert_eq(turns(), 1);
	cr_assert_eq(connect_result(&a), 0);
	cr_assert_eq(put_with_signal(a.s, &road, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEOPNOTSUPP);
	cr_assert_eq(shared_ring(a.s, &ring, &e), 0);
	cr_assert_eq(d.n_attached, 1);
	close(mem);
	close_both();
	done();
}

Test(offer, refused, .timeout = 60)
{
	with_daemon(WSD_CAP_SAN);
	connecting(&a, WSD_CONNECT_SAN);
	turns();
	say_refused(&a, WSD_MSG_REFUSED, WSD_R_NO_PEER);
	cr_assert_eq(turns(), 1);
	cr_assert_eq(connect_result(&a), WSAETIMEDOUT);
	cr_assert_eq(control.socket_reason(a.s), WSD_R_NO_PEER);
	close_both();
	cr_assert_eq(d.n_withdraws, 0);
	done();
}

/* --- a connection --- */

/* bytes of one end's ring, at their place at the other end's */
static void put(struct end *from, struct end *to, const char *text, uint32_t n)
{
	uint64_t at = atomic_load(&from->mem->posted), head;
	double until = now() + 10;
	uint64_t changed[4];

	memcpy((char *)from->road.base + from->mem->off_tx0 + (at & (RING0 - 1)), text, n);
	must(from->road.hold(from->road.conn, 2) == 0);
	atomic_store(&from->mem->posted, at + n);
	must(from->road.put(from->road.conn, 0, at, n) == 0);
	from->road.release(from->road.conn);
	do {
		control.drain(changed, 4);
		head = atomic_load(&to->road.state->head);
	} while (head != at + n && now() < until);
	must(head == at + n);
	must(atomic_load(&to->mem->head) == at + n);
	must(memcmp((char *)to->road.base + to->mem->off_rx0 + (at & (RING0 - 1)), text, n) == 0);
}

Test(road, bytes_go_both_ways, .timeout = 60)
{
	WSDSHAREDRING ring = { .size = sizeof(ring) };
	INT e;

	with_daemon(WSD_CAP_SAN);
	connected();
	cr_assert_eq(a.road.length, a.setup.length);
	cr_assert_eq(a.road.session_id, a.setup.session_id);
	cr_assert_eq(((struct wsd_remote *)a.road.base)->side, 0);
	cr_assert_eq(shared_ring(a.s, &ring, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEOPNOTSUPP);
	cr_assert_eq(d.n_attached, 0, "READY has said it");
	put(&a, &b, "to and", 6);
	put(&b, &a, "fro", 3);
	put(&a, &b, "again", 5);
	close_both();
	done();
}

Test(road, wrong_uses, .timeout = 60)
{
	WSDPUTROAD road = { .size = sizeof(road) - 1 };
	char byte = 0;
	WSABUF buf = { 1, &byte };
	WSAOVERLAPPED ov = { .hEvent = (WSAEVENT)1 };
	DWORD n = 0;
	INT e;

	with_daemon(WSD_CAP_SAN);
	connected();
	cr_assert_eq(put_with_signal(a.s, &road, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEINVAL);
	road.size = sizeof(road);
	cr_assert_eq(put_with_signal(b.listener, &road, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAENOTCONN);
	cr_assert_eq(put_with_signal(4711, &road, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAENOTSOCK);
	cr_assert_eq(t.lpWSPSend(a.s, &buf, 1, &n, 0, &ov, NULL, NULL, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEOPNOTSUPP);
	cr_assert_eq(reg_rdma(a.s, &byte, 1, MEM_READ, NULL, &n, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEOPNOTSUPP);
	close_both();
	done();
}

static int ask(SOCKET s, uint32_t size, uint32_t what, uint64_t x, uint64_t y)
{
	struct wsd_san_ask q = { size, what, x, y };
	INT e = 0;

	return t.lpWSPIoctl(s, SIO_WSD_SAN_ASK, &q, sizeof(q), NULL, 0, NULL, NULL, NULL, NULL, &e) ? e : 0;
}

Test(road, questions_go_to_the_daemon, .timeout = 60)
{
	struct wsd_san_ask q;
	INT e;

	with_daemon(WSD_CAP_SAN);
	connected();
	cr_assert_eq(ask(a.s, sizeof(q), WSD_SAN_FILL, 10, 20), 0);
	fake_daemon_pump(&d);
	cr_assert_eq(d.n_asks, 1);
	cr_assert(d.ask[0].what == WSD_SAN_FILL && d.ask[0].a == 10 && d.ask[0].b == 20);
	cr_assert_eq(d.ask[0].session_id, a.setup.session_id);
	cr_assert_eq(d.ask[0].hdr.cookie, offer_of(&a)->m.offer.hdr.cookie);
	cr_assert_eq(ask(a.s, sizeof(q) - 1, WSD_SAN_FILL, 0, 0), WSAEINVAL);
	cr_assert_eq(ask(a.s, sizeof(q), 0, 0, 0), WSAEINVAL);
	cr_assert_eq(ask(a.s, sizeof(q), _WSD_SAN_N, 0, 0), WSAEINVAL);
	cr_assert_eq(ask(b.listener, sizeof(q), WSD_SAN_END, 0, 0), WSAENOTCONN);
	cr_assert_eq(ask(4711, sizeof(q), WSD_SAN_END, 0, 0), WSAENOTSOCK);
	cr_assert_eq(t.lpWSPIoctl(a.s, SIO_WSD_SAN_ASK, &q, sizeof(q) - 1, NULL, 0, NULL, NULL, NULL, NULL, &e), SOCKET_ERROR);
	cr_assert_eq(e, WSAEFAULT);
	say_plain(&a, WSD_MSG_SAN_LOOK);
	cr_assert_geq(control.progress(), 1);
	/* the session goes on without the daemon, and says so when asked */
	fake_daemon_stop(&d);
	control.progress();
	cr_assert_eq(ask(a.s, sizeof(q), WSD_SAN_END, 0, 0), WSAENETDOWN);
	put(&a, &b, "still", 5);
	close_both();
	end();
	close(tcp[0]);
	close(tcp[1]);
}

Test(road, the_end_is_told, .timeout = 60)
{
	double until = now() + 10;
	uint64_t x[4];

	with_daemon(WSD_CAP_SAN);
	connected();
	put(&a, &b, "bytes", 5);
	/* what is behind them is completed: so they are */
	cr_assert_eq(a.road.hold(a.road.conn, 1), 0);
	cr_assert_eq(a.road.fetch(a.road.conn, WSD_CTL_CREDIT), 0);
	a.road.release(a.road.conn);
	while (!atomic_load(&a.road.state->fetched) && now() < until)
		control.drain(x, 4);
	control.retire(a.s, WSD_R_NONE, 0);
	close_end(&a);
	fake_daemon_pump(&d);
	cr_assert_eq(d.n_asks, 1);
	cr_assert(d.ask[0].what == WSD_SAN_DRAINED && d.ask[0].a == 5);
	cr_assert_eq(d.n_withdraws, 1);
	/* bytes that were never completed: the daemon has to see to them */
	atomic_store(&b.mem->posted, 9);
	control.retire(b.s, WSD_R_NONE, 3);
	close_end(&b);
	fake_daemon_pump(&d);
	cr_assert_eq(d.n_asks, 1);
	cr_assert_eq(d.n_withdraws, 2);
	cr_assert_eq(d.withdraw[1].unread, 3);
	cr_assert(!mapped("wsd-test-remote"));
	done();
}

static void read_done(const struct end *e, uint32_t n)
{
	double until = now() + 10;
	uint64_t x[4];

	while (atomic_load(&e->road.state->reads) != n && now() < until)
		control.drain(x, 4);
	cr_assert_eq(atomic_load(&e->road.state->reads), n);
	cr_assert_eq(atomic_load(&e->road.state->error), 0);
}

/* what a peer keeps back is fetched without it; what it puts later all the same changes nothing */
Test(road, kept_back_bytes_are_pulled, .timeout = 60)
{
	uint64_t addr, x[4], *out, *in;
	uint32_t rkey, before;

	with_daemon(WSD_CAP_SAN);
	connected();
	out = (uint64_t *)((char *)b.road.base + WSD_REMOTE_PAGE + WSD_CTL_OUT);
	in = (uint64_t *)((char *)a.road.base + WSD_REMOTE_PAGE + WSD_CTL_IN);
	put(&b, &a, "12", 2);
	memcpy((char *)b.road.base + b.mem->off_tx0 + 2, "345", 3);
	out[4] = 42;
	cr_assert_eq(b.road.source(b.road.conn, 0, &addr, &rkey), 0);
	cr_assert_eq(b.road.source(b.road.conn, 1, &addr, &rkey), -EINVAL, "there is no ring 1");
	cr_assert_eq(b.road.source(b.road.conn, 2, &addr, &rkey), -EINVAL);
	cr_assert_eq(a.road.hold(a.road.conn, 2), 0);
	cr_assert_eq(a.road.read(a.road.conn, WSD_CTL_OUT, 72, WSD_CTL_IN), -EINVAL);
	cr_assert_eq(a.road.read(a.road.conn, WSD_CTL_OUT + 4, 8, WSD_CTL_IN), -EINVAL);
	cr_assert_eq(a.road.read(a.road.conn, WSD_REMOTE_PAGE - 8, 8, WSD_CTL_IN), -EINVAL);
	cr_assert_eq(a.road.read(a.road.conn, WSD_CTL_OUT, sizeof(struct wsd_remote_out), WSD_CTL_IN), 0);
	a.road.release(a.road.conn);
	read_done(&a, 1);
	cr_assert_eq(in[4], 42);
	cr_assert_eq(a.road.hold(a.road.conn, 2), 0);
	cr_assert_eq(a.road.pull(a.road.conn, 1, 2, 3, addr, rkey), -EINVAL, "there is no ring 1");
	cr_assert_eq(a.road.pull(a.road.conn, 2, 2, 3, addr, rkey), -EINVAL);
	cr_assert_eq(a.road.pull(a.road.conn, 0, 2, 0, addr, rkey), -EINVAL);
	cr_assert_eq(a.road.pull(a.road.conn, 0, 2, RING0 - 1, addr, rkey), -EINVAL, "over the ring's end");
	cr_assert_eq(a.road.pull(a.road.conn, 0, 2, 3, UINT64_MAX - 9, rkey), -EINVAL);
	cr_assert_eq(a.road.pull(a.road.conn, 0, 2, 3, addr, rkey), 0);
	a.road.release(a.road.conn);
	read_done(&a, 2);
	cr_assert_eq(atomic_load(&a.road.state->head), 5);
	cr_assert_eq(atomic_load(&a.mem->head), 5);
	cr_assert_eq(memcmp((char *)a.road.base + a.mem->off_rx0, "12345", 5), 0);
	/* while the next pull is under way */
	memcpy((char *)b.road.base + b.mem->off_tx0 + 5, "67", 2);
	cr_assert_eq(a.road.hold(a.road.conn, 2), 0);
	cr_assert_eq(a.road.pull(a.road.conn, 0, 5, 2, addr, rkey), 0);
	before = atomic_load(&a.road.state->changes);
	put(&b, &a, "345", 3);
	while (atomic_load(&a.road.state->changes) == before)
		control.drain(x, 4);
	cr_assert_eq(atomic_load(&a.road.state->error), 0);
	cr_assert_eq(atomic_load(&a.road.state->head), 5);
	a.road.release(a.road.conn);
	read_done(&a, 3);
	cr_assert_eq(atomic_load(&a.road.state->head), 7);
	put(&b, &a, "67", 2);
	put(&b, &a, "89", 2);
	cr_assert_eq(memcmp((char *)a.road.base + a.mem->off_rx0, "123456789", 9), 0);
	cr_assert_eq(atomic_load(&a.road.state->error), 0);
	close_both();
	done();
}

/* --- what goes wrong --- */

/* the offer of a came to nothing, b's still stands; of a nothing is left */
static void came_to_nothing(unsigned reason, bool told_the_daemon)
{
	unsigned w = d.n_withdraws;

	cr_assert_eq(connect_result(&a), WSAETIMEDOUT);
	cr_assert_eq(control.socket_reason(a.s), reason, "%u", control.socket_reason(a.s));
	cr_assert_not(b.ev.set);
	fake_daemon_pump(&d);
	cr_assert_eq(d.n_withdraws, w);
	cr_assert_eq(!w, !told_the_daemon);
	if (told_the_daemon) {
		cr_assert_eq(d.withdraw[w - 1].reason, reason, "%u", d.withdraw[w - 1].reason);
		cr_assert_eq(d.withdraw[w - 1].hdr.cookie, offer_of(&a)->m.offer.hdr.cookie);
	}
	memory_free(&a);
	cr_assert(!mapped("wsd-test-remote-a"), "memory is still mapped");
	close_both();
}

Test(setup, memory_that_is_not_what_the_message_says, .timeout = 60)
{
	for (int i = 0; i < 18; i++) {
		struct wsd_remote *m;

		with_daemon(WSD_CAP_SAN);
		offered();
		m = a.mem;
		switch (i) {
		case 0: m->magic++; break;
		case 1: m->version++; break;
		case 2: m->side ^= 1; break;
		case 3: m->session_id++; break;
		case 4: m->nonce++; break;
		case 5: m->length++; break;
		case 6: m->epoch++; break;
		case 7: m->ring0 *= 2; break;
		case 8: m->ring1_max *= 2; break;
		case 9: m->fill_max *= 2; break;
		case 10: m->off_ctl += 4096; break;
		case 11: m->off_rx0 += 4096; break;
		case 12: m->off_tx0 -= 4096; break;
		case 13: m->off_rx1++; break;
		case 14: m->off_tx1++; break;
		case 15: m->off_fill = 0; break;
		case 16: a.setup.side = m->side = 1; break;		/* that of the accepting end */
		case 17:						/* ring 1 smaller than ring 0 */
			memory_free(&a);
			ring1 = RING0 / 2;
			memory_new(&a, 0, 50);
			ring1 = 64 << 10;
			break;
		}
		say_setup(&a);
		cr_assert_eq(turns(), 1, "%d", i);
		came_to_nothing(i == 1 ? WSD_R_VERSION : WSD_R_PEER_BROKEN, true);	/* 1: the daemon is another build */
		done();
	}
}

Test(setup, not_asked_for, .timeout = 60)
{
	with_daemon(WSD_CAP_SAN);
	connecting(&a, 0);
	turns();
	d.offer_san[0].client = d.offer[0].client;
	d.offer_san[0].m.offer = d.offer[0].m;
	memory_new(&a, 0, 9);
	say_setup(&a);
	cr_assert_eq(turns(), 1);
	came_to_nothing(WSD_R_PEER_BROKEN, true);
	done();
}

/* step: how far a gets before something happens */
static void get_to(int step)
{
	offered();
	if (step >= 1) {
		say_setup(&a);
		say_setup(&b);
		turns();
	}
	if (step >= 2) {
		say_remote(&a, &d.local[1]);
		turns();
		cr_assert_eq(d.n_readies, 1);
	}
}

Test(setup, out_of_order, .timeout = 60)
{
	static const struct { int step; uint16_t type; bool other_session; } c[] = {
		{ 0, WSD_MSG_SAN_GO, false }, { 1, WSD_MSG_SAN_GO, false }, { 0, WSD_MSG_SAN_REMOTE, false },
		{ 2, WSD_MSG_SAN_REMOTE, false }, { 1, WSD_MSG_SAN_SETUP, false }, { 2, WSD_MSG_SAN_SETUP, false }, { 1, WSD_MSG_SAN_REMOTE, true }, { 2, WSD_MSG_SAN_GO, true },
	};

	for (unsigned i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
		struct wsd_msg_san_blob blob = { .len = 8 };

		with_daemon(WSD_CAP_SAN);
		get_to(c[i].step);
		if (c[i].step)
			blob = d.local[1];
		blob.session_id = a.setup.session_id + c[i].other_session;
		a.setup.session_id += c[i].other_session;
		if (c[i].type == WSD_MSG_SAN_SETUP)
			say_setup(&a);
		else if (c[i].type == WSD_MSG_SAN_REMOTE)
			say_remote(&a, &blob);
		else
			say_plain(&a, WSD_MSG_SAN_GO);
		cr_assert_eq(turns(), 1, "%u", i);
		came_to_nothing(WSD_R_PEER_BROKEN, true);
		done();
	}
}

Test(setup, a_blob_that_is_none, .timeout = 60)
{
	struct wsd_msg_san_blob blob = { .len = 8 };

	with_daemon(WSD_CAP_SAN);
	get_to(1);
	blob.session_id = a.setup.session_id;
	say_remote(&a, &blob);
	cr_assert_eq(turns(), 1);
	came_to_nothing(WSD_R_PEER_BROKEN, true);
	done();
}

Test(setup, refused_or_revoked_on_the_way, .timeout = 60)
{
	for (int i = 0; i < 5; i++) {
		with_daemon(WSD_CAP_SAN);
		get_to(i % 3);
		say_refused(&a, i < 3 ? WSD_MSG_REFUSED : WSD_MSG_REVOKED, WSD_R_NO_KEY);
		if (i == 3) {		/* revoked before it was set up: nothing to revoke */
			cr_assert_eq(turns(), 0);
			close_both();
		} else {
			cr_assert_eq(turns(), 1, "%d", i);
			came_to_nothing(WSD_R_NO_KEY, i >= 3);
		}
		done();
	}
	with_daemon(WSD_CAP_SAN);
	get_to(2);
	say_refused(&a, WSD_MSG_REVOKED, WSD_R_RDMA_FAILED);
	cr_assert_eq(turns(), 1);
	came_to_nothing(WSD_R_RDMA_FAILED, true);
	done();
}

Test(setup, daemon_dies_on_the_way, .timeout = 60)
{
	for (int i = 0; i < 3; i++) {
		INT e;

		with_daemon(WSD_CAP_SAN);
		get_to(i);
		fake_daemon_stop(&d);
		cr_assert_eq(control.progress(), 2);
		cr_assert_eq(connect_result(&a), WSAETIMEDOUT);
		cr_assert_eq(control.socket_reason(a.s), WSD_R_NO_DAEMON);
		cr_assert_eq(t.lpWSPAccept(b.listener, NULL, NULL, accept_all, 0, &e), INVALID_SOCKET);
		close_both();
		end();
		close(tcp[0]);
		close(tcp[1]);
	}
}

Test(setup, closed_on_the_way, .timeout = 60)
{
	for (int i = 0; i < 3; i++) {
		with_daemon(WSD_CAP_SAN);
		get_to(i);
		close_both();
		fake_daemon_pump(&d);
		cr_assert_eq(d.n_withdraws, 2);
		done();
	}
}

/* --- waiting --- */

static bool readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) == 1;
}

static bool listed(int fd)
{
	int fds[64], n = control.handles(fds, 64);

	for (int i = 0; i < n; i++)
		if (fds[i] == fd)
			return true;
	return false;
}

/* nothing waits any more, and the next completion will be told */
static void arm(void)
{
	uint64_t x[4];

	do
		while (control.drain(x, 4) > 0)
			;
	while (control.arm());
}

Test(wait, one_descriptor_for_completions_and_the_daemon, .timeout = 60)
{
	uint64_t x[4];
	unsigned gen;
	int fd, fds[1];

	with_daemon(WSD_CAP_SAN);
	cr_assert_eq(control.wait_fd(), -1);
	cr_assert_eq(control.drain(x, 4), 0);
	cr_assert_eq(control.arm(), 0);
	gen = control.handles_gen();
	connected();
	fd = control.wait_fd();
	cr_assert_geq(fd, 100, "%d is a number that programs meet", fd);
	cr_assert_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	cr_assert_neq(control.handles_gen(), gen);
	cr_assert(listed(fd) && listed(control.handle()));
	cr_assert_eq(control.handles(fds, 1), 1);
	cr_assert_eq(control.handles(fds, 0), 0);

	arm();
	cr_assert_not(readable(fd, 0));
	say_plain(&a, WSD_MSG_SAN_LOOK);
	cr_assert(readable(fd, 1000));
	cr_assert(readable(fd, 1000), "not level-triggered");
	turns();
	cr_assert_not(readable(fd, 0));

	cr_assert_eq(a.road.hold(a.road.conn, 1), 0);
	cr_assert_eq(a.road.nudge(a.road.conn), 0);
	a.road.release(a.road.conn);
	cr_assert(readable(fd, 5000), "the nudge wakes nobody");
	arm();
	cr_assert_not(readable(fd, 0));
	close_both();
	done();
}

Test(wait, a_new_connection_to_the_daemon_is_waited_for, .timeout = 60)
{
	double until = now() + 10;
	int fd, old, err;

	with_daemon(WSD_CAP_SAN);
	connected();
	fd = control.wait_fd();
	old = control.handle();
	/* the daemon is another one now, on a descriptor of the same number as likely as not */
	close(d.client[0].fd);
	d.client[0].fd = -1;
	cr_assert(readable(fd, 1000));
	turns();
	do {
		struct wsd_connect_data x = san_data(tcp[0], WSD_CONNECT_SAN);
		SOCKET s = new_bound(tcp[0]);

		err = connect_with(s, &x);
		t.lpWSPCloseSocket(s, &err);
		turns();
		poll(NULL, 0, 1);
	} while (control.handle() < 0 && now() < until);
	cr_assert_eq(control.handle(), old);
	turns();
	arm();
	cr_assert_not(readable(fd, 0));
	for (int i = 0; i < FAKE_CLIENTS; i++)
		if (d.client[i].fd >= 0) {
			struct wsd_msg_san_plain m = { .hdr = { sizeof(m), WSD_PROXY_VERSION, WSD_MSG_SAN_LOOK, 1 }, .session_id = 1 };

			fake_daemon_send(&d, i, &m, sizeof(m), -1);
		}
	cr_assert(readable(fd, 1000), "the new connection is not in it");
	cr_assert_eq(control.wait_fd(), fd);
	close_both();
	done();
}

Test(wait, subnets_as_the_daemon_has_them, .timeout = 60)
{
	struct wsd_subnet s[4];
	uint32_t gen = 1;

	with_daemon(WSD_CAP_SAN);
	cr_assert_eq(control.subnets(s, 4, &gen), 0);
	cr_assert_eq(gen, 0);
	connecting(&a, 0);
	turns();
	d.client[0].page->subnet[0] = (struct wsd_subnet){ .ip = { 10, 7 }, .family = AF_INET, .prefix = 16 };
	atomic_store(&d.client[0].page->n_subnets, 1);
	atomic_store(&d.client[0].page->san_gen, 5);
	cr_assert_eq(control.subnets(s, 4, &gen), 1);
	cr_assert_eq(gen, 5);
	cr_assert(s[0].prefix == 16 && s[0].ip[1] == 7);
	close_both();
	done();
}

/* --- processes --- */

static void in_child(void (*f)(void))
{
	int status;
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (!pid) {
		is_child = true;
		control.after_fork();
		f();
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
}

static void child_of_a_connection(void)
{
	struct wsd_remote *m = a.road.base;
	uint64_t x[4];
	INT e;

	must(control.wait_fd() == -1);
	must(control.drain(x, 4) == 0);
	must(a.road.hold(a.road.conn, 1) < 0);
	must(m->magic == WSD_REMOTE_MAGIC);		/* what has arrived is still there to be read */
	must(!memcmp((char *)b.road.base + m->off_rx0, "before", 6));
	must(ask(a.s, sizeof(struct wsd_san_ask), WSD_SAN_END, 0, 0) == WSAENETDOWN);
	control.retire(a.s, WSD_R_NONE, 0);
	must(!t.lpWSPCloseSocket(a.s, &e));
	must(!t.lpWSPCloseSocket(b.s, &e));
	must(control.progress() >= 0);
}

Test(fork, the_child_posts_nothing_and_says_nothing, .timeout = 60)
{
	unsigned fds;

	with_daemon(WSD_CAP_SAN);
	connected();
	put(&a, &b, "before", 6);
	fds = open_fds();
	in_child(child_of_a_connection);
	cr_assert_eq(open_fds(), fds);
	fake_daemon_pump(&d);
	cr_assert_eq(d.n_withdraws + d.n_asks, 0);
	put(&a, &b, "after", 5);
	close_both();
	done();
}

static int child_gets;

static void child_on_the_way(void)
{
	INT e;

	must(control.progress() == 2);
	must(connect_result(&a) == WSAETIMEDOUT);
	must(control.socket_reason(a.s) == WSD_R_SHARED);
	must(t.lpWSPAccept(b.listener, NULL, NULL, accept_all, 0, &e) == INVALID_SOCKET);
	memory_free(&a);
	memory_free(&b);
	must(!mapped("wsd-test-remote"));
}

/* another thread of the parent was inside: the switch calls nothing else in such a child */
Test(fork, the_child_abandons, .timeout = 60)
{
	int fds[16], n, status;
	pid_t pid;

	with_daemon(WSD_CAP_SAN);
	connected();
	put(&a, &b, "before", 6);
	n = control.handles(fds, 16);
	cr_assert_geq(n, 5);
	pid = fork();
	if (!pid) {
		is_child = true;
		control.abandon();
		for (int i = 0; i < n; i++)
			must(fcntl(fds[i], F_GETFD) == -1);
		must(a.road.hold(a.road.conn, 1) < 0);
		must(!memcmp((char *)b.road.base + ((struct wsd_remote *)b.road.base)->off_rx0, "before", 6));
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
	fake_daemon_pump(&d);
	cr_assert_eq(d.n_withdraws + d.n_asks, 0);
	put(&a, &b, "after", 5);
	close_both();
	done();
}

Test(fork, on_the_way, .timeout = 60)
{
	for (child_gets = 0; child_gets < 3; child_gets++) {
		with_daemon(WSD_CAP_SAN);
		get_to(child_gets);
		in_child(child_on_the_way);
		cr_assert_not(a.ev.set);
		close_both();
		done();
	}
}

static void child_makes_its_own(void)
{
	int fd;

	/* the parent's sessions are closed here first; the fake daemon is copied as well: a new one */
	close_both();
	fake_daemon_start(&d);
	d.caps = WSD_CAP_SAN;
	control.set_places(d.path, NULL);
	connected();
	fd = control.wait_fd();
	must(fd >= 0 && listed(fd));
	put(&a, &b, "child", 5);
	close_both();
	must(!t.lpWSPCleanup(&(INT){ 0 }));
	fake_daemon_stop(&d);
}

Test(fork, the_child_makes_its_own, .timeout = 60)
{
	with_daemon(WSD_CAP_SAN);
	connected();
	in_child(child_makes_its_own);
	put(&a, &b, "parent", 6);
	close_both();
	done();
}
