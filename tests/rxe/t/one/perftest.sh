#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# raw verbs move data through rxe: send for bandwidth, write for latency
. "$(dirname "$0")/../../functions.sh"

port=18600
for test in "ib_send_bw -s 65536 -n 50" "ib_write_lat -s 64 -n 200"; do
	port=$((port + 1))
	read -ra words <<<"$test -d $WSD_RXE_DEVICE -p $port"
	server server listening $port -- "${words[@]}"
	timeout 20 "${words[@]}" "$WSD_RXE_PEER" >"$T/client.log" 2>&1 || fail "$test"
	finished "$test (server)" "$STARTED"
	grep -qE '^ *(65536|64) +[0-9]+ +[0-9.]+' "$T/client.log" || fail "$test: no result"
done
