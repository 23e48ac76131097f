#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# short: 6.1 running
# seconds: 400
# packets of RDMA are dropped one way only, in the middle of traffic both ways: first what host 1 is sent, then what host 2 is. What the other way
# brings arrives, but nothing of it is known to have. TCP goes on within 2 s, later tries cost less, no byte is lost; mended, RDMA is used again.
. "$(dirname "$0")/../../hosts.sh"

# the better one counts, see path.sh, and there for why what comes in is dropped
DEAD=${WSD_TEST_DEAD:-6} BOUND_MS=${WSD_TEST_ONEWAY_MS:-2000} ROCE=4791
export WSD_TEST_PACE=${WSD_TEST_PACE:-0.01}
drop() { tc filter add dev "$WSD_RXE_NETDEV" ingress protocol ip flower ip_proto udp dst_port $ROCE action drop || fail "tc: no filter"; }
mend() { tc filter del dev "$WSD_RXE_NETDEV" ingress || fail "tc: the filter stays"; }
# the daemon offers again at once when addresses of a device have changed; the next try may be a minute away
news() { ip address add "10.97.$1.$WSD_RXE_HOST/32" dev "$WSD_RXE_NETDEV" || fail "no address"; }
undo() {
	tc qdisc del dev "$WSD_RXE_NETDEV" clsact
	ip address del "10.97.1.$WSD_RXE_HOST/32" dev "$WSD_RXE_NETDEV"
	ip address del "10.97.2.$WSD_RXE_HOST/32" dev "$WSD_RXE_NETDEV"
}
UNDO=undo
tc qdisc add dev "$WSD_RXE_NETDEV" clsact || fail "tc: no clsact"
drop		# modules are loaded by the first one
mend

daemon_up
linked
names=(stream pingpong)
for i in 0 1; do traffic "${names[i]}" "${names[i]}" $((18880 + i)); done
for name in "${names[@]}"; do until_true 90 by_rdma "$name" || fail "$name does not use RDMA"; done
best=999999
for deaf in 1 2; do
	for i in 0 1; do
		until_true 90 on_rdma "${names[i]}" || fail "${names[i]} does not use RDMA"
		before[i]=$(returns "${names[i]}")
	done
	meet oneway-moves$deaf
	from=$(uptime_ms)
	[ "$WSD_RXE_HOST" != $deaf ] || drop
	to=$(uptime_ms)
	meet oneway-cut$deaf
	for i in 0 1; do until_true 20 returned "${names[i]}" "${before[i]}" || fail "${names[i]} did not return"; done
	left=$(uptime_ms)
	sleep "$DEAD"	# of traffic, and of tries
	tries=$(uptime_ms)
	meet oneway-over$deaf
	[ "$WSD_RXE_HOST" != $deaf ] || mend
	meet oneway-mended$deaf
	news $deaf
	for name in "${names[@]}"; do until_true 90 on_rdma "$name" || fail "$name does not use RDMA again"; done
	worst=0
	for i in 0 1; do
		ms=$(stood "${names[i]}" "$from" "$to")
		echo "host $deaf deaf: ${names[i]} stood for $ms ms, later for $(stood "${names[i]}" $((left + 1500)) $((tries - 1000))) ms at most;" \
			"$(grep -c 'by RDMA$' "$T/${names[i]}.wsd.log") sessions so far, returned $(($(returns "${names[i]}") - before[i])) times"
		[ "$ms" -le $worst ] || worst=$ms
	done
	[ $worst -ge $best ] || best=$worst
done
[ $best -lt "$BOUND_MS" ] || fail "the stream moved again only after $best ms"
meet oneway-again
traffic_ends 60
meet oneway-end
