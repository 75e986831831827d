"""
What there is to say of auto-registration: who is not registered, and why.

Pure; made when asked, as it follows who is connected. Nothing a stranger says gets in here:
whoever is refused has proved who it is, or came by the plaintext port.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pilothouse.api.meta import ObjectKey
from pilothouse.api.workload import WorkloadEntry
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.registration import takes_reports
from pilothouse.model.registration_book import ENTRIES, GROUPS, RegistrationBook, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A workload that was turned away; `kind` and `key` are of the object it named."""

    kind: str
    key: ObjectKey
    proxy: str
    problem: str


def registration_findings(
    book: RegistrationBook, refusals: Iterable[Refusal], *, knows_callers: bool
) -> Iterator[Finding]:
    """Yield findings; without `knows_callers` there is no port on which to prove who one is."""
    if not knows_callers:
        for key in book.groups:
            yield Finding(
                Severity.WARNING,
                "NobodyCanRegister",
                _group(key.namespace, key.name),
                "Workloads prove who they are on the secure port, which is off, so that none can be"
                " registered in the group.",
                "Serve with --secure-grpc-addr, or write WorkloadEntries.",
            )
    for refusal in refusals:
        yield Finding(
            Severity.WARNING,
            "RegistrationRefused",
            ConfigRef(refusal.kind, refusal.key.namespace, refusal.key.name),
            f"The workload {refusal.proxy[:200]} was turned away: {refusal.problem}",
            "Write the object, or correct the workload's metadata or its token; it comes again by"
            " itself.",
        )
    for workload in book.workloads():
        yield from _of_workload(book, workload)


def _of_workload(book: RegistrationBook, workload: Workload) -> Iterator[Finding]:
    key = workload.key
    entry = ConfigRef(ENTRIES, key.namespace, key.name)
    written = book.written(key)
    shown = workload.row if written is None else written
    if workload.group and written is not None:
        yield Finding(
            Severity.INFO,
            "WrittenEntryWins",
            entry,
            f"A workload registers in WorkloadGroup {workload.group} under this name; the entry"
            " stays as it is written.",
            "Remove the entry to have one made from the group.",
        )
    if shown is None:
        yield _not_registered(book, workload)
    elif _awaits_report(workload, shown):
        yield Finding(
            Severity.INFO,
            "HealthNotReported",
            entry if written is not None else _group(key.namespace, workload.group, "spec.probe"),
            f"{key.name} is connected and has not reported its health, so it gets no traffic yet.",
            "See that an agent beside it runs the probe.",
        )
    live = [claim.proxy for claim, count in workload.streams.items() if count]
    if len(live) > 1:
        yield Finding(
            Severity.WARNING,
            "RegisteredTwice",
            entry,
            f"{len(live)} workloads with different metadata are connected under this name; it says"
            f" what the last one does, {live[-1][:200]}.",
            "Give each its own address, or network.",
        )


def _not_registered(book: RegistrationBook, workload: Workload) -> Finding:
    key = workload.key
    group = book.groups.get(ObjectKey(key.namespace, workload.group))
    if group is None:
        message = f"{key.name} is connected, and the group it was registered in is gone."
        remedy = "Write the group again, or stop the workload."
    else:
        account = group.spec.template.service_account
        message = (
            f"{key.name} is connected, and proved to be of another service account than the group"
            f" now has, {account!r}."
        )
        remedy = "Correct spec.template.serviceAccount, or give the workload a token of it."
    kind = GROUPS if workload.group else ENTRIES
    name = workload.group or key.name
    return Finding(
        Severity.WARNING, "NotRegistered", ConfigRef(kind, key.namespace, name), message, remedy
    )


def _awaits_report(workload: Workload, row: WorkloadEntry) -> bool:
    return (
        workload.is_connected
        and takes_reports(row)
        and workload.health is None
        and not row.is_healthy
    )


def _group(namespace: str, name: str, path: str = "") -> ConfigRef:
    return ConfigRef(GROUPS, namespace, name, path)
