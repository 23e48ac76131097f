/* SPDX-License-Identifier: MIT */
/*
 * ctl.c - the switch's dealings with SAN service providers (WSD: choice of provider, companion sockets)
 *
 * The provider is known by its WSP table alone, loaded through the catalog at the first connection worth offering, never at
 * start-up. The connecting end's companion is made by WSPSocket, WSPBind, WSPConnect; the accepting end's by
 * WSPListen, SIO_WSD_EXPECT and WSPAccept (san_ext.h). Answers come later: a call of ours looks at one word (ctl_look) and, if it has moved, lets
 * the provider raise its events here.
 *
 * ctl_lock serialises all of it. It is only ever tried, never from below a signal handler; what could not be done now is
 * done at a later call. Nothing here blocks, and failing means that the stream stays on TCP, with a reason.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <wsd/catalog.h>
#include <wsd/san_ext.h>

#include "wsd_switch/core/agreed.h"
#include "wsd_switch/core/proof.h"
#include "wsd_switch/core/switch.h"

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

#define LISTENERS_MAX	256
#define ADDRS_MAX	64
#define LATE_MAX	1024
#define RETRY_MAX_S	60u

const _Atomic uint32_t *_Atomic ctl_word;
_Atomic uint32_t ctl_seen;
_Atomic uint32_t ctl_waiting;
_Atomic uint32_t ctl_san_gen;

struct listener {
	SOCKET san;
	struct wsd_addr local;
	bool ev_on;
};

static _Atomic uint32_t ctl_lock;
static enum { PROV_NONE, PROV_OK, PROV_FAILED } prov;
static uint32_t prov_why = WSD_R_NO_PROVIDER;
static WSPPROC_TABLE wsp;
static WSDCONTROL control;
static LPFN_WSDSHAREDRING shared_ring;
static LPFN_WSDPUTWITHSIGNAL put_with_signal;	/* NULL: none */
static struct listener listeners[LISTENERS_MAX];
static unsigned n_listeners;
static struct conn *events;
static struct wsd_addr addrs[ADDRS_MAX];
static unsigned n_addrs;
static uint64_t addrs_when, look_when;
static SOCKET late[LATE_MAX];
static unsigned n_late;
static bool fork_got;

/* ---- up-calls ---- */

static BOOL WSPAPI up_set_event(WSAEVENT e, LPINT err)
{
	struct listener *l = (struct listener *)e;
	struct conn *c = (struct conn *)e;

	if (l >= listeners && l < listeners + LISTENERS_MAX) {
		l->ev_on = true;
	} else if (c && !c->ev_on) {
		c->ev_on = true;
		c->ev_next = events;
		events = c;
	}
	return 1;
}

static BOOL WSPAPI up_reset_event(WSAEVENT e, LPINT err)
{
	return 1;
}

/* The switch's handle for a companion is the context it came with: we look companions up by conn. */
static SOCKET WSPAPI up_create_handle(DWORD id, DWORD_PTR context, LPINT err)
{
	return context ? (SOCKET)context : 1;
}

static int WSPAPI up_close_handle(SOCKET s, LPINT err)
{
	return 0;
}

static int WSPAPI up_query_context(SOCKET s, PDWORD_PTR context, LPINT err)
{
	*context = s;
	return 0;
}

static int WSPAPI up_complete(SOCKET s, LPWSAOVERLAPPED o, DWORD error, DWORD bytes, LPINT err)
{
	if (o) {
		o->InternalHigh = bytes;
		o->Internal = 0;
	}
	return 0;
}

static WSPUPCALLTABLEEX upcalls = {
	.lpWPUSetEvent = up_set_event,
	.lpWPUResetEvent = up_reset_event,
	.lpWPUCreateSocketHandle = up_create_handle,
	.lpWPUCloseSocketHandle = up_close_handle,
	.lpWPUQuerySocketHandleContext = up_query_context,
	.lpWPUCompleteOverlappedRequest = up_complete,
};

/* ---- loading ---- */

static bool extension(const GUID *id, void *ret)
{
	DWORD n = 0;
	INT err = 0;

	return wsp.lpWSPIoctl(INVALID_SOCKET, SIO_GET_EXTENSION_FUNCTION_POINTER, (LPVOID)id, sizeof(*id), ret,
			      sizeof(void *), &n, NULL, NULL, NULL, &err) == 0 &&
	       *(void **)ret != NULL;
}

static bool start_provider(const struct wsd_provider *p)
{
	static const GUID ring_id = WSAID_WSDSHAREDRING, control_id = WSAID_WSDCONTROL, put_id = WSAID_WSDPUTWITHSIGNAL;
	LPWSPSTARTUPEX startup;
	LPFN_WSDCONTROL get_control;
	WSPDATA data;
	WSAPROTOCOL_INFOW tcpip;
	INT err = 0;
	void *so = dlopen(p->file, RTLD_NOW | RTLD_LOCAL);

	if (!so) {
		log_error("provider %s: %s", p->name, dlerror());
		return false;
	}
	*(void **)&startup = dlsym(so, "WSPStartupEx");
	if (!startup) {
		log_error("provider %s: %s exports no WSPStartupEx", p->name, p->file);
		goto no;
	}
	/* TCP/IP's entry, not its own, tells the provider that it runs under the switch */
	memset(&tcpip, 0, sizeof(tcpip));
	tcpip.iVersion = 2;
	tcpip.iAddressFamily = AF_INET;
	tcpip.iMaxSockAddr = tcpip.iMinSockAddr = sizeof(struct sockaddr_in);
	tcpip.iSocketType = SOCK_STREAM;
	tcpip.iProtocol = IPPROTO_TCP;
	tcpip.ProtocolChain.ChainLen = 1;
	memset(&wsp, 0, sizeof(wsp));
	err = startup(0x0202, &data, &tcpip, &upcalls, &wsp);
	if (err) {
		log_error("provider %s: WSPStartupEx failed with %d", p->name, err);
		goto no;
	}
	memset(&control, 0, sizeof(control));
	control.size = sizeof(control);
	if (!wsp.lpWSPIoctl || !wsp.lpWSPSocket || !wsp.lpWSPBind || !wsp.lpWSPConnect || !wsp.lpWSPListen ||
	    !wsp.lpWSPAccept || !wsp.lpWSPCloseSocket || !wsp.lpWSPEventSelect || !wsp.lpWSPEnumNetworkEvents ||
	    !extension(&ring_id, &shared_ring) || !extension(&control_id, &get_control) ||
	    get_control(&control, &err) != 0 || !control.progress || !control.notify_word) {
		log_error("provider %s: offers no shared ring; not usable by this switch yet", p->name);
		if (wsp.lpWSPCleanup)
			wsp.lpWSPCleanup(&err);
		goto no;
	}
	if (!control.drain || !control.arm || !control.wait_fd || !extension(&put_id, &put_with_signal))
		put_with_signal = NULL;
	if (control.set_places)
		control.set_places(cfg.daemon, cfg.runtime_dir);
	if (control.set_options)
		control.set_options(p->options);
	log_debug("provider %s started", p->name);
	return true;
no:
	dlclose(so);
	return false;
}

static bool wanted(const struct wsd_provider *p)
{
	char id[39];

	if (!p->listed)
		return false;
	if (!cfg.provider || !*cfg.provider)
		return true;
	wsd_guid_format(&p->info.ProviderId, id);
	return strcmp(p->name, cfg.provider) == 0 || strcasecmp(id, cfg.provider) == 0;
}

static void load(void)
{
	struct wsd_catalog_error err;
	struct wsd_provider *p;
	unsigned n = 0, i;
	int r;

	prov = PROV_FAILED;
	p = calloc(WSD_CATALOG_PROVIDERS, sizeof(*p));
	if (!p) {
		prov_why = WSD_R_NOMEM;
		return;
	}
	r = wsd_catalog_load(cfg.catalog ? cfg.catalog : WSD_CATALOG_PATH, p, WSD_CATALOG_PROVIDERS, &n, &err);
	if (r)
		log_error("catalog: %s", err.text);
	for (i = 0; !r && i < n && prov != PROV_OK; i++)
		if (wanted(&p[i]) && start_provider(&p[i]))
			prov = PROV_OK;
	free(p);
}

/* ---- addresses ---- */

static bool to_addr(const struct sockaddr_storage *ss, struct wsd_addr *a)
{
	memset(a, 0, sizeof(*a));
	a->family = ss->ss_family;
	if (ss->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)ss;

		a->port = ntohs(in->sin_port);
		memcpy(a->ip, &in->sin_addr, 4);
		return true;
	}
	if (ss->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)ss;

		a->port = ntohs(in->sin6_port);
		a->scope = in->sin6_scope_id;
		memcpy(a->ip, &in->sin6_addr, 16);
		return true;
	}
	return false;
}

static int to_sockaddr(const struct wsd_addr *a, struct sockaddr_storage *ss)
{
	memset(ss, 0, sizeof(*ss));
	ss->ss_family = a->family;
	if (a->family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)ss;

		in->sin_port = htons(a->port);
		memcpy(&in->sin_addr, a->ip, 4);
		return sizeof(*in);
	} else {
		struct sockaddr_in6 *in = (struct sockaddr_in6 *)ss;

		in->sin6_port = htons(a->port);
		in->sin6_scope_id = a->scope;
		memcpy(&in->sin6_addr, a->ip, 16);
		return sizeof(*in);
	}
}

/* the provider's table of addresses; asked again at most every 5 s when a peer is not in it */
static void refresh_addrs(void)
{
	union {
		SOCKET_ADDRESS_LIST l;
		char b[16384];
	} u;
	DWORD n = 0;
	INT err = 0, i;

	addrs_when = tsc_now();
	n_addrs = 0;
	if (wsp.lpWSPIoctl(INVALID_SOCKET, SIO_ADDRESS_LIST_QUERY, NULL, 0, &u, sizeof(u), &n, NULL, NULL, NULL,
			   &err) != 0)
		return;
	for (i = 0; i < u.l.iAddressCount && n_addrs < ADDRS_MAX; i++)
		if (to_addr((const struct sockaddr_storage *)u.l.Address[i].lpSockaddr, &addrs[n_addrs]))
			n_addrs++;
}

static bool same_ip(const struct wsd_addr *a, const struct wsd_addr *b)
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
	const uint8_t *p = a->ip, *q = b->ip;
	bool p4 = a->family == AF_INET, q4 = b->family == AF_INET;

	if (!p4 && memcmp(p, mapped, 12) == 0) {
		p += 12;
		p4 = true;
	}
	if (!q4 && memcmp(q, mapped, 12) == 0) {
		q += 12;
		q4 = true;
	}
	return p4 == q4 && memcmp(p, q, p4 ? 4 : 16) == 0;
}

static bool is_loopback(const struct wsd_addr *a)
{
	static const uint8_t mapped[13] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127 };

	if (a->family == AF_INET)
		return a->ip[0] == 127;
	return IN6_IS_ADDR_LOOPBACK((const struct in6_addr *)a->ip) || memcmp(a->ip, mapped, 13) == 0;
}

/* is the peer one that this provider reaches? (WSD's table of subnets) */
static bool reachable(const struct wsd_addr *local, const struct wsd_addr *remote)
{
	unsigned i;
	int again;

	if (is_loopback(remote) || same_ip(local, remote))
		return true;
	for (again = 0; again < 2; again++) {
		for (i = 0; i < n_addrs; i++)
			if (same_ip(&addrs[i], remote))
				return true;
		if (again || (addrs_when && tsc_now() - addrs_when < (uint64_t)US(5e6)))
			return false;
		refresh_addrs();
	}
	return false;
}

/* May RDMA reach it? While the daemon has not said, it is asked with the offer. */
static bool in_subnets(const struct wsd_addr *remote)
{
	struct wsd_subnet net[WSD_SUBNETS_MAX];
	uint32_t gen = 0;
	unsigned i, n;

	if (!put_with_signal || !control.subnets)
		return false;
	n = control.subnets(net, WSD_SUBNETS_MAX, &gen);
	if (gen == 0)
		return true;
	for (i = 0; i < n && i < WSD_SUBNETS_MAX; i++) {
		struct wsd_addr a = *remote;
		unsigned bits = net[i].prefix, k;

		if (a.family == AF_INET6 && net[i].family == AF_INET && IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)a.ip))
			memmove(a.ip, a.ip + 12, 4);
		else if (a.family != net[i].family)
			continue;
		if (bits > (net[i].family == AF_INET ? 32u : 128u))
			continue;
		k = bits / 8;
		if (memcmp(a.ip, net[i].ip, k) == 0 && (bits % 8 == 0 || (a.ip[k] ^ net[i].ip[k]) >> (8 - bits % 8) == 0))
			return true;
	}
	return false;
}

/* ---- offering ---- */

static int fd_of(struct conn *c)
{
	return conn_get(c->fd) == c ? c->fd : -1;
}

static struct listener *listener_for(const struct wsd_addr *local)
{
	struct sockaddr_storage ss;
	struct listener *l;
	unsigned i;
	INT err = 0;
	int n;

	for (i = 0; i < n_listeners; i++)
		if (memcmp(&listeners[i].local, local, sizeof(*local)) == 0)
			return &listeners[i];
	if (n_listeners == LISTENERS_MAX)
		return NULL;
	l = &listeners[n_listeners];
	memset(l, 0, sizeof(*l));
	l->local = *local;
	n = to_sockaddr(local, &ss);
	l->san = wsp.lpWSPSocket(local->family, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED, &err);
	if (l->san == INVALID_SOCKET)
		return NULL;
	if (wsp.lpWSPBind(l->san, (struct sockaddr *)&ss, n, &err) != 0 ||
	    wsp.lpWSPListen(l->san, WSD_WIN_SOMAXCONN, &err) != 0 ||
	    wsp.lpWSPEventSelect(l->san, (WSAEVENT)l, FD_ACCEPT, &err) != 0) {
		wsp.lpWSPCloseSocket(l->san, &err);
		return NULL;
	}
	n_listeners++;
	return l;
}

static void fill_expect(struct conn *c, int fd, struct wsd_expect *e)
{
	memset(e, 0, sizeof(*e));
	e->data.size = sizeof(e->data);
	e->data.fd = fd;
	e->data.sock_cookie = c->s->cookie;
	e->data.context = conn_id(c);
	e->data.flags = c->san_flags;
	e->data.n_tx = proof_digests(c, PROOF_TX, e->data.tx);
	e->data.n_rx = proof_digests(c, PROOF_RX, e->data.rx);
	e->family = c->local.family;
	e->local_port = c->local.port;
	e->remote_port = c->remote.port;
	memcpy(e->local_ip, c->local.ip, 16);
	memcpy(e->remote_ip, c->remote.ip, 16);
}

static bool offer_accepting(struct conn *c, int fd)
{
	struct listener *l = listener_for(&c->local);
	struct wsd_expect e;
	DWORD n = 0;
	INT err = 0;

	if (!l)
		return false;
	fill_expect(c, fd, &e);
	if (wsp.lpWSPIoctl(l->san, SIO_WSD_EXPECT, &e, sizeof(e), NULL, 0, &n, NULL, NULL, NULL, &err) != 0)
		return false;
	c->expected = true;
	return true;
}

static bool offer_connecting(struct conn *c, int fd)
{
	struct wsd_connect_data d = { .size = sizeof(d), .fd = fd, .sock_cookie = c->s->cookie, .context = conn_id(c),
				       .flags = c->san_flags };
	WSABUF caller = { .len = sizeof(d), .buf = (char *)&d };
	struct sockaddr_storage ss;
	INT err = 0;
	int n;

	d.n_tx = proof_digests(c, PROOF_TX, d.tx);
	d.n_rx = proof_digests(c, PROOF_RX, d.rx);
	c->san = wsp.lpWSPSocket(c->local.family, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED, &err);
	if (c->san == INVALID_SOCKET) {
		c->san = 0;
		return false;
	}
	n = to_sockaddr(&c->local, &ss);
	if (wsp.lpWSPBind(c->san, (struct sockaddr *)&ss, n, &err) != 0 ||
	    wsp.lpWSPEventSelect(c->san, (WSAEVENT)c, FD_CONNECT, &err) != 0)
		goto no;
	n = to_sockaddr(&c->remote, &ss);
	if (wsp.lpWSPConnect(c->san, (struct sockaddr *)&ss, n, &caller, NULL, NULL, NULL, &err) != 0 &&
	    err != WSAEWOULDBLOCK)
		goto no;
	return true;
no:
	wsp.lpWSPCloseSocket(c->san, &err);
	c->san = 0;
	return false;
}

static void hide(void);

/* a session that failed: soon again, then less and less often, until one holds; at once when devices or links have changed */
static void offer_later(struct conn *c, uint32_t why)
{
	c->retry_s = c->retry_s ? c->retry_s * 2 : 1;
	if (c->retry_s > RETRY_MAX_S)
		c->retry_s = RETRY_MAX_S;
	c->retry_at = tsc_now() + (uint64_t)US(c->retry_s * 1e6);
	c->retry_gen = atomic_load(&ctl_san_gen);
	c->offer_next = 0;
	atomic_store(&c->why, why);
	atomic_store(&c->stage, ST_NEW);
}

/*
 * Not now; TCP serves meanwhile, and after a few tries for good. Where there may be a session after one that failed it is a matter of time
 * instead: an old connection would have to carry as much again as it ever has.
 */
static void offer_lost(struct conn *c, uint32_t why)
{
	if (c->retry_at) {
		offer_later(c, why);
		return;
	}
	atomic_store(&c->why, why);
	c->offer_next = (atomic_load(&c->s->C) + atomic_load(&c->s->H) + 4096) * 2;
	atomic_store(&c->stage, ++c->lost >= 8 ? ST_TCP : ST_NEW);
}

static void offer(struct conn *c, int fd)
{
	struct side *s = c->s;
	struct sockaddr_storage a, b;
	socklen_t la = sizeof(a), lb = sizeof(b), lk = sizeof(s->cookie);
	bool ok;

	if (prov == PROV_NONE)
		load();
	if (prov != PROV_OK) {
		atomic_store(&c->why, prov_why);
		atomic_store(&c->stage, ST_TCP);
		return;
	}
	/* only a socket that no other process may hold gets a session made by us (proc.c) */
	if (atomic_load(&s->holders) > 1 && !proc_family_dead(s->created_gen)) {
		c->offer_next = (atomic_load(&s->C) + atomic_load(&s->H) + 4096) * 2;
		atomic_store(&c->why, WSD_R_SHARED);
		return;
	}
	if (real.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &s->cookie, &lk) < 0 || getsockname(fd, (void *)&a, &la) < 0 ||
	    getpeername(fd, (void *)&b, &lb) < 0 || !to_addr(&a, &c->local) || !to_addr(&b, &c->remote)) {
		atomic_store(&c->why, WSD_R_NOT_TCP);
		atomic_store(&c->stage, ST_TCP);
		return;
	}
	if (!opt_may_offer(c, fd)) {
		atomic_store(&c->stage, ST_TCP);
		return;
	}
	c->san_flags = 0;
	if (reachable(&c->local, &c->remote)) {
		if (put_with_signal && control.forced && control.forced())
			c->san_flags = WSD_CONNECT_SAN | WSD_CONNECT_FORCE;
	} else if (in_subnets(&c->remote)) {
		c->san_flags = WSD_CONNECT_SAN;
	} else {
		atomic_store(&c->why, WSD_R_NOT_LOCAL);
		atomic_store(&c->stage, ST_TCP);
		return;
	}
	atomic_store(&c->stage, ST_OFFERED);
	ok = c->role == WSD_ROLE_CONNECT ? offer_connecting(c, fd) : offer_accepting(c, fd);
	if (!ok) {
		offer_lost(c, control.reason && control.reason() ? control.reason() : WSD_R_NO_DAEMON);
		return;
	}
	atomic_store(&c->why, control.reason && control.reason() ? control.reason() : WSD_R_PEER_UNAWARE);
	hide();
	atomic_store(&ctl_word, control.notify_word());
	if (!atomic_load(&ctl_word))
		atomic_store(&ctl_waiting, 1);
}

/* ---- answers ---- */

static void publish_nagle(struct conn *c, int fd)
{
	int v = 0;
	socklen_t l = sizeof(v);

	if (real.getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &l) == 0 && !v)
		atomic_fetch_or(&c->rx->yflags, WSD_Y_NAGLE);
}

static void drop_san(struct conn *c, uint32_t why)
{
	SOCKET s = c->san;
	INT err = 0;

	c->san = 0;
	if (!s)
		return;
	if (control.retire)
		control.retire(s, why, 0);
	wsp.lpWSPCloseSocket(s, &err);
}

void ctl_point(struct conn *c, struct wsd_session *base, uint32_t ring_size, uint32_t side)
{
	c->hdr = base;
	c->tx = &base->dir[side];
	c->rx = &base->dir[1 - side];
	c->txr = (uint8_t *)base + WSD_SESSION_HDR + side * (size_t)ring_size;
	c->rxr = (uint8_t *)base + WSD_SESSION_HDR + (1 - side) * (size_t)ring_size;
	c->mask = ring_size - 1;
}

static bool ring_usable(const WSDSHAREDRING *r)
{
	return r->side <= 1 && r->base && r->ring_size >= WSD_RING_MIN && !(r->ring_size & (r->ring_size - 1)) &&
	       r->length >= wsd_session_length(r->ring_size);
}

uint64_t ctl_ipc_ns(void)
{
	struct stat st;
	int e = errno;

	if (stat("/proc/self/ns/ipc", &st) < 0)
		st.st_ino = 0;
	errno = e;
	return st.st_ino;
}

struct wsd_side_at ctl_side_at(const struct side *s)
{
	struct wsd_side_at at = { .ipc_ns = s->shm >= 0 ? ctl_ipc_ns() : 0, .shm = s->shm, .index = s->index };

	return at;
}

/* processes that come by the socket later find our counts (reattach.c) */
static void tell_side(struct conn *c, int fd)
{
	struct wsd_side_at at = ctl_side_at(c->s);
	struct wsd_side_place p = { at.ipc_ns, at.shm, at.index, 0 };

	mark_set(fd, MARK_SESSION, true);
	if (control.side)
		control.side(c->san, &p);
}

/* the same over RDMA (agreed.h) */
static void attach_road(struct conn *c, int fd)
{
	WSDPUTROAD p = { .size = sizeof(p), .context = conn_id(c) };
	struct thr *t = thr_get();
	INT err = 0;

	if (put_with_signal(c->san, &p, &err) != 0 || !lock_try_long(&c->s->open_lock, thr_tid(t))) {
		drop_san(c, WSD_R_NOMEM);
		offer_lost(c, WSD_R_NOMEM);
		return;
	}
	fault_install();
	led_init(&c->led);
	tell_side(c, fd);	/* before anything goes by the road */
	if (agreed_attach(c, fd, &p)) {
		eset_attached(c);
		stats_accelerated(true);
	} else {
		log_error("conn %u: the provider gave no usable road", c->index);
		drop_san(c, WSD_R_NOMEM);
		offer_lost(c, WSD_R_NOMEM);
	}
	lock_drop(&c->s->open_lock);
}

static void attach(struct conn *c)
{
	WSDSHAREDRING r = { .size = sizeof(r) };
	struct side *s = c->s;
	struct thr *t = thr_get();
	INT err = 0;
	int fd = fd_of(c);

	if (fd < 0 || (atomic_load(&s->flags) & (S_NO_OPEN | S_NO_PUT | S_FOREIGN)) ||
	    (atomic_load(&s->holders) > 1 && !proc_family_dead(s->created_gen))) {
		drop_san(c, WSD_R_SHARED);
		offer_lost(c, WSD_R_SHARED);
		return;
	}
	if (shared_ring(c->san, &r, &err) != 0 && err == WSAEOPNOTSUPP && put_with_signal) {
		attach_road(c, fd);
		return;
	}
	if (shared_ring(c->san, &r, &err) != 0 || !ring_usable(&r)) {
		log_error("conn %u: the provider gave no usable ring (%d)", c->index, err);
		drop_san(c, WSD_R_NOMEM);
		offer_lost(c, WSD_R_NOMEM);
		return;
	}
	if (!lock_try_long(&s->open_lock, thr_tid(t))) {
		drop_san(c, WSD_R_NOMEM);
		offer_lost(c, WSD_R_NOMEM);
		return;
	}
	fault_install();
	ctl_point(c, r.base, r.ring_size, r.side);
	tell_side(c, fd);	/* before anything goes by the ring */
	publish_nagle(c, fd);
	led_init(&c->led);
	atomic_store(&s->att_pid, proc_page->pid);
	atomic_fetch_or(&s->flags, S_ATTACHED);
	atomic_store(&c->why, WSD_R_NONE);
	atomic_store_explicit(&c->stage, ST_ATTACHED, memory_order_release);
	eset_attached(c);
	lock_drop(&s->open_lock);
	atomic_fetch_or(&c->hdr->attached, 1u << r.side);
	stats_accelerated(false);
	log_debug("conn %u: session %llx, side %u", c->index, (unsigned long long)r.session_id, r.side);
}

/* what may be otherwise a while later is tried again */
static void refused(struct conn *c, uint32_t why)
{
	log_debug("conn %u: the offer came to nothing (reason %u)", c->index, why);
	switch (why) {
	case WSD_R_NONE:
	case WSD_R_NO_DAEMON:
	case WSD_R_NOMEM:
	case WSD_R_QUOTA_SESSIONS:
	case WSD_R_QUOTA_BYTES:
	case WSD_R_LIMIT:
	case WSD_R_UNLOADING:
	case WSD_R_MISMATCH:
		offer_lost(c, why ? why : WSD_R_NO_DAEMON);
		return;
	case WSD_R_PEER_UNAWARE:
		if (!(c->san_flags & WSD_CONNECT_SAN))
			break;		/* on one host it has been waited for until nobody held the other end */
		/* fall through */
	case WSD_R_NO_PEER:
	case WSD_R_NO_KEY:
	case WSD_R_PEER_VERSION:
	case WSD_R_NO_RDMA:
	case WSD_R_MEMLOCK:
	case WSD_R_RDMA_FAILED:
		offer_later(c, why);
		return;
	}
	atomic_store(&c->why, why);
	atomic_store(&c->stage, ST_TCP);
}

static void connect_event(struct conn *c)
{
	WSANETWORKEVENTS ne;
	INT err = 0;

	memset(&ne, 0, sizeof(ne));
	if (!c->s || !c->san || wsp.lpWSPEnumNetworkEvents(c->san, (WSAEVENT)c, &ne, &err) != 0 ||
	    !(ne.lNetworkEvents & FD_CONNECT) || atomic_load(&c->stage) != ST_OFFERED)
		return;
	if (ne.iErrorCode[FD_CONNECT_BIT] == 0 && atomic_load(&c->n_fd)) {
		attach(c);
	} else {
		uint32_t why = control.socket_reason ? control.socket_reason(c->san) : WSD_R_NO_DAEMON;

		drop_san(c, WSD_R_NONE);
		refused(c, why);
	}
}

struct accepting {
	struct conn *c;
};

/* the listening application's say: is this the companion of a connection that we accepted? */
static int condition(LPWSABUF caller, LPWSABUF caller_data, LPQOS sqos, LPQOS gqos, LPWSABUF callee,
		     LPWSABUF callee_data, GROUP *g, DWORD_PTR ctx)
{
	struct accepting *a = (struct accepting *)ctx;
	struct wsd_connect_data d;

	if (!callee_data || callee_data->len < sizeof(d) || !callee_data->buf)
		return CF_REJECT;
	memcpy(&d, callee_data->buf, sizeof(d));
	a->c = conn_by_id(d.context);
	if (!a->c || atomic_load(&a->c->stage) != ST_OFFERED || a->c->s->cookie != d.sock_cookie) {
		a->c = NULL;
		return CF_REJECT;
	}
	return CF_ACCEPT;
}

static void accept_event(struct listener *l)
{
	WSANETWORKEVENTS ne;
	INT err = 0;
	int i;

	memset(&ne, 0, sizeof(ne));
	wsp.lpWSPEnumNetworkEvents(l->san, (WSAEVENT)l, &ne, &err);
	for (i = 0; i < 100000; i++) {
		struct sockaddr_storage ss;
		struct accepting a = { NULL };
		INT n = sizeof(ss);
		SOCKET s = wsp.lpWSPAccept(l->san, (struct sockaddr *)&ss, &n, condition, (DWORD_PTR)&a, &err);

		if (s == INVALID_SOCKET) {
			if (err == WSAEWOULDBLOCK)
				break;
			if (a.c) {
				a.c->expected = false;
				refused(a.c, control.socket_reason ? control.socket_reason(l->san) : WSD_R_NO_DAEMON);
			} else if (err != WSAECONNREFUSED) {
				break;
			}
			continue;
		}
		if (!a.c) {
			wsp.lpWSPCloseSocket(s, &err);
			continue;
		}
		a.c->expected = false;
		a.c->san = s;
		attach(a.c);
	}
}

static void close_late(void)
{
	INT err = 0;

	while (n_late)
		wsp.lpWSPCloseSocket(late[--n_late], &err);
}

/* ctl_lock held */
static void progress(void)
{
	const _Atomic uint32_t *w = control.notify_word();
	struct conn *c;
	unsigned i;

	if (w)
		atomic_store(&ctl_seen, atomic_load(w));	/* read first: what comes meanwhile moves it again */
	control.progress();
	if (put_with_signal && control.subnets) {
		struct wsd_subnet none;
		uint32_t gen = 0;

		control.subnets(&none, 0, &gen);
		if (gen)
			atomic_store(&ctl_san_gen, gen);
	}
	while ((c = events)) {
		events = c->ev_next;
		c->ev_on = false;
		connect_event(c);
	}
	for (i = 0; i < n_listeners; i++)
		if (listeners[i].ev_on) {
			listeners[i].ev_on = false;
			accept_event(&listeners[i]);
		}
	close_late();
	hide();
	if (atomic_load(&road_any)) {	/* what the daemon says lies in session memory: all who sleep look */
		atomic_fetch_add(&road_gen, 1);
		waiters_tell();
	}
	if (w != control.notify_word()) {
		w = control.notify_word();
		atomic_store(&ctl_seen, w ? atomic_load(w) - 1 : 0);	/* a new page: look once more */
	}
	atomic_store(&ctl_word, w);
	if (w)
		atomic_store(&ctl_waiting, 0);
	else if (control.reason && control.reason() == WSD_R_NO_DAEMON)
		atomic_store(&ctl_waiting, 0);
}

void ctl_progress(struct thr *t)
{
	int e = errno;

	if (t->in_handler || prov != PROV_OK || atomic_load_explicit(&proc_frozen, memory_order_relaxed))
		return;
	if (!atomic_load_explicit(&ctl_word, memory_order_relaxed)) {
		/* no welcome yet: a look costs a system call */
		uint64_t now = tsc_now();

		if (now - look_when < (uint64_t)US(50))
			return;
		look_when = now;
	}
	if (!lock_try(&ctl_lock, thr_tid(t)))
		return;
	progress();
	lock_drop(&ctl_lock);
	errno = e;
}

void ctl_offer(struct thr *t, struct conn *c, int fd)
{
	int e = errno;

	if (t->in_handler || !lock_try(&ctl_lock, thr_tid(t)))
		return;
	if (atomic_load(&c->stage) == ST_NEW)
		offer(c, fd);
	lock_drop(&ctl_lock);
	errno = e;
}

/* a peer that offers something calls for all who wait; half of the time has passed all the same: a path that is dead costs each try a while */
static bool retry_due(const struct conn *c)
{
	uint32_t gen = atomic_load(&ctl_san_gen);
	int64_t left = (int64_t)(c->retry_at - tsc_now());

	return left <= 0 || WSD_SAN_GEN_DEVICES(gen) != WSD_SAN_GEN_DEVICES(c->retry_gen) ||
	       (gen != c->retry_gen && left <= (int64_t)US(c->retry_s * 1e6) / 2);
}

/* Offers are lazy: a short connection should cost what TCP costs. */
void ctl_think(struct thr *t, struct conn *c, int fd, bool received)
{
	uint64_t total = atomic_load_explicit(&c->s->C, memory_order_relaxed) +
			 atomic_load_explicit(&c->s->H, memory_order_relaxed);

	if (received)
		c->n_recv++;
	if ((c->n_recv < cfg.offer_after && total < cfg.offer_bytes) || total < c->offer_next)
		return;
	if (unlikely(c->retry_at) && !retry_due(c))
		return;
	ctl_offer(t, c, fd);
}

/* ---- sessions of other processes ---- */

#define REATTACH_MS	500u	/* the program waits in recvmsg, or has not begun */
#define REATTACH_REST_S	5	/* a daemon that did not answer is not asked again for so long */

static bool lock_wait(struct thr *t)
{
	unsigned i;

	for (i = 0; !t->in_handler && i < REATTACH_MS + 100; i++) {
		if (lock_try_long(&ctl_lock, thr_tid(t)))
			return true;
		thr_nap(1000);
	}
	return false;		/* in a handler: the provider allocates */
}

/* ctl_lock held. 0 or a WSA code */
static int reattach_ioctl(SOCKET s, const struct wsd_reattach *in, struct wsd_side_at *ret)
{
	static time_t mute_until;
	struct wsd_reattached out = { .size = sizeof(out) };
	struct timespec now;
	DWORD n = 0;
	INT err = 0;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_sec < mute_until)
		return WSAETIMEDOUT;
	if (wsp.lpWSPIoctl(s, SIO_WSD_REATTACH, (LPVOID)in, sizeof(*in), &out, sizeof(out), &n, NULL, NULL, NULL, &err)) {
		if (err == WSAETIMEDOUT)
			mute_until = now.tv_sec + REATTACH_REST_S;
		return err ? err : WSAENETDOWN;
	}
	*ret = (struct wsd_side_at){ out.at.ipc_ns, out.at.shm, out.at.index, out.at.serial };
	return 0;
}

/* the daemon may have welcomed us meanwhile, and messages for others may have been taken: look once more */
static void look_again(void)
{
	const _Atomic uint32_t *w = control.notify_word();

	hide();
	atomic_store(&ctl_seen, w ? atomic_load(w) - 1 : 0);
	atomic_store(&ctl_word, w);
}

/* ctl_lock held */
static int reattach(int fd, uint64_t cookie, struct ctl_session *ret)
{
	struct wsd_reattach in = { .size = sizeof(in), .fd = fd, .sock_cookie = cookie, .timeout_ms = REATTACH_MS };
	WSDSHAREDRING r = { .size = sizeof(r) };
	SOCKET s;
	INT err = 0;
	int e;

	if (prov == PROV_NONE)
		load();
	if (prov != PROV_OK)
		return -ENOSYS;
	s = wsp.lpWSPSocket(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED, &err);
	if (s == INVALID_SOCKET)
		return -ENOMEM;
	e = reattach_ioctl(s, &in, &ret->at);
	if (e) {
		uint32_t why = control.socket_reason ? control.socket_reason(s) : WSD_R_NO_DAEMON;

		wsp.lpWSPCloseSocket(s, &err);
		return e == WSAENOTCONN && why == WSD_R_NOT_YET ? -ENOENT : e == WSAENOTCONN ? -EACCES : -ETIMEDOUT;
	}
	ret->san = s;
	ret->base = NULL;
	ret->road = (WSDPUTROAD){ .size = sizeof(ret->road) };
	if (shared_ring(s, &r, &err) != 0 && err == WSAEOPNOTSUPP && put_with_signal && put_with_signal(s, &ret->road, &err) == 0) {
		ret->side = ((const struct wsd_remote *)ret->road.base)->side & 1;
		return 0;
	}
	if (!r.base || !ring_usable(&r)) {
		wsp.lpWSPCloseSocket(s, &err);
		return -EPROTO;
	}
	ret->base = r.base;
	ret->ring_size = r.ring_size;
	ret->side = r.side;
	return 0;
}

int ctl_reattach(struct thr *t, int fd, uint64_t cookie, struct ctl_session *ret)
{
	int r;

	if (!lock_wait(t))
		return -EBUSY;
	r = reattach(fd, cookie, ret);
	if (prov == PROV_OK)
		look_again();
	lock_drop(&ctl_lock);
	return r;
}

int ctl_reattach_claim(struct thr *t, int fd, uint64_t cookie, const struct wsd_side_at *ours, struct ctl_session *x)
{
	struct wsd_reattach in = {
		.size = sizeof(in), .fd = fd, .sock_cookie = cookie, .over = x->at.serial, .timeout_ms = REATTACH_MS,
		.mine = { ours->ipc_ns, ours->shm, ours->index, 0 },
	};
	int e;

	if (!lock_wait(t))
		return -EBUSY;
	e = reattach_ioctl(x->san, &in, &x->at);
	look_again();
	lock_drop(&ctl_lock);
	return e ? -ETIMEDOUT : 0;
}

void ctl_reattach_drop(struct thr *t, struct ctl_session *x)
{
	INT err = 0;

	if (!lock_wait(t)) {
		if (n_late < LATE_MAX)
			late[n_late++] = x->san;
		return;
	}
	wsp.lpWSPCloseSocket(x->san, &err);
	lock_drop(&ctl_lock);
}

/* ---- ends ---- */

void ctl_retire(struct conn *c, uint32_t why, uint32_t unread)
{
	struct thr *t = thr_get();
	int e = errno;

	if ((!c->san && !c->expected) || prov != PROV_OK || t->in_handler || !lock_try_long(&ctl_lock, thr_tid(t)))
		return;
	if (c->expected) {
		struct listener *l = listener_for(&c->local);
		struct wsd_expect x;
		DWORD n = 0;
		INT err = 0;

		fill_expect(c, c->fd, &x);
		if (l)
			wsp.lpWSPIoctl(l->san, SIO_WSD_UNEXPECT, &x, sizeof(x), NULL, 0, &n, NULL, NULL, NULL, &err);
		c->expected = false;
	}
	if (c->san && control.retire)
		control.retire(c->san, why, unread);
	lock_drop(&ctl_lock);
	errno = e;
}

/* no thread is inside any more: the provider may unmap */
void ctl_unmap(struct conn *c)
{
	struct thr *t = thr_get();
	SOCKET s = c->san;
	INT err = 0;

	c->hdr = NULL;
	c->rx = c->tx = NULL;
	agreed_detach(c);
	if (c->own) {
		munmap(c->own, wsd_session_length(c->own->ring_size));
		c->own = NULL;
	}
	if (!s)
		return;
	c->san = 0;
	if (prov != PROV_OK)
		return;		/* abandoned by a child: it stays mapped */
	if (!lock_try_long(&ctl_lock, thr_tid(t))) {
		if (n_late < LATE_MAX)
			late[n_late++] = s;
		return;
	}
	if (c->ev_on) {
		struct conn **l = &events;

		while (*l && *l != c)
			l = &(*l)->ev_next;
		if (*l)
			*l = c->ev_next;
		c->ev_on = false;
	}
	wsp.lpWSPCloseSocket(s, &err);
	lock_drop(&ctl_lock);
}

bool ctl_road_over(struct thr *t, struct conn *c, struct road *r)
{
	uint32_t agreed = ST_AGREED;
	int e = errno;

	if (t->in_handler || prov != PROV_OK || !lock_try(&ctl_lock, thr_tid(t)))
		return false;
	/* the stage last: who finds ST_NEW may offer */
	if (road_of(c) != r || atomic_load(&c->stage) != agreed || !c->san) {
		lock_drop(&ctl_lock);
		return false;
	}
	if (control.retire)
		control.retire(c->san, WSD_R_RDMA_FAILED, 0);
	r->san = c->san;
	c->san = 0;
	atomic_fetch_and(&c->s->flags, ~S_ATTACHED);
	if (tsc_now() - r->since > (uint64_t)US(RETRY_MAX_S * 1e6))
		c->retry_s = 0;		/* it was good for long: what was before it counts no more */
	offer_later(c, WSD_R_RDMA_FAILED);
	lock_drop(&ctl_lock);
	errno = e;
	return true;
}

void ctl_road_close(struct road *old)
{
	struct thr *t = thr_get();
	INT err = 0;

	if (!old->san || prov != PROV_OK)
		return;
	if (!lock_try_long(&ctl_lock, thr_tid(t))) {
		if (n_late < LATE_MAX)
			late[n_late++] = old->san;
		return;
	}
	wsp.lpWSPCloseSocket(old->san, &err);
	lock_drop(&ctl_lock);
}

int ctl_road_arm(void)
{
	return prov == PROV_OK && control.arm ? control.arm() : 0;
}

unsigned ctl_road_drain(uint64_t *ret, unsigned max)
{
	int n = prov == PROV_OK && control.drain ? control.drain(ret, max) : 0;

	return n > 0 ? (unsigned)n : 0;
}

int ctl_road_wait_fd(void)
{
	return prov == PROV_OK && control.wait_fd ? control.wait_fd() : -1;
}

bool ctl_road_ask(struct thr *t, struct conn *c, uint32_t what, uint64_t a, uint64_t b)
{
	struct wsd_san_ask x = { .size = sizeof(x), .what = what, .a = a, .b = b };
	DWORD n = 0;
	INT err = 0;
	int e = errno;

	if (prov != PROV_OK || !c->san)
		return true;	/* nobody to ask */
	if (t->in_handler || !lock_try(&ctl_lock, thr_tid(t)))
		return false;
	if (c->san)
		wsp.lpWSPIoctl(c->san, SIO_WSD_SAN_ASK, &x, sizeof(x), NULL, 0, &n, NULL, NULL, NULL, &err);
	lock_drop(&ctl_lock);
	errno = e;
	return err != WSAEWOULDBLOCK;
}

/* ctl_lock held */
static void hide(void)
{
	static unsigned gen;
	static bool once;
	int fd[64], n = 0;
	unsigned now = control.handles_gen ? control.handles_gen() : 0;

	if (control.handles) {
		if (once && now == gen && control.handles_gen)
			return;
		once = true;
		gen = now;
		n = control.handles(fd, 64);
	} else if (control.handle) {
		fd[n++] = control.handle();
	}
	hidden_provider(fd, n > 0 ? (unsigned)n : 0);
}

void ctl_hidden_refresh(void)
{
	struct thr *t = thr_get();
	int e = errno;

	if (prov != PROV_OK || t->in_handler || atomic_load_explicit(&proc_frozen, memory_order_relaxed) ||
	    !lock_try_long(&ctl_lock, thr_tid(t)))
		return;
	hide();
	lock_drop(&ctl_lock);
	errno = e;
}

bool ctl_lock_for_fork(void)
{
	struct thr *t = thr_get();

	return fork_got = !t->in_handler && lock_try_long(&ctl_lock, thr_tid(t));
}

void ctl_unlock_for_fork(bool got)
{
	fork_got = false;
	if (got)
		lock_drop(&ctl_lock);
}

void ctl_after_fork(void)
{
	bool ok = fork_got || atomic_load(&ctl_lock) == 0;

	fork_got = false;
	atomic_store(&ctl_word, NULL);
	atomic_store(&ctl_waiting, 0);
	n_late = n_listeners = 0;	/* the child listens anew */
	events = NULL;
	if (prov == PROV_OK && !ok) {
		/* Another thread was in the middle of the provider: this child stays on TCP. What it closes is the parent's to tell of */
		if (control.abandon)
			control.abandon();
		hidden_provider(NULL, 0);
		prov = PROV_FAILED;
		prov_why = WSD_R_NO_PROVIDER;
	}
	atomic_store(&ctl_lock, 0);
	if (prov == PROV_OK && control.after_fork)
		control.after_fork();
	if (prov == PROV_OK)
		hide();
}
