"""
What a plain YAML scalar means.

The rules are those of the tools people apply Kubernetes YAML with (sigs.k8s.io/yaml): YAML 1.1
words for true and false, octal numbers with a leading zero; but no dates and no base-60 numbers,
which stay text. Pure; both readers of YAML use this one function.
"""

import re
from typing import Final

Scalar = str | int | float | bool | None

WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE"), True),
    **dict.fromkeys(("on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE"), False),
    **dict.fromkeys(("off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
"""Plain scalars that are words for a value."""

_LONGEST_NUMBER: Final = 64
_INTEGER: Final = re.compile(
    r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[oO]?([0-7]+)|0[bB]([01]+)|(0|[1-9][0-9]*))"
)
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NUMBER_START: Final = frozenset("0123456789+-.")


def resolve(text: str) -> Scalar:
    """Return the value of a plain (unquoted, untagged) scalar."""
    if text in WORDS:
        return WORDS[text]
    if text[0] not in _NUMBER_START or len(text) > _LONGEST_NUMBER:
        return text
    digits = text if text[0] == "." else text.replace("_", "")
    whole = _INTEGER.fullmatch(digits)
    if whole is not None:
        sign, hexadecimal, octal, binary, decimal = whole.groups()
        for group, base in ((decimal, 10), (hexadecimal, 16), (octal, 8), (binary, 2)):
            if group is not None:
                return int(sign + group, base)
    if _FLOAT.fullmatch(digits) is not None:
        return float(digits)
    return text
