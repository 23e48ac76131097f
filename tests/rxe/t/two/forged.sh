#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# short: 6.12 running
# seconds: 400
# a stranger on the wire forges a write by a key that nobody has, for each connection, in the middle of traffic both ways: the device refuses it and
# both ends' queue pairs are broken, no memory is touched. TCP goes on, no byte is lost, and the same connections use RDMA again.
. "$(dirname "$0")/../../hosts.sh"

export WSD_TEST_PACE=${WSD_TEST_PACE:-0.01}
daemon_up "qp-timeout = 16"
linked
kinds_up 18890 stream trickle pingpong
for evil in 1 2; do
	kinds_by_rdma
	meet forged-moves$evil 200
	from=$(uptime_ms)
	[ "$WSD_RXE_HOST" != $evil ] || "$RXE/prog/forge" "$WSD_RXE_NETDEV" 40 || fail "not all are broken"
	meet forged-done$evil
	to=$(uptime_ms)
	kinds_returned
	kinds_by_rdma again
	kinds_stood "host $evil forges" "$from" "$to" stream pingpong
done
meet forged-again 200
traffic_ends 60
meet forged-end
