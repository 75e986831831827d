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
    """Find which of the `names` sent an error text is about."""
    partial = _PARTIAL.search(error)
    if partial is None:
        # One fault stopped it, so two names in the text leave open which of them is at fault.
        hits = [name for name in names if name and _is_named(error, name)]
        return Blame(frozenset(hits if len(hits) == 1 else ()), is_partial=False)
    listed = error[partial.end() :]
    found = frozenset(n for n in names if n and _is_listed(listed, n))
    return Blame(found, is_partial=bool(found))


def _is_listed(listed: str, name: str) -> bool:
    # Entries are `NAME: reason`, joined by ", " or newlines.
    if name not in listed:
        return False
    return re.search(rf"(?:^|, |\n){re.escape(name)}: ", listed) is not None


def _is_named(error: str, name: str) -> bool:
    if name not in error:
        return False
    return re.search(_BEFORE + re.escape(name) + _AFTER, error) is not None
