"""
What the operator chose, as one frozen value that is passed in.

Nothing reads the environment or the command line here: `pilothouse.cli` does, and gives names to
the options. Checks that need only the settings themselves are made at construction, so that a
`Settings` in hand is one the server may run with.
"""

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from pilothouse.certs.front.ciphers import OPENSSL_NAMES, PolicyUnavailable, PortTls, port_tls
from pilothouse.certs.issued import DEFAULT_TTL, LONGEST_TTL, KeyAlgorithm
from pilothouse.model.tls_policy import CompliancePolicy, TlsPolicy
from pilothouse.model.topology_labels import LOCAL_CLUSTER
from pilothouse.runtime.addresses import LOOPBACK, Address, InvalidSetting
from pilothouse.runtime.server_names import check_server_name

DEFAULT_GRPC: Final = Address(LOOPBACK, 15_010)
DEFAULT_SECURE_GRPC: Final = Address(LOOPBACK, 15_012)
DEFAULT_MONITORING: Final = Address(LOOPBACK, 15_014)
DEFAULT_DOMAIN: Final = "cluster.local"
DEFAULT_REVISION: Final = "default"
DEFAULT_QUIET: Final = timedelta(milliseconds=100)
DEFAULT_LONGEST_WAIT: Final = timedelta(seconds=10)
DEFAULT_DRAIN: Final = timedelta(seconds=5)
DEFAULT_SETTLE: Final = timedelta(seconds=30)
DEFAULT_ENTRY_GRACE: Final = timedelta(seconds=10)


_CLUSTER_NAME: Final = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?")
"""As values of labels: the name is compared with them."""


class LogFormat(StrEnum):
    """How log lines look; AUTO is human on a terminal and JSON otherwise."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class RemoteCluster(NamedTuple):
    """A cluster beside the one that the config is from: its name, and the directory of objects."""

    name: str
    directory: Path


def check_clusters(own: str, others: tuple[RemoteCluster, ...], config: tuple[Path, ...]) -> None:
    """Check names of clusters, and that no object is in two; raises InvalidSetting."""
    names = [own, *(each.name for each in others)]
    for index, name in enumerate(names):
        option = "--remote-cluster" if index else "--cluster-id"
        if _CLUSTER_NAME.fullmatch(name) is None:
            raise InvalidSetting(option, f"{name!r} is no name for a cluster, such as west-1.")
        if name in names[:index]:
            raise InvalidSetting(option, f"{name} names two clusters.")
    folders = [Path(os.path.abspath(each)) for each in config]  # noqa: PTH100 (links stay links)
    for name, directory in others:
        folder = Path(os.path.abspath(directory))  # noqa: PTH100
        for other in folders:
            if folder.is_relative_to(other) or other.is_relative_to(folder):
                raise InvalidSetting(
                    "--remote-cluster",
                    f"{directory} of {name} and {other} are within one another; folders are read"
                    " with all below them, and an object is in one cluster.",
                )
        folders.append(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    All settings of a server.

    `cluster_id` is the name of the cluster that `config_dir` is from; `remote_clusters` are others,
    of which only what says where services run is read.
    `secure_grpc_addr` None turns the TLS port off. `quiet` is how long changes must have paused
    before a commit that follows another closely, `longest_wait` the most a change waits for that;
    `quiet` zero commits everything at once. `ca_dir` None keeps the root key in memory,
    `ca_certs_dir` holds an authority to be used instead, `ca_rotation_settle` is how long proxies
    must be seen to have what a step of a rotation needs. `drain` is how long streams may finish
    after a signal.

    `max_connects_per_second` is the rate at which streams are let in (None: no limit, 0: istiod's).
    `workload_entry_grace` is how long a registered workload may be without a stream.
    `oidc_issuers` is a file of token issuers to trust. `tls_cipher_suites` are those of TLS 1.2 on
    the secure port, by istiod's names; none means the good ones. `server_names` are DNS names and
    addresses that its certificate is valid for beside istiod's own. `compliance_policy` restricts
    all TLS, of proxies and the secure port; `skip_validate_trust_domain` lets workloads of any
    trust domain call those of the mesh. `tls_cert_file` and
    `tls_key_file` hold a certificate to be used instead, `ca_cert_file` further roots of clients.
    `ca_server` false means that another authority issues for the mesh, whose roots are in
    `ca_cert_file`.

    Raises: InvalidSetting: An address would be reachable from other machines without protection,
        or durations contradict each other.
    """

    config_dir: Path
    cluster_id: str = LOCAL_CLUSTER
    remote_clusters: tuple[RemoteCluster, ...] = ()
    mesh_config: Path | None = None
    mesh_networks: Path | None = None
    revision: str = DEFAULT_REVISION
    grpc_addr: Address = DEFAULT_GRPC
    secure_grpc_addr: Address | None = DEFAULT_SECURE_GRPC
    monitoring_addr: Address = DEFAULT_MONITORING
    domain: str = DEFAULT_DOMAIN
    quiet: timedelta = DEFAULT_QUIET
    longest_wait: timedelta = DEFAULT_LONGEST_WAIT
    drain: timedelta = DEFAULT_DRAIN
    ports_file: Path | None = None
    ca_server: bool = True
    ca_dir: Path | None = None
    ca_certs_dir: Path | None = None
    ca_key_algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256
    ca_rotation_settle: timedelta = DEFAULT_SETTLE
    workload_cert_ttl: timedelta = DEFAULT_TTL
    max_workload_cert_ttl: timedelta = LONGEST_TTL
    oidc_issuers: Path | None = None
    max_connects_per_second: float | None = None
    workload_entry_grace: timedelta = DEFAULT_ENTRY_GRACE
    tls_cipher_suites: tuple[str, ...] = ()
    server_names: tuple[str, ...] = ()
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    ca_cert_file: Path | None = None
    compliance_policy: CompliancePolicy = CompliancePolicy.NONE
    skip_validate_trust_domain: bool = False
    allow_remote_plaintext: bool = False
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.AUTO

    def __post_init__(self) -> None:
        """Check what the settings alone can tell."""
        if not self.grpc_addr.is_loopback and not self.allow_remote_plaintext:
            raise InvalidSetting(
                "--grpc-addr",
                f"{self.grpc_addr} is reachable from other machines, and this port neither"
                " encrypts nor knows its callers; bind 127.0.0.1, or pass"
                " --allow-remote-plaintext if the network itself is trusted.",
            )
        if not self.monitoring_addr.is_loopback:
            raise InvalidSetting(
                "--monitoring-addr",
                f"{self.monitoring_addr} is reachable from other machines, and this port has no"
                " authentication yet but shows the mesh's whole config; bind 127.0.0.1 and put"
                " an authenticating proxy in front.",
            )
        if self.max_connects_per_second is not None and self.max_connects_per_second < 0:
            raise InvalidSetting("--max-connects-per-second", "it must not be negative.")
        if self.workload_entry_grace < timedelta(0):
            raise InvalidSetting("--workload-entry-grace", "it must not be negative.")
        check_clusters(self.cluster_id, self.remote_clusters, (self.config_dir,))
        for suite in self.tls_cipher_suites:
            if suite not in OPENSSL_NAMES:
                raise InvalidSetting(
                    "--tls-cipher-suites",
                    f"{suite!r} is not offered; known are {', '.join(OPENSSL_NAMES)}.",
                )
        try:
            self.port_tls  # noqa: B018 (whether there is one)
        except PolicyUnavailable as error:
            raise InvalidSetting("--compliance-policy", str(error)) from None
        self._check_certificate_files()
        for name in self.server_names:
            check_server_name(name, "--server-names")
        if self.quiet < timedelta(0) or self.longest_wait < self.quiet:
            raise InvalidSetting(
                "--debounce",
                "the quiet time must not be negative nor longer than --debounce-max.",
            )
        if not timedelta(0) < self.workload_cert_ttl <= self.max_workload_cert_ttl:
            raise InvalidSetting(
                "--workload-cert-ttl",
                f"{self.workload_cert_ttl} must be positive and not longer than"
                f" --max-workload-cert-ttl, {self.max_workload_cert_ttl}.",
            )
        if not self.domain or self.domain != self.domain.strip(". "):
            raise InvalidSetting(
                "--domain", f"{self.domain!r} is not a DNS domain such as cluster.local."
            )

    def _check_certificate_files(self) -> None:
        if (self.tls_cert_file is None) != (self.tls_key_file is None) or (
            self.ca_cert_file is not None and self.tls_cert_file is None
        ):
            raise InvalidSetting(
                "--tls-cert-file", "it goes with --tls-key-file; --ca-cert-file goes with both."
            )
        if self.ca_server:
            return
        if self.ca_certs_dir is not None:
            raise InvalidSetting(
                "--ca-server", "a server without an authority does not use --ca-certs-dir."
            )
        if self.secure_grpc_addr is not None and self.ca_cert_file is None:
            raise InvalidSetting(
                "--ca-server",
                "nobody issues for the secure port then: give --tls-cert-file and --tls-key-file,"
                " and --ca-cert-file with the roots of the mesh, or turn the port off by"
                " --secure-grpc-addr=off.",
            )

    @property
    def tls_policy(self) -> TlsPolicy:
        """What is demanded of the TLS of proxies."""
        return TlsPolicy(self.compliance_policy, self.skip_validate_trust_domain)

    @property
    def port_tls(self) -> PortTls:
        """What is demanded of the secure port's, if there is one. Raises: PolicyUnavailable."""
        if self.secure_grpc_addr is None:
            return PortTls()
        return port_tls(self.tls_cipher_suites, self.compliance_policy)
