"""SPIFFE identities are read strictly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.model.identity import InvalidIdentity, WorkloadIdentity

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(NAMES, NAMES, NAMES)
def test_round_trip(domain: str, namespace: str, account: str) -> None:
    """Reading returns what formatted it (C-S-8)."""
    identity = WorkloadIdentity(domain, namespace, account)
    assert WorkloadIdentity.parse(str(identity)) == identity


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "spiffe://td/ns/a/sa/",
        "spiffe://td/ns//sa/b",
        "spiffe://td/ns/a/sa/b/",
        "spiffe://td/ns/a/sa/b/c",
        "spiffe://td/ns/a/sa/b?x=1",
        "spiffe://td/ns/a/sa/b#f",
        "spiffe://TD/ns/a/sa/b",
        "spiffe://td:80/ns/a/sa/b",
        "spiffe://user@td/ns/a/sa/b",
        "SPIFFE://td/ns/a/sa/b",
        "https://td/ns/a/sa/b",
        "spiffe://td/sa/b/ns/a",
        "spiffe://td/ns/a%2fb/sa/c",
        "spiffe://td/ns/../sa/c",
        "spiffe://td/ns/a/sa/b\n",
        " spiffe://td/ns/a/sa/b",
        "spiffe://td/ns/a/sa/" + "b" * 3000,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """A lenient reader is how one workload becomes another."""
    with pytest.raises(InvalidIdentity):
        WorkloadIdentity.parse(text)


def test_parts_cannot_smuggle_separators() -> None:
    """A namespace with a slash would read back as somebody else."""
    with pytest.raises(InvalidIdentity, match="is not of the form"):
        WorkloadIdentity("td", "a/sa/b", "c")
