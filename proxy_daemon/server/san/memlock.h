/* SPDX-License-Identifier: MIT */
/*
 * memlock.h - how much memory a client's process may lock for its queue pairs
 *
 * A process that registers memory is charged for it against its own RLIMIT_MEMLOCK, 8 MiB by default. The daemon keeps account of
 * what it has given to each process, raises the limit of an admitted one when that becomes too little, and refuses when
 * it cannot or when the user's quota is used up. A limit is never lowered again: the program may have read it, and its children have it.
 */
#ifndef PROXYD_SAN_MEMLOCK_H
#define PROXYD_SAN_MEMLOCK_H

#include <stdint.h>

#define MEMLOCK_SLACK (1ull << 20)	/* beside our memory: queues, and what the program locks itself */

struct conn;
struct lockee;
struct server;
struct user;

/* @c's process will lock so many bytes more. Return: 0 with a reference in *ret, or WSD_R_MEMLOCK, WSD_R_NOMEM, WSD_R_NO_PROC. */
uint32_t memlock_admit(struct conn *c, uint64_t bytes, struct lockee **ret);
/* ... more, by who has a reference, within half of the user's quota: the other half is for connections that begin. Return: 0 or WSD_R_MEMLOCK,
 * WSD_R_NO_PROC. */
uint32_t memlock_more(struct conn *c, struct lockee *l, uint64_t bytes);
/* what memlock_more() gave, back */
void memlock_less(struct lockee *l, uint64_t bytes);
/* it does not any more; drops the reference. @l may be NULL. */
void memlock_release(struct server *srv, struct lockee *l, uint64_t bytes);
uint64_t memlock_bytes(const struct lockee *l);

#endif
