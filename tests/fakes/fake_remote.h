/* SPDX-License-Identifier: MIT */
/* fake_remote.h - the memory of one end of a session without shared memory, as a daemon makes it */
#ifndef TESTS_FAKE_REMOTE_H
#define TESTS_FAKE_REMOTE_H

#include <stdint.h>
#include <wsd/remote_session.h>

/* mapped, sealed; the descriptor is closed. NULL and errno */
struct wsd_remote *fake_remote_new(uint32_t side, uint32_t ring0, uint32_t ring1_max, uint64_t session_id, uint64_t nonce);
void fake_remote_free(struct wsd_remote *m);

#endif
