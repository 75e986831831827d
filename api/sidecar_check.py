"""Rules across the fields of a Sidecar, as Istio publishes them."""

from collections.abc import Iterator

from pilothouse.api import names
from pilothouse.api.connection_check import check_pool
from pilothouse.api.destination_check import check_destination
from pilothouse.api.problem import Problem, port, selector, warning
from pilothouse.api.sidecar import EgressListener, Sidecar, SidecarPort

_ENDPOINT_HOSTS = ("127.0.0.1", "0.0.0.0", "[::1]", "[::]")  # noqa: S104 (texts of the API)

_HTTP = frozenset({"HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"})


def check(row: Sidecar) -> Iterator[Problem]:
    """Yield what is wrong with one Sidecar."""
    spec = row.spec
    if spec.workload_selector is not None:
        yield from selector(spec.workload_selector.labels, "spec.workloadSelector.labels")
    seen: set[tuple[int, str]] = set()
    for index, ingress in enumerate(spec.ingress):
        path = f"spec.ingress[{index}]"
        yield from _check_port(ingress.port, f"{path}.port")
        yield from _check_bind(ingress.bind, f"{path}.bind")
        place = (ingress.port.number, ingress.bind)
        if place in seen:
            yield Problem(f"{path}.port", f"The port {ingress.port.number} is there twice.")
        seen.add(place)
        yield from _check_default_endpoint(ingress.default_endpoint, f"{path}.defaultEndpoint")
        if ingress.connection_pool is not None:
            yield from check_pool(ingress.connection_pool, f"{path}.connectionPool")
            is_http = ingress.port.protocol.upper() in _HTTP
            if ingress.connection_pool.http is not None and not is_http:
                message = "The port's protocol is not HTTP, so only the tcp settings count."
                yield warning(f"{path}.connectionPool.http", message)
    catch_all = 0
    for index, egress in enumerate(spec.egress):
        path = f"spec.egress[{index}]"
        yield from _check_egress(egress, path)
        if egress.port is None:
            catch_all += 1
            if catch_all > 1 or index != len(spec.egress) - 1:
                yield Problem(
                    path,
                    "Only the last egress listener may be without a port.",
                    "Join the hosts, or move it to the end.",
                )
    if spec.inbound_connection_pool is not None:
        yield from check_pool(spec.inbound_connection_pool, "spec.inboundConnectionPool")
    policy = spec.outbound_traffic_policy
    if policy is not None and policy.egress_proxy is not None:
        path = "spec.outboundTrafficPolicy.egressProxy"
        yield from check_destination(policy.egress_proxy, path)
        if policy.mode != "ALLOW_ANY":
            yield Problem(path, "An egress proxy needs the mode ALLOW_ANY.")


def _check_egress(egress: EgressListener, path: str) -> Iterator[Problem]:
    if egress.port is not None and not egress.bind.startswith("unix://"):
        yield from _check_port(egress.port, f"{path}.port")
    yield from _check_bind(egress.bind, f"{path}.bind")
    if egress.bind and egress.port is None:
        yield Problem(f"{path}.bind", "An address to listen on needs a port.", "Add port.")
    if not egress.hosts:
        yield Problem(f"{path}.hosts", "At least one host must be given.", 'Such as "./*".')
    for index, text in enumerate(egress.hosts):
        at = f"{path}.hosts[{index}]"
        namespace, slash, host = text.partition("/")
        if not slash:
            yield Problem(
                at,
                f'"{text}" lacks the namespace.',
                f'Write namespace/host, such as "./{text}" or "*/{text}".',
            )
            continue
        bare = namespace if namespace in ("*", ".", "~") else namespace.removeprefix("~")
        if bare not in ("*", ".", "~") and names.dns_label(bare):
            yield Problem(at, f'"{namespace}" is no namespace: it {names.dns_label(bare)}.')
        if names.host(host):
            yield Problem(at, f'The host "{host}" {names.host(host)}.')


def _check_port(listening: SidecarPort, path: str) -> Iterator[Problem]:
    yield from port(listening.number, f"{path}.number")
    protocol = listening.protocol
    if protocol and protocol.upper() not in names.PROTOCOLS:
        yield Problem(f"{path}.protocol", f'"{protocol}" is no protocol known to the mesh.')


def _check_bind(bind: str, path: str) -> Iterator[Problem]:
    if bind and not bind.startswith("unix://") and not names.is_address(bind):
        yield Problem(path, f'"{bind}" is neither an IP address nor unix:// and a path.')


def _check_default_endpoint(endpoint: str, path: str) -> Iterator[Problem]:
    if not endpoint:
        return
    if endpoint.startswith("unix://"):
        if not endpoint.removeprefix("unix://").startswith(("/", "@")):
            yield Problem(path, f'"{endpoint}" is no absolute path of a socket.')
        return
    host, _, number = endpoint.rpartition(":")
    if host not in _ENDPOINT_HOSTS or not number.isdecimal():
        yield Problem(
            path,
            f'"{endpoint}" is no place in the workload.',
            "Write 127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT or unix:// and a path.",
        )
        return
    yield from port(int(number), path)
