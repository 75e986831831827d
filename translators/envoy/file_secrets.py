"""
Secrets (SDS) that are files on the proxy's own disk, for proxies without an agent to read them.

The answer only repeats the path that was asked for, so that whoever asks learns nothing: Envoy
reads the file itself, and again when it changes. Source: traffic.md N-64, security.md D-A-3.
"""

from typing import Final

from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse.graph.core import Ctx, query
from pilothouse.model.credentials import SYSTEM_ROOTS, CertificateFiles, RootsFile
from pilothouse.model.names import BadName
from pilothouse.model.resource import SDS, Resource
from pilothouse.translators.envoy.encoding import encode
from pilothouse.translators.envoy.upstream_tls import SYSTEM_BUNDLE

Files = CertificateFiles | RootsFile

_KINDS: Final = (CertificateFiles, RootsFile)


def files_of(name: str) -> Files | None:
    """Return the files a secret's name tells of, None if it is another kind of name."""
    for kind in _KINDS:
        try:
            return kind.parse(name)
        except BadName:
            continue
    return None


@query
def file_secret(_ctx: Ctx, files: Files) -> Resource:
    """Return the secret that tells a proxy to read its own files."""
    name = str(files)
    secret = Secret(name=name)
    match files:
        case CertificateFiles():
            secret.tls_certificate.certificate_chain.filename = files.chain
            secret.tls_certificate.private_key.filename = files.key
        case RootsFile():
            path = SYSTEM_BUNDLE if name == SYSTEM_ROOTS else files.path
            secret.validation_context.trusted_ca.filename = path
    return Resource(SDS, name, encode(secret))
