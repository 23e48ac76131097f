/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <string.h>

#include <wsd/proxy_proto.h>
#include <wsd/stats.h>

#include "common/reason.h"
#include "common/siphash.h"
#include "tools/lib/human.h"

Test(reason, each_number_has_words_of_its_own)
{
	for (unsigned i = 0; i < _WSD_R_N; i++) {
		cr_assert(strcmp(reason_name(i), "unknown"), "reason %u has no words", i);
		cr_assert(*reason_text(i));
		cr_assert_eq(strspn(reason_name(i), "abcdefghijklmnopqrstuvwxyz-"), strlen(reason_name(i)));
		for (unsigned k = 0; k < i; k++) {
			cr_assert(strcmp(reason_name(i), reason_name(k)), "%u and %u share a name", i, k);
			cr_assert(strcmp(reason_text(i), reason_text(k)), "%u and %u share a text", i, k);
		}
	}
}

Test(reason, numbers_from_elsewhere_are_survived)
{
	cr_assert_str_eq(reason_name(_WSD_R_N), "unknown");
	cr_assert_str_eq(reason_name(~0u), "unknown");
	cr_assert_str_eq(reason_hint(~0u), "");
}

Test(reason, fits_into_the_statistics_file)
{
	cr_assert_leq(_WSD_R_N, WSD_STATS_REASONS);
}

Test(human, bytes_keep_three_digits)
{
	cr_assert_str_eq(human_bytes(0).text, "0 B");
	cr_assert_str_eq(human_bytes(999).text, "999 B");
	cr_assert_str_eq(human_bytes(1000).text, "1.00 kB");
	cr_assert_str_eq(human_bytes(99949).text, "99.9 kB");
	cr_assert_str_eq(human_bytes(999999).text, "1.00 MB");
	cr_assert_str_eq(human_bytes(UINT64_MAX).text, "18.4 EB");
}

Test(human, a_share_of_nothing_is_none)
{
	cr_assert_str_eq(human_share(0, 0).text, "-");
	cr_assert_str_eq(human_share(1, 3).text, "33.3 %");
	cr_assert_str_eq(human_share(UINT64_MAX, 1).text + strlen(human_share(UINT64_MAX, 1).text) - 1, "%");
}

Test(human, foreign_text_cannot_move_the_cursor)
{
	char buf[8];

	human_field(buf, sizeof(buf), "a\033[2J", 5);
	cr_assert_str_eq(buf, "a?[2J");
	human_field(buf, sizeof(buf), "", 0);
	cr_assert_str_eq(buf, "?");
	human_field(buf, sizeof(buf), "no end here", 11);
	cr_assert_str_eq(buf, "no end ");
	human_field(buf, sizeof(buf), "ab\0cd", 5);
	cr_assert_str_eq(buf, "ab");
	human_field(buf, sizeof(buf), "\303\244", 2);
	cr_assert_str_eq(buf, "??");
}

/* the vectors of the reference implementation: key 00 01 .. 0f, input 00 01 .. */
Test(siphash, vectors)
{
	static const uint8_t in[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8 };
	static const struct {
		size_t n;
		uint8_t out[16];
	} v[] = {
		{ 0, { 0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93 } },
		{ 1, { 0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45 } },
	};
	uint64_t h[2], other[2];

	for (size_t i = 0; i < sizeof(v) / sizeof(*v); i++) {
		siphash128(h, in, v[i].n, 0x0706050403020100ull, 0x0f0e0d0c0b0a0908ull);
		cr_assert_arr_eq(h, v[i].out, 16, "%zu bytes", v[i].n);
	}
	siphash128(h, in, 9, 1, 2);
	siphash128(other, in, 8, 1, 2);
	cr_assert_neq(h[0], other[0]);
}
