#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# wsd-proxyd finds the device, and hears when it, its link or its addresses go and come: its clients are told at once
. "$(dirname "$0")/../../functions.sh"

"$WSD_BUILD/tools/wsdctl" status --devices >"$T/devices.log" || fail "wsdctl status --devices"
grep -qE "^$WSD_RXE_DEVICE +1 +$WSD_RXE_NETDEV +[0-9]+ +4096 +${WSD_RXE_ADDRESS//./\\.} " "$T/devices.log" || fail "devices: $(cat "$T/devices.log")"
timeout 100 "$WSD_BUILD/tests/unit/proxy/proxy-rxe" --jobs 1 >"$T/proxy-rxe.log" 2>&1 || fail "proxy-rxe: $(cat "$T/proxy-rxe.log")"

# a link that goes down loses its IPv6 addresses; the scripts after this one want them
ip -6 address replace "$WSD_RXE_ADDRESS6/64" dev "$WSD_RXE_NETDEV" nodad || fail "the IPv6 address does not come back"
has_gid() { "$WSD_BUILD/tools/wsdctl" status --devices | grep -qF " $WSD_RXE_ADDRESS6 "; }
until_true 20 has_gid || fail "no GID of $WSD_RXE_ADDRESS6: $("$WSD_BUILD/tools/wsdctl" status --devices)"
