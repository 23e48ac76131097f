#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# a program gets the drivers of the devices that are there, not all that libibverbs has
. "$(dirname "$0")/../../functions.sh"

export WSD_PROXY_SOCKET=$T/proxyd WSD_TRANSPORT=verbs
server daemon test -S "$T/proxyd" -- "$WSD_BUILD/proxy_daemon/wsd-proxyd" --socket "$T/proxyd"
timeout 60 "$WSD_BUILD/tools/wsdrun" python3 "$RXE/prog/drivers" "$WSD_RXE_ADDRESS" >"$T/drivers" 2>"$T/drivers.log" || fail "no RDMA"
grep -q '^librxe-' "$T/drivers" || fail "not even rxe's"
[ "$(grep -vc '^lib\(rxe\|siw\)-' "$T/drivers")" = 0 ] || fail "$(wc -l <"$T/drivers") drivers: $(tr '\n' ' ' <"$T/drivers")"
