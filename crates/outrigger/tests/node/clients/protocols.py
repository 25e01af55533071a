"""Streams as clients other than kubectl ask for them: each WebSocket subprotocol by hand, on the pod `one`."""

import base64
import json
import ssl
import struct
import time

import websocket
from kubernetes import client, config

config.load_kube_config()
settings = client.Configuration.get_default_copy()
POD = settings.host.replace("https", "wss") + "/api/v1/namespaces/default/pods/one"
TLS = {"ca_certs": settings.ssl_ca_cert, "certfile": settings.cert_file, "keyfile": settings.key_file, "cert_reqs": ssl.CERT_REQUIRED}


def connect(path, *protocols):
    stream = websocket.create_connection(POD + path, sslopt=TLS, subprotocols=list(protocols), timeout=120)
    assert stream.getsubprotocol() == (protocols[0] if protocols else None), stream.getsubprotocol()
    return stream


def frames(stream):
    """Every data frame until the server closes."""
    while True:
        code, data = stream.recv_data()
        if code == websocket.ABNF.OPCODE_CLOSE:
            return
        yield data


def collect(stream, decode=lambda frame: (frame[:1][0], frame[1:])):
    said = {}
    for frame in frames(stream):
        if frame:
            channel, data = decode(frame)
            said[channel] = said.get(channel, b"") + data
    return said


# Logs as messages, as the conformance tests read them.
assert b"".join(frames(connect("/log", "binary.k8s.io"))) == b"said\n"
assert b"".join(base64.b64decode(frame) for frame in frames(connect("/log", "base64.binary.k8s.io"))) == b"said\n"
assert b"".join(frames(connect("/log"))) == b"said\n"

# Exec: the first protocol has no Status, the later ones have.
RUN = "/exec?command=sh&command=-c&command=echo+out;+echo+err+%3E%262;+exit+3&stdout=1&stderr=1"
said = collect(connect(RUN, "channel.k8s.io"))
assert (said[1], said[2]) == (b"out\n", b"err\n") and b"exit code 3" in said[3], said
for protocol in ["v4.channel.k8s.io", "v5.channel.k8s.io"]:
    said = collect(connect(RUN, protocol))
    status = json.loads(said[3])
    assert (said[1], said[2]) == (b"out\n", b"err\n"), said
    assert status["reason"] == "NonZeroExitCode" and status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}], status
for protocol in ["base64.channel.k8s.io", "v4.base64.channel.k8s.io"]:
    said = collect(connect(RUN, protocol), lambda frame: (int(frame[:1]), base64.b64decode(frame[1:])))
    assert (said[1], said[2]) == (b"out\n", b"err\n"), (protocol, said)

# Standard input, closed by the message that the fifth version added.
stream = connect("/exec?command=cat&stdin=1&stdout=1", "v5.channel.k8s.io")
stream.send_binary(b"\x00typed")
stream.send_binary(b"\xff\x00")
said = collect(stream)
assert said[1] == b"typed" and json.loads(said[3])["status"] == "Success", said

# A ping is answered while nothing else is said.
stream = connect("/exec?command=sleep&command=100&stdout=1", "v5.channel.k8s.io")
stream.ping("there")
while True:
    code, frame = stream.recv_data_frame(control_frame=True)
    if code == websocket.ABNF.OPCODE_PONG:
        assert frame.data == b"there"
        break
stream.close()

# Ports on plain channels: each begins with its number.
server = connect("/exec?command=busybox&command=httpd&command=-f&command=-p&command=7001&command=-h&command=/etc&stdout=1", "v5.channel.k8s.io")
for _ in range(600):
    stream = connect("/portforward?ports=7001", "v4.channel.k8s.io")
    stream.send_binary(b"\x00GET /hostname HTTP/1.0\r\n\r\n")
    said = {}
    try:
        while b"one" not in said.get(0, b""):
            data = stream.recv()
            said[data[0]] = said.get(data[0], b"") + data[1:]
        break
    except (websocket.WebSocketException, IndexError, OSError):
        time.sleep(0.1)
assert said[0].startswith(struct.pack("<H", 7001)) and said[1][:2] == struct.pack("<H", 7001), said
assert b"200 OK" in said[0], said
server.close()

# A protocol that nobody knows.
try:
    connect(RUN, "v9.channel.k8s.io")
    raise SystemExit("accepted")
except websocket.WebSocketBadStatusException as error:
    assert error.status_code in (400, 403), error
print("done")
