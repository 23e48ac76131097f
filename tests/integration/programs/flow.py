#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""flow.py - byte streams that check themselves

sink PORT [CONNS]      accepts, checks every byte against the pattern, prints 'N bytes, eof|reset' per connection
source PORT N CHUNK    sends N bytes of the pattern (0: until killed or refused), prints how it ended
echo PORT              a thread per connection sends back what it gets
forkecho PORT          the same with a process per connection
pingpong PORT ROUNDS SIZE [CONNS]   threads that send, wait for the echo and check it
multi PORT CONNS BYTES one asyncio client with many connections to an echo server, each checked by SHA-256
aecho PORT             asyncio echo server

The address is $FLOW_HOST, or 127.0.0.1.
"""
import asyncio
import hashlib
import os
import random
import signal
import socket
import sys
import threading

HOST = os.environ.get("FLOW_HOST", "127.0.0.1")
PERIOD = 65521
BLOCK = random.Random(1).randbytes(PERIOD)
DOUBLE = BLOCK * 33


def pattern(off, n):
    at = off % PERIOD
    assert at + n <= len(DOUBLE)
    return DOUBLE[at:at + n]


def listen(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((HOST, port))
    s.listen(1024)
    return s


def dial(port):
    s = socket.create_connection((HOST, port), 10)
    s.settimeout(None)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def sink(port, conns=1):
    ls = listen(port)
    rnd = random.Random(2)
    for _ in range(conns):
        c, _ = ls.accept()
        off, how = 0, "eof"
        while True:
            try:
                d = c.recv(rnd.choice((1, 100, 4096, 65536, 1 << 20)))
            except ConnectionResetError:
                how = "reset"
                break
            if not d:
                break
            if d != pattern(off, len(d)):
                print("WRONG BYTES between %d and %d" % (off, off + len(d)), flush=True)
                sys.exit(1)
            off += len(d)
            if off >> 20 != (off - len(d)) >> 20:
                print("at %d MiB" % (off >> 20), flush=True)
        c.close()
        print("%d bytes, %s" % (off, how), flush=True)


def source(port, total, chunk):
    s = dial(port)
    off, how = 0, "done"
    try:
        while not total or off < total:
            n = chunk if not total else min(chunk, total - off)
            s.sendall(pattern(off, n))
            off += n
            if off >> 20 != (off - n) >> 20:
                print("at %d MiB" % (off >> 20), flush=True)
        s.close()
    except (BrokenPipeError, ConnectionResetError) as e:
        how = type(e).__name__
    print("sent %d, %s" % (off, how), flush=True)


def echo_one(c):
    try:
        while True:
            d = c.recv(65536)
            if not d:
                break
            c.sendall(d)
    except OSError:
        pass
    c.close()


def echo(port):
    ls = listen(port)
    while True:
        c, _ = ls.accept()
        threading.Thread(target=echo_one, args=(c,), daemon=True).start()


def forkecho(port):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    ls = listen(port)
    while True:
        c, _ = ls.accept()
        first = c.recv(1)          # the parent has used the connection: it is the parent's until the child touches it
        if first:
            c.sendall(first)
        if os.fork() == 0:
            ls.close()
            echo_one(c)
            os._exit(0)
        c.close()


def pingpong(port, rounds, size, conns=1):
    bad = []

    def one(k):
        try:
            rounds_of(k)
        except OSError as e:
            bad.append("connection %d: %s" % (k, type(e).__name__))

    def rounds_of(k):
        s = dial(port)
        off = k * 7919
        for i in range(rounds):
            d = pattern(off, size)
            s.sendall(d)
            got = b""
            while len(got) < size:
                r = s.recv(size - len(got))
                if not r:
                    bad.append("connection %d: end of file in round %d" % (k, i))
                    return
                got += r
            if got != d:
                bad.append("connection %d: wrong bytes in round %d" % (k, i))
                return
            off += size
        s.close()

    ts = [threading.Thread(target=one, args=(k,)) for k in range(conns)]
    for t in ts:
        t.start()
    for t in ts:
        t.join()
    print(bad[0] if bad else "%d rounds of %d on %d connections ok" % (rounds, size, conns), flush=True)
    sys.exit(1 if bad else 0)


async def amulti(port, conns, nbytes):
    async def one(k):
        r, w = await asyncio.open_connection(HOST, port)
        data = pattern(k * 101, min(nbytes, 1 << 20)) * (1 + (nbytes >> 20))
        want, got, n = hashlib.sha256(data), hashlib.sha256(), 0

        async def send():
            at, rnd = 0, random.Random(k)
            while at < len(data):
                step = rnd.choice((1, 17, 1000, 16384, 100000))
                w.write(data[at:at + step])
                at += step
                await w.drain()
        task = asyncio.ensure_future(send())
        while n < len(data):
            d = await r.read(65536)
            if not d:
                return "connection %d: end of file after %d of %d" % (k, n, len(data))
            got.update(d)
            n += len(d)
        await task
        w.close()
        return None if got.digest() == want.digest() else "connection %d: checksum" % k
    res = await asyncio.gather(*(one(k) for k in range(conns)))
    bad = [x for x in res if x]
    print(bad[0] if bad else "%d connections ok" % conns, flush=True)
    sys.exit(1 if bad else 0)


async def aserve(port):
    async def one(r, w):
        try:
            while True:
                d = await r.read(65536)
                if not d:
                    break
                w.write(d)
                await w.drain()
        except OSError:
            pass
        w.close()
    srv = await asyncio.start_server(one, HOST, port, backlog=1024)
    async with srv:
        await srv.serve_forever()


def main():
    cmd, args = sys.argv[1], [int(a) for a in sys.argv[2:]]
    if cmd == "multi":
        asyncio.run(amulti(*args))
    elif cmd == "aecho":
        asyncio.run(aserve(*args))
    else:
        {"sink": sink, "source": source, "echo": echo, "forkecho": forkecho, "pingpong": pingpong}[cmd](*args)


if __name__ == "__main__":
    main()
