"""
The client status discovery service: what each proxy was sent, in Envoy's own words.

Answers from the sessions as they are. Secrets are named, never shown.
"""

from collections.abc import Callable, Iterator
from typing import Final

from google.protobuf.message import DecodeError

from pilothouse._pb.envoy.admin.v3.config_dump_shared_pb2 import ClientResourceStatus
from pilothouse._pb.envoy.service.status.v3 import csds_pb2
from pilothouse._pb.envoy.type.matcher.v3.node_pb2 import NodeMatcher
from pilothouse._pb.envoy.type.matcher.v3.string_pb2 import StringMatcher
from pilothouse.model.proxies import Proxy
from pilothouse.model.resource import SDS, Resource
from pilothouse.xds.requests import InvalidRequest
from pilothouse.xds.status import StreamStatus, TypeStatus
from pilothouse.xds.streams import Streams

_CONFIG_STATUS: Final = {
    "NOT SENT": csds_pb2.NOT_SENT,
    "SYNCED": csds_pb2.SYNCED,
    "STALE": csds_pb2.STALE,
    "ERROR": csds_pb2.ERROR,
}


class ClientStatus:
    """Answers ClientStatusRequests."""

    def __init__(self, streams: Streams) -> None:
        """Tell about the streams of `streams`."""
        self._streams = streams

    def answer(self, data: bytes, may_see: Callable[[Proxy], bool]) -> bytes:
        """
        Return the encoded ClientStatusResponse to an encoded request, of proxies one may see.

        Raises: InvalidRequest: The request cannot be read, or asks for what is not offered.
        """
        try:
            request = csds_pb2.ClientStatusRequest.FromString(data)
        except DecodeError as error:
            raise InvalidRequest("the message is not a client status request") from error
        response = csds_pb2.ClientStatusResponse()
        for status in self._streams.status():
            if not may_see(status.stream.proxy) or not _is_asked_for(request, status):
                continue
            config = response.config.add()
            config.node.id = status.stream.proxy.id
            shows = not request.exclude_resource_contents
            resources = self._streams.resources_like(status.stream)
            for followed in status.types:
                config.generic_xds_configs.extend(
                    _configs(followed, resources.get(followed.type_url, ()), shows=shows)
                )
        return response.SerializeToString()


def _is_asked_for(request: csds_pb2.ClientStatusRequest, status: StreamStatus) -> bool:
    matchers = request.node_matchers
    return not matchers or any(_matches(matcher, status) for matcher in matchers)


def _matches(matcher: NodeMatcher, status: StreamStatus) -> bool:
    if matcher.node_metadatas:
        raise InvalidRequest("node matchers on metadata are not offered; match node_id")
    return not matcher.HasField("node_id") or _text_matches(matcher.node_id, status.stream.proxy.id)


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
