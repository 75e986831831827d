"""Which services belong to their cluster alone: MC-16."""

import pytest

from pilothouse.api.mesh_config import MeshConfig, ServiceSettings, ServiceSettingsFlags
from pilothouse.graph.core import Graph
from pilothouse.model.cluster_local import cluster_local_hosts
from pilothouse.model.hosts import most_specific
from pilothouse.model.inputs import MESH_CONFIG, THE_MESH

DNS = "dns.kube-system.svc.cluster.local"
API = "kubernetes.default.svc.cluster.local"
WEB = "web.shop.svc.cluster.local"


def settings(is_local, *hosts):
    return ServiceSettings(settings=ServiceSettingsFlags(cluster_local=is_local), hosts=hosts)


@pytest.mark.parametrize(
    ("written", "local"),
    [
        ((), {DNS, API}),
        ((settings(True, "*.shop.svc.cluster.local"),), {DNS, API, WEB}),
        ((settings(False, "*.kube-system.svc.cluster.local"),), {API}),
        ((settings(False, DNS),), {API}),
        ((settings(False, API),), {DNS}),
        ((settings(False, "*"),), {DNS, API}),
        ((settings(True, "*"), settings(False, WEB)), {DNS, API}),
    ],
)
def test_the_most_specific_name_decides(written, local):
    """What is written for a default's host, or for one it covers, takes the default's place."""
    graph = Graph()
    graph.commit([(MESH_CONFIG, THE_MESH, MeshConfig(service_settings=written))])
    hosts = graph.value(cluster_local_hosts, None)
    assert {host for host in (DNS, API, WEB) if hosts.get(most_specific(hosts, host))} == local
