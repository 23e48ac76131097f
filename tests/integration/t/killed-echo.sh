# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# kill -9 of an echo server between small messages: the client sees an end, not silence
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
for i in $(seq 1 "$(size 4 12)"); do
	p=$(free_port)
	start_server echo "$PY" "$PROGRAMS/flow.py" echo "$p"
	srv=$LAST
	wait_port "$p"
	start_client client "$PY" "$PROGRAMS/flow.py" pingpong "$p" 100000000 64
	cli=$LAST
	connected() { ss -Htn "dport = :$p" | grep -q ESTAB; }
	until_true 10 connected || fail "not connected"
	read -rt "0.$((RANDOM % 300 + 100))" <> <(:)	# a random moment is the point here
	kill -KILL "$srv"
	finished "$cli" 10 "the client" && fail "the client noticed nothing"
	grep -qE 'end of file|ConnectionResetError|BrokenPipeError' "$T/client.log" || fail "not an end of the connection"
done
