/* SPDX-License-Identifier: MIT */
/*
 * call.h - how an intercepted call begins and ends
 *
 *	struct call k;
 *	if (!call_begin(&k, fd)) return real.xxx(...);	// not one of our connections
 *	...
 *	call_end(&k);
 *
 * Between the two, k.c cannot be recycled. errno is the caller's until an error is returned.
 */
#ifndef WSD_SWITCH_CALL_H
#define WSD_SWITCH_CALL_H

#include <pthread.h>

#include "wsd_switch/core/switch.h"

struct call {
	struct thr *t;
	struct conn *c;
};

/* in the wrappers that need no conn */
static inline bool call_usable(void)
{
	real_ready();
	return proc_usable();
}

static inline bool call_begin(struct call *k, int fd)
{
	real_ready();
	if (unlikely(!proc_usable()))
		return false;
	if (likely(!conn_get(fd)))
		return false;
	k->t = cs_enter();
	k->c = conn_get(fd);
	if (unlikely(!k->c)) {
		cs_leave(k->t);
		return false;
	}
	sig_call_begin(k->t);
	ctl_look(k->t);
	return true;
}

static inline void call_end(struct call *k)
{
	cs_leave(k->t);
}

/* a kernel call that may sleep, with the conn pinned and the section left */
#define CALL_OUTSIDE(k, expr) \
	({ \
		__typeof__(expr) _r; \
		int _e; \
		conn_pin((k)->c); \
		cs_leave((k)->t); \
		_r = (expr); \
		_e = errno; \
		cs_enter(); \
		conn_unpin((k)->c); \
		errno = _e; \
		_r; \
	})

#endif
