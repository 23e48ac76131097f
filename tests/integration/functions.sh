# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# functions.sh - what every whole-program test uses
#
# A test is a script in t/. It is run once per variant, with VARIANT set:
#   plain   both sides on kernel TCP (tests the test)       both    both sides under wsdrun
#   server  only the server side under wsdrun               client  only the client side
#   shake   both, sessions at once and gates closing and opening at random (WSD_TEST_SHAKE)
# It says which side a command belongs to with server CMD / client CMD, or start_server NAME CMD for one that stays.
# It exits 0 when all was right, 77 to be skipped; anything else, or running out of time, is a failure.
# Nothing waits by sleeping: until_true polls a condition with a deadline.

set -u -o pipefail

VARIANT=${VARIANT:-plain}
WSD_BUILD=${WSD_BUILD:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build}
WSDRUN=${WSDRUN-$WSD_BUILD/tools/wsdrun}
QUICK=${QUICK:-0}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PROGRAMS=$HERE/programs
PY=/usr/bin/python3
[ -x $PY ] || PY=$(command -v python3)
T=$(mktemp -d "${TMPDIR:-/tmp}/wsd-it.XXXXXX")
chmod 755 "$T"		# servers drop privileges
PIDS=()

export WSD_BUILD WSDRUN VARIANT PROGRAMS PY T
[ "$VARIANT" != shake ] || export WSD_TEST_SHAKE=${WSD_TEST_SHAKE:-7} WSD_OFFER_AFTER=0

server_words=() client_words=()
if [ -n "$WSDRUN" ]; then
	case $VARIANT in
	both | shake) server_words=("$WSDRUN") client_words=("$WSDRUN") ;;
	server) server_words=("$WSDRUN") ;;
	client) client_words=("$WSDRUN") ;;
	esac
fi

cleanup() {
	local rc=$? p
	trap - EXIT
	for p in "${PIDS[@]}"; do kill -TERM "$p" 2>/dev/null; done
	for p in "${PIDS[@]}"; do
		until_true 3 gone "$p" || kill -KILL "$p" 2>/dev/null
		wait "$p" 2>/dev/null
	done
	if [ $rc -ne 0 ] && [ $rc -ne 77 ] && [ -n "${KEEP:-}" ]; then
		mkdir -p "$KEEP" && find "$T" -maxdepth 1 -name '*.log' -size -2M -exec cp {} "$KEEP/" \; 2>/dev/null
	fi
	rm -rf "$T"
	exit $rc
}
trap cleanup EXIT
trap 'exit 143' TERM INT

gone() { ! kill -0 "$1" 2>/dev/null || [ "$(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null)" = Z ]; }

fail() {
	local l
	echo "FAILED: $*" >&2
	for l in "$T"/*.log; do
		[ -s "$l" ] || continue
		echo "--- ${l##*/} (end)" >&2
		tail -n 8 "$l" | cut -c1-300 >&2
	done
	exit 1
}

skip() {
	echo "skipped: $*"
	exit 77
}

require() {
	local c
	for c; do
		command -v "$c" >/dev/null 2>&1 || [ -x "/usr/sbin/$c" ] || skip "$c is not installed"
	done
}

# until_true SECONDS CMD...: true as soon as CMD is, false at the deadline
until_true() {
	local end=$((SECONDS + $1 + 1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		read -rt 0.02 <> <(:) || :
	done
}

server() { "${server_words[@]}" "$@"; }
client() { "${client_words[@]}" "$@"; }

free_port() {
	"$PY" -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

listening() { ss -Hltn "sport = :$1" 2>/dev/null | grep -q .; }

# start NAME CMD...: in the background, output in NAME.log; its pid is in $LAST and ended with the test
start() {
	local name=$1
	shift
	: >"$T/$name.log"	# now, not when the background shell gets to it: nobody may read the last round's
	"$@" >"$T/$name.log" 2>&1 </dev/null &
	LAST=$!
	PIDS+=("$LAST")
}
start_server() { local n=$1; shift; start "$n" "${server_words[@]}" "$@"; }
start_client() { local n=$1; shift; start "$n" "${client_words[@]}" "$@"; }

wait_port() {
	until_true "${2:-10}" listening "$1" || fail "nothing listens on port $1"
}

# finished PID SECONDS WHAT: waits for a background command and passes on its status
finished() {
	until_true "$2" gone "$1" || fail "$3 has not finished in $2 s (a hang)"
	wait "$1"
}

same_file() { cmp "$1" "$2" >&2 || fail "${3:-$1 and $2} differ: $(stat -c %s "$1" "$2" | tr '\n' ' ')bytes"; }

random_file() { head -c "$2" /dev/urandom >"$1" || fail "cannot make $1"; }

size() { if [ "$QUICK" = 1 ]; then echo "$1"; else echo "$2"; fi; }

# ---- servers that several tests use; each sets p, the port ----

redis_up() {
	require redis-server redis-cli redis-benchmark ss
	p=$(free_port)
	start_server redis redis-server --port "$p" --bind 127.0.0.1 --dir "$T" --save "" --appendonly no \
		--enable-debug-command yes --proto-max-bulk-len 512mb
	wait_port "$p"
}

# nginx_set_up on|off: configuration for sendfile on or off, an empty $T/www
nginx_set_up() {
	require nginx curl ss
	p=$(free_port)
	mkdir -p "$T/www"
	cat >"$T/nginx.conf" <<-END
		worker_processes 2;
		pid $T/nginx.pid;
		error_log $T/error.log;
		events { worker_connections 512; }
		http {
			access_log off;
			sendfile $1;
			keepalive_requests 100000;
			client_body_temp_path $T/body; proxy_temp_path $T/proxy; fastcgi_temp_path $T/f;
			uwsgi_temp_path $T/u; scgi_temp_path $T/s;
			server { listen 127.0.0.1:$p; root $T/www; }
		}
	END
}
nginx_up() {
	start_server nginx nginx -p "$T" -c "$T/nginx.conf" -g "daemon off;"
	wait_port "$p"
}

# A daemon of the test's own, at a socket that only the test's programs know.
own_daemon_set_up() {
	[ -n "$WSDRUN" ] || skip "needs the switch"
	proxyd=$WSD_BUILD/proxy_daemon/wsd-proxyd
	[ -x "$proxyd" ] || fail "$proxyd is not built"
	mkdir -m 700 "$T/d"
	sock=$T/d/proxyd.sock
	p=$(free_port)
}
start_daemon() {
	start daemon "$proxyd" --private --stay --socket "$sock" "$@"
	daemon=$LAST
	until_true 5 test -S "$sock" || fail "no daemon"
}
under() { "$WSDRUN" --no-start --socket "$sock" "$@"; }
# start_pair ROUNDS: an echo server and a client that checks, on that daemon; pid of the latter in $client
start_pair() {
	# words, not the function: kill must reach the program itself
	start echo "$WSDRUN" --no-start --socket "$sock" "$PY" "$PROGRAMS/flow.py" echo "$p"
	wait_port "$p"
	start client "$WSDRUN" --no-start --socket "$sock" "$PY" "$PROGRAMS/flow.py" pingpong "$p" "$1" 200 4
	client=$LAST
}
busy() { ss -Htn "dport = :$p" | grep -q ESTAB; }
