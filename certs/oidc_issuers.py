"""
Which token issuers an operator trusts, and how their tokens name workloads (security.md C-A-2).

A file of YAML or JSON: a list of issuers, or one. Field names are those of Istio's JWT rules, with
our own beside for issuers that know nothing of service accounts (Okta, Auth0, Keycloak):

    - issuer: https://example.eu.auth0.com/
      audiences: [pilothouse]
      subjects:                      # whose tokens are whose: `sub` -> NAMESPACE/SERVICE_ACCOUNT
        "mT9k...@clients": payments/ledger
    - issuer: https://keycloak.example.com/realms/mesh
      audiences: [istio-ca]
      claims: {namespace: mesh_namespace, serviceAccount: client_id}
"""

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from pilothouse.certs import jwt
from pilothouse.certs.callers import CredentialRefused
from pilothouse.errors import InvalidConfig
from pilothouse.model.identity import WorkloadIdentity

_MAX_FILE_BYTES: Final = 1024 * 1024


class InvalidIssuers(InvalidConfig):
    """The file of issuers cannot be used."""

    def __init__(self, path: Path, problem: str) -> None:
        """Keep the file and what is wrong."""
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        """One sentence for people."""
        return f"The token issuers in {self.path} cannot be used: {self.problem}"


class IdentityClaims(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """Names of the claims that name the workload."""

    namespace: str
    service_account: str


class Issuer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """
    One issuer of tokens.

    Its keys are `jwks` (JSON text), those at `jwks_uri`, or those that its discovery document
    names. Whom a token names: `subjects` by its ``sub`` (``NAMESPACE/SERVICE_ACCOUNT``), `claims`,
    or else a ``sub`` of the form ``system:serviceaccount:NAMESPACE:NAME``.
    """

    issuer: str
    audiences: tuple[str, ...]
    jwks_uri: str = ""
    jwks: str = ""
    claims: IdentityClaims | None = None
    subjects: Mapping[str, str] = {}

    def problem(self) -> str:
        """Return what is wrong with it, "" if nothing."""
        if not self.issuer or not self.audiences or not all(self.audiences):
            return "each issuer needs `issuer` and `audiences`"
        if self.claims is not None and self.subjects:
            return f"{self.issuer} has both `claims` and `subjects`; give one"
        if self.jwks and self.jwks_uri:
            return f"{self.issuer} has both `jwks` and `jwksUri`; give one"
        if not self.jwks:
            return url_problem(self.jwks_uri or self.issuer)
        return ""

    @property
    def keys_from(self) -> str:
        """The address that the operator gave, at which keys or the discovery document are."""
        return self.jwks_uri or self.issuer

    def identity(self, claims: Mapping[str, Any], trust_domain: str) -> WorkloadIdentity:
        """Return whom a verified token names. Raises: CredentialRefused."""
        if self.subjects:
            named = self.subjects.get(str(claims.get("sub")))
            if named is None:
                raise CredentialRefused("its subject is not one of the issuer's `subjects`")
            namespace, _, name = named.partition("/")
            return jwt.identity(trust_domain, namespace, name)
        if self.claims is not None:
            return jwt.identity(
                trust_domain,
                _text(claims, self.claims.namespace),
                _text(claims, self.claims.service_account),
            )
        return jwt.subject_identity(claims.get("sub"), trust_domain)


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        raise CredentialRefused(f"its claim {name!r} is not a text")
    return value


def url_problem(url: str) -> str:
    """Return why keys must not be fetched from a URL, "" if they may."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return f"{url!r} is not a URL"
    if parts.username is not None or parts.password is not None:
        return "a URL of an issuer must not hold a password"
    if parts.scheme == "https" and host:
        return ""
    if parts.scheme == "http" and is_loopback(host):
        return ""
    return f"{url!r} must begin with https://"


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine by its very name."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def read_issuers(path: Path) -> tuple[Issuer, ...]:
    """Read a file of issuers. Raises: InvalidIssuers."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InvalidIssuers(path, "it is too large.")
        content = path.read_bytes()
    except OSError as failure:
        raise InvalidIssuers(path, f"{failure.strerror or failure}.") from failure
    try:
        found = msgspec.yaml.decode(content, type=tuple[Issuer, ...] | Issuer)
    except (msgspec.DecodeError, ValueError) as failure:
        raise InvalidIssuers(path, f"{failure}.") from failure
    issuers = found if isinstance(found, tuple) else (found,)
    for each in issuers:
        if problem := each.problem():
            raise InvalidIssuers(path, f"{problem}.")
    names = [each.issuer for each in issuers]
    if len(set(names)) < len(names):
        raise InvalidIssuers(path, "an issuer is there twice.")
    return issuers
