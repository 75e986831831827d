"""While modes change, servers take both until clients have changed over (S-PA-1, S-PA-11)."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.api.decode import decode
from pilothouse.graph.core import Ctx, Graph, query
from pilothouse.model.authentication import (
    MtlsMode,
    authentication_of,
    namespace_authentication,
    takes_mutual_tls,
)
from pilothouse.model.inputs import (
    FORMER_PEER_AUTHENTICATIONS,
    MODE_CHANGE,
    PEER_AUTHENTICATIONS,
    THE_MESH,
)
from pilothouse.model.mode_change import FormerPolicy, ModeChange, Step

LABELS = {"app": "web", "security.istio.io/tlsMode": "istio"}
PORT = 80
MODES = ("DISABLE", "PERMISSIVE", "STRICT")
ACCEPTS = {
    MtlsMode.DISABLE: {False},
    MtlsMode.PERMISSIVE: {False, True},
    MtlsMode.STRICT: {True},
}
"""Whether mutual TLS is used, by what a server takes."""


def policy(name: str, namespace: str, mode: str, **more: Any) -> Any:
    made = decode(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"mtls": {"mode": mode}, **more},
        }
    ).object
    assert made is not None
    return made


@query
def server(ctx: Ctx, namespace: str) -> MtlsMode:
    """Return what a workload takes."""
    return authentication_of(ctx, namespace, tuple(LABELS.items())).at(PORT)


@query
def client(ctx: Ctx, namespace: str) -> bool:
    """Tell whether its clients use mutual TLS."""
    return takes_mutual_tls(ctx, namespace, LABELS, PORT)


def stages(graph: Graph, rows: list[tuple[Any, Any | None]]) -> list[tuple[MtlsMode, bool]]:
    """Change policies to what is given; return what server and client do at each stage."""

    def both() -> tuple[MtlsMode, bool]:
        return graph.value(server, "shop"), graph.value(client, "shop")

    known = graph.store(PEER_AUTHENTICATIONS).rows
    former = {key: known.get(key) for key, _ in rows}
    found = [both()]
    graph.commit(
        [
            *((PEER_AUTHENTICATIONS, key, row) for key, row in rows),
            *((FORMER_PEER_AUTHENTICATIONS, k, FormerPolicy(row)) for k, row in former.items()),
            (MODE_CHANGE, THE_MESH, ModeChange(Step.SERVERS)),
        ]
    )
    found.append(both())
    graph.commit([(MODE_CHANGE, THE_MESH, ModeChange(Step.CLIENTS))])
    found.append(both())
    graph.commit(
        [(MODE_CHANGE, THE_MESH, None)]
        + [(FORMER_PEER_AUTHENTICATIONS, key, None) for key in former]
    )
    found.append(both())
    return found


policies = st.lists(
    st.tuples(
        st.sampled_from(("a", "b")),
        st.sampled_from(("istio-system", "shop")),
        st.sampled_from((None, *MODES)),
        st.sampled_from((None, "web", "other")),
        st.sampled_from((None, *MODES)),
    ),
    max_size=4,
)


def rows_of(chosen: list[Any]) -> list[tuple[Any, Any | None]]:
    rows = {}
    for name, namespace, mode, app, port_mode in chosen:
        more: dict[str, Any] = {}
        if app:
            more["selector"] = {"matchLabels": {"app": app}}
            if port_mode:
                more["portLevelMtls"] = {str(PORT): {"mode": port_mode}}
        made = policy(name, namespace, mode or "STRICT", **more)
        rows[made.meta.key] = made if mode else None
    return list(rows.items())


@given(before=policies, after=policies)
def test_every_client_is_understood_at_every_stage(before: list[Any], after: list[Any]) -> None:
    """Whoever is one stage behind: a server takes what clients of its stage and the last send."""
    graph = Graph()
    graph.commit((PEER_AUTHENTICATIONS, key, row) for key, row in rows_of(before))
    found = stages(graph, rows_of(after))
    for (older_server, older_client), (newer_server, newer_client) in itertools.pairwise(found):
        for taken in (older_server, newer_server):
            for sent in (older_client, newer_client):
                assert sent in ACCEPTS[taken]


@pytest.mark.parametrize(
    ("mode", "then", "servers"),
    [
        ("DISABLE", "STRICT", ["DISABLE", "PERMISSIVE", "PERMISSIVE", "STRICT"]),
        ("STRICT", "DISABLE", ["STRICT", "PERMISSIVE", "PERMISSIVE", "DISABLE"]),
        ("PERMISSIVE", "STRICT", ["PERMISSIVE", "STRICT", "STRICT", "STRICT"]),
        ("STRICT", "PERMISSIVE", ["STRICT", "PERMISSIVE", "PERMISSIVE", "PERMISSIVE"]),
    ],
)
def test_only_a_turn_from_or_to_plain_text_takes_steps(
    mode: str, then: str, servers: list[str]
) -> None:
    """PERMISSIVE to STRICT takes effect at once."""
    graph = Graph()
    first, second = policy("p", "shop", mode), policy("p", "shop", then)
    graph.commit([(PEER_AUTHENTICATIONS, first.meta.key, first)])
    assert [str(each) for each, _ in stages(graph, [(second.meta.key, second)])] == servers


def test_other_namespaces_do_not_notice() -> None:
    """The value of a namespace that no changed policy reaches stays the same object."""
    graph = Graph()
    graph.pin(namespace_authentication, "far")
    before = graph.value(namespace_authentication, "far")
    changed = policy("p", "shop", "STRICT")
    stages(graph, [(changed.meta.key, changed)])
    assert graph.value(namespace_authentication, "far") is before
