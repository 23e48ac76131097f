/* SPDX-License-Identifier: MIT */
/* the parts that need no daemon: counters, quotas */
#include <criterion/criterion.h>

#include "proxy_daemon/server/end.h"
#include "proxy_daemon/server/quota.h"

static struct diag_sock counts(uint64_t acked, uint64_t received, uint32_t wqueue)
{
	return (struct diag_sock){ .acked = acked, .received = received, .wqueue = wqueue, .has_info = 1 };
}

static bool agree(struct diag_sock a1, struct diag_sock b, struct diag_sock a2)
{
	return end_counters_agree(&a1, &b, &a2);
}

Test(counters, of_one_stream_agree)
{
	/* at rest; the connecting end counts its SYN */
	cr_expect(agree(counts(1, 0, 0), counts(0, 0, 0), counts(1, 0, 0)));
	cr_expect(agree(counts(1001, 500, 0), counts(500, 1000, 0), counts(1001, 500, 0)));
	/* in flight: b has received what a has not seen acknowledged */
	cr_expect(agree(counts(100, 0, 900), counts(0, 600, 0), counts(100, 0, 900)));
	/* a went on between the looks */
	cr_expect(agree(counts(100, 0, 0), counts(0, 5000, 0), counts(6000, 0, 0)));
	cr_expect(agree(counts(0, 100, 0), counts(200, 0, 0), counts(0, 200, 0)));
}

Test(counters, of_two_streams_do_not)
{
	cr_expect_not(agree(counts(1001, 0, 0), counts(0, 0, 0), counts(1001, 0, 0)), "b got less than was acknowledged");
	cr_expect_not(agree(counts(1, 0, 0), counts(0, 3, 0), counts(1, 0, 0)), "b got more than a has sent");
	cr_expect_not(agree(counts(0, 0, 0), counts(500, 0, 0), counts(0, 0, 0)));
	cr_expect_not(agree(counts(0, 700, 0), counts(500, 0, 100), counts(0, 700, 0)));
	struct diag_sock none = { 0 };
	cr_expect_not(agree(none, none, none), "no counters are no proof");
}

Test(quota, is_charged_by_half_and_given_back)
{
	struct quota_limits l = { .sessions = 2, .bytes = 1000 };
	struct user *t = NULL, *a = user_get(&t, 1), *b = user_get(&t, 2);

	cr_assert_eq(quota_charge(&l, a, b, 600), 0);
	cr_expect_eq(a->bytes, 300);
	cr_expect_eq(b->bytes, 300);
	cr_expect_eq(quota_charge(&l, a, a, 800), WSD_R_QUOTA_BYTES);
	cr_expect_eq(a->bytes, 300, "charged though refused");
	cr_expect_eq(quota_charge(&l, a, a, 700), 0);
	cr_expect_eq(a->n_sessions, 2);
	cr_expect_eq(quota_charge(&l, b, a, 2), WSD_R_QUOTA_SESSIONS);
	cr_expect_eq(b->n_sessions, 1);
	quota_uncharge(a, a, 700);
	quota_uncharge(a, b, 600);
	cr_expect_eq(a->n_sessions + b->n_sessions + a->bytes + b->bytes, 0);
	cr_expect_eq(user_get(&t, 1), a);
	user_put(&t, a);
	user_put(&t, a);
	user_put(&t, b);
	cr_expect_null(t);
}
