#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# the link between two daemons: one key, two keys, nobody there, somebody silent; and no connect() waits for any of it
. "$(dirname "$0")/../../functions.sh"

PORT=9571 ECHO=18790
export WSD_PROXY_SOCKET=$T/d/proxyd.sock
ctl() { timeout 30 "$WSD_BUILD/tools/wsdctl" "$@"; }

# daemon KEY_DIGIT: starts one with the key that this digit makes
daemon() {
	(umask 077 && printf '%064d\n' "$1" >"$T/key")
	printf '[san]\nsubnets = %s/24, %s/64\nkey-file = %s\n' "$WSD_RXE_ADDRESS" "$WSD_RXE_ADDRESS6" "$T/key" >"$T/conf"
	start "daemon$1" "$WSD_BUILD/proxy_daemon/wsd-proxyd" --system --socket "$WSD_PROXY_SOCKET" --config "$T/conf" --log-level debug
	DAEMON=$STARTED
	until_true 20 test -S "$WSD_PROXY_SOCKET" || fail "no daemon"
	# one socket for each SAN address and none for all; IPv6 asks first whether anybody else has it
	until_true 30 listens || fail "it listens at: $(ss -Hltn "sport = :$PORT")"
}
listens() { [ "$(ss -Hltn "sport = :$PORT" | awk '{ print $4 }' | sort | tr '\n' ' ')" = "$(printf '%s\n' "$WSD_RXE_ADDRESS:$PORT" "[$WSD_RXE_ADDRESS6]:$PORT" | sort | tr '\n' ' ')" ]; }
no_daemon() {
	kill -TERM "$DAEMON"
	finished daemon "$DAEMON"
}

# try WANT ADDRESS WORDS: a link is (0) or is not (1) made, and why
try() {
	local rc=0
	ctl peers --try "$2" >"$T/try.log" 2>&1 || rc=$?
	cat "$T/try.log"
	[ $rc = "$1" ] || fail "wsdctl peers --try $2: exit $rc"
	grep -qF -- "$3" "$T/try.log" || fail "'$3' is not said"
}

# connects NAME: milliseconds that the slowest of 5 connect() took, each followed by enough traffic to be offered
connects() {
	timeout 60 "$WSD_BUILD/tools/wsdrun" python3 - "$WSD_RXE_PEER" $ECHO <<'PY' >"$T/connect.$1.log" 2>&1 || fail "connections while $1"
import socket, sys, time
slowest = 0
for _ in range(5):
	s = socket.socket()
	s.settimeout(20)
	t = time.monotonic()
	s.connect((sys.argv[1], int(sys.argv[2])))
	slowest = max(slowest, time.monotonic() - t)
	for i in range(20):
		word = b"%04d" % i * 100
		s.sendall(word)
		got = b""
		while len(got) < len(word):
			got += s.recv(4096) or sys.exit("cut off")
		assert got == word
	s.close()
print(int(slowest * 1000))
PY
	TOOK=$(tail -n 1 "$T/connect.$1.log")
	echo "connect() while $1: $TOOK ms at most"
}
# slower NAME: a second, the least a wait for the link would cost, is more than noise
slower() {
	connects "$1"
	[ "$TOOK" -lt $((BASE + 700)) ] || fail "connect() while $1: $TOOK ms, with a link $BASE ms"
}

if [ "$WSD_RXE_HOST" = 2 ]; then
	start echo python3 -c "
import socket, threading
l = socket.create_server(('', $ECHO))
def serve(s):
	while data := s.recv(65536):
		s.sendall(data)
while True:
	threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
"
	until_true 20 listening $ECHO || fail "no echo server"
fi

# one key
daemon 1
meet peers-up
if [ "$WSD_RXE_HOST" = 1 ]; then
	try 0 "$WSD_RXE_PEER" " up "
	try 0 "$WSD_RXE_PEER6" " up "
	connects "the link is up"
	BASE=$TOOK
fi
meet peers-linked
[ "$WSD_RXE_HOST" = 1 ] || { try 0 "$WSD_RXE_PEER" " up "; ctl peers | grep -q " it " || fail "not the other's link"; }
meet peers-one-key

# two keys
[ "$WSD_RXE_HOST" = 1 ] || { no_daemon; daemon 2; }
meet peers-two-keys
try 1 "$WSD_RXE_PEER" "does not have our cluster key"
[ "$WSD_RXE_HOST" = 2 ] || slower "the keys differ"
meet peers-tried

# a daemon that is stopped: its kernel accepts, nobody answers
[ "$WSD_RXE_HOST" = 1 ] || kill -STOP "$DAEMON"
meet peers-stopped
if [ "$WSD_RXE_HOST" = 1 ]; then
	slower "the peer's daemon is stopped"
	try 1 "$WSD_RXE_PEER" "no answer in time"
fi
meet peers-continue

# nobody
[ "$WSD_RXE_HOST" = 1 ] || { kill -CONT "$DAEMON"; no_daemon; }
meet peers-absent
if [ "$WSD_RXE_HOST" = 1 ]; then
	slower "the peer has no daemon"
	try 1 "$WSD_RXE_PEER" "no daemon listens there"
fi
meet peers-tried-absent

# packets to the port are dropped: a listener whose queue is full
if [ "$WSD_RXE_HOST" = 2 ]; then
	start full python3 -c "
import socket, time
l = socket.socket()
l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
l.bind(('$WSD_RXE_ADDRESS', $PORT))
l.listen(0)
held = []
for _ in range(4):
	s = socket.socket()
	s.setblocking(False)
	s.connect_ex(('$WSD_RXE_ADDRESS', $PORT))
	held.append(s)
print('full', flush=True)
time.sleep(1000)
"
	until_true 20 grep -q full "$T/full.log" || fail "no full listener"
fi
meet peers-dropped
if [ "$WSD_RXE_HOST" = 1 ]; then
	ctl peers --retry >/dev/null || fail "peers --retry"
	slower "packets to the peer's daemon are dropped"
	try 1 "$WSD_RXE_PEER" "no answer in time"
fi
meet peers-end
