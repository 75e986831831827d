"""The stores of a server's config, as its settings name them."""

from pilothouse.providers.clusters import ClusterStores
from pilothouse.providers.files import FileStore
from pilothouse.runtime.settings import Settings


def stores_of(settings: Settings) -> ClusterStores:
    """Return the store of the config with those of other clusters beside it; nothing is read."""
    config = FileStore(
        settings.config_dir,
        mesh_config=settings.mesh_config,
        mesh_networks=settings.mesh_networks,
        revision=settings.revision,
    )
    others = (
        (each.name, FileStore(each.directory, revision=settings.revision, cluster=each.name))
        for each in settings.remote_clusters
    )
    return ClusterStores(config, others, own=settings.cluster_id)
