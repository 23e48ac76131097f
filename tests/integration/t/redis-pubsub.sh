# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# a subscriber that only waits gets every message, in order
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
redis_up
start_client sub redis-cli -p "$p" subscribe news
until_true 5 grep -q subscribe "$T/sub.log" || fail "not subscribed"
for i in $(seq 1 300); do echo "publish news message-$i"; done | client timeout 30 redis-cli -p "$p" >"$T/pub.log" || fail "publish"
until_true 10 grep -q '^message-300$' "$T/sub.log" || fail "the last message did not come"
grep '^message-' "$T/sub.log" >"$T/got"
for i in $(seq 1 300); do echo "message-$i"; done | cmp - "$T/got" || fail "messages lost or out of order"
