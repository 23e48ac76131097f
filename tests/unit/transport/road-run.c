/* SPDX-License-Identifier: MIT */
/*
 * road-run.c - two processes and a road between them, on a real device
 *
 *   road-run stream BYTES   random puts over a ring of 8 KiB both ways at once; every byte is checked
 *   road-run sleep ROUNDS   ping-pong whose ends sleep on the descriptor between rounds
 *   road-run lat ROUNDS N   ping-pong of N bytes by polling; prints the median of half a round trip in microseconds
 *
 * The device is WSD_TEST_VERBS (rxe0), the address WSD_RXE_ADDRESS. The ends exchange rt_conn_local() over a socket pair.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rdma_transport/api/rt.h"
#include "tests/fakes/fake_remote.h"

#define RING	8192u
#define NONCE	0x1234567812345678ull

static int who;

#define REQUIRE(x) do { if (!(x)) { fprintf(stderr, "end %d: line %d: %s (errno %d)\n", who, __LINE__, #x, errno); exit(1); } } while (0)

struct end {
	struct rt_ctx *ctx;
	struct rt_conn *conn;
	struct wsd_remote *m;
	struct wsd_put_road road;
	uint8_t *rx, *tx;
	volatile struct wsd_remote_ctl *ctl;
	uint64_t posted, taken, told, cursor;
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static void open_end(struct end *e, int fd)
{
	struct rt_path path = { .port = 1, .mtu = 5, .timeout = 16, .retry = 7 };
	struct rt_prepare p = { .size = sizeof(p), .path = &path, .length = wsd_remote_length(RING, 0, 0), .identity = 1 };
	struct rt_peer peer = { .size = sizeof(peer), .side = (uint32_t)who, .fd = -1 };
	uint8_t mine[RT_LOCAL_MAX], theirs[RT_LOCAL_MAX];
	size_t len = sizeof(mine);
	ssize_t n;

	snprintf(path.device, sizeof(path.device), "%s", getenv("WSD_TEST_VERBS") ?: "rxe0");
	path.gid[10] = path.gid[11] = 0xff;
	REQUIRE(inet_pton(AF_INET, getenv("WSD_RXE_ADDRESS") ?: "10.99.0.1", path.gid + 12) == 1);
	e->m = fake_remote_new((uint32_t)who, RING, 0, 7, NONCE);
	REQUIRE(e->m);
	p.memory = e->m;
	REQUIRE(!rt_ctx_open(&e->ctx, "verbs", NULL));
	REQUIRE(!rt_conn_new(&e->conn, e->ctx));
	errno = -rt_conn_prepare(e->conn, &p);
	REQUIRE(!errno);
	REQUIRE(!rt_conn_local(e->conn, mine, &len));
	REQUIRE(send(fd, mine, len, 0) == (ssize_t)len);
	n = recv(fd, theirs, sizeof(theirs), 0);
	REQUIRE(n > 0);
	peer.remote = theirs;
	peer.remote_len = (size_t)n;
	errno = -rt_conn_connect(e->conn, &peer);
	REQUIRE(!errno);
	e->road = (struct wsd_put_road){ .size = sizeof(e->road), .context = 42 };
	REQUIRE(!rt_conn_road(e->conn, &e->road));
	REQUIRE(send(fd, "r", 1, 0) == 1 && recv(fd, mine, 1, 0) == 1);
	e->rx = (uint8_t *)e->m + e->m->off_rx0;
	e->tx = (uint8_t *)e->m + e->m->off_tx0;
	e->ctl = (void *)((uint8_t *)e->m + WSD_REMOTE_PAGE);
}

static void close_end(struct end *e)
{
	double end = now() + 3;

	e->road.stop(e->road.conn, 1);
	e->conn = rt_conn_close(e->conn);
	fake_remote_free(e->m);
	while (now() < end) {	/* what lingers is reaped by looking */
		int fds[16];
		uint64_t x;

		rt_ctx_drain(e->ctx, &x, 1);
		if (rt_ctx_fds(e->ctx, fds, 16) == 1)
			break;
		sched_yield();
	}
	e->ctx = rt_ctx_close(e->ctx);
}

/* a torn credit says nothing: the last whole one counts */
static uint64_t peer_cursor(struct end *e)
{
	uint64_t w[3] = { e->ctl->credit.cursor, e->ctl->credit.flags, e->ctl->credit.check };

	if (w[2] == wsd_remote_check(NONCE, WSD_CTL_CREDIT, w, 2) && w[0] > e->cursor)
		e->cursor = w[0];
	return e->cursor;
}

static void credit(struct end *e, bool wake)
{
	uint64_t w[3] = { e->taken, 0 };
	int r;

	if (e->told == e->taken)
		return;
	r = e->road.hold(e->road.conn, 2 | WSD_HOLD_WORDS);
	REQUIRE(r >= 0);
	if (r)
		return;
	w[2] = wsd_remote_check(NONCE, WSD_CTL_CREDIT, w, 2);
	REQUIRE(!e->road.word(e->road.conn, WSD_CTL_CREDIT, w, sizeof(w)));
	if (wake)
		REQUIRE(e->road.nudge(e->road.conn) >= 0);
	e->road.release(e->road.conn);
	e->told = e->taken;
}

static uint8_t byte_at(uint64_t o, int side)
{
	uint64_t h = (o / 8 + 1) * 0x9e3779b97f4a7c15ull + (uint64_t)side;

	return (uint8_t)(h >> (o % 8 * 8));
}

static uint32_t put(struct end *e, uint32_t n)
{
	uint64_t cursor = peer_cursor(e), done = atomic_load(&e->road.state->done);
	uint32_t room;
	int r;

	REQUIRE(cursor <= e->posted && done <= e->posted);
	room = RING - (uint32_t)(e->posted - (cursor < done ? cursor : done));
	n = n < room ? n : room;
	if (!n)
		return 0;
	r = e->road.hold(e->road.conn, 2);
	REQUIRE(r >= 0);
	if (r)
		return 0;
	for (uint32_t i = 0; i < n; i++)
		e->tx[(e->posted + i) & (RING - 1)] = byte_at(e->posted + i, who);
	REQUIRE(!e->road.put(e->road.conn, 0, e->posted, n));
	e->road.release(e->road.conn);
	e->posted += n;
	return n;
}

static uint64_t take(struct end *e)
{
	uint64_t head = atomic_load(&e->road.state->head), n = head - e->taken;

	REQUIRE(n <= RING && head == atomic_load(&e->m->head));
	for (; e->taken < head; e->taken++)
		if (e->rx[e->taken & (RING - 1)] != byte_at(e->taken, !who)) {
			fprintf(stderr, "end %d: byte %llu is wrong\n", who, (unsigned long long)e->taken);
			exit(1);
		}
	return n;
}

static void check(struct end *e)
{
	int r = atomic_load(&e->road.state->error);

	if (r) {
		fprintf(stderr, "end %d: error %d, posted %llu taken %llu\n", who, r, (unsigned long long)e->posted, (unsigned long long)e->taken);
		exit(1);
	}
}

static void stream(struct end *e, uint64_t total)
{
	unsigned seed = (unsigned)who + 1;

	while (e->posted < total || e->taken < total) {
		uint32_t want = 1 + (uint32_t)rand_r(&seed) % (rand_r(&seed) % 4 ? 200 : RING);
		bool idle = true;

		if (e->posted < total && put(e, want < total - e->posted ? want : (uint32_t)(total - e->posted)))
			idle = false;
		e->road.poll(e->road.conn);
		if (take(e))
			idle = false;
		if (e->taken - e->told >= RING / 4 || idle)
			credit(e, false);
		check(e);
		if (idle)
			sched_yield();
	}
	credit(e, false);
}

static void wait_head(struct end *e, uint64_t head, bool asleep)
{
	double end = now() + 20;
	uint64_t x[4];

	while (atomic_load(&e->road.state->head) < head) {
		check(e);
		REQUIRE(now() < end);
		if (!asleep) {
			if (!e->road.poll(e->road.conn) && e->road.caps & WSD_ROAD_SOFT)
				sched_yield();
			continue;
		}
		if (rt_ctx_drain(e->ctx, x, 4)) {
			REQUIRE(x[0] == 42);
			continue;
		}
		if (rt_ctx_arm(e->ctx) || atomic_load(&e->road.state->head) >= head)
			continue;
		struct pollfd p = { rt_ctx_wait_fd(e->ctx), POLLIN, 0 };
		REQUIRE(poll(&p, 1, 20000) == 1);
	}
}

static int cmp(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void ping_pong(struct end *e, unsigned rounds, uint32_t n, bool asleep)
{
	double *t = calloc(rounds, sizeof(*t));

	for (unsigned i = 0; i < rounds; i++) {
		double t0 = now(), end = t0 + 20;

		if (who) {
			wait_head(e, (uint64_t)n * (i + 1), asleep);
			take(e);
		}
		while (!put(e, n)) {
			e->road.poll(e->road.conn);
			check(e);
			REQUIRE(now() < end);
		}
		if (!who) {
			wait_head(e, (uint64_t)n * (i + 1), asleep);
			take(e);
		}
		if (e->taken - e->told >= RING / 4)
			credit(e, false);
		t[i] = now() - t0;
	}
	qsort(t, rounds, sizeof(*t), cmp);
	if (!who)
		printf("put round trip of %u bytes%s: half of it %.1f us (median), %.1f us (best tenth)\n", n, asleep ? ", asleep" : "",
		       t[rounds / 2] * 5e5, t[rounds / 10] * 5e5);
	free(t);
}

int main(int argc, char **argv)
{
	struct end e = {};
	int sv[2], status;
	pid_t child;
	char c;

	if (argc < 3)
		return 2;
	REQUIRE(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
	child = fork();
	REQUIRE(child >= 0);
	who = child == 0;
	close(sv[!who]);
	alarm(120);
	open_end(&e, sv[who]);
	if (!strcmp(argv[1], "stream"))
		stream(&e, strtoull(argv[2], NULL, 10));
	else if (!strcmp(argv[1], "sleep"))
		ping_pong(&e, (unsigned)atoi(argv[2]), 100, true);
	else
		ping_pong(&e, (unsigned)atoi(argv[2]), argc > 3 ? (uint32_t)atoi(argv[3]) : 64, false);
	check(&e);
	REQUIRE(send(sv[who], "d", 1, 0) == 1 && recv(sv[who], &c, 1, 0) == 1);
	close_end(&e);
	if (who)
		return 0;
	REQUIRE(waitpid(child, &status, 0) == child);
	return status != 0;
}
