#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# floods whose sender goes away: what it keeps back for the next doorbell is fetched by the receiver's card (docs/agreed.md, "Batching")
. "$(dirname "$0")/../../functions.sh"

export WSD_PROXY_SOCKET=$T/proxyd WSD_TRANSPORT=verbs WSD_OVERFLOW=off
server daemon test -S "$T/proxyd" -- "$WSD_BUILD/proxy_daemon/wsd-proxyd" --socket "$T/proxyd"
WSD_LOG=$T/wsd.log WSD_LOG_LEVEL=3 timeout 80 "$WSD_BUILD/tools/wsdrun" --stats -- "$WSD_BUILD/tests/rxe/prog/rxe-away" \
	"$WSD_RXE_ADDRESS" 18710 >"$T/away.log" 2>&1 || fail "exit $?"
grep -q 'sends by RDMA' "$T/wsd.log" || fail "nothing was sent by RDMA"
grep 'floods' "$T/away.log"
share=$(sed -n 's/.*went through the SAN (\([0-9]*\)[.0-9]* %).*/\1/p' "$T/away.log")
[ "${share:-0}" -ge 50 ] || fail "$share % by the SAN"
