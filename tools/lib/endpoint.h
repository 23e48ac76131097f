/* SPDX-License-Identifier: MIT */
/*
 * tools/lib/endpoint.h - where a daemon may listen, and how to reach it
 *
 * A system daemon listens at WSD_PROXYD_SYSTEM_PATH. A private one listens at "proxyd.sock" in
 * the first of these directories that this user can have to itself:
 *   /run/wsd-root            root only; others may pass through, as servers drop privileges
 *   $XDG_RUNTIME_DIR/wsd
 *   ~/.cache/wsd/run
 * Never in a directory where others may write.
 *
 * Errors:  0, -errno, or a positive ENDPOINT_E_*.
 * Threads: none; the environment is read.
 */
#ifndef TOOLS_LIB_ENDPOINT_H
#define TOOLS_LIB_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define ENDPOINT_PATH_MAX	108	/* sizeof(sockaddr_un.sun_path), terminator included */
#define ENDPOINT_N_DIRS		3	/* candidates for the private daemon's directory */

enum {
	_ENDPOINT_OK,
	ENDPOINT_E_NOBODY,	/* nothing there, or nobody listens */
	ENDPOINT_E_BUSY,	/* somebody listens, but the backlog is full just now */
	ENDPOINT_E_FOREIGN,	/* who listens is neither root nor this user */
	ENDPOINT_E_LONG,	/* the path does not fit into a socket address */
	ENDPOINT_E_UNSAFE,	/* the directory is somebody else's, or others may write into it */
};

/**
 * endpoint_connect() - connect to a daemon and see who it is
 * @ret_fd:	connected SOCK_SEQPACKET socket, close-on-exec and non-blocking; written only when 0 is returned
 * @path:	of the socket
 * @ret_uid:	user the daemon runs as; written on 0 and ENDPOINT_E_FOREIGN; may be NULL
 *
 * Never blocks.
 *
 * Return: 0, ENDPOINT_E_NOBODY, _BUSY, _FOREIGN, _LONG, or a negative errno (-EACCES: no way to the path).
 */
int endpoint_connect(int *ret_fd, const char *path, uid_t *ret_uid);

/* does a daemon of root or of this user listen there (a full backlog counts)? */
bool endpoint_answers(const char *path);

/**
 * endpoint_private_dir() - n-th candidate for the private daemon's directory
 * @buf:	ENDPOINT_PATH_MAX bytes
 * @n:		from 0
 *
 * Candidates that do not apply (no XDG_RUNTIME_DIR, not root) give "".
 *
 * Return: false when there is no n-th candidate.
 */
bool endpoint_private_dir(char buf[static ENDPOINT_PATH_MAX], unsigned n);

/**
 * endpoint_make_dir() - make and check a directory of one's own
 * @path:	absolute; missing parents are made too
 *
 * Mode 0755 for root, else 0700. An existing directory is taken as it is if it is safe.
 *
 * Return: 0, ENDPOINT_E_UNSAFE, or a negative errno.
 */
int endpoint_make_dir(const char *path);

/* 0 if @path is a directory of root or this user where no one else may write, else as endpoint_make_dir() */
int endpoint_check_dir(const char *path);

/**
 * endpoint_find() - the daemon a tool should talk to
 * @buf:	ENDPOINT_PATH_MAX bytes: the path found; without a daemon the one where it was expected first
 * @wanted:	path the user named, or NULL: $WSD_PROXY_SOCKET, the system's, the private ones in turn
 *
 * Return: 0 if a daemon answers at buf, ENDPOINT_E_NOBODY or another error of endpoint_connect()
 *         (the first that is not "nobody").
 */
int endpoint_find(char buf[static ENDPOINT_PATH_MAX], const char *wanted);

/* words for an error of this module; static or strerror()'s text */
const char *endpoint_strerror(int err);

#endif
