#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# kernels: 6.1 6.12
# short: 6.1
# seconds: 200
# the transport's tests over a real device, and two processes whose road carries bytes: all at once, from sleep, back and forth
. "$(dirname "$0")/../../functions.sh"

export WSD_TEST_VERBS=$WSD_RXE_DEVICE
unit=$WSD_BUILD/tests/unit/transport

# Criterion starts each test as a process of its own; to load its two dozen libraries over the guest's file system takes longer than most
# tests, so they are taken into memory
mkdir "$T/lib"
ldd "$unit/test-transport" | grep -oE '/[^ ]+' | xargs cp -t "$T/lib" || fail "copying libraries"
for name in shm transport road; do
	cp "$unit/test-$name" "$T"
	LD_LIBRARY_PATH=$T/lib timeout 60 "$T/test-$name" -j1 >"$T/$name.log" 2>&1 || {
		grep -A4 -E 'Assertion|FAIL|CRASH' "$T/$name.log" | head -n 20 >&2
		fail "test-$name"
	}
done

for words in "stream 4000000" "sleep 300" "lat 1000 64"; do
	read -ra args <<<"$words"
	timeout 30 "$unit/road-run" "${args[@]}" >"$T/road.log" 2>&1 || fail "road-run $words"
done
