#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# long: a minute and more in emulation; on a loaded machine its bound is noise
# packets of RDMA are dropped, both ways, in the middle of traffic: TCP goes on within 2 s, no byte is lost
. "$(dirname "$0")/../../hosts.sh"

BOUND_MS=${WSD_TEST_PATH_MS:-2000}
ROCE=4791

# What comes in: a sender whose own host drops its packets is told, and rxe then tries again without end (6.1: soft lockup)
drop() {
	tc qdisc add dev "$WSD_RXE_NETDEV" clsact || fail "tc: no clsact"
	tc filter add dev "$WSD_RXE_NETDEV" ingress protocol ip flower ip_proto udp dst_port $ROCE action drop || fail "tc: no filter"
}
mend() { tc qdisc del dev "$WSD_RXE_NETDEV" clsact; }

daemon_up
linked
traffic stream stream 18830
traffic pingpong pingpong 18831
for name in stream pingpong; do until_true 40 by_rdma $name || fail "$name does not use RDMA"; done
meet path-moves
t=$(uptime_ms)
drop
meet path-cut
sleep 4		# what is measured: how long each stood
for name in stream pingpong; do
	read -r after before <<<"$(stood $name "$t")"
	echo "$name moved again $after ms after the cut; before it had stood for $before ms at most"
	[ "$after" -lt $((BOUND_MS + before)) ] || fail "$name moved again only after $after ms"
done
traffic_ends
mend
meet path-mended
traffic again pingpong 18835
until_true 40 by_rdma again || fail "no RDMA after the path was mended"
meet path-again
traffic_ends
meet path-end
