"""Rules of the TLS settings of servers that do not depend on what kind of proxy serves."""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Final

from pilothouse.api.gateway import ServerTls
from pilothouse.api.problem import Problem, warning
from pilothouse.api.tls_names import CIPHERS

_HASH: Final = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){31}")
_DIGEST_BYTES: Final = 32
_OLD: Final = ("TLSV1_0", "TLSV1_1")


def check_server_tls(tls: ServerTls, path: str) -> Iterator[Problem]:
    """Yield what is wrong with files, versions, ciphers and pins of a server's own TLS."""
    yield from _check_files(tls, path)
    yield from _check_parameters(tls, path)
    for index, text in enumerate(tls.verify_certificate_hash):
        if not _HASH.fullmatch(text):
            message = "This is no SHA-256 hash of a certificate."
            remedy = "Write 64 hexadecimal digits, or 32 pairs with colons."
            yield Problem(f"{path}.verifyCertificateHash[{index}]", message, remedy)
    for index, text in enumerate(tls.verify_certificate_spki):
        if not _is_digest(text):
            message = "This is no SHA-256 hash of a public key."
            remedy = "Write its 32 bytes in Base64."
            yield Problem(f"{path}.verifyCertificateSpki[{index}]", message, remedy)


def _check_files(tls: ServerTls, path: str) -> Iterator[Problem]:
    if tls.mode in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"):
        for field, value in (
            ("serverCertificate", tls.server_certificate),
            ("privateKey", tls.private_key),
        ):
            if not value:
                yield Problem(f"{path}.{field}", f"Mode {tls.mode} needs this file.", "Set it.")
    if tls.mode in ("MUTUAL", "OPTIONAL_MUTUAL") and not tls.ca_certificates:
        message = f"Mode {tls.mode} needs roots to check clients by."
        yield Problem(f"{path}.caCertificates", message, "Set it.")


def _check_parameters(tls: ServerTls, path: str) -> Iterator[Problem]:
    for field, version in (
        ("minProtocolVersion", tls.min_protocol_version),
        ("maxProtocolVersion", tls.max_protocol_version),
    ):
        if version in _OLD:
            message = "This version of TLS is no longer thought safe."
            yield warning(f"{path}.{field}", message, "Write TLSV1_2 or TLSV1_3.")
    for index, name in enumerate(tls.cipher_suites):
        at = f"{path}.cipherSuites[{index}]"
        if name not in CIPHERS:
            message = f'"{name}" is not known to Envoy and is left out.'
            yield warning(at, message, f"Known are {', '.join(sorted(CIPHERS))}.")
        elif name in tls.cipher_suites[:index]:
            yield warning(at, f'"{name}" is listed twice.', "Remove one.")


def _is_digest(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == _DIGEST_BYTES
    except (binascii.Error, ValueError):
        return False
