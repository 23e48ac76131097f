/* SPDX-License-Identifier: MIT */
/* fake_ends.h - the two ends of fake_road.h under the names of ends.h, with the kernel calls of waits hooked */
#ifndef WSD_TESTS_UNIT_SWITCH_FAKE_ENDS_H
#define WSD_TESTS_UNIT_SWITCH_FAKE_ENDS_H

#include "tests/unit/switch/ends.h"
#include "tests/unit/switch/fake_road.h"

#define X	(&fake_x)
#define Y	(&fake_y)

/* o: NULL for defaults. More than one pair may be made, one after the other */
static inline void make_ends(const struct fake_opt *o)
{
	fake_make(o);
	agreed_quick(!getenv("WSD_TEST_LONG_WAY"));
	a = X->fd;
	b = Y->fd;
	ca = X->c;
	cb = Y->c;
	if (!libc_calls.syscall)
		hooks();
}

/* real.epoll_wait and real.ppoll of tests that bound how often the kernel is asked */
static UNUSED _Atomic unsigned n_kernel_waits;

static UNUSED int count_epoll(int set, struct epoll_event *ev, int max, int ms)
{
	n_kernel_waits++;
	return libc_calls.epoll_wait(set, ev, max, ms);
}

static UNUSED int count_ppoll(struct pollfd *p, nfds_t n, const struct timespec *to, const sigset_t *mask)
{
	n_kernel_waits++;
	return libc_calls.ppoll(p, n, to, mask);
}

#endif
