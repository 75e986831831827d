"""
Which secrets a proxy may have: decided by the identity that was verified, never by its own word.

Kubernetes' own access rules decide, read from the Role and RoleBinding objects of the config: a
service account may have the secrets of its namespace if it may list them, or the one it may get. A
secret of another namespace, or for a proxy without a verified identity, is refused; so is what the
rules do not mention. Pure: no answer is kept longer than the objects it rests on. Source:
security.md D-Z-1 to D-Z-4.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from pilothouse.api.meta import ObjectKey
from pilothouse.api.rbac import PolicyRule, RoleRef, Subject
from pilothouse.graph.core import Ctx, query
from pilothouse.model.credentials import CredentialName, CredentialSource
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.inputs import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
)
from pilothouse.model.proxies import CertificateSource, Proxy

_SECRETS: Final = "secrets"
_EVERYTHING: Final = "*"


class SecretReader(NamedTuple):
    """
    Who asks for secrets; a part of a proxy's class that nothing but secrets depends on.

    `wants_certificates` tells that it has its mesh certificate from this server (D-A-7).
    """

    identity: WorkloadIdentity | None = None
    wants_certificates: bool = False


NOBODY: Final = SecretReader()
"""A proxy whose identity was not verified."""


def reader_of(proxy: Proxy) -> SecretReader:
    """Return who a proxy is when it asks for secrets."""
    if proxy.identity is None:
        return NOBODY
    return SecretReader(proxy.identity, proxy.certificates is CertificateSource.ADS)


class Account(NamedTuple):
    """A service account."""

    namespace: str
    name: str


class _Grant(NamedTuple):
    """What an account may read in its namespace: every secret, or the named ones."""

    everything: bool
    names: frozenset[str]


class Refusal(NamedTuple):
    """Why a credential is not given, and what to do about it, a sentence each."""

    reason: str
    remedy: str = ""


def refusal(ctx: Ctx, identity: WorkloadIdentity, wanted: CredentialName) -> Refusal | None:
    """Return why an identity may not have a credential (whole name), None if it may."""
    if wanted.source is CredentialSource.GATEWAY_SECRET:
        # Only what a Gateway was found to refer to; reading Gateway API is another story.
        return Refusal(
            "No Gateway of this workload is known to refer to it.",
            "Name it by kubernetes://, as a Secret of the workload's own namespace.",
        )
    if wanted.namespace != identity.namespace:
        reason = f"It is in another namespace than the workload's, {identity.namespace}."
        return Refusal(reason, "Put a copy into that namespace.")
    if wanted.is_ca:
        return None  # certificates to trust are no secret (D-Z-4)
    grant = ctx.get(granted_secrets, Account(identity.namespace, identity.service_account))
    if grant.everything or wanted.name in grant.names:
        return None
    return Refusal(
        f"No role lets the service account {identity.service_account} read it.",
        "Bind it to a Role that may list secrets, or get this one by name.",
    )


@query
def granted_secrets(ctx: Ctx, account: Account) -> _Grant:
    """Return which secrets of its own namespace an account may read."""
    everything, names = False, set[str]()
    for rule in _rules_of(ctx, account):
        if not (_has(rule.api_groups, "") and _has(rule.resources, _SECRETS)):
            continue
        if not rule.resource_names:
            everything = everything or _has(rule.verbs, "list")
        elif _has(rule.verbs, "get"):
            names.update(rule.resource_names)
    return _Grant(everything, frozenset(names))


def _rules_of(ctx: Ctx, account: Account) -> Iterator[PolicyRule]:
    for binding in ctx.where(ROLE_BINDINGS, "namespace", account.namespace):
        if _binds(binding.subjects or (), account, binding.meta.namespace):
            yield from _rules(ctx, binding.role_ref, binding.meta.namespace)
    for everywhere in ctx.rows(CLUSTER_ROLE_BINDINGS):
        if _binds(everywhere.subjects or (), account, ""):
            yield from _rules(ctx, everywhere.role_ref, "")


def _rules(ctx: Ctx, ref: RoleRef, namespace: str) -> tuple[PolicyRule, ...]:
    if ref.kind == "ClusterRole":
        anywhere = ctx.row(CLUSTER_ROLES, ObjectKey("", ref.name))
        return (anywhere.rules or ()) if anywhere else ()
    if ref.kind == "Role" and namespace:
        role = ctx.row(ROLES, ObjectKey(namespace, ref.name))
        return (role.rules or ()) if role else ()
    return ()


def _binds(subjects: Iterable[Subject], account: Account, namespace: str) -> bool:
    user = f"system:serviceaccount:{account.namespace}:{account.name}"
    groups = {
        "system:serviceaccounts",
        f"system:serviceaccounts:{account.namespace}",
        "system:authenticated",
    }
    for subject in subjects:
        match subject.kind:
            case "ServiceAccount":
                place = subject.namespace or namespace
                if Account(place, subject.name) == account:
                    return True
            case "User":
                if subject.name == user:
                    return True
            case "Group":
                if subject.name in groups:
                    return True
    return False


def _has(listed: Iterable[str], wanted: str) -> bool:
    return any(each in (wanted, _EVERYTHING) for each in listed)
