#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The rxe device is up, with the MTU and the addresses promised, seen by the kernel's tool and by libibverbs; locked
# memory is what users have.
. "$(dirname "$0")/../../functions.sh"

rdma link show "$WSD_RXE_DEVICE/1" | grep -q "state ACTIVE physical_state LINK_UP netdev $WSD_RXE_NETDEV" || fail "rdma link: $(rdma link)"
ibv_devinfo -d "$WSD_RXE_DEVICE" >"$T/devinfo.log" || fail ibv_devinfo
grep -q 'PORT_ACTIVE' "$T/devinfo.log" || fail "port is not active"
grep -q 'active_mtu:.*4096' "$T/devinfo.log" || fail "RDMA MTU is not 4096"
gids=$(cat "/sys/class/infiniband/$WSD_RXE_DEVICE/ports/1/gids/"[0-5])
grep -q "^0000:0000:0000:0000:0000:ffff:" <<<"$gids" || fail "no GID of $WSD_RXE_ADDRESS"
grep -q "^fd99:" <<<"$gids" || fail "no GID of $WSD_RXE_ADDRESS6"
# (on the machine's own kernel it is as the machine has it)
[ "$WSD_RXE_ACCEL" = none ] || [ "$(ulimit -l)" = 8192 ] || fail "locked memory: $(ulimit -l)"
[ "$(uname -r)" = "$WSD_RXE_KERNEL" ] || fail "this is Linux $(uname -r)"
