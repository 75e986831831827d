"""What Envoy would refuse stays at home: the last good one is served on, and so is all else."""

import pytest
from mesh import Mesh
from nasty_inputs import BASE, INPUTS

from pilothouse.graph.findings import ConfigRef, Severity
from pilothouse.translators.envoy.encoding import CODE

OTHER = """
apiVersion: v1
kind: Service
metadata: {name: other, namespace: default}
spec: {clusterIP: 10.1.0.2, ports: [{name: http, port: 80}]}
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: default}
spec: {host: web, trafficPolicy: {connectionPool: {tcp: {connectTimeout: %s}}}}
"""
ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [web]
  http:
  - match: [{uri: {prefix: /a}}]
    route: [{destination: {host: web}}]
  - rewrite: {uri: "%s"}
    route: [{destination: {host: web}}]
"""
CLIENT = "sidecar~10.0.0.9~client-1.default~default.svc.cluster.local"
WEB = "outbound|80||web.default.svc.cluster.local"
OTHERS = "outbound|80||other.default.svc.cluster.local"
both = pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])


def withheld(mesh: Mesh) -> list[ConfigRef]:
    return [each.ref for each in mesh.findings() if each.code == CODE]


def hosts(proxy) -> set[str]:
    return {each.name.partition(".")[0] for each in proxy.routes["80"].virtual_hosts}


def rewrites(proxy) -> list[str]:
    (web,) = (each for each in proxy.routes["80"].virtual_hosts if each.name.startswith("web."))
    return [route.route.prefix_rewrite for route in web.routes]


@both
async def test_the_last_good_cluster_stays(delta: bool) -> None:
    """A change that cannot be served is told about; what comes next is served all the same."""
    async with Mesh() as mesh:
        await mesh.apply(BASE + "---" + RULE % "7s")
        async with mesh.proxy(CLIENT, delta=delta) as proxy:
            await proxy.until(lambda p: p.is_complete and WEB in p.clusters)

            await mesh.apply(BASE + "---" + RULE % "99999999999s")
            (finding,) = (each for each in mesh.findings() if each.code == CODE)
            assert finding.severity is Severity.ERROR
            assert str(finding.ref) == "DestinationRule default/web"
            assert "connect_timeout is longer than Envoy can count" in finding.message
            await mesh.apply(OTHER, "other.yaml")
            await proxy.until(lambda p: OTHERS in p.clusters)
            assert proxy.clusters[WEB].connect_timeout.seconds == 7

            await mesh.apply(BASE + "---" + RULE % "8s")
            await proxy.until(lambda p: p.clusters[WEB].connect_timeout.seconds == 8)
            assert withheld(mesh) == []


@both
async def test_the_last_good_routes_of_a_host_stay(delta: bool) -> None:
    """One virtual host is withheld; the rest of its route configuration goes on changing."""
    async with Mesh() as mesh:
        await mesh.apply(BASE + "---" + ROUTE % "/one")
        async with mesh.proxy(CLIENT, delta=delta) as proxy:
            await proxy.until(lambda p: p.is_complete and "80" in p.routes)
            assert rewrites(proxy) == ["", "/one"]

            await mesh.apply(BASE + "---" + ROUTE % "/t\\nwo")
            assert [str(each) for each in withheld(mesh)] == [
                "VirtualService default/web spec.http[1]"
            ]
            await mesh.apply(OTHER, "other.yaml")
            await proxy.until(lambda p: "other" in hosts(p))
            assert rewrites(proxy) == ["", "/one"]

            await mesh.apply(BASE + "---" + ROUTE % "/three")
            await proxy.until(lambda p: rewrites(p) == ["", "/three"])


async def test_what_was_never_good_is_left_out_alone() -> None:
    """A fresh start with something unservable: everything else arrives."""
    async with Mesh() as mesh:
        await mesh.apply(BASE + "---" + RULE % "99999999999s" + "---" + OTHER)
        async with mesh.proxy(CLIENT) as proxy:
            await proxy.until(lambda p: p.is_complete and OTHERS in p.clusters)
            assert WEB not in proxy.clusters
            assert withheld(mesh) == [ConfigRef("DestinationRule", "default", "web")]


async def test_no_input_is_an_error_of_ours() -> None:
    """Every nasty input is rejected, withheld, or served; none breaks a query."""
    async with Mesh() as mesh:
        await mesh.apply(BASE, "base.yaml")
        async with mesh.proxy(CLIENT) as proxy:
            await proxy.until(lambda p: p.is_complete and WEB in p.clusters)
            codes = {}
            for name, text in INPUTS.items():
                await mesh.apply(text, "nasty.yaml")
                codes[name] = {each.code for each in mesh.findings()}
                await mesh.delete("nasty.yaml")
            assert [name for name, found in codes.items() if "InternalError" in found] == []
            assert CODE in codes["direct big body"]
            assert mesh.findings() == []
