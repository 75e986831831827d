"""A shared mapping is a dict to whoever uses it, and one thing in memory for all who have it."""

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.xds import shared_mapping
from pilothouse.xds.shared_mapping import SharedMapping

names = st.sampled_from([f"n{number}" for number in range(12)])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), names, st.integers(0, 3)),
        st.tuples(st.just("pop"), names, st.none()),
        st.tuples(st.just("fold"), st.none(), st.none()),
        st.tuples(st.just("clear"), st.none(), st.none()),
        st.tuples(st.just("update"), st.dictionaries(names, st.integers(0, 3)), st.none()),
    ),
    max_size=40,
)


def apply(target, step):
    """Do one step to a dict or a shared mapping; return what it answered."""
    action, name, value = step
    if action == "set":
        target[name] = value
    elif action == "pop":
        return target.pop(name, None)
    elif action == "update":
        target.update(name)
    elif action == "clear":
        target.clear()
    elif isinstance(target, SharedMapping):
        target.fold()
    return None


@given(st.lists(steps, min_size=1, max_size=3))
def test_it_is_a_dict(scripts):
    """Whatever is done to it, folds included, and whoever else folds the same."""
    above, shared_mapping.FOLD_ABOVE = shared_mapping.FOLD_ABOVE, 2
    try:
        kept = []
        for script in scripts:
            model, mapping = {}, SharedMapping()
            for step in script:
                assert apply(mapping, step) == apply(model, step)
                assert len(mapping) == len(model)
            kept.append((model, mapping))
        for model, mapping in kept:
            assert dict(mapping) == model
            assert {name: mapping.get(name) for name in model} == model
            assert all((f"n{number}" in mapping) == (f"n{number}" in model) for number in range(12))
    finally:
        shared_mapping.FOLD_ABOVE = above


def test_equal_ones_share_until_they_differ():
    """Proxies with the same thousand names hold one mapping, and a few differences each."""
    value = object()
    first, second = SharedMapping(), SharedMapping()
    for mapping in (first, second):
        mapping.update({f"name-{number}": value for number in range(1_000)})
        mapping.fold()
    assert first._base is second._base
    second["name-7"] = object()
    del second["name-8"]
    second.fold()
    assert first._base is second._base
    assert len(second._own) == 2
    assert first["name-7"] is value
    assert "name-8" in first
    assert "name-8" not in second


def test_nothing_is_kept_for_nobody():
    """The last holder takes the mapping with it."""
    before = len(shared_mapping._SHARED)
    mapping = SharedMapping()
    mapping.update(dict.fromkeys(map(str, range(500)), object()))
    mapping.fold()
    assert len(shared_mapping._SHARED) == before + 1
    mapping.clear()
    assert len(shared_mapping._SHARED) == before


def test_one_by_one_stays_cheap():
    """A client that names ten thousand names one at a time has few folds made."""
    folds = 0
    mapping = SharedMapping()
    for number in range(10_000):
        mapping[f"name-{number}"] = None
        base = mapping._base
        mapping.fold()
        folds += mapping._base is not base
    assert folds < 60
    assert len(mapping) == 10_000
