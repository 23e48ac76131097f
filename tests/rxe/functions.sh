# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# functions.sh - what the scripts of t/one and t/two use, inside a guest
#
# A script exits 0 when all was right. In t/two both hosts run it; WSD_RXE_HOST says which this is, meet NAME waits for
# the other. Nothing waits by sleeping: until_true polls a condition with a deadline. What a script has started ends with it.
set -u -o pipefail

RXE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
T=$(mktemp -d)
PIDS=()
UNDO=:		# what a script changed in the machine is put back last
trap 'rc=$?; exec 2>/dev/null; [ ${#PIDS[@]} = 0 ] || kill -KILL "${PIDS[@]}" 2>/dev/null; $UNDO; rm -rf "$T"; exit $rc' EXIT

fail() {
	echo "FAILED: $*" >&2
	tail -n "${WSD_TEST_SHOW:-5}" "$T"/*.log 2>/dev/null | cut -c1-200 >&2
	exit 1
}

trap 'fail "out of time"' TERM

# until_true SECONDS CMD...
until_true() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}

# WSD_TEST_SHOW=N: says where it is, and N lines of each log when it failed
meet() {
	[ -z "${WSD_TEST_SHOW:-}" ] || echo "# $(cut -d" " -f1 /proc/uptime) $1"
	python3 "$RXE/meet" "$@" || fail "the other host did not come to $1"
}

# start NAME CMD...: in the background, its output in $T/NAME.log
start() {
	local name=$1
	shift
	"$@" >"$T/$name.log" 2>&1 &
	PIDS+=($!)
	STARTED=$!
}

ended() { ! kill -0 "$1" 2>/dev/null; }

# listening PORT: TCP, for the part of perftest that exchanges addresses
listening() { [ -n "$(ss -Hltn "sport = :$1")" ]; }
# cm_listening: anybody at librdmacm
cm_listening() { rdma resource show cm_id | grep -q 'state LISTEN'; }

# server NAME READY... -- CMD...: starts CMD and waits until READY answers yes
server() {
	local name=$1 ready=()
	shift
	while [ "$1" != -- ]; do ready+=("$1"); shift; done
	shift
	start "$name" "$@"
	until_true 20 "${ready[@]}" || fail "$name does not listen"
}

# finished NAME PID: it ended by itself, with 0
finished() {
	local rc=0
	until_true 40 ended "$2" || fail "$1 did not end"
	wait "$2" || rc=$?
	[ $rc = 0 ] || fail "$1: exit $rc"
}

# rping_client ADDRESS: five pings, their data checked. What counts is that all came back: the client's exit status is 1 now and then when
# the server hangs up first (its event thread then reads a channel that is gone).
rping_client() {
	timeout 20 rping -c -a "$1" -C 5 -V -v >"$T/client.log" 2>&1 || :
	if [ "$(grep -c '^ping data' "$T/client.log")" != 5 ] || grep -q 'bad data' "$T/client.log"; then fail "rping -c $1"; fi
}
