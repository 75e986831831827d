"""
What a config dump says of secrets, for people: whose certificates, of whom, until when.

Reads the JSON that Envoy's admin and our own debug page show (``SecretsConfigDump``). Of private
keys it can say only that there is one: they are replaced before they get here, and nothing but
certificates and lists is ever read. Pure.
"""

from base64 import b64decode
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes

_STATES: Final = {
    "static_secrets": "static",
    "dynamic_active_secrets": "active",
    "dynamic_warming_secrets": "awaited",
}
"""Lists of a dump, and what it means for a secret to be there; Envoy's word is "warming"."""

_CRL_END: Final = b"-----END X509 CRL-----"


class CertificateView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One certificate; `serial` is lower-case hexadecimal, names are RFC 4514."""

    subject: str
    issuer: str
    serial: str
    not_before: datetime
    not_after: datetime
    is_authority: bool
    spiffe_id: str = ""
    names: tuple[str, ...] = ()
    sha256: str


class SecretView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """
    One secret: `kind` is key pair, roots, other or unknown; `state` static, active or awaited.

    `files` are those it is read from, if it is not in the dump itself. `problem` says what cannot
    be read of it. `revocations` is how many revocation lists it has.
    """

    name: str
    kind: str
    state: str
    updated: str = ""
    certificates: tuple[CertificateView, ...] = ()
    has_key: bool = False
    revocations: int = 0
    files: tuple[str, ...] = ()
    problem: str = ""


def secrets_of(dump: Mapping[str, Any]) -> list[SecretView]:
    """Return the secrets of a config dump in its order; what it is not about is passed over."""
    configs = dump.get("configs")
    return [
        view
        for section in (configs if isinstance(configs, list) else ())
        if isinstance(section, dict)
        for view in _of_section(section)
    ]


def _of_section(section: Mapping[str, Any]) -> Iterator[SecretView]:
    kind = str(section.get("@type", ""))
    if kind.endswith(".SecretsConfigDump"):
        for field, state in _STATES.items():
            entries = section.get(field)
            for entry in entries if isinstance(entries, list) else ():
                if isinstance(entry, dict):
                    yield _view(entry, state)
    elif isinstance(section.get("secret"), dict):
        # With `?resource=` Envoy shows the entries without a section.
        yield _view(section, "active")


def _view(entry: Mapping[str, Any], state: str) -> SecretView:
    secret = entry.get("secret")
    secret = secret if isinstance(secret, dict) else {}
    common: dict[str, Any] = {
        "name": str(entry.get("name") or secret.get("name") or ""),
        "state": state,
        "updated": str(entry.get("last_updated", "")),
    }
    if isinstance(pair := secret.get("tls_certificate"), dict):
        return _with_certificates(
            common, "key pair", pair.get("certificate_chain"), pair.get("private_key")
        )
    if isinstance(trust := secret.get("validation_context"), dict):
        return _with_certificates(common, "roots", trust.get("trusted_ca"), crl=trust.get("crl"))
    return SecretView(kind="unknown" if state == "awaited" else "other", **common)


def _with_certificates(
    common: Mapping[str, Any], kind: str, source: object, key: object = None, crl: object = None
) -> SecretView:
    files = tuple(
        str(each["filename"])
        for each in (source, key, crl)
        if isinstance(each, dict) and each.get("filename")
    )
    problem, revocations = "", 0
    found: tuple[CertificateView, ...] = ()
    try:
        found = tuple(_certificate(each) for each in _read(_bytes(source)))
        revocations = _bytes(crl).count(_CRL_END)
    except ValueError:
        problem = "its certificates cannot be read"
    return SecretView(
        kind=kind,
        certificates=found,
        has_key=bool(key),
        revocations=revocations,
        files=files,
        problem=problem,
        **common,
    )


def _bytes(source: object) -> bytes:
    if not isinstance(source, dict):
        return b""
    if isinstance(text := source.get("inline_bytes"), str):
        return b64decode(text)
    text = source.get("inline_string")
    return text.encode() if isinstance(text, str) else b""


def _read(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem) if pem.strip() else []


def _certificate(certificate: x509.Certificate) -> CertificateView:
    uris, others = _names(certificate)
    spiffe = [each for each in uris if each.startswith("spiffe://")]
    return CertificateView(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_authority=_is_authority(certificate),
        spiffe_id=spiffe[0] if len(spiffe) == 1 else "",
        names=tuple(each for each in (*uris, *others) if [each] != spiffe),
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def _names(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension):
        return [], []
    hosts = names.get_values_for_type(x509.DNSName)
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return names.get_values_for_type(x509.UniformResourceIdentifier), [*hosts, *addresses]


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension):
        return False
