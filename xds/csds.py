"""
The client status discovery service: what each proxy was sent, in Envoy's own words.

Answers from the sessions as they are. Secrets are named, never shown. An answer about a whole mesh
takes seconds, so it is made proxy by proxy and lets others run in between; it is bounded in size.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final

from google.protobuf.message import DecodeError

from pilothouse._pb.envoy.admin.v3.config_dump_shared_pb2 import ClientResourceStatus
from pilothouse._pb.envoy.service.status.v3 import csds_pb2
from pilothouse._pb.envoy.type.matcher.v3.node_pb2 import NodeMatcher
from pilothouse._pb.envoy.type.matcher.v3.string_pb2 import StringMatcher
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.proxies import Proxy
from pilothouse.model.resource import SDS, Resource
from pilothouse.xds.requests import InvalidRequest
from pilothouse.xds.session import Session
from pilothouse.xds.status import TypeStatus, resources_of, type_status
from pilothouse.xds.streams import Streams

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
MAX_MATCHERS: Final = 100

_CONFIG_STATUS: Final = {
    "NOT SENT": csds_pb2.NOT_SENT,
    "SYNCED": csds_pb2.SYNCED,
    "STALE": csds_pb2.STALE,
    "ERROR": csds_pb2.ERROR,
}


class ClientStatus:
    """Answers ClientStatusRequests."""

    def __init__(self, streams: Streams, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        """Tell about the streams of `streams`."""
        self._streams = streams
        self._max_answer_bytes = max_answer_bytes

    async def answer(self, data: bytes, may_see: Callable[[Proxy], bool]) -> bytes:
        """
        Return the encoded ClientStatusResponse to an encoded request, of proxies one may see.

        Raises: InvalidRequest: The request cannot be read, or asks for what is not offered or for
            too much.
        """
        try:
            request = csds_pb2.ClientStatusRequest.FromString(data)
        except DecodeError as error:
            raise InvalidRequest("the message is not a client status request") from error
        if len(request.node_matchers) > MAX_MATCHERS:
            raise InvalidRequest(f"more than {MAX_MATCHERS} node matchers")
        # A proxy may have several streams, and each shows what it has by all of them.
        sessions: defaultdict[tuple[str, WorkloadIdentity | None], list[Session]]
        sessions = defaultdict(list)
        asked: list[tuple[Proxy, Session]] = []
        for info, member in self._streams.members():
            sessions[info.proxy.id, info.proxy.identity].append(member.session)
            if may_see(info.proxy) and _is_asked_for(request, info.proxy):
                asked.append((info.proxy, member.session))
        pieces: list[bytes] = []
        size = 0
        for proxy, session in asked:
            response = csds_pb2.ClientStatusResponse()
            config = response.config.add()
            config.node.id = proxy.id
            shows = not request.exclude_resource_contents
            resources = resources_of(sessions[proxy.id, proxy.identity])
            for followed in map(type_status, session.watches.values()):
                config.generic_xds_configs.extend(
                    _configs(followed, resources.get(followed.type_url, ()), shows=shows)
                )
            piece = response.SerializeToString()  # a repeated field: joined, they are one message
            size += len(piece)
            if size > self._max_answer_bytes:
                raise InvalidRequest(
                    f"the answer has more than {self._max_answer_bytes} bytes; match node_id, or"
                    " exclude_resource_contents"
                )
            pieces.append(piece)
            await asyncio.sleep(0)
        return b"".join(pieces)


def _is_asked_for(request: csds_pb2.ClientStatusRequest, proxy: Proxy) -> bool:
    matchers = request.node_matchers
    return not matchers or any(_matches(matcher, proxy) for matcher in matchers)


def _matches(matcher: NodeMatcher, proxy: Proxy) -> bool:
    if matcher.node_metadatas:
        raise InvalidRequest("node matchers on metadata are not offered; match node_id")
    return not matcher.HasField("node_id") or _text_matches(matcher.node_id, proxy.id)


def _text_matches(matcher: StringMatcher, text: str) -> bool:
    wanted = matcher.WhichOneof("match_pattern")
    pattern = getattr(matcher, wanted) if wanted else ""
    if matcher.ignore_case and isinstance(pattern, str):
        pattern, text = pattern.lower(), text.lower()
    match wanted:
        case "exact":
            return bool(text == pattern)
        case "prefix":
            return text.startswith(pattern)
        case "suffix":
            return text.endswith(pattern)
        case "contains":
            return pattern in text
        case _:
            raise InvalidRequest("node_id is matched by exact, prefix, suffix or contains")


def _configs(
    status: TypeStatus, resources: tuple[Resource, ...], *, shows: bool
) -> Iterator[csds_pb2.ClientConfig.GenericXdsConfig]:
    rejected = {refused.name: refused for refused in status.rejected}
    state = "SYNCED" if status.state == "ERROR" else status.state  # errors are told one by one
    for resource in resources:
        config = csds_pb2.ClientConfig.GenericXdsConfig(
            type_url=resource.type_url,
            name=resource.name,
            version_info=resource.version,
            config_status=_CONFIG_STATUS["ERROR" if resource.name in rejected else state],
            client_status=ClientResourceStatus.ACKED,
        )
        if shows and resource.type_url != SDS:
            config.xds_config.ParseFromString(resource.any_bytes)
        refused = rejected.pop(resource.name, None)
        if refused is not None:
            config.client_status = ClientResourceStatus.NACKED
            config.error_state.details = refused.error
            config.error_state.version_info = refused.version
        yield config
    for refused in rejected.values():  # refused from the start: the proxy has none of it
        config = csds_pb2.ClientConfig.GenericXdsConfig(
            type_url=refused.type_url,
            name=refused.name,
            config_status=csds_pb2.ERROR,
            client_status=ClientResourceStatus.NACKED,
        )
        config.error_state.details = refused.error
        config.error_state.version_info = refused.version
        yield config
