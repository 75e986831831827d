"""``pilothouse serve``: options, their environment names and istiod's spellings, into Settings."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from pilothouse.api.duration import Duration
from pilothouse.certs.issued import DEFAULT_TTL, LONGEST_TTL, KeyAlgorithm
from pilothouse.cli.clusters import cluster_options
from pilothouse.cli.lazy import AliasedOption
from pilothouse.cli.tls_policy import tls_policy_options
from pilothouse.errors import MeshError
from pilothouse.runtime.addresses import Address, InvalidSetting, parse_address
from pilothouse.runtime.memory import leave_out_rich
from pilothouse.runtime.settings import (
    DEFAULT_DOMAIN,
    DEFAULT_ENTRY_GRACE,
    DEFAULT_GRPC,
    DEFAULT_LONGEST_WAIT,
    DEFAULT_MONITORING,
    DEFAULT_QUIET,
    DEFAULT_REVISION,
    DEFAULT_SECURE_GRPC,
    DEFAULT_SETTLE,
    LogFormat,
    LogLevel,
    Settings,
)

F = TypeVar("F", bound=Callable[..., Any])


def _option(
    name: str,
    *more: str,
    **attributes: Any,  # noqa: ANN401 (click's own are as loose)
) -> Callable[[F], F]:
    """Declare an option that PILOTHOUSE_NAME sets too; `more` are hidden spellings."""
    variable = "PILOTHOUSE_" + name.removeprefix("--").replace("-", "_").upper()
    attributes.setdefault("envvar", variable)
    parameter = name.removeprefix("--").replace("-", "_")
    return click.option(name, *more, parameter, cls=AliasedOption, **attributes)


class AddressType(click.ParamType[Address | None]):
    """HOST:PORT on the command line."""

    name = "HOST:PORT"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address | None:
        """Read it; an empty text or "off" (as empty variables do not count) is no port."""
        if isinstance(value, Address) or value is None:
            return value
        if str(value).strip().lower() in {"", "off"}:
            return None
        try:
            return parse_address(str(value), "address")
        except InvalidSetting as error:
            self.fail(error.problem, param, ctx)


class DurationType(click.ParamType[timedelta]):
    """A length of time such as 100ms; 0 is zero."""

    name = "DURATION"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read it as config files do."""
        if isinstance(value, timedelta):
            return value
        try:
            return Duration.parse(str(value).strip())
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class NamesType(click.ParamType[tuple[str, ...]]):
    """Names separated by commas."""

    name = "NAMES"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,  # noqa: ARG002 (click's signature)
        ctx: click.Context | None,  # noqa: ARG002 (click's signature)
    ) -> tuple[str, ...]:
        """Split them; what they may be is checked with the other settings."""
        if isinstance(value, tuple):
            return value
        return tuple(name.strip() for name in str(value).split(",") if name.strip())


class LogLevelType(click.Choice[str]):
    """A log level, also in istiod's form ``default:info``."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Read it; istiod's ``warn`` is warning."""
        text = str(value).rpartition(":")[2].lower()
        return super().convert({"warn": "warning"}.get(text, text), param, ctx)


@click.command(context_settings={"show_default": True})
@_option(
    "--config-dir",
    "--configDir",
    "-d",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Directory of YAML or JSON files that make the mesh; watched for changes.",
)
@cluster_options
@_option(
    "--mesh-config",
    "--meshConfig",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File of mesh-wide settings (MeshConfig). Without it the ConfigMap istio is used.",
)
@_option(
    "--mesh-networks",
    "--networksConfig",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File of the mesh's networks (MeshNetworks). Without it the ConfigMap istio is used.",
)
@_option(
    "--revision",
    default=DEFAULT_REVISION,
    metavar="NAME",
    envvar=["PILOTHOUSE_REVISION", "REVISION"],
    help="Which objects labelled istio.io/rev are used; those without the label always are.",
)
@_option(
    "--grpc-addr",
    "--grpcAddr",
    type=AddressType(),
    default=str(DEFAULT_GRPC),
    help="xDS in plaintext. ':15010' means loopback only; port 0 means any free port.",
)
@_option(
    "--secure-grpc-addr",
    "--secureGRPCAddr",
    "--secureGrpcAddr",
    type=AddressType(),
    default=str(DEFAULT_SECURE_GRPC),
    help="xDS and certificates over TLS, for callers that prove who they are by certificate or"
    " token. Empty or 'off' turns it off.",
)
@_option(
    "--monitoring-addr",
    "--monitoringAddr",
    type=AddressType(),
    default=str(DEFAULT_MONITORING),
    help="HTTP for /metrics, /ready and /debug; loopback only.",
)
@_option(
    "--domain",
    default=DEFAULT_DOMAIN,
    metavar="NAME",
    help="DNS domain of Kubernetes services.",
)
@_option(
    "--debounce",
    type=DurationType(),
    default=f"{DEFAULT_QUIET // timedelta(milliseconds=1)}ms",
    envvar=["PILOTHOUSE_DEBOUNCE", "PILOT_DEBOUNCE_AFTER"],
    help="Quiet time after which changes on the heels of others are pushed; 0 never waits.",
)
@_option(
    "--debounce-max",
    type=DurationType(),
    default=f"{int(DEFAULT_LONGEST_WAIT.total_seconds())}s",
    envvar=["PILOTHOUSE_DEBOUNCE_MAX", "PILOT_DEBOUNCE_MAX"],
    help="The longest a change waits for quiet.",
)
@_option(
    "--ca-server",
    type=click.BOOL,
    default=True,
    metavar="BOOLEAN",
    envvar=["PILOTHOUSE_CA_SERVER", "ENABLE_CA_SERVER"],
    help="Whether this server issues certificates. If false, another authority does: then"
    " --tls-cert-file and --tls-key-file are the port's, and --ca-cert-file has the mesh's roots.",
)
@_option(
    "--ca-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the root key and certificate are kept. Without it they live in memory.",
)
@_option(
    "--ca-certs-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="An authority to use instead: ca-cert.pem, ca-key.pem, cert-chain.pem, root-cert.pem.",
)
@_option(
    "--ca-key-algorithm",
    type=click.Choice([algorithm.value for algorithm in KeyAlgorithm]),
    default=KeyAlgorithm.ECDSA_P256.value,
    help="Kind of key of roots made from now on.",
)
@_option(
    "--workload-cert-ttl",
    type=DurationType(),
    default=f"{DEFAULT_TTL // timedelta(hours=1)}h",
    envvar=["PILOTHOUSE_WORKLOAD_CERT_TTL", "DEFAULT_WORKLOAD_CERT_TTL"],
    help="Lifetime of certificates for which none is asked.",
)
@_option(
    "--max-workload-cert-ttl",
    type=DurationType(),
    default=f"{LONGEST_TTL // timedelta(hours=1)}h",
    envvar=["PILOTHOUSE_MAX_WORKLOAD_CERT_TTL", "MAX_WORKLOAD_CERT_TTL"],
    help="The longest lifetime that may be asked for.",
)
@_option(
    "--ca-rotation-settle",
    type=DurationType(),
    default=f"{int(DEFAULT_SETTLE.total_seconds())}s",
    help="How long all proxies must have what a step of a root's rotation needs.",
)
@_option(
    "--max-connects-per-second",
    type=float,
    envvar=["PILOTHOUSE_MAX_CONNECTS_PER_SECOND", "PILOT_MAX_REQUESTS_PER_SECOND"],
    metavar="NUMBER",
    help="How fast streams are let in; those that would wait over a second come again. 0 is a rate"
    " like istiod's, by the number of processors; no limit if not given.",
)
@_option(
    "--workload-entry-grace",
    type=DurationType(),
    default=f"{int(DEFAULT_ENTRY_GRACE.total_seconds())}s",
    envvar=["PILOTHOUSE_WORKLOAD_ENTRY_GRACE", "PILOT_WORKLOAD_ENTRY_GRACE_PERIOD"],
    help="How long a workload that registered itself stays an endpoint without a connection.",
)
@_option(
    "--oidc-issuers",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="YAML or JSON of token issuers (OIDC) whose tokens are accepted on the secure port.",
)
@_option(
    "--tls-cipher-suites",
    "--tlsCipherSuites",
    type=NamesType(),
    default="",
    help="Cipher suites of TLS 1.2 on the secure port, comma-separated; empty means the good ones.",
)
@_option(
    "--server-names",
    type=NamesType(),
    default="",
    envvar=["PILOTHOUSE_SERVER_NAMES", "ISTIOD_CUSTOM_HOST"],
    help="Host names and addresses, comma-separated, by which agents reach the secure port, for its"
    " certificate; istiod's own are there anyway.",
)
@_option(
    "--tls-cert-file",
    "--tlsCertFile",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A certificate for the secure port (PEM, with its chain) instead of one by the mesh's own"
    " authority; read again when it changes.",
)
@_option(
    "--tls-key-file",
    "--tlsKeyFile",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Its key.",
)
@_option(
    "--ca-cert-file",
    "--caCertFile",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With these: roots of client certificates on the secure port beside the mesh's own; with"
    " --ca-server=false all roots of the mesh.",
)
@tls_policy_options
@_option(
    "--allow-remote-plaintext",
    is_flag=True,
    help="Let --grpc-addr be reachable from other machines, unencrypted.",
)
@_option(
    "--ports-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the bound ports there as JSON once ready.",
)
@_option(
    "--log-level",
    "--log_output_level",
    type=LogLevelType([level.value for level in LogLevel]),
    default=LogLevel.INFO.value,
    help="The least severe level that is written.",
)
@_option(
    "--log-format",
    type=click.Choice([form.value for form in LogFormat]),
    default=LogFormat.AUTO.value,
    help="auto is console on a terminal and json otherwise.",
)
@click.option("--log_as_json", "log_as_json", is_flag=True, hidden=True)
def serve(
    *,
    debounce: timedelta,
    debounce_max: timedelta,
    log_level: str,
    log_format: str,
    log_as_json: bool,
    ca_key_algorithm: str,
    **choices: Any,  # noqa: ANN401 (click has checked them)
) -> int:
    """Serve the mesh in a directory to its proxies, until SIGTERM or Ctrl-C.

    Every option can also be set by environment: --grpc-addr by PILOTHOUSE_GRPC_ADDR.
    """  # fmt: skip
    for name in ("grpc_addr", "monitoring_addr"):
        if choices[name] is None:
            raise click.UsageError(f"--{name.replace('_', '-')} must not be empty.")
    try:
        settings = Settings(
            quiet=debounce,
            longest_wait=max(debounce, debounce_max),
            log_level=LogLevel(log_level),
            ca_key_algorithm=KeyAlgorithm(ca_key_algorithm),
            log_format=LogFormat.JSON if log_as_json else LogFormat(log_format),
            **choices,
        )
    except MeshError as error:
        raise click.ClickException(str(error)) from error

    # The core of grpc writes to standard error by itself, in no form of ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    leave_out_rich()
    from pilothouse.runtime.app import run  # noqa: PLC0415 (start-up time of the other commands)

    return run(settings)
