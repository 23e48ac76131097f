#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# RDMA forced between two processes of one host: the daemon sets the connection up, the provider's put road carries the bytes
. "$(dirname "$0")/../../functions.sh"

export WSD_PROXY_SOCKET=$T/proxyd WSD_SAN_SO=$WSD_BUILD/san_provider/wsd_san.so
road=$WSD_BUILD/tests/rxe/prog/rxe-road port=18700 n=$((1 << 20))

server daemon test -S "$T/proxyd" -- "$WSD_BUILD/proxy_daemon/wsd-proxyd" --socket "$T/proxyd"

server listen listening $port -- "$road" listen "$WSD_RXE_ADDRESS" $port $n
timeout 60 "$road" connect "$WSD_RXE_ADDRESS" $port $n >"$T/connect.log" 2>&1 || fail "the road, connecting end"
finished "the road, listening end" "$STARTED"
for end in listen connect; do
	grep -q "^$end: $n bytes each way" "$T/$end.log" || fail "$end does not say how it went"
done
