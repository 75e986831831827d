"""How fast streams are let in (traffic.md XP-04)."""

import pytest

from pilothouse.runtime.connect_rate import connects_per_second, istiods_rate
from pilothouse.xds.rate import RateLimit


@pytest.mark.parametrize(
    ("processors", "rate"), [(1, 20.0), (2, 25.0), (16, 95.0), (17, 100.0), (64, 100.0)]
)
def test_istiods_rate(processors: int, rate: float) -> None:
    """XP-04: 15 and 5 for each processor, 100 at most."""
    assert istiods_rate(processors) == rate


def test_what_the_operator_chose() -> None:
    """No limit unless asked for; zero is istiod's rate, as in its variable."""
    assert connects_per_second(None) is None
    assert connects_per_second(7.5) == 7.5
    rate = connects_per_second(0)
    assert rate is not None
    assert 20 <= rate <= 100


@pytest.mark.parametrize("processors", [1, 2, 8, 64])
def test_a_cold_start_of_a_hundred_is_no_slower_than_with_istiod(processors: int) -> None:
    """XP-04: istiod lets in one at once and then by its rate; who waits for long is refused."""
    rate = istiods_rate(processors)
    ours, arrivals = RateLimit(rate), [0.0] * 100
    let_in = [wait for now in arrivals if (wait := ours.take(now, 1.0)) is not None]
    istiods = [wait for n in range(100) if (wait := n / rate) <= 1.0]
    assert len(let_in) >= len(istiods)
    for own, theirs in zip(let_in, istiods, strict=False):
        assert own <= theirs + 1e-9
