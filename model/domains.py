"""The domains a virtual host answers to: full names, short names, addresses (traffic.md 3.2)."""

from collections.abc import Iterator
from ipaddress import ip_address
from sys import intern

from pilothouse.model.services import Service


def service_domains(
    service: Service,
    aliases: tuple[str, ...],
    namespace: str,
    domain_suffix: str,
    addresses: tuple[str, ...],
) -> tuple[str, ...]:
    """
    Return the domains of a service for clients of `namespace`, without repeats.

    `aliases` are hosts of ExternalName services that stand for it. `domain_suffix` is the client's
    DNS suffix, such as ``svc.cluster.local``. `addresses` are the service's as clients see them.
    """
    domains: list[str] = []
    for host in (service.host, *aliases):
        domains.extend(host_forms(host, namespace, domain_suffix))
    if service.is_headless and service.is_kubernetes:
        domains = [form for name in domains for form in (name, f"*.{name}")]
    domains.extend(_hosts_of(addresses))
    # Interned: clients of other namespaces than the service's own share the forms.
    return tuple(dict.fromkeys(map(intern, domains)))


def host_forms(host: str, namespace: str, suffix: str) -> Iterator[str]:
    """
    Yield a host and the shorter names clients of `namespace` may call it by.

    Only hosts under `suffix` have short names; who declared them does not count.
    """
    yield host
    if host.startswith("*"):
        return
    yield f"{host}."
    if not host.endswith(f".{suffix}"):
        return
    name, _, owner = host.removesuffix(f".{suffix}").rpartition(".")
    if not name:
        return
    # The first label of the suffix ("svc") makes one more short form.
    middle = suffix.split(".", 1)[0]
    if owner == namespace:
        yield name
        yield f"{name}.{owner}.{middle}"
        yield f"{name}.{owner}"
    else:
        yield f"{name}.{owner}"
        yield f"{name}.{owner}.{middle}"


def _hosts_of(addresses: tuple[str, ...]) -> Iterator[str]:
    for vip in addresses:
        if "/" in vip or vip in ("0.0.0.0", "::"):  # noqa: S104 (compared, not bound)
            continue
        yield f"[{vip}]" if ip_address(vip).version == 6 else vip
