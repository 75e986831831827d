"""
What a cluster says of localities (traffic.md 3.10, DR-16 to DR-19).

Which endpoint comes first is said by the endpoints' groups, not here.
"""

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse.model.locality import LocalityPlan


def apply_locality(cluster: cluster_pb2.Cluster, plan: LocalityPlan) -> None:
    """Let Envoy weigh localities, or route by zone itself; by default it does neither."""
    if cluster.lb_policy == cluster_pb2.Cluster.CLUSTER_PROVIDED:
        return
    common = cluster.common_lb_config
    if plan.zone_routing is not None:
        zones = common.zone_aware_lb_config
        zones.SetInParent()
        if not plan.zone_routing.is_enabled:
            zones.routing_enabled.SetInParent()  # 0 %: Envoy would do it unasked
        if plan.zone_routing.min_cluster_size is not None:
            zones.min_cluster_size.value = plan.zone_routing.min_cluster_size
    elif plan.is_weighted:
        common.locality_weighted_lb_config.SetInParent()
