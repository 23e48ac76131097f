/* SPDX-License-Identifier: MIT */
/*
 * procfs.h - what /proc says about a client
 *
 * May this block the event loop? It reads links, the name of a namespace and comm: all made up by
 * the kernel from its own tables. A link is never followed (/proc/PID/fd/N may lead to a dead
 * file server) and nothing is read that takes the client's memory lock.
 *
 * A pid may be another process by now: the caller looks at its pidfd afterwards.
 * Errors: 0, PROC_E_NOT_SOCKET, or -errno: cannot be read.
 */
#ifndef PROXYD_PROCFS_H
#define PROXYD_PROCFS_H

#include <stdint.h>
#include <sys/types.h>

enum { _PROC_OK, PROC_E_NOT_SOCKET };

/* which socket inode is descriptor fd of that process? */
int proc_socket_inode(pid_t pid, int fd, uint64_t *ret_inode);

/* identity of its network namespace */
int proc_netns(pid_t pid, dev_t *ret_dev, ino_t *ret_ino);

/* its name; empty when that cannot be read */
void proc_comm(pid_t pid, char ret[static 16]);

#endif
