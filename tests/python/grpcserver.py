"""A gRPC server for the tests: prints its port, and ends when its input does."""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc


def unary(message, context):
    context.set_trailing_metadata((("x-length", str(len(message))),))
    if message == b"missing":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    return b"re:" + message


def stream(messages, context):
    for message in messages:
        yield b"re:" + message


class Echo(grpc.GenericRpcHandler):
    def service(self, call):
        if call.method == "/test.Echo/Unary":
            return grpc.unary_unary_rpc_method_handler(unary)
        if call.method == "/test.Echo/Stream":
            return grpc.stream_stream_rpc_method_handler(stream)
        return None


server = grpc.server(ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Echo(),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
server.stop(None)
