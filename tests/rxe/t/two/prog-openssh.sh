#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# long: key exchange in emulation takes seconds a connection
# seconds: 240
# sshd and scp both ways. Its processes pass the socket on and enter seccomp, so it is TCP that does it; what counts are the bytes.
. "$(dirname "$0")/../../programs.sh"

O=(-F none -i "$T/id" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o LogLevel=ERROR)
SUM=
if [ "$WSD_RXE_HOST" = 2 ]; then ssh-keygen -q -t ed25519 -N '' -f "$T/id" || fail "no key"; fi

# the server learns the client's public key by a connection of its own; the file is the same on both hosts
serve() {
	mkdir -p /run/sshd
	[ -e "$T/host" ] || ssh-keygen -q -t ed25519 -N '' -f "$T/host" || fail "no key"
	[ -e "$T/id.pub" ] || timeout 40 python3 -c 'import socket, sys
sys.stdout.write(socket.create_server((sys.argv[1], 18907)).accept()[0].makefile().read())' "$WSD_RXE_ADDRESS" >"$T/id.pub" || fail "no key came"
	cat >"$T/sshd.conf" <<-END
		Port 18906
		ListenAddress $WSD_RXE_ADDRESS
		HostKey $T/host
		PidFile $T/sshd.pid
		AuthorizedKeysFile $T/id.pub
		PermitRootLogin yes
		StrictModes no
		UsePAM no
		Subsystem sftp internal-sftp
	END
	up sshd 18906 "$(command -v sshd)" -D -e -f "$T/sshd.conf"
}

hand_over_key() {
	until_true 30 python3 -c 'import socket, sys
s = socket.create_connection((sys.argv[1], 18907))
s.sendall(open(sys.argv[2], "rb").read())' "$WSD_RXE_PEER" "$T/id.pub" 2>/dev/null || fail "nobody takes the key"
}
[ "$WSD_RXE_HOST" = 1 ] || hand_over_key

use() {
	local n=5000000
	[ "$SIDES" = both ] || n=1000000
	random_file "$T/f" $n
	client up scp "${O[@]}" -P 18906 "$T/f" "root@$WSD_RXE_PEER:/tmp/ssh-up" >"$T/scp.log" 2>&1 || fail "scp up"
	share up 0
	client down scp "${O[@]}" -P 18906 "root@$WSD_RXE_PEER:/tmp/ssh-up" "$T/down" >"$T/scp.log" 2>&1 || fail "scp down"
	share down 0
	same_file "$T/f" "$T/down"
	client cat ssh "${O[@]}" -p 18906 "root@$WSD_RXE_PEER" cat /tmp/ssh-up >"$T/cat" 2>"$T/ssh.log" || fail "ssh cat"
	same_file "$T/f" "$T/cat"
}
over_two_hosts
