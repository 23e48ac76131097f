# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# kill -9 of the sender at a random point: the receiver has an intact prefix and an end, soon
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
for i in $(seq 1 "$(size 4 12)"); do
	p=$(free_port)
	start_server sink "$PY" "$PROGRAMS/flow.py" sink "$p"
	sink=$LAST
	wait_port "$p"
	start_client source "$PY" "$PROGRAMS/flow.py" source "$p" 0 $((RANDOM * 4 + 1))
	src=$LAST
	until_true 20 grep -q "at $((1 + RANDOM % 30)) MiB" "$T/sink.log" || fail "no progress"
	kill -KILL "$src"
	finished "$sink" 10 "the receiver" || fail "the receiver saw wrong bytes"
	grep -qE 'bytes, (eof|reset)' "$T/sink.log" || fail "no end was reported"
done
