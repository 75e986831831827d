"""
Who a service's workloads are: the identities that its clients accept there (security.md S-PA-13).

The SPIFFE identities of the service accounts that run its endpoints, and the names its ServiceEntry
declares, under the mesh's trust domain and every alias of it.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from pilothouse.api.meta import ObjectKey
from pilothouse.graph.core import Ctx, query
from pilothouse.model.endpoint import account_path
from pilothouse.model.endpoints import EndpointsKey, endpoints
from pilothouse.model.entry_traits import entry_traits
from pilothouse.model.kubernetes_services import service_rows
from pilothouse.model.mesh import mesh_config
from pilothouse.model.services import ServiceKey, service

SPIFFE: Final = "spiffe://"
KUBERNETES_ACCOUNTS: Final = "alpha.istio.io/kubernetes-serviceaccounts"
"""Annotation of a Service: names of service accounts of its namespace, with commas."""

CANONICAL_ACCOUNTS: Final = "alpha.istio.io/canonical-serviceaccounts"
"""Annotation of a Service: whole names as certificates have them, with commas."""


@query
def trust_domains(ctx: Ctx, _key: None) -> tuple[str, ...]:
    """Return the mesh's trust domain, then its aliases (MC-08)."""
    mesh = ctx.get(mesh_config, None)
    return tuple(dict.fromkeys((mesh.trust_domain, *mesh.trust_domain_aliases)))


@query
def accepted_domains(ctx: Ctx, _key: None) -> tuple[str, ...]:
    """Return the trust domains whose workloads may call: the mesh's, and those it adds (S-PA-8)."""
    others = (each.trust_domains for each in ctx.get(mesh_config, None).ca_certificates)
    return tuple(dict.fromkeys((*ctx.get(trust_domains, None), *chain.from_iterable(others))))


@query
def service_identities(ctx: Ctx, key: ServiceKey) -> tuple[str, ...]:
    """Return the names that certificates of a service's endpoints may have, sorted."""
    owner = ctx.get(service, key)
    if owner is None:
        return ()
    domains = ctx.get(trust_domains, None)
    accounts = {
        endpoint.account
        for port in owner.ports
        for endpoint in ctx.get(endpoints, EndpointsKey(key, port.number))
        if endpoint.account
    }
    names = [f"{SPIFFE}{domains[0]}/{account}" for account in accounts]
    if owner.is_kubernetes:
        names.extend(_annotated(ctx, ObjectKey(owner.namespace, owner.key.name), domains[0]))
    else:
        names.extend(ctx.get(entry_traits, ObjectKey(owner.namespace, owner.key.name)).names)
    return in_every_domain(names, domains)


def _annotated(ctx: Ctx, key: ObjectKey, domain: str) -> Iterator[str]:
    """Yield what annotations of a Service add, in all its clusters: other accounts (K8-10)."""
    for row in service_rows(ctx, key):
        annotations = row.meta.annotations
        for name in _listed(annotations.get(KUBERNETES_ACCOUNTS, "")):
            yield f"{SPIFFE}{domain}/{account_path(key.namespace, name)}"
        yield from _listed(annotations.get(CANONICAL_ACCOUNTS, ""))


def _listed(text: str) -> Iterator[str]:
    return (part.strip() for part in text.split(",") if part.strip())


def in_every_domain(names: Iterable[str], domains: tuple[str, ...]) -> tuple[str, ...]:
    """Return names, those of one of the trust domains under each of them (S-TD-1); sorted."""
    found: set[str] = set()
    for name in names:
        domain, _, path = name.removeprefix(SPIFFE).partition("/")
        if name.startswith(SPIFFE) and path and domain in domains:
            found.update(f"{SPIFFE}{each}/{path}" for each in domains)
        else:
            found.add(name)
    return tuple(sorted(found))


@query
def all_take_mutual_tls(ctx: Ctx, key: EndpointsKey) -> bool:
    """Tell whether a port has endpoints and each takes mutual TLS (traffic.md 3.9)."""
    every = ctx.get(endpoints, key)
    return bool(every) and all(endpoint.takes_mutual_tls for endpoint in every)
