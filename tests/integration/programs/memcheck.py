#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""memcheck.py PORT: a memcached client that compares every value it gets with what it set."""
import os
import random
import socket
import sys

s = socket.create_connection((os.environ.get("FLOW_HOST", "127.0.0.1"), int(sys.argv[1])), 10)
f = s.makefile("rb")
rnd = random.Random(5)
have = {}
for i in range(int(sys.argv[2])):
    k = "key%d" % rnd.randrange(200)
    if rnd.random() < 0.4 or k not in have:
        v = rnd.randbytes(rnd.choice((0, 1, 50, 1000, 4096, 70000, 500000)))
        s.sendall(b"set %s 0 0 %d\r\n%s\r\n" % (k.encode(), len(v), v))
        line = f.readline()
        if line != b"STORED\r\n":
            sys.exit("set %s gave %r" % (k, line))
        have[k] = v
    else:
        s.sendall(b"get %s\r\n" % k.encode())
        line = f.readline()
        if line == b"END\r\n":
            continue
        n = int(line.split()[3])
        v = f.read(n)
        if v != have[k] or f.readline() != b"\r\n" or f.readline() != b"END\r\n":
            sys.exit("get %s: wrong value (%d bytes)" % (k, n))
print("all values right")
