"""What TLS real sidecars agree on under a policy, and who is let in unchecked (S-PA-8, S-PA-9)."""

import re
from collections.abc import AsyncIterator

import isolation
import pytest
import pytest_asyncio
from mutual_mesh import Ground, mutual_mesh

from pilothouse.model.inputs import THE_MESH, TLS_POLICY
from pilothouse.model.tls_policy import FIPS_CIPHERS, CompliancePolicy, TlsPolicy
from pilothouse.providers.directory_state import Change

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("mutual_tls"),
    pytest.mark.timeout(180),
]

AES_OF_TLS13 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"}
AGREED = re.compile(r"outbound\|.*\.ssl\.(versions|ciphers|curves)\.(.+)")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    """The mesh of this file, where only mutual TLS is taken."""
    async with mutual_mesh(tmp_path_factory.mktemp("m"), delta=True) as made:
        yield made


async def apply(ground: Ground, policy: TlsPolicy, mesh: str = "{}") -> None:
    """Have the server run with a policy, and wait until every Envoy has what comes of it."""
    await ground.mesh.control.take([Change(TLS_POLICY.name, THE_MESH, policy)])
    head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n"
    await ground.mesh.control.apply(f"{head}data:\n  mesh: |\n    {mesh}\n", "mesh.yaml")
    await ground.apply_mode("STRICT")
    assert ground.mesh.control.rejected() == []


async def agreed(ground: Ground) -> dict[tuple[str, str], int]:
    """Return how many handshakes of the client agreed on what."""
    stats = await ground.mesh.workloads["client"].envoy.stats(r"\.ssl\.")
    counts: dict[tuple[str, str], int] = {}
    for name, count in stats.items():
        match = AGREED.search(name)
        if match:
            key = (match[1], match[2])
            counts[key] = counts.get(key, 0) + count
    return counts


@pytest.mark.parametrize(
    ("policy", "mesh", "versions", "curves", "ciphers"),
    [
        ("fips-140-2", "meshMTLS: {minProtocolVersion: TLSV1_3}", {"TLSv1.2"}, {"P-256"},
         set(FIPS_CIPHERS)),
        ("fips-140-3", "{}", {"TLSv1.3"}, {"P-256", "P-384"}, AES_OF_TLS13),
        ("pqc", "{}", {"TLSv1.3"}, {"X25519MLKEM768"}, AES_OF_TLS13),
    ],
)  # fmt: skip
async def test_what_is_agreed_on(
    ground: Ground, policy: str, mesh: str, versions: set[str], curves: set[str], ciphers: set[str]
) -> None:
    """S-PA-9: a stock Envoy takes each policy, and its handshakes are within it."""
    await apply(ground, TlsPolicy(CompliancePolicy(policy)), mesh)
    before = await agreed(ground)
    for service in ("declared", "detected"):
        for kind in ("tcp", "tls"):  # of those each makes a connection of its own
            assert await ground.speak("client", service, kind) == service
    after = await agreed(ground)
    made = {key for key, count in after.items() if count > before.get(key, 0)}
    for kind, allowed in (("versions", versions), ("curves", curves), ("ciphers", ciphers)):
        seen = {name for group, name in made if group == kind}
        assert seen, kind
        assert seen <= allowed, kind


async def test_callers_of_other_trust_domains(ground: Ground) -> None:
    """S-PA-8: kept out, unless the server skips the check; who has no certificate always is."""
    for skips in (False, True, False):
        await apply(ground, TlsPolicy(skips_trust_domains=skips))
        for service in ("declared", "detected"):
            assert await ground.speak("foreign", service, "tcp") == (service if skips else "")
            assert await ground.speak("client", service, "tcp") == service
            assert await ground.speak("plain", service, "tcp") == ""
