/* SPDX-License-Identifier: MIT */
/*
 * A preload library that does what the contract of wsd/stats.h asks of the switch, and only when
 * FAKE_COUNT is set: one slot for each process, with numbers that the test knows.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <wsd/proxy_proto.h>
#include <wsd/stats.h>

static __attribute__((constructor)) void count(void)
{
	const char *path = secure_getenv(WSD_STATS_ENV);
	struct wsd_stats_file *f;
	uint32_t none;
	int fd;

	if (!getenv("FAKE_COUNT") || !path)
		return;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	f = mmap(NULL, WSD_STATS_LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (f == MAP_FAILED || f->magic != WSD_STATS_MAGIC)
		return;
	for (uint32_t i = 0; i < f->n_slots; i++) {
		struct wsd_stats_slot *s = &f->slot[i];

		none = 0;
		if (!atomic_compare_exchange_strong(&s->pid, &none, (uint32_t)getpid()))
			continue;
		memcpy(s->comm, "fake\033[m", 8);	/* a name may hold anything */
		s->conns += 3;
		s->accelerated += 2;
		s->accelerated_rdma += 1;
		s->ring_tx += 700;
		s->ring_rx += 200;
		s->tcp_tx += 60;
		s->tcp_rx += 40;
		s->reason[WSD_R_PEER_UNAWARE] += 1;
		return;
	}
	f->overflow++;
}
