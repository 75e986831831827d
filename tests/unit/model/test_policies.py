"""What a merged rule says of one cluster, and where it says so."""

from typing import Any

import msgspec
import pytest

from pilothouse.api.destination_rule import DestinationRuleSpec
from pilothouse.api.mesh_config import DefaultTrafficPolicy
from pilothouse.graph.findings import ConfigRef
from pilothouse.model.policies import MergedRule, policy_for, tunnel_for
from pilothouse.model.policy_sources import tls_source
from pilothouse.model.provenance import Source

SOURCE = Source(ConfigRef("DestinationRule", "ns", "rule", "spec.trafficPolicy"), "v1", "")
RANDOM: dict[str, Any] = {"loadBalancer": {"simple": "RANDOM"}}
ROUND: dict[str, Any] = {"loadBalancer": {"simple": "ROUND_ROBIN"}}
SIMPLE: dict[str, Any] = {"tls": {"mode": "SIMPLE"}}
TUNNEL: dict[str, Any] = {"tunnel": {"targetHost": "h.example", "targetPort": 1}}
REST: dict[str, Any] = {**TUNNEL, "proxyProtocol": {}, "retryBudget": {}}


def at_port(number: int, policy: dict[str, Any]) -> dict[str, Any]:
    return {"portLevelSettings": [{"port": {"number": number}, **policy}]}


def rule(policy: dict[str, Any] | None, subset: dict[str, Any] | None = None) -> MergedRule:
    """A rule with a policy, and the policy of its subset `v1`."""
    spec = msgspec.convert(
        {
            "host": "h",
            "trafficPolicy": policy,
            "subsets": [{"name": "v1", "trafficPolicy": subset}],
        },
        DestinationRuleSpec,
    )
    return MergedRule(
        policy=spec.traffic_policy,
        subsets=spec.subsets,
        sources=(SOURCE,),
        policy_source=SOURCE,
        subset_sources=(("v1", SOURCE.at("spec.subsets[0].trafficPolicy")),),
    )


def balancer(of: MergedRule, port: int, subset: str = "") -> str | None:
    chosen = policy_for(of, port, subset).load_balancer
    return chosen.simple if chosen else None


def test_a_port_replaces_the_whole_policy() -> None:
    """DR-04: what the port's entry leaves out is default; the other ports keep theirs."""
    merged = rule({**RANDOM, **REST, **at_port(81, SIMPLE)})
    assert balancer(merged, 80) == "RANDOM"
    port = policy_for(merged, 81, "")
    assert port.tls is not None
    assert port.load_balancer is None
    assert (port.tunnel, port.proxy_protocol, port.retry_budget) == (None, None, None)


def test_a_subset_overrides_block_by_block() -> None:
    """DR-03: what it leaves out is the destination's."""
    merged = rule({**RANDOM, **SIMPLE}, ROUND)
    policy = policy_for(merged, 80, "v1")
    assert balancer(merged, 80, "v1") == "ROUND_ROBIN"
    assert policy.tls is not None
    assert balancer(merged, 80) == "RANDOM"


def test_a_port_of_a_subset_replaces_four_blocks_and_inherits_three() -> None:
    """DR-04: tunnel, proxyProtocol and retryBudget come from the destination level still."""
    merged = rule({**RANDOM, **SIMPLE, **REST}, {**ROUND, **at_port(80, {"tls": {}})})
    policy = policy_for(merged, 80, "v1")
    assert policy.load_balancer is None
    assert policy.tls is not None
    assert policy.tls.mode == "DISABLE"
    assert policy.tunnel is not None
    assert policy.proxy_protocol is not None
    assert policy.retry_budget is not None
    assert balancer(merged, 81, "v1") == "ROUND_ROBIN"


@pytest.mark.parametrize(
    ("policy", "subset", "expected"),
    [
        (None, None, 7),
        (RANDOM, None, 7),
        ({"connectionPool": {"tcp": {}}}, None, 0),
        (at_port(80, RANDOM), None, 7),
        (None, {"connectionPool": {"tcp": {"maxConnections": 5}}}, 5),
        (None, RANDOM, 7),
        # A subset's entry for a port leaves nothing of what it was laid over.
        (None, at_port(80, RANDOM), None),
    ],
)
def test_the_mesh_fills_whole_blocks(policy: Any, subset: Any, expected: int | None) -> None:
    """DR-63: a block that the rule sets is the rule's alone, however little is in it."""
    defaults = msgspec.convert(
        {"connectionPool": {"tcp": {"maxConnections": 7}}}, DefaultTrafficPolicy
    )
    pool = policy_for(rule(policy, subset), 80, "v1", defaults).connection_pool
    found = pool.tcp.max_connections if pool and pool.tcp else None
    assert found == expected


def test_without_a_rule_the_mesh_decides() -> None:
    """DR-63"""
    defaults = msgspec.convert({"outlierDetection": {}}, DefaultTrafficPolicy)
    assert policy_for(None, 80, "", defaults).outlier_detection is not None
    assert policy_for(None, 80, "").outlier_detection is None


def test_a_tunnel_is_the_hosts_or_the_subsets() -> None:
    """DR-60: ports do not count, and a subset inherits none."""
    merged = rule({**TUNNEL, **at_port(80, RANDOM)}, RANDOM)
    assert tunnel_for(merged, "") is not None
    assert tunnel_for(merged, "v1") is None
    assert tunnel_for(rule(None, TUNNEL), "v1") is not None
    assert tunnel_for(None, "") is None


@pytest.mark.parametrize(
    ("policy", "subset", "expected"),
    [
        (SIMPLE, None, "spec.trafficPolicy.tls"),
        (at_port(80, SIMPLE), None, "spec.trafficPolicy.portLevelSettings[0].tls"),
        (SIMPLE, SIMPLE, "spec.subsets[0].trafficPolicy.tls"),
        (SIMPLE, at_port(80, SIMPLE), "spec.subsets[0].trafficPolicy.portLevelSettings[0].tls"),
        (at_port(81, SIMPLE), RANDOM, None),
    ],
)
def test_a_finding_names_the_field_that_decides(
    policy: Any, subset: Any, expected: str | None
) -> None:
    source = tls_source(rule(policy, subset), 80, "v1")
    assert (source.ref.path if source else None) == expected
