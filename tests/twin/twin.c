/* SPDX-License-Identifier: MIT */
/*
 * twin.c - starts the two ends, connects them, and prints one transcript
 *
 * The parent only forks, waits and merges: the ends are fresh processes (or one process with two threads), each
 * started through the command it is to be tested under. Each end writes its own log, a line per result, headed by
 * connection and step, so merging is a stable sort and a hung run still shows how far it came.
 *
 * Exit: 0 both ends finished, 1 an end reported a failure or died, 3 an end hung, 2 usage.
 */
#include <argp.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "twin.h"

void tw_ping_pong(struct tw *t, unsigned rounds, size_t n, unsigned how0, unsigned how1);

static struct options {
	uint64_t seed;
	unsigned count, ops, timeout;
	int warm;		/* -1: by the seed */
	int family;		/* 0: by the seed */
	bool threads, device;
	const char *under[2];
	int end;		/* -1: the parent; 0, 1: that end; 2: both, as threads */
	int ctl[2][2];		/* read, write descriptor of each end */
	int log[2];
} opt = { .seed = 1, .count = 1, .ops = 250, .timeout = 30, .warm = -1, .end = -1 };

/* ---- generator ---- */

static uint64_t mix64(uint64_t *s)
{
	uint64_t z = (*s += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t tw_rnd(struct tw *t)
{
	return mix64(&t->rng);
}

unsigned tw_pick(struct tw *t, unsigned n)
{
	return (unsigned)(mix64(&t->rng) >> 33) % n;
}

unsigned tw_mix(uint64_t *s, unsigned n)
{
	return (unsigned)(mix64(s) >> 33) % n;
}

/* ---- log ---- */

static void vlog(struct tw *t, const char *fmt, va_list ap)
{
	char line[512];
	int n, m, e = errno;

	n = snprintf(line, sizeof(line), "%03u.%05u %d ", t->conn, t->step, t->me);
	m = vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	n += m < (int)sizeof(line) - n - 2 ? m : (int)sizeof(line) - n - 2;
	line[n++] = '\n';
	(void)tw_raw_write(t->log_fd, line, (size_t)n);
	errno = e;
}

void tw_log(struct tw *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vlog(t, fmt, ap);
	va_end(ap);
}

void tw_res(struct tw *t, const char *what, long ret)
{
	int e = errno;

	tw_log(t, "%s = %ld %s", what, ret, ret < 0 ? strerrorname_np(e) : "ok");
	errno = 0;
}

void tw_fail(struct tw *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vlog(t, fmt, ap);
	va_end(ap);
	tw_log(t, "FAILED here");
	_exit(1);
}

uint64_t tw_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* ---- barrier ---- */

#define BARRIER_US	6000000		/* whatever it waits for */

struct token {
	uint64_t sent;
	uint32_t step;
	uint32_t gone;
};

static void raw_read_all(struct tw *t, void *p, size_t n)
{
	size_t done = 0;

	while (done < n) {
		long r = tw_raw_read(t->ctl_rd, (char *)p + done, n - done);

		if (r == -EINTR)
			continue;
		if (r <= 0) {
			tw_log(t, "the other end is gone");
			_exit(1);
		}
		done += (size_t)r;
	}
}

void tw_tell(struct tw *t)
{
	(void)tw_raw_write(t->ctl_wr, "t", 1);
}

void tw_await(struct tw *t)
{
	char c;

	raw_read_all(t, &c, 1);
}

/*
 * Bytes that are on their way elsewhere than in the kernel: over RDMA they are not there when send() returns. TCP promises that on
 * loopback only, and RDMA between two ends of one machine is for tests; a comparison needs it. The sender waits, so that what the
 * other end does first is still the first thing it does.
 */
static bool under_way(struct tw *t)
{
	int all = 0, kernel = 0;

	return ioctl(t->fd, SIOCOUTQ, &all) == 0 && tw_raw_ioctl(t->fd, SIOCOUTQ, &kernel) == 0 && all > kernel;
}

void tw_barrier(struct tw *t)
{
	struct token mine = { .step = t->step }, other;
	struct tw_kernel k;
	uint64_t begun, now, since, end, most = 0;

	/*
	 * Nagle and cork may hold bytes back for an ACK's delay; a device that lost a packet is given up after half a second, and TCP brings its bytes. Each has
	 * its own time, the second's is not the first's
	 */
	begun = since = tw_now_us();
	do {
		tw_kernel_state(t->fd, &k);
		now = tw_now_us();
		end = k.notsent ? 300000 : t->tx != t->told && under_way(t) ? 3000000 : 0;
		if (end != most)
			since = now;
		most = end;
	} while (!k.gone && k.state != 7 && now - since < end && now - begun < BARRIER_US);
	t->told = t->tx;
	mine.sent = k.sent;
	mine.gone = k.gone;
	(void)tw_raw_write(t->ctl_wr, &mine, sizeof(mine));
	raw_read_all(t, &other, sizeof(other));
	if (other.step != t->step)
		tw_fail(t, "harness: step %u meets step %u", t->step, other.step);
	if (other.gone || k.gone)
		return;
	/* what the other kernel socket has sent arrives by softirq, most often before its call returned */
	end = tw_now_us() + 300000;
	do {
		tw_kernel_state(t->fd, &k);
	} while (!k.gone && k.received < other.sent && k.state != 7 && tw_now_us() < end);
}

void tw_peer_asleep(struct tw *t)
{
	uint64_t end = tw_now_us() + 20000;
	char path[64], text[256], *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", t->peer_tid);
	do {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return;
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
		if (n <= 0)
			return;
		text[n] = 0;
		p = strrchr(text, ')');
		if (p && p[1] && p[2] == 'S')
			return;
		sched_yield();
	} while (tw_now_us() < end);
}

/* ---- one end ---- */

static socklen_t loopback(int family, struct sockaddr_storage *ss, in_port_t port)
{
	struct sockaddr_in *s4 = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *s6 = (struct sockaddr_in6 *)ss;

	memset(ss, 0, sizeof(*ss));
	if (family == '4') {
		*s4 = (struct sockaddr_in) { .sin_family = AF_INET, .sin_port = port };
		s4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return sizeof(*s4);
	}
	*s6 = (struct sockaddr_in6) { .sin6_family = AF_INET6, .sin6_port = port };
	inet_pton(AF_INET6, family == '6' ? "::1" : "::ffff:127.0.0.1", &s6->sin6_addr);
	return sizeof(*s6);
}

static void meet(struct tw *t, bool server, unsigned style)
{
	int domain = t->family == '4' ? AF_INET : AF_INET6, one = 1, l;
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	in_port_t port;

	if (server) {
		l = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
		len = loopback(t->family, &ss, 0);
		if (l < 0 || bind(l, (struct sockaddr *)&ss, len) < 0 || listen(l, 5) < 0 ||
		    getsockname(l, (struct sockaddr *)&ss, &len) < 0)
			tw_fail(t, "cannot listen: %m");
		port = domain == AF_INET ? ((struct sockaddr_in *)&ss)->sin_port : ((struct sockaddr_in6 *)&ss)->sin6_port;
		(void)tw_raw_write(t->ctl_wr, &port, sizeof(port));
		t->fd = style & 1 ? accept4(l, NULL, NULL, SOCK_CLOEXEC) : accept(l, NULL, NULL);
		if (t->fd < 0)
			tw_fail(t, "accept: %m");
		close(l);
	} else {
		raw_read_all(t, &port, sizeof(port));
		/* the client of a v4-mapped pair may be a plain IPv4 socket */
		if (t->family == 'm' && (style & 2)) {
			len = loopback('4', &ss, port);
			domain = AF_INET;
		} else {
			len = loopback(t->family, &ss, port);
		}
		t->fd = socket(domain, SOCK_STREAM | (style & 4 ? SOCK_NONBLOCK : 0), 0);
		if (connect(t->fd, (struct sockaddr *)&ss, len) < 0) {
			struct epoll_event ev = { .events = EPOLLOUT };
			int ep = epoll_create1(0), err = -1;

			if (errno != EINPROGRESS)
				tw_fail(t, "connect: %m");
			epoll_ctl(ep, EPOLL_CTL_ADD, t->fd, &ev);
			epoll_wait(ep, &ev, 1, 5000);
			close(ep);
			len = sizeof(err);
			if (getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 || err)
				tw_fail(t, "connect: error %d", err);
		}
		if (style & 4)
			fcntl(t->fd, F_SETFL, fcntl(t->fd, F_GETFL) & ~O_NONBLOCK);
	}
	if (!t->nagle && setsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
		tw_fail(t, "TCP_NODELAY: %m");
}

static void one_connection(struct tw *t, unsigned conn)
{
	static const char fam[] = "4446m";
	unsigned style, warm, how0, how1, ops, i;
	bool server;

	t->conn = conn;
	t->step = 0;
	t->seed = opt.seed + conn;
	/* hashed: the generator steps by a constant, so a plain multiple would make each seed a shift of the next */
	t->rng = t->seed * 0xd1342543de82ef95ull;
	t->rng = tw_rnd(t) ^ (tw_rnd(t) << 1);
	t->tx = t->rx = t->told = 0;
	memset(t->fly, 0, sizeof(t->fly));
	memset(t->fin, 0, sizeof(t->fin));
	memset(t->nb, 0, sizeof(t->nb));
	memset(t->ep_in, 0, sizeof(t->ep_in));
	t->over = false;
	t->fd = -1;

	i = tw_pick(t, 5);
	t->family = opt.family ? opt.family : fam[i];
	t->nagle = tw_pick(t, 16) == 0;
	server = (tw_pick(t, 2) == 0) == (t->me == 0);
	style = tw_pick(t, 8);
	warm = opt.warm >= 0 ? (unsigned)opt.warm + 0 * tw_pick(t, 2) : tw_pick(t, 21);
	how0 = tw_pick(t, 5);
	how1 = tw_pick(t, 5);
	ops = t->nagle ? opt.ops / 5 : opt.ops;

	t->epfd = epoll_create1(EPOLL_CLOEXEC);
	meet(t, server, style);
	tw_barrier(t);
	if (warm)
		tw_ping_pong(t, warm, 16, how0, how1);
	tw_barrier(t);
	for (i = 0; i < ops; i++)
		tw_step(t);
	tw_end(t);
	close(t->epfd);
	tw_log(t, "end of connection");
}

static void *run_end(void *arg)
{
	struct tw *t = arg;
	pid_t tid = (pid_t)syscall(SYS_gettid);
	unsigned i;

	t->memfd = memfd_create("twin", MFD_CLOEXEC);
	if (t->memfd < 0 || pipe2(t->pipe, O_CLOEXEC) < 0)
		tw_fail(t, "set-up: %m");
	t->buf = mmap(NULL, TW_BUF + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (t->buf == MAP_FAILED || mprotect(t->buf + TW_BUF, 4096, PROT_NONE) < 0)
		tw_fail(t, "buffer: %m");
	(void)tw_raw_write(t->ctl_wr, &tid, sizeof(tid));
	raw_read_all(t, &t->peer_tid, sizeof(t->peer_tid));
	for (i = 0; i < opt.count; i++)
		one_connection(t, i);
	close(t->memfd);
	close(t->pipe[0]);
	close(t->pipe[1]);
	munmap(t->buf, TW_BUF + 4096);
	return NULL;
}

static int run_ends(void)
{
	struct tw t[2] = { { .me = 0 }, { .me = 1 } };
	pthread_t th;
	int i;

	for (i = 0; i < 2; i++) {
		t[i].ctl_rd = opt.ctl[i][0];
		t[i].ctl_wr = opt.ctl[i][1];
		t[i].log_fd = opt.log[i];
		t[i].threads = opt.end == 2;
		t[i].device = opt.device;
	}
	signal(SIGPIPE, SIG_IGN);
	alarm(opt.timeout);
	if (opt.end < 2) {
		run_end(&t[opt.end]);
		return 0;
	}
	if (pthread_create(&th, NULL, run_end, &t[1]))
		tw_fail(&t[1], "pthread_create: %m");
	run_end(&t[0]);
	pthread_join(th, NULL);
	return 0;
}

/* ---- the parent ---- */

static pid_t start(int end, char **argv, int argc, int pipes[2][2], int logs[2])
{
	char *av[64], ctl[64], which[16], *save = NULL, *words;
	const char *under = opt.under[end == 1];
	int n = 0, i, e;
	pid_t pid = fork();

	if (pid)
		return pid;
	words = strdup(under ? under : "");
	for (char *w = strtok_r(words, " ", &save); w && n < 30; w = strtok_r(NULL, " ", &save))
		av[n++] = w;
	av[n++] = (char *)"/proc/self/exe";
	/* wsdrun's /proc/self/exe is not ours */
	static char exe[4096];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	if (len > 0)
		av[n - 1] = exe;
	for (i = 1; i < argc && n < 58; i++)
		av[n++] = argv[i];
	/* end 0 reads pipe 0 and writes pipe 1; end 1 the other way round */
	snprintf(which, sizeof(which), "--end=%d", end);
	snprintf(ctl, sizeof(ctl), "--ctl=%d,%d,%d,%d,%d,%d", pipes[0][0], pipes[1][1], pipes[1][0], pipes[0][1], logs[0],
		 logs[1]);
	for (e = 0; e < 2 && end < 2; e++) {
		/* the other end's pipe ends must not stay open here, or its death goes unseen */
		if (e != end) {
			close(pipes[e][0]);
			close(pipes[!e][1]);
		}
	}
	av[n++] = which;
	av[n++] = ctl;
	av[n] = NULL;
	execvp(av[0], av);
	fprintf(stderr, "twin: cannot run %s: %s\n", av[0], strerror(errno));
	_exit(127);
}

struct line {
	char *text;
	size_t order;
};

static int by_step(const void *a, const void *b)
{
	const struct line *x = a, *y = b;
	int r = strncmp(x->text, y->text, 11);	/* "ccc.sssss e" */

	return r ? r : x->order < y->order ? -1 : 1;
}

static void print_merged(int logs[2])
{
	struct line *lines = NULL;
	size_t n = 0, cap = 0, i;

	for (int e = 0; e < 2; e++) {
		FILE *f = fdopen(dup(logs[e]), "r");
		char *text = NULL;
		size_t len = 0;

		if (!f)
			continue;
		rewind(f);
		while (getline(&text, &len, f) > 0) {
			if (n == cap) {
				cap = cap ? cap * 2 : 1024;
				lines = realloc(lines, cap * sizeof(*lines));
				if (!lines)
					abort();
			}
			lines[n].order = n;
			lines[n++].text = text;
			text = NULL;
		}
		free(text);
		fclose(f);
	}
	if (n)
		qsort(lines, n, sizeof(*lines), by_step);
	for (i = 0; i < n; i++) {
		fputs(lines[i].text, stdout);
		free(lines[i].text);
	}
	free(lines);
}

static int parent(int argc, char **argv)
{
	int pipes[2][2], logs[2], status, worst = 0, i, n = 0;
	char obituary[256] = "";
	pid_t pid[2];

	for (i = 0; i < 2; i++) {
		logs[i] = memfd_create("log", 0);
		if (pipe(pipes[i]) < 0 || logs[i] < 0) {
			perror("twin");
			return 1;
		}
		fcntl(logs[i], F_SETFL, O_APPEND);
	}
	if (opt.threads) {
		pid[n++] = start(2, argv, argc, pipes, logs);
	} else {
		pid[n++] = start(0, argv, argc, pipes, logs);
		pid[n++] = start(1, argv, argc, pipes, logs);
	}
	for (i = 0; i < 2; i++) {
		close(pipes[i][0]);
		close(pipes[i][1]);
	}
	for (i = 0; i < n; i++) {
		if (waitpid(pid[i], &status, 0) < 0)
			status = 0x100;
		if (WIFSIGNALED(status)) {
			size_t len = strlen(obituary);

			snprintf(obituary + len, sizeof(obituary) - len, "999.99999 %d end %d was ended by %s%s\n", i, i,
				 strsignal(WTERMSIG(status)), WTERMSIG(status) == SIGALRM ? ": HUNG" : "");
			worst = WTERMSIG(status) == SIGALRM ? 3 : worst ? worst : 1;
		} else if (WEXITSTATUS(status) && !worst) {
			worst = WEXITSTATUS(status) == 127 ? 2 : 1;
		}
	}
	print_merged(logs);
	fputs(obituary, stdout);
	return worst;
}

/* ---- options ---- */

enum { KEY_UNDER = 300, KEY_UNDER_0, KEY_UNDER_1, KEY_END, KEY_CTL, KEY_OPS, KEY_COUNT, KEY_TIMEOUT, KEY_THREADS, KEY_DEVICE };

static const struct argp_option options[] = {
	{ "seed", 's', "N", 0, "first seed", 0 },
	{ "count", KEY_COUNT, "N", 0, "connections in a row, each with the next seed (1)", 0 },
	{ "ops", KEY_OPS, "N", 0, "steps per connection (250)", 0 },
	{ "warm", 'w', "N", 0, "round trips before the steps (by the seed, 0 to 20)", 0 },
	{ "family", 'f', "4|6|m", 0, "IPv4, IPv6, v4-mapped (by the seed)", 0 },
	{ "threads", KEY_THREADS, NULL, 0, "both ends are threads of one process", 0 },
	{ "device", KEY_DEVICE, NULL, 0, "it goes by RDMA: what takes a round trip more than in TCP is waited for", 0 },
	{ "under", KEY_UNDER, "CMD", 0, "run both ends under CMD", 0 },
	{ "under0", KEY_UNDER_0, "CMD", 0, "run end 0 under CMD", 0 },
	{ "under1", KEY_UNDER_1, "CMD", 0, "run end 1 under CMD", 0 },
	{ "timeout", KEY_TIMEOUT, "S", 0, "seconds until an end counts as hung (30)", 0 },
	{ "end", KEY_END, "E", OPTION_HIDDEN, NULL, 0 },
	{ "ctl", KEY_CTL, "FDS", OPTION_HIDDEN, NULL, 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case 's':
		opt.seed = strtoull(arg, NULL, 0);
		return 0;
	case 'w':
		opt.warm = atoi(arg);
		return 0;
	case 'f':
		if (!strchr("46m", arg[0]) || arg[1])
			argp_error(state, "family is 4, 6 or m");
		opt.family = arg[0];
		return 0;
	case KEY_COUNT:
		opt.count = (unsigned)atoi(arg);
		return 0;
	case KEY_OPS:
		opt.ops = (unsigned)atoi(arg);
		return 0;
	case KEY_TIMEOUT:
		opt.timeout = (unsigned)atoi(arg);
		return 0;
	case KEY_THREADS:
		opt.threads = true;
		return 0;
	case KEY_DEVICE:
		opt.device = true;
		return 0;
	case KEY_UNDER:
		opt.under[0] = opt.under[1] = arg;
		return 0;
	case KEY_UNDER_0:
		opt.under[0] = arg;
		return 0;
	case KEY_UNDER_1:
		opt.under[1] = arg;
		return 0;
	case KEY_END:
		opt.end = atoi(arg);
		return 0;
	case KEY_CTL:
		if (sscanf(arg, "%d,%d,%d,%d,%d,%d", &opt.ctl[0][0], &opt.ctl[0][1], &opt.ctl[1][0], &opt.ctl[1][1],
			   &opt.log[0], &opt.log[1]) != 6)
			argp_error(state, "--ctl");
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "what is %s?", arg);
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int main(int argc, char **argv)
{
	static const struct argp argp = { options, parse, NULL,
		"Runs one generated socket program over a loopback TCP connection and prints every result.", NULL, NULL, NULL };

	argp_parse(&argp, argc, argv, 0, NULL, NULL);
	return opt.end < 0 ? parent(argc, argv) : run_ends();
}
