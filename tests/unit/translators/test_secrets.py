"""Secrets for who may read them, and what is said of those that nobody gets (D-Z-1 to D-Z-7)."""

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from key_pairs import pair, revocation_list

from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse.graph.core import Graph
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.inputs import CLOCK, TABLES, THE_MESH, TRUST_BUNDLE, WORKLOAD_CERTIFICATES
from pilothouse.model.issued_certificates import Clock, WorkloadCertificate
from pilothouse.model.proxies import CertificateSource, NodeType, Proxy
from pilothouse.model.resource import CDS, EDS, LDS, RDS, SDS, Resource
from pilothouse.model.trust import TrustBundle
from pilothouse.providers.directory_state import DirectoryState
from pilothouse.translators.envoy import roots

PAIR, ROOT = pair(), pair("root")


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


OBJECTS = f"""
apiVersion: v1
kind: Secret
metadata: {{name: mine, namespace: shop}}
type: kubernetes.io/tls
data:
  tls.crt: {text(PAIR.chain)}
  tls.key: {text(PAIR.key)}
  ca.crt: {text(ROOT.chain)}
  ca.crl: {text(revocation_list())}
---
apiVersion: v1
kind: Secret
metadata: {{name: broken, namespace: shop}}
data: {{tls.crt: {text(PAIR.chain)}, tls.key: {text(ROOT.key)}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: bundle, namespace: shop}}
data: {{ca.crt: "{ROOT.chain.decode().replace(chr(10), chr(92) + "n")}"}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: secret-reader, namespace: shop}}
rules:
- {{apiGroups: [""], resources: [secrets], verbs: [get, watch, list]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: gateway-secrets, namespace: shop}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: secret-reader}}
subjects: [{{kind: ServiceAccount, name: gateway, namespace: shop}}]
"""


class Served:
    """A graph over the objects; asks as proxies would."""

    def __init__(self, objects: str = OBJECTS) -> None:
        self.graph = Graph()
        self._state = DirectoryState()
        self.apply(objects)

    def apply(self, objects: str) -> None:
        changes = self._state.update("mesh.yaml", objects)
        self.graph.commit((TABLES[each.kind], each.key, each.row) for each in changes)

    def get(self, type_url: str, name: str, proxy: Proxy) -> Resource | None:
        classes = self.graph.value(roots.proxy_class, proxy)
        root = roots.named(type_url, classes, name)
        assert root is not None
        found: Resource | None = self.graph.value(*root)
        return found

    def secret(self, name: str, proxy: Proxy) -> Secret | None:
        found = self.get(SDS, name, proxy)
        return None if found is None else Secret.FromString(found.data)

    def codes(self) -> list[tuple[str, str]]:
        return [(each.code, each.ref.object_name) for each in self.graph.findings()]


def proxy(account: str = "gateway", namespace: str = "shop", **more: Any) -> Proxy:
    return Proxy(
        **{
            "id": f"sidecar~10.0.0.1~{account}-1.{namespace}~{namespace}.svc.cluster.local",
            "type": NodeType.SIDECAR,
            "ips": ("10.0.0.1",),
            "name": f"{account}-1",
            "namespace": namespace,
            "domain": f"{namespace}.svc.cluster.local",
            "service_account": account,
            "certificates": CertificateSource.ADS,
            "identity": WorkloadIdentity("cluster.local", namespace, account),
            **more,
        }
    )


def test_an_account_that_may_list_secrets_gets_them() -> None:
    """D-Z-2, D-N-1, D-C-2, GN-02: by either name; the resource has the name it was asked for by."""
    served = Served()
    for name in ("kubernetes://mine", "kubernetes://shop/mine"):
        secret = served.secret(name, proxy())
        assert secret is not None
        assert secret.name == name
        assert secret.tls_certificate.private_key.inline_bytes == PAIR.key
        assert secret.tls_certificate.certificate_chain.inline_bytes == PAIR.chain
    assert served.codes() == []


def test_what_to_trust_needs_no_role() -> None:
    """D-Z-4, D-N-7, D-N-3: and never comes with a key."""
    served = Served()
    for name in ("kubernetes://mine-cacert", "configmap://shop/bundle"):
        secret = served.secret(name, proxy("other"))
        assert secret is not None
        assert secret.validation_context.trusted_ca.inline_bytes == ROOT.chain
        assert not secret.HasField("tls_certificate")
    secret = served.secret("kubernetes://mine-cacert", proxy("other"))
    assert secret is not None
    assert b"X509 CRL" in secret.validation_context.crl.inline_bytes


@pytest.mark.parametrize(
    ("name", "who", "expected"),
    [
        ("kubernetes://mine", proxy("other"), ("SecretRefused", "shop/mine")),
        ("kubernetes://shop/mine", proxy(namespace="else"), ("SecretRefused", "shop/mine")),
        ("kubernetes://shop/mine-cacert", proxy(namespace="else"), ("SecretRefused", "shop/mine")),
        ("kubernetes-gateway://shop/mine", proxy(), ("SecretRefused", "shop/mine")),
        ("kubernetes://mine", proxy(identity=None), ("SecretRefused", "")),
        ("ROOTCA", proxy(identity=None), ("SecretRefused", "")),
        ("sds://mine", proxy(), ("SecretRefused", "sds://mine")),
        ("file-cert:/a", proxy(), ("SecretRefused", "file-cert:/a")),
        (
            "default",
            proxy(certificates=CertificateSource.AGENT),
            ("SecretRefused", "default"),
        ),
        ("kubernetes://absent", proxy(), ("SecretMissing", "shop/absent")),
    ],
)
def test_what_is_not_given_is_said(name: str, who: Proxy, expected: tuple[str, str]) -> None:
    """D-Z-1, D-Z-3, D-Z-5: the operator sees why, the proxy gets nothing."""
    served = Served()
    assert served.secret(name, who) is None
    assert served.codes() == [expected]
    assert "PRIVATE" not in repr(served.graph.findings())


def test_a_malformed_pair_is_left_out() -> None:
    """D-C-4."""
    served = Served()
    assert served.secret("kubernetes://broken", proxy()) is None
    assert set(served.codes()) == {
        ("SecretUnusable", "shop/broken"),
        ("SecretMissing", "shop/broken"),
    }


@pytest.mark.parametrize(
    ("data", "path", "message"),
    [
        ({"tls.crt": PAIR.chain, "tls.key": ROOT.key}, "data[tls.key]", "is not the key of"),
        ({"tls.crt": PAIR.chain}, "data[tls.crt]", "It holds tls.crt without tls.key."),
        ({"key": PAIR.key}, "data[key]", "It holds key without cert."),
        ({"tls.crt": b"x", "tls.key": b"y"}, "data[tls.crt]", "tls.crt holds no certificates."),
        ({"tls.crt": PAIR.chain, "tls.key": b"y"}, "data[tls.key]", "no unencrypted private key"),
        ({"token": b"x"}, "", "It holds no certificate with a key."),
    ],
)
def test_what_is_wrong_is_named(data: dict[str, bytes], path: str, message: str) -> None:
    """D-C-4: object, field and remedy; and that somebody waits, with where to look."""
    lines = "".join(f"  {name}: {text(value)}\n" for name, value in data.items())
    faulty = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: it, namespace: shop}\ndata:\n"
    served = Served(OBJECTS + faulty + lines)
    assert served.secret("kubernetes://it", proxy()) is None
    waits, wrong = sorted(served.graph.findings(), key=lambda each: each.code)
    assert (wrong.code, wrong.ref.object_name, wrong.ref.path) == (
        "SecretUnusable",
        "shop/it",
        path,
    )
    assert message in wrong.message
    assert wrong.remedy
    assert waits.code == "SecretMissing"
    assert "gateway in shop waits for kubernetes://it" in waits.message
    assert "SecretUnusable" in waits.remedy


def test_what_is_not_there_is_told_from_what_is_faulty() -> None:
    """The remedy names the object to add."""
    served = Served()
    for name, remedy in (
        ("kubernetes://gone", "Add the Secret shop/gone with tls.crt and tls.key"),
        ("kubernetes://gone-cacert", "Add the Secret shop/gone with cacert or ca.crt"),
        ("configmap://shop/gone-cacert", "Add the ConfigMap shop/gone-cacert with cacert"),
    ):
        assert served.secret(name, proxy()) is None
        assert any(remedy in each.remedy for each in served.graph.findings()), name


def test_an_ended_certificate_is_sent_and_said() -> None:
    """D-C-4: peers refuse it, which is better than nobody knowing why there is none."""
    old = pair(days=1)
    objects = OBJECTS.replace(text(PAIR.chain), text(old.chain)).replace(
        text(PAIR.key), text(old.key)
    )
    served = Served(objects)
    before = served.get(SDS, "kubernetes://mine", proxy())
    served.graph.commit([(CLOCK, THE_MESH, Clock(datetime(2020, 1, 1, tzinfo=UTC)))])
    assert served.get(SDS, "kubernetes://mine", proxy()) == before
    assert before is not None
    assert served.codes() == [("SecretExpired", "shop/mine")]


def test_a_role_that_goes_takes_the_secret_away() -> None:
    served = Served()
    assert served.secret("kubernetes://mine", proxy()) is not None
    served.apply(OBJECTS.replace("name: gateway, namespace: shop", "name: gateway, namespace: x"))
    assert served.secret("kubernetes://mine", proxy()) is None


@pytest.mark.parametrize(
    ("rule", "is_given"),
    [
        ('{apiGroups: [""], resources: [secrets], verbs: [list]}', True),
        ('{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}', True),
        ('{apiGroups: [""], resources: [secrets], verbs: [get], resourceNames: [mine]}', True),
        ('{apiGroups: [""], resources: [secrets], verbs: [get]}', False),
        ('{apiGroups: [""], resources: [secrets], verbs: [get], resourceNames: [x]}', False),
        ('{apiGroups: [""], resources: [secrets], verbs: [list], resourceNames: [mine]}', False),
        ("{apiGroups: [apps], resources: [secrets], verbs: [list]}", False),
        ('{apiGroups: [""], resources: [pods], verbs: [list]}', False),
    ],
)
def test_roles_mean_what_they_mean_to_kubernetes(rule: str, is_given: bool) -> None:
    """D-Z-2: or a role that lets an account get this one by name."""
    old = '{apiGroups: [""], resources: [secrets], verbs: [get, watch, list]}'
    served = Served(OBJECTS.replace(old, rule))
    assert (served.secret("kubernetes://mine", proxy()) is not None) is is_given


@pytest.mark.parametrize(
    ("subject", "is_given"),
    [
        ("{kind: ServiceAccount, name: gateway}", True),
        ("{kind: User, name: 'system:serviceaccount:shop:gateway'}", True),
        ("{kind: Group, name: 'system:serviceaccounts:shop'}", True),
        ("{kind: Group, name: 'system:serviceaccounts:else'}", False),
        ("{kind: User, name: gateway}", False),
    ],
)
@pytest.mark.parametrize("everywhere", [False, True])
def test_bindings_give_to_whom_they_name(subject: str, is_given: bool, everywhere: bool) -> None:
    """D-Z-2."""
    objects = OBJECTS.replace("{kind: ServiceAccount, name: gateway, namespace: shop}", subject)
    if everywhere:
        objects = objects.replace("kind: Role\n", "kind: ClusterRole\n")
        objects = objects.replace("kind: Role,", "kind: ClusterRole,")
        objects = objects.replace("kind: RoleBinding", "kind: ClusterRoleBinding")
        objects = objects.replace("name: secret-reader, namespace: shop", "name: 'system:reader'")
        objects = objects.replace(
            "kind: ClusterRole, name: secret-reader", "kind: ClusterRole, name: 'system:reader'"
        )
        is_given = is_given and "namespace" not in subject and "ServiceAccount" not in subject
    served = Served(objects)
    assert (served.secret("kubernetes://mine", proxy()) is not None) is is_given


def test_the_certificates_of_the_mesh() -> None:
    """D-A-7, D-N-4: each its own, and the roots for all."""
    served = Served("")
    served.graph.commit(
        [
            (TRUST_BUNDLE, THE_MESH, TrustBundle(roots_pem=ROOT.chain, crl_pem=revocation_list())),
            (
                WORKLOAD_CERTIFICATES,
                "spiffe://cluster.local/ns/shop/sa/gateway",
                WorkloadCertificate(chain_pem=PAIR.chain, key_pem=PAIR.key),
            ),
        ]
    )
    for name in ("default", "builtin://"):
        own = served.secret(name, proxy())
        assert own is not None
        assert (own.name, own.tls_certificate.private_key.inline_bytes) == (name, PAIR.key)
        assert served.secret(name, proxy("other")) is None
    for name in ("ROOTCA", "builtin://-cacert"):
        trusted = served.secret(name, proxy("other"))
        assert trusted is not None
        assert trusted.validation_context.trusted_ca.inline_bytes == ROOT.chain
        assert b"X509 CRL" in trusted.validation_context.crl.inline_bytes


def test_accounts_share_everything_but_secrets() -> None:
    """An identity of its own must not make a proxy's clusters, routes or endpoints its own."""
    served = Served()
    one, other = (served.graph.value(roots.proxy_class, proxy(name)) for name in ("a", "b"))
    assert one != other
    for type_url in (CDS, LDS):
        assert roots.wildcard(type_url, one) == roots.wildcard(type_url, other)
    for type_url, name in ((EDS, "outbound|80||a.example"), (RDS, "80")):
        assert roots.named(type_url, one, name) == roots.named(type_url, other, name)
    assert roots.named(SDS, one, "default") != roots.named(SDS, other, "default")
