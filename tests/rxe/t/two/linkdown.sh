#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# long: about a minute on a quiet machine, and no clean run of its last form on both kernels yet
# seconds: 240
# the device's link goes down in the middle of traffic. First a link that is TCP's as well: both stand until it is back, and go on. Then one of
# two: TCP has another way, and moves at once. No byte is lost, and when the link is back RDMA is used again
. "$(dirname "$0")/../../hosts.sh"

OUTAGE=1.5 BOUND_MS=${WSD_TEST_LINKDOWN_MS:-5000}
TWO=wsdtwo DEVICE2=rxe_wsdtwo NET2=10.77.9
PEER2=$NET2.$((3 - WSD_RXE_HOST)) ADDRESS2=$NET2.$WSD_RXE_HOST

# A second network, and a second device, on the one wire; its other way is the first network's
second() {
	ip link add link "$WSD_RXE_NETDEV" name $TWO type macvlan mode bridge || fail "no second network"
	ip link set $TWO up || fail "it does not come up"
	ip address add $ADDRESS2/24 dev $TWO || fail "no address there"
	ip route add $NET2.0/24 dev "$WSD_RXE_NETDEV" src $ADDRESS2 metric 900 || fail "no other way"
	rdma link add $DEVICE2 type rxe netdev $TWO || fail "no second device"
}
no_second() {
	rdma link delete $DEVICE2
	ip link delete $TWO
}

back() {
	local name
	for name in "$@"; do
		grep -q 'returns to TCP' "$T/$name.wsd.log" || fail "$name did not return"
		until_true 90 by_rdma $name 2 || fail "$name does not use RDMA again"
	done
}

SUBNETS="$SUBNETS, $ADDRESS2/24"
UNDO=no_second
second
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
	ip route replace $NET2.0/24 dev "$WSD_RXE_NETDEV" src $ADDRESS2 metric 900 || fail "no other way"
fi
meet linkdown-up
back stream pingpong
meet linkdown-again
traffic_ends 60

linked two $PEER2
SERVER=$PEER2
[ "$ROLE" = connect ] || SERVER=$ADDRESS2
for kind in stream pingpong; do traffic two-$kind $kind $((18860 + n++)); done
for kind in stream pingpong; do until_true 90 by_rdma two-$kind || fail "two-$kind does not use RDMA"; done
meet linkdown-two-moves
from=$(uptime_ms)
if [ "$WSD_RXE_HOST" = 2 ]; then
	ip link set $TWO down || fail "link down"
else
	ip neighbour flush dev $TWO	# as its announcement at the other network's interface would
fi
to=$(uptime_ms)
meet linkdown-two-down
for name in two-stream two-pingpong; do until_true 20 grep -q 'returns to TCP' "$T/$name.wsd.log" || fail "$name did not return"; done
sleep 2		# of traffic on the other way
[ "$WSD_RXE_HOST" = 1 ] || ip link set $TWO up || fail "link up"
meet linkdown-two-up
back two-stream two-pingpong
for name in two-stream two-pingpong; do
	ms=$(stood $name "$from" "$to")
	echo "$name stood for $ms ms"
	[ "$ms" -lt "$BOUND_MS" ] || fail "$name moved again only after $ms ms"
done
meet linkdown-two-again
traffic_ends 60
meet linkdown-end
