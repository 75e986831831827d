"""Certificates for proxies without an agent: issued once, renewed in time, dropped (D-A-7)."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry

from pilothouse.certs.authority import Authority, LocalIssuer
from pilothouse.certs.issued import KeyAlgorithm, KeyPair
from pilothouse.certs.refusals import SigningFailed
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.model.issued_certificates import WorkloadCertificate
from pilothouse.model.proxies import CertificateSource, NodeType, Proxy
from pilothouse.runtime.commit import Change
from pilothouse.runtime.workload_certificates import WorkloadCertificates

WEB = WorkloadIdentity("cluster.local", "shop", "web")


def proxy(
    identity: WorkloadIdentity | None = WEB, source: CertificateSource = CertificateSource.ADS
) -> Proxy:
    return Proxy(
        id="sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local",
        type=NodeType.SIDECAR,
        ips=("10.0.0.1",),
        name="web-1",
        namespace="shop",
        domain="shop.svc.cluster.local",
        certificates=source,
        identity=identity,
    )


class Bench:
    """Certificates over a real authority; `broken` makes it refuse so many times."""

    def __init__(self, lifetime: timedelta | None = None, linger: timedelta | None = None) -> None:
        self.offset = timedelta()
        self.rows: dict[Any, WorkloadCertificate | None] = {}
        self.issued = 0
        self.broken = 0
        self.changed = asyncio.Condition()
        self.local = LocalIssuer(Authority.create("cluster.local", self.now()), self.now)
        self.registry = CollectorRegistry()
        more = {} if linger is None else {"linger": linger}
        self.certificates = WorkloadCertificates(
            self,
            self.put,
            clock=self.now,
            registry=self.registry,
            lifetime=lifetime,
            **more,
        )

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    async def sign(self, *_: Any) -> Any:
        raise AssertionError("nobody asks")

    issue_server = sign

    async def issue(
        self,
        identity: WorkloadIdentity,
        ttl: timedelta | None = None,
        algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256,
    ) -> KeyPair:
        await asyncio.sleep(0)
        if self.broken:
            self.broken -= 1
            raise SigningFailed("it is broken on purpose")
        self.issued += 1
        return await self.local.issue(identity, ttl, algorithm)

    async def put(self, changes: Iterable[Change]) -> None:
        async with self.changed:
            self.rows.update({key: row for _, key, row in changes})
            self.changed.notify_all()

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(holds)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.certificates.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_proxy_finds_its_certificate_when_it_is_let_in() -> None:
    """Many proxies of one identity that come at once share one."""
    bench = Bench()
    await asyncio.gather(*(bench.certificates.prepare(proxy()) for _ in range(20)))
    assert bench.issued == 1
    row = bench.rows[str(WEB)]
    assert row is not None
    leaf = x509.load_pem_x509_certificate(row.chain_pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(WEB)]
    assert "PRIVATE" not in repr(row) + repr(bench.certificates.__dict__)
    await bench.certificates.prepare(proxy())
    assert bench.issued == 1


@pytest.mark.parametrize(
    "other",
    [proxy(None), proxy(source=CertificateSource.AGENT), proxy(source=CertificateSource.NONE)],
)
async def test_nobody_else_gets_a_key(other: Proxy) -> None:
    """D-Z-1: not without a verified identity, nor unless it is to have its key from here."""
    bench = Bench()
    await bench.certificates.prepare(other)
    bench.certificates.connected(other)
    bench.certificates.disconnected(other)
    assert (bench.issued, bench.rows) == (0, {})


async def test_certificates_are_renewed_at_half_their_life() -> None:
    """D-A-4: with some spread."""
    bench = Bench(lifetime=timedelta(hours=1))
    await bench.certificates.prepare(proxy())
    bench.certificates.connected(proxy())
    first = bench.rows[str(WEB)]
    bench.offset = timedelta(minutes=26)
    async with bench.running():
        await asyncio.sleep(0)
    assert bench.issued == 1
    bench.offset = timedelta(minutes=34)
    async with bench.running():
        await bench.until(lambda: bench.rows[str(WEB)] != first)
    assert bench.issued == 2


async def test_refusals_are_tried_again() -> None:
    bench = Bench()
    bench.broken = 1
    async with bench.running():
        await bench.certificates.prepare(proxy())
        assert not bench.rows
        bench.certificates.connected(proxy())
        await bench.until(lambda: bench.rows)
    failures = bench.registry.get_sample_value("pilothouse_workload_certificate_failures_total")
    assert failures == 1


async def test_keys_go_some_time_after_the_last_proxy_has() -> None:
    bench = Bench(linger=timedelta(minutes=1))
    async with bench.running():
        await bench.certificates.prepare(proxy())
        bench.certificates.connected(proxy())
        bench.certificates.connected(proxy())
        bench.certificates.disconnected(proxy())
        bench.offset = timedelta(minutes=2)
        await asyncio.sleep(0)
        assert bench.rows[str(WEB)] is not None
        bench.certificates.disconnected(proxy())
        bench.offset = timedelta(minutes=4)
        bench.certificates.connected(proxy(WorkloadIdentity("cluster.local", "shop", "other")))
        bench.certificates.disconnected(proxy(WorkloadIdentity("cluster.local", "shop", "other")))
        await bench.until(lambda: bench.rows[str(WEB)] is None)


async def test_another_root_means_other_certificates() -> None:
    """All that are held are issued anew, also one that was under way."""
    bench = Bench()
    await bench.certificates.prepare(proxy())
    old = bench.certificates.roots_in_use()
    other = WorkloadIdentity("cluster.local", "shop", "other")
    under_way = asyncio.create_task(bench.certificates.prepare(proxy(other)))
    await asyncio.sleep(0)
    bench.local = LocalIssuer(Authority.create("cluster.local", bench.now()), bench.now)
    await bench.certificates.reissue()
    await under_way
    new = bench.certificates.roots_in_use()
    assert len(new) == 1
    assert not new & old
