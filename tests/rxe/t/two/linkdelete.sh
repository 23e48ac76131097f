#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# short: 6.1 running
# seconds: 240
# the device is deleted in the middle of traffic both ways, while others are idle, and asleep: at once, and no byte is lost. When it is
# back, connections use it again.
. "$(dirname "$0")/../../hosts.sh"

daemon_up "qp-timeout = 16"
linked
n=0
for kind in stream trickle pingpong idle; do traffic $kind $kind $((18810 + n++)); done
for kind in stream trickle pingpong idle; do until_true 90 by_rdma $kind || fail "$kind does not use RDMA"; done
touch "$T/idle.idle"
meet linkdelete-moves

# delete: TOOK is milliseconds
delete() {
	local t
	t=$(uptime_ms)
	timeout 15 rdma link delete "$WSD_RXE_DEVICE" || fail "rdma link delete: $?"
	TOOK=$(($(uptime_ms) - t))
}
put_back() { rdma link show "$WSD_RXE_DEVICE/1" >/dev/null 2>&1 || add; }
UNDO=put_back
add() { rdma link add "$WSD_RXE_DEVICE" type rxe netdev "$WSD_RXE_NETDEV" || fail "rdma link add"; }

if [ "$WSD_RXE_HOST" = 2 ]; then
	delete
	held=$TOOK
	add
fi
meet linkdelete-gone
for name in stream trickle pingpong idle; do
	[ $name = idle ] || until_true 90 by_rdma $name 2 || fail "$name does not use RDMA again"
	grep -q 'returns to TCP' "$T/$name.wsd.log" || fail "$name did not return"
done
meet linkdelete-again
traffic_ends 60

if [ "$WSD_RXE_HOST" = 2 ]; then
	# an emulated machine needs its time for it even when nobody has the device open
	delete
	echo "rdma link delete: $held ms in the middle of traffic, $TOOK ms with nobody there"
	[ $held -lt $((2000 + TOOK)) ] || fail "rdma link delete took $held ms"
	add
fi
meet linkdelete-end
