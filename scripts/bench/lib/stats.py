# SPDX-License-Identifier: MIT
"""The statistics file of accelerated processes (include/wsd/stats.h): what went over the SAN."""
import os
import struct

MAGIC = 0x3154415453445357
SLOTS = 1023
REASONS = 40
SLOT = struct.Struct(f"=II16s8Q{REASONS}I")  # pid, reserved, comm, 8 counters, reasons
ENV = "WSD_STATS"


class Stats:
    def __init__(self, path):
        self.path = path
        self.last = (0, 0)
        with open(path, "wb") as f:
            f.write(struct.pack("=QII", MAGIC, SLOTS, 0).ljust(SLOT.size * (SLOTS + 1), b"\0"))
        os.chmod(path, 0o666)  # servers give up root

    def _sum(self):
        ring = tcp = 0
        with open(self.path, "rb") as f:
            data = f.read()
        for i in range(1, SLOTS + 1):
            pid, _, _, _, _, _, ring_rx, _, tcp_rx, _, _, *_ = SLOT.unpack_from(data, i * SLOT.size)
            if pid:
                ring += ring_rx
                tcp += tcp_rx
        return ring, tcp

    def share(self):
        """Of the bytes received since the last call, the part that came over the SAN; None: unknown."""
        now = self._sum()
        ring, tcp = now[0] - self.last[0], now[1] - self.last[1]
        self.last = now
        return ring / (ring + tcp) if ring + tcp > 0 else None
