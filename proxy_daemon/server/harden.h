/* SPDX-License-Identifier: MIT */
/*
 * harden.h - give up what the daemon does not need. Best effort: what cannot be given up is
 * logged at debug and kept.
 */
#ifndef PROXYD_HARDEN_H
#define PROXYD_HARDEN_H

#include <stdbool.h>

void harden_limits(void);		/* as many descriptors as allowed */
/* no new privileges, few capabilities, seccomp. @peers: links to other hosts are on, which takes sockets of AF_INET and AF_INET6 */
void harden_privileges(bool sandbox, bool peers);

#endif
