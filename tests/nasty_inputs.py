"""
Config that users could write and Envoy would refuse, or nearly: each must be told about or taken.

What decoding rejects, what is withheld and what is served are all right; a refusal by Envoy is not.
"""

import re
from pathlib import Path
from typing import Final

import yaml

_TIMES: Final = re.compile(r"<(.)\*(\d+)>")


def _read() -> dict[str, str]:
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    return {
        name: _TIMES.sub(lambda found: found[1] * int(found[2]), written)
        for name, written in yaml.safe_load(text).items()
    }


INPUTS: Final = _read()
BASE: Final = INPUTS.pop("base")
"""The service that the inputs are about."""
