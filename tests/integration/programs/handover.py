#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""handover.py - an established, busy connection changes hands

exec PORT CMD...   accepts, makes 100 round trips itself, then a child runs CMD with the socket as stdin and stdout
pass PORT          accepts, makes 100 round trips, passes the descriptor by SCM_RIGHTS to a process that echoes on
                   and that was started before; the first process closes its own
spawn HOW PORT     accepts, makes 100 round trips, then a child that HOW makes (posix_spawn, system, popen, subprocess,
                   stdin: subprocess with the socket as stdin) echoes on; the first process closes its own
chain PORT         as pass, over two processes; the one in the middle makes 100 round trips
echo FD            what the children of spawn run
vfork PORT         echoes, and starts short programs by subprocess in between: they inherit nothing and must not disturb
daemonise PORT     accepts, makes 100 round trips, forks; the parent exits, the child echoes on
"""
import array
import ctypes
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


def send_fd(u, c):
    u.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [c.fileno()]))])
    c.close()


def spawn(how, c):
    c.setblocking(True)
    args = [sys.executable, os.path.abspath(__file__), "echo", str(c.fileno())]
    if how == "stdin":
        args[3] = "0"
        p = subprocess.Popen(args, stdin=c.fileno())
        c.close()
        return p.wait()
    if how == "subprocess":
        p = subprocess.Popen(args, pass_fds=[c.fileno()])
        c.close()
        return p.wait()
    c.set_inheritable(True)
    if how == "posix_spawn":
        pid = os.posix_spawn(args[0], args, os.environ)
        c.close()
        return os.waitpid(pid, 0)[1]
    if how == "system":
        return os.system("exec " + " ".join(args))
    if how == "popen":
        lib = ctypes.CDLL(None)
        lib.popen.restype = ctypes.c_void_p
        f = lib.popen(("exec " + " ".join(args)).encode(), b"r")
        c.close()
        return lib.pclose(ctypes.c_void_p(f))
    raise ValueError(how)


def main():
    if sys.argv[1] == "spawn":
        c, _ = listen(int(sys.argv[3])).accept()
        echo(c, 100)
        sys.exit(1 if spawn(sys.argv[2], c) else 0)
    cmd, port = sys.argv[1], int(sys.argv[2])
    if cmd == "echo":
        echo(socket.socket(fileno=port))
        sys.exit(0)
    if cmd == "chain":
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        x, y = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        if os.fork() == 0:
            a.close()
            y.close()
            c = receive(b)
            echo(c, 100)
            send_fd(x, c)
            os._exit(0)
        if os.fork() == 0:
            a.close()
            b.close()
            x.close()
            echo(receive(y))
            os._exit(0)
        b.close()
        x.close()
        y.close()
        c, _ = listen(port).accept()
        echo(c, 100)
        send_fd(a, c)
        os.wait()
        os.wait()
        sys.exit(0)
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
        send_fd(a, c)
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
