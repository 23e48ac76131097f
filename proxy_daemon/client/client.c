/* SPDX-License-Identifier: MIT */
/*
 * client.c - see client.h
 *
 * The unanswered offers are one array of cookies: [0, n_lost) were lost with a connection and
 * are yet to be reported, [n_lost, n) wait for an answer.
 *
 * The daemon's counter need not be counted along with: `seen` is set to the counter as it was
 * *before* a look that found the socket empty. Whatever was counted then has been taken.
 */
#include <fcntl.h>
#include <linux/magic.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>

#include <wsd/remote_session.h>
#include <wsd/shared_ring.h>

#include "proxy_daemon/client/client.h"
#include "proxy_daemon/client/rawsys.h"

#define BACKOFF_FIRST_MS	100
#define BACKOFF_MAX_MS		5000
#define N_PATHS			2
/* The kernel keeps (and copies at fork) a table up to the highest descriptor: with a soft limit of a
 * million, its top would cost megabytes. */
#define FD_TOP_MAX		8192
#define FD_TOP_TRIES		64
#define PAGE			4096u

#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif

enum pc_state {
	PC_DOWN,		/* no connection, fd is -1 */
	PC_HELLO,		/* connected, HELLO is sent, offers may be too */
	PC_UP,			/* welcomed: the notify page is mapped */
};

struct proxy_client {
	_Atomic int fd;
	_Atomic enum pc_state state;
	uint64_t sock_cookie;	/* SO_COOKIE of our own connection */
	unsigned reason;
	uint64_t caps;		/* WSD_CAP_*; PC_UP */
	uint64_t retry_ms;	/* not before this; 0: at once */
	unsigned backoff_ms;	/* the last one; 0: none since a welcome */

	/* one address for good: a new page is mapped over the old one, so that who still
	 * looks at the word never meets a hole */
	const struct wsd_notify_page *page;
	_Atomic uint32_t seen;

	uint64_t *offers;
	_Atomic unsigned n, n_lost;
	unsigned room;
	unsigned lost_reason;

	unsigned n_paths;
	char path[N_PATHS][sizeof(((struct sockaddr_un *)0)->sun_path)];
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void add_path(struct proxy_client *pc, const char *a, const char *b)
{
	char *p = pc->path[pc->n_paths];
	size_t la = strlen(a), lb = strlen(b);

	if (!la || a[0] != '/' || la + lb >= sizeof(pc->path[0]))
		return;
	memcpy(p, a, la);
	memcpy(p + la, b, lb + 1);
	pc->n_paths++;
}

struct proxy_client *proxy_client_new(void)
{
	struct proxy_client *pc = calloc(1, sizeof(*pc));
	const char *env;

	if (!pc)
		return NULL;
	pc->fd = -1;
	pc->reason = WSD_R_NO_DAEMON;

	/* now, not when needed: programs clear their environment */
	env = secure_getenv(WSD_PROXY_SOCKET_ENV);
	if (env && *env) {
		add_path(pc, env, "");
		return pc;
	}
	add_path(pc, WSD_PROXYD_SYSTEM_PATH, "");
	env = secure_getenv("XDG_RUNTIME_DIR");
	if (env && *env)
		add_path(pc, env, "/wsd/proxyd.sock");
	return pc;
}

void proxy_client_set_places(struct proxy_client *pc, const char *socket_path, const char *runtime_dir)
{
	pc->n_paths = 0;
	if (socket_path && *socket_path) {
		add_path(pc, socket_path, "");
		return;
	}
	add_path(pc, WSD_PROXYD_SYSTEM_PATH, "");
	if (runtime_dir && *runtime_dir)
		add_path(pc, runtime_dir, "/wsd/proxyd.sock");
}

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	if (rawsys6(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, (long)&cookie, (long)&len, 0) < 0)
		return 0;
	return cookie;
}

/* The program may close every descriptor, and the number comes back as something of its own: look
 * before each use, which are rare. */
static bool still_ours(const struct proxy_client *pc)
{
	return pc->fd >= 0 && cookie_of(pc->fd) == pc->sock_cookie;
}

static void disconnect(struct proxy_client *pc)
{
	if (still_ours(pc))
		rawsys(SYS_close, pc->fd, 0, 0);
	pc->fd = -1;
	pc->state = PC_DOWN;
}

static int down(struct proxy_client *pc, unsigned reason)
{
	disconnect(pc);
	pc->reason = reason;
	pc->lost_reason = reason;
	pc->n_lost = pc->n;
	if (!pc->backoff_ms)
		pc->backoff_ms = BACKOFF_FIRST_MS;
	else if (pc->backoff_ms < BACKOFF_MAX_MS / 2)
		pc->backoff_ms *= 2;
	else
		pc->backoff_ms = BACKOFF_MAX_MS;
	pc->retry_ms = now_ms() + pc->backoff_ms;
	return PROXY_CLIENT_E_DOWN;
}

struct proxy_client *proxy_client_free(struct proxy_client *pc)
{
	if (!pc)
		return NULL;
	disconnect(pc);
	if (pc->page)
		rawsys(SYS_munmap, pc->page, PAGE, 0);
	free(pc->offers);
	free(pc);
	return NULL;
}

/* SO_PEERCRED decides; this keeps us from knocking at doors that others put up */
static unsigned check_path(const char *path)
{
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
	uid_t me = (uid_t)rawsys(SYS_geteuid, 0, 0, 0);
	struct stat st;
	char *slash;

	if (rawsys6(SYS_newfstatat, AT_FDCWD, (long)path, (long)&st, AT_SYMLINK_NOFOLLOW, 0, 0) < 0)
		return WSD_R_NO_DAEMON;
	if (!S_ISSOCK(st.st_mode) || (st.st_uid != 0 && st.st_uid != me))
		return WSD_R_DAEMON_CRED;
	strcpy(dir, path);
	slash = strrchr(dir, '/');
	slash[slash == dir] = '\0';
	if (rawsys6(SYS_newfstatat, AT_FDCWD, (long)dir, (long)&st, 0, 0, 0) < 0)
		return WSD_R_NO_DAEMON;
	if ((st.st_uid != 0 && st.st_uid != me) || (st.st_mode & S_IWOTH))
		return WSD_R_DAEMON_CRED;
	return WSD_R_NONE;
}

/* to the highest free number under the limit, where neither the program's next open() nor its
 * loops over low numbers meet it */
static int move_to_top(int fd)
{
	struct rlimit rl;
	long top = FD_TOP_MAX, r, i;

	if (rawsys6(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&rl, 0, 0) == 0 && rl.rlim_cur < FD_TOP_MAX)
		top = (long)rl.rlim_cur;
	for (i = 1; i <= FD_TOP_TRIES && top - i > fd; i++) {
		r = rawsys(SYS_fcntl, fd, F_DUPFD_CLOEXEC, top - i);
		if (r >= 0) {
			rawsys(SYS_close, fd, 0, 0);
			return (int)r;
		}
		if (r != -EMFILE && r != -EINVAL)
			break;
	}
	return fd;
}

static int send_packet(struct proxy_client *pc, const void *buf, size_t len)
{
	long r;

	if (!still_ours(pc))
		return down(pc, WSD_R_NO_DAEMON);
	do {
		r = rawsys6(SYS_sendto, pc->fd, (long)buf, (long)len, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0);
	} while (r == -EINTR);
	if (r == (long)len)
		return 0;
	if (r == -EAGAIN || r == -ENOBUFS || r == -ENOMEM)
		return PROXY_CLIENT_E_BUSY;
	return down(pc, WSD_R_NO_DAEMON);
}

static struct wsd_msg_hdr header(uint16_t type, uint32_t len, uint64_t cookie)
{
	return (struct wsd_msg_hdr){ .len = len, .version = WSD_PROXY_VERSION, .type = type, .cookie = cookie };
}

/* 0 or the reason why not */
static unsigned connect_path(struct proxy_client *pc, const char *path)
{
	struct wsd_msg_hello hello = { .hdr = header(WSD_MSG_HELLO, sizeof(hello), 0) };
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct ucred cred;
	socklen_t len = sizeof(cred);
	unsigned reason;
	long fd, r;

	reason = check_path(path);
	if (reason)
		return reason;
	fd = rawsys(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fd == -EMFILE || fd == -ENFILE ? WSD_R_NOMEM : WSD_R_NO_DAEMON;
	strcpy(sun.sun_path, path);
	reason = WSD_R_NO_DAEMON;
	/* a Unix socket connects at once or says EAGAIN: the daemon does not keep up */
	r = rawsys(SYS_connect, fd, &sun, sizeof(sun));
	if (r < 0)
		goto err_close;
	reason = WSD_R_DAEMON_CRED;
	r = rawsys6(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, (long)&cred, (long)&len, 0);
	if (r < 0 || len != sizeof(cred) ||
	    (cred.uid != 0 && cred.uid != (uid_t)rawsys(SYS_geteuid, 0, 0, 0)))
		goto err_close;

	pc->fd = move_to_top((int)fd);
	pc->sock_cookie = cookie_of(pc->fd);
	pc->seen = 0;
	if (!pc->sock_cookie) {		/* a kernel that cannot tell us what is ours */
		rawsys(SYS_close, pc->fd, 0, 0);
		pc->fd = -1;
		return WSD_R_NO_DAEMON;
	}
	pc->state = PC_HELLO;
	if (send_packet(pc, &hello, sizeof(hello))) {
		disconnect(pc);
		return WSD_R_NO_DAEMON;
	}
	return WSD_R_NONE;

err_close:
	rawsys(SYS_close, fd, 0, 0);
	return reason;
}

int proxy_client_connect(struct proxy_client *pc)
{
	unsigned i, r, reason = WSD_R_NO_DAEMON;

	if (pc->state != PC_DOWN)
		return 0;
	if (pc->retry_ms && now_ms() < pc->retry_ms)
		return PROXY_CLIENT_E_DOWN;
	for (i = 0; i < pc->n_paths; i++) {
		r = connect_path(pc, pc->path[i]);
		if (!r) {
			pc->reason = WSD_R_NONE;
			return 0;
		}
		if (r != WSD_R_NO_DAEMON)
			reason = r;
	}
	return down(pc, reason);
}

unsigned proxy_client_reason(const struct proxy_client *pc)
{
	return pc->reason;
}

static int get_addr(long nr, int fd, struct wsd_addr *ret)
{
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_storage ss;
	} u;
	socklen_t len = sizeof(u);

	memset(ret, 0, sizeof(*ret));
	if (rawsys(nr, fd, &u, &len) < 0)
		return PROXY_CLIENT_E_SOCKET;
	if (u.sa.sa_family == AF_INET && len >= sizeof(u.in)) {
		ret->port = ntohs(u.in.sin_port);
		memcpy(ret->ip, &u.in.sin_addr, 4);
	} else if (u.sa.sa_family == AF_INET6 && len >= sizeof(u.in6)) {
		ret->port = ntohs(u.in6.sin6_port);
		ret->scope = u.in6.sin6_scope_id;
		memcpy(ret->ip, &u.in6.sin6_addr, 16);
	} else {
		return PROXY_CLIENT_E_SOCKET;
	}
	ret->family = u.sa.sa_family;
	return 0;
}

static int get_addrs(int fd, struct wsd_addr *local, struct wsd_addr *remote)
{
	int ifindex = 0, r;
	socklen_t len = sizeof(ifindex);

	r = get_addr(SYS_getsockname, fd, local);
	if (r)
		return r;
	r = get_addr(SYS_getpeername, fd, remote);
	if (r)
		return r;
	if (rawsys6(SYS_getsockopt, fd, SOL_SOCKET, SO_BINDTOIFINDEX, (long)&ifindex, (long)&len, 0) == 0 &&
	    ifindex > 0)
		local->scope = (uint32_t)ifindex;
	return 0;
}

static int offers_reserve(struct proxy_client *pc)
{
	unsigned room = pc->room ? pc->room * 2 : 16;
	uint64_t *p;

	if (pc->n < pc->room)
		return 0;
	if (pc->n >= PROXY_CLIENT_OFFERS)
		return PROXY_CLIENT_E_LIMIT;
	p = realloc(pc->offers, room * sizeof(*p));
	if (!p)
		return -ENOMEM;
	pc->offers = p;
	pc->room = room;
	return 0;
}

/* forget an offer, answered, withdrawn or lost; false: it is not known (any more) */
static bool offers_remove(struct proxy_client *pc, uint64_t cookie, bool live_only)
{
	unsigned i;

	for (i = live_only ? pc->n_lost : 0; i < pc->n; i++) {
		if (pc->offers[i] != cookie)
			continue;
		if (i < pc->n_lost) {
			pc->n_lost--;
			pc->offers[i] = pc->offers[pc->n_lost];
			i = pc->n_lost;
		}
		pc->n--;
		pc->offers[i] = pc->offers[pc->n];
		return true;
	}
	return false;
}

/* a packet that the daemon answers later, under that cookie */
static int send_offer(struct proxy_client *pc, const void *m, size_t len, uint64_t cookie)
{
	int r = offers_reserve(pc);

	if (!r)
		r = send_packet(pc, m, len);
	if (r)
		return r;
	pc->offers[pc->n] = cookie;
	pc->n++;
	return 0;
}

int proxy_client_offer(struct proxy_client *pc, int fd, uint32_t role, uint64_t sock_cookie,
		       uint64_t cookie, uint32_t ring_size)
{
	struct wsd_msg_offer m = {
		.hdr = header(WSD_MSG_OFFER, sizeof(m), cookie),
		.fd = fd, .role = role, .sock_cookie = sock_cookie, .ring_size = ring_size,
	};
	int r;

	if (!cookie || fd < 0 || role > WSD_ROLE_ACCEPT)
		return -EINVAL;
	r = proxy_client_connect(pc);
	if (r)
		return r;
	r = get_addrs(fd, &m.local, &m.remote);
	if (r)
		return r;
	return send_offer(pc, &m, sizeof(m), cookie);
}

int proxy_client_reattach(struct proxy_client *pc, int fd, uint64_t sock_cookie, uint64_t cookie, uint64_t over,
			  const struct wsd_side_at *claim)
{
	struct wsd_msg_reattach m = {
		.hdr = header(WSD_MSG_REATTACH, sizeof(m), cookie),
		.fd = fd, .sock_cookie = sock_cookie, .over = over, .claim = { .shm = -1 },
	};
	int r;

	if (!cookie || fd < 0)
		return -EINVAL;
	if (claim)
		m.claim = *claim;
	m.claim.serial = 0;
	r = proxy_client_connect(pc);
	if (r)
		return r;
	if (pc->state != PC_UP)
		return PROXY_CLIENT_E_BUSY;
	if (!(pc->caps & WSD_CAP_REATTACH))
		return PROXY_CLIENT_E_LIMIT;
	r = get_addrs(fd, &m.local, &m.remote);
	if (r)
		return r;
	return send_offer(pc, &m, sizeof(m), cookie);
}

int proxy_client_side(struct proxy_client *pc, uint64_t cookie, uint64_t session_id, const struct wsd_side_at *at)
{
	struct wsd_msg_side m = {
		.hdr = header(WSD_MSG_SIDE, sizeof(m), cookie), .session_id = session_id, .at = *at,
	};

	m.at.serial = 0;
	if (pc->state == PC_DOWN)
		return PROXY_CLIENT_E_DOWN;
	return pc->state == PC_UP && (pc->caps & WSD_CAP_REATTACH) ? send_packet(pc, &m, sizeof(m)) : 0;
}

int proxy_client_offer_san(struct proxy_client *pc, int fd, uint32_t role, uint64_t sock_cookie, uint64_t cookie,
			   const struct proxy_san_offer *x)
{
	struct wsd_msg_offer_san m = {
		.offer = {
			.hdr = header(WSD_MSG_OFFER_SAN, sizeof(m), cookie),
			.fd = fd, .role = role, .sock_cookie = sock_cookie, .ring_size = x->ring0, .flags = x->flags,
		},
		.n_tx = x->n_tx, .n_rx = x->n_rx,
	};
	int r;

	if (!cookie || fd < 0 || role > WSD_ROLE_ACCEPT || x->n_tx > WSD_DIGESTS || x->n_rx > WSD_DIGESTS ||
	    (x->flags & ~WSD_SAN_FORCE))
		return -EINVAL;
	memcpy(m.tx, x->tx, x->n_tx * sizeof(m.tx[0]));
	memcpy(m.rx, x->rx, x->n_rx * sizeof(m.rx[0]));
	r = proxy_client_connect(pc);
	if (r)
		return r;
	if (pc->state != PC_UP)
		return PROXY_CLIENT_E_BUSY;
	if (!(pc->caps & WSD_CAP_SAN))
		return PROXY_CLIENT_E_NO_SAN;
	r = get_addrs(fd, &m.offer.local, &m.offer.remote);
	if (r)
		return r;
	return send_offer(pc, &m, sizeof(m), cookie);
}

int proxy_client_san_local(struct proxy_client *pc, uint64_t cookie, uint64_t session_id, const void *blob, size_t len)
{
	struct wsd_msg_san_blob m = {
		.hdr = header(WSD_MSG_SAN_LOCAL, sizeof(m), cookie), .session_id = session_id, .len = (uint32_t)len,
	};

	if (!len || len > sizeof(m.blob))
		return -EINVAL;
	memcpy(m.blob, blob, len);
	return pc->state == PC_UP ? send_packet(pc, &m, sizeof(m)) : PROXY_CLIENT_E_DOWN;
}

static int send_san(struct proxy_client *pc, uint16_t type, uint64_t cookie, uint64_t session_id, uint32_t what, uint64_t a,
		    uint64_t b)
{
	struct wsd_msg_san_plain m = {
		.hdr = header(type, sizeof(m), cookie), .session_id = session_id, .what = what, .a = a, .b = b,
	};

	/* who has a session of a daemon from before asks in vain: this one does not know it */
	return pc->state == PC_UP && (pc->caps & WSD_CAP_SAN) ? send_packet(pc, &m, sizeof(m)) : PROXY_CLIENT_E_DOWN;
}

int proxy_client_san_ready(struct proxy_client *pc, uint64_t cookie, uint64_t session_id)
{
	return send_san(pc, WSD_MSG_SAN_READY, cookie, session_id, 0, 0, 0);
}

int proxy_client_san_ask(struct proxy_client *pc, uint64_t cookie, uint64_t session_id, enum wsd_san_what what, uint64_t a,
			 uint64_t b)
{
	return send_san(pc, WSD_MSG_SAN_ASK, cookie, session_id, what, a, b);
}

/* The writer holds seq odd for a few hundred ns; one that was stopped there must not hold us up. */
#define SEQ_TRIES 64

unsigned proxy_client_subnets(const struct proxy_client *pc, struct wsd_subnet *ret, unsigned max, uint32_t *ret_gen)
{
	const struct wsd_notify_page *p = pc->page;
	unsigned i, n, k, tries;
	uint32_t seq;

	if (ret_gen)
		*ret_gen = 0;
	if (pc->state != PC_UP || !(pc->caps & WSD_CAP_SAN))
		return 0;
	if (ret_gen)
		*ret_gen = atomic_load_explicit(&p->san_gen, memory_order_acquire);
	for (tries = 0; tries < SEQ_TRIES; tries++) {
		seq = atomic_load_explicit(&p->subnet_seq, memory_order_acquire);
		if (seq & 1)
			continue;
		n = atomic_load_explicit(&p->n_subnets, memory_order_relaxed);
		if (n > WSD_SUBNETS_MAX)
			n = WSD_SUBNETS_MAX;
		if (n > max)
			n = max;
		memcpy(ret, (const void *)p->subnet, n * sizeof(*ret));
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load_explicit(&p->subnet_seq, memory_order_relaxed) != seq)
			continue;
		for (i = k = 0; i < n; i++)
			if ((ret[i].family == AF_INET && ret[i].prefix <= 32) || (ret[i].family == AF_INET6 && ret[i].prefix <= 128))
				ret[k++] = ret[i];
		return k;
	}
	return 0;
}

bool proxy_client_wait(struct proxy_client *pc, unsigned ms)
{
	struct pollfd p = { .fd = pc->fd, .events = POLLIN };
	struct timespec ts = { ms / 1000, (long)(ms % 1000) * 1000000 };

	if (pc->n_lost)
		return true;
	return still_ours(pc) && rawsys6(SYS_ppoll, (long)&p, 1, (long)&ts, 0, 0, 0) == 1;
}

int proxy_client_withdraw(struct proxy_client *pc, uint64_t cookie, uint32_t reason, uint32_t unread)
{
	struct wsd_msg_withdraw m = {
		.hdr = header(WSD_MSG_WITHDRAW, sizeof(m), cookie), .reason = reason, .unread = unread,
	};

	offers_remove(pc, cookie, false);
	if (pc->state == PC_DOWN)
		return PROXY_CLIENT_E_DOWN;
	return send_packet(pc, &m, sizeof(m));
}

int proxy_client_attached(struct proxy_client *pc, uint64_t cookie, uint64_t session_id)
{
	struct wsd_msg_attached m = {
		.hdr = header(WSD_MSG_ATTACHED, sizeof(m), cookie), .session_id = session_id,
	};

	if (pc->state == PC_DOWN)
		return PROXY_CLIENT_E_DOWN;
	return send_packet(pc, &m, sizeof(m));
}

/* A page that could be cut off under us would be SIGBUS in the program. Shared memory of the
 * kernel's, sealed, of the right length, no huge pages (a hole in those is SIGBUS as well). */
static bool memfd_is_safe(int fd, uint64_t length, int seals)
{
	struct statfs fs;
	struct stat st;
	long have;

	if (rawsys(SYS_fstat, fd, &st, 0) < 0 || (uint64_t)st.st_size != length)
		return false;
	have = rawsys(SYS_fcntl, fd, F_GET_SEALS, 0);
	if (have < 0 || (have & seals) != seals)
		return false;
	return rawsys(SYS_fstatfs, fd, &fs, 0) == 0 && fs.f_type == TMPFS_MAGIC;
}

/* the packet is of a type that a client may meet, whole, and came with the descriptors it should */
static bool packet_is_sound(const struct wsd_msg_hdr *hdr, size_t len, unsigned n_fds)
{
	size_t want;
	unsigned want_fds = 0;

	if (len < sizeof(*hdr) || hdr->len != len)
		return false;
	switch (hdr->type) {
	case WSD_MSG_WELCOME:
		want = sizeof(struct wsd_msg_welcome);
		want_fds = 1;
		break;
	case WSD_MSG_SESSION:
		want = sizeof(struct wsd_msg_session);
		want_fds = 1;
		break;
	case WSD_MSG_REATTACHED:
		want = sizeof(struct wsd_msg_reattached);
		want_fds = 1;
		break;
	case WSD_MSG_SAN_SETUP:
		want = sizeof(struct wsd_msg_san_setup);
		want_fds = 1;
		break;
	case WSD_MSG_SAN_SIDE:
		want = sizeof(struct wsd_msg_side);
		break;
	case WSD_MSG_SAN_REMOTE:
		want = sizeof(struct wsd_msg_san_blob);
		break;
	case WSD_MSG_SAN_GO:
	case WSD_MSG_SAN_LOOK:
		want = sizeof(struct wsd_msg_san_plain);
		break;
	case WSD_MSG_REFUSED:
	case WSD_MSG_REVOKED:
	case WSD_MSG_ERROR:
		want = sizeof(struct wsd_msg_refused);
		break;
	default:
		return false;
	}
	/* an error about versions comes in the daemon's version */
	if (hdr->version != WSD_PROXY_VERSION && hdr->type != WSD_MSG_ERROR)
		return false;
	return len == want && n_fds == want_fds;
}

static bool take_welcome(struct proxy_client *pc, const struct wsd_msg_welcome *m, int fd)
{
	long p;

	if (pc->state != PC_HELLO || m->page_size != PAGE || !memfd_is_safe(fd, PAGE, F_SEAL_SHRINK))
		return false;
	p = rawsys6(SYS_mmap, (long)pc->page, PAGE, PROT_READ, MAP_SHARED | (pc->page ? MAP_FIXED : 0), fd, 0);
	if (p < 0 && p > -4096)
		return false;
	pc->page = (const struct wsd_notify_page *)p;
	pc->seen = atomic_load(&pc->page->queued) - 1;	/* look once more */
	pc->caps = m->hdr.cookie;
	pc->backoff_ms = 0;
	pc->retry_ms = 0;
	pc->state = PC_UP;
	return true;
}

static bool take_session(const struct wsd_msg_session *m, int fd, struct proxy_msg *ret)
{
	if (m->ring_size < WSD_RING_MIN || m->ring_size > WSD_RING_MAX || (m->ring_size & (m->ring_size - 1)) ||
	    m->length != wsd_session_length(m->ring_size) || m->side > 1 || !m->session_id ||
	    !memfd_is_safe(fd, m->length, F_SEAL_SHRINK | F_SEAL_GROW))
		return false;
	*ret = (struct proxy_msg){
		.type = PROXY_MSG_SESSION, .cookie = m->hdr.cookie, .session_id = m->session_id,
		.length = m->length, .ring_size = m->ring_size, .side = m->side, .fd = fd,
	};
	return true;
}

static bool take_reattached(const struct wsd_msg_reattached *m, int fd, struct proxy_msg *ret)
{
	struct wsd_msg_session s = { .hdr = m->hdr, .session_id = m->session_id, .length = m->length,
				     .ring_size = m->ring_size, .side = m->side };

	if (!take_session(&s, fd, ret))
		return false;
	ret->type = PROXY_MSG_REATTACHED;
	ret->at = m->at;
	return true;
}

static bool take_refused(const struct wsd_msg_refused *m, enum proxy_msg_type type, struct proxy_msg *ret)
{
	/* a newer daemon has reasons that this program was built without: no cause to leave it, and all that it keeps */
	*ret = (struct proxy_msg){ .type = type, .cookie = m->hdr.cookie, .fd = -1,
				   .reason = m->reason < _WSD_R_N ? m->reason : WSD_R_VERSION };
	return m->reason != WSD_R_NONE;
}

static bool is_size(uint32_t v, uint32_t min, uint32_t max)
{
	return v >= min && v <= max && !(v & (v - 1));
}

static bool path_is_sound(const struct wsd_san_path *p)
{
	return p->device[0] && memchr(p->device, 0, sizeof(p->device)) && !strchr(p->device, '/') && p->port && p->mtu >= 1 &&
	       p->mtu <= 5 && p->timeout <= 31 && p->retry <= 7 && p->rnr_retry <= 7;
}

static bool take_setup(const struct wsd_msg_san_setup *m, int fd, struct proxy_msg *ret)
{
	if (!m->session_id || !m->nonce || m->side > 1 || (m->flags & ~WSD_SETUP_NO_OVERFLOW) ||
	    !is_size(m->ring0, WSD_REMOTE_RING0_MIN, WSD_REMOTE_RING0_MAX) ||
	    (m->ring1_max && !is_size(m->ring1_max, WSD_REMOTE_RING0_MIN, WSD_REMOTE_RING1_MAX)) ||
	    (m->fill_max && !is_size(m->fill_max, WSD_REMOTE_RING0_MIN, WSD_REMOTE_RING1_MAX)) ||
	    m->length != wsd_remote_length(m->ring0, m->ring1_max, m->fill_max) || !path_is_sound(&m->path) ||
	    !memfd_is_safe(fd, m->length, F_SEAL_SHRINK | F_SEAL_GROW))
		return false;
	*ret = (struct proxy_msg){
		.type = PROXY_MSG_SAN_SETUP, .cookie = m->hdr.cookie, .session_id = m->session_id,
		.length = m->length, .ring_size = m->ring0, .side = m->side, .fd = fd, .setup = *m,
	};
	return true;
}

static bool take_remote(const struct wsd_msg_san_blob *m, struct proxy_msg *ret)
{
	if (!m->session_id || !m->len || m->len > sizeof(m->blob))
		return false;
	*ret = (struct proxy_msg){ .type = PROXY_MSG_SAN_REMOTE, .cookie = m->hdr.cookie, .session_id = m->session_id, .fd = -1,
				   .blob_len = m->len };
	memcpy(ret->blob, m->blob, m->len);
	return true;
}

static bool take_san_plain(const struct wsd_msg_san_plain *m, enum proxy_msg_type type, struct proxy_msg *ret)
{
	*ret = (struct proxy_msg){ .type = type, .cookie = m->hdr.cookie, .session_id = m->session_id, .fd = -1 };
	return m->session_id && !m->what;
}

static bool offers_has(const struct proxy_client *pc, uint64_t cookie)
{
	unsigned i;

	for (i = pc->n_lost; i < pc->n; i++)
		if (pc->offers[i] == cookie)
			return true;
	return false;
}

/* one packet; 1: *ret is filled, 0: nothing waits, 2: taken, nothing to report */
static int receive_packet(struct proxy_client *pc, struct proxy_msg *ret)
{
	union {
		struct wsd_msg_hdr hdr;
		struct wsd_msg_welcome welcome;
		struct wsd_msg_session session;
		struct wsd_msg_reattached reattached;
		struct wsd_msg_refused refused;
		struct wsd_msg_san_setup setup;
		struct wsd_msg_san_blob blob;
		struct wsd_msg_san_plain san;
		struct wsd_msg_side side;
		char bytes[WSD_MSG_MAX];
	} m;
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(4 * sizeof(int))];
	} ctl;
	struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &ctl, .msg_controllen = sizeof(ctl) };
	uint32_t queued = pc->state == PC_UP ? atomic_load_explicit(&pc->page->queued, memory_order_acquire) : 0;
	struct cmsghdr *c;
	int fds[4], fd = -1, r = 2;
	unsigned i, n, n_fds = 0;
	bool ok;
	long len;

	if (!still_ours(pc)) {
		down(pc, WSD_R_NO_DAEMON);
		return 2;
	}
	do {
		len = rawsys(SYS_recvmsg, pc->fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (len == -EINTR);
	if (len == -EAGAIN || len == -ENOMEM || len == -ENOBUFS) {
		if (pc->state == PC_UP)
			pc->seen = queued;
		return 0;
	}
	if (len <= 0) {
		down(pc, WSD_R_NO_DAEMON);
		return 2;
	}

	for (c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (i = 0; i < n && n_fds < 4; i++)
			memcpy(&fds[n_fds++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
	}
	ok = !(mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && packet_is_sound(&m.hdr, (size_t)len, n_fds);
	if (ok) {
		fd = n_fds ? fds[0] : -1;
		switch (m.hdr.type) {
		case WSD_MSG_WELCOME:
			ok = take_welcome(pc, &m.welcome, fd);
			break;
		case WSD_MSG_SESSION:
		case WSD_MSG_REATTACHED:
			ok = m.hdr.type == WSD_MSG_SESSION ? take_session(&m.session, fd, ret) :
							     take_reattached(&m.reattached, fd, ret);
			/* withdrawn meanwhile: the daemon knows by now */
			if (ok && offers_remove(pc, m.hdr.cookie, true)) {
				n_fds = 0;
				r = 1;
			}
			break;
		case WSD_MSG_SAN_SETUP:
			ok = take_setup(&m.setup, fd, ret);
			/* it stays unanswered until GO */
			if (ok && offers_has(pc, m.hdr.cookie)) {
				n_fds = 0;
				r = 1;
			}
			break;
		case WSD_MSG_SAN_REMOTE:
			ok = take_remote(&m.blob, ret);
			if (ok && offers_has(pc, m.hdr.cookie))
				r = 1;
			break;
		case WSD_MSG_SAN_SIDE:
			ok = m.side.session_id != 0;
			if (ok && offers_has(pc, m.hdr.cookie)) {
				*ret = (struct proxy_msg){ .type = PROXY_MSG_SAN_SIDE, .cookie = m.hdr.cookie,
							   .session_id = m.side.session_id, .at = m.side.at, .fd = -1 };
				r = 1;
			}
			break;
		case WSD_MSG_SAN_GO:
			ok = take_san_plain(&m.san, PROXY_MSG_SAN_GO, ret);
			if (ok && offers_remove(pc, m.hdr.cookie, true))
				r = 1;
			break;
		case WSD_MSG_SAN_LOOK:
			ok = take_san_plain(&m.san, PROXY_MSG_SAN_LOOK, ret);
			if (ok)
				r = 1;
			break;
		case WSD_MSG_REFUSED:
			ok = take_refused(&m.refused, PROXY_MSG_REFUSED, ret);
			if (ok && offers_remove(pc, m.hdr.cookie, true))
				r = 1;
			break;
		case WSD_MSG_REVOKED:
			ok = take_refused(&m.refused, PROXY_MSG_REVOKED, ret);
			if (ok)
				r = 1;
			break;
		case WSD_MSG_ERROR:
			ok = take_refused(&m.refused, PROXY_MSG_REFUSED, ret);
			pc->backoff_ms = BACKOFF_MAX_MS;	/* it will not like us better soon */
			down(pc, ok ? m.refused.reason : WSD_R_VERSION);
			ok = true;
			break;
		}
	}
	for (i = 0; i < n_fds; i++)
		rawsys(SYS_close, fds[i], 0, 0);
	if (!ok) {
		pc->backoff_ms = BACKOFF_MAX_MS;
		down(pc, WSD_R_VERSION);
		return 2;
	}
	return r;
}

int proxy_client_receive(struct proxy_client *pc, struct proxy_msg *ret_msg)
{
	int r;

	for (;;) {
		if (pc->n_lost) {
			*ret_msg = (struct proxy_msg){
				.type = PROXY_MSG_REFUSED, .cookie = pc->offers[0],
				.reason = pc->lost_reason, .fd = -1,
			};
			offers_remove(pc, pc->offers[0], false);
			return 1;
		}
		if (pc->state == PC_DOWN)
			return 0;
		r = receive_packet(pc, ret_msg);
		if (r < 2)
			return r;
	}
}

bool proxy_client_pending(const struct proxy_client *pc)
{
	if (pc->state == PC_UP)
		return atomic_load_explicit(&pc->page->queued, memory_order_relaxed) != pc->seen || pc->n_lost;
	return pc->n_lost || (pc->state == PC_HELLO && pc->n);
}

const _Atomic uint32_t *proxy_client_notify_word(const struct proxy_client *pc)
{
	return pc->state == PC_UP ? &pc->page->queued : NULL;
}

int proxy_client_fd(const struct proxy_client *pc)
{
	return pc->fd;
}

void proxy_client_moved(struct proxy_client *pc, int fd)
{
	if (cookie_of(fd) == pc->sock_cookie)
		pc->fd = fd;
}

void proxy_client_after_fork(struct proxy_client *pc)
{
	disconnect(pc);
	pc->n = 0;
	pc->n_lost = 0;
	pc->reason = WSD_R_NO_DAEMON;
	pc->retry_ms = 0;
	pc->backoff_ms = 0;
}
