"""
What a proxy would be served, computed once from a directory, without a server.

The same store, graph and roots as the server's, so that the answer is the server's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from pilothouse.errors import QueryFailed
from pilothouse.graph.core import Graph
from pilothouse.graph.findings import Finding
from pilothouse.model.classes import ProxyClass
from pilothouse.model.inputs import DOMAIN, TABLES, THE_MESH, TLS_POLICY, MeshDomain
from pilothouse.model.proxies import Proxy
from pilothouse.model.registration import claim_of
from pilothouse.model.registration_book import RegistrationBook
from pilothouse.model.resource import CDS, EDS, LDS, RDS, Resource
from pilothouse.runtime.settings import Settings
from pilothouse.runtime.stores import stores_of
from pilothouse.translators.envoy import roots
from pilothouse.xds.offline import endpoint_names, route_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Resources by type URL, in the order they would be sent, and what was found on the way."""

    resources: Mapping[str, tuple[Resource, ...]]
    findings: tuple[Finding, ...]


def take_snapshot(proxy: Proxy, settings: Settings) -> Snapshot:
    """
    Read the config once and compute everything that one proxy of such a server would ask for.

    A proxy that asks for it is registered, and taken to prove the service account it names.

    Raises: SourceError: The directory cannot be read. RegistrationRefused.
    """
    store = stores_of(settings)
    book = RegistrationBook(grace_seconds=0.0)
    changes = book.take(store.scan())
    claim = claim_of(proxy)
    if claim is not None:
        changes += book.request(replace(claim, account=proxy.service_account), now=0.0)
    graph = Graph()
    graph.commit(
        [
            (DOMAIN, THE_MESH, MeshDomain(settings.domain)),
            (TLS_POLICY, THE_MESH, settings.tls_policy),
            *((TABLES[kind], key, row) for kind, key, row in changes if kind in TABLES),
        ]
    )
    resources = served_to(graph, graph.value(roots.proxy_class, proxy))
    return Snapshot(resources=resources, findings=(*store.findings(), *graph.findings()))


def served_to(graph: Graph, proxies: ProxyClass) -> Mapping[str, tuple[Resource, ...]]:
    """Return what proxies of a class are served, by type URL in the order they would be sent."""
    clusters = _whole(graph, roots.wildcard(CDS, proxies))
    listeners = _whole(graph, roots.wildcard(LDS, proxies))
    return {
        CDS: clusters,
        EDS: _named(graph, EDS, proxies, endpoint_names(clusters)),
        LDS: listeners,
        RDS: _named(graph, RDS, proxies, route_names(listeners)),
    }


def _whole(graph: Graph, root: roots.Root | None) -> tuple[Resource, ...]:
    return () if root is None else tuple(graph.value(root.query, root.key).values())


def _named(
    graph: Graph, type_url: str, proxies: ProxyClass, names: Iterable[str]
) -> tuple[Resource, ...]:
    found = []
    for name in names:
        root = roots.named(type_url, proxies, name)
        if root is None:
            continue
        try:
            resource = graph.value(root.query, root.key)
        except QueryFailed:
            continue  # the graph has a finding that says so
        if resource is not None:
            found.append(resource)
    return tuple(found)
