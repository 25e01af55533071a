#!/usr/bin/env python3
"""The agent against receivers that other people wrote: rsyslog, an S3 server, decoders of protobuf and MessagePack.

usage: receivers.py AGENT [CASE]...
needs: rsyslogd; moto[server,s3], opentelemetry-proto and msgpack (PyPI) in the Python that runs this
"""
import atexit, http.server, json, os, random, shutil, signal, socket, subprocess, sys, tempfile, threading, time

COUNT = 5000


def port():
    return random.randrange(20000, 30000)


def until(what, condition, patience=30):
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not happen")
        time.sleep(0.02)


class World:
    def __init__(self, agent, to, **sink):
        self.root = tempfile.mkdtemp(prefix="outrigger-receivers-")
        os.mkdir(f"{self.root}/log")
        sink = {"name": "out", "to": to, **sink}
        spec = {
            "sources": [{"name": "app", "files": {"include": [f"{self.root}/log/*.log"]}}],
            "fields": {"team": {"value": "blue"}},
            "sinks": [sink],
            "state": {"directory": f"{self.root}/state"},
        }
        with open(f"{self.root}/config.yaml", "w") as file:
            json.dump({"apiVersion": "outrigger.dev/v1alpha1", "kind": "LogAgent", "spec": spec}, file)
        with open(f"{self.root}/log/app.log", "w") as file:
            file.writelines(f"line {n:08d} of an app, grüße\n" for n in range(COUNT))
        environment = dict(os.environ, AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing")
        self.log = open(f"{self.root}/stderr", "w")
        self.process = subprocess.Popen(
            [agent, "--config", f"{self.root}/config.yaml", "--admin", "off", "--socket", f"{self.root}/sock"],
            stdout=subprocess.DEVNULL, stderr=self.log, env=environment)
        # Also when a case gives up.
        atexit.register(self.process.kill)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        text = open(f"{self.root}/stderr").read()
        shutil.rmtree(self.root)
        assert code == 0 and "; balances" in text, text
        return text


def numbers(texts):
    return sorted(int(text.split("line ")[1][:8]) for text in texts)


def rsyslog(agent):
    root, at = tempfile.mkdtemp(), port()
    with open(f"{root}/conf", "w") as file:
        file.write(f'''module(load="imtcp")
input(type="imtcp" port="{at}" address="127.0.0.1")
template(name="t" type="string" string="%syslogfacility-text%|%syslogseverity-text%|%hostname%|%app-name%|%timereported:::date-rfc3339%|%structured-data%|%msg%\\n")
action(type="omfile" file="{root}/out" template="t")
''')
    server = subprocess.Popen(["rsyslogd", "-n", "-f", f"{root}/conf", "-i", f"{root}/pid"])
    until("rsyslog", lambda: socket.socket().connect_ex(("127.0.0.1", at)) == 0)
    try:
        world = World(agent, {"syslog": {"address": f"127.0.0.1:{at}", "host": "pod-1", "app": "web"}})
        out = f"{root}/out"
        read = lambda: open(out).read().splitlines() if os.path.exists(out) else []
        until("every message", lambda: len(read()) >= COUNT)
        world.end()
        lines = read()
        assert numbers(lines) == list(range(COUNT))
        first = lines[0].split("|")
        assert first[:4] == ["local0", "info", "pod-1", "web"] and 'path="' in first[5] and "grüße" in first[6], first
    finally:
        server.kill(); server.wait(); shutil.rmtree(root)


def s3(agent):
    import boto3
    from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port())
    server.start()
    try:
        host, at = server.get_host_and_port()
        client = boto3.client("s3", endpoint_url=f"http://{host}:{at}", region_name="us-east-1",
                              aws_access_key_id="testing", aws_secret_access_key="testing")
        client.create_bucket(Bucket="logs")
        world = World(agent, {"s3": {"url": f"http://{host}:{at}", "bucket": "logs", "client": {"compression": "gzip"}}},
                      batch={"maxBytes": "64Ki", "wait": "1s"})
        world_done = lambda: client.list_objects_v2(Bucket="logs").get("KeyCount", 0) > 0
        until("objects", world_done)
        world.end()
        import gzip
        records = []
        for item in client.list_objects_v2(Bucket="logs")["Contents"]:
            assert item["Key"].startswith("logs/") and item["Key"].endswith(".ndjson.gz"), item
            body = gzip.decompress(client.get_object(Bucket="logs", Key=item["Key"])["Body"].read())
            records += [json.loads(line) for line in body.splitlines()]
        assert numbers(r["message"] for r in records) == list(range(COUNT))
        assert records[0]["team"] == "blue"
    finally:
        server.stop()


def s3_signature(agent):
    """botocore's own signer agrees with what the agent sends."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, dict(self.headers), body))
            self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port()), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    world = World(agent, {"s3": {"url": url, "bucket": "lo gs", "prefix": "a b/ü", "region": "eu-1"}})
    until("an object", lambda: seen)
    world.end()
    path, headers, body = seen[0]
    import datetime
    when = datetime.datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ")
    import botocore.auth
    botocore.auth.get_current_datetime = lambda *_, **__: when
    import hashlib
    assert headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
    request = AWSRequest("PUT", url + path, data=body, headers={"host": headers["host"], "x-amz-content-sha256": headers["x-amz-content-sha256"]})
    signer = S3SigV4Auth(Credentials("testing", "testing"), "s3", "eu-1")
    request.context["timestamp"] = headers["x-amz-date"]
    request.headers["X-Amz-Date"] = headers["x-amz-date"]
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    assert headers["authorization"].endswith(f"Signature={signature}"), (headers["authorization"], canonical)
    server.shutdown()


def otlp(agent):
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            message = ExportLogsServiceRequest()
            message.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(message)
            self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port()), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    world = World(agent, {"otlp": {"url": f"http://127.0.0.1:{server.server_port}", "resource": {"service.name": "web"}}})
    records = lambda: [r for m in seen for x in m.resource_logs for s in x.scope_logs for r in s.log_records]
    until("every record", lambda: len(records()) >= COUNT)
    world.end()
    assert numbers(r.body.string_value for r in records()) == list(range(COUNT))
    attributes = {a.key: a.value.string_value for a in seen[0].resource_logs[0].resource.attributes}
    assert attributes["service.name"] == "web" and attributes["team"] == "blue", attributes
    server.shutdown()


def forward(agent):
    import msgpack
    listener = socket.create_server(("127.0.0.1", port()))
    entries = []

    def serve():
        while True:
            connection, _ = listener.accept()
            unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
            while piece := connection.recv(65536):
                unpacker.feed(piece)
                for tag, batch, options in unpacker:
                    assert tag == "pod" and options["size"] == len(batch)
                    entries.extend(batch)
                    connection.sendall(msgpack.packb({"ack": options["chunk"]}))

    threading.Thread(target=serve, daemon=True).start()
    at = listener.getsockname()[1]
    world = World(agent, {"forward": {"address": f"127.0.0.1:{at}", "tag": "pod"}})
    until("every record", lambda: len(entries) >= COUNT)
    world.end()
    assert numbers(record["message"] for _, record in entries) == list(range(COUNT))
    time_of, record = entries[0]
    assert time_of.code == 0 and len(time_of.data) == 8 and record["team"] == "blue", entries[0]


CASES = {"rsyslog": rsyslog, "s3": s3, "s3-signature": s3_signature, "otlp": otlp, "forward": forward}

if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    for name in sys.argv[2:] or CASES:
        CASES[name](os.path.abspath(sys.argv[1]))
        print(f"{name}: {COUNT} of {COUNT} records, as they were")
