"""Differences of resource sets, layer by layer."""

from hypothesis import given
from hypothesis import strategies as st
from xds_model import resource

from pilothouse.model.layers import ResourceLayer, ResourceSet, ShardedLayer
from pilothouse.model.resource import CDS
from pilothouse.model.sharding import Sharded, shard_count
from pilothouse.xds.changes import Comparison

rows = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("12"), max_size=5)


def layer_of(found):
    """Return a layer in one piece."""
    return ResourceLayer(resource(CDS, name, text) for name, text in found.items())


HOSTS = [f"h{number}.{domain}" for number in range(60) for domain in ("a", "b", "c")]


def sharded(found, others):
    """Return a layer of the same content in as many shards as so many more hosts need."""
    members = Sharded([*found, *HOSTS[:others]], str)
    shards = {
        place: layer_of({name: found[name] for name in names if name in found})
        for place, names in members.items()
    }
    return ShardedLayer(shards, members.sharding, str)


layers = st.lists(
    st.one_of(rows.map(layer_of), st.builds(sharded, rows, st.sampled_from([0, 40, 180]))),
    max_size=4,
).map(lambda made: ResourceSet(tuple(made)))


@given(st.lists(layers, min_size=2, max_size=4))
def test_by_layers_equals_by_names(sets):
    """Looking into changed layers only finds what comparing everything finds, whatever is kept."""
    comparison = Comparison()
    for old in sets:
        for new in sets:
            names = {*old, *new}
            expected = {name for name in names if old.get(name) != new.get(name)}
            found = comparison.changed_names(old, new)
            assert set(found) == expected
            assert len(found) == len(expected)


def test_unknown_sets_differ_in_everything():
    made = ResourceSet((ResourceLayer([resource(CDS, "a")]),))
    assert Comparison().changed_names(None, made) == ("a",)
    assert Comparison().changed_names(made, None) == ("a",)


@given(rows, st.sampled_from([0, 40, 100, 180]))
def test_shards_hold_what_one_piece_would(found, others):
    """A sharded layer has the names of all its shards, and finds each; nothing else."""
    whole, layer = layer_of(found), sharded(found, others)
    assert dict(layer) == dict(whole)
    assert len(layer) == len(whole)
    assert all((name in layer) == (name in whole) for name in ["", "a", "b|c", "é", *whole])


def test_shards_stay_small():
    """Each shard has 32 members at most on average, and they are as many as that needs."""
    for members in (0, 1, 32, 33, 64, 65, 1_000, 10_000):
        count = shard_count(members)
        assert members <= 32 * count
        assert count == 1 or members > 16 * count
