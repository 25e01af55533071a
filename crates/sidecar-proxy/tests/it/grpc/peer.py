"""A gRPC server and client that know nothing of the proxy between them (grpcio, from PyPI). Messages are plain bytes.

    peer.py serve NAME                        prints its port, then `stopping` when a line on its input told it to stop
    peer.py check ADDRESS [CA]                every case; ends with 0 if all are good
    peer.py load ADDRESS[,ADDRESS]            calls until its input ends, then prints how many were good and what failed
"""

import concurrent.futures
import signal
import sys
import threading
import time
import traceback

import grpc

BIG = 8 << 20
OPTIONS = [("grpc.max_receive_message_length", 2 * BIG), ("grpc.max_send_message_length", 2 * BIG)]
SERVER_OPTIONS = OPTIONS + [
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10),
    ("grpc.http2.max_ping_strikes", 0),
]


class Service:
    def __init__(self, name):
        self.name = name.encode()
        self.cancelled = 0

    def echo(self, request, context):
        sent = dict(context.invocation_metadata())
        if "x-text" in sent:
            context.send_initial_metadata((("x-back", sent["x-text"]), ("x-back-bin", sent["x-raw-bin"])))
            context.set_trailing_metadata((("x-end", "yes"), ("x-end-bin", b"\x00\xff")))
        return request

    def who(self, request, context):
        return self.name

    def fail(self, request, context):
        context.set_trailing_metadata((("x-reason", "because"),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "zu viel für 100 % \u2603\n")

    def fail_late(self, request, context):
        yield b"first"
        context.abort(grpc.StatusCode.DATA_LOSS, "late")

    def down(self, request, context):
        for number in range(int(request)):
            yield b"%d" % number

    def up(self, requests, context):
        return b"%d" % sum(len(request) for request in requests)

    def chat(self, requests, context):
        for request in requests:
            yield b"re: " + request

    def slow(self, request, context):
        done = threading.Event()
        if not context.add_callback(done.set):
            done.set()
        if done.wait(30):
            self.cancelled += 1
        return b"late"

    def cancellations(self, request, context):
        return b"%d" % self.cancelled

    def handlers(self):
        unary, down = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        methods = {
            "Echo": unary(self.echo),
            "Who": unary(self.who),
            "Fail": unary(self.fail),
            "FailLate": down(self.fail_late),
            "Down": down(self.down),
            "Up": grpc.stream_unary_rpc_method_handler(self.up),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Slow": unary(self.slow),
            "Cancellations": unary(self.cancellations),
        }
        return grpc.method_handlers_generic_handler("test.Peer", methods)


def serve(name):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(64), options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((Service(name).handlers(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.readline()
    print("stopping", flush=True)
    server.stop(20).wait()


class Client:
    def __init__(self, channel):
        self.channel = channel

    def __getattr__(self, name):
        kinds = {"Down": "unary_stream", "FailLate": "unary_stream", "Up": "stream_unary", "Chat": "stream_stream"}
        return getattr(self.channel, kinds.get(name, "unary_unary"))(f"/test.Peer/{name}")


def refused(call, code):
    try:
        result = call()
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error
    raise AssertionError(f"an answer instead of {code}: {result!r}")


def case_unary(peer):
    assert peer.Echo(b"hello", timeout=20) == b"hello"
    assert peer.Echo(b"", timeout=20) == b""


def case_metadata(peer):
    raw = bytes(range(256))
    sent = (("x-text", "plain"), ("x-raw-bin", raw))
    answer, call = peer.Echo.with_call(b"x", timeout=20, metadata=sent)
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert initial["x-back"] == "plain" and initial["x-back-bin"] == raw, initial
    assert trailing["x-end"] == "yes" and trailing["x-end-bin"] == b"\x00\xff", trailing


def case_server_streaming(peer):
    assert [int(one) for one in peer.Down(b"1000", timeout=60)] == list(range(1000))
    assert list(peer.Down(b"0", timeout=20)) == []


def case_client_streaming(peer):
    assert peer.Up((b"x" * size for size in range(500)), timeout=60) == b"%d" % sum(range(500))
    assert peer.Up(iter(()), timeout=20) == b"0"


def case_chat_is_not_held_back(peer):
    """Each message is sent only after the answer to the one before."""
    turn = threading.Semaphore(1)

    def messages():
        for number in range(200):
            assert turn.acquire(timeout=20)
            yield b"%d" % number

    for number, answer in enumerate(peer.Chat(messages(), timeout=60)):
        assert answer == b"re: %d" % number
        turn.release()
    assert number == 199


def case_large_messages(peer):
    body = bytes(range(256)) * (BIG // 256)
    assert peer.Echo(body, timeout=60) == body
    assert b"".join(peer.Chat(iter([body]), timeout=60)) == b"re: " + body


def case_errors(peer):
    error = refused(lambda: peer.Fail(b"", timeout=20), grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert error.details() == "zu viel für 100 % \u2603\n", error.details()
    assert dict(error.trailing_metadata())["x-reason"] == "because"
    missing = peer.channel.unary_unary("/test.Peer/Missing")
    refused(lambda: missing(b"", timeout=20), grpc.StatusCode.UNIMPLEMENTED)
    answers = peer.FailLate(b"", timeout=20)
    assert next(answers) == b"first"
    refused(lambda: next(answers), grpc.StatusCode.DATA_LOSS)


def await_cancellations(peer, count):
    deadline = time.monotonic() + 30
    while int(peer.Cancellations(b"", timeout=20)) < count:
        assert time.monotonic() < deadline, "the server was not told"
        time.sleep(0.01)


def case_deadline_and_cancellation_reach_the_server(peer):
    before = int(peer.Cancellations(b"", timeout=20))
    refused(lambda: peer.Slow(b"", timeout=0.3), grpc.StatusCode.DEADLINE_EXCEEDED)
    await_cancellations(peer, before + 1)
    call = peer.Slow.future(b"", timeout=60)
    time.sleep(0.2)
    call.cancel()
    await_cancellations(peer, before + 2)
    stream = peer.Chat(iter([b"one"]), timeout=60)
    assert next(stream) == b"re: one"
    stream.cancel()


def case_many_at_once(peer):
    calls = [peer.Echo.future(b"%d" % number, timeout=60) for number in range(300)]
    assert [int(call.result()) for call in calls] == list(range(300))


def case_pings(peer):
    """The connection bears a client that asks whether it lives."""
    for _ in range(5):
        time.sleep(0.3)
        assert peer.Echo(b"alive", timeout=20) == b"alive"


def channel_to(address, ca):
    keepalive = [("grpc.keepalive_time_ms", 100), ("grpc.keepalive_permit_without_calls", 1),
                 ("grpc.http2.max_pings_without_data", 0)]
    if ca is None:
        return grpc.insecure_channel(address, options=OPTIONS + keepalive)
    with open(ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    name = [("grpc.ssl_target_name_override", "localhost")]
    return grpc.secure_channel(address, credentials, options=OPTIONS + keepalive + name)


def check(address, ca=None):
    bad = 0
    with channel_to(address, ca) as channel:
        for name, case in sorted(globals().items()):
            if name.startswith("case_"):
                try:
                    case(Client(channel))
                    print("good", name, flush=True)
                except Exception:
                    bad += 1
                    print("BAD ", name, traceback.format_exc(), flush=True)
    sys.exit(1 if bad else 0)


def load(addresses):
    """No retries but those the library makes by itself: of what was never begun."""
    balance = [("grpc.lb_policy_name", "round_robin"), ("grpc.service_config",
               '{"loadBalancingConfig": [{"round_robin": {}}]}')]
    stop, good, failures = threading.Event(), [0] * 8, []
    with grpc.insecure_channel("ipv4:" + addresses, options=balance) as channel:
        peer = Client(channel)

        def work(index):
            while not stop.is_set():
                try:
                    peer.Who(b"", timeout=30, wait_for_ready=True)
                    good[index] += 1
                    if sum(good) == 200:
                        print("going", flush=True)
                except grpc.RpcError as error:
                    failures.append(f"{error.code()}: {error.details()}")

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(good))]
        for thread in threads:
            thread.start()
        sys.stdin.readline()
        stop.set()
        for thread in threads:
            thread.join()
    print(sum(good), "good,", len(failures), "failed", sorted(set(failures)), flush=True)


# Whatever goes wrong, the test that waits for a word of this must end.
signal.alarm(300)
{"serve": serve, "check": check, "load": load}[sys.argv[1]](*sys.argv[2:])
