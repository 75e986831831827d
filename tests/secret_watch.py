"""
Looks through what a test run produced for what must not be in it: private keys and tokens.

Logs, metrics, dumps, answers and error texts all come as bytes or text. A token is found whole or
in part: a signature alone is as bad.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_PATTERNS: Final = {
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY"),
    # PKCS #8 of a P-256 key, SEC 1 of one, PKCS #8 of RSA: how their base64 begins
    "the inside of a private key": re.compile(
        rb"MIGHAgEAMBMGByqGSM49|MHcCAQEEI|MII[A-Za-z0-9+/]{3}IBADANBg"
    ),
    "a token": re.compile(rb"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}"),
}  # fmt: skip
_PART_CHARACTERS: Final = 24


class SecretWatch:
    """Knows some secrets, and how others look."""

    def __init__(self, secrets: Iterable[bytes | str] = ()) -> None:
        """`secrets` are PEM keys, tokens, or any bytes that must be seen nowhere."""
        self._parts: dict[bytes, None] = {}
        for secret in secrets:
            self.add(secret)

    def add(self, secret: bytes | str) -> None:
        """Know one more."""
        data = secret.encode() if isinstance(secret, str) else secret
        if b"-----BEGIN" in data:
            lines = [line for line in data.splitlines() if line and not line.startswith(b"-----")]
            parts = [line for line in lines[1:] if len(line) >= _PART_CHARACTERS] or lines
            self._parts[base64.b64decode(b"".join(lines))[-_PART_CHARACTERS:]] = None
        elif data.count(b".") == 2:
            parts = [data.rpartition(b".")[2]]
        else:
            parts = [data]
        self._parts.update((part[:64], None) for part in parts)

    def seen_in(self, produced: bytes | str) -> Iterator[str]:
        """Yield what is found, described without showing it."""
        data = produced.encode() if isinstance(produced, str) else produced
        for name, pattern in _PATTERNS.items():
            if pattern.search(data):
                yield name
        for number, part in enumerate(self._parts):
            if part in data:
                yield f"part {number} of the secrets of this test"

    def seen_under(self, directory: Path, *but: str) -> dict[str, list[str]]:
        """Return what is found in the files of a directory, `but` files of these names."""
        found = {
            str(file): list(self.seen_in(file.read_bytes()))
            for file in sorted(directory.rglob("*"))
            if file.is_file() and file.name not in but
        }
        return {file: names for file, names in found.items() if names}
