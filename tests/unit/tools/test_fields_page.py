"""The support table is whole, fresh, and claims nothing that no story or test shows."""

import sys
from pathlib import Path

import pytest

from pilothouse.api.support import LEDGER, Outcome

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))

import field_rows  # noqa: E402
import fields_page  # noqa: E402

FIELDS = [
    (message, field, fate) for message, fates in LEDGER.items() for field, fate in fates.items()
]


def test_the_page_is_fresh() -> None:
    assert fields_page.PAGE.read_text(encoding="utf-8") == fields_page.page(), "run: make docs"


def test_every_field_of_the_schema_is_on_the_page() -> None:
    text = fields_page.page()
    for message in LEDGER:
        section = text.partition(f"\n### {message.__name__.removesuffix('Spec')}\n")[2]
        section = section.partition("\n#")[0]
        for wire in message.__struct_encode_fields__:
            assert f"| `{wire}` |" in section, f"{message.__name__}.{wire}"


@pytest.mark.parametrize("message", LEDGER, ids=lambda each: each.__name__)
def test_every_field_has_a_row_and_every_translated_one_a_proof(message: type) -> None:
    for field, fate in LEDGER[message].items():
        assert field_rows.row_of(message.__name__, field), f"{field} has no row"
        if fate.outcome is Outcome.TRANSLATED:
            assert fields_page.proof_of(message, field), f"no story or test shows {field}"


def test_every_story_and_test_that_is_named_exists() -> None:
    named = {path for message, field, _ in FIELDS for path in fields_page.proof_of(message, field)}
    for path in named:
        file, _, test = path.partition("::")
        assert (ROOT / file).exists(), path
        assert not test or f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), path


def test_the_table_of_rows_names_nothing_that_is_gone() -> None:
    known = {message.__name__: set(fates) for message, fates in LEDGER.items()}
    for group in field_rows.GROUPS:
        for message, rows in group.items():
            fields = {each.split("=")[0] for each in rows.split()} - {field_rows.ALL}
            assert fields <= known[message], message
