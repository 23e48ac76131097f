#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# processes and daemons that are killed in the middle of traffic: what was sent before is there, then the end of the stream
. "$(dirname "$0")/../../hosts.sh"

TAILS=${WSD_TEST_TAILS:-40} AT_ONCE=5
daemon_up "qp-timeout = 16"
linked

# the tails: all that a process sent before it was gone
if [ "$WSD_RXE_HOST" = 1 ]; then
	start tails "$WSDRUN" --stats -- "$WSD_BUILD/tests/rxe/prog/rxe-tail" listen "$WSD_RXE_ADDRESS" 18840 "$TAILS"
	until_true 20 listening 18840 || fail "no server"
fi
meet kill-tails
if [ "$WSD_RXE_HOST" = 2 ]; then
	hows=(close exit shutdown kill)
	pids=()
	for ((i = 0; i < TAILS; i++)); do
		timeout 60 "$WSDRUN" -- "$WSD_BUILD/tests/rxe/prog/rxe-tail" connect "$WSD_RXE_PEER" 18840 $((300 + i * 37 % 700)) "${hows[i % 4]}" 2>"$T/tail$i.log" &
		pids+=($!)
		if [ $((i % AT_ONCE)) = $((AT_ONCE - 1)) ]; then wait "${pids[@]}"; pids=(); fi
	done
	wait "${pids[@]}"
else
	until_true 90 ended "$STARTED" || fail "a tail does not end: $(cat "$T/tails.log")"
	wait "$STARTED" || fail "$(grep -v '^wsdrun' "$T/tails.log" | head -5)"
	grep -E 'whole|went through' "$T/tails.log"
fi
meet kill-tails-end
