"""
Connections that have proved nothing yet, and how many of them there may be; no I/O.

Who has no certificate of the mesh says who it is with its first call. Until then it is a stranger,
and strangers must not use up the connections that workloads need: where there are too many, the
oldest goes of the address that has most of them.
"""

from collections.abc import Callable

from pilothouse.certs.front.half_open import HalfOpen, HalfOpens, network


class Strangers:
    """The strangers among the open connections, by name; times are seconds of any one clock."""

    def __init__(self, most: int) -> None:
        """Let `most` of them stay."""
        self._most = most
        self.clear()

    def clear(self) -> None:
        """Forget all of them."""
        self._entries: dict[str, HalfOpen] = {}
        self._crowd = HalfOpens(total=self._most, by_address=self._most, grace_seconds=0.0)

    def __len__(self) -> int:
        """Count them."""
        return len(self._entries)

    def enter(self, name: str, address: str, now: float, drop: Callable[[], None]) -> None:
        """Note a new one from ``HOST:PORT``; if they are too many, `drop` of another is called."""

        def dropped() -> None:
            self._entries.pop(name, None)
            drop()

        host = address.rpartition(":")[0].strip("[]")
        entry = self._crowd.enter(network(host), now, dropped)
        if entry is not None:
            self._entries[name] = entry

    def leave(self, name: str) -> None:
        """One is known now, or has gone."""
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._crowd.leave(entry)
