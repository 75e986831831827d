"""``pilothouse token``: credentials for workloads that have none yet, made, listed, taken back."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pilothouse.api.duration import Duration
from pilothouse.cli.output import print_json, print_table

if TYPE_CHECKING:
    from pilothouse.certs.tokens import TokenRecord

_CA_DIR = click.option(
    "--ca-dir",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    envvar="PILOTHOUSE_CA_DIR",
    metavar="DIR",
    help="The server's --ca-dir.",
)
_OUTPUT = click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")


@click.group()
def token() -> None:
    """Make, list and revoke tokens, each the credential of one workload.

    A server with the same --ca-dir accepts them on its secure port, for configuration and for
    certificates; what is made or revoked counts at once.
    """


@token.command()
@_CA_DIR
@click.option("-n", "--namespace", required=True, help="The workload's namespace.")
@click.option("-s", "--service-account", required=True, help="The workload's service account.")
@click.option(
    "--trust-domain",
    metavar="NAME",
    help="The mesh's trust domain; by default the one its root is called after, or cluster.local.",
)
@click.option(
    "--ttl", default="24h", show_default=True, metavar="DURATION", help="How long it is good for."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the token there, for its owner only, instead of printing it.",
)
@_OUTPUT
def create(
    *,
    ca_dir: Path,
    namespace: str,
    service_account: str,
    trust_domain: str | None,
    ttl: str,
    out: Path | None,
    output: str,
) -> None:
    """Make a token for one workload and print it.

    Standard output has the token and nothing else, so that it can be captured; about it is told on
    standard error. The token itself is kept nowhere.
    """
    from pilothouse.api.mesh_config import MeshConfig  # noqa: PLC0415 (start-up time)
    from pilothouse.certs.private_files import write_private  # noqa: PLC0415
    from pilothouse.certs.root_store import trust_domain_of  # noqa: PLC0415
    from pilothouse.certs.tokens import TokenStore  # noqa: PLC0415
    from pilothouse.model.identity import WorkloadIdentity  # noqa: PLC0415

    if trust_domain is None:
        trust_domain = trust_domain_of(ca_dir) or MeshConfig().trust_domain
    identity = WorkloadIdentity(trust_domain, namespace, service_account)
    text, record = TokenStore(ca_dir).create(identity, _now(), ttl=_ttl(ttl))
    if out is not None:
        try:
            write_private(out, f"{text}\n".encode("ascii"))
        except OSError as error:
            TokenStore(ca_dir).revoke(record.id, _now())
            problem = f"{out} cannot be written: {error.strerror}."
            raise click.ClickException(problem) from error
    if output == "json":
        shown = _data(record)
        print_json(shown if out is not None else {**shown, "token": text})
        return
    if out is None:
        click.echo(text)
    click.echo(
        f"Token {record.id} is {record.identity} until {record.expires_at:%Y-%m-%d %H:%M} UTC."
        f" Take it back with: pilothouse token revoke {record.id}",
        err=True,
    )


@token.command("list")
@_CA_DIR
@_OUTPUT
def list_(*, ca_dir: Path, output: str) -> None:
    """List tokens, the newest last; never the tokens themselves."""
    from pilothouse.certs.tokens import TokenStore  # noqa: PLC0415 (start-up time)

    records = TokenStore(ca_dir).records()
    if output == "json":
        print_json([_data(record) for record in records])
        return
    if not records:
        click.echo(f"There are no tokens in {ca_dir}.")
        return
    now = _now()
    rows = [
        (record.id, record.identity, record.state(now), f"{record.expires_at:%Y-%m-%d %H:%M}")
        for record in records
    ]
    print_table(("ID", "IDENTITY", "STATE", "EXPIRES (UTC)"), rows)


@token.command()
@_CA_DIR
@click.argument("token_ids", nargs=-1, required=True, metavar="ID...")
@_OUTPUT
def revoke(*, ca_dir: Path, token_ids: tuple[str, ...], output: str) -> None:
    """Take tokens back; streams that were opened with them end within seconds."""
    from pilothouse.certs.tokens import TokenStore  # noqa: PLC0415 (start-up time)

    store = TokenStore(ca_dir)
    revoked = [store.revoke(token_id, _now()) for token_id in token_ids]
    if output == "json":
        print_json([_data(record) for record in revoked])
        return
    for record in revoked:
        click.echo(f"Token {record.id} of {record.identity} is revoked.")


def _data(record: "TokenRecord") -> dict[str, Any]:
    return {
        "id": record.id,
        "identity": record.identity,
        "audience": record.audience,
        "state": record.state(_now()),
        "issuedAt": record.issued_at.isoformat(),
        "expiresAt": record.expires_at.isoformat(),
        "revokedAt": record.revoked_at.isoformat() if record.revoked_at is not None else None,
    }


def _now() -> datetime:
    return datetime.now(UTC)


def _ttl(text: str) -> timedelta:
    try:
        return Duration.parse(text.strip())
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param_hint="--ttl") from error
