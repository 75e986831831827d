"""Which filter chain serves a connection: nine criteria, no way back (LS-06, LS-13)."""

import pytest
from served_config import (
    HTTP_INSPECTOR,
    TLS_INSPECTOR,
    ask,
    cluster,
    config,
    host,
    http_chain,
    listener,
    route,
    tcp_chain,
)

from pilothouse.simulator.choice import Reason, Step
from pilothouse.simulator.outcome import Closed, CloseReason, NotSimulated, Outcome
from pilothouse.simulator.request import ApplicationProtocol, Request, TlsHello

BOTH = [TLS_INSPECTOR, HTTP_INSPECTOR]


def among(*chains, filters=(), default=None, **request) -> Outcome:
    more = {"listener_filters": list(filters)}
    if default is not None:
        more["default_filter_chain"] = default
    names = [each["name"] for each in chains]
    served = config(
        listener("l", "0.0.0.0", 80, *chains, **more),
        clusters=tuple(cluster(name) for name in names),
    )
    return ask(served, **{"protocol": ApplicationProtocol.TCP, **request})


def name(outcome: Outcome) -> str:
    return outcome.filter_chain.name if outcome.filter_chain else ""


def cidr(prefix: str, length: int) -> dict[str, object]:
    return {"address_prefix": prefix, "prefix_len": length}


def reason(outcome: Outcome, candidate: str) -> Reason:
    lost = {each.candidate: each for each in outcome.losses if each.step is Step.FILTER_CHAIN}
    return lost[candidate].mismatches[0].reason


def test_the_port_comes_first() -> None:
    chains = (tcp_chain("any"), tcp_chain("port", destination_port=80))
    outcome = among(*chains)
    assert name(outcome) == "port"
    assert reason(outcome, "any") is Reason.LESS_SPECIFIC
    other = among(tcp_chain("any"), tcp_chain("port", destination_port=81))
    assert name(other) == "any"
    assert reason(other, "port") is Reason.PORT


def test_there_is_no_way_back_to_a_less_specific_port() -> None:
    """A chain for the port loses by SNI: the default serves, not the chain for any port."""
    chains = (
        tcp_chain("any"),
        tcp_chain("port", destination_port=80, server_names=["a.example"]),
    )
    assert name(among(*chains)) == ""
    assert name(among(*chains, default=tcp_chain("rest"))) == "rest"


def test_the_longest_prefix_wins() -> None:
    chains = (
        tcp_chain("ten", prefix_ranges=[cidr("10.0.0.0", 8)]),
        tcp_chain("near", prefix_ranges=[cidr("10.0.0.0", 24), cidr("192.168.0.0", 16)]),
        tcp_chain("far", prefix_ranges=[cidr("172.16.0.0", 12)]),
        tcp_chain("any"),
    )
    outcome = among(*chains)
    assert name(outcome) == "near"
    assert reason(outcome, "ten") is Reason.LESS_SPECIFIC
    assert reason(outcome, "far") is Reason.ADDRESS
    assert name(among(*chains, address="10.1.0.1")) == "ten"
    assert name(among(*chains, address="8.8.8.8")) == "any"


@pytest.mark.parametrize(
    ("server_name", "expected"),
    [
        ("a.b.example", "exact"),
        ("A.B.EXAMPLE", "exact"),
        ("x.b.example", "near"),
        ("x.y.b.example", "near"),
        ("b.example", "wide"),
        ("c.example", "wide"),
        ("example", "any"),
        ("", "any"),
    ],
)
def test_server_names(server_name: str, expected: str) -> None:
    """The whole name, then the longest wildcard, then none; a wildcard takes no bare domain."""
    outcome = among(
        tcp_chain("any"),
        tcp_chain("wide", server_names=["*.example"]),
        tcp_chain("near", server_names=["*.b.example"]),
        tcp_chain("exact", server_names=["a.b.example"]),
        filters=[TLS_INSPECTOR],
        tls=TlsHello(server_name=server_name),
    )
    assert name(outcome) == expected


def test_the_clients_order_of_protocols_counts() -> None:
    chains = (
        tcp_chain("h1", application_protocols=["http/1.1"]),
        tcp_chain("h2", application_protocols=["h2"]),
        tcp_chain("any"),
    )
    for first, second, expected in (("h2", "http/1.1", "h2"), ("http/1.1", "h2", "h1")):
        hello = TlsHello(alpn=(first, second))
        assert name(among(*chains, filters=[TLS_INSPECTOR], tls=hello)) == expected
    outcome = among(*chains, filters=[TLS_INSPECTOR], tls=TlsHello(alpn=("other",)))
    assert name(outcome) == "any"
    assert reason(outcome, "h2") is Reason.APPLICATION_PROTOCOL


def test_transport_comes_before_application_protocol() -> None:
    chains = (
        tcp_chain("raw", transport_protocol="raw_buffer"),
        tcp_chain("http", application_protocols=["http/1.1"]),
    )
    http = ApplicationProtocol.HTTP_1_1
    outcome = among(*chains, filters=BOTH, protocol=http)
    assert name(outcome) == "raw"
    assert reason(outcome, "http") is Reason.LESS_SPECIFIC


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        (ApplicationProtocol.HTTP_1_1, "http"),
        (ApplicationProtocol.HTTP_2, "http"),
        (ApplicationProtocol.HTTP_1_0, "raw"),
        (ApplicationProtocol.TCP, "raw"),
    ],
)
def test_plain_http_is_told_from_the_rest(protocol: ApplicationProtocol, expected: str) -> None:
    """LS-06: http_inspector's names are http/1.0, http/1.1 and h2c."""
    match = {"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]}
    chains = (
        tcp_chain("http", **match),
        tcp_chain("raw", transport_protocol="raw_buffer"),
        tcp_chain("any"),
    )
    assert name(among(*chains, filters=BOTH, protocol=protocol)) == expected


def test_nothing_is_known_without_inspectors() -> None:
    """Nor does a chain for any transport take what one for its transport refused."""
    raw_http = tcp_chain(
        "http", transport_protocol="raw_buffer", application_protocols=["http/1.1"]
    )
    http = ApplicationProtocol.HTTP_1_1
    assert name(among(raw_http, tcp_chain("any"), protocol=http)) == ""
    raw = tcp_chain("raw", transport_protocol="raw_buffer")
    assert name(among(raw_http, raw, protocol=http)) == "raw"


def test_the_tls_inspector_is_not_added_by_itself() -> None:
    chains = (tcp_chain("named", server_names=["a.example"]), tcp_chain("any"))
    hello = TlsHello(server_name="a.example")
    assert name(among(*chains, tls=hello)) == "any"
    assert name(among(*chains, tls=hello, filters=[TLS_INSPECTOR])) == "named"


@pytest.mark.parametrize(
    ("rule", "is_on"),
    [
        ({"destination_port_range": {"start": 80, "end": 81}}, False),
        ({"destination_port_range": {"start": 79, "end": 80}}, True),
        ({"any_match": True}, False),
        ({"not_match": {"any_match": True}}, True),
        (
            {
                "or_match": {
                    "rules": [
                        {"destination_port_range": {"start": 1, "end": 2}},
                        {"destination_port_range": {"start": 80, "end": 81}},
                    ]
                }
            },
            False,
        ),
        (
            {
                "and_match": {
                    "rules": [
                        {"any_match": True},
                        {"destination_port_range": {"start": 1, "end": 2}},
                    ]
                }
            },
            True,
        ),
    ],
)
def test_inspectors_can_be_off_for_ports(rule: dict[str, object], is_on: bool) -> None:
    """LS-13: a declared port is not inspected."""
    chains = (tcp_chain("http", application_protocols=["http/1.1"]), tcp_chain("any"))
    inspector = {**HTTP_INSPECTOR, "filter_disabled": rule}
    outcome = among(
        *chains, filters=[TLS_INSPECTOR, inspector], protocol=ApplicationProtocol.HTTP_1_1
    )
    assert name(outcome) == ("http" if is_on else "any")


def test_sources() -> None:
    chains = (
        tcp_chain("local", source_type="SAME_IP_OR_LOOPBACK"),
        tcp_chain("external", source_type="EXTERNAL"),
        tcp_chain("any"),
    )
    assert name(among(*chains)) == "local"
    assert name(among(*chains, source_address="10.0.0.1")) == "local"
    assert name(among(*chains, source_address="10.0.0.9")) == "external"
    ranged = (
        tcp_chain("near", source_prefix_ranges=[cidr("10.0.0.0", 8)], source_ports=[7]),
        tcp_chain("direct", direct_source_prefix_ranges=[cidr("192.168.0.0", 16)]),
        tcp_chain("any"),
    )
    assert name(among(*ranged, source_address="10.0.0.9", source_port=7)) == "near"
    assert name(among(*ranged, source_address="10.0.0.9", source_port=8)) == ""
    assert name(among(*ranged, source_address="192.168.3.3")) == "direct"


def test_equal_matches_are_told() -> None:
    outcome = among(tcp_chain("one"), tcp_chain("two"))
    assert name(outcome) == "one"
    assert reason(outcome, "two") is Reason.DUPLICATE


def test_without_a_chain_the_connection_is_closed() -> None:
    outcome = among(tcp_chain("other", destination_port=81))
    assert isinstance(outcome.action, Closed)
    assert outcome.action.reason is CloseReason.NO_FILTER_CHAIN


def test_the_default_chain_loses_to_any_other() -> None:
    outcome = among(tcp_chain("any"), default=tcp_chain("rest"))
    assert name(outcome) == "any"
    assert reason(outcome, "rest") is Reason.FALLBACK


def test_a_matcher_tree_is_not_guessed() -> None:
    served = config(listener("l", "0.0.0.0", 80, filter_chain_matcher={}))
    assert isinstance(ask(served).action, NotSimulated)


def test_plain_http_and_tls_do_not_mix() -> None:
    plain = config(listener("l", "0.0.0.0", 80, http_chain("h", host("v", route("r")))))
    outcome = ask(plain, tls=TlsHello())
    assert isinstance(outcome.action, Closed)
    assert outcome.action.reason is CloseReason.NOT_HTTP
    tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    secured = http_chain("h", host("v", route("r"))) | {
        "transport_socket": {"name": "tls", "typed_config": {"@type": tls}}
    }
    served = config(listener("l", "0.0.0.0", 80, secured), clusters=(cluster("r"),))
    refused = ask(served)
    assert isinstance(refused.action, Closed)
    assert refused.action.reason is CloseReason.NOT_TLS
    assert ask(served, tls=TlsHello()).clusters == ("r",)


def test_a_request_knows_its_addresses() -> None:
    request = Request(address="10.0.0.1", port=80, source_address="::1")
    assert str(request.destination) == "10.0.0.1"
    assert str(request.source) == "::1"
