# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# an established, busy connection goes on in another process, or beside one: daemonise
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
p=$(free_port)
start_server holder "$PY" "$PROGRAMS/handover.py" daemonise "$p" 
wait_port "$p"
client timeout 30 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 1500 300 || fail "the stream broke"
