"""On the TLS port a proxy is who its certificate says."""

import pytest

from pilothouse.model.proxies import NodeType, Proxy
from pilothouse.runtime.authorization import only_itself
from pilothouse.xds.auth import NotAuthorized

URI = "peer_uri"
ALICE = b"spiffe://cluster.local/ns/default/sa/alice"


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
    """Namespace and service account match (C-A-8); names of other kinds do not count."""
    only_itself({URI: [ALICE]}, proxy())
    only_itself({URI: [ALICE], "x509_subject_alternative_name": [b"bob.example", ALICE]}, proxy())


@pytest.mark.parametrize(
    ("namespace", "account"), [("other", "alice"), ("default", "bob"), ("default", "")]
)
def test_other_identity_is_refused(namespace: str, account: str) -> None:
    """What the node claims beyond its certificate is refused (C-A-8)."""
    with pytest.raises(NotAuthorized, match="The certificate says spiffe://"):
        only_itself({URI: [ALICE]}, proxy(namespace, account))


@pytest.mark.parametrize(
    "names",
    [
        [],
        [b"https://alice.example"],
        [ALICE, ALICE],
        [b"spiffe://cluster.local/x"],
        [b"spiffe://\xff"],
    ],
)
def test_no_single_identity_is_refused(names: list[bytes]) -> None:
    """No identity, several, or a malformed one: fail closed (C-R-13)."""
    with pytest.raises(NotAuthorized):
        only_itself({URI: names}, proxy())
    with pytest.raises(NotAuthorized):
        only_itself({"x509_subject_alternative_name": [ALICE]}, proxy())
