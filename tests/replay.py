"""
Requests replayed through a real Envoy that has the very config the simulator reads.

The served listeners and routes run in a network namespace behind REDIRECT, so that Envoy itself
chooses the listener by the original destination. Clusters are all led to one local program that
says yes to everything; names are made unique so that Envoy's access log tells what was taken.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from pilothouse._pb._pool import POOL
from pilothouse._pb.envoy.config.accesslog.v3.accesslog_pb2 import AccessLog
from pilothouse._pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from pilothouse._pb.envoy.config.listener.v3.listener_components_pb2 import FilterChain
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from pilothouse._pb.envoy.extensions.access_loggers.file.v3.file_pb2 import FileAccessLog
from pilothouse._pb.envoy.extensions.filters.http.fault.v3.fault_pb2 import HTTPFault
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse._pb.envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import DownstreamTlsContext
from pilothouse.certs.authority import Authority, KeyPair
from pilothouse.simulator.request import ApplicationProtocol, Request, TlsHello
from pilothouse.simulator.served import ServedConfig, unpacked

Json = dict[str, Any]
Copied = TypeVar("Copied", bound=Message)

REQUEST_SECONDS: Final = 10
_AT_ONCE: Final = 32
_FIELDS: Final = {
    "from": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    "chain": "%FILTER_CHAIN_NAME%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "location": "%RESP(LOCATION)%",
    "path": "%REQ(:PATH)%",
    "host": "%REQ(:AUTHORITY)%",
}


def copied(message: Copied) -> Copied:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def observable(served: ServedConfig, upstream: Path) -> ServedConfig:
    """Return the same config with telling names, and every cluster led to `upstream`."""
    return ServedConfig(
        [_named_chains(each) for each in served.listeners],
        [_named_routes(copied(each)) for each in served.route_configurations.values()],
        [_led_to(each.name, upstream) for each in served.clusters.values()],
    )


def _led_to(name: str, upstream: Path) -> Cluster:
    cluster = Cluster(name=name, type=Cluster.STATIC)
    cluster.connect_timeout.seconds = 5
    # Nothing may be refused for being many.
    limits = cluster.circuit_breakers.thresholds.add()
    for limit in (limits.max_connections, limits.max_pending_requests, limits.max_requests):
        limit.value = 100_000
    cluster.load_assignment.cluster_name = name
    endpoint = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    endpoint.address.pipe.path = str(upstream)
    return cluster


def _named_chains(listener: Listener) -> Listener:
    copy = copied(listener)
    for index, chain in enumerate(copy.filter_chains):
        _named(chain, f"{copy.name}#{index}")
    if copy.HasField("default_filter_chain"):
        _named(copy.default_filter_chain, f"{copy.name}#default")
    return copy


def _named(chain: FilterChain, name: str) -> None:
    chain.name = name
    server = unpacked(chain.transport_socket.typed_config, DownstreamTlsContext)
    if server is not None:
        _show_own_certificate(chain, server)
    for each in chain.filters:
        manager = unpacked(each.typed_config, hcm_pb2.HttpConnectionManager)
        if manager is not None and manager.HasField("route_config"):
            _named_routes(manager.route_config, name)
            each.typed_config.Pack(manager)


def _show_own_certificate(chain: FilterChain, server: DownstreamTlsContext) -> None:
    """Have a chain end TLS with a certificate at hand, and ask the client for none."""
    common = server.common_tls_context
    context = DownstreamTlsContext()
    context.common_tls_context.alpn_protocols.extend(common.alpn_protocols)
    own = context.common_tls_context.tls_certificates.add()
    shown = _certificate()
    own.certificate_chain.inline_bytes = shown.certificate_pem
    own.private_key.inline_bytes = shown.key_pem
    chain.transport_socket.typed_config.Pack(context)


@cache
def _certificate() -> KeyPair:
    now = datetime.now(UTC)
    return Authority.create("test", now).issue_server(["server.example"], now)


def _named_routes(configuration: RouteConfiguration, prefix: str = "") -> RouteConfiguration:
    for host in configuration.virtual_hosts:
        for index, route in enumerate(host.routes):
            route.name = f"{prefix}{configuration.name}/{host.name}/{index}"
            for packed in route.typed_per_filter_config.values():
                fault = unpacked(packed, HTTPFault)
                if fault is not None and fault.HasField("delay"):
                    fault.delay.fixed_delay.FromMilliseconds(1)
                    packed.Pack(fault)
    return configuration


def static_resources(config: ServedConfig, log: Path) -> Json:
    """Return config for a bootstrap: routes inline, every decision logged."""
    listeners = [_logged(copied(each), config, log) for each in config.listeners]
    return {
        "listeners": [_data(each) for each in listeners],
        "clusters": [_data(each) for each in config.clusters.values()],
    }


def _data(message: Message) -> Json:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, descriptor_pool=POOL
    )


def _logged(listener: Listener, config: ServedConfig, log: Path) -> Listener:
    listener.access_log.append(_access_log(log, "connection", listener.name))
    for chain in (*listener.filter_chains, listener.default_filter_chain):
        for each in chain.filters:
            manager = unpacked(each.typed_config, hcm_pb2.HttpConnectionManager)
            proxy = unpacked(each.typed_config, TcpProxy)
            if manager is not None:
                if manager.HasField("rds"):
                    known = config.route_configurations[manager.rds.route_config_name]
                    manager.route_config.CopyFrom(known)
                    # As over RDS, where a cluster may come later.
                    manager.route_config.validate_clusters.SetInParent()
                manager.access_log.append(_access_log(log, "http", listener.name))
                each.typed_config.Pack(manager)
            if proxy is not None:
                proxy.access_log.append(_access_log(log, "tcp", listener.name))
                each.typed_config.Pack(proxy)
    return listener


def _access_log(path: Path, kind: str, listener: str) -> AccessLog:
    config = FileAccessLog(path=str(path))
    fields = config.log_format.json_format.fields
    for name, command in {**_FIELDS, "kind": kind, "listener": listener}.items():
        fields[name].string_value = command
    entry = AccessLog(name="file")
    entry.typed_config.Pack(config)
    return entry


class Answer:
    """What Envoy's log says of one connection, by source port."""

    def __init__(self, entries: Iterable[Json]) -> None:
        """Hold the entries of one connection."""
        self.by_kind: dict[str, Json] = {each["kind"]: each for each in entries}

    @property
    def connection(self) -> Json:
        """How the connection was taken."""
        return self.by_kind["connection"]

    @property
    def served(self) -> Json:
        """What was done with it; empty if it was closed unserved."""
        return self.by_kind.get("http") or self.by_kind.get("tcp") or {}

    def __repr__(self) -> str:
        """Show all."""
        return repr(self.by_kind)


def read_log(log: Path) -> dict[int, Answer]:
    """Return the answers so far; an entry half written is not there yet."""
    found: dict[int, list[Json]] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found.setdefault(int(entry["from"].rpartition(":")[2]), []).append(entry)
    return {port: Answer(entries) for port, entries in found.items()}


async def serve_everything(path: Path) -> asyncio.Server:
    """Answer HTTP with an empty 200 and anything else with a word."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if b" HTTP/1." in data:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            else:
                writer.write(b"ok")
                break
        writer.close()

    server = await asyncio.start_unix_server(answer, path)
    await asyncio.to_thread(path.chmod, 0o777)
    return server


async def replay(requests: Sequence[Request], sockets: Iterable[socket.socket]) -> None:
    """Send every request over the socket made for it, some at a time."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(request: Request, sock: socket.socket) -> None:
        async with turns, asyncio.timeout(REQUEST_SECONDS):
            await _send(request, sock)

    async with asyncio.TaskGroup() as group:
        for request, sock in zip(requests, sockets, strict=True):
            group.create_task(one(request, sock))


async def _send(request: Request, sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((request.source_address, request.source_port))
    with sock:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (request.address, request.port))
        try:
            if request.tls is not None:
                await _send_in_tls(request, request.tls, sock)
                return
            await loop.sock_sendall(sock, b"".join(_bytes(request)))
            seen = b""
            while data := await loop.sock_recv(sock, 65536):
                seen += data
                if b"\r\n\r\n" in seen or seen == b"ok" or _has_http2_answer(seen):
                    break
        except ConnectionError:
            pass  # closed at once: its log entry says so


def _bytes(request: Request) -> Iterator[bytes]:
    if request.protocol is ApplicationProtocol.TCP:
        yield b"\x00\x01\x02 not http at all\r\n\r\n"
    elif request.protocol is ApplicationProtocol.HTTP_2:
        yield from _http2(request)
    else:
        version = "1.0" if request.protocol is ApplicationProtocol.HTTP_1_0 else "1.1"
        yield f"{request.method} {request.path} HTTP/{version}\r\n".encode()
        yield f"Host: {request.host}\r\n".encode()
        for name, value in request.headers:
            yield f"{name}: {value}\r\n".encode()
        yield b"\r\n"


async def _send_in_tls(request: Request, hello: TlsHello, sock: socket.socket) -> None:
    """Send a request within TLS, to whoever ends it; nobody may, and then nothing is said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody; loading roots is slow
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if hello.alpn:
        context.set_alpn_protocols(list(hello.alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname=hello.server_name or None)
    loop = asyncio.get_running_loop()

    async def until(step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                if data := outgoing.read():
                    await loop.sock_sendall(sock, data)
                data = await loop.sock_recv(sock, 65536)
                if not data:
                    raise ConnectionResetError from None
                incoming.write(data)

    try:
        await until(session.do_handshake)
        await until(lambda: session.write(b"".join(_bytes(request))))
        seen = b""
        while data := await until(lambda: session.read(65536)):
            seen += data
            if b"\r\n\r\n" in seen or seen == b"ok" or _has_http2_answer(seen):
                break
    except ssl.SSLError:
        return  # whoever is there speaks no TLS, or refuses this one


def _http2(request: Request) -> Iterator[bytes]:
    """A preface and one request with literal headers (RFC 9113, RFC 7541 6.2.2)."""
    pseudo = {
        ":method": request.method,
        ":scheme": "http",
        ":authority": request.host,
        ":path": request.path,
    }
    block = b"".join(
        b"\x00" + _hpack(name.lower()) + _hpack(value)
        for name, value in (*pseudo.items(), *request.headers)
    )
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    yield len(block).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x01" + block


def _hpack(text: str) -> bytes:
    data = text.encode()
    assert len(data) < 127
    return bytes((len(data),)) + data


def _has_http2_answer(seen: bytes) -> bool:
    """Tell whether headers, a reset or a farewell have come."""
    while len(seen) >= 9:
        if seen[3] in {1, 3, 7}:
            return True
        seen = seen[9 + int.from_bytes(seen[:3], "big") :]
    return False
