# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# variants: both shake
# the daemon unloads (SIGTERM) and comes back several times under traffic
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
own_daemon_set_up
start_daemon
start_pair "$(size 5000 20000)"
until_true 5 busy || fail "not connected"
for i in 1 2 3; do
	kill -TERM "$daemon"
	until_true 10 gone "$daemon" || fail "the daemon does not end"
	start_daemon
	under timeout 30 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 300 64 2 || fail "new connections, round $i"
done
finished "$client" 90 "the client" || fail "the old connections"
