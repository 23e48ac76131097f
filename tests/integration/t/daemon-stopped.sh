# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# variants: both shake
# the daemon is stopped (SIGSTOP): nothing waits for it, before, while and after
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
own_daemon_set_up
start_daemon
start_pair "$(size 2000 5000)"
until_true 5 busy || fail "not connected"
kill -STOP "$daemon"
under timeout 30 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 300 64 4 || fail "new connections, daemon stopped"
finished "$client" 60 "the client" || fail "the old connections"
kill -CONT "$daemon"
under timeout 30 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 1000 64 4 || fail "after it continued"
