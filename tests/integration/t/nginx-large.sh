# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# a file of 1 GiB by sendfile, twice over one connection's keep-alive; compared by SHA-256
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
nginx_set_up on
n=$(size 64 1024)
truncate -s "${n}M" "$T/www/big"
for i in $(seq 0 15); do
	head -c 1000003 /dev/urandom | dd of="$T/www/big" bs=1M seek=$((i * n / 16)) conv=notrunc status=none
done
want=$(cat "$T/www/big" "$T/www/big" | sha256sum)
nginx_up
# twice: the second time the connection has been in use, so it is accelerated from the first byte
got=$(client timeout 100 curl -sSf "http://127.0.0.1:$p/big" "http://127.0.0.1:$p/big" 2>"$T/curl.log" | sha256sum)
[ "$got" = "$want" ] || fail "checksum of two times $n MiB"
