"""Durations as Go writes them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.api.duration import Duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h2m3.5s", 3723.5),
        ("500ms", 0.5),
        ("10s", 10),
        ("24h", 86400),
        ("0", 0),
        ("0s", 0),
        (".5s", 0.5),
        ("1.5h", 5400),
        ("7us", 7e-6),
    ],
)
def test_go_text_is_read(text: str, seconds: float) -> None:
    """Numbers with units add up."""
    assert Duration.parse(text) == timedelta(seconds=seconds)
    assert isinstance(Duration.parse(text), Duration)


@pytest.mark.parametrize(
    "text", ["", "10", "s", "-1s", "1d", "1s ", "1 s", "1sx", "9" * 30 + "h", "1.s.s"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """No unit, a negative time or rubbish is a ValueError with a sentence."""
    with pytest.raises(ValueError, match="duration"):
        Duration.parse(text)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3000)))
def test_what_is_written_is_read_back(value: timedelta) -> None:
    """`str` and `parse` are inverse to the microsecond."""
    exact = Duration(value.days, value.seconds, value.microseconds)
    assert abs(Duration.parse(str(exact)) - exact) <= timedelta(microseconds=1)
