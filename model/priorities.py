"""
Endpoints in groups: by locality, with weights and priorities as one client should see them.

Pure arithmetic over endpoints and a `LocalityPlan` (traffic.md 3.10, 3.12, DR-16 to DR-19). Where
a client runs is a map of labels with the names of `pilothouse.model.topology_labels`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from pilothouse.model.endpoint import Endpoint
from pilothouse.model.locality import LocalityPlan, Share, Tiers
from pilothouse.model.proxies import Locality
from pilothouse.model.topology_labels import (
    NETWORK_LABEL,
    REGION_LABEL,
    SUBZONE_LABEL,
    ZONE_LABEL,
)

_MOST: Final = 2**32 - 1
"""Envoy refuses a priority, and a locality, whose weights add up to more."""

LAST_PRIORITY: Final = 128
"""Envoy refuses any beyond."""


class Group(NamedTuple):
    """Endpoints of one locality at one priority; 0 is used first. Weight is at least 1."""

    locality: Locality
    priority: int
    weight: int
    members: tuple[Endpoint, ...]


def grouped(
    chosen: Iterable[Endpoint], plan: LocalityPlan, client: Mapping[str, str]
) -> tuple[Group, ...]:
    """
    Group endpoints by locality and apply the plan; priorities are 0, 1, 2 without a gap.

    Weights add up to no more than Envoy takes, and priorities beyond its last are its last.
    """
    return _bounded(_planned(chosen, plan, client))


def _planned(
    chosen: Iterable[Endpoint], plan: LocalityPlan, client: Mapping[str, str]
) -> tuple[Group, ...]:
    by_locality: dict[Locality, list[Endpoint]] = {}
    for endpoint in chosen:
        by_locality.setdefault(endpoint.locality, []).append(endpoint)
    groups = tuple(
        _group(locality, 0, by_locality[locality]) for locality in sorted(by_locality, key=str)
    )
    where = Locality(
        region=client.get(REGION_LABEL, ""),
        zone=client.get(ZONE_LABEL, ""),
        subzone=client.get(SUBZONE_LABEL, ""),
    )
    if plan.distribute:
        return _distributed(groups, plan.distribute, where)
    if plan.priority_labels:
        groups = _by_labels(groups, plan.priority_labels, client)
    if not where.region:
        return groups  # nothing is near to a client that is nowhere
    if plan.tiers is Tiers.LOCALITY:
        groups = _in_tiers(groups, lambda there: _locality_tier(where, there, plan.failover))
    elif plan.tiers is Tiers.REGION:
        groups = _in_tiers(groups, lambda there: _region_tier(where, there, plan.failover))
    return groups


def _group(locality: Locality, priority: int, members: Iterable[Endpoint]) -> Group:
    kept = tuple(members)
    return Group(locality, priority, min(sum(each.weight for each in kept), _MOST), kept)


def _bounded(groups: tuple[Group, ...]) -> tuple[Group, ...]:
    # Rare enough that nothing is built anew unless a sum is out of bounds.
    sums: dict[int, int] = {}
    for group in groups:
        sums[group.priority] = sums.get(group.priority, 0) + group.weight
    total = max(sums.values(), default=0)
    if total > _MOST:
        groups = tuple(group._replace(weight=_share(group.weight, total)) for group in groups)
    return tuple(map(_with_bounded_members, groups))


def _with_bounded_members(group: Group) -> Group:
    total = sum(each.weight for each in group.members)
    if group.priority > LAST_PRIORITY:
        group = group._replace(priority=LAST_PRIORITY)
    if total <= _MOST:
        return group
    lighter = (replace(each, weight=_share(each.weight, total)) for each in group.members)
    return group._replace(members=tuple(lighter))


def _share(weight: int, total: int) -> int:
    return max(1, weight // (total // _MOST + 1))


def matches(locality: Locality, wanted: str) -> bool:
    """Tell whether a locality is within ``region/zone/subzone``; * or nothing stands for any."""
    region, zone, subzone = (*wanted.split("/", 2), "", "")[:3]
    return (
        region in ("*", locality.region)
        and zone in ("*", "", locality.zone)
        and subzone in ("*", "", locality.subzone)
    )


def _distributed(
    groups: tuple[Group, ...], shares: tuple[Share, ...], where: Locality
) -> tuple[Group, ...]:
    share = next((each for each in shares if matches(where, each.source)), None)
    if share is None:
        return groups
    weights: dict[Locality, int] = {}
    # The exact names take their localities before the wildcards do.
    for wanted, percent in sorted(share.weights, key=lambda pair: ("*" in pair[0], pair[0])):
        found = [g for g in groups if g.locality not in weights and matches(g.locality, wanted)]
        total = sum(group.weight for group in found)
        for group in found:
            weights[group.locality] = -(-group.weight * percent // total)  # rounded up
    return tuple(
        group._replace(weight=weights[group.locality])
        for group in groups
        if group.locality in weights
    )


def _by_labels(
    groups: tuple[Group, ...], labels: tuple[str, ...], client: Mapping[str, str]
) -> tuple[Group, ...]:
    wanted = []
    for text in labels:
        name, given, value = text.partition("=")
        wanted.append((name, value if given else client.get(name, "")))
    ignores_network = labels[0] == NETWORK_LABEL
    found: list[Group] = []
    for group in groups:
        ranks: dict[int, list[Endpoint]] = {}
        for endpoint in group.members:
            rank = _label_rank(endpoint, wanted, ignores_network=ignores_network)
            ranks.setdefault(rank, []).append(endpoint)
        found.extend(_group(group.locality, rank, ranks[rank]) for rank in sorted(ranks))
    return _compacted(found)


def _label_rank(endpoint: Endpoint, wanted: list[tuple[str, str]], *, ignores_network: bool) -> int:
    # A network in front only shifts: within another network the other labels still rank.
    behind = 0
    for position, (name, value) in enumerate(wanted):
        if endpoint.label(name) == value:
            continue
        if position == 0 and ignores_network:
            behind = len(wanted)
            continue
        return behind + len(wanted) - position
    return behind


def _in_tiers(groups: tuple[Group, ...], tier: Callable[[Locality], int]) -> tuple[Group, ...]:
    return _compacted(
        group._replace(priority=group.priority * _TIERS + tier(group.locality)) for group in groups
    )


_TIERS: Final = 5
"""More than any tier, so that tiers order what labels rank alike."""


def _locality_tier(here: Locality, there: Locality, failover: tuple[tuple[str, str], ...]) -> int:
    if here.region == there.region:
        if here.zone != there.zone:
            return 2
        return 0 if here.subzone == there.subzone else 1
    target = next((to for source, to in failover if source == here.region), there.region)
    return 3 if there.region == target else 4


def _region_tier(here: Locality, there: Locality, failover: tuple[tuple[str, str], ...]) -> int:
    if here.region == there.region:
        return 0
    target = next((to for source, to in failover if source == here.region), None)
    return 1 if there.region == target else 2


def _compacted(groups: Iterable[Group]) -> tuple[Group, ...]:
    kept = tuple(groups)
    ranks = {rank: at for at, rank in enumerate(sorted({group.priority for group in kept}))}
    return tuple(group._replace(priority=ranks[group.priority]) for group in kept)
