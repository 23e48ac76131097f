/* SPDX-License-Identifier: MIT */
/* fake_session.h - session memory as the daemon makes it, or with one thing wrong */
#ifndef TESTS_FAKE_SESSION_H
#define TESTS_FAKE_SESSION_H

#include <stdint.h>
#include <wsd/shared_ring.h>

/* a sealed memfd with a good header; aborts the test when it cannot be had */
int fake_session_new(uint32_t ring_size, uint64_t session_id);
/* the same without seals and with this file length */
int fake_session_raw(uint32_t ring_size, uint64_t session_id, uint64_t length);
struct wsd_session *fake_session_map(int fd, uint64_t length);

#endif
