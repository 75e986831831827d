"""
Lengths of time as people write them in config: ``1h2m3.5s``, ``500ms``, ``10s``.

Go's duration text is what Istio and Kubernetes accept; this reads it to the microsecond. Never
negative: nothing in the API means a negative time.
"""

import re
from datetime import timedelta
from typing import Final

_MICROSECONDS: Final = {
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
    "µs": 1,  # MICRO SIGN
    "μs": 1,  # GREEK SMALL LETTER MU
    "ns": 0.001,
}
_PART: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


class Duration(timedelta):
    """A length of time of zero or more, to the microsecond."""

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """
        Read Go-style text; a bare "0" is zero.

        Raises ValueError, with a sentence for people, for anything else or a negative time.
        """
        if text == "0":
            return cls()
        position, microseconds = 0, 0.0
        while position < len(text):
            part = _PART.match(text, position)
            if part is None:
                break
            number, unit = part.groups()
            if "." in number:
                microseconds += float(number) * _MICROSECONDS[unit]
            else:
                microseconds += int(number) * _MICROSECONDS[unit]
            position = part.end()
        if not text or position < len(text):
            raise ValueError(
                f'"{text}" is not a duration; write a number with a unit, such as 500ms or 1m30s'
            )
        try:
            return cls(microseconds=microseconds)
        except OverflowError:
            raise ValueError(f'"{text}" is too long for a duration') from None

    def __str__(self) -> str:
        """Render as Go does for whole seconds and as decimals otherwise: ``90s``, ``0.25s``."""
        whole, fraction = divmod(self // timedelta(microseconds=1), 1_000_000)
        decimals = f".{fraction:06d}".rstrip("0") if fraction else ""
        return f"{whole}{decimals}s"
