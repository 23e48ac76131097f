#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# short: 6.1 running
# seconds: 400
# packets of RDMA are dropped one way only, in the middle of traffic both ways: first what host 1 is sent, then what host 2 is. What the other way
# brings arrives, but nothing of it is known to have. TCP goes on within 2 s, later tries cost less, no byte is lost; mended, RDMA is used again.
. "$(dirname "$0")/../../hosts.sh"

DEAD=${WSD_TEST_DEAD:-6} BOUND_MS=${WSD_TEST_ONEWAY_MS:-2000}
export WSD_TEST_PACE=${WSD_TEST_PACE:-0.01}
# the daemon offers again at once when addresses of a device have changed; the next try may be a minute away
news() { ip address add "10.97.$1.$WSD_RXE_HOST/32" dev "$WSD_RXE_NETDEV" || fail "no address"; }
undo() {
	roce_unfilter
	ip address del "10.97.1.$WSD_RXE_HOST/32" dev "$WSD_RXE_NETDEV"
	ip address del "10.97.2.$WSD_RXE_HOST/32" dev "$WSD_RXE_NETDEV"
}
UNDO=undo
roce_filter
daemon_up
linked
kinds_up 18880 stream pingpong
for deaf in 1 2; do
	kinds_by_rdma
	meet oneway-moves$deaf 200
	from=$(uptime_ms)
	[ "$WSD_RXE_HOST" != $deaf ] || drop
	to=$(uptime_ms)
	meet oneway-cut$deaf
	kinds_returned
	left=$(uptime_ms)
	sleep "$DEAD"	# of traffic, and of tries
	tries=$(uptime_ms)
	meet oneway-over$deaf
	[ "$WSD_RXE_HOST" != $deaf ] || mend
	meet oneway-mended$deaf
	news $deaf
	kinds_by_rdma again
	kinds_stood "host $deaf deaf" "$from" "$to" "${KINDS[@]}"
	for kind in "${KINDS[@]}"; do echo "later $kind stood for $(stood "$kind" $((left + 1500)) $((tries - 1000))) ms at most"; done
done
kinds_moved_within "$BOUND_MS"
meet oneway-again 200
traffic_ends 60
meet oneway-end
