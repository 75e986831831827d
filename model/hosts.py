"""
Hosts: short names, wildcards, and which of two matches is the more specific (traffic.md 3.1).

Text functions only; which hosts exist is the business of `pilothouse.model.services`.
"""

from collections.abc import Iterable
from typing import Final

WILDCARD: Final = "*"


def is_wildcard(host: str) -> bool:
    """Tell whether a host stands for many."""
    return host.startswith(WILDCARD)


def resolve_short_name(host: str, namespace: str, domain: str) -> str:
    """
    Return the full name of a host as written in an object of `namespace`.

    A name without a dot is a Kubernetes service of that namespace; anything else stays, in lower
    case. Source: traffic.md VS-01, 3.1 (model/config:ResolveShortnameToFQDN).
    """
    host = host.lower()
    if not host or "." in host or host.startswith(WILDCARD):
        return host
    return f"{host}.{namespace}.svc.{domain}"


def matches(pattern: str, host: str) -> bool:
    """Tell whether a pattern (exact, ``*.suffix`` or ``*``) covers a host or narrower pattern."""
    if not pattern.startswith(WILDCARD):
        return pattern == host
    suffix = pattern[1:]
    if host.startswith(WILDCARD):
        return host[1:].endswith(suffix)
    return host.endswith(suffix) and len(host) >= len(suffix)


def specificity(pattern: str) -> tuple[int, int]:
    """Sort key: exact above wildcard, longer above shorter."""
    return (0 if pattern.startswith(WILDCARD) else 1, len(pattern))


def most_specific(patterns: Iterable[str], host: str) -> str | None:
    """Return the most specific pattern that covers `host`, None if none does."""
    found = [pattern for pattern in patterns if matches(pattern, host)]
    return max(found, key=specificity) if found else None


def overlaps(first: str, second: str) -> bool:
    """Tell whether two patterns have a host in common."""
    return matches(first, second) or matches(second, first)
