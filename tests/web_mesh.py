"""The service `web` of the tests with live sidecars: its subsets, and the workloads behind it."""

from collections.abc import Mapping

SUBSETS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: default}
spec:
  host: web
  subsets:
    - {name: v1, labels: {version: v1}}
    - {name: v2, labels: {version: v2}}
"""


def service(name: str, address: str, *ports: str) -> str:
    """Return a Service in YAML; a port is a flow mapping, such as ``{name: tcp, port: 9000}``."""
    return (
        f"\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n"
        f"spec: {{clusterIP: {address}, selector: {{app: {name}}}, ports: [{', '.join(ports)}]}}\n"
    )


def entry(name: str, address: str, labels: Mapping[str, str], locality: str = "") -> str:
    """Return the WorkloadEntry of a program in YAML."""
    shown = ", ".join(f"{key}: {value}" for key, value in labels.items())
    place = f"locality: {locality}, " if locality else ""
    return (
        "\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n"
        f"metadata: {{name: {name}, namespace: default}}\n"
        f"spec: {{address: {address}, {place}labels: {{{shown}}}}}\n"
    )
