"""
What a check of one object answers with, and the checks that many kinds need.

A check looks at one object alone and yields problems; the decoder turns them into findings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from pilothouse.api import names, paths
from pilothouse.graph.findings import Severity

_SHORTEST: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong at a field path, with a remedy if one is known."""

    path: str
    message: str
    remedy: str = ""
    code: str = "InvalidConfig"
    severity: Severity = Severity.ERROR


def warning(path: str, message: str, remedy: str = "", code: str = "DoubtfulConfig") -> Problem:
    """Return a problem that does not keep the object from being used."""
    return Problem(path, message, remedy, code, Severity.WARNING)


def one_of(
    message: Any, path: str, *fields: str, required: bool = False, spelled: str = ""
) -> Iterator[Problem]:
    """Yield a problem unless at most one (if required: exactly one) of the fields is set."""
    given = [name for name in fields if getattr(message, name) not in (None, ())]
    if len(given) == 1 or not (given or required):
        return
    shown = spelled or ", ".join(_camel(name) for name in fields)
    if given:
        both = " and ".join(_camel(name) for name in given)
        yield Problem(path, f"Only one of {shown} may be set, not {both}.", "Remove the others.")
    else:
        yield Problem(path, f"One of {shown} must be set.")


def _camel(name: str) -> str:
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(part.capitalize() for part in rest)


def duration(value: timedelta | None, path: str) -> Iterator[Problem]:
    """Yield a problem if a time is given and shorter than a millisecond."""
    if value is not None and value < _SHORTEST:
        yield Problem(path, "This time must be at least 1ms.", "Leave it out to not limit.")


def percent(value: float | None, path: str) -> Iterator[Problem]:
    """Yield a problem if a share is given and not between 0 and 100."""
    if value is not None and not 0 <= value <= 100:
        yield Problem(path, f"{value:g} is not a share: it must be between 0 and 100.")


def not_negative(message: Any, path: str, *fields: str) -> Iterator[Problem]:
    """Yield a problem for each of the fields that is below zero."""
    for name in fields:
        value = getattr(message, name)
        if value is not None and value < 0:
            yield Problem(paths.child(path, _camel(name)), f"{value} must not be negative.")


def port(number: int | None, path: str, *, optional: bool = False) -> Iterator[Problem]:
    """Yield a problem if a port number is out of range; `optional`: 0 means not set."""
    if number is None or (optional and number == 0):
        return
    problem = names.port(number)
    if problem:
        yield Problem(path, f"Port {number} {problem}.")


def labels(values: dict[str, str], path: str) -> Iterator[Problem]:
    """Yield a problem for each label whose name or value no object can carry."""
    for name, value in values.items():
        at = paths.child(path, name)
        problem = names.label_name(name)
        if problem:
            yield Problem(at, f'"{name}" {problem}.')
        problem = names.label_value(value)
        if problem:
            yield Problem(at, f'"{value}" {problem}.')


def selector(values: dict[str, str], path: str) -> Iterator[Problem]:
    """Yield a problem for each label of a selector; wildcards are said to be unsupported."""
    for name, value in values.items():
        if "*" in name or "*" in value:
            yield Problem(
                paths.child(path, name),
                "A selector compares labels as they are; * has no meaning in it.",
                "Leave the label out to match any value.",
            )
        else:
            yield from labels({name: value}, path)


def export_to(
    values: Sequence[str], path: str, namespace: str, *, allows_nobody: bool = False
) -> Iterator[Problem]:
    """
    Yield problems of a visibility list: `*`, `.` or namespaces.

    Nobody (`~`) is for ServiceEntries, which are seen by the workloads that serve them.
    """
    seen: set[str] = set()
    for index, value in enumerate(values):
        at = paths.item(path, index)
        meant = namespace if value == "." else value
        if meant in seen:
            yield Problem(at, f'"{value}" is listed twice.', "Remove one.")
        seen.add(meant)
        if value in ("*", "~") and len(values) > 1:
            yield Problem(at, f'"{value}" cannot stand beside others.', f'Write ["{value}"] alone.')
        elif value == "~" and not allows_nobody:
            message = "Only a ServiceEntry can be exported to nobody."
            yield Problem(at, message, 'Write ["."] to keep it to its namespace.')
        elif value not in ("*", ".", "~"):
            problem = names.dns_label(value)
            if problem:
                yield Problem(at, f'"{value}" is no namespace: it {problem}.')


def hosts(values: Sequence[str], path: str) -> Iterator[Problem]:
    """Yield problems of a list of hosts; wildcards are allowed."""
    for index, value in enumerate(values):
        problem = names.host(value)
        if problem:
            yield Problem(paths.item(path, index), f'The host "{value}" {problem}.')
        if value in values[:index]:
            yield Problem(
                paths.item(path, index), f'The host "{value}" is listed twice.', "Remove one."
            )
