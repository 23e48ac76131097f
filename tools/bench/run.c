/* SPDX-License-Identifier: MIT */
/* one run: two processes, their words, and a deadline that always ends them */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench/bench.h"
#include "tools/bench/role.h"
#include "wsd/stats.h"

#define READY_MS	10000	/* wsdrun may have to start a daemon first */
#define GRACE_MS	20000	/* past what a run should take */
#define SESSION_MS	1500	/* until a session over RDMA is made, in an emulated machine */
#define EXIT_MS		5000	/* from a role's last word to its end */

static char dir[64];
static volatile sig_atomic_t stopped;

static void on_stop(int sig)
{
	stopped = sig;
}

bool run_stopped(void)
{
	return stopped;
}

const char *run_dir(void)
{
	return dir;
}

int run_setup(void)
{
	struct sigaction sa = { .sa_handler = on_stop };	/* no SA_RESTART: poll() must see it */
	const char *tmp = getenv("TMPDIR");
	struct rlimit rl;
	char path[96];

	if (!tmp || strlen(tmp) > 40)
		tmp = "/tmp";
	snprintf(dir, sizeof(dir), "%s/wsd-bench.XXXXXX", tmp);
	if (!mkdtemp(dir)) {
		fprintf(stderr, "wsd-bench: cannot make %s: %m\n", dir);
		dir[0] = 0;
		return -errno;
	}
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
	sa.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &sa, NULL);
	if (!getrlimit(RLIMIT_NOFILE, &rl)) {
		rl.rlim_cur = rl.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &rl);
	}
	snprintf(path, sizeof(path), "%s/stats", dir);
	return share_open(path);
}

void run_cleanup(void)
{
	char path[96];

	if (!dir[0])
		return;
	snprintf(path, sizeof(path), "%s/stats", dir);
	(void)unlink(path);
	(void)rmdir(dir);
	dir[0] = 0;
}

struct child {
	pid_t pid;
	int out;		/* its words */
	char buf[2048];
	size_t n;
	bool ready, ended;
	long port, role_pid;
	bool remote;		/* of the agent: it ends with its share */
	struct share share;
	char why[200];
};

/* the library that makes sockets rsockets, where Debian has it */
static const char *rsockets_library(void)
{
	static const char *const at[] = {
		"/usr/lib/x86_64-linux-gnu/rsocket/librspreload.so", "/usr/lib64/rsocket/librspreload.so", "/usr/lib/rsocket/librspreload.so",
	};

	for (unsigned i = 0; i < ARRAY_SIZE(at); i++)
		if (!access(at[i], R_OK))
			return at[i];
	fprintf(stderr, "wsd-bench: no librspreload.so (Debian: librdmacm1)\n");
	_exit(126);
}

static void child_main(const struct options *o, const struct bcase *c, bool server, const struct spec *s,
		       bool wsd, int out)
{
	struct spec_words w;
	const char *argv[SPEC_WORDS_MAX + 8];
	char self[512], stats[96];
	unsigned n = 0;
	ssize_t len;
	int null;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)setpgid(0, 0);
	signal(SIGPIPE, SIG_DFL);
	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (len <= 0)
		_exit(126);
	self[len] = 0;
	if (c->quota && quota_enter())
		_exit(126);
	null = open("/dev/null", O_RDWR);
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(out, ROLE_OUT) < 0)
		_exit(126);
	if (out == ROLE_OUT)
		(void)fcntl(out, F_SETFD, 0);
	if (null > ROLE_OUT)
		close(null);

	spec_print(&w, s);
	if (wsd) {
		snprintf(stats, sizeof(stats), "%s/stats", dir);
		setenv(WSD_STATS_ENV, stats, 1);
		if (s->poll)	/* it polls by itself, and better: a spin sees a message without a call */
			setenv("WSD_RDMA_SPIN_US", "100000", 1);
		if (s->ring_only)
			setenv("WSD_OVERFLOW", "off", 1);
		if (o->preload) {
			setenv("LD_PRELOAD", o->preload, 1);
		} else {
			argv[n++] = o->wsdrun;
			if (s->road == ROAD_VERBS && !o->agent_port) {
				argv[n++] = "--provider";
				argv[n++] = "wsd-verbs";
			}
		}
	}
	if (s->road == ROAD_RSOCKETS)
		setenv("LD_PRELOAD", rsockets_library(), 1);
	if (s->road == ROAD_RAW && o->device)
		setenv("WSD_BENCH_DEVICE", o->device, 1);
	argv[n++] = self;
	argv[n++] = server ? "@server" : "@client";
	for (unsigned i = 0; i < w.n; i++)
		argv[n++] = w.w[i];
	argv[n] = NULL;
	execv(argv[0], (char **)argv);
	fprintf(stderr, "wsd-bench: cannot run %s: %m\n", argv[0]);
	_exit(127);
}

static int child_start(struct child *ret, const struct options *o, const struct bcase *c, bool server,
		       const struct spec *s, bool wsd)
{
	int p[2];

	*ret = (struct child){ .out = -1 };
	if (pipe2(p, O_CLOEXEC))
		return -errno;
	ret->pid = fork();
	if (ret->pid < 0) {
		int r = -errno;

		close(p[0]);
		close(p[1]);
		return r;
	}
	if (!ret->pid)
		child_main(o, c, server, s, wsd, p[1]);
	(void)setpgid(ret->pid, ret->pid);
	close(p[1]);
	ret->out = p[0];
	return 0;
}

static void child_word(struct child *k, struct result *res, const char *line)
{
	char key[32];
	double v;

	if (sscanf(line, "ready %ld %ld", &k->port, &k->role_pid) == 2) {
		k->ready = true;
	} else if (sscanf(line, "m %31s %lf", key, &v) == 2) {
		for (unsigned i = 0; i < _M_N; i++)
			if (!strcmp(key, metric_info[i].key))
				res->m[i] = v;
	} else if (!strcmp(line, "end")) {
		k->ended = true;
	} else if (sscanf(line, "share %llu %llu %llu %llu", &k->share.ring, &k->share.tcp, &k->share.conns, &k->share.accel) == 4) {
		;
	} else if (!strncmp(line, "fail ", 5)) {
		snprintf(k->why, sizeof(k->why), "%s", line + 5);
	}
}

/* 1: the descriptor is at its end */
static int child_read(struct child *k, struct result *res)
{
	ssize_t n = read(k->out, k->buf + k->n, sizeof(k->buf) - 1 - k->n);
	char *nl;

	if (n < 0)
		return errno == EINTR ? 0 : 1;
	if (!n)
		return 1;
	k->n += n;
	k->buf[k->n] = 0;
	while ((nl = strchr(k->buf, '\n'))) {
		*nl = 0;
		child_word(k, res, k->buf);
		k->n -= nl + 1 - k->buf;
		memmove(k->buf, nl + 1, k->n + 1);
	}
	return k->n == sizeof(k->buf) - 1;	/* a line without end: not one of ours */
}

/* the status, or -1 when it had to be killed */
static int child_reap(struct child *k, bool force)
{
	struct timespec tick = { 0, 1000000 };
	int64_t end = now_ns() + (force ? 0 : (int64_t)EXIT_MS * 1000000);
	int status;
	pid_t r;

	if (k->out >= 0)
		close(k->out);
	k->out = -1;
	if (k->pid <= 0)
		return 0;
	while (!(r = waitpid(k->pid, &status, WNOHANG)) && now_ns() < end)
		nanosleep(&tick, NULL);
	(void)kill(-k->pid, SIGKILL);	/* and whatever it started in its group */
	if (!r) {
		(void)kill(k->pid, SIGKILL);
		(void)waitpid(k->pid, &status, 0);
		status = -1;
	}
	k->pid = 0;
	return r < 0 ? -1 : status;
}

/* until @ready of @k, or the end of all; RUN_E_FAILED at the deadline */
static int listen_to(struct child *k, unsigned n, bool ready, int64_t deadline, struct result *res)
{
	for (;;) {
		struct pollfd p[2];
		unsigned open = 0;
		int64_t left = (deadline - now_ns()) / 1000000;

		for (unsigned i = 0; i < n; i++) {
			p[i] = (struct pollfd){ .fd = k[i].out, .events = POLLIN };
			open += k[i].out >= 0;
		}
		if (!open)
			return 0;
		if (stopped)
			return RUN_E_STOP;
		if (left <= 0)
			return RUN_E_FAILED;
		if (poll(p, n, (int)left) <= 0)
			continue;
		for (unsigned i = 0; i < n; i++) {
			if (!p[i].revents || !child_read(&k[i], res))
				continue;
			close(k[i].out);
			k[i].out = -1;
			if (!k[i].ended) {	/* it died: the other would wait for it in vain */
				if (!k[i].why[0])
					snprintf(k[i].why, sizeof(k[i].why), "ended without a result");
				return RUN_E_FAILED;
			}
		}
		if (ready && k[0].ready)
			return 0;
	}
}

/*
 * wsdrun starts a daemon when none runs. That must not happen inside a cgroup with a quota: it would
 * stay there, throttled, and serve all later runs from there.
 */
static void daemon_up(const struct options *o)
{
	struct child k = { .out = -1 };

	if (!o->wsdrun || o->preload)
		return;
	k.pid = fork();
	if (!k.pid) {
		(void)setpgid(0, 0);
		execl(o->wsdrun, o->wsdrun, "true", (char *)NULL);
		_exit(127);
	}
	if (k.pid > 0)
		(void)child_reap(&k, false);	/* if it fails the run will tell */
}

pid_t run_server(int *ret_out, const struct options *o, const struct spec *s)
{
	const struct bcase c = { .spec = *s };
	struct child k;
	int r = child_start(&k, o, &c, true, s, s->road == ROAD_WSD || s->road == ROAD_VERBS);

	if (r)
		return r;
	*ret_out = k.out;
	return k.pid;
}

void run_server_end(pid_t pid, int out, bool force)
{
	struct child k = { .pid = pid, .out = out };

	(void)child_reap(&k, force);
}

int run_once(struct result *ret, char why[WHY_MAX], const struct options *o, const struct bcase *c, enum road road)
{
	struct child k[2] = { { .out = -1 }, { .out = -1 } };
	struct spec s = c->spec;
	struct load *load = NULL;
	bool wsd = road == ROAD_WSD || road == ROAD_VERBS;
	struct share here;
	int64_t expected;
	int r, st;

	result_clear(ret);
	why[0] = 0;
	s.road = road;
	s.addr = c->rdma ? o->addr : 0;
	if (road == ROAD_VERBS && c->rdma && s.warm < SESSION_MS)
		s.warm = SESSION_MS;
	if (road == ROAD_RAW)
		s.kind = KIND_RAW;
	if (wsd && c->quota)
		daemon_up(o);
	if (wsd)
		share_reset();
	r = load_start(&load, c->busy);
	if (r) {
		snprintf(why, WHY_MAX, "cannot start busy loops: %s", strerror(-r));
		return RUN_E_FAILED;
	}

	expected = s.ms + s.warm + s.conns * 10;
	s.cpu = c->pin == PIN_NONE ? -1 : o->cpu[0];
	if (c->rdma && o->agent_port) {
		k[0] = (struct child){ .out = agent_call(o, &s), .remote = true };
		r = k[0].out < 0 ? k[0].out : 0;
	} else {
		r = child_start(&k[0], o, c, true, &s, wsd && (c->ends & END_SERVER));
	}
	if (r)
		goto out;
	r = listen_to(k, 1, true, now_ns() + READY_MS * 1000000ll, ret);
	if (r || !k[0].ready) {
		r = r ? r : RUN_E_FAILED;
		goto out;
	}
	s.cpu = c->pin == PIN_NONE ? -1 : o->cpu[c->pin == PIN_TWO];
	s.port = k[0].port;
	s.peer = k[0].remote ? 0 : k[0].role_pid;
	r = child_start(&k[1], o, c, false, &s, wsd && (c->ends & END_CLIENT));
	if (r)
		goto out;
	/* crowded and rationed runs may need many times what they should */
	if (c->busy || c->quota)
		expected *= 4;
	r = listen_to(k, 2, false, now_ns() + (expected + GRACE_MS) * 1000000, ret);
	for (unsigned i = 0; r == RUN_E_FAILED && i < 2; i++)
		if (k[i].out >= 0 && !k[i].ended && !k[1 - i].why[0])
			snprintf(k[i].why, sizeof(k[i].why), "deadline met, killed");
out:
	for (unsigned i = 2; i-- > 0;) {
		st = child_reap(&k[i], r != 0);
		if (!r && st) {
			if (st < 0)
				snprintf(k[i].why, sizeof(k[i].why), "did not exit");
			else
				snprintf(k[i].why, sizeof(k[i].why), "%s %d", WIFSIGNALED(st) ? "signal" : "status",
					 WIFSIGNALED(st) ? WTERMSIG(st) : WEXITSTATUS(st));
			r = RUN_E_FAILED;
		}
	}
	load = load_stop(load);
	if (r == RUN_E_STOP)
		return r;
	if (r < 0)
		snprintf(why, WHY_MAX, "cannot start%s: %s", k[0].remote ? " at the agent" : "", strerror(-r));
	else if (r)
		snprintf(why, WHY_MAX, "%s%.150s%s%.60s%s", k[1].why[0] ? "client: " : "", k[1].why, k[0].why[0] ? " server: " : "",
			 k[0].why, k[0].why[0] || k[1].why[0] ? "" : "not ready in time, killed");
	if (r)
		return RUN_E_FAILED;
	if (wsd) {
		here = share_sum();
		share_tell(ret, &here, &k[0].share);
	}
	ret->done = true;
	return 0;
}
