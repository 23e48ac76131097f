#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# short: 6.12 running
# seconds: 240
# processes and daemons that are killed in the middle of traffic: what was sent before is there, then the end of the stream
. "$(dirname "$0")/../../hosts.sh"

TAILS=${WSD_TEST_TAILS:-6} AT_ONCE=2
daemon_up "qp-timeout = 16"
linked

# the tails: all that a process sent before it was gone
# one NUMBER HOW: it talks until it sends by RDMA
one() {
	WSD_LOG=$T/tail$1.wsd.log WSD_LOG_LEVEL=3 timeout 60 "$WSDRUN" -- "$WSD_BUILD/tests/rxe/prog/rxe-tail" connect "$WSD_RXE_PEER" 18840 \
		6000 "$2" >"$T/tail$1.log" 2>&1
}

if [ "$WSD_RXE_HOST" = 1 ]; then
	start tails "$WSDRUN" --stats -- "$WSD_BUILD/tests/rxe/prog/rxe-tail" listen "$WSD_RXE_ADDRESS" 18840 "$TAILS"
	until_true 20 listening 18840 || fail "no server"
fi
meet kill-tails
if [ "$WSD_RXE_HOST" = 2 ]; then
	hows=(close exit shutdown kill)
	pids=()
	for ((i = 0; i < TAILS; i++)); do
		one "$i" "${hows[i / AT_ONCE % 4]}" &
		pids+=($!)
		[ ${#pids[@]} -lt $AT_ONCE ] || { wait "${pids[@]}"; pids=(); }
	done
	[ ${#pids[@]} = 0 ] || wait "${pids[@]}"
	n=$(grep -l 'sends by RDMA' "$T"/tail*.wsd.log | wc -l)
	echo "$n of $TAILS were sent by RDMA"
	[ "$n" -gt 0 ] || fail "none was sent by RDMA"
else
	until_true $((40 + TAILS * 2)) ended "$STARTED" || fail "a tail does not end: $(cat "$T/tails.log")"
	wait "$STARTED" || fail "$(grep -v '^wsdrun' "$T/tails.log" | head -5)"
	grep -E 'whole|went through' "$T/tails.log"
fi
meet kill-tails-end

# each daemon in turn, in the middle of traffic: it completes, and a new daemon serves new connections (those of the next turn)
for victim in 1 2; do
	traffic stream$victim stream $((18840 + victim))
	until_true 90 by_rdma stream$victim || fail "stream$victim does not use RDMA"
	meet kill-moves$victim
	if [ "$WSD_RXE_HOST" = $victim ]; then
		kill -KILL "$DAEMON"
		until_true 10 ended "$DAEMON" || fail "the daemon does not die"
		daemon_up "qp-timeout = 16"
	fi
	sleep 2		# traffic without one
	traffic_ends 60
	linked again$victim
done
meet kill-end
