"""
Roots that the mesh config adds to those of the mesh's own authority (``caCertificates``, C-R-6).

As in Istio all roots are one bundle: each may vouch for any trust domain that is accepted, and
which are is `service_accounts.accepted_domains`. Callers of this server are verified by the mesh's
own roots alone. What cannot be read was said when the config was, and is left out.
"""

from contextlib import suppress
from typing import Final

from cryptography import x509

from pilothouse.api.root_certificates import BadRoots, read_roots
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.inputs import FETCHED_BUNDLES, THE_MESH, TRUST_BUNDLE
from pilothouse.model.mesh import mesh_config

NOT_COVERED: Final = "RootsWithoutRevocations"
_END: Final = b"-----END X509 CRL-----"


@query
def added_roots(ctx: Ctx, _key: None) -> tuple[bytes, ...]:
    """Return the roots that the mesh config adds, one PEM block each, each once."""
    found: dict[bytes, None] = {}
    for index, data in enumerate(ctx.get(mesh_config, None).ca_certificates):
        roots: list[bytes] = []
        if data.pem:
            with suppress(BadRoots):
                roots = read_roots(data.pem.encode())
        elif data.spiffe_bundle_url:
            bundle = ctx.row(FETCHED_BUNDLES, data.spiffe_bundle_url)
            roots = read_roots(bundle.roots_pem) if bundle is not None else []
        _check_revocations(ctx, roots, index)
        found.update(dict.fromkeys(roots))
    return tuple(found)


def _check_revocations(ctx: Ctx, roots: list[bytes], index: int) -> None:
    """If there is one revocation list, Envoy refuses each chain whose root has none (ADR 16)."""
    bundle = ctx.row(TRUST_BUNDLE, THE_MESH)
    if bundle is None or not bundle.crl_pem or not roots:
        return
    lists = [each + _END for each in bundle.crl_pem.split(_END)[:-1]]
    issuers = {x509.load_pem_x509_crl(each.lstrip()).issuer for each in lists}
    subjects = [x509.load_pem_x509_certificate(each).subject for each in roots]
    if any(each not in issuers for each in subjects):
        ctx.report(
            Finding(
                Severity.WARNING,
                NOT_COVERED,
                ConfigRef("MeshConfig", "", "mesh", f"caCertificates[{index}]"),
                "The mesh has revocation lists and none for all of these roots, so proxies refuse"
                " certificates of theirs.",
                "Add their lists to ca-crl.pem beside the plugged-in authority.",
            )
        )
