"""The official Python client: objects, an informer's list and watch, streams into a pod. Its argument: nothing."""

import threading
import time

from kubernetes import client, config, watch
from kubernetes.stream import portforward, stream

config.load_kube_config()
core = client.CoreV1Api()

# Objects.
core.create_namespaced_config_map("default", {"metadata": {"name": "settings"}, "data": {"color": "blue"}})
core.patch_namespaced_config_map("settings", "default", {"data": {"shape": "round"}})
settings = core.read_namespaced_config_map("settings", "default")
assert settings.data == {"color": "blue", "shape": "round"}, settings.data
settings.data["color"] = "red"
replaced = core.replace_namespaced_config_map("settings", "default", settings)
assert int(replaced.metadata.resource_version) > int(settings.metadata.resource_version)
try:
    core.replace_namespaced_config_map("settings", "default", settings)
    raise SystemExit("a stale object was accepted")
except client.ApiException as error:
    assert (error.status, error.reason) == (409, "Conflict"), error

# Pages.
for number in range(7):
    core.create_namespaced_config_map("default", {"metadata": {"name": f"page-{number}", "labels": {"page": "yes"}}})
names, token, pages = [], None, 0
while True:
    page = core.list_namespaced_config_map("default", label_selector="page", limit=3, _continue=token)
    names += [item.metadata.name for item in page.items]
    pages, token = pages + 1, page.metadata._continue
    if not token:
        break
assert names == [f"page-{number}" for number in range(7)], names

# A watch from a list on, as informers do it.
listed = core.list_namespaced_pod("default")
seen, done = [], threading.Event()


def follow():
    for event in watch.Watch().stream(
        core.list_namespaced_pod, "default", resource_version=listed.metadata.resource_version, timeout_seconds=600
    ):
        pod = event["object"]
        seen.append((event["type"], pod.status.phase, int(pod.metadata.resource_version)))
        if event["type"] == "DELETED":
            done.set()
            return


follower = threading.Thread(target=follow, daemon=True)
follower.start()

container = client.V1Container(
    name="app",
    image="busybox",
    command=["sh", "-c", "trap exit TERM; echo started; while :; do echo tick; sleep 0.2; done"],
    readiness_probe=client.V1Probe(_exec=client.V1ExecAction(command=["true"]), period_seconds=1),
)
pod = client.V1Pod(
    metadata=client.V1ObjectMeta(name="app", labels={"app": "app"}),
    spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0),
)
core.create_namespaced_pod("default", pod)
deadline = time.time() + 120
while True:
    pod = core.read_namespaced_pod_status("app", "default")
    if any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or []):
        break
    assert time.time() < deadline, pod.status
    time.sleep(0.05)

# Streams: exec over the older WebSocket protocol (v4.channel.k8s.io), logs, a forwarded port.
out = stream(core.connect_get_namespaced_pod_exec, "app", "default", command=["sh", "-c", "echo out; echo err >&2"],
             stdout=True, stderr=True, stdin=False, tty=False)
assert sorted(out.split()) == ["err", "out"], out
shell = stream(core.connect_get_namespaced_pod_exec, "app", "default", command=["sh"], stdout=True, stderr=True,
               stdin=True, tty=False, _preload_content=False)
shell.write_stdin("echo typed\n")
assert shell.readline_stdout(timeout=120) == "typed"
shell.write_stdin("exit 9\n")
shell.run_forever(timeout=120)
assert shell.returncode == 9, shell.returncode
while not core.read_namespaced_pod_log("app", "default").startswith("started\ntick\n"):
    assert time.time() < deadline
    time.sleep(0.05)
lines = []
for line in watch.Watch().stream(core.read_namespaced_pod_log, "app", "default", follow=True):
    lines.append(line)
    if len(lines) == 5:
        break
assert lines[0] == "started" and lines[4] == "tick", lines

listener = stream(core.connect_get_namespaced_pod_exec, "app", "default", stdout=True, stderr=True, stdin=False,
                  tty=False, _preload_content=False,
                  command=["sh", "-c", "mkdir /tmp/w; echo page > /tmp/w/index.html; exec busybox httpd -f -p 7000 -h /tmp/w"])
for attempt in range(600):
    forward = portforward(core.connect_get_namespaced_pod_portforward, "app", "default", ports="7000")
    socket = forward.socket(7000)
    socket.setblocking(True)
    answer = b""
    try:
        socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while part := socket.recv(1000):
            answer += part
    except (BrokenPipeError, ConnectionResetError):
        # Told that nobody listens yet, this client closes its end of a socket pair, with or without what was written
        # to it: the other end sees a reset instead of an end then.
        pass
    if answer:
        break
    assert forward.error(7000)
    time.sleep(0.1)
assert answer.endswith(b"page\n"), answer
listener.close()

# Server-side apply with this client's method, and the subresources.
core.patch_namespaced_pod("app", "default", {"metadata": {"annotations": {"note": "x"}}})
core.patch_namespaced_pod_status("app", "default", {"status": {"conditions": [{"type": "example.com/mine", "status": "True"}]}})
conditions = core.read_namespaced_pod("app", "default").status.conditions
assert any(c.type == "example.com/mine" for c in conditions), conditions
core.delete_namespaced_pod("app", "default")
assert done.wait(120), seen
follower.join()
kinds = [kind for kind, _, _ in seen]
assert kinds[0] == "ADDED" and kinds[-1] == "DELETED" and set(kinds[1:-1]) == {"MODIFIED"}, seen
versions = [version for _, _, version in seen]
assert versions == sorted(set(versions)), versions
core.delete_collection_namespaced_config_map("default", label_selector="page")
assert not core.list_namespaced_config_map("default", label_selector="page").items
assert client.VersionApi().get_code().minor == "35"
assert {r.name for r in client.CoreV1Api().get_api_resources().resources} >= {"pods", "pods/log", "pods/exec"}
print("done")
