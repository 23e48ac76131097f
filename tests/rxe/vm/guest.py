# SPDX-License-Identifier: MIT
"""One guest: a QEMU that dies with us, its channels, what it has said and how it ended.

Nothing of a run has a name anywhere: console, control and the command's two outputs are socket pairs, the network
between two guests is one too, the archive is a memory file. So nothing is left when we are killed: the kernel ends
QEMU with its parent (PR_SET_PDEATHSIG) and the descriptors go with both.
"""
import ctypes
import os
import shutil
import signal
import socket
import subprocess

from . import clock, console
from .trouble import GONE, KERNEL, SETUP, Trouble

CONSOLE_KEPT = 8000	# lines
PR_SET_PDEATHSIG = 1


def qemu():
	path = shutil.which("qemu-system-x86_64")
	if not path:
		raise Trouble("qemu-system-x86_64 is not installed", "apt-get install --no-install-recommends qemu-system-x86")
	return path


def memory_file(data):
	fd = os.memfd_create("wsd-rxe-initramfs")
	view = memoryview(data)
	while view:
		view = view[os.write(fd, view):]
	return fd


def dying_with_us():
	"""What a child does first: a session of its own (the terminal's ^C is for us), and the kernel ends it when we are gone"""
	libc = ctypes.CDLL(None)
	parent = os.getpid()

	def child():
		os.setsid()
		libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
		if os.getppid() != parent:
			os._exit(1)

	return child


def spawn(argv, fds):
	return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=fds,
		preexec_fn=dying_with_us())


def accelerated(accel):
	if accel == "kvm":
		return ["-accel", "kvm", "-cpu", "host"]
	# la57: with five levels of page tables rxe was seen to panic under emulation
	return ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"]


class Stream:
	"""An output of the command: passed on as it comes, without the mark that ends it"""

	def __init__(self, mark, sink):
		self.mark = mark
		self.held = b""
		self.sink = sink
		self.ended = False

	def feed(self, data):
		self.held += data
		at = self.held.find(self.mark)
		if at >= 0:
			self.ended = True
			out, self.held = self.held[:at], b""
		else:
			# what may be the beginning of the mark waits
			keep = next((n for n in range(min(len(self.mark) - 1, len(self.held)), 0, -1)
				if self.mark.startswith(self.held[-n:])), 0)
			out = self.held[:len(self.held) - keep]
			self.held = self.held[len(self.held) - keep:]
		if out:
			self.sink(out)

	def close(self):
		if self.held:
			self.sink(self.held)
			self.held = b""


class Guest:
	def __init__(self, number, accel, kernel, archive, cpus, memory, mark, sinks, nic=None, tty=False):
		self.number = number
		self.words = []		# from the control channel, not yet looked at
		self.heard = set()	# all that were looked at
		self.lines = []		# the console's
		self.part = b""
		self.control_part = b""
		self.result = None	# of the command
		self.failed = None	# why the guest could not do its part, in its own words
		self.streams = {"out": Stream(mark, sinks[0]), "err": Stream(mark, sinks[1])}
		self.said = b""		# QEMU's own complaints
		self.tty = b""		# from the guest's shell, not yet shown
		self.channels = {}	# name -> our end
		argv = [qemu(), "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-name", f"wsd-rxe-{number}"]
		argv += accelerated(accel) + ["-smp", str(cpus), "-m", memory, "-kernel", kernel.image]
		argv += ["-append", "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off random.trust_cpu=on"
			" watchdog_thresh=30 rcupdate.rcu_cpu_stall_timeout=60 rcupdate.rcu_exp_cpu_stall_timeout=60000"
			" net.ifnames=0 tsc=reliable no_timer_check" + (f" tsc_early_khz={clock.tsc_khz()}" if accel == "tcg" else "")]
		argv += ["-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"]
		argv += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
		fds = []

		def channel(name):
			ours, theirs = socket.socketpair()
			self.channels[name] = ours
			ours.setblocking(False)
			fds.append(theirs.detach())
			return ["-chardev", f"socket,id={name},fd={fds[-1]}"]

		try:
			argv += channel("console") + ["-serial", "chardev:console"]
			for name in ("ctl", "out", "err"):
				argv += channel(name) + ["-device", f"virtserialport,chardev={name},name=wsd.{name}"]
			if tty:
				argv += channel("tty") + ["-device", "virtconsole,chardev=tty"]
			if nic is not None:
				fds.append(os.dup(nic.fileno()))
				argv += ["-netdev", f"stream,id=net,server=off,addr.type=fd,addr.str={fds[-1]}",
					"-device", f"virtio-net-pci,netdev=net,host_mtu=4200,speed=10000,duplex=full,mac=52:54:00:57:53:{number:02x}"]
			fds.append(memory_file(archive))
			argv += ["-initrd", f"/proc/self/fd/{fds[-1]}"]
			self.process = spawn(argv, fds)
		finally:
			for fd in fds:
				os.close(fd)
		self.channels["qemu"] = self.process.stderr
		os.set_blocking(self.process.stderr.fileno(), False)

	def name(self):
		return f"host {self.number}"

	def read(self, channel):
		"""Takes what a channel has; False at its end"""
		try:
			data = os.read(self.channels[channel].fileno(), 65536)
		except BlockingIOError:
			return True
		except ConnectionError:
			data = b""
		if not data:
			return False
		if channel == "console":
			*lines, self.part = (self.part + data).split(b"\n")
			self.lines += [line.decode("utf-8", "replace").strip("\r") for line in lines]
			del self.lines[:-CONSOLE_KEPT]
		elif channel == "ctl":
			*lines, self.control_part = (self.control_part + data).split(b"\n")
			self.words += [line.decode("utf-8", "replace") for line in lines]
		elif channel == "qemu":
			self.said = (self.said + data)[-4096:]
		elif channel == "tty":
			self.tty += data
		elif channel in self.streams:
			self.streams[channel].feed(data)
		return True

	def tell(self, word):
		try:
			self.channels["ctl"].send(word.encode() + b"\n")
		except OSError:
			pass		# it is gone; that shows elsewhere

	def hear(self):
		"""The next word from the guest, sorted in; None when there is none"""
		if not self.words:
			return None
		word, _, rest = self.words.pop(0).partition(" ")
		if word == "exit":
			self.result = int(rest)
		elif word == "fail":
			self.failed = self.failed or rest
		return word

	def take_tty(self):
		data, self.tty = self.tty, b""
		return data

	def end(self):
		"""Ends it for good, whatever it does"""
		if self.process.poll() is None:
			self.process.kill()
		self.process.wait()

	def close(self):
		self.end()
		for c in self.channels.values():
			c.close()

	def console_lines(self):
		return self.lines + ([self.part.decode("utf-8", "replace")] if self.part else [])

	def complaint(self):
		return console.worst(self.console_lines())

	def why_gone(self, doing):
		"""Trouble that explains a QEMU that ended by itself"""
		bad = self.complaint()
		if bad:
			return Trouble(f"{self.name()}: the kernel died while {doing}: {bad}", code=KERNEL)
		ours = [line for line in self.lines if "wsd-guest:" in line]
		if ours:
			return Trouble(f"{self.name()}: {ours[-1]}", code=SETUP)
		said = self.said.decode("utf-8", "replace").strip()
		if said:
			return Trouble(f"{self.name()}: QEMU ended (exit {self.process.returncode}): {said}", code=SETUP)
		return Trouble(f"{self.name()}: the guest ended while {doing}, without a word", code=GONE)
