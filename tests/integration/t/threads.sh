# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# threaded echo server, threaded client
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
p=$(free_port)
start_server echo "$PY" "$PROGRAMS/flow.py" echo "$p"
wait_port "$p"
client timeout 60 "$PY" "$PROGRAMS/flow.py" pingpong "$p" "$(size 200 1000)" 64 8 || fail "small messages"
client timeout 60 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 40 50000 8 || fail "large messages"
