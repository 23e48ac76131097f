# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# variants: both shake
# something that is not the daemon answers on its socket: garbage, silence, closing at once
. "$(dirname "${BASH_SOURCE[0]}")/../functions.sh"
own_daemon_set_up
cat >"$T/liar" <<'END'
import os, socket, sys, random
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind(sys.argv[1])
s.listen(50)
r = random.Random(4)
keep = []
while True:
    c, _ = s.accept()
    what = r.randrange(3)
    try:
        for i in range(5 if what == 0 else 0):
            c.send(r.randbytes(r.choice((1, 7, 8, 16, 64, 200))))
    except OSError:
        pass
    if what == 1:
        c.close()
    else:
        keep.append(c)
END
start liar "$PY" "$T/liar" "$sock"
until_true 5 test -S "$sock" || fail "the liar does not listen"
for i in 1 2 3; do
	p=$(free_port)
	start_pair 500
	finished "$client" 30 "the client" || fail "with a daemon that lies"
done
