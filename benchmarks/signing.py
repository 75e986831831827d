"""
What a certificate costs: through the signing process, beside `cryptography` by itself.

Same key kinds, same requests, same run, samples alternating: the ratio is the result. `raw` parses
the request and signs in a loop in one process, with nothing around it.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from pilothouse.certs.issued import KeyAlgorithm
from pilothouse.certs.issuing import IssuingPolicy, generate_key
from pilothouse.certs.material import CaMaterial, load_key
from pilothouse.certs.self_signed import make_root
from pilothouse.certs.signing import SigningPool
from pilothouse.model.identity import WorkloadIdentity

WHO: Final = WorkloadIdentity("cluster.local", "bench", "client")
PEM: Final = serialization.Encoding.PEM


@dataclass(slots=True)
class Signing:
    """Certificates a second, and seconds of a single one, for a kind of key."""

    algorithm: str
    rate: list[float] = field(default_factory=list)
    raw_rate: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    raw_latency: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float | str]:
        return {
            "algorithm": self.algorithm,
            "rate_per_second": median(self.rate),
            "raw_rate_per_second": median(self.raw_rate),
            "latency_seconds": median(self.latency),
            "raw_latency_seconds": median(self.raw_latency),
        }


def make_request(algorithm: KeyAlgorithm) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(generate_key(algorithm), hashes.SHA256()).public_bytes(PEM)


def raw_signer(material: CaMaterial, request: bytes) -> Callable[[], bytes]:
    """Return what parses the request and signs a certificate of the same shape."""
    key = load_key(material.key_pem)
    issuer = x509.load_pem_x509_certificate(material.certificate_pem)
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(WHO))])
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())

    def sign() -> bytes:
        asked = x509.load_pem_x509_csr(request)
        assert asked.is_signature_valid
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(issuer.subject)
            .public_key(asked.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(hours=24))
            .add_extension(names, critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
            .public_bytes(PEM)
        )

    return sign


async def measure_signing(algorithm: KeyAlgorithm, rounds: int, batch: int) -> Signing:
    """Measure one kind of key, for authority and requests alike."""
    material = make_root("cluster.local", datetime.now(UTC), algorithm)
    request = make_request(algorithm)
    raw = raw_signer(material, request)
    pool = SigningPool(material, IssuingPolicy(), clock=lambda: datetime.now(UTC))
    await pool.start()
    result = Signing(algorithm.value)
    try:
        await asyncio.gather(*(pool.sign(request, WHO) for _ in range(20)))
        for _ in range(rounds):
            began = time.perf_counter()
            await asyncio.gather(*(pool.sign(request, WHO) for _ in range(batch)))
            result.rate.append(batch / (time.perf_counter() - began))
            began = time.perf_counter()
            for _ in range(batch):
                raw()
            result.raw_rate.append(batch / (time.perf_counter() - began))
            for _ in range(20):
                began = time.perf_counter()
                await pool.sign(request, WHO)
                result.latency.append(time.perf_counter() - began)
                began = time.perf_counter()
                raw()
                result.raw_latency.append(time.perf_counter() - began)
    finally:
        await pool.close()
    return result


async def signing(rounds: int, batch: int) -> list[dict[str, float | str]]:
    """Measure the kinds of keys that are asked for."""
    kinds = (KeyAlgorithm.ECDSA_P256, KeyAlgorithm.RSA_2048)
    return [(await measure_signing(kind, rounds, batch)).summary() for kind in kinds]


if __name__ == "__main__":
    for each in asyncio.run(signing(10, 500)):
        print(each)
