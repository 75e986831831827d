"""
``pilothouse bootstrap``: what an Envoy beside a workload starts with, written to a file.

With the control plane's roots and a token on the workload's disk nothing else is needed: Envoy
proves who it is with the token, and has its certificate over its discovery stream.
"""

import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from pilothouse.api.names import dns_label, object_name
from pilothouse.cli.lazy import Exit
from pilothouse.model.proxies import CertificateSource, InterceptionMode, Locality, NodeType
from pilothouse.translators.envoy.bootstrap import (
    ISTIO_VERSION,
    Address,
    PipeAddress,
    SocketAddress,
    Workload,
    bootstrap,
)
from pilothouse.translators.envoy.control_plane_tls import (
    SERVER_NAME,
    ControlPlaneTls,
    root_secret,
)

TOKEN_FILE: Final = "./var/run/secrets/tokens/istio-token"  # noqa: S105 (a path)
ROOT_FILE: Final = "./var/run/secrets/istio/root-cert.pem"
SDS_SOCKET: Final = "./var/run/secrets/workload-spiffe-uds/socket"
"""Where Istio's agent looks and listens, from the working directory on (security.md 4.1, 5.5)."""

_ROOTS_SUFFIX: Final = ".roots.json"
_LONGEST_SOCKET_BYTES: Final = 107


@click.command("bootstrap", context_settings={"show_default": True})
@click.option("--name", required=True, help="Name of the workload, as of its pod.")
@click.option("--namespace", "-n", default="default", help="Its namespace.")
@click.option("--service-account", default="default", help="Its service account.")
@click.option(
    "--label", "-l", "labels", multiple=True, metavar="NAME=VALUE", help="A label; repeat."
)
@click.option(
    "--ip",
    "addresses",
    multiple=True,
    metavar="IP",
    help="An address of the workload, the first one first; repeat. By default this host's.",
)
@click.option(
    "--control-plane",
    default=f"{SERVER_NAME}:15012",
    metavar="HOST:PORT",
    help="The secure port, or unix:PATH.",
)
@click.option(
    "--certificates",
    type=click.Choice([source.value for source in CertificateSource]),
    default=CertificateSource.ADS.value,
    help="Where the mesh's certificate is from: this control plane, an agent, or nowhere.",
)
@click.option(
    "--token-file",
    default=TOKEN_FILE,
    metavar="FILE",
    help="Proves who the workload is; read anew for each connection. Not used with an agent.",
)
@click.option(
    "--root-cert-file",
    default=ROOT_FILE,
    metavar="FILE",
    help="Roots that the control plane is verified by. Not used with an agent.",
)
@click.option(
    "--sds-socket", default=SDS_SOCKET, metavar="PATH", help="Where an agent listens, if any."
)
@click.option(
    "--server-name",
    default=SERVER_NAME,
    metavar="NAME",
    help="The name in the control plane's certificate.",
)
@click.option(
    "--plaintext",
    is_flag=True,
    help="No TLS towards the control plane, for port 15010 on loopback; no certificates either.",
)
@click.option("--delta/--sotw", default=True, help="Ask for changes only, or for everything.")
@click.option(
    "--interception-mode",
    type=click.Choice([mode.value for mode in InterceptionMode]),
    default=InterceptionMode.REDIRECT.value,
    help="How traffic reaches the proxy.",
)
@click.option(
    "--type",
    "kind",
    type=click.Choice([kind.value for kind in NodeType]),
    default=NodeType.SIDECAR.value,
    help="Beside a workload, or a gateway.",
)
@click.option("--cluster-id", default="Kubernetes", help="The cluster it counts as part of.")
@click.option("--network", default="", help="The network it is on.")
@click.option("--locality", default="", metavar="REGION/ZONE/SUBZONE", help="Where it runs.")
@click.option(
    "--auto-register-group",
    default="",
    metavar="GROUP",
    help="The WorkloadGroup of its namespace in which the workload is registered while connected.",
)
@click.option(
    "--workload-entry",
    default="",
    metavar="NAME",
    help="The WorkloadEntry that was written for it, for its health.",
)
@click.option("--domain", default="cluster.local", help="DNS domain of Kubernetes services.")
@click.option(
    "--admin",
    default="127.0.0.1:15000",
    metavar="HOST:PORT",
    help="Envoy's admin interface, or unix:PATH.",
)
@click.option(
    "--watched/--unwatched",
    default=True,
    help="Open port 15021 for readiness (/healthz/ready) and 15090 for Prometheus"
    " (/stats/prometheus), to everybody.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write there; beside it FILE.roots.json, by which roots are read again when replaced."
    " Without it, standard output and roots read once.",
)
def bootstrap_command(
    *,
    name: str,
    namespace: str,
    labels: tuple[str, ...],
    addresses: tuple[str, ...],
    control_plane: str,
    certificates: str,
    plaintext: bool,
    delta: bool,
    interception_mode: str,
    kind: str,
    locality: str,
    admin: str,
    watched: bool,
    output: Path | None,
    sds_socket: str,
    **more: str,
) -> int:
    """Write the bootstrap of an Envoy, as JSON.

    The token is from `pilothouse token create`, the roots from `pilothouse ca root`. Replace either
    file by renaming another over it; Envoy goes on without a restart.
    """
    import json  # noqa: PLC0415 (start-up time)

    for option, problem in (("--name", object_name(name)), ("--namespace", dns_label(namespace))):
        if problem:
            raise click.UsageError(f"{option} {problem}.")
    source = CertificateSource.NONE if plaintext else CertificateSource(certificates)
    tls = None if plaintext else _tls(source, more, output)
    workload = Workload(
        name=name,
        namespace=namespace,
        addresses=addresses or (own_address(),),
        labels=dict(map(_label, labels)),
        service_account=more["service_account"],
        type=NodeType(kind),
        interception_mode=InterceptionMode(interception_mode),
        cluster_id=more["cluster_id"],
        network=more["network"],
        domain=more["domain"],
        locality=Locality.parse(locality),
        istio_version=ISTIO_VERSION,
        certificates=source,
        metadata=_registration(more),
    )
    made = bootstrap(
        workload,
        control_plane=_address(control_plane, "--control-plane"),
        admin=_address(admin, "--admin"),
        delta=delta,
        tls=tls,
        agent=_pipe(sds_socket, "--sds-socket") if source is CertificateSource.AGENT else None,
        is_watched=watched,
    )
    if output is None:
        click.echo(json.dumps(made, indent=2))
        return Exit.OK
    if tls is not None and tls.root_secret_file:
        _write(Path(tls.root_secret_file), root_secret(tls))
    _write(output, made)
    return Exit.OK


def _tls(
    source: CertificateSource, options: dict[str, str], output: Path | None
) -> ControlPlaneTls:
    if source is CertificateSource.AGENT:
        return ControlPlaneTls(server_name=options["server_name"], by_agent=True)
    return ControlPlaneTls(
        server_name=options["server_name"],
        root_file=_watched(options["root_cert_file"]),
        root_secret_file=_watched(f"{output}{_ROOTS_SUFFIX}") if output else "",
        token_file=options["token_file"],
    )


def _registration(options: dict[str, str]) -> dict[str, str]:
    """Return the metadata that asks for registration (traffic.md NM-19)."""
    asked = {
        "AUTO_REGISTER_GROUP": options["auto_register_group"],
        "WORKLOAD_ENTRY": options["workload_entry"],
    }
    return {name: value for name, value in asked.items() if value}


def _watched(file: str) -> str:
    """Name a file so that Envoy finds its folder, which it watches; it finds none without slash."""
    return file if "/" in file else f"./{file}"


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.UsageError(f"--label {text!r} is not NAME=VALUE.")
    return name, value


def _address(text: str, option: str) -> Address:
    if text.startswith("unix:"):
        return _pipe(text.removeprefix("unix:"), option)
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise click.UsageError(f"{option} {text!r} is not HOST:PORT.")
    return SocketAddress(address=host.removeprefix("[").removesuffix("]"), port=int(port))


def _pipe(path: str, option: str) -> PipeAddress:
    if len(path.encode()) > _LONGEST_SOCKET_BYTES:
        raise click.UsageError(f"{option}: the path of a socket has at most 107 bytes.")
    return PipeAddress(path=path)


def own_address() -> str:
    """Return the address by which this host reaches others, 127.0.0.1 if it reaches nobody."""
    # Connecting a datagram socket sends nothing; it tells which address is the way out.
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return "127.0.0.1"


def _write(file: Path, data: dict[str, Any]) -> None:
    import json  # noqa: PLC0415 (start-up time)

    draft = file.with_name(f".{file.name}.draft")
    try:
        draft.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}.") from error
