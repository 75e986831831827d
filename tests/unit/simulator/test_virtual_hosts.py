"""Which virtual host a request's host belongs to (N-48, 3.2)."""

import pytest
from served_config import ask, cluster, config, host, http_chain, listener, route

from pilothouse.simulator.choice import Reason, Step
from pilothouse.simulator.outcome import LocalReply, Outcome, ReplyReason

HOSTS = (
    ("any", "*"),
    ("exact", "a.b.example"),
    ("wide", "*.example"),
    ("near", "*.b.example"),
    ("dash", "*-b.example"),
    ("prefix", "a.*"),
    ("ported", "ported:8080"),
    ("upper", "UPPER.example.org"),
)


def among(pairs, name: str, **configuration: object) -> Outcome:
    hosts = [host(each, route("r"), domains=(domain,)) for each, domain in pairs]
    routes = {"name": "rc", "virtual_hosts": hosts, **configuration}
    rds = {"route_config_name": "rc", "config_source": {"ads": {}}}
    served = config(
        listener("l", "0.0.0.0", 80, http_chain("h", rds=rds)),
        routes=(routes,),
        clusters=(cluster("r"),),
    )
    return ask(served, host=name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.b.example", "exact"),
        ("A.b.Example", "exact"),
        ("x.b.example", "near"),
        ("x-b.example", "dash"),
        (".b.example", "wide"),
        ("b.example", "wide"),
        (".example", "any"),
        ("a.org", "prefix"),
        ("a.", "any"),
        ("upper.example.org", "upper"),
        ("ported:8080", "ported"),
        ("ported", "any"),
        ("a.b.example:80", "prefix"),
    ],
)
def test_domains(name: str, expected: str) -> None:
    outcome = among(HOSTS, name)
    assert outcome.virtual_host is not None
    assert outcome.virtual_host.name == expected
    assert outcome.route_configuration == "rc"


@pytest.mark.parametrize("name", ["a.b.example:80", "a.b.example:9", "a.b.example"])
def test_ports_can_be_ignored(name: str) -> None:
    outcome = among(HOSTS, name, ignore_port_in_host_matching=True)
    assert outcome.virtual_host is not None
    assert outcome.virtual_host.name == "exact"


def test_an_ipv6_host_keeps_its_colons() -> None:
    pairs = (("six", "[2001:db8::1]"), ("any", "*"))
    for name in ("[2001:db8::1]", "[2001:db8::1]:80"):
        outcome = among(pairs, name, ignore_port_in_host_matching=True)
        assert outcome.virtual_host is not None
        assert outcome.virtual_host.name == "six"


def test_why_others_lost() -> None:
    outcome = among(HOSTS, "a.b.example")
    reasons = {
        each.candidate: each.mismatches[0].reason
        for each in outcome.losses
        if each.step is Step.VIRTUAL_HOST
    }
    assert reasons["near"] is Reason.LESS_SPECIFIC
    assert reasons["any"] is Reason.LESS_SPECIFIC
    assert reasons["ported"] is Reason.DOMAIN
    assert "exact" not in reasons


def test_nobodys_host_is_404() -> None:
    outcome = among(HOSTS[1:2], "other")
    assert isinstance(outcome.action, LocalReply)
    assert (outcome.status, outcome.action.reason) == (404, ReplyReason.NO_VIRTUAL_HOST)


def test_another_header_can_name_the_host() -> None:
    outcome = among(HOSTS[1:2], "a.b.example", vhost_header="x-host")
    assert outcome.virtual_host is None


def test_a_virtual_host_can_want_tls() -> None:
    served = config(
        listener("l", "0.0.0.0", 80, http_chain("h", host("v", route("r"), require_tls="ALL")))
    )
    outcome = ask(served, host="a", path="/x?y=1")
    assert isinstance(outcome.action, LocalReply)
    assert (outcome.status, outcome.action.location) == (301, "https://a/x?y=1")
