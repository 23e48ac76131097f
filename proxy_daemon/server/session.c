/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proxy_daemon/server/session.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

static int make_memfd(void)
{
	int fd = memfd_create("wsd-session", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL)		/* before Linux 6.3 */
		fd = memfd_create("wsd-session", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd;
}

int session_map(struct session *s, int *ret_fd)
{
	struct wsd_session *hdr;
	int fd, r;

	fd = make_memfd();
	if (fd < 0)
		return -errno;
	/* the header and the first page of each ring exist from now on; a page that could not be had
	 * later would be SIGBUS in a program, so the ends populate the rest before use */
	if (ftruncate(fd, (off_t)s->length) < 0 || fallocate(fd, 0, 0, WSD_SESSION_HDR + 4096) < 0 ||
	    fallocate(fd, 0, WSD_SESSION_HDR + (off_t)s->ring_size, 4096) < 0) {
		r = -errno;
		goto err_close;
	}
	hdr = mmap(NULL, WSD_SESSION_HDR, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (hdr == MAP_FAILED) {
		r = -errno;
		goto err_close;
	}
	hdr->magic = WSD_SESSION_MAGIC;
	hdr->version = WSD_SESSION_VERSION;
	hdr->ring_size = s->ring_size;
	hdr->session_id = s->id;
	hdr->length = s->length;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		r = -errno;
		goto err_unmap;
	}
	s->hdr = hdr;
	s->fd = -1;
	*ret_fd = fd;
	return 0;

err_unmap:
	munmap(hdr, WSD_SESSION_HDR);
err_close:
	close(fd);
	return r;
}

void session_unmap(struct session *s)
{
	if (s->hdr)
		munmap(s->hdr, WSD_SESSION_HDR);
	s->hdr = NULL;
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

void session_keep(struct session *s, int fd, int max)
{
	if (fd < max)
		s->fd = fd;
	else
		close(fd);
}

void session_end_gone(struct session *s, unsigned side)
{
	atomic_fetch_or(&s->hdr->revoked, WSD_REVOKED | WSD_END_GONE(side));
}

void session_close_gate(struct session *s, unsigned dir)
{
	_Atomic uint64_t *gate = &s->hdr->dir[dir].gate;
	unsigned tries = 10000;
	uint64_t g;

	/* an opener looks at `revoked` and then swaps from the word it read: it sees the one or
	 * fails by the epoch, which is raised even where the gate is closed already */
	atomic_fetch_or(&s->hdr->revoked, WSD_REVOKED);
	g = atomic_load(gate);
	while (!atomic_compare_exchange_weak(gate, &g, wsd_gate_next(g, 0)))
		if (!--tries) {
			/* somebody writes it for no other reason than to hold us up */
			atomic_exchange(gate, wsd_gate_next(g, 0));
			return;
		}
}

void session_look(const struct session *s, unsigned side, struct session_look *ret)
{
	struct wsd_ring_dir *out = &s->hdr->dir[side], *in = &s->hdr->dir[1 - side];
	uint64_t g = atomic_load(&in->gate);
	uint32_t unread = WSD_GATE_HEAD(g) - atomic_load(&in->tail);

	ret->tx_ring = atomic_load(&out->stat_ring);
	ret->tx_tcp = atomic_load(&out->stat_tcp);
	ret->gate_open = g & WSD_GATE_OPEN;
	ret->on_ring = g & WSD_GATE_ON_RING;
	ret->unread = unread <= s->ring_size ? unread : s->ring_size;
}
