/* SPDX-License-Identifier: MIT */
/*
 * quota.h - what each user takes of the daemon's tables and of memory
 *
 * A session's memory is charged by half to the user of each end, so that the sum over all users is
 * the memory in use, and a user with many peers cannot use up one of them alone. It counts
 * as one session for each end's user; for one when both are the same user.
 * Root has the same quota as everybody: it keeps a broken service from eating the machine.
 */
#ifndef PROXYD_QUOTA_H
#define PROXYD_QUOTA_H

#include <stdint.h>
#include <sys/types.h>
#include <uthash.h>

struct user {
	uid_t uid;
	unsigned refs;		/* clients, ends and sessions that name it */
	unsigned n_clients, n_ends;
	uint64_t n_sessions, bytes;
	uint64_t locked;	/* san/memlock.h */
	unsigned n_remotes, n_distants;	/* of the tables of san/san.h; limited by san_config's quota_sessions, quota_waiting */
	UT_hash_handle hh;
};

struct quota_limits {
	uint64_t sessions, bytes;
};

/* the user's entry with one more reference, or NULL: no memory */
struct user *user_get(struct user **table, uid_t uid);
struct user *user_ref(struct user *u);
void user_put(struct user **table, struct user *u);

/* charge a session of so many bytes to both. Return: 0 or WSD_R_QUOTA_*; then nothing is charged. */
int quota_charge(const struct quota_limits *l, struct user *a, struct user *b, uint64_t bytes);
void quota_uncharge(struct user *a, struct user *b, uint64_t bytes);

/* a remote session: each end has memory of its own, and counts as one session */
int quota_charge_one(const struct quota_limits *l, struct user *u, uint64_t bytes);
void quota_uncharge_one(struct user *u, uint64_t bytes);
/* ... that grows. Return: as quota_charge(). */
int quota_more(const struct quota_limits *l, struct user *u, uint64_t bytes);
void quota_less(struct user *u, uint64_t bytes);

#endif
