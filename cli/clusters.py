"""Options that name clusters, the same for all commands that read config."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pilothouse.cli.lazy import AliasedOption
from pilothouse.model.topology_labels import LOCAL_CLUSTER
from pilothouse.runtime.settings import RemoteCluster

F = TypeVar("F", bound=Callable[..., Any])


class RemoteClusterType(click.ParamType[RemoteCluster]):
    """NAME=DIR on the command line; several in a variable are separated by blanks."""

    name = "NAME=DIR"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> RemoteCluster:
        """Split it; whether the names are good together is checked with the other settings."""
        if isinstance(value, RemoteCluster):
            return value
        name, _, directory = str(value).partition("=")
        if not name or not directory:
            self.fail(f"{value!r} is not of the form NAME=DIR, such as west=/etc/west.", param, ctx)
        return RemoteCluster(name, Path(directory))


def cluster_options(command: F) -> F:
    """Give a command the options `cluster_id` and `remote_clusters`."""
    remote = click.option(
        "--remote-cluster",
        "remote_clusters",
        type=RemoteClusterType(),
        multiple=True,
        envvar="PILOTHOUSE_REMOTE_CLUSTER",
        help="Another cluster of the mesh, and the directory of its objects; may be given more than"
        " once. Only Services, endpoints, Pods, Nodes, Namespaces and WorkloadEntries are read.",
    )
    own = click.option(
        "--cluster-id",
        "--clusterID",
        "cluster_id",
        cls=AliasedOption,
        default=LOCAL_CLUSTER,
        metavar="NAME",
        envvar=["PILOTHOUSE_CLUSTER_ID", "CLUSTER_ID"],
        help="Name of the cluster the config is from; its proxies send it as CLUSTER_ID.",
    )
    return own(remote(command))
