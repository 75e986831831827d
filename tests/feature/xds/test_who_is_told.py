"""
Which change is told to which proxy, in which types: no more than what it can have altered.

Upstream has tables of kinds that skip a type, and scopes that skip a proxy. Here a change reaches
what was worked out from it, so that the tables hold of themselves; these tests hold them to it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from fake_proxy import ADS, FakeProxy, node
from mesh import Mesh
from serving import until

from pilothouse._pb.envoy.service.discovery.v3 import discovery_pb2 as pb
from pilothouse.model.resource import CDS, EDS, LDS, RDS

Sent = dict[str, set[str]]
TYPES = {CDS: "cds", EDS: "eds", LDS: "lds", RDS: "rds"}
NODES = {
    "near": "sidecar~10.1.0.1~near-0.shop~shop.svc.cluster.local",
    "far": "sidecar~10.1.0.2~far-0.other~other.svc.cluster.local",
}

MESH = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: tcp, namespace: shop}
spec: {clusterIP: None, selector: {app: tcp}, ports: [{name: tcp, port: 90}]}
---
apiVersion: v1
kind: Service
metadata: {name: names, namespace: shop}
spec: {clusterIP: None, selector: {app: names}, ports: [{name: http, port: 81}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: own, namespace: other}
spec: {egress: [{hosts: ["./*"]}]}
---
apiVersion: v1
kind: Service
metadata: {name: local, namespace: other}
spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}
"""


def slice_of(name: str, port: str, *ips: str) -> str:
    listed = ", ".join(f"{{addresses: [{ip}]}}" for ip in ips)
    return f"""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: {port}}}]
endpoints: [{listed}]
"""


SLICES = {
    "web": slice_of("web", "http, port: 8080", "10.2.0.1"),
    "tcp": slice_of("tcp", "tcp, port: 90", "10.2.1.1"),
    "names": slice_of("names", "http, port: 81", "10.2.2.1"),
}


def istio(kind: str, spec: str, name: str = "web", namespace: str = "shop") -> str:
    group = "security" if kind == "PeerAuthentication" else "networking"
    return f"""
apiVersion: {group}.istio.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"""


@asynccontextmanager
async def connected(*, delta: bool = True) -> AsyncIterator[tuple[Mesh, dict[str, FakeProxy]]]:
    """A mesh with one proxy beside the services and one whose Sidecar imports none of them."""
    async with Mesh() as mesh, asyncio.TaskGroup() as tasks:
        await mesh.apply(MESH)
        for name, text in SLICES.items():
            await mesh.apply(text, f"{name}.yaml")
        proxies = {name: mesh.proxy(node, delta=delta) for name, node in NODES.items()}
        for each in proxies.values():
            await each.connect()
            await each.until(lambda p: p.is_complete and bool(p.routes))
        await settled(mesh)
        for each in proxies.values():
            each.history.clear()
        yield mesh, proxies
        for each in proxies.values():
            tasks.create_task(each.close())


async def settled(mesh: Mesh) -> None:
    """Wait until everything has been said and answered."""

    def is_quiet() -> bool:
        sessions = [each.member.session for each in mesh.streams._streams.values()]
        return not any(each.may_speak for each in sessions) and all(
            watch.is_settled for each in sessions for watch in each.watches.values()
        )

    await until(is_quiet)


async def told(mesh: Mesh, proxies: dict[str, FakeProxy], text: str, file: str) -> Sent:
    """Apply a file; return the types that each proxy is sent."""
    await mesh.apply(text, file)
    await settled(mesh)
    return {name: {TYPES[url] for url, _, _ in proxy.history} for name, proxy in proxies.items()}


WEB = "outbound|80||web.shop.svc.cluster.local"
ROUTE = istio(
    "VirtualService", "{hosts: [web], http: [{timeout: 3s, route: [{destination: {host: web}}]}]}"
)
POOL = istio(
    "DestinationRule", "{host: web, trafficPolicy: {connectionPool: {tcp: {maxConnections: 9}}}}"
)
SUBSETS = istio("DestinationRule", "{host: web, subsets: [{name: v1, labels: {version: v1}}]}")
ENTRY = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: shop}
spec: {address: 10.3.0.1, labels: {app: web}}
"""
OUTSIDE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g, namespace: shop}
spec: {selector: {app: g}, servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: shop}
stringData: {a: b}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: g, namespace: shop}
spec: {template: {serviceAccount: g}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: other}
spec: {}
"""


@pytest.mark.parametrize(
    ("text", "file", "types"),
    [
        (ROUTE, "route.yaml", {"rds"}),
        (POOL, "rule.yaml", {"cds", "eds"}),
        (SUBSETS, "rule.yaml", {"cds", "eds"}),
        (ENTRY, "entry.yaml", {"eds"}),
        (OUTSIDE, "outside.yaml", set()),
        (slice_of("tcp", "tcp, port: 90", "10.2.1.1", "10.2.1.2"), "tcp.yaml", {"lds"}),
        (slice_of("names", "http, port: 81", "10.2.2.1", "10.2.2.2"), "names.yaml", set()),
    ],
    ids=["routes", "policy", "subsets", "workload", "others", "headless tcp", "headless http"],
)
async def test_a_change_is_told_in_its_types_to_whom_it_concerns(
    text: str, file: str, types: set[str]
) -> None:
    """PU-05, PU-09, PU-10: a cluster that is sent has its endpoints sent after it (XD-08)."""
    async with connected() as (mesh, proxies):
        assert await told(mesh, proxies, text, file) == {"near": types, "far": set()}


async def test_what_a_rule_no_longer_declares_is_removed_by_name() -> None:
    """XD-03, XD-04: and nothing else is sent again."""
    async with connected() as (mesh, proxies):
        near = proxies["near"]
        subset = WEB.replace("||", "|v1|")
        await mesh.apply(SUBSETS, "rule.yaml")
        await near.until(lambda p: subset in p.clusters and p.is_complete)
        near.history.clear()
        await mesh.delete("rule.yaml")
        await settled(mesh)
        assert subset not in near.clusters
        clusters = [(names, gone) for url, names, gone in near.history if url == CDS]
        assert clusters == [((WEB,), ()), ((), (subset,))]
        gone = {name for _, _, names in near.history for name in names}
        assert gone == {subset}


async def test_what_a_service_left_behind_is_removed_by_name() -> None:
    """XD-03, XD-04: clusters after the listeners and routes that lead to them."""
    async with connected() as (mesh, proxies):
        near = proxies["near"]
        tcp = "outbound|90||tcp.shop.svc.cluster.local"
        await mesh.apply(
            "\n---\n".join(each for each in MESH.split("---") if "name: tcp," not in each)
        )
        await settled(mesh)
        removals = [(TYPES[url], gone) for url, _, gone in near.history if gone]
        assert removals == [("lds", ("10.2.1.1_90",)), ("cds", (tcp,))]


async def test_a_scope_that_changes_is_told_what_it_lost_and_won() -> None:
    """PU-09, XD-04: the proxies of a Sidecar hear of it, and nobody else."""
    async with connected() as (mesh, proxies):
        far, near = proxies["far"], proxies["near"]
        assert WEB not in far.clusters
        wide = MESH.replace('hosts: ["./*"]', 'hosts: ["./*", "shop/web.shop.svc.cluster.local"]')
        await mesh.apply(wide)
        await far.until(lambda p: WEB in p.clusters and p.is_complete)
        await mesh.apply(MESH)
        await far.until(lambda p: WEB not in p.clusters)
        await settled(mesh)
        assert near.history == []


async def test_who_does_not_read_holds_up_nobody() -> None:
    """PU-07: a stream that cannot be written to waits by itself, however many there are."""
    async with connected() as (mesh, proxies):
        options = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
        async with grpc.aio.insecure_channel(mesh.address, options=options) as channel:
            calls = []
            for _ in range(20):
                call = channel.stream_stream(ADS + "DeltaAggregatedResources")()
                request = pb.DeltaDiscoveryRequest(type_url=CDS, node=node(NODES["near"]))
                await call.write(request.SerializeToString())
                calls.append(call)
            await until(lambda: len(mesh.streams._streams) == 2 + len(calls))
            near = proxies["near"]
            for number in range(1, 20):
                ip = f"10.2.7.{number}"
                await mesh.apply(slice_of("web", "http, port: 8080", ip), "web.yaml")
                many = "".join(entry(f"e{each}-{number}") for each in range(30))
                await mesh.apply(many, "many.yaml")
            await near.until(lambda p: ip in str(p.endpoints[WEB]))
            for call in calls:
                call.cancel()


def entry(name: str) -> str:
    return f"""---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: [{name}.example]
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
"""
