"""
Static conditions of a rule: decided for a proxy when its config is made, not per request.

Port, gateways, source labels and source namespace (traffic.md VS-13 to VS-15). What a
VirtualService reads of a proxy bounds which proxies may share its routes.
"""

from collections.abc import Iterator
from typing import Protocol

from pilothouse.api.virtual_service import HttpMatch, VirtualService
from pilothouse.translators.envoy.route_context import RouteContext


class SourceCondition(Protocol):
    """What HTTP, TLS and TCP match entries say about the client."""

    @property
    def source_labels(self) -> dict[str, str]:
        """Labels the client must have."""

    @property
    def source_namespace(self) -> str:
        """The client's namespace; empty for any."""

    @property
    def gateways(self) -> tuple[str, ...]:
        """Where the rule applies; if given, the client's labels and namespace are not asked."""


def applies(wanted: HttpMatch | None, context: RouteContext) -> bool:
    """Tell whether an entry is for this listener and client; its gateways overrule its source."""
    if wanted is None:
        return True
    if wanted.port and wanted.port != context.listener_port:
        return False
    if wanted.gateways:
        return context.gateway in wanted.gateways
    if wanted.source_namespace not in ("", context.source_namespace):
        return False
    labels = context.source_labels
    return all(labels.get(key) == value for key, value in wanted.source_labels.items())


def is_unconditional(wanted: HttpMatch | None) -> bool:
    """Tell whether an entry is for every listener and client."""
    return wanted is None or wanted.is_for_all


def source_label_keys(vs: VirtualService) -> frozenset[str]:
    """Return the label keys of the client that any rule of a VirtualService asks about."""
    return frozenset(key for entry in _asking(vs) for key in entry.source_labels)


def reads_source_namespace(vs: VirtualService) -> bool:
    """Tell whether any rule asks for the client's namespace."""
    return any(entry.source_namespace for entry in _asking(vs))


def depends_on_source(vs: VirtualService) -> bool:
    """Tell whether any rule asks who the client is."""
    return any(entry.source_labels or entry.source_namespace for entry in _asking(vs))


def _asking(vs: VirtualService) -> Iterator[SourceCondition]:
    for rules in (vs.spec.http, vs.spec.tls, vs.spec.tcp):
        for rule in rules:
            for entry in rule.match:
                if not entry.gateways:
                    yield entry
