#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# short: 6.1
# seconds: 900
# random programs on TCP, and with RDMA forced between their two ends (tests/twin): the result of each call is compared, seed by seed
. "$(dirname "$0")/../../functions.sh"

export WSD_TRANSPORT=verbs
export WSD_TEST_SHOW=20
ops=120 most=40 least=3		# no new seed after so many seconds; one takes about five, in emulation and loaded 30
[ "${WSD_TEST_RXE_LONG:-}" != 1 ] || { ops=250 most=600 least=10; }

# twin NAME SECONDS ARGS: what a guest takes its time for is no hang. A difference that does not come again fails, too: it was a difference
twin() {
	local name=$1 most=$2
	shift 2
	timeout $((most + 200)) python3 "$RXE/../twin/run" --time "$most" --timeout 60 --jobs 1 --need-ring "$@" >"$T/$name.log" 2>&1 ||
		fail "a difference"
	n=$(sed -n 's/ passed, 0 failed$//p' "$T/$name.log")
}

# stood still in nearly each run: a connection put into a set that was polled, behind a splice()
for seed in 1200 2205; do
	twin "known-$seed" 20 --seed $seed --seeds 1 --ops 60 --variants offer0
done

# Others each time. Again: WSD_TEST_TWIN_SEED, or for one of them what is printed with the difference
first=${WSD_TEST_TWIN_SEED:-$(($(date +%s) / 60 % 10000000 + 10000))}
echo "# seeds from $first on"
twin random $most --seed "$first" --seeds 1000 --ops $ops --variants both,offer0,shake,threads,threads-shake
[ "${n:-0}" -ge $least ] || fail "${n:-no} seeds in $most s"
