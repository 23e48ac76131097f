# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# nc in both directions with large random files
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
require nc
n=$(size 5000000 60000000)
random_file "$T/up" "$n"
random_file "$T/down" "$n"
p=$(free_port)
"${server_words[@]}" timeout 60 nc -l -N 127.0.0.1 "$p" <"$T/down" >"$T/up.got" 2>"$T/nc.log" &
srv=$!
PIDS+=("$srv")
wait_port "$p"
client timeout 60 nc -N 127.0.0.1 "$p" <"$T/up" >"$T/down.got" || fail "nc client"
finished "$srv" 30 "nc server" || fail "nc server"
same_file "$T/up" "$T/up.got"
same_file "$T/down" "$T/down.got"
