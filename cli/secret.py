"""``pilothouse secret``: the certificates a proxy holds, as ``istioctl proxy-config secret``."""

import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import click

from pilothouse.cli.lazy import Exit
from pilothouse.cli.output import print_json, print_table, print_yaml

if TYPE_CHECKING:
    from pilothouse.cli.secret_view import CertificateView, SecretView

DEFAULT_SERVER: Final = "http://127.0.0.1:15014"
_SECONDS: Final = 10.0
_PIPE: Final = "unix:"
_SOON: Final = timedelta(hours=1)
_COLUMNS: Final = (
    "NAME", "KIND", "STATE", "IDENTITY", "ISSUER", "SERIAL", "VALID FROM", "VALID UNTIL", "STATUS",
)  # fmt: skip


@click.command("secret")
@click.argument("proxy", required=False, metavar="[PROXY]")
@click.option(
    "--server",
    default=DEFAULT_SERVER,
    show_default=True,
    metavar="URL",
    envvar="PILOTHOUSE_SERVER",
    help="Monitoring port of the server to ask what it has sent PROXY (NAME.NAMESPACE or node id).",
)
@click.option(
    "--admin",
    metavar="URL",
    help="Ask an Envoy's admin interface instead: http://HOST:PORT or unix:PATH.",
)
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True),
    metavar="FILE",
    help="Read a config dump instead; - is standard input.",
)
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table")
def secret(
    *, proxy: str | None, server: str, admin: str | None, file: Path | None, output: str
) -> int:
    """Show the certificates and roots that a proxy holds; never a key.

    What a server sent is shown for PROXY; what an Envoy runs with for --admin, and what was saved
    of either for --file. The exit code is 1 if a certificate has ended or cannot be read.
    """
    import msgspec  # noqa: PLC0415 (start-up time)

    from pilothouse.cli.secret_view import secrets_of  # noqa: PLC0415

    if sum(source is not None for source in (proxy, admin, file)) != 1:
        raise click.UsageError("Say one of PROXY, --admin and --file.")
    views = secrets_of(_dump(proxy, server, admin, file))
    now = datetime.now(UTC)
    if output == "table":
        print_table(_COLUMNS, [row for view in views for row in _rows(view, now)])
        if not views:
            click.echo("It holds no secrets.", err=True)
    else:
        shown = [msgspec.to_builtins(view) for view in views]
        (print_json if output == "json" else print_yaml)(shown)
    is_bad = any(
        view.problem or any(each.not_after <= now for each in view.certificates) for view in views
    )
    return Exit.FAILED if is_bad else Exit.OK


def _rows(view: "SecretView", now: datetime) -> Sequence[Sequence[str]]:
    head = (view.name, view.kind, view.state)
    if not view.certificates:
        status = view.problem or (f"in {', '.join(view.files)}" if view.files else "empty")
        if view.state == "awaited":
            status = "not there; the server's findings say why"
        return [(*head, "", "", "", "", "", status)]
    return [
        (
            *(("", "", "") if number else head),
            each.spiffe_id or ", ".join(each.names) or each.subject,
            each.issuer if each.issuer != each.subject else "itself",
            each.serial,
            f"{each.not_before:%Y-%m-%d %H:%M:%S}Z",
            f"{each.not_after:%Y-%m-%d %H:%M:%S}Z",
            _status(each, now),
        )
        for number, each in enumerate(view.certificates)
    ]


def _status(certificate: "CertificateView", now: datetime) -> str:
    if certificate.not_after <= now:
        return "ended"
    if certificate.not_before > now:
        return "not valid yet"
    return "ends soon" if certificate.not_after - now < _SOON else "valid"


def _dump(proxy: str | None, server: str, admin: str | None, file: Path | None) -> dict[str, Any]:
    if file is not None:
        where = str(file)
        content = sys.stdin.buffer.read() if where == "-" else file.read_bytes()
    else:
        base = admin if admin is not None else server
        path = "/config_dump"
        if proxy is not None:
            path = f"/debug/config_dump?types=sds&proxyID={quote(proxy, safe='')}"
        where = base
        content = asyncio.run(_fetch(base, path))
    try:
        dump = json.loads(content)
    except ValueError:
        dump = None
    if not isinstance(dump, dict):
        raise click.ClickException(f"{where} is not a config dump.")
    return dump


async def _fetch(base: str, path: str) -> bytes:
    import aiohttp  # noqa: PLC0415 (start-up time)

    connector = None
    if base.startswith(_PIPE):
        connector = aiohttp.UnixConnector(base.removeprefix(_PIPE))
        base = "http://envoy-admin"
    elif "://" not in base:
        base = f"http://{base}"
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(f"{base.rstrip('/')}{path}") as answer,
        ):
            content = await answer.read()
            if answer.status != 200:
                said = content.decode(errors="replace").strip()[:300]
                raise click.ClickException(said or f"It answered {answer.status}.")
            return content
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as failure:
        reason = str(failure) or type(failure).__name__
        raise click.ClickException(
            f"{base} cannot be asked: {reason.rstrip('.')}. Start the server, or say where it is."
        ) from failure
