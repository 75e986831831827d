"""
How fast streams are let in if the operator asks for istiod's rate (traffic.md XP-04).

By default there is no limit: a join costs little where classes of proxies are shared, and a mesh
that starts anew should not wait for turns. Istiod's rate is there for who wants it; a burst of one
second's worth comes on top here, so that no cold start is slower than with istiod.
"""

import os
from typing import Final

_BASE: Final = 15.0
_BY_PROCESSOR: Final = 5.0
_MOST: Final = 100.0


def istiods_rate(processors: int) -> float:
    """Return streams a second."""
    return min(_BASE + _BY_PROCESSOR * processors, _MOST)


def connects_per_second(chosen: float | None) -> float | None:
    """Return the rate for what the operator chose: None is no limit, zero istiod's own."""
    if chosen == 0:
        return istiods_rate(len(os.sched_getaffinity(0)))
    return chosen
