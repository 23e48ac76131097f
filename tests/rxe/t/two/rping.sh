#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# librdmacm across the wire, by both families, each host the server once
. "$(dirname "$0")/../../functions.sh"

for server in 1 2; do
	for family in "" 6; do
		own=WSD_RXE_ADDRESS$family peer=WSD_RXE_PEER$family
		if [ "$WSD_RXE_HOST" = $server ]; then
			server server cm_listening -- rping -s -a "${!own}" -C 5 -V
			meet "rping$server$family"
			finished "rping -s" "$STARTED"
		else
			meet "rping$server$family"
			timeout 20 rping -c -a "${!peer}" -C 5 -V >"$T/client.log" 2>&1 || fail "rping -c ${!peer}"
		fi
	done
done
