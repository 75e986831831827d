"""
A client of the discovery protocol without a wire, and a world for a session to be served from.

The client applies what Envoy would: clusters and listeners one by one, other types whole or not at
all. Used by the unit and property tests of the session; the client with a socket is `fake_proxy`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pilothouse.graph.findings import ConfigRef
from pilothouse.model.resource import CDS, EDS, LDS, RDS, Resource
from pilothouse.xds.requests import DeltaRequest, Request, SotwRequest, Variant
from pilothouse.xds.session import Outgoing, Session

WILDCARDS = (CDS, LDS)


def resource(type_url: str, name: str, content: str = "1", *, eds: str | None = None) -> Resource:
    """Make a resource whose bytes are `content`; content that begins with ``bad`` is refused."""
    ref = ConfigRef("Test", "default", name)
    return Resource(type_url, name, content.encode(), (ref,), endpoints_name=eds)


class World:
    """What exists, by type and name; a `View`."""

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Resource]] = {CDS: {}, EDS: {}, LDS: {}, RDS: {}}

    def put(self, made: Resource) -> None:
        self.resources[made.type_url][made.name] = made

    def remove(self, type_url: str, name: str) -> None:
        self.resources[type_url].pop(name, None)

    def wildcard(self, type_url: str) -> Mapping[str, Resource] | None:
        return dict(self.resources[type_url])

    def named(self, type_url: str, name: str) -> Resource | None:
        return self.resources.get(type_url, {}).get(name)


@dataclass
class Wants:
    """What the client wants of one type."""

    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    is_explicit: bool = False

    def covers(self, name: str) -> bool:
        return self.wildcard or name in self.names


def is_bad(made: Resource) -> bool:
    return made.data.startswith(b"bad")


class Client:
    """
    A client on one stream at a time; its state outlives streams.

    `names_culprits` tells whether error texts outside CDS and LDS name the resource at fault.
    """

    def __init__(self, variant: Variant, world: World, *, names_culprits: bool = True) -> None:
        self.variant = variant
        self.world = world
        self.names_culprits = names_culprits
        self.now = 0.0
        self.state: dict[str, dict[str, Resource]] = {}
        self.wants: dict[str, Wants] = {}
        self.redundant: list[str] = []
        self.log: list[Outgoing] = []
        self.refusals = 0
        self.connect()

    # -- streams ----------------------------------------------------------------------------------

    def connect(self, *, with_versions: bool = True) -> None:
        """Open a stream anew and repeat every subscription; without versions, having lost all."""
        if not with_versions and self.variant is Variant.DELTA:
            self.state.clear()
        self.session = Session(self.variant, self.world, self.now)
        self.inbox: list[Outgoing] = []
        self.outbox: list[Request] = []
        self.nonces: dict[str, str] = {}
        self.asked: dict[str, set[str] | None] = {}
        for type_url, wants in self.wants.items():
            if self.variant is Variant.SOTW:
                if wants.wildcard or wants.names:
                    self._send_sotw(type_url)
            else:
                self._reconnect_delta(type_url, wants, with_versions=with_versions)

    def _reconnect_delta(self, type_url: str, wants: Wants, *, with_versions: bool) -> None:
        names = set(wants.names) | ({"*"} if wants.wildcard and wants.is_explicit else set())
        if not (names or wants.wildcard):
            return
        have = self.state.get(type_url, {}) if with_versions else {}
        self.asked[type_url] = None if not with_versions or type_url == EDS else set()
        self.outbox.append(
            DeltaRequest(
                type_url=type_url,
                subscribe=tuple(sorted(names)),
                initial_versions={name: made.version for name, made in have.items()},
            )
        )

    # -- wishes -----------------------------------------------------------------------------------

    def want_all(self, type_url: str) -> None:
        """Subscribe to everything in the legacy way, as Envoy does."""
        if type_url in self.wants:
            return
        self.wants[type_url] = Wants(wildcard=True)
        if self.variant is Variant.SOTW:
            self._send_sotw(type_url)
        else:
            self.asked[type_url] = None
            self.outbox.append(DeltaRequest(type_url=type_url))

    def subscribe(self, type_url: str, *names: str) -> None:
        wants = self.wants.setdefault(type_url, Wants())
        wants.names.update(names)
        wants.is_explicit = True
        if self.variant is Variant.SOTW:
            self._send_sotw(type_url)
        else:
            known = self.asked.setdefault(type_url, set())
            if known is not None:
                known.update(names)
            self.outbox.append(DeltaRequest(type_url=type_url, subscribe=names))

    def unsubscribe(self, type_url: str, *names: str) -> None:
        wants = self.wants[type_url]
        wants.names.difference_update(names)
        if not wants.wildcard:
            for name in names:
                self.state.get(type_url, {}).pop(name, None)
        if self.variant is Variant.SOTW:
            self._send_sotw(type_url)
        else:
            known = self.asked.setdefault(type_url, set())
            if known is not None:
                known.update(names)
            self.outbox.append(DeltaRequest(type_url=type_url, unsubscribe=names))

    def end_wildcard(self, type_url: str) -> None:
        wants = self.wants[type_url]
        if not wants.wildcard or not (wants.is_explicit or self.variant is Variant.DELTA):
            return
        wants.wildcard, wants.is_explicit = False, True
        state = self.state.get(type_url, {})
        self.state[type_url] = {n: made for n, made in state.items() if n in wants.names}
        if self.variant is Variant.SOTW:
            self._send_sotw(type_url)
        else:
            self.outbox.append(DeltaRequest(type_url=type_url, unsubscribe=("*",)))

    def _send_sotw(self, type_url: str, error: str | None = None) -> None:
        wants = self.wants[type_url]
        star = {"*"} if wants.wildcard and wants.is_explicit else set()
        self.outbox.append(
            SotwRequest(
                type_url=type_url,
                names=tuple(sorted(wants.names | star)),
                nonce=self.nonces.get(type_url, ""),
                error=error,
            )
        )

    # -- messages ---------------------------------------------------------------------------------

    def deliver_request(self) -> bool:
        """Let the server read one request."""
        if not self.outbox:
            return False
        self.session.receive(self.outbox.pop(0), self.now)
        return True

    def serve(self) -> bool:
        """Let the server write one message."""
        message = self.session.next_message(self.now)
        if message is None:
            return False
        self.inbox.append(message)
        self.log.append(message)
        return True

    def read(self) -> bool:
        """Read one message, apply it and answer."""
        if not self.inbox:
            return False
        message = self.inbox.pop(0)
        self.nonces[message.type_url] = message.nonce
        error = self._apply(message)
        self.refusals += error is not None
        if self.variant is Variant.SOTW:
            self._send_sotw(message.type_url, error)
        else:
            self.outbox.append(
                DeltaRequest(type_url=message.type_url, nonce=message.nonce, error=error)
            )
        return True

    def _apply(self, message: Outgoing) -> str | None:
        names = [made.name for made in message.resources]
        assert len(names) == len(set(names) | set(message.removed)) - len(set(message.removed))
        self._note_redundant(message)
        bad = [made.name for made in message.resources if is_bad(made)]
        if message.type_url in WILDCARDS:
            self._store(message, skip=set(bad))
            kind = "cluster" if message.type_url == CDS else "listener"
            listed = ", ".join(f"{name}: no good" for name in bad)
            return f"Error adding/updating {kind}(s) {listed}" if bad else None
        if bad:
            return f"Fault in {bad[0]}" if self.names_culprits else "Fault"
        self._store(message, skip=set())
        return None

    def _store(self, message: Outgoing, *, skip: set[str]) -> None:
        wants = self.wants[message.type_url]
        old = self.state.get(message.type_url, {})
        new = dict(old)
        if self.variant is Variant.SOTW and message.type_url in WILDCARDS:
            sent = {made.name for made in message.resources}
            new = {name: made for name, made in old.items() if name in sent}
        for made in message.resources:
            if made.name not in skip and wants.covers(made.name):
                new[made.name] = made
        for name in message.removed:
            new.pop(name, None)
        self.state[message.type_url] = new
        asked = self.asked.get(message.type_url)
        if asked is not None:  # asking buys one repetition; a refused message leaves it open
            asked.difference_update(
                made.name
                for made in message.resources
                if made.name in old and old[made.name].version == made.version
            )

    def _note_redundant(self, message: Outgoing) -> None:
        if self.variant is Variant.SOTW or message.type_url == EDS:
            return
        asked = self.asked.get(message.type_url, set())
        state = self.state.get(message.type_url, {})
        for made in message.resources:
            have = state.get(made.name)
            is_known = have is not None and have.version == made.version
            if is_known and asked is not None and made.name not in asked:
                self.redundant.append(made.name)

    # -- ends -------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let everything under way arrive, waits included."""
        for _ in range(10_000):
            if self.deliver_request() or self.serve() or self.read():
                continue
            at = self.session.wake_at(self.now)
            if at is None:
                return
            self.now = at
        raise AssertionError("the session does not come to rest")

    def expected(self, type_url: str) -> dict[str, bytes]:
        """What the client should have of what is good; a refused content leaves this open."""
        wants = self.wants.get(type_url, Wants())
        exists = self.world.resources[type_url]
        return {n: made.data for n, made in exists.items() if wants.covers(n) and not is_bad(made)}

    def has(self, type_url: str) -> dict[str, bytes]:
        """What the client has, apart from names whose present content it refuses."""
        exists = self.world.resources[type_url]
        mortal = self.variant is Variant.DELTA or type_url in WILDCARDS
        return {
            name: made.data
            for name, made in self.state.get(type_url, {}).items()
            if not (name in exists and is_bad(exists[name])) and (name in exists or mortal)
        }
