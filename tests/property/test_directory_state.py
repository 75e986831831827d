"""However a directory came to be as it is, its state is that of reading it afresh."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.providers.directory_state import DirectoryState, ObjectId

FILES = ("a.yaml", "b/c.yaml", "d.yml")


def service(name: str, port: int) -> str:
    """Return a Service as text."""
    return (
        "apiVersion: v1\nkind: Service\n"
        f"metadata:\n  name: {name}\nspec:\n  ports:\n  - port: {port}\n"
    )


def contents() -> st.SearchStrategy[str]:
    """Files of some Services, each with a version; never empty, never broken."""
    documents = st.builds(service, st.sampled_from(["p", "q", "r"]), st.integers(1, 3))
    return st.lists(documents, max_size=4).map(lambda each: "# config\n" + "---\n".join(each))


def edits() -> st.SearchStrategy[list[tuple[str, str | None]]]:
    """Scripts of writing and removing files."""
    return st.lists(st.tuples(st.sampled_from(FILES), st.none() | contents()), max_size=12)


def fresh(files: dict[str, str]) -> DirectoryState:
    """Read files into a new state."""
    state = DirectoryState()
    for path, text in files.items():
        state.update(path, text)
    return state


@settings(max_examples=200)
@given(edits())
def test_edits_lead_to_the_state_of_a_fresh_scan(script: list[tuple[str, str | None]]) -> None:
    """Rows, findings and the sum of all changes are those of reading the result once."""
    state = DirectoryState()
    files: dict[str, str] = {}
    summed: dict[ObjectId, Any] = {}
    for path, text in script:
        if text is None:
            files.pop(path, None)
        else:
            files[path] = text
        for change in state.update(path, text):
            identity = ObjectId(change.kind, change.key)
            assert summed.get(identity) != change.row
            summed[identity] = change.row
        assert {key: row for key, row in summed.items() if row is not None} == state.rows()
    expected = fresh(files)
    assert state.rows() == expected.rows()
    assert state.findings() == expected.findings()
    assert state.files() == expected.files()


@settings(max_examples=150)
@given(edits(), st.sampled_from(FILES), st.integers(0, 200))
def test_a_file_cut_off_anywhere_takes_nothing_away(
    script: list[tuple[str, str | None]], path: str, cut: int
) -> None:
    """Broken content keeps every object, and the next good content makes all well."""
    state = DirectoryState()
    for each, text in script:
        state.update(each, text)
    before = state.rows()
    good = dict(script).get(path)
    broken = (good or "")[:0] + "kind: [\n" + "x" * cut
    state.update(path, broken)
    assert state.rows() == before
    assert "Unreadable" in {each.code for each in state.findings()}
    state.update(path, good)
    assert state.rows() == before
