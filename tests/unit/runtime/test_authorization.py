"""On the secure port a proxy is who its credential says, and sees what is its own."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pilothouse.certs.callers import Caller, How
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.proxies import NodeType, Proxy
from pilothouse.runtime.authorization import OperatorsSeeAll, verified
from pilothouse.xds.auth import NotAuthorized, Verified, identified

ALICE = WorkloadIdentity("cluster.local", "default", "alice")


def proxy(namespace: str = "default", account: str = "alice") -> Proxy:
    """Return a proxy that claims to be that."""
    return Proxy(
        id="sidecar~10.0.0.1~a.default~x",
        type=NodeType.SIDECAR,
        ips=("10.0.0.1",),
        name="a",
        namespace=namespace,
        domain="default.svc.cluster.local",
        service_account=account,
    )


def test_own_identity_is_accepted() -> None:
    """Namespace and service account match, and the proxy gets its identity (C-A-8)."""
    assert identified(proxy(), Verified(identity=ALICE)) == replace(proxy(), identity=ALICE)


def test_the_trust_domain_is_not_compared() -> None:
    """The node does not say one; that it is one of the mesh was checked before (C-A-8, C-R-13)."""
    elsewhere = WorkloadIdentity("old.example", "default", "alice")
    assert identified(proxy(), Verified(identity=elsewhere)).identity == elsewhere


@pytest.mark.parametrize(
    ("namespace", "account"), [("other", "alice"), ("default", "bob"), ("default", "")]
)
def test_other_identity_is_refused(namespace: str, account: str) -> None:
    """What the node claims beyond its credential is refused (C-A-8)."""
    with pytest.raises(NotAuthorized, match="The credential says spiffe://"):
        identified(proxy(namespace, account), Verified(identity=ALICE))


def test_where_nobody_is_known_a_proxy_has_no_identity() -> None:
    """The plaintext port lets everybody be who they say, and calls nobody verified (C-A-7)."""
    assert identified(proxy("other"), None).identity is None


def test_operators_see_all_and_others_their_namespace() -> None:
    """Z-8, GN-07: the root namespace sees everything, others what is of their namespace."""
    may_see = OperatorsSeeAll(lambda: "istio-system")
    known, nobody = replace(proxy(), identity=ALICE), proxy()
    operator = Verified(identity=WorkloadIdentity("cluster.local", "istio-system", "ops"))
    bob = Verified(identity=replace(ALICE, service_account="bob"))
    foreign = Verified(identity=replace(ALICE, namespace="other"))
    for each in (known, nobody):
        assert may_see(operator, each)
        assert may_see(Verified(identity=ALICE), each)
        assert may_see(bob, each)
        assert not may_see(foreign, each)
        assert not may_see(None, each)


def test_what_streams_are_told_of_a_caller() -> None:
    """The end of the credential is the end of the stream, in seconds of the epoch."""
    ends_at = datetime(2030, 1, 1, tzinfo=UTC)
    caller = Caller(identity=ALICE, how=How.TOKEN, credential="token:1", ends_at=ends_at)
    told = verified(caller)
    assert told.ends_at_epoch_seconds == ends_at.timestamp()
    assert told.credential == "token:1"
