# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# memcached with four threads and a client that knows every value
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
require memcached
p=$(free_port)
start_server memcached memcached -u nobody -l 127.0.0.1 -p "$p" -t 4 -m 256 -I 2m
wait_port "$p"
client timeout 60 "$PY" "$PROGRAMS/memcheck.py" "$p" "$(size 500 3000)" || fail "memcheck"
