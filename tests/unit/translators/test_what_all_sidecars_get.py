"""Orders and forms that hold for every sidecar's listeners (traffic.md 1.4, 2.15)."""

from typing import Any

import pytest
import story

from pilothouse.model.names import VIRTUAL_INBOUND, VIRTUAL_OUTBOUND

HTTP = "envoy.filters.network.http_connection_manager"


def managers(name: str, proxy: str) -> list[dict[str, Any]]:
    """Every connection manager a proxy of a story is served, as data."""
    found = []
    for resource in story.load(name).served(proxy)["lds"]:
        listener = story.content(resource)
        chains = [*listener["filter_chains"], listener.get("default_filter_chain", {})]
        for chain in chains:
            filters = chain.get("filters", ())
            found.extend(each["typed_config"] for each in filters if each["name"] == HTTP)
    return found


def test_the_order_of_listeners() -> None:
    """LS-01: inbound first, then those of services, virtualOutbound last."""
    served = story.load("tcp_and_auto_ports").served("server")["lds"]
    names = [each.name for each in served]
    assert names[0] == VIRTUAL_INBOUND
    assert names[-1] == VIRTUAL_OUTBOUND
    assert len(names) > 3


def test_what_connection_managers_have_in_common() -> None:
    """LS-16: of both directions."""
    found = managers("plain_http", "server")
    assert {"rds" in each for each in found} == {True, False}
    for each in found:
        assert each["upgrade_configs"] == [{"upgrade_type": "websocket"}]
        assert each["stream_idle_timeout"] == "0s"
        assert each["normalize_path"] is True
        assert each["proxy_100_continue"] is True
        assert each["use_remote_address"] is False
        assert each["request_id_extension"]["typed_config"]["@type"].endswith("UuidRequestIdConfig")
        assert "codec_type" not in each  # AUTO, the default


@pytest.mark.parametrize(
    ("proxy", "alpn"),
    [("stock", "envoy.filters.http.set_filter_state"), ("istio", "istio.alpn")],
)
def test_the_order_of_http_filters(proxy: str, alpn: str) -> None:
    """LS-17: the ALPN of requests is chosen outbound only, before faults; the router is last."""
    for each in managers("istio_proxy_profile", proxy):
        order = [part["name"].removeprefix("envoy.filters.http.") for part in each["http_filters"]]
        chooses = [alpn.removeprefix("envoy.filters.http.")] if "rds" in each else []
        assert order == ["grpc_stats", *chooses, "fault", "cors", "router"]


def test_routes_and_endpoints_are_waited_for() -> None:
    """N-67: a proxy waits for ever rather than serve with half of its config."""
    told = story.load("plain_http").served("server")
    for each in managers("plain_http", "server"):
        if "rds" in each:
            assert each["rds"]["config_source"]["initial_fetch_timeout"] == "0s"
    sources = [
        story.content(each)["eds_cluster_config"]["eds_config"]
        for each in told["cds"]
        if each.name.startswith("outbound|")
    ]
    assert sources
    assert {each["initial_fetch_timeout"] for each in sources} == {"0s"}


def test_plain_http_is_told_by_what_inspectors_call_it() -> None:
    """N-75: HTTP/1.1 and h2c, and HTTP/1.0 for a proxy that asks for it (NM-15)."""
    found = set()
    for resource in story.load("plain_http").served("server")["lds"]:
        for chain in story.content(resource)["filter_chains"]:
            match = chain.get("filter_chain_match", {})
            if match.get("transport_protocol") == "raw_buffer" and "application_protocols" in match:
                found.add(tuple(match["application_protocols"]))
    assert found == {("http/1.1", "h2c")}


def test_what_mutual_tls_is_called_on_the_wire() -> None:
    """N-71, N-72: the names of socket matches, and the protocols offered inside the mesh."""
    told = story.load("mutual_tls_clients")
    matches: set[str] = set()
    offered: set[tuple[str, ...]] = set()
    for proxy in told.proxies:
        for each in told.served(proxy)["cds"]:
            for match in story.content(each).get("transport_socket_matches", ()):
                matches.add(match["name"])
                config = match["transport_socket"].get("typed_config", {})
                common = config.get("common_tls_context", {})
                if "alpn_protocols" in common:
                    offered.add(tuple(common["alpn_protocols"]))
    assert matches == {"tlsMode-istio", "tlsMode-disabled"}
    assert offered
    assert all("istio" in each for each in offered)


def test_little_is_held_for_a_client_hello() -> None:
    """LS-21: every TLS inspector begins with half a KiB instead of Envoy's 64."""
    sizes = [
        each["typed_config"]["initial_read_buffer_size"]
        for resource in story.load("tls_routes_sni").served("client")["lds"]
        for each in story.content(resource).get("listener_filters", ())
        if each["name"] == "envoy.filters.listener.tls_inspector"
    ]
    assert sizes
    assert set(sizes) == {512}
