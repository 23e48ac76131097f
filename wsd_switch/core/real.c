/* SPDX-License-Identifier: MIT */
#include <dlfcn.h>

#include "wsd_switch/core/real.h"

struct real_table real;
_Atomic int real_done;

/* Two threads may do this at the same time: both store the same pointers. A symbol that this
 * libc lacks stays NULL; its wrapper is then only reached by a program that carries its own. */
void real_init(void)
{
#define X(ret, name, args) *(void **)(&real.name) = dlsym(RTLD_NEXT, #name);
	REAL_LIST(X)
#undef X
	atomic_store_explicit(&real_done, 1, memory_order_release);
}
