"""
Load assignments (EDS): the endpoints of a cluster, grouped by locality (traffic.md 3.12).

Endpoints are by far the most numerous thing on the wire, so they are encoded by hand, field by
field; a test compares the bytes with what protobuf makes of the same content.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse._pb.google.protobuf import struct_pb2
from pilothouse.api.paths import child, parent
from pilothouse.graph.core import Ctx, firewall, query
from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.classes import EndpointView
from pilothouse.model.endpoint_policy import Client, EndpointPolicy, endpoint_policy
from pilothouse.model.endpoints import Endpoint, EndpointsKey, Health, endpoints
from pilothouse.model.locality import NO_PLAN
from pilothouse.model.names import ClusterName
from pilothouse.model.networks import Reach, network_gateways, through_gateways
from pilothouse.model.policies import (
    ClusterRule,
    MergedRule,
    RuleKey,
    RuleQuestion,
    governing_rule,
    merged_rule,
)
from pilothouse.model.priorities import Group, grouped
from pilothouse.model.proxies import Locality
from pilothouse.model.resource import EDS, Resource, field, varint
from pilothouse.model.scopes import Scope, reached
from pilothouse.model.services import Resolution, Service, ServiceKey, service
from pilothouse.model.topology_labels import NODE_LABEL
from pilothouse.translators.envoy.encoding import encode
from pilothouse.translators.envoy.provenance import ISTIO

TRANSPORT_MATCH: Final = "envoy.transport_socket_match"
"""Metadata of an endpoint by which a cluster chooses among its transport sockets (N-70)."""

MUTUAL_TLS_ENDPOINT: Final = struct_pb2.Struct()
"""Such metadata of an endpoint that takes mutual TLS."""
MUTUAL_TLS_ENDPOINT.fields["tlsMode"].string_value = "istio"


class AssignmentView(NamedTuple):
    """What load assignments depend on of those who ask for them."""

    scope: Scope
    labels: tuple[tuple[str, str], ...]
    endpoints: EndpointView


OWN_CLUSTER: Final = "local_cluster"
"""The cluster of a bootstrap with self-discovery by which Envoy counts workloads in its zone."""


class AssignmentQuestion(NamedTuple):
    """The load assignment of a cluster as proxies of a view see it."""

    view: AssignmentView
    name: str


class AssignmentKey(NamedTuple):
    """
    A load assignment: which port of which service, and the labels a subset asks for.

    `client` is what the policy reads of the client, so that others share the assignment. `rule`
    declares the subset.
    """

    client: Client
    name: ClusterName
    service: ServiceKey
    labels: tuple[tuple[str, str], ...]
    policy: EndpointPolicy
    reach: Reach | None = None
    rule: RuleKey | None = None


@query
def load_assignment_for(ctx: Ctx, asked: AssignmentQuestion) -> Resource | None:
    """Return the load assignment of that name, None if the scope has no such cluster."""
    if asked.name == OWN_CLUSTER:
        own = asked.view.endpoints.own
        return ctx.get(own_assignment, own) if own else None
    try:
        name = ClusterName.parse(asked.name)
    except ValueError:
        return None
    view = asked.view
    # Not by `service_for_host`: that would be a second node for each of very many.
    owner = reached(ctx, view.scope, name.host)
    if owner is None or owner.port(name.port) is None or owner.host != name.host:
        return None
    if owner.resolution is not Resolution.ENDPOINTS:
        return None  # its cluster finds endpoints by itself, and some of it is not for EDS
    key = governing_rule(
        ctx, RuleQuestion(view.scope.namespace, view.labels, name.host, owner.namespace)
    )
    if key is None:
        found = _chosen(ctx, owner, name.port, name.subset, None)
    else:
        found = ctx.get(
            ruled_endpoints, RuledKey(owner.key, ClusterRule(key, name.port, name.subset))
        )
    if found is None:
        return None
    labels, policy = found
    client = policy.seen_by(view.endpoints.labels)
    reach = view.endpoints.reach
    rule = key if name.subset else None
    return ctx.get(
        load_assignment, AssignmentKey(client, name, owner.key, labels, policy, reach, rule)
    )


class Chosen(NamedTuple):
    """Labels a cluster's subset asks of endpoints, and the policy by which they are chosen."""

    labels: tuple[tuple[str, str], ...]
    policy: EndpointPolicy


class RuledKey(NamedTuple):
    """A cluster of a service, and the rule that governs it."""

    service: ServiceKey
    at: ClusterRule


@firewall(1)
def ruled_endpoints(ctx: Ctx, key: RuledKey) -> Chosen | None:
    """Return what a rule says of a cluster's endpoints: little of it, and the same for all."""
    owner = ctx.get(service, key.service)
    if owner is None:
        return None
    return _chosen(ctx, owner, key.at.port, key.at.subset, ctx.get(merged_rule, key.at.rule))


def _chosen(
    ctx: Ctx, owner: Service, port: int, subset: str, rule: MergedRule | None
) -> Chosen | None:
    labels = labels_of_subset(rule, subset)
    if labels is None:
        return None
    return Chosen(labels, endpoint_policy(ctx, owner, port, subset, rule))


@query
def own_assignment(ctx: Ctx, key: EndpointsKey) -> Resource | None:
    """Encode the workloads a client is one of, all of them, by where they run (N-12, DR-19)."""
    owner = ctx.get(service, key.service)
    if owner is None:
        return None
    every = [endpoint for endpoint in ctx.get(endpoints, key) if endpoint.address]
    groups = grouped(every, NO_PLAN, {})
    return Resource(EDS, OWN_CLUSTER, encode_assignment(OWN_CLUSTER, groups), (owner.source.ref,))


def labels_of_subset(rule: MergedRule | None, subset: str) -> tuple[tuple[str, str], ...] | None:
    """Return the labels a cluster's subset asks of endpoints; None if there is no such subset."""
    if not subset:
        return ()
    for each in rule.subsets if rule else ():
        if each.name == subset:
            return tuple(sorted(each.labels.items()))
    return None


@query
def load_assignment(ctx: Ctx, key: AssignmentKey) -> Resource | None:
    """Encode a load assignment; a service without endpoints gets an empty one, so it warms."""
    owner = ctx.get(service, key.service)
    if owner is None:
        return None
    every = ctx.get(endpoints, EndpointsKey(key.service, key.name.port))
    client = dict(key.client)
    meant = (each for each in key.policy.meant(every, client) if each.has_labels(key.labels))
    chosen: Iterable[Endpoint]
    if key.reach is None:
        chosen = (each for each in meant if each.address)
    else:
        gateways = ctx.get(network_gateways, None)
        crosses = key.policy.crosses_networks
        chosen = through_gateways(meant, gateways, key.reach, crosses=crosses)
    if key.labels and every and not any(each.has_labels(key.labels) for each in every):
        ctx.report(_empty_subset(ctx, owner, key))
    if key.policy.is_node_local and not client.get(NODE_LABEL):
        ctx.report(_unknown_node(owner))
    name = str(key.name)
    groups = grouped(chosen, key.policy.plan, client)
    return Resource(EDS, name, encode_assignment(name, groups), (owner.source.ref,))


def _unknown_node(owner: Service) -> Finding:
    return Finding(
        Severity.WARNING,
        "ClientNodeUnknown",
        owner.source.at("spec.internalTrafficPolicy").ref,
        f"Clients of {owner.host} are kept to their own node, and some client has not said on "
        "which it runs; it gets no endpoint on a node.",
        "Let the proxies send NODE_NAME, or add their Pods.",
    )


def _empty_subset(ctx: Ctx, owner: Service, key: AssignmentKey) -> Finding:
    rule = ctx.get(merged_rule, key.rule) if key.rule else None
    place = dict(rule.subset_sources).get(key.name.subset) if rule else None
    ref = place.ref.at(child(parent(place.ref.path), "labels")) if place else owner.source.ref
    labels = ", ".join(f"{name}={value}" for name, value in key.labels)
    return Finding(
        Severity.WARNING,
        "EmptySubset",
        ref,
        f"No endpoint of {owner.host} has the labels of subset {key.name.subset!r} ({labels}); "
        "requests to it get 503.",
        "Compare the subset's labels with those of the pods.",
    )


def encode_assignment(name: str, groups: Iterable[Group]) -> bytes:
    """Encode a ClusterLoadAssignment, group by group."""
    parts = [field(1, name.encode())]
    for group in groups:
        body = [_locality(group.locality)]
        body.extend(field(2, _lb_endpoint(endpoint)) for endpoint in group.members)
        body.append(_wrapped(3, group.weight))
        if group.priority:
            body.append(b"\x28" + varint(group.priority))
        parts.append(field(2, b"".join(body)))
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _locality(locality: Locality) -> bytes:
    parts = (locality.region, locality.zone, locality.subzone)
    return field(1, b"".join(field(n, part.encode()) for n, part in enumerate(parts, 1) if part))


def _lb_endpoint(endpoint: Endpoint) -> bytes:
    if endpoint.port == 0 and endpoint.address.startswith(("/", "@")):
        address = field(2, field(1, endpoint.address.encode()))
    else:
        address = _socket(endpoint.address, endpoint.port)
    place = field(1, address)
    if endpoint.more_addresses:  # tried in turn, both families at once (RFC 8305)
        more = (_socket(each, endpoint.port) for each in endpoint.more_addresses)
        place += b"".join(field(4, field(1, each)) for each in more)
    suffix = _suffix(endpoint.health, endpoint.workload, endpoint.weight, endpoint.takes_mutual_tls)
    return field(1, place) + suffix


def _socket(address: str, port: int) -> bytes:
    return field(1, field(2, address.encode()) + b"\x18" + varint(port))


@lru_cache(maxsize=65536)
def _suffix(health: Health, workload: str, weight: int, takes_mutual_tls: bool) -> bytes:  # noqa: FBT001
    # What follows the address is the same for most ports of a workload.
    message = base_pb2.Metadata()
    if workload:
        message.filter_metadata[ISTIO].fields["workload"].string_value = workload
    if takes_mutual_tls:
        message.filter_metadata[TRANSPORT_MATCH].MergeFrom(MUTUAL_TLS_ENDPOINT)
    described = field(3, encode(message)) if workload or takes_mutual_tls else b""
    return b"\x10" + varint(health.value) + described + _wrapped(4, weight)


def _wrapped(number: int, value: int) -> bytes:
    return field(number, b"\x08" + varint(value) if value else b"")
