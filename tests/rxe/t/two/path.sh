#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# long: a minute and more in emulation; on a loaded machine its bound is noise
# packets of RDMA are dropped, both ways, in the middle of traffic: TCP goes on within 2 s, no byte is lost
. "$(dirname "$0")/../../hosts.sh"

BOUND_MS=${WSD_TEST_PATH_MS:-2000}
ROCE=4791

drop() {
	tc qdisc add dev "$WSD_RXE_NETDEV" clsact || fail "tc: no clsact"
	local way
	for way in ingress egress; do
		tc filter add dev "$WSD_RXE_NETDEV" $way protocol ip flower ip_proto udp dst_port $ROCE action drop || fail "tc: no filter"
	done
}
mend() { tc qdisc del dev "$WSD_RXE_NETDEV" clsact; }

# stood NAME SINCE: "AFTER BEFORE", in milliseconds: how long after SINCE the first bytes came (0: it did not stand), and the longest time
# that it had stood before. An emulated host of a busy machine stands for a second now and then for no reason of ours.
stood() {
	awk -v since="$2" '$1 != "gap" { next }
		$3 * 1000 <= since { if ($3 - $2 > before) before = $3 - $2; next }
		$2 * 1000 < since + 1000 && !after { after = $3 * 1000 - since }
		END { print int(after), int(before * 1000) }' "$T/$1.log"
}

daemon_up
linked
traffic stream stream 18830
traffic pingpong pingpong 18831
for name in stream pingpong; do until_true 40 by_rdma $name || fail "$name does not use RDMA"; done
meet path-moves
t=$(uptime_ms)
[ "$WSD_RXE_HOST" = 1 ] || drop
meet path-cut
sleep 4		# what is measured: how long each stood
for name in stream pingpong; do
	read -r after before <<<"$(stood $name "$t")"
	echo "$name moved again $after ms after the cut; before it had stood for $before ms at most"
	[ "$after" -lt $((BOUND_MS + before)) ] || fail "$name moved again only after $after ms"
done
traffic_ends
[ "$WSD_RXE_HOST" = 1 ] || mend
meet path-mended
traffic again pingpong 18835
until_true 40 by_rdma again || fail "no RDMA after the path was mended"
meet path-again
traffic_ends
meet path-end
