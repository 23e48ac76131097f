#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# librdmacm: address, route, connection and data, by both families
. "$(dirname "$0")/../../functions.sh"

for address in "$WSD_RXE_PEER" "$WSD_RXE_PEER6"; do
	server server cm_listening -- rping -s -a "$address" -C 5 -V
	rping_client "$address"
	finished "rping -s $address" "$STARTED"
done
