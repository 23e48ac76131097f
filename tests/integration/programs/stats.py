#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""stats.py make FILE | show FILE - the counters of include/wsd/stats.h; show fails when nothing went through memory."""
import os
import struct
import sys

SLOTS, SLOT = 1023, 4 + 4 + 16 + 8 * 8 + 4 * 40
what, path = sys.argv[1:]
if what == "make":
    with open(path, "wb") as f:
        f.write(struct.pack("<QII", 0x3154415453445357, SLOTS, 0))
        f.truncate(SLOT * (SLOTS + 1))
    os.chmod(path, 0o666)
else:
    t = [0] * 8
    with open(path, "rb") as f:
        d = f.read()
    for i in range(1, SLOTS + 1):
        t = [a + b for a, b in zip(t, struct.unpack_from("<8Q", d, SLOT * i + 24))]
    print("# %d connections seen, %d accelerated, sent by ring %d bytes, by TCP %d" % (t[0], t[1], t[2], t[4]))
    sys.exit(0 if t[1] and t[2] else 1)
