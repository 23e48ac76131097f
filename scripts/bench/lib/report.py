# SPDX-License-Identifier: MIT
"""Medians, ratios within a round, and the table."""
from statistics import median


class Row:
    def __init__(self, program, load, ring):
        self.program, self.load, self.ring = program, load, ring
        self.values = {}  # road -> {round: number}
        self.share = []
        self.failed = []

    def add(self, road, rnd, value):
        self.values.setdefault(road, {})[rnd] = value

    def of(self, road):
        return list(self.values.get(road, {}).values())

    def ratios(self):
        tcp, wsd = self.values.get("tcp", {}), self.values.get("wsd", {})
        out = []
        for rnd in sorted(set(tcp) & set(wsd)):
            a, b = tcp[rnd], wsd[rnd]
            if self.load.less:
                a, b = b, a
            if a > 0:
                out.append(b / a)
        return out

    def worst(self):
        """The worst wsd run against TCP's median: TCP's luckiest run says nothing about the other road."""
        tcp, wsd = self.of("tcp"), self.of("wsd")
        if not tcp or not wsd or not median(tcp):
            return None
        return median(tcp) / max(wsd) if self.load.less else min(wsd) / median(tcp)

    def ring_part(self):
        if not self.load.ring_bar or not self.ring or not self.of("wsd"):
            return None
        return median(self.of("wsd")) / self.ring

    def below(self):
        r, part = self.ratios(), self.ring_part()
        return bool((self.load.bar and r and median(r) < self.load.bar) or (part is not None and part < self.load.ring_bar))

    def json(self):
        r = self.ratios()
        return {"program": self.program, "load": self.load.name, "unit": self.load.unit,
                "better": "less" if self.load.less else "more", "values": {k: self.of(k) for k in self.values},
                "ratio_median": median(r) if r else None, "ratio_worst": self.worst(), "ratio_worst_round": min(r) if r else None, "bar": self.load.bar,
                "ring_part": self.ring_part(), "ring_bar": self.load.ring_bar,
                "san_share_median": median(self.share) if self.share else None,
                "san_share_least": min(self.share) if self.share else None, "failed": self.failed}


def _n(v):
    if v is None:
        return "-"
    if abs(v) >= 1e4:
        return f"{v / 1e3:.1f} k"
    return f"{v:.0f}" if abs(v) >= 1000 else f"{v:.2f}"


def cells(row):
    r = row.ratios()
    bar = f"{row.load.bar:g}" if row.load.bar else "-"
    if row.load.ring_bar:
        bar = f"{row.load.ring_bar * 100:.0f} % ring"
    part = row.ring_part()
    notes = [f"{part * 100:.0f} % of the ring"] if part is not None else []
    if row.below():
        notes.append("BELOW THE BAR")
    if row.failed:
        notes.append(f"FAILED: {row.failed[0]}")
    share = f"{100 * median(row.share):.1f} {100 * min(row.share):.1f}" if row.share else "-"
    return [f"{row.program} {row.load.name}", row.load.unit, _n(median(row.of("tcp")) if row.of("tcp") else None),
            _n(median(row.of("wsd")) if row.of("wsd") else None), f"{median(r):.2f}" if r else "-",
            f"{row.worst():.2f}" if r else "-", bar, share, "; ".join(notes)]


HEAD = ["load", "unit", "tcp", "wsd", "ratio", "worst", "bar", "SAN %", ""]


def line(c):
    return f"{c[0]:<26} {c[1]:<5} {c[2]:>9} {c[3]:>9} {c[4]:>7} {c[5]:>7} {c[6]:>10} {c[7]:>12}  {c[8]}".rstrip()


def markdown(rows):
    out = ["| " + " | ".join(HEAD[:-1] + ["notes"]) + " |", "| " + " | ".join(["---"] * len(HEAD)) + " |"]
    out += ["| " + " | ".join(cells(r)) + " |" for r in rows]
    return "\n".join(out)
