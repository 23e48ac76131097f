# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# variants: both shake
# few descriptors, no memory lock, no file size: what cannot be had is done without
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
p=$(free_port)
start_server echo bash -c 'ulimit -n 40 -l 64; exec "$@"' x "$PY" "$PROGRAMS/flow.py" echo "$p"
wait_port "$p"
client timeout 30 bash -c 'ulimit -n 24 -l 0; exec "$@"' x "$PY" "$PROGRAMS/flow.py" pingpong "$p" 500 300 8 || fail "with few descriptors"
