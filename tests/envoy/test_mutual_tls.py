"""Mutual TLS between real sidecars: who is let in, by client, mode and port (security.md 1.3)."""

from collections.abc import AsyncIterator

import isolation
import pytest
import pytest_asyncio
from live_mesh import TCP_PORT, eventually
from mutual_mesh import ADDRESSES, DOMAIN, POLICY, PORTS, VIPS, Ground, mutual_mesh

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("mutual_tls"),
    pytest.mark.timeout(180),
]

MODES = ["STRICT", "PERMISSIVE", "DISABLE"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["delta", "sotw"])
async def ground(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Ground]:
    """The mesh of this file."""
    async with mutual_mesh(tmp_path_factory.mktemp("m"), delta=request.param == "delta") as made:
        yield made


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("service", VIPS)
async def test_every_client_at_every_port(ground: Ground, service: str, mode: str) -> None:
    """S-PA-4 to S-PA-7, S-PA-11: who is let in, and whether it was by mutual TLS."""
    await ground.apply_mode(mode)
    wanted = {
        "client": True,
        "plain": mode != "STRICT",
        # Its certificate is of another trust domain; where it speaks plain text nobody looks.
        "foreign": mode == "DISABLE",
    }
    for client, is_served in wanted.items():
        for kind in PORTS:
            before = await ground.handshakes(client, service, kind)
            answered = await ground.speak(client, service, kind)
            assert answered == (service if is_served else ""), (client, kind)
            made = await ground.handshakes(client, service, kind) - before
            if client == "plain" or mode == "DISABLE":
                assert made == 0, (client, kind)
            elif kind in ("tcp", "tls"):  # of those each makes a connection of its own
                assert made > 0, (client, kind)


@pytest.mark.parametrize("service", VIPS)
async def test_http_is_told_by_whom_it_was_called(ground: Ground, service: str) -> None:
    """LS-15, D-1: a detected port too knows that mutual TLS carries HTTP, and who calls."""
    await ground.apply_mode("STRICT")

    async def is_told() -> bool:
        # A connection of before, when plain text was right, is used until it has been drained.
        reply = await ground.mesh.workloads["client"].request(f"http://{VIPS[service]}/")
        told = reply.seen.get("x-forwarded-client-cert", "")
        return all(
            f"{who}=spiffe://{DOMAIN}/ns/default/sa/{account}" in told
            for who, account in (("URI", "client"), ("By", service))
        )

    await eventually(is_told)
    await ground.apply_mode("PERMISSIVE")
    reply = await ground.mesh.workloads["plain"].request(f"http://{VIPS[service]}/")
    assert "x-forwarded-client-cert" not in reply.seen


PORT_POLICY = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: one, namespace: default}
spec:
  selector: {matchLabels: {app: declared}}
  mtls: {mode: STRICT}
  portLevelMtls:
    "8080": {mode: DISABLE}
    "9001": {mode: PERMISSIVE}
"""


async def test_ports_have_modes_of_their_own(ground: Ground) -> None:
    """S-PA-2: of a service's port, and of one that no service has."""
    await ground.mesh.apply(PORT_POLICY)
    plain = ground.mesh.workloads["plain"]
    assert await ground.speak("plain", "declared", "http") == "declared"
    assert await ground.speak("client", "declared", "http") == "declared"
    assert await ground.speak("plain", "declared", "tcp") == ""
    assert await ground.speak("client", "declared", "tcp") == "declared"
    assert await plain.who_answers(ADDRESSES["declared"], 9001) == "declared"
    assert await plain.who_answers(ADDRESSES["declared"], TCP_PORT) == ""


async def test_a_server_that_is_somebody_else_is_not_spoken_to(ground: Ground) -> None:
    """S-PA-13: a certificate of the mesh is not enough; it must be the service's."""
    await ground.apply_mode("STRICT")
    assert await ground.speak("client", "declared", "tcp") == "declared"
    ground.show("declared", "intruder")
    await ground.becomes("", "client", "declared")
    ground.show("declared", "declared")
    await ground.becomes("declared", "client", "declared")


ALIASES = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: "trustDomainAliases: [elsewhere.example]"
"""


async def test_an_alias_is_as_good_as_the_trust_domain(ground: Ground) -> None:
    """S-PA-8, S-PA-13, S-TD-1, MC-08: for who calls and for who answers."""
    await ground.apply_mode("STRICT")
    assert await ground.speak("foreign", "declared", "tcp") == ""
    await ground.mesh.apply(ALIASES, "mesh.yaml")
    await ground.becomes("declared", "foreign", "declared")
    ground.show("declared", "declared", "elsewhere.example")
    await ground.becomes("declared", "client", "declared")
    await ground.mesh.control.delete("mesh.yaml")
    await ground.becomes("", "client", "declared")
    ground.show("declared", "declared")
    await ground.becomes("declared", "client", "declared")
    await ground.becomes("", "foreign", "declared")


WITH_RULE = (
    POLICY.format(mode="STRICT")
    + """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: declared, namespace: default}
spec: {host: declared, trafficPolicy: {tls: {mode: %s}}}
"""
)


@pytest.mark.parametrize(("mode", "answered"), [("ISTIO_MUTUAL", "declared"), ("DISABLE", "")])
async def test_a_destination_rule_wins(ground: Ground, mode: str, answered: str) -> None:
    """DR-50, DR-53, S-PA-11: for better or worse; without certificates nothing is sent."""
    await ground.mesh.apply(WITH_RULE % mode)
    assert await ground.speak("client", "declared", "tcp") == answered
    assert await ground.speak("plain", "declared", "tcp") == ""
