"""Addresses and settings are checked before anything is opened."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.model.tls_policy import CompliancePolicy, TlsPolicy
from pilothouse.runtime.addresses import Address, InvalidSetting, parse_address
from pilothouse.runtime.settings import Settings

DIR = Path("mesh")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":15010", Address("127.0.0.1", 15010)),
        ("localhost:0", Address("127.0.0.1", 0)),
        ("127.0.0.1:65535", Address("127.0.0.1", 65535)),
        ("[::1]:80", Address("::1", 80)),
        ("0.0.0.0:1", Address("0.0.0.0", 1)),
        (" example.com:7 ", Address("example.com", 7)),
    ],
)
def test_address_is_read(text: str, expected: Address) -> None:
    """A missing host means loopback, unlike istiod."""
    assert parse_address(text, "--x") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "15010",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "h:-1",
        "h:\uff11",
        "::1:80",
        "[h]:80",
        "a b:1",
        "http://h:1",
        "h:8o",
    ],
)
def test_bad_address_names_the_option(text: str) -> None:
    """The error says which option and what it should look like."""
    with pytest.raises(InvalidSetting, match=r"^--x: ") as caught:
        parse_address(text, "--x")
    assert caught.value.option == "--x"


@given(st.ip_addresses(), st.integers(0, 65535))
def test_address_round_trips(host: object, port: int) -> None:
    """Reading returns what formatted it, IPv6 in brackets."""
    address = Address(str(host).partition("%")[0], port)
    assert parse_address(str(address), "--x") == address


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.com", "localhost.evil.com"])
def test_plaintext_beyond_loopback_is_refused(host: str) -> None:
    """Plaintext xDS and monitoring stay on this machine (issue 2, items 7 and 8)."""
    with pytest.raises(InvalidSetting, match="--grpc-addr"):
        Settings(config_dir=DIR, grpc_addr=Address(host, 1))
    with pytest.raises(InvalidSetting, match="--monitoring-addr"):
        Settings(config_dir=DIR, monitoring_addr=Address(host, 1))


def test_plaintext_xds_can_be_opened_on_purpose() -> None:
    """One flag opens xDS, none opens monitoring."""
    far = Address("0.0.0.0", 15010)
    assert Settings(config_dir=DIR, grpc_addr=far, allow_remote_plaintext=True).grpc_addr == far
    with pytest.raises(InvalidSetting, match="--monitoring-addr"):
        Settings(config_dir=DIR, monitoring_addr=far, allow_remote_plaintext=True)


def test_contradicting_durations_are_refused() -> None:
    """Nobody waits longer for quiet than the longest wait."""
    with pytest.raises(InvalidSetting, match="--debounce"):
        Settings(config_dir=DIR, quiet=timedelta(seconds=20))


def test_a_negative_grace_is_refused() -> None:
    """A workload cannot be dropped before it goes."""
    with pytest.raises(InvalidSetting, match="--workload-entry-grace"):
        Settings(config_dir=DIR, workload_entry_grace=timedelta(seconds=-1))


@pytest.mark.parametrize("domain", ["", ".", "cluster.local.", " x"])
def test_bad_domain_is_refused(domain: str) -> None:
    """The domain is written without dots at its ends."""
    with pytest.raises(InvalidSetting, match="--domain"):
        Settings(config_dir=DIR, domain=domain)


CHACHA = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"


def test_policies_that_the_secure_port_cannot_keep() -> None:
    """S-PA-9: they are refused rather than kept by proxies only; without the port there is none."""
    pqc, fips = CompliancePolicy.PQC, CompliancePolicy.FIPS_140_3
    with pytest.raises(InvalidSetting, match=r"--compliance-policy: pqc.* --secure-grpc-addr off"):
        Settings(config_dir=DIR, compliance_policy=pqc)
    without = Settings(config_dir=DIR, compliance_policy=pqc, secure_grpc_addr=None)
    assert without.tls_policy == TlsPolicy(pqc)
    assert not any(without.port_tls)
    with pytest.raises(InvalidSetting, match="none of the suites"):
        Settings(config_dir=DIR, compliance_policy=fips, tls_cipher_suites=(CHACHA,))
    assert Settings(config_dir=DIR, compliance_policy=fips).port_tls.is_tls12_only
    assert Settings(config_dir=DIR, tls_cipher_suites=(CHACHA,)).port_tls.ciphers
