#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# short: 6.12 running
# seconds: 240
# packets of RDMA are dropped, both ways, in the middle of traffic: TCP goes on within 2 s, no byte is lost, and when the path is mended the same
# connections use it again
. "$(dirname "$0")/../../hosts.sh"

# Twice, and the better one counts: a busy machine makes an emulated host stand for a second, which is not ours
CUTS=${WSD_TEST_CUTS:-2} BOUND_MS=${WSD_TEST_PATH_MS:-2000} ROCE=4791

# What comes in: a sender whose own host drops its packets is told, and rxe then tries again without end (6.1: soft lockup)
drop() { tc filter add dev "$WSD_RXE_NETDEV" ingress protocol ip flower ip_proto udp dst_port $ROCE action drop || fail "tc: no filter"; }
mend() { tc filter del dev "$WSD_RXE_NETDEV" ingress || fail "tc: the filter stays"; }
no_filter() { tc qdisc del dev "$WSD_RXE_NETDEV" clsact; }
UNDO=no_filter
tc qdisc add dev "$WSD_RXE_NETDEV" clsact || fail "tc: no clsact"
drop		# modules are loaded by the first one
mend

daemon_up
linked
names=(stream pingpong)
for i in 0 1; do traffic "${names[i]}" "${names[i]}" $((18830 + i)); done
for name in "${names[@]}"; do until_true 90 by_rdma "$name" || fail "$name does not use RDMA"; done
best=999999
for ((cut = 1; cut <= CUTS; cut++)); do
	for name in "${names[@]}"; do until_true 90 on_rdma "$name" || fail "$name does not use RDMA"; done
	meet path-moves$cut
	from=$(uptime_ms)
	drop
	to=$(uptime_ms)
	meet path-cut$cut
	for name in "${names[@]}"; do until_true 20 grep -q 'returns to TCP' "$T/$name.wsd.log" || fail "$name did not return"; done
	sleep 3		# of traffic while the path is dead
	mend
	meet path-mended$cut
	for name in "${names[@]}"; do until_true 90 on_rdma "$name" || fail "$name does not use RDMA again"; done
	worst=0
	for name in "${names[@]}"; do
		ms=$(stood "$name" "$from" "$to")
		echo "cut $cut: $name stood for $ms ms; $(grep -c 'by RDMA$' "$T/$name.wsd.log") sessions so far"
		[ "$ms" -le $worst ] || worst=$ms
	done
	[ $worst -ge $best ] || best=$worst
done
[ $best -lt "$BOUND_MS" ] || fail "the stream moved again only after $best ms"
meet path-again
traffic_ends 60
meet path-end
