"""
Any order of connecting, leaving, coming back, reporting and editing ends in the right entries.

The book tells changes; what they add up to is compared, after every step, with what follows from
the history by the rules alone (traffic.md WG-01 to WG-03, WE-07).
"""

from typing import Any

import yaml
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from pilothouse.api.decode import decode
from pilothouse.api.meta import ObjectKey
from pilothouse.model.registration import Claim, RegistrationRefused, entry_from
from pilothouse.model.registration_book import ENTRIES, GROUPS, RegistrationBook

GRACE = 10.0
NAMESPACE = "shop"


def read(text: str) -> Any:
    return decode(yaml.safe_load(text)).object


def group(name: str, account: str, label: str, *, probed: bool) -> Any:
    probe = "  probe: {tcpSocket: {port: 80}}\n" if probed else ""
    return read(f"""
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  template: {{serviceAccount: '{account}', labels: {{is: '{label}'}}}}
{probe}""")


def written(name: str, account: str, *, probed: bool) -> Any:
    annotation = "{proxy.istio.io/health-checks-enabled: 'true'}" if probed else "{}"
    return read(f"""
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, namespace: {NAMESPACE}, annotations: {annotation}}}
spec: {{address: 10.9.9.9, serviceAccount: '{account}'}}
status: {{conditions: [{{type: Healthy, status: 'True'}}]}}
""")


def claim(name: str, address: str, account: str | None, *, of: str = "a") -> Claim:
    return Claim(
        proxy=f"sidecar~{address}~{name}.{NAMESPACE}~x",
        namespace=NAMESPACE,
        group=of,
        entry="" if of else "vm",
        address=address,
        labels=(("by", name),),
        account=account,
    )


CLAIMS = (
    claim("first", "10.0.0.1", "one"),
    claim("second", "10.0.0.1", "two"),
    claim("third", "10.0.0.1", "one"),
    claim("other", "10.0.0.2", "one"),
    claim("another", "10.0.0.1", "one", of="b"),
    claim("vm", "10.0.0.5", "one", of=""),
    claim("same", "10.0.0.5", "two", of=""),
    claim("nobody", "10.0.0.1", None),
    replace(claim("taker", "10.0.0.1", "two", of=""), entry="a-10.0.0.1"),
)
# Few, so that they meet.
WRITTEN = ("vm", "a-10.0.0.1")
accounts = st.sampled_from(["", "", "one", "two"])
claims = st.sampled_from(CLAIMS)


class Registrations(RuleBasedStateMachine):
    """Connections and edits in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.book = RegistrationBook(GRACE)
        self.now = 0.0
        self.rows: dict[ObjectKey, Any] = {}
        """What a reader of the changes has."""
        self.groups: dict[str, Any] = {}
        self.written: dict[str, Any] = {}
        self.open: dict[Claim, int] = {}
        self.seen: list[Claim] = []
        """Claims, the one that came last at the end."""
        self.gone_at: dict[Claim, float] = {}
        self.reported: dict[ObjectKey, tuple[bool, Claim]] = {}
        self.orphaned: set[ObjectKey] = set()
        self.heard: dict[Claim, bool] = {}
        self.hushed_at: dict[Claim, float] = {}
        self.edit_group("a", "", "x", probed=True, is_there=True)

    def apply(self, changes: Any) -> None:
        for kind, key, row in changes:
            if kind != ENTRIES:
                continue
            if row is None:
                assert key in self.rows, "nothing goes that was not there"
                del self.rows[key]
            else:
                self.rows[key] = row

    def forget_gone(self) -> None:
        for claim, since in list(self.hushed_at.items()):
            if since + GRACE <= self.now:
                del self.hushed_at[claim], self.heard[claim]
                if self.reported.get(claim.key, (None, None))[1] == claim:
                    del self.reported[claim.key]
                    if claim.key.name in self.written:
                        self.orphaned.add(claim.key)
        for claim in list(self.seen):
            if not self.open.get(claim) and self.gone_at[claim] + GRACE <= self.now:
                self.seen.remove(claim)
        held = {claim.key for claim in self.seen}
        for key in [key for key in self.reported if key not in held]:
            del self.reported[key]
            if key.name in self.written:
                self.orphaned.add(key)

    # -- what may happen --------------------------------------------------------------------------

    @rule(claim=claims, is_let_in=st.booleans())
    def connect(self, claim: Claim, is_let_in: bool) -> None:
        try:
            changes = self.book.request(claim, self.now)
        except RegistrationRefused:
            assert not self.may_come(claim)
            return
        assert self.may_come(claim)
        self.apply(changes)
        if claim not in self.seen and claim in self.heard:
            self.reported[claim.key] = (self.heard[claim], claim)
        if not self.open.get(claim):
            self.gone_at[claim] = self.now
            self.move_to_end(claim)
        if is_let_in:
            self.apply(self.book.connected(claim))
            self.open[claim] = self.open.get(claim, 0) + 1
            self.move_to_end(claim)

    def move_to_end(self, claim: Claim) -> None:
        if claim in self.seen:
            self.seen.remove(claim)
        self.seen.append(claim)

    def may_come(self, claim: Claim) -> bool:
        entry = self.written.get(claim.key.name)
        of_group = self.groups.get(claim.group)
        if entry is not None:
            if not claim.group and not entry.meta.annotations:
                return True
            account = entry.spec.service_account
        elif of_group is not None:
            account = of_group.spec.template.service_account
        else:
            return False
        return claim.account is not None and account in ("", claim.account)

    @precondition(lambda self: any(self.open.values()))
    @rule(data=st.data())
    def disconnect(self, data: Any) -> None:
        claim = data.draw(st.sampled_from([c for c, count in self.open.items() if count]))
        self.open[claim] -= 1
        self.gone_at[claim] = self.now
        self.apply(self.book.disconnected(claim, self.now))

    @rule(claim=claims, problem=st.sampled_from([None, "", "down"]))
    def report(self, claim: Claim, problem: str | None) -> None:
        self.apply(self.book.report(claim, problem))
        if claim in self.seen:
            self.reported[claim.key] = (problem is None, claim)
            self.orphaned.discard(claim.key)

    @rule(claim=claims, problem=st.sampled_from([None, "down"]), leaves=st.booleans())
    def hear_an_agent(self, claim: Claim, problem: str | None, leaves: bool) -> None:
        self.apply(self.book.heard(claim, problem))
        self.heard[claim] = problem is None
        self.hushed_at.pop(claim, None)
        if claim in self.seen:
            self.reported[claim.key] = (problem is None, claim)
            self.orphaned.discard(claim.key)
        if leaves:
            self.book.hushed(claim, self.now)
            self.hushed_at[claim] = self.now

    @rule(seconds=st.sampled_from([1.0, 5.0, 9.0, 10.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        due = self.book.next_expiry
        if due is not None and due <= self.now:
            self.apply(self.book.expire(self.now))
        self.forget_gone()

    @rule(name=st.sampled_from("aaab"), account=accounts, label=st.sampled_from("xy"),
          probed=st.booleans(), is_there=st.booleans())  # fmt: skip
    def edit_group(self, name: str, account: str, label: str, probed: bool, is_there: bool) -> None:
        row = group(name, account, label, probed=probed) if is_there else None
        self.apply(self.book.take([(GROUPS, ObjectKey(NAMESPACE, name), row)]))
        self.groups = {**self.groups, name: row}
        self.groups = {key: each for key, each in self.groups.items() if each is not None}

    @rule(name=st.sampled_from(WRITTEN), account=accounts, probed=st.booleans(),
          is_there=st.booleans())  # fmt: skip
    def edit_entry(self, name: str, account: str, probed: bool, is_there: bool) -> None:
        if not is_there and name not in self.written:
            return
        row = written(name, account, probed=probed) if is_there else None
        key = ObjectKey(NAMESPACE, name)
        self.orphaned.discard(key)
        self.apply(self.book.take([(ENTRIES, key, row)]))
        self.written = {**self.written, name: row}
        self.written = {name: each for name, each in self.written.items() if each is not None}

    # -- what must hold ---------------------------------------------------------------------------

    @invariant()
    def entries_are_right(self) -> None:
        expected: dict[ObjectKey, Any] = {}
        for name, row in self.written.items():
            expected[ObjectKey(NAMESPACE, name)] = row
        for claim in sorted(self.seen, key=self.importance):
            if claim.group and claim.key.name not in self.written:
                of_group = self.groups.get(claim.group)
                account = of_group.spec.template.service_account if of_group else None
                if of_group and claim.account is not None and account in ("", claim.account):
                    expected[claim.key] = entry_from(of_group, claim)
        assert self.rows.keys() == expected.keys()
        for key, row in expected.items():
            got = self.rows[key]
            assert replace(got, status=None) == replace(row, status=None)
            assert got.is_healthy == self.is_healthy(key, row)

    def importance(self, claim: Claim) -> tuple[bool, int]:
        return bool(self.open.get(claim)), self.seen.index(claim)

    def is_healthy(self, key: ObjectKey, row: Any) -> bool:
        if "proxy.istio.io/health-checks-enabled" not in row.meta.annotations:
            return True
        if key in self.reported:
            said, by = self.reported[key]
            return said and by.account is not None and row.spec.service_account in ("", by.account)
        return key.name in self.written and key not in self.orphaned

    @invariant()
    def nobody_is_forgotten_or_kept_for_ever(self) -> None:
        held = {workload.key for workload in self.book.workloads()}
        assert held == {claim.key for claim in self.seen}
        if not any(self.open.values()):
            assert bool(held or self.hushed_at) == (self.book.next_expiry is not None)


Registrations.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestRegistrations = Registrations.TestCase
