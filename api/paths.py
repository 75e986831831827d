"""
Field paths as findings write them: ``spec.http[0].match[1].headers["x-user"]``.

One place for the spelling, so that whoever looks a path up in a file finds what a check named.
"""

import re
from typing import Final

_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def child(path: str, key: str) -> str:
    """Return the path of a member of a message or map."""
    if not _PLAIN_KEY.fullmatch(key):
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key


def item(path: str, index: int) -> str:
    """Return the path of an element of a list."""
    return f"{path}[{index}]"


def parent(path: str) -> str:
    """Return the path one step up; of a single step it is the whole object, the empty path."""
    if path.endswith('"]'):
        return path[: path.rfind('["')]
    if path.endswith("]"):
        return path[: path.rfind("[")]
    return path.rpartition(".")[0]


def join(first: str, rest: str) -> str:
    """Return the path of `rest` within what stands at `first`."""
    if not first or not rest:
        return first or rest
    return first + rest if rest.startswith("[") else f"{first}.{rest}"
