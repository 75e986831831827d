"""Signing in another process: the same certificates, bounded lines, deaths survived."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from certificates import ALICE, NOW, csr, verifier
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pilothouse.api.duration import Duration
from pilothouse.certs.issued import DEFAULT_TTL, IssuedChain, KeyAlgorithm
from pilothouse.certs.issuing import IssuingPolicy
from pilothouse.certs.material import BadMaterial
from pilothouse.certs.precedence import Precedence, RightOfWay
from pilothouse.certs.refusals import (
    CsrProblem,
    CsrRefused,
    SignerEnded,
    SigningFailed,
    SigningOverloaded,
    TtlRefused,
)
from pilothouse.certs.self_signed import make_root
from pilothouse.certs.signing import SigningPool
from pilothouse.model.identity import WorkloadIdentity

ROOT = make_root("cluster.local", NOW)
CSR = csr()


def pool_of(**options: object) -> SigningPool:
    return SigningPool(ROOT, IssuingPolicy(), clock=lambda: NOW, **options)  # type: ignore[arg-type]


@pytest.fixture
async def pool() -> AsyncIterator[SigningPool]:
    made = pool_of()
    await made.start()
    yield made
    await made.close()


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


async def until_gone(pid: int) -> None:
    while is_running(pid):  # noqa: ASYNC110 (a process that is not our child)
        await asyncio.sleep(0.01)


async def test_signs_requests_and_makes_keys(pool: SigningPool) -> None:
    """What comes back verifies as what is issued in this process does."""
    client = verifier(ROOT.roots_pem, NOW).build_client_verifier()
    chain = await pool.sign(CSR, ALICE)
    assert chain.not_after == NOW + DEFAULT_TTL
    client.verify(x509.load_pem_x509_certificate(chain.leaf_pem), [])
    for algorithm in (KeyAlgorithm.ECDSA_P256, KeyAlgorithm.RSA_2048):
        pair = await pool.issue(ALICE, timedelta(hours=1), algorithm)
        leaf = x509.load_pem_x509_certificate(pair.chain.leaf_pem)
        client.verify(leaf, [])
        key = serialization.load_pem_private_key(pair.key_pem, None)
        assert leaf.public_key() == key.public_key()
        assert pair.not_after == NOW + timedelta(hours=1)
    server = await pool.issue_server(["localhost", "::1"])
    leaf = x509.load_pem_x509_certificate(server.chain.leaf_pem)
    verifier(ROOT.roots_pem, NOW).build_server_verifier(x509.DNSName("localhost")).verify(leaf, [])


async def test_lifetimes_of_users_cross(pool: SigningPool) -> None:
    """What the command line reads is a duration of a type of its own."""
    chain = await pool.sign(CSR, ALICE, Duration.parse("90m"))
    assert chain.not_after == NOW + timedelta(minutes=90)


async def test_refusals_come_back_as_they_were(pool: SigningPool) -> None:
    """C-S-6: types and their attributes survive the pipe."""
    with pytest.raises(CsrRefused) as refused:
        await pool.sign(CSR, ALICE, timedelta(0) - timedelta(days=1)) and await pool.sign(
            b"nonsense", ALICE
        )
    assert refused.value.problem is CsrProblem.MALFORMED
    with pytest.raises(TtlRefused) as too_long:
        await pool.sign(CSR, ALICE, timedelta(days=91))
    assert (too_long.value.wanted, too_long.value.longest) == (
        timedelta(days=91),
        timedelta(days=90),
    )


async def test_many_at_once_keep_their_callers_apart() -> None:
    """Every caller gets a certificate of its own identity, whichever worker made it."""
    pool = pool_of(workers=2)
    await pool.start()
    try:
        who = [WorkloadIdentity("cluster.local", "default", f"w-{index}") for index in range(200)]
        chains = await asyncio.gather(*(pool.sign(CSR, each) for each in who))
        for identity, chain in zip(who, chains, strict=True):
            leaf = x509.load_pem_x509_certificate(chain.leaf_pem)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert list(names) == [x509.UniformResourceIdentifier(str(identity))]
        assert len({chain.serial for chain in chains}) == len(chains)
        assert pool.waiting_count == 0
    finally:
        await pool.close()


async def test_full_line_refuses_at_once() -> None:
    """Beyond the bound callers are told to come again; the server's own certificate goes first."""
    pool = pool_of(max_waiting=3)
    await pool.start()
    try:
        asked = [asyncio.create_task(pool.sign(CSR, ALICE)) for _ in range(40)]
        await asyncio.sleep(0)
        server = await pool.issue_server(["localhost"])
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert server
        overloaded = [each for each in results if isinstance(each, SigningOverloaded)]
        assert len(overloaded) == 40 - 2 - 3
        assert all(isinstance(each, IssuedChain | SigningOverloaded) for each in results)
    finally:
        await pool.close()


async def test_nothing_is_signed_or_answered_while_config_is_pushed() -> None:
    """Issue 4: not even what was under way is answered, as that sets off as much work as a push."""
    precedence, issued = Precedence(RightOfWay(longest_seconds=3_600)), 0

    def count(*_: object) -> None:
        nonlocal issued
        issued += 1

    pool = pool_of(precedence=precedence, on_issued=count)
    await pool.start()
    try:
        under_way = asyncio.create_task(pool.sign(CSR, ALICE))
        await asyncio.sleep(0)
        precedence.begin()
        waiting = asyncio.create_task(pool.sign(CSR, ALICE))
        await asyncio.wait({under_way, waiting}, timeout=0.2)
        assert issued == 0
        assert not under_way.done()
        precedence.end()
        await asyncio.gather(under_way, waiting)
        assert issued == 2
    finally:
        await pool.close()


async def test_cancelled_callers_leave_the_line(pool: SigningPool) -> None:
    """Who gave up costs no signing, and the others are answered."""
    asked = [asyncio.create_task(pool.sign(CSR, ALICE)) for _ in range(100)]
    await asyncio.sleep(0)
    for task in asked[:-1]:
        task.cancel()
    assert (await asked[-1]).leaf_pem
    assert pool.waiting_count == 0


async def test_dead_worker_is_replaced(pool: SigningPool) -> None:
    """Only what it was busy with fails; those behind are signed by its successor."""
    (pid,) = pool.process_ids
    os.kill(pid, signal.SIGSTOP)
    asked = [asyncio.create_task(pool.sign(CSR, ALICE)) for _ in range(20)]
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(each, SigningFailed) for each in results] == [True] + [False] * 19
    assert all(isinstance(each, IssuedChain) for each in results[1:])
    assert pool.process_ids != [pid]


async def test_signals_to_the_group_do_not_end_it(pool: SigningPool) -> None:
    """Ctrl-C reaches the whole group; a draining server still signs."""
    (pid,) = pool.process_ids
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert (await pool.sign(CSR, ALICE)).leaf_pem
    assert pool.process_ids == [pid]


async def test_close_ends_the_process_and_who_waits() -> None:
    pool = pool_of()
    await pool.start()
    (pid,) = pool.process_ids
    os.kill(pid, signal.SIGSTOP)
    waiting = asyncio.create_task(pool.sign(CSR, ALICE))
    await asyncio.sleep(0)
    await pool.close()
    await until_gone(pid)
    with pytest.raises(SigningFailed, match="closing"):
        await waiting
    with pytest.raises(SigningFailed, match="closing"):
        await pool.sign(CSR, ALICE)


async def test_other_material_is_used_after_load() -> None:
    """Rotation: after `load` returned nothing by the earlier signer is still to come."""
    told: list[str] = []
    pool = pool_of(workers=2, on_issued=lambda _who, chain, _made: told.append(chain.root))
    await pool.start()
    try:
        before = [asyncio.create_task(pool.sign(CSR, ALICE)) for _ in range(30)]
        await asyncio.sleep(0)
        new = make_root("cluster.local", NOW)
        await pool.load(new)
        told_by_then = len(told)
        after = [await pool.sign(CSR, ALICE) for _ in range(4)]
        await asyncio.gather(*before)
        assert {chain.root for chain in after} == {new.root}
        assert set(told[told_by_then:]) == {new.root}
        assert ROOT.root in told[:told_by_then]
        for pid in pool.process_ids:
            os.kill(pid, signal.SIGKILL)
        chains = await asyncio.gather(
            *(pool.sign(CSR, ALICE) for _ in range(4)), return_exceptions=True
        )
        chains = [await pool.sign(CSR, ALICE), *chains]
        assert {chain.root for chain in chains if isinstance(chain, IssuedChain)} == {new.root}
    finally:
        await pool.close()


async def test_bad_material_is_said_at_the_start() -> None:
    from msgspec.structs import replace  # noqa: PLC0415

    bad = replace(ROOT, key_pem=b"nonsense")
    pool = SigningPool(bad, IssuingPolicy(), clock=lambda: NOW)
    with pytest.raises(BadMaterial, match="not a PEM private key"):
        await pool.start()
    await pool.close()


async def test_ended_signer_refuses() -> None:
    """C-S-4."""
    pool = SigningPool(ROOT, IssuingPolicy(), clock=lambda: NOW + timedelta(days=3_651))
    await pool.start()
    with pytest.raises(SignerEnded):
        await pool.sign(CSR, ALICE)
    await pool.close()


def process_file(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


async def test_key_is_in_no_command_line_or_environment(pool: SigningPool) -> None:
    (pid,) = pool.process_ids
    body = ROOT.key_pem.splitlines()[1]
    assert b"signing_process" in process_file(pid, "cmdline")
    for name in ("cmdline", "environ"):
        assert body not in process_file(pid, name)


_ORPHAN = """
import asyncio, os, signal
from datetime import UTC, datetime
from pilothouse.certs.issuing import IssuingPolicy
from pilothouse.certs.self_signed import make_root
from pilothouse.certs.signing import SigningPool

async def main():
    now = datetime.now(UTC)
    pool = SigningPool(make_root("td", now), IssuingPolicy(), clock=lambda: now)
    await pool.start()
    print(pool.process_ids[0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_process_does_not_outlive_its_server() -> None:
    """A killed server has no time to end anybody."""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", _ORPHAN], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    async with asyncio.timeout(10):
        await until_gone(int(done.stdout))
