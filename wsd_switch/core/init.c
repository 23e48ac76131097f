/* SPDX-License-Identifier: MIT */
/*
 * init.c - start-up of the preload library
 *
 * Nothing is loaded, opened or measured here but the environment and a few empty tables: provider and daemon are met
 * at the first connection worth offering, or when one was inherited that another process attached (reattach.c).
 */
#include <dlfcn.h>
#include <stdlib.h>

#include "wsd_switch/core/carry.h"
#include "wsd_switch/core/proc.h"

void stats_open(const char *path);

void *real_sym(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor(101))) static void start(void)
{
	int e = errno;

	real_ready();
	config_init();
	carry_start();
	if (!cfg.off) {
		proc_init();
		if (proc_on) {
			conn_init();
			eset_init();
			stats_open(secure_getenv(WSD_STATS_ENV));
		}
	}
	carry_adopt(proc_on);
	reattach_inherited();
	errno = e;
}
