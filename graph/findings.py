"""
Findings: what Pilothouse has to say about somebody's config.

A finding is a value that a query reports beside its result; the graph keeps it with the node, so
that an unchanged object keeps its findings at no cost. It names the object, the field and the
remedy. Nothing here prints or logs.
"""

from dataclasses import dataclass, replace
from enum import IntEnum


class Severity(IntEnum):
    """How bad it is; orders findings, the worst last."""

    INFO = 10
    WARNING = 20
    ERROR = 30


@dataclass(frozen=True, slots=True, order=True)
class ConfigRef:
    """
    Where in somebody's config something stands.

    `path` is a field path such as ``spec.http[0].route[1].weight`` (empty: the whole object);
    `file` and `line` (1-based, 0 unknown) say where it was read, if it came from a file. `cluster`
    is where the object is from, empty for the one the config itself is from.
    """

    kind: str
    namespace: str
    name: str
    path: str = ""
    file: str = ""
    line: int = 0
    cluster: str = ""

    def at(self, path: str) -> "ConfigRef":
        """Return the same object with a field path; the line is no longer known."""
        return replace(self, path=path, line=0)

    def within(self, path: str) -> "ConfigRef":
        """Return the same object with a field path below this one."""
        return self.at(f"{self.path}.{path}" if self.path else path)

    @property
    def object_name(self) -> str:
        """``namespace/name @cluster``, without what the object has not."""
        name = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{name} @{self.cluster}".lstrip() if self.cluster else name

    def __str__(self) -> str:
        """Render as ``Kind namespace/name spec.path (file:line)``, leaving out what is unknown."""
        at = f"@{self.cluster}" if self.cluster else ""
        parts = [f"{self.kind} {self.object_name}" if self.kind else at, self.path]
        if self.file:
            parts.append(f"({self.file}:{self.line})" if self.line else f"({self.file})")
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """
    One thing to say: a stable `code`, where, and two sentences for people.

    `message` says what is the case; `remedy` what to do about it.
    """

    severity: Severity
    code: str
    ref: ConfigRef
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        """Render on one line for logs and terminals."""
        remedy = f" {self.remedy}" if self.remedy else ""
        parts = (f"{self.severity.name.lower()} {self.code}", str(self.ref), self.message + remedy)
        text = ": ".join(part for part in parts if part)
        # A proxy's refusal is quoted in it: what moves a terminal's cursor is shown, not done.
        if text.isprintable():
            return text
        return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


class Withheld(Exception):
    """Raised by a query that has no result fit to use; `finding` says why, and to whom."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding
