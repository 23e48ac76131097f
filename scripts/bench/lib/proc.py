# SPDX-License-Identifier: MIT
"""Processes that always end: every start has a deadline, every end is by pid.

Road:  how a program is started: plainly, or under wsdrun (or an LD_PRELOAD).
Errors: Failed, with a sentence for the table; Missing, for a tool that is not installed.
"""
import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import time

READY_S = 20
END_S = 10


class Failed(Exception):
    pass


class Missing(Exception):
    pass


def tool(name, package, folders=()):
    """The path of a program, or Missing with the Debian package that has it."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    for pattern in folders:
        path = os.pathsep.join(sorted(glob.glob(pattern), reverse=True) + [path])
    found = shutil.which(name, path=path)
    if not found:
        raise Missing(f"{name} is not installed (Debian package {package})")
    return found


def cpu_use():
    """(busy, total, ours) in seconds: of the machine since boot, and of us and all whom we waited for."""
    with open("/proc/stat") as f:
        v = [int(x) / os.sysconf("SC_CLK_TCK") for x in f.readline().split()[1:9]]
    t = os.times()
    return v[0] + v[1] + v[2] + v[5] + v[6] + v[7], sum(v), t.user + t.system + t.children_user + t.children_system


def others_percent(a, b):
    """Of all CPU time between two looks, what other programs (or the hypervisor) took."""
    total = b[1] - a[1]
    return max(0.0, (b[0] - a[0]) - (b[2] - a[2])) / total * 100 if total > 0 else 0.0


class Road:
    def __init__(self, name, prefix=(), env=None):
        self.name = name
        self.prefix = list(prefix)
        self.env = dict(env or {})

    def command(self, argv):
        return self.prefix + argv

    def environment(self):
        return {**os.environ, **self.env, "LC_ALL": "C"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _kill_group(p):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(p.pid, signal.SIGKILL)  # it was started in a session of its own


def run(road, argv, seconds, cwd=None):
    """Run to the end and give the output; Failed when it fails or needs longer than `seconds`."""
    p = subprocess.Popen(road.command(argv), env=road.environment(), cwd=cwd, text=True, errors="replace",
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         start_new_session=True)
    try:
        out, _ = p.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _kill_group(p)
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may be left in the kernel, or its output in other hands
            p.communicate(timeout=END_S)
        raise Failed(f"{os.path.basename(argv[0])} did not end in {seconds:.0f} s") from None
    except BaseException:
        _kill_group(p)
        with contextlib.suppress(subprocess.TimeoutExpired):
            p.wait(END_S)
        raise
    if p.returncode:
        last = (out.strip().splitlines() or ["no output"])[-1]
        raise Failed(f"{os.path.basename(argv[0])} ended with {p.returncode}: {last[:120]}")
    return out


class Server:
    """A server on 127.0.0.1; started when made, ended by end()."""

    def __init__(self, road, argv, port, folder, stop=signal.SIGTERM):
        self.road, self.port, self.stop = road, port, stop
        self.log = os.path.join(folder, "server.log")
        self.name = os.path.basename(argv[0])
        with open(self.log, "ab") as log:
            self.p = subprocess.Popen(road.command(argv), env=road.environment(), cwd=folder, stdin=subprocess.DEVNULL,
                                      stdout=log, stderr=log, start_new_session=True)
        try:
            self._await_ready()
        except BaseException:
            self.end()
            raise

    def _await_ready(self):
        deadline = time.monotonic() + READY_S
        while True:
            if self.p.poll() is not None:
                raise Failed(f"server ended with {self.p.returncode} at its start: {self.last_words()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if time.monotonic() > deadline:
                raise Failed(f"server does not listen after {READY_S} s: {self.last_words()}")
            time.sleep(0.02)

    def last_words(self):
        with open(self.log, errors="replace") as f:
            return (f.read().strip().splitlines() or ["it said nothing"])[-1][:120]

    def end(self):
        if self.p.poll() is None:
            self.p.send_signal(self.stop)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.p.wait(END_S)
        _kill_group(self.p)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.p.wait(END_S)
