# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# reload under load: old workers finish their connections, no request fails, the new ones serve
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
nginx_set_up on
random_file "$T/www/f" 20000
nginx_up
n=$(size 150 400)
cat >"$T/fetch" <<'END'
import hashlib, http.client, sys, time
port, n, want = int(sys.argv[1]), int(sys.argv[2]), hashlib.sha256(open(sys.argv[3], "rb").read()).digest()
c, retries = None, 0
for i in range(n):
    while True:
        try:
            c = c or http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            c.request("GET", "/f")
            d = c.getresponse().read()
            break
        except (ConnectionError, http.client.HTTPException):   # an idle keep-alive connection may be closed by a reload
            c, retries = None, retries + 1
            if retries > 50:
                sys.exit("too many connections refused")
    if hashlib.sha256(d).digest() != want:
        sys.exit("request %d: wrong body of %d bytes" % (i, len(d)))
print("all right")
END
fetchers=()
for i in 1 2 3 4; do
	start_client "fetch$i" "$PY" "$T/fetch" "$p" "$n" "$T/www/f"
	fetchers+=("$LAST")
done
for i in 1 2 3; do
	kill -HUP "$(cat "$T/nginx.pid")" || fail "reload"
	client timeout 10 curl -sSf "http://127.0.0.1:$p/f" -o "$T/got" || fail "curl after reload"
	same_file "$T/www/f" "$T/got"
done
for f in "${fetchers[@]}"; do finished "$f" 60 "a client" || fail "a client failed"; done
