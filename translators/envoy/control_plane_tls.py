"""
How an Envoy knows its control plane, and makes itself known to it.

The server's certificate is verified against roots that the operator put on the proxy's disk, and
its name. Who we are is proved by a token from a file, read anew for each stream, or by the
certificate of an agent. All of this is stock Envoy, found out on 1.40: roots named in a static
context are read once, those of a secret in a file of its own whenever they are replaced; a token
in a generic secret is not read again, so a few lines of Lua read it. Plain JSON; no `_pb`.
Source: security.md G-5, G-6, D-A-7.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pilothouse.model.credentials import ROOTS, WORKLOAD
from pilothouse.model.names import AGENT_CLUSTER

Json: TypeAlias = Any

SERVER_NAME: Final = "istiod.istio-system.svc"
"""What the control plane's certificate says, whatever address leads to it."""

ROOT_SECRET: Final = "control-plane-roots"  # noqa: S105 (a name)

_TYPE: Final = "type.googleapis.com/"
_TLS: Final = f"{_TYPE}envoy.extensions.transport_sockets.tls.v3"
_PLAIN: Final = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-",
)
_LUA: Final = """\
function envoy_on_request(handle)
  local file = io.open({path}, "r")
  local token = file and file:read("*l")
  if file then file:close() end
  token = token and token:match("^%s*([%w%-%._~%+/=]+)%s*$")
  if token then
    handle:headers():replace("authorization", "Bearer " .. token)
  else
    handle:logErr("there is no token in " .. {path})
  end
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneTls:
    """
    TLS towards a control plane.

    `root_file` has its roots, PEM, and `token_file` a token; paths as the Envoy sees them. With
    `root_secret_file` the roots are read again when they are replaced: that file must have what
    `root_secret` returns. `by_agent` takes roots and the client certificate from the agent instead,
    and needs no file.
    """

    server_name: str = SERVER_NAME
    root_file: str = ""
    root_secret_file: str = ""
    token_file: str = ""
    by_agent: bool = False


def transport_socket(tls: ControlPlaneTls) -> dict[str, Json]:
    """Return the transport socket of the control plane's cluster, JSON data."""
    common: dict[str, Json] = {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
    }
    names = _names(tls)
    if tls.by_agent:
        common["tls_certificate_sds_secret_configs"] = [_from_agent(WORKLOAD)]
        common["combined_validation_context"] = {
            "default_validation_context": names,
            "validation_context_sds_secret_config": _from_agent(ROOTS),
        }
    elif tls.root_secret_file:
        source = {
            "path_config_source": {"path": tls.root_secret_file},
            "resource_api_version": "V3",
        }
        common["validation_context_sds_secret_config"] = {
            "name": ROOT_SECRET,
            "sds_config": source,
        }
    else:
        common["validation_context"] = {"trusted_ca": {"filename": tls.root_file}, **names}
    context = {
        "@type": f"{_TLS}.UpstreamTlsContext",
        "sni": tls.server_name,
        "common_tls_context": common,
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def root_secret(tls: ControlPlaneTls) -> dict[str, Json]:
    """Return what the file of the roots' secret must hold, JSON data of a DiscoveryResponse."""
    secret = {
        "@type": f"{_TLS}.Secret",
        "name": ROOT_SECRET,
        "validation_context": {"trusted_ca": {"filename": tls.root_file}, **_names(tls)},
    }
    return {"resources": [secret]}


def upstream_filters(tls: ControlPlaneTls) -> list[Json]:
    """Return the HTTP filters that add the token to each stream, JSON data."""
    path = "".join(
        chr(byte) if byte in _PLAIN else f"\\{byte:03d}" for byte in tls.token_file.encode()
    )
    code = _LUA.replace("{path}", f'"{path}"')
    return [
        {
            "name": "envoy.filters.http.lua",
            "typed_config": {
                "@type": f"{_TYPE}envoy.extensions.filters.http.lua.v3.Lua",
                "default_source_code": {"inline_string": code},
            },
        },
        {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {
                "@type": f"{_TYPE}envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
            },
        },
    ]


def _names(tls: ControlPlaneTls) -> dict[str, Json]:
    matcher = {"san_type": "DNS", "matcher": {"exact": tls.server_name}}
    return {"match_typed_subject_alt_names": [matcher]}


def _from_agent(name: str) -> dict[str, Json]:
    source = {
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": True,
            "grpc_services": [{"envoy_grpc": {"cluster_name": AGENT_CLUSTER}}],
        },
        "initial_fetch_timeout": "0s",
        "resource_api_version": "V3",
    }
    return {"name": name, "sds_config": source}
