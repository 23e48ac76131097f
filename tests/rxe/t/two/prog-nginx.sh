#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# long: half a minute and more in emulation; programs.sh has the short of it
# seconds: 240
# nginx with two workers, files of all sizes from memory and by sendfile; curl keeps connections and uses several at once; all files compared
. "$(dirname "$0")/../../programs.sh"

nginx_files 0 1 100 4097 70000 3000000
serve() { nginx_up; }
use() {
	local rounds=12
	[ "$SIDES" = both ] || rounds=1
	nginx_get kept 18904 $rounds
	share kept 1
	nginx_get copied 18905 $rounds
	share copied 1
	nginx_get parallel 18904 $rounds --parallel --parallel-max 4
	share parallel 1
}
over_two_hosts
