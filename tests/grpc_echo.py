"""A gRPC service and one call of it, each a program for a network namespace of its own."""

import sys
from concurrent import futures

import grpc

METHOD = "/test.Echo/Say"


class _Echo(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda said, _context: b"echo " + said)


def serve(address: str) -> None:
    """Answer until ended."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2), handlers=[_Echo()])
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


def call(address: str) -> None:
    """Say hello once and write the answer."""
    with grpc.insecure_channel(address) as channel:
        sys.stdout.write(channel.unary_unary(METHOD)(b"hello", timeout=10).decode())


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](sys.argv[2])
