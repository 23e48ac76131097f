# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# kill -9 of the receiver at a random point: the sender gets EPIPE or ECONNRESET, soon
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
for i in $(seq 1 "$(size 4 12)"); do
	p=$(free_port)
	start_server sink "$PY" "$PROGRAMS/flow.py" sink "$p"
	sink=$LAST
	wait_port "$p"
	start_client source "$PY" "$PROGRAMS/flow.py" source "$p" 0 $((RANDOM * 4 + 1))
	src=$LAST
	until_true 20 grep -q "at $((1 + RANDOM % 30)) MiB" "$T/source.log" || fail "no progress"
	kill -KILL "$sink"
	finished "$src" 10 "the sender" || fail "the sender broke"
	grep -qE 'BrokenPipeError|ConnectionResetError' "$T/source.log" || fail "the sender was told nothing"
done
