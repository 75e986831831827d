"""Samples of what a change cost."""

import statistics
from dataclasses import dataclass, field


@dataclass(slots=True)
class Series:
    """Samples of one quantity."""

    values: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        self.values.append(value)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p99(self) -> float:
        return sorted(self.values)[min(len(self.values) - 1, int(len(self.values) * 0.99))]


@dataclass(slots=True)
class Pushes:
    """
    What a kind of change cost; seconds and bytes.

    `whole` from the rename of the file to the last byte at the last proxy, `notice` of it until
    the commit began, `commit` the rest; `floor` the bare fan-out of the same bytes. `loop` is the
    processor time of the server's event loop until that byte has been told of.
    """

    title: str
    message_bytes: int = 0
    whole: Series = field(default_factory=Series)
    notice: Series = field(default_factory=Series)
    commit: Series = field(default_factory=Series)
    floor: Series = field(default_factory=Series)
    loop: Series = field(default_factory=Series)
    cpu: Series = field(default_factory=Series)
    floor_cpu: Series = field(default_factory=Series)
    nodes: Series = field(default_factory=Series)
