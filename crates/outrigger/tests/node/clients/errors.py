"""Every refusal of the API as raw HTTP: the code, and what the Status says. Its argument: a token of a service account."""

import json
import sys

import urllib3
from kubernetes import client, config

config.load_kube_config()
settings = client.Configuration.get_default_copy()
pool = urllib3.PoolManager(ca_certs=settings.ssl_ca_cert, cert_file=settings.cert_file, key_file=settings.key_file)
stranger = urllib3.PoolManager(ca_certs=settings.ssl_ca_cert)
NS = "/api/v1/namespaces/default"
failures = []


def ask(method, path, body=None, kind="application/json", who=pool, **headers):
    if isinstance(body, dict):
        body = json.dumps(body)
    if body is not None:
        headers["Content-Type"] = kind
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return who.request(method, settings.host + path, body=body, headers=headers, redirect=False, retries=False)


def refused(code, reason, message, method, path, *rest, kind_in_details=None, name=None, causes=None, **more):
    answer = ask(method, path, *rest, **more)
    try:
        status = json.loads(answer.data)
    except ValueError:
        status = {"body": answer.data}
    details = status.get("details", {})
    found = [cause.get("reason") for cause in details.get("causes", [])]
    wrong = [
        text
        for text, holds in [
            (f"HTTP {answer.status}", answer.status == code),
            ("content type " + answer.headers.get("content-type", ""), "application/json" in answer.headers.get("content-type", "")),
            ("not a Status", (status.get("kind"), status.get("apiVersion"), status.get("status")) == ("Status", "v1", "Failure")),
            ("code", status.get("code") == code),
            ("reason", status.get("reason") == reason),
            ("message", message is None or message in status.get("message", "")),
            ("details.kind", kind_in_details is None or details.get("kind") == kind_in_details),
            ("details.name", name is None or details.get("name") == name),
            ("causes", causes is None or found == causes),
        ]
        if not holds
    ]
    if wrong:
        failures.append(f"{method} {path}: {wrong}: {json.dumps(status, default=str)[:600]}")


def pod(name, **spec):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [{"name": "a", "image": "busybox", "command": ["sleep", "1000000"]}],
                     "terminationGracePeriodSeconds": 0, **spec}}


assert ask("POST", NS + "/pods", pod("there")).status == 201
assert ask("POST", NS + "/configmaps", {"metadata": {"name": "cm"}, "data": {"a": "1"}}).status == 201

# Not there.
refused(404, "NotFound", 'pods "x" not found', "GET", NS + "/pods/x", kind_in_details="pods", name="x")
refused(404, "NotFound", 'pods "x" not found', "DELETE", NS + "/pods/x", name="x")
refused(404, "NotFound", 'pods "x" not found', "GET", NS + "/pods/x/log")
refused(404, "NotFound", 'leases.coordination.k8s.io "x" not found', "GET", "/apis/coordination.k8s.io/v1/namespaces/default/leases/x")
refused(404, "NotFound", 'namespaces "nope" not found', "POST", "/api/v1/namespaces/nope/pods", pod("x"))
refused(404, "NotFound", "the server could not find the requested resource", "GET", NS + "/gizmos")
refused(404, "NotFound", "the server could not find the requested resource", "GET", "/apis/apps/v1/namespaces/default/deployments")
refused(404, "NotFound", "the server could not find the requested resource", "GET", NS + "/pods/there/nothing")
# There already; changed meanwhile; another one.
refused(409, "AlreadyExists", 'pods "there" already exists', "POST", NS + "/pods", pod("there"), kind_in_details="pods", name="there")
cm = json.loads(ask("GET", NS + "/configmaps/cm").data)
stale = {**cm, "metadata": {**cm["metadata"], "resourceVersion": "1"}}
refused(409, "Conflict", 'Operation cannot be fulfilled on configmaps "cm": the object has been modified; please apply your changes to the latest version and try again',
        "PUT", NS + "/configmaps/cm", stale, kind_in_details="configmaps", name="cm")
refused(409, "Conflict", 'Operation cannot be fulfilled on configmaps "cm"', "DELETE", NS + "/configmaps/cm", {"preconditions": {"uid": "other"}})
refused(409, "Conflict", None, "PATCH", NS + "/configmaps/cm", {"metadata": {"uid": "other"}}, "application/merge-patch+json")
refused(409, "Conflict", None, "PATCH", NS + "/configmaps/cm", {"metadata": {"resourceVersion": "1"}}, "application/merge-patch+json")
# Invalid.
bare = pod("bare")
bare["spec"]["containers"] = []
refused(422, "Invalid", 'Pod "bare" is invalid: spec.containers: Required value', "POST", NS + "/pods", bare, kind_in_details="Pod", name="bare", causes=["FieldValueRequired"])
refused(422, "Invalid", "Unsupported value", "POST", NS + "/pods", pod("bad", restartPolicy="Sometimes"), causes=["FieldValueNotSupported"])
double = pod("double")
double["spec"]["containers"] *= 2
refused(422, "Invalid", 'spec.containers[1].name: Duplicate value: "a"', "POST", NS + "/pods", double, causes=["FieldValueDuplicate"])
refused(422, "Invalid", "Forbidden", "PATCH", NS + "/pods/there", {"spec": {"containers": [{"name": "a", "command": ["x"]}]}},
        "application/strategic-merge-patch+json", causes=["FieldValueForbidden"])
refused(422, "Invalid", 'metadata.name', "POST", NS + "/pods", pod("Up"), causes=["FieldValueInvalid"])
# Malformed.
refused(400, "BadRequest", None, "POST", NS + "/pods", "{broken")
refused(400, "BadRequest", None, "POST", NS + "/pods", "")
refused(400, "BadRequest", None, "POST", NS + "/pods", "[1]")
refused(400, "BadRequest", None, "POST", NS + "/configmaps", pod("x"))
refused(400, "BadRequest", None, "POST", NS + "/pods", {**pod("x"), "apiVersion": "v2"})
refused(400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request", "POST", NS + "/pods",
        {**pod("x"), "metadata": {"name": "x", "namespace": "other"}})
refused(400, "BadRequest", "the name of the object (other) does not match the name on the URL (cm)", "PUT", NS + "/configmaps/cm", {**cm, "metadata": {"name": "other"}})
odd = pod("odd")
odd["spec"]["containers"][0]["foo"] = 1
refused(400, "BadRequest", 'strict decoding error: unknown field "spec.containers[0].foo"', "POST", NS + "/pods?fieldValidation=Strict", odd)
twice = json.dumps(pod("odd")).replace('"kind"', '"kind": "Pod", "kind"')
refused(400, "BadRequest", 'duplicate field "kind"', "POST", NS + "/pods?fieldValidation=Strict", twice)
warned = ask("POST", NS + "/pods?fieldValidation=Warn&dryRun=All", odd)
assert warned.status == 201 and warned.headers["Warning"] == '299 - "unknown field \\"spec.containers[0].foo\\""', (warned.status, warned.headers)
refused(422, "Invalid", "fieldValidation", "POST", NS + "/pods?fieldValidation=Perhaps", pod("odd"))
refused(422, "Invalid", "dryRun", "POST", NS + "/pods?dryRun=Some", pod("odd"))
refused(400, "BadRequest", None, "GET", NS + "/pods?labelSelector=a%20b")
refused(400, "BadRequest", "field label not supported: spec.color", "GET", NS + "/pods?fieldSelector=spec.color%3Dred")
refused(400, "BadRequest", None, "GET", NS + "/pods?limit=many")
refused(400, "BadRequest", None, "PATCH", NS + "/configmaps/cm", "{", "application/merge-patch+json")
refused(422, "Invalid", None, "PATCH", NS + "/configmaps/cm", json.dumps([{"op": "test", "path": "/data/a", "value": "2"}]), "application/json-patch+json")
# Patches: the kinds of body.
refused(415, "UnsupportedMediaType", None, "PATCH", NS + "/configmaps/cm", "{}", "text/plain")
refused(415, "UnsupportedMediaType", None, "POST", NS + "/pods", "<a/>", "text/xml")
refused(406, "NotAcceptable", None, "GET", NS + "/pods", Accept="text/html")
refused(405, "MethodNotAllowed", None, "PUT", NS + "/pods", "{}")
refused(405, "MethodNotAllowed", None, "POST", NS + "/pods/there", "{}")
refused(422, "Invalid", "fieldManager", "PATCH", NS + "/configmaps/cm", '{"apiVersion":"v1","kind":"ConfigMap","data":{}}', "application/apply-patch+yaml")
refused(409, "Conflict", "Apply failed with 1 conflict", "PATCH", NS + "/configmaps/cm?fieldManager=me",
        '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"cm"},"data":{"a":"2"}}', "application/apply-patch+yaml", causes=["FieldManagerConflict"])
# Too old, too new.
refused(400, "BadRequest", None, "GET", NS + "/pods?resourceVersion=abc")
for turn in range(1100):
    ask("PATCH", NS + "/configmaps/cm", {"data": {"a": str(turn)}}, "application/merge-patch+json")
for version in [cm["metadata"]["resourceVersion"], "99999999"]:
    answer = ask("GET", f"{NS}/configmaps?watch=1&resourceVersion={version}&timeoutSeconds=5")
    event = json.loads(answer.data.split(b"\n")[0])
    status = event["object"] if event.get("type") == "ERROR" else event
    if (status.get("code"), status.get("reason")) != (410, "Expired"):
        failures.append(f"watch from {version}: {event}")
# Forbidden.
refused(403, "Forbidden", 'namespaces "default" is forbidden: this namespace may not be deleted', "DELETE", "/api/v1/namespaces/default")
# The streams, before any upgrade.
refused(400, "BadRequest", "container x is not valid for pod there", "GET", NS + "/pods/there/log?container=x")
refused(400, "BadRequest", "container x is not valid for pod there", "POST", NS + "/pods/there/exec?container=x&command=true&stdout=true", "")
refused(400, "BadRequest", None, "POST", NS + "/pods/there/exec?command=true", "")
refused(404, "NotFound", 'pods "x" not found', "POST", NS + "/pods/x/portforward", "")

# Who may ask.
for path in ["/livez", "/readyz", "/version", "/healthz"]:
    assert ask("GET", path, who=stranger).status == 200, path
for path in ["/api", "/apis", "/api/v1", NS + "/pods", "/openapi/v3", "/metrics", "/", "/api/v1/nodes"]:
    refused(401, "Unauthorized", "Unauthorized", "GET", path, who=stranger)
refused(401, "Unauthorized", "Unauthorized", "POST", NS + "/pods", pod("x"), who=stranger)
refused(401, "Unauthorized", "Unauthorized", "GET", NS + "/pods", who=stranger, Authorization="Bearer wrong")
refused(401, "Unauthorized", "Unauthorized", "GET", NS + "/pods", who=stranger, Authorization="Bearer " + sys.argv[1][:-3] + "abc")
answer = ask("GET", NS + "/pods", who=stranger, Authorization="Bearer " + sys.argv[1])
assert answer.status == 200, (answer.status, answer.data)
assert json.loads(answer.data)["items"][0]["metadata"]["name"] == "there"

print("\n".join(failures))
raise SystemExit(len(failures) > 0)
