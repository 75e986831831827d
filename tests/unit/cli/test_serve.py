"""Options of ``pilothouse serve``, by name, environment and istiod's spelling."""

from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from pilothouse.certs.issued import KeyAlgorithm
from pilothouse.cli.lazy import Exit
from pilothouse.cli.main import cli
from pilothouse.model.tls_policy import CompliancePolicy, TlsPolicy
from pilothouse.runtime import app
from pilothouse.runtime.addresses import Address
from pilothouse.runtime.settings import LogFormat, LogLevel, Settings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Return the settings that the server would have run with."""
    taken: list[Settings] = []

    def run(settings: Settings) -> int:
        taken.append(settings)
        return 0

    monkeypatch.setattr(app, "run", run)
    return taken


def invoke(*arguments: str, command: str = "serve", **environment: str) -> tuple[int, str]:
    """Run the command; return exit code and output."""
    done = CliRunner().invoke(cli, [command, *arguments], env=environment)
    return done.exit_code, done.output


def test_defaults(served: list[Settings]) -> None:
    """Loopback, istiod's ports, 100 ms quiet and a 10 s cap (issue 2, items 4 and 7)."""
    assert invoke("-d", "mesh") == (0, "")
    assert served == [Settings(config_dir=Path("mesh"))]
    assert str(served[0].grpc_addr) == "127.0.0.1:15010"
    assert str(served[0].secure_grpc_addr) == "127.0.0.1:15012"
    assert str(served[0].monitoring_addr) == "127.0.0.1:15014"
    assert served[0].quiet == timedelta(milliseconds=100)
    assert served[0].longest_wait == timedelta(seconds=10)


def test_istiod_spellings(served: list[Settings]) -> None:
    """istiod's flags mean the same (issue 2, item 7), under its own command name too."""
    code, output = invoke(
        "--configDir=a",
        "--meshConfig=m.yaml",
        "--grpcAddr=:1",
        "--secureGRPCAddr=",
        "--monitoringAddr=:3",
        "--domain=x.local",
        "--log_output_level=default:warn",
        "--log_as_json",
        command="discovery",
    )
    assert (code, output) == (0, "")
    assert served == [
        Settings(
            config_dir=Path("a"),
            mesh_config=Path("m.yaml"),
            grpc_addr=Address("127.0.0.1", 1),
            secure_grpc_addr=None,
            monitoring_addr=Address("127.0.0.1", 3),
            domain="x.local",
            log_level=LogLevel.WARNING,
            log_format=LogFormat.JSON,
        )
    ]


def test_environment(served: list[Settings]) -> None:
    """Each option has a variable; the command line wins."""
    code, _ = invoke(
        "--domain=line.local",
        PILOTHOUSE_CONFIG_DIR="a",
        PILOTHOUSE_GRPC_ADDR="127.0.0.1:0",
        PILOTHOUSE_SECURE_GRPC_ADDR="off",
        PILOTHOUSE_DEBOUNCE="0",
        PILOTHOUSE_DOMAIN="environment.local",
        PILOTHOUSE_ALLOW_REMOTE_PLAINTEXT="true",
        PILOTHOUSE_LOG_FORMAT="console",
    )
    assert code == 0
    (settings,) = served
    assert settings.grpc_addr.port == 0
    assert settings.secure_grpc_addr is None
    assert settings.quiet == timedelta(0)
    assert settings.domain == "line.local"
    assert settings.allow_remote_plaintext
    assert settings.log_format is LogFormat.CONSOLE


def test_the_grace_of_workloads_that_register(served: list[Settings]) -> None:
    """WG-01: ten seconds, as in istiod, whose variable counts too."""
    code, _ = invoke("--config-dir=a")
    assert code == 0
    code, _ = invoke("--config-dir=a", PILOT_WORKLOAD_ENTRY_GRACE_PERIOD="3s")
    assert code == 0
    assert [each.workload_entry_grace.total_seconds() for each in served] == [10, 3]


def test_the_secure_port(served: list[Settings]) -> None:
    """C-R-14, C-A-2, XP-04: suites by istiod's names, token issuers, the rate of connections."""
    suites = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    code, _ = invoke(
        *("-d", "mesh", "--tls-cipher-suites", suites, "--oidc-issuers", "issuers.yaml"),
        PILOT_MAX_REQUESTS_PER_SECOND="25",
    )
    assert code == 0
    (settings,) = served
    assert settings.tls_cipher_suites == tuple(suites.split(", "))
    assert settings.oidc_issuers == Path("issuers.yaml")
    assert settings.max_connects_per_second == 25
    code, output = invoke("-d", "mesh", "--tls-cipher-suites", "TLS_RSA_WITH_RC4_128_SHA")
    assert code == 1
    assert "'TLS_RSA_WITH_RC4_128_SHA' is not offered" in output
    assert invoke("-d", "mesh", "--max-connects-per-second", "-1")[0] == 1
    assert (
        invoke("-d", "mesh", "--server-names", "b.example", ISTIOD_CUSTOM_HOST="a.example")[0] == 0
    )
    assert invoke("-d", "mesh", ISTIOD_CUSTOM_HOST="a.example, 192.0.2.1")[0] == 0
    assert [each.server_names for each in served[1:]] == [
        ("b.example",), ("a.example", "192.0.2.1"),
    ]  # fmt: skip


def test_what_is_demanded_of_tls(served: list[Settings]) -> None:
    """S-PA-8, S-PA-9: nothing unless it is said, by our names or istiod's."""
    assert invoke("-d", "mesh", COMPLIANCE_POLICY="")[0] == 0
    assert invoke("-d", "mesh", COMPLIANCE_POLICY="fips-140-2")[0] == 0
    assert invoke("-d", "mesh", "--compliance-policy=fips-140-3", COMPLIANCE_POLICY="pqc")[0] == 0
    assert invoke("-d", "mesh", PILOT_SKIP_VALIDATE_TRUST_DOMAIN="true")[0] == 0
    assert invoke("-d", "mesh", "--skip-validate-trust-domain")[0] == 0
    assert [each.tls_policy for each in served] == [
        TlsPolicy(),
        TlsPolicy(CompliancePolicy.FIPS_140_2),
        TlsPolicy(CompliancePolicy.FIPS_140_3),
        TlsPolicy(skips_trust_domains=True),
        TlsPolicy(skips_trust_domains=True),
    ]
    assert invoke("-d", "mesh", COMPLIANCE_POLICY="fips")[0] == Exit.USAGE
    code, output = invoke("-d", "mesh", COMPLIANCE_POLICY="pqc")
    assert code == 1
    assert "--compliance-policy: pqc cannot be had on the secure port" in output


def test_the_authority(served: list[Settings]) -> None:
    """C-R-1, C-R-4, C-S-5: where it is, and how long its certificates last, also istiod's way."""
    code, output = invoke(
        "--config-dir=a", "--ca-dir=ca", "--ca-certs-dir=cacerts", "--ca-key-algorithm=rsa-2048",
        "--workload-cert-ttl=1h", "--ca-rotation-settle=5s", MAX_WORKLOAD_CERT_TTL="48h",
    )  # fmt: skip
    assert (code, output) == (0, "")
    assert served == [
        Settings(
            config_dir=Path("a"),
            ca_dir=Path("ca"),
            ca_certs_dir=Path("cacerts"),
            ca_key_algorithm=KeyAlgorithm.RSA_2048,
            workload_cert_ttl=timedelta(hours=1),
            max_workload_cert_ttl=timedelta(hours=48),
            ca_rotation_settle=timedelta(seconds=5),
        )
    ]
    code, output = invoke("--config-dir=a", "--workload-cert-ttl=50h", MAX_WORKLOAD_CERT_TTL="48h")
    assert code == 1
    assert "must be positive and not longer than --max-workload-cert-ttl" in output


def test_long_quiet_time_stretches_the_cap(served: list[Settings]) -> None:
    """Who asks for 30 s of quiet does not have to say the cap as well."""
    assert invoke("-d", "mesh", "--debounce", "30s")[0] == 0
    assert served[0].longest_wait == timedelta(seconds=30)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--grpc-addr", "0.0.0.0:15010"), "--allow-remote-plaintext"),
        (("--monitoring-addr", "0.0.0.0:15014"), "no authentication yet"),
        (("--monitoring-addr", "10.0.0.1:0", "--allow-remote-plaintext"), "--monitoring-addr"),
    ],
)
def test_unprotected_ports_stay_on_loopback(
    served: list[Settings], arguments: tuple[str, ...], said: str
) -> None:
    """Refused with the way out (issue 2, items 7 and 8)."""
    code, output = invoke("-d", "mesh", *arguments)
    assert code == 1
    assert said in output
    assert not served


@pytest.mark.parametrize(
    "arguments",
    [
        ("--grpc-addr", "15010"),
        ("--grpc-addr", "off"),
        ("--monitoring-addr", ""),
        ("--debounce", "soon"),
        ("--debounce", "-1s"),
        ("--log-level", "loud"),
    ],
)
def test_wrong_use_exits_64(served: list[Settings], arguments: tuple[str, ...]) -> None:
    """Malformed options name themselves."""
    code, output = invoke("-d", "mesh", *arguments)
    assert code == 64
    assert arguments[0] in output
    assert not served


def test_help_shows_one_spelling() -> None:
    """istiod's spellings work but are not shown."""
    _, output = invoke("-h")
    assert "--grpc-addr" in output
    assert "--grpcAddr" not in output
    assert "log_as_json" not in output
