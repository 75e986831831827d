"""A finding is one line on a terminal, whatever it quotes."""

import pytest

from pilothouse.graph.findings import ConfigRef, Finding, Severity


@pytest.mark.parametrize(
    ("quoted", "shown"),
    [
        ("refused\nerror Forged: all is lost", "refused\\nerror Forged: all is lost"),
        ("\x1b[2Jgone\r\x07", "\\x1b[2Jgone\\r\\x07"),
        ("\u202etxt.exe\u2028", "\\u202etxt.exe\\u2028"),
        ("Größe 東京", "Größe 東京"),
    ],
)
def test_what_a_proxy_says_moves_no_cursor(quoted: str, shown: str) -> None:
    """Error texts are proxies' own; they reach the operator's terminal by findings."""
    finding = Finding(Severity.ERROR, "RejectedByProxy", ConfigRef("Service", "a", "b"), quoted)
    assert str(finding) == f"error RejectedByProxy: Service a/b: {shown}"
    assert len(str(finding).splitlines()) == 1
