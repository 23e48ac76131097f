/* SPDX-License-Identifier: MIT */
/*
 * hand_on.h - connections that somebody else will use without us (G8, G22)
 *
 * Before a descriptor goes to another program image (exec, posix_spawn, SCM_RIGHTS) or to code
 * of libc's that we do not see (stdio, aio, io_uring), both directions leave the ring for good.
 * Bytes that lie unread in our ring at that moment are *handed on*: the socket says so to whoever gets it, and a process under us
 * gets them from the daemon (reattach.c). Where it may be one that is not, the peer is told as well: it sends no TCP byte behind
 * them until somebody under us touches the connection; after a bounded time it resets.
 *
 * Threads: atomics and system calls only, no locks, nothing allocated: also in a vfork child, which shares our
 *          memory and has its own copy of the descriptors. errno is kept.
 */
#ifndef WSD_SWITCH_HAND_ON_H
#define WSD_SWITCH_HAND_ON_H

#include "wsd_switch/core/switch.h"

/* one connection to another image, by SCM_RIGHTS over a Unix socket; the mirrors are flushed if fd is an epoll set */
void hand_on_fd(int fd, int over);

/* one connection to libc or io_uring in this process; true: bytes of the ring are unread */
bool hand_on_untracked(struct conn *c);
void hand_on_all_untracked(void);
/* it is a number of libc's streams now; over a road, standard input reads by way of us */
void hand_on_std(struct conn *c, int nfd);

/* Every connection that the new image inherits: one with a descriptor that is open here and has no FD_CLOEXEC.
 * image: this process becomes that image; false: a child does (posix_spawn, system, popen). What has unread bytes is
 * added to k, or marked when k is NULL. */
struct carry;
struct exec_call;
void hand_on_exec_begin(bool image, const struct exec_call *x, struct carry *k);	/* x: NULL, it is /bin/sh */
/* ... before posix_spawn of x: what it does not see (it runs without us) is not left to it in silence */
void hand_on_spawn_begin(const struct exec_call *x);
/* posix_spawn's file actions will duplicate fd */
void hand_on_spawn_dup(int fd);
void hand_on_mark(struct conn *c, int fd);	/* until hand_on_exec_end(true) */

/* a vfork child has duplicated fd as nfd */
void hand_on_vfork_dup(int fd, int nfd);
void hand_on_exec_end(bool image, bool failed);

/* seccomp: everything leaves; what would lie unread in a ring that is never looked at again is reset */
void hand_on_sandbox(void);

/* the process ends: close the gates that only it could serve, add its numbers to the statistics */
void hand_on_exit(void);

#endif
