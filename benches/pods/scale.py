#!/usr/bin/env python3
"""Many pods, and many times one pod: seconds, memory, and what is left behind.

usage: scale.py OUTRIGGER [--pods 50] [--cycles 1000]
Root only. Uses a state root of its own below the temporary folder and removes it. Prints:
  * seconds to bring PODS two-container pods up with one `run --detach` (an engine already runs), and to take them down;
  * plumbing per pod: (PSS of all our processes with PODS pods - with 1) / (PODS - 1), and the engine's own PSS;
  * after CYCLES of `run --detach` + `down --force`: what is left of processes, mounts, cgroups, links, rules, files.
"""
import argparse, glob, os, re, shutil, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
POD = """apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: logs, emptyDir: {}}]
  containers:
  - {name: main, image: busybox, imagePullPolicy: Never, volumeMounts: [{name: logs, mountPath: /var/log}],
     command: [sh, -c, 'while true; do date >> /var/log/app.log; sleep 5; done']}
  - {name: sidecar, image: busybox, imagePullPolicy: Never, volumeMounts: [{name: logs, mountPath: /var/log}],
     command: [tail, -F, -n, "+1", /var/log/app.log]}
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("outrigger")
    parser.add_argument("--pods", type=int, default=50)
    parser.add_argument("--cycles", type=int, default=1000)
    arguments = parser.parse_args()
    binary = os.path.abspath(arguments.outrigger)
    root = tempfile.mkdtemp(prefix="outrigger-bench-")
    environment = {**os.environ, "OUTRIGGER_ROOT": root}

    def run(*words, check=True, **more):
        return subprocess.run([binary, *words], env=environment, check=check, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)

    def ours():
        """PSS in KiB of every process of this root: shims by the directory of their socket, the engine by its root."""
        found = {}
        for path in glob.glob("/proc/[0-9]*"):
            try:
                exe = os.readlink(path + "/exe")
                line = open(path + "/cmdline", "rb").read().replace(b"\0", b" ").decode()
                if root in line or "/outrigger-shim" in exe or line.startswith("outrigger-shim"):
                    text = open(path + "/smaps_rollup").read()
                    kind = "engine" if "__engine" in line else "shim"
                    found.setdefault(kind, []).append(int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1]))
            except OSError:
                pass
        return found

    def write(name, text):
        path = os.path.join(root, name)
        open(path, "w").write(text)
        return path

    try:
        image = subprocess.run([os.path.join(HERE, "images.sh")], stdout=subprocess.PIPE, check=True).stdout
        run("image", "import", "--rootfs", "-", "docker.io/library/busybox:latest", input=image)
        run("run", "--detach", write("one.yaml", POD % "keeper"))
        time.sleep(1)
        one = ours()
        many = write("many.yaml", "---\n".join(POD % f"p{i}" for i in range(arguments.pods - 1)))
        start = time.monotonic()
        run("run", "--detach", many)
        up = time.monotonic() - start
        time.sleep(2)
        all_of_them = ours()
        total = lambda sums: sum(sum(values) for values in sums.values())
        per_pod = (total(all_of_them) - total(one)) / (arguments.pods - 1)
        print(f"{arguments.pods - 1} pods up in {up:.2f} s ({up * 1000 / (arguments.pods - 1):.1f} ms each)")
        print(f"plumbing per pod {per_pod:.0f} KiB; shim PSS with 1 pod {one['shim']} KiB, median with {arguments.pods} "
              f"{statistics.median(all_of_them['shim']):.0f} KiB; engine {one['engine']} -> {all_of_them['engine']} KiB")
        start = time.monotonic()
        run("down", "--all", "--force")
        print(f"all down in {time.monotonic() - start:.2f} s")

        run("run", "--detach", write("one.yaml", POD % "keeper"))
        single = write("single.yaml", POD % "single")
        ups, downs = [], []
        for _ in range(arguments.cycles):
            start = time.monotonic()
            run("run", "--detach", single)
            middle = time.monotonic()
            run("down", "single", "--force")
            ups.append((middle - start) * 1000)
            downs.append((time.monotonic() - middle) * 1000)
        if ups:
            print(f"{arguments.cycles} cycles: up {statistics.median(ups):.1f} ms (min {min(ups):.1f}), "
                  f"down {statistics.median(downs):.1f} ms (min {min(downs):.1f}); engine {ours()['engine']} KiB")
        run("down", "--all", "--force")
        time.sleep(6)
        left = [line for line in open("/proc/self/mountinfo") if root in line]
        left += [f"process {kind}" for kind in ours()]
        for directory in ("run/pods", "lib/pods", "log"):
            left += glob.glob(os.path.join(root, directory, "*"))
        print("left behind: " + (", ".join(left) if left else "nothing"))
        sys.exit(1 if left else 0)
    finally:
        run("down", "--all", "--force", check=False)
        shutil.rmtree(root, ignore_errors=True)


main()
