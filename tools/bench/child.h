/* SPDX-License-Identifier: MIT */
/*
 * child.h - one end of a run: a role's process, or the agent's connection in its place
 *
 * No wait here is without a bound, whatever the process does or the kernel does with it: words come until the caller's deadline, the
 * exit has EXIT_MS, and so has a process to be gone after SIGKILL (one that sleeps in a driver is left behind, and told).
 *
 * Ownership: the process (leader of its own group, which ends with it) and the descriptor, until child_end().
 * Errors:    RUN_E_*; why[] then says which wait it was: after which step of the role, and where the kernel has the process.
 */
#ifndef CHILD_H
#define CHILD_H

#include "tools/bench/bench.h"

#define EXIT_MS		5000	/* from a role's last word to its end, and from SIGKILL to being gone */

struct child {
	pid_t pid;		/* 0: none */
	int out;		/* its words (role.h); -1: none, or they have ended */
	char buf[2048];
	size_t n;
	bool ready, ended;	/* it said so */
	long port, role_pid;
	bool remote;		/* of the agent: it ends with its share */
	struct share share;
	char step[64];		/* what it does now, for who asks why it stands still */
	char why[200];
};

/**
 * child_listen() - take what children say into @res
 * @ready:	until the first says that it is ready; else until the words of all @n have ended
 * @deadline:	of now_ns()
 *
 * Return: 0, RUN_E_FAILED when one hung up without its "end", RUN_E_STILL at the deadline, RUN_E_STOP.
 */
int child_listen(struct child *k, unsigned n, bool ready, int64_t deadline, struct result *res);

/**
 * child_end() - wait for the process to exit by itself, then end it and its group
 * @exit_ms:	so long; 0: it is to be killed, which is no failure of its own
 *
 * Return: 0, RUN_E_FAILED when it failed, RUN_E_STILL when it did not exit or not even die.
 */
int child_end(struct child *k, unsigned exit_ms);

pid_t child_wait(pid_t pid, int *ret_status, unsigned ms);	/* as waitpid(), but 0 when it has not exited within so long */

#endif
