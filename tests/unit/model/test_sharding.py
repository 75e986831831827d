"""Shards by domain, and tuples that are held once."""

import gc
from weakref import ref

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.model.sharding import SHARD_SIZE, Sharded, shared

hosts = st.lists(
    st.builds("{}.{}".format, st.integers(0, 400), st.sampled_from(["a", "b.c", "d.svc", "e"])),
    unique=True,
    max_size=300,
)


def of(namespace: str, count: int) -> list[str]:
    """Return the hosts of a namespace."""
    return [f"s{number}.{namespace}.svc.cluster.local" for number in range(count)]


@given(hosts)
def test_every_member_is_in_its_place_and_in_order(members: list[str]) -> None:
    shards = Sharded(members, str)
    assert sorted(each for shard in shards.values() for each in shard) == sorted(members)
    for place, shard in shards.items():
        assert shard
        assert list(shard) == [host for host in members if shards.sharding.place(host) == place]


@given(hosts)
def test_few_members_are_one_shard(members: list[str]) -> None:
    few = members[:SHARD_SIZE]
    assert list(Sharded(few, str).values()) == ([tuple(few)] if few else [])


def test_a_namespace_has_the_same_shards_whatever_is_beside_it() -> None:
    """Clients that import the same namespace share its shards, but for few that collide."""
    common = of("shared", 100)
    whole = [set(Sharded(common + of(f"own{n}", 100), str).values()) for n in range(20)]
    kept = [shards & whole[0] for shards in whole[1:]]
    same = [each for each in kept if {host for shard in each for host in shard} >= set(common)]
    assert len(same) >= 12


def test_a_large_collection_has_small_shards() -> None:
    """Of one domain or of many: all are at most twice as large as meant, nearly all smaller."""
    for members in (of("one", 5_000), [each for n in range(1_000) for each in of(f"ns{n}", 3)]):
        sizes = [len(shard) for shard in Sharded(members, str).values()]
        assert max(sizes) <= 2 * SHARD_SIZE
        assert len(sizes) <= len(members) // 8


def test_equal_members_are_held_once_while_somebody_needs_them() -> None:
    class Key:
        """Something that tells when it is gone."""

    key = Key()
    first, second = shared([key, "b"]), shared(iter([key, "b"]))
    assert first is second
    assert shared([key, "c"]) != first
    gone = ref(key)
    del key, first, second
    gc.collect()
    assert gone() is None
