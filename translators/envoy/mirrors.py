"""Request mirroring (traffic.md VS-38, VS-39)."""

from collections.abc import Iterator

from pilothouse._pb.envoy.config.route.v3 import route_components_pb2
from pilothouse._pb.envoy.type.v3 import percent_pb2
from pilothouse.api.virtual_service import HttpRoute, Percent
from pilothouse.graph.findings import ConfigRef
from pilothouse.translators.envoy.percentages import fraction, whole
from pilothouse.translators.envoy.route_context import Resolve, RouteTarget

MirrorPolicy = route_components_pb2.RouteAction.RequestMirrorPolicy


def mirror_policies(rule: HttpRoute, ref: ConfigRef, target: Resolve) -> Iterator[MirrorPolicy]:
    """Yield the mirrors of a rule at `ref`; no percentage means all requests, 0 no mirror."""
    if rule.mirror is not None:
        share = _share(rule.mirror_percentage, rule.mirror_percent)
        if share.numerator:
            yield _policy(target(rule.mirror, ref.within("mirror")), share)
    for index, mirror in enumerate(rule.mirrors):
        share = _share(mirror.percentage, None)
        if share.numerator:
            place = ref.within(f"mirrors[{index}].destination")
            yield _policy(target(mirror.destination, place), share)


def _share(percentage: Percent | None, percent: int | None) -> percent_pb2.FractionalPercent:
    if percentage is not None:
        return fraction(percentage)
    return whole(100 if percent is None else percent)


def _policy(target: RouteTarget, share: percent_pb2.FractionalPercent) -> MirrorPolicy:
    policy = MirrorPolicy(cluster=target.cluster, disable_shadow_host_suffix_append=True)
    policy.runtime_fraction.default_value.CopyFrom(share)
    policy.trace_sampled.value = False
    return policy
