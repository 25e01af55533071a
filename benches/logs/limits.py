#!/usr/bin/env python3
"""What the log sidecar costs and keeps to: parsing, the spool, idle memory, full speed under a 16 MiB limit.

usage: limits.py AGENT [--lines N] [--rounds N] [--case NAME]... [--out FILE]

parse     CRI lines whose text is JSON, parsed, enriched with three fields and two labels of a pod, written as JSON:
          MiB/s of source per core (bytes by the agent's CPU time)
http      plain lines to an HTTP server; spooled: the same with every record on the spool first
file      plain lines to a file; and spooled
idle      PSS three seconds after the start, with one quiet file, admin port open
limit     `http` in a memory cgroup of 16 MiB (cgroup v1 or v2, root): lines/s, largest RSS, how often the limit was met

The agent runs on cpu 0, the receiver on cpu 1. Medians of the rounds; lines are 100 to 200 bytes, the source is on disk.
"""
import argparse, json, os, random, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, threading, time

WORDS = ["GET /api/v1/items", "POST /api/v1/orders", "cache refreshed for tenant", "connection accepted from"]
PAD = "abcdefghijklmnopqrstuvwxyz0123456789 " * 4
TICK = os.sysconf("SC_CLK_TCK")


def plain(n):
    return f"2026-11-21T22:10:{n // 1000000 % 60:02d}.{n % 1000000:06d}Z INFO worker-{n % 8} seq={n:010d} {WORDS[n % 4]} {PAD[: 30 + n % 70]}\n"


def cri(n):
    body = json.dumps({"level": "info", "seq": n, "msg": f"{WORDS[n % 4]} {PAD[: 5 + n % 60]}", "took": n % 97})
    return f"2026-11-21T22:10:{n // 1000000 % 60:02d}.{n % 1000000:06d}123Z {'stderr' if n % 9 == 0 else 'stdout'} F {body}\n"


RECEIVER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
room = bytearray(1 << 20)
view = memoryview(room)
while True:
    connection, _ = listener.accept()
    head = b""
    while True:
        while b"\\r\\n\\r\\n" not in head:
            piece = connection.recv(65536)
            if not piece:
                break
            head += piece
        if b"\\r\\n\\r\\n" not in head:
            break
        head, body = head.split(b"\\r\\n\\r\\n", 1)
        left = int(head.lower().split(b"content-length:")[1].split(b"\\r\\n")[0]) - len(body)
        while left > 0:
            got = connection.recv_into(view, min(left, 1 << 20))
            if not got:
                break
            left -= got
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
        head = b""
"""


class Cgroup:
    """A memory cgroup of its own; nothing if there is no controller."""

    def __init__(self, limit):
        one, two = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
        self.v1 = os.path.isdir(one)
        self.path = f"{one if self.v1 else two}/outrigger-limits-{os.getpid()}"
        os.mkdir(self.path)
        self.write("memory.limit_in_bytes" if self.v1 else "memory.max", limit)

    def write(self, name, value):
        with open(f"{self.path}/{name}", "w") as file:
            file.write(str(value))

    def read(self, name):
        with open(f"{self.path}/{name}") as file:
            return file.read()

    def met(self):
        if self.v1:
            return int(self.read("memory.failcnt"))
        return int(re.search(r"^max (\d+)", self.read("memory.events"), re.M)[1])

    def killed(self):
        return int(re.search(r"^oom_kill (\d+)", self.read("memory.oom_control" if self.v1 else "memory.events"), re.M)[1])

    def close(self):
        os.rmdir(self.path)


def status(pid, name):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def pss(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


def acknowledged(state):
    """The furthest position in either file that the agent keeps them in."""
    found = 0
    for name in ["positions.json", "positions.now.json"]:
        try:
            with open(f"{state}/{name}") as file:
                ends = [at[0] for saved in json.load(file)["files"] for at in saved["positions"].values()]
            found = max([found, *ends])
        except (FileNotFoundError, ValueError):
            pass
    return found


def run(agent, root, source, sink, size, state=None, cgroup=None, idle=False):
    """One run to the end of the file; what it took."""
    here = tempfile.mkdtemp(dir=root)
    at = random.randrange(20000, 30000)
    receiver = subprocess.Popen(["taskset", "-c", "1", sys.executable, "-c", RECEIVER, str(at)])
    text = json.dumps({"apiVersion": "outrigger.dev/v1alpha1", "kind": "LogAgent", "spec": {
        "sources": [source], "sinks": [{"name": "out", "to": sink}],
        "state": {"directory": f"{here}/state", **(state or {})},
        "fields": {"pod": {"value": "web-7f9c"}, "namespace": {"value": "shop"}, "node": {"value": "n1"},
                   "labels": {"labelsFile": f"{root}/labels"}} if "parse" in source else {},
    }}).replace("@HERE@", here).replace("@PORT@", str(at))
    with open(f"{here}/config.yaml", "w") as file:
        file.write(text)
    while socket.socket().connect_ex(("127.0.0.1", at)):
        time.sleep(0.01)

    def join():
        os.sched_setaffinity(0, [0])
        if cgroup:
            cgroup.write("cgroup.procs", os.getpid())

    began = time.monotonic()
    process = subprocess.Popen(
        [agent, "--config", f"{here}/config.yaml", "--admin", "127.0.0.1:0", "--socket", f"{here}/sock", "--log-format", "json"],
        preexec_fn=join, stderr=open(f"{here}/stderr", "w"), stdin=subprocess.DEVNULL)
    largest = 0
    try:
        if idle:
            time.sleep(3)
            return dict(pss_kib=pss(process.pid), rss_kib=status(process.pid, "VmRSS"))
        # The agent writes positions down within milliseconds of an acknowledgement.
        while time.monotonic() - began < 120:
            if process.poll() is not None:
                raise SystemExit(f"the agent ended: {open(f'{here}/stderr').read()}")
            largest = max(largest, status(process.pid, "VmRSS"))
            if acknowledged(f"{here}/state") >= size:
                break
            time.sleep(0.004)
        else:
            raise SystemExit("not everything arrived")
        took, cpu = time.monotonic() - began, cpu_seconds(process.pid)
        return dict(seconds=took, cpu=cpu, rss_kib=max(largest, status(process.pid, "VmHWM")))
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        receiver.kill()
        receiver.wait()
        with open(f"{here}/stderr") as file:
            last = file.read().splitlines()[-1]
        shutil.rmtree(here)
        assert code == 0 and "; balances" in last, (code, last)


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("agent")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", action="append", choices=["parse", "http", "file", "idle", "limit"])
    parser.add_argument("--out")
    arguments = parser.parse_args()
    cases = arguments.case or ["parse", "http", "file", "idle", "limit"]
    root = tempfile.mkdtemp(prefix="outrigger-limits-")
    results = []

    def report(name, **values):
        results.append(dict(case=name, **values))
        print(json.dumps(results[-1]), flush=True)

    try:
        with open(f"{root}/labels", "w") as file:
            file.write('app="web"\ntier="front"\n')
        sizes = {}
        for name, make in [("plain", plain), ("cri", cri)]:
            os.mkdir(f"{root}/{name}")
            with open(f"{root}/{name}/app.log", "w") as file:
                for start in range(0, arguments.lines, 10000):
                    file.write("".join(make(n) for n in range(start, min(start + 10000, arguments.lines))))
            sizes[name] = os.path.getsize(f"{root}/{name}/app.log")
        source = {name: {"name": name, "files": {"include": [f"{root}/{name}/*.log"]}} for name in sizes}
        source["cri"] |= {"format": "cri", "parse": "json"}
        http, file = {"http": {"url": "http://127.0.0.1:@PORT@/"}}, {"file": {"path": "@HERE@/out.log"}}

        def several(name, kind, sink, **more):
            runs = [run(arguments.agent, root, source[kind], sink, sizes[kind], **more) for _ in range(arguments.rounds)]
            median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            report(name, lines_s=round(arguments.lines / median["seconds"]), cpu_s_per_gb=round(median["cpu"] / sizes[kind] * 1e9, 2),
                   mib_s_per_core=round(sizes[kind] / 2**20 / median["cpu"]), largest_rss_kib=max(run["rss_kib"] for run in runs))

        if "parse" in cases:
            several("parse", "cri", {"file": {"path": "@HERE@/out.log", "encoding": "json"}})
        for name, sink in [("http", http), ("file", file)]:
            if name in cases:
                several(name, "plain", sink)
                several(f"{name}, spooled", "plain", sink, state={"spool": "always", "spoolMaxBytes": "1Gi"})
        if "idle" in cases:
            os.mkdir(f"{root}/quiet")
            open(f"{root}/quiet/app.log", "w").close()
            quiet = {"name": "app", "files": {"include": [f"{root}/quiet/*.log"]}}
            report("idle", **run(arguments.agent, root, quiet, http, 0, idle=True))
        if "limit" in cases:
            cgroup = Cgroup(16 << 20)
            try:
                several("limit", "plain", http, cgroup=cgroup)
                results[-1] |= dict(limit_met=cgroup.met(), oom_kills=cgroup.killed())
                print(json.dumps(results[-1]))
            finally:
                cgroup.close()
    finally:
        shutil.rmtree(root)
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
