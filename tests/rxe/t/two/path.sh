#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# short: 6.12 running
# seconds: 240
# packets of RDMA are dropped, both ways, in the middle of traffic: TCP goes on within 2 s, no byte is lost, and when the path is mended the same
# connections use it again
. "$(dirname "$0")/../../hosts.sh"

CUTS=${WSD_TEST_CUTS:-2} BOUND_MS=${WSD_TEST_PATH_MS:-2000}

UNDO=roce_unfilter
roce_filter
daemon_up
linked
kinds_up 18830 stream pingpong
for ((cut = 1; cut <= CUTS; cut++)); do
	kinds_by_rdma
	meet path-moves$cut 200
	from=$(uptime_ms)
	drop
	to=$(uptime_ms)
	meet path-cut$cut
	kinds_returned
	sleep 3		# of traffic while the path is dead
	mend
	meet path-mended$cut
	kinds_by_rdma again
	kinds_stood "cut $cut" "$from" "$to" "${KINDS[@]}"
done
kinds_moved_within "$BOUND_MS"
meet path-again 200
traffic_ends 60
meet path-end
