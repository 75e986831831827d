"""
One service out of several clusters' Services of the same name (K8-20).

A namespace is the same in all clusters, so a name in it is one host. Plain functions of values; the
order in which clusters are given has no effect.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pilothouse.graph.findings import Finding, Severity
from pilothouse.model.clusters import KnownClusters
from pilothouse.model.service import Placement, Port, Service


def in_order(parts: Iterable[Service]) -> tuple[Service, ...]:
    """Return the parts, the one whose words count first: our own cluster's, else the oldest."""
    return tuple(sorted(parts, key=_rank))


def _rank(part: Service) -> tuple[bool, tuple[str, str, str], str]:
    cluster = part.clusters[0]
    return (bool(cluster), part.age_order, cluster)


def merged(ordered: tuple[Service, ...]) -> Service:
    """
    Return what clients see of parts in order, one at least: the first, with the addresses of all.

    Where the service runs is asked of each cluster by itself (aggregate:mergeService).
    """
    if len(ordered) == 1:
        return ordered[0]
    placements = tuple(Placement(each.clusters[0], each.vips) for each in ordered)
    return replace(ordered[0], placements=placements)


def disagreements(ordered: tuple[Service, ...], clusters: KnownClusters) -> Iterator[Finding]:
    """Yield a finding for each part whose ports or type are other than those that count."""
    for part in ordered[1:]:
        first = ordered[0]
        if _nature(part) != _nature(first):
            what, path = "type", "spec.type"
        elif {_of_port(each) for each in part.ports} != {_of_port(each) for each in first.ports}:
            what, path = "ports", "spec.ports"
        else:
            continue
        names = [clusters.name_of(each.clusters[0]) for each in (part, first)]
        yield Finding(
            Severity.WARNING,
            "ClustersDisagree",
            part.source.at(path).ref,
            f"{part.host} has other {what} in cluster {names[0]} than in cluster {names[1]}, whose"
            " words count for all clients.",
            "Make the Services alike, or give one another name.",
        )


def _nature(part: Service) -> tuple[object, ...]:
    return (part.resolution, part.is_headless, part.alias_of)


def _of_port(port: Port) -> tuple[object, ...]:
    return (port.number, port.name, port.protocol)
