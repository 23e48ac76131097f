/* SPDX-License-Identifier: MIT */
/* lib.c - libibverbs, opened once and kept: its drivers do not survive dlclose() */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <unistd.h>

#include "rdma_transport/base/fault_point.h"
#include "rdma_transport/verbs/lib.h"

#define MEMLOCK_TOO_LOW	32768u	/* libibverbs prints a warning to stderr from here down */

static struct rt_verbs_lib lib;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *handle;
static bool complete;

static bool look_up(void)
{
	bool all = true;

#define X(ret, name, args) lib.name = (ret (*) args)dlsym(handle, "ibv_" #name); all = all && lib.name;
	RT_VERBS_NAMED(X)
#undef X
	lib.query_gid_table = (ssize_t (*)(struct ibv_context *, struct ibv_gid_entry *, size_t, uint32_t, size_t))
		dlsym(handle, "_ibv_query_gid_table");
	return all && lib.query_gid_table;
}

int rt_verbs_lib_get(const struct rt_verbs_lib **ret)
{
	struct rlimit l;
	int r = 0;

	if (geteuid() && !getrlimit(RLIMIT_MEMLOCK, &l) && l.rlim_cur <= MEMLOCK_TOO_LOW)
		return -ENOMEM;
	RT_FAULT_POINT(r, -ENOSYS, out);
	pthread_mutex_lock(&lock);
	if (!handle) {
		handle = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
		if (handle)
			rt_verbs_drivers(handle);
	}
	if (handle && !complete)
		complete = look_up();
	pthread_mutex_unlock(&lock);
	if (complete)
		*ret = &lib;
	else
		r = -ENOSYS;
out:
	__attribute__((unused));
	return r;
}
