"""``pilothouse config-dump``: what a proxy would be served, without a server."""

import json
from pathlib import Path
from typing import Any

import click

from pilothouse.cli.clusters import cluster_options
from pilothouse.cli.lazy import Exit
from pilothouse.cli.output import print_table, print_yaml
from pilothouse.cli.tls_policy import tls_policy_options
from pilothouse.graph.findings import Severity
from pilothouse.model.resource import CDS, EDS, LDS, RDS, SHORT_NAMES
from pilothouse.model.tls_policy import CompliancePolicy
from pilothouse.runtime.settings import (
    DEFAULT_DOMAIN,
    DEFAULT_REVISION,
    RemoteCluster,
    Settings,
)

_TYPES = {"cds": CDS, "eds": EDS, "lds": LDS, "rds": RDS}


@click.command("config-dump", context_settings={"show_default": True})
@click.option(
    "--config-dir",
    "-d",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    envvar="PILOTHOUSE_CONFIG_DIR",
    help="Directory of YAML or JSON files that make the mesh.",
)
@click.option(
    "--mesh-config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    envvar="PILOTHOUSE_MESH_CONFIG",
    help="File of mesh-wide settings (MeshConfig).",
)
@click.option(
    "--mesh-networks",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    envvar="PILOTHOUSE_MESH_NETWORKS",
    help="File of the mesh's networks (MeshNetworks).",
)
@cluster_options
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
@tls_policy_options
@click.option(
    "--node",
    required=True,
    metavar="ID",
    help="Node id, as in sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local.",
)
@click.option(
    "--metadata",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="The node's metadata as JSON or YAML, such as LABELS and INTERCEPTION_MODE.",
)
@click.option(
    "--type",
    "kind",
    type=click.Choice([*_TYPES, "all"]),
    default="all",
    help="Which resources.",
)
@click.option("-o", "--output", type=click.Choice(["json", "yaml", "short"]), default="json")
def config_dump(
    *,
    config_dir: Path,
    mesh_config: Path | None,
    mesh_networks: Path | None,
    cluster_id: str,
    remote_clusters: tuple[RemoteCluster, ...],
    revision: str,
    domain: str,
    compliance_policy: CompliancePolicy,
    skip_validate_trust_domain: bool,
    node: str,
    metadata: Path | None,
    kind: str,
    output: str,
) -> int:
    """Show what a proxy would be served, in the form of Envoy's own config dump.

    Nothing is started: the directory is read once. Faults in it are counted on standard error;
    see them with `pilothouse validate`.
    """
    # Imported here for the start-up time of the other commands.
    from pilothouse.runtime.snapshot import take_snapshot  # noqa: PLC0415
    from pilothouse.xds.config_dump import config_dump as dump  # noqa: PLC0415
    from pilothouse.xds.offline import proxy_of  # noqa: PLC0415

    proxy = proxy_of(node, _read_metadata(metadata) if metadata else {})
    settings = Settings(
        config_dir=config_dir,
        mesh_config=mesh_config,
        mesh_networks=mesh_networks,
        cluster_id=cluster_id,
        remote_clusters=remote_clusters,
        revision=revision,
        domain=domain,
        secure_grpc_addr=None,
        compliance_policy=compliance_policy,
        skip_validate_trust_domain=skip_validate_trust_domain,
    )
    snapshot = take_snapshot(proxy, settings)
    wanted = set(_TYPES.values()) if kind == "all" else {_TYPES[kind]}
    resources = {url: found for url, found in snapshot.resources.items() if url in wanted}
    if output == "short":
        print_table(
            ("TYPE", "NAME", "VERSION", "BYTES", "FROM"),
            [
                (
                    SHORT_NAMES[url],
                    resource.name,
                    resource.version,
                    str(len(resource.data)),
                    str(resource.sources[0]) if resource.sources else "",
                )
                for url, found in resources.items()
                for resource in found
            ],
        )
    elif output == "yaml":
        print_yaml(json.loads(b"".join(dump(resources))))
    else:
        click.echo(json.dumps(json.loads(b"".join(dump(resources))), indent=2))
    faults = sum(finding.severity is Severity.ERROR for finding in snapshot.findings)
    if faults:
        click.echo(f"{faults} errors in the config; see pilothouse validate.", err=True)
    return Exit.OK


def _read_metadata(file: Path) -> dict[str, Any]:
    from pilothouse.providers.yaml_loader import YamlError, parse  # noqa: PLC0415

    try:
        documents = parse(file.read_bytes())
    except YamlError as error:
        raise click.ClickException(f"{file}: {error}") from error
    data = documents[0].data if documents else {}
    if len(documents) > 1 or not isinstance(data, dict):
        raise click.ClickException(f"{file}: metadata is one map of keys, as LABELS: {{...}}.")
    return data
