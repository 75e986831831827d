"""
Outbound route configurations (RDS): which virtual hosts a listener's requests are matched against.

Each virtual host is encoded on its own (`pilothouse.translators.envoy.virtual_hosts`) and spliced
in as bytes, shard by shard, so a changed VirtualService encodes one virtual host and splices the
few beside it.
"""

from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from pilothouse._pb.envoy.config.route.v3 import route_components_pb2, route_pb2
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef
from pilothouse.model.delegation import writers
from pilothouse.model.egress import looks_up_unknown, unknown_destination
from pilothouse.model.names import (
    ALLOW_ANY_VIRTUAL_HOST,
    ANY_DOMAIN,
    BLACK_HOLE_CLUSTER,
    BLOCK_ALL_VIRTUAL_HOST,
    RouteName,
)
from pilothouse.model.proxy_settings import RouteHeaders
from pilothouse.model.resource import RDS, Resource, content_version, field
from pilothouse.model.scopes import Scope, clients_name_ports
from pilothouse.model.sharding import Place, Sharded
from pilothouse.translators.envoy.encoding import encode
from pilothouse.translators.envoy.route_actions import disable_timeout
from pilothouse.translators.envoy.unknown_hosts import unknown_hosts_route
from pilothouse.translators.envoy.virtual_host_plan import (
    RouteQuestion,
    virtual_host_plan,
)
from pilothouse.translators.envoy.virtual_hosts import (
    VirtualHostKey,
    scoped_virtual_host,
    virtual_host,
)

BLOCKED_STATUS = 502
MAX_DIRECT_RESPONSE_BYTES = 1024 * 1024


@query
def route_configuration(ctx: Ctx, asked: RouteQuestion) -> Resource | None:
    """Splice a route configuration; None if nothing in the scope has that name."""
    if ctx.get(virtual_host_plan, asked) is None:
        return None
    scope, name = asked.view.scope, RouteName.parse(asked.name)
    names_ports = name.is_http_proxy or clients_name_ports(ctx, scope, name.port, name.pipe)
    shards = ctx.get(plan_shards, asked)
    spliced = [ctx.get(encoded_hosts, PlanShardKey(asked, place)) for place in shards]
    ends = [_header(asked.name, not names_ports)]
    if not any(each.takes_all for each in spliced):
        ends.append(field(2, _catch_all(ctx, scope, asked.view.headers)))
    parts = (ends[0], *chain.from_iterable(each.parts for each in spliced), *ends[1:])
    # The shards' versions stand for what is in them, which is large.
    version = content_version(b"".join((*ends, *(each.version for each in spliced))))
    refs = dict.fromkeys(ref for each in spliced for ref in each.sources)
    return Resource(RDS, asked.name, parts, tuple(refs), version=version)


class PlanShardKey(NamedTuple):
    """Some of the virtual hosts of a route configuration."""

    asked: RouteQuestion
    place: Place


class EncodedHosts(NamedTuple):
    """Virtual hosts in bytes, their version and writers; `takes_all` tells one of any domain."""

    parts: tuple[bytes, ...]
    version: bytes
    sources: tuple[ConfigRef, ...]
    takes_all: bool


@query
def plan_shards(ctx: Ctx, asked: RouteQuestion) -> Sharded[VirtualHostKey]:
    """Return the plan of a route configuration in shards by host; none without a plan."""
    keys = ctx.get(virtual_host_plan, asked)
    return Sharded(keys or (), lambda key: key.name.host)


@query
def encoded_hosts(ctx: Ctx, key: PlanShardKey) -> EncodedHosts:
    """Encode a shard of virtual hosts, so that a changed one leaves other shards alone."""
    keys = ctx.item(plan_shards, key.asked, key.place) or ()
    found = (
        ctx.get_or_none(scoped_virtual_host if each.scope else virtual_host, each) for each in keys
    )
    parts = tuple(part for part in found if part is not None)
    services = dict.fromkeys(service for each in keys for service in each.virtual_services)
    refs = dict.fromkeys(ref for each in services for ref in ctx.get(writers, each))
    return EncodedHosts(
        parts,
        content_version(b"".join(parts)).encode(),
        tuple(refs),
        any(ANY_DOMAIN in each.domains for each in keys),
    )


@lru_cache(maxsize=1024)
def _header(name: str, ignores_port: bool) -> bytes:  # noqa: FBT001
    header = route_pb2.RouteConfiguration(name=name, ignore_port_in_host_matching=ignores_port)
    header.validate_clusters.SetInParent()
    header.max_direct_response_body_size_bytes.value = MAX_DIRECT_RESPONSE_BYTES
    return encode(header)


def _catch_all(ctx: Ctx, scope: Scope, headers: RouteHeaders) -> bytes:
    if ctx.get(looks_up_unknown, scope):
        return encode(unknown_hosts_route(headers))
    return _fixed_catch_all(ctx.get(unknown_destination, scope), headers)


@lru_cache(maxsize=64)
def _fixed_catch_all(unknown: str, headers: RouteHeaders) -> bytes:
    is_open = unknown != BLACK_HOLE_CLUSTER
    name = ALLOW_ANY_VIRTUAL_HOST if is_open else BLOCK_ALL_VIRTUAL_HOST
    host = route_components_pb2.VirtualHost(
        name=name, domains=[ANY_DOMAIN], include_request_attempt_count=headers.counts_attempts
    )
    route = host.routes.add(name=name)
    route.match.prefix = "/"
    if is_open:
        route.route.cluster = unknown
        route.route.append_x_forwarded_host = headers.forwards_host
        disable_timeout(route.route)
    else:
        route.direct_response.status = BLOCKED_STATUS
    return encode(host)
