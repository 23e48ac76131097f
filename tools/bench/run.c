/* SPDX-License-Identifier: MIT */
/* one run: two processes and their deadlines (child.h) */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
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

#include "tools/bench/child.h"
#include "tools/bench/role.h"
#include "wsd/stats.h"

#define READY_MS	10000	/* wsdrun may have to start a daemon first */
#define GRACE_MS	20000	/* past what a run should take */
#define SESSION_MS	1500	/* until a session over RDMA is made, in an emulated machine */

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

	*ret = (struct child){ .out = -1, .ended = true };
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
	ret->ended = false;
	snprintf(ret->step, sizeof(ret->step), "%s", wsd && !o->preload ? "to be started by wsdrun" : "to be started");
	return 0;
}

/*
 * wsdrun starts a daemon when none runs. That must not happen inside a cgroup with a quota: it would
 * stay there, throttled, and serve all later runs from there.
 */
static int daemon_up(const struct options *o, char why[WHY_MAX])
{
	struct child k = { .out = -1, .ended = true };

	if (!o->wsdrun || o->preload)
		return 0;
	k.pid = fork();
	if (!k.pid) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)setpgid(0, 0);
		execl(o->wsdrun, o->wsdrun, "true", (char *)NULL);
		_exit(127);
	}
	if (k.pid > 0 && child_end(&k, READY_MS) == RUN_E_STILL) {	/* if it fails the run will tell */
		snprintf(why, WHY_MAX, "\"wsdrun true\" %.200s", k.why);
		return RUN_E_STILL;
	}
	return 0;
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

int run_server_end(char why[WHY_MAX], pid_t pid, int out, bool force)
{
	struct child k = { .pid = pid, .out = out, .ended = true };
	int r = child_end(&k, force ? 0 : EXIT_MS);

	snprintf(why, WHY_MAX, "%s", k.why);
	return r;
}

long run_most_ms(const struct spec *s)
{
	return s->ms + s->warm + s->conns * 10 + GRACE_MS;
}

int run_once(struct result *ret, char why[WHY_MAX], const struct options *o, const struct bcase *c, enum road road)
{
	struct child k[2] = { { .out = -1, .ended = true }, { .out = -1, .ended = true } };
	struct spec s = c->spec;
	struct load *load = NULL;
	bool wsd = road == ROAD_WSD || road == ROAD_VERBS;
	struct share here;
	int64_t most;
	int r, x;

	result_clear(ret);
	why[0] = 0;
	s.road = road;
	s.addr = c->rdma ? o->addr : 0;
	if (road == ROAD_VERBS && c->rdma && s.warm < SESSION_MS)
		s.warm = SESSION_MS;
	if (road == ROAD_RAW)
		s.kind = KIND_RAW;
	if (wsd && c->quota && daemon_up(o, why))
		return RUN_E_STILL;
	if (wsd)
		share_reset();
	r = load_start(&load, c->busy);
	if (r) {
		snprintf(why, WHY_MAX, "cannot start busy loops: %s", strerror(-r));
		return RUN_E_FAILED;
	}

	s.cpu = c->pin == PIN_NONE ? -1 : o->cpu[0];
	if (c->rdma && o->agent_port) {
		k[0] = (struct child){ .out = agent_call(o, &s), .remote = true };
		r = k[0].out >= 0 ? 0 : run_stopped() ? RUN_E_STOP : k[0].out;	/* what a signal cut short has not failed */
		k[0].ended = r;
	} else {
		r = child_start(&k[0], o, c, true, &s, wsd && (c->ends & END_SERVER));
	}
	if (r)
		goto out;
	r = child_listen(k, 1, true, now_ns() + READY_MS * 1000000ll, ret);
	if (!r && !k[0].ready) {
		snprintf(why, WHY_MAX, "server: ended before a client came");
		r = RUN_E_FAILED;
	}
	if (r)
		goto out;
	s.cpu = c->pin == PIN_NONE ? -1 : o->cpu[c->pin == PIN_TWO];
	s.port = k[0].port;
	s.peer = k[0].remote ? 0 : k[0].role_pid;
	r = child_start(&k[1], o, c, false, &s, wsd && (c->ends & END_CLIENT));
	if (r)
		goto out;
	/* crowded and rationed runs may need many times what they should */
	most = run_most_ms(&s) + (c->busy || c->quota ? 3 * (run_most_ms(&s) - GRACE_MS) : 0);
	r = child_listen(k, 2, false, now_ns() + most * 1000000, ret);
out:
	for (unsigned i = 2; i-- > 0;) {
		x = child_end(&k[i], r ? 0 : EXIT_MS);
		if (!r || (x == RUN_E_STILL && r != RUN_E_STOP))
			r = x;
	}
	load = load_stop(load);
	if (r == RUN_E_STOP)
		return r;
	if (r < 0) {
		snprintf(why, WHY_MAX, "cannot start%s: %s", k[0].remote ? " at the agent" : "", strerror(-r));
		return RUN_E_FAILED;
	}
	if (r) {
		if (!why[0])
			snprintf(why, WHY_MAX, "%s%.95s%s%.90s", k[1].why[0] ? "client: " : "", k[1].why,
				 !k[0].why[0] ? "" : k[1].why[0] ? " server: " : "server: ", k[0].why);
		return r;
	}
	if (wsd) {
		here = share_sum();
		share_tell(ret, &here, &k[0].share);
	}
	ret->done = true;
	return 0;
}
