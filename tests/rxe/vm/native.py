# SPDX-License-Identifier: MIT
"""One host without a guest: the kernel that runs here has rdma_rxe, so a dummy device and an rxe device are made on it.

A keeper, a child in a session of its own, makes the devices and deletes them when our end of a pipe closes, however we
end. The command is in a process namespace of its own that ends with us, so nothing it started stays either. The kernel's
log is watched from here on; that others made it complain meanwhile cannot be told apart.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import time

from . import console
from .trouble import KERNEL, TIMEOUT, Trouble

SLOTS = 64	# of us at once
AWAY = 20	# seconds in which a device that nobody uses any more is gone


def why_not():
	"""None when the running kernel will do"""
	if os.geteuid() != 0:
		return "only root makes rxe devices"
	for tool in ("ip", "rdma", "modprobe", "unshare"):
		if not shutil.which(tool):
			return f"{tool} is not installed (iproute2, kmod, util-linux)"
	if not os.path.isdir("/sys/module/rdma_rxe") and subprocess.run(["modprobe", "-q", "-n", "rdma_rxe"]).returncode:
		return f"Linux {os.uname().release} has no module rdma_rxe"
	return None


def tool(*argv):
	return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)


def must(*argv):
	done = tool(*argv)
	if done.returncode:
		raise Trouble(f"{' '.join(argv)}: {done.stderr.strip()}")


def make():
	"""The first free slot with its devices"""
	must("modprobe", "rdma_rxe")
	must("modprobe", "rdma_ucm")
	for slot in range(SLOTS):
		done = tool("ip", "link", "add", f"wsdrxe{slot}", "type", "dummy")
		if done.returncode == 0:
			break
		if "exists" not in done.stderr:
			raise Trouble(f"no dummy device: {done.stderr.strip()}")
	else:
		raise Trouble(f"all of wsdrxe0 to wsdrxe{SLOTS - 1} are in use", "ip link delete those that nobody uses")
	try:
		must("ip", "link", "set", f"wsdrxe{slot}", "mtu", "4200", "up")
		must("ip", "address", "add", f"10.99.{100 + slot}.1/24", "dev", f"wsdrxe{slot}")
		must("ip", "address", "add", f"fd99:0:0:{slot + 1:x}::1/64", "dev", f"wsdrxe{slot}", "nodad")
		must("rdma", "link", "add", f"rxe_wsd{slot}", "type", "rxe", "netdev", f"wsdrxe{slot}")
	except Trouble:
		tool("ip", "link", "delete", f"wsdrxe{slot}")
		raise
	return slot


def unmake(slot):
	"""None, or why the devices are still there"""
	end = time.monotonic() + AWAY
	while True:
		try:
			done = tool("rdma", "link", "delete", f"rxe_wsd{slot}")
			gone = not os.path.exists(f"/sys/class/infiniband/rxe_wsd{slot}")
			said = done.stderr.strip()
		except subprocess.TimeoutExpired:
			gone, said = False, "rdma link delete hangs"
		if gone or time.monotonic() > end:
			break
		time.sleep(0.1)
	tool("ip", "link", "delete", f"wsdrxe{slot}")
	return None if gone else f"rxe_wsd{slot} could not be deleted: {said}"


def keeper(ours, answer):
	"""Runs in the child; ours ends when the owner does"""
	os.setsid()
	for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
		signal.signal(s, signal.SIG_IGN)
	signal.signal(signal.SIGALRM, signal.SIG_DFL)
	signal.signal(signal.SIGPIPE, signal.SIG_IGN)
	null = os.open(os.devnull, os.O_RDWR)
	for fd in (0, 1, 2):
		os.dup2(null, fd)	# whoever waits for the end of our owner's output shall not wait for us

	def say(text):
		try:
			os.write(answer, text.encode() + b"\n")
		except OSError:
			pass	# nobody listens any more

	try:
		slot = make()
	except (Trouble, OSError, subprocess.TimeoutExpired) as t:
		say(f"fail {t}")
		return
	say(f"slot {slot}")
	os.read(ours, 1)
	say(f"left {unmake(slot) or ''}")


class Kept:
	def __init__(self):
		read, self.owner = os.pipe()
		self.answer, write = os.pipe()
		self.pid = os.fork()
		if self.pid == 0:
			try:
				os.close(self.owner)
				os.close(self.answer)
				keeper(read, write)
			finally:
				os._exit(0)
		os.close(read)
		os.close(write)
		self.answers = os.fdopen(self.answer)

	def wait(self):
		line = self.answers.readline().strip()
		word, _, rest = line.partition(" ")
		if word != "slot":
			raise Trouble(rest or "the keeper of the devices died")
		return int(rest)

	def close(self):
		if self.owner >= 0:
			os.close(self.owner)
			self.owner = -1
			left = self.answers.readline().strip().partition(" ")[2]
			os.waitpid(self.pid, 0)
			return left
		return ""


class Log:
	"""The kernel's log from now on"""

	def __init__(self):
		self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
		os.lseek(self.fd, 0, os.SEEK_END)

	def lines(self):
		found = []
		while True:
			try:
				record = os.read(self.fd, 8192).decode("utf-8", "replace")
			except BlockingIOError:
				return found
			except BrokenPipeError:
				continue	# some were lost; go on behind them
			found += [re.sub(r"^[^;]*;", "", record).split("\n")[0]]


def run(command, environment, timeout, spawned, say):
	"""environment(slot) -> of the command; spawned(argv, env) -> Popen that dies with us. The exit code."""
	kept = Kept()
	process = None
	try:
		slot = kept.wait()
		log = Log()
		say(f"this machine's own Linux {os.uname().release}, device rxe_wsd{slot}")
		argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", '"$@"; exit $?', "sh", *command]
		process = spawned(argv, environment(slot))
		try:
			code = process.wait(timeout)
			code = 128 - code if code < 0 else code
		except subprocess.TimeoutExpired:
			raise Trouble(f"time-out: the command did not end within {timeout:g} s and was ended", "allow more with --timeout",
				TIMEOUT) from None
		left = end(process, kept)
		if left:
			raise Trouble(left + " after the command", "a process still uses it, or the kernel has lost count: see dmesg", KERNEL)
		bad = console.worst(log.lines())
		if bad:
			raise Trouble(f"the kernel said: {bad}", code=KERNEL)
		return code
	finally:
		end(process, kept)


def end(process, kept):
	if process and process.poll() is None:
		process.kill()
		process.wait()
	sys.stdout.flush()
	return kept.close()
