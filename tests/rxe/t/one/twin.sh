#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# short: 6.1
# seconds: 900
# one random program on TCP, and with RDMA forced between its two ends (tests/twin): the result of each call is compared, seed by seed
. "$(dirname "$0")/../../functions.sh"

export WSD_TRANSPORT=verbs
export WSD_TEST_SHOW=20
ops=120 most=40 least=3		# no new seed after so many seconds; one takes about ten, in emulation and loaded 30
[ "${WSD_TEST_RXE_LONG:-}" != 1 ] || { ops=250 most=600 least=10; }
# what a guest takes its time for is no hang
timeout $((most + 200)) python3 "$RXE/../twin/run" --seed 1 --seeds 100 --time $most --ops $ops --timeout 60 --jobs 1 --unstable --need-ring \
	--variants both >"$T/twin.log" 2>&1 || fail "a difference"
grep -i unstable "$T/twin.log" || :	# what one run showed and two more did not is seen, though it does not fail
n=$(sed -n 's/ passed, 0 failed$//p' "$T/twin.log")
[ "${n:-0}" -ge $least ] || fail "${n:-no} seeds in $most s"
