# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# an established, busy connection goes on in a child that libc or Python makes, which inherits it: posix_spawn, system, popen,
# subprocess, subprocess with the socket as stdin. What lies unread in the ring at that moment goes along.
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
for how in posix_spawn system popen subprocess stdin; do
	p=$(free_port)
	start_server "holder-$how" "$PY" "$PROGRAMS/handover.py" spawn $how "$p"
	holder=$LAST
	wait_port "$p"
	client timeout 30 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 600 300 || fail "$how: the stream broke"
	finished "$holder" 20 "$how" || fail "$how: the child failed"
done
