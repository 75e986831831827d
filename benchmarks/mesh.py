"""
The measured mesh, written as the directory a user would have.

Each service is one file holding a Service and its EndpointSlice; each namespace has a file of
routing rules. Names stay different when namespace and name are run together, because some control
planes key by that. Proxies belong to services spread over the namespaces, so that no two are of
one class: the dearest case, as classes share their work.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROUTED: Final = 3
"""So many services of each namespace have a VirtualService and a DestinationRule."""

_SERVICE: Final = """\
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: {namespace}
  labels: {{app: {name}}}
spec:
  clusterIP: 10.{high}.{middle}.{low}
  selector: {{app: {name}}}
  ports:
  - name: http
    port: 80
    targetPort: 8080
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: {namespace}
  labels: {{kubernetes.io/service-name: {name}}}
  annotations: {{benchmark/touched: "{touched}"}}
addressType: IPv4
ports:
- name: http
  port: 8080
endpoints:
"""
_ENDPOINT: Final = """\
- addresses: [{address}]
  conditions: {{ready: true}}
  targetRef: {{kind: Pod, name: {name}-{ordinal}, namespace: {namespace}}}
"""
_ROUTING: Final = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: {name}
  namespace: {namespace}
spec:
  hosts: [{name}]
  http:
  - match:
    - headers: {{end-user: {{exact: jason}}}}
    route:
    - destination: {{host: {name}, subset: v2}}
  - route:
    - destination: {{host: {name}, subset: v1}}
      weight: {weight}
    - destination: {{host: {name}, subset: v2}}
      weight: {rest}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: {name}
  namespace: {namespace}
spec:
  host: {name}
  trafficPolicy:
    connectionPool: {{tcp: {{connectTimeout: {timeout}s}}}}
  subsets:
  - name: v1
    labels: {{version: v1}}
  - name: v2
    labels: {{version: v2}}
---
"""


_SIDECAR: Final = """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata:
  name: svc{index}
  namespace: {namespace}
spec:
  workloadSelector: {{labels: {{app: svc{index}}}}}
  egress:
  - hosts: ["./*", "ns0/*"]
---
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyIdentity:
    """A simulated proxy: what it says of itself."""

    name: str
    namespace: str
    ip: str
    app: str

    @property
    def node_id(self) -> str:
        return f"sidecar~{self.ip}~{self.name}.{self.namespace}~{self.namespace}.svc.cluster.local"


@dataclass(slots=True)
class _Routing:
    """What changes in a namespace's file of rules; each change leaves the other as it is."""

    weight: int = 100
    timeout_seconds: int = 10


@dataclass(frozen=True, slots=True)
class Mesh:
    """
    A mesh in the directory `root`: `services` services of `endpoints` endpoints.

    The first `scoped` proxies each have a Sidecar, by which they see the services of their own
    namespace and of `ns0`, as large meshes are set up; the others see everything.
    """

    root: Path
    services: int
    endpoints: int
    namespaces: int = 10
    scoped: int = 0
    _routing: dict[int, _Routing] = field(default_factory=lambda: defaultdict(_Routing))

    def write(self) -> None:
        """Write every file."""
        for index in range(self.namespaces):
            (self.root / f"ns{index}").mkdir(parents=True, exist_ok=True)
            self._path(f"ns{index}", "routing").write_text(self._routing_text(index))
            sidecars = "".join(
                _SIDECAR.format(index=proxy, namespace=f"ns{index}")
                for proxy in range(index, self.scoped, self.namespaces)
            )
            if sidecars:
                self._path(f"ns{index}", "sidecars").write_text(sidecars)
        for index in range(self.services):
            self._service_path(index).write_text(self._service(index, self.endpoints, ""))

    @property
    def seen_by_all(self) -> int:
        """A service that every proxy sees and that has no rules."""
        return self.namespaces * ROUTED if self.scoped else 5

    def changed_namespace(self, index: int) -> int:
        """Return where the rules of a change are: all namespaces in turn, if all see them."""
        return 0 if self.scoped else index % self.namespaces

    def proxies(self, count: int) -> list[ProxyIdentity]:
        """Return the first pods of `count` services."""
        return [
            ProxyIdentity(
                name=f"svc{index}-0",
                namespace=f"ns{index % self.namespaces}",
                ip=_address(index, 0),
                app=f"svc{index}",
            )
            for index in range(count)
        ]

    # Each returns the new file and the one it is to be renamed over: the rename is the change.

    def endpoint_change(self, index: int, count: int) -> tuple[Path, Path]:
        """Give a service another number of endpoints."""
        return self._beside(self._service_path(index), self._service(index, count, ""))

    def irrelevant_change(self, index: int, mark: str) -> tuple[Path, Path]:
        """Change an annotation, which no proxy should hear of."""
        return self._beside(self._service_path(index), self._service(index, self.endpoints, mark))

    def route_change(self, namespace: int, weight: int) -> tuple[Path, Path]:
        """Give the first VirtualService of a namespace other weights."""
        self._routing[namespace].weight = weight
        return self._routing_change(namespace)

    def rule_change(self, namespace: int, timeout_seconds: int) -> tuple[Path, Path]:
        """Give the clusters of one DestinationRule of a namespace another connect timeout."""
        self._routing[namespace].timeout_seconds = timeout_seconds
        return self._routing_change(namespace)

    def _routing_change(self, namespace: int) -> tuple[Path, Path]:
        path = self._path(f"ns{namespace}", "routing")
        return self._beside(path, self._routing_text(namespace))

    def _beside(self, path: Path, text: str) -> tuple[Path, Path]:
        new = path.with_name(f".{path.name}.new")
        new.write_text(text)
        return new, path

    def _path(self, namespace: str, name: str) -> Path:
        return self.root / namespace / f"{name}.yaml"

    def _service_path(self, index: int) -> Path:
        return self._path(f"ns{index % self.namespaces}", f"svc{index}")

    def _service(self, index: int, endpoints: int, touched: str) -> str:
        name, namespace = f"svc{index}", f"ns{index % self.namespaces}"
        head = _SERVICE.format(
            name=name,
            namespace=namespace,
            high=96 + index // 62_500,
            middle=index // 250 % 250,
            low=index % 250 + 1,
            touched=touched,
        )
        return head + "".join(
            _ENDPOINT.format(
                name=name, namespace=namespace, ordinal=ordinal, address=_address(index, ordinal)
            )
            for ordinal in range(endpoints)
        )

    def _routing_text(self, namespace: int) -> str:
        now = self._routing[namespace]
        routed = range(namespace, self.services, self.namespaces)[:ROUTED]
        return "".join(
            _ROUTING.format(
                name=f"svc{index}",
                namespace=f"ns{namespace}",
                weight=now.weight if index == namespace else 100,
                rest=100 - now.weight if index == namespace else 0,
                timeout=now.timeout_seconds if index == namespace else 10,
            )
            for index in routed
        )


def _address(service: int, ordinal: int) -> str:
    return f"10.{ordinal % 90 + 1}.{service // 250 % 250}.{service % 250 + 1}"
