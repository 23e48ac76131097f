#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# short: 6.12 running
# seconds: 400
# a stranger on the wire forges a write by a key that nobody has, for each connection, in the middle of traffic both ways: the device refuses it and
# both ends' queue pairs are broken, no memory is touched. TCP goes on, no byte is lost, and the same connections use RDMA again.
. "$(dirname "$0")/../../hosts.sh"

export WSD_TEST_PACE=${WSD_TEST_PACE:-0.01}
names=(stream trickle pingpong)
daemon_up "qp-timeout = 16"
linked
for i in 0 1 2; do traffic "${names[i]}" "${names[i]}" $((18890 + i)); done
for name in "${names[@]}"; do until_true 90 by_rdma "$name" || fail "$name does not use RDMA"; done
for evil in 1 2; do
	for i in 0 1 2; do
		until_true 90 on_rdma "${names[i]}" || fail "${names[i]} does not use RDMA"
		before[i]=$(returns "${names[i]}")
	done
	meet forged-moves$evil
	from=$(uptime_ms)
	[ "$WSD_RXE_HOST" != $evil ] || "$RXE/prog/forge" "$WSD_RXE_NETDEV" 40 || fail "not all are broken"
	meet forged-done$evil
	to=$(uptime_ms)
	for i in 0 1 2; do
		until_true 20 returned "${names[i]}" "${before[i]}" || fail "${names[i]} did not return"
		until_true 90 on_rdma "${names[i]}" || fail "${names[i]} does not use RDMA again"
	done
	for name in stream pingpong; do
		echo "host $evil forges: $name stood for $(stood "$name" "$from" "$to") ms; $(grep -c 'by RDMA$' "$T/$name.wsd.log") sessions so far"
	done
done
meet forged-again
traffic_ends 60
meet forged-end
