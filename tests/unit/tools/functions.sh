# shellcheck shell=bash disable=SC2034
# tests/unit/tools/functions.sh - a tree with the real tools and fakes around them
#
# Each script is called with WSDRUN WSDCTL FAKE_SWITCH.so, has $T as a directory of its own, and
# ends with the status of the first check that failed. Nothing sleeps to wait: until() looks.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
T=$(mktemp -d)
FAKE_PIDS=$T/pids
: > "$FAKE_PIDS"

cleanup() {
	local status=$? pid
	while read -r pid; do kill "$pid" 2>/dev/null || true; done < "$FAKE_PIDS"
	[ $status -eq 0 ] || { echo "FAILED with $status; output:"; cat "$T"/out "$T"/err 2>/dev/null || true; }
	rm -rf "$T"
}
trap cleanup EXIT

# a build tree: real wsdrun and wsdctl find what lies beside them
mkdir -p "$T/tree/tools" "$T/tree/wsd_switch" "$T/tree/proxy_daemon" "$T/tree/san_provider" "$T/run"
cp "$1" "$T/tree/tools/wsdrun"
cp "$2" "$T/tree/tools/wsdctl"
cp "$3" "$T/tree/wsd_switch/libwsd_switch.so"
cp "$here/fake-proxyd" "$T/tree/proxy_daemon/wsd-proxyd"
: > "$T/tree/san_provider/catalog.ini"
wsdrun=$T/tree/tools/wsdrun
wsdctl=$T/tree/tools/wsdctl
SOCK=$T/run/proxyd.sock
export FAKE_PIDS
# a sanitizer build preloads its runtime into whatever wsdrun starts: their leaks are not ours
printf 'leak:/bash\nleak:/dash\nleak:/python\n' > "$T/leaks"
export LSAN_OPTIONS=suppressions=$T/leaks:print_suppressions=0
unset LD_PRELOAD WSD_PROXY_SOCKET WSD_CATALOG WSD_PROVIDER WSD_STATS WSD_DISABLE WSD_OFFER_AFTER NOTIFY_SOCKET

# run a command, keep stdout, stderr and status
run() {
	status=0
	{ "$@" > "$T/out" 2> "$T/err" || status=$?; } 2> /dev/null	# the shell's own word about a killed child
}

fail() {
	echo "line ${BASH_LINENO[${1}]}: $2"
	exit 1
}

# expect STATUS [word of stdout or stderr...]
expect() {
	local want=$1
	shift
	[ "$status" -eq "$want" ] || fail 1 "status $status instead of $want"
	for word in "$@"; do
		grep -qF -- "$word" "$T/out" "$T/err" || fail 1 "no '$word' in the output"
	done
}

expect_not() {
	for word in "$@"; do
		! grep -qF -- "$word" "$T/out" "$T/err" || fail 1 "'$word' in the output"
	done
}

# until DEADLINE_SECONDS command...: true as soon as the command is
until_true() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || fail 1 "never true: $*"
		read -rt 0.02 <> <(:) || true
	done
}

# rdma_device: as sysfs would show one, rxe0 at 10.99.0.1, to who is told by WSD_TEST_SYSFS
rdma_device() {
	local d=$T/sys/class/infiniband/rxe0/ports/1
	mkdir -p "$T/sys/class/infiniband_verbs/uverbs0" "$T/sys/class/net/san0" "$d/gids" "$d/gid_attrs/types" "$d/gid_attrs/ndevs"
	echo rxe0 >"$T/sys/class/infiniband_verbs/uverbs0/ibdev"
	echo san0 >"$T/sys/class/infiniband/rxe0/parent"
	echo '4: ACTIVE' >"$d/state"
	echo Ethernet >"$d/link_layer"
	echo 0000:0000:0000:0000:0000:ffff:0a63:0001 >"$d/gids/0"
	echo 'RoCE v2' >"$d/gid_attrs/types/0"
	echo san0 >"$d/gid_attrs/ndevs/0"
	echo 4200 >"$T/sys/class/net/san0/mtu"
	echo 7 >"$T/sys/class/net/san0/ifindex"
	export WSD_TEST_SYSFS=$T/sys
}
