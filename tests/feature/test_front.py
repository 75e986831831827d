"""The TLS front: verify if given, relay, limits; a process that comes and goes with its parent."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import warnings
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from certificates import Key, make_ca, private_key_pem
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from fronted import ALICE, client_context, fronted, material, svid, until
from msgspec.structs import replace

from pilothouse.certs.authority import Authority
from pilothouse.certs.client_certificates import revoked_serials
from pilothouse.certs.front.ciphers import OPENSSL_NAMES, openssl_ciphers, port_tls
from pilothouse.certs.front.control import Limits
from pilothouse.certs.front.supervisor import FrontFailed
from pilothouse.certs.material import CaMaterial, fingerprint, make_material
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.tls_policy import CompliancePolicy


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("cluster.local", datetime.now(UTC))


# -- TLS ------------------------------------------------------------------------------------------


async def test_with_a_certificate_and_without(authority: Authority) -> None:
    """H5: the one port takes both; the main process knows which connection is whose."""
    async with fronted(authority) as here:
        for pair in (None, svid(authority)):
            async with here.connected(client_context(authority.root_pem, pair)) as (reader, writer):
                writer.write(b"x")
                assert await reader.read(1) == b"x"
                (peer,) = here.peers._peers.values()
                found = peer.certificate
                assert (found.identity if found else None) == (ALICE if pair else None)
                tls = writer.get_extra_info("ssl_object")
                assert tls.version() == "TLSv1.3"
                assert tls.selected_alpn_protocol() == "h2"
                shown = writer.get_extra_info("sockname")
                assert peer.address == f"{shown[0]}:{shown[1]}"
            await until(lambda: not len(here.peers))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_1])
async def test_versions(authority: Authority, version: ssl.TLSVersion) -> None:
    """C-R-14: TLS 1.2 at least; one of its good ciphers."""
    context = client_context(authority.root_pem, svid(authority))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):
        context.minimum_version = context.maximum_version = version
    async with fronted(authority) as here:
        assert await here.answers(context) is (version is ssl.TLSVersion.TLSv1_2)


async def test_chosen_ciphers(authority: Authority) -> None:
    """C-R-14: of TLS 1.2 only those that were chosen; TLS 1.3 is not touched."""
    assert set(openssl_ciphers(OPENSSL_NAMES).split(":")) <= {
        each["name"] for each in ssl.create_default_context().get_ciphers()
    }
    chosen = openssl_ciphers(["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"])
    async with fronted(authority) as here:
        await here.front.update(replace(material(authority), ciphers=chosen))
        for cipher, is_good in ((chosen, True), ("ECDHE-ECDSA-AES128-GCM-SHA256", False)):
            context = client_context(authority.root_pem)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(cipher)
            assert await here.answers(context) is is_good
        assert await here.answers(client_context(authority.root_pem))


@pytest.mark.parametrize("policy", ["fips-140-2", "fips-140-3"])
async def test_a_compliance_policy(authority: Authority, policy: str) -> None:
    """S-PA-9, C-R-14: TLS 1.2, the suites of FIPS and P-256, whoever asks for something else."""
    suites = ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"]
    for chosen in ([], [*suites, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]):
        demanded = port_tls(chosen, CompliancePolicy(policy))
        async with fronted(authority) as here:
            await here.front.update(replace(material(authority), **demanded._asdict()))
            context = client_context(authority.root_pem)
            async with here.connected(context) as (_, writer):
                tls = writer.get_extra_info("ssl_object")
                assert tls.version() == "TLSv1.2"
            for cipher, curve, is_good in (
                ("ECDHE-ECDSA-AES128-GCM-SHA256", "prime256v1", True),
                ("ECDHE-ECDSA-AES256-GCM-SHA384", "prime256v1", not chosen),
                ("ECDHE-ECDSA-CHACHA20-POLY1305", "prime256v1", False),
                ("ECDHE-ECDSA-AES128-GCM-SHA256", "X25519", False),
            ):
                context = client_context(authority.root_pem)
                context.set_ciphers(cipher)
                context.set_ecdh_curve(curve)
                assert await here.answers(context) is is_good, (cipher, curve)
            context = client_context(authority.root_pem)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            assert not await here.answers(context)


async def test_no_alpn(authority: Authority) -> None:
    """linkerd.md 0.3: a client that offers no ALPN is served."""
    context = ssl.create_default_context(cadata=authority.root_pem.decode())
    async with fronted(authority) as here:
        assert await here.answers(context)


async def test_certificates_that_do_not_count(authority: Authority) -> None:
    """C-R-13: of another root, of a server, of a foreign trust domain; all end the connection."""
    stranger = Authority.create("cluster.local", datetime.now(UTC))
    foreign = WorkloadIdentity("foreign.example", "default", "alice")
    server = authority.issue_server(["localhost"], datetime.now(UTC))
    async with fronted(authority) as here:
        for pair in (svid(stranger), server, svid(authority, foreign)):
            assert not await here.answers(client_context(authority.root_pem, pair))
        await until(lambda: sum(here.told.turned.values()) >= 3)
        assert here.told.refused == [f"the trust domain of {foreign} is not one of this mesh"]
        assert here.told.turned["identity"] == 1
        assert here.told.turned["handshake"] == 2
        assert await here.answers(client_context(authority.root_pem, svid(authority)))


async def test_roots_change_and_connections_stay(authority: Authority) -> None:
    """C-R-6: new handshakes see new roots and a new certificate; what is open is not dropped."""
    second = Authority.create("cluster.local", datetime.now(UTC))
    both = authority.root_pem + second.root_pem
    old = client_context(authority.root_pem, svid(authority))
    async with fronted(authority) as here, here.connected(old) as (reader, writer):
        assert not await here.answers(client_context(authority.root_pem, svid(second)))
        await here.front.update(material(authority, both))
        assert await here.answers(client_context(authority.root_pem, svid(second)))
        assert await here.answers(old)
        await here.front.update(material(second, second.root_pem))
        assert not await here.answers(old)
        assert await here.answers(client_context(second.root_pem, svid(second)))
        assert not await here.answers(client_context(second.root_pem, svid(authority)))
        writer.write(b"still here")
        assert await reader.read(10) == b"still here"


async def test_connections_by_a_root_that_is_trusted_no_more_end(authority: Authority) -> None:
    """With its key anybody can be forged; others stay, and who has no certificate does."""
    new = Authority.create("cluster.local", datetime.now(UTC))
    both = authority.root_pem + new.root_pem
    contexts = [
        client_context(both, svid(authority)),
        client_context(both, svid(new)),
        client_context(both),
    ]
    async with fronted(authority) as here, AsyncExitStack() as stack:
        await here.front.update(material(authority, both))
        opened = [await stack.enter_async_context(here.connected(each)) for each in contexts]
        await until(lambda: len(here.peers) == 3)
        fingerprints = {
            fingerprint(x509.load_pem_x509_certificate(each.root_pem)) for each in (authority, new)
        }
        assert here.front.retire(fingerprints) == 0
        (kept,) = fingerprints - {fingerprint(x509.load_pem_x509_certificate(authority.root_pem))}
        assert here.front.retire({kept}) == 1
        await until(lambda: len(here.peers) == 2)
        assert await opened[0][0].read() == b""
        for reader, writer in opened[1:]:
            writer.write(b"x")
            assert await reader.read(1) == b"x"


async def test_bad_material_is_refused_and_the_good_stays(authority: Authority) -> None:
    """A damaged key, or one of another certificate: told without showing it."""
    good = material(authority)
    other = material(authority)
    async with fronted(authority) as here:
        for bad in (
            type(good)(certificate_pem=good.certificate_pem, key_pem=other.key_pem,
                       roots_pem=good.roots_pem),
            type(good)(certificate_pem=good.certificate_pem, key_pem="x", roots_pem=good.roots_pem),
            type(good)(certificate_pem=good.certificate_pem, key_pem=good.key_pem, roots_pem="x"),
            type(good)(certificate_pem=good.certificate_pem, key_pem=good.key_pem,
                       roots_pem=good.roots_pem, crl_pem="x", ciphers="NONE-SUCH"),
        ):  # fmt: skip
            with pytest.raises(FrontFailed, match="cannot be used") as caught:
                await here.front.update(bad)
            assert "PRIVATE" not in str(caught.value)
        assert await here.answers(client_context(authority.root_pem, svid(authority)))


async def test_a_revocation_list() -> None:
    """C-R-8: with a list, a revoked certificate does not get in, and one on no list does."""
    now = datetime.now(UTC)
    root, key = make_ca("Root", now)
    ca = Authority(_material(root, key))
    gone, stays = svid(ca), svid(ca)
    serial = x509.load_pem_x509_certificate(gone.chain.leaf_pem).serial_number
    revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.subject)
        .last_update(now)
        .next_update(now.replace(year=now.year + 1))
        .add_revoked_certificate(revoked)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    async with fronted(ca) as here:
        open_ = client_context(ca.root_pem, gone)
        async with here.connected(open_) as (ended, _), here.connected(
            client_context(ca.root_pem, stays)
        ) as (reader, writer):  # fmt: skip
            await until(lambda: len(here.peers) == 2)
            listed = material(ca, crl=crl + crl)
            await here.front.update(listed)
            assert here.front.close(revoked_serials(listed.crl_pem)) == 1
            assert await ended.read() == b""
            writer.write(b"x")
            assert await reader.read(1) == b"x"
        assert not await here.answers(client_context(ca.root_pem, gone))
        assert await here.answers(client_context(ca.root_pem, stays))
        assert await here.answers(client_context(ca.root_pem))


def _material(root: x509.Certificate, key: Key) -> CaMaterial:
    pem = root.public_bytes(serialization.Encoding.PEM)
    return make_material(private_key_pem(key), pem, b"", pem, datetime.now(UTC))


# -- relaying -------------------------------------------------------------------------------------


async def test_much_passes_whole(authority: Authority) -> None:
    """20 MB there and back on each of three connections at once."""
    sent = os.urandom(1024 * 1024) * 20
    context = client_context(authority.root_pem)

    async def there_and_back() -> bool:
        async with here.connected(context) as (reader, writer):
            writer.write(sent)
            received = await reader.readexactly(len(sent))
            return received == sent

    async with fronted(authority) as here:
        assert all(await asyncio.gather(*(there_and_back() for _ in range(3))))


async def test_a_client_that_does_not_read_holds_little(authority: Authority) -> None:
    """Flow control: who does not read stops only his own peer, at a bounded buffer."""
    written = 0

    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        while True:
            writer.write(b"x" * 64 * 1024)
            await writer.drain()
            written += 64 * 1024

    context = client_context(authority.root_pem)
    async with fronted(authority, serve=pour) as here:
        before = here.rss_bytes
        async with AsyncExitStack() as open_:
            for _ in range(20):
                _, writer = await open_.enter_async_context(here.connected(context))
                writer.transport.pause_reading()
            seen = -1
            while seen != written:  # until nothing more is taken from the server
                seen = written
                await asyncio.sleep(0.5)
            assert 0 < written < 20 * 16 * 1024 * 1024
            assert here.rss_bytes - before < 20 * 4 * 1024 * 1024


async def test_requests_for_certificates_give_way(authority: Authority) -> None:
    """Issue 4: what they send, and new connections, wait; streams of proxies do not notice."""
    context = client_context(authority.root_pem)
    async with fronted(authority) as here, here.connected(context) as (reader, writer):
        await until(lambda: len(here.peers) == 1)
        (peer,) = here.peers._peers.values()
        here.front.hold(True)  # nobody is there whom it would hold back
        assert await here.answers(context)
        here.front.hold(False)
        here.peers.wants(peer, True)
        async with here.connected(context) as (other_reader, other_writer):
            here.front.hold(True)
            await here.front.update(material(authority))  # it has heard of both
            writer.write(b"x" * 100_000)
            waiting = asyncio.create_task(reader.readexactly(100_000))
            newcomer = asyncio.create_task(here.answers(context))
            for _ in range(20):
                other_writer.write(b"y")
                assert await other_reader.readexactly(1) == b"y"
            assert not waiting.done()
            assert not newcomer.done()
            here.front.hold(False)
            assert await waiting == b"x" * 100_000
            assert await newcomer


async def test_a_connection_that_asks_for_config_too_does_not_give_way(
    authority: Authority,
) -> None:
    context = client_context(authority.root_pem)
    async with fronted(authority) as here, here.connected(context) as (reader, writer):
        await until(lambda: len(here.peers) == 1)
        (peer,) = here.peers._peers.values()
        here.peers.wants(peer, True)
        assert here.peers.want_certificates == 1
        here.peers.wants(peer, False)
        here.peers.wants(peer, True)
        assert here.peers.want_certificates == 0
        here.front.hold(True)
        await here.front.update(material(authority))
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"


async def test_when_the_server_is_away_connections_end(authority: Authority) -> None:
    """A front whose server does not answer closes rather than hangs, and counts it."""
    async with fronted(authority) as here:
        here.backend.unlink()
        assert not await here.answers(client_context(authority.root_pem))
        await until(lambda: here.told.turned["backend"] == 1)
        await until(lambda: not len(here.peers))


# -- limits ---------------------------------------------------------------------------------------


async def test_slow_handshakes_end(authority: Authority) -> None:
    """Nothing, garbage, or half a greeting: the connection is closed in time, and others live."""
    limits = Limits(handshake_seconds=0.5)
    async with fronted(authority, limits=limits) as here:
        for greeting in (
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01",
            b"\x00" * 4096,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(greeting)
            try:
                async with asyncio.timeout(10):
                    while await reader.read(4096):
                        pass
            except ConnectionError:
                pass
            writer.close()
        await until(lambda: here.told.turned["slow"] >= 1 and here.told.turned["handshake"] >= 1)
        assert await here.answers(client_context(authority.root_pem))


async def test_one_address_cannot_take_all_places(authority: Authority) -> None:
    """Silent connections give way, first to others of their own address, then to all."""
    limits = Limits(half_open=40, half_open_by_address=30, grace_seconds=0.2, handshake_seconds=60)
    context = client_context(authority.root_pem)
    async with fronted(authority, limits=limits) as here, AsyncExitStack() as open_:
        await silence(open_, here.port, "127.0.0.2", 30)
        await until_answers(here, context, "127.0.0.2")
        await until(lambda: here.told.turned["dropped"] == 1)
        await silence(open_, here.port, "127.0.0.2", 1)
        await silence(open_, here.port, "127.0.0.3", 10)
        await until_answers(here, context, "127.0.0.4")
        await until(lambda: here.told.turned["dropped"] == 2)


async def silence(open_: AsyncExitStack, port: int, host: str, count: int) -> None:
    """Connect and say nothing."""
    for _ in range(count):
        silent = socket.socket()
        open_.callback(silent.close)
        silent.bind((host, 0))
        silent.setblocking(False)
        await asyncio.get_running_loop().sock_connect(silent, ("127.0.0.1", port))


async def until_answers(here, context, local):
    """Try again until a client is answered: the grace of the others must have passed."""
    async with asyncio.timeout(20):
        while not await here.answers(context, local):
            pass


async def test_what_was_dropped_is_gone(authority: Authority) -> None:
    """Hundreds of silent connections leave neither descriptors behind nor clients waiting."""
    limits = Limits(half_open_by_address=20, grace_seconds=0.0, handshake_seconds=60)
    async with fronted(authority, limits=limits) as here:
        before = descriptors(here.front.pid)
        async with AsyncExitStack() as open_:
            await silence(open_, here.port, "127.0.0.1", 300)
            await until(lambda: here.told.turned["dropped"] == 280)
            assert descriptors(here.front.pid) <= before + 20
        await until(lambda: descriptors(here.front.pid) == before)


def descriptors(pid: int | None) -> int:
    """Count what a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def test_a_storm_of_honest_clients(authority: Authority) -> None:
    """Hundreds at once from one address are all served, also where the server's queue is short."""
    context = client_context(authority.root_pem)
    async with fronted(authority) as here:
        assert all(await asyncio.gather(*(here.answers(context) for _ in range(250))))
        assert not here.told.turned


async def test_connections_are_limited(authority: Authority) -> None:
    """Above the limit a connection is closed at once; when one ends there is room again."""
    context = client_context(authority.root_pem, svid(authority))
    async with fronted(authority, limits=Limits(connections=3)) as here:
        async with AsyncExitStack() as open_:
            for _ in range(3):
                await open_.enter_async_context(here.connected(context))
            await until(lambda: len(here.peers) == 3)
            assert not await here.answers(context)
            await until(lambda: here.told.turned["full"] >= 1)
        await until(lambda: not len(here.peers))
        assert await here.answers(context)


async def test_strangers_make_room(authority: Authority) -> None:
    """
    Handshakes are cheap, so who has shown nothing yet may have half of the connections only.

    The oldest goes of whoever has most; who was recognised stays.
    """
    context = client_context(authority.root_pem)
    async with (
        fronted(authority, limits=Limits(connections=8)) as here,
        AsyncExitStack() as open_,
    ):
        known, _ = await open_.enter_async_context(here.connected(context, "127.0.0.2"))
        await until(lambda: len(here.peers) == 1)
        [peer] = here.peers._peers.values()
        peer.was_recognised = True
        peer.on_recognised()
        greedy = [
            (await open_.enter_async_context(here.connected(context, "127.0.0.2")))[0]
            for _ in range(4)
        ]
        await until(lambda: len(here.peers) == 5)
        for local, oldest in (("127.0.0.1", 0), ("127.0.0.2", 1)):
            reader, writer = await open_.enter_async_context(here.connected(context, local))
            writer.write(b"hello")
            async with asyncio.timeout(10):
                assert await reader.read(5) == b"hello"
                assert await greedy[oldest].read() == b""
        assert here.told.turned["dropped"] == 2
        assert not known.at_eof()
        assert not greedy[2].at_eof()
        member = client_context(authority.root_pem, svid(authority))
        for _ in range(3):
            await open_.enter_async_context(here.connected(member))
        await until(lambda: len(here.peers) == 8)
        assert here.told.turned["dropped"] == 2, "a certificate of the mesh is no stranger's"


async def test_strangers_do_not_stay(authority: Authority) -> None:
    """A connection on which nobody was recognised is closed after a while; others are not."""
    context = client_context(authority.root_pem)
    async with (
        fronted(authority, stranger_seconds=0.3) as here,
        here.connected(context) as (reader, _),
        here.connected(context) as (kept, writer),
    ):
        await until(lambda: len(here.peers) == 2)
        list(here.peers._peers.values())[1].was_recognised = True
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.write(b"x")
        assert await kept.read(1) == b"x"


# -- the process ----------------------------------------------------------------------------------


async def test_a_front_that_dies_is_replaced(authority: Authority) -> None:
    """What waits in the listening queue is served by the next one, with what was used last."""
    second = Authority.create("cluster.local", datetime.now(UTC))
    async with fronted(authority) as here:
        await here.front.update(material(second))
        context = client_context(second.root_pem, svid(second))
        async with here.connected(context) as (reader, _):
            first = here.front.pid
            os.kill(first, signal.SIGKILL)
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        assert await here.answers(context)
        assert here.told.exits == [-signal.SIGKILL]
        assert here.front.pid != first


async def test_what_the_front_knows_is_seen_nowhere(authority: Authority) -> None:
    """Keys are neither in its arguments nor its environment nor in any file."""
    async with fronted(authority) as here:
        await until_answers(here, client_context(authority.root_pem), "127.0.0.1")
        process = Path(f"/proc/{here.front.pid}")
        for name in ("cmdline", "environ"):
            assert b"PRIVATE" not in (process / name).read_bytes()
        opened = [str(file.readlink()) for file in (process / "fd").iterdir()]
        assert not [path for path in opened if "memfd" in path or path.endswith(".pem")]
        assert here.rss_bytes < 48 * 1024 * 1024


async def test_signals_to_the_group_are_the_parents_business(authority: Authority) -> None:
    """Ctrl-C reaches the front too; it goes on until the main process has said goodbye."""
    async with fronted(authority) as here:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(here.front.pid, number)
        assert await here.answers(client_context(authority.root_pem))
        assert here.told.exits == []


def test_it_ends_with_the_main_process(tmp_path: Path) -> None:
    """Killed or not: nobody is left listening on the port."""
    program = textwrap.dedent(
        """
        import asyncio, sys
        from datetime import UTC, datetime
        from fronted import fronted
        from pilothouse.certs.authority import Authority

        async def main():
            async with fronted(Authority.create("cluster.local", datetime.now(UTC))) as here:
                print(here.front.pid, here.port, flush=True)
                await asyncio.Event().wait()

        asyncio.run(main())
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    ) as process:
        assert process.stdout is not None
        pid, port = map(int, process.stdout.readline().split())
        os.kill(pid, 0)
        process.kill()
        process.wait(20)
    deadline = 400
    while Path(f"/proc/{pid}").exists() and "Z" not in _state(pid):
        deadline -= 1
        assert deadline, "the front outlives the main process"
        subprocess.run(["sleep", "0.05"], check=True)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
