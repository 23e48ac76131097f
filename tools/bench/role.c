/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/tsc.h"
#include "tools/bench/role.h"

void role_die(const char *where, const char *fmt, ...)
{
	char msg[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	fprintf(stderr, "wsd-bench role %d, %s: %s\n", (int)getpid(), where, msg);
	say("fail %s: %s", where, msg);
	_exit(1);
}

void say(const char *fmt, ...)
{
	char line[256];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	if (write(ROLE_OUT, line, n) != n)
		_exit(1);	/* nobody listens any more */
}

void say_metric(enum metric m, double v)
{
	say("m %s %.9g", metric_info[m].key, v);
}

void step(const char *what)
{
	say("step %s", what);
}

static socklen_t unix_name(struct sockaddr_un *ret, long number)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	/* an abstract name: nothing to remove */
	return offsetof(struct sockaddr_un, sun_path) + 1 +
	       snprintf(ret->sun_path + 1, sizeof(ret->sun_path) - 1, "wsd-bench-%ld", number);
}

/* the address that the spec says; the client's and the server's */
static struct sockaddr_in net_address(const struct spec *s, long port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(s->addr ? (uint32_t)s->addr : INADDR_LOOPBACK),
	};
}

static int net_socket(const struct spec *s)
{
	int family = s->road == ROAD_UNIX ? AF_UNIX : s->road == ROAD_SMC ? AF_SMC : AF_INET, fd;

	/* librspreload knows no flags of the type */
	fd = socket(family, SOCK_STREAM | (s->road == ROAD_RSOCKETS ? 0 : SOCK_CLOEXEC), 0);
	if (fd < 0)
		die("socket: %m");
	return fd;
}

/*
 * Roads that silently become TCP when they cannot do it: such a figure would be another road's.
 * A descriptor of rsockets is a place held in the table by /dev/null, a socket when it gave up.
 */
static void net_check(const struct spec *s, int fd)
{
	char link[32], to[64] = "";

	if (s->road == ROAD_RSOCKETS) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		if (readlink(link, to, sizeof(to) - 1) < 0 || !strncmp(to, "socket:", 7))
			die("rsockets fell back to TCP");
	}
	if (s->road == ROAD_SMC)
		smc_check(s->port);
}

static void no_delay(int fd)
{
	int one = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));	/* AF_UNIX has none */
}

int net_listen(const struct spec *s)
{
	struct sockaddr_in in = net_address(s, 0);
	struct sockaddr_un un;
	socklen_t len = sizeof(in);
	long port = getpid();
	int l;

	l = net_socket(s);
	if (s->road == ROAD_UNIX) {
		len = unix_name(&un, port);
		if (bind(l, (struct sockaddr *)&un, len))
			die("bind: %m");
	} else {
		if (bind(l, (struct sockaddr *)&in, sizeof(in)) || getsockname(l, (struct sockaddr *)&in, &len))
			die("bind: %m");
		port = ntohs(in.sin_port);
	}
	if (listen(l, s->road == ROAD_RSOCKETS ? 16 : CONNS_MAX))	/* it makes queues as long */
		die("listen: %m");
	say("ready %ld %d", port, (int)getpid());
	step("waiting for clients, or serving them");
	return l;
}

int net_accept_one(const struct spec *s, int l)
{
	int fd = s->road == ROAD_RSOCKETS ? accept(l, NULL, NULL) : accept4(l, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		die("accept: %m");
	step("serving the client");
	no_delay(fd);
	return fd;
}

int net_accept(int l, bool nonblock)
{
	int fd = accept4(l, NULL, NULL, SOCK_CLOEXEC | (nonblock ? SOCK_NONBLOCK : 0));

	if (fd < 0)
		die("accept: %m");
	no_delay(fd);
	return fd;
}

int net_connect(const struct spec *s)
{
	struct sockaddr_in in = net_address(s, s->port);
	struct sockaddr_un un;
	static bool before;
	int fd, r;

	if (!before)
		step("connecting");
	fd = net_socket(s);
	if (s->road == ROAD_UNIX)
		r = connect(fd, (struct sockaddr *)&un, unix_name(&un, s->port));
	else
		r = connect(fd, (struct sockaddr *)&in, sizeof(in));
	if (r)
		die("connect: %m");
	no_delay(fd);
	net_check(s, fd);
	if (!before)
		step("connected");
	before = true;
	return fd;
}

static int call_flags;

void net_poll(bool on)
{
	call_flags = on ? MSG_DONTWAIT : 0;
}

ssize_t read_some(int fd, void *buf, size_t n)
{
	ssize_t r;

	do
		r = recv(fd, buf, n, call_flags);
	while (r < 0 && (errno == EINTR || (call_flags && errno == EAGAIN)));
	return r;
}

void read_full(int fd, void *buf, size_t n)
{
	for (size_t got = 0; got < n;) {
		ssize_t r = recv(fd, (char *)buf + got, n - got, call_flags);

		if (r <= 0) {
			if (r < 0 && (errno == EINTR || (call_flags && errno == EAGAIN)))
				continue;
			die("receive of %zu bytes after %zu: %s", n, got, r ? strerror(errno) : "end of file");
		}
		got += r;
	}
}

void write_full(int fd, const void *buf, size_t n)
{
	for (size_t put = 0; put < n;) {
		ssize_t r = send(fd, (const char *)buf + put, n - put, MSG_NOSIGNAL);

		if (r < 0) {
			if (errno == EINTR)
				continue;
			die("send of %zu bytes after %zu: %m", n, put);
		}
		put += r;
	}
}

void span_begin(struct span *s)
{
	s->ns0 = now_ns();
	s->t0 = tsc_now();
}

void span_end(struct span *s)
{
	s->ns1 = now_ns();
	s->t1 = tsc_now();
}

double span_seconds(const struct span *s)
{
	return (double)(s->ns1 - s->ns0) / 1e9;
}

double span_us(const struct span *s, double ticks)
{
	return ticks * (double)(s->ns1 - s->ns0) / (double)(s->t1 - s->t0) / 1e3;
}

double process_cpu(pid_t pid)
{
	struct timespec t;
	clockid_t id;

	if (clock_getcpuclockid(pid, &id) || clock_gettime(id, &t))
		return NAN;
	return t.tv_sec + t.tv_nsec / 1e9;
}

void say_latency(const struct span *s, const struct hist *h)
{
	if (!h->n)
		die("nothing was measured");
	say_metric(M_P50, span_us(s, hist_quantile(h, .5)));
	say_metric(M_P90, span_us(s, hist_quantile(h, .9)));
	say_metric(M_P99, span_us(s, hist_quantile(h, .99)));
	say_metric(M_P999, span_us(s, hist_quantile(h, .999)));
	say_metric(M_MAX, span_us(s, (double)h->max));
}

static const struct role *const roles[_KIND_N] = {
	[KIND_PINGPONG] = &role_pingpong,
	[KIND_STREAM] = &role_stream,
	[KIND_CONN] = &role_conn,
	[KIND_ECHO] = &role_echo,
	[KIND_OPEN] = &role_open,
	[KIND_IDLE] = &role_idle,
	[KIND_RAW] = &role_raw,
};

int role_main(bool server, char **words, int n)
{
	struct spec s;
	cpu_set_t set;

	if (spec_parse(&s, words, n) || !roles[s.kind]) {
		fprintf(stderr, "wsd-bench: a role's parameters are malformed\n");
		return 64;
	}
	/* whatever happens to wsd-bench, this ends: no handler, so no wait is ever disturbed */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm((unsigned)((s.ms + s.warm) / 1000 + 60));
	if (s.cpu >= 0) {
		CPU_ZERO(&set);
		CPU_SET(s.cpu, &set);
		if (sched_setaffinity(0, sizeof(set), &set))
			die("CPU %ld: %m", s.cpu);
	}
	step("setting up");
	(server ? roles[s.kind]->server : roles[s.kind]->client)(&s);
	say("end");
	return 0;
}
