"""
What a proxy says of itself, made a `Proxy`.

Undoes the quirks of the wire (traffic.md section 4): lists as comma-joined text, booleans as text,
JSON inside text. Decides which build of Envoy speaks. A node that cannot be served is refused in
one sentence (NM-27); nothing is looked up here.
"""

import json
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

import msgspec

from pilothouse._pb.envoy.config.core.v3.base_pb2 import Node
from pilothouse._pb.google.protobuf.struct_pb2 import Struct, Value
from pilothouse.api.decode import decode_scalar
from pilothouse.api.diagnosis import diagnose
from pilothouse.api.duration import Duration
from pilothouse.api.proxy_config import (
    OwnProxyConfig,
    check_connection_settings,
)
from pilothouse.graph.findings import Severity
from pilothouse.model.proxies import (
    CertificateSource,
    InterceptionMode,
    Locality,
    NodeType,
    Profile,
    Proxy,
    Registration,
    TlsFiles,
)
from pilothouse.xds.requests import InvalidRequest

MAX_NODE_BYTES: Final = 256 * 1024
MAX_ID_LENGTH: Final = 1_024
MAX_LABELS: Final = 1_000

ISTIO_EXTENSIONS: Final = frozenset(
    {"istio.alpn", "istio.stats", "istio_authn", "istio.stackdriver"}
)
"""Filters only istio-proxy is built with (traffic.md 0.1)."""

PROFILE_KEY: Final = "PILOTHOUSE_PROFILE"
"""Metadata key that names the profile outright: `envoy` or `istio-proxy`."""

CERTIFICATES_KEY: Final = "PILOTHOUSE_CERTIFICATES"
"""Metadata key that names the source of the mesh's certificates: `none`, `agent` or `ads`."""

DEFAULT_DNS_PROXY: Final = "127.0.0.1:15053"
"""Where an agent answers the DNS of its workload unless it says otherwise (NM-08)."""

REPORTER_KEY: Final = "PILOTHOUSE_REPORTS_HEALTH"
"""Metadata key of an agent's own stream: it reports for the workload of the same node."""

_NODE_TYPES: Final = tuple(kind.value for kind in NodeType)
_INTERCEPTION_MODES: Final = frozenset(mode.value for mode in InterceptionMode)
_PROFILES: Final = tuple(profile.value for profile in Profile)
_SOURCES: Final = tuple(source.value for source in CertificateSource)
_TRUE: Final = frozenset({"true", "1"})

Json = str | float | bool | None | list["Json"] | dict[str, "Json"]


class InvalidNode(InvalidRequest):
    """A node that cannot be served (NM-27)."""


def read_proxy(node: Node | None) -> Proxy:
    """
    Read a node message.

    Raises: InvalidNode: It, its id or its metadata is missing, malformed or too large.
    """
    if node is None:
        raise InvalidNode("the first request of the stream carries no node")
    if node.ByteSize() > MAX_NODE_BYTES:
        raise InvalidNode(f"the node message is larger than {MAX_NODE_BYTES} bytes")
    shown, (kind, address, workload, domain) = _split_id(node.id)
    metadata = _fields(node.metadata)
    name, _, id_namespace = workload.rpartition(".") if "." in workload else (workload, "", "")
    namespace = _text(metadata.get("NAMESPACE")) or id_namespace
    if not (name and namespace):
        raise InvalidNode(f"node id {shown!r}: {workload[:64]!r} is not name.namespace")
    if kind not in _NODE_TYPES:
        known = ", ".join(_NODE_TYPES)
        raise InvalidNode(f"node id {shown!r}: type {kind[:32]!r} is not served here ({known} are)")
    ips = _addresses(address, metadata.get("INSTANCE_IPS"))
    if not ips:
        raise InvalidNode(f"node id {shown!r} has no IP address, nor has INSTANCE_IPS")
    return Proxy(
        id=node.id,
        type=NodeType(kind),
        ips=ips,
        name=name,
        namespace=namespace,
        domain=domain,
        labels=_labels(metadata),
        cluster_id=_text(metadata.get("CLUSTER_ID")),
        network=_text(metadata.get("NETWORK")),
        service_account=_text(metadata.get("SERVICE_ACCOUNT")),
        istio_version=_text(metadata.get("ISTIO_VERSION")),
        interception_mode=_interception_mode(metadata.get("INTERCEPTION_MODE")),
        profile=_profile(node, metadata),
        locality=Locality(
            region=node.locality.region,
            zone=node.locality.zone,
            subzone=node.locality.sub_zone,
        ),
        node_name=_text(metadata.get("NODE_NAME")),
        dns_capture=_flag(metadata.get("DNS_CAPTURE")),
        dns_resolver=_dns_resolver(metadata),
        http10=_flag(metadata.get("HTTP10")),
        http_proxy_port=_port(metadata.get("HTTP_PROXY_PORT")),
        idle_timeout=_duration(metadata.get("IDLE_TIMEOUT")),
        networks=tuple(sorted(_texts(metadata.get("REQUESTED_NETWORK_VIEW")))),
        ports=_ports(metadata.get("POD_PORTS")),
        discovers_itself=_flag(metadata.get("ENABLE_SELF_DISCOVERY")),
        balances_inbound=_flag(metadata.get("INBOUND_LISTENER_EXACT_BALANCE")),
        balances_outbound=_flag(metadata.get("OUTBOUND_LISTENER_EXACT_BALANCE")),
        config=_config(metadata.get("PROXY_CONFIG")),
        unprivileged=_flag(metadata.get("UNPRIVILEGED_POD")),
        certificates=_certificates(metadata),
        client_files=_files(metadata, "TLS_CLIENT"),
        server_files=_files(metadata, "TLS_SERVER"),
        registration=_registration(metadata, ips),
    )


def _split_id(node_id: str) -> tuple[str, list[str]]:
    shown = node_id if len(node_id) <= 128 else node_id[:125] + "..."
    if not node_id:
        raise InvalidNode("the node has no id; expected type~ip~name.namespace~domain")
    if len(node_id) > MAX_ID_LENGTH:
        raise InvalidNode(f"the node id is longer than {MAX_ID_LENGTH} characters")
    parts = node_id.split("~")
    if len(parts) != 4:
        raise InvalidNode(f"node id {shown!r} is not of the form type~ip~name.namespace~domain")
    return shown, parts


def _addresses(first: str, instance_ips: Json) -> tuple[str, ...]:
    # As upstream, the address of the id may be missing if INSTANCE_IPS names one.
    return tuple(dict.fromkeys(filter(_is_address, (first, *_texts(instance_ips)))))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _labels(metadata: Mapping[str, Json]) -> tuple[tuple[str, str], ...]:
    labels: dict[str, str] = {}
    for key in ("STATIC_LABELS", "LABELS"):
        found = metadata.get(key)
        if isinstance(found, dict):
            labels.update((name, _text(value)) for name, value in found.items())
    if len(labels) > MAX_LABELS:
        raise InvalidNode(f"more than {MAX_LABELS} labels")
    return tuple(sorted(labels.items()))


def _interception_mode(value: Json) -> InterceptionMode:
    # As upstream, what is not known is the default rather than an error.
    text = _text(value)
    return InterceptionMode(text) if text in _INTERCEPTION_MODES else InterceptionMode.REDIRECT


def _profile(node: Node, metadata: Mapping[str, Json]) -> Profile:
    named = _text(metadata.get(PROFILE_KEY))
    if named:
        if named not in _PROFILES:
            raise InvalidNode(f"{PROFILE_KEY} is {named[:64]!r}; known are {', '.join(_PROFILES)}")
        return Profile(named)
    if metadata.get("ISTIO_PROXY_SHA"):
        return Profile.ISTIO_PROXY
    if any(extension.name in ISTIO_EXTENSIONS for extension in node.extensions):
        return Profile.ISTIO_PROXY
    return Profile.ENVOY


def _certificates(metadata: Mapping[str, Json]) -> CertificateSource:
    named = _text(metadata.get(CERTIFICATES_KEY))
    if named:
        if named not in _SOURCES:
            raise InvalidNode(
                f"{CERTIFICATES_KEY} is {named[:64]!r}; known are {', '.join(_SOURCES)}"
            )
        return CertificateSource(named)
    # Istio's agent sends its whole ProxyConfig, and its bootstrap has the cluster sds-grpc.
    has_agent = bool(metadata.get("PROXY_CONFIG"))
    return CertificateSource.AGENT if has_agent else CertificateSource.NONE


def _registration(metadata: Mapping[str, Json], ips: tuple[str, ...]) -> Registration | None:
    group = _text(metadata.get("AUTO_REGISTER_GROUP"))
    entry = _text(metadata.get("WORKLOAD_ENTRY"))
    if not (group or entry):
        return None
    config = metadata.get("PROXY_CONFIG")
    # An entry is named after the first of INSTANCE_IPS, also where the id has another.
    own = tuple(filter(_is_address, _texts(metadata.get("INSTANCE_IPS"))))
    return Registration(
        group=group,
        entry=entry,
        address=(own or ips)[0],
        has_probe=isinstance(config, dict) and bool(config.get("readinessProbe")),
        only_reports=_flag(metadata.get(REPORTER_KEY)),
    )


def _dns_resolver(metadata: Mapping[str, Json]) -> str:
    """Read who answers captured DNS (NM-08), empty if it is not captured."""
    if not _flag(metadata.get("DNS_CAPTURE")):
        return ""
    host, _, port = _text(metadata.get("DNS_PROXY_ADDR")).rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host
    is_place = _is_address(host.strip("[]")) and port.isascii() and port.isdigit()
    return f"{host}:{port}" if is_place and 0 < int(port) < 65536 else DEFAULT_DNS_PROXY


def _ports(value: Json) -> tuple[tuple[str, int], ...]:
    """Read the named ports of a pod, JSON inside text; what cannot be read is left out (NM-10)."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return ()
    found = []
    for each in value if isinstance(value, list) else ():
        if not isinstance(each, dict):
            continue
        name, number = each.get("name"), each.get("containerPort")
        if isinstance(name, str) and isinstance(number, int | float) and 0 < number < 65536:
            found.append((name, int(number)))
    return tuple(sorted(found))


def _port(value: Json) -> int | None:
    # As upstream, what is no number is as if it were not there; 0 is a number (NM-13).
    text = _text(value)
    is_number = text.isascii() and text.isdigit() and len(text) <= 5
    return int(text) if is_number and int(text) < 65536 else None


def _files(metadata: Mapping[str, Json], side: str) -> TlsFiles | None:
    """Read where certificates of its own are on the proxy's disk (NM-11, NM-12)."""
    parts = ("CERT_CHAIN", "KEY", "ROOT_CERT")
    found = TlsFiles(*(_text(metadata.get(f"{side}_{part}")) for part in parts))
    return found if any(found) else None


def _duration(value: Json) -> Duration | None:
    # As upstream, what is no duration is as if it were not there.
    try:
        return Duration.parse(_text(value))
    except ValueError:
        return None


def _config(value: Json) -> OwnProxyConfig | None:
    """Read the parts of a ProxyConfig that shape what is served; fields of later versions pass."""
    if not isinstance(value, dict) or not value:
        return None  # an agent sends its whole config, so an empty one is nobody's
    known = {name: value[name] for name in OwnProxyConfig.__struct_encode_fields__ if name in value}
    problems: list[str] = []

    def report(severity: Severity, _code: str, path: str, message: str, _remedy: str) -> None:
        if severity is Severity.ERROR:
            problems.append(f"{path}: {message}")

    clean = diagnose(_whole_numbers(known), OwnProxyConfig, "", report, strict=True)
    own = OwnProxyConfig()
    if not problems:
        own = msgspec.convert(clean, OwnProxyConfig, dec_hook=decode_scalar)
        settings = own.connection_settings
        checked = check_connection_settings(settings, "connectionSettings") if settings else ()
        problems.extend(
            f"{each.path}: {each.message}" for each in checked if each.severity is Severity.ERROR
        )
    if problems:
        # Headers may keep secrets in; without knowing what was meant nothing is served.
        raise InvalidNode(f"PROXY_CONFIG cannot be used: {problems[0][:256]}")
    return own


def _whole_numbers(value: Json) -> object:
    # A Struct has only one kind of number.
    if isinstance(value, dict):
        return {name: _whole_numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# -- the forms in which metadata comes ------------------------------------------------------------


def _fields(struct: Struct) -> dict[str, Json]:
    return {key: _json(value, 0) for key, value in struct.fields.items()}


def _json(value: Value, depth: int) -> Json:
    if depth > 32:
        raise InvalidNode("the node metadata is nested too deeply")
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return value.number_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            fields = value.struct_value.fields.items()
            return {key: _json(item, depth + 1) for key, item in fields}
        case "list_value":
            return [_json(item, depth + 1) for item in value.list_value.values]
        case _:
            return None


def _text(value: Json) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    return ""


def _texts(value: Json) -> tuple[str, ...]:
    if isinstance(value, list):
        return tuple(text for text in map(_text, value) if text)
    return tuple(part.strip() for part in _text(value).split(",") if part.strip())


def _flag(value: Json) -> bool:
    return _text(value).lower() in _TRUE
