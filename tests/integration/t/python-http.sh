# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# python3 -m http.server: file objects over sockets
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
require curl
p=$(free_port)
mkdir "$T/www"
random_file "$T/www/f" "$(size 3000000 20000000)"
start_server http "$PY" -m http.server "$p" --bind 127.0.0.1 --directory "$T/www"
wait_port "$p"
for i in 1 2 3; do
	client timeout 30 curl -sSf "http://127.0.0.1:$p/f" -o "$T/got" || fail "curl"
	same_file "$T/www/f" "$T/got"
done
