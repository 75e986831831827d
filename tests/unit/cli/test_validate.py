"""``pilothouse validate`` finds what the server would find, with istioctl's exit codes."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pilothouse.cli.main import cli

GOOD = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews}
"""
BAD = GOOD.replace("host: reviews}", "host: reviews}\n      weight: lots")
ODD = GOOD.replace("  http:", "  hots: [reviews]\n  http:")


@pytest.fixture
def run() -> CliRunner:
    """Return a runner of the command line."""
    return CliRunner()


def test_good_file(run: CliRunner, tmp_path: Path) -> None:
    """Nothing to say is exit code 0."""
    (tmp_path / "a.yaml").write_text(GOOD)
    done = run.invoke(cli, ["validate", str(tmp_path / "a.yaml")])
    assert done.exit_code == 0
    assert done.output == "1 file: 0 errors, 0 warnings.\n"


def test_bad_file_names_everything(run: CliRunner, tmp_path: Path) -> None:
    """File, line, object, field and remedy are there; the exit code is 1 (issue 2, item 2)."""
    bad = tmp_path / "mesh" / "b.yaml"
    bad.parent.mkdir()
    bad.write_text(BAD)
    done = run.invoke(cli, ["validate", str(tmp_path), "-o", "json"])
    assert done.exit_code == 1
    (found,) = json.loads(done.output)
    line = BAD[: BAD.index("weight")].count("\n") + 1
    assert (found["file"], found["line"]) == (str(bad), line)
    assert (found["kind"], found["namespace"], found["name"]) == (
        "VirtualService",
        "default",
        "reviews",
    )
    assert found["path"] == "spec.http[0].route[0].weight"
    assert found["severity"] == "error"
    assert found["message"]
    shown = run.invoke(cli, ["validate", str(bad)])
    assert shown.exit_code == 1
    assert f"{bad}:{line}" in shown.output
    assert shown.output.endswith("1 file: 1 errors, 0 warnings.\n")


def test_warnings_fail_only_when_asked(run: CliRunner, tmp_path: Path) -> None:
    """An unknown field is a warning; --strict makes it count."""
    (tmp_path / "a.yaml").write_text(ODD)
    shown = run.invoke(cli, ["validate", str(tmp_path), "-o", "yaml"])
    assert shown.exit_code == 0
    assert yaml.safe_load(shown.output)[0]["code"] == "UnknownField"
    assert run.invoke(cli, ["validate", "--strict", str(tmp_path)]).exit_code == 1


def test_standard_input(run: CliRunner) -> None:
    """A dash reads standard input."""
    assert run.invoke(cli, ["validate", "-"], input=BAD).exit_code == 1
    assert run.invoke(cli, ["validate", "-"], input=GOOD).exit_code == 0


def test_files_are_looked_at_together(run: CliRunner, tmp_path: Path) -> None:
    """The same object in two files is found."""
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(GOOD)
    done = run.invoke(cli, ["validate", str(tmp_path), "-o", "json"])
    assert [found["code"] for found in json.loads(done.output)] == ["DuplicateObject"]


def test_wrong_use(run: CliRunner, tmp_path: Path) -> None:
    """No file, or one that is not there, is wrong use; an empty folder is a failure."""
    assert run.invoke(cli, ["validate"]).exit_code == 64
    assert run.invoke(cli, ["validate", str(tmp_path / "none.yaml")]).exit_code == 64
    assert run.invoke(cli, ["validate", str(tmp_path)]).exit_code == 1


WORLD = """
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {clusterIP: 10.96.0.1, selector: {app: reviews}, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-x, namespace: default, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
ports: [{name: http, port: 9080}]
endpoints: [{addresses: [10.1.0.4]}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default, labels: {app: client}}
status: {podIP: 10.1.0.9, podIPs: [{ip: 10.1.0.9}]}
"""
LOST = GOOD.replace("destination: {host: reviews}", "destination: {host: revews, subset: v2}")


def test_what_clients_see_is_looked_at(run: CliRunner, tmp_path: Path) -> None:
    """A destination nobody serves is found with file and line, as a server would (issue 3)."""
    (tmp_path / "a.yaml").write_text(WORLD)
    (tmp_path / "b.yaml").write_text(LOST)
    done = run.invoke(cli, ["validate", str(tmp_path), "-o", "json"])
    assert done.exit_code == 0
    found = {(each["code"], each["file"]) for each in json.loads(done.output)}
    assert ("UnknownHost", str(tmp_path / "b.yaml")) in found
    assert run.invoke(cli, ["validate", "--strict", str(tmp_path)]).exit_code == 1
    shown = run.invoke(cli, ["validate", str(tmp_path)]).output
    assert "2 files, 1 view: 0 errors, " in shown


def test_a_service_copied_without_its_endpoints_is_told_of(run: CliRunner, tmp_path: Path) -> None:
    """A cluster lists the endpoints of every Service with a selector; a copy may lack them."""
    service, _, rest = WORLD.partition("---")
    (tmp_path / "a.yaml").write_text(f"{service}---{rest.partition('---')[2]}")
    done = run.invoke(cli, ["validate", str(tmp_path), "-o", "json"])
    (found,) = json.loads(done.output)
    assert (found["code"], found["name"], found["line"]) == ("NoEndpointSlice", "reviews", 5)


def test_objects_can_be_looked_at_alone(run: CliRunner, tmp_path: Path) -> None:
    """Without workloads there is nobody whose view would count, and one may ask for none."""
    (tmp_path / "b.yaml").write_text(LOST)
    assert run.invoke(cli, ["validate", str(tmp_path), "-o", "json"]).output == "[]\n"
    (tmp_path / "a.yaml").write_text(WORLD)
    done = run.invoke(cli, ["validate", "--objects-only", str(tmp_path), "-o", "json"])
    assert done.output == "[]\n"


def test_a_sidecar_alone_stands_for_a_view(run: CliRunner, tmp_path: Path) -> None:
    """Its workloads need not be in the files."""
    world, _, _ = WORLD.rpartition("---")
    sidecar = """
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: narrow, namespace: default}
spec: {workloadSelector: {labels: {app: x}}, egress: [{hosts: ["./*"]}]}
"""
    (tmp_path / "a.yaml").write_text(f"{world}{sidecar}---{LOST}")
    done = run.invoke(cli, ["validate", str(tmp_path), "-o", "json"])
    codes = {each["code"] for each in json.loads(done.output)}
    assert codes == {"UnknownHost", "UnknownSubset"}


def test_the_mesh_config_of_a_file_counts(run: CliRunner, tmp_path: Path) -> None:
    """What serve would read beside the directory is read and checked here too."""
    (tmp_path / "a.yaml").write_text(WORLD)
    mesh, networks = tmp_path / "mesh.cfg", tmp_path / "networks.cfg"
    mesh.write_text("connectTimeout: soon\n")
    networks.write_text("networks: {n: {gateways: [{port: 1}]}}\n")
    options = ["--mesh-config", str(mesh), "--mesh-networks", str(networks)]
    done = run.invoke(cli, ["validate", str(tmp_path / "a.yaml"), *options, "-o", "json"])
    assert done.exit_code == 1
    found = {(each["kind"], each["file"]) for each in json.loads(done.output)}
    assert found == {("MeshConfig", str(mesh)), ("MeshNetworks", str(networks))}


def test_a_revision_chooses_objects(run: CliRunner, tmp_path: Path) -> None:
    """K8-19: an object of another revision is told of, and its faults are not ours."""
    labelled = BAD.replace("namespace: default}", "namespace: default, labels: {istio.io/rev: x}}")
    (tmp_path / "a.yaml").write_text(labelled.replace("weight: lots", "weight: 1"))
    done = run.invoke(cli, ["validate", str(tmp_path), "-o", "json"])
    assert [each["code"] for each in json.loads(done.output)] == ["AnotherRevision"]
    done = run.invoke(cli, ["validate", str(tmp_path), "--revision", "x", "-o", "json"])
    assert done.output == "[]\n"


GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vm, namespace: default}
spec:
  metadata: {labels: {app: reviews, version: v1}}
  template: {serviceAccount: vm}
  probe: {tcpSocket: {port: 80}}
"""
SELECTING = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews.internal]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  workloadSelector: {labels: {app: reviews}}
"""
VERSIONED = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews.internal
  subsets: [{name: v1, labels: {version: v1}}]
"""


def test_a_group_stands_for_the_workloads_that_will_register(
    run: CliRunner, tmp_path: Path
) -> None:
    """WG-01: they are clients, and endpoints of what selects them; else that is told."""
    (tmp_path / "group.yaml").write_text(GROUP)
    done = run.invoke(cli, ["validate", str(tmp_path), "-o", "json"])
    assert [each["code"] for each in json.loads(done.output)] == ["GroupServesNothing"]
    (tmp_path / "rest.yaml").write_text(f"{SELECTING}---{VERSIONED}")
    done = run.invoke(cli, ["validate", str(tmp_path)])
    assert done.output == "2 files, 1 view: 0 errors, 0 warnings.\n"
    (tmp_path / "rest.yaml").write_text(f"{SELECTING}---{VERSIONED.replace('v1}}', 'v2}}')}")
    done = run.invoke(cli, ["validate", str(tmp_path), "-o", "json"])
    assert len(json.loads(done.output)) == 1, "nobody will be of the subset"


def test_what_a_policy_overrides_is_told(run: CliRunner, tmp_path: Path) -> None:
    """S-PA-9: for CI too, by the options and variables of `serve`."""
    mesh = tmp_path / "mesh.yaml"
    mesh.write_text("meshMTLS: {minProtocolVersion: TLSV1_3}\n")
    (tmp_path / "mesh").mkdir()
    (tmp_path / "mesh" / "a.yaml").write_text(WORLD)
    line = ["validate", str(tmp_path / "mesh"), "--mesh-config", str(mesh)]
    assert "OutsideCompliancePolicy" not in run.invoke(cli, line).output
    for policy, is_told in (("fips-140-2", True), ("pqc", False)):
        done = run.invoke(cli, line, env={"COMPLIANCE_POLICY": policy})
        assert done.exit_code == 0
        assert ("meshMTLS.minProtocolVersion" in done.output) is is_told
