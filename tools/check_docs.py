"""Check that relative links between the repository's Markdown files lead to existing files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_NOT_OURS = {".venv", ".git", "build", "node_modules"}


def broken_links(root: Path) -> list[str]:
    """Return `file: target` for each relative link whose target does not exist."""
    broken = []
    for document in sorted(root.rglob("*.md")):
        if _NOT_OURS & set(document.relative_to(root).parts):
            continue
        for target in _LINK.findall(document.read_text(encoding="utf-8")):
            if "://" in target or target.startswith("mailto:"):
                continue
            if not (document.parent / target).exists():
                broken.append(f"{document.relative_to(root)}: {target}")
    return broken


if __name__ == "__main__":
    found = broken_links(_ROOT)
    print("\n".join(found) or "all links lead somewhere")
    sys.exit(bool(found))
