"""Rules across the fields of a PeerAuthentication, as Istio publishes them."""

import re
from collections.abc import Iterator
from typing import Final

from pilothouse.api import names, paths
from pilothouse.api.peer_authentication import PeerAuthentication
from pilothouse.api.problem import Problem, selector

_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
"""Only as the number is written: two keys must not name one port."""


def check(row: PeerAuthentication) -> Iterator[Problem]:
    """Yield what is wrong with one PeerAuthentication."""
    spec = row.spec
    yield from selector(spec.labels, "spec.selector.matchLabels")
    if spec.port_level_mtls and not spec.labels:
        yield Problem(
            "spec.portLevelMtls",
            "Modes of single ports need a selector: ports belong to workloads.",
            "Add spec.selector.matchLabels, or remove portLevelMtls.",
        )
    for text in spec.port_level_mtls:
        at = paths.child("spec.portLevelMtls", text)
        if not _PORT.fullmatch(text) or names.port(int(text)):
            yield Problem(at, f'"{text[:32]}" is no port number: it must be 1 to 65535.')
