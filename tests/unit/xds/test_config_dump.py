"""Config dumps have the shape of Envoy's admin, and no keys."""

import json

from google.protobuf import json_format

from pilothouse._pb._pool import POOL
from pilothouse._pb.envoy.admin.v3.config_dump_pb2 import ConfigDump, SecretsConfigDump
from pilothouse._pb.envoy.config.cluster.v3.cluster_pb2 import Cluster
from pilothouse._pb.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from pilothouse._pb.envoy.config.listener.v3.listener_pb2 import Listener
from pilothouse._pb.envoy.config.route.v3.route_pb2 import RouteConfiguration
from pilothouse._pb.envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse.model.resource import CDS, EDS, LDS, RDS, SDS, Resource
from pilothouse.xds.config_dump import config_dump, resource_data


def dumped(resources: dict[str, list[Resource]], *awaited: str) -> ConfigDump:
    """Read a dump back strictly, as a tool that knows the admin's schema does."""
    text = b"".join(config_dump(resources, awaited=awaited)).decode()
    return json_format.Parse(text, ConfigDump(), descriptor_pool=POOL)


def test_dump_is_envoy_admin_json() -> None:
    """Every section parses as its message of envoy.admin.v3 (Z-2)."""
    listener = Listener(name="l")
    chain = listener.filter_chains.add()
    chain.filters.add(name="tcp").typed_config.Pack(TcpProxy(stat_prefix="x", cluster="c"))
    dump = dumped(
        {
            CDS: [
                Resource(CDS, name, Cluster(name=name).SerializeToString()) for name in ("a", "b")
            ],
            EDS: [Resource(EDS, "a", ClusterLoadAssignment(cluster_name="a").SerializeToString())],
            LDS: [Resource(LDS, "l", listener.SerializeToString())],
            RDS: [Resource(RDS, "80", RouteConfiguration(name="80").SerializeToString())],
        }
    )
    kinds = [config.type_url.rpartition(".")[2] for config in dump.configs]
    assert kinds == [
        "ClustersConfigDump",
        "EndpointsConfigDump",
        "ListenersConfigDump",
        "RoutesConfigDump",
    ]


def test_empty_dump() -> None:
    """No type, or a type with nothing, is valid JSON too."""
    assert json.loads(b"".join(config_dump({}))) == {"configs": []}
    shown = json.loads(b"".join(config_dump({CDS: []})))
    assert shown["configs"][0]["dynamic_active_clusters"] == []


def test_nested_messages_are_decoded() -> None:
    """A filter inside a listener is shown with its fields, in the names of the proto files."""
    listener = Listener(name="l", stat_prefix="s")
    chain = listener.filter_chains.add()
    chain.filters.add(name="tcp").typed_config.Pack(TcpProxy(stat_prefix="x", cluster="c"))
    shown = resource_data(Resource(LDS, "l", listener.SerializeToString()))
    assert shown["@type"] == LDS
    assert shown["filter_chains"][0]["filters"][0]["typed_config"]["cluster"] == "c"


def test_private_keys_are_not_shown() -> None:
    """Keys inside secrets are replaced; certificates stay (Z-2)."""
    secret = Secret(name="default")
    secret.tls_certificate.private_key.inline_bytes = b"the-key"
    secret.tls_certificate.certificate_chain.inline_string = "the-chain"
    generic = Secret(name="g")
    generic.generic_secret.secret.inline_string = "the-key"
    text = b"".join(
        config_dump(
            {SDS: [Resource(SDS, s.name, s.SerializeToString()) for s in (secret, generic)]}
        )
    ).decode()
    assert "the-key" not in text
    assert "dGhlLWtleQ" not in text
    assert "the-chain" in text
    assert text.count("W3JlZGFjdGVkXQ==") == 2


def test_secrets_that_are_awaited() -> None:
    """As Envoy shows them: warming, with a name and nothing else; also if there is no other."""
    own = Resource(SDS, "default", Secret(name="default").SerializeToString())
    for resources, names in (({SDS: [own]}, ["default"]), ({}, [])):
        (section,) = dumped(resources, "kubernetes://a", 'odd "name"').configs
        message = SecretsConfigDump()
        assert section.Unpack(message)
        assert [each.name for each in message.dynamic_active_secrets] == names
        awaited = [each.name for each in message.dynamic_warming_secrets]
        assert awaited == ["kubernetes://a", 'odd "name"']
