"""A graph that holds the objects of some text, for tests that ask it queries."""

from textwrap import indent

from pilothouse.graph.core import Graph
from pilothouse.model.inputs import TABLES
from pilothouse.providers.directory_state import DirectoryState


def mesh_of(text: str, mesh: str = "") -> Graph:
    """Return a graph with the objects of a YAML text, and a mesh config (YAML) if one is given."""
    if mesh:
        head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n"
        text = f"{text}\n---\n{head}data:\n  mesh: |\n{indent(mesh, '    ')}\n"
    state, graph = DirectoryState(), Graph()
    changes = state.update("mesh.yaml", text)
    graph.commit(
        (TABLES[change.kind], change.key, change.row) for change in changes if change.kind in TABLES
    )
    return graph
