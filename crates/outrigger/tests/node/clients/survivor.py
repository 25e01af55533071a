"""Writes and watches while the daemon is killed and comes back, until its standard input ends. Then: was an acknowledged
write lost, did a resourceVersion come twice, does the informer know what the server has?

Writers create, change and delete ConfigMaps of their own and keep, for each name, which states it may be in: exactly one
after an acknowledged write, one more for each request whose answer never came. The informer is the textbook's: list, watch
from the list's resourceVersion on, watch again from the last one seen, list again after 410.
"""

import json
import sys
import threading
import time

import urllib3
from kubernetes import client, config, watch

config.load_kube_config()
settings = client.Configuration.get_default_copy()
settings.retries = urllib3.Retry(0)
writers_stop, informer_stop = threading.Event(), threading.Event()
lock = threading.Lock()
failures = []
possible = {}  # name -> the values it may have; None: it is not there
versions = {}  # resourceVersion -> whose and which value
cache = {}  # what the informer knows
counts = dict.fromkeys(["writes", "unanswered", "lists", "watches", "answered", "events", "expired"], 0)


def count(what):
    with lock:
        counts[what] += 1


def note(metadata, value):
    """A resourceVersion is one state of one object, for ever."""
    state = (metadata["name"], value)
    with lock:
        if versions.setdefault(metadata["resourceVersion"], state) != state:
            failures.append(f"resourceVersion {metadata['resourceVersion']}: {versions[metadata['resourceVersion']]}, {state}")


def writer(number):
    core = client.CoreV1Api(client.ApiClient(settings))
    turn = 0
    while not writers_stop.is_set():
        turn += 1
        name, value = f"w{number}-{turn % 40}", str(turn)
        states = possible.get(name, {None})
        new = None if turn % 7 == 0 and states != {None} else value
        try:
            if new is None:
                core.delete_namespaced_config_map(name, "default", _request_timeout=20)
            else:
                metadata = {"name": name, "labels": {"written": "yes"}}
                if states == {None}:
                    content = {"metadata": metadata, "data": {"value": value, "filler": "x" * 500}}
                    made = core.create_namespaced_config_map("default", content, _request_timeout=20)
                else:
                    made = core.patch_namespaced_config_map(name, "default", {"data": {"value": value}}, _request_timeout=20)
                note({"name": name, "resourceVersion": made.metadata.resource_version}, value)
            possible[name] = {new}
            count("writes")
        except client.ApiException as error:
            if error.status == 404 and None in states:
                possible[name] = {None}
            else:
                failures.append(f"{name} may be {states}: {error.status} {error.body}")
        except (urllib3.exceptions.HTTPError, OSError):
            possible[name] = states | {new}
            count("unanswered")
            time.sleep(0.02)


def list_anew(core):
    answer = core.list_namespaced_config_map("default", label_selector="written", _preload_content=False, _request_timeout=20)
    listed = json.loads(answer.data)
    count("lists")
    cache.clear()
    for item in listed["items"]:
        cache[item["metadata"]["name"]] = item["data"]["value"]
        note(item["metadata"], item["data"]["value"])
    return listed["metadata"]["resourceVersion"]


def hear(event, version):
    """The version to go on from; None: list again."""
    kind, thing = event["type"], event["object"]
    if kind == "ERROR":
        if thing["code"] != 410:
            failures.append(f"watch: {thing}")
        count("expired")
        return None
    metadata = thing["metadata"]
    if int(metadata["resourceVersion"]) <= int(version) and kind != "BOOKMARK":
        failures.append(f"the watch went from {version} to {metadata['resourceVersion']}")
    if kind == "BOOKMARK":
        return metadata["resourceVersion"]
    count("events")
    name = metadata["name"]
    if (kind == "ADDED") == (name in cache):
        failures.append(f"{kind} {name}, which was {'known' if name in cache else 'unknown'}")
    if kind == "DELETED":
        cache.pop(name, None)
    else:
        note(metadata, thing["data"]["value"])
        cache[name] = thing["data"]["value"]
    return metadata["resourceVersion"]


def informer():
    core = client.CoreV1Api(client.ApiClient(settings))
    version = None
    while not informer_stop.is_set():
        try:
            version = version or list_anew(core)
            count("watches")
            answer = core.list_namespaced_config_map(
                "default", label_selector="written", resource_version=version, watch=True, allow_watch_bookmarks=True,
                timeout_seconds=3, _preload_content=False, _request_timeout=20)
            count("answered")
            for line in watch.watch.iter_resp_lines(answer):
                version = hear(json.loads(line), version)
                if version is None:
                    break
        except client.ApiException as error:
            if error.status == 410:
                count("expired")
                version = None
            else:
                failures.append(f"informer: {error.status} {error.body}")
        except (urllib3.exceptions.HTTPError, OSError):
            time.sleep(0.02)


writers = [threading.Thread(target=writer, args=(number,), daemon=True) for number in range(4)]
watcher = threading.Thread(target=informer, daemon=True)
for thread in [*writers, watcher]:
    thread.start()


def tell():
    while not writers_stop.wait(0.1):
        with lock:
            print("so far", json.dumps(counts), flush=True)


teller = threading.Thread(target=tell, daemon=True)
teller.start()
sys.stdin.read()
writers_stop.set()
teller.join()
for thread in writers:
    thread.join(90)

items = client.CoreV1Api().list_namespaced_config_map("default", label_selector="written").items
there = {item.metadata.name: item.data["value"] for item in items}
for name, states in possible.items():
    if there.get(name) not in states:
        failures.append(f"{name} may be {states} and is {there.get(name)}")
for name in there.keys() - possible.keys():
    failures.append(f"{name} was never written")
deadline = time.time() + 90
while cache != there and time.time() < deadline:
    time.sleep(0.1)
if cache != there:
    failures.append(f"the informer has {sorted(cache.items() - there.items())} and lacks {sorted(there.items() - cache.items())}")
informer_stop.set()
watcher.join(90)
print(json.dumps({**counts, "objects": len(there)}), flush=True)
print("\n".join(failures[:20]))
raise SystemExit(len(failures) > 0)
