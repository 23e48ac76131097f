#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# short: 6.12 running
# seconds: 240
# the device's link, which is TCP's as well, goes down in the middle of traffic: both stand until it is back, and go on; no byte is lost, and
# RDMA is used again. (A path that only RDMA loses is path.sh's.)
. "$(dirname "$0")/../../hosts.sh"

OUTAGE=1.5

back() {
	local name
	for name in "$@"; do
		grep -q 'returns to TCP' "$T/$name.wsd.log" || fail "$name did not return"
		until_true 90 by_rdma $name 2 || fail "$name does not use RDMA again"
	done
}

daemon_up "qp-timeout = 16"
linked
n=0
for kind in stream pingpong idle; do traffic $kind $kind $((18850 + n++)); done
for kind in stream pingpong idle; do until_true 90 by_rdma $kind || fail "$kind does not use RDMA"; done
touch "$T/idle.idle"
meet linkdown-moves
if [ "$WSD_RXE_HOST" = 2 ]; then
	ip link set "$WSD_RXE_NETDEV" down || fail "link down"
	sleep $OUTAGE
	ip link set "$WSD_RXE_NETDEV" up || fail "link up"
	# what a link that goes down loses
	ip -6 address replace "$WSD_RXE_ADDRESS6/64" dev "$WSD_RXE_NETDEV" nodad || fail "the IPv6 address does not come back"
fi
meet linkdown-up
back stream pingpong
meet linkdown-again
traffic_ends 60
meet linkdown-end
