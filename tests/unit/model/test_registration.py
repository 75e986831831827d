"""The entry that a group and a workload make, and who may have one (WG-01 to WG-03, NM-19)."""

from typing import Any

import pytest
import yaml
from fake_proxy import node
from mesh_rows import commit
from msgspec.structs import replace

from pilothouse.api.decode import decode
from pilothouse.api.workload import HEALTH_CHECKS_ANNOTATION, WorkloadEntry, WorkloadGroup
from pilothouse.graph.core import Graph
from pilothouse.model.endpoints import EndpointsKey, endpoints
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.inputs import WORKLOAD_ENTRIES
from pilothouse.model.registration import (
    GROUP_ANNOTATION,
    Claim,
    RefusalReason,
    RegistrationRefused,
    check_identity,
    check_name,
    claim_of,
    entry_from,
    entry_name,
    with_health,
)
from pilothouse.model.workloads import targets, workload_labels
from pilothouse.xds.node import read_proxy

GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: web, namespace: shop}
spec:
  metadata:
    labels: {app: web, tier: of-metadata}
    annotations: {note: kept}
  template:
    serviceAccount: web
    network: of-template
    locality: r1/z1
    weight: 3
    ports: {http: 8080}
    labels: {app: of-template, zone: of-template, tier: of-template}
"""
CLAIM = Claim(
    proxy="sidecar~10.0.0.1~web-1.shop~x",
    namespace="shop",
    group="web",
    address="10.0.0.1",
    account="web",
)


def group(text: str = GROUP, **more: Any) -> WorkloadGroup:
    """Return a group, its spec changed."""
    decoded = decode(yaml.safe_load(text))
    assert isinstance(decoded.object, WorkloadGroup), decoded.findings
    return replace(decoded.object, spec=replace(decoded.object.spec, **more))


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("web", "10.0.0.1", ""), "web-10.0.0.1"),
        (("web", "10.0.0.1", "far"), "web-10.0.0.1-far"),
        (("web", "fd00::1", ""), "web-fd00--1"),
        (("w" * 250, "10.0.0.1", ""), "w" * 244 + "-10.0.0.1"),
    ],
)
def test_the_name_of_an_entry(parts: tuple[str, str, str], name: str) -> None:
    """WG-01: group, address, network; the end of a name that is too long."""
    assert entry_name(*parts) == name


def test_labels_of_the_node_win_over_the_groups_and_these_over_the_templates() -> None:
    """WG-02: and annotations of the group are the entry's."""
    labels = (("istio-locality", "r/z"), ("tier", "of-node"), ("version", "v1"))
    made = entry_from(group(), replace(CLAIM, labels=labels))
    expected = {"app": "web", "zone": "of-template", "tier": "of-node", "version": "v1"}
    assert made.spec.labels == made.meta.labels == made.all_labels == expected
    assert made.meta.annotations == {GROUP_ANNOTATION: "web", "note": "kept"}
    assert made.meta.key == CLAIM.key


def test_the_node_knows_best_where_it_runs() -> None:
    """WG-01: address, network and locality; the rest is the template's."""
    made = entry_from(group(), CLAIM).spec
    assert (made.address, made.network, made.locality) == ("10.0.0.1", "of-template", "r1/z1")
    assert (made.service_account, made.weight, made.ports) == ("web", 3, {"http": 8080})
    made = entry_from(group(), replace(CLAIM, network="far", locality="r2")).spec
    assert (made.network, made.locality) == ("far", "r2")


def test_a_probe_asks_for_reports() -> None:
    """WG-03, WE-07: the group's or the agent's; unhealthy until the first report."""
    probed = group(GROUP + "  probe: {tcpSocket: {port: 8080}}\n")
    assert not entry_from(probed, CLAIM).is_healthy
    assert not entry_from(group(), replace(CLAIM, has_probe=True)).is_healthy
    assert entry_from(group(), CLAIM).is_healthy
    assert with_health(entry_from(probed, CLAIM), is_healthy=True).is_healthy
    assert not with_health(entry_from(probed, CLAIM), is_healthy=False).is_healthy


def test_an_annotation_of_the_group_says_whether_reports_count() -> None:
    """WE-07: for workloads that nobody probes, though the group says how."""
    off = GROUP.replace("note: kept", f"{HEALTH_CHECKS_ANNOTATION}: 'false'")
    probed = group(off + "  probe: {tcpSocket: {port: 8080}}\n")
    assert entry_from(probed, CLAIM).is_healthy
    assert not entry_from(probed, replace(CLAIM, has_probe=True)).is_healthy


def test_other_conditions_stay() -> None:
    """WE-07: only the one of health is ours."""
    text = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, annotations: {proxy.istio.io/health-checks-enabled: 'true'}}
spec: {address: 10.0.0.1}
status: {conditions: [{type: Other, status: 'True'}, {type: Healthy, status: 'True'}]}
"""
    row = decode(yaml.safe_load(text)).object
    assert isinstance(row, WorkloadEntry)
    bad = with_health(row, is_healthy=False)
    assert bad.status is not None
    assert [(each.type, each.status) for each in bad.status.conditions] == [
        ("Other", "True"),
        ("Healthy", "False"),
    ]
    assert not with_health(row, None).is_healthy


@pytest.mark.parametrize(
    ("account", "wanted", "reason"),
    [
        ("web", "web", None),
        ("web", "", None),
        ("", "", None),
        ("web", "other", RefusalReason.OTHER_IDENTITY),
        ("", "web", RefusalReason.OTHER_IDENTITY),
        (None, "", RefusalReason.NOT_KNOWN),
        (None, "web", RefusalReason.NOT_KNOWN),
    ],
)
def test_nobody_is_registered_on_their_own_word(
    account: str | None, wanted: str, reason: RefusalReason | None
) -> None:
    """WG-01: the verified account must be the template's, if it has one."""
    claim = replace(CLAIM, account=account)
    if reason is None:
        check_identity(claim, wanted, "it")
        return
    with pytest.raises(RegistrationRefused) as refused:
        check_identity(claim, wanted, "it")
    assert refused.value.reason is reason


@pytest.mark.parametrize("network", ["Far", "a_b", "a/b", "x-", "-" * 300])
def test_a_name_that_no_object_can_have(network: str) -> None:
    """WG-01: NETWORK is the workload's own word."""
    with pytest.raises(RegistrationRefused):
        check_name(replace(CLAIM, network=network))


METADATA = {
    "NAMESPACE": "shop",
    "LABELS": {"app": "web", "version": "v1"},
    "SERVICE_ACCOUNT": "web",
    "NETWORK": "far",
    "INSTANCE_IPS": "10.0.0.7,10.0.0.1",
}
ID = "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local"


def claimed(metadata: dict[str, Any], identity: WorkloadIdentity | None = None) -> Claim | None:
    """Return what a node asks for."""
    from dataclasses import replace as with_fields  # noqa: PLC0415

    proxy = read_proxy(node(ID, {**METADATA, **metadata}))
    return claim_of(with_fields(proxy, identity=identity))


def test_metadata_asks_for_it() -> None:
    """NM-19: the group wins over the entry; the address is the first of INSTANCE_IPS."""
    assert claimed({}) is None
    identity = WorkloadIdentity("cluster.local", "shop", "web")
    asked = claimed({"AUTO_REGISTER_GROUP": "web", "WORKLOAD_ENTRY": "vm"}, identity)
    assert asked == Claim(
        proxy=ID,
        namespace="shop",
        group="web",
        address="10.0.0.7",
        network="far",
        labels=(("app", "web"), ("version", "v1")),
        account="web",
    )
    entry = claimed({"WORKLOAD_ENTRY": "vm"}, identity)
    assert entry is not None
    assert (entry.key.namespace, entry.key.name, entry.group) == ("shop", "vm", "")


def test_an_identity_of_another_namespace_is_none() -> None:
    """WG-01: the namespace must be the entry's."""
    asked = claimed(
        {"AUTO_REGISTER_GROUP": "web"}, WorkloadIdentity("cluster.local", "other", "web")
    )
    assert asked is not None
    assert asked.account is None
    nobody = claimed({"AUTO_REGISTER_GROUP": "web"})
    assert nobody is not None
    assert nobody.account is None


@pytest.mark.parametrize(
    ("config", "has_probe"),
    [({}, False), ({"readinessProbe": {"tcpSocket": {"port": 80}}}, True), (None, False)],
)
def test_an_agent_that_probes_says_so(config: dict[str, Any] | None, has_probe: bool) -> None:
    """WG-03: in its ProxyConfig."""
    asked = claimed({"AUTO_REGISTER_GROUP": "web", "PROXY_CONFIG": config})
    assert asked is not None
    assert asked.has_probe is has_probe


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: main, port: 80, targetPort: http}]}
"""


def test_both_sides_know_the_registered_workload() -> None:
    """WG-01: clients have an endpoint, and its own proxy serves the port (WE-06)."""
    graph = Graph()
    commit(graph, yaml.safe_load(SERVICE))
    proxy = read_proxy(node(ID.replace("10.0.0.1", "10.0.0.7"), {"NAMESPACE": "shop"}))
    assert graph.value(targets, proxy) == ()
    row = entry_from(group(), replace(CLAIM, address="10.0.0.7"))
    graph.commit([(WORKLOAD_ENTRIES, row.meta.key, row)])
    (target,) = graph.value(targets, proxy)
    assert target.number == 8080
    (found,) = graph.value(endpoints, EndpointsKey(target.service.key, 80))
    assert (found.address, found.port, found.account) == ("10.0.0.7", 8080, "ns/shop/sa/web")
    assert found.takes_mutual_tls
    assert found.workload.startswith("web;shop;web;"), "telemetry knows it by its group (N-70)"
    assert ("app", "web") in graph.value(workload_labels, proxy)


def test_a_workload_is_the_entry_it_was_registered_as() -> None:
    """WG-01: the same address may be in use in two networks."""
    graph = Graph()
    for network in ("near", "far"):
        claim = replace(CLAIM, network=network, labels=(("of", network),))
        row = entry_from(group(), claim)
        graph.commit([(WORKLOAD_ENTRIES, row.meta.key, row)])
        metadata = {"AUTO_REGISTER_GROUP": "web", "NETWORK": network}
        proxy = read_proxy(node(ID, metadata))
        assert ("of", network) in graph.value(workload_labels, proxy)


def test_a_workload_that_nobody_selects_is_told_of() -> None:
    """WG-02: it was registered for nothing."""
    graph = Graph()
    row = entry_from(group(), CLAIM)
    graph.commit([(WORKLOAD_ENTRIES, row.meta.key, row)])
    proxy = read_proxy(node(ID, {"AUTO_REGISTER_GROUP": "web"}))
    assert graph.value(targets, proxy) == ()
    (finding,) = graph.findings()
    assert (finding.code, finding.ref.name) == ("GroupServesNothing", "web")
    commit(graph, yaml.safe_load(SERVICE))
    assert len(graph.value(targets, proxy)) == 1
    assert not list(graph.findings())
