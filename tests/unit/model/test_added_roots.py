"""Roots that the mesh config adds: what is used, what is said of the rest (C-R-6, MC-29)."""

from datetime import timedelta

import pytest
from certificates import NOW, PEM, make_ca
from key_pairs import pair, revocation_list

from pilothouse.api.decode import decode_mesh_config
from pilothouse.api.mesh_config import CertificateData
from pilothouse.api.root_certificates import BadRoots, bundle_url
from pilothouse.graph.core import Graph
from pilothouse.model.added_roots import NOT_COVERED, added_roots
from pilothouse.model.inputs import FETCHED_BUNDLES, MESH_CONFIG, THE_MESH, TRUST_BUNDLE
from pilothouse.model.trust import FetchedBundle, TrustBundle

URL = "https://spire.partner.example/bundle"


def root(name: str) -> bytes:
    return make_ca(name, NOW, lifetime=timedelta(days=30))[0].public_bytes(PEM)


ONE, TWO, THREE = root("one"), root("two"), root("three")


class Mesh:
    """A graph with a mesh config."""

    def __init__(self, *data: CertificateData) -> None:
        decoded = decode_mesh_config(
            {
                "caCertificates": [
                    {
                        "pem": each.pem,
                        "spiffeBundleUrl": each.spiffe_bundle_url,
                        "trustDomains": list(each.trust_domains),
                        "certSigners": list(each.cert_signers),
                    }
                    for each in data
                ]
            }
        )
        self.said = [(each.code, each.ref.path) for each in decoded.findings]
        self.graph = Graph()
        self.graph.commit([(MESH_CONFIG, THE_MESH, decoded.object)])

    def roots(self) -> tuple[bytes, ...]:
        return self.graph.value(added_roots, None)


def test_all_texts_are_used_once() -> None:
    """C-R-6, MC-29: several roots in a text, several texts, a root twice; signers are no matter."""
    mesh = Mesh(
        CertificateData(pem=(ONE + TWO).decode(), trust_domains=("partner.example",)),
        CertificateData(pem=(TWO + THREE).decode(), cert_signers=("example.com/own",)),
    )
    assert mesh.roots() == (ONE, TWO, THREE)
    assert mesh.said == [("FieldNotTranslated", "caCertificates[1].certSigners")]


@pytest.mark.parametrize(
    "pem",
    ["nonsense", ONE.decode()[:200], (ONE + pair().chain).decode(), pair().chain.decode()],
    ids=["no PEM", "cut short", "a leaf beside", "a leaf"],
)
def test_a_text_that_is_not_all_authorities_is_left_out(pem: str) -> None:
    """As in Istio an entry is taken whole or not; others stay, and so do all other settings."""
    mesh = Mesh(CertificateData(pem=pem), CertificateData(pem=TWO.decode()))
    assert mesh.roots() == (TWO,)
    assert mesh.said == [("RootsUnusable", "caCertificates[0].pem")]


def test_a_bundle_counts_once_it_was_fetched() -> None:
    """MC-29: until then nothing is known of it; what is wrong there is said by who fetches."""
    mesh = Mesh(CertificateData(spiffe_bundle_url=URL))
    assert mesh.roots() == ()
    mesh.graph.commit([(FETCHED_BUNDLES, URL, FetchedBundle(roots_pem=ONE + TWO))])
    assert mesh.roots() == (ONE, TWO)
    mesh.graph.commit([(FETCHED_BUNDLES, URL, None)])
    assert mesh.roots() == ()


def test_text_comes_before_a_url() -> None:
    """An entry with both is its text, as in Istio, and somebody is told."""
    mesh = Mesh(CertificateData(pem=ONE.decode(), spiffe_bundle_url=URL))
    mesh.graph.commit([(FETCHED_BUNDLES, URL, FetchedBundle(roots_pem=TWO))])
    assert mesh.roots() == (ONE,)
    assert mesh.said == [("DoubtfulConfig", "caCertificates[0]")]


@pytest.mark.parametrize(
    "url", ["http://spire.example/bundle", "file:///etc/passwd", "https://", "https://a:b@c/", "["]
)
def test_only_https_is_fetched(url: str) -> None:
    """Who could change the answer on its way could let anybody in."""
    with pytest.raises(BadRoots):
        bundle_url(url)
    assert Mesh(CertificateData(spiffe_bundle_url=url)).said == [
        ("RootsUnusable", "caCertificates[0].spiffeBundleUrl")
    ]


def test_a_url_without_a_scheme_is_https() -> None:
    """As in Istio."""
    assert bundle_url("spire.example:8443/bundle") == "https://spire.example:8443/bundle"


def test_revocation_lists_are_for_all_roots_or_for_none() -> None:
    """C-R-8: with a list for one root Envoy refuses chains of the others, which is told."""
    mesh = Mesh(CertificateData(pem=ONE.decode()), CertificateData(pem=root("example").decode()))
    assert len(mesh.roots()) == 2
    mesh.graph.commit(
        [(TRUST_BUNDLE, THE_MESH, TrustBundle(roots_pem=TWO, crl_pem=revocation_list()))]
    )
    assert len(mesh.roots()) == 2
    said = [(each.code, each.ref.path) for each in mesh.graph.findings()]
    assert said == [(NOT_COVERED, "caCertificates[0]")], "the list is of an authority `example`"
