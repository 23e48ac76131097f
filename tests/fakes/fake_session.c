/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fakes/fake_session.h"

int fake_session_raw(uint32_t ring_size, uint64_t session_id, uint64_t length)
{
	struct wsd_session h = {
		.magic = WSD_SESSION_MAGIC,
		.version = WSD_SESSION_VERSION,
		.ring_size = ring_size,
		.session_id = session_id,
		.length = wsd_session_length(ring_size),
	};
	int fd = memfd_create("session", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, length) || pwrite(fd, &h, sizeof(h), 0) != sizeof(h))
		abort();
	return fd;
}

int fake_session_new(uint32_t ring_size, uint64_t session_id)
{
	int fd = fake_session_raw(ring_size, session_id, wsd_session_length(ring_size));

	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		abort();
	return fd;
}

struct wsd_session *fake_session_map(int fd, uint64_t length)
{
	void *p = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}
