/* SPDX-License-Identifier: MIT */
/* registry.c - the backends of this build, by name; the first is the preferred one */
#include <errno.h>
#include <string.h>

#include "rdma_transport/api/rt_backend.h"
#include "rdma_transport/fault/fault.h"
#include "rdma_transport/shm/shm.h"
#include "rdma_transport/verbs/verbs.h"

static const struct rt_backend_ops *const backends[] = { &rt_shm_ops, &rt_verbs_ops };
#define N_BACKENDS (sizeof(backends) / sizeof(backends[0]))

const char *rt_backend_name(unsigned i)
{
	return i < N_BACKENDS ? backends[i]->name : NULL;
}

int rt_backend_find(const char *name, const struct rt_backend_ops **ret_ops)
{
#ifdef WSD_FAULT_INJECTION
	if (!strncmp(name, "fault:", 6)) {
		*ret_ops = &rt_fault_ops;
		return 0;
	}
#endif
	for (unsigned i = 0; i < N_BACKENDS; i++)
		if (!strcmp(backends[i]->name, name)) {
			*ret_ops = backends[i];
			return 0;
		}
	return -ENOENT;
}
