"""Which locality setting holds, and what is read of clients: 3.10, DR-15 to DR-19, K8-07, MC-11."""

import msgspec
import pytest

from pilothouse.api.decode import decode
from pilothouse.api.destination_rule import (
    LoadBalancer,
    LocalityFailover,
    LocalityLbSetting,
    OutlierDetection,
    ZoneAwareLbSetting,
)
from pilothouse.api.meta import ObjectMeta
from pilothouse.model.client_reads import of_rule
from pilothouse.model.distribution import Distribution, annotated, is_known
from pilothouse.model.locality import NO_PLAN, MeshLocality, Tiers, locality_plan
from pilothouse.model.policies import Policy
from pilothouse.model.topology_labels import NODE_LABEL, WHERE_LABELS

MESH = MeshLocality(LocalityLbSetting(enabled=True), None)
EJECTS = OutlierDetection()
OFF = LocalityLbSetting(enabled=False)
FAILOVER = LocalityLbSetting(failover=(LocalityFailover(from_="eu", to="us"),))


def plan(locality=None, ejection=EJECTS, distribution=Distribution.ANY, mesh=MESH, zones=None):
    balancer = LoadBalancer(locality_lb_setting=locality, zone_aware_lb_setting=zones)
    policy = Policy(load_balancer=balancer, outlier_detection=ejection)
    return locality_plan(policy, distribution, mesh)


def test_without_ejection_nothing_fails_over():
    """DR-17, MC-11: the mesh's setting is on, and nothing is prioritised by default."""
    assert plan(ejection=None) == NO_PLAN
    assert plan(FAILOVER, ejection=None) == NO_PLAN
    assert plan().tiers is Tiers.LOCALITY
    assert not plan().is_weighted, "a default setting leaves balancing as it is"
    assert plan(FAILOVER).is_weighted


def test_precedence():
    """3.10: zone-aware, locality, distribution, the mesh's zone-aware, the mesh's locality."""
    near = Distribution.SAME_ZONE
    zones = ZoneAwareLbSetting()
    assert plan(OFF, zones=zones, distribution=near).tiers is Tiers.REGION
    assert plan(OFF, distribution=near) == NO_PLAN
    assert plan(FAILOVER, distribution=near).failover == (("eu", "us"),)
    both = MeshLocality(FAILOVER, zones)
    assert plan(distribution=near, mesh=both).priority_labels == near.labels
    assert plan(mesh=both).tiers is Tiers.REGION
    assert plan(mesh=MeshLocality(FAILOVER, None)).failover == (("eu", "us"),)
    assert plan(mesh=MeshLocality(OFF, None)) == NO_PLAN
    assert plan(mesh=MeshLocality(None, None)) == NO_PLAN


def test_a_distribution_needs_no_ejection():
    """K8-07: readiness tells which endpoints are good."""
    found = plan(ejection=None, distribution=Distribution.SAME_NODE)
    assert found.priority_labels[-1] == NODE_LABEL
    assert found.is_weighted


def test_zone_aware_routing_switched_off():
    """DR-19: Envoy is told not to do it, and no priorities are made."""
    found = plan(zones=ZoneAwareLbSetting(enabled=False, failover_priority=("app",)))
    assert found.zone_routing is not None
    assert not found.zone_routing.is_enabled
    assert (found.tiers, found.priority_labels) == (Tiers.NONE, ())


POLICIES = [
    ({"outlierDetection": {}}, set(WHERE_LABELS)),
    ({"connectionPool": {"tcp": {"maxConnections": 1}}}, set()),
    ({"loadBalancer": {"simple": "RANDOM", "localityLbSetting": {"enabled": False}}}, set()),
    (
        {"loadBalancer": {"localityLbSetting": {"distribute": [{"from": "*", "to": {"*": 100}}]}}},
        set(WHERE_LABELS),
    ),
    (
        {
            "outlierDetection": {},
            "loadBalancer": {"localityLbSetting": {"failoverPriority": ["app", "tier=gold"]}},
        },
        {*WHERE_LABELS, "app"},
    ),
    ({"loadBalancer": {"zoneAwareLbSetting": {}}}, set(WHERE_LABELS)),
]


@pytest.mark.parametrize(("policy", "reads"), POLICIES)
@pytest.mark.parametrize("level", ["top", "port", "subset"])
def test_what_a_rule_reads_of_clients(policy, reads, level):
    """Classes of proxies differ by nothing else (ADR 11); every level of the rule counts."""
    spec = {
        "top": {"trafficPolicy": policy},
        "port": {"trafficPolicy": {"portLevelSettings": [{"port": {"number": 80}, **policy}]}},
        "subset": {"subsets": [{"name": "v1", "trafficPolicy": policy}]},
    }[level]
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "r"},
        "spec": {"host": "h", **spec},
    }
    row = decode(msgspec.to_builtins(document)).object
    assert set(of_rule(row.meta.key, row)) == reads


@pytest.mark.parametrize(
    ("text", "wanted", "known"),
    [
        ("PreferClose", Distribution.SAME_ZONE, True),
        ("prefersamezone", Distribution.SAME_ZONE, True),
        ("PREFERSAMENODE", Distribution.SAME_NODE, True),
        ("", Distribution.ANY, True),
        ("PreferMoon", Distribution.ANY, False),
    ],
)
def test_the_annotation_in_any_letter_case(text, wanted, known):
    """K8-07, SE-14"""
    meta = ObjectMeta(
        kind="Service",
        name="s",
        annotations={"networking.istio.io/traffic-distribution": text},
    )
    assert annotated(meta) is wanted
    assert is_known(meta) is known
