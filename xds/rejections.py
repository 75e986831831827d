"""
Which resource a NACK is about.

Envoy refuses messages, people wrote objects: this module reads the error text of a NACK for the
names of the resources that were in the refused message. Two kinds of refusal exist (Envoy,
cds_api_impl.cc, lds_api.cc, watch_map.cc): clusters and listeners are applied one by one and the
text names those that failed; everything else (a failed constraint, a bad route table) stops the
whole message at the first fault.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pilothouse.graph.findings import ConfigRef

MAX_ERROR_LENGTH: Final = 1_024
MAX_SEARCHED_LENGTH: Final = 4 * 1024
MAX_LISTED_LENGTH: Final = 256 * 1024
"""How much of an error text is looked at: what a proxy writes must not cost minutes."""

_PARTIAL: Final = re.compile(r"Error adding/updating (cluster|listener)\(s\) ")
# A name ends where no character follows that could continue it: `a` is not in `a.b` or `a|b`.
_BEFORE: Final = r"(?<![\w|~/-])(?<!\w\.)"
_AFTER: Final = r"(?![\w|~/-])(?!\.\w)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedResource:
    """
    A resource version that a proxy refused.

    Kept until the proxy has accepted another content of it, or has no more to do with it. `error`
    is the proxy's text, at most 1 KB. `sources` are the objects that made the resource.
    """

    type_url: str
    name: str
    version: str
    error: str
    sources: tuple[ConfigRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Blame:
    """
    What a NACK tells.

    `names` are the resources at fault, as far as the text says; `is_partial` means that all others
    of the message were applied.
    """

    names: frozenset[str]
    is_partial: bool


def truncated(error: str) -> str:
    """Cut an error text to `MAX_ERROR_LENGTH` characters."""
    return error if len(error) <= MAX_ERROR_LENGTH else error[: MAX_ERROR_LENGTH - 1] + "…"


def blame(error: str, names: Iterable[str]) -> Blame:
    """
    Find which of the `names` sent an error text is about.

    Of a very long text only the beginning is read, and then it tells nothing of the names that are
    not found.
    """
    partial = _PARTIAL.search(error, 0, MAX_SEARCHED_LENGTH)
    if partial is None:
        error = error[:MAX_SEARCHED_LENGTH]
        # One fault stopped it, so two names in the text leave open which of them is at fault.
        hits = [name for name in names if name and _is_named(error, name)]
        return Blame(frozenset(hits if len(hits) == 1 else ()), is_partial=False)
    listed = error[partial.end() : MAX_LISTED_LENGTH]
    # Entries are `NAME: reason`, joined by ", " or newlines.
    entries = {entry.partition(": ")[0] for entry in re.split(", |\n", listed) if ": " in entry}
    found = frozenset(name for name in names if name in entries)
    return Blame(found, is_partial=bool(found) and len(error) <= MAX_LISTED_LENGTH)


def _is_named(error: str, name: str) -> bool:
    if name not in error:
        return False
    return re.search(_BEFORE + re.escape(name) + _AFTER, error) is not None
