# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# sshd (privilege separation, seccomp sandbox, several processes and users) and scp both ways
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
require sshd scp ssh ssh-keygen
[ "$(id -u)" = 0 ] || skip "sshd is started as root"
mkdir -p /run/sshd
p=$(free_port)
ssh-keygen -q -t ed25519 -N '' -f "$T/host" && ssh-keygen -q -t ed25519 -N '' -f "$T/id" || fail "keys"
chmod 700 "$T"
cat >"$T/sshd.conf" <<END
Port $p
ListenAddress 127.0.0.1
HostKey $T/host
PidFile $T/sshd.pid
AuthorizedKeysFile $T/id.pub
PermitRootLogin yes
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
END
start_server sshd /usr/sbin/sshd -D -e -f "$T/sshd.conf"
wait_port "$p"
o=(-F none -i "$T/id" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o LogLevel=ERROR)
random_file "$T/f" "$(size 2000000 20000000)"
client timeout 40 scp "${o[@]}" -P "$p" "$T/f" "root@127.0.0.1:$T/up" >"$T/scp.log" 2>&1 || fail "scp up"
same_file "$T/f" "$T/up"
client timeout 40 scp "${o[@]}" -P "$p" "root@127.0.0.1:$T/f" "$T/down" >"$T/scp.log" 2>&1 || fail "scp down"
same_file "$T/f" "$T/down"
got=$(client timeout 40 ssh "${o[@]}" -p "$p" root@127.0.0.1 cat "$T/f" 2>"$T/ssh.log" | sha256sum)
[ "$got" = "$(sha256sum <"$T/f")" ] || fail "ssh cat"
