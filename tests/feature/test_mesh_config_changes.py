"""A change of the mesh config reaches whom it concerns, which is mostly everybody."""

from datetime import timedelta

import pytest
from fake_proxy import FakeProxy
from mesh import Mesh

MESH = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "connectTimeout: %ds"}
"""


def waits(proxy: FakeProxy, seconds: int) -> bool:
    """Tell whether clusters wait that long for a connection."""
    cluster = proxy.clusters.get("PassthroughCluster")
    wanted = timedelta(seconds=seconds)
    return cluster is not None and cluster.connect_timeout.ToTimedelta() == wanted


@pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])
async def test_everybody_is_told(delta: bool) -> None:
    """MC-32, MC-03: proxies of any namespace get clusters with the new timeout."""
    async with Mesh() as mesh:
        await mesh.apply(MESH % 3)
        first = mesh.proxy("sidecar~10.1.0.1~a.one~one.svc.cluster.local", delta=delta)
        second = mesh.proxy("sidecar~10.1.0.2~b.two~two.svc.cluster.local", delta=delta)
        async with first, second:
            for proxy in (first, second):
                await proxy.until(lambda each: waits(each, 3))
            assert await mesh.apply(MESH % 4) == 2
            for proxy in (first, second):
                await proxy.until(lambda each: waits(each, 4))
