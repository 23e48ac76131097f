# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# variants: both shake
# a quota of two sessions: the others stay on TCP and all is right
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
own_daemon_set_up
start_daemon --quota-sessions 2
start_pair 1000
finished "$client" 30 "the client" || fail "with a full quota"
under timeout 30 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 500 2000 20 || fail "many connections"
