/* SPDX-License-Identifier: MIT */
/*
 * sig.h - signal dispositions and masks as the program sees them (G26, G28)
 *
 * The kernel runs a wrapper of ours around every handler of the program, so that a spin learns
 * that a handler ran. A query is answered from what the kernel says *now*, with the wrapper
 * replaced by what it stands for: one-shot handlers, dispositions from before we were loaded and
 * changes made behind our back come out right by themselves.
 *
 * SIGSEGV and SIGBUS are special once sig_take_over() was called for them: the kernel's handler stays ours, the
 * program's disposition is virtual and sig_chain() acts it out. They are kept out of the kernel's masks from
 * the start and read back as the program set them.
 *
 * Errors:  as the libc functions: -1 and errno; sig_mask() returns 0 or a positive errno.
 * Threads: everything may be called from any thread and any signal handler. Nothing is allocated, nobody
 *          is waited for without a bound. A vfork child and a frozen process (G22) go to the kernel.
 */
#ifndef WSD_SWITCH_SIG_H
#define WSD_SWITCH_SIG_H

#include "wsd_switch/core/switch.h"

typedef void (*sig_fn)(int, siginfo_t *, void *);

int sig_set(int sig, const struct sigaction *act, struct sigaction *old);
int sig_mask(int how, const sigset_t *set, sigset_t *old);

/* sigsuspend and its like, and waiting for a set: a SIGSEGV or SIGBUS that was sent while the program believed it blocked
 * counts as pending, and is kept out of the kernel's mask meanwhile as well. to NULL: without end. */
int sig_suspend(const sigset_t *set);
int sig_timedwait(const sigset_t *set, siginfo_t *si, const struct timespec *to);
int sig_pending(sigset_t *set);

/**
 * sig_take_over() - keep a handler of ours for SIGSEGV or SIGBUS from now on
 *
 * What the program has set becomes virtual. Again harmless.
 */
void sig_take_over(int sig, sig_fn ours);

/* do what the program's disposition says; the last thing that our handler does */
void sig_chain(int sig, siginfo_t *si, void *uc);

void sig_start(void);		/* at start-up: a mask inherited with SIGSEGV or SIGBUS in it */
void sig_after_fork(void);	/* in the child: locks of threads that do not exist there */

/* A new image inherits the mask and what is ignored, so for the time of exec (or of posix_spawn: only the
 * calling thread's mask) the kernel has what the program set. */
void sig_exec_begin(bool image);
void sig_exec_end(bool image);		/* it failed; or the spawn is over */

#endif
