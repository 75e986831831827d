"""Which network is whose, and what clients elsewhere see (traffic.md MN-01 to MN-06, 3.12)."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.api.decode import decode, decode_mesh_networks
from pilothouse.graph.core import Ctx, Graph, query
from pilothouse.model.endpoint import Endpoint, Health
from pilothouse.model.inputs import (
    MESH_NETWORKS,
    NAMESPACES,
    NODES,
    RESOLVED_NAMES,
    SERVICES,
    THE_MESH,
)
from pilothouse.model.network_gateways import gateway_names
from pilothouse.model.networks import (
    NetworkGateway,
    NetworkGateways,
    Reach,
    has_gateways,
    network_gateways,
    through_gateways,
)
from pilothouse.model.resolved_names import ResolvedName
from pilothouse.model.topology_labels import LOCAL_CLUSTER
from pilothouse.model.topology_networks import home_of, network_at

ANYWHERE = Reach(network="here", ipv4=True, ipv6=True, crosses=True)


@query
def place(ctx: Ctx, address: str) -> str:
    """The network of an address."""
    return network_at(ctx, address, ctx.get(home_of, ""))


def graph_of(networks, *objects):
    graph = Graph()
    config = decode_mesh_networks({"networks": networks}).object
    rows = [(MESH_NETWORKS, THE_MESH, config)]
    tables = {"Service": SERVICES, "Namespace": NAMESPACES, "Node": NODES}
    for each in objects:
        row = decode(each).object
        rows.append((tables[each["kind"]], row.meta.key, row))
    graph.commit(rows)
    return graph


def service(name, labels=None, ips=("198.51.100.7",), port=15443):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "istio-system", "labels": labels or {}},
        "spec": {"ports": [{"name": "tls", "port": port}]},
        "status": {"loadBalancer": {"ingress": [{"ip": ip} for ip in ips]}},
    }


def endpoint(name, network="", *, mutual=True, weight=1, health=Health.HEALTHY, cluster=""):
    return Endpoint(
        address=name,
        port=80,
        network=network,
        weight=weight,
        health=health,
        takes_mutual_tls=mutual,
        cluster=cluster or LOCAL_CLUSTER,
    )


def seen(endpoints, gateways, reach=ANYWHERE, scale=1, *, crosses=True):
    """Weight by address, as a client sees them."""
    every = NetworkGateways(tuple(sorted(gateways)), scale)
    found = through_gateways(endpoints, every, reach, crosses=crosses)
    return {each.address: each.weight for each in found}


def test_the_network_of_an_address() -> None:
    """MN-01: the narrowest range that holds it; none is no network."""
    graph = graph_of(
        {
            "wide": {"endpoints": [{"fromCidr": "10.0.0.0/8"}]},
            "narrow": {"endpoints": [{"fromCidr": "10.1.0.0/16"}, {"fromCidr": "fd00::/8"}]},
        }
    )
    asked = ("10.1.2.3", "10.2.0.1", "fd00::1", "192.0.2.1", "web.example.com")
    found = [graph.value(place, address) for address in asked]
    assert found == ["narrow", "wide", "narrow", "", ""]


def test_our_own_cluster_goes_before_ranges_and_the_label_before_both() -> None:
    """MN-01, MN-06: fromRegistry names everything of a cluster, the root namespace's label more."""
    networks = {
        "ranged": {"endpoints": [{"fromCidr": "10.0.0.0/8"}]},
        "ours": {"endpoints": [{"fromRegistry": "Kubernetes"}]},
        "theirs": {"endpoints": [{"fromRegistry": "west"}]},
    }
    assert graph_of(networks).value(place, "10.0.0.1") == "ours"
    root = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "istio-system", "labels": {"topology.istio.io/network": "labelled"}},
    }
    assert graph_of(networks, root).value(place, "10.0.0.1") == "labelled"


def test_where_gateways_come_from() -> None:
    """MN-02, MN-03, MN-05: addresses, a named Service of our cluster, labelled Services."""
    graph = graph_of(
        {
            "far": {"gateways": [{"address": "203.0.113.1", "port": 443}]},
            "ours": {
                "endpoints": [{"fromRegistry": "Kubernetes"}],
                "gateways": [
                    {"registryServiceName": "gw.istio-system.svc.cluster.local", "port": 15443}
                ],
            },
            "theirs": {
                "endpoints": [{"fromRegistry": "west"}],
                "gateways": [
                    {"registryServiceName": "gw.istio-system.svc.cluster.local", "port": 15443}
                ],
            },
        },
        service("gw", ips=("198.51.100.1", "198.51.100.2")),
        service("ew", {"topology.istio.io/network": "west"}),
        service(
            "odd",
            {"topology.istio.io/network": "odd", "networking.istio.io/gatewayPort": "99"},
            port=99,
        ),
    )
    found = graph.value(network_gateways, None)
    assert found.every == (
        ("far", "203.0.113.1", 443, ""),
        ("odd", "198.51.100.7", 99, "Kubernetes"),
        ("ours", "198.51.100.1", 15443, "Kubernetes"),
        ("ours", "198.51.100.2", 15443, "Kubernetes"),
        ("west", "198.51.100.7", 15443, "Kubernetes"),
    )
    assert found.scale == 2
    assert [(each.code, each.ref.path) for each in graph.findings()] == [
        ("UnknownCluster", "networks.theirs.endpoints[0].fromRegistry")
    ]


def test_gateways_that_lead_nowhere_are_told_of() -> None:
    """A Service that is not there, has no such port, or no address outside of its cluster."""
    graph = graph_of(
        {
            "ours": {
                "endpoints": [{"fromRegistry": "Kubernetes"}],
                "gateways": [{"registryServiceName": "gone.x.svc.cluster.local", "port": 15443}],
            }
        },
        service("portless", {"topology.istio.io/network": "a"}, port=80),
        service("inner", {"topology.istio.io/network": "b"}, ips=()),
    )
    assert graph.value(network_gateways, None).every == ()
    codes = Counter((each.code, each.ref.kind, each.ref.name) for each in graph.findings())
    assert codes == {
        ("NetworkGatewayUnusable", "MeshNetworks", "mesh"): 1,
        ("NetworkGatewayUnusable", "Service", "portless"): 1,
        ("NetworkGatewayUnusable", "Service", "inner"): 1,
    }


NAMED = {"far": {"gateways": [{"address": "GW.example.com.", "port": 443}]}}
LATER = ResolvedName(("203.0.113.1",), "no such name")


def look_up(graph, name, row):
    """Say what a name leads to."""
    graph.commit([(RESOLVED_NAMES, name, row)])


def test_a_gateway_may_be_a_name() -> None:
    """MN-03: it stands for what the name leads to, one gateway for each address."""
    graph = graph_of(NAMED)
    assert graph.value(gateway_names, None) == ("gw.example.com",)
    look_up(graph, "gw.example.com", ResolvedName(("203.0.113.1", "203.0.113.2")))
    found = graph.value(network_gateways, None)
    assert found.every == (("far", "203.0.113.1", 443, ""), ("far", "203.0.113.2", 443, ""))
    assert found.scale == 2
    assert not graph.findings()


def test_a_load_balancer_may_have_a_name() -> None:
    """MN-02, MN-05: names of load balancers, of labelled Services and of those that are named."""
    named = service("gw", ips=()) | {
        "status": {"loadBalancer": {"ingress": [{"hostname": "A.elb.example"}]}}
    }
    both = service("ew", {"topology.istio.io/network": "west"}, ips=()) | {
        "status": {
            "loadBalancer": {"ingress": [{"hostname": "b.elb.example"}, {"ip": "198.51.100.7"}]}
        }
    }
    host = "gw.istio-system.svc.cluster.local"
    ours = {
        "endpoints": [{"fromRegistry": "Kubernetes"}],
        "gateways": [{"registryServiceName": host, "port": 15443}],
    }
    graph = graph_of({"ours": ours}, named, both)
    assert graph.value(gateway_names, None) == ("a.elb.example", "b.elb.example")
    look_up(graph, "a.elb.example", ResolvedName(("203.0.113.1",)))
    assert graph.value(network_gateways, None).every == (
        ("ours", "203.0.113.1", 15443, "Kubernetes"),
        ("west", "198.51.100.7", 15443, "Kubernetes"),
    )


def test_a_name_that_leads_nowhere_is_told_of_and_keeps_what_it_had() -> None:
    """MN-03: whoever is called by it, and why, is in the finding."""
    graph = graph_of(NAMED)
    look_up(graph, "gw.example.com", LATER)
    assert graph.value(network_gateways, None).every == (("far", "203.0.113.1", 443, ""),)
    [finding] = graph.findings()
    assert finding.code == "GatewayNameUnresolved"
    assert finding.ref.path == "networks.far.gateways[0].address"
    assert "no such name; 203.0.113.1 is still used" in finding.message
    look_up(graph, "gw.example.com", ResolvedName(("203.0.113.1",)))
    graph.value(network_gateways, None)
    assert not graph.findings()


def test_behind_a_name_without_an_address_nobody_is_called() -> None:
    """The same address may be somebody else's in the client's own network: fail closed."""
    graph = graph_of(NAMED)
    gateways = graph.value(network_gateways, None)
    places = [endpoint("a", "far"), endpoint("b", "here"), endpoint("c", "other"), endpoint("d")]
    found = through_gateways(places, gateways, ANYWHERE, crosses=True)
    assert [each.address for each in found] == ["b", "c", "d"]


def test_what_a_name_leads_to_stays_within_endpoints() -> None:
    """MN-03: classes of proxies rest on whether there are gateways, not on where they are."""
    graph = graph_of(NAMED)
    graph.pin(has_gateways, None)
    node = graph.fresh(has_gateways, None)
    since = node.changed_at
    look_up(graph, "gw.example.com", LATER)
    assert graph.value(has_gateways, None) is True
    look_up(graph, "gw.example.com", ResolvedName(("203.0.113.9",)))
    assert graph.value(has_gateways, None) is True
    assert node.changed_at == since


def test_an_edit_of_a_gateway_that_leads_nowhere_new_stops_there() -> None:
    """What all load assignments rest on is known before any of them is looked at."""

    @query
    def reader(ctx: Ctx, _key: None) -> int:
        return len(ctx.get(network_gateways, None).every)

    ew = service("ew", {"topology.istio.io/network": "west"})
    graph = graph_of({}, ew)
    graph.pin(reader, None)
    ew["metadata"]["annotations"] = {"seen": "at noon"}
    row = decode(ew).object
    graph.commit([(SERVICES, row.meta.key, row)])
    assert graph.take_dirty() == ()
    ew["status"] = {"loadBalancer": {"ingress": [{"ip": "198.51.100.8"}]}}
    row = decode(ew).object
    graph.commit([(SERVICES, row.meta.key, row)])
    assert len(graph.take_dirty()) == 1


def test_node_ports_are_ways_in() -> None:
    """K8-09: at the external addresses of the nodes that the Service's annotation selects."""

    def node(name, address, labels):
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": "10.0.0.1"},
                    {"type": "ExternalIP", "address": address},
                ]
            },
        }

    ew = service("ew", {"topology.istio.io/network": "west"}, ips=())
    ew["spec"] = {"type": "NodePort", "ports": [{"name": "tls", "port": 15443, "nodePort": 31443}]}
    ew["metadata"]["annotations"] = {"traffic.istio.io/nodeSelector": '{"edge": "yes"}'}
    nodes = [node("a", "192.0.2.1", {"edge": "yes"}), node("b", "192.0.2.2", {})]
    found = graph_of({}, ew, *nodes).value(network_gateways, None)
    assert found.every == (("west", "192.0.2.1", 31443, "Kubernetes"),)

    ew["metadata"]["annotations"] = {"traffic.istio.io/nodeSelector": "edge=yes"}
    graph = graph_of({}, ew, *nodes)
    assert graph.value(network_gateways, None).every == ()
    paths = {each.ref.path for each in graph.findings()}
    assert "metadata.annotations[traffic.istio.io/nodeSelector]" in paths


FAR = NetworkGateway("far", "203.0.113.1", 15443)


def test_without_a_way_a_place_is_called_directly() -> None:
    """3.12: no gateway, no network of its own, or the client's own network."""
    places = [endpoint("a", "here"), endpoint("b", "other"), endpoint("c"), endpoint("", "other")]
    assert seen(places, [FAR]) == {"a": 1, "b": 1, "c": 1}


def test_a_client_without_a_network_goes_through_gateways() -> None:
    """3.12: it sees everything directly, except what has gateways."""
    lost = ANYWHERE._replace(network="")
    places = [endpoint("a", "here"), endpoint("b", "far", weight=4)]
    assert seen(places, [FAR], lost) == {"a": 1, "203.0.113.1": 4}


def test_nobody_gets_through_without_mutual_tls() -> None:
    """3.12: the workload takes none, the client has no certificates, or the rule says otherwise."""
    mutual, plain = endpoint("b", "far"), endpoint("c", "far", mutual=False)
    assert seen([plain], [FAR]) == {}
    assert seen([mutual], [FAR], ANYWHERE._replace(crosses=False)) == {}
    assert seen([mutual], [FAR], crosses=False) == {}
    assert seen([mutual, plain], [FAR]) == {"203.0.113.1": 1}


def test_families_and_views() -> None:
    """NM-04: what the client cannot connect to, or does not ask for, it is not told of."""
    six = NetworkGateway("far", "2001:db8::1", 15443)
    only4 = ANYWHERE._replace(ipv6=False)
    assert seen([endpoint("b", "far")], [six], only4) == {}
    assert seen([endpoint("b", "far")], [six, FAR], only4, scale=2) == {"203.0.113.1": 2}
    asks = ANYWHERE._replace(networks=("here",))
    places = [endpoint("a", "here"), endpoint("b", "far"), endpoint("c", "x"), endpoint("d")]
    assert seen(places, [FAR], asks) == {"a": 1, "d": 1}


def test_a_clusters_own_gateways_lead_to_its_workloads() -> None:
    """Those of the network at large serve the clusters that have none."""
    east = NetworkGateway("far", "203.0.113.2", 15443, "east")
    places = [endpoint("b", "far", cluster="east", weight=2), endpoint("c", "far", cluster="west")]
    assert seen(places, [FAR, east], scale=2) == {"203.0.113.2": 4 + 1, "203.0.113.1": 1}


def test_a_gateway_is_as_well_as_the_best_behind_it() -> None:
    """Unready workloads give a gateway no weight; with none but them it is unready too."""
    gateways = NetworkGateways((FAR,), 1)
    ready, unready = endpoint("b", "far"), endpoint("c", "far", health=Health.UNHEALTHY, weight=9)
    [found] = through_gateways([ready, unready], gateways, ANYWHERE, crosses=True)
    assert (found.health, found.weight) == (Health.HEALTHY, 1)
    [found] = through_gateways([unready], gateways, ANYWHERE, crosses=True)
    assert (found.health, found.weight) == (Health.UNHEALTHY, 9)


@given(
    st.lists(st.tuples(st.sampled_from(["", "here", "a", "b"]), st.integers(1, 100)), max_size=12),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_each_network_keeps_its_share(places, ways_a, ways_b):
    """3.12: whatever the number of gateways, the proportions are those of the workloads."""
    ways = [NetworkGateway("a", f"192.0.2.{n}", 15443) for n in range(ways_a)]
    ways += [NetworkGateway("b", f"198.51.100.{n}", 15443) for n in range(ways_b)]
    scale = 6
    every = [endpoint(f"10.0.0.{n}", net, weight=w) for n, (net, w) in enumerate(places)]
    found = list(
        through_gateways(every, NetworkGateways(tuple(ways), scale), ANYWHERE, crosses=True)
    )
    for network in ("", "here", "a", "b"):
        wanted = sum(each.weight for each in every if each.network == network)
        got = sum(each.weight for each in found if each.network == network)
        if ways:
            assert got == wanted * scale
