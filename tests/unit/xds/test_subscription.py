"""The protocol text's examples of subscriptions, and its limits."""

import pytest

from pilothouse.xds.requests import InvalidRequest
from pilothouse.xds.subscription import MAX_NAME_LENGTH, Subscription


def clusters():
    return Subscription(has_wildcard=True)


def test_sotw_example_of_the_protocol_text():
    """XD-01: legacy wildcard, then explicit, then one name, then nothing."""
    wanted = clusters()
    assert wanted.replace([]).wildcard_asked
    change = wanted.replace(["*", "A"])
    assert (wanted.wildcard, change.wildcard_asked, change.added) == (True, False, ("A",))
    change = wanted.replace(["A"])
    assert (wanted.wildcard, change.wildcard_ended, set(wanted.names)) == (False, True, {"A"})
    change = wanted.replace([])
    assert (wanted.wildcard, change.dropped, set(wanted.names)) == (False, ("A",), set())


def test_delta_example_of_the_protocol_text():
    """XD-01: a legacy wildcard survives a named subscription and ends with `*`."""
    wanted = clusters()
    assert wanted.adjust([], []).wildcard_asked
    change = wanted.adjust(["A"], [])
    assert (wanted.wildcard, change.added, change.wildcard_asked) == (True, ("A",), False)
    change = wanted.adjust([], ["*"])
    assert (wanted.wildcard, change.wildcard_ended, set(wanted.names)) == (False, True, {"A"})
    change = wanted.adjust([], ["A"])
    assert (wanted.wildcard, change.dropped) == (False, ("A",))
    wanted.adjust([], [])
    assert not wanted.wildcard, "an ACK does not bring the wildcard back"


def test_an_acknowledgement_keeps_a_legacy_wildcard():
    wanted = clusters()
    wanted.adjust([], [])
    assert not wanted.adjust([], []).wildcard_asked
    assert wanted.wildcard


def test_a_delta_client_may_ask_again():
    """The client may have forgotten: what it subscribes to again is asked for, though not new."""
    wanted = clusters()
    wanted.adjust(["A", "*"], [])
    change = wanted.adjust(["A", "*"], [])
    assert (change.asked, change.added, change.wildcard_asked) == (("A",), (), True)


def test_phantom_unsubscriptions_are_ignored():
    wanted = clusters()
    wanted.adjust(["A"], [])
    assert wanted.adjust([], ["B"]).dropped == ()


def test_nothing_means_nothing_where_there_is_no_wildcard():
    """5.2: empty names on EDS, RDS, SDS, ECDS are no subscription to everything."""
    for ask in (lambda w: w.replace([]), lambda w: w.adjust([], []), lambda w: w.adjust(["*"], [])):
        wanted = Subscription(has_wildcard=False)
        assert not ask(wanted).wildcard_asked
        assert not wanted.wildcard
        assert not wanted.names


def test_names_are_bounded():
    with pytest.raises(InvalidRequest, match="more than 3"):
        Subscription(has_wildcard=True, most=3).replace(["a", "b", "c", "d"])
    wanted = Subscription(has_wildcard=True, most=3)
    wanted.adjust(["a", "b"], [])
    with pytest.raises(InvalidRequest, match="more than 3"):
        wanted.adjust(["c", "d"], [])
    with pytest.raises(InvalidRequest, match="longer"):
        clusters().adjust(["x" * (MAX_NAME_LENGTH + 1)], [])


def test_sessions_share_the_text_of_names():
    """1,000 names of 100 sessions cost one slot each, not one string each."""
    one, two = clusters(), clusters()
    for wanted in (one, two):
        wanted.adjust([b"outbound|80||a".decode()], [])
    assert next(iter(one.names)) is next(iter(two.names))
