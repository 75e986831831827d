"""``pilothouse token``: made, listed, revoked; the token goes where it is asked for only."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pilothouse.certs.root_store import STATE_FILE, RootStore
from pilothouse.cli.main import cli

WORKLOAD = ("-n", "shop", "-s", "web")


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    return tmp_path / "ca"


def run(ca: Path, command: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["token", command, "--ca-dir", str(ca), *arguments])


def test_standard_output_has_the_token_and_nothing_else(ca: Path) -> None:
    """So that it can be captured; what it is is told on standard error."""
    result = run(ca, "create", *WORKLOAD, "--ttl", "90m")
    assert result.exit_code == 0
    assert result.stdout.strip().count(".") == 2
    assert len(result.stdout.split()) == 1
    assert "spiffe://cluster.local/ns/shop/sa/web" in result.stderr
    assert result.stdout.strip() not in result.stderr


def test_the_trust_domain_is_the_roots(ca: Path) -> None:
    """C-R-1: a root is called after its mesh; without one it is Istio's default."""
    assert "spiffe://cluster.local/" in run(ca, "create", *WORKLOAD).stderr
    RootStore.open(ca, "shop.example", datetime.now(UTC))
    assert "spiffe://shop.example/" in run(ca, "create", *WORKLOAD).stderr
    told = run(ca, "create", *WORKLOAD, "--trust-domain", "other.example").stderr
    assert "spiffe://other.example/" in told
    (ca / STATE_FILE).write_text("{")
    assert "spiffe://cluster.local/" in run(ca, "create", *WORKLOAD).stderr


def test_a_file_is_its_owners(ca: Path, tmp_path: Path) -> None:
    """--out: mode 0600, and the token is not printed as well."""
    out = tmp_path / "web-token"
    result = run(ca, "create", *WORKLOAD, "--out", str(out), "-o", "json")
    token = out.read_text().strip()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert token not in result.output
    shown = json.loads(result.stdout)
    assert shown["identity"] == "spiffe://cluster.local/ns/shop/sa/web"
    assert shown["state"] == "active"
    assert "token" not in shown


def test_json_has_the_token_if_no_file_does(ca: Path) -> None:
    shown = json.loads(run(ca, "create", *WORKLOAD, "-o", "json").stdout)
    assert shown["token"].count(".") == 2


def test_a_file_that_cannot_be_written_leaves_no_good_token(ca: Path, tmp_path: Path) -> None:
    """The token is revoked: nobody knows where its text may have gone."""
    result = run(ca, "create", *WORKLOAD, "--out", str(tmp_path / "none" / "token"))
    assert result.exit_code == 1
    assert "cannot be written" in result.output
    assert [each["state"] for each in json.loads(run(ca, "list", "-o", "json").stdout)] == [
        "revoked"
    ]


def test_list_and_revoke(ca: Path) -> None:
    assert "There are no tokens" in run(ca, "list").stdout
    token = run(ca, "create", *WORKLOAD).stdout.strip()
    (listed,) = json.loads(run(ca, "list", "-o", "json").stdout)
    assert "active" in run(ca, "list").stdout
    assert run(ca, "revoke", listed["id"]).stdout == (
        f"Token {listed['id']} of {listed['identity']} is revoked.\n"
    )
    (after,) = json.loads(run(ca, "list", "-o", "json").stdout)
    assert after["state"] == "revoked"
    assert after["revokedAt"]
    assert token not in run(ca, "list").output
    assert json.loads(run(ca, "revoke", listed["id"], "-o", "json").stdout) == [after]


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("revoke", "nope"), 1, "there is no token 'nope'"),
        (("revoke",), 64, "Missing argument"),
        (("create", "-n", "shop"), 64, "--service-account"),
        (("create", "-n", "a/b", "-s", "c"), 1, "is not of the form"),
        (("create", *WORKLOAD, "--trust-domain", "No Domain"), 1, "is not of the form"),
        (("create", *WORKLOAD, "--ttl", "tomorrow"), 64, "not a duration"),
        (("create", *WORKLOAD, "--ttl", "0"), 1, "from one second to"),
    ],
)
def test_mistakes_are_one_sentence(
    ca: Path, arguments: tuple[str, ...], code: int, why: str
) -> None:
    result = run(ca, *arguments)
    assert result.exit_code == code
    assert why in result.output
    assert "Traceback" not in result.output


def test_a_directory_open_to_others(ca: Path) -> None:
    ca.mkdir(mode=0o755)
    result = run(ca, "create", *WORKLOAD)
    assert result.exit_code == 1
    assert "chmod 700" in result.output
