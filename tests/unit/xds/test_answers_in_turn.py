"""Answers and pushes of one stream: in turn, numbered, and nothing for types nobody serves."""

import pytest
from xds_model import Client, World, resource

from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryResponse,
    DiscoveryResponse,
)
from pilothouse.model.resource import CDS, EDS, LDS, RDS
from pilothouse.xds.requests import DeltaRequest, SotwRequest, Variant
from pilothouse.xds.session import Session
from pilothouse.xds.wire import Framer, version_of

VIRTUAL_HOSTS = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
both = pytest.mark.parametrize("variant", list(Variant))


def world(**contents: str) -> World:
    """Each name a cluster, its endpoints, a listener and its routes of that content."""
    made = World()
    for name, content in contents.items():
        put(made, name, content)
    return made


def put(made: World, name: str, content: str) -> None:
    made.put(resource(CDS, name, content, eds=name))
    for type_url in (EDS, LDS, RDS):
        made.put(resource(type_url, name, content))


def ask(variant: Variant, type_url: str, *names: str) -> SotwRequest | DeltaRequest:
    if variant is Variant.SOTW:
        return SotwRequest(type_url=type_url, names=names)
    return DeltaRequest(type_url=type_url, subscribe=names)


@both
def test_a_request_is_answered_together_with_what_waits_to_be_pushed(variant: Variant) -> None:
    """XP-06: the state when the writer is free; nothing is sent twice, none overlaps another."""
    made = world(a="1", b="1")
    client = Client(variant, made)
    client.want_all(CDS)
    client.subscribe(EDS, "a")
    client.settle()
    client.log.clear()
    made.put(resource(EDS, "a", "2"))
    client.session.changed(EDS, ("a",), client.now)  # a push waits
    client.subscribe(EDS, "b")  # and the client asks
    client.settle()
    sent = [[each.name for each in message.resources] for message in client.log]
    assert sorted(name for names in sent for name in names) == ["a", "b"]
    assert all(message.type_url == EDS for message in client.log)
    assert {each.name: each.data for each in client.state[EDS].values()} == {"a": b"2", "b": b"1"}


@both
def test_a_message_is_known_by_its_nonce(variant: Variant) -> None:
    """XP-05: no two messages of a stream share one, whatever their types and versions."""
    made = world(a="1", b="1")
    client = Client(variant, made)
    client.want_all(CDS)
    client.want_all(LDS)
    client.subscribe(EDS, "a", "b")
    client.subscribe(RDS, "a", "b")
    client.settle()
    for round_ in "23":
        for name in "ab":
            put(made, name, round_)
        client.session.changed_all(client.now)
        client.settle()
    nonces = [message.nonce for message in client.log]
    assert len(nonces) > 8
    assert len(set(nonces)) == len(nonces)


@both
def test_a_version_says_what_is_in_a_message(variant: Variant) -> None:
    """XP-05, XP-07, XD-07: the same for all clients and after a restart; it names no server."""
    seen = []
    for content in ("1", "1", "2"):
        session = Session(variant, world(a=content, b="1"), 0.0)
        session.receive(ask(variant, CDS), 0.0)
        message = session.next_message(0.0)
        assert message is not None
        seen.append(version_of(message))
        data = Framer().frame(variant, message)
        if variant is Variant.SOTW:
            shown = DiscoveryResponse.FromString(data)
            assert shown.version_info == seen[-1]
        else:
            delta = DeltaDiscoveryResponse.FromString(data)
            assert delta.system_version_info == seen[-1]
            shown = delta  # type: ignore[assignment]
        assert shown.nonce == message.nonce
        assert not shown.HasField("control_plane")
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("type_url", [VIRTUAL_HOSTS, "type.googleapis.com/nobody.knows.It"])
def test_a_type_that_is_not_served_has_nothing(type_url: str) -> None:
    """
    GN-01, XD-09: a delta client is told that the names do not exist, one of SotW nothing.

    The stream goes on: other types are answered as ever.
    """
    for variant in Variant:
        session = Session(variant, world(a="1"), 0.0)
        session.receive(ask(variant, type_url, "x"), 0.0)
        message = session.next_message(0.0)
        if variant is Variant.SOTW:
            assert message is None
        else:
            assert message is not None
            assert (message.resources, message.removed) == ((), ("x",))
        session.receive(ask(variant, CDS), 0.0)
        clusters = session.next_message(0.0)
        assert clusters is not None
        assert [each.name for each in clusters.resources] == ["a"]
