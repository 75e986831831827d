"""Names that a service's certificates may have, besides those of its endpoints."""

from pilothouse.api.decode import decode
from pilothouse.graph.core import Graph
from pilothouse.model.inputs import SERVICES
from pilothouse.model.service_accounts import service_identities
from pilothouse.model.services import Registry, ServiceKey

HOST = "web.shop.svc.cluster.local"


def identities(**annotations: str) -> tuple[str, ...]:
    """The names of a Service without endpoints and with these annotations of alpha.istio.io."""
    row = decode(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "web",
                "namespace": "shop",
                "annotations": {
                    f"alpha.istio.io/{name.replace('_', '-')}": text
                    for name, text in annotations.items()
                },
            },
            "spec": {"ports": [{"port": 80}]},
        }
    ).object
    graph = Graph()
    graph.commit([(SERVICES, row.meta.key, row)])
    return graph.value(service_identities, ServiceKey(Registry.KUBERNETES, "shop", "web", HOST))


def test_accounts_of_annotations() -> None:
    """K8-10: accounts by name are of the Service's namespace, whole names are taken as they are."""
    assert identities() == ()
    assert identities(
        kubernetes_serviceaccounts="vm, old-vm,", canonical_serviceaccounts="spiffe://x/vm"
    ) == (
        "spiffe://cluster.local/ns/shop/sa/old-vm",
        "spiffe://cluster.local/ns/shop/sa/vm",
        "spiffe://x/vm",
    )
