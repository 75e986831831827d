"""
Checking files without a store: what `pilothouse validate` runs.

The same functions as the store's, so that both say the same.
"""

from collections.abc import Iterable

from pilothouse.graph.findings import Finding
from pilothouse.providers.directory_state import DirectoryState


def validate_texts(texts: Iterable[tuple[str, str | bytes]]) -> tuple[Finding, ...]:
    """
    Return the findings of files given as (path, content), with file and line.

    Files are looked at together, so that an object that is in two of them is found.
    """
    state = DirectoryState()
    for path, content in texts:
        state.update(path, content)
    return state.findings()
