# SPDX-License-Identifier: MIT
"""The archive a guest starts from: busybox, the modules it needs with all they depend on, in order, and our scripts.

It never touches a disk: the archive is built in memory and handed to QEMU as a descriptor.
"""
import gzip
import lzma
import os
import shutil
import stat
import subprocess

from .trouble import Trouble

MODULES = ("virtio_pci", "virtio_console", "9p", "9pnet_virtio", "overlay", "virtio_rng", "virtio_net", "dummy",
	"tcp_diag", "ib_uverbs", "rdma_ucm", "rdma_rxe")


class Archive:
	"""cpio, "new ASCII" format, as the kernel's documentation of early user space describes it"""

	def __init__(self):
		self.data = bytearray()
		self.inode = 0

	def add(self, name, mode, data=b""):
		self.inode += 1
		path = name.encode() + b"\0"
		fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
		self.data += b"070701" + b"".join(b"%08X" % f for f in fields) + path
		self.pad()
		self.data += data
		self.pad()

	def pad(self):
		self.data += b"\0" * (-len(self.data) % 4)

	def folder(self, name):
		self.add(name, stat.S_IFDIR | 0o755)

	def file(self, name, data, mode=0o644):
		self.add(name, stat.S_IFREG | mode, data)

	def end(self):
		self.add("TRAILER!!!", 0)
		return bytes(self.data)


def busybox():
	path = "/bin/busybox"
	if not os.path.exists(path):
		path = shutil.which("busybox")
	if not path:
		raise Trouble("busybox is not installed", "apt-get install busybox-static")
	with open(path, "rb") as f:
		data = f.read()
	# an interpreter named in the file means shared libraries, which the archive has none of
	if b"/ld-linux" in data:
		raise Trouble(f"{path} is not a static program", "apt-get install busybox-static (it replaces busybox)")
	return data


def module(path):
	with open(path, "rb") as f:
		data = f.read()
	if path.endswith(".xz"):
		return lzma.decompress(data)
	if path.endswith(".gz"):
		return gzip.decompress(data)
	if not path.endswith(".ko"):
		raise Trouble(f"{path}: compressed in a way that is not known here")
	return data


def closure(kernel):
	"""[(file, options)] in the order of loading"""
	found = []
	for name in MODULES:
		try:
			done = subprocess.run(["modprobe", "-d", kernel.root, "-S", kernel.version, "-D", name], stdin=subprocess.DEVNULL,
				capture_output=True, text=True, timeout=30)
		except FileNotFoundError as e:
			raise Trouble("modprobe is not installed", "apt-get install kmod") from e
		if done.returncode:
			raise Trouble(f"{kernel.package} has no module {name}: {done.stderr.strip()}")
		for line in done.stdout.splitlines():
			words = line.split()
			if words[0] == "insmod" and (words[1], words[2:]) not in found:
				found.append((words[1], words[2:]))
	return found


def build(kernel, scripts, files):
	"""scripts: folder of init and what follows it; files: {name: text} of this run"""
	a = Archive()
	for d in ("bin", "dev", "proc", "sys", "lower", "upper", "root", "modules", "guest"):
		a.folder(d)
	a.file("bin/busybox", busybox(), 0o755)
	order = []
	for path, options in closure(kernel):
		name = os.path.basename(path).split(".ko")[0] + ".ko"
		a.file("modules/" + name, module(path))
		order.append(" ".join([name, *options]))
	a.file("modules/order", ("\n".join(order) + "\n").encode())
	for name in sorted(os.listdir(scripts)):
		with open(os.path.join(scripts, name), "rb") as f:
			a.file("init" if name == "init" else "guest/" + name, f.read(), 0o755)
	for name, text in files.items():
		a.file("guest/" + name, text.encode(), 0o755)
	return a.end()


def probe():
	"""An archive that only says it runs: does this accelerator start a stock kernel at all?"""
	a = Archive()
	for d in ("bin", "dev"):
		a.folder(d)
	a.add("dev/console", stat.S_IFCHR | 0o600)
	a.file("bin/busybox", busybox(), 0o755)
	a.file("init", b"#!/bin/busybox sh\n/bin/busybox mount -t devtmpfs dev /dev\n"
		b"echo wsd-probe-runs >/dev/ttyS0\n/bin/busybox poweroff -f\n", 0o755)
	return a.end()
