"""``pilothouse secret``: whose certificates a proxy holds, and never a key."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from key_pairs import pair, revocation_list

from pilothouse.certs.authority import Authority
from pilothouse.cli.main import cli
from pilothouse.cli.secret_view import secrets_of
from pilothouse.model.identity import WorkloadIdentity

WEB = WorkloadIdentity("shop.example", "default", "web")
NOW = datetime.now(UTC)
AUTHORITY = Authority.create("shop.example", NOW)
OWN = AUTHORITY.issue_workload(WEB, NOW, lifetime=timedelta(hours=5))
REDACTED = {"inline_bytes": base64.b64encode(b"[redacted]").decode()}


def inline(pem: bytes) -> dict[str, str]:
    return {"inline_bytes": base64.b64encode(pem).decode()}


def key_pair(name: str, pem: bytes) -> dict[str, Any]:
    return {
        "name": name,
        "last_updated": "2026-11-22T10:00:00Z",
        "secret": {
            "name": name,
            "tls_certificate": {"certificate_chain": inline(pem), "private_key": REDACTED},
        },
    }


def trust(name: str, pem: bytes, crl: bytes = b"") -> dict[str, Any]:
    context = {"trusted_ca": inline(pem), **({"crl": inline(crl)} if crl else {})}
    return {"name": name, "secret": {"name": name, "validation_context": context}}


def dump(*active: dict[str, Any], warming: Any = (), static: Any = ()) -> dict[str, Any]:
    section = {
        "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
        "dynamic_active_secrets": list(active),
        "dynamic_warming_secrets": warming,
        "static_secrets": static,
    }
    other = {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump"}
    return {"configs": [other, section]}


def show(tmp_path: Path, data: object, *arguments: str) -> Result:
    file = tmp_path / "dump.json"
    file.write_text(data if isinstance(data, str) else json.dumps(data))
    return CliRunner().invoke(cli, ["secret", "-f", str(file), *arguments])


def test_a_table(tmp_path: Path) -> None:
    """Names, kind, whose, by whom, serial number, validity; a row for each certificate."""
    roots = AUTHORITY.root_pem + pair("other").chain
    done = show(tmp_path, dump(key_pair("default", OWN.certificate_pem), trust("ROOTCA", roots)))
    assert done.exit_code == 0
    lines = [line for line in done.output.splitlines() if line.strip("─ ")]
    assert len(lines) == 4
    for expected in ("default", "key pair", "active", str(WEB), "O=shop.example", "valid"):
        assert expected in lines[1]
    assert OWN.chain.serial in lines[1]
    assert f"{OWN.not_after:%Y-%m-%d %H:%M:%S}" in lines[1]
    assert "ROOTCA" in lines[2]
    assert "spiffe://shop.example" in lines[2]
    assert "itself" in lines[2]
    assert "ROOTCA" not in lines[3]
    assert "other" in lines[3]


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_for_machines(tmp_path: Path, form: str) -> None:
    """The same as data, with what a table has no room for."""
    data = dump(
        key_pair("default", OWN.certificate_pem), trust("ca", AUTHORITY.root_pem, revocation_list())
    )
    done = show(tmp_path, data, "-o", form)
    own, roots = (json.loads if form == "json" else yaml.safe_load)(done.output)
    assert own["certificates"][0]["spiffeId"] == str(WEB)
    assert own["certificates"][0]["serial"] == OWN.chain.serial
    assert (own["kind"], own["state"], own["hasKey"]) == ("key pair", "active", True)
    assert own["updated"] == "2026-11-22T10:00:00Z"
    assert (roots["kind"], roots["revocations"], roots["hasKey"]) == ("roots", 1, False)
    assert roots["certificates"][0]["isAuthority"] is True


@pytest.mark.parametrize("form", ["table", "json", "yaml"])
def test_no_key_is_shown_even_if_the_dump_has_it(tmp_path: Path, form: str) -> None:
    """A dump made by something else may hold keys; what is not a certificate is not passed on."""
    entry = key_pair("default", OWN.certificate_pem)
    entry["secret"]["tls_certificate"]["private_key"] = inline(OWN.key_pem)
    mixed = key_pair("mixed", OWN.key_pem + OWN.certificate_pem)
    only = key_pair("only a key", OWN.key_pem)
    generic = {"name": "token", "secret": {"generic_secret": {"secret": inline(OWN.key_pem)}}}
    done = show(tmp_path, dump(entry, mixed, only, generic), "-o", form)
    assert done.exit_code == 1, "one cannot be read"
    body = b"".join(OWN.key_pem.splitlines()[1:-1])
    for form_of_it in (OWN.key_pem, body, base64.b64encode(OWN.key_pem)):
        assert form_of_it[:40].decode() not in done.output
    assert "PRIVATE" not in done.output


def test_what_is_awaited_in_files_or_fixed(tmp_path: Path) -> None:
    """Envoy's "warming" is what an operator looks for: it is why a port stays closed."""
    files = {"certificate_chain": {"filename": "/etc/own.crt"}, "private_key": {"filename": "/k"}}
    fixed = {"name": "file", "secret": {"name": "file", "tls_certificate": files}}
    awaited = {"name": "kubernetes://gone", "secret": {"name": "kubernetes://gone"}}
    done = show(tmp_path, dump(warming=[awaited], static=[fixed]))
    lines = done.output.splitlines()
    assert any("kubernetes://gone" in line and "not there;" in line for line in lines)
    assert any("static" in line and "in /etc/own.crt, /k" in line for line in lines)


@pytest.mark.parametrize(
    ("pem", "status", "code"),
    [
        (pair(days=30).chain, "ended", 1),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read", 1),
        (b"", "empty", 0),
        (AUTHORITY.issue_workload(WEB, NOW, lifetime=timedelta(minutes=50)).certificate_pem,
         "ends soon", 0),
        (AUTHORITY.issue_workload(WEB, NOW + timedelta(days=9)).certificate_pem,
         "not valid yet", 0),
    ],
    ids=["ended", "damaged", "empty", "soon", "to come"],
)  # fmt: skip
def test_what_is_wrong_with_one(tmp_path: Path, pem: bytes, status: str, code: int) -> None:
    """The exit code tells scripts."""
    done = show(tmp_path, dump(key_pair("default", pem)))
    assert status in done.output
    assert done.exit_code == code


def test_entries_as_envoy_lists_them_by_resource(tmp_path: Path) -> None:
    """`/config_dump?resource=dynamic_active_secrets` has no section around them."""
    entry = {
        "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump.DynamicSecret",
        **key_pair("default", OWN.certificate_pem),
    }
    assert str(WEB) in show(tmp_path, {"configs": [entry]}).output


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_no_dump(tmp_path: Path, text: str) -> None:
    done = show(tmp_path, text)
    assert done.exit_code == 1
    assert "is not a config dump" in done.output


def test_nothing_is_said(tmp_path: Path) -> None:
    done = show(tmp_path, {"configs": []})
    assert done.exit_code == 0
    assert "It holds no secrets." in done.output


@pytest.mark.parametrize("arguments", [[], ["web.default", "--admin", "x"]])
def test_one_place_is_asked(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli, ["secret", *arguments])
    assert done.exit_code == 64
    assert "Say one of" in done.output


def test_nobody_is_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["secret", "--admin", f"unix:{tmp_path}/admin"])
    assert done.exit_code == 1
    assert "cannot be asked" in done.output


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ("configs", "secret", "name", "tls_certificate", "certificate_chain",
                 "inline_bytes", "validation_context", "trusted_ca", "dynamic_active_secrets")
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None)
@given(entry=json_values)
def test_whatever_a_dump_holds_is_shown_or_passed_over(entry: Any) -> None:
    """Dumps of other programs, or cut by hand."""
    secrets_of({"configs": entry})
    secrets_of(dump(entry, warming=entry))
