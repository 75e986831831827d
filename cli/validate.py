"""``pilothouse validate``: check files as the server would, without one."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from pilothouse.api.kinds import MESH_CONFIG, MESH_NETWORKS
from pilothouse.cli.clusters import cluster_options
from pilothouse.cli.lazy import Exit
from pilothouse.cli.output import print_findings, print_json, print_yaml
from pilothouse.cli.tls_policy import tls_policy_options
from pilothouse.graph.findings import Severity
from pilothouse.model.tls_policy import CompliancePolicy, TlsPolicy
from pilothouse.runtime.addresses import InvalidSetting
from pilothouse.runtime.reports import finding_data
from pilothouse.runtime.settings import (
    DEFAULT_DOMAIN,
    DEFAULT_REVISION,
    RemoteCluster,
    check_clusters,
)

_CLIENTS: Final = frozenset({"Pod", "WorkloadEntry", "WorkloadGroup", "Sidecar"})
"""Kinds of objects that stand for proxies."""


@click.command()
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(path_type=Path, exists=True, allow_dash=True),
)
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table")
@click.option("--strict", is_flag=True, help="Fail for warnings too.")
@click.option(
    "--mesh-config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    envvar="PILOTHOUSE_MESH_CONFIG",
    help="File of mesh-wide settings (MeshConfig), as for serve.",
)
@click.option(
    "--mesh-networks",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    envvar="PILOTHOUSE_MESH_NETWORKS",
    help="File of the mesh's networks (MeshNetworks), as for serve.",
)
@click.option(
    "--revision",
    default=DEFAULT_REVISION,
    metavar="NAME",
    envvar=["PILOTHOUSE_REVISION", "REVISION"],
    help="Which objects labelled istio.io/rev are used, as for serve.",
)
@click.option(
    "--domain",
    default=DEFAULT_DOMAIN,
    metavar="NAME",
    envvar="PILOTHOUSE_DOMAIN",
    help="DNS domain of Kubernetes services.",
)
@cluster_options
@tls_policy_options
@click.option(
    "--objects-only", is_flag=True, help="Look at each object by itself, not at what clients see."
)
def validate(
    *,
    files: tuple[Path, ...],
    output: str,
    strict: bool,
    mesh_config: Path | None,
    mesh_networks: Path | None,
    revision: str,
    domain: str,
    cluster_id: str,
    remote_clusters: tuple[RemoteCluster, ...],
    compliance_policy: CompliancePolicy,
    skip_validate_trust_domain: bool,
    objects_only: bool,
) -> int:
    """Check files of config; folders are searched, - is standard input.

    Finds what the server would find in each object by itself, and in the mesh as its clients see
    it: for each Pod, WorkloadEntry, WorkloadGroup and Sidecar in the files a proxy is thought of.
    Files without any of them are looked at by themselves. The exit code is 1 if there are errors,
    else 0.
    """
    from pilothouse.providers.validate import FileCheck  # noqa: PLC0415 (start-up time)

    texts = list(_read(files))
    if not texts:
        raise click.ClickException("There is no .yaml, .yml or .json file there.")
    check = FileCheck(texts, revision)
    for kind, file in ((MESH_CONFIG, mesh_config), (MESH_NETWORKS, mesh_networks)):
        if file is not None:
            check.add_mesh_file(str(file), file.read_bytes(), kind)
    others = _read_clusters(cluster_id, remote_clusters, files)
    check.add_clusters(others, cluster_id)
    texts.extend(text for each in others.values() for text in each)
    views, findings = 0, check.findings()
    if not objects_only and any(change.kind in _CLIENTS for change in check.changes):
        from pilothouse.runtime.views import view_findings  # noqa: PLC0415 (start-up time)

        views, seen = view_findings(
            check.changes, domain, TlsPolicy(compliance_policy, skip_validate_trust_domain)
        )
        findings = tuple(sorted({*findings, *check.located(seen)}))
    if output == "json":
        print_json([finding_data(finding) for finding in reversed(findings)])
    elif output == "yaml":
        print_yaml([finding_data(finding) for finding in reversed(findings)])
    else:
        print_findings(findings)
        counts = {each: sum(found.severity is each for found in findings) for each in Severity}
        files_read = f"{len(texts)} file{'s' * (len(texts) != 1)}"
        if views:
            files_read += f", {views} view{'s' * (views != 1)}"
        click.echo(
            f"{files_read}: {counts[Severity.ERROR]} errors, {counts[Severity.WARNING]} warnings."
        )
    worst = Severity.WARNING if strict else Severity.ERROR
    return Exit.FAILED if any(found.severity >= worst for found in findings) else Exit.OK


def _read_clusters(
    own: str, clusters: tuple[RemoteCluster, ...], files: tuple[Path, ...]
) -> dict[str, list[tuple[str, bytes]]]:
    try:
        check_clusters(own, clusters, files)
    except InvalidSetting as error:
        raise click.UsageError(str(error)) from error
    for name, directory in clusters:
        if not directory.is_dir():
            raise click.UsageError(f"The directory {directory} of cluster {name} does not exist.")
    return {name: list(_read((directory,))) for name, directory in clusters}


def _read(files: tuple[Path, ...]) -> Iterator[tuple[str, bytes]]:
    from pilothouse.providers.walk import is_config_file  # noqa: PLC0415 (start-up time)

    for file in files:
        if str(file) == "-":
            yield "<stdin>", sys.stdin.buffer.read()
        elif file.is_dir():
            for found in sorted(file.rglob("*")):
                # Hidden folders are nobody's config, as for the server.
                hidden = any(part.startswith(".") for part in found.relative_to(file).parts)
                if found.is_file() and is_config_file(found.name) and not hidden:
                    yield str(found), found.read_bytes()
        else:
            yield str(file), file.read_bytes()
