"""The ledger names every field of every message, and setting a field without effect is said."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from pilothouse.api.decode import decode, decode_mesh_config
from pilothouse.api.kinds import KINDS
from pilothouse.api.mesh_config import MeshConfig
from pilothouse.api.mesh_networks import MeshNetworks
from pilothouse.api.opaque import Opaque
from pilothouse.api.support import LEDGER, Outcome, struct_within


def _messages() -> Iterator[type[msgspec.Struct]]:
    """Every message type that an Istio object or the mesh config is made of."""
    rows = dict.fromkeys(kind.row for kind in KINDS if kind.is_istio and kind.row is not Opaque)
    waiting = [MeshConfig, MeshNetworks, *(msgspec.structs.fields(row)[1].type for row in rows)]
    seen: set[type[msgspec.Struct]] = set()
    while waiting:
        message = waiting.pop()
        if message in seen:
            continue
        seen.add(message)
        yield message
        described = inspect.type_info(message)
        assert isinstance(described, inspect.StructType)
        for field in described.fields:
            inner = struct_within(field.type)
            if inner is not None:
                waiting.append(inner)


@pytest.mark.parametrize("message", list(_messages()), ids=lambda message: message.__name__)
def test_every_field_has_a_fate(message: type[msgspec.Struct]) -> None:
    """A field is translated, read elsewhere, or reported; a new one must be put in the ledger."""
    assert set(LEDGER[message]) == set(message.__struct_fields__)


def test_the_ledger_names_no_message_that_is_gone() -> None:
    """Types that no object is made of any more leave the ledger too."""
    assert set(LEDGER) == set(_messages())


def test_a_field_without_effect_says_why() -> None:
    """The reason of a field without effect is shown to whoever set it."""
    for fates in LEDGER.values():
        for fate in fates.values():
            assert bool(fate.reason) == (fate.outcome is Outcome.NO_EFFECT)


def _rule(policy: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "r"},
        "spec": {"host": "h", "subsets": [{"name": "v1", "trafficPolicy": policy}]},
    }


def test_a_field_that_is_not_translated_is_named_with_its_path() -> None:
    """Setting such a field is a warning; the object is used without it."""
    decoded = decode(_rule({"outlierDetection": {"consecutiveErrors": 5}}))
    assert decoded.object is not None
    [finding] = decoded.findings
    assert finding.code == "FieldNotTranslated"
    assert finding.ref.path == "spec.subsets[0].trafficPolicy.outlierDetection.consecutiveErrors"


def test_a_field_set_to_its_default_is_not_worth_a_word() -> None:
    """Writing out what holds anyway changes nothing, so nothing is said."""
    assert decode(_rule({"outlierDetection": {"consecutiveErrors": 0}})).findings == ()
    assert decode_mesh_config({"enablePrometheusMerge": True}).findings == ()
    [finding] = decode_mesh_config({"enablePrometheusMerge": False}).findings
    assert finding.code == "FieldNotTranslated"
