"""Who is registered, step by step (WG-01 to WG-03, WE-07); the laws are in tests/property."""

from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from pilothouse.api.decode import decode
from pilothouse.api.meta import ObjectKey
from pilothouse.graph.findings import Finding
from pilothouse.model.registration import Claim, RefusalReason, RegistrationRefused
from pilothouse.model.registration_book import ENTRIES, GROUPS, RegistrationBook
from pilothouse.model.registration_findings import Refusal, registration_findings

WEB = ObjectKey("shop", "web")
ENTRY = ObjectKey("shop", "web-10.0.0.1")
CLAIM = Claim(proxy="web-1", namespace="shop", group="web", address="10.0.0.1", account="web")
VM = Claim(proxy="vm-1", namespace="shop", entry="vm", account="web")


def read(text: str) -> Any:
    """Return one object."""
    return decode(yaml.safe_load(text)).object


def group(account: str = "", *, probed: bool = False) -> Any:
    """Return the group."""
    return read(f"""
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {{name: web, namespace: shop}}
spec:
  template: {{serviceAccount: '{account}'}}
  {"probe: {tcpSocket: {port: 80}}" if probed else ""}
""")


def entry(name: str, *, probed: bool, account: str = "") -> Any:
    """Return an entry as somebody writes it."""
    checked = "{proxy.istio.io/health-checks-enabled: 'true'}" if probed else "{}"
    return read(f"""
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, namespace: shop, annotations: {checked}}}
spec: {{address: 10.0.0.5, serviceAccount: '{account}'}}
""")


@pytest.fixture
def book() -> RegistrationBook:
    """Return a book with the group and ten seconds of grace."""
    made = RegistrationBook(10.0)
    made.take([(GROUPS, WEB, group())])
    return made


def said(book: RegistrationBook, *refusals: Refusal) -> list[Finding]:
    """Return what there is to say."""
    return list(registration_findings(book, refusals, knows_callers=True))


def codes(book: RegistrationBook) -> list[str]:
    """Return the codes of what there is to say."""
    return [each.code for each in said(book)]


def test_a_workload_comes_and_goes(book: RegistrationBook) -> None:
    """WG-01: the entry is there before the first answer and until the grace is over."""
    ((kind, key, row),) = book.request(CLAIM, 0.0)
    assert (kind, key, row.spec.address) == (ENTRIES, ENTRY, "10.0.0.1")
    assert book.connected(CLAIM) == []
    assert book.next_expiry is None
    assert book.disconnected(CLAIM, 5.0) == []
    assert book.next_expiry == 15.0
    assert book.expire(14.9) == []
    assert book.expire(15.0) == [(ENTRIES, ENTRY, None)]
    assert list(book.workloads()) == []
    tally = book.tally
    assert (tally.made, tally.updated, tally.left, tally.dropped) == (1, 0, 1, 1)


def test_who_comes_back_in_time_was_never_away(book: RegistrationBook) -> None:
    """WG-01: also with health that was reported."""
    book.request(CLAIM, 0.0)
    book.connected(CLAIM)
    book.disconnected(CLAIM, 1.0)
    assert book.request(CLAIM, 10.9) == []
    book.connected(CLAIM)
    assert book.expire(100.0) == []
    tally = book.tally
    assert (tally.made, tally.updated, tally.left, tally.dropped) == (1, 1, 1, 0)


def test_a_second_stream_keeps_it(book: RegistrationBook) -> None:
    """WG-01: an entry goes with the last stream of its workload."""
    for _ in range(2):
        book.request(CLAIM, 0.0)
        book.connected(CLAIM)
    book.disconnected(CLAIM, 1.0)
    assert book.next_expiry is None
    assert book.tally.left == 0
    book.disconnected(CLAIM, 2.0)
    assert book.expire(12.0) == [(ENTRIES, ENTRY, None)]


def test_a_stream_that_is_not_let_in_leaves_nothing(book: RegistrationBook) -> None:
    """It was registered before it was served, and never came."""
    book.request(CLAIM, 0.0)
    assert book.expire(10.0) == [(ENTRIES, ENTRY, None)]


def test_entries_follow_their_group(book: RegistrationBook) -> None:
    """WG-01: a group that is gone takes them along; when it is back, so are they."""
    book.request(CLAIM, 0.0)
    book.connected(CLAIM)
    assert book.take([(GROUPS, WEB, None)])[1:] == [(ENTRIES, ENTRY, None)]
    assert codes(book) == ["NotRegistered"]
    ((_, _, row),) = book.take([(GROUPS, WEB, group("web"))])[1:]
    assert row.spec.service_account == "web"
    assert codes(book) == []


def test_a_group_of_another_account_has_none_of_it(book: RegistrationBook) -> None:
    """WG-01: who is connected already is held against the edited group."""
    book.request(CLAIM, 0.0)
    book.connected(CLAIM)
    assert book.take([(GROUPS, WEB, group("other"))])[1:] == [(ENTRIES, ENTRY, None)]
    (finding,) = said(book)
    assert (finding.code, str(finding.ref)) == ("NotRegistered", "WorkloadGroup shop/web")
    assert "'other'" in finding.message


def test_what_is_reported_counts_while_its_reporter_does(book: RegistrationBook) -> None:
    """WE-07: a workload that may no longer stand for the entry has no say in it."""
    book.take([(GROUPS, WEB, group(probed=True))])
    other = replace(CLAIM, proxy="web-2", account="other")
    for claim in (CLAIM, other):
        book.request(claim, 0.0)
        book.connected(claim)
    ((_, _, row),) = book.report(other, None)
    assert row.is_healthy
    ((_, _, row),) = book.take([(GROUPS, WEB, group("web", probed=True))])[1:]
    assert not row.is_healthy
    ((_, _, row),) = book.report(CLAIM, None)
    assert row.is_healthy


def test_health_is_told_once(book: RegistrationBook) -> None:
    """WE-07: a report that says the same changes nothing."""
    book.take([(GROUPS, WEB, group(probed=True))])
    ((_, _, row),) = book.request(CLAIM, 0.0)
    book.connected(CLAIM)
    assert not row.is_healthy
    assert codes(book) == ["HealthNotReported"]
    assert len(book.report(CLAIM, None)) == 1
    assert book.report(CLAIM, None) == []
    assert codes(book) == []
    assert len(book.report(CLAIM, "")) == 1, "an error without words is one"
    assert book.report(CLAIM, "down") == []


def test_without_checks_reports_change_nothing(book: RegistrationBook) -> None:
    """WE-07: nobody asked."""
    book.request(CLAIM, 0.0)
    book.connected(CLAIM)
    assert book.report(CLAIM, "down") == []


def test_reports_of_strangers_change_nothing(book: RegistrationBook) -> None:
    """WE-07: a stream may speak for its own workload only."""
    book.take([(GROUPS, WEB, group(probed=True)), (ENTRIES, VM.key, entry("vm", probed=True))])
    assert book.report(CLAIM, None) == []
    assert book.report(VM, None) == []


def test_an_entry_that_somebody_wrote_has_its_health_from_its_workload(
    book: RegistrationBook,
) -> None:
    """WE-07, NM-19: WORKLOAD_ENTRY registers nothing; without a workload it is not healthy."""
    book.take([(ENTRIES, VM.key, entry("vm", probed=True))])
    assert book.request(VM, 0.0) == []
    book.connected(VM)
    assert codes(book) == ["HealthNotReported"]
    ((_, key, row),) = book.report(VM, None)
    assert key == VM.key
    assert row.is_healthy
    book.disconnected(VM, 1.0)
    ((_, _, row),) = book.expire(11.0)
    assert not row.is_healthy
    assert (book.tally.made, book.tally.dropped) == (0, 0)


@pytest.mark.parametrize("is_checked", [True, False])
def test_an_entry_is_for_its_service_account(book: RegistrationBook, *, is_checked: bool) -> None:
    """NM-19: who reports for it must be it; without checks nothing can be reported anyway."""
    book.take([(ENTRIES, VM.key, entry("vm", probed=is_checked, account="other"))])
    if is_checked:
        with pytest.raises(RegistrationRefused) as refused:
            book.request(VM, 0.0)
        assert refused.value.reason is RefusalReason.OTHER_IDENTITY
    else:
        assert book.request(VM, 0.0) == []


def test_what_does_not_exist(book: RegistrationBook) -> None:
    """WG-01, NM-19: refused, and let in once it does."""
    for claim, reason in (
        (replace(CLAIM, group="nope"), RefusalReason.NO_GROUP),
        (VM, RefusalReason.NO_ENTRY),
    ):
        with pytest.raises(RegistrationRefused) as refused:
            book.request(claim, 0.0)
        assert refused.value.reason is reason
        assert "does not exist" in str(refused.value)
    assert book.tally.made == 0
    assert list(book.workloads()) == []


def test_what_somebody_wrote_wins(book: RegistrationBook) -> None:
    """WG-01: under the name of an entry that would be made; when it goes, that one comes."""
    row = entry("web-10.0.0.1", probed=False)
    book.take([(ENTRIES, ENTRY, row)])
    assert book.request(CLAIM, 0.0) == []
    book.connected(CLAIM)
    assert codes(book) == ["WrittenEntryWins"]
    ((_, _, made),) = book.take([(ENTRIES, ENTRY, None)])
    assert made.spec.address == "10.0.0.1"
    assert book.take([(ENTRIES, ENTRY, row)]) == [(ENTRIES, ENTRY, row)]


def test_two_groups_cannot_share_a_name(book: RegistrationBook) -> None:
    """A workload chooses its NETWORK, but not to stand for a workload of another group."""
    first = replace(CLAIM, group="web-10.0.0.1", address="10.0.0.2")
    second = replace(CLAIM, network="10.0.0.2")
    assert first.key == second.key
    book.take([(GROUPS, first.group_key, group())])
    book.request(first, 0.0)
    with pytest.raises(RegistrationRefused) as refused:
        book.request(second, 0.0)
    assert refused.value.reason is RefusalReason.TAKEN
    book.expire(10.0)
    assert len(book.request(second, 10.0)) == 1


def test_who_names_a_written_entry_keeps_nobody_out(book: RegistrationBook) -> None:
    """NM-19: whose word counts for nothing must not stand in the way of who registers."""
    row = entry("web-10.0.0.1", probed=False)
    book.take([(ENTRIES, ENTRY, row)])
    idler = Claim(proxy="idler", namespace="shop", entry="web-10.0.0.1", account=None)
    assert book.request(idler, 0.0) == []
    book.connected(idler)
    assert book.request(CLAIM, 0.0) == []
    book.connected(CLAIM)
    ((_, _, made),) = book.take([(ENTRIES, ENTRY, None)])
    assert made.spec.address == "10.0.0.1"


def test_two_workloads_at_one_address(book: RegistrationBook) -> None:
    """The one that came last is shown, while it is there."""
    other = replace(CLAIM, proxy="web-2", labels=(("version", "v2"),))
    for claim in (CLAIM, other):
        book.request(claim, 0.0)
        changes = book.connected(claim)
    ((_, _, row),) = changes
    assert row.spec.labels == {"version": "v2"}
    assert codes(book) == ["RegisteredTwice"]
    ((_, _, row),) = book.disconnected(other, 1.0)
    assert row.spec.labels == {}
    assert codes(book) == []


def test_refusals_are_told(book: RegistrationBook) -> None:
    """The operator sees who was turned away, and what for."""
    refusal = Refusal(kind=GROUPS, key=WEB, proxy="web-9", problem="No such thing.")
    (finding,) = said(book, refusal)
    assert (finding.code, str(finding.ref)) == ("RegistrationRefused", "WorkloadGroup shop/web")
    assert "web-9" in finding.message
    assert "No such thing." in finding.message


def test_without_a_secure_port_nobody_can_register(book: RegistrationBook) -> None:
    """WG-01: a group that waits in vain says so."""
    (finding,) = registration_findings(book, (), knows_callers=False)
    assert (finding.code, finding.ref.name) == ("NobodyCanRegister", "web")


def test_another_book_goes_on_from_here(book: RegistrationBook) -> None:
    """ADR 22: with what was reported, until somebody had time to come back; groups count anew."""
    book.take([(GROUPS, WEB, group(probed=True))])
    gone = replace(CLAIM, address="10.0.0.2")
    for claim in (CLAIM, gone):
        book.request(claim, 0.0)
        book.connected(claim)
        book.report(claim, None)
    next_book = RegistrationBook(10.0)
    next_book.take([(GROUPS, WEB, group(probed=True))])
    recalled = next_book.recall(book.remembered(), 60.0)
    assert {key for _, key, row in recalled if row.is_healthy} == {CLAIM.key, gone.key}
    next_book.request(CLAIM, 5.0)
    next_book.connected(CLAIM)
    assert next_book.expire(59.0) == []
    assert next_book.expire(60.0) == [(ENTRIES, gone.key, None)]
    other = RegistrationBook(10.0)
    other.take([(GROUPS, WEB, group("other"))])
    assert other.recall(book.remembered(), 60.0) == []


def test_an_agent_of_its_own_may_speak_first(book: RegistrationBook) -> None:
    """WG-03: what it said is known when its proxy comes; its stream is none of the workload's."""
    book.take([(GROUPS, WEB, group(probed=True))])
    assert book.heard(CLAIM, None) == []
    assert list(book.workloads()) == []
    ((_, _, row),) = book.request(CLAIM, 0.0)
    assert row.is_healthy
    ((_, _, row),) = book.heard(CLAIM, "down")
    assert not row.is_healthy


def test_an_agent_that_has_gone_is_believed_for_a_while(book: RegistrationBook) -> None:
    """WE-07: nobody knows better within the grace, and then nobody knows."""
    book.take([(GROUPS, WEB, group(probed=True))])
    book.request(CLAIM, 0.0)
    book.connected(CLAIM)
    book.heard(CLAIM, None)
    book.hushed(CLAIM, 1.0)
    assert book.next_expiry == 11.0
    book.heard(CLAIM, None)
    assert book.expire(100.0) == []
    book.hushed(CLAIM, 101.0)
    ((_, _, row),) = book.expire(111.0)
    assert not row.is_healthy
    assert codes(book) == ["HealthNotReported"]
    assert book.next_expiry is None


def test_other_kinds_pass(book: RegistrationBook) -> None:
    """Nothing else is looked at."""
    changes = [("Service", WEB, object()), ("MeshConfig", ObjectKey("", "mesh"), None)]
    assert book.take(changes) == changes
