# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# hosts.sh - for scripts of t/two: a daemon on each host, connections between them
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

WSDRUN=$WSD_BUILD/tools/wsdrun
if [ "$WSD_RXE_HOST" = 1 ]; then ROLE=listen SERVER=$WSD_RXE_ADDRESS; else ROLE=connect SERVER=$WSD_RXE_PEER; fi
export WSD_PROXY_SOCKET=$T/d/proxyd.sock

# daemon_up [LINE...]: with these lines in [san], in SUBNETS; DAEMON is its process
SUBNETS="$WSD_RXE_ADDRESS/24, $WSD_RXE_ADDRESS6/64"
daemon_up() {
	(umask 077 && printf '%064d\n' 1 >"$T/key")
	{
		printf '[san]\nsubnets = %s\nkey-file = %s\n' "$SUBNETS" "$T/key"
		[ $# = 0 ] || printf '%s\n' "$@"
	} >"$T/conf"
	start "daemon$((++DAEMONS))" "$WSD_BUILD/proxy_daemon/wsd-proxyd" --system --socket "$WSD_PROXY_SOCKET" --config "$T/conf" --log-level debug
	DAEMON=$STARTED
	until_true 20 "$WSD_BUILD/tools/wsdctl" status >/dev/null 2>&1 || fail "no daemon"
}
DAEMONS=0

# linked [NAME [PEER]]: the daemons know each other, so that the first offers are not lost on the way to that
linked() {
	meet "up-${1:-}"
	until_true 20 "$WSD_BUILD/tools/wsdctl" peers --try "${2:-$WSD_RXE_PEER}" >/dev/null 2>&1 || fail "no link between the daemons"
	meet "linked-${1:-}"
}

# traffic NAME KIND PORT: one end of it here, the other there; it goes on until traffic_ends
TRAFFIC=()
traffic() {
	WSD_LOG=$T/$1.wsd.log WSD_LOG_LEVEL=3 start "$1" "$WSDRUN" --stats -- python3 "$RXE/prog/traffic" "$ROLE" "$2" "$SERVER" "$3" "$T/$1"
	TRAFFIC+=("$1 $STARTED")
}
# pid_of_child PID: CHILD is what wsdrun runs there
pid_of_child() { CHILD=$(cut -d" " -f1 "/proc/$1/task/$1/children" 2>/dev/null) && [ -n "$CHILD" ]; }
moves() { grep -q '^moves$' "$T/$1.log"; }
# by_rdma NAME [N]: this end sends by RDMA, and has allowed the other to; N: for the Nth time
by_rdma() {
	local word
	for word in 'sends by RDMA' granted; do
		[ "$(grep -c "$word" "$T/$1.wsd.log" 2>/dev/null)" -ge "${2:-1}" ] 2>/dev/null || return 1
	done
}

# on_rdma NAME: this end sends by RDMA now
on_rdma() {
	[ "$(grep -c 'sends by RDMA' "$T/$1.wsd.log" 2>/dev/null)" -gt "$(returns "$1")" ] 2>/dev/null
}

# returns NAME: how often this end has returned to TCP; returned NAME N: more often than that
returns() { grep -c 'returns to TCP' "$T/$1.wsd.log" 2>/dev/null; }
returned() { [ "$(returns "$1")" -gt "$2" ] 2>/dev/null; }

# traffic_ends [SECONDS]: all of it; each end has had what the other sent
traffic_ends() {
	local t name pid
	for t in "${TRAFFIC[@]}"; do touch "$T/${t% *}.end"; done
	for t in "${TRAFFIC[@]}"; do
		name=${t% *} pid=${t#* }
		until_true "${1:-20}" ended "$pid" || fail "$name does not end: $(state_of "$pid")"
		wait "$pid" || fail "$name: $(cat "$T/$name.log")"
		grep -q ': right, ' "$T/$name.log" || fail "$name does not say how it went"
		echo "$(grep ': right, ' "$T/$name.log"); $(grep -o 'went through the SAN.*' "$T/$name.log")"
	done
	TRAFFIC=()
}
state_of() { cat /proc/"$1"/task/*/{wchan,syscall} 2>/dev/null | tr '\n' ' '; }

# stood NAME FROM TO: milliseconds, the longest time that it stood around the moment between FROM and TO at which something was done to it.
# Times at which the machine as a whole stood are taken off: two emulated hosts have little of a busy one
stood() {
	awk -v from="$2" -v to="$3" '
		BEGIN { n = m = 0 }
		$1 == "late" { late_from[n] = $2; late_to[n++] = $3 }
		$1 == "gap" && $3 * 1000 > from && $2 * 1000 < to + 1000 { gap_from[m] = $2; gap_to[m++] = $3 }
		END {
			for (g = 0; g < m; g++) {
				ms = gap_to[g] - gap_from[g]
				for (l = 0; l < n; l++) {
					a = late_from[l] > gap_from[g] ? late_from[l] : gap_from[g]
					b = late_to[l] < gap_to[g] ? late_to[l] : gap_to[g]
					if (b > a) ms -= b - a
				}
				if (ms > most) most = ms
			}
			print int(most * 1000)
		}' "$T/$1.log"
}

# ---- something is done to the SAN in mid-traffic, in rounds; KINDS are the connections that it is done to ----

KINDS=() BEFORE=() BEST=999999

# kinds_up PORT KIND...: traffic of each, by RDMA
kinds_up() {
	local port=$1 kind
	shift
	KINDS=("$@")
	for kind; do traffic "$kind" "$kind" $((port++)); done
	for kind; do until_true 90 by_rdma "$kind" || fail "$kind does not use RDMA"; done
}

# kinds_by_rdma [WHEN]: all of them, now; from here on kinds_returned counts. The other host may need much longer or shorter for it: meet ... 200
kind_by_rdma() {
	BEFORE[$1]=$(returns "${KINDS[$1]}")	# first: one that returns just now has to come to RDMA again
	on_rdma "${KINDS[$1]}"
}
kinds_by_rdma() {
	local i
	for i in "${!KINDS[@]}"; do until_true 90 kind_by_rdma "$i" || fail "${KINDS[i]} does not use RDMA${1:+ $1}"; done
}
kinds_returned() {
	local i
	for i in "${!KINDS[@]}"; do until_true 20 returned "${KINDS[i]}" "${BEFORE[i]}" || fail "${KINDS[i]} did not return"; done
}

# kinds_stood ROUND FROM TO KIND...: says how long each stood around that moment; the longest counts for the round, and BEST is that of the best
# round: a busy machine makes an emulated host stand for a second, which is not ours
kinds_stood() {
	local round=$1 from=$2 to=$3 worst=0 kind ms
	shift 3
	for kind; do
		ms=$(stood "$kind" "$from" "$to")
		echo "$round: $kind stood for $ms ms; $(grep -c 'by RDMA$' "$T/$kind.wsd.log") sessions so far"
		[ "$ms" -le $worst ] || worst=$ms
	done
	[ $worst -ge $BEST ] || BEST=$worst
}
kinds_moved_within() { [ "$BEST" -lt "$1" ] || fail "the stream moved again only after $BEST ms"; }

# roce_filter: drop and mend are for packets of RDMA that this host is sent. Not for those that it sends: who sends what its own host drops is told,
# and rxe then tries again without end (6.1: soft lockup). roce_unfilter is for UNDO.
roce_filter() {
	tc qdisc add dev "$WSD_RXE_NETDEV" clsact || fail "tc: no clsact"
	drop		# modules are loaded by the first one
	mend
}
drop() { tc filter add dev "$WSD_RXE_NETDEV" ingress protocol ip flower ip_proto udp dst_port 4791 action drop || fail "tc: no filter"; }
mend() { tc filter del dev "$WSD_RXE_NETDEV" ingress || fail "tc: the filter stays"; }
roce_unfilter() { tc qdisc del dev "$WSD_RXE_NETDEV" clsact; }

# uptime_ms, of CLOCK_MONOTONIC
uptime_ms() {
	local up rest
	read -r up rest </proc/uptime
	echo "${up/./}0"
}
