/* SPDX-License-Identifier: MIT */
/*
 * carry.h - unread ring bytes go along through exec (G22)
 *
 * A new image has no mapping of the session, so what lies unread in the ring would be a gap for it. If it will run
 * under us it gets those bytes in a sealed memfd, named by WSD_CARRY in its environment, and its start-up makes them
 * a connection whose ring is private memory: a closed gate over a ring that is not empty, which the receive code
 * knows. If it will not, the connection is reset at once: never silence, never a gap.
 *
 * Errors:  none is told; what cannot be carried is marked handed on, or reset.
 * Threads: the exec side allocates nothing and takes no lock: also in a vfork child and below a signal handler. The
 *          start-up side runs before main.
 * Limits:  CARRY_MAX connections of one exec; what is more is marked handed on.
 */
#ifndef WSD_SWITCH_CARRY_H
#define WSD_SWITCH_CARRY_H

#include "wsd_switch/core/switch.h"

#define CARRY_MAX	128u
#define CARRY_ENV_MAX	8192u	/* entries of an environment that is copied */

enum exec_how { EXEC_PATH, EXEC_SEARCH, EXEC_FD };

struct exec_call {
	enum exec_how how;
	int dir;		/* EXEC_PATH: what path is relative to; EXEC_FD: the program */
	const char *path;
	char *const *argv, *const *envp;
	int flags;		/* of execveat */
};

/* will run without us, as far as can be seen; false also when it is not known */
bool carry_other_image(const struct exec_call *x);

struct carry {
	uint32_t n;
	int fd;			/* the memfd; -1: none */
	uint32_t n_env;
	char env[40];
	struct carry_item {
		uint64_t id;		/* conn_id() */
		int fd;
		bool sole;		/* nobody else will hold the socket once exec has worked */
		bool reader;		/* the new image is meant to read it */
		bool packed;
	} item[CARRY_MAX];
};

static inline void carry_init(struct carry *k)
{
	k->n = 0;
	k->fd = -1;
}

/* c has unread bytes, and is open in the new image as fd; false: no room */
bool carry_add(struct carry *k, struct conn *c, int fd, bool sole, bool reader);

/**
 * carry_pack() - make what was added ready for the new image
 *
 * What cannot go along is marked handed on or reset. Called outside a critical section.
 *
 * Return: room in char * that carry_env() needs, or 0: the environment stays as it is.
 */
size_t carry_pack(struct carry *k, const struct exec_call *x);
void carry_env(struct carry *k, char *const *envp, char **ret);

/* exec failed: all is as before */
void carry_undo(struct carry *k);

/* tell the peer what was taken: before the last holder that maps the session lets go of it */
void carry_tail(struct conn *c);

void carry_start(void);			/* start-up, first of all: what we are called ... */
const char *carry_own_name(void);	/* ... the library's file name, or "" */
void carry_adopt(bool usable);		/* start-up, when the tables are ready; not usable: reset what was carried */

#endif
