"""The benchmark itself works: every phase on a small mesh. Checks what is exact, never a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "benchmarks" / "run.py"


@pytest.mark.timeout(300)
def test_every_phase_runs_on_a_small_mesh(tmp_path: Path) -> None:
    """Issues 2 and 3: changes reach every proxy, none is rejected, a no-op change sends no byte."""
    output = tmp_path / "results.json"
    command = [sys.executable, str(RUN), "--quick", "--large", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())
    assert results["machine"]["cpu"]
    large = results["large"]
    kinds = ["one endpoint", "one VirtualService", "one DestinationRule"]
    more = [
        "one endpoint, no storm",
        "one endpoint, 200 requests for certificates",
        "one endpoint, --debounce 0",
    ]
    for found, titles in ((results, [*kinds, *more]), (large, kinds)):
        assert found["resources_of_a_proxy"]["CDS"] == found["resources_of_a_proxy"]["EDS"] + 4
        assert found["no_op_bytes"] == 0
        assert found["rejected"] == 0
        assert found["streams_lost"] == []
        assert [pushes["title"] for pushes in found["pushes"]] == titles
    assert results["storm"]["answered"] > 0
    assert results["storm"]["refused"] == {}
    assert [each["algorithm"] for each in results["signing"]] == ["ecdsa-p256", "rsa-2048"]
    # A Sidecar: the ten services of the own namespace and those of the shared one.
    assert large["resources_of_a_proxy"]["EDS"] < results["resources_of_a_proxy"]["EDS"]
    for pushes in [*results["pushes"], *large["pushes"]]:
        assert len(pushes["whole"]["values"]) == len(pushes["floor"]["values"]) >= 2
        assert min(pushes["notice"]["values"]) > 0
        assert min(pushes["commit"]["values"]) > 0
        # However large the mesh: one service's endpoints, or the routes of ten or twenty scopes.
        assert max(pushes["nodes"]["values"]) < 200
