/* SPDX-License-Identifier: MIT */
/*
 * receiver.h - who will get what goes into a Unix socket
 *
 * Asked only before a connection with unread ring bytes is passed by SCM_RIGHTS: a receiver under us gets them (reattach.c), any
 * other would never know of them.
 */
#ifndef WSD_SWITCH_RECEIVER_H
#define WSD_SWITCH_RECEIVER_H

enum receiver {
	RECEIVER_OURS,		/* every process that we see holding the other end runs under us */
	RECEIVER_OTHER,		/* one does not */
	RECEIVER_UNKNOWN,	/* nobody can be seen holding it: other user, other namespace, no sock_diag */
};

/* Nothing is allocated and no lock is taken. It walks /proc: milliseconds. */
enum receiver receiver_of(int unix_fd);

#endif
