"""Endpoints in groups as one client sees them: DR-16 to DR-19, 3.10, 3.12."""

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.model.endpoint import Endpoint
from pilothouse.model.locality import LocalityPlan, Share, Tiers
from pilothouse.model.priorities import grouped, matches
from pilothouse.model.proxies import Locality
from pilothouse.model.topology_labels import (
    NETWORK_LABEL,
    REGION_LABEL,
    SUBZONE_LABEL,
    ZONE_LABEL,
)

HERE = {REGION_LABEL: "eu", ZONE_LABEL: "eu-1", SUBZONE_LABEL: "rack"}


def endpoint(name, where="", weight=1, network="", **labels):
    return Endpoint(
        address=name,
        port=80,
        locality=Locality.parse(where),
        weight=weight,
        network=network,
        labels=tuple(sorted(labels.items())),
    )


def ranks(endpoints, plan, client=None):
    """Return the priority of each endpoint."""
    groups = grouped(endpoints, plan, HERE if client is None else client)
    return {each.address: group.priority for group in groups for each in group.members}


def weights(endpoints, plan, client=None):
    """Return the weight of each locality."""
    groups = grouped(endpoints, plan, HERE if client is None else client)
    return {str(group.locality): group.weight for group in groups}


def test_nearer_localities_come_first():
    """DR-17: subzone, zone, region, elsewhere."""
    places = [
        endpoint("same", "eu/eu-1/rack"),
        endpoint("zone", "eu/eu-1/other"),
        endpoint("region", "eu/eu-2/rack"),
        endpoint("far", "us/us-1"),
    ]
    plan = LocalityPlan(tiers=Tiers.LOCALITY)
    assert ranks(places, plan) == {"same": 0, "zone": 1, "region": 2, "far": 3}
    assert ranks(places[2:], plan) == {"region": 0, "far": 1}, "priorities have no gap"


def test_a_region_to_go_to_first():
    """DR-17: the region named is before the others; a rule for another region says nothing."""
    places = [endpoint("eu", "eu/eu-1/rack"), endpoint("us", "us"), endpoint("asia", "asia")]
    plan = LocalityPlan(tiers=Tiers.LOCALITY, failover=(("eu", "asia"),))
    assert ranks(places, plan) == {"eu": 0, "asia": 1, "us": 2}
    elsewhere = LocalityPlan(tiers=Tiers.LOCALITY, failover=(("us", "asia"),))
    assert ranks(places, elsewhere) == {"eu": 0, "asia": 1, "us": 1}


def test_a_client_that_is_nowhere_ranks_nothing():
    """3.10: without a region of its own, an endpoint without one is no nearer than others."""
    places = [endpoint("none"), endpoint("eu", "eu")]
    plan = LocalityPlan(tiers=Tiers.LOCALITY)
    assert ranks(places, plan, client={}) == {"none": 0, "eu": 0}


def test_regions_only():
    """DR-19: within the region all are alike."""
    places = [endpoint("a", "eu/eu-1"), endpoint("b", "eu/eu-2"), endpoint("us", "us")]
    places.append(endpoint("asia", "asia"))
    plan = LocalityPlan(tiers=Tiers.REGION, failover=(("eu", "asia"),))
    assert ranks(places, plan) == {"a": 0, "b": 0, "asia": 1, "us": 2}


def test_labels_count_until_one_differs():
    """DR-18: a later label in common does not make up for an earlier one that is not."""
    client = {"app": "web", "version": "v1", "tier": "gold"}
    plan = LocalityPlan(priority_labels=("app", "version", "tier"))
    places = [
        endpoint("all", app="web", version="v1", tier="gold"),
        endpoint("two", app="web", version="v1"),
        endpoint("one", app="web", version="v2", tier="gold"),
        endpoint("none", app="db", version="v1", tier="gold"),
    ]
    assert ranks(places, plan, client) == {"all": 0, "two": 1, "one": 2, "none": 3}


def test_a_label_may_bring_its_value():
    """DR-18: ``name=value`` compares with the value, not with the client's label."""
    plan = LocalityPlan(priority_labels=("tier=gold",))
    places = [endpoint("gold", tier="gold"), endpoint("iron", tier="iron")]
    assert ranks(places, plan, {"tier": "iron"}) == {"gold": 0, "iron": 1}


def test_labels_of_topology_are_where_the_endpoint_runs():
    """DR-18, K8-07"""
    plan = LocalityPlan(priority_labels=(REGION_LABEL, ZONE_LABEL))
    places = [endpoint("zone", "eu/eu-1"), endpoint("region", "eu/eu-2"), endpoint("far", "us")]
    assert ranks(places, plan) == {"zone": 0, "region": 1, "far": 2}


def test_a_network_in_front_only_shifts():
    """DR-18: in another network the zones still rank, all of them behind."""
    plan = LocalityPlan(priority_labels=(NETWORK_LABEL, REGION_LABEL, ZONE_LABEL))
    client = {**HERE, NETWORK_LABEL: "main"}
    places = [
        endpoint("near", "eu/eu-1", network="main"),
        endpoint("far", "us/us-1", network="main"),
        endpoint("other near", "eu/eu-1", network="other"),
        endpoint("other far", "us/us-1", network="other"),
    ]
    expected = {"near": 0, "far": 1, "other near": 2, "other far": 3}
    assert ranks(places, plan, client) == expected


def test_localities_rank_what_labels_rank_alike():
    """DR-18: the two-level key."""
    plan = LocalityPlan(
        priority_labels=("version",), tiers=Tiers.LOCALITY, failover=(("eu", "us"),)
    )
    places = [
        endpoint("near v1", "eu/eu-1/rack", version="v1"),
        endpoint("near v2", "eu/eu-1/rack", version="v2"),
        endpoint("far v1", "us", version="v1"),
    ]
    found = ranks(places, plan, {**HERE, "version": "v1"})
    assert found == {"near v1": 0, "far v1": 1, "near v2": 2}


def test_shares_go_to_localities():
    """DR-16: split by weight among those that match; rounded up; others get nothing."""
    plan = LocalityPlan(distribute=(Share("eu/*", (("eu/*", 80), ("us/us-1", 20))),))
    places = [
        endpoint("a", "eu/eu-1"),
        endpoint("b", "eu/eu-2", weight=2),
        endpoint("c", "us/us-1"),
        endpoint("d", "asia"),
    ]
    assert weights(places, plan) == {"eu/eu-1": 27, "eu/eu-2": 54, "us/us-1": 20}


def test_the_first_share_that_matches_counts():
    """DR-16"""
    places = [endpoint("eu", "eu/eu-1"), endpoint("us", "us/us-1")]
    shares = (Share("us", (("us", 100),)), Share("*", (("eu", 100),)), Share("*", (("us", 100),)))
    assert weights(places, LocalityPlan(distribute=shares)) == {"eu/eu-1": 100}
    nobody = LocalityPlan(distribute=(Share("asia", (("us", 100),)),))
    assert weights(places, nobody) == {"eu/eu-1": 1, "us/us-1": 1}


def test_an_exact_name_is_taken_before_a_wildcard():
    """DR-16"""
    plan = LocalityPlan(distribute=(Share("*", (("*", 30), ("eu/eu-1", 70))),))
    places = [endpoint("a", "eu/eu-1"), endpoint("b", "us/us-1")]
    assert weights(places, plan) == {"eu/eu-1": 70, "us/us-1": 30}


def test_names_of_localities():
    """DR-16: what is left out, or *, matches any."""
    here = Locality.parse("eu/eu-1/rack")
    assert all(matches(here, name) for name in ("*", "eu", "eu/*", "eu/eu-1", "eu/eu-1/rack"))
    assert not any(matches(here, name) for name in ("us", "eu/eu-2", "eu/eu-1/other", "e*"))


localities = st.sampled_from(["", "eu", "eu/eu-1", "eu/eu-1/rack", "eu/eu-2", "us/us-1", "asia"])
places = st.lists(
    st.tuples(localities, st.sampled_from(["v1", "v2"]), st.integers(1, 9)), max_size=12
).map(lambda made: [endpoint(f"e{n}", w, k, version=v) for n, (w, v, k) in enumerate(made)])
plans = st.builds(
    LocalityPlan,
    tiers=st.sampled_from(Tiers),
    priority_labels=st.sampled_from(
        [(), ("version",), (REGION_LABEL, "version"), (NETWORK_LABEL, ZONE_LABEL)]
    ),
    failover=st.sampled_from([(), (("eu", "asia"),)]),
)
clients = st.sampled_from([HERE, {}, {REGION_LABEL: "us", "version": "v2"}])


@given(places, plans, clients)
def test_laws_of_ranks(made, plan, client):
    """Every endpoint once; priorities without a gap; a group's weight is its members'."""
    groups = grouped(made, plan, client)
    members = [each for group in groups for each in group.members]
    assert sorted(each.address for each in members) == sorted(each.address for each in made)
    found = {group.priority for group in groups}
    assert found == set(range(len(found)))
    for group in groups:
        assert group.weight == sum(each.weight for each in group.members)
        assert {each.locality for each in group.members} == {group.locality}
    keys = [(group.locality, group.priority) for group in groups]
    assert len(keys) == len(set(keys))


@given(places, plans, clients)
def test_a_plan_names_all_that_it_reads(made, plan, client):
    """Labels a plan does not name change nothing: clients that differ there share assignments."""
    kept = {name: value for name, value in client.items() if name in plan.reads}
    assert grouped(made, plan, kept) == grouped(made, plan, client)


MOST = 2**32 - 1


@given(
    st.lists(st.tuples(st.sampled_from(["", "eu", "us/1"]), st.integers(1, MOST)), max_size=8),
    st.booleans(),
)
def test_weights_stay_within_what_envoy_takes(places, ranks_by_label):
    """3.12: no sum is beyond 32 bits, no weight is 0, and the heavier stays the heavier."""
    every = [endpoint(f"e{n}", where, weight) for n, (where, weight) in enumerate(places)]
    labels = ("version",) if ranks_by_label else ()
    found = grouped(every, LocalityPlan(priority_labels=labels), HERE)
    weight_of = {each.address: each.weight for each in every}
    for group in found:
        assert sum(each.weight for each in group.members) <= MOST
        assert all(each.weight >= 1 for each in group.members)
        ordered = sorted(group.members, key=lambda each: weight_of[each.address])
        assert [each.weight for each in ordered] == sorted(each.weight for each in ordered)
    for priority in {group.priority for group in found}:
        assert sum(group.weight for group in found if group.priority == priority) <= MOST


def test_there_is_a_last_priority():
    """DR-18: more labels than Envoy has priorities only rank alike at the end."""
    labels = [f"l{n:03}" for n in range(200)]
    wanted = tuple(f"{name}=x" for name in labels)
    every = [
        endpoint(f"e{count}", **dict.fromkeys(labels[:count], "x")) for count in range(0, 201, 1)
    ]
    found = ranks(every, LocalityPlan(priority_labels=wanted))
    assert found["e200"] == 0
    assert found["e72"] == found["e0"] == 128
    assert found["e73"] == 127
