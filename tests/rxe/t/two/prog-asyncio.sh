#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# long: half a minute and more in emulation; programs.sh has the short of it
# seconds: 240
# asyncio (epoll): what goes there and what comes back at once is compared by digest, on one connection and on several
. "$(dirname "$0")/../../programs.sh"

serve() { up aecho 18903 python3 "$PROGRAMS/flow.py" aecho 18903; }
use() {
	local n=20000000
	[ "$SIDES" = both ] || n=2000000
	client one python3 "$PROGRAMS/flow.py" multi 18903 1 $n || fail "one connection"
	share one 1
	client many python3 "$PROGRAMS/flow.py" multi 18903 8 $((n / 8)) || fail "many connections"
	share many 1
}
over_two_hosts
