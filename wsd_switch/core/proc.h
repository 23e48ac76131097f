/* SPDX-License-Identifier: MIT */
/* proc.h - start-up order; the rest of proc.c is declared in switch.h */
#ifndef WSD_SWITCH_PROC_H
#define WSD_SWITCH_PROC_H

#include "wsd_switch/core/switch.h"

void proc_fork_failed(void);

/* around a fork that runs no pthread_atfork() handlers. May be below a signal handler that interrupted a fork of this thread. */
struct proc_fork {
	bool counted, was;
};
void proc_fork_begin(struct proc_fork *f);
void proc_fork_end(const struct proc_fork *f, bool failed);	/* in the parent */

void switch_start(void);		/* constructor's work; again harmless */

#endif
