"""Objects as plain data, decoded and committed to a graph: what tests of queries begin with."""

from typing import Any

from pilothouse.api.decode import decode
from pilothouse.graph.core import Graph
from pilothouse.model.inputs import TABLES


def commit(graph: Graph, *objects: dict[str, Any]) -> None:
    """Put objects into a graph; each must be usable."""
    changes = []
    for each in objects:
        decoded = decode(each)
        assert decoded.object is not None, decoded.findings
        changes.append((TABLES[decoded.ref.kind], decoded.object.meta.key, decoded.object))
    graph.commit(changes)
