"""kr8s, which asks over httpx and finds out everything by discovery."""

import time

import kr8s
from kr8s.objects import ConfigMap, Pod, objects_from_files  # noqa: F401

api = kr8s.api()
assert api.version()["minor"] == "35"
settings = ConfigMap({"metadata": {"name": "settings"}, "data": {"color": "blue"}})
settings.create()
settings.patch({"data": {"color": "red"}})
assert ConfigMap.get("settings").data.color == "red"
pod = Pod({
    "metadata": {"name": "app", "labels": {"app": "app"}},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "app", "image": "busybox", "command": ["sh", "-c", "echo started; trap exit TERM; sleep 1000000 & wait"],
                        "ports": [{"containerPort": 7000}]}],
    },
})
pod.create()
pod.wait("condition=Ready", timeout=120)
assert pod.ready()
pod.label({"color": "green"})
pod.annotate({"note": "some"})
assert [found.name for found in kr8s.get("pods", label_selector={"color": "green"})] == ["app"]
deadline = time.time() + 120
while not list(pod.logs()):
    assert time.time() < deadline
    time.sleep(0.1)
assert list(pod.logs()) == ["started"]
ran = pod.exec(["sh", "-c", "echo out; echo err >&2"])
assert (ran.stdout, ran.stderr, ran.returncode) == (b"out\n", b"err\n", 0), ran
seen = []
for event, object in kr8s.watch("configmaps", namespace="default"):
    seen.append((event, object.name))
    if object.name == "settings":
        break
assert ("ADDED", "settings") in seen, seen
assert {event.raw['reason'] for event in kr8s.get("events")} >= {"Scheduled", "Started"}
pod.delete()
pod.wait("delete", timeout=120)
assert not pod.exists()
settings.delete()
assert [node.name for node in kr8s.get("nodes")]
print("done")
