/* SPDX-License-Identifier: MIT */
#define HASH_NONFATAL_OOM 1
#include <stdlib.h>

#include <wsd/proxy_proto.h>

#include "proxy_daemon/server/quota.h"

struct user *user_get(struct user **table, uid_t uid)
{
	struct user *u;

	HASH_FIND(hh, *table, &uid, sizeof(uid), u);
	if (!u) {
		u = calloc(1, sizeof(*u));
		if (!u)
			return NULL;
		u->uid = uid;
		HASH_ADD(hh, *table, uid, sizeof(u->uid), u);
		if (!u->hh.tbl) {
			free(u);
			return NULL;
		}
	}
	u->refs++;
	return u;
}

struct user *user_ref(struct user *u)
{
	u->refs++;
	return u;
}

void user_put(struct user **table, struct user *u)
{
	if (!u || --u->refs)
		return;
	HASH_DELETE(hh, *table, u);
	free(u);
}

int quota_charge(const struct quota_limits *l, struct user *a, struct user *b, uint64_t bytes)
{
	uint64_t share = a == b ? bytes : bytes / 2;

	if (a->n_sessions >= l->sessions || b->n_sessions >= l->sessions)
		return WSD_R_QUOTA_SESSIONS;
	if (a->bytes + share > l->bytes || b->bytes + share > l->bytes)
		return WSD_R_QUOTA_BYTES;
	a->n_sessions++;
	a->bytes += share;
	if (a != b) {
		b->n_sessions++;
		b->bytes += share;
	}
	return 0;
}

void quota_uncharge(struct user *a, struct user *b, uint64_t bytes)
{
	uint64_t share = a == b ? bytes : bytes / 2;

	a->n_sessions--;
	a->bytes -= share;
	if (a != b) {
		b->n_sessions--;
		b->bytes -= share;
	}
}

int quota_more(const struct quota_limits *l, struct user *u, uint64_t bytes)
{
	if (u->bytes + bytes > l->bytes)
		return WSD_R_QUOTA_BYTES;
	u->bytes += bytes;
	return 0;
}

void quota_less(struct user *u, uint64_t bytes)
{
	u->bytes -= bytes;
}

int quota_charge_one(const struct quota_limits *l, struct user *u, uint64_t bytes)
{
	int r;

	if (u->n_sessions >= l->sessions)
		return WSD_R_QUOTA_SESSIONS;
	r = quota_more(l, u, bytes);
	if (!r)
		u->n_sessions++;
	return r;
}

void quota_uncharge_one(struct user *u, uint64_t bytes)
{
	u->n_sessions--;
	quota_less(u, bytes);
}
