"""Options that name clusters, the same for ``serve`` and ``validate``."""

from pathlib import Path

import click

from pilothouse.runtime.settings import RemoteCluster

REMOTE_CLUSTER_HELP = (
    "Another cluster of the mesh, and the directory of its objects; may be given more than once."
    " Only Services, endpoints, Pods, Nodes, Namespaces and WorkloadEntries are read of it."
)
CLUSTER_ID_HELP = "Name of the cluster that the config is from; its proxies send it as CLUSTER_ID."


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
