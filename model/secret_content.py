"""
What Secrets and ConfigMaps hold for TLS: a key pair to present, or certificates to trust.

Values that cannot be used are found here rather than by a proxy: a chain that is none, a key of
another certificate or of a kind Envoy does not take. Such a secret is left out and said to be
faulty; one that has ended is used and said to have ended. Never shows content. The clock is an
input. Source: security.md D-C-1, D-C-2, D-C-4, D-N-7.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp

from pilothouse.api.kubernetes_core import Secret
from pilothouse.api.meta import ObjectKey
from pilothouse.errors import InvalidConfig
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.credentials import CA_SUFFIX
from pilothouse.model.inputs import CLOCK, CONFIG_MAPS, SECRETS, THE_MESH

KEY_PAIR_KEYS: Final = (("cert", "key"), ("tls.crt", "tls.key"))
"""Where a key pair is kept; the first pair found counts."""
TRUST_KEYS: Final = ("cacert", "ca.crt")
REVOCATION_KEYS: Final = ("crl", "ca.crl")
STAPLE_KEY: Final = "tls.ocsp-staple"

UNUSABLE: Final = "SecretUnusable"
EXPIRED: Final = "SecretExpired"

_REVOCATION_LIST: Final = re.compile(
    b"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL
)
_SMALLEST_RSA_BITS: Final = 2_048
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


class CredentialKey(NamedTuple):
    """What to read: a Secret or ConfigMap, and which part of it."""

    kind: str
    namespace: str
    name: str
    is_ca: bool


class KeyMaterial(msgspec.Struct, frozen=True, kw_only=True):
    """A chain with its private key, PEM; `staple` is a DER OCSP response or empty."""

    source: ConfigRef
    chain_pem: bytes
    key_pem: bytes
    staple: bytes = b""
    not_after: datetime

    def __repr__(self) -> str:
        """Show where it is from."""
        return f"KeyMaterial({self.source})"


class TrustMaterial(msgspec.Struct, frozen=True, kw_only=True):
    """Certificates to trust and revocation lists, PEM."""

    source: ConfigRef
    roots_pem: bytes
    crl_pem: bytes = b""
    not_after: datetime

    def __repr__(self) -> str:
        """Show where it is from."""
        return f"TrustMaterial({self.source})"


class BadCredential(InvalidConfig):
    """The values cannot be used for TLS; `remedy` says what to do."""

    def __init__(self, problem: str, remedy: str, value: str = "") -> None:
        """Say what is wrong, with which value (empty: with several); never with content."""
        super().__init__(problem)
        self.remedy = remedy
        self.value = value


@query
def credential(ctx: Ctx, key: CredentialKey) -> KeyMaterial | TrustMaterial | None:
    """Return the usable content, None if there is none; what is unusable is reported."""
    found = _values(ctx, key)
    if found is None:
        return None
    ref, values = found
    try:
        made = trust_material(ref, values) if key.is_ca else key_material(ref, values)
    except BadCredential as fault:
        at = ref.at(f"data[{fault.value}]") if fault.value else ref
        ctx.report(Finding(Severity.ERROR, UNUSABLE, at, str(fault), fault.remedy))
        return None
    staple = values.get(STAPLE_KEY, b"")
    if isinstance(made, KeyMaterial) and staple and not made.staple:
        message = f"{STAPLE_KEY} is no OCSP response; the certificate is sent without."
        ctx.report(Finding(Severity.WARNING, UNUSABLE, ref, message))
    return made


@query
def has_ended(ctx: Ctx, key: CredentialKey) -> bool:
    """Tell whether a credential has ended, and report it; false while no time is known."""
    found = ctx.get(credential, key)
    clock = ctx.row(CLOCK, THE_MESH)
    if found is None or clock is None or found.not_after > clock.at:
        return False
    message = f"Its certificate ended on {found.not_after:%Y-%m-%d}; it is sent all the same."
    remedy = "Renew it; peers refuse it."
    ctx.report(Finding(Severity.WARNING, EXPIRED, found.source, message, remedy))
    return True


def exists(ctx: Ctx, key: CredentialKey) -> bool:
    """Tell whether there is an object of that name, whatever it holds."""
    return _values(ctx, key) is not None


def _values(ctx: Ctx, key: CredentialKey) -> tuple[ConfigRef, Mapping[str, bytes]] | None:
    if key.kind == "ConfigMap":
        row = ctx.row(CONFIG_MAPS, ObjectKey(key.namespace, key.name))
        if row is None:
            return None
        texts = {name: text.encode() for name, text in row.data.items()}
        return row.meta.ref(), {**row.binary_data, **texts}
    names = (key.name + CA_SUFFIX, key.name) if key.is_ca else (key.name,)
    for name in names:
        secret = ctx.row(SECRETS, ObjectKey(key.namespace, name))
        if secret is not None:
            return secret.meta.ref(), _secret_values(secret)
    return None


def _secret_values(secret: Secret) -> Mapping[str, bytes]:
    return {**secret.data, **{name: text.encode() for name, text in secret.string_data.items()}}


def key_material(source: ConfigRef, values: Mapping[str, bytes]) -> KeyMaterial:
    """
    Return the key pair among the values of a secret.

    Raises: BadCredential: There is none, its parts are no PEM or do not belong together.
    """
    names = next((pair for pair in KEY_PAIR_KEYS if all(map(values.get, pair))), None)
    if names is None:
        _report_half_a_pair(values)
        wanted = " or ".join(" and ".join(pair) for pair in KEY_PAIR_KEYS)
        raise BadCredential("It holds no certificate with a key.", f"Give it {wanted}.")
    chain_pem, key_pem = (values[name] for name in names)
    remedy = "Put in a chain that begins with the leaf, and the leaf's unencrypted key, as PEM."
    chain = _certificates(chain_pem, names[0], remedy)
    leaf = chain[0]
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadCredential(
            f"{names[1]} is no unencrypted private key.", remedy, names[1]
        ) from None
    try:
        is_pair = key.public_key() == leaf.public_key()
    except (ValueError, UnsupportedAlgorithm):
        is_pair = False
    if not is_pair:
        raise BadCredential(
            f"{names[1]} is not the key of the certificate in {names[0]}.", remedy, names[1]
        )
    is_rsa = isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _SMALLEST_RSA_BITS
    is_ec = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES)
    if not (is_rsa or is_ec):
        problem = f"{names[1]} is of a kind or size that Envoy does not take."
        remedy = "Use ECDSA P-256, P-384 or P-521, or RSA of 2048 bits or more."
        raise BadCredential(problem, remedy, names[1])
    return KeyMaterial(
        source=source,
        chain_pem=_pem(chain),
        key_pem=key_pem,
        staple=_staple(values.get(STAPLE_KEY, b"")),
        not_after=leaf.not_valid_after_utc,
    )


def _report_half_a_pair(values: Mapping[str, bytes]) -> None:
    """Raises: BadCredential: There is a certificate without a key, or the other way about."""
    for pair in KEY_PAIR_KEYS:
        for there, missing in (pair, pair[::-1]):
            if values.get(there):
                raise BadCredential(
                    f"It holds {there} without {missing}.", f"Add {missing}.", there
                )


def trust_material(source: ConfigRef, values: Mapping[str, bytes]) -> TrustMaterial:
    """
    Return what to trust among the values of a secret.

    Raises: BadCredential: There is nothing, or it is no PEM.
    """
    name = next((each for each in TRUST_KEYS if values.get(each)), None)
    if name is None:
        wanted = " or ".join(TRUST_KEYS)
        raise BadCredential("It holds no certificates to trust.", f"Give it {wanted}.")
    remedy = "Put in certificates as PEM."
    roots = _certificates(values[name], name, remedy)
    revoked = next((each for each in REVOCATION_KEYS if values.get(each)), None)
    crl_pem = b""
    if revoked is not None:
        try:
            crl_pem = _revocation_lists(values[revoked])
        except (ValueError, UnsupportedAlgorithm):
            # Left out, it would let in whom it keeps out.
            raise BadCredential(
                f"{revoked} is no revocation list.", "Put it in as PEM.", revoked
            ) from None
    return TrustMaterial(
        source=source,
        roots_pem=_pem(roots),
        crl_pem=crl_pem,
        not_after=max(root.not_valid_after_utc for root in roots),
    )


def _certificates(pem: bytes, name: str, remedy: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise BadCredential(f"{name} holds no certificates.", remedy, name) from None


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """Write certificates anew: whatever stood between them, a private key say, is nobody's."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def _revocation_lists(pem: bytes) -> bytes:
    """Return the lists in a text and nothing else. Raises: ValueError: There is none, or a bad."""
    blocks = _REVOCATION_LIST.findall(pem)
    if not blocks:
        raise ValueError
    lists = [x509.load_pem_x509_crl(block) for block in blocks]
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in lists)


def _staple(data: bytes) -> bytes:
    if not data:
        return b""
    try:
        ocsp.load_der_ocsp_response(data)
    except (ValueError, UnsupportedAlgorithm):
        return b""
    return data
