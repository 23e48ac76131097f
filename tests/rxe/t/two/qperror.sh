#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# short: 6.1 running
# seconds: 400
# live queue pairs are moved to the error state in the middle of traffic both ways, while others are idle, and asleep: one host's, the other's,
# then (in a long run) both hosts' at once. TCP goes on within 2 s, no byte is lost, and the same connections use RDMA again by a new queue pair.
. "$(dirname "$0")/../../hosts.sh"

BOUND_MS=${WSD_TEST_QPERROR_MS:-2000}
names=(stream trickle pingpong idle)
rounds=(1 2)
[ "${WSD_TEST_RXE_LONG:-}" != 1 ] || rounds=(1 2 12)
export WSD_TEST_PACE=${WSD_TEST_PACE:-0.01}

daemon_up "qp-timeout = 16"
linked
for i in 0 1 2 3; do
	traffic "${names[i]}" "${names[i]}" $((18860 + i))
	until_true 20 pid_of_child "$STARTED" || fail "${names[i]} does not start"
	child[i]=$CHILD
done
for name in "${names[@]}"; do until_true 90 by_rdma "$name" || fail "$name does not use RDMA"; done
touch "$T/idle.idle"

# A slow machine's connection may be between two sessions just now. idle has none any more once it has returned, being asleep
break_one() { "$WSD_BUILD/tests/rxe/prog/rxe-qperror" "$1" >>"$T/qperror.log" 2>&1; }
break_them() {
	for i in 0 1 2; do until_true 60 break_one "${child[i]}" || fail "${names[i]}: no queue pair moved to error"; done
	break_one "${child[3]}" || [ $round != 1 ] || fail "idle: no queue pair moved to error"
}

KINDS=(stream trickle pingpong) round=0
for who in "${rounds[@]}"; do
	round=$((round + 1))
	kinds_by_rdma "in round $round"
	meet qperror-moves$round 200
	from=$(uptime_ms)
	[[ $who != *$WSD_RXE_HOST* ]] || break_them
	to=$(uptime_ms)
	meet qperror-done$round
	kinds_returned
	kinds_by_rdma "again after round $round"
	kinds_stood "round $round" "$from" "$to" stream pingpong
done
until_true 60 grep -q 'returns to TCP' "$T/idle.wsd.log" || fail "idle did not return"
kinds_moved_within "$BOUND_MS"
meet qperror-again 200
traffic_ends 60
meet qperror-end
