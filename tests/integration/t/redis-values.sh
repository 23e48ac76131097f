# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# values of all sizes come back as they were set; a 64 MB one too; a pipeline of many commands
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
redis_up
for n in 0 1 63 4095 4096 16385 65536 1000003 "$(size 4000000 64000000)"; do
	random_file "$T/v" "$n"
	client timeout 60 redis-cli -p "$p" -x set k <"$T/v" >"$T/set.log" 2>&1 || fail "set of $n"
	# redis-cli ends a raw reply with a newline of its own
	client timeout 60 redis-cli -p "$p" get k >"$T/w" || fail "get of $n"
	truncate -s "$n" "$T/w"
	same_file "$T/v" "$T/w" "value of $n"
done
for i in $(seq 1 5000); do echo "set key$i value$i"; done | client timeout 60 redis-cli -p "$p" --pipe >"$T/pipe.log" 2>&1 || fail "pipe"
grep -q 'errors: 0, replies: 5000' "$T/pipe.log" || fail "pipeline lost replies"
[ "$(client redis-cli -p "$p" get key4711)" = value4711 ] || fail "a piped value"
