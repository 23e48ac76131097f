#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# seconds: 400
# many connections between two processes of a user who may lock little: all by RDMA, all bytes right, 20 KiB locked for each, as the daemon
# lets them. With WSD_TEST_RXE_LONG=1 a thousand within 64 MiB, under the usual limit of 8 MiB.
. "$(dirname "$0")/../../hosts.sh"

# emulated, a thousand take a minute when nothing else runs
if [ "${WSD_TEST_RXE_LONG:-}" = 1 ]; then N=1000 LIMIT=8388608 SECS=330; else N=60 LIMIT=1048576 SECS=50; fi
N=${WSD_TEST_MANY:-$N}
chmod 755 "$T"
chmod 666 /dev/infiniband/uverbs*	# as rdma-core's udev rules have it
daemon_up
linked
mkdir "$T/own"
chown nobody "$T/own"

many() {
	WSD_LOG=$T/own/wsd.log WSD_LOG_LEVEL=3 prlimit --memlock=$LIMIT:$LIMIT --nofile=16384:16384 \
		setpriv --reuid=nobody --regid=nogroup --clear-groups --bounding-set=-all --inh-caps=-all \
		"$WSDRUN" --stats -- python3 "$RXE/prog/many" "$ROLE" "$SERVER" 18910 "$N" "$SECS" 5
}
# all but the table of --stats, which has a line for each process: a traceback is indented as well
told() { grep -vE '^ +(pid|[0-9]+) +[^ ]+ +(conns|[0-9]+) ' "$T/many.log"; }
[ "$WSD_RXE_HOST" = 2 ] || { start many many; until_true 20 listening 18910 || fail "no server"; }
meet scale-up
if [ "$WSD_RXE_HOST" = 2 ]; then
	many >"$T/many.log" 2>&1 || fail "$(told)"
else
	until_true $((SECS + 40)) ended "$STARTED" || fail "it does not end"
	wait "$STARTED" || fail "$(told)"
fi
grep -E "rounds|RLIMIT" "$T/many.log"
echo "the daemon's user and system time: $(cut -d" " -f14,15 "/proc/$DAEMON/stat") hundredths"
meet scale-end
