/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "proxy_daemon/server/san/memory.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define WORDS (2 * (size_t)WSD_REMOTE_PAGE)

uint64_t memory_start(uint32_t ring0)
{
	return WORDS + 2ull * ring0;
}

uint64_t memory_locked(uint32_t ring0)
{
	return WSD_REMOTE_PAGE + 2ull * ring0;
}

static int make_memfd(void)
{
	int fd = memfd_create("wsd-remote", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL)		/* before Linux 6.3 */
		fd = memfd_create("wsd-remote", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd;
}

static void write_constants(struct wsd_remote *rs, const struct memory_params *p, uint64_t length)
{
	rs->magic = WSD_REMOTE_MAGIC;
	rs->version = WSD_REMOTE_VERSION;
	rs->side = p->side;
	rs->session_id = p->session_id;
	rs->nonce = p->nonce;
	rs->length = length;
	rs->epoch = p->epoch;
	rs->ring0 = p->ring0;
	rs->ring1_max = p->ring1_max;
	rs->fill_max = p->fill_max;
	rs->off_ctl = WSD_REMOTE_PAGE;
	rs->off_rx0 = 2 * WSD_REMOTE_PAGE;
	rs->off_tx0 = rs->off_rx0 + p->ring0;
	rs->off_rx1 = rs->off_tx0 + p->ring0;
	rs->off_tx1 = rs->off_rx1 + p->ring1_max;
	rs->off_fill = rs->off_tx1 + p->ring1_max;
	/* where 0 would mean something */
	rs->ring1_from = UINT64_MAX;
	rs->frame_H = UINT64_MAX;
	rs->in_C = UINT64_MAX;
}

int memory_make(struct memory *m, const struct memory_params *p)
{
	void *words;
	int r;

	memset(m, 0, sizeof(*m));
	m->length = wsd_remote_length(p->ring0, p->ring1_max, p->fill_max);
	m->nonce = p->nonce;
	m->ring0 = p->ring0;
	m->ring1_max = p->ring1_max;
	m->fill_max = p->fill_max;
	m->fd = make_memfd();
	if (m->fd < 0)
		return -errno;
	if (ftruncate(m->fd, (off_t)m->length) < 0 || fallocate(m->fd, 0, 0, (off_t)memory_start(p->ring0)) < 0)
		goto err_close;
	words = mmap(NULL, WORDS, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	if (words == MAP_FAILED)
		goto err_close;
	write_constants(words, p, m->length);
	if (fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		goto err_unmap;
	m->rs = words;
	m->ctl = (struct wsd_remote_ctl *)((char *)words + WSD_REMOTE_PAGE);
	return 0;

err_unmap:
	r = -errno;
	munmap(words, WORDS);
	close(m->fd);
	m->fd = -1;
	return r;
err_close:
	r = -errno;
	close(m->fd);
	m->fd = -1;
	return r;
}

void memory_drop(struct memory *m)
{
	if (!m->rs)
		return;
	munmap(m->rs, WORDS);
	close(m->fd);
	m->rs = NULL;
	m->ctl = NULL;
	m->fd = -1;
}

static off_t ring_at(const struct memory *m, enum memory_ring ring, uint32_t *ret_max)
{
	off_t tx0 = (off_t)WORDS + m->ring0, rx1 = tx0 + m->ring0;

	switch (ring) {
	case MEMORY_TX0:
		*ret_max = m->ring0;
		return tx0;
	case MEMORY_RX1:
		*ret_max = m->ring1_max;
		return rx1;
	case MEMORY_TX1:
		*ret_max = m->ring1_max;
		return rx1 + m->ring1_max;
	case MEMORY_FILL:
		break;
	}
	*ret_max = m->fill_max;
	return rx1 + 2 * (off_t)m->ring1_max;
}

int memory_populate(struct memory *m, enum memory_ring ring, uint32_t bytes)
{
	uint32_t max;
	off_t at = ring_at(m, ring, &max);

	if (!bytes || bytes > max)
		return -EINVAL;
	return fallocate(m->fd, 0, at, bytes) < 0 ? -errno : 0;
}

/* both halves of a span that wraps around */
static int span(struct memory *m, enum memory_ring ring, uint32_t size, uint64_t at, void *buf, uint32_t n, bool write)
{
	uint32_t max, slot, part;
	off_t base = ring_at(m, ring, &max);
	char *p = buf;
	ssize_t done;

	if (!size || size > max || (size & (size - 1)) || n > size)
		return -EINVAL;
	while (n) {
		slot = (uint32_t)(at & (size - 1));
		part = n < size - slot ? n : size - slot;
		done = write ? pwrite(m->fd, p, part, base + slot) : pread(m->fd, p, part, base + slot);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? -errno : -EIO;
		p += done;
		at += (uint64_t)done;
		n -= (uint32_t)done;
	}
	return 0;
}

int memory_read(struct memory *m, enum memory_ring ring, uint32_t size, uint64_t at, void *buf, uint32_t n)
{
	return span(m, ring, size, at, buf, n, false);
}

int memory_write(struct memory *m, enum memory_ring ring, uint32_t size, uint64_t at, const void *buf, uint32_t n)
{
	return span(m, ring, size, at, (void *)buf, n, true);
}
