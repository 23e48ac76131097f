/* SPDX-License-Identifier: MIT */
/* many connections that were used a little and then do nothing: what do they cost? */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench/role.h"

#define TRIPS		48	/* on each connection before the next is made: enough to be offered */
#define TRIPS_AFTER	4	/* on each when all are there */

/* resident KiB of a process, shared pages counted in full */
static double rss_kib(pid_t pid)
{
	char path[64], line[256];
	double v = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	f = fopen(path, "re");
	if (!f)
		die("%s: %m", path);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Rss: %lf kB", &v) == 1)
			break;
	fclose(f);
	if (v < 0)
		die("%s has no Rss", path);
	return v;
}

static void trips(const struct spec *s, int fd, int n)
{
	static char out[SIZE_MAX_SMALL], in[SIZE_MAX_SMALL];

	for (int i = 0; i < n; i++) {
		memset(out, 'a' + i % 26, s->size);
		write_full(fd, out, s->size);
		read_full(fd, in, s->size);
		if (memcmp(in, out, s->size))
			die("the answer is not the message");
	}
}

static void client(const struct spec *s)
{
	int *fd = calloc(s->conns, sizeof(*fd)), first;
	double rss_c, rss_s, cpu;
	struct timespec rest = { s->ms / 1000, s->ms % 1000 * 1000000 }, settle = { 0, 200000000 };

	if (!fd)
		die("out of memory");
	memset(fd, 0, s->conns * sizeof(*fd));
	/* the first connection pays for what a process has once */
	first = net_connect(s);
	trips(s, first, 2000);
	rss_c = rss_kib(getpid());
	rss_s = rss_kib((pid_t)s->peer);
	for (long i = 0; i < s->conns - 1; i++) {
		fd[i] = net_connect(s);
		trips(s, fd[i], TRIPS);
	}
	for (int k = 0; k < TRIPS_AFTER; k++)
		for (long i = 0; i < s->conns - 1; i++)
			trips(s, fd[i], 1);
	nanosleep(&settle, NULL);

	cpu = process_cpu(0) + process_cpu((pid_t)s->peer);
	nanosleep(&rest, NULL);
	cpu = process_cpu(0) + process_cpu((pid_t)s->peer) - cpu;
	rss_c = rss_kib(getpid()) - rss_c;
	rss_s = rss_kib((pid_t)s->peer) - rss_s;

	/* they still work */
	for (long i = 0; i < s->conns - 1; i++) {
		trips(s, fd[i], 1);
		close(fd[i]);
	}
	close(first);
	free(fd);
	say_metric(M_CPU, cpu / ((double)s->ms / 1e3) * 100);
	say_metric(M_RSS_CLIENT, rss_c / (double)(s->conns - 1));
	say_metric(M_RSS_SERVER, rss_s / (double)(s->conns - 1));
}

const struct role role_idle = { echo_server, client };
