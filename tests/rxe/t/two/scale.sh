#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# long: a thousand sessions take a minute to set up in emulation
# a thousand connections between two processes of a user who may lock 8 MiB: all by RDMA, within 64 MiB that the daemon lets them lock
. "$(dirname "$0")/../../hosts.sh"

N=${WSD_TEST_MANY:-1000}
chmod 755 "$T"
chmod 666 /dev/infiniband/uverbs*	# as rdma-core's udev rules have it
daemon_up
linked
mkdir "$T/own"
chown nobody "$T/own"

many() {
	WSD_LOG=$T/own/wsd.log WSD_LOG_LEVEL=3 prlimit --memlock=8388608:8388608 --nofile=16384:16384 \
		setpriv --reuid=nobody --regid=nogroup --clear-groups --bounding-set=-all --inh-caps=-all \
		"$WSDRUN" --stats -- python3 "$RXE/prog/many" "$ROLE" "$SERVER" 18910 "$N" "${WSD_TEST_MANY_SECONDS:-70}" 5
}
[ "$WSD_RXE_HOST" = 2 ] || { start many many; until_true 20 listening 18910 || fail "no server"; }
meet scale-up
if [ "$WSD_RXE_HOST" = 2 ]; then
	many >"$T/many.log" 2>&1 || fail "$(grep -v "^ " "$T/many.log")"
else
	until_true 95 ended "$STARTED" || fail "it does not end"
	wait "$STARTED" || fail "$(grep -v "^ " "$T/many.log")"
fi
cat "$T/many.log"
meet scale-end
