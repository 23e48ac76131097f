# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# variants: both shake
# no daemon: everything works on TCP
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
own_daemon_set_up
start_pair 500
finished "$client" 30 "the client" || fail "without a daemon"
