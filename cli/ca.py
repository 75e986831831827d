"""
``pilothouse ca``: the certificate authority of a server, by the directory where it keeps its roots.

Works beside a running server, which finds the request in its directory, and without one, when the
state on disk is changed for the next start.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
import msgspec
from cryptography import x509

from pilothouse.certs.issued import KeyAlgorithm
from pilothouse.certs.root_store import BadRoot, RootStore, certificate_file, read_state
from pilothouse.certs.rotation import Phase, RootRotation
from pilothouse.certs.rotation_files import (
    Action,
    RotationRequest,
    RotationStatus,
    read_status,
    remove_request,
    request_waits,
    take,
    write_request,
)
from pilothouse.cli.lazy import Exit
from pilothouse.cli.output import print_json, print_table
from pilothouse.errors import MeshError

_TAKEN_WITHIN_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.05

_WAITS_FOR: Final = {
    Phase.TRUSTING_BOTH: "that all trust both roots",
    Phase.SIGNING_WITH_NEW: "that no certificate of the old root is in use",
    Phase.DROPPING_OLD: "that nobody trusts the old root any more",
}

_directory = click.option(
    "--ca-dir",
    envvar="PILOTHOUSE_CA_DIR",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Where the server keeps its roots.",
)


@click.group()
def ca() -> None:
    """Show the certificate authority and rotate its root."""


@ca.command()
@_directory
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def status(*, ca_dir: Path, output: str) -> int:
    """Show the roots and how far a rotation is."""
    rotation = _state(ca_dir)
    known = read_status(ca_dir)
    if known is not None and known.phase is not rotation.phase:
        known = None  # of an earlier phase
    roots = [_root(ca_dir, rotation, root) for root in sorted(rotation.kept_roots)]
    if output == "json":
        print_json(
            {
                "phase": rotation.phase.value,
                "since": rotation.since.isoformat(),
                "roots": roots,
                "proxies": msgspec.to_builtins(known) if known is not None else None,
            }
        )
        return Exit.OK
    print_table(
        ["ROOT", "SUBJECT", "ENDS", "SIGNS", "TRUSTED"],
        [
            (
                str(root["fingerprint"])[:16],
                str(root["subject"]),
                str(root["ends"]),
                "yes" if root["signs"] else "no",
                "yes" if root["trusted"] else "no",
            )
            for root in roots
        ],
    )
    click.echo(f"\n{_sentence(rotation, known)}")
    if known is not None and known.refused:
        click.echo(f"The last request was refused. {known.refused}")
    return Exit.OK


@ca.command()
@_directory
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Replace that file, whole or not at all, instead of printing.",
)
def root(*, ca_dir: Path, out: Path | None) -> int:
    """Print the trusted roots as PEM, for who is to verify the server."""
    rotation = _state(ca_dir)
    pem = b""
    for each in sorted(rotation.trusted_roots):
        file = ca_dir / certificate_file(each)
        try:
            pem += file.read_bytes()
        except OSError as failure:
            raise _Unreadable(file) from failure
    if out is None:
        click.echo(pem.decode("ascii"), nl=False)
        return Exit.OK
    draft = out.with_name(f".{out.name}.draft")
    try:
        draft.write_bytes(pem)
        draft.replace(out)
    except OSError as failure:
        raise click.ClickException(f"{out}: {failure.strerror or failure}.") from failure
    return Exit.OK


@ca.command()
@_directory
@click.option(
    "--key-algorithm",
    type=click.Choice([algorithm.value for algorithm in KeyAlgorithm]),
    help="Kind of key of the new root; by default as the server is configured.",
)
@click.option(
    "--go-on",
    is_flag=True,
    help="Take the next step now, though not all proxies are known to be ready for it.",
)
@click.option(
    "--cancel", is_flag=True, help="Keep the old root, if the new one has not signed yet."
)
def rotate(*, ca_dir: Path, key_algorithm: str | None, go_on: bool, cancel: bool) -> int:
    """Begin to replace the root by a new one.

    The server first has all proxies trust both, then signs with the new one, then drops the old
    one; each step waits until the proxies are ready for it. No connection is refused meanwhile.
    """
    if go_on and cancel:
        raise click.UsageError("--go-on and --cancel exclude each other.")
    rotation = _state(ca_dir)
    action = Action.GO_ON if go_on else Action.CANCEL if cancel else Action.ROTATE
    algorithm = KeyAlgorithm(key_algorithm) if key_algorithm else None
    request = RotationRequest(action=action, phase=rotation.phase, algorithm=algorithm)
    now = datetime.now(UTC)
    try:
        store = RootStore.open(ca_dir, "", now, exclusive=True)
    except BadRoot as busy:
        if not busy.is_in_use:
            raise
        _ask_server(ca_dir, request)
    else:
        try:
            # Nobody is there who knows the mesh's trust domain now; istiod keeps the name too.
            domain = store.trust_domain()
            take(store, request, domain, algorithm or KeyAlgorithm.ECDSA_P256, now)
        finally:
            store.close()
        click.echo("No server uses this directory at present; the next one goes on from here.")
    click.echo(_sentence(_state(ca_dir), None))
    return Exit.OK


def _ask_server(directory: Path, request: RotationRequest) -> None:
    """Leave the request and wait until the server has taken it. Raises: ClickException."""
    asked_at = datetime.now(UTC)
    try:
        write_request(directory, request)
    except OSError as failure:
        raise click.ClickException(f"{directory}: {failure.strerror or failure}.") from failure
    deadline = time.monotonic() + _TAKEN_WITHIN_SECONDS
    while request_waits(directory):
        if time.monotonic() > deadline:
            remove_request(directory)
            raise click.ClickException(
                "A server uses this directory, but it does not take the request; see its log."
            )
        time.sleep(_LOOK_SECONDS)
    known = read_status(directory)
    if known is not None and known.refused and known.at >= asked_at:
        raise click.ClickException(known.refused)


def _state(directory: Path) -> RootRotation:
    known = read_status(directory)
    if known is not None and not known.has_authority:
        raise click.ClickException(
            f"The server of {directory} has no authority of its own (--ca-server=false): the mesh's"
            " roots are those of its --ca-cert-file, and are replaced there."
        )
    rotation = read_state(directory)
    if rotation is None:
        raise click.ClickException(f"{directory} has no roots; a server makes one at its start.")
    return rotation


def _root(directory: Path, rotation: RootRotation, root: str) -> dict[str, object]:
    try:
        text = (directory / certificate_file(root)).read_bytes()
        certificate = x509.load_pem_x509_certificate(text)
    except (OSError, ValueError) as failure:
        raise _Unreadable(directory / certificate_file(root)) from failure
    return {
        "fingerprint": root,
        "subject": certificate.subject.rfc4514_string(),
        "ends": certificate.not_valid_after_utc.isoformat(),
        "signs": root == rotation.signer,
        "trusted": root in rotation.trusted_roots,
    }


def _sentence(rotation: RootRotation, known: RotationStatus | None) -> str:
    if rotation.phase is Phase.STABLE:
        return "No rotation is under way."
    text = f"Phase {rotation.phase.value} since {rotation.since:%Y-%m-%d %H:%M:%S} UTC; it waits"
    text += f" {_WAITS_FOR[rotation.phase]}."
    if known is not None and (known.waiting or known.absent):
        text += f" {known.waiting} connected proxies are not ready"
        if known.absent_until is not None:
            text += (
                f", {known.absent} holders are away until {known.absent_until:%Y-%m-%d %H:%M} UTC"
                " at the latest"
            )
        text += f": {', '.join(known.behind)}." if known.behind else "."
    return text


class _Unreadable(MeshError):
    """A file of the directory cannot be read."""

    def __str__(self) -> str:
        """Name it."""
        return f"{self.args[0]} cannot be read."
