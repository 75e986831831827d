"""Chains that end TLS: what both sides agree on decides how the inside is read (N-74, S-PA-10)."""

import pytest
from served_config import (
    TLS_INSPECTOR,
    TYPE,
    ask,
    cluster,
    config,
    host,
    http_chain,
    listener,
    route,
)

from pilothouse.simulator.actions import HttpForward
from pilothouse.simulator.outcome import Closed, CloseReason, Outcome
from pilothouse.simulator.request import ApplicationProtocol, TlsHello


def through(alpn: tuple[str, ...] | None, protocol: ApplicationProtocol, **tls: object) -> Outcome:
    chain = http_chain("c", host("h", route("up")))
    chain["filter_chain_match"] = {"transport_protocol": "tls"}
    chain["transport_socket"] = {
        "name": "tls",
        "typed_config": {
            "@type": f"{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"]},
            **tls,
        },
    }
    served = config(
        listener("l", "0.0.0.0", 80, chain, listener_filters=[TLS_INSPECTOR]),
        clusters=(cluster("up"),),
    )
    hello = None if alpn is None else TlsHello(alpn=alpn)
    return ask(served, protocol=protocol, tls=hello)


@pytest.mark.parametrize(
    ("alpn", "protocol", "is_read"),
    [
        (("istio-http/1.1", "istio", "http/1.1"), ApplicationProtocol.HTTP_1_1, True),
        (("istio-h2", "istio", "h2"), ApplicationProtocol.HTTP_2, True),
        # The server's order counts, not the client's.
        (("http/1.1", "h2"), ApplicationProtocol.HTTP_1_1, False),
        (("http/1.1",), ApplicationProtocol.HTTP_2, False),
        # Agreed on nothing: the first bytes tell.
        (("istio",), ApplicationProtocol.HTTP_1_1, True),
        (("istio",), ApplicationProtocol.HTTP_2, True),
    ],
)
def test_the_agreed_protocol_is_what_is_read(
    alpn: tuple[str, ...], protocol: ApplicationProtocol, is_read: bool
) -> None:
    action = through(alpn, protocol).action
    if is_read:
        assert isinstance(action, HttpForward)
    else:
        assert isinstance(action, Closed)
        assert action.reason is CloseReason.NOT_HTTP


def test_a_wanted_client_certificate_is_assumed_and_said() -> None:
    outcome = through((), ApplicationProtocol.HTTP_1_1, require_client_certificate=True)
    assert isinstance(outcome.action, HttpForward)
    assert any("certificate" in note for note in outcome.notes)
    assert through((), ApplicationProtocol.HTTP_1_1).notes == ()
