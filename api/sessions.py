"""
Sessions that stick to a workload: the labels of a service that ask for them (traffic.md K8-11).

The workload is named in a cookie or a header that the client's proxy reads and writes, so that it
is kept even while it drains. Labels of Services and of ServiceEntries alike.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from pilothouse.api import names, paths
from pilothouse.api.problem import Problem, warning

COOKIE_LABEL: Final = "istio.io/persistent-session"
HEADER_LABEL: Final = "istio.io/persistent-session-header"
DRAINING_LABEL: Final = "istio.io/draining"
"""Of a workload: with any value it drains, as far as its clients are concerned."""


class Session(NamedTuple):
    """How requests name their workload: by a `cookie` under a `path`, else by a `header`."""

    cookie: str = ""
    path: str = ""
    header: str = ""

    @property
    def problem(self) -> str:
        """What is wrong with it, the end of a sentence; empty if it can be used."""
        if self.cookie and names.header(self.cookie):
            return f'"{self.cookie}" is not a valid cookie name'
        if self.cookie and not (self.path.startswith("/") and self.path.isprintable()):
            return f'"{self.path}" is no path of a cookie'
        if self.header and names.header(self.header):
            return f'"{self.header}" {names.header(self.header)}'
        return ""


def session_of(labels: Mapping[str, str]) -> Session | None:
    """Return what a service's labels ask for, if it can be had; a cookie goes before a header."""
    found = _asked_for(labels)
    return found if found is not None and not found.problem else None


def check_sessions(labels: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what is wrong with the labels."""
    found = _asked_for(labels)
    if found is not None and found.problem:
        label = COOKIE_LABEL if labels.get(COOKIE_LABEL) else HEADER_LABEL
        yield warning(
            paths.child("metadata.labels", label),
            f"{found.problem}; sessions do not stick.",
            "Write the name of a cookie, or NAME:PATH, or the name of a header.",
        )


def _asked_for(labels: Mapping[str, str]) -> Session | None:
    cookie = labels.get(COOKIE_LABEL)
    if cookie:
        name, _, path = cookie.partition(":")
        return Session(cookie=name or ":", path=path or "/")
    header = labels.get(HEADER_LABEL)
    return Session(header=header) if header else None
