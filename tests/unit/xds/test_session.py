"""What a session says, case by case; its laws are in tests/property/test_session_laws.py."""

import pytest
from xds_model import Client, World, resource

from pilothouse.model.resource import CDS, EDS, LDS, RDS
from pilothouse.xds.requests import DeltaRequest, InvalidRequest, SotwRequest, Variant
from pilothouse.xds.selection import MAX_DELTA_BYTES
from pilothouse.xds.session import MAX_TYPES, WARMING_LIMIT_SECONDS, Session

both = pytest.mark.parametrize("variant", list(Variant))


def mesh(*names):
    world = World()
    for name in names:
        put_service(world, name)
    return world


def put_service(world, name, content="1"):
    world.put(resource(CDS, name, content, eds=name))
    for type_url in (EDS, LDS, RDS):
        world.put(resource(type_url, name, content))


def envoy(variant, world):
    client = Client(variant, world)
    client.want_all(CDS)
    client.subscribe(EDS, *world.resources[EDS])
    client.want_all(LDS)
    client.subscribe(RDS, *world.resources[RDS])
    client.settle()
    client.log.clear()
    return client


def said(client):
    return [(m.type_url, [r.name for r in m.resources], list(m.removed)) for m in client.log]


def change(client, *changed):
    for made in changed:
        client.world.put(made)
    for made in changed:
        client.session.changed(made.type_url, (made.name,), client.now)


@both
def test_nothing_is_said_twice(variant):
    """XD-07: a mark without a change is silence."""
    client = envoy(variant, mesh("a", "b"))
    client.session.changed_all(client.now)
    client.settle()
    assert said(client) == []


@both
def test_the_order_of_types(variant):
    """PU-08: CDS, EDS, LDS, RDS, whatever the order of the marks."""
    client = envoy(variant, mesh("a"))
    change(client, *(resource(t, "a", "2") for t in (RDS, LDS, EDS)), resource(CDS, "a", "2"))
    client.settle()
    assert [type_url for type_url, _, _ in said(client)] == [CDS, EDS, LDS, RDS]


@both
def test_listeners_wait_until_new_clusters_are_warm(variant):
    """PU-08: Envoy withholds the ACK of CDS until the clusters in it are warm."""
    client = envoy(variant, mesh("a"))
    put_service(client.world, "b")
    for type_url in (CDS, LDS):
        client.session.changed(type_url, ("b",), client.now)
    assert client.serve()
    assert not client.serve(), "listeners wait for the ACK of the clusters"
    assert client.session.wake_at(client.now) == client.now + WARMING_LIMIT_SECONDS
    client.read()
    client.deliver_request()
    assert client.serve()
    assert client.log[-1].type_url == LDS


@both
def test_a_cluster_that_never_warms_holds_nothing_up_for_good(variant):
    """Its own repair may be among what waits."""
    client = envoy(variant, mesh("a"))
    put_service(client.world, "b")
    for type_url in (CDS, LDS):
        client.session.changed(type_url, ("b",), client.now)
    client.serve()
    client.now += WARMING_LIMIT_SECONDS
    assert client.serve()
    assert client.log[-1].type_url == LDS


@both
def test_changed_clusters_hold_up_nothing(variant):
    """The old version serves while the new one warms."""
    client = envoy(variant, mesh("a"))
    change(client, resource(CDS, "a", "2", eds="a"), resource(LDS, "a", "2"))
    while client.serve():
        pass
    assert [type_url for type_url, _, _ in said(client)] == [CDS, EDS, LDS]


@both
def test_a_cluster_goes_once_nothing_points_at_it(variant):
    """Removals wait for the answers to routes; in SotW the full state keeps it till then."""
    client = envoy(variant, mesh("a", "b"))
    client.world.remove(CDS, "b")
    client.session.changed(CDS, ("b",), client.now)
    change(client, resource(RDS, "a", "2"))
    client.serve()
    assert client.log[-1].type_url == RDS
    assert not client.serve()
    client.read()
    client.deliver_request()
    client.settle()
    assert said(client)[1:] == [(CDS, *((["a"], []) if variant is Variant.SOTW else ([], ["b"])))]


def test_a_cluster_that_comes_back_before_it_went_is_not_mentioned():
    client = envoy(Variant.DELTA, mesh("a", "b"))
    client.world.remove(CDS, "b")
    client.session.changed(CDS, ("b",), client.now)
    change(client, resource(RDS, "a", "2"))
    client.serve()
    change(client, resource(CDS, "b", "1", eds="b"))
    client.settle()
    assert [type_url for type_url, _, _ in said(client)] == [RDS]


def test_listeners_are_replaced_in_one_message():
    """A new listener may need the address of one that goes (lds_api.cc removes first)."""
    client = envoy(Variant.DELTA, mesh("a"))
    client.world.remove(LDS, "a")
    client.world.put(resource(LDS, "z"))
    client.session.changed(LDS, ("a", "z"), client.now)
    client.settle()
    assert said(client) == [(LDS, ["z"], ["a"])]


@both
def test_the_first_request_is_answered_with_nothing_too(variant):
    """Envoy starts only once CDS and LDS have been answered."""
    client = Client(variant, World())
    client.want_all(CDS)
    client.want_all(LDS)
    client.settle()
    assert said(client) == [(CDS, [], []), (LDS, [], [])]


def test_delta_says_what_does_not_exist_and_sends_it_once_it_does():
    """Knowing when a requested resource does not exist (protocol text)."""
    client = Client(Variant.DELTA, World())
    client.subscribe(RDS, "a")
    client.settle()
    assert said(client) == [(RDS, [], ["a"])]
    change(client, resource(RDS, "a"))
    client.settle()
    assert said(client)[1:] == [(RDS, ["a"], [])]


def test_sotw_is_silent_on_what_does_not_exist():
    client = Client(Variant.SOTW, World())
    client.subscribe(RDS, "a")
    client.settle()
    assert said(client) == []
    change(client, resource(RDS, "a"))
    client.settle()
    assert said(client) == [(RDS, ["a"], [])]


def test_sotw_answers_added_names_only():
    """5.2: nonce equal, names added: EDS and RDS answer the added; names removed: no answer."""
    client = Client(Variant.SOTW, mesh("a", "b"))
    client.subscribe(EDS, "a")
    client.settle()
    client.subscribe(EDS, "b")
    client.settle()
    client.unsubscribe(EDS, "a")
    client.settle()
    assert said(client) == [(EDS, ["a"], []), (EDS, ["b"], [])]


@both
def test_subscribing_anew_sends_anew(variant):
    """A client that unsubscribed has forgotten."""
    client = Client(variant, mesh("a"))
    for _ in range(2):
        client.subscribe(EDS, "a")
        client.settle()
        client.unsubscribe(EDS, "a")
        client.settle()
    assert said(client) == [(EDS, ["a"], [])] * 2


@pytest.mark.parametrize("exists", [True, False])
def test_unsubscribing_a_name_under_a_wildcard_is_answered(exists):
    """The client cannot know whether the wildcard covers the name."""
    client = Client(Variant.DELTA, mesh("a"))
    client.want_all(CDS)
    name = "a" if exists else "z"
    client.subscribe(CDS, name)
    client.settle()
    client.log.clear()
    client.unsubscribe(CDS, name)
    client.settle()
    assert said(client) == [(CDS, ["a"], []) if exists else (CDS, [], ["z"])]


def test_a_reconnecting_delta_client_gets_differences_and_its_endpoints():
    """XD-02: initial_resource_versions spare what is equal, except endpoints; the gone is told."""
    client = envoy(Variant.DELTA, mesh("a", "b", "c"))
    change(client, resource(RDS, "b", "2"))
    client.world.remove(CDS, "c")
    client.connect()
    client.settle()
    assert said(client) == [
        (CDS, [], []),
        (EDS, ["a", "b", "c"], []),
        (LDS, [], []),
        (RDS, ["b"], []),
        (CDS, [], ["c"]),
    ]


def test_a_refused_removal_is_not_tried_for_ever():
    client = envoy(Variant.DELTA, mesh("a"))
    client.world.remove(LDS, "a")
    client.session.changed(LDS, ("a",), client.now)
    client.serve()
    message = client.inbox.pop()
    nack = DeltaRequest(type_url=LDS, nonce=message.nonce, error="never")
    effects = client.session.receive(nack, client.now)
    assert (effects.nack, effects.rejected) == ("never", ())
    assert client.session.next_message(client.now) is None


def test_a_culprit_nobody_names_is_found_by_halving():
    """Issue 2: a NACK is attributed; here the text says nothing, so messages say it."""
    world = mesh(*(f"r{number:02}" for number in range(64)))
    world.put(resource(RDS, "r37", "bad"))
    client = Client(Variant.DELTA, world, names_culprits=False)
    client.subscribe(RDS, *world.resources[RDS])
    client.settle()
    assert [r.name for r in client.session.rejected()] == ["r37"]
    assert len(client.state[RDS]) == 63
    assert client.refusals <= 12, "about twice the logarithm"


@both
def test_endpoints_refused_with_others_are_owed_again(variant):
    """A cluster warms only when its endpoints come again, though they are what they were."""
    client = envoy(variant, mesh("a", "b"))
    change(client, resource(CDS, "a", "2", eds="a"), resource(EDS, "b", "bad"))
    client.settle()
    assert [made.name for made in client.session.rejected()] == ["b"]
    assert [names for type_url, names, _ in said(client) if type_url == EDS][-1] == ["a"]


def test_a_message_sent_before_a_refusal_was_known_blames_nobody_new():
    """SotW repeats everything, the culprit of the message before included."""
    client = envoy(Variant.SOTW, mesh("a"))
    change(client, resource(CDS, "a", "bad", eds="a"))
    client.serve()
    change(client, resource(CDS, "b", "1", eds="b"))
    client.settle()
    assert [made.name for made in client.session.rejected()] == ["a"]
    assert "b" in client.state[CDS]


def test_the_sources_of_what_was_refused_are_kept():
    """Issue 2: attributed to the object that caused it, error at most 1 KB."""
    client = envoy(Variant.DELTA, mesh("a"))
    change(client, resource(CDS, "a", "bad", eds="a"))
    client.settle()
    (rejected,) = client.session.rejected()
    assert rejected.sources[0].name == "a"
    assert rejected.version == client.world.named(CDS, "a").version


def test_the_time_from_change_to_ack_is_measured():
    """PU-11: convergence begins when the change became known, not when it was sent."""
    client = envoy(Variant.DELTA, mesh("a"))
    change(client, resource(EDS, "a", "2"))
    client.now += 2
    message = client.session.next_message(client.now)
    client.now += 1
    effects = client.session.receive(DeltaRequest(type_url=EDS, nonce=message.nonce), client.now)
    assert effects.acked.convergence_seconds == 3
    assert effects.acked.round_trip_seconds == 1


def test_large_delta_messages_are_split():
    """gRPC clients take 4 MiB unless told otherwise."""
    world = World()
    for number in range(5):
        world.put(resource(CDS, f"c{number}", f"{number}" * (MAX_DELTA_BYTES // 2)))
    client = Client(Variant.DELTA, world)
    client.want_all(CDS)
    client.settle()
    assert [len(names) for _, names, _ in said(client)] == [1, 1, 1, 1, 1]
    assert len(client.state[CDS]) == 5


def test_a_client_that_never_answers_costs_no_memory():
    client = envoy(Variant.DELTA, mesh("a"))
    for number in range(200):
        change(client, resource(EDS, "a", f"{number}"))
        client.session.next_message(client.now)
    assert client.session.watches[EDS].in_flight <= 4


@both
def test_an_answer_that_skips_messages_counts_for_them(variant):
    """Envoy may answer the last of several responses only."""
    client = envoy(variant, mesh("a", "b"))
    change(client, resource(EDS, "a", "2"))
    client.serve()
    change(client, resource(EDS, "b", "2"))
    client.serve()
    client.inbox.pop(0)
    client.state[EDS]["a"] = client.world.named(EDS, "a")
    client.settle()
    assert client.session.watches[EDS].is_settled
    assert len(client.log) == 2


def test_variants_do_not_mix():
    """Each service has its own messages."""
    with pytest.raises(InvalidRequest, match="state-of-the-world"):
        Session(Variant.SOTW, World(), 0.0).receive(DeltaRequest(type_url=CDS), 0.0)
    with pytest.raises(InvalidRequest, match="delta"):
        Session(Variant.DELTA, World(), 0.0).receive(SotwRequest(type_url=CDS), 0.0)


def test_types_are_bounded():
    """A client cannot make the server remember without end."""
    session = Session(Variant.DELTA, World(), 0.0)
    for number in range(MAX_TYPES):
        session.receive(DeltaRequest(type_url=f"t{number}"), 0.0)
    with pytest.raises(InvalidRequest, match="types"):
        session.receive(DeltaRequest(type_url="one more"), 0.0)


def test_what_is_not_known_yet_is_not_answered():
    """A class whose clusters failed to build must not be told that it has none."""

    class Unknown(World):
        def wildcard(self, type_url):
            return None

    client = Client(Variant.DELTA, Unknown())
    client.want_all(CDS)
    client.settle()
    assert said(client) == []
    client.world.wildcard = lambda type_url: {"a": resource(CDS, "a")}
    client.session.changed(CDS, None, 0.0)
    client.settle()
    assert said(client) == [(CDS, ["a"], [])]


@pytest.mark.parametrize("variant", list(Variant))
def test_what_is_acknowledged_is_what_the_client_runs_with(variant):
    """What is in flight does not count yet, and what was refused never does."""
    world = World()
    client = Client(variant, world, names_culprits=True)
    client.subscribe(EDS, "a")
    watch = client.session.watches.get
    world.put(first := resource(EDS, "a", "1"))
    client.settle()
    assert watch(EDS).acknowledged("a") == first
    world.put(second := resource(EDS, "a", "2"))
    client.session.changed(EDS, ("a",), client.now)
    client.serve()
    assert watch(EDS).acknowledged("a") == first
    client.settle()
    assert watch(EDS).acknowledged("a") == second
    world.put(resource(EDS, "a", "bad1"))
    client.session.changed(EDS, ("a",), client.now)
    client.settle()
    assert watch(EDS).acknowledged("a") == second
    assert watch(EDS).acknowledged("b") is None
