#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# the provider's sessions over a real device: setting up, failures on the way, waiting, ends, fork
. "$(dirname "$0")/../../functions.sh"

timeout 80 "$WSD_BUILD/tests/unit/spi/test-spi-verbs" -j1 >"$T/spi.log" 2>&1 || {
	grep -A4 Assertion "$T/spi.log" | head -n 20 >&2
	fail "the provider's tests"
}
