#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# other people's programs between two hosts, their bytes checked: the short of the scripts prog-*.sh
. "$(dirname "$0")/../../programs.sh"

: "${WSD_TEST_SIDES:=both client}"
nginx_files 0 4097 1000000
serve() {
	up redis 18901 redis-server --port 18901 --bind "$WSD_RXE_ADDRESS" --protected-mode no --dir "$T" --save "" --appendonly no
	up aecho 18903 python3 "$PROGRAMS/flow.py" aecho 18903
	nginx_up
}

use() {
	local secs=3 n=5000000 rounds=10
	[ "$SIDES" = both ] || secs=0.2 n=300000 rounds=1
	client check python3 "$RXE/prog/redis-check" "$WSD_RXE_PEER" 18901 $secs || fail "redis-check"
	share check 1
	client aecho python3 "$PROGRAMS/flow.py" multi 18903 1 $n || fail "asyncio"
	share aecho 1
	nginx_get kept 18904 $rounds
	share kept 1
}
over_two_hosts
