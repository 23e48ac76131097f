/* SPDX-License-Identifier: MIT */
#define HASH_NONFATAL_OOM 1
#include <stdlib.h>
#include <sys/resource.h>
#include <uthash.h>

#include "proxy_daemon/server/conn.h"
#include "proxy_daemon/server/log.h"
#include "proxy_daemon/server/san/memlock.h"
#include "proxy_daemon/server/san/san.h"

struct lockee {
	pid_t pid;
	unsigned refs;
	uint64_t bytes;
	struct user *user;	/* a reference */
	UT_hash_handle hh;
};

/* The pid is looked at by its pidfd before and after: if it was another process's meanwhile, that one gets back what it had */
static bool set_limit(const struct conn *c, const struct rlimit *want)
{
	struct rlimit had;

	if (prlimit(c->pid, RLIMIT_MEMLOCK, want, &had) < 0)
		return false;
	if (!conn_alive(c))
		(void)prlimit(c->pid, RLIMIT_MEMLOCK, &had, NULL);
	return true;
}

/* May the process lock so much? Raises its limit if that is what it takes. */
static bool allow(const struct conn *c, uint64_t bytes)
{
	struct rlimit old, want;

	if (!conn_alive(c) || prlimit(c->pid, RLIMIT_MEMLOCK, NULL, &old) < 0)
		return false;
	if (old.rlim_cur == RLIM_INFINITY || old.rlim_cur >= bytes + MEMLOCK_SLACK)
		return conn_alive(c);
	want = old;
	want.rlim_cur = bytes + MEMLOCK_SLACK;
	if (want.rlim_max != RLIM_INFINITY && want.rlim_max < want.rlim_cur)
		want.rlim_max = want.rlim_cur;
	if (set_limit(c, &want))
		return conn_alive(c);
	/* not ours to raise above its hard limit */
	want.rlim_cur = want.rlim_max = old.rlim_max;
	if (old.rlim_max > old.rlim_cur && set_limit(c, &want))
		old.rlim_cur = old.rlim_max;
	/* root is held to no limit, unless a container keeps CAP_IPC_LOCK from it: then its own call fails, and it says so */
	return (old.rlim_cur >= bytes || c->uid == 0) && conn_alive(c);
}

static uint32_t more(struct conn *c, struct lockee *l, uint64_t bytes, uint64_t quota)
{
	if (bytes > quota || l->user->locked > quota - bytes)
		return WSD_R_MEMLOCK;
	if (!allow(c, l->bytes + bytes)) {
		if (!conn_alive(c))
			return WSD_R_NO_PROC;
		log_client("pid %d uid %u: may not lock %llu bytes", c->pid, c->uid, (unsigned long long)(l->bytes + bytes));
		return WSD_R_MEMLOCK;
	}
	l->bytes += bytes;
	l->user->locked += bytes;
	return 0;
}

uint32_t memlock_more(struct conn *c, struct lockee *l, uint64_t bytes)
{
	return more(c, l, bytes, san_config(c->srv)->quota_locked / 2);
}

void memlock_less(struct lockee *l, uint64_t bytes)
{
	l->bytes -= bytes;
	l->user->locked -= bytes;
}

static void unref(struct server *srv, struct lockee *l)
{
	if (--l->refs)
		return;
	HASH_DEL(srv->san.lockees, l);
	user_put(&srv->users, l->user);
	free(l);
}

uint32_t memlock_admit(struct conn *c, uint64_t bytes, struct lockee **ret)
{
	struct server *srv = c->srv;
	struct lockee *l;
	uint32_t reason;

	HASH_FIND(hh, srv->san.lockees, &c->pid, sizeof(c->pid), l);
	if (l && l->user != c->user)
		return WSD_R_NO_PROC;	/* the number was another user's process's, which is not quite gone */
	if (!l) {
		l = calloc(1, sizeof(*l));
		if (!l)
			return WSD_R_NOMEM;
		l->pid = c->pid;
		HASH_ADD(hh, srv->san.lockees, pid, sizeof(l->pid), l);
		if (!l->hh.tbl) {
			free(l);
			return WSD_R_NOMEM;
		}
		l->user = user_ref(c->user);
	}
	l->refs++;
	reason = more(c, l, bytes, san_config(srv)->quota_locked);
	if (reason) {
		unref(srv, l);
		return reason;
	}
	*ret = l;
	return 0;
}

void memlock_release(struct server *srv, struct lockee *l, uint64_t bytes)
{
	if (!l)
		return;
	memlock_less(l, bytes);
	unref(srv, l);
}

uint64_t memlock_bytes(const struct lockee *l)
{
	return l->bytes;
}
