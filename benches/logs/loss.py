#!/usr/bin/env python3
"""Is any line lost? Cases run against the real binary while other processes keep every core busy.

usage: loss.py AGENT [--case NAME]... [--runs N] [--busy N] [--out FILE]

sigterm       200,000 lines at 50,000/s, SIGTERM 10 ms after the last one; everything must have arrived at the exit
outage        5,000 lines/s for 50 s; the receiver is down for 30 s of them
short         20,000 lines/s for 20 s, default settings; the receiver is down for 10 s: how long until all is caught up
kill9         20,000 lines/s for 20 s; the agent is killed with SIGKILL every 200 ms and started again
diskfull      20,000 lines/s for 20 s; receiver down and disk of spool and file sink full for 10 s (needs root: a tmpfs)
rename        20,000 lines/s for 20 s; renamed and made anew every 0.5 s
copytruncate  20,000 lines/s for 20 s; copied and truncated every 0.5 s; what is in neither file is counted apart
killrename    both at once: killed every 200 ms, renamed every 0.3 s, so that some files come and go while no agent runs
spooled       as `kill9`, with every record on the spool first

Written = unique line numbers the generator wrote. Lost = of those, what never arrived (copytruncate: what never arrived
though it stands in the live file or a copy). Repeats are allowed, and counted.
"""
import argparse, http.server, json, multiprocessing, os, random, re, shutil, signal, subprocess, sys, tempfile, threading, time

LINE = re.compile(rb"line (\d{8}) ")
PAD = b"0123456789abcdefghijklmnopqrstuvwxyz" * 4


def line(number):
    return b"line %08d %s\n" % (number, PAD[: 90 + number % 50])


class Receiver:
    """Counts line numbers; may be taken down: connections are closed and refused, as when a server is gone."""

    def __init__(self):
        # Below the ephemeral ports: a client that tries again and again at a port of its own range meets itself.
        self.seen, self.lock, self.server, self.port = {}, threading.Lock(), None, random.randrange(20000, 30000)
        self.up()

    def up(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                numbers = LINE.findall(body)
                with outer.lock:
                    if outer.server is None:
                        self.close_connection = True
                        return
                    for number in numbers:
                        number = int(number)
                        outer.seen[number] = outer.seen.get(number, 0) + 1
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, *_):
                """An agent that is killed resets its connections."""

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def down(self):
        with self.lock:
            server, self.server = self.server, None
        server.shutdown()
        server.server_close()


class Agent:
    def __init__(self, binary, root, spec):
        self.binary, self.root, self.process, self.starts = binary, root, None, 0
        document = {
            "apiVersion": "outrigger.dev/v1alpha1",
            "kind": "LogAgent",
            "spec": spec,
        }
        with open(f"{root}/config.yaml", "w") as file:
            json.dump(document, file)  # JSON is YAML

    def start(self):
        self.starts += 1
        with open(f"{self.root}/stderr", "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "--config", f"{self.root}/config.yaml", "--admin", "off", "--log-format", "json",
                 "--socket", f"{self.root}/sock", "--drain-timeout", "25s"], stderr=log, stdin=subprocess.DEVNULL)

    def end(self, how, patience=60):
        self.process.send_signal(how)
        return self.process.wait(patience)

    def last_line(self):
        with open(f"{self.root}/stderr") as file:
            return file.read().splitlines()[-1]

    def peak(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return next(int(l.split()[1]) for l in file if l.startswith("VmHWM"))


def generate(path, count, rate, follow_name):
    """Appends whole lines by single writes; with follow_name it opens the file again when its name leads elsewhere."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    start, number, step = time.monotonic(), 0, max(1, rate // 200)
    while number < count:
        if follow_name:
            try:
                if os.stat(path).st_ino != os.fstat(file).st_ino:
                    raise FileNotFoundError
            except FileNotFoundError:
                os.close(file)
                file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        block = b"".join(line(n) for n in range(number, min(number + step, count)))
        os.write(file, block)
        number += step
        ahead = start + number / rate - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
    os.close(file)


def burn():
    while True:
        sum(range(10000))


def spec(root, port, **more):
    sinks = [{"name": "out", "to": {"http": {"url": f"http://127.0.0.1:{port}/"}}, "retryCeiling": "1s"}]
    sinks += more.pop("sinks", [])
    state = {"directory": f"{root}/state", "saveEvery": "100ms", "spoolMaxBytes": "256Mi"}
    state.update(more.pop("state", {}))
    files = {"include": [f"{root}/log/app.log"], "poll": "200ms", "rotateWait": "1s"}
    files.update(more.pop("files", {}))
    return {"sources": [{"name": "app", "files": files}], "sinks": sinks, "state": state}


def arrived(receiver, count, patience):
    """Until every number is there or nothing new came for `patience` seconds."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < patience:
        found = len(receiver.seen)
        if found >= count:
            return
        if found != last:
            last, since = found, time.monotonic()
        time.sleep(0.01)


def result(receiver, expected, started=None, **more):
    with receiver.lock:
        seen = dict(receiver.seen)
    lost = [number for number in expected if number not in seen]
    return dict(written=len(expected), lost=len(lost), first_lost=lost[:3],
                repeats=sum(n - 1 for n in seen.values()), **more)


class Case:
    def __init__(self, binary):
        self.root = tempfile.mkdtemp(prefix="outrigger-loss-")
        os.mkdir(f"{self.root}/log")
        self.log, self.binary, self.mounted = f"{self.root}/log/app.log", binary, False
        self.receiver, self.agent, self.writer = Receiver(), None, None

    def write(self, count, rate, follow_name=False):
        # Not forked: it would hold the receiver's socket open.
        spawn = multiprocessing.get_context("spawn")
        self.writer = spawn.Process(target=generate, args=(self.log, count, rate, follow_name))
        self.writer.start()

    def close(self):
        if self.writer and self.writer.is_alive():
            self.writer.kill()
        if self.agent and self.agent.process.poll() is None:
            self.agent.end(signal.SIGKILL)
        if self.mounted:
            subprocess.run(["umount", f"{self.root}/small"], check=True)
        if self.receiver.server:
            self.receiver.down()
        shutil.rmtree(self.root)

    def sigterm(self):
        count = 200_000
        self.agent = Agent(self.binary, self.root, spec(self.root, self.receiver.port))
        self.agent.start()
        time.sleep(0.3)
        self.write(count, 50_000)
        self.writer.join()
        time.sleep(0.01)
        t = time.monotonic()
        code = self.agent.end(signal.SIGTERM)
        took = time.monotonic() - t
        return result(self.receiver, range(count), exit=code, drain_s=round(took, 3),
                      balances="; balances" in self.agent.last_line())

    def short(self):
        return self.outage(400_000, 20_000, 3, 10, plain=True)

    def outage(self, count=250_000, rate=5_000, before=10, down=30, plain=False):
        document = spec(self.root, self.receiver.port)
        if plain:
            del document["sinks"][0]["retryCeiling"], document["state"]["saveEvery"], document["sources"][0]["files"]["poll"]
        self.agent = Agent(self.binary, self.root, document)
        self.agent.start()
        self.write(count, rate)
        time.sleep(before)
        self.receiver.down()
        time.sleep(down)
        self.receiver.up()
        # Caught up: everything written by now is there.
        back, size = time.monotonic(), os.path.getsize(self.log)
        with open(self.log, "rb") as file:
            numbers = LINE.findall(file.read(size))
        while int(numbers[-1]) not in self.receiver.seen and time.monotonic() - back < 60:
            time.sleep(0.01)
        caught_up = time.monotonic() - back
        self.writer.join()
        arrived(self.receiver, count, 30)
        peak = self.agent.peak()
        code = self.agent.end(signal.SIGTERM)
        return result(self.receiver, range(count), exit=code, caught_up_s=round(caught_up, 2), peak_rss_kib=peak)

    def kill9(self, **more):
        count = 400_000
        self.agent = Agent(self.binary, self.root, spec(self.root, self.receiver.port, **more))
        self.agent.start()
        self.write(count, 20_000)
        while self.writer.is_alive():
            time.sleep(0.2)
            self.agent.end(signal.SIGKILL)
            self.agent.start()
        arrived(self.receiver, count, 30)
        code = self.agent.end(signal.SIGTERM)
        return result(self.receiver, range(count), exit=code, kills=self.agent.starts - 1)

    def spooled(self):
        return self.kill9(state={"spool": "always"})

    def killrename(self):
        count, rotations, rotated = 400_000, 0, time.monotonic()
        self.agent = Agent(self.binary, self.root, spec(self.root, self.receiver.port))
        self.agent.start()
        self.write(count, 20_000, True)
        killed = time.monotonic()
        while self.writer.is_alive():
            time.sleep(0.01)
            if time.monotonic() - rotated >= 0.3:
                rotated = time.monotonic()
                rotations += self.rotate(100)
            if time.monotonic() - killed >= 0.2:
                self.agent.end(signal.SIGKILL)
                self.agent.start()
                killed = time.monotonic()
        arrived(self.receiver, count, 30)
        code = self.agent.end(signal.SIGTERM)
        return result(self.receiver, range(count), exit=code, kills=self.agent.starts - 1, rotations=rotations)

    def rotate(self, keep):
        """logrotate's way."""
        for n in range(keep - 1, 0, -1):
            if os.path.exists(f"{self.log}.{n}"):
                os.rename(f"{self.log}.{n}", f"{self.log}.{n + 1}")
        if not os.path.exists(self.log):
            return 0
        os.rename(self.log, f"{self.log}.1")
        return 1

    def diskfull(self):
        count, small = 400_000, f"{self.root}/small"
        os.mkdir(small)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "none", small], check=True)
        self.mounted = True
        copy = {"name": "copy", "to": {"file": {"path": f"{small}/copy.log"}}, "retryCeiling": "1s"}
        self.agent = Agent(self.binary, self.root, spec(self.root, self.receiver.port, sinks=[copy],
                                                        state={"directory": f"{small}/state"}))
        self.agent.start()
        self.write(count, 20_000)
        time.sleep(4)
        self.receiver.down()
        with open(f"{small}/filler", "wb", buffering=0) as filler:
            try:
                while filler.write(b"\0" * 65536):
                    pass
            except OSError:
                pass
            # To the last byte.
            try:
                while filler.write(b"\0"):
                    pass
            except OSError:
                pass
        time.sleep(10)
        os.remove(f"{small}/filler")
        self.receiver.up()
        self.writer.join()
        arrived(self.receiver, count, 30)
        code = self.agent.end(signal.SIGTERM)
        with open(f"{small}/copy.log", "rb") as file:
            copied = [int(n) for n in LINE.findall(file.read())]
        return result(self.receiver, range(count), exit=code, copy_lost=count - len(set(copied)),
                      copy_repeats=len(copied) - len(set(copied)))

    def rename(self):
        count = 400_000
        self.agent = Agent(self.binary, self.root, spec(self.root, self.receiver.port))
        self.agent.start()
        self.write(count, 20_000, True)
        rotations = 0
        while self.writer.is_alive():
            time.sleep(0.5)
            rotations += self.rotate(7)
        arrived(self.receiver, count, 15)
        code = self.agent.end(signal.SIGTERM)
        return result(self.receiver, range(count), exit=code, rotations=rotations)

    def copytruncate(self):
        count = 400_000
        self.agent = Agent(self.binary, self.root, spec(self.root, self.receiver.port))
        self.agent.start()
        self.write(count, 20_000)
        rotations = 0
        while self.writer.is_alive():
            time.sleep(0.5)
            if not os.path.exists(self.log):
                continue
            rotations += 1
            shutil.copyfile(self.log, f"{self.log}.{rotations}")
            os.truncate(self.log, 0)
        kept = set()
        for name in os.listdir(f"{self.root}/log"):
            with open(f"{self.root}/log/{name}", "rb") as file:
                kept.update(int(n) for n in LINE.findall(file.read()))
        arrived(self.receiver, count, 10)
        code = self.agent.end(signal.SIGTERM)
        last = self.agent.last_line()
        unseen = re.search(r"truncated unseen (\d+)", last)
        return result(self.receiver, sorted(kept), exit=code, rotations=rotations, in_neither=count - len(kept),
                      truncated_unseen=int(unseen[1]) if unseen else 0)


CASES = ["sigterm", "outage", "short", "kill9", "spooled", "diskfull", "rename", "copytruncate", "killrename"]


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("agent")
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--runs", type=int, default=1, help="of `sigterm`; the others run once")
    parser.add_argument("--busy", type=int, default=os.cpu_count(), help="processes that keep the cores busy")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    busy = [multiprocessing.Process(target=burn, daemon=True) for _ in range(arguments.busy)]
    for process in busy:
        process.start()
    results, bad = [], 0
    try:
        for name in arguments.case or CASES:
            for run in range(arguments.runs if name == "sigterm" else 1):
                case = Case(os.path.abspath(arguments.agent))
                try:
                    outcome = dict(case=name, run=run, **getattr(case, name)())
                    bad += outcome["lost"] > 0 or outcome.get("copy_lost", 0) > 0
                    if outcome["lost"]:
                        keep = f"/tmp/outrigger-loss-{name}-{run}.log"
                        shutil.copyfile(f"{case.root}/stderr", keep)
                        outcome["stderr"] = keep
                finally:
                    case.close()
                print(json.dumps(outcome), flush=True)
                results.append(outcome)
    finally:
        for process in busy:
            process.kill()
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump(results, file, indent=1)
    sigterm = [r for r in results if r["case"] == "sigterm"]
    if sigterm:
        print(f"sigterm: {sum(not r['lost'] for r in sigterm)} of {len(sigterm)} runs complete")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
