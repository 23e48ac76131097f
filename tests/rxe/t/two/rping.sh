#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# librdmacm across the wire, by both families, each host the server once
. "$(dirname "$0")/../../functions.sh"

for server in 1 2; do
	# the two families take turns, emulation being slow
	if [ $server = 1 ]; then own=$WSD_RXE_ADDRESS peer=$WSD_RXE_PEER; else own=$WSD_RXE_ADDRESS6 peer=$WSD_RXE_PEER6; fi
	if [ "$WSD_RXE_HOST" = $server ]; then
		server server cm_listening -- rping -s -a "$own" -C 5 -V
		meet "rping$server"
		finished "rping -s" "$STARTED"
	else
		meet "rping$server"
		rping_client "$peer"
	fi
done
