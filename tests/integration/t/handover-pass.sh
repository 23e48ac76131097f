# SPDX-License-Identifier: MIT
# variants: plain both server client
# Not shaken: bytes that lie unread in the ring when a descriptor is passed by SCM_RIGHTS end in a reset (docs/decisions.md,
# "descriptor passing"): the receiver cannot be handed them yet. Shaking makes that case in one run out of eight.
# shellcheck shell=bash
# an established, busy connection goes on in another process, or beside one: pass
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
p=$(free_port)
start_server holder "$PY" "$PROGRAMS/handover.py" pass "$p" 
wait_port "$p"
client timeout 30 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 1500 300 || fail "the stream broke"
