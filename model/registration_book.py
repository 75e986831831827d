"""
Who is registered: workloads that are connected, or were a moment ago, and the entries they make.

Sans-IO: events in, changed rows of WorkloadEntry out; times are seconds of a clock that never goes
back. Stands between the source of config and the graph: entries that somebody wrote pass through,
with the health that was reported for them. An entry is always what its group and its workload say
now; it goes when no stream of the workload is left and `grace_seconds` are over, when its group
goes, and while the group is for another service account. What somebody wrote wins over what would
be made under the same name. Source: traffic.md WG-01 to WG-03, WE-07.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from pilothouse.api.meta import ObjectKey
from pilothouse.api.workload import WorkloadEntry, WorkloadGroup
from pilothouse.model.registration import (
    Claim,
    RefusalReason,
    RegistrationRefused,
    check_identity,
    check_name,
    entry_from,
    may_control,
    takes_reports,
    with_health,
)

Change = tuple[str, Hashable, Any | None]
"""Kind, key, and the new row or None, as the source of config tells it."""

GROUPS: Final = "WorkloadGroup"
ENTRIES: Final = "WorkloadEntry"


@dataclass(slots=True)
class Tally:
    """What happened so far: entries made, found again, left and dropped."""

    made: int = 0
    updated: int = 0
    left: int = 0
    dropped: int = 0


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What was reported for a workload, by whom; `problem` is empty if it is healthy."""

    is_healthy: bool
    problem: str
    by: Claim


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a workload once all streams have ended; of its claims the last is latest."""

    claims: tuple[Claim, ...]
    health: Health | None = None


@dataclass(slots=True, eq=False)
class Workload:
    """
    A workload that holds an entry; to be looked at only.

    `streams` counts those of each claim, the claim that came last at the end; more than one claim
    is there when a workload comes back changed, or two say they are at one address. `group` is that
    of those who register, "" if all claims are for an entry that somebody wrote. `row` is the entry
    made for it, None if there is none.
    """

    key: ObjectKey
    group: str = ""
    streams: dict[Claim, int] = field(default_factory=dict)
    health: Health | None = None
    row: WorkloadEntry | None = None

    @property
    def is_connected(self) -> bool:
        """Whether any stream is open."""
        return any(self.streams.values())

    def claims(self) -> Iterator[Claim]:
        """Yield its claims, the one to go by first: open streams, then the latest."""
        latest = list(reversed(self.streams))
        yield from (claim for claim in latest if self.streams[claim])
        yield from (claim for claim in latest if not self.streams[claim])


class RegistrationBook:
    """See the module docstring."""

    def __init__(self, grace_seconds: float) -> None:
        """Begin with nobody connected and no config."""
        self._grace_seconds = grace_seconds
        self._groups: dict[ObjectKey, WorkloadGroup] = {}
        self._written: dict[ObjectKey, WorkloadEntry] = {}
        self._workloads: dict[ObjectKey, Workload] = {}
        self._of_group: dict[ObjectKey, dict[ObjectKey, None]] = {}
        self._leaving: dict[Claim, float] = {}
        self._heard: dict[Claim, Health] = {}
        """What agents with streams of their own have said last, also for workloads yet to come."""
        self._hushed: dict[Claim, float] = {}
        """When what agents have said counts no longer, as they have gone."""
        self._orphaned: set[ObjectKey] = set()
        """Entries that somebody wrote, whose workload reported health and has gone."""
        self._shown: dict[ObjectKey, WorkloadEntry] = {}
        """Rows that differ from what somebody wrote."""
        self.tally = Tally()

    # -- to be looked at --------------------------------------------------------------------------

    @property
    def groups(self) -> dict[ObjectKey, WorkloadGroup]:
        """The groups there are."""
        return self._groups

    def workloads(self) -> Iterator[Workload]:
        """Yield who holds an entry at present."""
        yield from self._workloads.values()

    def written(self, key: ObjectKey) -> WorkloadEntry | None:
        """Return an entry as somebody wrote it."""
        return self._written.get(key)

    def leaves_at(self, workload: Workload) -> float | None:
        """Return when a workload is dropped if it does not come back, None while it is there."""
        if workload.is_connected:
            return None
        return max((self._leaving[claim] for claim in workload.streams), default=None)

    @property
    def next_expiry(self) -> float | None:
        """When to call `expire`, None if nobody is about to be dropped."""
        return min((*self._leaving.values(), *self._hushed.values()), default=None)

    def remembered(self) -> tuple[Remembered, ...]:
        """Return what another book would have to know to go on from here."""
        return tuple(
            Remembered(claims=tuple(each.streams), health=each.health)
            for each in self._workloads.values()
        )

    def recall(self, workloads: Iterable[Remembered], until: float) -> list[Change]:
        """Take up what another book knew; whoever does not come back by then is dropped."""
        changes: list[Change] = []
        for each in workloads:
            for claim in each.claims:
                workload = self._hold(claim)
                workload.health = each.health
                self._leaving[claim] = until
            for claim in each.claims[:1]:
                changes.extend(self._settle(claim.key))
        return changes

    # -- config -----------------------------------------------------------------------------------

    def take(self, changes: Iterable[Change]) -> list[Change]:
        """Return what changes of config come to, those of other kinds as they are."""
        passed: list[Change] = []
        for change in changes:
            kind, key, row = change
            if kind == GROUPS and isinstance(key, ObjectKey):
                passed.append(change)
                _put(self._groups, key, row)
                for entry in self._of_group.get(key, ()):
                    passed.extend(self._settle(entry))
            elif kind == ENTRIES and isinstance(key, ObjectKey):
                passed.append(self._rewritten(key, row))
            else:
                passed.append(change)
        return passed

    def _rewritten(self, key: ObjectKey, row: WorkloadEntry | None) -> Change:
        _put(self._written, key, row)
        self._orphaned.discard(key)
        shown = self._row(key)
        _put(self._shown, key, None if shown is row else shown)
        return ENTRIES, key, shown

    # -- streams ----------------------------------------------------------------------------------

    def request(self, claim: Claim, now: float) -> list[Change]:
        """
        Register a workload whose stream is about to be let in; `connected` is to follow in time.

        Raises: RegistrationRefused: It may not be what it asks to be, or there is no such thing.
        """
        check_name(claim)
        key = claim.key
        written = self._written.get(key)
        group = self._groups.get(claim.group_key) if claim.group else None
        if written is not None:
            if claim.group or takes_reports(written):
                account = written.spec.service_account
                check_identity(claim, account, f"WorkloadEntry {key.namespace}/{key.name}")
        elif group is not None:
            name = f"{claim.group_key.namespace}/{claim.group_key.name}"
            check_identity(claim, group.spec.template.service_account, f"WorkloadGroup {name}")
        else:
            raise _unknown(claim)
        known = self._workloads.get(key)
        if known is not None and known.group and claim.group not in ("", known.group):
            raise RegistrationRefused(
                RefusalReason.TAKEN,
                GROUPS,
                claim.group_key,
                f"WorkloadEntry {key.namespace}/{key.name} is held by a workload of WorkloadGroup"
                f" {known.group}.",
            )
        if claim.group and known is None and written is None:
            self.tally.made += 1
        elif claim.group:
            self.tally.updated += 1
        workload = self._hold(claim)
        if not workload.streams[claim]:
            workload.streams[claim] = workload.streams.pop(claim)  # it is the latest now
            self._leaving[claim] = now + self._grace_seconds
        return self._settle(key)

    def connected(self, claim: Claim) -> list[Change]:
        """Count a stream that was let in."""
        workload = self._hold(claim)
        count = workload.streams.pop(claim)
        workload.streams[claim] = count + 1
        self._leaving.pop(claim, None)
        return self._settle(workload.key)

    def disconnected(self, claim: Claim, now: float) -> list[Change]:
        """Count a stream that has ended."""
        workload = self._hold(claim)
        count = workload.streams[claim] = max(0, workload.streams[claim] - 1)
        if not count:
            self._leaving[claim] = now + self._grace_seconds
        if claim.group and not workload.is_connected:
            self.tally.left += 1
        return self._settle(workload.key)

    def report(self, claim: Claim, problem: str | None) -> list[Change]:
        """Take what a workload says of its health; None is good, a text is what is wrong."""
        workload = self._workloads.get(claim.key)
        if workload is None or claim not in workload.streams:
            return []
        workload.health = Health(is_healthy=problem is None, problem=problem or "", by=claim)
        self._orphaned.discard(workload.key)
        return self._settle(workload.key)

    def heard(self, claim: Claim, problem: str | None) -> list[Change]:
        """Take a report of an agent with a stream of its own, which may have come first."""
        self._heard[claim] = Health(is_healthy=problem is None, problem=problem or "", by=claim)
        self._hushed.pop(claim, None)
        return self.report(claim, problem)

    def hushed(self, claim: Claim, now: float) -> None:
        """Note that the stream of such an agent has ended; it may come back in time."""
        if claim in self._heard:
            self._hushed[claim] = now + self._grace_seconds

    def expire(self, now: float) -> list[Change]:
        """Drop whom nobody has heard of for too long."""
        silent = [claim for claim, until in self._hushed.items() if until <= now]
        changes = [change for claim in silent for change in self._forget(claim)]
        return changes + self._expire_workloads(now)

    def _forget(self, claim: Claim) -> list[Change]:
        del self._hushed[claim], self._heard[claim]
        workload = self._workloads.get(claim.key)
        if workload is None or workload.health is None or workload.health.by != claim:
            return []
        workload.health = None
        if workload.key in self._written:
            self._orphaned.add(workload.key)
        return self._settle(workload.key)

    def _expire_workloads(self, now: float) -> list[Change]:
        due = [claim for claim, until in self._leaving.items() if until <= now]
        changed: dict[ObjectKey, None] = {}
        for claim in due:
            del self._leaving[claim]
            workload = self._workloads[claim.key]
            del workload.streams[claim]
            changed[workload.key] = None
            if not workload.streams:
                self._drop(workload)
        return [change for key in changed for change in self._settle(key)]

    # -- parts ------------------------------------------------------------------------------------

    def _hold(self, claim: Claim) -> Workload:
        key = claim.key
        workload = self._workloads.get(key)
        if workload is None:
            workload = self._workloads[key] = Workload(key)
        if claim.group and not workload.group:
            workload.group = claim.group
            self._of_group.setdefault(claim.group_key, {})[key] = None
        if claim not in workload.streams:
            workload.streams[claim] = 0
            workload.health = self._heard.get(claim, workload.health)
        return workload

    def _drop(self, workload: Workload) -> None:
        key = workload.key
        del self._workloads[key]
        if workload.group:
            group_key = ObjectKey(key.namespace, workload.group)
            entries = self._of_group[group_key]
            del entries[key]
            if not entries:
                del self._of_group[group_key]
            self.tally.dropped += 1
        if workload.health is not None and key in self._written:
            self._orphaned.add(key)

    def _settle(self, key: ObjectKey) -> list[Change]:
        """Return the change of a row, none if it is as it was."""
        written = self._written.get(key)
        before = self._shown.get(key, written)
        row = self._row(key)
        _put(self._shown, key, None if row is written else row)
        return [] if row == before else [(ENTRIES, key, row)]

    def _row(self, key: ObjectKey) -> WorkloadEntry | None:
        workload = self._workloads.get(key)
        written = self._written.get(key)
        if written is None:
            if workload is not None:
                workload.row = self._made(workload)
                return workload.row
            return None
        if workload is not None:
            workload.row = None
        if takes_reports(written):
            if workload is not None and workload.health is not None:
                return _with_reported(written, workload.health)
            if key in self._orphaned:
                return with_health(written, None)
        return written

    def _made(self, workload: Workload) -> WorkloadEntry | None:
        group = self._groups.get(ObjectKey(workload.key.namespace, workload.group))
        if not workload.group or group is None:
            return None
        account = group.spec.template.service_account
        for claim in workload.claims():
            if claim.group and may_control(claim, account):
                row = entry_from(group, claim)
                if workload.health is not None and takes_reports(row):
                    row = _with_reported(row, workload.health)
                return row
        return None


def _put(held: dict[ObjectKey, Any], key: ObjectKey, row: Any | None) -> None:  # noqa: ANN401
    if row is None:
        held.pop(key, None)
    else:
        held[key] = row


def _with_reported(row: WorkloadEntry, health: Health) -> WorkloadEntry:
    # The row may have changed since; who may no longer stand for it has no say in it either.
    counts = may_control(health.by, row.spec.service_account)
    return with_health(row, health.is_healthy if counts else None)


def _unknown(claim: Claim) -> RegistrationRefused:
    if claim.group:
        name = f"{claim.namespace}/{claim.group}"[:300].encode("unicode_escape").decode()
        return RegistrationRefused(
            RefusalReason.NO_GROUP,
            GROUPS,
            claim.group_key,
            f"AUTO_REGISTER_GROUP names the WorkloadGroup {name}, which does not exist.",
        )
    name = f"{claim.namespace}/{claim.entry}"[:300].encode("unicode_escape").decode()
    return RegistrationRefused(
        RefusalReason.NO_ENTRY,
        ENTRIES,
        claim.key,
        f"WORKLOAD_ENTRY names the WorkloadEntry {name}, which does not exist.",
    )
