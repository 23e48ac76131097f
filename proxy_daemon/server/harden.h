/* SPDX-License-Identifier: MIT */
/*
 * harden.h - give up what the daemon does not need. Best effort: what cannot be given up is
 * logged at debug and kept.
 */
#ifndef PROXYD_HARDEN_H
#define PROXYD_HARDEN_H

#include <stdbool.h>

void harden_limits(void);		/* as many descriptors as allowed */
void harden_privileges(bool sandbox);	/* no new privileges, few capabilities, seccomp */

#endif
