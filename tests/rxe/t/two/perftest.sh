#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# raw verbs across the wire; few requests in flight, for between emulated hosts a packet is easily lost, and a loss costs a time-out
. "$(dirname "$0")/../../functions.sh"

port=18700
for test in "ib_send_bw -s 65536 -n 20 -t 4" "ib_write_lat -s 64 -n 100"; do
	port=$((port + 1))
	read -ra words <<<"$test -d $WSD_RXE_DEVICE -p $port"
	if [ "$WSD_RXE_HOST" = 1 ]; then
		server server listening $port -- "${words[@]}"
		meet "perftest$port"
		finished "$test (server)" "$STARTED"
	else
		meet "perftest$port"
		timeout 40 "${words[@]}" "$WSD_RXE_PEER" >"$T/client.log" 2>&1 || fail "$test"
		grep -qE '^ *(65536|64) +[0-9]+ +[0-9.]+' "$T/client.log" || fail "$test: no result"
	fi
done
