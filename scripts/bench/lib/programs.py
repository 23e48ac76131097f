# SPDX-License-Identifier: MIT
"""The programs that are measured: how each server is started and each load is driven.

A program has start(road, folder) -> Server and loads: a list of Load. Higher is better unless `less`.
"""
import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import time
from dataclasses import dataclass
from typing import Callable, Optional

from . import proc
from .proc import Failed, Road, Server

PLAIN = Road("tools")


@dataclass
class Load:
    name: str
    unit: str
    measure: Callable  # (road, server, seconds) -> number
    bar: Optional[float] = None  # least ratio to TCP
    less: bool = False  # less is better
    ring_bar: Optional[float] = None  # least part of the two-copy ring, for GB/s
    variant: Optional[int] = None  # which of the program's servers; None: the only one


def _number(pattern, text, what):
    m = re.search(pattern, text)
    if not m:
        last = (text.strip().splitlines() or [""])[-1]
        raise Failed(f"{what} printed no result: {last[:100]}")
    return float(m.group(1))


def _user_prefix(user):
    """Give up root for a user. Inside wsdrun, not around it: both ends must meet at one daemon."""
    if os.geteuid() != 0:
        return []
    return [proc.tool("setpriv", "util-linux"), f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]


class Redis:
    name = "redis"
    variants = [None]

    def __init__(self):
        self.server = proc.tool("redis-server", "redis-server")
        self.bench = proc.tool("redis-benchmark", "redis-tools")
        self.rate = {}
        self.loads = []
        for test in ("get", "set"):
            for clients, bar in ((1, 6), (50, 5), (500, 5)):
                self.loads.append(Load(f"{test} c{clients}", "/s", self._measure(test, clients, 1), bar))
            self.loads.append(Load(f"{test} c50 P16", "/s", self._measure(test, 50, 16), 1.2))

    def start(self, road, folder, variant):
        port = proc.free_port()
        return Server(road, [self.server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                             "--dir", folder, "--daemonize", "no", "--loglevel", "warning", "--maxclients", "2000"], port, folder)

    def _run(self, road, server, test, clients, pipeline, requests, seconds):
        out = proc.run(road, [self.bench, "-h", "127.0.0.1", "-p", str(server.port), "-t", test, "-c", str(clients), "-P",
                              str(pipeline), "-n", str(requests), "-d", "64", "--csv"], seconds)
        return _number(rf'"{test.upper()}[^"]*","([0-9.]+)"', out, "redis-benchmark")

    def _measure(self, test, clients, pipeline):
        def measure(road, server, seconds):
            # it counts requests, not seconds: learn how many fit, once for each road
            key = (road.name, test, clients, pipeline)
            if key not in self.rate:
                self.rate[key] = self._run(road, server, test, clients, pipeline, 20000, seconds + 60)
            n = max(20000, int(self.rate[key] * seconds))
            rate = self._run(road, server, test, clients, pipeline, n, seconds * 20 + 60)
            self.rate[key] = rate
            return rate
        return measure


NGINX_CONF = """
{user}
worker_processes {workers};
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 768; }}
http {{
	# as Debian's nginx.conf, but for the folders
	sendfile on;
	tcp_nopush on;
	types_hash_max_size 2048;
	default_type application/octet-stream;
	types {{ text/html html; }}
	access_log {folder}/access.log;
	gzip on;
	client_body_temp_path {folder}/t1;
	proxy_temp_path {folder}/t2;
	fastcgi_temp_path {folder}/t3;
	uwsgi_temp_path {folder}/t4;
	scgi_temp_path {folder}/t5;
	server {{
		listen 127.0.0.1:{port};
		root {folder}/www;
		index index.html;
	}}
}}
"""


class Nginx:
    name = "nginx"
    variants = [1, 2]  # workers

    def __init__(self):
        self.server = proc.tool("nginx", "nginx")
        self.wrk = proc.tool("wrk", "wrk")
        self.loads = [Load(f"{w}w t{t} c{c}", "/s", self._measure(t, c), 2.2, variant=w)
                      for w in self.variants for t in (1, 2) for c in (10, 50)]

    def start(self, road, folder, variant):
        port = proc.free_port()
        os.makedirs(os.path.join(folder, "www"), exist_ok=True)
        with open(os.path.join(folder, "www", "index.html"), "w") as f:
            f.write("<!DOCTYPE html>\n" + "x" * 596)  # 612 bytes, like Debian's
        user = "user www-data;" if os.geteuid() == 0 else ""
        with open(os.path.join(folder, "nginx.conf"), "w") as f:
            f.write(NGINX_CONF.format(user=user, workers=variant, folder=folder, port=port))
        return Server(road, [self.server, "-c", os.path.join(folder, "nginx.conf"), "-p", folder], port, folder)

    def _measure(self, threads, conns):
        def measure(road, server, seconds):
            out = proc.run(road, [self.wrk, "-t", str(threads), "-c", str(conns), "-d", f"{max(1, round(seconds))}s",
                                  f"http://127.0.0.1:{server.port}/index.html"], seconds + 60)
            m = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
            if m:
                raise Failed(f"wrk got {m.group(1)} errors")
            return _number(r"Requests/sec:\s+([0-9.]+)", out, "wrk")
        return measure


class Memcached:
    name = "memcached"
    variants = [None]

    def __init__(self):
        self.server = proc.tool("memcached", "memcached")
        self.load = proc.tool("memcaslap", "libmemcached-tools")
        self.loads = [Load(f"T{t} c{c}", "/s", self._measure(t, c), 2) for t, c in ((1, 1), (1, 16), (2, 64))]

    def start(self, road, folder, variant):
        port = proc.free_port()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        return Server(road, [self.server, "-t", "4", "-p", str(port), "-U", "0", "-l", "127.0.0.1", "-m", "256"] + user, port, folder)

    def _measure(self, threads, conc):
        def measure(road, server, seconds):
            out = proc.run(road, [self.load, "-s", f"127.0.0.1:{server.port}", "-T", str(threads), "-c", str(conc), "-X", "64",
                                  "-t", f"{max(1, round(seconds))}s"], seconds + 60)
            return _number(r"TPS:\s*([0-9.]+)", out, "memaslap")
        return measure


class Postgres:
    name = "postgres"
    variants = [None]
    folders = ["/usr/lib/postgresql/*/bin"]

    def __init__(self):
        def find(name, package):
            return proc.tool(name, package, self.folders)
        self.postgres = find("postgres", "postgresql")
        self.initdb = find("initdb", "postgresql")
        self.pgbench = find("pgbench", "postgresql-contrib")
        self.isready = find("pg_isready", "postgresql-client")
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.template = None
        self.loads = [Load(f"-S c{c}", "tps", self._measure(c, j), 1.2) for c, j in ((1, 1), (8, 2))]

    def _own(self, folder):
        if os.geteuid() == 0:
            shutil.chown(folder, self.user)
        os.chmod(folder, 0o700)

    def _argv(self, data, folder, port):
        return _user_prefix(self.user) + [self.postgres, "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1",
                                          "-c", f"unix_socket_directories={folder}", "-c", "fsync=off", "-c", "shared_buffers=256MB"]

    def _serve(self, road, data, folder):
        """It listens before it serves: started means that it answers."""
        port = proc.free_port()
        server = Server(road, self._argv(data, folder, port), port, folder, signal.SIGINT)
        deadline = time.monotonic() + proc.READY_S
        while True:
            try:
                proc.run(PLAIN, [self.isready, "-q", "-h", "127.0.0.1", "-p", str(port)], 10)
                return server
            except Failed:
                if time.monotonic() > deadline or server.p.poll() is not None:
                    words = server.last_words()
                    server.end()
                    raise Failed(f"server does not serve: {words}") from None
                time.sleep(0.05)

    def _make_template(self, folder):
        """One cluster with pgbench's tables; each server gets a copy."""
        base = os.path.join(os.path.dirname(folder), "postgres.template")
        if self.template:
            return self.template
        shutil.rmtree(base, ignore_errors=True)
        os.mkdir(base)
        self._own(base)
        data = os.path.join(base, "data")
        proc.run(PLAIN, _user_prefix(self.user) + [self.initdb, "-D", data, "-A", "trust", "-U", self.user, "--no-sync"], 120, cwd="/")
        server = self._serve(PLAIN, data, base)
        try:
            proc.run(PLAIN, [self.pgbench, "-i", "-q", "-s", "10", "-h", "127.0.0.1", "-p", str(server.port), "-U", self.user, "postgres"], 120)
        finally:
            server.end()
        self.template = data
        return data

    def start(self, road, folder, variant):
        template = self._make_template(folder)
        self._own(folder)
        data = os.path.join(folder, "data")
        proc.run(PLAIN, ["cp", "-a", template, data], 60)
        return self._serve(road, data, folder)

    def _measure(self, clients, jobs):
        def measure(road, server, seconds):
            out = proc.run(road, [self.pgbench, "-S", "-n", "-c", str(clients), "-j", str(jobs), "-T", str(max(1, round(seconds))),
                                  "-h", "127.0.0.1", "-p", str(server.port), "-U", self.user, "postgres"], seconds + 60)
            return _number(r"tps = ([0-9.]+) \(without", out, "pgbench")
        return measure


class Sockperf:
    name = "sockperf"
    variants = [None]

    def __init__(self):
        self.tool = proc.tool("sockperf", "sockperf")
        self.loads = [Load("ping-pong 64 p50", "us", self._measure, 8, less=True)]

    def start(self, road, folder, variant):
        port = proc.free_port()
        return Server(road, [self.tool, "server", "--tcp", "-i", "127.0.0.1", "-p", str(port)], port, folder, signal.SIGINT)

    def _measure(self, road, server, seconds):
        # sockperf has numbers for 600,000 messages a second and ends with an error beyond
        out = proc.run(road, [self.tool, "ping-pong", "--tcp", "-i", "127.0.0.1", "-p", str(server.port), "-t",
                              str(max(1, round(seconds))), "-m", "64", "--full-rtt", "--mps", "500000"], seconds + 60)
        return _number(r"percentile 50\.0+ =\s+([0-9.]+)", out, "sockperf")


class Iperf3:
    name = "iperf3"
    variants = [None]

    def __init__(self):
        self.tool = proc.tool("iperf3", "iperf3")
        self.loads = [Load("128K", "GB/s", self._measure(["-l", "128K"]), ring_bar=.75),
                      Load("128K -R", "GB/s", self._measure(["-l", "128K", "-R"]), ring_bar=.75),
                      Load("128K -P 4", "GB/s", self._measure(["-l", "128K", "-P", "4"]))]

    def start(self, road, folder, variant):
        port = proc.free_port()
        return Server(road, [self.tool, "-s", "-B", "127.0.0.1", "-p", str(port)], port, folder)

    def _measure(self, options):
        def measure(road, server, seconds):
            out = proc.run(road, [self.tool, "-c", "127.0.0.1", "-p", str(server.port), "-t", str(max(1, round(seconds))), "-J",
                                  *options], seconds + 60)
            with contextlib.suppress(ValueError, KeyError):
                return json.loads(out)["end"]["sum_received"]["bits_per_second"] / 8e9
            raise Failed("iperf3 printed no result")
        return measure


ALL = [Redis, Nginx, Memcached, Postgres, Sockperf, Iperf3]
