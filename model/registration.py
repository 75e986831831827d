"""
Auto-registration: the WorkloadEntry that a WorkloadGroup and a connected workload make.

Pure: who is connected, and for how long yet, is the business of `registration_book`. Source:
traffic.md WG-01 to WG-03, NM-19; the rules for names, labels and identity are istiod's.
"""

from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from pilothouse.api.meta import ObjectKey, ObjectMeta
from pilothouse.api.names import object_name
from pilothouse.api.workload import (
    HEALTH_CHECKS_ANNOTATION,
    Condition,
    WorkloadEntry,
    WorkloadEntryStatus,
    WorkloadGroup,
)
from pilothouse.errors import ProtocolError
from pilothouse.model.proxies import Proxy

GROUP_ANNOTATION: Final = "istio.io/autoRegistrationGroup"
"""On an entry that was made for a workload: the name of its WorkloadGroup."""

_LOCALITY_LABEL: Final = "istio-locality"
"""Told by the entry's own field; its slashes are not allowed in a label of an object."""
_LONGEST_NAME: Final = 253
_HEALTHY: Final = "Healthy"


class RefusalReason(StrEnum):
    """Why a workload is not registered."""

    NO_GROUP = "no group"
    NO_ENTRY = "no entry"
    NOT_KNOWN = "not known"
    OTHER_IDENTITY = "other identity"
    BAD_NAME = "bad name"
    TAKEN = "taken"


class RegistrationRefused(ProtocolError):
    """A workload may not be registered as it asks; ends its stream."""

    def __init__(self, reason: RefusalReason, kind: str, key: ObjectKey, problem: str) -> None:
        """Keep the object it named and the sentence for it."""
        super().__init__(reason, kind, key, problem)
        self.reason = reason
        self.kind = kind
        self.key = key
        self.problem = problem

    def __str__(self) -> str:
        """Say why."""
        return self.problem


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """
    What one workload asks to be registered as, and who it proved to be.

    Either `group` is set, or `entry`, the name of an entry that somebody wrote. `proxy` is its node
    id, `locality` is ``region/zone/subzone``, `labels` are sorted pairs. `account` is the service
    account of its verified identity, whose namespace is `namespace`; None if nobody verified it.
    """

    proxy: str
    namespace: str
    group: str = ""
    entry: str = ""
    address: str = ""
    network: str = ""
    locality: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    has_probe: bool = False
    account: str | None = None

    @property
    def key(self) -> ObjectKey:
        """The key of its entry."""
        name = entry_name(self.group, self.address, self.network) if self.group else self.entry
        return ObjectKey(self.namespace, name)

    @property
    def group_key(self) -> ObjectKey:
        """The key of its group."""
        return ObjectKey(self.namespace, self.group)


def claim_of(proxy: Proxy) -> Claim | None:
    """Return what a proxy asks for, None if it does not ask (NM-19)."""
    asked = proxy.registration
    if asked is None:
        return None
    identity = proxy.identity
    is_own = identity is not None and identity.namespace == proxy.namespace
    return Claim(
        proxy=proxy.id,
        namespace=proxy.namespace,
        group=asked.group,
        entry="" if asked.group else asked.entry,
        address=asked.address,
        network=proxy.network,
        locality=str(proxy.locality),
        labels=proxy.labels,
        has_probe=asked.has_probe,
        account=identity.service_account if identity is not None and is_own else None,
    )


def entry_key(proxy: Proxy) -> ObjectKey | None:
    """Return the key of the entry that a proxy says is its own, None if it says nothing."""
    asked = proxy.registration
    if asked is None:
        return None
    made = entry_name(asked.group, asked.address, proxy.network) if asked.group else asked.entry
    return ObjectKey(proxy.namespace, made)


def entry_name(group: str, address: str, network: str) -> str:
    """Return ``GROUP-IP[-NETWORK]``, of which the last 253 characters count (WG-01)."""
    parts = (group, address.replace(":", "-"), *([network] if network else []))
    return "-".join(parts)[-_LONGEST_NAME:]


def check_name(claim: Claim) -> None:
    """See that a claim's entry can be an object. Raises: RegistrationRefused."""
    problem = object_name(claim.key.name)
    if problem:
        raise RegistrationRefused(
            RefusalReason.BAD_NAME,
            "WorkloadGroup" if claim.group else "WorkloadEntry",
            claim.group_key if claim.group else claim.key,
            f"The name of the WorkloadEntry, {claim.key.name[:128]!r}, {problem}; it is made of"
            " the group, the address and NETWORK.",
        )


def check_identity(claim: Claim, account: str, what: str) -> None:
    """
    See that a workload proved to be of the service account that `what` is for ("" for any).

    Raises: RegistrationRefused: It did not; nobody is registered on their own word.
    """
    kind, key = ("WorkloadGroup", claim.group_key) if claim.group else ("WorkloadEntry", claim.key)
    if claim.account is None:
        raise RegistrationRefused(
            RefusalReason.NOT_KNOWN,
            kind,
            key,
            f"To be registered for {what} a workload must prove who it is; use the secure port.",
        )
    if not may_control(claim, account):
        raise RegistrationRefused(
            RefusalReason.OTHER_IDENTITY,
            kind,
            key,
            f"{what} is for the service account {account!r}; the credential says"
            f" {claim.account[:253]!r}.",
        )


def may_control(claim: Claim, account: str) -> bool:
    """Tell whether a workload may stand for an entry of a service account ("" for any)."""
    return claim.account is not None and account in ("", claim.account)


def entry_from(group: WorkloadGroup, claim: Claim) -> WorkloadEntry:
    """
    Return the entry of a workload in a group, without its health (WG-01 to WG-03).

    Labels of the node win over those of the group's metadata, and these over the template's. The
    node knows best where it runs. With a probe the workload counts as unhealthy until it reports.
    """
    template = group.spec.template
    metadata = group.spec.metadata
    labels = {
        **template.labels,
        **(metadata.labels if metadata else {}),
        **{name: value for name, value in claim.labels if name != _LOCALITY_LABEL},
    }
    annotations = {
        GROUP_ANNOTATION: group.meta.name,
        **(metadata.annotations if metadata else {}),
    }
    if claim.has_probe:
        annotations[HEALTH_CHECKS_ANNOTATION] = "true"
    elif group.spec.probe is not None:
        annotations.setdefault(HEALTH_CHECKS_ANNOTATION, "true")
    return WorkloadEntry(
        meta=ObjectMeta(
            kind="WorkloadEntry",
            name=claim.key.name,
            namespace=claim.namespace,
            labels=labels,
            annotations=annotations,
            generation=group.meta.generation,
            api_version=group.meta.api_version,
        ),
        spec=replace(
            template,
            address=claim.address,
            labels=labels,
            network=claim.network or template.network,
            locality=claim.locality or template.locality,
        ),
    )


def takes_reports(entry: WorkloadEntry) -> bool:
    """Tell whether health is reported for an entry: it has the annotation, whatever it says."""
    return HEALTH_CHECKS_ANNOTATION in entry.meta.annotations


def with_health(entry: WorkloadEntry, is_healthy: bool | None) -> WorkloadEntry:  # noqa: FBT001
    """Return an entry with the condition Healthy, or without it if nothing is known (WE-07)."""
    known = entry.status.conditions if entry.status else ()
    kept = tuple(each for each in known if each.type != _HEALTHY)
    if is_healthy is not None:
        kept = (*kept, Condition(_HEALTHY, str(is_healthy)))
    return replace(entry, status=WorkloadEntryStatus(kept) if kept else None)


def workload_name(entry: WorkloadEntry) -> str:
    """Return what a workload is called in telemetry: its group, its label, or its entry (N-70)."""
    named = entry.meta.annotations.get(GROUP_ANNOTATION)
    return named or entry.all_labels.get("service.istio.io/workload-name") or entry.meta.name
