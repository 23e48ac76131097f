/* SPDX-License-Identifier: MIT */
/*
 * race.h - what the race programs share
 *
 * Each is a plain socket program that says what kernel TCP promises to several threads, and fails where the promise is
 * broken. It is run on kernel TCP, under the switch, and with gates shaken; and built with TSan it is run again.
 * (Criterion does not start under TSan, hence plain main programs.)
 *
 * The peer is another process, forked before the first thread, because that is how connections are used.
 * A run that hangs is ended by alarm(), and its exit says so.
 */
#ifndef RACE_H
#define RACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct race_tally {			/* what was moved, whatever the order */
	uint64_t n[256];
};

void race_start(unsigned seconds);			/* arms the alarm */
int race_connect(void (*peer)(int fd));			/* forks the peer; both ends are warm: 300 round trips */
void race_end(int fd);					/* closes, waits for the peer, exits with its status */
void race_check(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void race_send(int fd, const void *p, size_t n);	/* all of it; EINTR and EAGAIN are dealt with */
void race_recv(int fd, void *p, size_t n);
uint64_t race_now_us(void);
double race_scale(void);				/* RACE_SCALE: how long to go on (1) */

static inline uint64_t race_rnd(uint64_t *s)
{
	uint64_t z = (*s += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

#endif
