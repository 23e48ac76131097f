/* SPDX-License-Identifier: MIT */
/* fakes.c - the process and one thread, for parts of the switch that need no connection */
#include "wsd_switch/core/switch.h"

static struct proc_page page = { .alive = 1 };
static struct thr one = { .tid = 1, .rt_pol = -1 };

struct proc_page *proc_page = &page;
_Atomic uint32_t proc_vfork_seen, proc_frozen;
uint32_t proc_fork_gen;
bool proc_on = true;
__thread struct thr *thr_self __attribute__((tls_model("initial-exec")));

void proc_child(void)
{
}

bool proc_is_vfork_child_slow(void)
{
	return false;
}

struct thr *thr_new(void)
{
	return thr_self = &one;
}
