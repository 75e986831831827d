"""
Simulated proxies, all in this one process, which `run.py` starts apart from the server's.

Each behaves as Envoy on a delta ADS stream: all clusters, the endpoints these name, all listeners,
the routes these name, and an ACK for every message. Only the first proxy of a namespace decodes
what it gets (the scout); the others count resources and bytes and ask for the scout's names, which
are the same.

Commands come as JSON lines on standard input, answers leave on standard output. Moments are
seconds of CLOCK_MONOTONIC, which all processes of a machine share.
"""

import asyncio
import base64
import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import uvloop
from http2 import GrpcStream
from mesh import ProxyIdentity

from pilothouse._pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
)
from pilothouse.model.resource import CDS, EDS, LDS, RDS, SHORT_NAMES

ADS_PATH: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


class Response:
    """What a proxy needs of a delta response: a walk over its outermost fields."""

    __slots__ = ("nonce", "resources", "type_url")

    def __init__(self, data: bytes) -> None:
        self.resources = 0
        self.type_url = self.nonce = ""
        position, end = 0, len(data)
        while position < end:
            tag = data[position]
            size, shift = 0, 0
            position += 1
            while True:
                byte = data[position]
                position += 1
                size |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
            if tag == 0x12:
                self.resources += 1
            elif tag == 0x22:
                self.type_url = data[position : position + size].decode()
            elif tag == 0x2A:
                self.nonce = data[position : position + size].decode()
            position += size


class Names:
    """What the proxies of one namespace ask for; the scout fills it in."""

    def __init__(self) -> None:
        self.endpoints: asyncio.Future[tuple[str, ...]] = asyncio.Future()
        self.routes: asyncio.Future[tuple[str, ...]] = asyncio.Future()


class Proxy:
    """One simulated Envoy."""

    def __init__(self, identity: ProxyIdentity, names: Names, *, is_scout: bool) -> None:
        self.identity = identity
        self.names = names
        self.is_scout = is_scout
        self.resources: Counter[str] = Counter()
        self.size_bytes = 0
        self.messages: dict[str, list[tuple[float, int]]] = {}
        self.last: dict[str, bytes] = {}
        self.last_byte_at = 0.0
        self.complete = asyncio.Event()
        self.ended = ""
        self._asked: dict[str, set[str]] = {}
        self._stream: GrpcStream

    async def connect(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        _, self._stream = await loop.create_connection(
            lambda: GrpcStream(ADS_PATH, self._received, self._ended), host, port
        )
        request = DeltaDiscoveryRequest(type_url=CDS)
        request.node.id = self.identity.node_id
        request.node.cluster = f"{self.identity.app}.{self.identity.namespace}"
        request.node.metadata.update(
            {
                "NAMESPACE": self.identity.namespace,
                "LABELS": {"app": self.identity.app},
                "CLUSTER_ID": "Kubernetes",
                "MESH_ID": "cluster.local",
                "ISTIO_VERSION": "1.32.0",
                "SERVICE_ACCOUNT": self.identity.app,
                "INSTANCE_IPS": self.identity.ip,
                "INTERCEPTION_MODE": "REDIRECT",
            }
        )
        self._stream.send(request.SerializeToString())

    def close(self) -> None:
        self._stream.close()

    def forget(self) -> None:
        """Count from now on."""
        self.messages = {}
        self.size_bytes = 0

    def _ended(self, text: str) -> None:
        self.ended = self.ended or text
        self.complete.set()

    def _received(self, data: bytes, now: float) -> None:
        response = Response(data)
        url = response.type_url
        self.messages.setdefault(url, []).append((now, len(data)))
        self.size_bytes += len(data)
        self.last_byte_at = now
        self.resources[url] += response.resources
        self._send(DeltaDiscoveryRequest(type_url=url, response_nonce=response.nonce))
        if self.is_scout:
            self.last[url] = data
            self._scout(url, data)
        if url == CDS and EDS not in self._asked:
            self._ask_when_known(EDS, self.names.endpoints)
        elif url == EDS and LDS not in self._asked and self._has_all(EDS):
            self._ask(LDS, ())  # Envoy, too, asks once its clusters are warm
        elif url == LDS and RDS not in self._asked:
            self._ask_when_known(RDS, self.names.routes)
        if RDS in self._asked and self._has_all(RDS):
            self.complete.set()

    def _has_all(self, url: str) -> bool:
        return url in self._asked and self.resources[url] >= len(self._asked[url])

    def _ask_when_known(self, url: str, names: "asyncio.Future[tuple[str, ...]]") -> None:
        names.add_done_callback(lambda known: self._ask(url, known.result()))

    def _ask(self, url: str, names: tuple[str, ...]) -> None:
        if url not in self._asked:
            self._asked[url] = set(names)
            self._send(DeltaDiscoveryRequest(type_url=url, resource_names_subscribe=names))

    def _send(self, request: DeltaDiscoveryRequest) -> None:
        self._stream.send(request.SerializeToString())

    def _scout(self, url: str, data: bytes) -> None:
        if url == CDS and not self.names.endpoints.done():
            clusters = _decoded(data, Cluster)
            self.names.endpoints.set_result(
                tuple(
                    cluster.eds_cluster_config.service_name or cluster.name
                    for cluster in clusters
                    if cluster.type == Cluster.EDS
                )
            )
        elif url == LDS and not self.names.routes.done():
            self.names.routes.set_result(tuple(sorted(_routes_of(_decoded(data, Listener)))))


def _decoded(data: bytes, kind: Any) -> list[Any]:
    response = DeltaDiscoveryResponse.FromString(data)
    return [kind.FromString(each.resource.value) for each in response.resources]


def _routes_of(listeners: list[Any]) -> set[str]:
    found = set()
    for listener in listeners:
        for chain in (*listener.filter_chains, listener.default_filter_chain):
            for each in chain.filters:
                if each.typed_config.type_url.endswith(".HttpConnectionManager"):
                    manager = hcm.HttpConnectionManager.FromString(each.typed_config.value)
                    if manager.HasField("rds"):
                        found.add(manager.rds.route_config_name)
    return found


class Echo:
    """A client of the floor server, which sends what it is told and needs no proxy's manners."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, int]] = []
        self._stream: GrpcStream

    async def connect(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        _, self._stream = await loop.create_connection(
            lambda: GrpcStream(ADS_PATH, self._received, lambda _text: None), host, port
        )
        self._stream.send(b"")

    def _received(self, data: bytes, now: float) -> None:
        self.messages.append((now, len(data)))
        nonce = Response(data).nonce
        self._stream.send(DeltaDiscoveryRequest(response_nonce=nonce).SerializeToString())


class Swarm:
    """The commands of `run.py`."""

    def __init__(self) -> None:
        self.proxies: list[Proxy] = []
        self.echoes: list[Echo] = []
        self._names: dict[str, Names] = {}

    async def connect(self, port: int, proxies: list[dict[str, str]], timeout: float) -> Any:
        """Connect proxies all at once; answer when each of them has everything."""
        new = []
        for each in proxies:
            identity = ProxyIdentity(**each)
            is_scout = identity.namespace not in self._names
            names = self._names.setdefault(identity.namespace, Names())
            new.append(Proxy(identity, names, is_scout=is_scout))
        await asyncio.gather(*(proxy.connect("127.0.0.1", port) for proxy in new))
        async with asyncio.timeout(timeout):
            await asyncio.gather(*(proxy.complete.wait() for proxy in new))
        self.proxies += new
        return {
            "complete_at": max(proxy.last_byte_at for proxy in new),
            "size_bytes": sum(proxy.size_bytes for proxy in new),
            "ended": [proxy.ended for proxy in self.proxies if proxy.ended],
            "resources": {SHORT_NAMES[url]: n for url, n in self.proxies[0].resources.items()},
        }

    async def disconnect(self) -> None:
        for proxy in self.proxies:
            proxy.close()
        self.proxies.clear()
        self._names.clear()

    async def forget(self) -> None:
        for proxy in self.proxies:
            proxy.forget()
        for echo in self.echoes:
            echo.messages.clear()

    async def await_push(self, type_url: str, timeout: float) -> Any:
        """Answer when every proxy has had a message of a type since `forget`."""
        await _until(lambda: all(type_url in proxy.messages for proxy in self.proxies), timeout)
        return {
            "last_bytes_at": [proxy.messages[type_url][0][0] for proxy in self.proxies],
            "size_bytes": self.proxies[0].messages[type_url][0][1],
        }

    async def traffic(self) -> Any:
        """Tell what came since `forget`."""
        return {
            "size_bytes": sum(proxy.size_bytes for proxy in self.proxies),
            "messages": sum(len(m) for proxy in self.proxies for m in proxy.messages.values()),
            "ended": [proxy.ended for proxy in self.proxies if proxy.ended],
        }

    async def recorded(self, type_url: str) -> Any:
        """Answer with the last message of a type, for the floor to send."""
        return base64.b64encode(self.proxies[0].last[type_url]).decode()

    async def connect_echoes(self, port: int, count: int) -> None:
        self.echoes = [Echo() for _ in range(count)]
        await asyncio.gather(*(echo.connect("127.0.0.1", port) for echo in self.echoes))

    async def await_echo(self, timeout: float) -> Any:
        await _until(lambda: all(echo.messages for echo in self.echoes), timeout)
        return {"last_bytes_at": [echo.messages[0][0] for echo in self.echoes]}


async def _until(is_true: Callable[[], bool], timeout: float) -> None:
    # Looking costs the client's core, not the server's; the moments were taken on arrival.
    async with asyncio.timeout(timeout):
        while not is_true():
            await asyncio.sleep(0.005)


async def main() -> None:
    swarm = Swarm()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        try:
            answer = await getattr(swarm, command.pop("do"))(**command)
            print(json.dumps({"answer": answer}), flush=True)
        except Exception as error:  # noqa: BLE001 (whoever gave the command tells the user)
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
