#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# short: 6.12 running
# seconds: 400
# RDMA and TCP go by different interfaces, and RDMA's goes down in the middle of traffic, on one host, then on the other: TCP goes on within 2 s while
# it is down, no byte is lost, and when it is up the same connections use it again. (linkdown.sh: TCP stands as well.)
. "$(dirname "$0")/../../hosts.sh"

OUTAGE=5 BOUND_MS=${WSD_TEST_OTHERWAY_MS:-2000}
export WSD_TEST_PACE=${WSD_TEST_PACE:-0.01}
own=10.98.0.$WSD_RXE_HOST peer=10.98.0.$((3 - WSD_RXE_HOST))
mac() { echo "02:00:0a:62:00:0$1"; }

# The addresses are those of roce0, which has the only device (that of san0 would claim them as well, roce0 being on top of it); they stay this host's own when it is down (lo). What is TCP goes by the other interface, by
# policy. Nobody asks who has an address: san0 would answer for roce0's.
neighbour() { ip neigh replace "$peer" lladdr "$(mac $((3 - WSD_RXE_HOST)))" dev roce0 nud permanent || fail "no neighbour"; }
undo() {
	rdma link delete rxe1
	rdma link add "$WSD_RXE_DEVICE" type rxe netdev "$WSD_RXE_NETDEV"
	ip rule del ipproto tcp to "$peer" lookup 98
	ip route flush table 98
	ip link del roce0
	ip address del "$own/32" dev lo
}
UNDO=undo
timeout 15 rdma link delete "$WSD_RXE_DEVICE" || fail "rdma link delete: $?"
ip link add roce0 link "$WSD_RXE_NETDEV" address "$(mac "$WSD_RXE_HOST")" type macvlan mode bridge || fail "no macvlan"
ip address add "$own/32" dev lo && ip address add "$own/24" dev roce0 && ip link set roce0 up || fail "no address"
for file in all default "$WSD_RXE_NETDEV" roce0; do echo 0 >"/proc/sys/net/ipv4/conf/$file/rp_filter"; done
ip route add "$peer" via "$WSD_RXE_PEER" dev "$WSD_RXE_NETDEV" src "$own" table 98 && ip rule add ipproto tcp to "$peer" lookup 98 || fail "no route"
neighbour
rdma link add rxe1 type rxe netdev roce0 || fail "no device"

SUBNETS="$own/24"
if [ "$WSD_RXE_HOST" = 1 ]; then SERVER=$own; else SERVER=$peer; fi
daemon_up
linked "" "$peer"
kinds_up 18870 stream pingpong
for cut in 2 1; do
	kinds_by_rdma
	meet otherway-moves$cut 200
	from=$(uptime_ms)
	[ "$WSD_RXE_HOST" != $cut ] || ip link set roce0 down || fail "link down"
	to=$(uptime_ms)
	meet otherway-cut$cut
	kinds_returned
	sleep $OUTAGE		# of traffic by the other way
	meet otherway-over$cut
	if [ "$WSD_RXE_HOST" = $cut ]; then
		ip link set roce0 up || fail "link up"
		neighbour
	fi
	kinds_by_rdma again
	kinds_stood "host $cut down" "$from" "$to" "${KINDS[@]}"
done
kinds_moved_within "$BOUND_MS"
meet otherway-again 200
traffic_ends 60
meet otherway-end
