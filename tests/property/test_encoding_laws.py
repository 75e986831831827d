"""What is encoded by hand, or spliced from parts, is what protobuf makes of the whole."""

from hypothesis import given
from hypothesis import strategies as st
from story import load, names

from pilothouse._pb.envoy.config.core.v3 import base_pb2, health_check_pb2
from pilothouse._pb.envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from pilothouse._pb.envoy.config.route.v3 import route_pb2
from pilothouse.model.endpoint import Endpoint, Health
from pilothouse.model.locality import NO_PLAN
from pilothouse.model.priorities import Group, grouped
from pilothouse.model.proxies import Locality
from pilothouse.translators.envoy.constraints import violation
from pilothouse.translators.envoy.endpoints import encode_assignment

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
localities = st.builds(
    Locality,
    region=st.sampled_from(["", "eu", "us"]),
    zone=st.sampled_from(["", "1", "2"]),
    subzone=st.sampled_from(["", "rack"]),
)
places = st.tuples(st.ip_addresses().map(str), st.integers(1, 65535)) | st.tuples(
    st.just("/run/x.sock"), st.just(0)
)
endpoints = st.builds(
    lambda place, more, health, weight, locality, workload, mutual: Endpoint(
        address=place[0],
        port=place[1],
        more_addresses=more if place[1] else (),
        health=health,
        weight=weight,
        locality=locality,
        workload=workload,
        takes_mutual_tls=mutual,
    ),
    places,
    st.lists(st.ip_addresses().map(str), max_size=2).map(tuple),
    st.sampled_from(Health),
    st.integers(1, 2**20),
    localities,
    words,
    st.booleans(),
)


groups = st.builds(
    Group,
    localities,
    st.integers(0, 130),
    st.integers(1, 2**32 - 1),
    st.lists(endpoints, max_size=6).map(tuple),
)


@given(words.filter(bool), st.lists(groups, max_size=4))
def test_hand_encoded_assignments_are_protobufs(name: str, made: list[Group]) -> None:
    """Parsed, the bytes are the message built field by field; and they are protobuf's own bytes."""
    data = encode_assignment(name, made)
    wanted = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    for each in made:
        group = wanted.endpoints.add(priority=each.priority)
        where = each.locality
        group.locality.CopyFrom(
            base_pb2.Locality(region=where.region, zone=where.zone, sub_zone=where.subzone)
        )
        for endpoint in each.members:
            group.lb_endpoints.append(lb_endpoint(endpoint))
        group.load_balancing_weight.value = each.weight
    assert endpoint_pb2.ClusterLoadAssignment.FromString(data) == wanted
    assert data == wanted.SerializeToString(deterministic=True)


def lb_endpoint(endpoint: Endpoint) -> endpoint_components_pb2.LbEndpoint:
    """Build one endpoint the ordinary way."""
    message = endpoint_components_pb2.LbEndpoint()
    address = message.endpoint.address
    if endpoint.port:
        address.socket_address.address = endpoint.address
        address.socket_address.port_value = endpoint.port
        for each in endpoint.more_addresses:
            more = message.endpoint.additional_addresses.add().address.socket_address
            more.address, more.port_value = each, endpoint.port
    else:
        address.pipe.path = endpoint.address
    message.health_status = health_check_pb2.HealthStatus.Value(endpoint.health.name)
    message.load_balancing_weight.value = endpoint.weight
    if endpoint.workload:
        fields = message.metadata.filter_metadata["istio"].fields
        fields["workload"].string_value = endpoint.workload
    if endpoint.takes_mutual_tls:
        match = message.metadata.filter_metadata["envoy.transport_socket_match"]
        match.fields["tlsMode"].string_value = "istio"
    return message


def test_spliced_route_configurations_are_whole_messages() -> None:
    """Header, virtual hosts and catch-all joined as bytes are what protobuf would have written."""
    seen = 0
    for name in names():
        told = load(name)
        for proxy in told.proxies:
            for resource in told.served(proxy)["rds"]:
                message = route_pb2.RouteConfiguration.FromString(resource.data)
                again = message.SerializeToString(deterministic=True)
                assert route_pb2.RouteConfiguration.FromString(again) == message
                assert sorted(again) == sorted(resource.data)
                seen += 1
    assert seen > 20


@given(words.filter(bool), st.lists(endpoints, max_size=8))
def test_assignments_keep_envoys_constraints(name: str, made: list[Endpoint]) -> None:
    """Issue 3: they are not checked one by one when they are sent, for none can break a rule."""
    data = encode_assignment(name, grouped(made, NO_PLAN, {}))
    assert violation(endpoint_pb2.ClusterLoadAssignment.FromString(data)) is None
