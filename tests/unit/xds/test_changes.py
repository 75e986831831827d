"""Differences of resource sets, layer by layer."""

from hypothesis import given
from hypothesis import strategies as st
from xds_model import resource

from pilothouse.model.resource import CDS, ResourceLayer, ResourceSet
from pilothouse.xds.changes import changed_names

layers = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from("12"), max_size=3).map(
        lambda rows: ResourceLayer(resource(CDS, name, text) for name, text in rows.items())
    ),
    max_size=4,
).map(lambda made: ResourceSet(tuple(made)))


@given(layers, layers)
def test_by_layers_equals_by_names(old, new):
    """Looking into changed layers only finds what comparing everything finds."""
    names = {*old, *new}
    expected = {name for name in names if old.get(name) != new.get(name)}
    assert set(changed_names(old, new)) == expected


def test_unknown_sets_differ_in_everything():
    made = ResourceSet((ResourceLayer([resource(CDS, "a")]),))
    assert changed_names(None, made) == changed_names(made, None) == ("a",)
