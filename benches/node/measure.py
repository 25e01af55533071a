#!/usr/bin/env python3
"""The node's numbers: start, memory, a pod's readiness, lists, watches, durable writes.

usage: measure.py OUTRIGGER KUBECTL [--rounds 10] [--pods 100] [--only NAME,NAME]
Root only. Each part has a node of its own with a root below the temporary folder (or below $BENCH_ROOT, to choose the disk
that is written to) and leaves nothing. Requests other than kubectl's own go over one kept TLS connection, so that what is
measured is the answer, not the handshake. Standard library only.
"""
import argparse, base64, contextlib, http.client, json, multiprocessing, os, re, shutil, socket, ssl, statistics, subprocess
import sys, tempfile, threading, time

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "", "labels": {"bench": "yes"}},
       "spec": {"terminationGracePeriodSeconds": 0,
                "containers": [{"name": "a", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1000000"]}]}}
NS = "/api/v1/namespaces/default"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
rows = []


def row(what, target, value):
    rows.append((what, target, value))
    print(f"{what:<58} {value:<44} target {target}", flush=True)


def ms(seconds):
    ordered = sorted(seconds)
    worst = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"median {statistics.median(ordered) * 1e3:.1f} ms (min {ordered[0] * 1e3:.1f}, p99 {worst * 1e3:.1f})"


class Node:
    def __init__(self, binary, kubectl):
        self.binary, self.kubectl_path = os.path.abspath(binary), os.path.abspath(kubectl)
        self.dir = tempfile.mkdtemp(prefix="outrigger-bench-", dir=os.environ.get("BENCH_ROOT"))
        self.environment = {**os.environ, "OUTRIGGER_ROOT": self.dir + "/root", "KUBECONFIG": self.dir + "/kubeconfig", "HOME": self.dir}

    def run(self, *words, check=True, **more):
        return subprocess.run(words, env=self.environment, check=check, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)

    def start(self):
        self.run(self.binary, "start", "--offline", "--port", "0")

    def kubectl(self, line, **more):
        return self.run(self.kubectl_path, *line.split(), **more).stdout.decode()

    def pid(self):
        return json.load(open(self.dir + "/root/run/node.json"))["pid"]

    def pss(self):
        """KiB"""
        return int(re.search(r"^Pss:\s+(\d+)", open(f"/proc/{self.pid()}/smaps_rollup").read(), re.M)[1])

    def credentials(self):
        config = json.loads(self.kubectl("config view --raw -o json"))
        files = []
        for holder, field in [(config["clusters"][0]["cluster"], "certificate-authority-data"),
                              (config["users"][0]["user"], "client-certificate-data"), (config["users"][0]["user"], "client-key-data")]:
            files.append(f"{self.dir}/{field}.pem")
            open(files[-1], "wb").write(base64.b64decode(holder[field]))
        return config["clusters"][0]["cluster"]["server"].removeprefix("https://"), files

    def connect(self):
        return Client(*self.credentials())

    def gone(self):
        self.run(self.binary, "stop", "--clean", check=False)
        shutil.rmtree(self.dir, ignore_errors=True)


class Client:
    """One connection that is kept."""

    def __init__(self, address, files):
        context = ssl.create_default_context(cafile=files[0])
        context.load_cert_chain(files[1], files[2])
        host, port = address.rsplit(":", 1)
        self.http = http.client.HTTPSConnection(host, int(port), context=context)
        self.http.connect()
        self.http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method, path, body=None, kind="application/json", accept="application/json"):
        self.http.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": kind, "Accept": accept})
        answer = self.http.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {data[:500]}")
        return data

    def watch(self, path, heard):
        """Calls `heard(event, when)` for every event, on a thread of its own."""
        self.http.request("GET", path, None, {"Accept": "application/json"})
        answer = self.http.getresponse()

        def read():
            with contextlib.suppress(Exception):
                while line := answer.readline():
                    heard(json.loads(line), time.perf_counter())

        threading.Thread(target=read, daemon=True).start()


def measure_start(make, rounds):
    whole, own, begun, again = [], [], [], []
    for _ in range(rounds):
        node = make()
        try:
            began = time.perf_counter()
            node.start()
            begun.append(time.perf_counter() - began)
            node.kubectl("get nodes")
            answered = time.perf_counter() - began
            whole.append(answered)
            for _ in range(3):
                shutil.rmtree(node.dir + "/.kube", ignore_errors=True)
                began = time.perf_counter()
                node.kubectl("get nodes")
                own.append(time.perf_counter() - began)
            node.run(node.binary, "stop")
            began = time.perf_counter()
            node.start()
            again.append(time.perf_counter() - began)
        finally:
            node.gone()
    # A round's own kubectl time is the median of all: it varies more than the start does.
    typical = statistics.median(own)
    row("start → `kubectl get nodes` answered, less kubectl's own", "<= 100 ms", ms([value - typical for value in whole]))
    row("  `outrigger start` returned (a new root)", "", ms(begun))
    row("  `outrigger start` returned (the root again)", "", ms(again))
    row("  `kubectl get nodes` alone, nothing cached", "", ms(own))


def measure_idle(make, _rounds):
    node = make()
    try:
        node.start()
        time.sleep(2)
        soon = node.pss()
        node.kubectl("get pods -A")
        time.sleep(50)  # it gives memory back when it has been quiet for a while
        row("idle daemon, PSS", "<= 12 MiB", f"{node.pss() / 1024:.1f} MiB ({soon / 1024:.1f} after 2 s)")
        before = node.pss()
        watchers = [node.connect() for _ in range(50)]
        for watcher in watchers:
            watcher.watch(f"{NS}/pods?watch=1", lambda event, when: None)
        client = node.connect()
        for number in range(20):
            client.ask("POST", NS + "/configmaps", {"metadata": {"name": f"x{number}"}, "data": {"a": "b"}})
        time.sleep(1)
        more = node.pss() - before
        row("50 watches, PSS each", "<= 1 MiB", f"{more / 50:.0f} KiB (daemon {node.pss() / 1024:.1f} MiB)")
    finally:
        node.gone()


def measure_ready(make, rounds):
    walkthrough = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../examples/walkthrough.yaml")
    after_apply, after_post, kubectl = [], [], []
    node = make()
    try:
        node.start()
        client, watcher = node.connect(), node.connect()
        ready, turned = threading.Event(), [0.0]

        def heard(event, when):
            conditions = event["object"].get("status", {}).get("conditions", [])
            if not ready.is_set() and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                turned[0] = when
                ready.set()

        watcher.watch(f"{NS}/pods?watch=1&resourceVersion=0", heard)
        node.kubectl(f"apply -f {walkthrough}")
        stored = None
        for number in range(rounds + 1):
            if stored is None:
                assert ready.wait(30)
                stored = json.loads(client.ask("GET", NS + "/pods/sidecar"))
                spec = json.loads(stored["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"])
            client.ask("DELETE", NS + "/pods/sidecar", {"gracePeriodSeconds": 0})
            time.sleep(0.5)
            ready.clear()
            if number % 2:
                node.kubectl(f"apply -f {walkthrough}")
                returned = time.perf_counter()
                assert ready.wait(30)
                after_apply.append(max(0.0, turned[0] - returned))
            else:
                began = time.perf_counter()
                client.ask("POST", NS + "/pods", spec)
                assert ready.wait(30)
                after_post.append(turned[0] - began)
        row("walkthrough: `kubectl apply` returned → Ready", "<= 60 ms", ms(after_apply))
        row("  the POST sent → Ready heard by a watch", "", ms(after_post))
        client.ask("DELETE", NS + "/pods/sidecar", {"gracePeriodSeconds": 0})
    finally:
        node.gone()


def measure_many(make, pods):
    node = make()
    try:
        node.start()
        client = node.connect()
        began = time.perf_counter()
        for number in range(pods):
            POD["metadata"]["name"] = f"pod-{number}"
            client.ask("POST", NS + "/pods", POD)
        while True:
            items = json.loads(client.ask("GET", NS + "/pods"))["items"]
            if all(any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", [])) for pod in items):
                break
            time.sleep(0.1)
        row(f"{pods} pods created → all Ready", "", f"{time.perf_counter() - began:.2f} s")
        for what, accept in [("as a Table", TABLE), ("as objects", "application/json")]:
            took, size = [], 0
            for _ in range(30):
                began = time.perf_counter()
                size = len(client.ask("GET", NS + "/pods?limit=500", accept=accept))
                took.append(time.perf_counter() - began)
            row(f"list of {pods} pods {what} ({size // 1024} KiB)", "<= 20 ms" if "Table" in what else "", ms(took))
        took = []
        for _ in range(5):
            began = time.perf_counter()
            node.kubectl("get pods")
            took.append(time.perf_counter() - began)
        row(f"  `kubectl get pods` with {pods} pods", "", ms(took))
        row(f"  daemon with {pods} pods, PSS", "", f"{node.pss() / 1024:.1f} MiB")
        client.ask("DELETE", NS + "/pods", {"gracePeriodSeconds": 0})
        while json.loads(client.ask("GET", NS + "/pods"))["items"]:
            time.sleep(0.1)
    finally:
        node.gone()


def measure_watch(make, _rounds):
    node = make()
    try:
        node.start()
        client, watcher = node.connect(), node.connect()
        events, arrived = {}, threading.Condition()

        def heard(event, when):
            with arrived:
                events[event["object"].get("data", {}).get("a")] = when
                arrived.notify()

        client.ask("POST", NS + "/configmaps", {"metadata": {"name": "cm"}, "data": {"a": "-"}})
        watcher.watch(f"{NS}/configmaps?watch=1&resourceVersion=0&fieldSelector=metadata.name%3Dcm", heard)
        after_answer, after_request = [], []
        for number in range(300):
            value = str(number)
            began = time.perf_counter()
            client.ask("PATCH", NS + "/configmaps/cm", {"data": {"a": value}}, "application/merge-patch+json")
            answered = time.perf_counter()
            with arrived:
                assert arrived.wait_for(lambda: value in events, 5)
            after_answer.append(max(0.0, events[value] - answered))
            after_request.append(events[value] - began)
            time.sleep(0.003)
        row("a watch event after the write's answer", "<= 5 ms", ms(after_answer))
        row("  after the write's request (it is on the disk first)", "", ms(after_request))
    finally:
        node.gone()


def write_for(address, files, number, seconds, counts):
    client = Client(address, files)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        client.ask("POST", NS + "/configmaps", {"metadata": {"name": f"w{number}-{count}"}, "data": {"a": "x" * 100}})
        count += 1
    counts.put(count / (time.perf_counter() - began))


def measure_writes(make, _rounds):
    node = make()
    try:
        with open(node.dir + "/disk", "wb") as disk:
            began, count = time.perf_counter(), 0
            while time.perf_counter() - began < 2:
                disk.write(b"x" * 4096)
                disk.flush()
                os.fdatasync(disk.fileno())
                count += 1
            row("(the disk: 4 KiB appended and fdatasync'd)", "", f"{count / 2:.0f} /s")
        node.start()
        address, files = node.credentials()
        for clients in [1, 16]:
            counts = multiprocessing.Queue()
            workers = [multiprocessing.Process(target=write_for, args=(address, files, f"{clients}-{number}", 4, counts)) for number in range(clients)]
            for worker in workers:
                worker.start()
            total = sum(counts.get() for _ in workers)
            for worker in workers:
                worker.join()
            row(f"durable ConfigMap writes, {clients} client{'s' * (clients > 1)}", ">= 1000 /s", f"{total:.0f} /s")
        row("  daemon afterwards, PSS", "", f"{node.pss() / 1024:.1f} MiB")
    finally:
        node.gone()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("outrigger")
    parser.add_argument("kubectl")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--pods", type=int, default=100)
    parser.add_argument("--only", default="start,idle,ready,watch,writes,many")
    arguments = parser.parse_args()

    def make():
        return Node(arguments.outrigger, arguments.kubectl)

    print(f"load before: {os.getloadavg()[0]:.2f}")
    for name in arguments.only.split(","):
        part = globals()[f"measure_{name}"]
        part(make, arguments.pods if name == "many" else arguments.rounds)
    print(f"load after: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
