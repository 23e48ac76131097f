# SPDX-License-Identifier: MIT
"""One run: guests come up, the command runs on each, they go down; every phase has an end in time.

boot    until every guest says "ready"; then all are told "go", so no command starts before its peer's host is there
run     until every guest has said "exit N". When one host's command failed the others get GRACE seconds more. When
        time is up they are told "stop": they say who still runs, and answer if they can.
down    all are told "end": they end what is left, delete the rxe device and power off; a kernel's complaints about
        that count too
Whoever leaves run() leaves no QEMU behind.
"""
import os
import selectors
import time

from .trouble import GONE, KERNEL, TIMEOUT, Trouble

BOOT = 150	# emulation on a busy machine; some 5 s otherwise
GRACE = 20
STOP = 20
DOWN = 60


class Session:
	def __init__(self, guests, timeout, terminal=None):
		self.guests = guests
		self.timeout = timeout
		self.terminal = terminal
		self.troubles = []	# of the run; the first is what is returned
		self.selector = selectors.DefaultSelector()
		self.open = {g: set() for g in guests}
		for g in guests:
			for name, channel in g.channels.items():
				self.selector.register(channel, selectors.EVENT_READ, (g, name))
				self.open[g].add(name)
		if terminal:
			self.selector.register(terminal.fd, selectors.EVENT_READ, (None, "terminal"))

	def run(self):
		try:
			self.until(BOOT, "booting", lambda g: "ready" in g.heard, self.boot_late)
			for g in self.guests:
				g.tell("go")
			self.run_commands()
			for g in self.guests:
				g.tell("end")
			self.until(DOWN, "going down", lambda g: not self.open[g], self.down_late, gone_is_fine=True)
		except Trouble as t:
			self.troubles.insert(0, t)
			self.drain()
		finally:
			for g in self.guests:
				g.end()
			self.selector.close()
		for g in self.guests:
			for s in g.streams.values():
				s.close()
			bad = g.complaint()
			if bad and not any(bad in str(t) for t in self.troubles):
				self.troubles.insert(0, Trouble(f"{g.name()}: the kernel said: {bad}", code=KERNEL))
			if not self.troubles and not all(s.ended for s in g.streams.values()):
				self.troubles.append(Trouble(f"{g.name()}: the end of the command's output is missing", code=GONE))

	def run_commands(self):
		deadline = time.monotonic() + self.timeout
		late = None
		while not all(g.result is not None for g in self.guests):
			failed = [g for g in self.guests if g.result]
			if failed and late is None and len(self.guests) > 1:
				late = (time.monotonic() + GRACE, failed[0])
			end = deadline if late is None else min(deadline, late[0])
			if time.monotonic() >= end:
				self.stop(late[1] if late and end == late[0] else None)
				return
			self.step(end, "running the command")
			self.complain_of_failure()

	def stop(self, because):
		rest = [g for g in self.guests if g.result is None]
		for g in rest:
			g.tell("stop")
		end = time.monotonic() + STOP
		while time.monotonic() < end and not all("stopping" in g.heard for g in rest):
			self.step(end, "stopping")
		for g in rest:
			if "stopping" not in g.heard:
				self.troubles.append(Trouble(f"{g.name()} hangs: after {self.timeout:g} s its command had not ended, and the"
					" guest does not answer", code=TIMEOUT))
			elif because:
				self.troubles.append(Trouble(f"{g.name()}: its command was ended {GRACE} s after that of {because.name()} failed",
					code=TIMEOUT))
			else:
				self.troubles.append(Trouble(f"{g.name()}: time-out: its command did not end within {self.timeout:g} s and was"
					" ended; what was running is listed above", "allow more with --timeout", code=TIMEOUT))
		if any("stopping" not in g.heard for g in rest):
			raise self.troubles.pop(0)	# nothing to wait for

	def until(self, limit, doing, done, late, gone_is_fine=False):
		end = time.monotonic() + limit
		while not all(done(g) for g in self.guests):
			if time.monotonic() >= end:
				late([g for g in self.guests if not done(g)])
				return
			self.step(end, doing, gone_is_fine)
			self.complain_of_failure()

	def complain_of_failure(self):
		for g in self.guests:
			if g.failed:
				why, g.failed = g.failed, None
				raise Trouble(f"{g.name()}: {why}")

	def boot_late(self, late):
		raise Trouble(f"{late[0].name()} was not up after {BOOT} s",
			"is the machine very busy? --keep DIR shows how far the console came")

	def down_late(self, late):
		raise Trouble(f"{late[0].name()} hangs: it did not go down within {DOWN} s after the command", code=TIMEOUT)

	def step(self, end, doing, gone_is_fine=False):
		"""Takes what there is, waiting for it at most until end"""
		for key, _ in self.selector.select(max(0, min(end - time.monotonic(), 1))):
			g, name = key.data
			if g is None:
				self.terminal.typed(self.guests)
			elif not g.read(name):
				self.selector.unregister(key.fileobj)
				self.open[g].discard(name)
			elif name == "tty":
				self.terminal.show(g)
		for g in self.guests:
			while True:
				word = g.hear()
				if word is None:
					break
				g.heard.add(word)
			if not self.open[g]:
				g.process.wait()
				if not gone_is_fine:
					raise g.why_gone(doing)

	def drain(self):
		"""What the channels still hold, after trouble"""
		for g in self.guests:
			for name in list(self.open[g]):
				for _ in range(64):
					before = len(g.lines)
					if not g.read(name) or name != "console" or len(g.lines) == before:
						break

	def result(self):
		if self.troubles:
			return self.troubles[0].code
		return next((g.result for g in self.guests if g.result), 0)


def keep(folder, guests):
	os.makedirs(folder, exist_ok=True)
	for g in guests:
		with open(os.path.join(folder, f"host{g.number}.console"), "w") as f:
			f.write("\n".join(g.console_lines()) + "\n")
