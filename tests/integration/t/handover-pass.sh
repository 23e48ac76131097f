# SPDX-License-Identifier: MIT
# variants: plain both server client shake
# shellcheck shell=bash
# an established, busy connection goes on in another process, or beside one: pass
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
p=$(free_port)
start_server holder "$PY" "$PROGRAMS/handover.py" pass "$p" 
wait_port "$p"
client timeout 30 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 1500 300 || fail "the stream broke"
