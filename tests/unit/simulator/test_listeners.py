"""Which listener gets a connection (LS-02, LS-11, LS-12)."""

import pytest
from served_config import ORIGINAL_DST, ask, config, listener

from pilothouse.simulator.choice import Reason, Step
from pilothouse.simulator.outcome import Closed, CloseReason, Outcome
from pilothouse.simulator.request import Direction, Request

CAPTURE = listener("out", "0.0.0.0", 15001, traffic_direction="OUTBOUND", use_original_dst=True)
INBOUND = listener(
    "in", "0.0.0.0", 15006, traffic_direction="INBOUND", listener_filters=[ORIGINAL_DST]
)
UNBOUND = {"bind_to_port": False, "traffic_direction": "OUTBOUND"}
EXACT = listener("exact", "10.0.0.1", 80, **UNBOUND)
WILDCARD = listener("wildcard", "0.0.0.0", 80, **UNBOUND)
SERVED = config(CAPTURE, INBOUND, WILDCARD, EXACT)


def name(outcome: Outcome) -> str | None:
    return outcome.listener.name if outcome.listener else None


def reasons(outcome: Outcome) -> dict[str, Reason]:
    return {
        each.candidate: each.mismatches[0].reason
        for each in outcome.losses
        if each.step is Step.LISTENER
    }


def test_the_listener_of_the_address_comes_before_the_wildcard() -> None:
    """LS-11: connections are handed to the listener of their original destination."""
    outcome = ask(SERVED)
    assert name(outcome) == "exact"
    assert reasons(outcome) == {
        "out": Reason.HANDED_OFF,
        "in": Reason.PORT,
        "wildcard": Reason.LESS_SPECIFIC,
    }


def test_the_wildcard_takes_other_addresses_of_its_port() -> None:
    outcome = ask(SERVED, address="10.0.0.2")
    assert name(outcome) == "wildcard"
    assert reasons(outcome)["exact"] is Reason.ADDRESS


def test_what_no_listener_is_for_stays_with_the_capturing_one() -> None:
    outcome = ask(SERVED, port=9999)
    assert name(outcome) == "out"
    assert reasons(outcome)["wildcard"] is Reason.PORT


def test_an_ipv4_wildcard_does_not_take_ipv6() -> None:
    assert name(ask(SERVED, address="2001:db8::1")) == "out"


def test_an_ipv6_wildcard_takes_ipv4_if_it_is_compatible() -> None:
    def served(**more: bool):
        own = {"socket_address": {"address": "::", "port_value": 80, **more}}
        return config(CAPTURE, {**WILDCARD, "address": own})

    assert name(ask(served(), address="2001:db8::1")) == "wildcard"
    assert name(ask(served())) == "out"
    assert name(ask(served(ipv4_compat=True))) == "wildcard"


def test_additional_addresses_count() -> None:
    more = [{"address": {"socket_address": {"address": "10.0.0.7", "port_value": 81}}}]
    served = config(CAPTURE, {**EXACT, "additional_addresses": more})
    assert name(ask(served, address="10.0.0.7", port=81)) == "exact"


def test_inbound_stays_where_it_is_captured() -> None:
    """LS-12: virtualInbound restores the address and keeps the connection."""
    outcome = ask(SERVED, direction=Direction.INBOUND)
    assert name(outcome) == "in"
    assert reasons(outcome)["exact"] is Reason.CAPTURED


def test_without_capture_only_bound_listeners_are_reached() -> None:
    bound = listener("bound", "127.0.0.1", 80)
    served = config(CAPTURE, EXACT, bound)
    assert name(ask(served, address="127.0.0.1", is_captured=False)) == "bound"
    outcome = ask(served, is_captured=False)
    assert isinstance(outcome.action, Closed)
    assert outcome.action.reason is CloseReason.NO_LISTENER
    assert reasons(outcome)["exact"] is Reason.NOT_BOUND


def test_pipes_and_udp_take_no_connections() -> None:
    udp = {"socket_address": {"address": "0.0.0.0", "port_value": 80, "protocol": "UDP"}}
    served = config(
        {"name": "pipe", "address": {"pipe": {"path": "/run/x"}}}, {"name": "udp", "address": udp}
    )
    assert name(ask(served)) is None


@pytest.mark.parametrize("bad", [{"address": "web"}, {"port": 0}, {"source_port": 70000}])
def test_what_no_connection_can_have_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"port|address"):
        Request(**{"address": "10.0.0.1", "port": 80, **bad})
