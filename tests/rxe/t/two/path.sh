#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
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

# stood NAME SINCE: milliseconds from SINCE until it went on, if it stood; several: the longest
stood() {
	awk -v since="$2" '$1 == "gap" && $3 * 1000 > since && $2 * 1000 < since + 3000 { ms = $3 * 1000 - since; if (ms > most) most = ms }
		END { print int(most) }' "$T/$1.log"
}

daemon_up
linked
traffic stream stream 18830
traffic pingpong pingpong 18831
traffic trickle trickle 18832
for name in stream pingpong trickle; do until_true 40 by_rdma $name || fail "$name does not use RDMA"; done
meet path-moves
t=$(uptime_ms)
[ "$WSD_RXE_HOST" = 1 ] || drop
meet path-cut
sleep 4		# what is measured: how long each stood
for name in stream pingpong; do
	ms=$(stood $name "$t")
	echo "$name moved again $ms ms after the cut"
	awk -v since="$t" '$1 == "gap" && $3 * 1000 > since - 1000 { printf "%d..%d ", $2 * 1000 - since, $3 * 1000 - since }' "$T/$name.log"
	awk -v since="$t" -v off="$(python3 -c 'import time; print(time.time() - time.monotonic())')" '/return|over|session/ { print ($1 - off) * 1000 - since, $0 }' "$T/$name.wsd.log"
	[ "$ms" -lt "$BOUND_MS" ] || fail "$name moved again only $ms ms after the cut"
done
traffic_ends
[ "$WSD_RXE_HOST" = 1 ] || mend
meet path-mended
traffic again pingpong 18835
until_true 40 by_rdma again || fail "no RDMA after the path was mended"
meet path-again
traffic_ends
meet path-end
