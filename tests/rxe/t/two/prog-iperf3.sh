#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# long: half a minute and more in emulation; programs.sh has the short of it
# seconds: 240
# iperf3: one stream and four, forward and reversed, and a file whose bytes are compared
. "$(dirname "$0")/../../programs.sh"

serve() {
	up iperf3 18900 iperf3 -s -B "$WSD_RXE_ADDRESS" -p 18900
	rm -f "$T/got"
}

# measured MODE...: it ends well and the receiver got as much as was sent, but for what is under way when time is up
measured() {
	local name=iperf3$*
	name=${name// /}
	client "$name" iperf3 -c "$WSD_RXE_PEER" -p 18900 -J "$@" >"$T/$name.log" 2>"$T/$name.err" || fail "iperf3 $*: $(cat "$T/$name.err")"
	python3 - "$T/$name.log" <<'PY' || fail "iperf3 $*"
import json, sys
d = json.load(open(sys.argv[1]))
assert "error" not in d, d["error"]
sent, got = d["end"]["sum_sent"]["bytes"], d["end"]["sum_received"]["bytes"]
print("sent %.1f MB, received %.1f MB, %.1f MB/s" % (sent / 1e6, got / 1e6, d["end"]["sum_received"]["bits_per_second"] / 8e6), flush=True)
assert got > 300000 and sent - got < 64 << 20, (sent, got)
PY
}

use() {
	local secs=4
	[ "$SIDES" = both ] || secs=1
	measured -t $secs
	share iperf3-t$secs 1
	measured -t $secs -R
	share iperf3-t$secs-R 1
	measured -t $secs -P 4
	share iperf3-t$secs-P4 1
	measured -t $secs -P 4 -R
	share iperf3-t$secs-P4-R 1
}
over_two_hosts
