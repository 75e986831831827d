"""Laws of the discovery session, under random edits, delays, refusals and reconnects."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from xds_model import Client, World, is_bad, resource

from pilothouse.model.resource import CDS, EDS, LDS, RDS
from pilothouse.xds.requests import SotwRequest, Variant

TYPES = (CDS, EDS, LDS, RDS)
NAMES = ("a", "b", "c", "d")

types = st.sampled_from(TYPES)
names = st.sampled_from(NAMES)
contents = st.sampled_from(("1", "2", "3", "bad1", "bad2"))


class SessionLaws(RuleBasedStateMachine):
    """
    One world, served over both variants with arbitrary delays.

    Whenever all has arrived, every client has what the world has (no lost update), so the variants
    agree; no client was sent what it had; nothing refused is sent in a loop.
    """

    @initialize(names_culprits=st.booleans(), wildcard=st.booleans())
    def start(self, names_culprits, wildcard):
        self.world = World()
        self.clients = [
            Client(variant, self.world, names_culprits=names_culprits) for variant in Variant
        ]
        if wildcard:
            for client in self.clients:
                client.want_all(CDS)
                client.want_all(LDS)

    @rule(type_url=types, name=names, content=contents)
    def change(self, type_url, name, content):
        eds = name if type_url == CDS else None
        self.world.put(resource(type_url, name, content, eds=eds))
        self._mark(type_url, name)

    @rule(type_url=types, name=names)
    def remove(self, type_url, name):
        self.world.remove(type_url, name)
        self._mark(type_url, name)

    def _mark(self, type_url, name):
        for client in self.clients:
            client.session.changed(type_url, (name,), client.now)

    @rule(type_url=types, some=st.sets(names, min_size=1))
    def subscribe(self, type_url, some):
        for client in self.clients:
            client.subscribe(type_url, *sorted(some))

    @rule(type_url=types, name=names)
    def unsubscribe(self, type_url, name):
        for client in self.clients:
            if name in client.wants.get(type_url, _NOTHING).names:
                client.unsubscribe(type_url, name)

    @rule(type_url=st.sampled_from((CDS, LDS)))
    def end_wildcard(self, type_url):
        for client in self.clients:
            if type_url in client.wants:
                client.end_wildcard(type_url)

    @rule(which=st.integers(0, 1), steps=st.lists(st.sampled_from("rsa"), max_size=8))
    def let_some_arrive(self, which, steps):
        client = self.clients[which]
        for step in steps:
            {"r": client.deliver_request, "s": client.serve, "a": client.read}[step]()

    @rule(which=st.integers(0, 1), with_versions=st.booleans())
    def reconnect(self, which, with_versions):
        self.clients[which].connect(with_versions=with_versions)

    @rule(which=st.integers(0, 1))
    def view_is_swapped(self, which):
        client = self.clients[which]
        client.session.changed_all(client.now)

    @rule()
    def settle(self):
        for client in self.clients:
            client.settle()
            for type_url in TYPES:
                assert client.has(type_url) == client.expected(type_url)
            assert client.redundant == []
            self._check_rejections(client)

    def _check_rejections(self, client):
        for watch in client.session.watches.values():
            refused = {
                name
                for name, made in self.world.resources[watch.type_url].items()
                if is_bad(made) and client.wants[watch.type_url].covers(name)
            }
            assert set(watch.rejected) == refused
            assert watch.is_settled

    def teardown(self):
        if hasattr(self, "clients"):
            self.settle()


class _Nothing:
    names = frozenset()


_NOTHING = _Nothing()

TestSessionLaws = SessionLaws.TestCase
TestSessionLaws.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(types, st.text(min_size=1, max_size=3)), max_size=10))
def test_silence_on_stale_nonces(stale):
    """A SotW request with a nonce that was not the last changes nothing and is not answered."""
    world = World()
    for name in NAMES:
        for type_url in TYPES:
            world.put(resource(type_url, name))
    client = Client(Variant.SOTW, world)
    client.want_all(CDS)
    client.want_all(LDS)
    client.subscribe(EDS, "a")
    client.subscribe(RDS, "a")
    client.settle()
    for type_url, nonce in stale:
        request = SotwRequest(type_url=type_url, names=NAMES, nonce=f"stale-{nonce}")
        client.session.receive(request, client.now)
        assert client.session.next_message(client.now) is None


@given(st.lists(st.tuples(types, names, contents), min_size=1, max_size=30))
def test_a_reader_that_never_reads_costs_one_slot_per_name(edits):
    """Marks are not queued: memory is bounded by names, and the last content is what is sent."""
    world = World()
    client = Client(Variant.DELTA, world)
    client.want_all(CDS)
    client.want_all(LDS)
    client.settle()
    for type_url, name, content in edits:
        world.put(resource(type_url, name, content))
        client.session.changed(type_url, (name,), client.now)
    sent = []
    while (message := client.session.next_message(client.now)) is not None:
        sent.append(message)
        assert all(m.data == world.named(m.type_url, m.name).data for m in message.resources)
    assert len(sent) <= 2
