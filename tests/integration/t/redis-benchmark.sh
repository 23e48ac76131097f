# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# redis-benchmark: one and many clients, pipelines, big values; then the server still answers
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
redis_up
n=$(size 5000 30000)
for mode in "-c 1 -n 2000" "-c 50 -n $n" "-c 50 -n $n -P 16" "-c 300 -n $n" "-c 5 -n 300 -d 100000" "-c 20 -n $n --threads 2"; do
	# shellcheck disable=SC2086
	client timeout 60 redis-benchmark -p "$p" -t get,set,lrange_100 -q $mode >"$T/bench.log" 2>&1 || fail "redis-benchmark $mode"
	! grep -qi -e error -e closed "$T/bench.log" || fail "redis-benchmark $mode complains"
done
[ "$(client redis-cli -p "$p" ping)" = PONG ] || fail "no answer afterwards"
