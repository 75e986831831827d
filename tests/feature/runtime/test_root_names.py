"""A root is called after the trust domain of the mesh it is made for, as istiod's is (C-R-1)."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from serving import ANY, serving, until

from pilothouse.certs.root_store import RootStore, certificate_file, read_state
from pilothouse.certs.rotation import Phase
from pilothouse.certs.rotation_files import Action, RotationRequest, write_request
from pilothouse.cli.ca import ca
from pilothouse.model.inputs import THE_MESH, TRUST_BUNDLE
from pilothouse.runtime.settings import Settings

MESH = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "trustDomain: %s"}
"""


class Place:
    """Directories of a server."""

    def __init__(self, mesh: Path, ca_dir: Path | None) -> None:
        self.mesh = mesh
        self.ca_dir = ca_dir

    @property
    def settings(self) -> Settings:
        return Settings(
            config_dir=self.mesh,
            grpc_addr=ANY,
            secure_grpc_addr=ANY,
            monitoring_addr=ANY,
            ca_dir=self.ca_dir,
            ca_rotation_settle=timedelta(milliseconds=50),
        )

    def call(self, trust_domain: str) -> None:
        (self.mesh / "istio.yaml").write_text(MESH % trust_domain)

    async def started(self) -> tuple[str, ...]:
        """Start a server; return the subjects of the roots that proxies are told to trust."""
        async with serving(self.settings) as server:
            bundle = server.plane.graph.store(TRUST_BUNDLE).rows[THE_MESH]
            return subjects(bundle.roots_pem)


def subjects(pem: bytes) -> tuple[str, ...]:
    found = x509.load_pem_x509_certificates(pem)
    return tuple(sorted(each.subject.rfc4514_string() for each in found))


@pytest.mark.parametrize("is_kept", [True, False], ids=["in a directory", "in memory"])
async def test_a_new_root(mesh: Path, tmp_path: Path, is_kept: bool) -> None:
    """Its subject is the organization alone, and nothing else; a name in its SAN beside."""
    place = Place(mesh, tmp_path / "ca" if is_kept else None)
    place.call("shop.example")
    assert await place.started() == ("O=shop.example",)


async def test_a_mesh_that_says_nothing(mesh: Path, tmp_path: Path) -> None:
    """The default of the mesh config (MC-08)."""
    assert await Place(mesh, tmp_path / "ca").started() == ("O=cluster.local",)


async def test_a_root_that_is_there_keeps_its_name(mesh: Path, tmp_path: Path) -> None:
    """Another trust domain is no reason to take anybody's root; the next root has the new name."""
    place = Place(mesh, tmp_path / "ca")
    await place.started()
    place.call("shop.example")
    assert await place.started() == ("O=cluster.local",)
    async with serving(place.settings) as server:
        ca_dir = tmp_path / "ca"
        write_request(ca_dir, RotationRequest(action=Action.ROTATE, phase=Phase.STABLE))
        before = signer(ca_dir)

        def is_over() -> bool:
            state = read_state(ca_dir)
            return state is not None and state.phase is Phase.STABLE and signer(ca_dir) != before

        await until(is_over)
        pem = (ca_dir / certificate_file(signer(ca_dir))).read_bytes()
        assert subjects(pem) == ("O=shop.example",)
        bundle = server.plane.graph.store(TRUST_BUNDLE).rows
        await until(lambda: subjects(bundle[THE_MESH].roots_pem) == ("O=shop.example",))


async def test_a_rotation_without_a_server_keeps_the_name(tmp_path: Path) -> None:
    """Nobody knows the mesh's trust domain then."""
    directory = tmp_path / "ca"
    RootStore.open(directory, "shop.example", datetime.now(UTC))
    asked = await asyncio.to_thread(
        CliRunner().invoke, ca, ["rotate", "--ca-dir", str(directory)], standalone_mode=False
    )
    assert asked.exception is None
    state = read_state(directory)
    assert state is not None
    assert len(state.trusted_roots) == 2
    for each in state.trusted_roots:
        assert subjects((directory / certificate_file(each)).read_bytes()) == ("O=shop.example",)


async def test_config_that_cannot_be_read_ends_the_start(tmp_path: Path) -> None:
    """Nobody goes on waiting for a name that does not come."""
    place = Place(tmp_path / "absent", tmp_path / "ca")
    with pytest.raises(Exception, match="absent"):
        async with asyncio.timeout(20):
            await place.started()


def signer(directory: Path) -> str:
    state = read_state(directory)
    assert state is not None
    return state.signer
