"""
The mesh as the clients see it that its config implies: what `pilothouse validate` adds to objects.

Many findings need a client: a host it cannot see, a subset without endpoints, two listeners in one
place. A server has them when a proxy of that view connects; here each pod, each WorkloadEntry,
each WorkloadGroup and each Sidecar stands for a proxy, and those that would be served the same are
looked at once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from pilothouse.api.kubernetes_core import Pod
from pilothouse.api.meta import selects
from pilothouse.api.names import is_address
from pilothouse.api.sidecar import Sidecar
from pilothouse.api.workload import WorkloadEntry, WorkloadGroup
from pilothouse.graph.core import Graph
from pilothouse.graph.findings import Finding
from pilothouse.model.classes import ProxyClass
from pilothouse.model.inputs import DOMAIN, TABLES, THE_MESH, TLS_POLICY, MeshDomain
from pilothouse.model.pod_endpoints import is_finished
from pilothouse.model.proxies import CertificateSource, NodeType, Proxy, Registration
from pilothouse.model.registration import GROUP_ANNOTATION, Claim, entry_from, with_health
from pilothouse.model.tls_policy import TlsPolicy
from pilothouse.providers.directory_state import Change
from pilothouse.runtime.snapshot import served_to
from pilothouse.translators.envoy import roots

NOWHERE: Final = "192.0.2.1"
"""The address of a proxy that only a Sidecar speaks of (RFC 5737: nobody's)."""
REGISTERED: Final = "198.51.100.1"
"""The address of a workload that will register itself in a group (RFC 5737 too)."""


def view_findings(
    changes: Iterable[Change], domain: str, tls: TlsPolicy | None = None
) -> tuple[int, tuple[Finding, ...]]:
    """Return how many views the config implies, and what is found looking at the mesh by them."""
    every: dict[tuple[str, Any], Any] = {(each.kind, each.key): each.row for each in changes}
    every.update(_registered(list(every.values())))
    rows = {(kind, key): row for (kind, key), row in every.items() if kind in TABLES}
    graph = Graph()
    graph.commit(
        [
            (DOMAIN, THE_MESH, MeshDomain(domain)),
            (TLS_POLICY, THE_MESH, tls),
            *((TABLES[kind], key, row) for (kind, key), row in rows.items()),
        ]
    )
    proxies = implied_proxies([row for row in rows.values() if row is not None], domain)
    classes: dict[ProxyClass, None] = {}
    for proxy in proxies:
        classes[graph.value(roots.proxy_class, proxy)] = None
    for each in classes:
        served_to(graph, each)
    return len(classes), tuple(graph.findings())


def implied_proxies(rows: Iterable[object], domain: str) -> Iterator[Proxy]:
    """
    Yield a proxy for each workload with an address, and for each Sidecar that none of them uses.

    They are taken to have an agent, as an injected sidecar has.
    """
    kept = list(rows)
    sidecars = [row for row in kept if isinstance(row, Sidecar)]
    used: set[object] = set()
    for row in kept:
        proxy = _of_workload(row, domain)
        if proxy is None:
            continue
        yield proxy
        labels = dict(proxy.labels)
        used.update(
            each.meta.key
            for each in sidecars
            if each.meta.namespace == proxy.namespace and selects(_selector(each), labels)
        )
    for each in sidecars:
        if each.meta.key not in used:
            yield _proxy(each.meta.name, each.meta.namespace, (NOWHERE,), _selector(each), domain)


def _registered(rows: Iterable[object]) -> Iterator[tuple[tuple[str, Any], WorkloadEntry]]:
    """Yield an entry for each WorkloadGroup, as of a healthy workload that says nothing more."""
    for group in rows:
        if isinstance(group, WorkloadGroup):
            claim = Claim(
                proxy="",
                namespace=group.meta.namespace,
                group=group.meta.name,
                address=REGISTERED,
                account=group.spec.template.service_account,
            )
            entry = with_health(entry_from(group, claim), is_healthy=True)
            yield (entry.meta.kind, entry.meta.key), entry


def _selector(sidecar: Sidecar) -> dict[str, str]:
    chosen = sidecar.spec.workload_selector
    return chosen.labels if chosen else {}


def _of_workload(row: object, domain: str) -> Proxy | None:
    if isinstance(row, Pod):
        ips = tuple(dict.fromkeys((row.status.pod_ip, *(ip.ip for ip in row.status.pod_ips))))
        ips = tuple(ip for ip in ips if ip)
        if not ips or is_finished(row):
            return None
        labels, cluster = row.meta.labels, row.meta.cluster
        return _proxy(row.meta.name, row.meta.namespace, ips, labels, domain, cluster)
    if isinstance(row, WorkloadEntry) and is_address(row.spec.address):
        meta = row.meta
        ips, labels = (row.spec.address,), row.all_labels
        made = _proxy(meta.name, meta.namespace, ips, labels, domain, meta.cluster)
        group = meta.annotations.get(GROUP_ANNOTATION)
        if group is not None:
            asked = Registration(group=group, address=row.spec.address)
            made = replace(made, registration=asked)
        return made
    return None


def _proxy(
    name: str,
    namespace: str,
    ips: tuple[str, ...],
    labels: dict[str, str],
    domain: str,
    cluster: str = "",
) -> Proxy:
    own_domain = f"{namespace}.svc.{domain}"
    return Proxy(
        id=f"{NodeType.SIDECAR}~{ips[0]}~{name}.{namespace}~{own_domain}",
        type=NodeType.SIDECAR,
        ips=ips,
        name=name,
        namespace=namespace,
        domain=own_domain,
        labels=tuple(sorted(labels.items())),
        cluster_id=cluster,
        certificates=CertificateSource.AGENT,
    )
