"""
The TLS context of the secure port: who the server is, and which client certificates count.

Client certificates are asked for and verified if given (security.md C-R-13); at least TLS 1.2 and
ALPN h2 (C-R-14), where a client that offers no ALPN is served too (linkerd.md 0.3). Python's `ssl`
reads keys from files only, so they are shown to it through anonymous memory.
"""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Final

from pilothouse.certs.front.control import Material

DEFAULT_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of 1.3 are all good and not chosen."""


_DER: Final = 2
"""OpenSSL's number for the encoding."""


class BadMaterial(ValueError):
    """The certificate, key, roots or revocation lists cannot be used; says which, shows none."""


def server_context(material: Material) -> ssl.SSLContext:
    """
    Return a context for new handshakes.

    Raises: BadMaterial: A part is damaged, or the key does not belong to the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if material.is_tls12_only:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    # No resumption: each connection is verified anew, against the roots and lists of today.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_OPTIONAL
    with _told("cipher suites"):
        context.set_ciphers(material.ciphers or DEFAULT_CIPHERS)
        if material.curve:
            context.set_ecdh_curve(material.curve)
    with (
        _told("certificate or key"),
        _in_memory(material.certificate_pem, material.key_pem) as path,
    ):
        context.load_cert_chain(path)
    with (
        _told("roots or revocation lists"),
        _in_memory(material.roots_pem, material.crl_pem) as path,
    ):
        context.load_verify_locations(cafile=path)
    if material.crl_pem:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    return context


@contextmanager
def _told(part: str) -> Iterator[None]:
    try:
        yield
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise BadMaterial(f"the {part} cannot be used ({reason})") from None


@contextmanager
def _in_memory(*texts: str) -> Iterator[str]:
    """Give texts the name of a file that is on no disk and in no directory."""
    handle = os.memfd_create("pilothouse", os.MFD_CLOEXEC)
    try:
        os.write(handle, "".join(_with_newline(text) for text in texts).encode("ascii"))
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def _with_newline(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def verified_root(connection: ssl.SSLObject) -> str:
    """
    Return the SHA-256, in hex, of the root that a client's certificate was verified by.

    "" if it gave none. Python has had this since 3.10 and shows it since 3.13.
    """
    shown = getattr(connection, "get_verified_chain", None)
    if shown is not None:
        chain = [bytes(each) for each in shown()]
    else:
        hidden = connection._sslobj.get_verified_chain() or ()  # type: ignore[attr-defined]  # noqa: SLF001
        chain = [bytes(each.public_bytes(_DER)) for each in hidden]
    return sha256(chain[-1]).hexdigest() if chain else ""
