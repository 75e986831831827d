"""
What one egress listener of a Sidecar imports (traffic.md SC-02, 3.3).

A value made from the `hosts` of the listener, so that Sidecars that say the same share what is
worked out from it. Knows nothing of exportTo.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from pilothouse.model.hosts import matches, overlaps
from pilothouse.model.visibility import EVERYWHERE, NOWHERE, OWN_NAMESPACE


class HostEntry(NamedTuple):
    """Hosts of a namespace, or of all (``*``); `pattern` may be a wildcard."""

    namespace: str
    pattern: str


class Imports(NamedTuple):
    """Entries that import, and entries that take away again whatever imported it."""

    included: tuple[HostEntry, ...]
    excluded: tuple[HostEntry, ...] = ()

    @staticmethod
    def parse(hosts: Iterable[str], namespace: str) -> "Imports":
        """
        Read ``namespace/host`` entries as written for clients of `namespace`.

        A namespace that begins with ``~`` excludes; ``~`` alone excludes in all namespaces.
        """
        included: list[HostEntry] = []
        excluded: list[HostEntry] = []
        for text in hosts:
            owner, _, pattern = text.partition("/")
            chosen = excluded if owner.startswith(NOWHERE) else included
            owner = owner.removeprefix(NOWHERE) or EVERYWHERE
            chosen.append(
                HostEntry(namespace if owner == OWN_NAMESPACE else owner, pattern.lower())
            )
        return Imports(tuple(dict.fromkeys(included)), tuple(dict.fromkeys(excluded)))

    @property
    def namespaces(self) -> frozenset[str]:
        """The namespaces entries import from; ``*`` among them for all."""
        return frozenset(entry.namespace for entry in self.included)

    def has_service(self, namespace: str, host: str) -> bool:
        """Tell whether a service is imported: an entry must cover the whole of its host."""
        return any(
            entry.namespace in (EVERYWHERE, namespace) and matches(entry.pattern, host)
            for entry in self.included
        ) and not self._excludes(namespace, host)

    def has_rules(self, namespace: str, hosts: Iterable[str]) -> bool:
        """
        Tell whether a VirtualService is imported: an entry and one of its hosts must overlap.

        More generous than for services, as upstream (model/sidecar:VSMatches).
        """
        return any(
            any(
                entry.namespace in (EVERYWHERE, namespace) and overlaps(entry.pattern, host)
                for entry in self.included
            )
            and not self._excludes(namespace, host)
            for host in hosts
        )

    def _excludes(self, namespace: str, host: str) -> bool:
        return any(
            entry.namespace in (EVERYWHERE, namespace) and matches(entry.pattern, host)
            for entry in self.excluded
        )


EVERYTHING: Final = Imports((HostEntry(EVERYWHERE, "*"),))
"""What a listener without a Sidecar imports."""
