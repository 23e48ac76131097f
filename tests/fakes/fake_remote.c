/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <stddef.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fakes/fake_remote.h"

struct wsd_remote *fake_remote_new(uint32_t side, uint32_t ring0, uint32_t ring1_max, uint64_t session_id, uint64_t nonce)
{
	uint64_t length = wsd_remote_length(ring0, ring1_max, 0);
	int fd = memfd_create("remote", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct wsd_remote *m;

	if (fd < 0)
		return NULL;
	if (ftruncate(fd, (off_t)length) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)) {
		close(fd);
		return NULL;
	}
	m = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (m == MAP_FAILED)
		return NULL;
	m->version = WSD_REMOTE_VERSION;
	m->side = side;
	m->session_id = session_id;
	m->nonce = nonce;
	m->length = length;
	m->epoch = 1;
	m->ring0 = ring0;
	m->ring1_max = ring1_max;
	m->off_ctl = WSD_REMOTE_PAGE;
	m->off_rx0 = 2 * WSD_REMOTE_PAGE;
	m->off_tx0 = m->off_rx0 + ring0;
	m->off_rx1 = m->off_tx0 + ring0;
	m->off_tx1 = m->off_rx1 + ring1_max;
	m->off_fill = m->off_tx1 + ring1_max;
	atomic_store(&m->ring1_from, ~0ull);
	atomic_store(&m->frame_H, ~0ull);
	atomic_store(&m->in_C, ~0ull);
	m->magic = WSD_REMOTE_MAGIC;
	return m;
}

void fake_remote_free(struct wsd_remote *m)
{
	if (m)
		munmap(m, m->length);
}
