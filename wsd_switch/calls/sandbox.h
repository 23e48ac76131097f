/* SPDX-License-Identifier: MIT */
/* sandbox.h - entering seccomp, by prctl or by its own system call (G22) */
#ifndef WSD_SWITCH_SANDBOX_H
#define WSD_SWITCH_SANDBOX_H

/* seccomp(2): as the system call, -1 and errno */
long sandbox_seccomp(long op, long flags, long args);

#endif
