/* SPDX-License-Identifier: MIT */
/*
 * road.c - two processes put bytes into each other's memory over RDMA, driving the provider as the switch does
 *
 * road listen|connect ADDRESS PORT BYTES, with WSD_PROXY_SOCKET and the provider's file in WSD_SAN_SO. The connecting end sends BYTES through
 * the ring, then the listening one; each byte is checked. Both sleep on the provider's descriptor, never longer than a second, and
 * say how often they slept in vain. Exit: 0, or 1 with a line on stderr.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <wsd/remote_session.h>
#include <wsd/san_ext.h>

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

#define SECONDS 60

static WSPPROC_TABLE wsp;
static WSDCONTROL control;
static LPFN_WSDPUTWITHSIGNAL put_with_signal;
static const char *who;
static bool event_set;

static _Noreturn void __attribute__((format(printf, 1, 2))) die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "road %s: ", who);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

/* ---- a switch that can do very little ---- */

static SOCKET up_create(DWORD entry, DWORD_PTR context, LPINT e)
{
	static SOCKET n;

	return n += 2;
}

static int up_close(SOCKET s, LPINT e)
{
	return 0;
}

static BOOL up_set(WSAEVENT e, LPINT err)
{
	event_set = true;
	return TRUE;
}

static BOOL up_reset(WSAEVENT e, LPINT err)
{
	event_set = false;
	return TRUE;
}

static int up_complete(SOCKET s, LPWSAOVERLAPPED ov, DWORD error, DWORD bytes, LPINT e)
{
	return 0;
}

static WSPUPCALLTABLEEX upcalls = {
	.lpWPUCloseSocketHandle = up_close, .lpWPUCreateSocketHandle = up_create, .lpWPUResetEvent = up_reset,
	.lpWPUSetEvent = up_set, .lpWPUCompleteOverlappedRequest = up_complete,
};

static void extension(GUID id, void *ret)
{
	DWORD n;
	INT e;

	if (wsp.lpWSPIoctl(INVALID_SOCKET, SIO_GET_EXTENSION_FUNCTION_POINTER, &id, sizeof(id), ret, sizeof(void *), &n, NULL,
			   NULL, NULL, &e))
		die("extension: %d", e);
}

static void load(void)
{
	WSAPROTOCOL_INFOW tcp = { .iAddressFamily = AF_INET, .iSocketType = SOCK_STREAM, .iProtocol = IPPROTO_TCP };
	const char *file = getenv("WSD_SAN_SO");
	void *so = dlopen(file ? file : "", RTLD_NOW | RTLD_LOCAL);
	LPFN_WSDCONTROL get_control;
	LPWSPSTARTUPEX startup;
	WSPDATA data;
	INT e;

	if (!so)
		die("%s", dlerror());
	startup = (LPWSPSTARTUPEX)dlsym(so, "WSPStartupEx");
	if (!startup || startup(0x0202, &data, &tcp, &upcalls, &wsp))
		die("the provider does not start");
	extension((GUID)WSAID_WSDCONTROL, &get_control);
	extension((GUID)WSAID_WSDPUTWITHSIGNAL, &put_with_signal);
	control.size = sizeof(control);
	if (get_control(&control, &e))
		die("control: %d", e);
}

/* ---- TCP ---- */

static void all(int fd, void *p, size_t n, bool out)
{
	for (size_t at = 0; at < n;) {
		ssize_t r = out ? send(fd, (char *)p + at, n - at, MSG_NOSIGNAL) : recv(fd, (char *)p + at, n - at, 0);

		if (r <= 0)
			die("TCP: %s", r ? strerror(errno) : "the other end is gone");
		at += (size_t)r;
	}
}

static int tcp_open(const char *address, int port, bool listens)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, l;

	if (inet_pton(AF_INET, address, &a.sin_addr) != 1 || fd < 0)
		die("address");
	if (!listens) {
		if (connect(fd, (void *)&a, sizeof(a)))
			die("connect: %s", strerror(errno));
		return fd;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (void *)&a, sizeof(a)) || listen(fd, 1))
		die("listen: %s", strerror(errno));
	l = fd;
	alarm(SECONDS);
	fd = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	alarm(0);
	if (fd < 0)
		die("accept: %s", strerror(errno));
	close(l);
	return fd;
}

/* byte i of the stream of one direction */
static uint8_t byte_at(uint64_t i, bool listens)
{
	uint64_t h = (i + (listens ? 1ull << 40 : 0)) * 0x9e3779b97f4a7c15ull;

	return (uint8_t)(h >> 56 ^ h >> 17);
}

/* any digest does, if both ends take the same */
static struct wsd_digest digest(const uint8_t *p, size_t n)
{
	struct wsd_digest d = { { 14695981039346656037ull, n } };

	for (size_t i = 0; i < n; i++)
		d.h[0] = (d.h[0] ^ p[i]) * 1099511628211ull;
	return d;
}

static void begin_stream(int fd, bool listens, struct wsd_connect_data *d)
{
	static const size_t lengths[WSD_DIGESTS] = { 16, 64, 256 };
	uint8_t tx[256], rx[256];
	socklen_t len = sizeof(d->sock_cookie);

	for (size_t i = 0; i < sizeof(tx); i++)
		tx[i] = byte_at(i, listens);
	all(fd, tx, sizeof(tx), true);
	all(fd, rx, sizeof(rx), false);
	*d = (struct wsd_connect_data){ .size = sizeof(*d), .fd = fd, .context = 1, .flags = WSD_CONNECT_SAN | WSD_CONNECT_FORCE,
					.n_tx = WSD_DIGESTS, .n_rx = WSD_DIGESTS };
	getsockopt(fd, SOL_SOCKET, SO_COOKIE, &d->sock_cookie, &len);
	for (unsigned i = 0; i < WSD_DIGESTS; i++) {
		d->tx[i] = digest(tx, lengths[i]);
		d->rx[i] = digest(rx, lengths[i]);
	}
}

/* ---- the SAN socket ---- */

static int accept_all(LPWSABUF x, LPWSABUF y, LPQOS q, LPQOS gq, LPWSABUF z, LPWSABUF w, GROUP *g, DWORD_PTR ctx)
{
	return CF_ACCEPT;
}

static void await(const char *what)
{
	double end = now() + SECONDS;

	while (!event_set) {
		control.progress();
		if (now() > end)
			die("%s: no answer; provider's reason %u", what, control.reason());
		poll(NULL, 0, 2);
	}
}

static SOCKET san_open(int fd, bool listens, const struct wsd_connect_data *d)
{
	struct sockaddr_in local, remote;
	socklen_t len = sizeof(local);
	WSANETWORKEVENTS ne;
	SOCKET s, c;
	int token;
	INT e = 0;

	getsockname(fd, (void *)&local, &len);
	getpeername(fd, (void *)&remote, &len);
	s = wsp.lpWSPSocket(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED, &e);
	if (s == INVALID_SOCKET || wsp.lpWSPBind(s, (void *)&local, sizeof(local), &e))
		die("socket: %d", e);
	if (listens) {
		struct wsd_expect x = { .data = *d, .family = AF_INET, .local_port = ntohs(local.sin_port),
					.remote_port = ntohs(remote.sin_port) };

		memcpy(x.local_ip, &local.sin_addr, 4);
		memcpy(x.remote_ip, &remote.sin_addr, 4);
		if (wsp.lpWSPListen(s, 5, &e) || wsp.lpWSPEventSelect(s, &token, FD_ACCEPT, &e) ||
		    wsp.lpWSPIoctl(s, SIO_WSD_EXPECT, &x, sizeof(x), NULL, 0, NULL, NULL, NULL, NULL, &e))
			die("expect: %d, reason %u", e, control.reason());
		await("expect");
		c = wsp.lpWSPAccept(s, NULL, NULL, accept_all, 0, &e);
		if (c == INVALID_SOCKET)
			die("accept: %d, reason %u", e, control.socket_reason(s));
		return c;
	}
	WSABUF b = { sizeof(*d), (char *)d };

	wsp.lpWSPEventSelect(s, &token, FD_CONNECT, &e);
	if (!wsp.lpWSPConnect(s, (void *)&remote, sizeof(remote), &b, NULL, NULL, NULL, &e) || e != WSAEWOULDBLOCK)
		die("connect: %d, reason %u", e, control.reason());
	await("connect");
	if (wsp.lpWSPEnumNetworkEvents(s, &token, &ne, &e) || ne.iErrorCode[FD_CONNECT_BIT])
		die("connect came to nothing: reason %u", control.socket_reason(s));
	return s;
}

/* ---- the road ---- */

static WSDPUTROAD road;
static unsigned sleeps, in_vain;

/* until something may have changed, at most a second */
static void rest(bool (*ready)(void))
{
	uint64_t changed[8];
	struct pollfd p = { .fd = control.wait_fd(), .events = POLLIN };

	if (control.drain(changed, 8) || ready())
		return;
	if (control.arm() || ready())
		return;
	sleeps++;
	if (!poll(&p, 1, 1000)) {
		control.drain(changed, 8);
		in_vain += ready();	/* it was there, and nobody was woken */
	} else {
		control.progress();
		control.drain(changed, 8);
	}
	if (atomic_load(&road.state->error))
		die("the road broke: %d", atomic_load(&road.state->error));
}

static void held(unsigned n)
{
	double end = now() + SECONDS;
	uint64_t changed[8];
	int r;

	while ((r = road.hold(road.conn, n)) == 1) {
		control.drain(changed, 8);
		control.progress();
		if (now() > end)
			die("hold: not for %d s", SECONDS);
	}
	if (r)
		die("hold: %d", r);
}

/* a word that does not fit is torn: the one before counts */
static uint64_t cursor(void)
{
	static uint64_t last;
	const struct wsd_remote *m = road.base;
	const volatile struct wsd_remote_ctl *c = (void *)((char *)road.base + WSD_REMOTE_PAGE);
	uint64_t w[2] = { c->credit.cursor, c->credit.flags }, check = c->credit.check;

	if (check == wsd_remote_check(m->nonce, WSD_CTL_CREDIT, w, 2) && w[0] > last)
		last = w[0];
	return last;
}

static uint64_t known;		/* cursor, or head, as it was looked at last */

static bool more_room(void)
{
	return cursor() > known;
}

static void send_all(uint64_t n, bool listens)
{
	struct wsd_remote *m = road.base;
	uint8_t *ring = (uint8_t *)road.base + m->off_tx0;
	uint64_t posted = 0;
	double end = now() + SECONDS;

	while (posted < n) {
		uint64_t c = cursor(), room = m->ring0 - (posted - c), step = n - posted;

		if (c > posted)
			die("a cursor ahead of the bytes");
		step = step < room ? step : room;
		step = step < 3000 ? step : 3000;
		if (!step) {
			known = c;
			rest(more_room);
			if (now() > end)
				die("%lu of %lu bytes sent, cursor %lu", posted, n, c);
			continue;
		}
		for (uint64_t i = 0; i < step; i++)
			ring[(posted + i) & (m->ring0 - 1)] = byte_at(posted + i, listens);
		held(2);
		atomic_store(&m->posted, posted + step);
		if (road.put(road.conn, 0, posted, (uint32_t)step))
			die("put: %d", atomic_load(&road.state->error));
		road.release(road.conn);
		posted += step;
	}
}

static bool more_bytes(void)
{
	return atomic_load(&road.state->head) > known;
}

static void credit(uint64_t taken)
{
	const struct wsd_remote *m = road.base;
	uint64_t w[3] = { taken, 0 };

	w[2] = wsd_remote_check(m->nonce, WSD_CTL_CREDIT, w, 2);
	held(2);
	if (road.word(road.conn, WSD_CTL_CREDIT, w, sizeof(w)) || road.nudge(road.conn))
		die("credit: %d", atomic_load(&road.state->error));
	road.release(road.conn);
}

static void receive_all(uint64_t n, bool from_listener)
{
	struct wsd_remote *m = road.base;
	const uint8_t *ring = (uint8_t *)road.base + m->off_rx0;
	uint64_t taken = 0;
	double end = now() + SECONDS;

	while (taken < n) {
		uint64_t head = atomic_load(&road.state->head);

		if (head - taken > m->ring0 || head > n)
			die("head %lu, taken %lu", head, taken);
		if (head == taken) {
			known = taken;
			rest(more_bytes);
			if (now() > end)
				die("%lu of %lu bytes received", taken, n);
			continue;
		}
		for (; taken < head; taken++)
			if (ring[taken & (m->ring0 - 1)] != byte_at(taken, from_listener))
				die("byte %lu is wrong", taken);
		atomic_store(&m->taken, taken);
		credit(taken);
	}
}

/* all that was posted has been executed when a fetch behind it is back */
static uint32_t fetches;

static bool fetched(void)
{
	return atomic_load(&road.state->fetched) != fetches;
}

static void fetch(void)
{
	double end = now() + SECONDS;

	fetches = atomic_load(&road.state->fetched);
	held(1);
	if (road.fetch(road.conn, WSD_CTL_CREDIT))
		die("fetch");
	road.release(road.conn);
	while (!fetched()) {
		rest(fetched);
		if (now() > end)
			die("the fetch does not come back");
	}
}

int main(int argc, char **argv)
{
	struct wsd_connect_data d;
	bool listens;
	uint64_t n;
	char word = 0;
	SOCKET s;
	int fd;
	INT e;

	if (argc != 5)
		return 2;
	who = argv[1];
	listens = strcmp(who, "listen") == 0;
	n = strtoull(argv[4], NULL, 0);
	load();
	fd = tcp_open(argv[2], atoi(argv[3]), listens);
	begin_stream(fd, listens, &d);
	s = san_open(fd, listens, &d);
	road.size = sizeof(road);
	road.context = 1;
	if (put_with_signal(s, &road, &e))
		die("no put road: %d", e);
	if (listens) {
		receive_all(n, false);
		fetch();
		all(fd, &word, 1, true);
		send_all(n, true);
		fetch();
		all(fd, &word, 1, false);
	} else {
		send_all(n, false);
		fetch();
		all(fd, &word, 1, false);
		receive_all(n, true);
		fetch();
		all(fd, &word, 1, true);
	}
	printf("%s: %lu bytes each way, depth %u, inline %u, %s, slept %u times, %u of them in vain\n", who, n, road.depth,
	       road.inline_max, road.caps & WSD_ROAD_SOFT ? "software" : "hardware", sleeps, in_vain);
	if (in_vain)
		die("a wake-up was lost");
	control.retire(s, WSD_R_NONE, 0);
	wsp.lpWSPCloseSocket(s, &e);
	wsp.lpWSPCleanup(&e);
	return 0;
}
