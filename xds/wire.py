"""
Discovery messages as bytes.

Requests are parsed through protobuf; responses are joined from the pieces each resource was framed
into when it was made, so a response costs a copy of its bytes and no encoding. Messages of one
class differ in their nonce only, yet their bodies are not kept: finding one again costs as much as
joining it (docs/adr/0008-nonces.md).
"""

from hashlib import blake2b
from itertools import chain

from google.protobuf.message import DecodeError

from pilothouse._pb.envoy.config.core.v3.base_pb2 import Node
from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DiscoveryRequest,
)
from pilothouse.model.resource import Resource, field
from pilothouse.xds.requests import DeltaRequest, InvalidRequest, Request, SotwRequest, Variant
from pilothouse.xds.session import Outgoing


def parse(variant: Variant, data: bytes) -> tuple[Request, Node | None]:
    """
    Read a request, and the node if it carries one.

    Raises: InvalidRequest: The bytes are no such message.
    """
    try:
        return _parse_delta(data) if variant is Variant.DELTA else _parse_sotw(data)
    except DecodeError as error:
        raise InvalidRequest("the message is not a discovery request") from error


def _parse_sotw(data: bytes) -> tuple[SotwRequest, Node | None]:
    message = DiscoveryRequest.FromString(data)
    request = SotwRequest(
        type_url=message.type_url,
        names=tuple(message.resource_names),
        nonce=message.response_nonce,
        version=message.version_info,
        error=message.error_detail.message if message.HasField("error_detail") else None,
    )
    return request, message.node if message.HasField("node") else None


def _parse_delta(data: bytes) -> tuple[DeltaRequest, Node | None]:
    message = DeltaDiscoveryRequest.FromString(data)
    request = DeltaRequest(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        nonce=message.response_nonce,
        error=message.error_detail.message if message.HasField("error_detail") else None,
        initial_versions=dict(message.initial_resource_versions),
    )
    return request, message.node if message.HasField("node") else None


def version_of(message: Outgoing) -> str:
    """Return the version of a message: the hash of the versions in it."""
    if len(message.resources) == 1 and not message.removed:
        return message.resources[0].version
    versions = "".join([resource.version for resource in message.resources])
    removed = "\n".join(message.removed)
    return blake2b(f"{versions}\n{removed}".encode(), digest_size=8).hexdigest()


def frame(variant: Variant, message: Outgoing) -> bytes:
    """Join the bytes of a DiscoveryResponse or DeltaDiscoveryResponse."""
    head = field(1, version_of(message).encode())
    tail = field(4, message.type_url.encode()) + field(5, message.nonce.encode())
    if variant is Variant.DELTA:
        removed = b"".join([field(6, name.encode()) for name in message.removed])
        pieces = chain.from_iterable([_delta_pieces(resource) for resource in message.resources])
        return b"".join((head, *pieces, removed, tail))
    pieces = chain.from_iterable([_sotw_pieces(resource) for resource in message.resources])
    return b"".join((head, *pieces, tail))


def _delta_pieces(resource: Resource) -> tuple[bytes, bytes]:
    return resource.delta_head, resource.any_bytes


def _sotw_pieces(resource: Resource) -> tuple[bytes, bytes]:
    return resource.sotw_head, resource.any_bytes
