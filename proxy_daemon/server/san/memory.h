/* SPDX-License-Identifier: MIT */
/*
 * memory.h - the memory of one end (wsd/remote_session.h), as the daemon holds it
 *
 * The daemon maps the two pages of words; rings are read and written through the descriptor, so that a page that is not there
 * and cannot be had is an error and not SIGBUS.
 *
 * Trust: the client's processes write all of it at any time, and the peer's card the control page. Each word is read once and bounded.
 */
#ifndef PROXYD_SAN_MEMORY_H
#define PROXYD_SAN_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <wsd/remote_session.h>

struct memory {
	int fd;
	struct wsd_remote *rs;			/* page 0 */
	struct wsd_remote_ctl *ctl;		/* page 1 */
	uint64_t length, nonce;
	uint32_t ring0, ring1_max, fill_max;	/* ours: what the page says is not believed */
};

struct memory_params {
	uint64_t session_id, nonce;
	uint32_t side, epoch, ring0, ring1_max, fill_max;
};

/* made, sealed, its start part populated. Return: 0 or -errno. */
int memory_make(struct memory *m, const struct memory_params *p);
void memory_drop(struct memory *m);

/* bytes of the start part, charged to the user, and those of them that a process locks */
uint64_t memory_start(uint32_t ring0);
uint64_t memory_locked(uint32_t ring0);

enum memory_ring { MEMORY_TX0, MEMORY_TX1, MEMORY_RX1, MEMORY_FILL };

/* have the pages of its first bytes. Return: 0 or -errno. */
int memory_populate(struct memory *m, enum memory_ring ring, uint32_t bytes);

/* ring bytes [at, at + n), which wrap around at size. Return: 0 or -errno. */
int memory_read(struct memory *m, enum memory_ring ring, uint32_t size, uint64_t at, void *buf, uint32_t n);
int memory_write(struct memory *m, enum memory_ring ring, uint32_t size, uint64_t at, const void *buf, uint32_t n);

#endif
