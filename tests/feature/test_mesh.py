"""
From objects to proxies, all in one process: what an edit of the mesh's config sends to whom.

Real graph, translators, publisher and gRPC server; the proxies are simulated and follow references
as Envoy does.
"""

from contextlib import suppress
from typing import Any

import pytest
from fake_proxy import FakeProxy
from mesh import Mesh

from pilothouse.model.resource import CDS, EDS, LDS, RDS

both = pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])

REVIEWS = "outbound|80||reviews.default.svc.cluster.local"
SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec:
  clusterIP: 10.96.0.10
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 9080}]
---
apiVersion: v1
kind: Service
metadata: {name: ratings, namespace: default}
spec:
  clusterIP: 10.96.0.11
  ports: [{name: http, port: 80, targetPort: 9080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-none, namespace: default, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
ports: [{name: http, port: 9080}]
endpoints: []
"""
ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
    - timeout: 3s
      route: [{destination: {host: reviews, subset: v1}}]
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}]
"""
SHOPPER = "sidecar~10.1.1.1~shopper-0.shop~shop.svc.cluster.local"


def slice_of(*addresses: str) -> str:
    """Return the EndpointSlice of reviews."""
    listed = "\n".join(f"  - addresses: [{address}]" for address in addresses)
    return f"""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: r-1, namespace: default, labels: {{kubernetes.io/service-name: reviews}}}}
addressType: IPv4
ports: [{{name: http, port: 9080}}]
endpoints:
{listed}
"""


def addresses(proxy: FakeProxy, cluster: str = REVIEWS) -> set[str]:
    """Return where a proxy sends requests of a cluster."""
    return {
        each.endpoint.address.socket_address.address
        for group in proxy.endpoints[cluster].endpoints
        for each in group.lb_endpoints
    }


def host_of(proxy: FakeProxy, name: str, routes: str = "80") -> Any:
    """Return a virtual host of a proxy."""
    (found,) = [h for h in proxy.routes[routes].virtual_hosts if h.name == name]
    return found


def reviews_host(proxy: FakeProxy) -> Any:
    """Return the virtual host of reviews."""
    return host_of(proxy, "reviews.default.svc.cluster.local:80")


def is_served(proxy: FakeProxy) -> bool:
    """Whether everything has come, routes of port 80 included."""
    return proxy.is_complete and "80" in proxy.routes


@both
async def test_a_proxy_gets_the_whole_mesh(delta: bool) -> None:
    """Item 6: clusters lead to endpoints, listeners to routes, and nothing is left open."""
    async with Mesh() as mesh:
        await mesh.apply(SERVICES)
        await mesh.apply(slice_of("10.1.0.2", "10.1.0.3"), "slice.yaml")
        async with mesh.proxy(delta=delta) as proxy:
            await proxy.until(is_served)
            assert {"virtualInbound", "virtualOutbound", "0.0.0.0_80"} == proxy.listeners.keys()
            assert addresses(proxy) == {"10.1.0.2", "10.1.0.3"}
            assert reviews_host(proxy).routes[0].route.cluster == REVIEWS
        assert mesh.findings() == []


@both
async def test_an_endpoint_event_sends_endpoints_only(delta: bool) -> None:
    """PU-04: one load assignment in one message, to those who use it."""
    async with Mesh() as mesh:
        await mesh.apply(SERVICES)
        await mesh.apply(slice_of("10.1.0.2"), "slice.yaml")
        async with mesh.proxy(delta=delta) as proxy:
            await proxy.until(is_served)
            proxy.history.clear()
            assert await mesh.apply(slice_of("10.1.0.2", "10.1.0.4"), "slice.yaml") == 1
            await proxy.until(lambda p: "10.1.0.4" in addresses(p))
            assert [(kind, names) for kind, names, _ in proxy.history] == [(EDS, (REVIEWS,))]


@both
async def test_an_edit_of_a_route_sends_routes_only(delta: bool) -> None:
    """XD-06: a VirtualService for a host moves its route configuration and nothing else."""
    async with Mesh() as mesh:
        await mesh.apply(SERVICES)
        await mesh.apply(RULE, "rule.yaml")
        async with mesh.proxy(delta=delta) as proxy:
            await proxy.until(is_served)
            proxy.history.clear()
            await mesh.apply(ROUTE, "route.yaml")
            await proxy.until(lambda p: reviews_host(p).routes[0].route.timeout.seconds == 3)
            assert [kind for kind, _, _ in proxy.history] == [RDS]
            await mesh.delete("route.yaml")
            await proxy.until(lambda p: not reviews_host(p).routes[0].route.timeout.seconds)
            assert [kind for kind, _, _ in proxy.history] == [RDS, RDS]


@both
async def test_an_edit_that_changes_nothing_served_sends_nothing(delta: bool) -> None:
    """Item 4: a resource whose bytes did not change is not sent again."""
    async with Mesh() as mesh:
        await mesh.apply(SERVICES)
        await mesh.apply(ROUTE, "route.yaml")
        async with mesh.proxy(delta=delta) as proxy:
            await proxy.until(is_served)
            proxy.history.clear()
            assert await mesh.apply("# a comment\n" + ROUTE, "route.yaml") == 0
            elsewhere = ROUTE.replace("namespace: default", "namespace: other")
            assert await mesh.apply(elsewhere + "  exportTo: [.]\n", "other.yaml") == 0
            await mesh.apply(slice_of("10.1.0.9"), "slice.yaml")
            await proxy.until(lambda p: "10.1.0.9" in addresses(p))
            assert [kind for kind, _, _ in proxy.history] == [EDS]


@both
async def test_a_subset_is_there_before_a_route_points_at_it(delta: bool) -> None:
    """PU-08: one edit brings cluster, endpoints and route, in this order; going, the reverse."""
    async with Mesh() as mesh:
        await mesh.apply(SERVICES)
        async with mesh.proxy(delta=delta) as proxy:
            await proxy.until(is_served)
            proxy.history.clear()
            await mesh.apply(RULE + "---" + ROUTE, "both.yaml")
            subset = REVIEWS.replace("||", "|v1|")
            await proxy.until(lambda p: reviews_host(p).routes[0].route.cluster == subset)
            kinds = [kind for kind, _, _ in proxy.history]
            assert kinds.index(CDS) < kinds.index(EDS) < kinds.index(RDS)
            proxy.history.clear()
            await mesh.delete("both.yaml")
            await proxy.until(lambda p: subset not in p.clusters)
            kinds = [kind for kind, _, _ in proxy.history]
            assert reviews_host(proxy).routes[0].route.cluster == REVIEWS
            assert kinds.index(RDS) < len(kinds) - 1 - kinds[::-1].index(CDS)


@both
async def test_a_new_service_opens_its_listener_and_a_gone_one_closes_it(delta: bool) -> None:
    """LS-03, LS-04: listeners and routes come and go with services."""
    extra = """
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {clusterIP: 10.96.0.12, ports: [{name: tcp, port: 5432}, {name: http-web, port: 8080}]}
"""
    async with Mesh() as mesh:
        await mesh.apply(SERVICES)
        async with mesh.proxy(delta=delta) as proxy:
            await proxy.until(is_served)
            await mesh.apply(extra, "db.yaml")
            wanted = {"10.96.0.12_5432", "0.0.0.0_8080"}
            await proxy.until(lambda p: wanted <= p.listeners.keys() and "8080" in p.routes)
            await mesh.delete("db.yaml")
            await proxy.until(lambda p: not wanted & p.listeners.keys() and "8080" not in p.routes)
            await proxy.until(lambda p: not any("db." in name for name in p.clusters))


@both
async def test_who_may_not_see_a_service_does_not_get_it(delta: bool) -> None:
    """3.1, 3.3: exportTo and Sidecar, for proxies of two namespaces on one server."""
    hidden = SERVICES.replace(
        "{name: ratings, namespace: default}",
        '{name: ratings, namespace: default, annotations: {networking.istio.io/exportTo: "."}}',
    )
    sidecar = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: default}
spec: {egress: [{hosts: ["./ratings.default.svc.cluster.local"]}]}
"""
    ratings = REVIEWS.replace("reviews", "ratings")
    async with Mesh() as mesh:
        await mesh.apply(hidden)
        async with (
            mesh.proxy(delta=delta) as own,
            mesh.proxy(SHOPPER, {"NAMESPACE": "shop"}, delta=delta) as other,
        ):
            await own.until(is_served)
            await other.until(is_served)
            assert {REVIEWS, ratings} <= own.clusters.keys()
            assert REVIEWS in other.clusters
            assert ratings not in other.clusters
            assert await mesh.apply(sidecar, "sidecar.yaml") == 1
            await own.until(lambda p: REVIEWS not in p.clusters and ratings in p.clusters)
            assert REVIEWS in other.clusters


@both
async def test_a_pod_that_gains_labels_gets_what_they_select(delta: bool) -> None:
    """K8-18, SC-01: the proxy's class changes under a living stream."""
    pod = """
apiVersion: v1
kind: Pod
metadata: {name: client-1, namespace: default, labels: {app: %s}}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
"""
    async with Mesh() as mesh:
        await mesh.apply(SERVICES)
        await mesh.apply(pod % "client", "pod.yaml")
        async with mesh.proxy(delta=delta) as proxy:
            await proxy.until(is_served)
            assert "inbound|9080||" not in proxy.clusters
            proxy.history.clear()
            await mesh.apply(pod % "reviews", "pod.yaml")
            await proxy.until(lambda p: "inbound|9080||" in p.clusters)
            await proxy.until(
                lambda p: any(
                    chain.name == "0.0.0.0_9080"
                    for chain in p.listeners["virtualInbound"].filter_chains
                )
            )
            assert {kind for kind, _, _ in proxy.history} <= {CDS, EDS, LDS}


@both
async def test_a_reconnect_asks_again_for_little(delta: bool) -> None:
    """XD-10, XS-11: after a reconnect the state is the same; delta sends only what changed."""
    async with Mesh() as mesh:
        await mesh.apply(SERVICES)
        await mesh.apply(slice_of("10.1.0.2"), "slice.yaml")
        proxy = mesh.proxy(delta=delta)
        async with proxy:
            await proxy.until(is_served)
        await mesh.apply(slice_of("10.1.0.3"), "slice.yaml")
        proxy.history.clear()
        async with proxy:
            await proxy.until(lambda p: addresses(p) == {"10.1.0.3"})
            await proxy.until(is_served)
            sent = {name for kind, names, _ in proxy.history if kind == CDS for name in names}
            if delta:
                assert sent == set()
        fresh = mesh.proxy(delta=delta)
        async with fresh:
            await fresh.until(is_served)
            assert fresh.clusters == proxy.clusters
            assert fresh.listeners == proxy.listeners
            assert fresh.routes == proxy.routes
            assert fresh.endpoints == proxy.endpoints


def has_arrived(proxy: FakeProxy) -> bool:
    """Tell whether the last of many edits is here; on the way, the whole service may be away."""
    with suppress(KeyError, ValueError):
        return (
            addresses(proxy) == {"10.1.0.3"}
            and not reviews_host(proxy).routes[0].route.timeout.seconds
            and REVIEWS.replace("||", "|v1|") not in proxy.clusters
        )
    return False


async def test_both_dialects_come_to_the_same_state() -> None:
    """Item 4: delta is native, state of the world is derived from it."""
    async with Mesh() as mesh:
        await mesh.apply(SERVICES + "---" + RULE + "---" + ROUTE)
        async with mesh.proxy(delta=True) as one, mesh.proxy(delta=False) as other:
            await one.until(is_served)
            await other.until(is_served)
            for step in range(4):
                await mesh.apply(slice_of(f"10.1.0.{step}"), "slice.yaml")
                await mesh.apply(ROUTE.replace("3s", f"{step + 4}s"), "mesh.yaml")
                await mesh.apply(SERVICES + "---" + ROUTE.replace("3s", f"{step + 4}s"))
            await mesh.apply(SERVICES)
            for proxy in (one, other):
                await proxy.until(has_arrived)
            assert one.clusters == other.clusters
            assert one.listeners == other.listeners
            assert one.routes == other.routes


async def test_findings_come_and_go_with_their_cause() -> None:
    """Item 2: an unknown host and subset are said while they are unknown."""
    async with Mesh() as mesh:
        await mesh.apply(SERVICES)
        async with mesh.proxy() as proxy:
            await proxy.until(is_served)
            await mesh.apply(ROUTE, "route.yaml")
            assert [each.code for each in mesh.findings()] == ["UnknownSubset"]
            await mesh.apply(RULE, "rule.yaml")
            assert mesh.findings() == []
            await mesh.apply(ROUTE.replace("host: reviews,", "host: nobody,"), "route.yaml")
            assert {each.code for each in mesh.findings()} == {"UnknownHost", "UnknownSubset"}
            await mesh.apply(ROUTE.replace("timeout: 3s", "timeout: soon"), "route.yaml")
            assert "BadValue" in {each.code for each in mesh.findings()}
            assert reviews_host(proxy).routes, "the last good version stays"
