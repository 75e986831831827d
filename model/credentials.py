"""
Names of secrets as proxies ask for them (SDS), with their parser: the one home of these names.

What an identity may read is in `pilothouse.model.secret_access`, what a secret holds in
`pilothouse.model.secret_content`. Source: security.md D-N-1 to D-N-7, D-A-3; traffic.md N-65. The
marker ``-cacert`` belongs to the name: what it is appended to asks for the certificates to trust,
without it for the key pair to present.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from pilothouse.api import names
from pilothouse.model.names import BadName

WORKLOAD: Final = "default"
"""The mesh's certificate of the workload itself (D-A-3)."""

ROOTS: Final = "ROOTCA"
"""The roots of the mesh (D-A-3)."""

BUILTIN: Final = "builtin://"
"""The proxy's own mesh certificate as a credential (D-N-4); with the suffix, its roots."""

CA_SUFFIX: Final = "-cacert"
SYSTEM_ROOTS: Final = "file-root:system"
"""The operating system's roots, by name at an agent."""

_INVALID: Final = "invalid://"
_FILE_CERT: Final = "file-cert:"
_FILE_ROOT: Final = "file-root:"


class CredentialSource(StrEnum):
    """Where a credential is kept; the value is the scheme of its name."""

    __hash__ = str.__hash__  # part of many memo keys; Enum's own is slow

    SECRET = "kubernetes"  # noqa: S105 (a scheme)
    GATEWAY_SECRET = "kubernetes-gateway"  # noqa: S105
    CONFIG_MAP = "configmap"


class CredentialName(NamedTuple):
    """
    A credential in an object: ``kubernetes://NAMESPACE/NAME`` and the like.

    `namespace` is empty if the name does not say: it is the proxy's then. `is_ca` asks for what to
    trust rather than for what to present; a ConfigMap holds nothing else.
    """

    source: CredentialSource
    namespace: str
    name: str
    is_ca: bool = False

    def __str__(self) -> str:
        """Format the name."""
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        suffix = CA_SUFFIX if self.is_ca and self.source is not CredentialSource.CONFIG_MAP else ""
        return f"{self.source}://{place}{suffix}"

    @staticmethod
    def parse(text: str) -> "CredentialName":
        """Read a name of one of the three schemes. Raises: BadName."""
        what = "the name of a credential"
        scheme, colon, place = text.partition("://")
        if not colon or scheme not in _SOURCES:
            raise BadName(what, text)
        source = CredentialSource(scheme)
        namespace, slash, name = place.rpartition("/")
        if slash and names.dns_label(namespace):
            raise BadName(what, text)
        # Where a Gateway refers to has been resolved, so these names are always whole (D-N-2).
        if not slash and source is not CredentialSource.SECRET:
            raise BadName(what, text)
        is_ca = source is CredentialSource.CONFIG_MAP
        if not is_ca and name.endswith(CA_SUFFIX):
            name, is_ca = name.removesuffix(CA_SUFFIX), True
        if names.object_name(name):
            raise BadName(what, text)
        return CredentialName(source, namespace, name, is_ca)

    def within(self, namespace: str) -> "CredentialName":
        """Return the name with its namespace filled in."""
        return self if self.namespace else self._replace(namespace=namespace)

    @property
    def for_trust(self) -> "CredentialName":
        """The name of what to trust that goes with a key pair (D-N-7)."""
        return self._replace(is_ca=True)


_SOURCES: Final = frozenset(source.value for source in CredentialSource)


class CertificateFiles(NamedTuple):
    """A chain and its key in files on the proxy's disk, ``file-cert:CHAIN~KEY`` (D-A-3)."""

    chain: str
    key: str

    def __str__(self) -> str:
        """Format the name."""
        return f"{_FILE_CERT}{self.chain}~{self.key}"

    @staticmethod
    def parse(text: str) -> "CertificateFiles":
        """Read the name. Raises: BadName."""
        chain, tilde, key = text.removeprefix(_FILE_CERT).partition("~")
        if not (text.startswith(_FILE_CERT) and chain and tilde and key) or "~" in key:
            raise BadName("the name of certificate files", text)
        return CertificateFiles(chain, key)


class RootsFile(NamedTuple):
    """Roots in a file on the proxy's disk, ``file-root:PATH`` (D-A-3)."""

    path: str

    def __str__(self) -> str:
        """Format the name."""
        return f"{_FILE_ROOT}{self.path}"

    @staticmethod
    def parse(text: str) -> "RootsFile":
        """Read the name. Raises: BadName."""
        path = text.removeprefix(_FILE_ROOT)
        if not text.startswith(_FILE_ROOT) or not path:
            raise BadName("the name of a file of roots", text)
        return RootsFile(path)


def invalid(text: str) -> str:
    """Return a name that nothing answers, so that what refers to it stays closed (D-N-5)."""
    return _INVALID + text


def credential_of(written: str) -> CredentialName:
    """
    Read `credentialName` as users write it: a name alone, or one of the schemes (N-65).

    Raises: BadName.
    """
    text = written if "://" in written else f"{CredentialSource.SECRET}://{written}"
    return CredentialName.parse(text)
