# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# socat: to a file, from a file, through an echo, to a child process; IPv4 and IPv6
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
require socat
n=$(size 3000000 40000000)
random_file "$T/f" "$n"
for f in 4:127.0.0.1 "6:[::1]"; do
	v=${f%%:*} host=${f#*:}
	p=$(free_port)
	start_server "sink$v" timeout 60 socat -u "TCP$v-LISTEN:$p,reuseaddr" "OPEN:$T/got,creat,trunc"
	s=$LAST
	wait_port "$p"
	client timeout 60 socat -u "OPEN:$T/f" "TCP$v:$host:$p" || fail "send by IPv$v"
	finished "$s" 30 "socat" || fail "socat sink"
	same_file "$T/f" "$T/got" "IPv$v up"
	p=$(free_port)
	start_server "source$v" timeout 60 socat -u "OPEN:$T/f" "TCP$v-LISTEN:$p,reuseaddr"
	wait_port "$p"
	client timeout 60 socat -u "TCP$v:$host:$p" "OPEN:$T/got,creat,trunc" || fail "receive by IPv$v"
	same_file "$T/f" "$T/got" "IPv$v down"
	p=$(free_port)
	start_server "echo$v" socat "TCP$v-LISTEN:$p,reuseaddr,fork" EXEC:cat
	wait_port "$p"
	client timeout 60 socat -t 10 "OPEN:$T/f,rdonly!!OPEN:$T/got,creat,trunc" "TCP$v:$host:$p" || fail "through cat by IPv$v"
	same_file "$T/f" "$T/got" "IPv$v through cat"
done
