"""
A simulated proxy: a client of ADS with a real socket that follows references as Envoy does.

Subscribes to all clusters, to the endpoints they name, then to all listeners and the routes they
name; acknowledges everything that `reject` lets pass; withholds the ACK of clusters until their
endpoints have come. Its state is what an Envoy would run with.

    async with FakeProxy("127.0.0.1:15010") as proxy:
        await proxy.until(lambda p: "8080" in p.routes)
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import grpc.aio

from pilothouse._pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from pilothouse._pb.envoy.config.core.v3.base_pb2 import Node
from pilothouse._pb.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from pilothouse._pb.envoy.service.discovery.v3 import discovery_pb2 as pb
from pilothouse.model.resource import CDS, EDS, LDS, RDS

Message = Any
Reject = Callable[[str, str, Message], str | None]
"""(type URL, name, message) -> error text, None to accept."""

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
NODE_ID = "sidecar~10.0.0.1~client-1.default~default.svc.cluster.local"

_CLASSES: Mapping[str, Any] = {
    CDS: Cluster, EDS: ClusterLoadAssignment, LDS: Listener, RDS: RouteConfiguration
}  # fmt: skip
_HCM = hcm_pb2.HttpConnectionManager.DESCRIPTOR.full_name


def node(
    node_id: str = NODE_ID,
    metadata: Mapping[str, Any] | None = None,
    extensions: Iterable[str] = (),
) -> Node:
    """Make a node message as istio-agent writes it into the bootstrap."""
    made = Node(id=node_id, cluster="fake")
    made.metadata.update(dict(metadata or {}))
    for name in extensions:
        made.extensions.add(name=name)
    return made


class Decoder:
    """
    Decodes resources, each content once.

    Share one among the proxies of a benchmark, so that its clients cost little.
    """

    def __init__(self) -> None:
        self._decoded: dict[tuple[str, bytes], Message] = {}

    def decode(self, type_url: str, data: bytes) -> Message:
        key = (type_url, data)
        found = self._decoded.get(key)
        if found is None:
            made = _CLASSES.get(type_url)
            found = self._decoded[key] = made.FromString(data) if made else data
        return found


def name_of(type_url: str, message: Message) -> str:
    return str(message.cluster_name if type_url == EDS else message.name)


def endpoints_name(cluster: Cluster) -> str | None:
    """Return the load assignment a cluster asks for."""
    if cluster.type != Cluster.EDS:
        return None
    return cluster.eds_cluster_config.service_name or cluster.name


def route_names(listener: Listener) -> set[str]:
    """Return the route configurations a listener asks for."""
    names = set()
    for chain in (*listener.filter_chains, listener.default_filter_chain):
        for config in (network_filter.typed_config for network_filter in chain.filters):
            if config.type_url.endswith(_HCM):
                manager = hcm_pb2.HttpConnectionManager.FromString(config.value)
                if manager.HasField("rds"):
                    names.add(manager.rds.route_config_name)
    return names


@dataclass
class Followed:
    """What the proxy has of one type."""

    resources: dict[str, Message] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    nonce: str = ""
    version: str = ""
    is_open: bool = False
    refused: list[str] = field(default_factory=list)


class FakeProxy:
    """
    A proxy; see the module docstring.

    `messages` and `bytes_received` count responses by type; `order` lists the types of responses
    as they came, `history` what was in each (names, removed names).
    """

    def __init__(
        self,
        address: str,
        *,
        delta: bool = True,
        node: Node | None = None,
        reject: Reject | None = None,
        decoder: Decoder | None = None,
        withholds_cluster_acks: bool = True,
        keeps_history: bool = True,
    ) -> None:
        self._address = address
        self._delta = delta
        self._node = node if node is not None else _default_node()
        self._reject = reject or (lambda _type_url, _name, _message: None)
        self._decoder = decoder or Decoder()
        self._withholds = withholds_cluster_acks
        self._keeps_history = keeps_history
        self._channel: Any = None
        self._call: Any = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._held_ack: tuple[str, str, str] | None = None
        self._warming: set[str] = set()
        self._pointers: dict[str, dict[str, set[str]]] = {CDS: {}, LDS: {}}
        self._node_sent = False
        self.followed: dict[str, Followed] = {url: Followed() for url in (CDS, EDS, LDS, RDS)}
        self.messages: Counter[str] = Counter()
        self.bytes_received: Counter[str] = Counter()
        self.order: list[str] = []
        self.history: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []
        self.ended: grpc.aio.AioRpcError | None = None

    # -- what it runs with ------------------------------------------------------------------------

    @property
    def clusters(self) -> Mapping[str, Cluster]:
        return self.followed[CDS].resources

    @property
    def endpoints(self) -> Mapping[str, ClusterLoadAssignment]:
        return self.followed[EDS].resources

    @property
    def listeners(self) -> Mapping[str, Listener]:
        return self.followed[LDS].resources

    @property
    def routes(self) -> Mapping[str, RouteConfiguration]:
        return self.followed[RDS].resources

    @property
    def is_complete(self) -> bool:
        """Whether everything that was asked for has come, and no cluster is warming."""
        return (
            not self._warming
            and self.followed[LDS].nonce != ""
            and self.followed[EDS].names <= self.endpoints.keys()
            and self.followed[RDS].names <= self.routes.keys()
        )

    async def until(self, predicate: Callable[[Self], bool], timeout_seconds: float = 10.0) -> None:
        """Wait until something holds of this proxy; looks again after every response."""
        async with asyncio.timeout(timeout_seconds):
            while not predicate(self):
                if self.ended is not None:
                    raise self.ended
                self._changed.clear()
                await self._changed.wait()

    # -- connections ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Open a stream and subscribe, telling what is held from before."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(self._address, options=options)
        method = "DeltaAggregatedResources" if self._delta else "StreamAggregatedResources"
        self._call = self._channel.stream_stream(ADS + method)()
        self.ended = None
        self._node_sent = False
        self._held_ack = None
        self._warming.clear()
        for followed in self.followed.values():
            followed.nonce, followed.is_open = "", False
        self._task = asyncio.create_task(self._run())
        await self._open(CDS)
        if self.followed[LDS].resources:
            for type_url in (EDS, LDS, RDS):
                await self._open(type_url)

    async def close(self) -> None:
        """Close the stream; what was received is kept."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._call is not None:
            self._call.cancel()
            await self._channel.close()
            self._call = None

    async def _run(self) -> None:
        try:
            while (data := await self._call.read()) is not grpc.aio.EOF:
                await self._receive(data)
                self._changed.set()
            self.ended = grpc.aio.AioRpcError(
                await self._call.code(), (), (), details=await self._call.details()
            )
        except grpc.aio.AioRpcError as error:
            self.ended = error
        finally:
            self._changed.set()

    # -- requests ---------------------------------------------------------------------------------

    async def _open(self, type_url: str) -> None:
        followed = self.followed[type_url]
        if followed.is_open or not (type_url in {CDS, LDS} or followed.names):
            return
        followed.is_open = True
        if self._delta:
            await self._send_delta(
                type_url, subscribe=followed.names, initial_versions=followed.versions
            )
        else:
            await self._send_sotw(type_url)

    async def _send_sotw(self, type_url: str, error: str | None = None) -> None:
        followed = self.followed[type_url]
        request = pb.DiscoveryRequest(
            type_url=type_url,
            resource_names=sorted(followed.names),
            version_info=followed.version,
            response_nonce=followed.nonce,
        )
        await self._write(request, error)

    async def _send_delta(
        self,
        type_url: str,
        *,
        subscribe: Iterable[str] = (),
        unsubscribe: Iterable[str] = (),
        nonce: str = "",
        error: str | None = None,
        initial_versions: Mapping[str, str] | None = None,
    ) -> None:
        request = pb.DeltaDiscoveryRequest(
            type_url=type_url,
            resource_names_subscribe=sorted(subscribe),
            resource_names_unsubscribe=sorted(unsubscribe),
            response_nonce=nonce,
            initial_resource_versions=initial_versions,
        )
        await self._write(request, error)

    async def _write(self, request: Any, error: str | None) -> None:
        if not self._node_sent:
            request.node.CopyFrom(self._node)
            self._node_sent = True
        if error is not None:
            request.error_detail.code = 13
            request.error_detail.message = error
        await self._call.write(request.SerializeToString())

    async def _answer(self, type_url: str, nonce: str, error: str | None) -> None:
        if self._delta:
            await self._send_delta(type_url, nonce=nonce, error=error)
        else:
            await self._send_sotw(type_url, error)

    async def _want(self, type_url: str, names: set[str]) -> None:
        followed = self.followed[type_url]
        added, dropped = names - followed.names, followed.names - names
        if not (added or dropped):
            return
        followed.names = names
        for name in dropped:
            followed.resources.pop(name, None)
            followed.versions.pop(name, None)
        if not followed.is_open:
            await self._open(type_url)
        elif self._delta:
            await self._send_delta(type_url, subscribe=added, unsubscribe=dropped)
        else:
            await self._send_sotw(type_url)

    # -- responses --------------------------------------------------------------------------------

    async def _receive(self, data: bytes) -> None:
        received: list[tuple[str, str, Message]] = []
        removed: list[str] = []
        if self._delta:
            delta = pb.DeltaDiscoveryResponse.FromString(data)
            type_url, nonce, version = delta.type_url, delta.nonce, delta.system_version_info
            for made in delta.resources:
                message = self._decoder.decode(type_url, made.resource.value)
                received.append((made.name, made.version, message))
            removed.extend(delta.removed_resources)
        else:
            sotw = pb.DiscoveryResponse.FromString(data)
            type_url, nonce, version = sotw.type_url, sotw.nonce, sotw.version_info
            for packed in sotw.resources:
                message = self._decoder.decode(type_url, packed.value)
                received.append((name_of(type_url, message), version, message))
        self.messages[type_url] += 1
        self.bytes_received[type_url] += len(data)
        if self._keeps_history:
            self.order.append(type_url)
            names = tuple(name for name, _, _ in received)
            self.history.append((type_url, names, tuple(removed)))
        await self._apply(type_url, nonce, version, received, removed)

    async def _apply(
        self,
        type_url: str,
        nonce: str,
        version: str,
        received: list[tuple[str, str, Message]],
        removed: list[str],
    ) -> None:
        followed = self.followed[type_url]
        followed.nonce = nonce
        faults = {
            name: error
            for name, _, message in received
            if (error := self._reject(type_url, name, message)) is not None
        }
        followed.refused.extend(faults)
        is_partial = type_url in {CDS, LDS}
        error = None
        if faults:
            kind = "cluster" if type_url == CDS else "listener"
            listed = ", ".join(f"{name}: {text}" for name, text in faults.items())
            error = f"Error adding/updating {kind}(s) {listed}" if is_partial else listed
        else:
            followed.version = version
        if not faults or is_partial:
            good = [(n, v, m) for n, v, m in received if n not in faults]
            await self._store(type_url, good, removed, {n for n, _, _ in received})
        if type_url == CDS and self._withholds and self._warming and error is None:
            self._held_ack = (type_url, nonce, "")
        else:
            await self._answer(type_url, nonce, error)
        if type_url == EDS and not self._warming and self._held_ack is not None:
            held, self._held_ack = self._held_ack, None
            await self._answer(held[0], held[1], None)
        if not self._warming and self.followed[CDS].nonce:
            await self._open(LDS)

    async def _store(
        self,
        type_url: str,
        good: list[tuple[str, str, Message]],
        removed: list[str],
        mentioned: set[str],
    ) -> None:
        followed = self.followed[type_url]
        if not self._delta and type_url in {CDS, LDS}:
            removed = [name for name in followed.resources if name not in mentioned]
        changed = [m for n, _, m in good if followed.resources.get(n) is not m]
        for name in removed:
            followed.resources.pop(name, None)
            followed.versions.pop(name, None)
        for name, version, message in good:
            followed.resources[name] = message
            followed.versions[name] = version
        if type_url == EDS:
            self._warming.difference_update(name for name, _, _ in good)
        elif type_url in self._pointers:
            await self._follow(type_url, changed, removed)

    async def _follow(self, type_url: str, changed: list[Message], removed: list[str]) -> None:
        """Ask for what clusters and listeners point at, no longer for what they did."""
        pointers = self._pointers[type_url]
        gone: set[str] = set()
        fresh: set[str] = set()
        for name in removed:
            gone |= pointers.pop(name, set())
        for message in changed:
            gone |= pointers.get(message.name, set())
            pointers[message.name] = _points_at(type_url, message)
            fresh |= pointers[message.name]
        if type_url == CDS:
            self._warming -= gone
            self._warming |= {n for m in changed for n in pointers[m.name]}
        target = EDS if type_url == CDS else RDS
        still = gone and set().union(*pointers.values())
        await self._want(target, (self.followed[target].names | fresh) - (gone - still))


def _points_at(type_url: str, message: Message) -> set[str]:
    if type_url == LDS:
        return route_names(message)
    name = endpoints_name(message)
    return set() if name is None else {name}


def _default_node() -> Node:
    return node()
