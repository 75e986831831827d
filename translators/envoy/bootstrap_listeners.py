"""
Listeners that a proxy has from its start, for those who watch it (traffic.md N-13, N-30).

One shows statistics to Prometheus, one tells whether the proxy is ready. Both lead to the admin
interface, of which they show one path each and nothing else: it has paths that end the process.
"""

from typing import Any, Final

from pilothouse.model.reserved_ports import READINESS_PORT, STATISTICS_PORT

ADMIN_CLUSTER: Final = "prometheus_stats"
_TYPE: Final = "type.googleapis.com/envoy.extensions.filters"


def own_listeners(wildcard: str) -> list[dict[str, Any]]:
    """Return the listeners on the address that stands for all, as JSON data."""
    return [
        _listener(wildcard, STATISTICS_PORT, "stats", "/stats/prometheus"),
        # Envoy's own word: ready once it has all that it asked for at the start.
        _listener(wildcard, READINESS_PORT, "agent", "/healthz/ready", "/ready"),
    ]


def admin_cluster(address: dict[str, Any]) -> dict[str, Any]:
    """Return the cluster that leads to the admin interface, as JSON data."""
    endpoint = {"endpoint": {"address": address}}
    return {
        "name": ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": ADMIN_CLUSTER,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }


def _listener(
    wildcard: str, port: int, statistics: str, path: str, admin_path: str = ""
) -> dict[str, Any]:
    action: dict[str, Any] = {"cluster": ADMIN_CLUSTER}
    if admin_path:
        action["prefix_rewrite"] = admin_path
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": statistics,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "backend",
                    "domains": ["*"],
                    "routes": [{"match": {"path": path}, "route": action}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.http.router.v3.Router"},
            }
        ],
    }
    return {
        "name": f"{wildcard}_{port}",
        "address": {"socket_address": {"address": wildcard, "port_value": port}},
        # Whoever watches is let in when nobody else is.
        "ignore_global_conn_limit": True,
        "bypass_overload_manager": True,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }
                ]
            }
        ],
    }
