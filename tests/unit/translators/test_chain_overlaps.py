"""Chains of one listener: the first to claim a name on a range keeps it."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.graph.findings import ConfigRef, Finding
from pilothouse.model.provenance import Source
from pilothouse.translators.envoy.chain_overlaps import told_apart
from pilothouse.translators.envoy.filter_chains import WeightedCluster
from pilothouse.translators.envoy.tcp_routes import TcpChain

OWNER = Source(ConfigRef("ServiceEntry", "d", "s"), "networking.istio.io/v1", "")


def chain(cluster, sni=(), cidrs=()):
    return TcpChain(
        clusters=(WeightedCluster(cluster, 1),),
        stat_prefix=cluster,
        source=OWNER,
        sni=tuple(sni),
        cidrs=tuple(cidrs),
        routed_by=OWNER.at(f"spec.{cluster}"),
    )


def apart(*chains):
    said: list[Finding] = []
    return [(each.stat_prefix, each.sni, each.cidrs) for each in told_apart(chains, said.append)], [
        finding.ref.path for finding in said
    ]


def test_what_does_not_meet_stays_as_it_is() -> None:
    assert apart(chain("a", ["x"]), chain("b", ["y"], ["10.0.0.0/8"]), chain("c")) == (
        [("a", ("x",), ()), ("b", ("y",), ("10.0.0.0/8",)), ("c", (), ())],
        [],
    )


def test_a_later_chain_keeps_the_rest_of_what_it_wanted() -> None:
    """VS-49: and whoever wrote it is told."""
    assert apart(chain("a", ["x", "y"]), chain("b", ["Y", "z"]), chain("c", ["*"]), chain("d")) == (
        [("a", ("x", "y"), ()), ("b", ("z",), ()), ("c", (), ())],
        ["spec.b", "spec.d"],
    )


def test_ranges_are_compared_by_what_they_hold() -> None:
    assert apart(
        chain("a", ["x"], ["10.0.0.1/8"]), chain("b", ["x", "y"], ["10.9.9.9/8", "11.0.0.0/8"])
    ) == (
        [
            ("a", ("x",), ("10.0.0.0/8",)),
            ("b", ("x",), ("11.0.0.0/8",)),
            ("b", ("y",), ("10.0.0.0/8", "11.0.0.0/8")),
        ],
        ["spec.b"],
    )


chains = st.lists(
    st.builds(
        chain,
        st.sampled_from("abc"),
        st.lists(st.sampled_from(["x", "X", "y", "*.z", "*"]), max_size=3),
        st.lists(st.sampled_from(["10.0.0.0/8", "10.1.0.0/8", "11.0.0.0/8"]), max_size=3),
    ),
    max_size=6,
)


def pairs(each: TcpChain) -> set[tuple[str, str]]:
    return set(product(each.sni or ("",), each.cidrs or ("",)))


@given(chains)
def test_no_two_take_one_connection_and_nothing_is_lost(wanted: list[TcpChain]) -> None:
    made = list(told_apart(wanted, lambda _: None))
    taken = [pair for each in made for pair in pairs(each)]
    assert len(taken) == len(set(taken))
    assert all(len(pairs(each)) == len(each.sni or "1") * len(each.cidrs or "1") for each in made)
    again = list(told_apart(made, lambda _: None))
    assert again == made
    if wanted:
        assert made
