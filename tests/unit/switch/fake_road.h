/* SPDX-License-Identifier: MIT */
/*
 * fake_road.h - a put road between two ends in one process, whose wire the test steps by hand
 *
 * Both ends of a real loopback TCP connection are conns of this process in stage ST_AGREED, each with its own session memory. What is
 * posted waits in the poster's queue until the test steps it: then, and only then, it is read from the source ring and lies in the
 * peer's memory. Completions are a second thing: fake_done_held keeps them back. So each order that a real adapter may
 * have can be made by hand, and some that only a bad one has. `fake_run` lets everything arrive at once.
 *
 * The daemon is played here, too: ctl_road_ask() and the rest of what the provider gives to all threads are replaced at link time
 * (--wrap, see meson.build). fake_ask is called for each question; fake_daemon() is the answer of two daemons that do as they should.
 *
 * Threads: one lock around all of it; a thread may sleep on the descriptor of ctl_road_wait_fd() while another one steps the wire.
 */
#ifndef WSD_TESTS_UNIT_SWITCH_FAKE_ROAD_H
#define WSD_TESTS_UNIT_SWITCH_FAKE_ROAD_H

#include "wsd_switch/core/agreed.h"

#define FAKE_POSTS	4096u

enum fake_kind { FAKE_PUT, FAKE_WORD, FAKE_FETCH, FAKE_NUDGE, FAKE_READ, FAKE_PULL };

struct fake_post {
	enum fake_kind kind;
	uint32_t ring, n, off, to;
	uint64_t at;
	uint8_t word[64];
	uint32_t torn;		/* bytes of a word that are there already */
};

struct fake_end {
	int fd;
	struct conn *c;
	struct road *r;
	struct wsd_remote *rs;
	struct wsd_remote_ctl *ctl;
	struct wsd_put_state st;
	struct fake_end *peer;
	uint64_t length;
	/* what was posted here and has not arrived */
	struct fake_post q[FAKE_POSTS];
	unsigned q_at, q_n;
	/* written, not visible yet: words of ours that an adapter holds back (fake_late) */
	struct fake_post late[FAKE_POSTS];
	unsigned late_n;
	/* completions not taken by poll() so far */
	uint64_t done, put, in_head;
	uint32_t fetched, nudges, reads;
	/* the peer's answer to a read or a pull: it lands at once, or with fake_land() */
	struct fake_post asked_for;
	uint8_t answer[65536];
	bool answer_due;
	bool due;
	int32_t error;
	/* what the test wants of this end */
	unsigned no_slot;	/* so many hold()s answer 1 */
	bool unsignalled;	/* a put is completed by the next fetch only */
	bool done_held;		/* completions of puts and fetches stay with the adapter */
	bool reads_held;	/* answers stay under way */
	bool stopped;
	bool lossy;		/* what is posted is lost and never completed */
	/* what it saw */
	unsigned holds, puts, words, fetches, nudged, bounced, n_reads, pulls, signals, polls;
	int holder;		/* depth of hold(): anything but 0 and 1 is a bug */
	unsigned asked[_WSD_SAN_N];
	uint64_t ask_a[_WSD_SAN_N], ask_b[_WSD_SAN_N];
};

struct fake_opt {
	uint32_t ring0, ring1_max, fill_max;	/* 0: 4096, none, ring0 * 4 */
	int sndbuf, rcvbuf;			/* 0: the kernel's */
	uint64_t nonce;				/* 0: a fixed one */
	bool no_reads;				/* of the accepted end */
};

extern struct fake_end fake_x, fake_y;	/* connected; accepted */
extern struct fake_end *fake_joined;	/* whose session ctl_reattach() gives */
void fake_forget(struct fake_end *e);
extern bool fake_run;			/* what is posted arrives and is completed at release() */
extern bool fake_late;			/* words become visible only with a fetch or a put behind them */
extern unsigned fake_tear;		/* so many bytes of each word arrive one step earlier than the rest; 0: all at once */
extern bool fake_daemons;		/* questions are answered at once; else by fake_answer() */
extern bool (*fake_ask)(struct fake_end *e, uint32_t what, uint64_t a, uint64_t b);	/* instead; false: not now */
extern void (*fake_in_arm)(void);	/* once, in the next arm(), before it looks */
extern unsigned fake_armed;		/* arm() calls that answered 0 */

void fake_make(const struct fake_opt *o);	/* both ends, agreed and plain; NULL: defaults */
struct fake_end *fake_of(const struct conn *c);
/* n posts of e arrive (a torn word takes two); how many did */
unsigned fake_step(struct fake_end *e, unsigned n);
void fake_all(void);				/* both wires, until nothing is under way, completions taken */
void fake_visible(struct fake_end *e);		/* words held back by fake_late arrive */
void fake_poll(struct fake_end *e);		/* take completions */
void fake_done(struct fake_end *e);		/* completions that were held */
void fake_flood(struct fake_end *x, uint64_t pause);	/* x's next send is one of a flood, so many ticks behind the last put, or more */
void fake_land(struct fake_end *e);		/* the answer that was held */
/* the path of e's sending is gone: what has not arrived never will, and e is told so by its next poll(); completions that were held are lost */
void fake_fail(struct fake_end *e, int error);
void fake_fail_both(int error);
/* the daemons' answer to e's question */
bool fake_daemon(struct fake_end *e, uint32_t what, uint64_t a, uint64_t b);
void fake_fill(struct fake_end *x, uint64_t from, uint64_t to);	/* ring bytes and their seams by way of the daemons */
void fake_answer(struct fake_end *e, uint32_t what);	/* with the arguments of the last such question */
void fake_sweep(struct fake_end *e);		/* the daemon takes the questions of e's other processes (rs->asks) */
/* grant and start of one direction; nothing is under way afterwards */
void fake_grant(struct fake_end *y);
void fake_start(struct fake_end *x);

#endif
