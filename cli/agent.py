"""``pilothouse agent``: keys made in place, for an Envoy on the same host."""

import asyncio
import os
import socket
from datetime import timedelta
from pathlib import Path

import click

from pilothouse.cli.bootstrap import ROOT_FILE, SDS_SOCKET, TOKEN_FILE, own_address
from pilothouse.cli.serve import DurationType
from pilothouse.translators.envoy.control_plane_tls import SERVER_NAME

_KEY_KINDS = ("ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-4096")


@click.command("agent", context_settings={"show_default": True, "allow_interspersed_args": False})
@click.option(
    "--control-plane",
    default=f"{SERVER_NAME}:15012",
    metavar="HOST:PORT",
    envvar="CA_ADDR",
    help="The secure port.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=TOKEN_FILE,
    metavar="FILE",
    help="Proves who the workload is; read anew for each call.",
)
@click.option(
    "--root-cert-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=ROOT_FILE,
    metavar="FILE",
    help="Roots that the control plane is verified by; read anew for each call.",
)
@click.option(
    "--sds-socket",
    type=click.Path(path_type=Path, dir_okay=False),
    default=SDS_SOCKET,
    metavar="PATH",
    help="Where secrets are served. If somebody listens there already, they serve them.",
)
@click.option(
    "--server-name",
    default=SERVER_NAME,
    metavar="NAME",
    help="The name in the control plane's certificate.",
)
@click.option("--key", type=click.Choice(_KEY_KINDS), default=_KEY_KINDS[0], help="Kind of key.")
@click.option(
    "--ttl",
    type=DurationType(),
    default="0s",
    help="Lifetime to ask for; 0s leaves it to the control plane.",
)
@click.option(
    "--renewal-spread",
    type=DurationType(),
    default="30s",
    help="When another root begins to sign, renew at a random moment within this time.",
)
@click.option("--name", default="", help="Name of the workload; by default this host's.")
@click.option("--ip", default="", metavar="IP", help="Its address; by default this host's.")
@click.option("--domain", default="cluster.local", help="DNS domain of Kubernetes services.")
@click.argument("command", nargs=-1)
def agent(
    *,
    control_plane: str,
    token_file: Path,
    root_cert_file: Path,
    sds_socket: Path,
    server_name: str,
    key: str,
    ttl: timedelta,
    renewal_spread: timedelta,
    name: str,
    ip: str,
    domain: str,
    command: tuple[str, ...],
) -> int:
    """Obtain a certificate, keep it renewed, and serve it to an Envoy on this host.

    The private key is made here and leaves this host never. COMMAND, if any, is run beside, and the
    agent ends with it: pilothouse agent -- envoy -c bootstrap.json.
    """  # fmt: skip
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Imported here for the start-up time of the other commands.
    from pilothouse.agent.control_plane import ControlPlaneAccess  # noqa: PLC0415
    from pilothouse.agent.keys import KeyKind  # noqa: PLC0415
    from pilothouse.agent.run import AgentOptions, run  # noqa: PLC0415
    from pilothouse.runtime.logs import configure_logs  # noqa: PLC0415

    configure_logs()
    options = AgentOptions(
        access=ControlPlaneAccess(
            target=control_plane,
            server_name=server_name,
            root_file=root_cert_file,
            token_file=token_file,
            name=name or socket.gethostname().partition(".")[0].lower(),
            address=ip or own_address(),
            domain=domain,
        ),
        socket=sds_socket,
        key_kind=KeyKind(key),
        lifetime=ttl,
        spread=renewal_spread,
        command=command,
    )
    return asyncio.run(run(options))
