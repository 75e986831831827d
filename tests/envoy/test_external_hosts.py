"""
Requests to hosts that ServiceEntries declare, through a real sidecar: where they really arrive.

Each machine has a name server of its own, and an agent that would answer DNS (it does not
here; connections go to the addresses it would give).
"""

from collections.abc import AsyncIterator

import isolation
import pytest
import pytest_asyncio
from live_mesh import HTTP_PORT, OTHER_TCP_PORT, TCP_PORT, TLS_PORT, LiveMesh, eventually
from name_server import NameServer, configured
from self_signed import self_signed

from pilothouse.api.meta import ObjectKey
from pilothouse.model.service_addresses import Claim, auto_addresses

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("traffic"),
]

ONE, TWO = "10.244.77.22", "10.244.77.23"
NAMES = {"one.names.example": ONE, "two.names.example": TWO, "pool.example": TWO}
ELSEWHERE = "192.0.2.99"
"""An address nobody has: what a client may believe a host's address is."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(tmp_path_factory) -> AsyncIterator[LiveMesh]:
    """A client with DNS capture, and two servers that no Service knows."""
    tls = self_signed(tmp_path_factory.mktemp("tls"))
    async with LiveMesh(delta=True) as mesh:
        told = {"DNS_CAPTURE": "true", "DNS_PROXY_ADDR": f"{configured()}:53"}
        await mesh.add("client", "10.244.77.21", {"app": "c"}, tls, told)
        await mesh.add("one", ONE, {"app": "one"}, tls)
        await mesh.add("two", TWO, {"app": "two"}, tls)
        # All of them: a cluster is not taken over before its first answer.
        workloads = mesh.workloads.values()
        transports = [await NameServer(NAMES).start(each.namespace) for each in workloads]
        yield mesh
        for transport in transports:
            transport.close()


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(whole: LiveMesh) -> AsyncIterator[LiveMesh]:
    """The mesh without any ServiceEntry, before and after."""
    yield whole
    await whole.control.delete("test.yaml")
    await whole.settled()


def entry(name: str, spec: str) -> str:
    return (
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"
        f"metadata: {{name: {name}, namespace: default}}\nspec: {{{spec}}}\n"
    )


async def who(mesh: LiveMesh, address: str, port: int, sni: str | None = None) -> str:
    return await mesh.workloads["client"].who_answers(address, port, sni)


async def web(mesh: LiveMesh, host: str) -> str:
    answer = await mesh.workloads["client"].request(f"http://{ELSEWHERE}:{HTTP_PORT}", host=host)
    return answer.by


def found_address(mesh: LiveMesh, name: str, host: str) -> str:
    """Return the IPv4 address that the agent would answer for a host."""
    claim = Claim(ObjectKey("default", name), host)
    return mesh.control.graph.value(auto_addresses, claim)[0]


async def test_names_are_looked_up_by_the_sidecar(mesh: LiveMesh) -> None:
    """SE-07, SE-08, CL-03: resolution DNS; where the client meant to go does not count."""
    await mesh.apply(
        entry(
            "pool",
            "hosts: [pool.example], resolution: DNS, "
            f"ports: [{{number: {HTTP_PORT}, name: http, protocol: HTTP}}]",
        )
        + entry(
            "alias",
            "hosts: [other.example], resolution: DNS_ROUND_ROBIN, "
            f"ports: [{{number: {HTTP_PORT}, name: http, protocol: HTTP}}], "
            "endpoints: [{address: one.names.example}]",
        )
    )

    async def found() -> bool:
        return (await web(mesh, "pool.example"), await web(mesh, "other.example")) == ("two", "one")

    await eventually(found)


async def test_hosts_of_a_wildcard_are_looked_up_when_they_are_called(mesh: LiveMesh) -> None:
    """SE-17, N-15: by Host for HTTP, by SNI for TLS."""
    await mesh.apply(
        entry(
            "names",
            'hosts: ["*.names.example"], resolution: DYNAMIC_DNS, ports: ['
            f"{{number: {HTTP_PORT}, name: http, protocol: HTTP}}, "
            f"{{number: {TLS_PORT}, name: tls, protocol: TLS}}]",
        )
    )
    address = found_address(mesh, "names", "*.names.example")
    for host, wanted in (("one.names.example", "one"), ("two.names.example", "two")):
        assert await web(mesh, f"{host}:{HTTP_PORT}") == wanted
        assert await who(mesh, address, TLS_PORT, host) == wanted


async def test_hosts_nobody_declared_are_looked_up_when_they_are_called(mesh: LiveMesh) -> None:
    """MC-05, N-08, N-49: plain HTTP on ports known and unknown; what says no host passes by."""
    config = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}
    protocolDetectionTimeout: 0.2s
"""
    known = entry(
        "known",
        f"hosts: [known.example], resolution: STATIC, endpoints: [{{address: {ONE}}}], "
        f"ports: [{{number: {HTTP_PORT}, name: http, protocol: HTTP}}]",
    )
    # Without a service on the port the request meets no listener but the last one.
    for others in ("", known):
        await mesh.apply(config + others)
        for host, wanted in (("one.names.example", "one"), ("two.names.example", "two")):
            assert await web(mesh, f"{host}:{HTTP_PORT}") == wanted
    assert await web(mesh, "known.example") == "one"
    assert await who(mesh, TWO, TCP_PORT) == "two"
    await mesh.apply(known)
    assert await web(mesh, f"two.names.example:{HTTP_PORT}") == ""


async def test_tcp_hosts_on_one_port_are_told_apart_by_the_addresses_found_for_them(
    mesh: LiveMesh,
) -> None:
    """3.13, NM-08: with DNS capture each host has an address of its own, and a listener on it."""
    for name, address in (("one", ONE), ("two", TWO)):
        await mesh.control.apply(
            entry(
                name,
                f"hosts: [{name}.db.example], resolution: STATIC, "
                f"endpoints: [{{address: {address}}}], "
                f"ports: [{{number: {TCP_PORT}, name: tcp, protocol: TCP}}]",
            ),
            f"{name}.yaml",
        )
    await mesh.settled()
    for name in ("one", "two"):
        address = found_address(mesh, name, f"{name}.db.example")
        assert await who(mesh, address, TCP_PORT) == name
    for name in ("one", "two"):
        await mesh.control.delete(f"{name}.yaml")


async def test_an_address_and_a_range_of_one_host_both_lead_to_it(mesh: LiveMesh) -> None:
    """SE-01, SE-03: the address has a listener, the range a match; what is outside passes by."""
    await mesh.apply(
        entry(
            "ranged",
            "hosts: [ranged.example], resolution: STATIC, "
            f"addresses: [192.0.2.10, 198.51.100.0/24], endpoints: [{{address: {ONE}}}], "
            f"ports: [{{number: {OTHER_TCP_PORT}, name: tcp, protocol: TCP}}]",
        )
    )
    assert await who(mesh, "192.0.2.10", OTHER_TCP_PORT) == "one"
    assert await who(mesh, "198.51.100.77", OTHER_TCP_PORT) == "one"
    assert await who(mesh, TWO, OTHER_TCP_PORT) == "two"


async def test_entries_of_one_host_share_it(mesh: LiveMesh) -> None:
    """3.1, SE-13: ports and endpoints of both entries."""
    http = f"{{number: {HTTP_PORT}, name: http, protocol: HTTP}}"
    tls = f"{{number: {TLS_PORT}, name: tls, protocol: TLS}}"
    await mesh.apply(
        entry(
            "first",
            "hosts: [both.example], resolution: STATIC, addresses: [192.0.2.30], "
            f"endpoints: [{{address: {ONE}}}], ports: [{http}]",
        )
        + entry(
            "second",
            "hosts: [both.example], resolution: STATIC, addresses: [192.0.2.30], "
            f"endpoints: [{{address: {TWO}}}], ports: [{http}, {tls}]",
        )
    )
    assert {await web(mesh, "both.example") for _ in range(30)} == {"one", "two"}
    assert await who(mesh, "192.0.2.30", TLS_PORT, "both.example") == "two"
