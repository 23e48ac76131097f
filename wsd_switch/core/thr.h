/* SPDX-License-Identifier: MIT */
/*
 * thr.h - thread slots, for the reclaimer (conn.c) and start-up only; the rest uses switch.h
 */
#ifndef WSD_SWITCH_THR_H
#define WSD_SWITCH_THR_H

#include "wsd_switch/core/switch.h"

extern struct thr *thr_slots;
extern _Atomic uint32_t thr_used;

bool thr_init(void);

#endif
