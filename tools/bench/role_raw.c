/* SPDX-License-Identifier: MIT */
/*
 * the bare device: a program of perftest does what the case does with sockets
 *
 * It says half round trips and 2^20 bytes; we say round trips and 10^9. Its counts are numbers of messages, so
 * the time to measure becomes one that takes about as long on an emulated machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench/role.h"

#define LISTEN_MS	15000
#define DEPTH_TWO_HOSTS	"4"	/* a packet lost between emulated hosts costs a time-out, so few are under way */

static const struct { const char *program; const char *extra; bool latency; unsigned per_s; } raw_info[_RAW_N] = {
	[RAW_WRITE_LAT] = { "ib_write_lat", NULL, true, 300 },
	[RAW_SEND_LAT] = { "ib_send_lat", NULL, true, 300 },
	[RAW_SEND_LAT_EVENTS] = { "ib_send_lat", "-e", true, 300 },
	[RAW_WRITE_BW] = { "ib_write_bw", NULL, false, 400 },
	[RAW_SEND_BW] = { "ib_send_bw", NULL, false, 4000 },
};

/* *ret_out: what it prints, when that is wanted */
static pid_t start(const struct spec *s, long port, const char *to, int *ret_out)
{
	const char *device = getenv("WSD_BENCH_DEVICE"), *argv[20];
	char size[24], count[24], at[24], doing[48];
	unsigned n = 0;
	int p[2];
	pid_t pid;

	snprintf(size, sizeof(size), "%ld", s->size);
	snprintf(count, sizeof(count), "%ld", s->ms * raw_info[s->raw].per_s / 1000 + 100);
	snprintf(at, sizeof(at), "%ld", port);
	argv[n++] = raw_info[s->raw].program;
	for (const char *w[] = { "-F", "-d", device ? device : "rxe0", "-s", size, "-n", count, "-p", at, NULL }, **a = w; *a; a++)
		argv[n++] = *a;
	if (raw_info[s->raw].extra)
		argv[n++] = raw_info[s->raw].extra;
	if (!raw_info[s->raw].latency && to && !s->peer) {	/* two hosts */
		argv[n++] = "-t";
		argv[n++] = DEPTH_TWO_HOSTS;
	}
	if (to)
		argv[n++] = to;
	argv[n] = NULL;
	if (pipe2(p, O_CLOEXEC))
		die("pipe: %m");
	pid = fork();
	if (pid < 0)
		die("fork: %m");
	if (!pid) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (dup2(p[1], 1) < 0)
			_exit(126);
		execvp(argv[0], (char **)argv);
		printf("cannot run %s: %s (Debian: perftest)\n", argv[0], strerror(errno));
		fflush(stdout);
		_exit(127);
	}
	close(p[1]);
	snprintf(doing, sizeof(doing), "waiting for %s to %s", raw_info[s->raw].program, to ? "end" : "listen");
	step(doing);
	*ret_out = p[0];
	return pid;
}

static void finish(const struct spec *s, pid_t pid, const char *said)
{
	int st;

	if (waitpid(pid, &st, 0) != pid)
		die("%s: %m", raw_info[s->raw].program);
	if (st)
		die("%s: %s %d: %.100s", raw_info[s->raw].program, WIFSIGNALED(st) ? "signal" : "status",
		    WIFSIGNALED(st) ? WTERMSIG(st) : WEXITSTATUS(st), said);
}

/* somebody of this host listens at the port; perftest says nothing when it does */
static bool listens(long port)
{
	char line[256];
	unsigned p, state;
	bool yes = false;

	for (unsigned k = 0; k < 2 && !yes; k++) {
		FILE *f = fopen(k ? "/proc/net/tcp6" : "/proc/net/tcp", "re");

		while (f && !yes && fgets(line, sizeof(line), f))
			if (sscanf(line, " %*d: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x", &p, &state) == 2)
				yes = p == port && state == 0x0a;
		if (f)
			fclose(f);
	}
	return yes;
}

static long free_port(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&in, len) || getsockname(fd, (struct sockaddr *)&in, &len))
		die("a free port: %m");
	close(fd);
	return ntohs(in.sin_port);
}

/* all that comes from it, or its last part */
static void read_all(int fd, char *buf, size_t size)
{
	size_t n = 0;
	ssize_t r;

	while ((r = read(fd, buf + n, size - 1 - n)) > 0) {
		n += r;
		if (n == size - 1) {
			memmove(buf, buf + size / 2, n - size / 2);
			n -= size / 2;
		}
	}
	buf[n] = 0;
	close(fd);
}

static void server(const struct spec *s)
{
	int64_t end = now_ns() + LISTEN_MS * 1000000ll;
	struct timespec tick = { 0, 20000000 };
	long port = free_port();
	char said[4096];
	int out;
	pid_t pid;

	if (s->raw == RAW_NONE)
		die("no program stands for this case");
	pid = start(s, port, NULL, &out);
	while (!listens(port)) {
		siginfo_t gone = { .si_pid = 0 };

		(void)waitid(P_PID, pid, &gone, WEXITED | WNOHANG | WNOWAIT);
		if (gone.si_pid) {
			read_all(out, said, sizeof(said));
			finish(s, pid, said);
		}
		if (now_ns() > end || gone.si_pid)
			die("%s does not listen", raw_info[s->raw].program);
		nanosleep(&tick, NULL);
	}
	say("ready %ld %d", port, (int)getpid());
	step("waiting for the program of perftest to end");
	read_all(out, said, sizeof(said));
	finish(s, pid, said);
}

static void client(const struct spec *s)
{
	char said[8192], to[INET_ADDRSTRLEN], *save, *line;
	double v[8];
	long bytes, count;
	uint32_t a = s->addr ? (uint32_t)s->addr : INADDR_LOOPBACK;
	bool found = false;
	int out;
	pid_t pid;

	snprintf(to, sizeof(to), "%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
	pid = start(s, s->port, to, &out);
	read_all(out, said, sizeof(said));
	finish(s, pid, said);
	for (line = strtok_r(said, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		int n = sscanf(line, " %ld %ld %lf %lf %lf %lf %lf %lf %lf", &bytes, &count, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6]);

		if (raw_info[s->raw].latency && n == 9) {	/* least, most, median, mean, deviation, 99 %, 99.9 % */
			say_metric(M_RATE, 1e6 / (2 * v[3]));
			say_metric(M_P50, 2 * v[2]);
			say_metric(M_P99, 2 * v[5]);
			say_metric(M_P999, 2 * v[6]);
			say_metric(M_MAX, 2 * v[1]);
			found = true;
		} else if (!raw_info[s->raw].latency && n == 5) {	/* peak, mean, millions of messages */
			say_metric(M_BYTES, v[1] * 1048576 / 1e9);
			say_metric(M_RATE, v[2] * 1e6);
			found = true;
		}
	}
	if (!found)
		die("%s prints no result", raw_info[s->raw].program);
}

const struct role role_raw = { server, client };
