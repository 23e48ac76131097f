/* SPDX-License-Identifier: MIT */
/* stats.c - what this process adds to the file of wsdrun --stats (wsd/stats.h) */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wsd_switch/core/switch.h"

static struct wsd_stats_file *file;
static struct wsd_stats_slot *slot;
static bool tried;

void stats_init(void)
{
	slot = NULL;
	tried = false;
}

static struct wsd_stats_slot *claim(void)
{
	uint32_t i, z, pid = proc_page->pid;

	if (likely(slot != NULL) || tried)
		return slot;
	tried = true;
	if (!file)
		return NULL;
	for (i = 0; i < WSD_STATS_SLOTS; i++) {
		z = 0;
		if (!atomic_load_explicit(&file->slot[i].pid, memory_order_relaxed) &&
		    atomic_compare_exchange_strong(&file->slot[i].pid, &z, pid)) {
			prctl(PR_GET_NAME, file->slot[i].comm);
			return slot = &file->slot[i];
		}
	}
	atomic_fetch_add(&file->overflow, 1);
	return NULL;
}

/* at start-up; never a descriptor left open */
void stats_open(const char *path);
void stats_open(const char *path)
{
	struct stat st;
	int fd;
	void *p;

	if (!path)
		return;
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= (off_t)WSD_STATS_LENGTH) {
		p = mmap(NULL, WSD_STATS_LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p != MAP_FAILED) {
			file = p;
			if (file->magic != WSD_STATS_MAGIC)
				file = NULL;
		}
	}
	real.close(fd);
}

void stats_conn(void)
{
	struct wsd_stats_slot *s = claim();

	if (s)
		atomic_fetch_add_explicit(&s->conns, 1, memory_order_relaxed);
}

void stats_accelerated(bool rdma)
{
	struct wsd_stats_slot *s = claim();

	if (!s)
		return;
	atomic_fetch_add_explicit(&s->accelerated, 1, memory_order_relaxed);
	if (rdma)
		atomic_fetch_add_explicit(&s->accelerated_rdma, 1, memory_order_relaxed);
}

void stats_gate(bool open)
{
	if (slot)
		atomic_fetch_add_explicit(open ? &slot->gate_opened : &slot->gate_closed, 1, memory_order_relaxed);
}

/* Once for each connection and process: what went by which road. Sides are shared with forked children, so bytes are
 * counted by the process that is their last user. */
void stats_conn_end(struct conn *c)
{
	struct wsd_stats_slot *s = claim();
	struct side *d = c->s;
	uint32_t why;

	if (!s || c->in_gate_stat)
		return;
	c->in_gate_stat = true;
	if (atomic_load(&d->rx_user) != proc_page->pid && atomic_load(&d->rx_user) != 0)
		return;
	atomic_fetch_add_explicit(&s->ring_tx, atomic_load(&d->put), memory_order_relaxed);
	atomic_fetch_add_explicit(&s->ring_rx, atomic_load(&d->taken), memory_order_relaxed);
	atomic_fetch_add_explicit(&s->tcp_tx, atomic_load(&d->H), memory_order_relaxed);
	atomic_fetch_add_explicit(&s->tcp_rx, atomic_load(&d->C), memory_order_relaxed);
	if (!conn_ours(c)) {
		why = atomic_load(&c->why);
		if (atomic_load(&d->why))
			why = atomic_load(&d->why);
		if (why < WSD_STATS_REASONS)
			atomic_fetch_add_explicit(&s->reason[why], 1, memory_order_relaxed);
	}
}
