"""
Requests through two real sidecars: what the golden files say, seen from the programs.

One mesh per dialect serves all tests; each writes the one file of config that it is about.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import isolation
import pytest
import pytest_asyncio
from live_mesh import HTTP_PORT, LiveMesh, Reply, eventually
from self_signed import self_signed
from web_mesh import SUBSETS, entry, service

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("traffic"),
]

ADDRESSES = {
    "client": "10.244.77.11",
    "web-v1": "10.244.77.12",
    "web-v2": "10.244.77.13",
    "shadow": "10.244.77.14",
}
WEB = "http://10.96.0.10"

BASE = "---".join(
    [
        service(
            "web",
            "10.96.0.10",
            "{name: http, port: 80, targetPort: 8080}",
            "{name: auto, port: 7000, targetPort: 8080}",
            "{name: tcp, port: 9000}",
        ),
        service("shadow", "10.96.0.11", "{name: http, port: 80, targetPort: 8080}"),
        SUBSETS,
        entry("web-v1", ADDRESSES["web-v1"], {"app": "web", "version": "v1"}),
        entry("web-v2", ADDRESSES["web-v2"], {"app": "web", "version": "v2"}),
        entry("shadow", ADDRESSES["shadow"], {"app": "shadow"}),
    ]
)


def routing(http: str) -> str:
    """Return a VirtualService of host web with these HTTP rules (YAML list)."""
    head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
    meta = "metadata: {name: web, namespace: default}\nspec:\n  hosts: [web]\n  http:\n"
    return head + meta + "".join(f"    {line}\n" for line in http.strip().splitlines())


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["delta", "sotw"])
async def whole(request: pytest.FixtureRequest, tmp_path_factory) -> AsyncIterator[LiveMesh]:
    """The mesh of this file."""
    tls = self_signed(tmp_path_factory.mktemp("tls"))
    async with LiveMesh(delta=request.param == "delta") as mesh:
        await mesh.control.apply(BASE, "base.yaml")
        for name, address in ADDRESSES.items():
            app, _, version = name.partition("-")
            await mesh.add(name, address, {"app": app, "version": version or "v1"}, tls)
        mesh.probe = ("client", "http://10.96.0.11", "shadow")
        yield mesh


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(whole: LiveMesh) -> AsyncIterator[LiveMesh]:
    """The mesh with no config but its services, before and after."""
    for workload in whole.workloads.values():
        workload.program.seen.clear()
    yield whole
    await whole.control.delete("test.yaml")
    await whole.settled()


async def ask(mesh: LiveMesh, path: str = "/", **options: object) -> Reply:
    """Ask the web service as the client's program would."""
    port = options.pop("port", 80)
    return await mesh.workloads["client"].request(f"{WEB}:{port}{path}", host="web", **options)


async def answers(mesh: LiveMesh, count: int, path: str = "/", **options: object) -> Counter[str]:
    """Return how often each program (or status, if none) answered."""
    replies = [await ask(mesh, path, **options) for _ in range(count)]
    return Counter(reply.by if reply.status == 200 else str(reply.status) for reply in replies)


async def test_a_service_is_reached_through_both_sidecars(mesh: LiveMesh) -> None:
    """LS-03, LS-12, CL-09: both endpoints are used; both sidecars leave their marks."""
    found = await answers(mesh, 40)
    assert found.keys() == {"web-v1", "web-v2"}
    reply = await ask(mesh)
    assert reply.headers["server"] == "envoy"
    assert reply.seen["host"] == "web"
    assert reply.seen["x-envoy-attempt-count"] == "1"
    assert reply.seen["x-forwarded-proto"] == "http"
    assert "x-request-id" in reply.seen


async def test_an_undeclared_port_carries_http_by_detection(mesh: LiveMesh) -> None:
    """LS-05, N-41: told by its first bytes, then routed by its own route configuration."""
    await mesh.apply(routing("- route: [{destination: {host: web, subset: v2}}]"))
    assert await answers(mesh, 10, port=7000) == {"web-v2": 10}


async def test_an_undeclared_port_carries_what_is_not_http_too(mesh: LiveMesh) -> None:
    """LS-05, 3.11: detection on both sides lets TLS and plain TCP pass."""
    await mesh.apply("""
apiVersion: v1
kind: Service
metadata: {name: any, namespace: default}
spec:
  clusterIP: 10.96.0.12
  selector: {app: web}
  ports:
    - {name: any-http, port: 7100, targetPort: 8080}
    - {name: any-tls, port: 7101, targetPort: 8443}
    - {name: any-tcp, port: 7102, targetPort: 9001}
""")
    client = mesh.workloads["client"]
    both = {"web-v1", "web-v2"}
    assert {await client.who_answers("10.96.0.12", 7101, "x") for _ in range(12)} == both
    assert {await client.who_answers("10.96.0.12", 7102) for _ in range(12)} == both
    replies = [await client.request("http://10.96.0.12:7100/", host="any") for _ in range(12)]
    assert {reply.by for reply in replies} == both


async def test_a_canary_gets_its_share(mesh: LiveMesh) -> None:
    """VS-20: 75 to 25 over 400 requests, within five standard deviations."""
    await mesh.apply(
        routing("""
- route:
    - {destination: {host: web, subset: v1}, weight: 75}
    - {destination: {host: web, subset: v2}, weight: 25}
""")
    )
    found = await answers(mesh, 400)
    assert found.total() == 400
    assert found.keys() == {"web-v1", "web-v2"}
    assert abs(found["web-v2"] - 100) < 5 * (400 * 0.25 * 0.75) ** 0.5


async def test_conditions_choose_the_subset(mesh: LiveMesh) -> None:
    """VS-06, VS-08, VS-09, VS-10, VS-11: headers, path, method, query; the first match wins."""
    await mesh.apply(
        routing("""
- match: [{headers: {end-user: {exact: jason}}, withoutHeaders: {x-skip: {}}}]
  route: [{destination: {host: web, subset: v2}}]
- match: [{uri: {regex: "/v2/.*"}}, {uri: {exact: /two}, method: {exact: POST}}]
  route: [{destination: {host: web, subset: v2}}]
- match: [{queryParams: {version: {exact: "2"}}}]
  route: [{destination: {host: web, subset: v2}}]
- route: [{destination: {host: web, subset: v1}}]
""")
    )
    v1, v2 = {"web-v1": 4}, {"web-v2": 4}
    assert await answers(mesh, 4) == v1
    assert await answers(mesh, 4, headers={"end-user": "jason"}) == v2
    assert await answers(mesh, 4, headers={"end-user": "jason", "x-skip": "1"}) == v1
    assert await answers(mesh, 4, headers={"end-user": "anna"}) == v1
    assert await answers(mesh, 4, "/v2/x") == v2
    assert await answers(mesh, 4, "/two") == v1
    assert await answers(mesh, 4, "/two", method="POST") == v2
    assert await answers(mesh, 4, "/?version=2") == v2
    assert await answers(mesh, 4, "/?version=3") == v1


async def test_redirect_answer_and_rewrite(mesh: LiveMesh) -> None:
    """VS-23, VS-24, VS-26, VS-27, VS-28."""
    await mesh.apply(
        routing("""
- match: [{uri: {exact: /moved}}]
  redirect: {uri: /new, authority: new.example, redirectCode: 302}
- match: [{uri: {exact: /teapot}}]
  directResponse: {status: 418, body: {string: short}}
- match: [{uri: {prefix: /api/}}]
  rewrite: {uri: /, authority: inner.example}
  route: [{destination: {host: web}}]
- match: [{uri: {prefix: /v}}]
  rewrite: {uriRegexRewrite: {match: "^/v[0-9]+/(.*)$", rewrite: '/\\1'}}
  route: [{destination: {host: web}}]
- route: [{destination: {host: web}}]
""")
    )
    moved = await ask(mesh, "/moved")
    assert (moved.status, moved.headers["location"]) == (302, "http://new.example/new")
    assert (await ask(mesh, "/teapot")).status == 418
    inner = await ask(mesh, "/api/users?x=1")
    assert (inner.path, inner.seen["host"]) == ("/users?x=1", "inner.example")
    assert (await ask(mesh, "/v17/deep/path")).path == "/deep/path"
    assert (await ask(mesh, "/plain")).path == "/plain"


async def test_a_timeout_ends_a_slow_request(mesh: LiveMesh) -> None:
    """VS-29: 504 after the time; without one, the request is waited for."""
    slow = await ask(mesh, "/slow/0.6")
    assert slow.status == 200
    await mesh.apply(
        routing("- {timeout: 0.3s, retries: {attempts: 0}, route: [{destination: {host: web}}]}")
    )
    late = await ask(mesh, "/slow/3")
    assert late.status == 504
    assert 0.25 <= late.seconds < 2
    assert (await ask(mesh, "/slow/0.05")).status == 200


async def test_retries_hide_failures(mesh: LiveMesh) -> None:
    """VS-30, VS-32: as many attempts as asked for, on the conditions asked for."""
    rule = "route: [{destination: {host: web, subset: v1}}]"
    await mesh.apply(routing(f"- {{retries: {{attempts: 3, retryOn: 5xx, backoff: 1ms}}, {rule}}}"))
    good = await ask(mesh, "/flaky/a/3")
    assert (good.status, good.seen["x-envoy-attempt-count"]) == (200, "4")
    assert (await ask(mesh, "/flaky/b/4")).status == 503
    await mesh.apply(routing(f"- {{retries: {{attempts: 0}}, {rule}}}"))
    mesh.workloads["web-v1"].program.seen.clear()
    assert (await ask(mesh, "/flaky/c/1")).status == 503
    assert len(mesh.workloads["web-v1"].program.seen) == 1


async def test_faults_are_injected(mesh: LiveMesh) -> None:
    """VS-36, VS-37: half of the requests aborted (five deviations of 200), all of some delayed."""
    await mesh.apply(
        routing("""
- match: [{uri: {prefix: /half}}]
  fault: {abort: {httpStatus: 555, percentage: {value: 50}}}
  route: [{destination: {host: web, subset: v1}}]
- match: [{uri: {prefix: /late}}]
  fault: {delay: {fixedDelay: 0.3s, percentage: {value: 100}}}
  route: [{destination: {host: web}}]
- route: [{destination: {host: web}}]
""")
    )
    found = await answers(mesh, 200, "/half")
    assert found.keys() == {"555", "web-v1"}
    assert abs(found["555"] - 100) < 5 * (200 * 0.25) ** 0.5
    late = await ask(mesh, "/late")
    assert late.status == 200
    assert late.seconds >= 0.28  # Envoy rounds its timers to milliseconds and starts before us


async def test_a_mirror_sees_what_the_service_saw(mesh: LiveMesh) -> None:
    """VS-38: a copy arrives, with its host as it was; the client hears only the service."""
    await mesh.apply(
        routing("- {mirror: {host: shadow}, route: [{destination: {host: web, subset: v1}}]}")
    )
    shadow = mesh.workloads["shadow"].program
    shadow.seen.clear()
    assert (await ask(mesh, "/copied", method="POST")).by == "web-v1"

    async def has_arrived() -> bool:
        return bool(shadow.seen)

    await eventually(has_arrived)
    (copy,) = shadow.seen
    assert (copy.method, copy.path, copy.headers["host"]) == ("POST", "/copied", "web")


async def test_a_preflight_is_answered_by_the_sidecar(mesh: LiveMesh) -> None:
    """VS-40."""
    await mesh.apply(
        routing("""
- corsPolicy:
    allowOrigins: [{exact: "https://a.example"}]
    allowMethods: [PUT]
    allowHeaders: [x-one]
    maxAge: 10m
  route: [{destination: {host: web}}]
""")
    )
    preflight = {"access-control-request-method": "PUT"}
    good = await ask(mesh, method="OPTIONS", headers={"origin": "https://a.example", **preflight})
    assert good.status == 200
    assert good.by == ""
    assert good.headers["access-control-allow-origin"] == "https://a.example"
    assert good.headers["access-control-allow-methods"] == "PUT"
    assert good.headers["access-control-max-age"] == "600"
    other = await ask(mesh, method="OPTIONS", headers={"origin": "https://b.example", **preflight})
    assert other.by.startswith("web")
    assert "access-control-allow-origin" not in other.headers


async def test_headers_are_set_added_and_removed(mesh: LiveMesh) -> None:
    """VS-21, VS-22."""
    await mesh.apply(
        routing("""
- headers:
    request: {set: {x-set: new}, add: {x-add: two}, remove: [x-gone]}
    response: {set: {x-served: mesh}}
  route:
    - destination: {host: web}
      headers: {request: {set: {x-only: here}}}
""")
    )
    reply = await ask(mesh, headers={"x-set": "old", "x-gone": "1"})
    assert (reply.seen["x-set"], reply.seen["x-add"], reply.seen["x-only"]) == (
        "new",
        "two",
        "here",
    )
    assert "x-gone" not in reply.seen
    assert reply.headers["x-served"] == "mesh"


async def test_tcp_goes_where_its_route_says(mesh: LiveMesh) -> None:
    """LS-04, VS-46, VS-47."""
    client = mesh.workloads["client"]
    first = {await client.who_answers("10.96.0.10", 9000) for _ in range(20)}
    assert first == {"web-v1", "web-v2"}
    await mesh.apply("""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [web]
  tcp:
    - match: [{port: 9000}]
      route: [{destination: {host: web, subset: v2, port: {number: 9000}}}]
""")

    async def all_to_v2() -> bool:
        return {await client.who_answers("10.96.0.10", 9000) for _ in range(10)} == {"web-v2"}

    await eventually(all_to_v2)


async def test_tls_is_passed_on_by_its_name(mesh: LiveMesh) -> None:
    """LS-07, VS-43: hosts without an address share a listener and are told apart by SNI."""
    await mesh.apply("""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: default}
spec:
  hosts: [a.example]
  resolution: STATIC
  ports: [{number: 443, name: tls, protocol: TLS, targetPort: 8443}]
  endpoints: [{address: 10.244.77.12}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: b, namespace: default}
spec:
  hosts: [b.example]
  resolution: STATIC
  ports: [{number: 443, name: tls, protocol: TLS, targetPort: 8443}]
  endpoints: [{address: 10.244.77.13}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: default}
spec:
  hosts: [b.example]
  tls:
    - match: [{port: 443, sniHosts: [b.example]}]
      route: [{destination: {host: a.example}}]
""")
    client = mesh.workloads["client"]

    async def is_routed() -> bool:
        return await client.who_answers("192.0.2.1", 443, "b.example") == "web-v1"

    await eventually(is_routed)
    assert await client.who_answers("192.0.2.1", 443, "a.example") == "web-v1"
    await mesh.apply(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"
        "metadata: {name: b, namespace: default}\n"
        "spec: {hosts: [b.example], resolution: STATIC, endpoints: [{address: 10.244.77.13}], "
        "ports: [{number: 443, name: tls, protocol: TLS, targetPort: 8443}]}"
    )

    async def is_direct() -> bool:
        return await client.who_answers("192.0.2.1", 443, "b.example") == "web-v2"

    await eventually(is_direct)


async def test_what_no_registry_knows_is_passed_on_or_refused(mesh: LiveMesh) -> None:
    """MC-05, 3.16: ALLOW_ANY reaches an address nobody declared; REGISTRY_ONLY gives 502."""
    client = mesh.workloads["client"]
    direct = f"http://{ADDRESSES['shadow']}:{HTTP_PORT}/"
    assert (await client.request(direct, host="unknown.example")).by == "shadow"
    assert await client.who_answers(ADDRESSES["shadow"], 9000) == "shadow"
    await mesh.apply("""
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"}
""")

    async def is_closed() -> bool:
        return await client.who_answers(ADDRESSES["shadow"], 9000) == ""

    await eventually(is_closed)
    refused = await client.request(WEB, host="unknown.example")
    assert refused.status == 502
    assert (await ask(mesh)).status == 200


async def test_a_hash_keeps_users_where_they_are(mesh: LiveMesh) -> None:
    """DR-13, DR-14: one user always gets one endpoint; many users use both."""
    await mesh.apply("""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: hashed, namespace: default}
spec:
  host: web.default.svc.cluster.local
  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}
""")

    async def users() -> list[set[str]]:
        return [
            set(await answers(mesh, 3, headers={"x-user": f"user-{number}"}))
            for number in range(12)
        ]

    async def is_sticky() -> bool:
        return all(len(each) == 1 for each in await users())

    await eventually(is_sticky)
    assert set().union(*await users()) == {"web-v1", "web-v2"}


async def test_pods_of_a_headless_service_are_reached_by_address(mesh: LiveMesh) -> None:
    """LS-08, CL-02: whichever pod the client chose, that one answers."""
    await mesh.apply("""
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: tcp, port: 9000}, {name: http, port: 8080}]
""")
    client = mesh.workloads["client"]
    for name in ("web-v1", "web-v2"):
        assert await client.who_answers(ADDRESSES[name], 9000) == name
        reply = await client.request(f"http://{ADDRESSES[name]}:8080/", host=f"{name}.db")
        assert reply.by == name


async def test_no_request_is_lost_while_routes_and_clusters_change(mesh: LiveMesh) -> None:
    """PU-08: make before break, under steady load, through ten changes of everything."""
    stop = asyncio.Event()

    async def load() -> Counter[str]:
        found: Counter[str] = Counter()
        while not stop.is_set():
            reply = await ask(mesh)
            found[reply.by if reply.status == 200 else str(reply.status)] += 1
        return found

    loads = [asyncio.create_task(load()) for _ in range(4)]
    for step in range(10):
        subset = f"s{step}"
        await mesh.apply(
            routing(f"- route: [{{destination: {{host: web, subset: {subset}}}}}]")
            + "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
            + "metadata: {name: step, namespace: default}\n"
            + f"spec: {{host: web, subsets: [{{name: {subset}, labels: {{app: web}}}}]}}\n"
        )
    stop.set()
    found = sum(await asyncio.gather(*loads), Counter())
    assert found.keys() <= {"web-v1", "web-v2"}, found
    assert found.total() > 100
