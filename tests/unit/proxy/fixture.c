/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/proxy/fixture.h"

#define OPTIONS_MAX 16

static int try_connect(const struct daemon *d)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(sun.sun_path, d->path);
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
		return fd;
	close(fd);
	return -1;
}

bool daemon_reachable(const struct daemon *d)
{
	int fd = try_connect(d);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

void daemon_start(struct daemon *d, const char *const *options)
{
	const char *argv[OPTIONS_MAX + 4] = { WSD_PROXYD, "--socket", d->path };
	unsigned n = 3;

	if (!d->dir[0]) {
		strcpy(d->dir, "/tmp/wsd-proxy-test-XXXXXX");
		cr_assert_not_null(mkdtemp(d->dir));
		snprintf(d->path, sizeof(d->path), "%s/proxyd.sock", d->dir);
	}
	while (options && *options && n < OPTIONS_MAX)
		argv[n++] = *options++;
	d->pid = fork();
	cr_assert_geq(d->pid, 0);
	if (!d->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);	/* a test that fails leaves no daemon behind */
		execv(WSD_PROXYD, (char *const *)argv);
		_exit(127);
	}
	setenv(WSD_PROXY_SOCKET_ENV, d->path, 1);
	cr_assert(UNTIL(daemon_reachable(d)), "the daemon does not come up");
}

void daemon_signal(struct daemon *d, int sig)
{
	cr_assert_eq(kill(d->pid, sig), 0);
}

int daemon_wait(struct daemon *d)
{
	int st = 0;

	cr_assert(UNTIL(waitpid(d->pid, &st, WNOHANG) == d->pid), "the daemon does not stop");
	return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

void daemon_stop(struct daemon *d)
{
	char lock[128];

	daemon_signal(d, SIGTERM);
	cr_expect_eq(daemon_wait(d), 0);
	cr_expect_eq(access(d->path, F_OK), -1, "the socket is left behind");
	snprintf(lock, sizeof(lock), "%s.lock", d->path);
	unlink(lock);
	rmdir(d->dir);
}

uint64_t sock_cookie(int fd)
{
	uint64_t c = 0;
	socklen_t len = sizeof(c);

	cr_assert_eq(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &c, &len), 0);
	return c;
}

static void loopback(struct sockaddr_storage *ss, socklen_t *len, bool v6, bool mapped)
{
	struct sockaddr_in *in = (void *)ss;
	struct sockaddr_in6 *in6 = (void *)ss;

	memset(ss, 0, sizeof(*ss));
	if (v6) {
		in6->sin6_family = AF_INET6;
		in6->sin6_addr = in6addr_loopback;
		if (mapped)
			inet_pton(AF_INET6, "::ffff:127.0.0.1", &in6->sin6_addr);
		*len = sizeof(*in6);
	} else {
		in->sin_family = AF_INET;
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		*len = sizeof(*in);
	}
}

struct pair pair_make(enum pair_kind kind)
{
	bool server6 = kind != PAIR_V4, client6 = kind == PAIR_V6 || kind == PAIR_MAPPED;
	bool mapped = kind == PAIR_MAPPED || kind == PAIR_MAPPED_SERVER;
	struct sockaddr_storage ss;
	socklen_t len, got;
	struct pair p;
	in_port_t port;
	int l;

	loopback(&ss, &len, server6, mapped);
	l = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(l, (struct sockaddr *)&ss, len), 0);
	cr_assert_eq(listen(l, 1), 0);
	got = sizeof(ss);
	getsockname(l, (struct sockaddr *)&ss, &got);
	port = ((struct sockaddr_in *)&ss)->sin_port;
	loopback(&ss, &len, client6, mapped);
	((struct sockaddr_in *)&ss)->sin_port = port;
	p.end[0] = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(connect(p.end[0], (struct sockaddr *)&ss, len), 0);
	p.end[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	cr_assert_geq(p.end[1], 0);
	close(l);
	return p;
}

void offer(struct proxy_client *pc, int fd, uint32_t role, uint64_t cookie)
{
	cr_assert_eq(proxy_client_offer(pc, fd, role, sock_cookie(fd), cookie, 0), 0);
}

struct proxy_msg message(struct proxy_client *pc)
{
	struct proxy_msg m = { .fd = -1 };

	cr_assert(UNTIL(proxy_client_receive(pc, &m) == 1), "no message came");
	return m;
}

struct proxy_msg expect_session(struct proxy_client *pc, uint64_t cookie)
{
	struct proxy_msg m = message(pc);

	cr_assert_eq(m.type, PROXY_MSG_SESSION, "message %d, reason %u", m.type, m.reason);
	cr_assert_eq(m.cookie, cookie);
	return m;
}

void expect_refused(struct proxy_client *pc, uint64_t cookie, uint32_t reason)
{
	struct proxy_msg m = message(pc);

	cr_assert_eq(m.type, PROXY_MSG_REFUSED, "message %d", m.type);
	cr_assert_eq(m.cookie, cookie);
	cr_assert_eq(m.reason, reason, "reason %u, not %u", m.reason, reason);
}

struct wsd_session *map_session(struct proxy_msg *m)
{
	struct wsd_session *s = mmap(NULL, m->length, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);

	cr_assert_neq(s, MAP_FAILED);
	close(m->fd);
	m->fd = -1;
	return s;
}

int raw_connect(const struct daemon *d)
{
	int fd = -1;

	cr_assert(UNTIL((fd = try_connect(d)) >= 0));
	return fd;
}

bool raw_send(int fd, const void *buf, size_t len)
{
	return send(fd, buf, len, MSG_NOSIGNAL) == (ssize_t)len;
}

ssize_t raw_receive(int fd, void *buf, size_t room)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, DEADLINE_MS) != 1)
		return -1;
	n = recv(fd, buf, room, MSG_DONTWAIT);
	return n < 0 ? 0 : n;
}

bool raw_hello(int fd)
{
	struct wsd_msg_hello h = { .hdr = { sizeof(h), WSD_PROXY_VERSION, WSD_MSG_HELLO, 0 } };
	struct wsd_msg_welcome w;

	return raw_send(fd, &h, sizeof(h)) && raw_receive(fd, &w, sizeof(w)) == sizeof(w);
}

void status_get(const struct daemon *d, struct status *ret)
{
	struct wsd_msg_plain rq = { .hdr = { sizeof(rq), WSD_PROXY_VERSION, WSD_MSG_STATUS, 0 } };
	union {
		struct wsd_msg_hdr hdr;
		struct wsd_msg_status_daemon d;
		struct wsd_msg_status_conn conn;
		char bytes[WSD_MSG_MAX];
	} m;
	int fd = raw_connect(d);
	ssize_t n;

	memset(ret, 0, sizeof(*ret));
	cr_assert(raw_send(fd, &rq, sizeof(rq)));
	for (;;) {
		n = raw_receive(fd, &m, sizeof(m));
		cr_assert_gt(n, 0, "status is not answered");
		cr_assert_eq(m.hdr.len, n);
		if (m.hdr.type == WSD_MSG_STATUS_END)
			break;
		if (m.hdr.type == WSD_MSG_STATUS_DAEMON)
			ret->d = m.d;
		else if (ret->n < STATUS_CONNS)
			ret->conn[ret->n++] = m.conn;
	}
	close(fd);
}

unsigned status_ends(const struct daemon *d)
{
	struct status s;

	status_get(d, &s);
	return s.n;
}

unsigned status_sessions(const struct daemon *d)
{
	struct status s;

	status_get(d, &s);
	return s.d.n_sessions;
}
