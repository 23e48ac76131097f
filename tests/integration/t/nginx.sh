# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# nginx with two workers, keep-alive and both ways of sending files; curl compares, wrk loads
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
for SENDFILE in on off; do
	[ -z "${LAST:-}" ] || { kill -TERM "$LAST"; until_true 5 gone "$LAST"; rm -rf "$T/www"; }
	nginx_set_up "$SENDFILE"
	for n in 0 1 100 4097 70000 3000000; do random_file "$T/www/$n" $n; done
	nginx_up
	for n in 0 1 100 4097 70000 3000000; do urls+=("http://127.0.0.1:$p/$n" -o "$T/got.$n"); done
	client timeout 30 curl -sSf "${urls[@]}" || fail "curl, sendfile $SENDFILE"
	for n in 0 1 100 4097 70000 3000000; do same_file "$T/www/$n" "$T/got.$n"; done
	unset urls
	require wrk
	client timeout 30 wrk -t2 -c30 -d"$(size 1 2)s" "http://127.0.0.1:$p/4097" >"$T/wrk.log" 2>&1 || fail "wrk"
	! grep -E 'Socket errors|Non-2xx' "$T/wrk.log" || fail "wrk saw errors, sendfile $SENDFILE"
done
