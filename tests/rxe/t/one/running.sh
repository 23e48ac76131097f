#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# scripts/rxe-vm on a kernel that has rdma_rxe, as this guest's: no guest, the same promises, nothing left
# kernels: 6.1
. "$(dirname "$0")/../../functions.sh"

vm() { timeout 40 "$RXE/../../scripts/rxe-vm" --kernel running "$@"; }
none_left() { [ ! -e /sys/class/net/wsdrxe0 ] && [ ! -e /sys/class/infiniband/rxe_wsd0 ]; }

# shellcheck disable=SC2016  # for the shell inside
vm sh -c 'rdma link show "$WSD_RXE_DEVICE/1" && ip address show "$WSD_RXE_NETDEV" && echo "$WSD_RXE_ADDRESS" && exit 7' >"$T/run.log" 2>&1
[ $? = 7 ] || fail "exit code"
grep -q 'rxe_wsd0/1 state ACTIVE' "$T/run.log" && grep -q 'inet 10.99.100.1/24' "$T/run.log" || fail "device"
none_left || fail "left behind after the command"

vm --timeout 1 sleep 1000 >"$T/late.log" 2>&1
[ $? = 124 ] && grep -q 'time-out' "$T/late.log" || fail "time-out"
none_left || fail "left behind after a time-out"

# killed, with a process that holds the device and one that has left its session
mkfifo "$T/up"
start owner "$RXE/../../scripts/rxe-vm" --kernel running sh -c "setsid sleep 4321 & echo up >$T/up; exec sleep 4321"
read -r _ <"$T/up"
kill -KILL "$STARTED"
until_true 20 none_left || fail "left behind after SIGKILL"
! pgrep -f 'sleep 432[1]' >/dev/null || fail "a process outlives its owner"
