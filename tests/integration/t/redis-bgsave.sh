# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# BGSAVE forks a child that inherits every client while these go on; what was saved loads equal
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
redis_up
start_client load redis-benchmark -p "$p" -t set,get -c 20 -n 1000000 -r 1000 -q
load=$LAST
for i in $(seq 1 500); do echo "set stay$i $i"; done | client redis-cli -p "$p" --pipe >"$T/pipe.log" || fail "set-up"
for i in 1 2 3; do
	client timeout 20 redis-cli -p "$p" bgsave schedule >"$T/save.log" || fail "BGSAVE"
	saved() { client redis-cli -p "$p" info persistence | tr -d '\r' | grep -q '^rdb_bgsave_in_progress:0'; }
	until_true 20 saved || fail "BGSAVE $i does not end"
done
kill -TERM "$load"
until_true 5 gone "$load" || fail "the load generator does not end"
before=$(client redis-cli -p "$p" debug digest)
[ "$(client timeout 30 redis-cli -p "$p" debug reload)" = OK ] || fail "DEBUG RELOAD"
[ "$before" = "$(client redis-cli -p "$p" debug digest)" ] || fail "data changed by saving and loading"
[ "$(client redis-cli -p "$p" get stay77)" = 77 ] || fail "a key is gone"
