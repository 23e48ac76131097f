/* SPDX-License-Identifier: MIT */
/* proc.h - start-up order; the rest of proc.c is declared in switch.h */
#ifndef WSD_SWITCH_PROC_H
#define WSD_SWITCH_PROC_H

#include "wsd_switch/core/switch.h"

void proc_fork_failed(void);
void switch_start(void);		/* constructor's work; again harmless */

#endif
