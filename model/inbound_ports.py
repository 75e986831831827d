"""
The ports a workload serves, as its proxy opens them (traffic.md LS-14, SC-06 to SC-10).

Those of the services that select it, or those that a Sidecar declares in their place. What is said
of the same port by several is decided here, once; listeners and clusters are made of the result.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from pilothouse.api.destination_rule import ConnectionPool
from pilothouse.api.meta import ObjectKey
from pilothouse.api.sidecar import IngressListener, IngressTls
from pilothouse.graph.core import Ctx
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.authentication import MtlsMode
from pilothouse.model.inputs import SIDECARS
from pilothouse.model.protocols import Protocol, declared_protocol
from pilothouse.model.provenance import ServiceName, Source
from pilothouse.model.proxies import InterceptionMode, Proxy
from pilothouse.model.reserved_ports import (
    FIRST_UNPRIVILEGED_PORT,
    is_privileged,
    reserved_ports,
)
from pilothouse.model.workloads import Target

_SHARED_BINDS: Final = ("0.0.0.0", "::", "")  # noqa: S104 (Envoy's listeners, not ours)
"""Addresses that stand for all; empty is that of virtualInbound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundPort:
    """
    A port a workload serves.

    `bind` is empty for a port that is captured by virtualInbound. `endpoint` is where requests go:
    empty passes them to their original destination, else ``IP:PORT`` or ``unix://PATH``. `host` is
    the service's, empty for a Sidecar ingress port that no service has. `pool` are the limits a
    Sidecar sets (SC-10). `mtls` is what callers may do; see `pilothouse.model.classes.Inbound` for
    proxies without certificates. `tls` are the certificates a Sidecar names for the port, whose
    `protocol` is what is spoken within TLS then; see `ends_own_tls`. `services` are those whose
    requests arrive there.
    """

    port: int
    protocol: Protocol
    host: str
    service_port: int
    namespace: str
    source: Source
    bind: str = ""
    endpoint: str = ""
    pool: ConnectionPool | None = None
    mtls: MtlsMode = MtlsMode.DISABLE
    tls: IngressTls | None = None
    services: tuple[ServiceName, ...] = ()

    @property
    def ends_own_tls(self) -> bool:
        """Whether the port's own certificates are shown: not where those of the mesh are."""
        return self.tls is not None and self.mtls is MtlsMode.DISABLE


def inbound_ports(
    ctx: Ctx, proxy: Proxy, sidecar: ObjectKey | None, served: tuple[Target, ...]
) -> tuple[InboundPort, ...]:
    """Return the ports of a proxy that obeys a Sidecar and serves these targets."""
    row = ctx.row(SIDECARS, sidecar) if sidecar else None
    pool = row.spec.inbound_connection_pool if row else None
    if row is not None and row.spec.ingress:
        source = Source.of(row.meta)
        declared = (
            _ingress_port(ctx, proxy, listener, served, source.at(f"spec.ingress[{index}]"), pool)
            for index, listener in enumerate(row.spec.ingress)
        )
        return tuple(port for port in declared if port is not None)
    if proxy.interception_mode is InterceptionMode.NONE:
        return ()  # nothing brings traffic to a port that no Sidecar opens (CL-10, LS-19)
    ports: dict[int, list[Target]] = {}
    reserved = reserved_ports(ctx)
    for target in served:
        if target.number in reserved:
            ctx.report(_reserved(_place(target).ref, target.number))
        else:
            ports.setdefault(target.number, []).append(target)
    return tuple(_service_port(ctx, ports[number], pool) for number in sorted(ports))


def _service_port(ctx: Ctx, sharing: list[Target], pool: ConnectionPool | None) -> InboundPort:
    """Return the port of services that share it: it is as the oldest says (LS-14)."""
    first = sharing[0]
    for other in sharing[1:]:
        is_other = other.service.host != first.service.host
        if is_other and other.port.protocol is not first.port.protocol:
            ctx.report(_other_protocol(first, other))
    called = (each.service.called for each in sharing if each.port.number == first.port.number)
    return InboundPort(
        port=first.number,
        protocol=first.port.protocol,
        host=first.service.host,
        service_port=first.port.number,
        namespace=first.service.namespace,
        source=first.service.source,
        pool=pool,
        services=() if first.service.is_mesh_external else tuple(dict.fromkeys(called)),
    )


def _place(target: Target) -> Source:
    return target.service.source.at(f"spec.ports[port={target.port.number}]")


def _reserved(ref: ConfigRef, number: int) -> Finding:
    return Finding(
        Severity.WARNING,
        "ReservedPort",
        ref,
        f"Port {number} belongs to the proxy itself, so that it serves nothing else there.",
        "Let the workload listen on another port.",
    )


def _other_protocol(first: Target, other: Target) -> Finding:
    return Finding(
        Severity.WARNING,
        "InboundPortConflict",
        _place(other).ref,
        f"Workloads serve {first.service.host} on the same port {other.number}, and it is older, "
        f"so that requests for both are read as {first.port.protocol}, not as "
        f"{other.port.protocol}.",
        "Declare the same protocol in both, or give one of them another target port.",
    )


def _ingress_port(
    ctx: Ctx,
    proxy: Proxy,
    listener: IngressListener,
    served: tuple[Target, ...],
    source: Source,
    pool: ConnectionPool | None,
) -> InboundPort | None:
    number = listener.port.number
    target = next((t for t in served if t.number == number), None)
    is_captured = (
        listener.capture_mode != "NONE" and proxy.interception_mode is not InterceptionMode.NONE
    )
    bind = "" if is_captured else listener.bind or _own_bind(proxy)
    if bind in _SHARED_BINDS and number in reserved_ports(ctx):
        ctx.report(_reserved(source.at(f"{source.ref.path}.port.number").ref, number))
        return None
    if bind and proxy.unprivileged and is_privileged(number):
        ctx.report(_privileged(source.at(f"{source.ref.path}.port.number").ref, number))
        return None
    endpoint = _ingress_endpoint(listener.default_endpoint, proxy.ips)
    if not endpoint and not is_captured:
        ctx.report(
            Finding(
                Severity.ERROR,
                "IngressWithoutEndpoint",
                source.at(source.ref.path + ".defaultEndpoint").ref,
                "A listener that binds its own port has no original destination to pass to.",
                "Set defaultEndpoint, for example 127.0.0.1:8080.",
            )
        )
        return None
    protocol = declared_protocol(listener.port.protocol)
    return InboundPort(
        port=number,
        protocol=protocol.within_tls if listener.tls else protocol,
        host=target.service.host if target else "",
        service_port=number,
        namespace=target.service.namespace if target else proxy.namespace,
        source=source,
        bind=bind,
        endpoint=endpoint,
        pool=listener.connection_pool or pool,
        tls=listener.tls,
        services=(target.service.called,) if target and _is_inside(target) else (),
    )


def _is_inside(target: Target) -> bool:
    return not target.service.is_mesh_external


def _privileged(ref: ConfigRef, number: int) -> Finding:
    return Finding(
        Severity.WARNING,
        "PrivilegedPort",
        ref,
        f"A proxy without privileges cannot open port {number}; no listener is made.",
        f"Use a port from {FIRST_UNPRIVILEGED_PORT} on, or let the port be captured.",
    )


def _own_bind(proxy: Proxy) -> str:
    """Return where a port is opened if nothing is said: at an address others reach (SC-07)."""
    for ip in proxy.ips:
        address = ip_address(ip)
        is_local = address.is_loopback or address.is_link_local or address.is_unspecified
        if not (is_local or address.is_multicast):
            return ip
    return _SHARED_BINDS[1] if all(":" in ip for ip in proxy.ips) else _SHARED_BINDS[0]


def _ingress_endpoint(text: str, ips: tuple[str, ...]) -> str:
    """
    Return where requests go, of a family that the workload has (SC-08).

    0.0.0.0 and [::] stand for the workload's own address, 127.0.0.1 and [::1] for its loopback.
    """
    host, _, port = text.rpartition(":")
    own4 = [ip for ip in ips if ":" not in ip]
    own6 = [f"[{ip}]" for ip in ips if ":" in ip]
    match host:
        case "0.0.0.0":  # noqa: S104 (compared, not bound)
            return f"{own4[0] if own4 else '127.0.0.1'}:{port}"
        case "[::]":
            return f"{own6[0] if own6 else '[::1]'}:{port}"
        case "127.0.0.1":
            return text if own4 else f"[::1]:{port}"
        case "[::1]":
            return text if own6 else f"127.0.0.1:{port}"
    return text
