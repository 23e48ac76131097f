/* SPDX-License-Identifier: MIT */
/*
 * wsdrun/wsdrun.h - run a program whose TCP connections may take the faster road
 *
 *   main.c      options, and the order of things
 *   target.c    can the loader preload anything into CMD at all?
 *   preload.c   LD_PRELOAD with our library in the right position
 *   daemon.c    find a daemon or start a private one
 *   child.c     run CMD as a child: signals, job control, exit status
 *   stats.c     the statistics file: make, sum up, print
 *
 * The rule of it all: whatever goes wrong here, CMD runs, and then on TCP. Only wrong usage and
 * a CMD that cannot be executed end wsdrun without running it.
 *
 * Errors:  0, -errno, or a positive *_E_* of the function. Only main.c prints, but for
 *          note(), which everybody may use and which is silent without -v.
 * Threads: none.
 */
#ifndef WSDRUN_H
#define WSDRUN_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "tools/lib/endpoint.h"

#define WSDRUN_E_OWN		125	/* exit status: wsdrun itself failed; as env(1) */
#define WSDRUN_E_CANNOT		126	/* CMD was found but could not be executed */
#define WSDRUN_E_NOT_FOUND	127	/* CMD was not found */

extern bool verbose;

/* one line on stderr, with -v only */
void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- target.c ---- */
enum target_kind {
	TARGET_FINE,		/* dynamically linked against our C library */
	TARGET_UNKNOWN,		/* could not be looked at; exec will tell */
	TARGET_NOT_ELF,		/* neither ELF nor a script */
	TARGET_OTHER_ABI,	/* 32 bits, another machine or another C library */
	TARGET_STATIC,		/* no loader that could preload; children may be fine */
	TARGET_PRIVILEGED,	/* setuid, setgid or file capabilities: the loader ignores us */
	_TARGET_N,
};

/**
 * target_look() - what kind of program would execvp(cmd) run?
 * @cmd:	name or path; looked up in $PATH as execvp() does
 *
 * Follows "#!" up to four interpreters deep. An answer for advice and for deciding about
 * LD_PRELOAD only, never a reason not to run CMD.
 */
enum target_kind target_look(const char *cmd);
const char *target_text(enum target_kind kind);

/* ---- preload.c ---- */
/**
 * preload_compose() - value for LD_PRELOAD
 * @lib:	absolute path of our library, or NULL to take it out of the list
 * @old:	present value or NULL
 * @runtime:	sanitizer runtime that must come first as @lib needs it, or NULL
 *
 * Other entries stay, in their order. Sanitizer runtimes that lead the list keep leading, else ours
 * is first. Ours is never there twice (any libwsd_switch.so counts as ours).
 *
 * Return: malloc()ed string, "" if nothing is left; NULL: no memory, or @lib cannot be named in
 *         LD_PRELOAD (a space or colon in it).
 */
char *preload_compose(const char *lib, const char *old, const char *runtime);

/* path of the sanitizer runtime this very process was built with (then the library was too), or NULL */
const char *preload_runtime(void);

/* ---- daemon.c ---- */
/**
 * daemon_ensure() - a daemon for CMD
 * @path:	socket to use; for @wanted NULL filled by this function
 * @wanted:	path the user named, or NULL: the system daemon, else this user's private one
 * @binary:	wsd-proxyd, or "" to start none
 *
 * At most about two seconds, and usually a millisecond. When several wsdruns find no daemon at once, one
 * starts it and the others wait for that one.
 *
 * Return: 0 with @path the socket of a daemon that answers; else an error, @path being where a
 *         daemon may come to be later ("" if nowhere).
 */
int daemon_ensure(char path[static ENDPOINT_PATH_MAX], const char *wanted, const char *binary);

/* ---- child.c ---- */
/**
 * child_run() - run a program, hand it our signals, wait for its end
 * @argv:	what execvp() takes
 * @ret_status:	as of waitpid(); written only when 0 is returned
 *
 * Return: 0; the errno of execvp(), positive, when it failed; or a negative errno (no child).
 */
int child_run(char **argv, int *ret_status);

/* leave with the status that a program had, by the same signal if it died by one */
_Noreturn void child_exit_like(int status);

/* ---- stats.c ---- */
/* what all processes of CMD counted */
struct stats;

/* make the file and put its path into WSD_STATS; 0 or -errno */
int stats_new(struct stats **ret_stats);
/* read it; call once, after CMD has ended. 0, or -errno (-EBADMSG: no longer what stats_new() wrote) */
int stats_read(struct stats *stats);
/* summary on stderr */
void stats_print(const struct stats *stats);
/* the same as JSON; file "-" is stdout. 0 or -errno */
int stats_write_json(const struct stats *stats, const char *file, char **argv, int status);
/* remove the file, free; NULL is fine; always NULL */
struct stats *stats_free(struct stats *stats);

#endif
