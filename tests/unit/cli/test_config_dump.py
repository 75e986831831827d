"""``pilothouse config-dump`` shows what a proxy would get."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from pilothouse.cli.main import cli

NODE = "sidecar~10.0.0.9~client.default~default.svc.cluster.local"
MESH = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: 10.1.0.1
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]
"""


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    """Return a directory with one service."""
    folder = tmp_path / "mesh"
    folder.mkdir()
    (folder / "web.yaml").write_text(MESH)
    return folder


def dump(mesh: Path, *arguments: str) -> Result:
    """Run the command for the node."""
    return CliRunner().invoke(cli, ["config-dump", "-d", str(mesh), "--node", NODE, *arguments])


def test_everything_as_envoy_shows_it(mesh: Path) -> None:
    """Clusters, endpoints, listeners and routes follow from each other, as for a real proxy."""
    done = dump(mesh)
    assert done.exit_code == 0
    sections = {
        section["@type"].rpartition(".")[2]: section
        for section in json.loads(done.stdout)["configs"]
    }
    clusters = sections["ClustersConfigDump"]["dynamic_active_clusters"]
    assert "outbound|80||web.default.svc.cluster.local" in {
        entry["cluster"]["name"] for entry in clusters
    }
    (assignment,) = sections["EndpointsConfigDump"]["dynamic_endpoint_configs"]
    assert "10.0.0.1" in json.dumps(assignment)
    listeners = sections["ListenersConfigDump"]["dynamic_listeners"]
    assert "virtualOutbound" in {entry["name"] for entry in listeners}
    (routes,) = sections["RoutesConfigDump"]["dynamic_route_configs"]
    assert routes["route_config"]["name"] == "80"


def test_one_type_as_yaml(mesh: Path) -> None:
    """A single type, as YAML."""
    done = dump(mesh, "--type", "eds", "-o", "yaml")
    (section,) = yaml.safe_load(done.stdout)["configs"]
    assert section["@type"].endswith("EndpointsConfigDump")


def test_short_has_a_line_for_each(mesh: Path) -> None:
    """One line per resource with its version and the object it came from."""
    done = dump(mesh, "--type", "rds", "-o", "short")
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("RDS")]
    assert len(lines) == 1
    assert lines[0][:2] == ["RDS", "80"]
    assert len(lines[0][2]) == 16


def test_metadata_counts(mesh: Path, tmp_path: Path) -> None:
    """The same node without interception gets no virtual listener (NM-06)."""
    file = tmp_path / "node.yaml"
    file.write_text("INTERCEPTION_MODE: NONE\n")
    done = dump(mesh, "--metadata", str(file), "--type", "lds")
    assert done.exit_code == 0
    assert json.loads(done.stdout) != json.loads(dump(mesh, "--type", "lds").stdout)


@pytest.mark.parametrize("content", ["[1, 2]", "a: 1\n---\nb: 2\n", "{"])
def test_bad_metadata(mesh: Path, tmp_path: Path, content: str) -> None:
    """Metadata that is no map is refused in a sentence naming the file."""
    file = tmp_path / "node.yaml"
    file.write_text(content)
    done = dump(mesh, "--metadata", str(file))
    assert done.exit_code == 1
    assert str(file) in done.output


def test_bad_node_and_directory(mesh: Path, tmp_path: Path) -> None:
    """A malformed node id and a missing directory are sentences, not tracebacks."""
    arguments = ["config-dump", "-d", str(mesh), "--node", "web"]
    done = CliRunner().invoke(cli, arguments)
    assert (done.exit_code, done.output.startswith("Error: node id 'web'")) == (1, True)
    done = dump(tmp_path / "none")
    assert done.exit_code == 1
    assert "does not exist" in done.output


def test_faults_are_counted(mesh: Path) -> None:
    """Broken config does not stop the dump; standard error says there is some."""
    (mesh / "bad.yaml").write_text("kind: [")
    done = dump(mesh)
    assert done.exit_code == 0
    assert "1 errors in the config" in done.stderr


def test_names_with_brackets_are_shown_whole(mesh: Path) -> None:
    """A field path such as `spec.subsets[name=v1]` is text, not a colour."""
    (mesh / "rule.yaml").write_text(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n"
        "metadata: {name: web, namespace: default}\n"
        "spec: {host: web, subsets: [{name: v1, labels: {version: v1}}]}\n"
    )
    assert "spec.subsets[name=v1]" in dump(mesh, "-o", "short").output


def test_of_a_server_of_a_revision(mesh: Path) -> None:
    """As for serve and validate: objects of another revision are not there."""
    (mesh / "canary.yaml").write_text(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"
        "metadata: {name: new, namespace: default, labels: {istio.io/rev: canary}}\n"
        "spec: {hosts: [new.example], resolution: DNS, ports: [{number: 80, name: http}]}\n"
    )
    assert "new.example" not in dump(mesh, "-o", "short").output
    assert "new.example" in dump(mesh, "-o", "short", "--revision", "canary").output


GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vm, namespace: default}
spec:
  metadata: {labels: {app: web}}
  template: {serviceAccount: vm}
  probe: {tcpSocket: {port: 8080}}
"""


def test_a_workload_that_will_register_is_shown_what_it_serves(mesh: Path, tmp_path: Path) -> None:
    """WG-01: as it would be in a server; what would be refused there is said."""
    metadata = tmp_path / "metadata.yaml"
    metadata.write_text("{AUTO_REGISTER_GROUP: vm, SERVICE_ACCOUNT: vm}")
    arguments = ("--metadata", str(metadata), "-o", "short")
    refused = dump(mesh, *arguments)
    assert refused.exit_code == 1
    assert "WorkloadGroup default/vm, which does not exist" in refused.output
    (mesh / "group.yaml").write_text(GROUP)
    assert "inbound|8080||" in dump(mesh, *arguments).output
    metadata.write_text("{AUTO_REGISTER_GROUP: vm, SERVICE_ACCOUNT: other}")
    assert "is for the service account 'vm'" in dump(mesh, *arguments).output
