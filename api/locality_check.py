"""
Rules for locality load balancing, in a DestinationRule and in the mesh config (DR-16 to DR-19).

Localities are written ``region``, ``region/zone`` or ``region/zone/subzone``; a last part ``*``
stands for any.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from pilothouse.api.destination_rule import (
    LocalityFailover,
    LocalityLbSetting,
    ZoneAwareLbSetting,
)
from pilothouse.api.problem import Problem, one_of, warning

_ALL_OF_IT: Final = 100
_WHERE: Final = (
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
)
_ANY: Final = "*"


def check_locality(
    setting: LocalityLbSetting, path: str, *, has_ejection: bool
) -> Iterator[Problem]:
    """Yield problems of locality settings; `has_ejection` tells if outlierDetection is beside."""
    yield from one_of(setting, path, "distribute", "failover")
    if setting.distribute and setting.failover_priority:
        message = "failoverPriority has no effect beside distribute."
        yield warning(f"{path}.failoverPriority", message, "Remove one of them.")
    if setting.failover and any(label in _WHERE for label in setting.failover_priority):
        message = "failover says which region comes next, so failoverPriority may not name one."
        yield Problem(f"{path}.failoverPriority", message, "Remove the labels of region and zone.")
    for index, share in enumerate(setting.distribute):
        at = f"{path}.distribute[{index}]"
        if any(not 0 < weight <= _ALL_OF_IT for weight in share.to.values()):
            yield Problem(f"{at}.to", "Each share must be between 1 and 100.")
        elif sum(share.to.values()) != _ALL_OF_IT:
            yield Problem(f"{at}.to", f"The shares add up to {sum(share.to.values())}, not 100.")
        yield from _check_names(sorted(share.to, key=lambda name: _ANY in name), f"{at}.to")
    yield from _check_names([share.from_ for share in setting.distribute], f"{path}.distribute")
    has_failover = bool(setting.failover or setting.failover_priority)
    yield from _check_failover(setting.failover, path, is_idle=has_failover and not has_ejection)


def check_zone_aware(
    setting: ZoneAwareLbSetting, path: str, *, has_ejection: bool
) -> Iterator[Problem]:
    """Yield problems of zone-aware settings."""
    if setting.enabled is not False:
        yield warning(
            path,
            "Regions are ranked, but zones are not balanced: for that Envoy must know the cluster "
            "it is part of, which this version does not serve.",
            "Use localityLbSetting to keep traffic within zones.",
            "FieldNotTranslated",
        )
    for index, label in enumerate(setting.failover_priority):
        if label in _WHERE:
            message = f"{label} is taken care of by zone-aware routing itself."
            yield Problem(f"{path}.failoverPriority[{index}]", message, "Remove it.")
    has_failover = bool(setting.failover or setting.failover_priority)
    yield from _check_failover(setting.failover, path, is_idle=has_failover and not has_ejection)


def _check_failover(
    pairs: Iterable[LocalityFailover], path: str, *, is_idle: bool
) -> Iterator[Problem]:
    if is_idle:
        message = "Endpoints fail over only where outlierDetection tells which of them are bad."
        yield warning(path, message, "Add outlierDetection to the policy.")
    for index, pair in enumerate(pairs):
        at = f"{path}.failover[{index}]"
        if pair.from_ == pair.to:
            yield Problem(at, f'The region "{pair.to}" cannot fail over to itself.')
        if "/" in pair.from_ + pair.to:
            yield Problem(at, "Failover is between regions; zones and subzones need no setting.")
        if _ANY in pair.from_ + pair.to:
            yield Problem(at, "A region of failover cannot be a wildcard.")


def _check_names(localities: Iterable[str], path: str) -> Iterator[Problem]:
    seen: list[tuple[str, ...]] = []
    for locality in localities:
        parts = tuple(locality.split("/", 2))
        if _ANY in locality and (locality.count(_ANY) > 1 or not locality.endswith(_ANY)):
            yield Problem(path, f'"{locality}" has a wildcard that is not its only and last part.')
        elif "" in parts:
            yield Problem(path, f'"{locality}" has an empty part.')
        elif any(_overlap(parts, other) for other in seen):
            yield Problem(path, f'"{locality}" overlaps with one before it.')
        seen.append(parts)


def _overlap(later: tuple[str, ...], earlier: tuple[str, ...]) -> bool:
    # A wildcard may follow what it would cover: the first that matches is used.
    for new, old in zip(later, earlier, strict=False):
        if new != old:
            return old == _ANY
    return True
