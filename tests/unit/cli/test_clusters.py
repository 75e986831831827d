"""Options that name clusters: K8-20, K8-22."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pilothouse.cli.lazy import Exit
from pilothouse.cli.main import cli
from pilothouse.runtime import app
from pilothouse.runtime.settings import RemoteCluster, Settings

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: %d}]}\n"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Return the settings that the server would have run with."""
    taken: list[Settings] = []
    monkeypatch.setattr(app, "run", lambda settings: taken.append(settings) or 0)
    return taken


def invoke(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command; return exit code and output."""
    done = CliRunner().invoke(cli, arguments, env=environment)
    return done.exit_code, done.output


def test_clusters_are_named_with_their_directories(served: list[Settings]) -> None:
    """On the command line and by the environment; istiod's names for our own do too."""
    expected = Settings(
        config_dir=Path("mesh"),
        cluster_id="home",
        remote_clusters=(RemoteCluster("west", Path("w")), RemoteCluster("east", Path("/e=1"))),
    )
    remote = ["--remote-cluster", "west=w", "--remote-cluster", "east=/e=1"]
    assert invoke("serve", "-d", "mesh", "--cluster-id", "home", *remote) == (0, "")
    assert invoke("serve", "-d", "mesh", "--clusterID=home", *remote) == (0, "")
    assert invoke(
        "serve", "-d", "mesh", CLUSTER_ID="home", PILOTHOUSE_REMOTE_CLUSTER="west=w east=/e=1"
    ) == (0, "")
    assert served == [expected] * 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--remote-cluster", "west"], "NAME=DIR"),
        (["--remote-cluster", "=dir"], "NAME=DIR"),
        (["--remote-cluster", "we st=dir"], "no name for a cluster"),
        (["--remote-cluster", "a=x", "--remote-cluster", "a=y"], "a names two clusters"),
        (["--remote-cluster", "Kubernetes=x"], "Kubernetes names two clusters"),
        (["--cluster-id", "a,b"], "no name for a cluster"),
        (["--remote-cluster", "a=mesh/a"], "within one another"),
        (["--remote-cluster", "a=."], "within one another"),
        (["--remote-cluster", "a=x", "--remote-cluster", "b=x/../x"], "within one another"),
    ],
)
def test_names_that_would_not_do(served: list[Settings], arguments: list[str], said: str) -> None:
    """Said at once, with the option."""
    code, output = invoke("serve", "-d", "mesh", *arguments)
    assert code != 0
    assert said in output
    assert arguments[0] in output
    assert served == []


def test_validate_looks_at_clusters_together(tmp_path: Path) -> None:
    """What the server would find: the cluster is named with file and line."""
    own, west = tmp_path / "own", tmp_path / "west"
    for folder, port in ((own, 80), (west, 81)):
        folder.mkdir()
        (folder / "web.yaml").write_text(SERVICE % port)
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nstatus: {podIP: 10.0.0.1}\n"
    (west / "pod.yaml").write_text(pod)
    remote = ("--remote-cluster", f"west={west}")
    code, output = invoke("validate", str(own), "--cluster-id", "home", *remote, "-o", "json")
    assert code == 0
    (found,) = json.loads(output)
    assert (found["code"], found["cluster"], found["path"], found["line"]) == (
        "ClustersDisagree", "west", "spec.ports", 4,
    )  # fmt: skip
    assert found["file"] == str(west / "web.yaml")
    assert "cluster home" in found["message"]
    code, output = invoke("validate", str(own), *remote)
    assert (code, output.splitlines()[-1]) == (0, "3 files, 1 view: 0 errors, 1 warnings.")
    assert "Service default/web @west" in output


@pytest.mark.parametrize(
    ("remote", "said"), [("west=nowhere", "does not exist"), ("Kubernetes=.", "two clusters")]
)
def test_validate_needs_the_directories(tmp_path: Path, remote: str, said: str) -> None:
    """A wrong path in CI is a mistake, not an empty cluster."""
    (tmp_path / "web.yaml").write_text(SERVICE % 80)
    code, output = invoke("validate", str(tmp_path), "--remote-cluster", remote)
    assert code == Exit.USAGE
    assert said in output


def test_config_dump_knows_the_clusters(tmp_path: Path) -> None:
    """A proxy of the other cluster calls the service by its address there (NM-04)."""
    text = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\n"
    text += "spec: {clusterIP: 10.%d.0.1, ports: [{name: tcp, port: 90}]}\n"
    own, west = tmp_path / "own", tmp_path / "west"
    for folder, number in ((own, 1), (west, 2)):
        folder.mkdir()
        (folder / "db.yaml").write_text(text % number)
    metadata = tmp_path / "west.json"
    metadata.write_text('{"CLUSTER_ID": "west"}')
    node = "sidecar~10.9.0.9~a.default~default.svc.cluster.local"
    arguments = ["config-dump", "-d", str(own), "--node", node, "--type", "lds", "-o", "short"]
    remote = ["--remote-cluster", f"west={west}"]
    code, output = invoke(*arguments, *remote, "--metadata", str(metadata))
    assert code == 0
    assert "10.2.0.1_90" in output
    assert "10.1.0.1_90" not in output
    assert "10.1.0.1_90" in invoke(*arguments, *remote)[1]
    code, output = invoke(*arguments, "--remote-cluster", "Kubernetes=x")
    assert code != 0
    assert "--remote-cluster" in output
