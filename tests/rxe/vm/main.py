# SPDX-License-Identifier: MIT
"""The command line of scripts/rxe-vm"""
import argparse
import os
import platform
import secrets
import shlex
import signal
import socket
import subprocess
import sys

from . import accel, initramfs, kernels, native, session
from .guest import Guest, dying_with_us
from .terminal import Terminal
from .trouble import KERNEL, SETUP, TIMEOUT, USAGE, Interrupted, Trouble

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TREE = os.path.dirname(os.path.dirname(HERE))

USE = "rxe-vm [--hosts 2] [--kernel 6.1|6.12|running] [--timeout S] [--shell] [--keep DIR] [--] CMD..."
HELP = f"""\
Runs CMD in a virtual machine that has Soft-RoCE, or in two that are joined, and answers with its exit code.

A guest sees this machine's files, this checkout and its build tree included, under their own paths; what it writes is
forgotten. It is root there, with the default 8 MiB of locked memory, in this working directory. It has:
  san0   a network device with an address of each family, MTU 4200: a dummy one, or the link between the two hosts
  rxe0   the rxe device on it
and in its environment, beside WSD_* of yours:
  WSD_RXE_HOST, WSD_RXE_HOSTS       this host's number, from 1, and how many there are
  WSD_RXE_ADDRESS, WSD_RXE_ADDRESS6 this host's addresses
  WSD_RXE_PEER, WSD_RXE_PEER6       the other host's; with one host its own
  WSD_RXE_DEVICE, WSD_RXE_NETDEV    rxe0, san0
  WSD_RXE_KERNEL, WSD_RXE_ACCEL     6.1..., and kvm, tcg or none (the machine's own kernel)
  WSD_BUILD                         the build tree, {TREE}/build unless set
With two hosts CMD starts on both once both are up, and says by WSD_RXE_HOST which it is; lines of output are marked with
the host. tests/rxe/meet NAME lets both wait for each other. When one fails the other gets {session.GRACE} s more.

Exit code: CMD's own, if the guest stayed well; with two hosts the first that is not 0. Else, with the reason on stderr:
  {KERNEL}  the kernel oopsed, panicked or printed BUG or WARNING
  {TIMEOUT}  time-out, or the guest hangs
  {SETUP}  it could not be brought up (no QEMU, no kernel package, ...), with what to do
  126  the guest ended without a word
  {USAGE}    what was asked makes no sense
Nothing is left behind, however this ends.
"""
EXAMPLES = """\
examples:
  scripts/rxe-vm rdma link
  scripts/rxe-vm --kernel 6.12 build/tools/wsdrun sh -c 'ibv_devinfo && ...'
  scripts/rxe-vm --hosts 2 sh -c 'ping -c1 $WSD_RXE_PEER'
  scripts/rxe-vm --hosts 2 --shell              # ^] goes to the other host
  scripts/rxe-vm --shell tests/rxe/t/one/rping.sh   # look around after it
environment: WSD_CACHE, where kernels are kept; WSD_RXE_ACCEL=kvm|tcg forces one
"""


def options(argv):
	p = argparse.ArgumentParser(prog="rxe-vm", usage=USE, description=HELP, epilog=EXAMPLES,
		formatter_class=argparse.RawDescriptionHelpFormatter)
	p.add_argument("--hosts", type=int, choices=(1, 2), default=1, help="how many guests")
	p.add_argument("--kernel", choices=(*kernels.SERIES, "running"),
		help="a Debian kernel, or the one that runs here, without a guest (one host, as root); if not given: running when it"
		" has rdma_rxe, else 6.1")
	p.add_argument("--timeout", type=float, default=600, metavar="S", help="seconds for CMD (600); booting is not counted")
	p.add_argument("--shell", action="store_true", help="a shell in each guest, after CMD if there is one; no time-out then")
	p.add_argument("--keep", metavar="DIR", help="the kernels' consoles go to DIR/hostN.console")
	p.add_argument("--memory", default=None, help="of each guest (3G; 2G of two)")
	p.add_argument("--cpus", type=int, default=None, help="of each guest (2; 1 of two that are emulated)")
	p.add_argument("--update-kernel", action="store_true", help="take the kernel package apt offers now, not the cached one")
	p.add_argument("--quiet", action="store_true", help="do not say what is being done before CMD starts")
	p.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD...")
	o = p.parse_args(argv)
	if o.command[:1] == ["--"]:
		o.command = o.command[1:]
	if not o.command and not o.shell and not o.update_kernel:
		p.error("no command; --shell gives a shell, --help more")
	if not 0 < o.timeout <= 86400:
		p.error("--timeout is 1 to 86400 seconds")
	if o.shell and not (sys.stdin.isatty() and sys.stdout.isatty()):
		p.error("--shell needs a terminal")
	if o.kernel == "running" and (o.hosts != 1 or o.shell):
		p.error("--kernel running is for one host, and without --shell: you are there already")
	return o


def environment(number, hosts, kernel, how):
	other = number if hosts == 1 else 3 - number
	names = {k: v for k, v in os.environ.items() if k.startswith("WSD_") and not k.startswith("WSD_RXE_")}
	names.setdefault("WSD_BUILD", os.path.join(TREE, "build"))
	names |= {k: os.environ[k] for k in ("HOME", "LANG", "TERM", "USER") if k in os.environ}
	return names | {
		"WSD_RXE_HOST": str(number), "WSD_RXE_HOSTS": str(hosts), "WSD_RXE_KERNEL": kernel, "WSD_RXE_ACCEL": how,
		"WSD_RXE_ADDRESS": f"10.99.0.{number}", "WSD_RXE_PEER": f"10.99.0.{other}",
		"WSD_RXE_ADDRESS6": f"fd99::{number}", "WSD_RXE_PEER6": f"fd99::{other}",
		"WSD_RXE_DEVICE": "rxe0", "WSD_RXE_NETDEV": "san0",
	}


def here():
	"""The working directory, if a guest has it too"""
	d = os.getcwd()
	for own in ("/run", "/dev", "/proc", "/sys", "/var/run"):
		if d == own or d.startswith(own + "/"):
			raise Trouble(f"this working directory, {d}, is not in a guest: {own} is its own there", "change to another one", USAGE)
	return d


def scripts(o, number, kernel, how, mark, terminal):
	"""What differs from run to run: {name: text} for /run/wsd-rxe"""
	env = environment(number, o.hosts, kernel.version, how)
	settings = {"KERNEL": kernel.version, "KERNEL_ROOT": kernel.root, "MARK": mark} | {
		k: v for k, v in env.items() if k.startswith("WSD_RXE_")}
	exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in sorted(env.items()))
	start = f"#!/bin/sh\n{exports}cd {shlex.quote(here())} || exit 125\n"
	files = {
		"settings": "".join(f"{k}={shlex.quote(v)}\n" for k, v in settings.items()),
		"command": start + f"exec {shlex.join(o.command)}\n" if o.command else start + "exit 0\n",
	}
	if terminal:
		files["shell"] = start + f"stty rows {terminal.rows} cols {terminal.columns}\n" + "exec bash -i\n"
	return files


def sink(number, hosts, out):
	"""Where an output of a guest's command goes: with two hosts, line by line with the host's number"""
	start = [True]
	prefix = f"{number}: ".encode()

	def plain(data):
		out.write(data)
		out.flush()

	def marked(data):
		for line in data.splitlines(keepends=True):
			out.write((prefix if start[0] else b"") + line)
			start[0] = line.endswith(b"\n")
		out.flush()

	return plain if hosts == 1 else marked


def run_here(o, say):
	"""The command on the running kernel"""
	def environ(slot):
		mine = environment(1, 1, os.uname().release, "none")
		address, address6 = f"10.99.{100 + slot}.1", f"fd99:0:0:{slot + 1:x}::1"
		return os.environ | mine | {
			"WSD_RXE_ADDRESS": address, "WSD_RXE_PEER": address, "WSD_RXE_ADDRESS6": address6, "WSD_RXE_PEER6": address6,
			"WSD_RXE_DEVICE": f"rxe_wsd{slot}", "WSD_RXE_NETDEV": f"wsdrxe{slot}"}

	def spawned(argv, env):
		return subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=env, preexec_fn=dying_with_us())

	signal.alarm(int(o.timeout + 180))
	return native.run(o.command, environ, o.timeout, spawned, say)


def run(o):
	def say(text):
		if not o.quiet:
			print(f"rxe-vm: {text}", file=sys.stderr, flush=True)

	if platform.machine() != "x86_64":
		raise Trouble(f"this is {platform.machine()}: only x86_64 guests are known")
	os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
	signal.alarm(1200)	# for all that comes before: downloads have limits of their own, other runs' downloads do not
	directory = here() if o.kernel != "running" else None
	if directory is None or (o.kernel is None and o.hosts == 1 and o.command and not o.shell):
		no = native.why_not()
		if no is None:
			return run_here(o, say)
		if o.kernel == "running":
			raise Trouble(f"not on this kernel: {no}", "leave --kernel running out: a guest has one that will do")
	kernel = kernels.get(o.kernel or "6.1", o.update_kernel, say)
	if not o.command and not o.shell:
		say(f"{kernel.package} is there")
		return 0
	how = accel.choose(kernel, say)
	cpus = o.cpus or (1 if o.hosts == 2 and how == "tcg" else 2)
	memory = o.memory or ("3G" if o.hosts == 1 else "2G")
	mark = secrets.token_hex(24)
	say(f"{o.hosts} guest{'s' if o.hosts > 1 else ''}, Linux {kernel.version}, {how}")
	terminal = Terminal() if o.shell else None
	# a last resort, should we ourselves be kept waiting (by who reads our output, say)
	signal.alarm(0 if o.shell else int(session.BOOT + o.timeout + session.GRACE + session.STOP + session.DOWN + 30))

	wire = [None, None]
	if o.hosts == 2:
		wire = socket.socketpair()
	guests = []
	try:
		for number in range(1, o.hosts + 1):
			archive = initramfs.build(kernel, os.path.join(HERE, "guest"), scripts(o, number, kernel, how, mark, terminal))
			sinks = [sink(number, o.hosts, f.buffer) for f in (sys.stdout, sys.stderr)]
			guests.append(Guest(number, how, kernel, archive, cpus, memory, mark.encode(), sinks, wire[number - 1], bool(terminal)))
		for w in wire:
			if w:
				w.close()
		s = session.Session(guests, 86400 * 7 if o.shell else o.timeout, terminal)
		if terminal:
			with terminal:
				s.run()
		else:
			s.run()
		report(o, s)
		return s.result()
	finally:
		for g in guests:
			g.close()
		if o.keep:
			session.keep(o.keep, guests)


def report(o, s):
	if s.troubles:
		for g in s.guests:
			lines = g.console_lines()[-40:]
			if lines and any(t.code in (KERNEL, 126) or "hangs" in str(t) or "not up" in str(t) for t in s.troubles):
				print(f"rxe-vm: the end of the console of {g.name()}:", file=sys.stderr)
				print("".join(f"  | {line[:200]}\n" for line in lines), end="", file=sys.stderr)
	for t in s.troubles:
		complain(t)
	if o.hosts > 1 or s.troubles:
		said = [f"{g.name()}: " + ("no exit code" if g.result is None else f"exit {g.result}") for g in s.guests]
		print("rxe-vm: " + ", ".join(said), file=sys.stderr)


def complain(t):
	print(f"rxe-vm: {t}" + (f"\nrxe-vm: what to do: {t.hint}" if t.hint else ""), file=sys.stderr, flush=True)


def interrupt(signum, _):
	raise Interrupted(signum)


def main(argv):
	o = options(argv)
	for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
		signal.signal(s, interrupt)
	try:
		return run(o)
	except Trouble as t:
		complain(t)
		return t.code
	except Interrupted as i:
		if i.signum == signal.SIGALRM:
			complain(Trouble("gave up waiting", "is what reads our output standing still?"))
			return TIMEOUT
		return 128 + i.signum
	except BrokenPipeError:
		os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
		return 128 + signal.SIGPIPE
