# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# the socket becomes stdin and stdout of a program run by exec: socat between them
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
require socat
p=$(free_port)
start_server holder "$PY" "$PROGRAMS/handover.py" exec "$p" socat - EXEC:cat
wait_port "$p"
client timeout 30 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 800 300 || fail "the stream broke"
