# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# an established, busy connection is passed on twice by SCM_RIGHTS
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
p=$(free_port)
start_server holder "$PY" "$PROGRAMS/handover.py" chain "$p"
wait_port "$p"
client timeout 30 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 1500 300 || fail "the stream broke"
