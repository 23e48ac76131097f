# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# a server with an io_uring for its file, while its connection is in use: not accelerated; with WSD_URING=files accelerated, until the ring
# is used for the connection
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
[ ${#server_words[@]} = 0 ] || server_words+=("--stats-json=$T/stats.json")
up_or_gone() { listening "$p" || gone "$LAST"; }
for case in unknown files not-files; do
	p=$(free_port)
	by_ring=0
	[ $case = unknown ] || export WSD_URING=files
	[ $case != not-files ] || by_ring=1
	start_server uring "$PY" "$PROGRAMS/uring.py" "$p" 3000 $by_ring
	until_true 10 up_or_gone
	if gone "$LAST"; then
		wait "$LAST"
		[ $? != 77 ] || skip "no liburing or no io_uring"
		fail "the server does not start"
	fi
	client timeout 30 "$PY" "$PROGRAMS/flow.py" pingpong "$p" 3000 200 || fail "the stream broke, $case"
	finished "$LAST" 10 "the server" || fail "the server, $case"
	case $VARIANT in both | shake)
		"$PY" - "$T/stats.json" $case <<-'END' || fail "$case: $(cat "$T/stats.json")"
			import json, sys
			t, case = json.load(open(sys.argv[1]))["total"], sys.argv[2]
			sys.exit({"unknown": t["accelerated"] or t["ring_tx"],
				  "files": not t["accelerated"] or not t["ring_tx"],
				  "not-files": t["ring_rx"] > 1000 * 200}[case])
		END
	esac
done
