#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# raw verbs move data through rxe: send for bandwidth, write for latency. Nothing of ours is in it, and about one in fifty stands still in an
# emulated guest (seen on 6.12, beside a compiler): a second try then, which is said
. "$(dirname "$0")/../../functions.sh"

port=18600
moves() {
	local words
	port=$((port + 1))
	read -ra words <<<"$1 -d $WSD_RXE_DEVICE -p $port"
	server server listening $port -- "${words[@]}"
	timeout 20 "${words[@]}" "$WSD_RXE_PEER" >"$T/client.log" 2>&1 || return 1
	finished "$1 (server)" "$STARTED"
	grep -qE '^ *(65536|64) +[0-9]+ +[0-9.]+' "$T/client.log" || fail "$1: no result"
}
for test in "ib_send_bw -s 65536 -n 50" "ib_write_lat -s 64 -n 200"; do
	moves "$test" && continue
	echo "$test stood still: a second try"
	moves "$test" || fail "$test"
done
