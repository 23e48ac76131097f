/* SPDX-License-Identifier: MIT */
/*
 * rules_agreed.c - the agreed cut-over on a road whose wire is stepped by hand (rules A1-A7, A9)
 */
#include "tests/unit/switch/ends.h"
#include "tests/unit/switch/fake_road.h"

#define X	(&fake_x)
#define Y	(&fake_y)

static uint32_t xstate(void)
{
	return atomic_load(&X->rs->xstate);
}

static uint32_t ystate(void)
{
	return atomic_load(&Y->rs->ystate);
}

static void make(const struct fake_opt *o)
{
	fake_make(o);
	a = X->fd;
	b = Y->fd;
	ca = X->c;
	cb = Y->c;
	hooks();
}

static void framed(void)
{
	make(NULL);
	fake_grant(Y);
	fake_start(X);
}

Test(rules_agreed, road_and_back, .timeout = 10)
{
	framed();
	cr_assert_eq(send(a, "abc", 3, 0), 3);
	cr_assert_eq(X->puts, 1);
	fake_all();
	expect_str(b, 10, "abc");
	cr_assert_eq(ystate(), WSD_Y_FRAMED);
	cr_assert_eq(xstate(), WSD_X_FRAMED);
}
