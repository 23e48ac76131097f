# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# variants: both shake
# the daemon dies (SIGKILL) under traffic: connections go on, new ones too; a restarted one is used again
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
own_daemon_set_up
start_daemon
start_pair "$(size 3000 8000)"
until_true 5 busy || fail "not connected"
kill -KILL "$daemon"
finished "$client" 60 "the client" || fail "after the daemon's death"
under timeout 30 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 300 64 4 || fail "new connections without a daemon"
start_daemon
under timeout 30 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 2000 64 4 || fail "new connections with a new daemon"
