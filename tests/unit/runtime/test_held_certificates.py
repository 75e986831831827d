"""The ledger's eyes: what is handed out is known before it is used, and bounded."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

from certificates import ALICE, NOW, csr

from pilothouse.certs.authority import Authority
from pilothouse.certs.callers import Caller, How
from pilothouse.certs.holders import Holding
from pilothouse.certs.holders_journal import JOURNAL_FILE, HoldersJournal
from pilothouse.certs.issued import IssuedChain
from pilothouse.certs.material import CaMaterial
from pilothouse.certs.self_signed import make_root
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.proxies import CertificateSource, NodeType, Proxy
from pilothouse.runtime.held_certificates import MAX_LEAVES, HeldCertificates, name_of

ROOT, NEW = make_root("cluster.local", NOW), make_root("cluster.local", NOW)
LIFE = timedelta(hours=24)


class NoStreams:
    """Nobody is connected."""

    def members(self) -> list[object]:
        return []


def watcher(directory: Path | None = None) -> tuple[HeldCertificates, HoldersJournal]:
    journal = HoldersJournal(directory)
    held = HeldCertificates(journal, NoStreams(), lambda: NOW, assumed_life=LIFE)  # type: ignore[arg-type]
    return held, journal


def chain_of(material: CaMaterial) -> IssuedChain:
    return Authority(material).sign_csr(csr(), ALICE, NOW)


def proxy(number: int, source: CertificateSource = CertificateSource.ADS) -> Proxy:
    return Proxy(
        id=f"sidecar~10.0.0.{number}~a-{number}.default~default.svc.cluster.local",
        type=NodeType.SIDECAR,
        ips=(f"10.0.0.{number}",),
        name=f"a-{number}",
        namespace="default",
        domain="default.svc.cluster.local",
        certificates=source,
        identity=ALICE,
    )


def test_certificates_of_agents_count_until_they_end() -> None:
    held, journal = watcher()
    chain = chain_of(ROOT)
    held.issued(ALICE, chain, made_here=False)
    assert dict(journal.holders) == {
        f"leaf:{chain.serial}:{ALICE}": Holding(
            trusts=frozenset({ROOT.root}), uses=frozenset({ROOT.root}), until=NOW + LIFE
        )
    }
    assert held.look().any_uses(ROOT.root)


def test_a_certificate_is_given_up_soon_after_the_next() -> None:
    """Not at once: the answer may have been lost on its way."""
    held, journal = watcher()
    first, second = chain_of(ROOT), chain_of(ROOT)
    for chain in (first, second):
        held.issued(ALICE, chain, made_here=False)
    by_token = Caller(identity=ALICE, how=How.TOKEN, credential="token:1")
    held.superseded(by_token, second)
    assert {each.until for _, each in journal.holders} == {NOW + LIFE}
    by_certificate = Caller(
        identity=ALICE, how=How.CERTIFICATE, credential=f"certificate:{first.serial}"
    )
    held.superseded(by_certificate, second)
    left = journal.holders.get(f"leaf:{first.serial}:{ALICE}")
    assert left is not None
    assert left.until == NOW + timedelta(minutes=2)


def test_a_greedy_identity_does_not_fill_the_ledger() -> None:
    """What cannot be known one by one is counted together, to the safe side."""
    held, journal = watcher()
    chains = [chain_of(ROOT), chain_of(NEW)]
    for number in range(MAX_LEAVES + 5):
        chain = chains[number % 2]
        made = IssuedChain(
            leaf_pem=b"", roots_pem=chain.roots_pem, root=chain.root, serial=f"{number:x}",
            not_before=NOW, not_after=NOW + timedelta(hours=number),
        )  # fmt: skip
        held.issued(ALICE, made, made_here=False)
    assert len(journal.holders) == MAX_LEAVES + 1
    together = journal.holders.get(f"many:{ALICE}")
    assert together == Holding(trusts=None, uses=None, until=NOW + timedelta(hours=4))


def test_a_proxy_is_noted_before_it_is_given_anything(tmp_path: Path) -> None:
    """A server killed right after it let somebody in knows of them when it is back."""
    tmp_path.chmod(0o700)
    held, _ = watcher(tmp_path)
    held.connected(proxy(1))
    held.connected(proxy(2, CertificateSource.AGENT))
    _, again = watcher(tmp_path)
    assert dict(again.holders) == {f"node:{ALICE}:{proxy(1).id}": Holding(until=NOW + LIFE)}
    assert (tmp_path / JOURNAL_FILE).exists()


def test_a_new_certificate_of_a_connected_proxy_counts_beside_the_old() -> None:
    held, journal = watcher()
    key = f"node:{ALICE}:{proxy(1).id}"
    held.connected(proxy(1))
    known = Holding(
        trusts=frozenset({ROOT.root}), uses=frozenset({ROOT.root}), until=NOW + timedelta(hours=1)
    )
    journal.note(key, known)
    held.issued(ALICE, chain_of(NEW), made_here=True)
    held.issued(WorkloadIdentity("cluster.local", "default", "bob"), chain_of(NEW), made_here=True)
    assert journal.holders.get(key) == Holding(
        trusts=known.trusts, uses=frozenset({ROOT.root, NEW.root}), until=NOW + LIFE
    )
    held.disconnected(proxy(1))
    held.issued(ALICE, chain_of(NEW), made_here=True)
    assert held.look().any_uses(ROOT.root), "who has gone keeps what it had"


def test_nodes_of_ever_new_ids_do_not_fill_the_ledger() -> None:
    """A workload names its node as it likes; those that went are counted together, safely."""
    held, journal = watcher()
    held.connected(proxy(0))
    for number in range(1, MAX_LEAVES + 6):
        held.connected(proxy(number))
        held.disconnected(proxy(number))
    assert len(journal.holders) == MAX_LEAVES + 2
    together = journal.holders.get(f"many:{ALICE}")
    assert together == Holding(trusts=None, uses=None, until=NOW + LIFE)
    assert journal.holders.get(f"node:{ALICE}:{proxy(0).id}"), "who is there is known by itself"
    assert journal.holders.get(f"node:{ALICE}:{proxy(5).id}") is None
    held.connected(proxy(6))
    for number in range(MAX_LEAVES + 6, MAX_LEAVES + 9):
        held.connected(proxy(number))
        held.disconnected(proxy(number))
    assert journal.holders.get(f"node:{ALICE}:{proxy(6).id}"), "it has come back"


def test_a_node_id_stands_for_nobody_elses() -> None:
    """A workload may give its node any id; what it has must not count as what another has."""
    held, journal = watcher()
    bob = replace(proxy(1), identity=WorkloadIdentity("cluster.local", "default", "bob"))
    held.connected(proxy(1))
    known = Holding(trusts=frozenset({ROOT.root}), uses=frozenset({ROOT.root}), until=NOW + LIFE)
    journal.note(f"node:{ALICE}:{proxy(1).id}", known)
    held.connected(bob)
    assert len(journal.holders) == 2
    assert not held.look().all_trust(ROOT.root), "of bob nothing is known"
    assert journal.holders.get(f"node:{ALICE}:{proxy(1).id}") == known


def test_ended_certificates_are_dropped() -> None:
    moment = NOW
    journal = HoldersJournal(None)
    held = HeldCertificates(journal, NoStreams(), lambda: moment, assumed_life=LIFE)  # type: ignore[arg-type]
    held.issued(ALICE, chain_of(ROOT), made_here=False)
    moment = NOW + LIFE
    assert not held.look().any_uses(ROOT.root)
    assert len(journal.holders) == 0


def test_holders_are_named_for_people() -> None:
    """Certificates by whose they are; what a node calls itself cannot write to a terminal."""
    assert name_of(f"leaf:1f:{ALICE}") == f"{ALICE} (certificate 1f)"
    assert name_of("node:sidecar~10.0.0.1~a.b~b") == "sidecar~10.0.0.1~a.b~b"
    assert name_of("node:a\x1b[2J") == "'a\\x1b[2J'"


def test_a_stream_with_the_next_certificate_ends_the_count_of_the_one_before() -> None:
    """The answer has arrived, and the agent's proxies have it; nothing has to be waited for."""
    held, journal = watcher()
    first, second = chain_of(ROOT), chain_of(NEW)
    for chain in (first, second):
        held.issued(ALICE, chain, made_here=False)
    by_certificate = Caller(
        identity=ALICE,
        how=How.CERTIFICATE,
        credential=f"certificate:{first.serial}",
        ends_at=NOW + LIFE,
    )
    held.superseded(by_certificate, second)
    assert held.look().any_uses(ROOT.root)

    class OneStream:
        def members(self) -> list[tuple[object, object]]:
            info = SimpleNamespace(
                credential=f"certificate:{second.serial}",
                proxy=proxy(1, CertificateSource.AGENT),
            )
            member = SimpleNamespace(session=SimpleNamespace(watches={}))
            return [(info, member)]

    held._streams = OneStream()  # type: ignore[assignment]
    assert not held.look().any_uses(ROOT.root)
    assert [key for key, _ in journal.holders] == [f"leaf:{second.serial}:{ALICE}"]
