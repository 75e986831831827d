"""What PeerAuthentications mean together, for a workload and for its clients (S-PA-1 to S-PA-3)."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.api.decode import decode
from pilothouse.graph.core import Ctx, Graph, query
from pilothouse.model.authentication import (
    Authentication,
    MtlsMode,
    WorkloadQuestion,
    namespace_authentication,
    takes_mutual_tls,
    workload_authentication,
)
from pilothouse.model.inputs import TABLES

ROOT = "istio-system"
MODES = ("UNSET", "DISABLE", "PERMISSIVE", "STRICT")
LABELS = {"app": "web", "version": "v1"}


def policy(
    name: str,
    namespace: str,
    mode: str | None = None,
    labels: dict[str, str] | None = None,
    ports: dict[int, str] | None = None,
    day: int = 1,
) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    if mode is not None:
        spec["mtls"] = {"mode": mode}
    if labels:
        spec["selector"] = {"matchLabels": labels}
    if ports:
        spec["portLevelMtls"] = {str(port): {"mode": each} for port, each in ports.items()}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "creationTimestamp": f"2026-01-{day:02}T00:00:00Z",
        },
        "spec": spec,
    }


def mesh(objects: Iterable[dict[str, Any]]) -> Graph:
    graph = Graph()
    rows = [decode(each).object for each in objects]
    graph.commit((TABLES[row.meta.kind], row.meta.key, row) for row in rows)
    return graph


def holds(graph: Graph, labels: dict[str, str] = LABELS, namespace: str = "shop") -> Authentication:
    return graph.value(
        workload_authentication, WorkloadQuestion(namespace, tuple(sorted(labels.items())))
    )


def codes(graph: Graph) -> list[tuple[str, str]]:
    return sorted((each.code, each.ref.name) for each in graph.findings())


def test_without_a_policy_both_are_let_in() -> None:
    """S-PA-1: the default is PERMISSIVE."""
    assert holds(mesh([])) == Authentication(mode=MtlsMode.PERMISSIVE)


def test_the_narrower_scope_wins_and_unset_inherits() -> None:
    """S-PA-1: mesh, namespace, workload, port."""
    objects = [
        policy("mesh", ROOT, "STRICT"),
        policy("namespace", "shop", "UNSET"),
        policy("web", "shop", None, {"app": "web"}, {80: "DISABLE", 81: "UNSET"}),
    ]
    found = holds(mesh(objects))
    assert (found.mode, found.at(80), found.at(81), found.at(82)) == (
        MtlsMode.STRICT, MtlsMode.DISABLE, MtlsMode.STRICT, MtlsMode.STRICT,
    )  # fmt: skip
    objects[1] = policy("namespace", "shop", "DISABLE")
    objects[2] = policy("web", "shop", "PERMISSIVE", {"app": "web"}, {81: "UNSET"})
    found = holds(mesh(objects))
    assert (found.mode, found.at(81)) == (MtlsMode.PERMISSIVE, MtlsMode.PERMISSIVE)
    assert holds(mesh(objects), {"app": "other"}).mode is MtlsMode.DISABLE
    assert holds(mesh(objects), LABELS, "elsewhere").mode is MtlsMode.STRICT


def test_the_oldest_of_a_scope_wins_and_the_others_are_named() -> None:
    """S-PA-1, S-SEL-2: by creation time, then by name."""
    graph = mesh(
        [
            policy("b-mesh", ROOT, "STRICT", day=1),
            policy("a-mesh", ROOT, "DISABLE", day=2),
            policy("b", "shop", "DISABLE", day=3),
            policy("a", "shop", "PERMISSIVE", day=3),
            policy("web", "shop", "DISABLE", {"app": "web"}, day=5),
            policy("v1", "shop", "STRICT", {"version": "v1"}, day=4),
        ]
    )
    assert holds(graph).mode is MtlsMode.STRICT
    assert graph.value(namespace_authentication, "far").everywhere.mode is MtlsMode.STRICT
    assert graph.value(namespace_authentication, "shop").everywhere.mode is MtlsMode.PERMISSIVE
    assert codes(graph) == [
        ("AuthenticationIgnored", "a-mesh"),
        ("AuthenticationIgnored", "b"),
        ("AuthenticationIgnored", "web"),
    ]


def test_a_selector_in_the_root_namespace_selects_nobody() -> None:
    """S-PA-3, Q9: not even workloads of that namespace; a finding says so."""
    graph = mesh([policy("p", ROOT, "STRICT", {"app": "web"})])
    assert holds(graph).mode is MtlsMode.PERMISSIVE
    assert holds(graph, LABELS, ROOT).mode is MtlsMode.PERMISSIVE
    assert codes(graph) == [("SelectorInRootNamespace", "p")]


def test_an_edit_without_effect_stops_at_the_namespace() -> None:
    """Another generation of the same rules reaches no workload."""
    graph = mesh([policy("web", "shop", "STRICT", {"app": "web"})])
    question = WorkloadQuestion("shop", tuple(LABELS.items()))
    graph.pin(workload_authentication, question)
    before = graph.value(workload_authentication, question)
    again = policy("web", "shop", "STRICT", {"app": "web"})
    again["metadata"]["annotations"] = {"seen": "yes"}
    again["metadata"]["generation"] = 2
    row = decode(again).object
    graph.commit([(TABLES["PeerAuthentication"], row.meta.key, row)])
    assert graph.value(workload_authentication, question) is before


@query
def asked(ctx: Ctx, labels: tuple[tuple[str, str], ...]) -> tuple[bool, bool]:
    """Ask for port 80, without and with a service account."""
    known = dict(labels)
    return (
        takes_mutual_tls(ctx, "shop", known, 80),
        takes_mutual_tls(ctx, "shop", known, 80, has_identity=True),
    )


@pytest.mark.parametrize(
    ("label", "mode", "wanted"),
    [
        ("istio", "PERMISSIVE", (True, True)),
        ("istio", "STRICT", (True, True)),
        ("istio", "DISABLE", (False, False)),
        ("disabled", "STRICT", (False, False)),
        (None, "STRICT", (False, True)),
        (None, "DISABLE", (False, False)),
    ],
)
def test_clients_use_mutual_tls_where_it_is_taken(
    label: str | None, mode: str, wanted: tuple[bool, bool]
) -> None:
    """S-PA-11, WE-05: the label, or the account of an entry without one; and not DISABLE."""
    graph = mesh([policy("port", "shop", "PERMISSIVE", {"app": "web"}, {80: mode})])
    labels = {**LABELS, **({"security.istio.io/tlsMode": label} if label else {})}
    assert graph.value(asked, tuple(sorted(labels.items()))) == wanted


policies = st.lists(
    st.builds(
        lambda namespace, mode, labels, ports, day: (namespace, mode, labels, ports, day),
        st.sampled_from([ROOT, "shop", "far"]),
        st.sampled_from([None, *MODES]),
        st.sampled_from([{}, {"app": "web"}, {"version": "v1"}, {"app": "db"}]),
        st.dictionaries(st.sampled_from([80, 81]), st.sampled_from(MODES), max_size=2),
        st.integers(1, 28),
    ),
    max_size=8,
)


@given(policies, st.sampled_from([ROOT, "shop", "far"]), st.sampled_from([80, 81, 82]))
def test_composition_is_a_walk_from_wide_to_narrow(
    drawn: list[tuple[Any, ...]], namespace: str, port: int
) -> None:
    """
    S-PA-1 to S-PA-3, told a second way: one list, walked from the mesh to the port.

    S-SEL-1: of the root namespace and the workload's own, and no other. S-SEL-3: without a selector
    all workloads of it, with one those that carry its labels and perhaps more.
    """
    objects = [
        policy(f"p{number}", space, mode, labels, ports if labels else None, day)
        for number, (space, mode, labels, ports, day) in enumerate(drawn)
    ]
    mode = "PERMISSIVE"
    for space, of_workload in ((ROOT, False), (namespace, False), (namespace, True)):
        if of_workload and space == ROOT:
            continue
        rows = [
            (day, f"p{number}", own, ports)
            for number, (at, own, labels, ports, day) in enumerate(drawn)
            if at == space
            and bool(labels) == of_workload
            and all(LABELS.get(name) == value for name, value in labels.items())
        ]
        if rows:
            _, _, own, ports = min(rows, key=lambda row: row[:2])
            mode = own if own not in (None, "UNSET") else mode
            if of_workload and ports.get(port, "UNSET") != "UNSET":
                mode = ports[port]
    assert holds(mesh(objects), LABELS, namespace).at(port) == mode
