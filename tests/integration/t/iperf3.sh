# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# iperf3 in its modes that move bytes differently: several streams, reversed, both ways at once, zero copy
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
require iperf3
p=$(free_port)
start_server iperf3 iperf3 -s -p "$p"
wait_port "$p"
for mode in "" "-P 4" "-R" "-P 4 -R" "--bidir" "-Z" "-l 1000" "-w 64K" "-N -l 64"; do
	# shellcheck disable=SC2086
	client timeout 20 iperf3 -c 127.0.0.1 -p "$p" -t 1 -J $mode >"$T/out.log" 2>&1 || fail "iperf3 $mode"
	"$PY" -c 'import json, sys
d = json.load(open(sys.argv[1]))
assert "error" not in d, d["error"]
assert d["end"]["sum_received"]["bytes"] > 1000000 or "bidir" in sys.argv[2], d["end"]["sum_received"]' "$T/out.log" "$mode" ||
		fail "iperf3 $mode moved too little"
done
