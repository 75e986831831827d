"""``pilothouse agent``: what it is told to probe, before anything is begun (WG-03)."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pilothouse.cli.main import cli

GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: web, namespace: default}
spec: {template: {}}
"""
NODE = {
    "id": "sidecar~10.0.0.1~web-1.default~default.svc.cluster.local",
    "metadata": {"AUTO_REGISTER_GROUP": "web"},
}


@pytest.mark.parametrize(
    ("bootstrap", "group", "said"),
    [
        ({"node": NODE}, None, "go together"),
        (None, GROUP, "go together"),
        ({"node": NODE}, GROUP, "WorkloadGroup web has no probe"),
        ({"node": NODE}, GROUP.replace("web", "other"), "has no WorkloadGroup web"),
        ({"node": NODE}, GROUP.replace("{}", "1"), "pilothouse validate says why"),
        ({"node": NODE}, "{", "Error:"),
        ({"node": {"id": "web"}}, GROUP, "no node of the form"),
        ({"node": 1}, GROUP, "no node of the form"),
        ({}, GROUP, "no node of the form"),
        ([], GROUP, "no node of the form"),
        ("{", GROUP, "Error:"),
    ],
)
def test_what_cannot_be_probed_is_said(
    tmp_path: Path, bootstrap: object, group: str | None, said: str
) -> None:
    """Each in one sentence, with an exit code that is not 0."""
    arguments = ["agent"]
    if bootstrap is not None:
        text = bootstrap if isinstance(bootstrap, str) else json.dumps(bootstrap)
        (tmp_path / "envoy.json").write_text(text)
        arguments += ["--bootstrap", str(tmp_path / "envoy.json")]
    if group is not None:
        (tmp_path / "group.yaml").write_text(group)
        arguments += ["--workload-group", str(tmp_path / "group.yaml")]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code != 0
    assert said in done.output
    assert "Traceback" not in done.output
