"""
Secrets (SDS): the mesh's certificate of a workload, its roots, and credentials of users' objects.

Who asks is part of the outer key and decides what is answered; what a secret holds is a query of
its own, shared by all who may have it. What is refused, missing or faulty has no resource and a
finding that says so. Source: security.md D-A-7, D-N-1 to D-N-7, D-C-2, D-Z-1 to D-Z-5.
"""

from typing import Final, NamedTuple

from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.added_roots import added_roots
from pilothouse.model.credentials import (
    BUILTIN,
    CA_SUFFIX,
    ROOTS,
    WORKLOAD,
    CredentialName,
    CredentialSource,
)
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.inputs import THE_MESH, TRUST_BUNDLE, WORKLOAD_CERTIFICATES
from pilothouse.model.names import BadName
from pilothouse.model.resource import SDS, Resource
from pilothouse.model.secret_access import Refusal, SecretReader, refusal
from pilothouse.model.secret_content import (
    TRUST_KEYS,
    UNUSABLE,
    CredentialKey,
    KeyMaterial,
    TrustMaterial,
    credential,
    exists,
    has_ended,
)
from pilothouse.translators.envoy.encoding import encode

REFUSED: Final = "SecretRefused"
MISSING: Final = "SecretMissing"
SECRET_FAULTS: Final = frozenset({REFUSED, MISSING, UNUSABLE})
"""Codes of findings that mean that a proxy does not have a secret it asked for (D-Z-5)."""

_FROM_AGENT: Final = Refusal(
    "It is to have its certificate from an agent, or none, as its node metadata says.",
    "Let its bootstrap say PILOTHOUSE_CERTIFICATES: ads.",
)
_FROM_ELSEWHERE: Final = Refusal(
    "This server has no certificate authority, so it has none to give.",
    "Give its proxy the files of one (TLS_CLIENT_CERT_CHAIN and the like), or an agent of the"
    " mesh's authority.",
)
_NOT_SERVED: Final = Refusal(
    "No secret of such a name is served here.",
    "Name it kubernetes://NAME, kubernetes://NAMESPACE/NAME or configmap://NAMESPACE/NAME.",
)

_WORKLOAD_NAMES: Final = frozenset({WORKLOAD, BUILTIN})
_ROOT_NAMES: Final = frozenset({ROOTS, BUILTIN + CA_SUFFIX})


class SecretQuestion(NamedTuple):
    """A secret, and who asks for it by that name."""

    reader: SecretReader
    name: str


class NamedCredential(NamedTuple):
    """A credential and the name it is asked for by, which is the name of the resource."""

    name: str
    key: CredentialKey


class _NamedIdentity(NamedTuple):
    name: str
    identity: WorkloadIdentity


@query
def secret_for(ctx: Ctx, asked: SecretQuestion) -> Resource | None:
    """Return a secret, None if there is none or the reader may not have it."""
    identity, name = asked.reader.identity, asked.name
    if identity is None:
        ctx.report(
            Finding(
                Severity.ERROR,
                REFUSED,
                ConfigRef("", "", ""),
                "A proxy without a verified identity asks for secrets and gets none.",
                "Let it connect to the secure port with a token or certificate.",
            )
        )
        return None
    if name in _ROOT_NAMES:
        return ctx.get(root_certificates, name)
    if name in _WORKLOAD_NAMES:
        if asked.reader.wants_certificates and not ctx.get(is_issued_here, None):
            _refuse(ctx, asked, ConfigRef("", "", name[:256]), _FROM_ELSEWHERE)
            return None
        if asked.reader.wants_certificates:
            return ctx.get(workload_certificate, _NamedIdentity(name, identity))
        _refuse(ctx, asked, ConfigRef("", "", name[:256]), _FROM_AGENT)
        return None
    try:
        wanted = CredentialName.parse(name).within(identity.namespace)
    except BadName:
        _refuse(ctx, asked, ConfigRef("", "", name[:256]), _NOT_SERVED)
        return None
    kind = "ConfigMap" if wanted.source is CredentialSource.CONFIG_MAP else "Secret"
    ref = ConfigRef(kind, wanted.namespace, wanted.name)
    refused = refusal(ctx, identity, wanted)
    if refused is not None:
        _refuse(ctx, asked, ref, refused)
        return None
    key = CredentialKey(kind, wanted.namespace, wanted.name, wanted.is_ca)
    answer = ctx.get(credential_secret, NamedCredential(name, key))
    if answer is None:
        _report_missing(ctx, identity, name, ref, key)
    return answer


def _report_missing(
    ctx: Ctx, identity: WorkloadIdentity, name: str, ref: ConfigRef, key: CredentialKey
) -> None:
    who = f"{identity.service_account} in {identity.namespace} waits for {name}"
    if exists(ctx, key):
        why = "which cannot be used as it is"
        remedy = f"{UNUSABLE} of the same object says what is wrong with it."
    else:
        why = "and it does not exist"
        needs = " or ".join(TRUST_KEYS) if key.is_ca else "tls.crt and tls.key"
        remedy = f"Add the {ref.kind} {ref.object_name} with {needs}, or correct its name."
    message = f"{who}, {why}; what needs it stays closed."
    ctx.report(Finding(Severity.ERROR, MISSING, ref, message, remedy))


def _refuse(ctx: Ctx, asked: SecretQuestion, ref: ConfigRef, refused: Refusal) -> None:
    # The name is the proxy's own word.
    message = f"{asked.reader.identity} asks for {asked.name[:256]!r} and does not get it."
    finding = Finding(Severity.ERROR, REFUSED, ref, f"{message} {refused.reason}", refused.remedy)
    ctx.report(finding)


@query
def root_certificates(ctx: Ctx, name: str) -> Resource | None:
    """Return all trusted roots under a name; None without an authority."""
    bundle = ctx.row(TRUST_BUNDLE, THE_MESH)
    if bundle is None:
        return None
    # A root may be added that is the mesh's own already, as when two meshes become one.
    added = (root for root in ctx.get(added_roots, None) if root not in bundle.roots_pem)
    secret = Secret(name=name)
    _trust(secret, b"".join((bundle.roots_pem, *added)), bundle.crl_pem)
    return Resource(SDS, name, encode(secret))


@query
def is_issued_here(ctx: Ctx, _: None) -> bool:
    """Tell whether certificates are to come from this server; a query, as roots change often."""
    bundle = ctx.row(TRUST_BUNDLE, THE_MESH)
    return bundle is None or bundle.is_issued_here


@query
def workload_certificate(ctx: Ctx, asked: _NamedIdentity) -> Resource | None:
    """Return the certificate of a workload under a name; None until it has been issued."""
    row = ctx.row(WORKLOAD_CERTIFICATES, str(asked.identity))
    if row is None:
        return None
    secret = Secret(name=asked.name)
    _key_pair(secret, row.chain_pem, row.key_pem)
    return Resource(SDS, asked.name, encode(secret))


@query
def credential_secret(ctx: Ctx, asked: NamedCredential) -> Resource | None:
    """Return a credential of the config for whoever may have it, None if there is none fit."""
    found = ctx.get(credential, asked.key)
    ctx.get(has_ended, asked.key)
    secret = Secret(name=asked.name)
    match found:
        case KeyMaterial():
            _key_pair(secret, found.chain_pem, found.key_pem)
            if found.staple:
                secret.tls_certificate.ocsp_staple.inline_bytes = found.staple
        case TrustMaterial():
            _trust(secret, found.roots_pem, found.crl_pem)
        case None:
            return None
    return Resource(SDS, asked.name, encode(secret), (found.source,))


def _key_pair(secret: Secret, chain_pem: bytes, key_pem: bytes) -> None:
    secret.tls_certificate.certificate_chain.inline_bytes = chain_pem
    secret.tls_certificate.private_key.inline_bytes = key_pem


def _trust(secret: Secret, roots_pem: bytes, crl_pem: bytes) -> None:
    secret.validation_context.trusted_ca.inline_bytes = roots_pem
    if crl_pem:
        secret.validation_context.crl.inline_bytes = crl_pem
