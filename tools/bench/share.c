/* SPDX-License-Identifier: MIT */
/* the statistics file (wsd/stats.h) of the processes of one run, to tell what went over the SAN */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tools/bench/bench.h"
#include "wsd/stats.h"

static struct wsd_stats_file *file;

int share_open(const char *path)
{
	void *p;
	int fd, r = 0;

	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		r = -errno;
	else
		r = -posix_fallocate(fd, 0, WSD_STATS_LENGTH);	/* a full disk is told now, not by SIGBUS */
	if (r) {
		fprintf(stderr, "wsd-bench: cannot make %s: %s\n", path, strerror(-r));
		goto out;
	}
	p = mmap(NULL, WSD_STATS_LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		r = -errno;
		goto out;
	}
	file = p;
	share_reset();
out:
	if (fd >= 0)
		close(fd);
	return r;
}

void share_reset(void)
{
	memset(file, 0, WSD_STATS_LENGTH);
	file->n_slots = WSD_STATS_SLOTS;
	file->magic = WSD_STATS_MAGIC;
}

struct share share_sum(void)
{
	struct share sum = { 0 };

	for (unsigned i = 0; i < WSD_STATS_SLOTS; i++) {
		struct wsd_stats_slot *s = &file->slot[i];

		if (!s->pid)
			continue;
		/* only what both count alike: a byte is taken once, by one end */
		sum.ring += s->ring_rx;
		sum.tcp += s->tcp_rx;
		sum.conns += s->conns;
		sum.accel += s->accelerated;
	}
	return sum;
}

void share_tell(struct result *ret, const struct share *here, const struct share *there)
{
	double ring = (double)here->ring + (double)there->ring, all = ring + (double)here->tcp + (double)there->tcp;
	double conns = (double)here->conns + (double)there->conns;

	if (all > 0)
		ret->share = ring / all;
	if (conns > 0)
		ret->accel = ((double)here->accel + (double)there->accel) / conns;
}
