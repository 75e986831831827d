"""Sessions stick to a workload until it is gone, draining or not (K8-11): as programs see it."""

from collections import Counter
from collections.abc import AsyncIterator

import isolation
import pytest
import pytest_asyncio
from live_mesh import LiveMesh, Reply, eventually
from self_signed import self_signed
from web_mesh import service

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("persistent_sessions"),
    pytest.mark.timeout(120),
]

ADDRESSES = {
    "client": "10.244.77.41",
    "one": "10.244.77.42",
    "two": "10.244.77.43",
    "three": "10.244.77.44",
}
CARTS = ("one", "two", "three")
CART = "http://10.96.1.40"
SERVICE = service("cart", "10.96.1.40", "{name: http, port: 80, targetPort: 8080}")
PROXY_PORT = 15080


def mesh_of(labels: str, conditions: dict[str, str]) -> str:
    """A service with these labels and workloads in these conditions."""
    listed = "".join(
        f"  - {{addresses: [{ADDRESSES[name]}], conditions: {{{said}}}}}\n"
        for name, said in conditions.items()
    )
    labelled = SERVICE.replace("{name: cart,", f"{{name: cart, labels: {{{labels}}},")
    assert labelled != SERVICE
    return f"""{labelled}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: cart-1, namespace: default, labels: {{kubernetes.io/service-name: cart}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints:
{listed}"""


READY = "ready: true"
DRAINING = "ready: false, serving: true, terminating: true"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveMesh]:
    """Three carts and a client that may use its proxy as an HTTP proxy."""
    tls = self_signed(tmp_path_factory.mktemp("tls"))
    async with LiveMesh(delta=True) as found:
        for name, address in ADDRESSES.items():
            app = "cart" if name in CARTS else "client"
            metadata = {} if name in CARTS else {"HTTP_PROXY_PORT": str(PROXY_PORT)}
            await found.add(name, address, {"app": app}, tls, metadata)
        found.probe = ("client", CART, "cart")
        yield found


async def ask(mesh: LiveMesh, headers: dict[str, str] | None = None) -> Reply:
    """Ask a cart."""
    return await mesh.workloads["client"].request(CART, host="cart", headers=headers)


async def answers(mesh: LiveMesh, headers: dict[str, str], count: int = 12) -> Counter[str]:
    """Return how often each cart answers such requests."""
    return Counter([(await ask(mesh, headers)).by for _ in range(count)])


@pytest.mark.parametrize("kind", ["cookie", "header"])
async def test_a_session_stays_with_its_workload(mesh: LiveMesh, kind: str) -> None:
    """K8-11, 3.12: also while that drains, when nobody else is sent there; not once it is gone."""
    labels = {
        "cookie": "istio.io/persistent-session: cart",
        "header": "istio.io/persistent-session-header: x-cart",
    }[kind]
    every = dict.fromkeys(CARTS, READY)
    await mesh.apply(mesh_of(labels, every))
    first = await ask(mesh)
    assert first.by in CARTS
    if kind == "cookie":
        kept = {"cookie": first.headers["set-cookie"].partition(";")[0]}
        assert "max-age" not in first.headers["set-cookie"].lower()
    else:
        kept = {"x-cart": first.headers["x-cart"]}
    assert await answers(mesh, kept) == {first.by: 12}

    await mesh.apply(mesh_of(labels, {**every, first.by: DRAINING}))

    async def is_left() -> bool:
        return first.by not in await answers(mesh, {})

    await eventually(is_left)
    assert await answers(mesh, kept) == {first.by: 12}

    await mesh.apply(mesh_of(labels, {name: READY for name in CARTS if name != first.by}))
    moved = await answers(mesh, kept)
    assert first.by not in moved
    assert "" not in moved


async def test_without_a_label_nothing_drains_and_nothing_sticks(mesh: LiveMesh) -> None:
    """K8-12: who ends is left out at once."""
    await mesh.apply(mesh_of("", {**dict.fromkeys(CARTS, READY), "one": DRAINING}))
    reply = await ask(mesh)
    assert "set-cookie" not in reply.headers
    assert set(await answers(mesh, {}, 30)) == {"two", "three"}


async def test_a_program_may_use_its_proxy_as_one(mesh: LiveMesh) -> None:
    """MC-02, NM-13, N-24: by the names of hosts, with sessions too; nobody else is reached."""
    labels = "istio.io/persistent-session: cart"
    await mesh.apply(mesh_of(labels, dict.fromkeys(CARTS, READY)))
    client, proxy = mesh.workloads["client"], f"http://127.0.0.1:{PROXY_PORT}"
    first = await client.request(proxy, host="cart.default.svc.cluster.local")
    assert first.by in CARTS
    kept = {"cookie": first.headers["set-cookie"].partition(";")[0]}
    named = [await client.request(proxy, host="cart:80", headers=kept) for _ in range(6)]
    assert {reply.by for reply in named} == {first.by}
    assert (await client.request(proxy, host="elsewhere.example")).status == 503
