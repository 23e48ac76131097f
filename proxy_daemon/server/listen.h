/* SPDX-License-Identifier: MIT */
/*
 * listen.h - the daemon's socket, its directory and the lock that makes it the only one
 *
 * PATH.lock is held (flock) for the life of the daemon and never removed. Who holds it may
 * remove a socket that a dead daemon left at PATH. The directory must be of root or of us
 * and writable by nobody else, else others could put their socket in its place.
 */
#ifndef PROXYD_LISTEN_H
#define PROXYD_LISTEN_H

#include <stdbool.h>

struct listener {
	int fd, lock_fd;
	const char *path;
};

/* Return: 0, -EBUSY when another daemon has this path, or -errno; the cause is logged */
int listener_open(struct listener *l, const char *path, bool for_everybody);
void listener_close(struct listener *l);	/* removes the socket */

#endif
