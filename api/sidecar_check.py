"""Rules across the fields of a Sidecar, as Istio publishes them."""

from collections.abc import Iterator

from pilothouse.api import names
from pilothouse.api.connection_check import check_pool
from pilothouse.api.destination_check import check_destination
from pilothouse.api.problem import Problem, port, selector, warning
from pilothouse.api.server_tls_check import check_server_tls
from pilothouse.api.sidecar import EgressListener, IngressListener, IngressTls, Sidecar, SidecarPort

_ENDPOINT_HOSTS = ("127.0.0.1", "0.0.0.0", "[::1]", "[::]")  # noqa: S104 (texts of the API)

_HTTP = frozenset({"HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"})


def check(row: Sidecar) -> Iterator[Problem]:
    """Yield what is wrong with one Sidecar."""
    spec = row.spec
    if spec.workload_selector is not None:
        yield from selector(spec.workload_selector.labels, "spec.workloadSelector.labels")
        if not spec.workload_selector.labels:
            message = "A selector without labels selects every workload of the namespace."
            yield warning("spec.workloadSelector", message, "Leave it out, or name labels.")
    says = (spec.ingress, spec.egress, spec.inbound_connection_pool, spec.outbound_traffic_policy)
    if not any(says):
        yield Problem(
            "spec",
            "A Sidecar must say something of what its proxies open or see.",
            "Set ingress, egress, inboundConnectionPool or outboundTrafficPolicy.",
        )
    yield from _check_all_ingress(spec.ingress)
    yield from _check_all_egress(spec.egress)
    if spec.inbound_connection_pool is not None:
        yield from check_pool(spec.inbound_connection_pool, "spec.inboundConnectionPool")
    policy = spec.outbound_traffic_policy
    if policy is not None and policy.egress_proxy is not None:
        path = "spec.outboundTrafficPolicy.egressProxy"
        yield from check_destination(policy.egress_proxy, path)
        if policy.egress_proxy.port is None:
            yield Problem(f"{path}.port", "An egress proxy needs a port.", "Set its number.")
        if policy.mode != "ALLOW_ANY":
            yield Problem(path, "An egress proxy needs the mode ALLOW_ANY.")


def _check_all_ingress(listeners: tuple[IngressListener, ...]) -> Iterator[Problem]:
    seen: set[int] = set()
    for index, ingress in enumerate(listeners):
        path = f"spec.ingress[{index}]"
        yield from _check_port(ingress.port, f"{path}.port")
        yield from _check_address(ingress.bind, f"{path}.bind")
        if ingress.port.number in seen:
            yield Problem(f"{path}.port", f"The port {ingress.port.number} is there twice.")
        seen.add(ingress.port.number)
        yield from _check_default_endpoint(ingress.default_endpoint, f"{path}.defaultEndpoint")
        if ingress.tls is not None:
            yield from _check_tls(ingress.tls, ingress.port.protocol, f"{path}.tls")
        if ingress.connection_pool is not None:
            yield from check_pool(ingress.connection_pool, f"{path}.connectionPool")
            protocol = ingress.port.protocol.upper()
            is_http = protocol in _HTTP or (ingress.tls is not None and protocol == "HTTPS")
            if ingress.connection_pool.http is not None and not is_http:
                message = "The port's protocol is not HTTP, so only the tcp settings count."
                yield warning(f"{path}.connectionPool.http", message)


def _check_all_egress(listeners: tuple[EgressListener, ...]) -> Iterator[Problem]:
    catch_all = 0
    seen: set[int | str] = set()
    for index, egress in enumerate(listeners):
        path = f"spec.egress[{index}]"
        yield from _check_egress(egress, path)
        if egress.port is not None:
            place = egress.port.number or egress.bind
            if place in seen:
                kind = "socket" if isinstance(place, str) else "port"
                yield Problem(f"{path}.port", f"The {kind} {place} is there twice.")
            seen.add(place)
        if egress.port is None:
            catch_all += 1
            if catch_all > 1 or index != len(listeners) - 1:
                yield Problem(
                    path,
                    "Only the last egress listener may be without a port.",
                    "Join the hosts, or move it to the end.",
                )


def _check_egress(egress: EgressListener, path: str) -> Iterator[Problem]:
    is_socket = egress.bind.startswith("unix://")
    if egress.port is not None and not is_socket:
        yield from _check_port(egress.port, f"{path}.port")
    if is_socket and egress.port is not None and egress.port.number:
        message = "A Unix socket has no port number."
        yield Problem(f"{path}.port.number", message, "Write 0, or bind to an IP address.")
    if is_socket and egress.capture_mode == "IPTABLES":
        message = "Nothing is redirected to a Unix socket."
        yield Problem(f"{path}.captureMode", message, "Leave it out, or write NONE.")
    if not is_socket:
        yield from _check_address(egress.bind, f"{path}.bind")
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
    if listening.target_port:
        message = "A port of a Sidecar leads to no other port."
        yield Problem(f"{path}.targetPort", message, "Remove it; see defaultEndpoint.")
    protocol = listening.protocol
    if protocol and protocol.upper() not in names.PROTOCOLS:
        yield Problem(f"{path}.protocol", f'"{protocol}" is no protocol known to the mesh.')


def _check_tls(tls: IngressTls, protocol: str, path: str) -> Iterator[Problem]:
    """Yield what Istio's rules say of TLS that a sidecar ends (SC-09)."""
    if protocol.upper() not in ("HTTPS", "TLS"):
        message = f"A port of {protocol} has no TLS to end."
        yield Problem(path, message, "Set the port's protocol to HTTPS or TLS.")
    if tls.mode in ("ISTIO_MUTUAL", "AUTO_PASSTHROUGH"):
        message = f"The mode {tls.mode} is for gateways."
        yield Problem(f"{path}.mode", message, "Write SIMPLE or MUTUAL.")
    if tls.mode == "PASSTHROUGH":
        yield warning(
            f"{path}.mode",
            "PASSTHROUGH, which holds if no mode is given, ends no TLS, so the port is closed.",
            "Write SIMPLE or MUTUAL, or leave tls out to have the workload end it.",
        )
    for field, value in (
        ("httpsRedirect", tls.https_redirect),
        ("credentialName", tls.credential_name),
        ("credentialNames", tls.credential_names),
        ("caCertCredentialName", tls.ca_cert_credential_name),
        ("tlsCertificates", tls.tls_certificates),
        ("subjectAltNames", tls.subject_alt_names),
    ):
        if value:
            remedy = "Name files on the proxy's disk." if "redential" in field else "Remove it."
            yield Problem(f"{path}.{field}", "A sidecar's ports do not have this.", remedy)
    yield from check_server_tls(tls, path)


def _check_address(bind: str, path: str) -> Iterator[Problem]:
    if bind and not names.is_address(bind):
        yield Problem(path, f'"{bind}" is no IP address.')


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
