#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# long: half a minute and more in emulation; programs.sh has the short of it
# seconds: 240
# redis: values of all sizes, one by one and in pipelines; redis-benchmark with pipelines on several connections
. "$(dirname "$0")/../../programs.sh"

PORT=18901
serve() { up redis $PORT redis-server --port $PORT --bind "$WSD_RXE_ADDRESS" --protected-mode no --dir "$T" --save "" --appendonly no; }

cli() { client cli redis-cli -h "$WSD_RXE_PEER" -p $PORT "$@"; }

use() {
	local n secs=6
	[ "$SIDES" = both ] || secs=1
	for n in 0 4096 3000003; do
		random_file "$T/v" $n
		cli -x set k <"$T/v" >"$T/cli.log" 2>&1 || fail "set of $n"
		cli get k >"$T/w" || fail "get of $n"
		truncate -s $n "$T/w"		# redis-cli ends a raw reply with a newline of its own
		same_file "$T/v" "$T/w" "value of $n"
	done
	client check python3 "$RXE/prog/redis-check" "$WSD_RXE_PEER" $PORT $secs || fail "redis-check"
	share check 1
	client bench redis-benchmark -h "$WSD_RXE_PEER" -p $PORT -c 4 -P 16 -n $((secs * 4000)) -t set,get -d 200 -q >"$T/bench.log" 2>&1 || fail "redis-benchmark"
	tr '\r' '\n' <"$T/bench.log" | grep 'requests per second'
	[ "$(tr '\r' '\n' <"$T/bench.log" | grep -c 'requests per second')" = 2 ] || fail "redis-benchmark"
	! grep -i error "$T/bench.log" || fail "redis-benchmark"
	share bench 1
}
over_two_hosts
