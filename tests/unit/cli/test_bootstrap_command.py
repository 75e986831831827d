"""``pilothouse bootstrap`` writes what an Envoy starts with (D-A-7)."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pilothouse.cli.main import cli
from pilothouse.model.proxies import CertificateSource, Registration
from pilothouse.translators.envoy.control_plane_tls import ControlPlaneTls, upstream_filters
from pilothouse.xds.offline import proxy_of

PLAIN = ("--name", "web-1", "-n", "shop", "--ip", "10.0.0.1")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bootstrap", *arguments])


def made(*arguments: str) -> dict[str, Any]:
    result = run(*PLAIN, *arguments)
    assert result.exit_code == 0, result.output
    written: dict[str, Any] = json.loads(result.stdout)
    return written


def cluster(bootstrap: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        each for each in bootstrap["static_resources"]["clusters"] if each["name"] == name
    )
    return found


def tls(bootstrap: dict[str, Any]) -> dict[str, Any]:
    context: dict[str, Any] = cluster(bootstrap, "xds-grpc")["transport_socket"]["typed_config"]
    return context


def test_a_workload_is_what_the_options_say() -> None:
    """The node is read back as the server reads it (NM-01..11)."""
    node = made(
        *("--service-account", "web", "-l", "app=web", "-l", "version=v1", "--ip", "fd00::1"),
        *("--interception-mode", "TPROXY", "--network", "n1", "--locality", "r/z/s"),
    )["node"]
    proxy = proxy_of(node["id"], node["metadata"])
    assert (proxy.name, proxy.namespace, proxy.service_account) == ("web-1", "shop", "web")
    assert proxy.ips == ("10.0.0.1", "fd00::1")
    assert dict(proxy.labels) == {"app": "web", "version": "v1"}
    assert (proxy.interception_mode, proxy.network) == ("TPROXY", "n1")
    assert proxy.certificates is CertificateSource.ADS
    assert node["locality"] == {"region": "r", "zone": "z", "sub_zone": "s"}


def test_what_a_workload_is_registered_as() -> None:
    """NM-19: only what was asked for is in the metadata."""
    plain = made()["node"]
    assert proxy_of(plain["id"], plain["metadata"]).registration is None
    node = made("--auto-register-group", "web")["node"]
    asked = proxy_of(node["id"], node["metadata"]).registration
    assert asked == Registration(group="web", address="10.0.0.1")
    node = made("--workload-entry", "vm")["node"]
    asked = proxy_of(node["id"], node["metadata"]).registration
    assert asked == Registration(entry="vm", address="10.0.0.1")


def test_the_server_is_verified_and_the_token_sent() -> None:
    """G-5, G-6: roots and name of the server; nothing goes without."""
    written = made("--token-file", "/t/token", "--root-cert-file", "/r/root.pem")
    context = tls(written)
    assert context["sni"] == "istiod.istio-system.svc"
    validation = context["common_tls_context"]["validation_context"]
    assert validation["trusted_ca"] == {"filename": "/r/root.pem"}
    (matcher,) = validation["match_typed_subject_alt_names"]
    assert matcher == {"san_type": "DNS", "matcher": {"exact": "istiod.istio-system.svc"}}
    options = cluster(written, "xds-grpc")["typed_extension_protocol_options"]
    (http,) = options.values()
    lua, codec = http["http_filters"]
    assert "/t/token" in lua["typed_config"]["default_source_code"]["inline_string"]
    assert codec["name"] == "envoy.filters.http.upstream_codec"
    assert cluster(written, "xds-grpc")["type"] == "STRICT_DNS"


def test_a_path_cannot_end_its_quotes() -> None:
    (lua, _) = upstream_filters(ControlPlaneTls(token_file='/a"\\\n]]é'))
    code = lua["typed_config"]["default_source_code"]["inline_string"]
    assert r'io.open("/a\034\092\010\093\093\195\169", "r")' in code


def test_roots_in_a_file_of_their_own_are_watched(tmp_path: Path) -> None:
    """Only a secret in a file is read again when its roots are replaced."""
    file = tmp_path / "envoy.json"
    result = run(*PLAIN, "-o", str(file), "--root-cert-file", "/r/root.pem")
    assert (result.exit_code, result.stdout) == (0, "")
    source = tls(json.loads(file.read_text()))["common_tls_context"][
        "validation_context_sds_secret_config"
    ]
    path = source["sds_config"]["path_config_source"]["path"]
    (secret,) = json.loads(Path(path).read_text())["resources"]
    assert secret["name"] == source["name"]
    assert secret["validation_context"]["trusted_ca"] == {"filename": "/r/root.pem"}
    assert secret["validation_context"]["match_typed_subject_alt_names"]


def test_files_of_the_current_folder_have_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envoy watches the folder of a file, and refuses a name that has none."""
    monkeypatch.chdir(tmp_path)
    assert run(*PLAIN, "--root-cert-file", "root.pem", "-o", "envoy.json").exit_code == 0
    written = json.loads((tmp_path / "envoy.json").read_text())
    source = tls(written)["common_tls_context"]["validation_context_sds_secret_config"]
    assert source["sds_config"]["path_config_source"]["path"] == "./envoy.json.roots.json"
    roots = json.loads((tmp_path / "envoy.json.roots.json").read_text())["resources"][0]
    assert roots["validation_context"]["trusted_ca"] == {"filename": "./root.pem"}


def test_an_agent_needs_no_file() -> None:
    """D-A-7: certificate and roots by the cluster sds-grpc, for the control plane as well."""
    written = made("--certificates", "agent", "--sds-socket", "/run/sds")
    assert proxy_of(written["node"]["id"], written["node"]["metadata"]).certificates == "agent"
    text = json.dumps(tls(written))
    assert "filename" not in text
    assert "sds-grpc" in text
    endpoints = cluster(written, "sds-grpc")["load_assignment"]["endpoints"]
    assert endpoints[0]["lb_endpoints"][0]["endpoint"]["address"] == {"pipe": {"path": "/run/sds"}}
    (http,) = cluster(written, "xds-grpc")["typed_extension_protocol_options"].values()
    assert "http_filters" not in http


def test_plaintext_has_no_certificates() -> None:
    written = made("--plaintext", "--control-plane", "127.0.0.1:15010", "--sotw")
    assert "transport_socket" not in cluster(written, "xds-grpc")
    assert cluster(written, "xds-grpc")["type"] == "STATIC"
    assert proxy_of(written["node"]["id"], written["node"]["metadata"]).certificates == "none"
    assert written["dynamic_resources"]["ads_config"]["api_type"] == "GRPC"


def test_who_watches_the_proxy_is_shown_two_paths() -> None:
    """N-13, N-30, LS-09: readiness and statistics, on ports that no service gets."""
    written = made("--admin", "127.0.0.1:15000")
    listeners = written["static_resources"]["listeners"]
    assert [each["name"] for each in listeners] == ["0.0.0.0_15090", "0.0.0.0_15021"]
    paths = {}
    for each in listeners:
        manager = each["filter_chains"][0]["filters"][0]["typed_config"]
        (host,) = manager["route_config"]["virtual_hosts"]
        (route,) = host["routes"]
        paths[each["address"]["socket_address"]["port_value"]] = route
    assert paths == {
        15090: {"match": {"path": "/stats/prometheus"}, "route": {"cluster": "prometheus_stats"}},
        15021: {
            "match": {"path": "/healthz/ready"},
            "route": {"cluster": "prometheus_stats", "prefix_rewrite": "/ready"},
        },
    }
    (ends,) = cluster(written, "prometheus_stats")["load_assignment"]["endpoints"]
    place = ends["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    assert place == {"address": "127.0.0.1", "port_value": 15000}


def test_nobody_need_watch_a_proxy() -> None:
    """N-13: then it has the clusters of its control plane only, which CDS never sends."""
    resources = made("--unwatched", "--certificates", "agent")["static_resources"]
    assert "listeners" not in resources
    assert [each["name"] for each in resources["clusters"]] == ["xds-grpc", "sds-grpc"]


def test_a_proxy_without_ipv4_is_watched_by_ipv6() -> None:
    result = run("--name", "web-1", "--ip", "fd00::1")
    listeners = json.loads(result.stdout)["static_resources"]["listeners"]
    assert [each["name"] for each in listeners] == ["::_15090", "::_15021"]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--name", "Web"),
        ("-n", "a.b"),
        ("--control-plane", "nowhere"),
        ("--control-plane", "h:99999"),
        ("--label", "app"),
        ("--admin", "unix:" + "x" * 108),
    ],
)
def test_what_cannot_be_is_refused(wrong: tuple[str, str]) -> None:
    assert run(*PLAIN, *wrong).exit_code != 0
