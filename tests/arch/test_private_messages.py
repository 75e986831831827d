"""The generated messages: apart from everybody else's, complete, typed by name, quick to import."""

import dataclasses
import importlib
import json
import subprocess
import sys
from datetime import timedelta
from importlib import resources
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool, json_format

from pilothouse._pb._pool import POOL, message_class
from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse._pb.envoy.config.route.v3 import route_components_pb2
from pilothouse._pb.google.protobuf import any_pb2, duration_pb2

ROOT = Path(__file__).resolve().parents[2]

#: envoy-data-plane 2.2 calls this a list; Envoy's API and xds-protos do not.
KNOWN_WRONG_REPETITION = {("envoy.config.endpoint.v3.LbEndpointCollection", "entries")}

#: What a server loads before its first answer.
HOT_IMPORTS = """
import time, google.protobuf.json_format
began = time.process_time()
from pilothouse._pb.envoy.service.discovery.v3 import discovery_pb2
from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.config.listener.v3 import listener_pb2
from pilothouse._pb.envoy.config.route.v3 import route_pb2
from pilothouse._pb.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
print(time.process_time() - began)
"""
DECODER_IMPORT = """
import time
began = time.process_time()
import envoy_data_plane.envoy.config.cluster.v3
print(time.process_time() - began)
"""


def test_messages_stay_out_of_the_default_pool() -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("envoy.config.cluster.v3.Cluster")
    assert POOL.FindMessageTypeByName("envoy.config.cluster.v3.Cluster")


def test_well_known_types_have_their_helpers() -> None:
    cluster = cluster_pb2.Cluster(name="a", connect_timeout=timedelta(milliseconds=1500))
    assert isinstance(cluster.connect_timeout, duration_pb2.Duration)
    assert cluster.connect_timeout.ToTimedelta() == timedelta(seconds=1.5)
    packed = any_pb2.Any()
    packed.Pack(cluster, deterministic=True)
    assert packed.type_url == "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    metadata = base_pb2.Metadata()
    metadata.filter_metadata["istio"].update({"config": "/x"})
    assert json_format.MessageToDict(metadata) == {"filterMetadata": {"istio": {"config": "/x"}}}


def test_any_of_a_type_nobody_imported_is_readable() -> None:
    """EnvoyFilter patches and config dumps name types by URL only."""
    written = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "defaultSourceCode": {"inlineString": "x"},
    }
    packed = json_format.ParseDict(written, any_pb2.Any(), descriptor_pool=POOL)
    assert json_format.MessageToDict(packed, descriptor_pool=POOL) == written
    lua = message_class("envoy.extensions.filters.http.lua.v3.Lua").FromString(packed.value)
    assert lua.DESCRIPTOR.file.pool is POOL


def test_an_unknown_type_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        message_class("envoy.config.cluster.v3.Clutter")


def test_fields_newer_than_the_base_descriptors_are_there() -> None:
    """Grafted from the newer class metadata; a new message, field, enum and oneof member."""
    match = route_components_pb2.RouteMatch(prefix="/")
    match.cookies.add(name="user")
    assert route_components_pb2.RouteMatch.FromString(match.SerializeToString()) == match
    option = route_components_pb2.RateLimit.XRateLimitOption
    assert option.Value("DRAFT_VERSION_03") == 2
    requirement = message_class("envoy.extensions.filters.http.jwt_authn.v3.JwtRequirement")
    added = requirement.DESCRIPTOR.fields_by_name["extract_only_without_validation"]
    assert added.containing_oneof.name == "requires_type"
    assert message_class("envoy.extensions.filters.http.filter_chain.v3.FilterChain")


@pytest.mark.parametrize(
    "package",
    [
        "envoy.admin.v3",
        "envoy.config.bootstrap.v3",
        "envoy.config.cluster.v3",
        "envoy.config.core.v3",
        "envoy.config.endpoint.v3",
        "envoy.config.listener.v3",
        "envoy.config.route.v3",
        "envoy.extensions.filters.http.jwt_authn.v3",
        "envoy.extensions.filters.network.http_connection_manager.v3",
        "envoy.extensions.transport_sockets.tls.v3",
        "envoy.service.discovery.v3",
        "envoy.type.matcher.v3",
    ],
)
def test_every_field_agrees_with_the_independent_decoder(package: str) -> None:
    """Same number, name and repetition as envoy-data-plane has, for whole packages."""
    theirs = importlib.import_module(f"envoy_data_plane.{package}")
    pool = importlib.import_module("envoy_data_plane.message_pool").default_message_pool
    checked = 0
    for name in theirs.__all__:
        cls = getattr(theirs, name)
        full_name = pool.type_to_url.get(cls, "").rpartition("/")[2]
        if not full_name:
            continue  # an enum or a service stub
        ours = POOL.FindMessageTypeByName(full_name).fields_by_number
        for field in dataclasses.fields(cls):
            meta = field.metadata["betterproto"]
            known = ours[meta.number]
            assert known.name == field.name.removesuffix("_"), f"{full_name}.{field.name}"
            if (full_name, known.name) not in KNOWN_WRONG_REPETITION:
                assert known.is_repeated == bool(meta.repeated or meta.map_meta)
            checked += 1
    assert checked > 20


def test_the_package_is_made_from_the_present_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, run `make protos`."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    assert importlib.import_module("gen_protos").is_current()


def test_validation_rules_name_messages_and_fields_that_exist() -> None:
    text = resources.files("pilothouse._pb").joinpath("constraints.json").read_text("utf-8")
    rules = json.loads(text)
    assert len(rules) > 500
    for name, parts in rules.items():
        descriptor = POOL.FindMessageTypeByName(name)
        named = {*parts.get("fields", {}), *parts.get("sensitive_fields", [])}
        assert named <= set(descriptor.fields_by_name), name
        assert set(parts.get("required_oneofs", [])) <= set(descriptor.oneofs_by_name), name


def test_the_hot_messages_import_quickly() -> None:
    """A twelfth of the processor time that the classes of the independent decoder take."""

    def seconds(code: str) -> float:
        return min(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3))

    assert seconds(HOT_IMPORTS) < seconds(DECODER_IMPORT) / 4
