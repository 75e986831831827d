"""
The static configuration an Envoy starts with: who it is, where its control plane is.

Everything else a sidecar needs comes over ADS. The result is plain JSON data, because Envoy reads
its bootstrap from a JSON file (its YAML reader changes the type of some plain words). Used by the
demo, the tests and the agent. May not import `_pb`: a bootstrap is read by Envoy only, never sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final, TypeAlias

from pilothouse.model.names import AGENT_CLUSTER, XDS_CLUSTER
from pilothouse.model.proxies import CertificateSource, InterceptionMode, Locality, NodeType
from pilothouse.translators.envoy.bootstrap_listeners import admin_cluster, own_listeners
from pilothouse.translators.envoy.control_plane_tls import (
    ControlPlaneTls,
    transport_socket,
    upstream_filters,
)

Json: TypeAlias = Any
"""Data that `json.dumps` accepts."""

ISTIO_VERSION: Final = "1.30.0"
"""The Istio release whose agent our node metadata resembles."""

_TYPE: Final = "type.googleapis.com/"

# What operators and dashboards read; each further cluster costs about 20 kB and start-up time
# when all of its counters are kept (performance.md B.5).
_STATS_KEPT: Final = (
    {"prefix": "reporter="},
    {"prefix": "cluster_manager."},
    {"prefix": "listener_manager."},
    {"prefix": "server."},
    {"prefix": f"cluster.{XDS_CLUSTER}."},
    {"prefix": "control_plane."},
    {"suffix": ".update_rejected"},
    {"suffix": "rbac.allowed"},
    {"suffix": "rbac.denied"},
    {"suffix": "shadow_allowed"},
    {"suffix": "shadow_denied"},
    {"safe_regex": {"regex": r"http\.[^.]*(\.[^.]+)*\.downstream_(cx|rq)_active"}},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketAddress:
    """
    An IP address and a TCP port; port 0 lets the kernel choose where that is allowed.

    Where a control plane is, a DNS name will do.
    """

    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PipeAddress:
    """A Unix socket by its path (at most 107 bytes)."""

    path: str


Address: TypeAlias = SocketAddress | PipeAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """
    The workload a proxy stands beside, as its node id and metadata tell it (traffic.md NM-01..11).

    `addresses` holds at least one IP address; the first goes into the node id. `metadata` is added
    to what the other fields give and wins over it.
    """

    name: str
    namespace: str
    addresses: tuple[str, ...]
    labels: Mapping[str, str]
    service_account: str = "default"
    type: NodeType = NodeType.SIDECAR
    interception_mode: InterceptionMode = InterceptionMode.REDIRECT
    cluster_id: str = "Kubernetes"
    network: str = ""
    domain: str = "cluster.local"
    locality: Locality = field(default_factory=Locality)
    istio_version: str = ISTIO_VERSION
    certificates: CertificateSource = CertificateSource.NONE
    metadata: Mapping[str, Json] = field(default_factory=dict)

    @property
    def node_id(self) -> str:
        """``type~ip~name.namespace~namespace.svc.domain``."""
        pod = f"{self.name}.{self.namespace}"
        return f"{self.type}~{self.addresses[0]}~{pod}~{self.namespace}.svc.{self.domain}"


def node(workload: Workload) -> dict[str, Json]:
    """Return the node message of `workload`, shaped as istio-agent's is."""
    metadata: dict[str, Json] = {
        "NAME": workload.name,
        "NAMESPACE": workload.namespace,
        "WORKLOAD_NAME": workload.name,
        "LABELS": dict(workload.labels),
        "SERVICE_ACCOUNT": workload.service_account,
        "CLUSTER_ID": workload.cluster_id,
        "MESH_ID": workload.domain,
        "INSTANCE_IPS": ",".join(workload.addresses),
        "INTERCEPTION_MODE": str(workload.interception_mode),
        "ISTIO_VERSION": workload.istio_version,
        "PILOTHOUSE_CERTIFICATES": str(workload.certificates),
        "PROXY_CONFIG": {},
    }
    if workload.network:
        metadata["NETWORK"] = workload.network
    locality = {
        key: value
        for key, value in (
            ("region", workload.locality.region),
            ("zone", workload.locality.zone),
            ("sub_zone", workload.locality.subzone),
        )
        if value
    }
    app = workload.labels.get("app", workload.name)
    return {
        "id": workload.node_id,
        "cluster": f"{app}.{workload.namespace}",
        "metadata": metadata | dict(workload.metadata),
        **({"locality": locality} if locality else {}),
    }


def bootstrap(
    workload: Workload,
    *,
    control_plane: Address,
    admin: Address,
    delta: bool = True,
    tls: ControlPlaneTls | None = None,
    agent: PipeAddress | None = None,
    is_watched: bool = False,
    stats_kept: Sequence[Mapping[str, Json]] = (),
) -> dict[str, Json]:
    """
    Build the bootstrap of the Envoy beside `workload`.

    Args:
        control_plane: Where ADS is served.
        admin: Where Envoy's admin interface listens; keep it on loopback or on a Unix socket.
        delta: Ask for incremental xDS; otherwise state of the world.
        tls: How the control plane is verified and who we are to it; None speaks plaintext gRPC.
        agent: The socket of an agent that serves the workload's certificate, if there is one.
        is_watched: Open the ports for readiness and statistics (N-30), to everybody.
        stats_kept: String matchers (``{"prefix": ...}``) of statistics kept besides the usual few.
    Returns: JSON data of an envoy.config.bootstrap.v3.Bootstrap.
    """
    return {
        "node": node(workload),
        "admin": {"address": _address(admin)},
        "dynamic_resources": _dynamic_resources(delta=delta),
        "static_resources": {
            "clusters": [
                _control_plane_cluster(control_plane, tls),
                *([_agent_cluster(agent)] if agent else []),
                *([admin_cluster(_address(admin))] if is_watched else []),
            ],
            **({"listeners": own_listeners(_wildcard(workload))} if is_watched else {}),
        },
        "stats_config": {
            "use_all_default_tags": False,
            "stats_matcher": {"inclusion_list": {"patterns": [*_STATS_KEPT, *stats_kept]}},
        },
        "overload_manager": {
            # Without any limit Envoy logs a warning at every start.
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_TYPE}envoy.extensions.resource_monitors"
                        ".downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 2147483647,
                    },
                }
            ]
        },
        "layered_runtime": {
            "layers": [
                {
                    "name": "static",
                    "static_layer": {
                        # Users' regular expressions may be longer than Envoy's default allows.
                        "re2.max_program_size.error_level": 32768,
                    },
                },
                {"name": "admin", "admin_layer": {}},
            ]
        },
    }


def _wildcard(workload: Workload) -> str:
    has_ipv4 = any(":" not in address for address in workload.addresses)
    return "0.0.0.0" if has_ipv4 else "::"  # noqa: S104 (Envoy's listeners, not ours)


def _dynamic_resources(*, delta: bool) -> dict[str, Json]:
    over_ads = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {
        "cds_config": over_ads,
        "lds_config": over_ads,
        "ads_config": {
            "api_type": "DELTA_GRPC" if delta else "GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": True,
            "grpc_services": [
                {
                    "envoy_grpc": {
                        "cluster_name": XDS_CLUSTER,
                        # A restarted control plane should not wait for the default of up to 30 s.
                        "retry_policy": {
                            "retry_back_off": {"base_interval": "0.1s", "max_interval": "5s"}
                        },
                    }
                }
            ],
        },
    }


def _control_plane_cluster(address: Address, tls: ControlPlaneTls | None) -> dict[str, Json]:
    unlimited = {
        "max_connections": 100000,
        "max_pending_requests": 100000,
        "max_requests": 100000,
    }
    return {
        "name": XDS_CLUSTER,
        **_discovery(address),
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": XDS_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(address)}}]}],
        },
        "circuit_breakers": {
            "thresholds": [
                {"priority": "DEFAULT", **unlimited},
                {"priority": "HIGH", **unlimited},
            ]
        },
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_time": 300},
        },
        **({"transport_socket": transport_socket(tls)} if tls else {}),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {
                    "http2_protocol_options": {
                        # Finds a control plane that died without closing the connection.
                        "connection_keepalive": {"interval": "30s", "timeout": "10s"}
                    }
                },
                **({"http_filters": upstream_filters(tls)} if tls and tls.token_file else {}),
            }
        },
    }


def _discovery(address: Address) -> dict[str, Json]:
    if isinstance(address, PipeAddress) or _is_ip(address.address):
        return {"type": "STATIC"}
    return {"type": "STRICT_DNS", "dns_lookup_family": "ALL"}


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _agent_cluster(address: PipeAddress) -> dict[str, Json]:
    options = f"{_TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    endpoint = {"endpoint": {"address": _address(address)}}
    return {
        "name": AGENT_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": AGENT_CLUSTER,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def _address(address: Address) -> dict[str, Json]:
    match address:
        case SocketAddress():
            return {"socket_address": {"address": address.address, "port_value": address.port}}
        case PipeAddress():
            return {"pipe": {"path": address.path}}
