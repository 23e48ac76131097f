/* SPDX-License-Identifier: MIT */
/*
 * test_distant.c - RDMA sessions between two hosts: two network namespaces with a daemon in each, and a real link between them
 *
 * Clients are fakes, as in test_remote.c. One process has the clients of both hosts: it is in the namespace of the host whose
 * socket it offers while it does so. Needs root and veth; skipped without.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/proxy/fake_remote.h"

static struct host {
	int ns;
	struct daemon d;
	char sys[64];
} host[2];
static pid_t keeper;
static bool usable;

static bool run(const char *what)
{
	char cmd[320];

	snprintf(cmd, sizeof(cmd), "(%s) >/dev/null 2>&1", what);
	return system(cmd) == 0;
}

static void enter(unsigned i)
{
	cr_assert_eq(setns(host[i].ns, CLONE_NEWNET), 0);
}

/* a second namespace, kept by a child, joined to ours */
static bool make_net(void)
{
	char path[64], cmd[256], c;
	int p[2];

	if (unshare(CLONE_NEWNET) < 0 || pipe(p) < 0)
		return false;
	host[0].ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	keeper = fork();
	if (!keeper) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		c = unshare(CLONE_NEWNET) == 0;
		(void)!write(p[1], &c, 1);
		for (;;)
			pause();
	}
	if (read(p[0], &c, 1) != 1 || !c)
		return false;
	close(p[0]);
	close(p[1]);
	snprintf(path, sizeof(path), "/proc/%d/ns/net", keeper);
	host[1].ns = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(cmd, sizeof(cmd), "ip link set lo up && ip link add wsd0 type veth peer name wsd1 && ip link set wsd1 netns %d && "
		 "ip addr add 10.99.0.1/24 dev wsd0 && ip link set wsd0 up", keeper);
	if (!run(cmd))
		return false;
	enter(1);
	return run("ip link set lo up && ip addr add 10.99.0.2/24 dev wsd1 && ip link set wsd1 up");
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

/* the netdev's number as the kernel has it, or another */
static void set_ifindex(unsigned i, unsigned more)
{
	char path[96], text[16];

	enter(i);
	snprintf(path, sizeof(path), "%s/class/net/eth0/ifindex", host[i].sys);
	snprintf(text, sizeof(text), "%u\n", if_nametoindex(i ? "wsd1" : "wsd0") + more);
	write_file(path, text);
}

static const char *more_of[2] = { "", "" };	/* lines for the hosts' [san] */

static void start_host(unsigned i, const char *key)
{
	struct host *h = &host[i];
	char conf[80], text[256], gid[48];

	strcpy(h->sys, "/tmp/wsd-proxy-sysfs-XXXXXX");
	cr_assert_not_null(mkdtemp(h->sys));
	snprintf(gid, sizeof(gid), "0000:0000:0000:0000:0000:ffff:0a63:000%u\n", i + 1);
	fake_device(h->sys, gid);
	set_ifindex(i, 0);
	snprintf(conf, sizeof(conf), "%s/key", h->sys);
	write_file(conf, key);
	snprintf(text, sizeof(text), "[san]\nsubnets = 10.99.0.0/24\nkey-file = %s/key\n%s", h->sys, more_of[i]);
	snprintf(conf, sizeof(conf), "%s/conf", h->sys);
	write_file(conf, text);
	setenv("WSD_TEST_SYSFS", h->sys, 1);
	enter(i);
	daemon_start(&h->d, (const char *[]){ "--system", "--config", conf, NULL });
}

#define KEY "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"

static void start(void)
{
	usable = make_net();
	if (!usable)
		return;
	start_host(0, KEY);
	start_host(1, KEY);
}

static void stop(void)
{
	char cmd[96];
	unsigned i;

	for (i = 0; i < 2 && usable; i++) {
		if (host[i].d.pid)
			daemon_stop(&host[i].d);
		snprintf(cmd, sizeof(cmd), "rm -rf %s", host[i].sys);
		run(cmd);
	}
	if (keeper > 0) {
		kill(keeper, SIGKILL);
		waitpid(keeper, NULL, 0);
	}
}

TestSuite(distant, .init = start, .fini = stop, .timeout = 120);

#define NEED_NET() do { if (!usable) cr_skip_test("no network namespaces with veth"); } while (0)

/* end[0] on host 0 connected to end[1] on host 1 */
static struct pair connection(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(4711) };
	struct pair p;
	int l, one = 1;

	enter(1);
	inet_pton(AF_INET, "10.99.0.2", &sin.sin_addr);
	l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	cr_assert_eq(bind(l, (struct sockaddr *)&sin, sizeof(sin)), 0);
	cr_assert_eq(listen(l, 1), 0);
	enter(0);
	p.end[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(connect(p.end[0], (struct sockaddr *)&sin, sizeof(sin)), 0);
	p.end[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	cr_assert_geq(p.end[1], 0);
	close(l);
	return p;
}

/* digests of the same first 64 bytes each way; twist: of another stream */
static struct proxy_san_offer proof(unsigned i, unsigned twist)
{
	struct proxy_san_offer x = { .n_tx = 2, .n_rx = 2 };
	unsigned k;

	for (k = 0; k < 2; k++) {
		x.tx[k].h[0] = 1000 + 10 * i + k;
		x.rx[k].h[0] = 1000 + 10 * (1 - i) + k + twist;
	}
	return x;
}

static void offer_at(unsigned i, struct fake *f, const struct pair *p, const struct proxy_san_offer *x)
{
	if (!f->pc) {
		f->pc = proxy_client_new();
		proxy_client_set_places(f->pc, host[i].d.path, NULL);
	}
	enter(i);
	offer_proven(f, p->end[i], i == 0 ? WSD_ROLE_CONNECT : WSD_ROLE_ACCEPT, x);
	cr_assert(UNTIL(status_ends(&host[i].d) >= 1));	/* while we are there */
}

static struct proxy_msg answer(struct fake *f)
{
	struct proxy_msg m;

	do
		m = message(f->pc);
	while (m.type == PROXY_MSG_SAN_LOOK);
	return m;
}

static void live_two(struct fake f[2], struct pair *p, bool accept_first)
{
	struct proxy_san_offer x[2] = { proof(0, 0), proof(1, 0) };

	*p = connection();
	offer_at(accept_first, &f[accept_first], p, &x[accept_first]);
	offer_at(!accept_first, &f[!accept_first], p, &x[!accept_first]);
	take_setup(&f[0]);
	take_setup(&f[1]);
	join_both(f);
}

Test(distant, two_hosts_accepting_end_first)
{
	struct fake f[2] = { 0 };
	struct pair p;

	NEED_NET();
	live_two(f, &p, true);
	cr_expect_eq(f[0].rs->nonce, f[1].rs->nonce);
	cr_expect_eq(f[0].id, f[1].id);
	cr_expect_eq(f[0].rs->side, 0);
	cr_expect_eq(f[1].rs->side, 1);
	cr_expect_eq(f[0].setup.setup.path.gid[15], 1);
	cr_expect_eq(f[1].setup.setup.path.gid[15], 2);
	done(f, &p);
	cr_expect(UNTIL(status_ends(&host[0].d) == 0 && status_ends(&host[1].d) == 0));
}

Test(distant, two_hosts_connecting_end_first)
{
	struct fake f[2] = { 0 };
	struct pair p;

	NEED_NET();
	live_two(f, &p, false);
	done(f, &p);
}

/* every question and its answer over the link */
Test(distant, words_over_the_link)
{
	struct fake f[2] = { 0 };
	struct pair p;

	NEED_NET();
	live_two(f, &p, true);
	ask(&f[0], WSD_SAN_DECIDE, 0, 0);
	cr_assert(UNTIL(atomic_load(&f[0].rs->decided) == WSD_DECIDED_VOID));
	cr_expect_eq(atomic_load(&f[1].rs->decide), WSD_DECIDE_VOID);
	ask(&f[0], WSD_SAN_WANT_RETURN, 0, 0);
	cr_assert(UNTIL(atomic_load(&f[1].rs->x_return) == 1));
	atomic_store(&f[0].rs->plain_H, 1234);
	ask(&f[0], WSD_SAN_PLAIN, 0, 0);
	cr_assert(UNTIL(atomic_load(&f[0].rs->plain_there) == 1));
	cr_expect_eq(atomic_load(&f[1].rs->plain_at), 1234);
	add_seam(&f[1], 0, 5);
	post(&f[1], 8000);
	ask(&f[1], WSD_SAN_FILL, 0, 8000);
	cr_assert(UNTIL(atomic_load(&f[0].rs->filled) == 8000));
	check_filled(&f[0], 0, 8000);
	cr_expect_eq(f[0].rs->fill_seam[1].check, f[1].rs->seam[1].check);
	shutdown(p.end[1], SHUT_WR);
	ask(&f[0], WSD_SAN_END, 0, 0);
	cr_assert(UNTIL(atomic_load(&f[0].rs->end_valid) == 1));
	cr_expect_eq(atomic_load(&f[0].rs->end_posted), 8000);
	done(f, &p);
}

Test(distant, close_leaves_the_tail)
{
	struct fake f[2] = { 0 };
	struct pair p;

	NEED_NET();
	live_two(f, &p, true);
	add_seam(&f[0], 0, 0);
	post(&f[0], 777);
	proxy_client_withdraw(f[0].pc, f[0].cookie, WSD_R_NONE, 0);
	close(p.end[0]);
	p.end[0] = -1;
	cr_assert(UNTIL(atomic_load(&f[1].rs->end_valid) == 1));
	cr_expect_eq(atomic_load(&f[1].rs->end_posted), 777);
	check_filled(&f[1], 0, 777);
	done(f, &p);
}

Test(distant, another_stream_is_refused)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct proxy_san_offer x[2] = { proof(0, 0), proof(1, 1) };

	NEED_NET();
	p = connection();
	offer_at(1, &f[1], &p, &x[1]);
	offer_at(0, &f[0], &p, &x[0]);
	cr_expect_eq(answer(&f[0]).reason, WSD_R_PROOF);
	cr_expect_eq(answer(&f[1]).reason, WSD_R_PROOF);
	done(f, &p);
}

Test(distant, too_little_is_known)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct proxy_san_offer x[2] = { proof(0, 0), proof(1, 0) };

	NEED_NET();
	x[0].n_tx = 1;
	x[0].n_rx = 0;
	p = connection();
	offer_at(1, &f[1], &p, &x[1]);
	offer_at(0, &f[0], &p, &x[0]);
	cr_expect_eq(answer(&f[0]).reason, WSD_R_NOT_YET);
	done(f, &p);
}

Test(distant, a_client_that_cannot_tells_the_other_host)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct proxy_san_offer x[2] = { proof(0, 0), proof(1, 0) };

	NEED_NET();
	p = connection();
	offer_at(1, &f[1], &p, &x[1]);
	offer_at(0, &f[0], &p, &x[0]);
	take_setup(&f[0]);
	take_setup(&f[1]);
	proxy_client_withdraw(f[1].pc, f[1].cookie, WSD_R_MEMLOCK, 0);
	cr_expect_eq(answer(&f[0]).reason, WSD_R_MEMLOCK);
	done(f, &p);
}

/* what host i's daemon knows of the other one; false: nothing */
static bool peer_of(unsigned i, struct wsd_msg_status_peer *ret)
{
	struct wsd_msg_peers rq = { .hdr = { sizeof(rq), WSD_PROXY_VERSION, WSD_MSG_PEERS, 0 } };
	struct wsd_msg_status_peer m;
	int fd = raw_connect(&host[i].d);
	bool found = false;

	cr_assert(raw_send(fd, &rq, sizeof(rq)));
	while (raw_receive(fd, &m, sizeof(m)) == sizeof(m) && m.hdr.type == WSD_MSG_STATUS_PEER) {
		*ret = m;
		found = true;
	}
	close(fd);
	return found;
}

static bool link_is_up(unsigned i)
{
	struct wsd_msg_status_peer m;

	return peer_of(i, &m) && m.state == WSD_PEER_LINK_UP;
}

static void kill_daemon(unsigned i)
{
	daemon_signal(&host[i].d, SIGKILL);
	(void)daemon_wait(&host[i].d);
}

static void start_again(unsigned i)
{
	char conf[80];

	enter(i);
	snprintf(conf, sizeof(conf), "%s/conf", host[i].sys);
	setenv("WSD_TEST_SYSFS", host[i].sys, 1);
	daemon_start(&host[i].d, (const char *[]){ "--system", "--config", conf, NULL });
}

/* A8: whose the other end is, is what the link has proven, and not what that end's daemon calls itself */
Test(distant, identity_is_that_of_the_address)
{
	struct fake f[2] = { 0 }, g[2] = { 0 };
	struct proxy_san_offer x[2] = { proof(0, 0), proof(1, 0) };
	struct pair p, q;

	NEED_NET();
	live_two(f, &p, true);
	cr_expect_neq(f[0].setup.setup.peer_identity, f[1].setup.setup.peer_identity);
	done(f, &p);
	kill_daemon(1);
	start_again(1);		/* it calls itself something else from now on */
	q = connection();
	offer_at(1, &g[1], &q, &x[1]);
	cr_assert(UNTIL(link_is_up(0)));
	offer_at(0, &g[0], &q, &x[0]);
	take_setup(&g[0]);
	take_setup(&g[1]);
	cr_expect_eq(g[0].setup.setup.peer_identity, f[0].setup.setup.peer_identity);
	done(g, &q);
}

static bool offered(struct proxy_client *pc, int fd, uint64_t cookie, const struct proxy_san_offer *x)
{
	return proxy_client_offer_san(pc, fd, WSD_ROLE_CONNECT, sock_cookie(fd), cookie, x) == 0;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

static uint32_t gen_of(const struct fake *f)
{
	struct wsd_subnet none;
	uint32_t gen = 0;

	proxy_client_subnets(f->pc, &none, 0, &gen);
	return gen;
}

/* after an outage each end offers again when its time comes, and an offer lives for seconds: the two might never meet */
Test(distant, an_offer_that_nobody_waits_for_is_told)
{
	struct pair p[3];
	struct fake f[2] = { 0 };
	struct proxy_san_offer x[2] = { proof(0, 0), proof(1, 0) };
	struct wsd_msg_status_peer peer;
	uint32_t gen;

	NEED_NET();
	for (unsigned i = 0; i < 3; i++)
		p[i] = connection();
	offer_at(1, &f[1], &p[2], &x[1]);
	gen = gen_of(&f[1]);
	offer_at(0, &f[0], &p[0], &x[0]);
	cr_assert(UNTIL(gen_of(&f[1]) != gen));
	/* not for each one */
	gen = gen_of(&f[1]);
	cr_assert(UNTIL(offered(f[0].pc, p[1].end[0], 1001, &x[0])));
	cr_assert(UNTIL(peer_of(0, &peer) && peer.n_held == 2));
	cr_expect_leq(gen_of(&f[1]) - gen, 1);
	for (unsigned i = 0; i < 6; i++)
		close(p[i / 2].end[i % 2]);
	proxy_client_free(f[0].pc);
	proxy_client_free(f[1].pc);
}

/* one that comes soon behind another is told as well, when its time has come; and so is one behind that */
Test(distant, an_offer_soon_behind_another_is_told)
{
	struct pair p[6];
	struct fake f[2] = { 0 };
	struct proxy_san_offer x[2] = { proof(0, 0), proof(1, 0) };
	struct wsd_msg_status_peer peer;
	uint32_t gen;
	unsigned n = 1;

	NEED_NET();
	for (unsigned i = 0; i < 6; i++)
		p[i] = connection();
	offer_at(1, &f[1], &p[5], &x[1]);
	gen = gen_of(&f[1]);
	offer_at(0, &f[0], &p[0], &x[0]);
	cr_assert(UNTIL(gen_of(&f[1]) != gen));
	for (unsigned round = 0; round < 2; round++) {
		int64_t t0 = now_ms(), told;

		gen = gen_of(&f[1]);
		for (unsigned i = 0; i < 2; i++, n++)
			cr_assert(UNTIL(offered(f[0].pc, p[n].end[0], 1000 + n, &x[0])));
		cr_assert(UNTIL(peer_of(0, &peer) && peer.n_held == n));
		cr_assert(UNTIL(gen_of(&f[1]) != gen), "round %u", round);
		told = gen_of(&f[1]) - gen;
		cr_expect_leq(told, 1 + (now_ms() - t0) / 2000, "%lld for two", (long long)told);
	}
	for (unsigned i = 0; i < 12; i++)
		close(p[i / 2].end[i % 2]);
	proxy_client_free(f[0].pc);
	proxy_client_free(f[1].pc);
}

/* a process connects many times before the other host's offers the first: none of them is turned away */
#define MANY 300u
Test(distant, many_are_named_before_they_are_offered)
{
	static struct pair p[MANY];
	struct wsd_msg_status_peer peer;
	struct fake f[2] = { 0 };
	struct proxy_san_offer x[2] = { proof(0, 0), proof(1, 0) };
	unsigned i;

	NEED_NET();
	for (i = 0; i < MANY; i++)
		p[i] = connection();
	offer_at(0, &f[0], &p[0], &x[0]);
	cr_assert(UNTIL(link_is_up(0)));
	for (i = 1; i < MANY; i++)
		cr_assert(UNTIL(offered(f[0].pc, p[i].end[0], 1000 + i, &x[0])));
	cr_assert(UNTIL(peer_of(0, &peer) && peer.n_held == MANY));	/* while we are there */
	/* messages of a link have one order: who is answered last has everybody's answers before it */
	offer_at(1, &f[1], &p[MANY - 1], &x[1]);
	f[0].cookie = 1000 + MANY - 1;
	take_setup(&f[0]);
	for (i = 0; i < 2 * MANY; i++)
		close(p[i / 2].end[i % 2]);
	proxy_client_free(f[0].pc);
	proxy_client_free(f[1].pc);
}

/* another user of host 0 is let into a session with our end on host 1 */
static void nobody_gets_one(void)
{
	struct pair p = connection();
	struct proxy_san_offer x[2] = { proof(0, 0), proof(1, 0) };
	struct fake f[2] = { 0 };
	struct proxy_msg m;
	int st = 1, i, go[2];
	pid_t pid;

	chmod(host[0].d.dir, 0755);
	cr_assert_eq(pipe(go), 0);
	pid = fork();
	if (!pid) {
		struct proxy_client *pc;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		enter(0);
		if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
			_exit(2);
		pc = proxy_client_new();
		proxy_client_set_places(pc, host[0].d.path, NULL);
		if (!UNTIL(proxy_client_receive(pc, &m) != 1 && offered(pc, p.end[0], 7, &x[0])))
			_exit(3);
		(void)!write(go[1], "x", 1);
		if (!UNTIL(proxy_client_receive(pc, &m) == 1))
			_exit(4);
		/* this machine may have so little memory for it to lock: then it has come as far as that */
		_exit(m.type == PROXY_MSG_SAN_SETUP || m.reason == WSD_R_MEMLOCK ? 0 : 100 + (int)m.reason);
	}
	close(go[1]);
	if (read(go[0], &(char){ 0 }, 1) == 1)
		offer_at(1, &f[1], &p, &x[1]);
	cr_assert(UNTIL(waitpid(pid, &st, WNOHANG) == pid));
	for (i = 0; i < 2; i++)
		close(p.end[i]);
	close(go[0]);
	f[1].pc = proxy_client_free(f[1].pc);
	cr_expect_eq(st, 0, "exit %d", WEXITSTATUS(st));
}

/* the table of what waits has a share for each user, at the host where it is offered and at that where it is named */
static void share_at(void)
{
	struct proxy_san_offer x = proof(0, 0);
	struct fake f = { 0 };
	struct pair p[4];
	unsigned i;

	NEED_NET();
	for (i = 0; i < 4; i++)
		p[i] = connection();
	offer_at(0, &f, &p[0], &x);
	cr_assert(UNTIL(link_is_up(0)));
	for (i = 1; i < 3; i++)
		cr_assert(UNTIL(offered(f.pc, p[i].end[0], 1000 + i, &x)));
	expect_refused(f.pc, 1002, WSD_R_LIMIT);
	nobody_gets_one();
	/* who waits no more leaves its place to another */
	enter(0);
	cr_assert(UNTIL(status_ends(&host[0].d) == 3));
	proxy_client_withdraw(f.pc, 1001, WSD_R_NONE, 0);
	cr_assert(UNTIL(status_ends(&host[0].d) == 2));
	cr_assert(UNTIL(offered(f.pc, p[3].end[0], 1003, &x)));
	cr_assert(UNTIL(status_ends(&host[0].d) == 3));
	enter(1);
	f = (struct fake){ .pc = f.pc, .cookie = 1003 };
	offer_at(1, &(struct fake){ 0 }, &p[3], &(struct proxy_san_offer){ .n_tx = 2, .n_rx = 2, .tx = { x.rx[0], x.rx[1] }, .rx = { x.tx[0], x.tx[1] } });
	(void)expect(&f, PROXY_MSG_SAN_SETUP);
	for (i = 0; i < 8; i++)
		close(p[i / 2].end[i % 2]);
	proxy_client_free(f.pc);
}

/* rings are charged at both ends: the smaller wish goes, whichever host has it */
static void rings_are(uint32_t wanted, uint32_t ring0, uint32_t ring1_max)
{
	struct proxy_san_offer x[2] = { proof(0, 0), proof(1, 0) };
	struct fake f[2] = { 0 };
	struct pair p;
	unsigned i;

	NEED_NET();
	p = connection();
	for (i = 0; i < 2; i++) {
		x[i].ring0 = wanted;
		offer_at(i, &f[i], &p, &x[i]);
	}
	for (i = 0; i < 2; i++) {
		take_setup(&f[i]);
		cr_expect_eq(f[i].setup.setup.ring0, ring0, "host %u: %u", i, f[i].setup.setup.ring0);
		cr_expect_eq(f[i].setup.setup.ring1_max, ring1_max, "host %u: %u", i, f[i].setup.setup.ring1_max);
	}
	done(f, &p);
}

static void start_larger_here(void)
{
	more_of[0] = "ring-start = 64k\n";
	more_of[1] = "ring-max = 256k\n";
	start();
}

static void start_larger_there(void)
{
	more_of[1] = "ring-start = 64k\n";
	start();
}

/* an end that wants more than its own host's most */
static void start_small(void)
{
	more_of[0] = more_of[1] = "ring-start = 4k\nring-max = 16k\n";
	start();
}

Test(distant_rings, of_the_connecting_host_are_larger, .init = start_larger_here, .fini = stop, .timeout = 120)
{
	rings_are(0, 8u << 10, 256u << 10);
}

Test(distant_rings, of_the_accepting_host_are_larger, .init = start_larger_there, .fini = stop, .timeout = 120)
{
	rings_are(0, 8u << 10, 1u << 20);
}

Test(distant_rings, are_no_larger_than_the_host_allows, .init = start_small, .fini = stop, .timeout = 120)
{
	rings_are(1u << 20, 16u << 10, 16u << 10);
}

static void start_share_here(void)
{
	more_of[0] = "quota-waiting = 2\n";
	start();
}

static void start_share_there(void)
{
	more_of[1] = "quota-waiting = 2\n";
	start();
}

Test(distant_share, of_what_is_offered, .init = start_share_here, .fini = stop, .timeout = 120)
{
	share_at();
}

Test(distant_share, of_what_is_named, .init = start_share_there, .fini = stop, .timeout = 120)
{
	share_at();
}

/* the other daemon is killed: its sessions are over at once when it comes back, and after ten seconds when it does not */
Test(distant, the_other_daemon_dies)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct proxy_msg m;

	NEED_NET();
	live_two(f, &p, true);
	kill_daemon(1);
	ask(&f[0], WSD_SAN_DECIDE, 0, 0);
	atomic_store(&f[0].rs->plain_H, 1234);
	ask(&f[0], WSD_SAN_PLAIN, 0, 0);
	start_again(1);
	cr_assert(UNTIL(atomic_load(&f[0].rs->revoked) != 0), "not revoked");
	m = answer(&f[0]);
	cr_expect_eq(m.type, PROXY_MSG_REVOKED);
	cr_assert(UNTIL(atomic_load(&f[0].rs->decided) == WSD_DECIDED_NEVER));
	cr_assert(UNTIL(atomic_load(&f[0].rs->plain_there) == 2));
	done(f, &p);
}

/* The other daemon is stopped until the link is given up: what was said meanwhile is said again over the next one */
Test(distant, the_link_breaks_and_comes_back)
{
	struct fake f[2] = { 0 };
	struct pair p;

	NEED_NET();
	live_two(f, &p, true);
	daemon_signal(&host[1].d, SIGSTOP);
	add_seam(&f[0], 0, 0);
	post(&f[0], 4321);
	ask(&f[0], WSD_SAN_DECIDE, 0, 0);
	/* five seconds without an answer to PING, five more: both sides return */
	cr_assert(UNTIL(atomic_load(&f[0].rs->x_return) == 1) || UNTIL(atomic_load(&f[0].rs->x_return) == 1));
	proxy_client_withdraw(f[0].pc, f[0].cookie, WSD_R_NONE, 0);
	close(p.end[0]);
	p.end[0] = -1;
	daemon_signal(&host[1].d, SIGCONT);
	cr_assert(UNTIL(atomic_load(&f[1].rs->end_valid) == 1));
	cr_expect_eq(atomic_load(&f[1].rs->end_posted), 4321);
	check_filled(&f[1], 0, 4321);
	done(f, &p);
}

/* The kernel says that something about links has changed; the device is gone */
Test(distant, a_device_goes_away)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct wsd_subnet sub[4];
	uint32_t before, after;
	char path[128];

	NEED_NET();
	live_two(f, &p, true);
	cr_expect_eq(proxy_client_subnets(f[0].pc, sub, 4, &before), 1);
	cr_expect_eq(sub[0].family, AF_INET);
	cr_expect_eq(sub[0].prefix, 24);
	cr_expect_eq(sub[0].ip[1], 99);
	snprintf(path, sizeof(path), "%s/class/infiniband_verbs/uverbs0/ibdev", host[0].sys);
	unlink(path);
	enter(0);
	cr_assert(run("ip link add wsd2 type veth peer name wsd3"));
	cr_assert(UNTIL(atomic_load(&f[0].rs->revoked) == WSD_R_RDMA_FAILED));
	(void)expect(&f[0], PROXY_MSG_SAN_LOOK);
	(void)proxy_client_subnets(f[0].pc, sub, 4, &after);
	cr_expect_neq(before, after);
	cr_expect_eq(atomic_load(&f[1].rs->revoked), 0, "the other host has its own");
	done(f, &p);
}

/* host 0 is as it is now; what its daemon answers a connecting end */
static uint32_t answer_once_seen(void)
{
	uint32_t reason;
	struct fake f[2] = { 0 };
	struct pair p;
	struct proxy_msg m;
	struct proxy_san_offer x = proof(0, 0);
	struct wsd_subnet sub[4];
	uint32_t gen = 0;

	f[0].pc = proxy_client_new();
	proxy_client_set_places(f[0].pc, host[0].d.path, NULL);
	cr_assert_eq(proxy_client_connect(f[0].pc), 0);
	enter(0);
	cr_assert(run("ip link add wsd2 type veth peer name wsd3"));
	cr_assert(UNTIL((proxy_client_receive(f[0].pc, &m), proxy_client_subnets(f[0].pc, sub, 4, &gen) == 1 && gen)));
	p = connection();
	offer_at(0, &f[0], &p, &x);
	reason = answer(&f[0]).reason;
	done(f, &p);
	return reason;
}

Test(distant, no_device_here)
{
	char cmd[128];

	NEED_NET();
	snprintf(cmd, sizeof(cmd), "rm -rf %s/class/infiniband_verbs", host[0].sys);
	cr_assert(run(cmd));
	cr_expect_eq(answer_once_seen(), WSD_R_NO_RDMA);
}

/* TCP takes another netdev than the device is on */
Test(distant, the_way_leads_elsewhere)
{
	NEED_NET();
	set_ifindex(0, 100);
	cr_expect_eq(answer_once_seen(), WSD_R_NO_RDMA);
}

/* the peer's host was upgraded, and this one not, or the other way round: both stay on TCP and say why */
Test(distant, another_version_of_the_road)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct proxy_san_offer x = proof(0, 0), y = proof(1, 0);
	struct wsd_msg_status_peer peer;
	unsigned i;

	NEED_NET();
	kill_daemon(1);
	setenv("WSD_TEST_ROAD", "1", 1);
	start_host(1, KEY);
	unsetenv("WSD_TEST_ROAD");
	p = connection();
	offer_at(0, &f[0], &p, &x);
	cr_expect_eq(answer(&f[0]).reason, WSD_R_PEER_VERSION);
	offer_at(1, &f[1], &p, &y);
	cr_expect_eq(answer(&f[1]).reason, WSD_R_PEER_VERSION);
	for (i = 0; i < 2; i++) {
		cr_assert(peer_of(i, &peer));
		cr_expect_str_eq(peer.why, "it is another build, whose RDMA sessions differ");
	}
	done(f, &p);
}

/* nobody there: refused at once, nothing waits */
Test(distant, no_daemon_there)
{
	struct fake f[2] = { 0 };
	struct pair p;
	struct proxy_san_offer x = proof(0, 0);
	struct wsd_msg_status_peer peer;

	NEED_NET();
	kill_daemon(1);
	p = connection();
	offer_at(0, &f[0], &p, &x);
	cr_expect_eq(answer(&f[0]).reason, WSD_R_NO_PEER);
	cr_assert(peer_of(0, &peer));
	cr_expect_gt(peer.retry_us, 30000000, "remembered, though the offer held it: %lu us", peer.retry_us);
	/* it is looked for again when ways or addresses have changed */
	enter(0);
	cr_assert(run("ip addr add 10.99.7.1/24 dev lo"));
	cr_expect(UNTIL(peer_of(0, &peer) && peer.retry_us == 0));
	done(f, &p);
	host[1].d.pid = 0;
}
