"""
What proxies are known to hold of this authority: the eyes of a rotation of the root.

Certificates signed for agents count from their making to their end, or until the same agent has
come back with one and got the next; the roots it trusts are those it was given, or has acknowledged
since on a stream it opened with it. A stream with the next shows that the one before is used no
more. Proxies without an agent are looked at themselves: what they
have acknowledged on their streams. Those that are away keep what they had. The ledger is
`pilothouse.certs.holders`; here is what fills it.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from msgspec import structs

from pilothouse.certs.callers import Caller, How
from pilothouse.certs.holders import HoldersAt, Holding
from pilothouse.certs.holders_journal import HoldersJournal
from pilothouse.certs.issued import IssuedChain
from pilothouse.certs.material import fingerprint, load_certificates, to_pem
from pilothouse.model.credentials import BUILTIN, CA_SUFFIX, ROOTS, WORKLOAD
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.proxies import Proxy
from pilothouse.model.resource import SDS, Resource
from pilothouse.model.secret_access import reader_of
from pilothouse.xds.publisher import Member
from pilothouse.xds.streams import Streams

_LEAF_NAMES: Final = (WORKLOAD, BUILTIN)
_ROOT_NAMES: Final = (ROOTS, BUILTIN + CA_SUFFIX)
_MAX_VERSIONS: Final = 50_000
MAX_LEAVES: Final = 1_000
"""Certificates of one identity known one by one: who may ask must not fill the ledger."""
_MAX_SHOWN: Final = 200
_ASKS_AGAIN_WITHIN: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A certificate whose key was made here."""

    pem: bytes
    root: str
    until: datetime


@dataclass(frozen=True, slots=True)
class _Successor:
    """The certificate that followed another, which ends at `until`."""

    serial: str
    until: datetime


class HeldCertificates:
    """See the module docstring; lives on one event loop."""

    def __init__(
        self,
        journal: HoldersJournal,
        streams: Streams,
        clock: Callable[[], datetime],
        *,
        assumed_life: timedelta,
    ) -> None:
        """`assumed_life` is how long a certificate that nothing is known of may last."""
        self._journal = journal
        self._streams = streams
        self._clock = clock
        self._assumed_life = assumed_life
        self._leaves: dict[WorkloadIdentity, list[_Leaf]] = {}
        self._roots: dict[str, bytes] = {}
        self._bundles: dict[bytes, frozenset[str]] = {}
        self._leaf_by_version: dict[str, _Leaf] = {}
        self._roots_by_version: dict[str, frozenset[str]] = {}
        self._successors: dict[str, _Successor] = {}
        self._predecessors: dict[str, str] = {}
        self._serials: dict[WorkloadIdentity, deque[str]] = {}
        self._keys: dict[WorkloadIdentity, dict[str, int]] = {}
        self._gone: dict[WorkloadIdentity, OrderedDict[str, None]] = {}
        self._empty_handed: frozenset[str] = frozenset()
        self.connected_keys: frozenset[str] = frozenset()

    # -- what the authority tells -----------------------------------------------------------------

    def know(self, roots_pem: bytes) -> frozenset[str]:
        """Learn the roots of a bundle, to recognise them; return their fingerprints."""
        known = self._bundles.get(roots_pem)
        if known is None:
            roots = {
                fingerprint(each): to_pem(each)
                for each in load_certificates(roots_pem, "the bundle")
            }
            self._roots |= roots
            self._roots_by_version.clear()
            known = self._bundles[roots_pem] = frozenset(roots)
        return known

    def issued(self, identity: WorkloadIdentity, chain: IssuedChain, made_here: bool) -> None:  # noqa: FBT001
        """A workload's certificate was signed; told before anybody has it."""
        if made_here:
            leaves = self._leaves.setdefault(identity, [])
            now = self._clock()
            leaves[:] = [leaf for leaf in leaves if leaf.until > now]
            leaves.append(_Leaf(chain.leaf_pem, chain.root, chain.not_after))
            for key in self._keys.get(identity, ()):
                self._journal.may_use(key, chain.root, chain.not_after)
            return
        self._journal.note(
            _leaf_key(chain.serial, identity),
            Holding(
                trusts=self.know(chain.roots_pem),
                uses=frozenset({chain.root}),
                until=chain.not_after,
            ),
        )
        serials = self._serials.setdefault(identity, deque())
        serials.append(chain.serial)
        if len(serials) > MAX_LEAVES:
            self._merge(identity, _leaf_key(serials.popleft(), identity))

    def _merge(self, identity: WorkloadIdentity, key: str) -> None:
        """Count one of very many certificates of an identity together with others."""
        one, others = self._journal.holders.get(key), f"many:{identity}"
        if one is None:
            return
        many = self._journal.holders.get(others) or one
        merged = Holding(
            trusts=one.trusts if one.trusts == many.trusts else None,
            uses=one.uses if one.uses == many.uses else None,
            until=max(one.until, many.until),
        )
        self._journal.note(others, merged)
        self._journal.forget(key)

    def superseded(self, caller: Caller, chain: IssuedChain) -> None:
        """A caller got a new certificate; the one it proved itself with is soon used no more."""
        kind, _, serial = caller.credential.partition(":")
        if caller.how is How.CERTIFICATE and kind == "certificate":
            key = _leaf_key(serial, caller.identity)
            before = self._journal.holders.get(key)
            if before is not None:
                # The answer may be lost, and the agent has to ask again.
                until = min(before.until, self._clock() + _ASKS_AGAIN_WITHIN)
                self._journal.note(key, structs.replace(before, until=until))
            self._successors[serial] = _Successor(chain.serial, caller.ends_at or self._clock())
            self._predecessors[chain.serial] = key

    # -- what streams show ------------------------------------------------------------------------

    def look(self) -> HoldersAt:
        """Note what every connected proxy has acknowledged; return all that is known now."""
        now = self._clock()
        keys, empty_handed = set[str](), set[str]()
        for key, identity, member in self._concerned():
            keys.add(key)
            watch = member.session.watches.get(SDS)
            before = self._journal.holders.get(key)
            if (watch is None or not watch.subscription.names) and _is_unknown(before):
                empty_handed.add(key)  # it was given nothing, in this connection or another
                continue
            self._journal.note(key, self._holding(before, identity, member, now))
        for key, member in self._agents():
            self._note_agent(key, member)
            keys.add(key)
        self.connected_keys = frozenset(keys)
        self._empty_handed = frozenset(empty_handed)
        self._journal.drop_ended(now)
        for serial in [each for each, next_ in self._successors.items() if next_.until <= now]:
            self._predecessors.pop(self._successors.pop(serial).serial, None)
        return self._journal.holders.at(now, self._empty_handed)

    # -- a follower of streams --------------------------------------------------------------------

    def connected(self, proxy: Proxy) -> None:
        """Note a proxy before it is given anything, so that a kill does not lose it."""
        identity, key = _identity(proxy), _key(proxy)
        if identity is None:
            return
        self._keys.setdefault(identity, {})[key] = self._keys.get(identity, {}).get(key, 0) + 1
        if (gone := self._gone.get(identity)) is not None:
            gone.pop(key, None)
        if self._journal.holders.get(key) is None:
            self._journal.note(key, Holding(until=self._clock() + self._assumed_life))

    def disconnected(self, proxy: Proxy) -> None:
        """Keep what it had, if it was given anything."""
        identity, key = _identity(proxy), _key(proxy)
        if identity is None:
            return
        streams = self._keys.get(identity, {})
        streams[key] = streams.get(key, 1) - 1
        if streams[key] <= 0:
            del streams[key]
            if key in self._empty_handed:
                self._journal.forget(key)
            else:
                self._remember_gone(identity, key)
        if not streams:
            self._keys.pop(identity, None)

    def _remember_gone(self, identity: WorkloadIdentity, key: str) -> None:
        """Know those that went one by one, but not more of an identity than of certificates."""
        gone = self._gone.setdefault(identity, OrderedDict())
        gone[key] = None
        while len(gone) > MAX_LEAVES:
            oldest, _ = gone.popitem(last=False)
            self._merge(identity, oldest)

    def _concerned(self) -> Iterator[tuple[str, WorkloadIdentity, Member]]:
        for info, member in self._streams.members():
            identity = _identity(info.proxy)
            if identity is not None:
                yield _key(info.proxy), identity, member

    def _agents(self) -> Iterator[tuple[str, Member]]:
        """Yield streams of agents, with the certificate that each has by now."""
        for info, member in self._streams.members():
            kind, _, serial = info.credential.partition(":")
            identity = info.proxy.identity
            if kind != "certificate" or identity is None or _identity(info.proxy) is not None:
                continue
            if (before := self._predecessors.pop(serial, None)) is not None:
                self._journal.forget(before)  # the next one has arrived, and is in use
            while (successor := self._successors.get(serial)) is not None:
                serial = successor.serial  # streams outlive the certificate they came with
            yield _leaf_key(serial, identity), member

    def _note_agent(self, key: str, member: Member) -> None:
        before, trusts = self._journal.holders.get(key), self._trusted(member)
        if before is not None and trusts is not None:
            self._journal.note(key, Holding(trusts=trusts, uses=before.uses, until=before.until))

    def _holding(
        self, before: Holding | None, identity: WorkloadIdentity, member: Member, now: datetime
    ) -> Holding:
        trusts = self._trusted(member)
        if trusts is None and before is not None:
            trusts = before.trusts
        leaf, is_latest = self._leaf(identity, member)
        if leaf is not None and is_latest:
            return Holding(trusts=trusts, uses=frozenset({leaf.root}), until=leaf.until)
        # It has one of several, or we cannot tell: all that it may have count.
        possible = [each for each in self._leaves.get(identity, ()) if each.until > now]
        until = max(
            (each.until for each in possible),
            default=before.until if before is not None else now + self._assumed_life,
        )
        uses = None
        if leaf is not None or (before is not None and before.uses is not None):
            uses = frozenset(each.root for each in possible)
            if leaf is not None:
                uses |= {leaf.root}
            elif before is not None and before.uses is not None:
                uses |= before.uses
        if before is not None:
            until = max(until, before.until)
        return Holding(trusts=trusts, uses=uses, until=until)

    def _trusted(self, member: Member) -> frozenset[str] | None:
        """Return the roots that a proxy has acknowledged, None if that is not known."""
        found: list[frozenset[str]] = []
        for held, latest in _acknowledged(member, _ROOT_NAMES):
            resource = latest if held is not None and held == latest else held
            if resource is None:
                return None
            roots = self._roots_of(resource)
            if roots is None:
                return None
            found.append(roots)
        return frozenset.intersection(*found) if found else None

    def _roots_of(self, resource: Resource) -> frozenset[str] | None:
        roots = self._roots_by_version.get(resource.version)
        if roots is None:
            content = resource.any_bytes
            roots = frozenset(root for root, pem in self._roots.items() if pem in content)
            self._roots_by_version[resource.version] = roots
        return roots

    def _leaf(self, identity: WorkloadIdentity, member: Member) -> tuple[_Leaf | None, bool]:
        """Return the certificate that a proxy has acknowledged, and whether it is the latest."""
        found: _Leaf | None = None
        is_latest = True
        for held, latest in _acknowledged(member, _LEAF_NAMES):
            if held is None:
                return None, False
            found = self._leaf_of(identity, held)
            is_latest = is_latest and held == latest
        return found, is_latest and found is not None

    def _leaf_of(self, identity: WorkloadIdentity, resource: Resource) -> _Leaf | None:
        leaf = self._leaf_by_version.get(resource.version)
        if leaf is None:
            content = resource.any_bytes
            leaf = next((e for e in self._leaves.get(identity, ()) if e.pem in content), None)
            if leaf is not None:
                if len(self._leaf_by_version) >= _MAX_VERSIONS:
                    self._leaf_by_version.clear()
                self._leaf_by_version[resource.version] = leaf
        return leaf


def _leaf_key(serial: str, identity: WorkloadIdentity) -> str:
    return f"leaf:{serial}:{identity}"


def name_of(key: str) -> str:
    """Return who a key of the ledger stands for, for people."""
    kind, _, who = key.partition(":")
    if kind != "leaf":  # a node's own word
        return who[:_MAX_SHOWN] if who.isprintable() else ascii(who[:_MAX_SHOWN])
    serial, _, identity = who.partition(":")
    return f"{identity or 'an agent'} (certificate {serial})"


def _key(proxy: Proxy) -> str:
    # A node's id is its own word, and another's must not stand for it.
    return f"node:{proxy.identity}:{proxy.id}"


def _identity(proxy: Proxy) -> WorkloadIdentity | None:
    reader = reader_of(proxy)
    return reader.identity if reader.wants_certificates else None


def _is_unknown(holding: Holding | None) -> bool:
    return holding is None or (holding.trusts is None and holding.uses is None)


def _acknowledged(
    member: Member, names: tuple[str, ...]
) -> Iterator[tuple[Resource | None, Resource | None]]:
    """Yield what a proxy runs with and what it should, for each of these names it asked for."""
    watch = member.session.watches.get(SDS)
    if watch is None:
        return
    for name in names:
        if name not in watch.subscription.names:
            continue
        latest = member.named(SDS, name)
        held = watch.acknowledged(name)
        if held is not None and latest is not None and held.version == latest.version:
            yield latest, latest
        else:
            # What a client brought along from an earlier stream is a version and no content.
            yield held if isinstance(held, Resource) else None, latest
