"""A gRPC server for the tests: prints its port, and ends when its input does."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

# Calls that their client gave up.
given_up = []


def unary(message, context):
    context.set_trailing_metadata((("x-length", str(len(message))),))
    if message == b"missing":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    return b"re:" + message


def stream(messages, context):
    for message in messages:
        yield b"re:" + message


def split(message, context):
    """As many answers as the message says; below zero, an error after them."""
    count = int(message)
    for number in range(abs(count)):
        yield str(number).encode()
    if count < 0:
        context.set_trailing_metadata((("why-bin", b"\0\xff"),))
        context.abort(grpc.StatusCode.DATA_LOSS, "dünn")


def join(messages, context):
    return b"+".join(messages)


def wait(message, context):
    """Answers never: until the client gives up."""
    over = threading.Event()
    if context.add_callback(over.set):
        over.wait(60)
    given_up.append(message)
    return b""


def given(message, context):
    return b" ".join(given_up)


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Stream": grpc.stream_stream_rpc_method_handler(stream),
    "Split": grpc.unary_stream_rpc_method_handler(split),
    "Join": grpc.stream_unary_rpc_method_handler(join),
    "Wait": grpc.unary_unary_rpc_method_handler(wait),
    "GivenUp": grpc.unary_unary_rpc_method_handler(given),
}


class Echo(grpc.GenericRpcHandler):
    def service(self, call):
        return METHODS.get(call.method.removeprefix("/test.Echo/"))


server = grpc.server(
    ThreadPoolExecutor(8),
    options=[("grpc.max_receive_message_length", -1)],
)
server.add_generic_rpc_handlers((Echo(),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
server.stop(None)
