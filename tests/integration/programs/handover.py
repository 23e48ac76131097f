#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""handover.py - an established, busy connection changes hands

exec PORT CMD...   accepts, makes 100 round trips itself, then a child runs CMD with the socket as stdin and stdout
pass PORT          accepts, makes 100 round trips, passes the descriptor by SCM_RIGHTS to a process that echoes on
                   and that was started before; the first process closes its own
vfork PORT         echoes, and starts short programs by subprocess in between: they inherit nothing and must not disturb
daemonise PORT     accepts, makes 100 round trips, forks; the parent exits, the child echoes on
"""
import array
import os
import socket
import subprocess
import sys


def listen(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", port))
    s.listen(10)
    return s


def echo(c, rounds=None, each=None):
    n = 0
    while rounds is None or n < rounds:
        d = c.recv(65536)
        if not d:
            return
        c.sendall(d)
        n += 1
        if each:
            each(n)


def receive(u):
    data, anc, _, _ = u.recvmsg(1, socket.CMSG_SPACE(4))
    fds = array.array("i")
    fds.frombytes(anc[0][2][:4])
    return socket.socket(fileno=fds[0])


def main():
    cmd, port = sys.argv[1], int(sys.argv[2])
    if cmd == "exec":
        c, _ = listen(port).accept()
        echo(c, 100)
        sys.exit(subprocess.run(sys.argv[3:], stdin=c.fileno(), stdout=c.fileno()).returncode)
    if cmd == "pass":
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.fork() == 0:
            a.close()
            echo(receive(b))
            os._exit(0)
        b.close()
        c, _ = listen(port).accept()
        echo(c, 100)
        a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [c.fileno()]))])
        c.close()
        os.wait()
    if cmd == "vfork":
        c, _ = listen(port).accept()
        echo(c, None, lambda n: n % 20 == 0 and subprocess.run(["/bin/true"], check=True))
    if cmd == "daemonise":
        c, _ = listen(port).accept()
        echo(c, 100)
        if os.fork():
            os._exit(0)
        os.setsid()
        echo(c)


main()
