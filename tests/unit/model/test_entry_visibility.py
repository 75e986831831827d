"""How far ServiceEntries are exported at most (MC-23); what it looks like is a story."""

import pytest

from pilothouse.api.decode import decode, decode_mesh_config
from pilothouse.graph.core import Graph
from pilothouse.model.inputs import MESH_CONFIG, SERVICE_ENTRIES, THE_MESH
from pilothouse.model.services import entry_services

ENTRY = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "ServiceEntry",
    "metadata": {"name": "e", "namespace": "shop"},
    "spec": {"hosts": ["a.example"], "ports": [{"number": 80, "name": "http"}]},
}


def exported(visibility, export_to):
    """Where the entry is exported to, and the codes of findings."""
    config = decode_mesh_config({"serviceEntryVisibility": visibility})
    row = decode({**ENTRY, "spec": {**ENTRY["spec"], "exportTo": export_to}}).object
    graph = Graph()
    graph.commit([(MESH_CONFIG, THE_MESH, config.object), (SERVICE_ENTRIES, row.meta.key, row)])
    [found] = graph.value(entry_services, row.meta.key)
    return found.export_to, {each.code for each in (*config.findings, *graph.findings())}


@pytest.mark.parametrize(
    ("ceiling", "written", "left", "told"),
    [
        ("PUBLIC", ["*"], ("*",), False),
        ("VISIBILITY_UNSPECIFIED", ["*"], ("*",), False),
        ("NAMESPACE", ["*"], (".",), True),
        ("NAMESPACE", ["."], (".",), False),
        ("NAMESPACE", ["shop"], (".",), False),
        ("NAMESPACE", ["~"], ("~",), False),
        ("NAMESPACE", ["other"], ("~",), True),
        ("NONE", ["*"], ("~",), True),
        ("NONE", ["."], ("~",), True),
        ("NONE", ["~"], ("~",), False),
    ],
)
def test_the_ceiling_narrows_and_never_widens(ceiling, written, left, told) -> None:
    found, codes = exported({"applyToSidecars": True, "defaultVisibility": ceiling}, written)
    assert found == left
    assert codes == ({"VisibilityCapped"} if told else set())


def test_without_sidecars_it_is_not_for_us() -> None:
    """Upstream, too: it is for ambient proxies then, and whoever sets it is told so."""
    found, codes = exported({"defaultVisibility": "NONE"}, ["*"])
    assert found == ("*",)
    assert codes == {"FieldNotTranslated"}
