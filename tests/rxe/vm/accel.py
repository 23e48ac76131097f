# SPDX-License-Identifier: MIT
"""KVM when it works, emulation otherwise. /dev/kvm being there says nothing: some hosts' cannot run a stock kernel, so
one is started, and the verdict is kept until the next boot of this machine."""
import os
import select
import time

from . import guest, initramfs
from .kernels import cache

LIMIT = 15	# seconds in which KVM starts a kernel, or is not worth having


def choose(kernel, say=lambda text: None):
	forced = os.environ.get("WSD_RXE_ACCEL")
	if forced in ("kvm", "tcg"):
		return forced
	if not os.access("/dev/kvm", os.R_OK | os.W_OK):
		return "tcg"
	with open("/proc/sys/kernel/random/boot_id") as f:
		boot = f.read().strip()
	note = os.path.join(cache(), "kvm-works")
	try:
		with open(note) as f:
			seen, verdict = f.read().split()
		if seen == boot:
			return "kvm" if verdict == "yes" else "tcg"
	except (OSError, ValueError):
		pass
	say("trying KVM once")
	works = runs(kernel)
	aside = f"{note}.{os.getpid()}"
	with open(aside, "w") as f:
		f.write(f"{boot} {'yes' if works else 'no'}\n")
	os.rename(aside, note)
	return "kvm" if works else "tcg"


def runs(kernel):
	fd = guest.memory_file(initramfs.probe())
	read, write = os.pipe()
	argv = [guest.qemu(), "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-m", "512M", *guest.accelerated("kvm"),
		"-kernel", kernel.image, "-initrd", f"/proc/self/fd/{fd}", "-append", "console=ttyS0 panic=-1",
		"-chardev", f"file,id=console,path=/proc/self/fd/{write}", "-serial", "chardev:console"]
	process = None
	try:
		process = guest.spawn(argv, [fd, write])
		os.close(write)
		write = -1
		deadline = time.monotonic() + LIMIT
		seen = b""
		while time.monotonic() < deadline and b"wsd-probe-runs" not in seen:
			if not select.select([read], [], [], max(0, deadline - time.monotonic()))[0]:
				break
			data = os.read(read, 65536)
			if not data:
				break
			seen = (seen + data)[-65536:]
		return b"wsd-probe-runs" in seen
	finally:
		if process:
			process.kill()
			process.wait()
			process.stderr.close()
		for f in (fd, read, write):
			if f >= 0:
				os.close(f)
