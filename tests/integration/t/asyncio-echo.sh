# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# asyncio (epoll): many connections at once, each with its own checksum
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
p=$(free_port)
start_server echo "$PY" "$PROGRAMS/flow.py" aecho "$p"
wait_port "$p"
client timeout 60 "$PY" "$PROGRAMS/flow.py" multi "$p" 1 3000000 || fail "one connection"
client timeout 60 "$PY" "$PROGRAMS/flow.py" multi "$p" "$(size 50 200)" 200000 || fail "many connections"
