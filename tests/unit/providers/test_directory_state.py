"""The rules of a directory: last good versions, duplicates, located findings, the mesh config."""

from typing import Any

from pilothouse.api.meta import ObjectKey
from pilothouse.graph.findings import Finding
from pilothouse.providers.directory_state import Change, DirectoryState, ObjectId
from pilothouse.providers.validate import validate_texts


def service(name: str, port: Any = 80, namespace: str = "default") -> str:
    """Return a Service as text."""
    return (
        "apiVersion: v1\nkind: Service\n"
        f"metadata:\n  name: {name}\n  namespace: {namespace}\n"
        f"spec:\n  ports:\n  - port: {port}\n"
    )


def names(changes: list[Change]) -> list[tuple[str, bool]]:
    """Return (name, whether it is there) of each change."""
    return [(each.key.name, each.row is not None) for each in changes]


def ports(state: DirectoryState) -> dict[str, int]:
    """Return the port of each Service in use."""
    return {identity.key.name: row.spec.ports[0].port for identity, row in state.rows().items()}


def codes(state: DirectoryState) -> list[str]:
    """Return the codes of the findings."""
    return [each.code for each in state.findings()]


def test_documents_of_a_file_appear_change_and_go() -> None:
    """Only what differs is a change; a file that is gone takes its objects with it."""
    state = DirectoryState()
    assert names(state.update("a.yaml", service("x") + "---\n" + service("z"))) == [
        ("x", True),
        ("z", True),
    ]
    assert state.update("a.yaml", "# moved\n" + service("x") + "---\n" + service("z")) == []
    assert names(state.update("a.yaml", service("x") + "---\n" + service("z", 81))) == [("z", True)]
    assert names(state.update("a.yaml", service("z", 81))) == [("x", False)]
    assert names(state.update("a.yaml", None)) == [("z", False)]
    assert state.rows() == {}


def test_an_unchanged_document_is_not_read_again() -> None:
    """The row of an unchanged document is the same object, not an equal one."""
    state = DirectoryState()
    state.update("a.yaml", service("x") + "---\n" + service("z"))
    identity = ObjectId("Service", ObjectKey("default", "x"))
    before = state.rows()[identity]
    state.update("a.yaml", service("x") + "---\n" + service("z", 81))
    assert state.rows()[identity] is before


def test_a_half_written_file_keeps_its_objects() -> None:
    """A document that cannot be read may have been any of the objects that are missing."""
    state = DirectoryState()
    state.update("a.yaml", service("x") + "---\n" + service("z"))
    assert state.update("a.yaml", service("x") + "---\napiVersion: v1\nkind: [Ser") == []
    assert ports(state) == {"x": 80, "z": 80}
    [finding] = state.findings()
    assert finding.code == "Unreadable"
    assert (finding.ref.file, finding.ref.line) == ("a.yaml", 11)
    assert state.update("a.yaml", service("x") + "---\n" + service("z")) == []
    assert state.findings() == ()


def test_an_empty_file_keeps_its_objects_but_comments_do_not() -> None:
    """Editors truncate before they write; somebody who comments all out means it."""
    state = DirectoryState()
    state.update("a.yaml", service("x"))
    assert state.update("a.yaml", "") == []
    assert codes(state) == ["EmptyFile"]
    assert names(state.update("a.yaml", "# nothing\n")) == [("x", False)]
    assert codes(state) == []


def test_an_invalid_object_keeps_its_last_good_version_and_the_others_move_on() -> None:
    """A bad port is found on its line, with the object's name and the field."""
    state = DirectoryState()
    state.update("a.yaml", service("x") + "---\n" + service("z"))
    changes = state.update("a.yaml", service("x", 99999) + "---\n" + service("z", 81))
    assert names(changes) == [("z", True)]
    assert ports(state) == {"x": 80, "z": 81}
    [finding] = state.findings()
    assert str(finding.ref) == "Service default/x spec.ports[0].port (a.yaml:8)"


def test_an_invalid_object_that_was_never_good_is_not_there() -> None:
    """There is no last good version to keep."""
    state = DirectoryState()
    assert state.update("a.yaml", service("x", "many: 1")) == []
    assert state.rows() == {}
    assert codes(state) == ["Unreadable"]


def test_the_first_file_by_path_owns_an_object_and_the_other_takes_over() -> None:
    """A duplicate is a finding at the one that is not used."""
    state = DirectoryState()
    state.update("b.yaml", service("x", 2))
    assert names(state.update("a.yaml", service("x", 1))) == [("x", True)]
    assert ports(state) == {"x": 1}
    [finding] = state.findings()
    assert (finding.code, finding.ref.file) == ("DuplicateObject", "b.yaml")
    assert state.update("b.yaml", service("x", 3)) == []
    assert names(state.update("a.yaml", None)) == [("x", True)]
    assert ports(state) == {"x": 3}
    assert state.findings() == ()


def test_the_same_object_twice_in_a_file_is_found() -> None:
    """The first document is used."""
    state = DirectoryState()
    state.update("a.yaml", service("x", 1) + "---\n" + service("x", 2))
    assert ports(state) == {"x": 1}
    [finding] = state.findings()
    assert (finding.code, finding.ref.line) == ("DuplicateObject", 9)


def test_lines_follow_a_document_that_moved() -> None:
    """A cached document's findings are shown where it stands now."""
    state = DirectoryState()
    text = service("x", 0)
    state.update("a.yaml", service("z") + "---\n" + text)
    [before] = state.findings()
    state.update("a.yaml", "# one\n# two\n" + service("z") + "---\n" + text)
    [after] = state.findings()
    assert after.ref.line == before.ref.line + 2


def test_items_of_a_list_are_located() -> None:
    """The line of a field of an item of `kind: List` is found too."""
    state = DirectoryState()
    item = service("x", 0).replace("\n", "\n  ").rstrip()
    state.update("a.yaml", "apiVersion: v1\nkind: List\nitems:\n- " + item + "\n")
    [finding] = state.findings()
    assert (finding.ref.name, finding.ref.line) == ("x", 11)


def test_json_is_read_and_located() -> None:
    """A JSON file holds one object or a List."""
    state = DirectoryState()
    text = '{"apiVersion": "v1", "kind": "Service",\n "metadata": {"name": "x"},\n'
    state.update("a.json", text + ' "spec": {"ports": [\n  {"port": 0}]}}')
    [finding] = state.findings()
    assert finding.ref.line == 4


def test_a_file_that_cannot_be_read_keeps_its_objects() -> None:
    """Permissions taken away are a finding."""
    state = DirectoryState()
    state.update("a.yaml", service("x"))
    assert state.fail("a.yaml", "Permission denied") == []
    assert ports(state) == {"x": 80}
    assert codes(state) == ["Unreadable"]


MESH_MAP = """apiVersion: v1
kind: ConfigMap
metadata:
  name: istio
  namespace: istio-system
data:
  mesh: |
    trustDomain: one.example
    {}
"""


def test_the_config_map_istio_is_the_mesh_config() -> None:
    """A change of it is a change of the mesh config; a broken one keeps the last good."""
    state = DirectoryState()
    changes = state.update("m.yaml", MESH_MAP.format("connectTimeout: 3s"))
    assert [each.kind for each in changes] == ["ConfigMap", "MeshConfig"]
    assert changes[1].key == ObjectKey("", "mesh")
    assert changes[1].row is not None
    assert changes[1].row.trust_domain == "one.example"
    changes = state.update("m.yaml", MESH_MAP.format("connectTimeout: 3"))
    assert [each.kind for each in changes] == ["ConfigMap"]
    [finding] = state.findings()
    assert str(finding.ref) == "MeshConfig mesh connectTimeout (m.yaml:9)"
    changes = state.update("m.yaml", None)
    assert changes[-1] == Change("MeshConfig", ObjectKey("", "mesh"), None)


def test_the_mesh_config_file_wins_over_the_config_map() -> None:
    """What is given on the command line counts, whatever the directory says."""
    state = DirectoryState()
    state.update("m.yaml", MESH_MAP.format(""))
    [change] = state.update_mesh_file("mesh.yaml", "trustDomain: two.example\n")
    assert change.row is not None
    assert change.row.trust_domain == "two.example"
    assert [each.kind for each in state.update("m.yaml", MESH_MAP.format("ingressClass: x"))] == [
        "ConfigMap"
    ]
    assert state.update_mesh_file("mesh.yaml", "trustDomain: [\n") == []
    assert "Unreadable" in codes(state)


def test_validation_says_what_the_store_says() -> None:
    """`pilothouse validate` and the store are the same functions."""
    texts = [("a.yaml", service("x", 0)), ("b.yaml", "a: [\n"), ("c.yaml", service("x"))]
    state = DirectoryState()
    for path, text in texts:
        state.update(path, text)
    found: tuple[Finding, ...] = validate_texts(texts)
    assert found == state.findings()
    assert {each.ref.file for each in found} == {"a.yaml", "b.yaml"}


def test_the_networks_of_the_config_map_and_of_a_file() -> None:
    """MN-01: a key of the ConfigMap beside the mesh config; a file wins over it."""
    text = MESH_MAP.format("") + "  meshNetworks: |\n    networks:\n      a: {{{}}}\n"
    state = DirectoryState()
    changes = state.update("m.yaml", text.format(""))
    assert [each.kind for each in changes] == ["ConfigMap", "MeshConfig", "MeshNetworks"]
    assert changes[2].row is not None
    assert set(changes[2].row.networks) == {"a"}
    state.update("m.yaml", text.format("gateways: [{port: 1}]"))
    [finding] = state.findings()
    assert str(finding.ref) == "MeshNetworks mesh networks.a.gateways[0] (m.yaml:12)"
    [change] = state.update_mesh_file("n.yaml", "networks: {b: {}}\n", "MeshNetworks")
    assert change.row is not None
    assert set(change.row.networks) == {"b"}
    changes = state.update("m.yaml", None)
    assert [each.kind for each in changes] == ["ConfigMap", "MeshConfig"]


def test_objects_of_another_revision_are_not_used() -> None:
    """K8-19: by the label istio.io/rev, which means something on objects of the Istio API only."""
    ours = service("web").replace("metadata:", "metadata:\n  labels: {istio.io/rev: canary}", 1)
    route = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: r, namespace: default, labels: {istio.io/rev: REVISION}}
spec: {hosts: [a.example], http: [{route: [{destination: {host: a.example}}]}]}
"""
    state = DirectoryState()
    changes = state.update("a.yaml", f"{ours}---{route.replace('REVISION', 'default')}")
    assert [each.kind for each in changes] == ["Service", "VirtualService"]
    [change] = state.update("a.yaml", f"{ours}---{route.replace('REVISION', 'canary')}")
    assert (change.kind, change.row) == ("VirtualService", None)
    assert codes(state) == ["AnotherRevision"]
    canary = DirectoryState(revision="canary")
    changes = canary.update("a.yaml", route.replace("REVISION", "canary"))
    assert [each.kind for each in changes] == ["VirtualService"]
