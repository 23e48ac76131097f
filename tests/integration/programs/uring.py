# SPDX-License-Identifier: MIT
"""uring.py PORT ROUNDS SOCKET - an echo server that has an io_uring of liburing's for its file, as a database has.

Each message is answered behind a read of the file by the ring. With SOCKET=1 every thousandth is sent by the ring as well.
Exit 77: no io_uring here.
"""
import ctypes
import os
import random
import socket
import struct
import sys
import tempfile

port, rounds, by_ring = (int(a) for a in sys.argv[1:])
SIZE = 200
OP_READ, OP_SEND = 22, 26


class Ring(ctypes.Structure):
    _fields_ = [(n, ctypes.POINTER(ctypes.c_uint)) for n in ("khead", "ktail", "mask", "entries", "kflags", "dropped", "array")] + [
        ("sqes", ctypes.c_void_p), ("head", ctypes.c_uint), ("tail", ctypes.c_uint), ("rest", ctypes.c_char * 400)]


try:
    own = ctypes.CDLL("liburing.so.2")	# RTLD_LOCAL, as a plug-in of a server would bring it
except OSError:
    sys.exit(77)
ring = Ring()
if own.io_uring_queue_init(8, ctypes.byref(ring), 0) < 0:
    sys.exit(77)	# the kernel has none, or forbids it
own.io_uring_queue_exit(ctypes.byref(ring))
ctypes.memset(ctypes.byref(ring), 0, ctypes.sizeof(ring))
every = ctypes.CDLL(None)
lib = every if hasattr(every, "io_uring_submit") else own	# what a program calls is the preload library's, if there is one
r = lib.io_uring_queue_init(8, ctypes.byref(ring), 0)
assert r == 0, os.strerror(-r)


def run(op, fd, what, off):
    """reads so many bytes, or sends these"""
    n = what if op == OP_READ else len(what)
    b = ctypes.create_string_buffer(n) if op == OP_READ else ctypes.create_string_buffer(what, n)
    sqe = struct.pack("<BBHiQQIIQ24x", op, 0, 0, fd, off, ctypes.addressof(b), n, 0, 7)
    ctypes.memmove(ring.sqes + 64 * (ring.tail & ring.mask[0]), sqe, 64)
    ring.tail += 1
    assert lib.io_uring_submit_and_wait(ctypes.byref(ring), 1) == 1
    cqe = ctypes.c_void_p()
    assert own.io_uring_peek_batch_cqe(ctypes.byref(ring), ctypes.byref(cqe), 1) == 1
    res, = struct.unpack_from("<i", ctypes.string_at(cqe.value + 8, 4))
    head = ctypes.cast(ctypes.c_void_p.from_address(ctypes.addressof(ring) + 104).value, ctypes.POINTER(ctypes.c_uint))
    head[0] += 1
    assert res >= 0, os.strerror(-res)
    return b.raw[:res] if op == OP_READ else res


text = random.Random(4).randbytes(100000)
f = tempfile.TemporaryFile()
f.write(text)
f.flush()
with socket.create_server(("127.0.0.1", port)) as ls:
    s, _ = ls.accept()
for i in range(rounds):
    m = s.recv(SIZE, socket.MSG_WAITALL)
    if len(m) < SIZE:
        sys.exit("end of the stream at message %d" % i)
    at = i * 37 % 90000
    assert run(OP_READ, f.fileno(), 500, at) == text[at:at + 500], "file"
    if by_ring and i % 1000 == 999:
        assert run(OP_SEND, s.fileno(), m, 0) == SIZE
    else:
        s.sendall(m)
sys.exit(1 if s.recv(1) else 0)
