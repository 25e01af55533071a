#!/usr/bin/env python3
"""The agent against receivers that other people wrote: rsyslog, an S3 server, decoders of protobuf and MessagePack, gRPC;
and the examples of examples/sidecars, as they stand but for addresses and paths.

usage: receivers.py AGENT [CASE]...
needs, by case: rsyslogd, openssl (Debian); opentelemetry-proto, grpcio, msgpack, moto[server,s3] (PyPI) in the Python that
runs this. A case whose needs are missing says NOT RUN and counts as passed, unless it was asked for with --must.
"""
import contextlib, gzip, http.server, json, logging, os, random, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time

COUNT = 5000
EXAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../examples/sidecars")


class Missing(Exception):
    """What a case needs and this machine lacks."""


def port():
    # Below the ephemeral ports, where a client that tries again could meet itself.
    while True:
        at = random.randrange(20000, 30000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", at))
                return at


def until(what, condition, patience=60):
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen")
        time.sleep(0.02)


def program(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if not path:
        raise Missing(f"there is no {name}")
    return path


@contextlib.contextmanager
def directory():
    root = tempfile.mkdtemp(prefix="outrigger-receivers-")
    os.chmod(root, 0o755)
    try:
        yield root
    finally:
        shutil.rmtree(root)


class Agent:
    """A running agent, ended with its receipt; killed when something else failed."""

    def __init__(self, binary, root, document):
        self.binary, self.root, self.config = binary, root, f"{root}/config.yaml"
        with open(self.config, "w") as file:
            file.write(document if isinstance(document, str) else json.dumps(document))  # JSON is YAML

    def __enter__(self):
        environment = dict(os.environ, AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing")
        with open(f"{self.root}/stderr", "w") as log:
            self.process = subprocess.Popen(
                [self.binary, "--config", self.config, "--admin", "off", "--socket", f"{self.root}/sock"],
                stdin=subprocess.DEVNULL, stderr=log, env=environment)
        return self

    def __exit__(self, failure, *_):
        if failure:
            self.process.kill()
            self.process.wait()
            print(self.said(), file=sys.stderr)
            return
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        assert code == 0 and "; balances" in self.said(), (code, self.said())

    def said(self):
        with open(f"{self.root}/stderr") as file:
            return file.read()


@contextlib.contextmanager
def simple(binary, to, **sink):
    """An agent with one file of COUNT lines and one sink."""
    with directory() as root:
        os.mkdir(f"{root}/log")
        spec = {
            "sources": [{"name": "app", "files": {"include": [f"{root}/log/*.log"]}}],
            "fields": {"team": {"value": "blue"}},
            "sinks": [{"name": "out", "to": to, **sink}],
            "state": {"directory": f"{root}/state"},
        }
        with open(f"{root}/log/app.log", "w") as file:
            file.writelines(f"line {n:08d} of an app, grüße\n" for n in range(COUNT))
        with Agent(binary, root, {"apiVersion": "outrigger.dev/v1alpha1", "kind": "LogAgent", "spec": spec}) as agent:
            yield agent


@contextlib.contextmanager
def web(answer):
    """An HTTP server; `answer(path, headers, body)` returns a status and a body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            status, text = answer(self.path, self.headers, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_PUT = do_POST

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port()), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def numbers(texts):
    return sorted(int(text.split("line ")[1][:8]) for text in texts)


def complete(texts):
    assert numbers(texts) == list(range(COUNT)), "not each line once"


# === rsyslog


def rsyslog(binary):
    daemon, at = program("rsyslogd"), port()
    with directory() as root:
        with open(f"{root}/conf", "w") as file:
            file.write(f'''module(load="imtcp")
input(type="imtcp" port="{at}" address="127.0.0.1")
template(name="t" type="string" string="%syslogfacility-text%|%syslogseverity-text%|%hostname%|%app-name%|%timereported:::date-rfc3339%|%structured-data%|%msg%\\n")
action(type="omfile" file="{root}/out" template="t")
''')
        server = subprocess.Popen([daemon, "-n", "-f", f"{root}/conf", "-i", f"{root}/pid"])
        try:
            def listening():
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", at)) == 0

            until("rsyslog", listening)

            def lines():
                if not os.path.exists(f"{root}/out"):
                    return []
                with open(f"{root}/out") as file:
                    return file.read().splitlines()

            with simple(binary, {"syslog": {"address": f"127.0.0.1:{at}", "host": "pod-1", "app": "web"}}):
                until("every message", lambda: len(lines()) >= COUNT)
            complete(lines())
            first = lines()[0].split("|")
            assert first[:4] == ["local0", "info", "pod-1", "web"] and 'path="' in first[5] and "grüße" in first[6], first
        finally:
            server.kill()
            server.wait()


# === S3


@contextlib.contextmanager
def bucket():
    try:
        import boto3
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        raise Missing(error) from error
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port(), verbose=False)
    server.start()
    try:
        host, at = server.get_host_and_port()
        client = boto3.client("s3", endpoint_url=f"http://{host}:{at}", region_name="us-east-1",
                              aws_access_key_id="testing", aws_secret_access_key="testing")
        client.create_bucket(Bucket="logs")

        def records():
            found = []
            for item in client.list_objects_v2(Bucket="logs").get("Contents", []):
                assert item["Key"].endswith(".ndjson.gz"), item
                body = gzip.decompress(client.get_object(Bucket="logs", Key=item["Key"])["Body"].read())
                found += [(item["Key"], json.loads(line)) for line in body.splitlines()]
            return found

        yield f"{host}:{at}", records
    finally:
        server.stop()


def s3(binary):
    with bucket() as (address, records):
        to = {"s3": {"url": f"http://{address}", "bucket": "logs", "client": {"compression": "gzip"}}}
        with simple(binary, to, batch={"maxBytes": "64Ki", "wait": "200ms"}):
            until("every record", lambda: len(records()) >= COUNT)
        found = records()
        complete(record["message"] for _, record in found)
        assert found[0][1]["team"] == "blue" and found[0][0].startswith("logs/"), found[0]


def s3_signature(binary):
    """botocore's own signer agrees with what the agent sends."""
    try:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
    except ImportError as error:
        raise Missing(error) from error
    import hashlib
    seen = []

    def answer(path, headers, body):
        seen.append((path, dict(headers), body))
        return 200, b""

    with web(answer) as address:
        url = f"http://{address}"
        with simple(binary, {"s3": {"url": url, "bucket": "lo gs", "prefix": "a b/ü", "region": "eu-1"}}):
            until("an object", lambda: seen)
    path, headers, body = seen[0]
    assert headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
    request = AWSRequest("PUT", url + path, data=body,
                         headers={"host": headers["host"], "x-amz-content-sha256": headers["x-amz-content-sha256"]})
    signer = S3SigV4Auth(Credentials("testing", "testing"), "s3", "eu-1")
    request.context["timestamp"] = headers["x-amz-date"]
    request.headers["X-Amz-Date"] = headers["x-amz-date"]
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    assert headers["authorization"].endswith(f"Signature={signature}"), (headers["authorization"], canonical)


# === OTLP


def otlp_messages():
    try:
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
    except ImportError as error:
        raise Missing(error) from error
    return logs_service_pb2


def log_records(messages):
    return [r for m in messages for x in m.resource_logs for s in x.scope_logs for r in s.log_records]


def resource_of(message):
    return {a.key: a.value.string_value for a in message.resource_logs[0].resource.attributes}


@contextlib.contextmanager
def otlp_http(seen):
    messages = otlp_messages()

    def answer(path, headers, body):
        assert path == "/v1/logs" and headers["Content-Type"] == "application/x-protobuf", (path, headers)
        seen.append(messages.ExportLogsServiceRequest.FromString(body))
        return 200, b""

    with web(answer) as address:
        yield address


def otlp(binary):
    seen = []
    with otlp_http(seen) as address:
        with simple(binary, {"otlp": {"url": f"http://{address}", "resource": {"service.name": "web"}}}):
            until("every record", lambda: len(log_records(seen)) >= COUNT)
    complete(r.body.string_value for r in log_records(seen))
    attributes = resource_of(seen[0])
    assert attributes["service.name"] == "web" and attributes["team"] == "blue", attributes


@contextlib.contextmanager
def otlp_grpc(seen, tls):
    """gRPC's own server, which asks for the client's certificate."""
    messages = otlp_messages()
    try:
        import grpc
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
    except ImportError as error:
        raise Missing(error) from error
    from concurrent.futures import ThreadPoolExecutor

    class Logs(logs_service_pb2_grpc.LogsServiceServicer):
        def Export(self, request, context):
            seen.append(request)
            return messages.ExportLogsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(), server)

    def read(name):
        with open(f"{tls}/{name}", "rb") as file:
            return file.read()

    credentials = grpc.ssl_server_credentials([(read("tls.key"), read("tls.crt"))], read("ca.crt"), True)
    at = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{at}"
    finally:
        server.stop(None)


def certificates(root):
    """An authority, and one certificate for both sides."""
    tool = program("openssl")

    def run(*arguments):
        subprocess.run([tool, *arguments], check=True, stderr=subprocess.DEVNULL)

    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run(*new, "-x509", "-days", "2", "-subj", "/CN=test authority", "-keyout", f"{root}/ca.key", "-out", f"{root}/ca.crt")
    run(*new, "-subj", "/CN=test", "-keyout", f"{root}/tls.key", "-out", f"{root}/tls.csr")
    with open(f"{root}/names", "w") as file:
        file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    run("x509", "-req", "-days", "2", "-in", f"{root}/tls.csr", "-CA", f"{root}/ca.crt", "-CAkey", f"{root}/ca.key",
        "-CAcreateserial", "-extfile", f"{root}/names", "-out", f"{root}/tls.crt")


# === Fluent forward


def forward(binary):
    try:
        import msgpack
    except ImportError as error:
        raise Missing(error) from error
    entries = []

    def serve(listener):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
                while piece := connection.recv(65536):
                    unpacker.feed(piece)
                    for tag, batch, options in unpacker:
                        assert tag == "pod" and options["size"] == len(batch)
                        entries.extend(batch)
                        connection.sendall(msgpack.packb({"ack": options["chunk"]}))

    with socket.create_server(("127.0.0.1", port())) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        at = listener.getsockname()[1]
        with simple(binary, {"forward": {"address": f"127.0.0.1:{at}", "tag": "pod"}}):
            until("every record", lambda: len(entries) >= COUNT)
    complete(record["message"] for _, record in entries)
    when, record = entries[0]
    assert when.code == 0 and len(when.data) == 8 and record["team"] == "blue", entries[0]


# === Receivers as their documentation says


@contextlib.contextmanager
def loki(seen):
    """Loki's push API (JSON): refuses what Loki refuses."""

    def answer(path, headers, body):
        assert path == "/loki/api/v1/push" and headers["Content-Type"] == "application/json", (path, headers)
        for stream in json.loads(body)["streams"]:
            names = stream["stream"]
            if not names or not all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) for name in names):
                return 400, b"error at least one label pair is required per stream"
            for nanoseconds, line in stream["values"]:
                assert nanoseconds.isdecimal() and len(nanoseconds) == 19 and isinstance(line, str)
                seen.append((names, int(nanoseconds), line))
        return 204, b""

    with web(answer) as address:
        yield address


@contextlib.contextmanager
def elasticsearch(seen, busy):
    """The bulk API: every action on its line, `create` only into a data stream; 429 for the first `busy` documents."""

    def answer(path, headers, body):
        assert path == "/_bulk" and headers["Content-Type"] == "application/x-ndjson", (path, headers)
        assert headers["Authorization"].startswith("Basic ") and body.endswith(b"\n")
        items, lines = [], body.decode().splitlines()
        assert len(lines) % 2 == 0
        for action, document in zip(lines[::2], lines[1::2]):
            (name, target), = json.loads(action).items()
            document = json.loads(document)
            assert name == "create" and target == {"_index": "logs-nginx-default"} and "@timestamp" in document
            if busy:
                busy.pop()
                items.append({name: {"status": 429, "error": {"type": "es_rejected_execution_exception"}}})
            elif isinstance(document.get("path"), str) and document["path"].startswith("/unmappable"):
                items.append({name: {"status": 400, "error": {"type": "document_parsing_exception"}}})
            else:
                seen.append(document)
                items.append({name: {"status": 201}})
        errors = any("error" in item[name] for item in items for name in item)
        return 200, json.dumps({"took": 1, "errors": errors, "items": items}).encode()

    with web(answer) as address:
        yield address


# === The examples


def example(name, replace):
    """The document with every text replaced; each must be there."""
    with open(f"{EXAMPLES}/{name}") as file:
        text = file.read()
    for old, new in replace.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, new)
    return text


def write(path, lines):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a") as file:
        file.writelines(line + "\n" for line in lines)


def example_loki(binary):
    """logs.yaml: Loki, OTLP over HTTP, standard output."""
    streams, exported = [], []
    with directory() as root, loki(streams) as at_loki, otlp_http(exported) as at_otlp:
        write(f"{root}/log/access.log", [json.dumps({"level": "info", "path": f"/a/{n}"}) for n in range(COUNT)])
        write(f"{root}/log/app.log", ["GET /healthz 200", "oops from ann@example.com", "java.lang.Error: x", "\tat a.B(B.java:1)", "end"])
        text = example("logs.yaml", replace={
            "/var/log/app/": f"{root}/log/", "loki.monitoring:3100": at_loki, "collector.monitoring:4318": at_otlp,
            "/var/lib/outrigger/logs": f"{root}/state"})
        with open(f"{root}/stdout", "w") as out:
            agent = Agent(binary, root, text)
            saved = os.dup(1)
            os.dup2(out.fileno(), 1)
            try:
                agent.__enter__()
            finally:
                os.dup2(saved, 1)
                os.close(saved)
            try:
                until("both receivers", lambda: len(streams) >= COUNT + 3 and len(log_records(exported)) >= COUNT + 3)
            except BaseException:
                agent.__exit__(True)
                raise
            agent.__exit__(None)
        app = [line for names, _, line in streams if names["file"].endswith("app.log")]
        assert app[1:] == ["java.lang.Error: x\n\tat a.B(B.java:1)", "end"] and "ann@" not in app[0], app
        labels = streams[0][0]
        assert labels["cluster"] == "edge-7" and labels["job"] == "web", labels
        assert resource_of(exported[0])["service.name"] == "web" and len(streams) == COUNT + 3
        with open(f"{root}/stdout") as file:
            assert len([json.loads(line) for line in file]) == COUNT + 3


def example_elasticsearch(binary):
    documents = []
    with directory() as root, elasticsearch(documents, [1] * 3) as address:
        line = '10.0.0.1 - ann [10/Oct/2025:13:55:36 +0000] "GET {} HTTP/1.1" {} 7 "-" "curl"'
        write(f"{root}/log/access.log", [line.format(f"/a/{n}", 502 if n % 10 == 0 else 200) for n in range(COUNT)])
        write(f"{root}/log/access.log", [line.format("/healthz", 200), line.format("/unmappable", 200)])
        write(f"{root}/password", ["secret"])
        text = example("logs-elasticsearch.yaml", replace={
            "/var/log/nginx/": f"{root}/log/", "elasticsearch.logging:9200": address, "/etc/logs/password": f"{root}/password",
            "/var/lib/outrigger/logs/": f"{root}/state/", "/var/lib/outrigger/errors/": f"{root}/errors/"})
        text += f"  state: {{directory: {root}/state}}\n"
        os.mkdir(f"{root}/errors"), os.mkdir(f"{root}/state")
        with Agent(binary, root, text):
            until("every document", lambda: len(documents) >= COUNT)
            until("a refused one", lambda: os.path.exists(f"{root}/state/refused.jsonl"))
        assert sorted(int(d["path"][3:]) for d in documents) == list(range(COUNT))
        assert documents[0]["user"] == "ann" and isinstance(documents[0]["status"], int), documents[0]
        with open(f"{root}/errors/errors.jsonl") as file:
            errors = [json.loads(line) for line in file]
        assert len(errors) == COUNT // 10 and all(e["status"] == 502 for e in errors)


def example_otlp(binary):
    seen = []
    with directory() as root:
        certificates(root)
        with otlp_grpc(seen, root) as address:
            at = port()
            text = example("logs-otlp.yaml", replace={
                "/run/app/": f"{root}/run/", "127.0.0.1:5514": f"127.0.0.1:{at}", "collector.monitoring:4317": address,
                "/etc/tls/": f"{root}/"})
            text += f"  state: {{directory: {root}/state}}\n"
            os.mkdir(f"{root}/run")
            with Agent(binary, root, text):
                until("the pipe and the socket", lambda: os.path.exists(f"{root}/run/log") and os.path.exists(f"{root}/run/dev-log"))
                with open(f"{root}/run/log", "w") as pipe:
                    for n in range(COUNT):
                        pipe.write(f"2026-01-02T03:04:05Z ERROR [main] line {n:08d}\n  at x\n")
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as local:
                    local.sendto(b"<13>Jan  2 03:04:05 cron[7]: tick", f"{root}/run/dev-log")
                until("every record", lambda: len(log_records(seen)) >= COUNT + 1)
        bodies = [r.body.string_value for r in log_records(seen)]
        complete(body for body in bodies if body != "tick")
        assert "tick" in bodies and all("\n  at x" in body for body in bodies if body != "tick")
        assert resource_of(seen[0])["service.name"] == "legacy"
        assert {r.severity_text for r in log_records(seen) if r.body.string_value != "tick"} == {"ERROR"}


def example_files(binary):
    with directory() as root, bucket() as (address, records):
        name = f"{root}/pods/ns_pod_uid/app/0.log"
        write(name, [f'2026-08-15T10:00:00.{n:09d}Z stdout F {{"level":"info","n":{n}}}' for n in range(COUNT)])
        write(name, ["2026-08-15T10:00:01Z stderr P half a ", "2026-08-15T10:00:01Z stderr F line"])
        write(f"{root}/key", ["testing"])
        text = example("logs-files.yaml", replace={
            "/var/log/pods/": f"{root}/pods/", "/archive/": f"{root}/archive/", "minio.storage:9000": address,
            "/etc/s3/access-key": f"{root}/key", "/etc/s3/secret-key": f"{root}/key", "wait: 60s": "wait: 1s"})
        text += f"  state: {{directory: {root}/state}}\n"
        os.mkdir(f"{root}/archive")
        with Agent(binary, root, text):
            until("every object", lambda: len(records()) >= COUNT + 1)
        with open(f"{root}/archive/pods.jsonl") as file:
            archived = [json.loads(line) for line in file]
        assert [r["n"] for r in archived[:-1]] == list(range(COUNT)) and archived[-1]["message"] == "half a line", archived[-1]
        assert [r for _, r in records()] == archived


CASES = {
    "rsyslog": rsyslog, "otlp": otlp, "forward": forward, "s3": s3, "s3-signature": s3_signature,
    "example-loki": example_loki, "example-elasticsearch": example_elasticsearch, "example-otlp": example_otlp,
    "example-files": example_files,
}


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--must"]
    if not arguments:
        raise SystemExit(__doc__)
    for name in arguments[1:] or CASES:
        try:
            CASES[name](os.path.abspath(arguments[0]))
        except Missing as missing:
            print(f"NOT RUN: {name}: {missing}", flush=True)
            if "--must" in sys.argv:
                raise SystemExit(1) from missing
            continue
        print(f"{name}: {COUNT} of {COUNT} records, as they were", flush=True)


if __name__ == "__main__":
    main()
