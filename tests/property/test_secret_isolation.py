"""
No proxy is ever sent bytes of a secret it may not read, whatever others were sent before it.

Random objects, roles, certificates and proxies against real sessions over one graph, so that every
cache is warm. What is allowed is computed here from the state alone (security.md D-Z-1 to D-Z-6).
"""

from collections.abc import Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)
from key_pairs import pair

from pilothouse.api.kubernetes_core import ConfigMap, Secret
from pilothouse.api.meta import ObjectKey, ObjectMeta
from pilothouse.api.rbac import PolicyRule, Role, RoleBinding, RoleRef, Subject
from pilothouse.graph.core import Graph
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.inputs import (
    CONFIG_MAPS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    THE_MESH,
    TRUST_BUNDLE,
    WORKLOAD_CERTIFICATES,
)
from pilothouse.model.issued_certificates import WorkloadCertificate
from pilothouse.model.proxies import CertificateSource, NodeType, Proxy
from pilothouse.model.resource import SDS
from pilothouse.model.trust import TrustBundle
from pilothouse.translators.envoy import roots
from pilothouse.xds.publisher import Member, Publisher
from pilothouse.xds.requests import DeltaRequest, SotwRequest, Variant
from pilothouse.xds.session import Outgoing
from pilothouse.xds.wire import Framer

POOL = tuple(pair() for _ in range(40))
SPACES, ACCOUNTS, OBJECTS = ("a", "b"), ("x", "y"), ("s", "t", "s-cacert")

spaces, accounts = st.sampled_from(SPACES), st.sampled_from(ACCOUNTS)
objects = st.sampled_from(OBJECTS)
NAMES = (
    "default",
    "ROOTCA",
    "builtin://",
    "builtin://-cacert",
    "invalid://s",
    *(f"{scheme}://{name}" for scheme in ("kubernetes", "configmap") for name in OBJECTS),
    *(
        f"{scheme}://{space}/{name}"
        for scheme in ("kubernetes", "kubernetes-gateway", "configmap")
        for space in SPACES
        for name in ("s", "t", "s-cacert", "t-cacert", "s-cacert-cacert")
    ),
)
asked_names = st.one_of(st.just(set(NAMES)), st.sets(st.sampled_from(NAMES), min_size=1))


class Client:
    """A proxy's stream, and what it holds."""

    def __init__(self, publisher: Publisher, proxy: Proxy, variant: Variant) -> None:
        self.proxy, self.variant = proxy, variant
        self.member: Member = publisher.join(proxy, variant, lambda: None)
        self.names: set[str] = set()
        self.held: dict[str, bytes] = {}

    def want(self, names: set[str], now: float) -> None:
        added, self.names = names - self.names, self.names | names
        if self.variant is Variant.DELTA:
            request: Any = DeltaRequest(type_url=SDS, subscribe=tuple(sorted(added)))
        else:
            nonce = self.member.session.watches[SDS].progress.sent_nonce if self.held else ""
            request = SotwRequest(type_url=SDS, names=tuple(sorted(self.names)), nonce=nonce)
        self.member.receive(request, now)

    def received(self, message: Outgoing, now: float) -> None:
        self.held.update((each.name, each.data) for each in message.resources)
        for name in message.removed:
            self.held.pop(name, None)
        if self.variant is Variant.DELTA:
            request: Any = DeltaRequest(type_url=SDS, nonce=message.nonce)
        else:
            names = tuple(sorted(self.names))
            request = SotwRequest(type_url=SDS, names=names, nonce=message.nonce, version="1")
        self.member.receive(request, now)


class SecretIsolation(RuleBasedStateMachine):
    """See the module docstring."""

    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.graph = Graph()
        self.publisher = Publisher(self.graph, roots, lambda: self.now)
        self.framer = Framer()
        self.now = 0.0
        self.fresh = iter(POOL[3:])
        self.secrets: dict[tuple[str, str], Any] = {}
        self.trust: dict[tuple[str, str, str], bytes] = {}
        self.workloads: dict[tuple[str, str], Any] = {}
        self.roots_pem = b""
        self.roles: dict[tuple[str, str], tuple[str, ...] | None] = {}
        self.streams: list[Client] = []

    # -- what happens -----------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.set_roots()
        for space in SPACES:
            for account in ACCOUNTS:
                self.issue(space, account)

    def commit(self, table: Any, key: Any, row: Any) -> None:
        self.graph.commit([(table, key, row)])
        self.now += 1
        run(self.publisher.publish())

    @rule(space=spaces, name=objects)
    def put_secret(self, space: str, name: str) -> None:
        made, root = next(self.fresh, POOL[0]), next(self.fresh, POOL[1])
        if made is POOL[0]:
            return  # the pool is used up, and no two secrets may be alike
        self.secrets[space, name] = made
        self.trust["Secret", space, name] = root.chain
        meta = ObjectMeta(kind="Secret", name=name, namespace=space)
        data = {"tls.crt": made.chain, "tls.key": made.key, "ca.crt": root.chain}
        self.commit(SECRETS, ObjectKey(space, name), Secret(meta=meta, data=data))

    @rule(space=spaces, name=objects)
    def remove_secret(self, space: str, name: str) -> None:
        self.secrets.pop((space, name), None)
        self.trust.pop(("Secret", space, name), None)
        self.commit(SECRETS, ObjectKey(space, name), None)

    @rule(space=spaces, name=objects)
    def put_config_map(self, space: str, name: str) -> None:
        root = next(self.fresh, POOL[0])
        if root is POOL[0]:
            return
        self.trust["ConfigMap", space, name] = root.chain
        meta = ObjectMeta(kind="ConfigMap", name=name, namespace=space)
        row = ConfigMap(meta=meta, data={"ca.crt": root.chain.decode()})
        self.commit(CONFIG_MAPS, ObjectKey(space, name), row)

    @rule(space=spaces, account=accounts, names=st.one_of(st.none(), st.just(()), st.just(("s",))))
    def set_role(self, space: str, account: str, names: tuple[str, ...] | None) -> None:
        """None takes the role away, no names mean all."""
        self.roles[space, account] = names
        key = ObjectKey(space, account)
        if names is None:
            self.commit(ROLES, key, None)
            return
        allowed = PolicyRule(
            verbs=("get",) if names else ("list",),
            api_groups=("",),
            resources=("secrets",),
            resource_names=names,
        )
        role = Role(meta=ObjectMeta(kind="Role", name=account, namespace=space), rules=(allowed,))
        binding = RoleBinding(
            meta=ObjectMeta(kind="RoleBinding", name=account, namespace=space),
            role_ref=RoleRef(kind="Role", name=account),
            subjects=(Subject(kind="ServiceAccount", name=account),),
        )
        self.graph.commit([(ROLE_BINDINGS, key, binding)])
        self.commit(ROLES, key, role)

    @rule(space=spaces, account=accounts)
    def issue(self, space: str, account: str) -> None:
        made = next(self.fresh, POOL[0])
        if made is POOL[0]:
            return
        self.workloads[space, account] = made
        row = WorkloadCertificate(chain_pem=made.chain, key_pem=made.key)
        self.commit(WORKLOAD_CERTIFICATES, f"spiffe://td/ns/{space}/sa/{account}", row)

    @rule()
    def set_roots(self) -> None:
        self.roots_pem = POOL[2].chain
        self.commit(TRUST_BUNDLE, THE_MESH, TrustBundle(roots_pem=self.roots_pem))

    @rule(
        target=clients,
        space=spaces,
        account=accounts,
        verified=st.sampled_from((True, True, True, False)),
        source=st.sampled_from(CertificateSource),
        variant=st.sampled_from(Variant),
        kind=st.sampled_from(NodeType),
        number=st.integers(1, 3),
        names=asked_names,
    )
    def connect(
        self,
        *,
        space: str,
        account: str,
        verified: bool,
        source: CertificateSource,
        variant: Variant,
        kind: NodeType,
        number: int,
        names: set[str],
    ) -> Client:
        proxy = Proxy(
            id=f"{kind}~10.0.0.{number}~p{number}.{space}~{space}.svc.cluster.local",
            type=kind,
            ips=(f"10.0.0.{number}",),
            name=f"p{number}",
            namespace=space,
            domain=f"{space}.svc.cluster.local",
            service_account=account,
            certificates=source,
            identity=WorkloadIdentity("td", space, account) if verified else None,
        )
        client = Client(self.publisher, proxy, variant)
        self.streams.append(client)
        client.want(names, self.now)
        return client

    @rule(client=consumes(clients))
    def disconnect(self, client: Client) -> None:
        self.publisher.leave(client.member)
        self.streams.remove(client)

    @rule(client=clients, names=asked_names)
    def ask(self, client: Client, names: set[str]) -> None:
        client.want(names, self.now)

    # -- what holds -------------------------------------------------------------------------------

    @invariant()
    def only_what_may_be_read_is_sent(self) -> None:
        """D-Z-1 to D-Z-5: and what may be read arrives."""
        for client in self.streams:
            expected = {
                name: found for name in client.names if (found := self.allowed(client, name))
            }
            foreign = self.every_private_byte() - set(expected.values())
            while (message := client.member.next_message(self.now)) is not None:
                data = self.framer.frame(client.variant, message)
                assert not [each for each in foreign if each in data]
                assert {each.name for each in message.resources} <= expected.keys()
                client.received(message, self.now)
            for name, content in expected.items():
                assert content in client.held[name]
            if client.variant is Variant.DELTA:
                assert client.held.keys() == expected.keys()

    def every_private_byte(self) -> set[bytes]:
        return {each.key for each in (*self.secrets.values(), *self.workloads.values())} | set(
            self.trust.values()
        )

    def allowed(self, client: Client, name: str) -> bytes | None:
        """Return what must be in the answer to a name, None if there must be none."""
        proxy = client.proxy
        if proxy.identity is None:
            return None
        space, account = proxy.namespace, proxy.service_account
        if name in ("ROOTCA", "builtin://-cacert"):
            return self.roots_pem or None
        if name in ("default", "builtin://"):
            made = self.workloads.get((space, account))
            return made.key if made and proxy.certificates is CertificateSource.ADS else None
        scheme, _, place = name.partition("://")
        wanted_space, slash, wanted = place.rpartition("/")
        if scheme not in ("kubernetes", "configmap") or (slash and wanted_space != space):
            return None
        if scheme == "configmap":
            return self.trust.get(("ConfigMap", space, wanted)) if slash else None
        if wanted.endswith("-cacert"):
            base = wanted.removesuffix("-cacert")
            found = self.trust.get(("Secret", space, base + "-cacert"))
            return found or self.trust.get(("Secret", space, base))
        granted = self.roles.get((space, account))
        if granted is None or (granted and wanted not in granted):
            return None
        made = self.secrets.get((space, wanted))
        return made.key if made else None


def run(coroutine: Coroutine[Any, Any, int]) -> None:
    """Run what yields to the event loop and waits for nothing."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration:
        return


TestSecretIsolation = SecretIsolation.TestCase
TestSecretIsolation.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
