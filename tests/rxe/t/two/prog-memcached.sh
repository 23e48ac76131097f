#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# long: half a minute and more in emulation; programs.sh has the short of it
# seconds: 240
# memcached with four threads; its client compares every value
. "$(dirname "$0")/../../programs.sh"

serve() { up memcached 18902 memcached -u nobody -l "$WSD_RXE_ADDRESS" -p 18902 -t 4 -m 256 -I 2m; }
use() {
	local n=400
	[ "$SIDES" = both ] || n=50
	client memcheck python3 "$PROGRAMS/memcheck.py" 18902 $n || fail "memcheck"
	share memcheck 1
}
over_two_hosts
