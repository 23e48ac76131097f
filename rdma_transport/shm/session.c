/* SPDX-License-Identifier: MIT */
/*
 * session.c - map a session memfd, after every check that keeps a later access from faulting
 *
 * Sealed against shrinking: an access inside never meets SIGBUS for want of file. On tmpfs and not on
 * hugetlbfs: a hole that the peer punches reads as zeroes there, and is SIGBUS here. The first pages are made
 * present while an error can still be answered.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "rdma_transport/base/fault_point.h"
#include "rdma_transport/base/rawsys.h"
#include "rdma_transport/shm/shm.h"

#define SEALS_NEEDED	(F_SEAL_SHRINK | F_SEAL_GROW)
#define FIRST_PAGE	4096u

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static bool ring_size_ok(uint32_t n)
{
	return n >= WSD_RING_MIN && n <= WSD_RING_MAX && !(n & (n - 1));
}

static int check_descriptor(int fd, uint64_t length)
{
	struct statfs fs;
	struct stat st;
	long seals;

	seals = rt_raw_fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & SEALS_NEEDED) != SEALS_NEEDED)
		return -EINVAL;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size != length)
		return -EINVAL;
	if (fstatfs(fd, &fs) || fs.f_type != TMPFS_MAGIC)
		return -EINVAL;
	return 0;
}

/* EINVAL: a kernel before 5.14; pages then come, or fail, at their first use */
static int populate(void *addr, size_t len)
{
	if (madvise(addr, len, MADV_POPULATE_WRITE) && errno != EINVAL)
		return -ENOMEM;
	return 0;
}

static int check_header(struct shm_session *s, const struct rt_peer *peer)
{
	const volatile struct wsd_session *m = s->map;

	if (m->magic != WSD_SESSION_MAGIC || m->version != WSD_SESSION_VERSION || m->ring_size != peer->ring_size ||
	    m->session_id != peer->session_id || m->length != peer->length)
		return -EPROTO;
	s->tx_head = WSD_GATE_HEAD(atomic_load(&s->tx->gate));
	s->rx_tail = atomic_load(&s->rx->tail);
	if (s->tx_head - atomic_load(&s->tx->tail) > s->ring_size ||
	    WSD_GATE_HEAD(atomic_load(&s->rx->gate)) - s->rx_tail > s->ring_size)
		return -EPROTO;
	return 0;
}

int shm_session_map(struct shm_session *s, const struct rt_peer *peer)
{
	struct shm_session n = {
		.length = peer->length,
		.session_id = peer->session_id,
		.ring_size = peer->ring_size,
		.side = peer->side,
	};
	void *map;
	int r;

	if (!ring_size_ok(peer->ring_size) || peer->length != wsd_session_length(peer->ring_size))
		return -EINVAL;
	RT_FAULT_POINT(r, -EINVAL, err);
	r = check_descriptor(peer->fd, peer->length);
	if (r)
		goto err;

	RT_FAULT_POINT(r, -ENOMEM, err);
	map = mmap(NULL, peer->length, PROT_READ | PROT_WRITE, MAP_SHARED, peer->fd, 0);
	if (map == MAP_FAILED) {
		r = -errno;
		goto err;
	}
	n.map = map;
	n.tx = &n.map->dir[n.side];
	n.rx = &n.map->dir[1 - n.side];
	n.tx_ring = (uint8_t *)map + WSD_SESSION_HDR + (size_t)n.side * n.ring_size;
	n.rx_ring = (uint8_t *)map + WSD_SESSION_HDR + (size_t)(1 - n.side) * n.ring_size;

	RT_FAULT_POINT(r, -ENOMEM, err_unmap);
	r = populate(map, WSD_SESSION_HDR + FIRST_PAGE) ?:
	    populate((uint8_t *)map + WSD_SESSION_HDR + n.ring_size, FIRST_PAGE);
	if (r)
		goto err_unmap;
	RT_FAULT_POINT(r, -EPROTO, err_unmap);
	r = check_header(&n, peer);
	if (r)
		goto err_unmap;
	atomic_fetch_or(&n.map->attached, 1u << n.side);
	*s = n;
	return 0;

err_unmap:
	munmap(map, peer->length);
err:
	return r;
}

void shm_session_unmap(struct shm_session *s)
{
	if (s->map)
		munmap(s->map, s->length);
	s->map = NULL;
}
