"""
Locality load balancing: which setting holds for a cluster, and what it asks for (traffic.md 3.10).

A `LocalityPlan` is what is left of DestinationRule, service and mesh config once precedence is
settled. Plain values; `pilothouse.model.priorities` applies a plan to endpoints.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from pilothouse.api.destination_rule import LocalityLbSetting, ZoneAwareLbSetting
from pilothouse.model.distribution import Distribution
from pilothouse.model.policies import Policy
from pilothouse.model.topology_labels import REGION_LABEL, WHERE_LABELS


class Share(NamedTuple):
    """Traffic from localities that match `source` goes to others by `weights`, in percent."""

    source: str
    weights: tuple[tuple[str, int], ...]


class Tiers(Enum):
    """What makes priorities, beside labels."""

    NONE = "none"
    LOCALITY = "locality"
    """Same subzone, same zone, same region, elsewhere (DR-17)."""
    REGION = "region"
    """Same region, elsewhere: zones are left to the proxy's zone-aware routing (DR-19)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneRouting:
    """Envoy's own zone-aware routing, or (not enabled) that it must not be used."""

    is_enabled: bool = True
    min_cluster_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalityPlan:
    """
    What a cluster's endpoints are weighted and ranked by, as seen from one client.

    `priority_labels` are names or ``name=value``, the weightiest first. `failover` pairs a region
    with the one its traffic goes to first. `is_weighted` says that Envoy balances by the weights of
    localities rather than by endpoints alone.
    """

    distribute: tuple[Share, ...] = ()
    priority_labels: tuple[str, ...] = ()
    tiers: Tiers = Tiers.NONE
    failover: tuple[tuple[str, str], ...] = ()
    is_weighted: bool = False
    zone_routing: ZoneRouting | None = None

    @property
    def reads(self) -> frozenset[str]:
        """The labels of a client that the plan compares."""
        names = {text for text in self.priority_labels if "=" not in text}
        if self.distribute or self.tiers is Tiers.LOCALITY:
            names.update(WHERE_LABELS)
        elif self.tiers is Tiers.REGION:
            names.add(REGION_LABEL)
        return frozenset(names)


NO_PLAN: Final = LocalityPlan()


class MeshLocality(NamedTuple):
    """What the mesh config says of locality; None in both stands for nothing at all."""

    locality: LocalityLbSetting | None
    zone_aware: ZoneAwareLbSetting | None


def locality_plan(policy: Policy, distribution: Distribution, mesh: MeshLocality) -> LocalityPlan:
    """
    Return the plan of a cluster (DR-15 to DR-19, K8-07, MC-11).

    The rule's zone-aware setting wins, then its locality setting, the service's distribution, the
    mesh's zone-aware setting, the mesh's locality setting. Endpoints fail over only if ejection
    tells which are bad, but a distribution looks at readiness and needs none.
    """
    balancer = policy.load_balancer
    has_ejection = policy.outlier_detection is not None
    if balancer is not None and balancer.zone_aware_lb_setting is not None:
        return _zone_aware(balancer.zone_aware_lb_setting)
    if balancer is not None and balancer.locality_lb_setting is not None:
        return _by_locality(balancer.locality_lb_setting, has_ejection=has_ejection)
    if distribution is not Distribution.ANY:
        return LocalityPlan(priority_labels=distribution.labels, is_weighted=True)
    if mesh.zone_aware is not None:
        return _zone_aware(mesh.zone_aware)
    if mesh.locality is None:
        return NO_PLAN
    return _by_locality(mesh.locality, has_ejection=has_ejection)


def _by_locality(setting: LocalityLbSetting, *, has_ejection: bool) -> LocalityPlan:
    if setting.enabled is False:
        return NO_PLAN
    if setting.distribute:
        shares = tuple(Share(each.from_, tuple(each.to.items())) for each in setting.distribute)
        return LocalityPlan(distribute=shares, is_weighted=True)
    if not has_ejection:
        return NO_PLAN
    labels = setting.failover_priority
    failover = tuple((each.from_, each.to) for each in setting.failover)
    return LocalityPlan(
        priority_labels=labels,
        tiers=Tiers.NONE if labels and not failover else Tiers.LOCALITY,
        failover=failover,
        is_weighted=bool(labels or failover),
    )


def _zone_aware(setting: ZoneAwareLbSetting) -> LocalityPlan:
    routing = ZoneRouting(
        is_enabled=setting.enabled is not False, min_cluster_size=setting.min_cluster_size
    )
    if not routing.is_enabled:
        return LocalityPlan(zone_routing=routing)
    return LocalityPlan(
        priority_labels=setting.failover_priority,
        tiers=Tiers.REGION,
        failover=tuple((each.from_, each.to) for each in setting.failover),
        zone_routing=routing,
    )
