"""Rules across the fields of a Gateway, as Istio publishes them."""

from collections.abc import Iterator

from pilothouse.api import names
from pilothouse.api.gateway import Gateway, Server, ServerTls
from pilothouse.api.problem import Problem, port, selector

_TLS_PROTOCOLS = ("HTTPS", "TLS")


def check(row: Gateway) -> Iterator[Problem]:
    """Yield what is wrong with one Gateway."""
    spec = row.spec
    if not spec.servers:
        yield Problem("spec.servers", "A gateway needs at least one server.")
    yield from selector(spec.selector, "spec.selector")
    for index, server in enumerate(spec.servers):
        yield from _check_server(server, f"spec.servers[{index}]")


def _check_server(server: Server, path: str) -> Iterator[Problem]:
    protocol = server.port.protocol.upper()
    yield from _check_place(server, path)
    if server.tls is not None:
        yield from _check_tls(server.tls, protocol, f"{path}.tls")
    elif protocol in _TLS_PROTOCOLS:
        yield Problem(f"{path}.tls", f"A server of {protocol} needs tls.")


def _check_place(server: Server, path: str) -> Iterator[Problem]:
    yield from port(server.port.number, f"{path}.port.number")
    if server.port.protocol.upper() not in names.PROTOCOLS:
        message = f'"{server.port.protocol}" is no protocol known to the mesh.'
        yield Problem(f"{path}.port.protocol", message)
    if not server.hosts:
        yield Problem(f"{path}.hosts", "At least one host must be given.", 'Such as "*".')
    for index, text in enumerate(server.hosts):
        namespace, slash, host = text.rpartition("/")
        problem = names.host(host)
        if not problem and slash and namespace not in ("*", "."):
            problem = names.dns_label(namespace)
        if problem:
            yield Problem(f"{path}.hosts[{index}]", f'The host "{text}" {problem}.')


def _check_tls(tls: ServerTls, protocol: str, at: str) -> Iterator[Problem]:
    if protocol == "HTTP" and not tls.https_redirect and tls.mode != "PASSTHROUGH":
        yield Problem(at, "A server of HTTP has no TLS settings but httpsRedirect.")
    named = [
        field
        for field, value in (
            ("credentialName", tls.credential_name),
            ("credentialNames", tls.credential_names),
            ("tlsCertificates", tls.tls_certificates),
        )
        if value
    ]
    if len(named) > 1:
        yield Problem(at, f"Only one of {' and '.join(named)} may be set.")
    if tls.mode in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL") and protocol in _TLS_PROTOCOLS:
        if not named and not (tls.server_certificate and tls.private_key):
            message = f"TLS mode {tls.mode} needs a certificate."
            yield Problem(at, message, "Set credentialName.")
        no_ca = not (tls.ca_certificates or named)
        if tls.mode == "MUTUAL" and no_ca:
            yield Problem(at, "Mutual TLS needs caCertificates, or credentialName.")
