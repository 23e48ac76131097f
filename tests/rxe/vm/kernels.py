# SPDX-License-Identifier: MIT
"""Debian's kernels by series ("6.1", "6.12"), out of the package that apt knows, unpacked once into a cache.

The cache is WSD_CACHE, else /var/cache/wsd for root, else $XDG_CACHE_HOME/wsd or ~/.cache/wsd. A kernel is one folder
there, kernel-SERIES, made aside under a lock and renamed into place, so what is there is whole; what a killed run left
aside the next one removes. Nothing is asked of the network while the folder is there; update=True takes what apt
offers now. apt checks the package's hash against its signed lists.
"""
import fcntl
import os
import re
import shutil
import subprocess
import tempfile

from .trouble import Trouble

SERIES = {
	# series: names of the packages, without the -rt, -cloud and debug flavours
	"6.1": r"^linux-image-6\.1\.[0-9][0-9.]*-[0-9]+-amd64$",
	"6.12": r"^linux-image-6\.12\.[0-9.]+(\+[a-z0-9]+)*-amd64$",
}
# Nothing of these runs in a guest, and they are three quarters of the modules.
UNWANTED = ("gpu", "media", "scsi", "usb", "iio", "staging", "hwmon", "hid", "md", "platform", "input", "ata",
	"comedi", "mtd", "video", "mmc", "bluetooth", "net/wireless", "net/ethernet", "net/usb", "isdn", "power", "nvme",
	"target", "edac", "thunderbolt", "leds", "i2c", "gpio", "mfd", "regulator", "firewire", "pcmcia", "atm")


class Kernel:
	def __init__(self, folder):
		self.root = folder
		with open(os.path.join(folder, "package")) as f:
			self.package = f.read().strip()
		self.version, = os.listdir(os.path.join(folder, "lib/modules"))
		self.image = os.path.join(folder, "boot/vmlinuz-" + self.version)


def cache():
	d = os.environ.get("WSD_CACHE")
	if not d:
		if os.geteuid() == 0:
			d = "/var/cache/wsd"
		else:
			d = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "wsd")
	try:
		os.makedirs(d, exist_ok=True)
	except OSError as e:
		raise Trouble(f"the cache {d} cannot be made: {e.strerror}", "set WSD_CACHE to a folder you may write") from e
	return d


def get(series, update=False, say=lambda text: None):
	folder = os.path.join(cache(), "kernel-" + series)
	if update or not whole(folder):
		with open(os.path.join(cache(), "lock"), "w") as lock:
			fcntl.flock(lock, fcntl.LOCK_EX)
			if update or not whole(folder):	# another run may have been first
				make(series, folder, say)
	return Kernel(folder)


def whole(folder):
	return os.path.exists(os.path.join(folder, "package"))


def make(series, folder, say):
	for left in os.listdir(cache()):
		if left.startswith("new-"):
			shutil.rmtree(os.path.join(cache(), left), ignore_errors=True)
	new = tempfile.mkdtemp(prefix="new-", dir=cache())
	try:
		os.chmod(new, 0o755)
		deb = download(series, new, say)
		unpack(deb, new)
		with open(os.path.join(new, "package"), "w") as f:
			f.write(os.path.basename(deb)[:-len(".deb")] + "\n")
		os.unlink(deb)
		if os.path.exists(folder):
			# a guest that is running keeps the kernel it has opened, but may miss a module now: say what happens
			say(f"replacing {folder}")
			os.rename(folder, os.path.join(new, "old"))
		os.rename(new, folder)
		shutil.rmtree(os.path.join(folder, "old"), ignore_errors=True)
	finally:
		shutil.rmtree(new, ignore_errors=True)


def run(argv, limit, **more):
	try:
		return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, **more)
	except FileNotFoundError as e:
		raise Trouble(f"{argv[0]} is not here: kernels come out of Debian packages",
			f"on another system unpack Debian's linux-image package into {cache()}/kernel-SERIES (boot, lib), run"
			" depmod -b on it, and write the package's name into the file 'package' there") from e
	except subprocess.TimeoutExpired as e:
		raise Trouble(f"{' '.join(argv[:2])} did not end within {limit} s", "is the package mirror reachable?") from e


def names(series):
	found = run(["apt-cache", "search", "--names-only", SERIES[series]], 60).stdout.split("\n")
	found = [line.split(" ")[0] for line in found if line]
	return sorted((n for n in found if re.match(SERIES[series], n)), key=lambda n: [int(x) for x in re.findall(r"\d+", n)])


def download(series, new, say):
	answer = None
	for fresh in (False, True):
		if fresh:
			if os.geteuid() != 0:
				break
			say("apt-get update")
			run(["apt-get", "-q", "-o", "DPkg::Lock::Timeout=60", "update"], 180)
		known = names(series)
		if not known:
			continue
		say(f"downloading {known[-1]}")
		answer = run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", known[-1]], 300,
			cwd=new)
		debs = [f for f in os.listdir(new) if f.endswith(".deb")]
		if answer.returncode == 0 and debs:
			return os.path.join(new, debs[0])
	hint = "run as root: apt-get update" + (
		"; Linux 6.12 for bookworm is in its security and backports archives" if series == "6.12" else "")
	if answer is None:
		raise Trouble(f"apt knows no package that matches {SERIES[series]}", hint)
	raise Trouble(f"the kernel package could not be downloaded: {answer.stderr.strip()[-300:]}", hint)


def unpack(deb, new):
	tar = ["tar", "-x", "-C", new, "--no-same-owner", "--exclude=*/sound/*"]
	tar += [f"--exclude=*/drivers/{u}/*" for u in UNWANTED]
	with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as source:
		done = subprocess.run(tar, stdin=source.stdout, timeout=120)
	if done.returncode or source.returncode:
		raise Trouble(f"{deb} could not be unpacked", "is the disk full?")
	if not os.path.isdir(os.path.join(new, "lib")):	# a package of a merged-/usr release
		os.rename(os.path.join(new, "usr/lib"), os.path.join(new, "lib"))
	shutil.rmtree(os.path.join(new, "usr"), ignore_errors=True)
	version, = os.listdir(os.path.join(new, "lib/modules"))
	done = run(["depmod", "-b", new, version], 120)
	if done.returncode:
		raise Trouble(f"depmod failed: {done.stderr.strip()[-300:]}")
