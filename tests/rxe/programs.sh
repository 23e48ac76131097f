# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# programs.sh - for scripts of t/two that run somebody else's programs: the server on host 1, its clients on host 2
#
# A script defines serve(), which starts the server by up NAME PORT CMD..., and use(), which runs clients by client NAME CMD... and checks
# what they got; then it says over_two_hosts. That does both three times: with both sides under wsdrun, and with one of them on its own:
# then all goes by TCP, and just as well. SIDES tells which it is. share NAME PERCENT: so much of what a client moved went by the SAN, and
# some, unless that is 0.
. "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"

PROGRAMS=$RXE/../integration/programs
export FLOW_HOST=$SERVER
chmod 755 "$T"		# servers drop privileges
daemon_up
linked

# up NAME PORT CMD...
up() {
	local name=$1 port=$2 run=()
	shift 2
	[ "$SIDES" = client ] || run=("$WSDRUN" --stats --)
	WSD_LOG=$T/$name.wsd.log WSD_LOG_LEVEL=3 start "$name" "${run[@]}" "$@"
	SERVERS+=("$STARTED")
	until_true 20 listening "$port" || fail "$name does not listen"
}

# client NAME CMD...: to its end; what it says on its outputs is for the caller
client() {
	local name=$1 run=()
	shift
	[ "$SIDES" = server ] || run=("$WSDRUN" --stats-json="$T/$name.json" --)
	local t rc=0
	t=$(uptime_ms)
	WSD_LOG=$T/$name.wsd.log WSD_LOG_LEVEL=3 timeout -k 2 "${CLIENT_SECONDS:-60}" "${run[@]}" "$@" || rc=$?
	[ -z "${WSD_TEST_SHOW:-}" ] || echo "$SIDES $name: $(($(uptime_ms) - t)) ms" >&2
	return $rc
}

# share NAME PERCENT: says it, and fails where both sides could and less went by the SAN
share() {
	[ "$SIDES" = both ] || return 0
	python3 - "$T/$1.json" "$1" "$2" <<'PY' || fail "$1: too little by the SAN: $(tail -n 3 "$T/$1.wsd.log" 2>/dev/null)"
import json, sys
file, name, least = sys.argv[1:]
t = json.load(open(file))["total"]
san = t["ring_tx"] + t["ring_rx"]
all = san + t["tcp_tx"] + t["tcp_rx"]
print("%s: %d of %d connections accelerated, %.1f %% of %.1f MB by the SAN%s" % (name, t["accelerated"], t["connections"],
	100 * san / max(all, 1), all / 1e6, ", " + ", ".join("%s %d" % r for r in t["reasons"].items()) if t["reasons"] else ""), flush=True)
if t["accelerated_rdma"] != t["accelerated"]:
	sys.exit("only %d of them by RDMA, says wsdrun" % t["accelerated_rdma"])
sys.exit(100 * san < int(least) * all or int(least) > 0 and not san)
PY
}

same_file() { cmp "$1" "$2" >&2 || fail "${3:-$1 and $2} differ"; }
# random_file NAME BYTES: at host 1 and at host 2 the same, by its name
random_file() { python3 -c 'import random, sys; sys.stdout.buffer.write(random.Random(sys.argv[1]).randbytes(int(sys.argv[2])))' "${1##*/}" "$2" >"$1"; }

over_two_hosts() {
	local p t0
	for SIDES in ${WSD_TEST_SIDES:-both server client}; do
		t0=$SECONDS
		SERVERS=()
		[ "$WSD_RXE_HOST" = 2 ] || serve
		meet "$SIDES-up-$0"
		if [ "$WSD_RXE_HOST" = 2 ]; then
			use
			echo "$SIDES: $((SECONDS - t0)) s"
		fi
		meet "$SIDES-used-$0" 180
		for p in "${SERVERS[@]}"; do
			kill -TERM "$p" 2>/dev/null
			until_true 10 ended "$p" || fail "a server does not end: $(state_of "$p")"
		done
	done
	meet "end-$0"
}

# ---- nginx: on port 18904 by sendfile, on 18905 not; nginx_files SIZE... on both hosts before all ----

nginx_files() {
	local n
	SIZES=("$@")
	mkdir "$T/www"
	for n; do random_file "$T/www/$n" "$n"; done
}
nginx_up() {
	cat >"$T/nginx.conf" <<-END
		worker_processes 2;
		pid $T/nginx.pid;
		error_log $T/error.log;
		events { worker_connections 512; }
		http {
			access_log off;
			keepalive_requests 100000;
			client_body_temp_path $T/body; proxy_temp_path $T/proxy; fastcgi_temp_path $T/f;
			uwsgi_temp_path $T/u; scgi_temp_path $T/s;
			server { listen $WSD_RXE_ADDRESS:18904; root $T/www; sendfile on; }
			server { listen $WSD_RXE_ADDRESS:18905; root $T/www; sendfile off; }
		}
	END
	up nginx 18904 nginx -p "$T" -c "$T/nginx.conf" -g "daemon off;"
}

# nginx_get NAME PORT ROUNDS CURL_OPTION...: every file so often, each compared
nginx_get() {
	local name=$1 port=$2 rounds=$3 i n urls=()
	shift 3
	rm -rf "$T/got" && mkdir "$T/got"
	for ((i = 0; i < rounds; i++)); do
		for n in "${SIZES[@]}"; do urls+=("http://$WSD_RXE_PEER:$port/$n" -o "$T/got/$n.$i"); done
	done
	client "$name" curl -sSf "$@" "${urls[@]}" 2>"$T/curl.log" || fail "$name: curl $?"
	# one process for all of it: in emulation a process costs a fifth of a second
	python3 - "$T/www" "$T/got" $((rounds * ${#SIZES[@]})) <<'PY' || fail "$name: wrong bytes"
import os, sys
www, got, n = sys.argv[1:]
want = {name: open(os.path.join(www, name), "rb").read() for name in os.listdir(www)}
names = os.listdir(got)
wrong = [name for name in names if open(os.path.join(got, name), "rb").read() != want[name.split(".")[0]]]
sys.exit(f"{len(names)} files, wrong: {wrong}" if wrong or len(names) != int(n) else 0)
PY
}
