"""A gRPC client for the tests, over HTTPS: grpcclient.py PORT CA HOST, where a server of grpcserver.py is."""

import itertools
import sys
import time
from pathlib import Path

import grpc

port, authority, host = sys.argv[1:]
PATIENCE = 30


def channel(name):
    return grpc.secure_channel(
        f"127.0.0.1:{port}",
        grpc.ssl_channel_credentials(Path(authority).read_bytes()),
        options=[
            ("grpc.ssl_target_name_override", name),
            ("grpc.default_authority", name),
            ("grpc.max_receive_message_length", -1),
            ("grpc.enable_retries", 0),
        ],
    )


def check(found, expected):
    if found != expected:
        sys.exit(f"{found!r} where {expected!r} is expected")


def fails(code, call):
    try:
        found = call()
    except grpc.RpcError as error:
        check(error.code(), code)
        return error
    sys.exit(f"{found!r} where {code} is expected")


app = channel(host)
unary = app.unary_unary("/test.Echo/Unary")
stream = app.stream_stream("/test.Echo/Stream")
split = app.unary_stream("/test.Echo/Split")
join = app.stream_unary("/test.Echo/Join")
wait = app.unary_unary("/test.Echo/Wait")
given_up = app.unary_unary("/test.Echo/GivenUp")

# One message, and what is said after its answer.
answer, call = unary.with_call(b"hello", timeout=PATIENCE)
check(answer, b"re:hello")
check(dict(call.trailing_metadata())["x-length"], "5")

# Streams of one side, and of both while each waits for the other.
check(list(split(b"100", timeout=PATIENCE)), [str(number).encode() for number in range(100)])
check(join(iter([b"a", b"b", b"c"]), timeout=PATIENCE), b"a+b+c")
said = []


def turns():
    for number in range(20):
        yield str(number).encode()
        until = time.monotonic() + PATIENCE
        while len(said) <= number and time.monotonic() < until:
            time.sleep(0.001)


for message in stream(turns(), timeout=PATIENCE):
    said.append(message)
check(said, [f"re:{number}".encode() for number in range(20)])

# Many at once.
calls = [unary.future(str(number).encode(), timeout=PATIENCE) for number in range(100)]
check([call.result() for call in calls], [f"re:{number}".encode() for number in range(100)])

# Messages that no window holds.
big = bytes(itertools.islice(itertools.cycle(range(256)), 8 << 20))
check(unary(big, timeout=PATIENCE), b"re:" + big)
check(list(stream(iter([big, b"", big]), timeout=PATIENCE)), [b"re:" + big, b"re:", b"re:" + big])

# Errors: before an answer, after some of it, of the client's own making, and of the ingress.
error = fails(grpc.StatusCode.NOT_FOUND, lambda: unary(b"missing", timeout=PATIENCE))
check(error.details(), "no such thing")
check(dict(error.trailing_metadata())["x-length"], "7")
some = []
error = fails(grpc.StatusCode.DATA_LOSS, lambda: some.extend(split(b"-3", timeout=PATIENCE)))
check(some, [b"0", b"1", b"2"])
check(error.details(), "dünn")
check(dict(error.trailing_metadata())["why-bin"], b"\0\xff")
none = app.unary_unary("/test.Echo/None")
fails(grpc.StatusCode.UNIMPLEMENTED, lambda: none(b"", timeout=PATIENCE))
_, _, domain = host.partition(".")
gone = channel(f"gone.{domain}").unary_unary("/test.Echo/Unary")
fails(grpc.StatusCode.UNIMPLEMENTED, lambda: gone(b"", timeout=PATIENCE))
down = channel(f"down.{domain}").unary_unary("/test.Echo/Unary")
fails(grpc.StatusCode.UNAVAILABLE, lambda: down(b"", timeout=PATIENCE))

# What the client gives up is given up at the server. Of a deadline the server is told in advance.
late, cancelled = (f"{what}-{host}".encode() for what in ("late", "cancelled"))
fails(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: wait(late, timeout=0.3))
call = wait.future(cancelled)
check(unary(b"beside", timeout=PATIENCE), b"re:beside")
call.cancel()
until = time.monotonic() + PATIENCE
while not {late, cancelled} <= set(given_up(b"", timeout=PATIENCE).split()):
    if time.monotonic() > until:
        sys.exit("the server still waits")
    time.sleep(0.01)
print("all is as expected")
