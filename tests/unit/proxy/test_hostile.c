/* SPDX-License-Identifier: MIT */
/* what clients should never do */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <wsd/remote_session.h>

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

TestSuite(hostile, .init = start, .fini = stop, .timeout = 120);

static uint32_t error_of(int fd)
{
	struct wsd_msg_refused e;
	char rest[WSD_MSG_MAX];

	cr_assert_eq(raw_receive(fd, &e, sizeof(e)), sizeof(e), "no answer");
	cr_assert_eq(e.hdr.type, WSD_MSG_ERROR);
	cr_assert_eq(raw_receive(fd, rest, sizeof(rest)), 0, "more than one answer, or not hung up");
	close(fd);
	return e.reason;
}

Test(hostile, packets_of_every_length)
{
	static const uint16_t types[] = { 0, WSD_MSG_HELLO, WSD_MSG_OFFER, WSD_MSG_WITHDRAW, WSD_MSG_ATTACHED,
					  WSD_MSG_STATUS, WSD_MSG_UNLOAD, WSD_MSG_REATTACH, WSD_MSG_SIDE, 9, 64, 65, 0xffff };
	char buf[1200];
	unsigned t, len;

	for (len = 1; len < 1100; len = len < 140 ? len + 1 : len + 97) {
		for (t = 0; t < sizeof(types) / sizeof(*types); t++) {
			struct wsd_msg_hdr h = { len, WSD_PROXY_VERSION, types[t], 1 };
			int fd = raw_connect(&d);

			memset(buf, 0xa5, sizeof(buf));
			memcpy(buf, &h, sizeof(h));
			/* a sound WITHDRAW or ATTACHED comes before HELLO: an error as well */
			cr_assert(raw_send(fd, buf, len));
			cr_assert_neq(error_of(fd), WSD_R_NONE, "type %u length %u", types[t], len);
		}
	}
	/* the empty packet */
	{
		int fd = raw_connect(&d);
		char c;

		cr_assert_eq(send(fd, "", 0, MSG_NOSIGNAL), 0);
		cr_assert_eq(raw_receive(fd, &c, 1), 0);
		close(fd);
	}
}

Test(hostile, another_version_is_named)
{
	struct wsd_msg_hello h = { .hdr = { sizeof(h), WSD_PROXY_VERSION + 1, WSD_MSG_HELLO, 0 } };
	int fd = raw_connect(&d);

	cr_assert(raw_send(fd, &h, sizeof(h)));
	cr_expect_eq(error_of(fd), WSD_R_VERSION);
}

Test(hostile, two_hellos_and_cookies_in_use)
{
	struct wsd_msg_hello h = { .hdr = { sizeof(h), WSD_PROXY_VERSION, WSD_MSG_HELLO, 0 } };
	struct pair p = pair_make(PAIR_V4), q = pair_make(PAIR_V4);
	struct proxy_client *pc = proxy_client_new();
	struct proxy_msg m;
	int fd = raw_connect(&d);

	cr_assert(raw_hello(fd));
	cr_assert(raw_send(fd, &h, sizeof(h)));
	cr_expect_eq(error_of(fd), WSD_R_PEER_BROKEN);
	offer(pc, p.end[0], WSD_ROLE_CONNECT, 5);
	offer(pc, q.end[0], WSD_ROLE_CONNECT, 5);
	/* the connection is gone, and with it both offers */
	m = message(pc);
	cr_expect_eq(m.type, PROXY_MSG_REFUSED);
	cr_expect_eq(m.reason, WSD_R_PEER_BROKEN);
	m = message(pc);
	cr_expect_eq(m.type, PROXY_MSG_REFUSED);
	cr_expect(UNTIL(status_ends(&d) == 0));
	cr_expect_eq(proxy_client_offer(pc, q.end[0], WSD_ROLE_CONNECT, sock_cookie(q.end[0]), 6, 0),
		     PROXY_CLIENT_E_DOWN, "no back-off");
	proxy_client_free(pc);
}

Test(hostile, descriptors_that_are_sent_are_not_kept)
{
	struct wsd_msg_hello h = { .hdr = { sizeof(h), WSD_PROXY_VERSION, WSD_MSG_HELLO, 0 } };
	union { struct cmsghdr a; char b[CMSG_SPACE(10 * sizeof(int))]; } ctl;
	struct iovec iov = { &h, sizeof(h) };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &ctl, .msg_controllen = sizeof(ctl) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
	int raw = raw_connect(&d), pipes[2], i, *fds = (int *)CMSG_DATA(c);
	char b;

	cr_assert_eq(pipe(pipes), 0);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(10 * sizeof(int));
	for (i = 0; i < 10; i++)
		fds[i] = pipes[1];
	cr_assert_eq(sendmsg(raw, &mh, MSG_NOSIGNAL), (ssize_t)sizeof(h));
	close(pipes[1]);
	/* end of file on the pipe: nobody else has its other end */
	fcntl(pipes[0], F_SETFL, O_NONBLOCK);
	cr_expect(UNTIL(read(pipes[0], &b, 1) == 0), "the daemon keeps descriptors");
	close(raw);
}

Test(hostile, the_notify_page_cannot_be_written)
{
	struct proxy_client *pc = proxy_client_new();
	const _Atomic uint32_t *w;
	struct proxy_msg m;
	char line[256];
	bool writable = true;
	FILE *f;

	cr_assert_eq(proxy_client_connect(pc), 0);
	cr_assert(UNTIL((proxy_client_receive(pc, &m), w = proxy_client_notify_word(pc)) != NULL));
	cr_expect_eq(mprotect((void *)w, 4096, PROT_READ | PROT_WRITE), -1);
	f = fopen("/proc/self/maps", "r");
	while (fgets(line, sizeof(line), f))
		if (strstr(line, "wsd-notify"))
			writable = strstr(line, "rw-s") != NULL;
	fclose(f);
	cr_expect_not(writable);
	proxy_client_free(pc);
}

/* a client that asks and never reads: bounded, dropped, and the others do not notice */
Test(hostile, who_does_not_read_is_dropped)
{
	struct proxy_client *pc = proxy_client_new();
	struct wsd_msg_offer o = {
		.hdr = { sizeof(o), WSD_PROXY_VERSION, WSD_MSG_OFFER, 1 }, .fd = 0, .sock_cookie = 1,
		.local = { .family = AF_INET }, .remote = { .family = AF_INET },
	};
	struct pair p = pair_make(PAIR_V4);
	int raw = raw_connect(&d), i;
	struct proxy_msg m;

	cr_assert(raw_hello(raw));
	fcntl(raw, F_SETFL, O_NONBLOCK);
	for (i = 0; i < 1000000; i++) {
		o.hdr.cookie = (uint64_t)i + 1;
		if (send(raw, &o, sizeof(o), MSG_NOSIGNAL) < 0) {
			if (errno != EAGAIN)
				break;
			poll(&(struct pollfd){ .fd = raw, .events = POLLOUT }, 1, 1000);
		}
	}
	cr_expect_lt(i, 1000000, "it was never dropped");
	offer(pc, p.end[0], WSD_ROLE_CONNECT, 1);
	offer(pc, p.end[1], WSD_ROLE_ACCEPT, 2);
	m = message(pc);
	cr_expect_eq(m.type, PROXY_MSG_SESSION);
	proxy_client_free(pc);
	close(raw);
}

/* another user sees and stops nothing of ours */
Test(hostile, other_users)
{
	struct proxy_client *pc = proxy_client_new();
	struct pair p = pair_make(PAIR_V4);
	int st;
	pid_t pid;

	if (geteuid() != 0)
		cr_skip_test("needs root");
	chmod(d.dir, 0755);
	offer(pc, p.end[0], WSD_ROLE_CONNECT, 1);
	cr_assert(UNTIL(status_ends(&d) == 1));
	pid = fork();
	if (!pid) {
		struct wsd_msg_plain u = { .hdr = { sizeof(u), WSD_PROXY_VERSION, WSD_MSG_UNLOAD, 0 } };
		int raw;

		if (setgid(65534) || setuid(65534))
			_exit(1);
		cr_assert_eq(status_ends(&d), 0, "another user's connections are shown");
		raw = raw_connect(&d);
		cr_assert(raw_send(raw, &u, sizeof(u)));
		cr_assert_eq(error_of(raw), WSD_R_NOT_OWNER);
		_exit(0);
	}
	waitpid(pid, &st, 0);
	cr_expect(WIFEXITED(st) && WEXITSTATUS(st) == 0);
	cr_expect(daemon_reachable(&d));
	proxy_client_free(pc);
}

/* ---- the library against descriptors that are not what they seem ---- */

Test(hostile, a_descriptor_closed_behind_our_back_is_never_written)
{
	struct proxy_client *pc = proxy_client_new();
	struct pair p = pair_make(PAIR_V4);
	int ends[2], fd, i;
	char c;

	offer(pc, p.end[0], WSD_ROLE_CONNECT, 1);
	fd = proxy_client_fd(pc);
	cr_expect_gt(fd, 900, "not at the top of the range: %d", fd);
	cr_expect_neq(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	cr_assert_eq(dup2(ends[0], fd), fd);
	cr_expect_eq(proxy_client_withdraw(pc, 1, WSD_R_NONE, 0), PROXY_CLIENT_E_DOWN);
	cr_expect_eq(recv(ends[1], &c, 1, MSG_DONTWAIT), -1, "our bytes went to the program's socket");
	cr_expect_neq(fcntl(fd, F_GETFD), -1, "the program's descriptor was closed");
	cr_expect_eq(proxy_client_fd(pc), -1);
	/* and after the back-off it is up again */
	cr_expect(UNTIL((i = proxy_client_offer(pc, p.end[0], WSD_ROLE_CONNECT, sock_cookie(p.end[0]), 2, 0)) == 0));
	proxy_client_free(pc);
}

Test(hostile, the_way_to_the_daemon_must_be_ours_or_roots)
{
	struct proxy_client *pc;
	char dir[] = "/tmp/wsd-proxy-link-XXXXXX", link[64];

	cr_assert_not_null(mkdtemp(dir));
	snprintf(link, sizeof(link), "%s/sock", dir);
	cr_assert_eq(symlink(d.path, link), 0);
	setenv(WSD_PROXY_SOCKET_ENV, link, 1);
	pc = proxy_client_new();
	cr_expect_eq(proxy_client_connect(pc), PROXY_CLIENT_E_DOWN);
	cr_expect_eq(proxy_client_reason(pc), WSD_R_DAEMON_CRED);
	proxy_client_free(pc);
	unlink(link);
	/* a directory that everybody may write */
	chmod(d.dir, 0777);
	setenv(WSD_PROXY_SOCKET_ENV, d.path, 1);
	pc = proxy_client_new();
	cr_expect_eq(proxy_client_connect(pc), PROXY_CLIENT_E_DOWN);
	cr_expect_eq(proxy_client_reason(pc), WSD_R_DAEMON_CRED);
	proxy_client_free(pc);
	chmod(d.dir, 0700);
	rmdir(dir);
}

Test(hostile, a_daemon_of_another_user_is_refused)
{
	struct proxy_client *pc = proxy_client_new();
	int st;
	pid_t pid;

	if (geteuid() != 0)
		cr_skip_test("needs root");
	proxy_client_free(pc);
	pid = fork();
	if (!pid) {
		/* a uid whose parent directory check passes: root's. So give it the socket, not the directory. */
		struct daemon other = { .dir = "/tmp" };
		char dir[] = "/tmp/wsd-proxy-other-XXXXXX";

		if (!mkdtemp(dir) || chown(dir, 65534, 65534))
			_exit(1);
		snprintf(other.path, sizeof(other.path), "%s/s", dir);
		other.pid = fork();
		if (!other.pid) {
			if (setgid(65534) || setuid(65534))
				_exit(1);
			execl(WSD_PROXYD, WSD_PROXYD, "--private", "--socket", other.path, NULL);
			_exit(127);
		}
		setenv(WSD_PROXY_SOCKET_ENV, other.path, 1);
		if (!UNTIL(daemon_reachable(&other)))
			_exit(2);
		pc = proxy_client_new();
		cr_assert_eq(proxy_client_connect(pc), PROXY_CLIENT_E_DOWN);
		cr_assert_eq(proxy_client_reason(pc), WSD_R_DAEMON_CRED);
		/* also with the directory and the name made root's: the daemon's own uid decides */
		(void)!chown(dir, 0, 0);
		(void)!chown(other.path, 0, 0);
		pc = proxy_client_new();
		cr_assert_eq(proxy_client_connect(pc), PROXY_CLIENT_E_DOWN);
		cr_assert_eq(proxy_client_reason(pc), WSD_R_DAEMON_CRED);
		(void)!chown(dir, 65534, 65534);
		kill(other.pid, SIGTERM);
		waitpid(other.pid, NULL, 0);
		_exit(0);
	}
	waitpid(pid, &st, 0);
	cr_expect(WIFEXITED(st) && WEXITSTATUS(st) == 0, "status %d", st);
}

/* a stand-in for the daemon, of our own user, that sends what it should not */
struct bad_daemon {
	int listener, fd;
	char dir[64], path[96];
};

static void bad_start(struct bad_daemon *b)
{
	struct sockaddr_storage ss = { .ss_family = AF_UNIX };

	strcpy(b->dir, "/tmp/wsd-proxy-bad-XXXXXX");
	cr_assert_not_null(mkdtemp(b->dir));
	snprintf(b->path, sizeof(b->path), "%s/s", b->dir);
	strcpy((char *)&ss + 2, b->path);
	b->listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	cr_assert_eq(bind(b->listener, (struct sockaddr *)&ss, 110), 0);
	cr_assert_eq(listen(b->listener, 8), 0);
	setenv(WSD_PROXY_SOCKET_ENV, b->path, 1);
}

static void bad_send(struct bad_daemon *b, const void *buf, size_t len, const int *fds, unsigned n)
{
	union { struct cmsghdr a; char b[CMSG_SPACE(8 * sizeof(int))]; } ctl;
	struct iovec iov = { (void *)buf, len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (n) {
		mh.msg_control = &ctl;
		mh.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	}
	cr_assert_eq(sendmsg(b->fd, &mh, MSG_NOSIGNAL), (ssize_t)len);
}

static int memfd_of(uint64_t size, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	cr_assert_eq(ftruncate(fd, (off_t)size), 0);
	cr_assert_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static int count_fds(void)
{
	int fd, n = 0;

	for (fd = 0; fd < 9000; fd++)
		n += fcntl(fd, F_GETFD) != -1;
	return n;
}

Test(hostile, what_a_broken_daemon_sends_ends_the_connection)
{
	const int all = F_SEAL_SHRINK | F_SEAL_GROW;
	struct wsd_msg_session s = {
		.hdr = { sizeof(s), WSD_PROXY_VERSION, WSD_MSG_SESSION, 1 }, .session_id = 5,
		.ring_size = WSD_RING_MIN, .length = wsd_session_length(WSD_RING_MIN), .side = 1,
	}, t;
	struct wsd_msg_welcome w = {
		.hdr = { sizeof(w), WSD_PROXY_VERSION, WSD_MSG_WELCOME, 0 }, .page_size = 4096,
	};
	int good = memfd_of(s.length, all), unsealed = memfd_of(s.length, F_SEAL_GROW);
	int small = memfd_of(s.length - 4096, all), page = memfd_of(4096, all), soft = memfd_of(4096, 0);
	struct pair p = pair_make(PAIR_V4);
	struct bad_daemon b;
	struct proxy_msg m;
	unsigned k;
	int before, two[2] = { good, good }, five[5] = { good, good, good, good, good };

	bad_start(&b);
	for (k = 0; k < 14; k++) {
		struct proxy_client *pc = proxy_client_new();
		bool fine = false;

		before = count_fds();
		offer(pc, p.end[0], WSD_ROLE_CONNECT, 1);
		b.fd = accept(b.listener, NULL, NULL);
		cr_assert_geq(b.fd, 0);
		t = s;
		switch (k) {
		case 0: bad_send(&b, &s, sizeof(s), NULL, 0); break;
		case 1: bad_send(&b, &s, sizeof(s), two, 2); break;
		case 2: bad_send(&b, &s, sizeof(s), five, 5); break;
		case 3: bad_send(&b, &s, sizeof(s), &unsealed, 1); break;
		case 4: bad_send(&b, &s, sizeof(s), &small, 1); break;
		case 5: bad_send(&b, &s, sizeof(s), &p.end[0], 1); break;
		case 6: bad_send(&b, &s, sizeof(s) - 1, &good, 1); break;
		case 7: t.ring_size++; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 8: t.side = 2; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 9: t.hdr.version++; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 10: bad_send(&b, &w, sizeof(w), &soft, 1); break;
		case 11: bad_send(&b, "x", 1, NULL, 0); break;
		case 12: t.hdr.cookie = 77; bad_send(&b, &t, sizeof(t), &good, 1); fine = true; break;
		case 13: bad_send(&b, &w, sizeof(w), &page, 1); fine = true; break;
		}
		if (fine) {
			cr_assert_eq(proxy_client_receive(pc, &m), 0, "case %u", k);
			cr_assert_geq(proxy_client_fd(pc), 0, "case %u", k);
		} else {
			cr_assert_eq(proxy_client_receive(pc, &m), 1, "case %u", k);
			cr_assert_eq(m.type, PROXY_MSG_REFUSED, "case %u is believed", k);
			cr_assert_eq(m.cookie, 1);
			cr_assert_eq(proxy_client_fd(pc), -1, "case %u", k);
		}
		proxy_client_free(pc);
		close(b.fd);
		cr_assert_eq(count_fds(), before, "case %u leaks a descriptor", k);
	}
	unlink(b.path);
	rmdir(b.dir);
}

/* the same of what belongs to RDMA; first WELCOME, for there is no OFFER_SAN before */
Test(hostile, what_a_broken_daemon_says_of_rdma_ends_the_connection)
{
	const int all = F_SEAL_SHRINK | F_SEAL_GROW;
	struct wsd_msg_san_setup s = {
		.hdr = { sizeof(s), WSD_PROXY_VERSION, WSD_MSG_SAN_SETUP, 1 }, .session_id = 5, .nonce = 6,
		.ring0 = 8192, .ring1_max = 65536, .fill_max = 65536, .length = wsd_remote_length(8192, 65536, 65536),
		.path = { .device = "rxe0", .port = 1, .mtu = 3, .timeout = 14, .retry = 7, .rnr_retry = 6 },
	}, t;
	struct wsd_msg_san_blob r = {
		.hdr = { sizeof(r), WSD_PROXY_VERSION, WSD_MSG_SAN_REMOTE, 1 }, .session_id = 5, .len = 9,
	}, q;
	struct wsd_msg_san_plain g = { .hdr = { sizeof(g), WSD_PROXY_VERSION, WSD_MSG_SAN_GO, 1 }, .session_id = 5 }, h;
	struct wsd_msg_welcome w = {
		.hdr = { sizeof(w), WSD_PROXY_VERSION, WSD_MSG_WELCOME, WSD_CAP_SAN }, .page_size = 4096,
	};
	int good = memfd_of(s.length, all), unsealed = memfd_of(s.length, F_SEAL_SHRINK), page = memfd_of(4096, all);
	int small = memfd_of(s.length - 4096, all);
	struct pair p = pair_make(PAIR_V4);
	struct proxy_san_offer x = { 0 };
	struct bad_daemon b;
	struct proxy_msg m;
	unsigned k;
	int before;

	bad_start(&b);
	for (k = 0; k < 31; k++) {
		struct proxy_client *pc = proxy_client_new();
		enum { BAD, FINE, NOTHING } what = BAD;

		before = count_fds();
		cr_assert_eq(proxy_client_offer_san(pc, p.end[0], WSD_ROLE_CONNECT, sock_cookie(p.end[0]), 1, &x), PROXY_CLIENT_E_BUSY);
		b.fd = accept(b.listener, NULL, NULL);
		cr_assert_geq(b.fd, 0);
		bad_send(&b, &w, sizeof(w), &page, 1);
		cr_assert_eq(proxy_client_receive(pc, &m), 0);
		cr_assert_eq(proxy_client_offer_san(pc, p.end[0], WSD_ROLE_CONNECT, sock_cookie(p.end[0]), 1, &x), 0);
		t = s;
		q = r;
		h = g;
		switch (k) {
		case 0: bad_send(&b, &t, sizeof(t), NULL, 0); break;
		case 1: bad_send(&b, &t, sizeof(t), &unsealed, 1); break;
		case 2: bad_send(&b, &t, sizeof(t), &small, 1); break;
		case 3: t.length -= 4096; bad_send(&b, &t, sizeof(t), &small, 1); break;
		case 4: t.ring0++; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 5: t.ring0 = 1 << 30; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 6: t.ring1_max = 3 << 12; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 7: t.fill_max = 1u << 31; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 8: t.nonce = 0; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 9: t.session_id = 0; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 10: t.side = 2; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 11: t.flags = 2; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 12: memset(t.path.device, 'a', 64); bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 13: strcpy(t.path.device, "../x"); bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 14: t.path.device[0] = 0; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 15: t.path.port = 0; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 16: t.path.mtu = 6; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 17: t.path.retry = 8; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 18: t.path.timeout = 32; bad_send(&b, &t, sizeof(t), &good, 1); break;
		case 19: q.len = 257; bad_send(&b, &q, sizeof(q), NULL, 0); break;
		case 20: q.len = 0; bad_send(&b, &q, sizeof(q), NULL, 0); break;
		case 21: bad_send(&b, &q, sizeof(q), &good, 1); break;
		case 22: h.what = 1; bad_send(&b, &h, sizeof(h), NULL, 0); break;
		case 23: h.session_id = 0; bad_send(&b, &h, sizeof(h), NULL, 0); break;
		case 24: bad_send(&b, &h, sizeof(h) - 8, NULL, 0); break;
		case 25: t.hdr.cookie = 2; bad_send(&b, &t, sizeof(t), &good, 1); what = NOTHING; break;
		case 26: h.hdr.cookie = 2; bad_send(&b, &h, sizeof(h), NULL, 0); what = NOTHING; break;
		case 27: bad_send(&b, &t, sizeof(t), &good, 1); what = FINE; break;
		case 28: bad_send(&b, &q, sizeof(q), NULL, 0); what = FINE; break;
		case 29: bad_send(&b, &h, sizeof(h), NULL, 0); what = FINE; break;
		case 30: t.ring1_max = t.fill_max = 0; t.length = 4 * 8192 - 2 * 4096; bad_send(&b, &t, sizeof(t), &good, 1); break;
		}
		if (what == NOTHING) {
			cr_assert_eq(proxy_client_receive(pc, &m), 0, "case %u", k);
			cr_assert_geq(proxy_client_fd(pc), 0, "case %u", k);
		} else {
			cr_assert_eq(proxy_client_receive(pc, &m), 1, "case %u", k);
			cr_assert_eq(m.type == PROXY_MSG_REFUSED, what == BAD, "case %u: message %d", k, m.type);
			cr_assert_eq(proxy_client_fd(pc) == -1, what == BAD, "case %u", k);
			if (m.fd >= 0)
				close(m.fd);
		}
		proxy_client_free(pc);
		close(b.fd);
		cr_assert_eq(count_fds(), before, "case %u leaks a descriptor", k);
	}
	unlink(b.path);
	rmdir(b.dir);
}

/* the backlog is full, or nobody accepts: the library does not wait */
Test(hostile, a_daemon_that_accepts_nobody_blocks_nobody)
{
	struct pair p = pair_make(PAIR_V4);
	struct proxy_client *pc[64];
	struct bad_daemon b;
	unsigned i, down = 0;
	struct proxy_msg m;

	bad_start(&b);
	for (i = 0; i < 64; i++) {
		pc[i] = proxy_client_new();
		down += proxy_client_offer(pc[i], p.end[0], WSD_ROLE_CONNECT, sock_cookie(p.end[0]), 1, 0) != 0;
		cr_assert_eq(proxy_client_receive(pc[i], &m), 0);
	}
	cr_expect_gt(down, 40);
	for (i = 0; i < 64; i++)
		proxy_client_free(pc[i]);
	unlink(b.path);
	rmdir(b.dir);
}
